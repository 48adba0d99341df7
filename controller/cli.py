"""The command line. Reads arguments and the environment, calls the rest, and turns errors into one clear line."""

import asyncio
import logging
import sys
from pathlib import Path

import click
import kopf
import stamina.instrumentation

from controller.adapters.http import log_retry
from controller.adapters.kubernetes import ClusterError
from controller.run import run_controller
from controller.settings import Settings


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="video-recovery")
def main() -> None:
    """Find videos that are stuck before processing, and retry them, once."""


@main.command()
@click.option(
    "-n",
    "--namespace",
    "namespaces",
    multiple=True,
    metavar="NAME",
    help="Watch this namespace; repeatable. Default: all.",
)
@click.option(
    "--kubeconfig",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Default: the Pod's service account, $KUBECONFIG, ~/.kube/config.",
)
@click.option("--context", metavar="NAME", help="The kubeconfig's context. Default: its current one.")
@click.option(
    "--max-concurrent-scans",
    type=click.IntRange(1, 100),
    default=4,
    show_default=True,
    help="Scans at once, each of another policy.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("-v", "--verbose", is_flag=True, help="Log each decision.")
def run(
    namespaces: tuple[str, ...],
    kubeconfig: Path | None,
    context: str | None,
    max_concurrent_scans: int,
    log_format: str,
    verbose: bool,
) -> None:
    """Run the controller: watch the policies of a cluster and recover their videos."""
    _configure_logging(as_json=log_format == "json", verbose=verbose)
    settings = Settings(tuple(dict.fromkeys(namespaces)), kubeconfig, context, max_concurrent_scans)
    try:
        asyncio.run(run_controller(settings))
    except ClusterError as error:
        click.echo(f"video-recovery: {error}", err=True)
        sys.exit(1)


def _configure_logging(*, as_json: bool, verbose: bool) -> None:
    kopf.configure(log_format=kopf.LogFormat.JSON if as_json else kopf.LogFormat.FULL, log_refkey="object")
    logging.getLogger("controller").setLevel(logging.DEBUG if verbose else logging.INFO)
    # Kopf logs two lines for each tick and each event of each policy. Its warnings and errors are worth reading.
    for chatty in ("kopf", "httpx", "kubernetes"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # Kopf silences asyncio, where the death of a task shows first.
    asyncio_logger = logging.getLogger("asyncio")
    asyncio_logger.propagate, asyncio_logger.handlers = True, []
    asyncio_logger.setLevel(logging.WARNING)
    stamina.instrumentation.set_on_retry_hooks([log_retry])
