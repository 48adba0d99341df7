"""Services that restart in the middle of a scan: nothing twice, nothing lost, and the next scan heals."""

import time
from collections.abc import Callable, Iterator

import pytest

from controller.adapters.instrumentation import Moment
from devstack import ControlPlane, Prefect
from tests.crash.conftest import MakeSandbox
from tests.crash.crashing_controller import CrashPlan
from tests.crash.harness import Harness
from tests.waiting import wait_for

pytestmark = pytest.mark.crash

BEFORE, AFTER = Moment

DEPLOYMENT = "Prefect GET /api/deployments/name/process-{namespace}/production"
FLOW_RUNS = "Prefect POST /api/flow_runs/filter"
CANCELLATION = "Prefect POST /api/flow_runs/ID/set_state"
CREATION = "Prefect POST /api/deployments/ID/create_flow_run/bulk"
POLICY = "/apis/recovery.captiona.cc/v1alpha1/namespaces/{namespace}/videorecoverypolicies/NAME"
SECRET = "Kubernetes GET /api/v1/namespaces/{namespace}/secrets/captionacc-credentials"
STATUS = f"Kubernetes PUT {POLICY}/status"
EVENT = "Kubernetes POST /api/v1/namespaces/{namespace}/events"

Part = Prefect | ControlPlane
Restart = Callable[[Harness, Part], None]


def gone_for_a_moment(harness: Harness, part: Part) -> None:
    """It is killed while the controller stands still, and starts again when that has gone on for a second."""
    part.kill()
    harness.sandbox.plan_files.go_on()
    time.sleep(1)
    part.restart()


def back_already(harness: Harness, part: Part) -> None:
    """It is back before the controller goes on, and knows nothing of its connections."""
    part.kill()
    part.restart()
    harness.sandbox.plan_files.go_on()


def at_work(harness: Harness, part: Part) -> None:
    """It is killed while it does what it was asked to do."""
    harness.sandbox.plan_files.go_on()
    time.sleep(0.02)
    part.kill()
    part.restart()


@pytest.fixture(scope="module")
def harness(make_sandbox: MakeSandbox) -> Iterator[Harness]:
    harness = Harness(make_sandbox("restarts"))
    with harness.at_work():
        yield harness
    harness.sandbox.assert_good_order()


PREFECT = [
    pytest.param(DEPLOYMENT, 0, AFTER, gone_for_a_moment, id="when it has told of the deployment"),
    pytest.param(FLOW_RUNS, 1, BEFORE, gone_for_a_moment, id="in the middle of the index"),
    pytest.param(CREATION, 0, BEFORE, gone_for_a_moment, id="before the first recoveries are created"),
    pytest.param(CREATION, 0, BEFORE, at_work, id="while the first recoveries are created"),
    pytest.param(CREATION, 1, AFTER, gone_for_a_moment, id="when two batches are created"),
    pytest.param(CREATION, 1, BEFORE, back_already, id="for a moment between two batches"),
    pytest.param(CANCELLATION, 0, BEFORE, at_work, id="while it stops an abandoned run"),
    pytest.param(CANCELLATION, 0, AFTER, gone_for_a_moment, id="when it has been asked to stop an abandoned run"),
]


@pytest.mark.parametrize(("step", "place", "moment", "restart"), PREFECT)
def test_prefect_restarts(harness: Harness, step: str, place: int, moment: Moment, restart: Restart):
    restarts(harness, harness.sandbox.prefect, CrashPlan(step, place, moment, "pause"), restart)


KUBERNETES = [
    pytest.param(SECRET, 0, BEFORE, gone_for_a_moment, id="before the Secret is read"),
    pytest.param(CREATION, 0, AFTER, back_already, id="between two batches"),
    pytest.param(STATUS, 0, BEFORE, gone_for_a_moment, id="before the status is written"),
    pytest.param(STATUS, 0, BEFORE, back_already, id="for a moment before the status is written"),
    pytest.param(STATUS, 0, BEFORE, at_work, id="while the status is written"),
    pytest.param(STATUS, 0, AFTER, gone_for_a_moment, id="when the status is written"),
    pytest.param(EVENT, 0, AFTER, gone_for_a_moment, id="when the first Event is posted"),
]


@pytest.mark.parametrize(("step", "place", "moment", "restart"), KUBERNETES)
def test_the_api_server_restarts(
    cluster: ControlPlane, harness: Harness, step: str, place: int, moment: Moment, restart: Restart
):
    if not cluster.own:
        pytest.skip("this cluster belongs to somebody else")
    restarts(harness, cluster, CrashPlan(step, place, moment, "pause"), restart)


def restarts(harness: Harness, part: Part, plan: CrashPlan, restart: Restart) -> None:
    """A part restarts in the middle of a scan; after one more scan all is as after a single good one."""
    general = CrashPlan(plan.what.format(namespace=harness.sandbox.name), plan.place, plan.moment, plan.action)
    requested = harness.begin(general)
    files = harness.sandbox.plan_files
    wait_for(lambda: files.reached, what=plan.what, seen=files.noted)

    restart(harness, part)
    requested.wait()

    problems = requested.again().problems()
    assert problems.pop("scans", None) == (2, 1)
    assert problems == {}, problems
    assert harness.controller.is_alive()
