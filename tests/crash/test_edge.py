"""The list of steps is the list of requests: none goes to a service without passing the adapters' edge."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.adapters.instrumentation import Moment
from devstack import ControlPlane, Supabase
from tests.conftest import StartPrefect
from tests.crash.dying import Plan, general
from tests.crash.lane import Lane
from tests.crash.play import Play
from tests.faults.loop import Loop
from tests.faults.world import Part, Parts
from tests.proxy import Proxy, Request

pytestmark = pytest.mark.crash

SERVICES = {Part.SUPABASE: "Supabase", Part.PREFECT: "Prefect", Part.KUBERNETES: "Kubernetes"}


@pytest.fixture
def parts(installed: ControlPlane, supabase_server: Supabase, start_prefect: StartPrefect) -> Iterator[Parts]:
    kubeconfig = installed.service_account("video-recovery", "video-recovery")
    with Loop.start() as loop:
        yield Parts(installed, supabase_server, start_prefect(), loop, kubeconfig)


def lane_behind(proxies: dict[Part, Proxy], parts: Parts, directory: Path) -> Lane:
    """A lane whose controller reaches every service through a proxy."""
    kubeconfig = parts.kubeconfig_of(proxies[Part.KUBERNETES], directory / "kubeconfig")
    lane = Lane(parts.cluster, parts.supabase, parts.prefect, kubeconfig, directory)
    addresses = {"SUPABASE_URL": proxies[Part.SUPABASE].url, "PREFECT_API_URL": f"{proxies[Part.PREFECT].url}/api"}
    lane.namespace.create_secret(**{**lane.namespace.credentials, **addresses})
    return lane


def is_kopfs(request: Request) -> bool:
    """Whether kopf sent it, which watches by clients of its own and does nothing else."""
    return request.headers.get("User-Agent", "").startswith("kopf/")


def test_every_request_of_a_turn_is_a_step(parts: Parts, tmp_path: Path):
    with parts.proxies() as proxies:
        play = Play(lane_behind(proxies, parts, tmp_path), new_policies=True)
        with play.at_work():
            time.sleep(1)  # what an earlier scan still sends
            for proxy in proxies.values():
                parts.loop.call(proxy.requests.clear)
            assert play.begin(Plan()).problems() == {}
            time.sleep(1)

    sent = Counter(step.what for moment, step in play.lane.script.noted() if moment is Moment.BEFORE)
    came = Counter(
        general(f"{SERVICES[part]} {request.method} {request.path}")
        for part, proxy in proxies.items()
        for request in proxy.requests
        if not is_kopfs(request)
    )
    assert came == sent
    assert {what.partition(" ")[0] for what in came} == set(SERVICES.values())
    by_kopf = {request.method for request in proxies[Part.KUBERNETES].requests if is_kopfs(request)}
    assert by_kopf <= {"GET", "PATCH"}, "kopf writes nothing but its finalizer"
    play.lane.assert_good_order()
