"""`python -m demo [--keep]`: see the README."""

import argparse
import os
import sys
import time

from demo.screen import heading, say
from demo.with_cluster import show_with_cluster
from demo.without_cluster import show_without_cluster
from devstack import Stack, Unavailable
from devstack.__main__ import build
from devstack.controlplane.cluster import KUBECONFIG_VARIABLE
from devstack.controlplane.programs import find_programs


def main() -> None:
    """Start real parts, tell the story, clean up."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything running to play with, until Ctrl-C")
    keep = parser.parse_args().keep
    began = time.monotonic()
    heading("Setting up real parts: PostgreSQL, PostgREST, Prefect with a worker, a Kubernetes API server")
    try:
        build()  # says what it is doing, and what cannot be had; nothing to do the second time
        tell(keep=keep)
    except Unavailable as reason:
        sys.exit(f"The demonstration cannot run here: {reason}")
    except KeyboardInterrupt:
        say("\nInterrupted; everything that was started is stopped.")
        sys.exit(130)
    say(f"\nDone in {time.monotonic() - began:.0f} s; everything that was started is stopped.")


def tell(*, keep: bool) -> None:
    """Start the stack and tell the story that it allows."""
    missing = control_plane_missing()
    with Stack.start(control_plane=missing is None) as stack:
        seconds = ", ".join(f"{name} in {spent:.1f} s" for name, spent in stack.seconds.items())
        say(f"Started {seconds}.")
        if missing is None:
            show_with_cluster(stack, keep=keep)
        else:
            say(f"There is no Kubernetes API server here ({missing}), so the policy is run from its file.")
            show_without_cluster(stack)


def control_plane_missing() -> Unavailable | None:
    """Why no control plane can be had; `None` if one can."""
    if KUBECONFIG_VARIABLE in os.environ:
        return None
    try:
        find_programs()
    except Unavailable as reason:
        return reason
    return None


if __name__ == "__main__":
    main()
