"""`completion`: the script for a shell, and the answers to kubectl, which completes its plugins' commands."""

import sys

import click
from click.shell_completion import ShellComplete, get_completion_class

from controller.cli.program import program

PROGRAM = "video-recovery"
VARIABLE = "_VIDEO_RECOVERY_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  source <(video-recovery completion bash)
    zsh:   source <(video-recovery completion zsh)
    fish:  video-recovery completion fish | source

    Put that line into ~/.bashrc, ~/.zshrc or ~/.config/fish/config.fish to have it in every shell. The completion of
    kubectl itself completes `kubectl video-recovery` where kubectl_complete-video_recovery is on the PATH.
    """  # noqa: D301 - click wants the character
    made = get_completion_class(shell)
    if made is None:
        raise click.ClickException(f"there is no completion for {shell}")
    click.echo(made(ctx.find_root().command, {}, PROGRAM, VARIABLE).source())


NO_FILES = ":4"
"""Kubectl's word for: complete nothing else (https://pkg.go.dev/github.com/spf13/cobra#ShellCompDirective)."""


def complete_for_kubectl() -> None:
    """Answer kubectl, which asks `kubectl_complete-video_recovery` with the words that were typed."""
    *before, incomplete = sys.argv[1:] or [""]
    found = ShellComplete(program, {}, PROGRAM, VARIABLE).get_completions(before, incomplete)
    for item in found:
        if item.type == "plain":
            click.echo(f"{item.value}\t{item.help}" if item.help else item.value)
    click.echo(NO_FILES if any(item.type == "plain" for item in found) else ":0")
