"""Abandoned flow runs on a real Prefect server: signs of life, and what becomes of runs that are asked to stop."""

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.adapters.prefect import abandoned
from controller.adapters.prefect.runs import read_run
from controller.adapters.prefect.server import PrefectServer, open_server
from controller.decisions.decision import SkipReason
from controller.errors import ErrorReason, ScanError
from controller.flow_runs import FlowRun, StateType
from controller.scan import HEARTBEAT_FRESH
from devstack import Prefect
from tests import proxy
from tests.support import DEPLOYMENT, policy, reasons, recovered, scan, stuck_videos
from tests.waiting import wait_for

pytestmark = pytest.mark.integration

OLD = timedelta(hours=7)


def run(prefect: Prefect, state: str, *, video: str = "v1", age: timedelta = OLD, **fields: Any) -> str:
    """A run in a state for some time; return its id."""
    deployment = prefect.create_deployment(DEPLOYMENT)
    if state == "SCHEDULED":
        fields = {"state_name": "Late", **fields}  # as it would be at that age; otherwise the server says so only now
    run_id = prefect.create_flow_run(deployment, state, parameters={"video_id": video}, **fields)
    prefect.backdate(run_id, age)
    return run_id


def beat(prefect: Prefect, run_id: str, *, ago: timedelta = timedelta(0), times: int = 1) -> None:
    """Send heartbeats of a run, as the process that runs it does, and wait until they can be read."""
    events = [
        {
            "id": str(uuid.uuid4()),
            "event": abandoned.HEARTBEAT,
            "occurred": (datetime.now(UTC) - ago - timedelta(milliseconds=n)).isoformat(),
            "resource": {"prefect.resource.id": f"prefect.flow-run.{run_id}"},
        }
        for n in range(times)
    ]
    prefect.http.post("events", json=events).raise_for_status()
    wanted = {"resource": {"id": [f"prefect.flow-run.{run_id}"]}, "event": {"name": [abandoned.HEARTBEAT]}}

    def heard() -> int:
        return int(prefect.http.post("events/filter", json={"filter": wanted}).json()["total"])

    wait_for(lambda: heard() >= times, what=f"{times} heartbeats", seen=heard)


def seen(prefect: Prefect, server: PrefectServer, run_id: str) -> FlowRun:
    """A run as a scan reads it."""
    return read_run(server._api, prefect.flow_run(run_id), "video_id")


def replacing(**spec: Any) -> Any:
    return policy(stuck={"abandonedRunAfter": "6h", "abandonedRunAction": "Replace"}, **spec)


# Signs of life


async def test_finds_the_runs_that_gave_a_sign_of_life_of_late(prefect, server):
    fresh, stale, silent = (run(prefect, "RUNNING") for _ in range(3))
    beat(prefect, fresh)
    beat(prefect, stale, ago=timedelta(minutes=16))

    alive = await server.heartbeats([fresh, stale, silent], since=datetime.now(UTC) - HEARTBEAT_FRESH)

    assert alive == {fresh}


async def test_a_run_with_many_heartbeats_hides_no_other(prefect, server):
    quiet, *loud = [run(prefect, "RUNNING") for _ in range(3)]
    beat(prefect, quiet, ago=timedelta(minutes=1))
    for run_id in loud:
        beat(prefect, run_id, times=120)

    alive = await server.heartbeats([quiet, *loud], since=datetime.now(UTC) - HEARTBEAT_FRESH)

    assert alive == {quiet, *loud}


async def test_asks_for_hundreds_of_runs_in_parts(prefect, server):
    beating = run(prefect, "RUNNING")
    beat(prefect, beating)
    many = [str(uuid.uuid4()) for _ in range(230)]

    alive = await server.heartbeats([*many, beating], since=datetime.now(UTC) - HEARTBEAT_FRESH)

    assert alive == {beating}


async def test_a_server_that_keeps_no_events_knows_of_no_sign_of_life(prefect):
    async with proxy.serve(f"http://127.0.0.1:{prefect.port}") as between:
        between.treat(proxy.answer(404, {"detail": "Not Found"}), proxy.at("/events/"))
        async with open_server(f"{between.url}/api", {}, [], policy().spec.prefect) as server:
            assert await server.heartbeats(["a"], since=datetime.now(UTC)) == set()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(proxy.answer(200, []), id="a list"),
        pytest.param(proxy.answer(200, {"events": [{"resource": 1}]}), id="an event of nothing"),
        pytest.param(proxy.answer(200, "<html>", content_type="text/html"), id="HTML"),
        pytest.param(proxy.answer(500, "no"), id="500"),
    ],
)
async def test_what_is_no_answer_is_no_silence(answer, prefect):
    async with proxy.serve(f"http://127.0.0.1:{prefect.port}") as between:
        between.treat(answer, proxy.at("/events/"))
        async with open_server(f"{between.url}/api", {}, [], policy().spec.prefect) as server:
            with pytest.raises(ScanError) as raised:
                await server.heartbeats(["a"], since=datetime.now(UTC))
    assert raised.value.reason in {ErrorReason.UNEXPECTED_ANSWER, ErrorReason.SERVER_ERROR}


async def test_a_running_run_with_fresh_heartbeats_is_never_abandoned(environment, supabase, prefect):
    [video] = stuck_videos(supabase, 1)
    run_id = run(prefect, "RUNNING", video=video)
    beat(prefect, run_id)

    outcome = await scan(replacing(), environment)

    assert reasons(outcome) == {SkipReason.ACTIVE_FLOW_RUN: 1}
    assert prefect.flow_run(run_id)["state_type"] == "RUNNING"


