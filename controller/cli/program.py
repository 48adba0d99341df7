"""The program and its commands, each imported only when it is run; and errors, turned into a line or two."""

import asyncio
import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from controller.cli.console import OutputError
from controller.cli.errors import WrongUseError, in_words

COMMANDS = {
    "find": "controller.cli.commands.find:find",
    "retry": "controller.cli.commands.retry:retry",
    "explain": "controller.cli.commands.explain:explain",
    "scan": "controller.cli.commands.request:scan",
    "release": "controller.cli.commands.request:release",
    "suspend": "controller.cli.commands.suspend:suspend",
    "resume": "controller.cli.commands.suspend:resume",
    "status": "controller.cli.commands.status:status",
    "history": "controller.cli.commands.history:history",
    "doctor": "controller.cli.commands.doctor:doctor",
    "run": "controller.cli.commands.run:run",
    "completion": "controller.cli.commands.completion:completion",
}
"""Where each command is, in the order in which `--help` lists them."""

AS_PLUGIN = "kubectl-video_recovery"


class Program(click.Group):
    """The group of commands. Importing all of them takes a second; most calls need one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See `click.Group`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See `click.Group`."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; whatever it raises becomes words and an exit code."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, asyncio.CancelledError):
            # The second is what comes where something in the loop was being cancelled already when Ctrl-C came.
            click.echo("\nInterrupted.", err=True)
            ctx.exit(130)
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx is not None else ctx.command_path
            raise WrongUseError(f"{error.format_message().rstrip('.')}; see `{path} --help`") from None
        except click.ClickException:
            _trace_if_verbose(ctx)
            raise
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001 - of whatever kind, a person is told in words
            _trace_if_verbose(ctx)
            if isinstance(error, OutputError):
                _discard_output()
            raise in_words(error) from None


def _discard_output() -> None:
    """Forget what is still to be written to standard output: else Python would fail on it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _trace_if_verbose(ctx: click.Context) -> None:
    """Show how it came to the error that is handled now, where somebody wants to see it."""
    if ctx.find_root().meta.get("controller.verbose"):
        traceback.print_exc()


def program_name() -> str:
    """What the user types to run this program."""
    name = Path(sys.argv[0]).name
    return "kubectl video-recovery" if name == AS_PLUGIN else "video-recovery"


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="video-recovery")
def program() -> None:
    """Find videos that are stuck before processing, and retry them, once."""


def main(*arguments: str) -> None:
    """Run the program, with arguments from the command line unless they are given here."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal that lacks a sign still gets the rest
    program.main(list(arguments) or None, prog_name=program_name())
