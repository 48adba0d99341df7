"""A backlog that was held does not flood the workers that return: each scan may recover twice as many as the last."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.api.status import PolicyStatus
from controller.decisions.decision import Failure, FailureReason, Skip, SkipReason
from controller.errors import Service
from controller.flow_runs import StateType
from controller.outcome import Outcome, Recovered, Result
from controller.reporting.status import after_scan
from controller.schedule import Plan, ScanRequest, Trigger
from tests.support import policy
from tests.unit.controlling import NO_WORKER, Controller, slow_world
from tests.unit.fakes import DEPLOYMENT, NOW, unavailable, video

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
HELD, SCAN, ACTIVE = SkipReason.DEPLOYMENT_NOT_READY, SkipReason.OVER_SCAN_LIMIT, SkipReason.OVER_ACTIVE_LIMIT


def allowed(before: int | None, *reasons: SkipReason, limits: Any = None, **changes: Any) -> int | None:
    """What the next scan may recover after one in which some videos were skipped for these reasons."""
    stuck = [video(f"v{n}") for n in range(len(reasons))]
    results: list[Result] = [
        *(Skip(each, reason) for each, reason in zip(stuck, reasons, strict=True)),
        Recovered(video("recovered"), 1, "r"),
        Failure("failed", FailureReason.INVALID_ROW, "no"),
    ]
    outcome = Outcome(ScanRequest(Trigger.SCHEDULE, NOW), NOW, stuck, DEPLOYMENT, results=results)
    outcome = replace(outcome, **changes)
    of = policy(limits=limits or {})
    return after_scan(PolicyStatus(ramp_up=before), of, outcome, Plan(None, None), now=NOW).ramp_up


# From one scan to the next


def test_at_full_speed_there_is_no_allowance():
    assert allowed(None) is None
    assert allowed(None, SCAN, ACTIVE, SkipReason.OVER_TENANT_LIMIT) is None


@pytest.mark.parametrize(
    ("per_scan", "start"),
    [(500, 50), (501, 50), (100, 10), (10, 1), (9, 1), (1, 1), (10_000, 1_000)],
)
def test_after_a_hold_a_tenth_is_allowed(per_scan, start):
    assert allowed(None, HELD, limits={"perScan": per_scan}) == start


@pytest.mark.parametrize("before", [50, 400])
def test_a_hold_while_ramping_up_starts_anew(before):
    assert allowed(before, HELD, SCAN) == 50


@pytest.mark.parametrize("reason", [SCAN, ACTIVE])
@pytest.mark.parametrize(("before", "next_time"), [(50, 100), (249, 498), (250, None), (400, None)])
def test_twice_as_many_are_allowed_each_time_until_that_is_full_speed(reason, before, next_time):
    assert allowed(before, reason) == next_time


@pytest.mark.parametrize(
    "reasons",
    [[], [SkipReason.ACTIVE_FLOW_RUN], [SkipReason.QUARANTINED, SkipReason.BACKING_OFF]],
    ids=["nothing_is_left", "the_rest_is_at_work", "the_rest_waits_for_something_else"],
)
def test_once_nothing_of_the_backlog_is_left_there_is_no_allowance(reasons):
    assert allowed(50, *reasons) is None


@pytest.mark.parametrize("reasons", [[HELD], [SCAN], []], ids=str)
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"request": ScanRequest(Trigger.REQUEST, token="t", video_ids=("v0",))}, id="was_narrowed"),
        pytest.param({"error": unavailable(Service.PREFECT)}, id="failed"),
    ],
)
@pytest.mark.parametrize("before", [None, 100])
def test_a_scan_that_was_narrowed_or_failed_changes_no_allowance(reasons, changes, before):
    assert allowed(before, *reasons, **changes) == before


# Scan by scan


def scans(controller: Controller, count: int) -> list[int]:
    """How many videos each of so many scans recovers; all runs end in between, and their videos leave."""
    recovered = []
    for _ in range(count):
        outcome = controller.scan()
        assert outcome is not None
        recovered.append(len(outcome.recovered))
        for run in list(controller.world.runs.values()):
            if run.active:
                controller.world.become(run.id, StateType.COMPLETED)
                controller.world.set_status(str(run.video_id), "ready")
        controller.world.now += 15 * MINUTE
    return recovered


def backlog(count: int, **spec: Any) -> Controller:
    controller = Controller(slow_world(), policy(**spec))
    for n in range(count):
        controller.world.upload(f"v{n}", f"tenant{n}", HOUR)
    return controller


def test_a_held_backlog_is_taken_up_slowly_and_then_at_full_speed():
    controller = backlog(1500)
    controller.world.deployment = NO_WORKER
    assert scans(controller, 2) == [0, 0]
    assert controller.status.last_scan is not None
    assert controller.status.last_scan.reasons == {HELD: 1500}

    controller.world.deployment = DEPLOYMENT

    assert scans(controller, 6) == [50, 100, 200, 400, 500, 250]
    assert controller.status.ramp_up is None


def test_workers_that_leave_again_begin_it_anew():
    controller = backlog(400)
    for ready, count, expected in [(False, 1, [0]), (True, 2, [50, 100]), (False, 1, [0]), (True, 2, [50, 100])]:
        controller.world.deployment = DEPLOYMENT if ready else NO_WORKER
        assert scans(controller, count) == expected


def test_without_a_hold_a_backlog_is_taken_up_at_full_speed_from_the_start():
    assert scans(backlog(600), 2) == [500, 100]


def test_a_policy_that_does_not_hold_does_not_ramp_up():
    controller = backlog(600, prefect={"holdUntilReady": False})
    controller.world.deployment = NO_WORKER

    assert scans(controller, 2) == [500, 100]


def test_a_policy_that_observes_ramps_up_in_what_it_reports():
    controller = backlog(300, mode="Observe")
    controller.world.deployment = NO_WORKER
    controller.scan()
    controller.world.deployment = DEPLOYMENT

    for allowance in (50, 100, 200):
        outcome = controller.scan()
        assert outcome is not None
        reasons = [str(result.reason) for result in outcome.results if isinstance(result, Skip)]
        assert (reasons.count(SkipReason.OBSERVE_MODE), reasons.count(SCAN)) == (allowance, 300 - allowance)
    assert controller.world.writes == []
