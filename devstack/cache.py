"""Builds a thing once, into a directory that all runs of this user share."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from devstack.errors import Unavailable
from devstack.process import tail
from devstack.progress import progress


def cache_root() -> Path:
    """Return the directory of this project below `XDG_CACHE_HOME`, or below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "video-recovery"


def digest(*parts: str | bytes | Path) -> str:
    """Return a short hash of texts and of files' contents."""
    total = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part.encode() if isinstance(part, str) else part
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()[:16]


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def is_built(name: str, key: str) -> bool:
    """Return whether `build_once` would find the directory filled."""
    return _target(name, key).exists()


def build_once(name: str, key: str, build: Callable[[Path], None]) -> Path:
    """Return the cache directory `NAME-KEY`, filled by `build` unless an earlier call did that.

    `build` gets an empty directory, which is moved into place only when it is complete. A second process that wants
    the same thing waits for the first one.
    """
    target = _target(name, key)
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(f"{target.name}.lock"), what=name):
        if target.exists():
            return target
        scratch = target.with_name(f"{target.name}.partial")
        shutil.rmtree(scratch, ignore_errors=True)  # of a build that was killed
        scratch.mkdir()
        try:
            with progress(f"Building {name} (once)"):
                build(scratch)
        except KeyboardInterrupt:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        scratch.rename(target)
    return target


def _target(name: str, key: str) -> Path:
    return cache_root() / f"{name}-{key}"


@contextmanager
def _locked(path: Path, *, what: str) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress(f"Waiting for another process that builds {what}"):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str] | None = None, advice: str = "") -> None:
    """Run one command of a build in `cwd`; its output goes to `build.log` there.

    Raises:
        Unavailable: it failed; the message shows the end of the log, and `advice`.
    """
    log = cwd / "build.log"
    with log.open("ab") as output:
        result = subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if result.returncode:
        words = " ".join(str(word) for word in command[:4])
        raise Unavailable(f"`{words} …` failed (status {result.returncode}). {advice}\n{tail(log)}")


def make_venv(directory: Path, *pip_arguments: str | Path, advice: str) -> None:
    """Make a virtual environment in `directory` and install into it what `pip_arguments` say.

    Start its programs as `directory/bin/python -m NAME`: the scripts beside it name the place where it was made.
    """
    run([sys.executable, "-m", "venv", directory], cwd=directory, advice="Install Python's venv module.")
    python = directory / "bin" / "python"
    run([python, "-m", "pip", "install", "--quiet", "--no-input", *pip_arguments], cwd=directory, advice=advice)
