"""Abandoned flow runs: reported, or stopped, seen to have ended, and replaced; never two at work on one video."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from controller.decisions.decision import SkipReason
from controller.errors import Service
from controller.flow_runs import Deployment, FlowRun, StateType
from controller.outcome import Recovered
from controller.ports import BATCH
from controller.schedule import ScanRequest, Trigger
from tests.unit.fakes import MICROSECOND, NOW, flow_run, raising, unavailable
from tests.unit.scanning import detail, leaves, results, rows, scan, works_on
from tests.world.prefect import GONE, STAYS
from tests.world.world import World

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
REPORT = {"abandonedRunAfter": "6h"}
REPLACE = {**REPORT, "abandonedRunAction": "Replace"}
REPLACING = [
    *["connect", "candidates", "deployment", "flow_runs", "heartbeats", "recoveries"],
    *["still_stuck", "new_flow_runs", "cancel", "still_stuck", "new_flow_runs", "create", "created_until"],
]


def silent(video_id: str = "v0000", state: str = "RUNNING", *, hours: float = 7, **run: Any) -> FlowRun:
    """A run to which nothing has happened for longer than the policies here allow."""
    return flow_run(video_id, state, created=hours * HOUR, run_id=run.pop("run_id", f"old-{video_id}"), **run)


# Report


async def test_reports_an_abandoned_run_and_touches_nothing():
    world = World(rows(1), runs=[silent()])

    outcome = await scan(world, stuck=REPORT)

    assert results(outcome) == {"v0000": SkipReason.ABANDONED_RUN}
    assert "without a sign of life for 7h" in detail(outcome)
    assert not {"cancel", "create"} & set(world.steps)


@pytest.mark.parametrize("stuck", [REPORT, REPLACE], ids=["Report", "Replace"])
@pytest.mark.parametrize("silence", [timedelta(0), 6 * HOUR], ids=["fresh", "exactly_the_time"])
async def test_leaves_alone_a_run_that_is_not_silent_for_longer(stuck, silence):
    world = World(rows(1), runs=[flow_run("v0000", created=7 * HOUR, since=silence)])

    assert results(await scan(world, stuck=stuck)) == {"v0000": SkipReason.ACTIVE_FLOW_RUN}
    assert "cancel" not in world.steps


# Signs of life


async def test_asks_for_signs_of_life_of_the_running_runs_that_are_old_and_of_no_others():
    runs = [silent("v0000"), flow_run("v0001"), silent("v0002", "PENDING"), silent("somebody_elses"), silent("v0003")]
    world = World(rows(4), runs=runs)

    await scan(world, stuck=REPORT)

    assert world.asked["heartbeats"] == (["old-v0000", "old-v0003"], NOW - 15 * MINUTE)


async def test_asks_for_signs_of_life_by_the_servers_own_clock():
    world = World(rows(1), runs=[silent()], skew=-2 * MINUTE)

    await scan(world, stuck=REPORT)

    assert world.asked["heartbeats"] == (["old-v0000"], NOW - 17 * MINUTE)


async def test_asks_for_signs_of_life_by_its_own_clock_where_the_server_tells_no_time():
    world = World(rows(1), runs=[silent()], skew=-2 * MINUTE, tells_time=False)

    await scan(world, stuck=REPORT)

    assert world.asked["heartbeats"] == (["old-v0000"], NOW - 15 * MINUTE)


@pytest.mark.parametrize(
    ("world", "stuck"),
    [
        pytest.param(World(rows(1)), REPLACE, id="without_runs"),
        pytest.param(World(rows(1), runs=[flow_run("v0000")]), REPLACE, id="where_none_is_old"),
        pytest.param(World(rows(1), runs=[silent(state="PENDING")]), REPLACE, id="where_none_is_running"),
        pytest.param(World(rows(1), runs=[silent()]), {}, id="where_the_policy_takes_none_for_abandoned"),
    ],
)
async def test_asks_for_no_signs_of_life(world, stuck):
    await scan(world, stuck=stuck)

    assert "heartbeats" not in world.steps


@pytest.mark.parametrize(
    ("silence", "reason"),
    [
        pytest.param(timedelta(0), SkipReason.ACTIVE_FLOW_RUN, id="now"),
        pytest.param(15 * MINUTE, SkipReason.ACTIVE_FLOW_RUN, id="a_quarter_of_an_hour_ago"),
        pytest.param(15 * MINUTE + MICROSECOND, SkipReason.ABANDONED_RUN, id="just_before_that"),
        pytest.param(HOUR, SkipReason.ABANDONED_RUN, id="an_hour_ago"),
    ],
)
async def test_a_sign_of_life_is_one_for_a_quarter_of_an_hour(silence, reason):
    world = World(rows(1), runs=[silent()])
    world.last_beats["old-v0000"] = NOW - silence

    assert results(await scan(world, stuck=REPORT)) == {"v0000": reason}


@pytest.mark.parametrize("stuck", [REPORT, REPLACE], ids=["Report", "Replace"])
async def test_a_run_that_gives_signs_of_life_is_never_abandoned(stuck):
    world = World(rows(1), runs=[silent(hours=999)], beating={"old-v0000"})

    outcome = await scan(world, stuck=stuck)

    assert results(outcome) == {"v0000": SkipReason.ACTIVE_FLOW_RUN}
    assert not {"cancel", "create"} & set(world.steps)


async def test_where_nobody_knows_of_signs_of_life_nothing_is_touched():
    error = unavailable(Service.PREFECT)
    world = World(rows(2), runs=[silent()], on={("heartbeats", 1): raising(error)})

    outcome = await scan(world, stuck=REPLACE)

    assert outcome.error is error
    assert results(outcome) == dict.fromkeys(["v0000", "v0001"], SkipReason.INTERRUPTED)
    assert world.steps[-1] == "heartbeats"


# Replace


async def test_stops_the_run_sees_that_it_ended_looks_again_and_only_then_recovers():
    world = World(rows(1), runs=[silent()])

    outcome = await scan(world, stuck=REPLACE)

    assert results(outcome) == {"v0000": "Recovered"}
    assert world.asked["cancel"] == ["old-v0000"]
    assert [step for step in world.steps if step != "answer"] == REPLACING


@pytest.mark.parametrize("state", ["SCHEDULED", "PENDING", "RUNNING", "PAUSED"])
async def test_replaces_an_abandoned_run_in_any_state(state):
    world = World(rows(1), runs=[silent(state=state)])

    assert results(await scan(world, stuck=REPLACE)) == {"v0000": "Recovered"}


async def test_a_run_that_was_asked_to_stop_already_takes_no_place_of_others():
    # Nobody may be left to end it: to every scan its video is again the one that waits longest.
    world = World(rows(2), runs=[silent(state="CANCELLING")])

    outcome = await scan(world, stuck=REPLACE, limits={"perScan": 1})

    assert results(outcome) == {"v0000": SkipReason.ABANDONED_RUN, "v0001": "Recovered"}
    assert "cancel" not in world.steps
    assert "flow run happy-fox is CANCELLING without a sign of life for 7h" in detail(outcome)


async def test_a_run_that_is_gone_needs_no_end():
    world = World(rows(1), runs=[silent()], stops={"old-v0000": GONE})

    assert results(await scan(world, stuck=REPLACE)) == {"v0000": "Recovered"}


@pytest.mark.parametrize(
    ("before", "state"),
    [*((state, state) for state in ["SCHEDULED", "PENDING", "RUNNING", "PAUSED"]), ("RUNNING", "CANCELLING")],
)
async def test_a_run_that_does_not_stop_is_reported_and_left_alone(before, state):
    stops = {"old-v0000": STAYS if state == before else state}
    world = World(rows(2), runs=[silent(state=before)], stops=stops)

    outcome = await scan(world, stuck=REPLACE)

    assert results(outcome) == {"v0000": SkipReason.ABANDONED_RUN, "v0001": "Recovered"}
    assert world.created == ["v0001"]
    assert detail(outcome).startswith(f"it was asked to stop; flow run happy-fox is {state} without a sign of life")


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CRASHED"])
async def test_a_run_that_ended_by_itself_at_the_last_moment_may_have_done_its_work(state):
    world = World(rows(1), runs=[silent()], stops={"old-v0000": state})

    outcome = await scan(world, stuck=REPLACE)

    assert results(outcome) == {"v0000": SkipReason.RECENTLY_PROCESSED}
    assert world.created == []


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"])
async def test_where_recent_runs_do_not_matter_a_run_that_ended_by_itself_is_replaced_too(state):
    world = World(rows(1), runs=[silent()], stops={"old-v0000": state})

    assert results(await scan(world, stuck={**REPLACE, "recentRunWindow": "0s"})) == {"v0000": "Recovered"}


async def test_stops_all_abandoned_runs_of_a_video():
    runs = [silent(run_id="one"), silent(state="PENDING", run_id="two")]
    world = World(rows(1), runs=runs)

    assert results(await scan(world, stuck=REPLACE)) == {"v0000": "Recovered"}
    assert world.asked["cancel"] == ["one", "two"]


@pytest.mark.parametrize("stubborn", ["one", "two"])
async def test_one_of_two_runs_that_does_not_stop_keeps_the_video_from_being_recovered(stubborn):
    runs = [silent(run_id="one"), silent(state="PENDING", run_id="two")]
    world = World(rows(1), runs=runs, stops={stubborn: "CANCELLING"})

    assert results(await scan(world, stuck=REPLACE)) == {"v0000": SkipReason.ABANDONED_RUN}
    assert world.created == []


async def test_stops_no_abandoned_run_while_another_run_works_on_the_video():
    world = World(rows(1), runs=[silent(), flow_run("v0000", "PENDING")])

    assert results(await scan(world, stuck=REPLACE)) == {"v0000": SkipReason.ACTIVE_FLOW_RUN}
    assert "cancel" not in world.steps


async def test_an_abandoned_recovery_is_an_attempt_and_the_next_one_replaces_it():
    world = World(rows(1), runs=[silent(attempt=1)])

    outcome = await scan(world, stuck=REPLACE)

    [recovered] = outcome.results
    assert isinstance(recovered, Recovered)
    assert recovered.attempt == 2


async def test_stops_the_runs_of_a_batch_just_before_it_is_created():
    last = f"v{BATCH:04}"
    world = World(rows(BATCH + 1), runs=[silent(), silent(last)])

    await scan(world, stuck=REPLACE)

    steps = [step for step in world.steps if step in {"cancel", "create"}]
    assert steps == ["cancel", "create", "cancel", "create"]
    assert world.asked["cancel"] == [f"old-{last}"]


async def test_looks_once_at_a_batch_without_abandoned_runs():
    world = World(rows(1))

    await scan(world, stuck=REPLACE)

    assert world.steps.count("still_stuck") == world.steps.count("new_flow_runs") == 1


# What stops no run

ATTEMPTS = [flow_run("v0000", "FAILED", ended=n * HOUR, attempt=4 - n) for n in (3, 2, 1)]


@pytest.mark.parametrize(
    ("world", "spec", "reason"),
    [
        pytest.param({}, {"mode": "Observe"}, SkipReason.OBSERVE_MODE, id="in_Observe_mode"),
        pytest.param(
            {"deployment": Deployment("d", "f", "no worker", "NoWorkerReady")},
            {},
            SkipReason.DEPLOYMENT_NOT_READY,
            id="while_no_worker_is_ready",
        ),
        pytest.param({"runs": [silent(), *ATTEMPTS]}, {}, SkipReason.QUARANTINED, id="in_quarantine"),
        pytest.param(
            {"runs": [silent(), flow_run("v0000", "FAILED", ended=9 * MINUTE, attempt=1)]},
            {},
            SkipReason.BACKING_OFF,
            id="while_backing_off",
        ),
        pytest.param(
            {},
            {"upload": {"bucket": "b", "objectPath": "{id}", "abandonedAfter": "8760h"}},
            SkipReason.UPLOAD_IN_PROGRESS,
            id="without_its_file",
        ),
        pytest.param(
            {"runs": [silent(), flow_run("other", attempt=1)]},
            {"limits": {"active": 1}},
            SkipReason.OVER_ACTIVE_LIMIT,
            id="over_a_limit",
        ),
    ],
)
async def test_stops_no_run_of_a_video_that_is_not_recovered(world, spec, reason):
    there = World(rows(1), **{"runs": [silent()], **world})

    assert results(await scan(there, stuck=REPLACE, **spec)) == {"v0000": reason}
    assert not {"cancel", "create"} & set(there.steps)


async def test_stops_no_run_to_which_something_happened_in_the_last_moment():
    world = World(rows(1), runs=[silent(state="PENDING")])
    world.on["cancel", 1] = lambda: world.become("old-v0000", StateType.RUNNING)

    assert results(await scan(world, stuck=REPLACE)) == {"v0000": SkipReason.ACTIVE_FLOW_RUN}
    assert world.writes == []


async def test_stops_no_run_of_a_video_that_got_going_by_itself():
    world = World(rows(2), runs=[silent()])
    world.on["still_stuck", 1] = lambda: leaves(world, "v0000")

    assert results(await scan(world, stuck=REPLACE)) == {"v0001": "Recovered"}
    assert "cancel" not in world.steps


async def test_stops_no_run_once_the_scan_is_to_stop():
    world, stop = World(rows(1), runs=[silent()]), asyncio.Event()
    world.on["recoveries", 1] = stop.set

    assert results(await scan(world, stuck=REPLACE, stop=stop)) == {"v0000": SkipReason.INTERRUPTED}
    assert "cancel" not in world.steps


# The look after stopping


async def test_leaves_alone_a_video_for_which_a_run_appeared_while_the_old_one_stopped():
    world = World(rows(2), runs=[silent()])
    world.on["new_flow_runs", 2] = lambda: works_on(world, "v0000", "PENDING")

    outcome = await scan(world, stuck=REPLACE)

    assert results(outcome) == {"v0000": SkipReason.ACTIVE_FLOW_RUN, "v0001": "Recovered"}
    assert world.created == ["v0001"]


async def test_forgets_a_video_that_got_going_while_its_run_stopped():
    world = World(rows(2), runs=[silent()])
    world.on["still_stuck", 2] = lambda: leaves(world, "v0000")

    assert results(await scan(world, stuck=REPLACE)) == {"v0001": "Recovered"}


async def test_an_error_while_stopping_leaves_the_batch_for_the_next_scan():
    world = World(rows(2), runs=[silent()], on={("cancel", 1): raising(unavailable())})

    outcome = await scan(world, stuck=REPLACE)

    assert results(outcome) == dict.fromkeys(["v0000", "v0001"], SkipReason.INTERRUPTED)
    assert world.created == []


async def test_a_scan_after_a_crash_amid_stopping_waits_until_the_run_has_been_over_for_a_while():
    stopped = silent(state="CANCELLED", ended=MINUTE)
    world = World(rows(1), runs=[stopped])

    assert results(await scan(world, stuck=REPLACE)) == {"v0000": SkipReason.RECENTLY_PROCESSED}
    assert results(await scan(World(rows(1)), stuck=REPLACE)) == {"v0000": "Recovered"}


async def test_a_request_by_name_replaces_too():
    world = World(rows(2), runs=[silent("v0000"), silent("v0001")])

    outcome = await scan(world, request=ScanRequest(Trigger.REQUEST, token="t", video_ids=("v0001",)), stuck=REPLACE)

    assert results(outcome) == {"v0001": "Recovered"}
    assert world.asked["cancel"] == ["old-v0001"]
