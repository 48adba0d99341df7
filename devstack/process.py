"""Starts and stops child processes: a log file each, a readiness probe, and no survivors.

A child runs in a session of its own, so that Ctrl-C in a terminal reaches this program alone, and it dies with this
program even where that is killed. Only what was started here is ever signalled, by its own id.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from devstack.errors import Broken

_GUARD = Path(__file__).with_name("guard.py")
_POLL_SECONDS = 0.02
_TAIL_LINES = 25

# The kernel counts the *thread* that started a child as its parent. Parts start in short-lived threads, so all
# children come from this one, which lives as long as the program.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="devstack-spawner")


class Child:
    """A running child process."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", log: Path, stop_signal: int) -> None:
        self.name = name
        self.log = log
        self._process = process
        self._stop_signal = stop_signal

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        ready: Callable[[], bool] | None = None,
        timeout: float = 300,
        stop_signal: int = signal.SIGTERM,
        orphan_signal: int = signal.SIGKILL,
        uid: int | None = None,
    ) -> "Child":
        """Start `command` and wait until `ready` returns true, at most `timeout` seconds.

        `env` is the whole environment; without it the child has this program's own. `orphan_signal` is what the
        child gets when this program is gone; `uid` the user to become, which only root can ask for. Both outputs are
        appended to `log`. An exception from `ready` counts as not ready yet.

        Raises:
            Broken: the child ended early or was not ready in time; the message ends with its log.
        """
        argv = [
            *(sys.executable, "-IS", str(_GUARD)),
            *(str(os.getpid()), str(int(orphan_signal)), str(-1 if uid is None else uid)),
            *(str(word) for word in command),
        ]
        process = _spawner.submit(_spawn, argv, log, env, cwd).result()
        child = cls(name, process, log, stop_signal)
        if ready is not None:
            try:
                child.wait_until(ready, timeout=timeout)
            except BaseException:
                child.kill()
                raise
        return child

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status; `None` while the process runs."""
        return self._process.poll()

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return self.status is None

    def wait_until(self, ready: Callable[[], bool], *, timeout: float) -> None:
        """Wait until `ready` returns true, at most `timeout` seconds.

        Raises:
            Broken: as in `start`.
        """
        deadline = time.monotonic() + timeout
        error: Exception | None = None
        while self.running:
            try:
                if ready():
                    return
            except Exception as problem:  # noqa: BLE001 (a probe of something half started may fail in any way)
                error = problem
            if time.monotonic() > deadline:
                raise Broken(self._problem(f"was not ready within {timeout:.0f} s ({error or 'no answer'})"))
            time.sleep(_POLL_SECONDS)
        raise Broken(self._problem(f"ended with status {self._process.returncode} before it was ready"))

    def stop(self, grace: float = 5) -> None:
        """Ask the process to end, kill it after `grace` seconds, and with it what it left behind."""
        if self.running:
            self._process.send_signal(self._stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        self.kill()

    def kill(self) -> None:
        """Kill the process and everything in its session, at once."""
        with contextlib.suppress(ProcessLookupError):  # nothing of it is left
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def log_tail(self, lines: int = _TAIL_LINES) -> str:
        """Return the last `lines` lines of the log."""
        return tail(self.log, lines)

    def _problem(self, what: str) -> str:
        return f"{self.name} {what}; its log ({self.log}) ends with:\n{self.log_tail()}"


def tail(log: Path, lines: int = _TAIL_LINES) -> str:
    """Return the last `lines` lines of a log file."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _spawn(argv: list[str], log: Path, env: Mapping[str, str] | None, cwd: Path | None) -> "subprocess.Popen[bytes]":
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(os.environ if env is None else env),
            cwd=cwd,
            start_new_session=True,
        )
