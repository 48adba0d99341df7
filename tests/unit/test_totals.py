"""Did it work? Each recovery is counted once and settled once, also by scans that fail, are narrowed or are killed."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from controller.api.status import Confirmations, PolicyStatus, RecoveryCursor, Totals
from controller.flow_runs import ENDED, FlowRun, StateType, is_recovery
from controller.outcome import Outcome, Recovered, RecoverySnapshot
from controller.reporting.status import after_scan
from controller.reporting.totals import TotalsUpdate, update_totals
from controller.schedule import Plan, ScanRequest, Trigger
from tests.support import policy
from tests.unit.controlling import FLOW, Controller, KilledError, slow_world
from tests.unit.fakes import DEPLOYMENT, MICROSECOND, NOW, SECOND, earlier, flow_run, unavailable, video

MINUTE = timedelta(minutes=1)
BEFORE = NOW - 15 * MINUTE
"""When the scan before looked."""
ACTIVE = ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"]
FAILED = ["FAILED", "CRASHED", "CANCELLED"]


def before(recovered: int = 0, confirmed: int = 0, failed: int = 0, **changes: Any) -> PolicyStatus:
    """A status, as a scan of a quarter of an hour ago wrote it."""
    totals = Totals(scans=1, recovered=recovered, confirmed=confirmed, failed=failed)
    cursor = RecoveryCursor(created_until=BEFORE, ended_until=BEFORE)
    return PolicyStatus(**{"totals": totals, "recovery_cursor": cursor, **changes})


def recovery(state: str, *, ended: timedelta | None = 5 * MINUTE, video_id: str = "v1", **run: Any) -> FlowRun:
    """A recovery that the scan before created, or counted."""
    ended = None if state in ACTIVE else ended
    created = run.pop("created", 20 * MINUTE - (ended or timedelta(0)))
    return flow_run(video_id, state, ended=ended, created=created, run_id=f"r-{video_id}-{state}", **run)


def saw(*runs: FlowRun, recovered: int = 0, **changes: Any) -> Outcome:
    """A scan that saw these earlier recoveries of stuck videos and created some more."""
    of_video: dict[str, list[FlowRun]] = {}
    for run in runs:
        of_video.setdefault(str(run.video_id), []).append(run)
    snapshot = RecoverySnapshot({video_id: earlier(*several) for video_id, several in of_video.items()}, NOW)
    stuck = [video(video_id) for video_id in of_video] + [video(f"new{n}") for n in range(recovered)]
    results = [Recovered(video(f"new{n}"), 1, f"run{n}") for n in range(recovered)]
    created_until = NOW + 3 * SECOND if recovered else None
    outcome = Outcome(ScanRequest(Trigger.SCHEDULE), NOW, stuck, DEPLOYMENT, snapshot, created_until, results)
    return replace(outcome, **changes)


def nothing_stuck() -> Outcome:
    return Outcome(ScanRequest(Trigger.SCHEDULE), NOW, [])


def settled(status: PolicyStatus, outcome: Outcome) -> tuple[int, int, int]:
    """What a scan adds: recovered, confirmed, failed; as its record says it, too."""
    update = update_totals(status, outcome)
    totals, record = update.totals, update.confirmations or Confirmations()
    added = totals.confirmed - status.totals.confirmed, totals.failed - status.totals.failed
    assert (record.confirmed, record.failed) == added
    return totals.recovered - status.totals.recovered, *added


def then(status: PolicyStatus, update: TotalsUpdate) -> PolicyStatus:
    """The status after a scan."""
    return status.model_copy(update={"totals": update.totals, "recovery_cursor": update.cursor})


# What became of a recovery


def test_a_recovery_of_a_video_that_left_is_confirmed():
    assert settled(before(recovered=2), saw(recovery("RUNNING"))) == (0, 1, 0)


def test_where_nothing_is_stuck_all_recoveries_are_confirmed():
    assert settled(before(recovered=5, confirmed=2, failed=1), nothing_stuck()) == (0, 2, 0)


def test_a_recovery_that_completed_is_confirmed_although_its_video_is_still_stuck():
    assert settled(before(recovered=1), saw(recovery("COMPLETED"))) == (0, 1, 0)


@pytest.mark.parametrize("state", FAILED)
def test_a_recovery_that_ended_otherwise_and_left_its_video_stuck_failed(state):
    assert settled(before(recovered=1), saw(recovery(state))) == (0, 0, 1)


@pytest.mark.parametrize("state", ACTIVE)
def test_an_active_recovery_is_not_settled_yet(state):
    assert settled(before(recovered=1), saw(recovery(state))) == (0, 0, 0)


def test_several_recoveries_are_settled_each_by_itself():
    runs = [recovery("RUNNING"), recovery("FAILED", video_id="v2"), recovery("COMPLETED", video_id="v3")]

    assert settled(before(recovered=5), saw(*runs)) == (0, 3, 1)


def test_an_earlier_attempt_that_failed_stays_failed_while_the_next_one_is_at_work():
    first = replace(recovery("FAILED"), id="first")
    second = recovery("RUNNING")

    assert settled(before(recovered=2), saw(first, second)) == (0, 0, 1)


# Once, and not again


@pytest.mark.parametrize("state", FAILED)
def test_a_failure_is_counted_by_one_scan_only(state):
    status, run = before(recovered=1), recovery(state)

    status = then(status, update_totals(status, saw(run)))

    assert settled(status, saw(run)) == (0, 0, 0)
    assert (status.totals.confirmed, status.totals.failed) == (0, 1)


@pytest.mark.parametrize(
    ("ended", "failed"),
    [
        pytest.param(15 * MINUTE, 0, id="exactly_when_the_scan_before_looked"),
        pytest.param(15 * MINUTE - MICROSECOND, 1, id="just_after_the_scan_before_looked"),
        pytest.param(timedelta(0), 1, id="exactly_when_this_scan_looks"),
        pytest.param(-MICROSECOND, 0, id="just_after_this_scan_looks"),
    ],
)
def test_a_failure_is_counted_by_the_scan_that_first_looks_after_it(ended, failed):
    outcome = saw(recovery("FAILED", ended=ended), recovery("RUNNING", video_id="v2"))

    assert settled(before(recovered=2), outcome)[2] == failed


@pytest.mark.parametrize(("state", "expected"), [("FAILED", (0, 0, 1)), ("COMPLETED", (0, 1, 0))])
def test_a_recovery_that_ended_during_the_scan_is_left_to_the_next_one(state, expected):
    # The index may have shown it as active, or not at all.
    status = before(recovered=1)
    run = recovery(state, ended=-MICROSECOND)

    assert settled(status, saw(run)) == (0, 0, 0)
    status = then(status, update_totals(status, saw(run)))
    assert settled(status, saw(run, snapshot=RecoverySnapshot({"v1": earlier(run)}, NOW + 15 * MINUTE))) == expected


# Recoveries that no status knows of yet


@pytest.mark.parametrize(
    ("created", "adopted"),
    [
        pytest.param(15 * MINUTE, 0, id="exactly_until_then_are_counted"),
        pytest.param(15 * MINUTE - MICROSECOND, 1, id="just_after_that"),
        pytest.param(-MINUTE, 1, id="while_this_scan_looked"),
    ],
)
def test_adopts_recoveries_that_were_created_since_the_last_count(created, adopted):
    assert settled(before(), saw(recovery("RUNNING", created=created)))[0] == adopted


def test_an_adopted_recovery_is_settled_like_any_other():
    created = 9 * MINUTE
    runs = [
        recovery("RUNNING", created=created),
        recovery("FAILED", created=created - 5 * MINUTE, video_id="v2"),
        recovery("COMPLETED", created=created - 5 * MINUTE, video_id="v3"),
    ]

    assert settled(before(), saw(*runs)) == (3, 1, 1)


def test_adopts_no_recovery_of_an_unknown_time():
    unknown = replace(recovery("RUNNING", created=MINUTE), created=None)

    assert settled(before(), saw(unknown)) == (0, 0, 0)


def test_a_policy_that_never_counted_adopts_nothing():
    status = before(recovery_cursor=None)

    assert settled(status, saw(recovery("RUNNING", created=MINUTE), recovery("FAILED", video_id="v2"))) == (0, 0, 0)
    assert update_totals(status, saw()).cursor == RecoveryCursor(created_until=NOW, ended_until=NOW)


def test_a_scan_does_not_adopt_what_the_scan_before_created():
    status = before()

    status = then(status, update_totals(status, saw(recovered=2)))

    assert status.totals.recovered == 2
    assert status.recovery_cursor == RecoveryCursor(created_until=NOW + 3 * SECOND, ended_until=NOW)
    mine = [recovery("RUNNING", video_id=f"new{n}", created=-3 * SECOND) for n in range(2)]
    later = RecoverySnapshot({str(run.video_id): earlier(run) for run in mine}, NOW + 15 * MINUTE)
    assert settled(status, saw(*mine, snapshot=later)) == (0, 0, 0)


def test_where_the_server_tells_no_time_a_scan_does_not_adopt_what_the_scan_before_created_either():
    status = before()

    status = then(status, update_totals(status, saw(recovered=1, created_until=None)))

    mine = recovery("RUNNING", video_id="new0", created=-2 * SECOND)
    assert settled(status, saw(mine, snapshot=RecoverySnapshot({"new0": earlier(mine)}, NOW + 15 * MINUTE))) == (
        0,
        0,
        0,
    )


# Scans that do not see everything


def test_a_scan_narrowed_to_one_video_settles_nothing_and_counts_what_it_created():
    request = ScanRequest(Trigger.REQUEST, token="t", video_ids=("v1",))

    assert settled(before(recovered=3), saw(recovery("FAILED"), recovered=1, request=request)) == (1, 0, 0)


def test_after_a_narrowed_scan_the_next_one_settles_what_it_left():
    request = ScanRequest(Trigger.REQUEST, token="t", video_ids=("v1",))
    status, failure = before(recovered=2), recovery("FAILED")

    status = then(status, update_totals(status, saw(failure, request=request)))

    assert settled(status, saw(failure)) == (0, 1, 1)


def test_a_narrowed_scan_that_created_nothing_leaves_the_counts_as_they_were():
    request = ScanRequest(Trigger.REQUEST, token="t", video_ids=("v1",))

    assert update_totals(before(recovered=2), saw(request=request)).cursor == before().recovery_cursor


def test_a_narrowed_scan_that_finds_its_video_gone_settles_nothing():
    outcome = replace(nothing_stuck(), request=ScanRequest(Trigger.REQUEST, token="t", video_ids=("v1",)))

    assert settled(before(recovered=2), outcome) == (0, 0, 0)


@pytest.mark.parametrize("stuck", [None, [video()]], ids=["supabase_failed", "prefect_failed"])
def test_a_scan_that_failed_before_it_saw_the_recoveries_settles_nothing(stuck):
    outcome = Outcome(ScanRequest(Trigger.SCHEDULE), NOW, stuck, error=unavailable())
    status = before(recovered=2)

    assert settled(status, outcome) == (0, 0, 0)
    assert update_totals(status, outcome).cursor == status.recovery_cursor


def test_a_scan_that_failed_with_nothing_stuck_settles_nothing():
    outcome = replace(nothing_stuck(), error=unavailable())

    assert settled(before(recovered=2), outcome) == (0, 0, 0)


def test_a_scan_that_failed_while_it_created_settles_and_counts_what_it_created():
    outcome = saw(recovery("FAILED"), recovered=1, error=unavailable())

    assert settled(before(recovered=1), outcome) == (1, 0, 1)


# Never more than there is


def test_no_more_fail_than_are_in_flight():
    # Runs of somebody else's, from before this policy.
    runs = [recovery("FAILED", video_id=f"v{n}") for n in range(3)]

    assert settled(before(recovered=1), saw(*runs)) == (0, 0, 1)


def test_nothing_is_confirmed_back_below_zero():
    runs = [recovery("RUNNING", video_id=f"v{n}") for n in range(3)]

    assert settled(before(recovered=1), saw(*runs)) == (0, 0, 0)


# In the status


def test_a_scan_that_settled_something_says_so_in_its_record():
    after = after_scan(before(recovered=3), policy(), saw(recovery("FAILED")), Plan(None, None), now=NOW)

    assert after.last_scan is not None
    assert after.last_scan.confirmations == after.history[0].confirmations == Confirmations(confirmed=2, failed=1)
    assert after.totals == Totals(scans=2, recovered=3, confirmed=2, failed=1)


def test_a_scan_that_settled_nothing_says_nothing():
    after = after_scan(before(recovered=1), policy(), saw(recovery("RUNNING")), Plan(None, None), now=NOW)

    assert after.last_scan is not None
    assert after.last_scan.confirmations is None


# Over many scans

SPEC: dict[str, Any] = {
    "stuck": {"age": "1m", "recentRunWindow": "1m"},
    "retry": {"maxAttempts": 4, "backoff": "1m", "maxBackoff": "1m"},
    "limits": {"perScan": 3},
}
MOVES = ["arrive", "wait", "start", "complete", "fail", "crash", "done", "process"]
SCANS = ["scan", "scan", "request", "break", "kill"]
moves = st.lists(st.tuples(st.sampled_from(MOVES + SCANS), st.integers(0, 12)), min_size=10, max_size=50)


class Ledger:
    """What is true of the recoveries, kept by looking at everything."""

    def __init__(self, controller: Controller) -> None:
        self.controller, self.world = controller, controller.world
        self.state: dict[str, str] = {}

    def take(self, outcome: Outcome) -> None:
        """Settle and count after a scan whose status was written."""
        saw_all = not outcome.request.video_ids and outcome.stuck is not None
        if saw_all and (outcome.snapshot is not None or not outcome.stuck):
            stuck = {each.id for each in outcome.stuck or ()}
            for run in self.world.runs.values():
                if is_recovery(run, FLOW) and not (
                    outcome.snapshot and run.created and run.created > outcome.snapshot.since
                ):
                    self._settle(run, run.video_id in stuck)
        self.state |= {recovered.run_id: "in flight" for recovered in outcome.recovered}

    def _settle(self, run: FlowRun, is_stuck: bool) -> None:
        if is_stuck:  # one of a killed controller whose video has left meanwhile is never heard of again
            self.state.setdefault(run.id, "in flight")
        if self.state.get(run.id) != "in flight":
            return
        if not is_stuck or run.state is StateType.COMPLETED:
            self.state[run.id] = "confirmed"
        elif run.state in ENDED:
            self.state[run.id] = "failed"

    def count(self, state: str) -> int:
        return list(self.state.values()).count(state)


def move(ledger: Ledger, name: str, pick: int) -> None:
    """Let something happen."""
    world = ledger.world
    active = [run for run in world.runs.values() if run.active]
    run = active[pick % len(active)] if active else None
    if name == "arrive":
        world.upload(f"v{len(world.rows)}", "tenant", 5 * MINUTE)
    elif name == "wait":
        world.now += (pick + 1) * MINUTE
    elif run is not None and name == "start":
        world.become(run.id, StateType.RUNNING)
    elif run is not None and name == "process":
        world.set_status(str(run.video_id), "processing")
    elif run is not None:
        states = {"fail": StateType.FAILED, "crash": StateType.CRASHED}
        world.become(run.id, states.get(name, StateType.COMPLETED))
        if name == "done":
            world.set_status(str(run.video_id), "ready")


def broken(error: Exception) -> Any:
    def fail() -> None:
        raise error

    return fail


def scan_somehow(ledger: Ledger, name: str, pick: int, *, narrow: bool) -> bool:
    """Run a scan that may be narrowed, break off or be killed at any question.

    Tells whether it knows when its recoveries were created: if not even that could be asked, the next scan guesses.
    """
    world, videos = ledger.world, [str(row["id"]) for row in ledger.world.rows]
    world.now += MINUTE
    if name in {"break", "kill"}:
        world.happens[pick] = broken(unavailable() if name == "break" else KilledError())
    video_id = videos[pick % len(videos)] if name == "request" and narrow and videos else None
    outcome = ledger.controller.scan(video_id)
    event(f"{name}: {'killed' if outcome is None else type(outcome.error).__name__}")
    if outcome is None:
        return True
    ledger.take(outcome)
    return not outcome.recovered or outcome.created_until is not None


@given(moves=moves, bulk=st.booleans(), skew=st.sampled_from([-90, 0, 90]))
@settings(max_examples=60)
def test_every_recovery_is_confirmed_failed_or_in_flight_and_counted_once(moves, bulk, skew):
    controller = Controller(slow_world(bulk=bulk, skew=skew * SECOND), policy(**SPEC))
    controller.check()
    ledger, narrow = Ledger(controller), True
    for _ in range(3):
        move(ledger, "arrive", 0)
    controller.world.now += 5 * MINUTE

    for name, pick in moves:
        if name not in SCANS:
            move(ledger, name, pick)
            continue
        is_exact = scan_somehow(ledger, name, pick, narrow=narrow)
        # What was created and not answered, or not written down, is adopted by the next scan of all videos, if that
        # comes first: one that is narrowed moves the cursor past it.
        narrow = name not in {"break", "kill"} and (narrow or name == "scan")
        totals = controller.status.totals
        assert totals.recovered == len(ledger.state)
        assert (totals.confirmed, totals.failed) == (ledger.count("confirmed"), ledger.count("failed"))
        if not is_exact:
            return


def test_a_first_attempt_that_failed_is_settled_although_a_request_by_name_already_created_the_second():
    world = slow_world()
    controller = Controller(world, policy())
    world.upload("v1", "tenant", timedelta(hours=1))
    controller.scan()
    world.now += MINUTE
    world.become("run0", StateType.FAILED)
    world.now += 6 * MINUTE
    controller.scan("v1")
    world.now += 8 * MINUTE

    controller.scan()

    totals = controller.status.totals
    assert (totals.recovered, totals.confirmed, totals.failed) == (2, 0, 1)


def test_what_a_killed_controller_created_is_counted_by_the_next_one():
    world = slow_world()
    controller = Controller(world, policy())
    controller.check()
    world.now += MINUTE
    world.upload("v1", "tenant", timedelta(hours=1))
    world.happens[7] = broken(KilledError())
    assert controller.scan() is None
    assert len(world.runs) == 1

    world.now += MINUTE
    controller.scan()

    assert controller.status.totals.recovered == 1


def two_stuck_videos(bulk: bool = True, skew: int = 0) -> Controller:
    world = slow_world(bulk=bulk, skew=skew * SECOND)
    controller = Controller(world, policy())
    controller.check()
    world.now += 15 * MINUTE
    for video_id in ("v1", "v2"):
        world.upload(video_id, "tenant", timedelta(hours=1))
    return controller


@pytest.mark.parametrize("skew", [-90, 0, 90], ids=lambda skew: f"Prefects_clock_is_{skew}s_ahead")
@pytest.mark.parametrize("bulk", [True, False], ids=["after_the_last_run", "amid_the_runs"])
def test_a_scan_that_broke_off_counts_what_it_created_once_whatever_the_clocks_say(bulk, skew):
    controller = two_stuck_videos(bulk, skew)
    world = controller.world
    world.happens[9] = broken(unavailable())
    first = controller.scan()
    assert first is not None
    assert 0 < len(first.recovered) <= len(world.runs)

    world.now += MINUTE
    controller.scan()

    assert controller.status.totals.recovered == len(world.runs) == 2
