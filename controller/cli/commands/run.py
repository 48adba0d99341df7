"""`run`: the controller itself, or without a cluster the scans of one policy from a file."""

import asyncio
from pathlib import Path

import click
from click.core import ParameterSource

from controller.cli.clock import read_clock
from controller.cli.errors import WrongUseError
from controller.cli.logs import configure_logging
from controller.cli.options import Where, context_option, kubeconfig_option
from controller.cli.program import program_name
from controller.cli.source import from_files
from controller.errors import ConfigurationError, ErrorReason
from controller.operator.settings import Settings
from controller.operator.standalone import LoadedPolicy, Standalone, run_standalone


@click.command()
@click.argument("name", required=False)
@click.option(
    "-f", "--filename", "files", multiple=True, metavar="FILE",
    help="Run without a cluster: the policy of this manifest, and its Secret too if there is one; repeatable.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="With -f: run one scan now, and end.")
@click.option(
    "-n",
    "--namespace",
    "namespaces",
    multiple=True,
    metavar="NAME",
    help="Watch this namespace; repeatable. Default: all.",
)
@kubeconfig_option
@context_option
@click.option(
    "--max-concurrent-scans",
    type=click.IntRange(1, 100),
    default=4,
    show_default=True,
    help="Scans at once, each of another policy.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("-v", "--verbose", is_flag=True, help="Log each decision.")
@click.pass_context
def run(
    ctx: click.Context,
    name: str | None,
    files: tuple[str, ...],
    once: bool,
    namespaces: tuple[str, ...],
    kubeconfig: Path | None,
    context: str | None,
    max_concurrent_scans: int,
    log_format: str,
    verbose: bool,
) -> None:
    """Run the controller, or one policy without a cluster.

    The controller watches the policies of a cluster and recovers their videos. With -f it needs no cluster: it runs
    the scans of one policy by the policy's schedule, or with --once a single one. Credentials come from a Secret in
    the files, else from the variables SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY and PREFECT_API_URL. A file that
    changes is read again, as it is on SIGHUP; one that cannot be used is refused with a line in the log, and the
    policy stays as it was. NAME chooses one of several policies in the files.

    SIGTERM and Ctrl-C end it once the batch under way is done.

    Exit code: 0 after SIGTERM or Ctrl-C, and with --once if nothing failed; 1 if something did, 2 for wrong use.
    """
    _refuse_wrong_use(ctx, name, files, once=once)
    configure_logging(as_json=log_format == "json", verbose=verbose)
    if files:
        _run_standalone(Where(name=name, files=files), once=once)
    else:
        from controller.operator.run import run_controller  # loads kopf and the Kubernetes client

        settings = Settings(tuple(dict.fromkeys(namespaces)), kubeconfig, context, max_concurrent_scans)
        asyncio.run(run_controller(settings))


def _refuse_wrong_use(ctx: click.Context, name: str | None, files: tuple[str, ...], *, once: bool) -> None:
    if not files:
        if once or name is not None:
            what = "--once runs" if once else f"{name} names"
            raise WrongUseError(f"{what} a policy without a cluster; write its file too: {program_name()} run -f FILE")
        return
    for parameter in ctx.command.params:
        given = ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if given and parameter.name in ("namespaces", "kubeconfig", "context", "max_concurrent_scans"):
            raise WrongUseError(
                f"{parameter.opts[-1]} is about a cluster, and -f does without one; leave one of them out"
            )
    unwatchable = next((file for file in files if not once and not _can_be_read_again(file)), None)
    if unwatchable is not None:
        raise WrongUseError(
            f"-f {unwatchable} cannot be read again when it changes; write a file's path, or add --once"
        )


def _can_be_read_again(file: str) -> bool:
    return file != "-" and not Path(file).is_fifo() and not Path(file).is_char_device()


def _run_standalone(where: Where, *, once: bool) -> None:
    def load() -> LoadedPolicy:
        try:
            source = from_files(where)
        except WrongUseError as error:
            raise ConfigurationError(error.message, reason=ErrorReason.INVALID_SPEC) from None
        return LoadedPolicy(source.manifest or {}, source.services, source.description)

    watched = () if once else tuple(Path(file) for file in where.files)
    try:
        runner = Standalone(load, watched, read_clock)
    except ConfigurationError as error:
        raise WrongUseError(error.message) from None
    if not asyncio.run(run_standalone(runner, once=once)):
        raise click.exceptions.Exit(1)
