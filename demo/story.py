"""The whole story: what needs no cluster while the API server is built, and then what needs one."""

import sys

from demo.background import background_control_plane
from demo.preparation import Preparation
from demo.screen import heading, say, title
from demo.with_cluster import show_with_cluster
from demo.without_cluster import show_without_cluster
from devstack import Stack, Unavailable


def tell(*, keep: bool) -> None:
    """Start real parts, show both parts of the story, and stop everything; with `keep`, wait for Ctrl-C before that.

    Raises:
        SystemExit: This machine cannot have what the first part needs.
    """
    try:
        _tell(keep=keep)
    except Unavailable as reason:
        sys.exit(f"The demonstration cannot run here: {reason}")


def _tell(*, keep: bool) -> None:
    heading("Setting up real parts: PostgreSQL, PostgREST, Prefect with a worker")
    with background_control_plane() as control_plane:
        prepare_services()
        with Stack.start(control_plane=False) as stack:
            say(f"Started {', '.join(f'{name} in {seconds:.1f} s' for name, seconds in stack.seconds.items())}.")
            if control_plane.building:
                say("Meanwhile the Kubernetes API server is built in the background. Only part 2 needs it.")
            title("Part 1: without a cluster, from the command line")
            show_without_cluster(stack)
            title("Part 2: with a controller in a cluster")
            try:
                cluster = control_plane.wait()
            except Unavailable as reason:
                say(f"There is no Kubernetes API server here, so this part is left out. {reason}")
                return
            show_with_cluster(stack, cluster, keep=keep)


def prepare_services() -> None:
    """Fetch what the first part needs, where that was not done before."""
    with (
        Preparation.start("postgrest", "Fetching PostgREST (once)") as postgrest,
        Preparation.start("prefect", "Installing Prefect (once)") as prefect,
    ):
        postgrest.wait_and_show()
        prefect.wait_and_show()
