"""SIGKILL before and after every step of a scan: the next controller finishes the work, once, and tells the truth."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

import pytest

from controller.adapters.instrumentation import Moment
from tests.crash.conftest import MakeSandbox
from tests.crash.crashing_controller import CrashPlan, Step, is_event
from tests.crash.harness import Harness, Problems, RequestedScan
from tests.waiting import wait_for

pytestmark = pytest.mark.crash

POLICY = "/apis/recovery.captiona.cc/v1alpha1/namespaces/{namespace}/videorecoverypolicies/NAME"
EVENT = "Kubernetes POST /api/v1/namespaces/{namespace}/events"
KINDS = {
    "the policy": f"Kubernetes GET {POLICY}",
    "a Secret": "Kubernetes GET /api/v1/namespaces/{namespace}/secrets/captionacc-credentials",
    "rows": "Supabase GET /rest/v1/videos",
    "the deployment": "Prefect GET /api/deployments/name/process-{namespace}/production",
    "its work pool": "Prefect GET /api/work_pools/{namespace}",
    "flow runs": "Prefect POST /api/flow_runs/filter",
    "signs of life": "Prefect POST /api/events/filter",
    "the bucket": "Supabase GET /storage/v1/bucket/{namespace}",
    "files": "Supabase POST /storage/v1/object/sign/{namespace}",
    "cancellations": "Prefect POST /api/flow_runs/ID/set_state",
    "creations": "Prefect POST /api/deployments/ID/create_flow_run/bulk",
    "the status": f"Kubernetes PUT {POLICY}/status",
    "Events": EVENT,
}
"""Steps that every scan of the scenario has: a list without one of them was not recorded well."""

SCANS = 8
"""Scans at most, for two of them to have the same steps, or for one to come to a step."""

GRACE = 20.0
"""Seconds for the steps that come after the status was written."""


def record(harness: Harness) -> list[Step]:
    """The steps of a scan: those of two in a row, which a busy server has not made to ask for anything again."""
    before: list[Step] = []
    for _ in range(SCANS):
        steps = record_once(harness)
        if steps == before:
            return steps
        before = steps
    raise AssertionError(f"no two of {SCANS} scans in a row had the same steps; those of the last were {before}")


def record_once(harness: Harness) -> list[Step]:
    """Let a scan end well, and tell its steps."""
    requested = harness.begin(CrashPlan())
    problems = requested.problems()
    assert problems == {}, problems
    requested.wait_for_events()
    steps = harness.sandbox.plan_files.steps()
    # What woke the controller while it scanned makes it look once more when it is done.
    last = max(number for number, step in enumerate(steps) if is_event(step.what))
    return steps[: last + 1]


def kill(harness: Harness, step: Step, moment: Moment) -> Problems:
    """Kill the controller at a step, let another one follow, and tell what is not as it should be.

    A step at which no controller died proves nothing, so that is a problem too.
    """
    for _ in range(SCANS):
        requested = harness.begin(CrashPlan(step.what, step.place, moment))
        if dies(harness, requested):
            harness.restart()
            return requested.problems()
    return {"the step": f"did not come in {SCANS} scans"}


def dies(harness: Harness, requested: RequestedScan) -> bool:
    """Wait until the controller is killed, or until the request is served because the step does not come."""
    controller = harness.controller
    wait_for(lambda: not controller.is_alive() or requested.is_served, what="the end of a scan")
    controller.join(timeout=GRACE)
    return controller.exitcode == -signal.SIGKILL


def kill_at_each_step(harness: Harness, moment: Moment, over: threading.Event) -> dict[str, Problems]:
    """Kill the controller at each step, and tell what went wrong at which."""
    with harness.at_work():
        steps = record(harness)
        seen = {step.what for step in steps}
        missing = {kind for kind, what in KINDS.items() if what.format(namespace=harness.sandbox.name) not in seen}
        assert missing == set(), steps
        problems = {f"{moment} {step}": kill(harness, step, moment) for step in steps if not over.is_set()}
    harness.sandbox.assert_good_order()
    return problems


def test_every_step_survives_sigkill_before_and_after_it(make_sandbox: MakeSandbox):
    harnesses = [
        (Harness(make_sandbox("later-scans")), Moment.BEFORE),
        (Harness(make_sandbox("later-scans")), Moment.AFTER),
        # What happens after one step happens before the next, so one of the moments says all of the first scan.
        (Harness(make_sandbox("first-scans"), new_policies=True), Moment.AFTER),
    ]
    over = threading.Event()

    with ThreadPoolExecutor() as threads:
        try:
            at_work = [threads.submit(kill_at_each_step, *each, over) for each in harnesses]
            tried = [each.result() for each in as_completed(at_work)]
        finally:
            over.set()

    assert {point: problem for problems in tried for point, problem in problems.items() if problem} == {}
    assert all(len(problems) > len(KINDS) for problems in tried)
