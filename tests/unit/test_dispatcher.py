"""Who has a turn when: one turn at a time, at most so many at once, and how the controller leaves."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from controller.api.manifest import PolicyKey
from controller.api.names import REQUESTED_AT
from controller.errors import ClusterError
from controller.operator.dispatcher import Dispatcher
from controller.operator.settings import LONGEST_BACK_OFF, RECHECK, TICK
from tests.support import manifest
from tests.unit.fakes import NOW, SECOND, raising


class Turns:
    """Stands in for `reconcile`: notes each turn, and holds it until it is let go."""

    def __init__(self) -> None:
        self.now = NOW
        self.log: list[tuple[str, str]] = []
        self.arguments: list[dict[str, Any]] = []
        self.held: dict[str, asyncio.Event] = {}
        self.gone: set[str] = set()
        self.on_turn: Any = lambda: None
        self.on_end: Any = lambda: None

    def clock(self) -> datetime:
        return self.now

    def hold(self, name: str) -> asyncio.Event:
        self.held[name] = asyncio.Event()
        return self.held[name]

    async def __call__(self, key: PolicyKey, /, **arguments: Any) -> bool:
        self.log.append(("begins", key.name))
        self.arguments.append(arguments)
        try:
            self.on_turn()
            if key.name in self.held:
                await self.held[key.name].wait()
            self.on_end()
            return key.name not in self.gone
        finally:
            self.log.append(("ends", key.name))

    @property
    def begun(self) -> list[str]:
        return [name for what, name in self.log if what == "begins"]

    @property
    def at_work(self) -> list[str]:
        ended = [name for what, name in self.log if what == "ends"]
        return sorted(name for name in set(self.begun) if self.begun.count(name) > ended.count(name))


@pytest.fixture
def turns() -> Turns:
    return Turns()


@pytest.fixture
async def dispatcher(turns: Turns) -> AsyncIterator[Dispatcher]:
    """A dispatcher with two workers."""
    dispatching = Dispatcher(turns, turns.clock)
    dispatching.start(2)
    yield dispatching
    for event in turns.held.values():
        event.set()
    await dispatching.drain(grace=1)


async def settle() -> None:
    """Let all that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


DONE: dict[str, Any] = {
    "observedGeneration": 1,
    "observedSchedule": "*/15 * * * * Etc/UTC",
    "nextScheduleTime": (NOW + timedelta(minutes=7)).isoformat(),
}
STALLED: list[dict[str, str]] = [
    {"type": "Stalled", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}
]


