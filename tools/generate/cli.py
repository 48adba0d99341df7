"""`docs/cli.md`, the reference of the command line, from the program itself.

`python -m tools.generate.cli` prints it, `--write` writes the file.
"""

from pathlib import Path

import click

from controller.cli.program import COMMANDS, program
from tools.generate.command import print_or_write

DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"

WIDTH = 100
"""Columns of the help texts, whatever terminal they are made on."""

HEADER = """\
# The command line

Generated from the program by `make generate`; change the texts there.

`video-recovery` and `kubectl video-recovery` are one program. kubectl finds it where `kubectl-video_recovery` is on the
PATH. It runs the same scans as the controller and never decides by rules of its own, so it may be used beside a running
controller.

**Where it gets its settings**, which it says on standard error:

- `NAME -n NAMESPACE` (with `--context` and `--kubeconfig` as kubectl has them): that policy of the cluster, with its
  Secret. Without NAME it is the only one.
- `-f policy.yaml`: the policy of that manifest, with the Secret of the same file or of another one (`-f secret.yaml`),
  or with the variables of the environment.
- Neither, and `SUPABASE_URL` or `SUPABASE_SERVICE_ROLE_KEY` is set: `SUPABASE_URL`, `SUPABASE_SERVICE_ROLE_KEY` and
  `PREFECT_API_URL`, if need be `PREFECT_API_KEY` or `PREFECT_API_AUTH_STRING`, and the defaults of a policy.
  `SUPABASE_SCHEMA` names another schema than `public`.
- Neither, and they are not set: the only policy of the cluster that kubectl would talk to.

**Exit codes**: 0 if nothing failed, 1 if something did, 2 for wrong use (which includes settings that are missing or
cannot be right), 130 after Ctrl-C.

**Output** goes to standard output, all else to standard error. When piped it has no colours and no bars, and nothing is
cut; `NO_COLOR` turns colours off on a terminal too. A key is never shown.
"""


def render() -> str:
    """The whole document."""
    settings = {**program.context_settings, "max_content_width": WIDTH, "terminal_width": WIDTH}
    root = click.Context(program, info_name="video-recovery", **settings)
    parts = [HEADER, _section(root, "")]
    for name in COMMANDS:
        command = program.get_command(root, name)
        if command is not None:
            context = click.Context(command, parent=root, info_name=name, terminal_width=WIDTH)
            parts.append(_section(context, f"\n## {name}\n"))
    return "".join(parts)


def _section(context: click.Context, heading: str) -> str:
    lines = (line.rstrip() for line in context.get_help().splitlines())
    return f"{heading}\n```text\n" + "\n".join(lines) + "\n```\n"


if __name__ == "__main__":
    print_or_write(render(), DOCUMENT)
