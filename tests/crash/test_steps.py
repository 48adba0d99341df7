"""SIGKILL before and after every step of a scan: the next controller finishes the work, once, and tells the truth."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

import pytest

from controller.adapters.instrumentation import Moment
from tests.crash.conftest import MakeLane
from tests.crash.dying import Plan, Step
from tests.crash.lane import PATIENCE
from tests.crash.play import Act, Play, Problems
from tests.e2e.conftest import wait_for

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
"""Steps that every scan of the scene has: a list without one of them was not recorded well."""

GRACE = 20.0
"""Seconds for the steps that come after the status was written."""


def record(play: Play) -> list[Step]:
    """Let a scan end well, and tell its steps."""
    problems = play.begin(Plan()).problems()
    assert problems == {}, problems
    time.sleep(1)  # for the Events, which come after the status
    steps = play.lane.script.steps()
    # What woke the controller while it scanned makes it look once more when it is done.
    last = max(number for number, step in enumerate(steps) if step.what == EVENT.format(namespace=play.lane.name))
    return steps[: last + 1]


def kill(play: Play, step: Step, moment: Moment) -> Problems:
    """Kill the controller at a step, let another one follow, and tell what is not as it should be."""
    for _ in range(3):
        act = play.begin(Plan(step.what, step.place, moment))
        if dies(play, act):
            play.restart()
            return act.problems()
    # A request of a kind that was sent before may have been a repetition, which only a busy server makes needed.
    return {} if step.place > 0 else {"the step": "did not come in three scans"}


def dies(play: Play, act: Act) -> bool:
    """Wait until the controller is killed, or until the request is served because the step does not come."""
    controller = play.controller
    wait_for(lambda: not controller.is_alive() or act.is_served, what="the end of a scan", seconds=PATIENCE)
    controller.join(timeout=GRACE)
    return controller.exitcode == -signal.SIGKILL


def kill_at_each_step(play: Play, moment: Moment, over: threading.Event) -> dict[str, Problems]:
    """Kill the controller at each step, and tell what went wrong at which."""
    with play.at_work():
        steps = record(play)
        seen = {step.what for step in steps}
        missing = {kind for kind, what in KINDS.items() if what.format(namespace=play.lane.name) not in seen}
        assert missing == set(), steps
        problems = {f"{moment} {step}": kill(play, step, moment) for step in steps if not over.is_set()}
    play.lane.assert_good_order()
    return problems


def test_every_step_survives_sigkill_before_and_after_it(make_lane: MakeLane):
    plays = [
        (Play(make_lane("later-scans")), Moment.BEFORE),
        (Play(make_lane("later-scans")), Moment.AFTER),
        # What happens after one step happens before the next, so one of the moments says all of the first scan.
        (Play(make_lane("first-scans"), new_policies=True), Moment.AFTER),
    ]
    over = threading.Event()

    with ThreadPoolExecutor() as threads:
        try:
            lanes = [threads.submit(kill_at_each_step, *play, over) for play in plays]
            tried = [lane.result() for lane in as_completed(lanes)]
        finally:
            over.set()

    assert {point: problem for problems in tried for point, problem in problems.items() if problem} == {}
    assert all(len(problems) > len(KINDS) for problems in tried)
