"""The parts of the fault matrix: every service real, and a loop for the proxies between."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from devstack import ControlPlane, Prefect, Supabase
from tests.conftest import StartPrefect
from tests.e2e.conftest import installed  # noqa: F401 - a fixture
from tests.faults.loop import Loop
from tests.faults.world import Parts

KEEP_ALIVE_SECONDS = 20.0
"""A pool is taken for deserted after a minute without a worker."""


@contextmanager
def a_worker(prefect: Prefect) -> Iterator[None]:
    """Pretend a worker for as long as the block lasts."""
    over = threading.Event()

    def poll() -> None:
        while not over.wait(KEEP_ALIVE_SECONDS):
            prefect.pretend_worker()

    prefect.create_work_pool("video-processing")
    prefect.pretend_worker()
    thread = threading.Thread(target=poll, name="pretended worker")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture(scope="module")
def make_parts(
    installed: ControlPlane,  # noqa: F811
    supabase_server: Supabase,
    start_prefect: StartPrefect,
) -> Iterator[Callable[[], Parts]]:
    """Brings the shared parts together with a Prefect of its own: on SQLite, two that write keep each other waiting."""
    kubeconfig: Path = installed.service_account("video-recovery", "video-recovery")
    with Loop.start() as loop, ExitStack() as workers:

        def make() -> Parts:
            prefect = start_prefect(events=False)
            workers.enter_context(a_worker(prefect))
            return Parts(installed, supabase_server, prefect, loop, kubeconfig)

        yield make
