"""The control plane of the second part of the story is built and started while the first part is shown."""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager

from demo.preparation import Preparation
from devstack import ControlPlane, Unavailable
from devstack.controlplane import KUBECONFIG_VARIABLE
from devstack.controlplane.programs import check_obtainable


class BackgroundControlPlane:
    """A control plane that will run soon, or will turn out not to be available here."""

    def __init__(self, build: Preparation | None, start: "Future[ControlPlane]") -> None:
        self._build, self._start = build, start

    @property
    def building(self) -> bool:
        """Whether its programs are still being built."""
        return self._build is not None and self._build.working

    def wait(self) -> ControlPlane:
        """Wait until it runs; show how long the build takes.

        Raises:
            Unavailable: it cannot be had, or did not start.
        """
        if self._build is not None:
            self._build.wait_and_show()
        return self._start.result()


@contextmanager
def background_control_plane() -> Iterator[BackgroundControlPlane]:
    """Build a control plane, where that was not done before, and start it; it runs until the block ends."""
    # In this order: at the end the build is stopped first, so that the thread need not wait for it.
    with ExitStack() as running, ThreadPoolExecutor(max_workers=1) as thread, ExitStack() as builds:
        build = builds.enter_context(_build()) if _can_be_built() else None

        def start() -> ControlPlane:
            if build is not None:
                build.wait()
            return running.enter_context(ControlPlane.start())

        yield BackgroundControlPlane(build, thread.submit(start))


def _can_be_built() -> bool:
    """Whether a build can help; if not, the start says what is missing, or takes the cluster that it was given."""
    if os.environ.get(KUBECONFIG_VARIABLE):
        return False
    try:
        check_obtainable()
    except Unavailable:
        return False
    return True


def _build() -> AbstractContextManager[Preparation]:
    what = "Building the Kubernetes API server (once, 5 to 10 minutes)"
    return Preparation.start("controlplane", what, niceness=5)  # what is shown meanwhile goes first
