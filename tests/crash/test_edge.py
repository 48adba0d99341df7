"""The list of steps is the list of requests: none goes to a service without passing the adapters' edge."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.adapters.instrumentation import Moment
from devstack import ControlPlane, Supabase
from tests.conftest import StartPrefect
from tests.crash.crashing_controller import CrashPlan, general
from tests.crash.harness import Harness
from tests.crash.sandbox import Sandbox
from tests.faults.scenario import Part, Parts
from tests.loop import Loop
from tests.proxy import Proxy, Request
from tests.waiting import wait_for

pytestmark = pytest.mark.crash

QUIET_SECONDS = 2.0

SERVICES = {Part.SUPABASE: "Supabase", Part.PREFECT: "Prefect", Part.KUBERNETES: "Kubernetes"}


@pytest.fixture
def parts(installed: ControlPlane, supabase_server: Supabase, start_prefect: StartPrefect) -> Iterator[Parts]:
    kubeconfig = installed.service_account("video-recovery", "video-recovery")
    with Loop.start() as loop:
        yield Parts(installed, supabase_server, start_prefect(), loop, kubeconfig)


def sandbox_behind(proxies: dict[Part, Proxy], parts: Parts, directory: Path) -> Sandbox:
    """A sandbox whose controller reaches every service through a proxy."""
    kubeconfig = parts.kubeconfig_of(proxies[Part.KUBERNETES], directory / "kubeconfig")
    sandbox = Sandbox(parts.cluster, parts.supabase, parts.prefect, kubeconfig, directory)
    addresses = {"SUPABASE_URL": proxies[Part.SUPABASE].url, "PREFECT_API_URL": f"{proxies[Part.PREFECT].url}/api"}
    sandbox.namespace.create_secret(**{**sandbox.namespace.credentials, **addresses})
    return sandbox


def is_kopfs(request: Request) -> bool:
    """Whether kopf sent it, which watches by clients of its own and does nothing else."""
    return request.headers.get("User-Agent", "").startswith("kopf/")


def wait_until_quiet(proxies: dict[Part, Proxy]) -> None:
    """Wait until the controller has sent nothing for a while."""

    def is_quiet() -> bool:
        before = sent(proxies)
        time.sleep(QUIET_SECONDS)
        return sent(proxies) == before

    wait_for(is_quiet, what="the controller to rest", seen=lambda: sent(proxies))


def sent(proxies: dict[Part, Proxy]) -> dict[Part, int]:
    """How many requests came to each proxy, but for those of kopf."""
    return {part: proxy.count(lambda request: not is_kopfs(request)) for part, proxy in proxies.items()}


def test_every_request_of_a_turn_is_a_step(parts: Parts, tmp_path: Path):
    with parts.proxies() as proxies:
        harness = Harness(sandbox_behind(proxies, parts, tmp_path), new_policies=True)
        with harness.at_work():
            wait_until_quiet(proxies)  # an earlier scan may still have something to send
            for proxy in proxies.values():
                parts.loop.call(proxy.requests.clear)
            requested = harness.begin(CrashPlan())
            assert requested.problems() == {}
            requested.wait_for_events()
            wait_until_quiet(proxies)

    noted = Counter(step.what for moment, step in harness.sandbox.plan_files.noted() if moment is Moment.BEFORE)
    came = Counter(
        general(f"{SERVICES[part]} {request.method} {request.path}")
        for part, proxy in proxies.items()
        for request in proxy.requests
        if not is_kopfs(request)
    )
    assert came == noted
    assert {what.partition(" ")[0] for what in came} == set(SERVICES.values())
    by_kopf = {request.method for request in proxies[Part.KUBERNETES].requests if is_kopfs(request)}
    assert by_kopf <= {"GET"}, "kopf writes nothing"
    harness.sandbox.assert_good_order()
