"""Builds or fetches a part of the stack in the background, while the demonstration shows what is there already."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devstack import Unavailable
from devstack.process import Child
from devstack.progress import progress
from devstack.workdir import temporary_directory

PROJECT = Path(__file__).resolve().parent.parent
_POLL_SECONDS = 0.05


class Preparation:
    """`python -m devstack build PART`, as a process of its own that ends with the `with` block or with this program."""

    def __init__(self, what: str, child: Child) -> None:
        self._what, self._child = what, child
        self._began = time.monotonic()

    @classmethod
    @contextmanager
    def start(cls, part: str, what: str, *, niceness: int = 0) -> Iterator["Preparation"]:
        """Begin to prepare a part of the stack.

        Args:
            part: One that `python -m devstack build` knows.
            what: Tells a person what goes on.
            niceness: As for `nice`: the higher, the more everything else goes first.
        """
        with temporary_directory("build") as directory:
            child = Child.start(
                f"the build of {part}",
                ["nice", "-n", str(niceness), sys.executable, "-m", "devstack", "build", part],
                log=directory / "build.log",
                cwd=PROJECT,
                orphan_signal=signal.SIGTERM,  # it removes what it has built so far
            )
            try:
                yield cls(what, child)
            finally:
                child.stop()

    @property
    def working(self) -> bool:
        """Whether it fetches or builds something now; it logs nothing for a part that was prepared before."""
        return self._child.running and self._child.log.stat().st_size > 0

    def wait(self) -> None:
        """Wait until the part is there.

        Raises:
            Unavailable: it cannot be had; the message is what the build printed.
        """
        while self._child.running:
            time.sleep(_POLL_SECONDS)
        if self._child.status:
            raise Unavailable(f"{self._what} failed:\n{self._child.log_tail()}")

    def wait_and_show(self) -> None:
        """Wait until the part is there, and show how long that takes, unless it was there before.

        Raises:
            Unavailable: as in `wait`.
        """
        while self._child.running and not self.working:
            time.sleep(_POLL_SECONDS)
        if self.working:
            with progress(self._what, since=self._began):
                self.wait()
        self.wait()
