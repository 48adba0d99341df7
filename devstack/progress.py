"""Tells a person what takes long: one line that moves on a terminal, a few lines anywhere else."""

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TextIO

_MOVE_SECONDS = 1.0
_REPEAT_SECONDS = 60.0
"""Into a file or a log of CI, where every line stays."""


class Progress:
    """What is going on, shown on one stream; several things at a time share the moving line.

    Args:
        stream: Where to show it.
        every: Seconds between two updates; by default one on a terminal, and a minute elsewhere.
    """

    def __init__(self, stream: TextIO, *, every: float | None = None) -> None:
        self.stream = stream
        self._moves = stream.isatty()
        self._every = every or (_MOVE_SECONDS if self._moves else _REPEAT_SECONDS)
        self._lock = threading.Lock()
        self._shown: dict[threading.Event, tuple[str, float]] = {}  # what goes on, and since when, by what ends it
        self._width = 0  # of the text that is on the moving line now

    @contextmanager
    def show(self, what: str, *, since: float | None = None) -> Iterator[None]:
        """Show that `what` goes on until the block ends, and then how long it took.

        `since` is when it began, by `time.monotonic`, if that was earlier.
        """
        began = time.monotonic() if since is None else since
        ended = threading.Event()
        with self._lock:
            self._shown[ended] = (what, began)
            self._update(f"{what} …")
        ticker = threading.Thread(target=self._tick, args=(what, began, ended), daemon=True)
        ticker.start()
        verb = "stopped after"
        try:
            yield
            verb = "took"
        except Exception:
            verb = "failed after"
            raise
        finally:
            ended.set()
            ticker.join()
            with self._lock:
                del self._shown[ended]
                self._keep(f"{what} {verb} {time.monotonic() - began:.0f} s")

    def _tick(self, what: str, began: float, ended: threading.Event) -> None:
        while not ended.wait(self._every):
            with self._lock:
                self._update(f"{what} … {time.monotonic() - began:.0f} s")

    def _update(self, line: str) -> None:
        """Move the line, or write another one where it cannot move."""
        if self._moves:
            self._draw()
        else:
            self._write(f"{line}\n")

    def _keep(self, line: str) -> None:
        """Write a line that stays, above the moving one."""
        self._write(f"{self._blank()}{line}\n")
        if self._shown and self._moves:
            self._draw()

    def _draw(self) -> None:
        now = time.monotonic()
        text = ", ".join(f"{what} … {now - began:.0f} s" for what, began in self._shown.values())
        text = text[: shutil.get_terminal_size().columns - 1]  # a longer one would wrap, and leave its first row behind
        self._write(self._blank() + text)
        self._width = len(text)

    def _blank(self) -> str:
        blank = f"\r{' ' * self._width}\r" if self._width else ""
        self._width = 0
        return blank

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


_of_stderr: Progress | None = None
_choice = threading.Lock()


def progress(what: str, *, since: float | None = None) -> AbstractContextManager[None]:
    """Show on standard error that `what` goes on; see `Progress.show`."""
    global _of_stderr
    with _choice:
        if _of_stderr is None or _of_stderr.stream is not sys.stderr:
            _of_stderr = Progress(sys.stderr)
        return _of_stderr.show(what, since=since)