# How old a run is


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        pytest.param(timedelta(hours=5, minutes=59), SkipReason.ACTIVE_FLOW_RUN, id="a minute too young"),
        pytest.param(timedelta(hours=6, minutes=1), SkipReason.ABANDONED_RUN, id="a minute too old"),
    ],
)
@pytest.mark.parametrize("state", ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"])
async def test_a_run_is_abandoned_by_its_age(state, age, reason, environment, supabase, prefect):
    [video] = stuck_videos(supabase, 1)
    run(prefect, state, video=video, age=age)

    outcome = await scan(policy(stuck={"abandonedRunAfter": "6h"}), environment)

    assert reasons(outcome) == {reason: 1}


async def test_an_old_run_that_somebody_retries_is_young_again(environment, supabase, prefect):
    [video] = stuck_videos(supabase, 1)
    run_id = run(prefect, "FAILED", video=video)
    prefect.set_state(run_id, "SCHEDULED", state_name="AwaitingRetry")

    outcome = await scan(replacing(), environment)

    assert reasons(outcome) == {SkipReason.ACTIVE_FLOW_RUN: 1}


# Stopping


@pytest.mark.parametrize(
    ("state", "after"),
    [
        ("SCHEDULED", StateType.CANCELLED),
        ("PENDING", StateType.CANCELLING),
        ("RUNNING", StateType.CANCELLING),
        ("PAUSED", StateType.CANCELLING),
        ("CANCELLING", StateType.CANCELLING),
        ("COMPLETED", StateType.COMPLETED),
        ("FAILED", StateType.FAILED),
        ("CRASHED", StateType.CRASHED),
        ("CANCELLED", StateType.CANCELLED),
    ],
)
async def test_what_becomes_of_a_run_that_is_asked_to_stop(state, after, prefect, server, short_wait):
    run_id = run(prefect, state)

    [first] = await server.cancel([seen(prefect, server, run_id)])
    [again] = await server.cancel([first])

    assert (first.id, first.state, again.state) == (run_id, after, after)


async def test_a_run_that_is_gone_is_left_out(prefect, server):
    run_id = run(prefect, "SCHEDULED")

    wanted = seen(prefect, server, run_id)

    stopped = await server.cancel([replace(wanted, id=str(uuid.uuid4())), wanted])

    assert [each.id for each in stopped] == [run_id]


async def test_a_run_that_has_gone_on_meanwhile_is_not_asked_to_stop(prefect, server):
    run_id = run(prefect, "PENDING")
    wanted = seen(prefect, server, run_id)
    prefect.set_state(run_id, "RUNNING")

    [after] = await server.cancel([wanted])

    assert after.state is StateType.RUNNING


async def test_waits_a_moment_for_a_run_to_stop(prefect, server, monkeypatch):
    run_id = run(prefect, "RUNNING")
    looks: list[int] = []

    async def ends_soon(_: float) -> None:
        looks.append(1)
        prefect.set_state(run_id, "CANCELLED")

    monkeypatch.setattr(asyncio, "sleep", ends_soon)
    [stopped] = await server.cancel([seen(prefect, server, run_id)])

    assert (stopped.state, len(looks)) == (StateType.CANCELLED, 1)


# Replacing


async def test_replaces_an_abandoned_run(environment, supabase, prefect):
    [video] = stuck_videos(supabase, 1)
    old = run(prefect, "SCHEDULED", video=video)

    outcome = await scan(replacing(), environment)

    assert recovered(outcome) == [video]
    assert {each["id"]: each["state_type"] for each in prefect.flow_runs()}[old] == "CANCELLED"
    assert prefect.count_flow_runs(["SCHEDULED", "PENDING", "RUNNING"]) == 1


async def test_leaves_alone_a_run_that_does_not_stop_until_somebody_ends_it(environment, supabase, prefect, short_wait):
    [video] = stuck_videos(supabase, 1)
    old = run(prefect, "RUNNING", video=video)

    first, second = await scan(replacing(), environment), await scan(replacing(), environment)
    prefect.set_state(old, "CRASHED")
    third = await scan(replacing(), environment)

    assert reasons(first) == reasons(second) == {SkipReason.ABANDONED_RUN: 1}
    assert reasons(third) == {SkipReason.RECENTLY_PROCESSED: 1}
    assert prefect.count_flow_runs() == 1


async def test_a_run_is_never_replaced_twice(environment, supabase, prefect):
    [video] = stuck_videos(supabase, 1)
    run(prefect, "SCHEDULED", video=video)

    await scan(replacing(), environment)
    second = await scan(replacing(), environment)

    assert reasons(second) == {SkipReason.ACTIVE_FLOW_RUN: 1}
    assert prefect.count_flow_runs() == 2


async def test_a_report_asks_once_for_signs_of_life_and_stops_nothing(environment, supabase, prefect):
    for video in stuck_videos(supabase, 3):
        run(prefect, "RUNNING", video=video)

    async with proxy.serve(f"http://127.0.0.1:{prefect.port}") as between:
        behind = {**environment, "PREFECT_API_URL": f"{between.url}/api"}
        outcome = await scan(policy(stuck={"abandonedRunAfter": "6h"}), behind)

    assert reasons(outcome) == {SkipReason.ABANDONED_RUN: 3}
    assert between.count(proxy.at("/events/filter")) == 1
    assert between.count(proxy.at("/set_state")) == 0
