"""What the demonstration shows: headings, commands as a user would type them, and their real output."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def title(text: str) -> None:
    """Begin one of the two parts of the story."""
    print("\n" + _styled(f"{'=' * len(text)}\n{text}\n{'=' * len(text)}", "1;36"), flush=True)


def heading(text: str) -> None:
    """Begin a section of the story."""
    print("\n" + _styled(f"== {text}", "1;36"), flush=True)


def say(text: str) -> None:
    """Tell what happens."""
    print(text, flush=True)


def show_command(line: str) -> None:
    """Show a command line without running it."""
    print(_styled(f"$ {line}", "1"), flush=True)


def _styled(text: str, code: str) -> str:
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


class Shell:
    """Runs commands as a user in the project's directory would, and shows both them and what they print.

    Args:
        directory: Where commands run.
        programs: Programs by the name that a user types.
        env: More environment variables.
    """

    def __init__(self, directory: Path, programs: Mapping[str, Path], env: Mapping[str, str]) -> None:
        self._directory, self._programs = directory, programs
        self._env = {**os.environ, **env}

    def run(self, line: str, *, shown: str | None = None) -> str:
        """Show and run a command line; print and return what it prints.

        Args:
            line: The command, quoted as for a shell, but without a shell's other syntax.
            shown: What to show instead, where a shell would have filled something in.

        Raises:
            SystemExit: The command failed; the demonstration ends here.
        """
        show_command(shown or line)
        finished = self._finish(line)
        print(finished.stdout.rstrip("\n"), flush=True)
        if finished.returncode != 0:
            raise SystemExit(f"the command above failed with exit code {finished.returncode}")
        return finished.stdout

    def look(self, line: str) -> str:
        """Run a command line without showing anything; return what it prints, whether or not it failed."""
        return self._finish(line).stdout

    def _finish(self, line: str) -> subprocess.CompletedProcess[str]:
        name, *arguments = shlex.split(line)
        return subprocess.run(
            [self._programs[name], *arguments],
            cwd=self._directory,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
