"""The parts of the fault matrix: every service real, and a loop for the proxies between."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devstack import ControlPlane, Supabase
from tests.conftest import StartPrefect
from tests.e2e.conftest import installed  # noqa: F401 - a fixture
from tests.faults.scenario import Parts
from tests.loop import Loop


@pytest.fixture(scope="module")
def make_parts(
    installed: ControlPlane,  # noqa: F811
    supabase_server: Supabase,
    start_prefect: StartPrefect,
) -> Iterator[Callable[[], Parts]]:
    """Brings the shared parts together with a Prefect of its own: on SQLite, two that write keep each other waiting."""
    kubeconfig: Path = installed.service_account("video-recovery", "video-recovery")
    with Loop.start() as loop:

        def make() -> Parts:
            prefect = start_prefect(events=False)
            prefect.create_work_pool("video-processing")
            prefect.pretend_worker()
            return Parts(installed, supabase_server, prefect, loop, kubeconfig)

        yield make
