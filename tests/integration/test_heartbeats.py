"""Heartbeats on a real Prefect server, from a real worker and sent as one sends them: what counts as a sign of life."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from devstack import Prefect, Supabase, Worker
from tests import proxy
from tests.conftest import serve, steady_prefect
from tests.proxy import at
from tests.support import DEPLOYMENT, stuck_videos
from tests.waiting import wait_for

pytestmark = pytest.mark.integration

HEARTBEAT = "prefect.flow-run.heartbeat"
events = at("/events/filter")


@pytest.fixture(scope="module")
def own_prefect() -> Iterator[Prefect]:
    """A server of its own, which shows an event at once and not after five seconds."""
    settings = {"PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "0.1"}
    yield from serve(steady_prefect(settings=settings))


@pytest.fixture
def prefect(own_prefect: Prefect) -> Iterator[Prefect]:
    yield own_prefect
    own_prefect.clear_flow_runs()


def event_names(prefect: Prefect, run_id: str) -> list[str]:
    wanted = {"resource": {"id": [f"prefect.flow-run.{run_id}"]}}
    return [event["event"] for event in prefect.http.post("events/filter", json={"filter": wanted}).json()["events"]]


def wait_until_heard(prefect: Prefect, run_id: str, event: str) -> None:
    """Wait until an event of a run can be read."""
    names = partial(event_names, prefect, run_id)
    wait_for(lambda: event in names(), what=event, seen=names)


def running(prefect: Prefect) -> str:
    return prefect.create_flow_run(prefect.create_deployment(DEPLOYMENT), "RUNNING")


def send(prefect: Prefect, run_id: str, occurred: datetime, event: str = HEARTBEAT) -> None:
    """Send an event of a run and wait until it can be read."""
    body = {
        "id": str(uuid.uuid4()),
        "event": event,
        "occurred": occurred.isoformat(),
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run_id}"},
    }
    prefect.http.post("events", json=[body]).raise_for_status()
    wait_until_heard(prefect, run_id, event)


async def test_sees_the_heartbeat_of_a_flow_that_a_real_worker_runs(supabase: Supabase, prefect, server):
    started = datetime.now(UTC)
    with Worker.start(prefect, supabase.env(), processing_seconds=120) as worker:
        [video] = stuck_videos(supabase, 1)
        parameters = {"video_id": video, "tenant_id": "tenant", "storage_key": "key"}
        at_work = prefect.create_flow_run(worker.deployment, parameters=parameters)
        wait_until_heard(prefect, at_work, HEARTBEAT)
        pretended = running(prefect)

        assert await server.heartbeats([at_work, pretended], since=started) == {at_work}
        assert await server.heartbeats([at_work, pretended], since=datetime.now(UTC)) == set()


@pytest.mark.parametrize(
    ("later", "alive"),
    [
        pytest.param(timedelta(0), True, id="at that time"),
        pytest.param(timedelta(microseconds=1), False, id="a moment before it"),
    ],
)
async def test_a_heartbeat_counts_from_the_time_asked_for_on(later, alive, prefect, server):
    run_id, occurred = running(prefect), datetime.now(UTC) - timedelta(minutes=3)
    send(prefect, run_id, occurred)

    assert await server.heartbeats([run_id], since=occurred + later) == ({run_id} if alive else set())


async def test_a_change_of_state_by_somebody_else_is_no_sign_of_life(prefect, server):
    run_id, since = running(prefect), datetime.now(UTC) - timedelta(minutes=1)
    body = {"state": {"type": "CANCELLING"}}
    prefect.http.post(f"flow_runs/{run_id}/set_state", json=body).raise_for_status()
    wait_until_heard(prefect, run_id, "prefect.flow-run.Cancelling")
    send(prefect, run_id, datetime.now(UTC), "prefect.flow-run.heartbeats-lost")

    assert await server.heartbeats([run_id], since=since) == set()


async def test_asks_nothing_about_no_runs(to_prefect, server):
    assert await server.heartbeats([], since=datetime.now(UTC)) == set()
    assert to_prefect.requests == []


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(proxy.answer(503), id="busy"),
        pytest.param(proxy.answer(429, Retry_After="0"), id="too many requests"),
        pytest.param(proxy.reset, id="connection reset"),
        pytest.param(proxy.lost, id="answer lost"),
        pytest.param(proxy.cut, id="answer cut"),
    ],
)
async def test_asks_again_after_trouble_that_passes(trouble, prefect, to_prefect, server):
    run_id = running(prefect)
    send(prefect, run_id, datetime.now(UTC))
    to_prefect.treat(trouble, events, times=1)

    assert await server.heartbeats([run_id], since=datetime.now(UTC) - timedelta(minutes=1)) == {run_id}
