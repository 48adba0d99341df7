"""Directories for the files of one run."""

import contextlib
import fcntl
import itertools
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "video-recovery-devstack-"
_YOUNG_SECONDS = 30  # a younger one may be about to be locked


@contextmanager
def part_directory(workdir: Path | None, part: str) -> Iterator[Path]:
    """Give a new directory `workdir/PART` (or `PART-2` …), which stays, or without a `workdir` a temporary one."""
    if workdir is None:
        with temporary_directory(part) as directory:
            yield directory
    else:
        workdir.mkdir(parents=True, exist_ok=True)
        yield _new_directory(workdir.resolve(), part)


def _new_directory(workdir: Path, part: str) -> Path:
    for number in itertools.count(1):
        directory = workdir / (part if number == 1 else f"{part}-{number}")
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            continue
        return directory
    raise AssertionError("unreachable")


@contextmanager
def temporary_directory(part: str, *, uid: int | None = None) -> Iterator[Path]:
    """Give a directory that is removed at the end; user `uid`, if given, owns it and can enter it.

    What a killed program left behind is removed by the next one.
    """
    place = Path(tempfile.gettempdir() if uid is None else _enterable_temp())
    _remove_abandoned(place, {os.geteuid(), uid})
    directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{part}-", dir=place))
    lock = _lock(directory)  # until this program ends, however it ends
    try:
        if uid is not None:
            os.chown(directory, uid, uid)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _lock(directory: Path) -> int:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_abandoned(place: Path, owners: Collection[int | None]) -> None:
    for directory in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # it is in use, or gone, or not ours
            found = directory.lstat()
            if found.st_uid in owners and time.time() - found.st_mtime > _YOUNG_SECONDS:
                lock = _lock(directory)
                shutil.rmtree(directory, ignore_errors=True)
                os.close(lock)


def _enterable_temp() -> str:
    """Return the usual directory for temporary files, or /tmp where other users cannot enter that one."""
    usual = Path(tempfile.gettempdir()).resolve()
    everybody = all(place.stat().st_mode & stat.S_IXOTH for place in (usual, *usual.parents))
    return str(usual) if everybody else "/tmp"


def write_private(path: Path, content: str) -> Path:
    """Write a file that only its owner can read, and return its path."""
    path.touch(mode=0o600)
    path.chmod(0o600)  # of an older file
    path.write_text(content)
    return path