def resource(name: str = "one", *, status: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    """A policy's resource; without a status it is new, and so it is due."""
    base = manifest()
    base["metadata"] |= {"name": name, "uid": f"uid-of-{name}", **metadata}
    return {**base, "status": status or {}}


def key(name: str = "one") -> PolicyKey:
    return PolicyKey("captionacc", name, f"uid-of-{name}")


# Who is due


@pytest.mark.parametrize(
    ("metadata", "status", "due"),
    [
        pytest.param({}, {}, True, id="a_new_policy_is_due"),
        pytest.param({"generation": 2}, DONE, True, id="an_edited_policy_is_due"),
        pytest.param({}, DONE, False, id="a_policy_before_its_slot_is_not"),
        pytest.param({}, {**DONE, "nextScheduleTime": "2026-03-10T12:00:00Z"}, True, id="one_after_its_slot_is"),
        pytest.param({}, {**DONE, "nextScheduleTime": "2026-03-09T12:00:00Z"}, True, id="one_that_missed_slots_is"),
        pytest.param({"annotations": {REQUESTED_AT: "now"}}, DONE, True, id="a_request_is_due"),
        pytest.param(
            {"annotations": {REQUESTED_AT: "now"}},
            {**DONE, "lastHandledReconcileAt": "now"},
            False,
            id="a_request_that_was_served_is_not",
        ),
        pytest.param(
            {"annotations": {REQUESTED_AT: "again"}},
            {**DONE, "lastHandledReconcileAt": "now"},
            True,
            id="another_request_is",
        ),
        pytest.param({"annotations": {REQUESTED_AT: ""}}, DONE, False, id="an_empty_request_is_none"),
        pytest.param({"annotations": None}, DONE, False, id="no_annotations_are_no_request"),
        pytest.param({}, {**DONE, "conditions": STALLED}, True, id="a_stalled_policy_is_checked_again"),
        pytest.param({}, {"observedGeneration": 1}, False, id="a_suspended_policy_is_not_due"),
        pytest.param({"deletionTimestamp": "2026-03-10T12:00:00Z"}, {}, False, id="a_policy_being_deleted_is_not_due"),
    ],
)
async def test_tells_who_is_due(dispatcher, turns, metadata, status, due):
    dispatcher.enqueue_if_due(resource(status=status, **metadata))
    await settle()

    assert turns.begun == (["one"] if due else [])


@pytest.mark.parametrize(("seconds", "due"), [(-1, False), (0, False), (61, True)])
async def test_a_policy_is_due_at_its_slot_and_its_jitter(dispatcher, turns, seconds, due):
    slot = NOW.replace(minute=15, second=0)
    turns.now = slot + seconds * SECOND
    dispatcher.enqueue_if_due(resource(status={**DONE, "nextScheduleTime": slot.isoformat()}))
    await settle()

    assert bool(turns.begun) is due


@pytest.mark.parametrize("length", [1024, 1025, 100_000])
async def test_a_request_that_was_served_as_far_as_the_status_keeps_it_is_not_due_again(dispatcher, turns, length):
    served = {**DONE, "lastHandledReconcileAt": "t" * min(length, 1024)}
    dispatcher.enqueue_if_due(resource(status=served, annotations={REQUESTED_AT: "t" * length}))
    await settle()

    assert turns.begun == []


async def test_an_invalid_schedule_that_came_due_has_a_turn_to_say_so(dispatcher, turns):
    invalid = resource(status={**DONE, "nextScheduleTime": NOW.isoformat()})
    invalid["spec"]["schedule"] = "0 0 30 2 *"

    dispatcher.enqueue_if_due(invalid)
    await settle()

    assert turns.begun == ["one"]


async def test_a_turn_knows_when_it_came_due_however_long_it_waited(dispatcher, turns):
    for name in ("a", "b"):
        turns.hold(name)
        dispatcher.enqueue_if_due(resource(name))
    await settle()
    dispatcher.enqueue_if_due(resource("late"))
    turns.now += timedelta(minutes=5)
    turns.held["a"].set()
    await settle()

    assert turns.begun[-1] == "late"
    assert turns.arguments[-1]["due_at"] == NOW


# One at a time, and so many at once


async def test_a_policy_has_one_turn_at_a_time(dispatcher, turns):
    turns.hold("one")
    for _ in range(5):
        dispatcher.enqueue_if_due(resource())
        await settle()

    assert turns.log == [("begins", "one")]


async def test_a_policy_that_comes_due_during_its_turn_has_another_right_after(dispatcher, turns):
    held = turns.hold("one")
    dispatcher.enqueue_if_due(resource())
    await settle()
    for _ in range(3):
        dispatcher.enqueue_if_due(resource())
    held.set()
    await settle()

    assert turns.log == [("begins", "one"), ("ends", "one")] * 2


async def test_a_policy_that_is_due_again_while_it_waits_has_one_turn(dispatcher, turns):
    for _ in range(3):
        dispatcher.enqueue_if_due(resource())
    await settle()

    assert turns.begun == ["one"]


async def test_at_most_so_many_policies_have_a_turn_at_once(dispatcher, turns):
    names = ["a", "b", "c", "d"]
    for name in names:
        turns.hold(name)
        dispatcher.enqueue_if_due(resource(name))
    await settle()
    assert turns.at_work == ["a", "b"]

    turns.held["b"].set()
    await settle()
    assert turns.at_work == ["a", "c"]

    turns.held["a"].set()
    turns.held["c"].set()
    await settle()
    assert turns.at_work == ["d"]


async def test_a_policy_made_anew_under_the_same_name_does_not_wait_for_the_old_one(dispatcher, turns):
    turns.hold("one")
    dispatcher.enqueue_if_due(resource())
    dispatcher.enqueue_if_due(resource(uid="another"))
    await settle()

    assert turns.begun == ["one", "one"]


async def test_a_stale_word_of_a_policy_that_was_forgotten_gives_it_no_two_turns_at_once(dispatcher, turns):
    for name in ("other", "one"):
        turns.hold(name)
    dispatcher.enqueue_if_due(resource("other"))
    await settle()
    dispatcher.enqueue_if_due(resource())
    dispatcher.forget(key())
    dispatcher.enqueue_if_due(resource())
    await settle()
    dispatcher.enqueue_if_due(resource())
    turns.held["other"].set()
    await settle()

    assert turns.log == [("begins", "other"), ("begins", "one"), ("ends", "other")]


# Leaving


async def test_leaving_lets_a_turn_in_flight_finish_and_tells_it_to_stop(dispatcher, turns):
    held = turns.hold("one")
    dispatcher.enqueue_if_due(resource())
    await settle()
    stop = turns.arguments[0]["stop"]
    assert not stop.is_set()

    leaving = asyncio.create_task(dispatcher.drain(grace=60))
    await settle()
    assert stop.is_set()
    assert not leaving.done()

    held.set()
    await leaving
    assert turns.log == [("begins", "one"), ("ends", "one")]


async def test_leaving_starts_no_turn_that_waited(dispatcher, turns):
    for name in ("a", "b"):
        turns.hold(name)
        dispatcher.enqueue_if_due(resource(name))
    dispatcher.enqueue_if_due(resource("waits"))
    await settle()
    leaving = asyncio.create_task(dispatcher.drain(grace=60))
    await settle()
    dispatcher.enqueue_if_due(resource("comes too late"))
    turns.held["a"].set()
    turns.held["b"].set()
    await leaving

    assert turns.begun == ["a", "b"]


async def test_leaving_starts_no_second_turn_of_a_policy_at_work(dispatcher, turns):
    held = turns.hold("one")
    dispatcher.enqueue_if_due(resource())
    await settle()
    dispatcher.enqueue_if_due(resource())
    leaving = asyncio.create_task(dispatcher.drain(grace=60))
    await settle()
    held.set()
    await leaving

    assert turns.begun == ["one"]


async def test_a_signal_tells_turns_to_stop_at_once(dispatcher, turns):
    turns.hold("one")
    dispatcher.enqueue_if_due(resource())
    await settle()

    dispatcher.request_stop()

    assert turns.arguments[0]["stop"].is_set()


async def test_a_turn_that_outlasts_the_grace_is_cut_off_and_told_of(dispatcher, turns, caplog):
    turns.hold("one")
    dispatcher.enqueue_if_due(resource())
    await settle()

    await dispatcher.drain(grace=0)

    assert turns.log == [("begins", "one"), ("ends", "one")]
    assert "1 scans were cut off" in caplog.text


async def test_leaving_with_nothing_to_do_is_quick_and_quiet(dispatcher, caplog):
    await dispatcher.drain(grace=60)

    assert caplog.text == ""


# A policy that goes


async def test_forgetting_a_policy_stops_its_turn_and_no_other(dispatcher, turns):
    for name in ("one", "two"):
        turns.hold(name)
        dispatcher.enqueue_if_due(resource(name))
    await settle()

    dispatcher.forget(key("one"))

    assert [arguments["stop"].is_set() for arguments in turns.arguments] == [True, False]


async def test_forgetting_a_policy_that_does_not_run_does_not_stop_it_when_it_runs_again(dispatcher, turns):
    turns.hold("one")

    dispatcher.forget(key())
    dispatcher.enqueue_if_due(resource())
    await settle()

    assert [arguments["stop"].is_set() for arguments in turns.arguments] == [False]


async def test_a_policy_being_deleted_is_forgotten(dispatcher, turns):
    turns.hold("one")
    dispatcher.enqueue_if_due(resource())
    await settle()

    dispatcher.enqueue_if_due(resource(deletionTimestamp="2026-03-10T12:00:00Z"))

    assert turns.arguments[0]["stop"].is_set()


async def test_a_forgotten_policy_that_waited_has_no_turn(dispatcher, turns):
    for name in ("a", "b"):
        turns.hold(name)
        dispatcher.enqueue_if_due(resource(name))
    dispatcher.enqueue_if_due(resource("one"))
    await settle()
    dispatcher.forget(key("one"))
    turns.held["a"].set()
    await settle()

    assert "one" not in turns.begun


async def test_a_forgotten_policy_has_no_other_turn_after_its_last(dispatcher, turns):
    held = turns.hold("one")
    dispatcher.enqueue_if_due(resource())
    await settle()
    dispatcher.enqueue_if_due(resource())
    dispatcher.forget(key("one"))
    held.set()
    await settle()

    assert turns.begun == ["one"]


async def test_a_policy_that_vanished_unseen_is_looked_for_once_however_often_its_timer_ticks(dispatcher, turns):
    turns.gone.add("one")
    for _ in range(5):
        dispatcher.enqueue_if_due(resource())
        await settle()
    dispatcher.enqueue_if_due(resource(uid="another"))
    await settle()

    assert turns.begun == ["one", "one"]


# Errors


@pytest.mark.parametrize(
    ("error", "told"),
    [
        pytest.param(ClusterError("answered 500 Oops", status=500), "answered 500 Oops; trying", id="a_refusal"),
        pytest.param(ClusterError("no route", "see whether it runs"), "no route; trying", id="no_connection"),
        pytest.param(ClusterError("it changes all the time"), "it changes all the time", id="a_conflict_without_end"),
        pytest.param(ZeroDivisionError("oops"), "the controller failed", id="a_defect"),
        pytest.param(OSError("oops"), "the controller failed", id="an_error_that_nobody_classified"),
    ],
)
async def test_an_error_is_told_and_kills_no_worker(dispatcher, turns, caplog, error, told):
    turns.on_turn = raising(error)
    for _ in range(5):
        dispatcher.enqueue_if_due(resource())
        await settle()
        turns.now += LONGEST_BACK_OFF

    assert len(turns.begun) == 5
    assert caplog.text.count(told) == 5
    assert "captionacc/one" in caplog.text
    assert "trying again in 0:00:10" in caplog.text


async def tick_for(dispatcher: Dispatcher, turns: Turns, length: timedelta) -> list[int]:
    """Tick for some time; gives the seconds at which a turn began."""
    begun, start = [], turns.now
    while turns.now - start < length:
        before = len(turns.begun)
        dispatcher.enqueue_if_due(resource())
        await settle()
        begun += [int((turns.now - start).total_seconds())] * (len(turns.begun) - before)
        turns.now += TICK
    return begun


async def test_a_policy_whose_turns_fail_waits_twice_as_long_each_time(dispatcher, turns):
    turns.on_turn = raising(ClusterError("no route"))

    begun = await tick_for(dispatcher, turns, timedelta(minutes=30))

    gaps = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert gaps == [10, 20, 40, 80, 160, 300, 300, 300, 300]


async def test_a_turn_that_works_ends_the_waiting(dispatcher, turns):
    turns.on_turn = raising(ClusterError("no route"))
    await tick_for(dispatcher, turns, timedelta(minutes=10))
    turns.on_turn = lambda: None
    turns.now += LONGEST_BACK_OFF

    assert await tick_for(dispatcher, turns, timedelta(seconds=30)) == [0, 10, 20]

    turns.on_turn = raising(ClusterError("no route"))
    assert await tick_for(dispatcher, turns, timedelta(seconds=40)) == [0, 10, 30]


async def test_one_policys_failures_put_off_no_other(dispatcher, turns):
    turns.on_turn = raising(ClusterError("no route"))
    await tick_for(dispatcher, turns, timedelta(minutes=10))
    dispatcher.enqueue_if_due(resource("two"))
    await settle()

    assert turns.begun[-1] == "two"


async def test_a_policy_that_came_due_during_a_turn_that_failed_waits_all_the_same(dispatcher, turns):
    held = turns.hold("one")
    dispatcher.enqueue_if_due(resource())
    await settle()
    dispatcher.enqueue_if_due(resource())
    turns.on_end = raising(ClusterError("the status was refused"))
    held.set()
    await settle()

    assert turns.begun == ["one"]


async def test_a_turn_without_an_error_logs_nothing(dispatcher, turns, caplog):
    caplog.set_level(logging.DEBUG, logger="controller")
    dispatcher.enqueue_if_due(resource())
    await settle()

    assert caplog.text == ""


# Stalled policies


async def test_a_stalled_policy_is_checked_again_every_so_often_and_not_at_each_tick(dispatcher, turns):
    stalled = resource(status={**DONE, "conditions": STALLED})
    checked = []
    for seconds in range(0, 91, 10):
        turns.now = NOW + seconds * SECOND
        before = len(turns.begun)
        dispatcher.enqueue_if_due(stalled)
        await settle()
        checked += [seconds] * (len(turns.begun) - before)

    every = int(RECHECK.total_seconds())
    assert checked == list(range(0, 91, every))
    assert all(arguments["recheck"] for arguments in turns.arguments)


@pytest.mark.parametrize(("wait", "due"), [(RECHECK - timedelta(microseconds=1), 1), (RECHECK, 2)])
async def test_a_stalled_policy_waits_exactly_that_long(dispatcher, turns, wait, due):
    stalled = resource(status={**DONE, "conditions": STALLED})
    for now in (NOW, NOW + wait):
        turns.now = now
        dispatcher.enqueue_if_due(stalled)
        await settle()

    assert len(turns.begun) == due


async def test_an_edit_of_a_stalled_policy_is_seen_at_once(dispatcher, turns):
    dispatcher.enqueue_if_due(resource(status={**DONE, "conditions": STALLED}))
    await settle()
    dispatcher.enqueue_if_due(resource(status={**DONE, "conditions": STALLED}, generation=2))
    await settle()

    assert turns.begun == ["one", "one"]


async def test_a_request_to_a_stalled_policy_is_seen_at_once_and_is_no_recheck(dispatcher, turns):
    dispatcher.enqueue_if_due(resource(status={**DONE, "conditions": STALLED}))
    await settle()
    turns.now += SECOND
    dispatcher.enqueue_if_due(resource(status={**DONE, "conditions": STALLED}, annotations={REQUESTED_AT: "now"}))
    await settle()

    assert [arguments["recheck"] for arguments in turns.arguments] == [True, False]


async def test_a_stalled_policy_that_came_back_under_its_name_is_checked_at_once(dispatcher, turns):
    dispatcher.enqueue_if_due(resource(status={**DONE, "conditions": STALLED}))
    await settle()
    dispatcher.forget(key())
    dispatcher.enqueue_if_due(resource(status={**DONE, "conditions": STALLED}))
    await settle()

    assert turns.begun == ["one", "one"]
