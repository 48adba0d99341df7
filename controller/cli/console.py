"""What the screen shows: for people on a terminal in colour and at its width, plain and whole when piped.

Nothing of what is shown is taken for markup: names of videos come from outside.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rich.console import Console as RichConsole
from rich.status import Status
from rich.table import Table
from rich.text import Text

from controller.errors import RecoveryError

GOOD, BAD, DIM, STRONG = "green", "red", "dim", "bold"

ANY_WIDTH = 10_000
"""Columns where there is no terminal: nothing is cut or wrapped that a program reads."""


class OutputError(RecoveryError):
    """Standard output or standard error cannot be written to."""


def _console(*, error: bool) -> RichConsole:
    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else ANY_WIDTH
    return RichConsole(stderr=error, markup=False, emoji=False, highlight=False, width=width)


@dataclass(slots=True)
class Console:
    """Standard output and standard error."""

    out: RichConsole = field(default_factory=lambda: _console(error=False))
    err: RichConsole = field(default_factory=lambda: _console(error=True))

    @property
    def is_interactive(self) -> bool:
        """Whether somebody can be asked something."""
        return sys.stdin.isatty() and self.out.is_terminal

    def print(self, *parts: str | tuple[str, str]) -> None:
        """Write a line of output; a part may come with a style. Raises `OutputError`."""
        with _writing():
            self.out.print(Text.assemble(*parts), soft_wrap=True)

    def note(self, text: str) -> None:
        """Write a line beside the output, to standard error. Raises `OutputError`."""
        with _writing():
            self.err.print(Text(text, DIM), soft_wrap=True)

    def spinner(self, text: str) -> Status:
        """A sign of life, on a terminal only, for as long as the block takes."""
        return self.err.status(Text(text))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, whole: Iterable[str] = ()) -> None:
        """Write a table. Raises `OutputError`.

        Args:
            columns: Their headings.
            rows: Their cells.
            whole: The columns that are never cut or wrapped, such as ids that somebody copies.
        """
        table = Table(box=None, pad_edge=False, header_style=STRONG, padding=(0, 2, 0, 0))
        unbroken = set(whole)
        for column in columns:
            table.add_column(column, no_wrap=column in unbroken, overflow="fold")
        for row in rows:
            table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
        with self.out.capture() as captured:
            self.out.print(table)
        with _writing():
            for line in captured.get().splitlines():
                self.out.out(line.rstrip(), highlight=False)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise  # whoever reads has enough, which is no error
    except OSError as error:
        raise OutputError(f"the output cannot be written ({error.strerror})") from None


def ago(age: timedelta) -> str:
    """How long ago something was: `45m ago`, `5h12m ago`, `3d ago`."""
    return f"{span(age)} ago"


def span(time: timedelta) -> str:
    """A time in its two largest parts at most, and in days from the second one on."""
    seconds = max(0, int(time.total_seconds()))
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours >= 48:
        return f"{hours // 24}d"
    if hours:
        return f"{hours}h{minutes}m" if minutes else f"{hours}h"
    return f"{minutes}m" if minutes else f"{seconds}s"


def moment(time: datetime | None, *, now: datetime) -> str:
    """A time and how far it is: `2026-11-24 17:15 UTC (in 7m)`."""
    if time is None:
        return "never"
    distance = f"in {span(time - now)}" if time > now else ago(now - time)
    return f"{time:%Y-%m-%d %H:%M} UTC ({distance})"


def format_counts(counts: dict[str, int]) -> str:
    """Counts in one line: `ActiveFlowRun 4, BackingOff 2`."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
