"""A scan from top to bottom, with both services in memory: its steps, its second looks, and how it ends."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.decisions.decision import Failure, FailureReason, Skip, SkipReason
from controller.errors import ConfigurationError, ErrorReason, ScanError, Service
from controller.flow_runs import Deployment, Recovery, idempotency_key
from controller.outcome import Outcome, PreparedScan, Recovered
from controller.ports import BATCH
from controller.scan import execute, prepare
from controller.schedule import ScanRequest, Trigger
from tests.support import policy
from tests.unit.deciding import recoveries
from tests.unit.fakes import DEPLOYMENT, NOW, flow_run, raising, row, unavailable
from tests.unit.scanning import REQUEST, leaves, results, rows, scan, works_on
from tests.world.world import World

ALL_STEPS = [
    *["connect", "candidates", "deployment", "flow_runs", "recoveries"],
    *["still_stuck", "new_flow_runs", "create", "created_until"],
]


# The steps


async def test_does_its_steps_in_order():
    world = World(rows(1))

    outcome = await scan(world)

    assert [step for step in world.steps if step != "answer"] == ALL_STEPS
    assert results(outcome) == {"v0000": "Recovered"}
    assert outcome.error is None


async def test_asks_one_question_when_nothing_is_stuck():
    world = World([])

    outcome = await scan(world)

    assert world.steps == ["connect", "candidates"]
    assert outcome.stuck == []
    assert outcome.deployment is None
    assert outcome.error is None


async def test_asks_prefect_nothing_when_all_rows_are_too_young():
    world = World([row(age=timedelta(minutes=7))])

    outcome = await scan(world, stuck={"ageByStatus": {"uploading": "5m"}})

    assert world.steps == ["connect", "candidates"]
    assert outcome.results == []


async def test_leaves_alone_the_videos_that_are_deleted():
    world = World([row("v1"), row("v2", deleted_at=NOW.isoformat())])

    assert results(await scan(world)) == {"v1": "Recovered"}


async def test_asks_for_candidates_from_the_youngest_age_on():
    world = World([])

    await scan(world, stuck={"ageByStatus": {"uploading": "5m"}})

    assert world.asked["candidates"] == (NOW - timedelta(minutes=5), ())


async def test_asks_for_runs_that_ended_within_the_window():
    world = World(rows(1))

    await scan(world, stuck={"recentRunWindow": "7m"})

    assert world.asked["flow_runs"] == NOW - timedelta(minutes=7)


async def test_looks_up_no_earlier_recoveries_of_a_video_whose_recovery_is_at_work():
    world = World(rows(3), runs=[flow_run("v0001", attempt=1)])

    await scan(world)

    assert world.asked["recoveries"] == ["v0000", "v0002"]


async def test_looks_up_earlier_recoveries_of_a_video_that_something_else_works_on():
    # Whether its last recovery failed is to be settled all the same.
    world = World(rows(3), runs=[flow_run("v0001")])

    await scan(world)

    asked = world.asked["recoveries"]
    assert isinstance(asked, list)
    assert sorted(asked) == ["v0000", "v0001", "v0002"]


async def test_narrows_the_scan_to_the_requested_video():
    world = World(rows(3))

    outcome = await scan(world, request=ScanRequest(Trigger.REQUEST, token="now", video_ids=("v0001",)))

    assert world.asked["candidates"] == (NOW - timedelta(minutes=10), ("v0001",))
    assert world.created == ["v0001"]
    assert results(outcome) == {"v0001": "Recovered"}


async def test_a_recovery_knows_its_video_attempt_and_run():
    world = World(rows(1), runs=[flow_run("v0000", "CRASHED", ended=timedelta(days=1), attempt=1)])

    outcome = await scan(world)

    [recovered] = outcome.results
    assert isinstance(recovered, Recovered)
    assert (recovered.video_id, recovered.attempt) == ("v0000", 2)
    assert world.recoveries("v0000")[1] == Recovery(2, world.runs[recovered.run_id])


async def test_bad_rows_are_failures_and_the_others_are_recovered():
    world = World([row("v\x07"), row("v1"), row("v2", created_at=None), row("v3", created_at="-infinity")])

    outcome = await scan(world)

    bad = dict.fromkeys(["v\N{REPLACEMENT CHARACTER}", "v2", "v3"], "InvalidRow")
    assert results(outcome) == {**bad, "v1": "Recovered"}
    assert outcome.stuck is not None
    assert [each.id for each in outcome.stuck] == ["v1"]


async def test_reports_bad_rows_also_when_nothing_else_is_there():
    outcome = await scan(World([row("bad", created_at=None)]))

    assert results(outcome) == {"bad": "InvalidRow"}
    assert outcome.error is None


# What creates nothing


@pytest.mark.parametrize(
    ("spec", "world", "reason"),
    [
        pytest.param({"mode": "Observe"}, World(rows(2)), SkipReason.OBSERVE_MODE, id="in_observe_mode"),
        pytest.param(
            {},
            World(rows(2), deployment=Deployment("d", "f", "it is paused", "DeploymentPaused")),
            SkipReason.DEPLOYMENT_NOT_READY,
            id="while_the_deployment_is_not_ready",
        ),
        pytest.param(
            {},
            World(rows(2), runs=[flow_run("v0000"), flow_run("v0001")]),
            SkipReason.ACTIVE_FLOW_RUN,
            id="for_busy_videos",
        ),
    ],
)
async def test_creates_nothing_and_takes_no_second_look(spec, world, reason):
    outcome = await scan(world, **spec)

    assert world.steps == ["connect", "candidates", "deployment", "flow_runs", "recoveries"]
    assert results(outcome) == {"v0000": reason, "v0001": reason}


async def test_a_recovery_that_somebody_else_created_meanwhile_is_at_work_too():
    # It was created after the index was read, and shows first by its idempotency key.
    world = World(rows(1))
    key = idempotency_key(DEPLOYMENT.flow_id, "v0000", 1)
    world.on["recoveries", 1] = lambda: world.begin("v0000", key)

    outcome = await scan(world)

    assert results(outcome) == {"v0000": SkipReason.ACTIVE_FLOW_RUN}
    assert world.created == []


# The second look


async def test_leaves_alone_a_video_for_which_a_run_appeared():
    world = World(rows(2))
    world.on["new_flow_runs", 1] = lambda: works_on(world, "v0001", "PENDING")

    outcome = await scan(world)

    assert results(outcome) == {"v0000": "Recovered", "v0001": SkipReason.ACTIVE_FLOW_RUN}
    assert world.created == ["v0000"]


async def test_leaves_alone_a_video_for_which_a_run_came_and_went():
    world = World(rows(1))
    world.on["new_flow_runs", 1] = lambda: works_on(world, "v0000", "COMPLETED")

    assert results(await scan(world)) == {"v0000": SkipReason.RECENTLY_PROCESSED}


async def test_forgets_a_video_that_got_going_by_itself():
    world = World(rows(2))
    world.on["still_stuck", 1] = lambda: leaves(world, "v0000")

    outcome = await scan(world)

    assert results(outcome) == {"v0001": "Recovered"}
    assert outcome.stuck is not None
    assert [each.id for each in outcome.stuck] == ["v0001"]
    assert world.created == ["v0001"]


async def test_forgets_a_video_that_is_deleted_meanwhile():
    world = World(rows(2))
    world.on["still_stuck", 1] = lambda: world.delete("v0000")

    outcome = await scan(world)

    assert results(outcome) == {"v0001": "Recovered"}
    assert world.created == ["v0001"]


async def test_creates_nothing_when_all_of_a_batch_got_going():
    world = World(rows(1))
    world.on["still_stuck", 1] = lambda: leaves(world, "v0000")

    outcome = await scan(world)

    assert "create" not in world.steps
    assert outcome.results == []
    assert outcome.stuck == []


async def test_says_that_a_run_appeared_also_of_a_video_that_left():
    world = World(rows(1))
    world.on["still_stuck", 1] = lambda: leaves(world, "v0000")
    world.on["new_flow_runs", 1] = lambda: works_on(world, "v0000")

    assert results(await scan(world)) == {"v0000": SkipReason.ACTIVE_FLOW_RUN}


async def test_looks_again_before_each_batch():
    world = World(rows(BATCH + 1))
    last = f"v{BATCH:04}"
    world.on["new_flow_runs", 2] = lambda: works_on(world, last)

    outcome = await scan(world)

    assert results(outcome)[last] == SkipReason.ACTIVE_FLOW_RUN
    assert last not in world.created


async def test_a_video_in_capitals_is_still_the_same_one():
    uuid = "6B2D1EF0-5A55-4A3C-9F3E-0F4F6D1A2B3C"

    assert results(await scan(World([row(uuid)]))) == {uuid: "Recovered"}


# Scans of one process


async def test_two_scans_at_once_create_one_after_the_other_each_after_a_second_look_of_its_own():
    # A server on SQLite refuses a batch that begins during another one.
    world = World(rows(2))
    requests = [ScanRequest(Trigger.REQUEST, token="t", video_ids=(video_id,)) for video_id in ("v0000", "v0001")]

    outcomes = await asyncio.gather(*(scan(world, request=request) for request in requests))

    assert [results(outcome) for outcome in outcomes] == [{"v0000": "Recovered"}, {"v0001": "Recovered"}]
    creating = [step for step in world.steps if step in {"still_stuck", "new_flow_runs", "create", "answer"}]
    assert creating == ["still_stuck", "new_flow_runs", "create", "answer"] * 2


async def test_two_scans_at_once_of_the_same_videos_recover_each_of_them_once():
    world = World(rows(3))

    first, second = await asyncio.gather(scan(world), scan(world))

    assert sorted(world.created) == ["v0000", "v0001", "v0002"]
    assert {*results(first).values(), *results(second).values()} == {"Recovered", SkipReason.ACTIVE_FLOW_RUN}


# Batches


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        pytest.param(BATCH, [BATCH], id="exactly_one_batch"),
        pytest.param(BATCH + 1, [BATCH, 1], id="one_more_than_a_batch"),
        pytest.param(2 * BATCH + 50, [BATCH, BATCH, 50], id="two_and_a_half"),
    ],
)
async def test_creates_in_batches_the_oldest_first(count, sizes):
    world = World(list(reversed(rows(count))))

    outcome = await scan(world)

    assert [len(batch) for batch in world.batches] == sizes
    assert world.created == [f"v{n:04}" for n in range(count)]
    assert Counter(results(outcome).values()) == {"Recovered": count}


async def test_no_batch_is_larger_than_prefect_takes():
    world = World(rows(201))

    await scan(world)

    assert max(len(batch) for batch in world.batches) == 100


async def test_a_refused_run_is_a_failure_of_its_video_alone():
    world = World(rows(3), refused={"v0001": "Prefect refused the run: no such parameter"})

    outcome = await scan(world)

    assert results(outcome) == {"v0000": "Recovered", "v0001": FailureReason.REFUSED, "v0002": "Recovered"}
    assert [each.detail for each in outcome.results if isinstance(each, Failure)] == [world.refused["v0001"]]
    assert outcome.error is None


# Errors


def configuration(service: Service | None) -> ConfigurationError:
    return ConfigurationError("write something else", reason=ErrorReason.SECRET_NOT_FOUND, service=service)


@pytest.mark.parametrize("step", ALL_STEPS[:7])
@pytest.mark.parametrize(
    "error",
    [unavailable(), configuration(None), ScanError("oh", reason=ErrorReason.UNREACHABLE)],
    ids=lambda e: type(e).__name__,
)
async def test_an_error_before_the_first_run_creates_nothing(step, error):
    world = World(rows(3), on={(step, 1): raising(error)})

    outcome = await scan(world)

    assert outcome.error is error
    assert world.created == []
    assert world.steps[-1] == step
    stuck = [] if step in {"connect", "candidates"} else ["v0000", "v0001", "v0002"]
    assert results(outcome) == dict.fromkeys(stuck, SkipReason.INTERRUPTED)
    assert (outcome.stuck is None) is (step in {"connect", "candidates"})
    assert (outcome.deployment is None) is (step in {"connect", "candidates", "deployment"})


async def test_an_error_keeps_what_was_decided_before():
    bad = row("bad", created_at=None)
    world = World([*rows(2), bad], runs=[flow_run("v0000")], on={("still_stuck", 1): raising(unavailable())})

    outcome = await scan(world)

    assert results(outcome) == {
        "bad": "InvalidRow",
        "v0000": SkipReason.ACTIVE_FLOW_RUN,
        "v0001": SkipReason.INTERRUPTED,
    }


async def test_an_error_amid_a_batch_fails_those_without_an_answer():
    world = World(rows(4), bulk=False, on={("answer", 3): raising(unavailable())})

    outcome = await scan(world)

    assert results(outcome) == {
        "v0000": "Recovered",
        "v0001": "Recovered",
        "v0002": FailureReason.NOT_CREATED,
        "v0003": FailureReason.NOT_CREATED,
    }
    assert isinstance(outcome.results[-1], Failure)
    assert outcome.results[-1].detail == unavailable().message
    assert outcome.error is not None


async def test_an_error_of_a_whole_batch_fails_it_and_leaves_the_later_ones_for_the_next_scan():
    world = World(rows(2 * BATCH + 1), on={("create", 2): raising(unavailable())})

    outcome = await scan(world)

    assert Counter(results(outcome).values()) == {
        "Recovered": BATCH,
        FailureReason.NOT_CREATED: BATCH,
        SkipReason.INTERRUPTED: 1,
    }


async def test_an_error_of_the_second_look_leaves_the_batch_for_the_next_scan():
    world = World(rows(BATCH + 2), on={("new_flow_runs", 2): raising(unavailable())})

    outcome = await scan(world)

    assert Counter(results(outcome).values()) == {"Recovered": BATCH, SkipReason.INTERRUPTED: 2}


async def test_a_defect_is_not_taken_for_an_error_of_a_service():
    world = World(rows(1), on={("flow_runs", 1): raising(ZeroDivisionError())})

    with pytest.raises(ZeroDivisionError):
        await scan(world)


# Stopping


async def test_a_scan_that_is_to_stop_creates_nothing_more():
    world, stop = World(rows(2)), asyncio.Event()
    stop.set()

    outcome = await scan(world, stop=stop)

    assert world.created == []
    assert "still_stuck" not in world.steps
    assert results(outcome) == dict.fromkeys(["v0000", "v0001"], SkipReason.INTERRUPTED)
    assert outcome.error is None


async def test_a_scan_that_is_to_stop_finishes_its_batch():
    world, stop = World(rows(2 * BATCH), bulk=False), asyncio.Event()
    world.on["answer", 5] = stop.set

    outcome = await scan(world, stop=stop)

    assert len(world.created) == BATCH
    assert Counter(results(outcome).values()) == {"Recovered": BATCH, SkipReason.INTERRUPTED: BATCH}


async def test_an_interrupted_video_says_who_takes_it_up():
    stop = asyncio.Event()
    stop.set()

    [skip] = (await scan(World(rows(1)), stop=stop)).results

    assert isinstance(skip, Skip)
    assert "the next one takes it up" in skip.detail


# Whatever happens

STEPS = st.tuples(st.sampled_from([*ALL_STEPS, "answer"]), st.integers(1, 4))


@given(
    count=st.integers(0, 3 * BATCH),
    busy=st.sets(st.integers(0, 3 * BATCH), max_size=20),
    gone=st.sets(st.integers(0, 3 * BATCH), max_size=20),
    refused=st.sets(st.integers(0, 3 * BATCH), max_size=20),
    bulk=st.booleans(),
    failing=st.none() | STEPS,
    stopping=st.none() | STEPS,
    limit=st.integers(1, 3 * BATCH),
)
@settings(max_examples=60)
def test_every_stuck_video_has_exactly_one_result(count, busy, gone, refused, bulk, failing, stopping, limit):
    stop = asyncio.Event()
    runs = [flow_run(f"v{n:04}") for n in busy]
    world = World(rows(count), runs, refused={f"v{n:04}": "refused" for n in refused}, bulk=bulk)
    happens: list[tuple[tuple[str, int], Any]] = [(("still_stuck", 1), partial(leave_all, world, gone))]
    happens += [(stopping, stop.set)] if stopping else []
    happens += [(failing, raising(unavailable()))] if failing else []
    world.on = dict(happens)

    outcome = asyncio.run(scan(world, stop=stop, limits={"perScan": limit}))

    assert set(results(outcome)) == {each.id for each in outcome.stuck or ()}
    recovered = {video_id for video_id, result in results(outcome).items() if result == "Recovered"}
    assert recovered <= set(world.created)
    assert len(world.created) == len(set(world.created)) <= limit
    assert not {f"v{n:04}" for n in busy} & set(world.created)


def leave_all(world: World, gone: set[int]) -> None:
    for n in gone:
        leaves(world, f"v{n:04}")


# In two parts: prepare, then execute


async def prepare_only(world: World, **spec: Any) -> PreparedScan:
    async with world.connect(policy(**spec)) as clients:
        return await prepare(policy(**spec), REQUEST, clients, now=NOW)


async def prepare_and_execute(
    world: World, meanwhile: Callable[[], object] = lambda: None, **more: Any
) -> tuple[PreparedScan, Outcome]:
    """A scan in its two parts, and what happens between them."""
    async with world.connect(policy()) as clients:
        prepared = await prepare(policy(), REQUEST, clients, now=NOW)
        meanwhile()
        return prepared, await execute(prepared, clients, stop=asyncio.Event(), **more)


async def test_preparing_decides_and_changes_nothing():
    world = World([*rows(3), row("bad", created_at=None)])

    prepared = await prepare_only(world)

    assert recoveries(prepared.decisions) == ["v0000", "v0001", "v0002"]
    assert [each.video_id for each in prepared.left_alone] == ["bad"]
    assert not {"create", "cancel", "still_stuck", "new_flow_runs"} & set(world.steps)


async def test_preparing_a_scan_that_finds_nothing_has_no_facts_and_no_error():
    prepared = await prepare_only(World([]))

    assert (prepared.stuck, prepared.facts, prepared.decisions, prepared.error) == ((), None, (), None)


@pytest.mark.parametrize("step", ["deployment", "flow_runs", "recoveries"])
async def test_what_was_known_when_preparing_failed_comes_with_the_error(step):
    world = World([*rows(3), row("bad", created_at=None)], on={(step, 1): raising(unavailable())})

    prepared = await prepare_only(world)

    assert prepared.error is not None
    assert [video.id for video in prepared.stuck or ()] == ["v0000", "v0001", "v0002"]
    assert [each.video_id for each in prepared.left_alone] == ["bad"]
    assert prepared.recoveries == []


async def test_executing_tells_of_each_recovery_as_soon_as_its_result_is_known():
    world, told = World([*rows(3), row("bad", created_at=None)]), []

    prepared, outcome = await prepare_and_execute(world, on_result=lambda result: told.append(result.video_id))

    assert told == recoveries(prepared.decisions)
    assert [result.video_id for result in outcome.results] == ["bad", *told]


async def test_executing_sees_what_happened_since_the_decisions():
    world = World(rows(3))

    def meanwhile() -> None:
        leaves(world, "v0000")
        works_on(world, "v0001")

    _, outcome = await prepare_and_execute(world, meanwhile)

    assert results(outcome) == {"v0001": "ActiveFlowRun", "v0002": "Recovered"}
    assert [video.id for video in outcome.stuck or ()] == ["v0001", "v0002"]


async def test_executing_a_scan_that_could_not_be_prepared_creates_nothing_and_keeps_the_error():
    world = World(rows(3), on={("flow_runs", 1): raising(unavailable())})

    prepared, outcome = await prepare_and_execute(world)

    assert outcome.error is prepared.error is not None
    assert set(results(outcome).values()) == {SkipReason.INTERRUPTED}
    assert world.created == []
