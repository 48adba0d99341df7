"""Sandboxes on the shared parts, each with a Prefect of its own: see `tests.crash.sandbox`."""

from collections.abc import Callable

import pytest

from devstack import ControlPlane, Supabase
from tests.conftest import StartPrefect
from tests.crash.sandbox import Sandbox
from tests.e2e.conftest import installed

__all__ = ["installed"]

MakeSandbox = Callable[[str], Sandbox]


@pytest.fixture(scope="module")
def make_sandbox(
    installed: ControlPlane,
    supabase_server: Supabase,
    start_prefect: StartPrefect,
    tmp_path_factory: pytest.TempPathFactory,
) -> MakeSandbox:
    """Makes sandboxes."""

    def make(name: str) -> Sandbox:
        kubeconfig = installed.service_account("video-recovery", "video-recovery")
        return Sandbox(installed, supabase_server, start_prefect(), kubeconfig, tmp_path_factory.mktemp(name))

    return make
