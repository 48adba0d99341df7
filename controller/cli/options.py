"""Options that commands have in common."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from stamina.instrumentation import set_on_retry_hooks

from controller.adapters.http import log_retry

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Where:
    """Where a command finds its policy.

    Attributes:
        name: The policy's name; `None` for the only one.
        files: Manifests to read instead of asking a cluster; `-` is standard input.
        namespace: As kubectl's `-n`.
        kubeconfig: As kubectl's `--kubeconfig`.
        context: As kubectl's `--context`.
    """

    name: str | None = None
    files: tuple[str, ...] = ()
    namespace: str | None = None
    kubeconfig: Path | None = None
    context: str | None = None

    @property
    def names_a_cluster(self) -> bool:
        """Whether something here makes sense only for a cluster."""
        return any((self.namespace, self.kubeconfig, self.context)) or (self.name is not None and not self.files)

    @property
    def cluster_arguments(self) -> str:
        """The options that lead to the same cluster again."""
        kubeconfig = f" --kubeconfig {self.kubeconfig}" if self.kubeconfig else ""
        return kubeconfig + (f" --context {self.context}" if self.context else "")


def _remember_verbose(ctx: click.Context, _parameter: click.Parameter, verbose: bool) -> None:
    if verbose:
        ctx.find_root().meta["controller.verbose"] = True
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        logging.getLogger("controller").setLevel(logging.DEBUG)


verbose_option = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    callback=_remember_verbose,
    help="Show tracebacks of errors, and retries.",
)  # fmt: skip

_name = click.argument("name", required=False)
_files = click.option(
    "-f", "--filename", "files", multiple=True, metavar="FILE",
    help="Read the policy from this manifest, and its Secret too if there is one; repeatable; - is standard input.",
)  # fmt: skip
_namespace = click.option("-n", "--namespace", metavar="NAME", help="The policy's namespace.")
kubeconfig_option = click.option(
    "--kubeconfig", type=click.Path(dir_okay=False, path_type=Path),
    help="Default: in a Pod its service account, else $KUBECONFIG or ~/.kube/config.",
)  # fmt: skip
context_option = click.option("--context", metavar="NAME", help="The kubeconfig's context. Default: its current one.")


age_option = click.option(
    "--age-minutes", type=click.IntRange(1, 525_600), metavar="N",
    help="Look for videos older than N minutes, whatever the policy says.",
)  # fmt: skip


def policy_options(command: Command) -> Command:
    """Options of a command that works with and without a cluster."""
    return _name(_files(connection_options(command)))


def cluster_options(command: Command) -> Command:
    """Options of a command that needs a policy in a cluster."""
    return _name(connection_options(command))


def connection_options(command: Command) -> Command:
    """Options that say which cluster, and where in it."""
    return _apply(command, _namespace, kubeconfig_option, context_option, verbose_option)


def _apply(command: Command, *decorators: Callable[[Command], Command]) -> Command:
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def open_runner() -> asyncio.Runner:
    """What runs the work of a command; that requests are sent again is only logged, for `-v`."""
    set_on_retry_hooks([log_retry])
    return asyncio.Runner()


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Do the work of a command in one go."""
    with open_runner() as runner:
        return runner.run(work)
