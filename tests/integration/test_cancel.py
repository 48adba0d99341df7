"""Cancelling on a real Prefect server, with a real worker, without one, and when the connection fails: never forced."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.adapters.prefect import abandoned
from controller.adapters.prefect.server import PrefectServer
from controller.api.manifest import Policy
from controller.decisions.decision import SkipReason
from controller.errors import ErrorReason
from controller.flow_runs import FlowRun, StateType
from devstack import Prefect, Supabase, Worker
from tests import proxy
from tests.conftest import serve, steady_prefect
from tests.proxy import Request, Where, at
from tests.support import DEPLOYMENT, policy, reasons, recovered, scan, stuck_videos
from tests.waiting import wait_for

pytestmark = pytest.mark.integration

OLD = timedelta(hours=7)
asks_to_stop = at("/set_state")


@pytest.fixture(scope="module")
def impatient_prefect() -> Iterator[Prefect]:
    """A server that takes a run for cancelled when nobody stopped it for a second; by default for five minutes."""
    settings = {"PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "1"}
    yield from serve(steady_prefect(settings=settings))


def replacing(**stuck: Any) -> Policy:
    return policy(stuck={"abandonedRunAfter": "6h", "abandonedRunAction": "Replace", **stuck})


def old_run(prefect: Prefect, state: str, video: str = "v1", **fields: Any) -> str:
    """A run in a state for hours; one that is not Late by then would be marked as Late now, and be young again."""
    name = {"state_name": "Late"} if state == "SCHEDULED" else {}
    deployment = prefect.create_deployment(DEPLOYMENT)
    run_id = prefect.create_flow_run(deployment, state, parameters={"video_id": video}, **{**name, **fields})
    prefect.backdate(run_id, OLD)
    return run_id


async def seen(server: PrefectServer, run_ids: Sequence[str]) -> list[FlowRun]:
    """The runs as a scan has them."""
    runs = await server.flow_runs(ended_since=datetime.now(UTC) - 2 * OLD)
    return [run for run in runs if run.id in run_ids]


def state_of(prefect: Prefect, run_id: str) -> str:
    return str(prefect.flow_run(run_id)["state_type"])


def wait_until_at_work(supabase: Supabase) -> None:
    """Wait until a flow has set its video to processing."""
    statuses = "select status from captionacc.videos"
    wait_for(
        lambda: supabase.query(statuses)[0]["status"] == "processing",
        what="the flow to begin",
        seen=lambda: supabase.query(statuses),
    )


# What is asked


async def test_never_forces_a_state(prefect, to_prefect, server, short_wait):
    run_ids = [old_run(prefect, state) for state in ("SCHEDULED", "PENDING", "RUNNING", "PAUSED")]

    await server.cancel(await seen(server, run_ids))

    bodies = [request.json() for request in to_prefect.requests if asks_to_stop(request)]
    assert [(body["state"]["type"], body.get("force", False)) for body in bodies] == [("CANCELLING", False)] * 4


async def test_asking_again_leaves_the_state_as_it_is(prefect, server, short_wait):
    run_id = old_run(prefect, "RUNNING")
    await server.cancel(await seen(server, [run_id]))
    first = prefect.flow_run(run_id)["state"]

    await server.cancel(await seen(server, [run_id]))

    assert (first["type"], prefect.flow_run(run_id)["state"]) == ("CANCELLING", first)


async def test_asking_an_ended_run_leaves_its_state_as_it_is(prefect, server):
    run_id = old_run(prefect, "COMPLETED")
    before = prefect.flow_run(run_id)["state"]

    [run] = await server.cancel(await seen(server, [run_id]))

    assert run.state is StateType.COMPLETED
    assert prefect.flow_run(run_id)["state"] == before


async def test_a_scheduled_run_with_something_to_stop_does_not_end_by_itself(prefect, server, short_wait):
    run_id = old_run(prefect, "SCHEDULED", state_name="AwaitingRetry")
    prefect.http.patch(f"flow_runs/{run_id}", json={"infrastructure_pid": "somewhere:1"}).raise_for_status()

    [run] = await server.cancel(await seen(server, [run_id]))

    assert run.state is StateType.CANCELLING


# Trouble on the way


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(proxy.answer(503), id="busy"),
        pytest.param(proxy.reset, id="connection reset"),
        pytest.param(proxy.lost, id="answer lost"),
        pytest.param(proxy.cut, id="answer cut"),
        pytest.param(proxy.once_done(proxy.answer(502)), id="done, but 502"),
    ],
)
@pytest.mark.parametrize("where", [asks_to_stop, at("/flow_runs/filter")], ids=["asking", "looking"])
async def test_stops_a_run_in_spite_of_trouble_that_passes(where, trouble, prefect, to_prefect, server):
    wanted = await seen(server, [old_run(prefect, "SCHEDULED")])
    to_prefect.treat(trouble, where, times=1)

    [run] = await server.cancel(wanted)

    assert run.state is StateType.CANCELLED


async def test_creates_nothing_where_prefect_refuses_to_stop_a_run(environment, supabase, prefect, to_prefect):
    [video] = stuck_videos(supabase, 1)
    old_run(prefect, "RUNNING", video)
    to_prefect.treat(proxy.answer(500, "no"), asks_to_stop)

    outcome = await scan(replacing(), environment)

    assert outcome.error is not None
    assert outcome.error.reason is ErrorReason.SERVER_ERROR
    assert recovered(outcome) == []
    assert prefect.count_flow_runs() == 1


async def test_a_scan_goes_on_where_one_before_it_died_after_asking(environment, supabase, prefect, to_prefect):
    [video] = stuck_videos(supabase, 1)
    old = old_run(prefect, "SCHEDULED", video)
    broken = to_prefect.treat(proxy.once_done(proxy.answer(500, "no")), asks_to_stop)

    first = await scan(replacing(recentRunWindow="0s"), environment)
    to_prefect.heal()
    second = await scan(replacing(recentRunWindow="0s"), environment)

    assert broken.matched == 1
    assert (recovered(first), recovered(second)) == ([], [video])
    assert state_of(prefect, old) == "CANCELLED"
    assert prefect.count_flow_runs() == 2


async def test_does_not_replace_a_run_that_completes_while_it_is_asked_to_stop(
    environment, supabase, prefect, to_prefect
):
    [video] = stuck_videos(supabase, 1)
    old = old_run(prefect, "RUNNING", video)
    to_prefect.treat(proxy.before(lambda: prefect.set_state(old, "COMPLETED")), asks_to_stop, times=1)

    outcome = await scan(replacing(), environment)

    assert reasons(outcome) == {SkipReason.RECENTLY_PROCESSED: 1}
    assert prefect.count_flow_runs() == 1


async def test_replaces_a_run_that_is_deleted_while_it_is_asked_to_stop(environment, supabase, prefect, to_prefect):
    [video] = stuck_videos(supabase, 1)
    old = old_run(prefect, "RUNNING", video)
    to_prefect.treat(proxy.before(lambda: prefect.http.delete(f"flow_runs/{old}")), asks_to_stop, times=1)

    outcome = await scan(replacing(), environment)

    assert recovered(outcome) == [video]
    assert prefect.count_flow_runs() == 1


@pytest.mark.parametrize("state", ["SCHEDULED", "PENDING", "RUNNING", "PAUSED"])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(proxy.answer(404, {"detail": "Not Found"}), id="404"),
        pytest.param(proxy.answer(200, {"status": "ABORT", "state": None, "details": {}}), id="ABORT"),
    ],
)
async def test_creates_nothing_where_a_run_stays_active_although_it_was_asked_to_stop(
    answer, state, environment, supabase, prefect, to_prefect
):
    [video] = stuck_videos(supabase, 1)
    old = old_run(prefect, state, video)
    to_prefect.treat(answer, asks_to_stop)

    outcome = await scan(replacing(), environment)

    assert to_prefect.count(asks_to_stop) == 1
    assert reasons(outcome) == {SkipReason.ABANDONED_RUN: 1}
    assert state_of(prefect, old) == state
    assert prefect.count_flow_runs() == 1


async def test_does_not_stop_a_run_that_a_worker_takes_up_in_the_last_moment(
    environment, supabase, prefect, to_prefect
):
    [video] = stuck_videos(supabase, 1)
    old = old_run(prefect, "SCHEDULED", video)
    to_prefect.treat(proxy.before(lambda: prefect.set_state(old, "RUNNING")), _looks_at(old), times=1)

    outcome = await scan(replacing(), environment)

    assert reasons(outcome) == {SkipReason.ACTIVE_FLOW_RUN: 1}
    assert state_of(prefect, old) == "RUNNING"
    assert prefect.count_flow_runs() == 1


def _looks_at(run_id: str) -> Where:
    """Asks for a run by its id."""
    return lambda request: (
        request.path.endswith("/flow_runs/filter")
        and run_id in str(request.json()["flow_runs"].get("id", {}).get("any_"))
    )


# Workers


async def test_a_real_worker_stops_the_flow_before_a_recovery_takes_its_place(
    environment, supabase, prefect, to_prefect, monkeypatch
):
    monkeypatch.setattr(abandoned, "CANCEL_WAIT", 60)
    [video] = stuck_videos(supabase, 1)
    states: list[str] = []
    with Worker.start(prefect, supabase.env(), processing_seconds=300) as worker:
        parameters = {"video_id": video, "tenant_id": "tenant", "storage_key": "key"}
        old = prefect.create_flow_run(worker.deployment, parameters=parameters)
        wait_until_at_work(supabase)
        # It works, but looks as if it did not: old, without heartbeats, and its row is stuck again.
        prefect.backdate(old, OLD)
        supabase.execute("update captionacc.videos set status = 'pending'")
        to_prefect.treat(proxy.answer(404), at("/events/filter"))
        created = proxy.before(lambda: states.append(state_of(prefect, old)))
        to_prefect.treat(created, _creates)

        outcome = await scan(replacing(), environment)

    assert recovered(outcome) == [video]
    assert set(states) == {"CANCELLED"}  # asked once, or again where the server was busy


def _creates(request: Request) -> bool:
    return "/create_flow_run" in request.path


async def test_the_run_of_a_killed_worker_is_reported_and_left_alone(environment, supabase, prefect, short_wait):
    [video] = stuck_videos(supabase, 1)
    with Worker.start(prefect, supabase.env(), processing_seconds=300) as worker:
        parameters = {"video_id": video, "tenant_id": "tenant", "storage_key": "key"}
        old = prefect.create_flow_run(worker.deployment, parameters=parameters)
        wait_until_at_work(supabase)
        worker.kill()
    prefect.backdate(old, OLD)
    supabase.execute("update captionacc.videos set status = 'pending'")
    prefect.pretend_worker()

    # Its last heartbeat is fresh by the clock; hours later it would not be.
    async with proxy.serve(environment["PREFECT_API_URL"].removesuffix("/api")) as later:
        later.treat(proxy.answer(404), at("/events/filter"))
        outcome = await scan(replacing(), {**environment, "PREFECT_API_URL": f"{later.url}/api"})

    assert reasons(outcome) == {SkipReason.ABANDONED_RUN: 1}
    assert state_of(prefect, old) == "CANCELLING"
    assert prefect.count_flow_runs() == 1


async def test_replaces_a_run_that_prefect_itself_takes_for_cancelled_since_nobody_stopped_it(
    supabase, impatient_prefect, short_wait
):
    impatient_prefect.create_deployment(DEPLOYMENT)
    impatient_prefect.pretend_worker()
    environment = {**supabase.env(), **impatient_prefect.env()}
    [video] = stuck_videos(supabase, 1)
    old = old_run(impatient_prefect, "RUNNING", video)

    first = await scan(replacing(recentRunWindow="0s"), environment)
    wait_for(lambda: state_of(impatient_prefect, old) == "CANCELLED", what="Prefect to take the run for cancelled")
    second = await scan(replacing(recentRunWindow="0s"), environment)

    assert reasons(first) == {SkipReason.ABANDONED_RUN: 1}
    assert recovered(second) == [video]
