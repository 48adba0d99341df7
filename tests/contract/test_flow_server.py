"""What `controller.ports.FlowServer` promises, of the world in memory and of a real Prefect server."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from controller.decisions.decision import Recover
from controller.flow_runs import RELEASED, FlowRun, StateType, idempotency_key
from controller.ports import CreatedRun, FlowServer
from tests.contract.sides import REFUSED, ServerSide
from tests.unit.fakes import video

MICROSECOND, MINUTE, HOUR = timedelta(microseconds=1), timedelta(minutes=1), timedelta(hours=1)
ACTIVE = ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"]
ENDED = ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]


def ids(runs: list[FlowRun]) -> set[str]:
    return {run.id for run in runs}


# flow_runs


@pytest.mark.parametrize("state", ACTIVE)
async def test_an_active_run_is_in_the_index_however_old_it_is(state, prefects):
    run_id = prefects.begin("v1", state)
    prefects.backdate(run_id, 9 * HOUR)

    async with prefects.open() as server:
        [run] = await server.flow_runs(ended_since=prefects.now)

    assert (run.id, run.state, run.video_id, run.end_time) == (run_id, StateType(state), "v1", None)


@pytest.mark.parametrize("state", ENDED)
@pytest.mark.parametrize("began", ["SCHEDULED", "RUNNING"])
async def test_a_run_is_in_the_index_for_as_long_as_its_end_is_not_before_the_time(state, began, prefects):
    run_id = prefects.begin("v1", began)
    prefects.become(run_id, state)

    async with prefects.open() as server:
        run = await prefects.seen(server, run_id)
        assert run.end_time is not None
        assert ids(await server.flow_runs(ended_since=run.end_time)) == {run_id}
        assert ids(await server.flow_runs(ended_since=run.end_time + MICROSECOND)) == set()


async def test_a_recovery_shows_its_key_and_when_it_was_created(prefects):
    before = prefects.now
    prefects.begin("v1", attempt=2)

    async with prefects.open() as server:
        [run] = await server.flow_runs(ended_since=prefects.now)

    assert run.key == idempotency_key(prefects.flow_id, "v1", 2)
    assert run.created is not None
    assert before <= run.created <= prefects.now


@pytest.mark.parametrize(
    ("states", "gives_a_sign"),
    [
        pytest.param(["PENDING"], True, id="taken_up"),
        pytest.param(["RUNNING"], True, id="started"),
        pytest.param(["PENDING", "CANCELLING"], False, id="asked_to_stop"),
        pytest.param(["RUNNING", "CANCELLING"], True, id="started_and_asked_to_stop"),
        pytest.param(["FAILED", "SCHEDULED"], True, id="retried"),
        pytest.param(["RUNNING", "FAILED", "RUNNING"], True, id="retried_and_started"),
    ],
)
async def test_nothing_has_happened_to_a_run_since_its_state_changed_last(states, gives_a_sign, prefects):
    run_id = prefects.begin("v1")
    prefects.backdate(run_id, HOUR)
    changed = prefects.now
    for state in states:
        prefects.become(run_id, state)

    async with prefects.open() as server:
        run = await prefects.seen(server, run_id)

    assert run.since is not None
    assert (run.since >= changed) is gives_a_sign


async def test_a_paused_run_that_is_asked_to_stop_was_last_heard_of_when_it_started(prefects):
    # The time at which it paused is lost: it is that of its state.
    run_id = prefects.begin("v1", "RUNNING")
    prefects.backdate(run_id, HOUR)
    prefects.become(run_id, "PAUSED")
    prefects.become(run_id, "CANCELLING")

    async with prefects.open() as server:
        run = await prefects.seen(server, run_id)

    assert run.since is not None
    assert run.since < prefects.now - HOUR + MINUTE


async def test_a_run_of_something_else_than_a_video_is_in_the_index_too(prefects):
    run_id = prefects.begin(None)

    async with prefects.open() as server:
        [run] = await server.flow_runs(ended_since=prefects.now)

    assert (run.id, run.video_id) == (run_id, None)


# new_flow_runs


async def look(server: FlowServer, prefects: ServerSide) -> None:
    """Read the index, as a scan does before it looks for new runs."""
    await server.flow_runs(ended_since=prefects.now - 5 * MINUTE)


@pytest.mark.parametrize("state", [*ACTIVE, *ENDED])
async def test_a_run_that_was_created_since_is_new_whatever_its_state(state, prefects):
    async with prefects.open() as server:
        await look(server, prefects)
        run_id = prefects.begin("v1", state)

        [run] = await server.new_flow_runs()

    assert (run.id, run.state) == (run_id, StateType(state))


async def test_a_run_that_is_retried_is_new_again(prefects):
    run_id = prefects.begin("v1", "FAILED")
    prefects.backdate(run_id, HOUR)
    async with prefects.open() as server:
        await look(server, prefects)
        prefects.become(run_id, "SCHEDULED")

        [run] = await server.new_flow_runs()

    assert (run.id, run.state) == (run_id, StateType.SCHEDULED)


async def test_a_run_that_ended_since_is_new_where_it_began_since(prefects):
    old = prefects.begin("v1", "RUNNING")
    prefects.backdate(old, HOUR)
    async with prefects.open() as server:
        await look(server, prefects)
        prefects.become(old, "COMPLETED")
        run_id = prefects.begin("v2", "RUNNING")
        prefects.become(run_id, "COMPLETED")

        [run] = await server.new_flow_runs()

    assert (run.id, run.state) == (run_id, StateType.COMPLETED)
    assert run.end_time is not None


@pytest.mark.parametrize("state", ["SCHEDULED", "RUNNING", "FAILED"])
async def test_an_old_run_is_not_new(state, prefects):
    run_id = prefects.begin("v1", state)
    prefects.backdate(run_id, HOUR)
    async with prefects.open() as server:
        await look(server, prefects)

        assert await server.new_flow_runs() == []


async def test_a_run_from_shortly_before_the_look_is_shown_again(prefects):
    # It had its start time before others could see it: looks overlap.
    recent, older = prefects.begin("v1"), prefects.begin("v2")
    prefects.backdate(recent, timedelta(seconds=20))
    prefects.backdate(older, 2 * MINUTE)
    async with prefects.open() as server:
        await look(server, prefects)

        assert ids(await server.new_flow_runs()) == {recent}
        assert ids(await server.new_flow_runs()) == {recent}


async def test_each_look_shows_what_came_since_the_one_before(prefects):
    async with prefects.open() as server:
        await look(server, prefects)
        first = prefects.begin("v1")
        assert ids(await server.new_flow_runs()) == {first}
        second = prefects.begin("v2")

        assert ids(await server.new_flow_runs()) == {first, second}


async def test_runs_that_it_created_itself_are_not_new(prefects):
    async with prefects.open() as server:
        await look(server, prefects)
        await create(server, decision("v1"), decision("v2"), decision("v3"))
        other = prefects.begin("v4")

        assert ids(await server.new_flow_runs()) == {other}


async def test_what_another_connection_created_is_new(prefects):
    async with prefects.open() as server, prefects.open() as another:
        await look(server, prefects)
        [created] = await create(another, decision("v1"))

        assert ids(await server.new_flow_runs()) == {created.run_id}


# recoveries


@pytest.mark.parametrize(
    ("there", "found"),
    [
        pytest.param([], [], id="none"),
        pytest.param([1], [1], id="one"),
        pytest.param([1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 5, 6, 7, 8, 9], id="many"),
        pytest.param([1, 2, 4], [1, 2, 4], id="without_one_in_between"),
        pytest.param([1, 2, 3, 5], [1, 2, 3], id="without_one_at_which_the_search_ends"),
        pytest.param([2, 3], [], id="without_the_first"),
    ],
)
async def test_finds_the_attempts_at_a_video_in_their_order(there, found, prefects):
    for attempt in reversed(there):
        prefects.begin("v1", "CRASHED", attempt=attempt)

    async with prefects.open() as server:
        recoveries = await server.recoveries(await server.deployment(), ["v1"])

    assert [each.attempt for each in recoveries.get("v1", ())] == found


async def test_finds_attempts_by_their_keys_and_of_the_videos_asked_for(prefects):
    mine = prefects.begin("v1", "RUNNING", attempt=1)
    prefects.begin("v1", "RUNNING")
    prefects.begin("v2", "RUNNING", attempt=1)

    async with prefects.open() as server:
        recoveries = await server.recoveries(await server.deployment(), ["v1", "v3"])

    assert set(recoveries) == {"v1"}
    [recovery] = recoveries["v1"]
    assert (recovery.run.id, recovery.run.state) == (mine, StateType.RUNNING)


async def test_finds_attempts_at_a_video_in_any_spelling_of_its_id(prefects):
    video_id = "aaaaaaaa-5a55-4a3c-9f3e-0f4f6d1a2b3c"
    prefects.begin(video_id, attempt=1)

    async with prefects.open() as server:
        recoveries = await server.recoveries(await server.deployment(), [video_id.upper()])

    assert set(recoveries) == {video_id.upper()}


# create


def decision(video_id: str, attempt: int = 1, *, tenant: str = "tenant", **more: Any) -> Recover:
    return Recover(video(video_id), attempt, {"video_id": video_id, "tenant_id": tenant}, **more)


async def create(server: FlowServer, *decisions: Recover) -> list[CreatedRun]:
    deployment = await server.deployment()
    async with server.creation_lock():
        return [created async for created in server.create(deployment, decisions)]


async def test_answers_each_decision_with_its_run(prefects):
    decisions = [decision(f"v{n}") for n in range(5)]
    async with prefects.open() as server:
        answers = await create(server, *decisions)
        runs = {run.id: run.video_id for run in await server.flow_runs(ended_since=prefects.now)}

    assert [answer.decision for answer in answers] == decisions
    assert [runs[str(answer.run_id)] for answer in answers] == [f"v{n}" for n in range(5)]


async def test_a_created_run_has_its_key_and_its_tags_and_waits_for_a_worker(prefects):
    async with prefects.open() as server:
        plain, released = await create(server, decision("v1"), decision("v2", 4, released=True))

    tags = set(prefects.policy.spec.prefect.tags)
    assert prefects.run(str(plain.run_id)) == ("SCHEDULED", idempotency_key(prefects.flow_id, "v1", 1), tags)
    key = idempotency_key(prefects.flow_id, "v2", 4)
    assert prefects.run(str(released.run_id)) == ("SCHEDULED", key, {*tags, RELEASED})


@pytest.mark.parametrize("state", ["RUNNING", "CRASHED"])
async def test_a_run_that_is_there_under_its_key_is_the_answer_and_stays_as_it_is(state, prefects):
    there = prefects.begin("v1", state, attempt=1)

    async with prefects.open() as server:
        [answer] = await create(server, decision("v1"))
        runs = await server.flow_runs(ended_since=prefects.now - HOUR)

    assert answer.run_id == there
    assert [(run.id, run.state) for run in runs] == [(there, StateType(state))]


async def test_created_twice_a_recovery_is_one_run(prefects):
    async with prefects.open() as server:
        [first] = await create(server, decision("v1"))
        [second] = await create(server, decision("v1"))

    assert first.run_id == second.run_id


async def test_a_run_that_is_refused_is_told_with_a_reason_and_the_others_are_created(prefects):
    async with prefects.open() as server:
        refused = f"of-{REFUSED}"
        first, second, third = await create(server, decision("v1"), decision(refused, tenant=REFUSED), decision("v3"))

    assert second.run_id is None
    assert second.error.startswith("Prefect refused the run")
    assert first.run_id is not None
    assert third.run_id is not None


async def test_the_last_creation_is_told_by_the_servers_clock(prefects):
    runs = [prefects.begin(f"v{n}") for n in range(3)]
    prefects.backdate(runs[0], HOUR)
    prefects.backdate(runs[2], MINUTE)
    async with prefects.open() as server:
        created = {run.id: run.created for run in await server.flow_runs(ended_since=prefects.now)}

        assert await server.created_until(runs) == created[runs[1]]
        assert await server.created_until([runs[0], runs[2]]) == created[runs[2]]
        prefects.remove(runs[2])
        assert await server.created_until([runs[0], runs[2]]) == created[runs[0]]
        assert await server.created_until([runs[2]]) is None


# creation_lock


async def test_only_one_at_a_time_has_the_creation_lock(prefects):
    happened: list[str] = []

    async def hold(server: FlowServer, name: str) -> None:
        async with server.creation_lock():
            happened.append(name)
            for _ in range(5):
                await asyncio.sleep(0)
            happened.append(name)

    async with prefects.open() as server:
        await asyncio.gather(hold(server, "first"), hold(server, "second"))

    assert happened == ["first", "first", "second", "second"]


# cancel


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("SCHEDULED", "CANCELLED", id="that_nobody_took_up_is_over_at_once"),
        pytest.param("PENDING", "CANCELLING", id="that_is_taken_up_has_to_be_stopped"),
        pytest.param("RUNNING", "CANCELLING", id="at_work_has_to_be_stopped"),
        pytest.param("PAUSED", "CANCELLING", id="that_pauses_has_to_be_stopped"),
        pytest.param("CANCELLING", "CANCELLING", id="that_was_asked_already_stays_so"),
        pytest.param("COMPLETED", "COMPLETED", id="that_has_completed_stays_so"),
        pytest.param("CRASHED", "CRASHED", id="that_has_crashed_stays_so"),
    ],
)
async def test_a_run(before, after, prefects):
    run_id = prefects.begin("v1", before)
    async with prefects.open() as server:
        wanted = await prefects.seen(server, run_id)

        [run] = await server.cancel([wanted])

    assert (run.id, run.state, run.end_time is None) == (run_id, StateType(after), run.active)
    assert prefects.run(run_id)[0] == after


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "FAILED"])
async def test_a_run_to_which_something_happened_meanwhile_is_not_asked_to_stop(state, prefects):
    run_id = prefects.begin("v1")
    prefects.backdate(run_id, HOUR)
    async with prefects.open() as server:
        wanted = await prefects.seen(server, run_id)
        prefects.become(run_id, state)

        [run] = await server.cancel([wanted])

    assert run.state is StateType(state)
    assert prefects.run(run_id)[0] == state


async def test_a_run_that_is_gone_is_left_out_and_the_others_are_asked_to_stop(prefects):
    gone, there = prefects.begin("v1"), prefects.begin("v2")
    async with prefects.open() as server:
        wanted = [await prefects.seen(server, run_id) for run_id in (gone, there)]
        prefects.remove(gone)

        after = await server.cancel(wanted)

    assert [(run.id, run.state) for run in after] == [(there, StateType.CANCELLED)]


# heartbeats


@pytest.mark.parametrize(
    ("later", "alive"),
    [pytest.param(timedelta(0), True, id="at_that_time"), pytest.param(MICROSECOND, False, id="just_before_it")],
)
async def test_a_sign_of_life_counts_from_the_time_on(later, alive, prefects):
    run_id, silent, at = prefects.begin("v1", "RUNNING"), prefects.begin("v2", "RUNNING"), prefects.now - 3 * MINUTE
    prefects.beat(run_id, at)

    async with prefects.open() as server:
        found = await server.heartbeats([run_id, silent], since=at + later)

    assert found == ({run_id} if alive else set())


async def test_of_no_runs_there_is_no_sign_of_life(prefects):
    async with prefects.open() as server:
        assert await server.heartbeats([], since=prefects.now) == set()


# clock


async def test_the_server_tells_its_time_in_whole_seconds_once_it_has_answered(prefects):
    async with prefects.open() as server:
        before = server.clock
        await server.flow_runs(ended_since=prefects.now)
        after = server.clock

    assert before is None
    assert after is not None
    assert (after.microsecond, after.utcoffset()) == (0, timedelta(0))
