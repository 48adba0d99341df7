"""The installed command line as a user runs it: a process of its own, with an environment of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import pexpect

from tests import secrets
from tests.waiting import PATIENCE

PROGRAM = Path(sys.executable).with_name("video-recovery")
PLUGIN = Path(sys.executable).with_name("kubectl-video_recovery")


@dataclass(frozen=True)
class Said:
    """What a command wrote, and how it ended."""

    code: int
    out: str
    err: str


def environment(home: Path, *more: Mapping[str, str]) -> dict[str, str]:
    """The environment of somebody who has set nothing but this: no kubeconfig, no keys of the machine's user."""
    variables = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
    for each in more:
        variables.update(each)
    return variables


def run(*arguments: str | Path, env: Mapping[str, str], program: Path = PROGRAM, stdin: str = "") -> Said:
    """Run the program to its end; whatever it writes must not show a key."""
    finished = subprocess.run(
        [program, *arguments], env=env, input=stdin, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    secrets.refuse(finished.stdout + finished.stderr, f"the output of {arguments}")
    return Said(finished.returncode, finished.stdout, finished.stderr)


_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A session on a real terminal: what was written so far, and a person who types."""

    def __init__(self, *arguments: str, env: Mapping[str, str], columns: int = 160, program: Path = PROGRAM) -> None:
        self.child: Any = pexpect.spawn(
            str(program),
            list(arguments),
            env={**env, "TERM": "xterm-256color"},
            encoding="utf-8",
            dimensions=(50, columns),
            timeout=PATIENCE,
        )
        self.raw = ""

    def wait_for(self, text: str) -> None:
        self.child.expect_exact(text)
        self.raw += self.child.before + text

    def end(self) -> int:
        """Wait for the end; return the exit code."""
        self.child.expect(pexpect.EOF)
        self.raw += self.child.before
        self.child.close()
        secrets.refuse(self.raw, "the terminal")
        code = self.child.exitstatus
        assert isinstance(code, int), f"ended by signal {self.child.signalstatus}"
        return code

    @property
    def text(self) -> str:
        return _ESCAPE.sub("", self.raw).replace("\r", "")


def video_id(number: int) -> str:
    """An id that is the same in every run."""
    return f"{0:08}-0000-4000-8000-{number:012}"


VIDEO_AGES = ("3m", "45m", "5h12m")
"""How old tests make their videos, as it is shown; give a video a few seconds more."""

LATE = timedelta(minutes=5)
"""How much older than that a video may be shown, since time goes on between its insertion and a look at it."""

GAP = "  "
"""Between two columns, at least."""

_ID = re.compile(r"(?!0{8})[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PORT = re.compile(r"(?<=127\.0\.0\.1:)\d+")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)?")
_MINUTE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC")
_RANDOM_NAME = re.compile(r"(?<=flow run )[a-z]+-[a-z]+(?![\w-])")
"""What Prefect calls a run that nobody gave a name, such as `elated-pegasus`."""

_SPAN = r"(?:\d+[dhms])+"
_DISTANCE = re.compile(rf"\((?:in {_SPAN}|{_SPAN} ago)\)|(?<=, ){_SPAN}(?= long)")
"""How far a moment is, and how long something took."""

_AGE = re.compile(rf"\b{_SPAN}(?= ago| old)|(?<=waited ){_SPAN}|(?<=longest ){_SPAN}")
"""How old a video or a condition is, and how long a video waited. A span of a policy, such as `10m`, stays."""


def stable(said: Said, *, ages: Collection[str] = VIDEO_AGES, names: Mapping[str, str] | None = None) -> str:
    """What a command wrote, both streams and its exit code, without what differs from run to run.

    See `masked`. Columns stand where they would if what is masked had been written in the first place.

    Args:
        said: What it wrote.
        ages: The ages that the test gave its videos.
        names: What else differs, such as the path of a temporary file, and what to write instead.
    """
    text = f"{said.out}--- standard error\n{said.err}--- exit code {said.code}\n"
    paragraphs = groupby(text.split("\n"), key=bool)
    return "\n".join(line for _, lines in paragraphs for line in _laid_out(list(lines), ages, names or {}))


def masked(text: str, *, ages: Collection[str] = VIDEO_AGES, names: Mapping[str, str] | None = None) -> str:
    """A text with a mask for each value that differs from run to run; a mask is the same however long the value is.

    An age shows which of the `ages` it is, or else nothing of itself.
    """
    for name, instead in (names or {}).items():
        text = text.replace(name, instead)
    text = _ID.sub("<id>", text)
    text = _MINUTE.sub("<minute>", text)
    text = _TIME.sub("<time>", text)
    text = _RANDOM_NAME.sub("<name>", text)
    text = _DISTANCE.sub(lambda match: "(<distance>)" if match[0].startswith("(") else "<distance>", text)
    text = _AGE.sub(lambda match: f"<{_known_age(match[0], ages)}>", text)
    return _PORT.sub("<port>", text)


def _known_age(shown: str, ages: Collection[str]) -> str:
    age = _span(shown)
    return next((each for each in ages if _span(each) <= age < _span(each) + LATE), "age")


def _span(text: str) -> timedelta:
    units = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
    return timedelta(**{units[unit]: int(number) for number, unit in re.findall(r"(\d+)([dhms])", text)})


def _laid_out(lines: Sequence[str], ages: Collection[str], names: Mapping[str, str]) -> list[str]:
    """The masked lines of a paragraph; the columns of a table are as wide as the masked cells need, or as they were."""
    starts = _columns(lines)
    cells = [_cells(line, starts) for line in lines]
    rows = [[masked(cell, ages=ages, names=names) for cell in row] for row in cells]
    before, after = list(zip(*cells, strict=True)), list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in after]
    for number, start in enumerate(starts[1:]):
        if before[number] == after[number]:
            widths[number] = start - starts[number] - len(GAP)
    return [GAP.join(map(str.ljust, row, widths)).rstrip(" ") for row in rows]


def _columns(lines: Sequence[str]) -> list[int]:
    """Where the columns begin: behind two spaces or more that every line has there; the first one at the very left."""
    width = max(map(len, lines))
    blank = [all(line[place : place + 1] in {"", " "} for line in lines) for place in range(width)]
    return [0, *(place for place in range(2, width) if blank[place - 2 : place + 1] == [True, True, False])]


def _cells(line: str, starts: Sequence[int]) -> list[str]:
    return [line[start:end].rstrip(" ") for start, end in zip(starts, [*starts[1:], None], strict=True)]
