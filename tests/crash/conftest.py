"""Lanes on the shared parts, each with a Prefect of its own: see `tests.crash.lane`."""

from collections.abc import Callable

import pytest

from devstack import ControlPlane, Supabase
from tests.conftest import StartPrefect
from tests.crash.lane import Lane
from tests.e2e.conftest import installed

__all__ = ["installed"]

MakeLane = Callable[[str], Lane]


@pytest.fixture(scope="module")
def make_lane(
    installed: ControlPlane,
    supabase_server: Supabase,
    start_prefect: StartPrefect,
    tmp_path_factory: pytest.TempPathFactory,
) -> MakeLane:
    """Makes lanes."""

    def make(name: str) -> Lane:
        kubeconfig = installed.service_account("video-recovery", "video-recovery")
        return Lane(installed, supabase_server, start_prefect(), kubeconfig, tmp_path_factory.mktemp(name))

    return make
