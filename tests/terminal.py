"""The installed command line as a user runs it: a process of its own, with an environment of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pexpect

from tests import secrets

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
        [program, *arguments], env=env, input=stdin, capture_output=True, text=True, timeout=120, check=False
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
            timeout=60,
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


_UUID = re.compile(r"(?!0{8})[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PORT = re.compile(r"127\.0\.0\.1:\d+")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|\+00:00| UTC)")


def video_id(number: int) -> str:
    """An id that is the same in every run."""
    return f"{0:08}-0000-4000-8000-{number:012}"


def stable(said: Said) -> str:
    """What a command wrote, both streams and its exit code, without what differs from run to run.

    Replacements are as long as what they replace, so that columns stay where they are.
    """
    text = f"{said.out}--- standard error\n{said.err}--- exit code {said.code}\n"
    text = _UUID.sub(lambda match: "flow-run".center(len(match[0]), "_"), text)
    text = _TIME.sub(lambda match: "time".center(len(match[0]), "_"), text)
    return _PORT.sub("127.0.0.1:PORT", text)
