"""Lanes on the shared parts: see `tests.crash.lane`."""

from collections.abc import Callable, Iterator

import pytest

from devstack import ControlPlane, Prefect, Supabase
from tests.conftest import serve
from tests.crash.lane import Lane
from tests.e2e.conftest import installed

__all__ = ["installed"]

MakeLane = Callable[[str], Lane]


@pytest.fixture(scope="session")
def lanes_prefect() -> Iterator[Prefect]:
    """A server that does nothing to runs by itself, such as calling them late: a scene stays as it was set."""
    services = ("LATE_RUNS", "SCHEDULER", "TRIGGERS", "TASK_RUN_RECORDER")
    settings = {f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false" for service in services}
    yield from serve(Prefect.start(settings=settings))


@pytest.fixture(scope="session")
def make_lane(
    installed: ControlPlane,
    supabase_server: Supabase,
    lanes_prefect: Prefect,
    tmp_path_factory: pytest.TempPathFactory,
) -> MakeLane:
    """Makes lanes."""

    def make(name: str) -> Lane:
        kubeconfig = installed.service_account("video-recovery", "video-recovery")
        return Lane(installed, supabase_server, lanes_prefect, kubeconfig, tmp_path_factory.mktemp(name))

    return make
