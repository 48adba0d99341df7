"""Quarantine in status: who is in it, how many, each announced once, and how one comes out of it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from controller.api.status import MAX_QUARANTINED, PolicyStatus, Quarantine, RecoveryCursor
from controller.decisions.decision import Skip, SkipReason
from controller.errors import Service
from controller.flow_runs import FlowRun, Recovery, StateType
from controller.outcome import Outcome, Recovered, RecoverySnapshot, Result
from controller.reporting.status import after_scan, newly_quarantined
from controller.reporting.summary import QUARANTINED_NAMED, describe_quarantined
from controller.schedule import Plan, ScanRequest, Trigger
from tests.support import policy
from tests.unit.controlling import Controller, slow_world
from tests.unit.fakes import DEPLOYMENT, NOW, STATUS_SCHEMA, earlier, flow_run, row, unavailable, video, violations
from tests.world.world import World

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
REQUEST = ScanRequest(Trigger.REQUEST, token="t", video_ids=("v0",))


def scanned(*ids: str, ended: timedelta = HOUR, **changes: Any) -> Outcome:
    """A scan that found these videos in quarantine, with attempts of which the last one ended so long ago."""
    stuck = [video(video_id) for video_id in ids]
    runs = {video_id: earlier(*[flow_run(video_id, "CRASHED", ended=ended)] * 3) for video_id in ids}
    skips = [Skip(each, SkipReason.QUARANTINED, "3 attempts") for each in stuck]
    snapshot = RecoverySnapshot(runs, NOW)
    outcome = Outcome(ScanRequest(Trigger.SCHEDULE), NOW, stuck, DEPLOYMENT, snapshot, results=skips)
    return replace(outcome, **changes)


def after(outcome: Outcome, status: PolicyStatus | None = None) -> PolicyStatus:
    """The status as it comes back from the API server."""
    manifest = after_scan(status or PolicyStatus(), policy(), outcome, Plan(None, None), now=NOW).to_manifest()
    assert violations(STATUS_SCHEMA, manifest) == []
    return PolicyStatus.model_validate(manifest)


def named(count: int) -> list[str]:
    return [f"v{n}" for n in range(count)]


def announced(status: PolicyStatus, outcome: Outcome) -> list[str]:
    return [skip.video_id for skip in newly_quarantined(status, policy(), outcome)]


# The list


@pytest.mark.parametrize("count", [0, 1, MAX_QUARANTINED, MAX_QUARANTINED + 1, 500])
def test_counts_all_and_lists_a_bounded_number(count):
    found = after(scanned(*named(count))).quarantine

    assert found == Quarantine(count=count, videos=tuple(named(count)[:MAX_QUARANTINED]))


def test_only_the_quarantined_are_in_quarantine():
    outcome = scanned("v0")
    others: list[Result] = [Skip(video("v1"), SkipReason.BACKING_OFF), Recovered(video("v2"), 1, "r")]
    outcome = replace(outcome, results=[*outcome.results, *others])

    assert after(outcome).quarantine == Quarantine(count=1, videos=("v0",))


def test_a_video_that_is_no_longer_quarantined_leaves_the_list():
    assert after(scanned("v1"), after(scanned("v0", "v1"))).quarantine == Quarantine(count=1, videos=("v1",))


def test_where_nothing_is_stuck_nothing_is_in_quarantine():
    outcome = Outcome(ScanRequest(Trigger.SCHEDULE), NOW, [])

    assert after(outcome, after(scanned("v0"))).quarantine == Quarantine()


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(
            Outcome(ScanRequest(Trigger.SCHEDULE), NOW, error=unavailable(Service.SUPABASE)), id="saw_no_table"
        ),
        pytest.param(
            Outcome(ScanRequest(Trigger.SCHEDULE), NOW, [video("v0")], error=unavailable()),
            id="failed_before_it_decided",
        ),
        pytest.param(replace(scanned("v9"), request=REQUEST), id="was_narrowed_to_one_video"),
        pytest.param(Outcome(REQUEST, NOW, []), id="was_narrowed_to_a_video_that_is_gone"),
    ],
)
def test_a_scan_that_did_not_see_all_videos_leaves_the_quarantine_as_it_was(outcome):
    before = after(scanned("v0", "v1"))

    assert after(outcome, before).quarantine == before.quarantine
    assert announced(before, outcome) == []


def test_a_scan_that_failed_after_it_decided_knows_who_is_quarantined():
    assert after(scanned("v0", error=unavailable())).quarantine == Quarantine(count=1, videos=("v0",))


# Released by name


def released(video_id: str = "v0", *, released: bool = True) -> Outcome:
    outcome = Outcome(REQUEST, NOW, [video(video_id)], DEPLOYMENT, RecoverySnapshot({}, NOW))
    return replace(outcome, results=[Recovered(video(video_id), 4, "r", released)])


def test_a_release_takes_a_video_out_at_once():
    assert after(released("v0"), after(scanned("v0", "v1"))).quarantine == Quarantine(count=1, videos=("v1",))


def test_a_release_of_one_that_is_not_listed_lowers_the_count():
    before = after(scanned(*named(30)))

    assert after(released("v29"), before).quarantine == Quarantine(count=29, videos=tuple(named(20)))


def test_a_release_of_one_that_is_listed_leaves_the_others_counted():
    before = after(scanned(*named(30)))

    assert after(released("v0"), before).quarantine == Quarantine(count=29, videos=tuple(named(20)[1:]))


def test_a_recovery_by_name_of_a_video_that_is_not_in_quarantine_releases_nobody():
    before = after(scanned("v0", "v1"))

    assert after(released("v5", released=False), before).quarantine == before.quarantine


def test_the_count_never_falls_below_those_who_are_listed():
    assert after(released("v9"), after(scanned("v0", "v1"))).quarantine == Quarantine(count=2, videos=("v0", "v1"))


# Announced once


def test_a_video_is_announced_by_the_scan_that_first_finds_it_in_quarantine():
    before = after(scanned("v0"))

    assert announced(PolicyStatus(), scanned("v0")) == ["v0"]
    assert announced(before, scanned("v0", "v1")) == ["v1"]
    assert announced(after(scanned("v0", "v1"), before), scanned("v0", "v1")) == []


def test_a_video_that_comes_back_into_quarantine_is_announced_again():
    assert announced(after(scanned(), after(scanned("v0"))), scanned("v0")) == ["v0"]


def test_however_many_come_at_once_all_are_announced_and_none_of_them_again():
    many = scanned(*named(100))

    assert announced(PolicyStatus(), many) == named(100)
    assert announced(after(many), many) == []


@pytest.mark.parametrize(
    ("ended", "is_announced"),
    [
        # It was RecentlyProcessed (5m) in the scan of a quarter of an hour ago, or at work.
        pytest.param(timedelta(minutes=20, seconds=-1), True, id="ended_just_before_the_scan_before"),
        pytest.param(timedelta(minutes=10), True, id="ended_since_the_scan_before"),
        pytest.param(timedelta(minutes=20), False, id="ended_just_so_that_the_scan_before_announced_it"),
        pytest.param(timedelta(minutes=20, seconds=1), False, id="the_scan_before_announced_it"),
    ],
)
def test_where_not_all_are_listed_those_are_new_that_the_scan_before_could_not_know(ended, is_announced):
    before = many_in_quarantine()
    fresh = scanned("new", ended=ended)
    known = scanned(*named(30), ended=9 * HOUR)
    assert known.snapshot is not None
    assert fresh.snapshot is not None
    both = RecoverySnapshot({**known.snapshot.recoveries, **fresh.snapshot.recoveries}, NOW)
    known = replace(known, results=[*known.results, *fresh.results], snapshot=both)

    assert announced(before, known) == (["new"] if is_announced else [])


def many_in_quarantine() -> PolicyStatus:
    """The status after a scan of a quarter of an hour ago, with more in quarantine than it lists."""
    at = NOW - 15 * MINUTE
    cursor = RecoveryCursor(created_until=at, ended_until=at)
    return after(scanned(*named(30))).model_copy(update={"recovery_cursor": cursor})


def test_where_not_all_are_listed_one_of_unknown_times_is_not_taken_to_be_new():
    lost = Recovery(3, FlowRun("r", "happy-fox", StateType.CRASHED, "new"))
    outcome = scanned("new")
    assert outcome.snapshot is not None

    outcome = replace(outcome, snapshot=RecoverySnapshot({"new": (lost,)}, NOW))

    assert announced(many_in_quarantine(), outcome) == []


@pytest.mark.parametrize("stuck", [None, [video("v0")]], ids=["saw_no_table", "failed_before_it_decided"])
def test_where_not_all_are_listed_a_scan_announces_nobody_that(stuck):
    outcome = Outcome(ScanRequest(Trigger.SCHEDULE), NOW, stuck, error=unavailable())

    assert announced(many_in_quarantine(), outcome) == []


def test_where_not_all_are_listed_a_video_without_any_recovery_disturbs_nothing():
    attempts = [
        flow_run(video_id, "CRASHED", ended=n * HOUR, attempt=4 - n) for video_id in named(30) for n in (3, 2, 1)
    ]
    world = World([row(video_id) for video_id in named(30)], attempts)
    controller = Controller(world, policy(stuck={"abandonedRunAfter": "6h"}))
    controller.scan()
    world.upload("new", "tenant", HOUR)
    world.begin("new")
    world.now += 15 * MINUTE

    outcome = controller.scan()

    assert outcome is not None
    assert outcome.snapshot is not None
    assert set(outcome.snapshot.recoveries) == set(named(30))
    assert sorted(controller.announced) == sorted(named(30))


@pytest.mark.parametrize("count", [1, QUARANTINED_NAMED, QUARANTINED_NAMED + 1, 100])
def test_an_announcement_names_a_few_and_counts_the_others(count):
    skips = [Skip(video(video_id), SkipReason.QUARANTINED) for video_id in named(count)]

    text = describe_quarantined(skips)

    assert text.startswith(f"{count} videos used up their attempts")
    assert ", ".join(named(min(count, QUARANTINED_NAMED))) in text
    assert (f"and {count - QUARANTINED_NAMED} more" in text) is (count > QUARANTINED_NAMED)
    assert "recovery.captiona.cc/requestedVideo" in text


# From the first attempt to the release


def exhaust(controller: Controller, minutes_between: int) -> None:
    """Recover the one video until it is quarantined; each attempt crashes a minute before the next scan."""
    world = controller.world
    for _ in range(40):
        controller.scan()
        if controller.status.quarantine == Quarantine(count=1, videos=("v1",)):
            return
        world.now += (minutes_between - 1) * MINUTE
        for run in world.active("v1"):
            world.become(run.id, StateType.CRASHED)
        world.now += MINUTE
    raise AssertionError("it was never quarantined")


def stuck_for_an_hour(**spec: Any) -> Controller:
    controller = Controller(slow_world(), policy(**spec))
    controller.check()
    controller.world.upload("v1", "tenant", HOUR)
    return controller


@pytest.mark.parametrize("minutes", [15, 60, 240], ids=lambda minutes: f"a_scan_every_{minutes}_minutes")
def test_a_video_that_always_crashes_has_three_attempts_and_one_announcement(minutes):
    controller = stuck_for_an_hour()

    exhaust(controller, minutes)
    for _ in range(3):
        controller.world.now += minutes * MINUTE
        controller.scan()

    assert len(controller.world.recoveries("v1")) == 3
    assert controller.announced == ["v1"]
    assert controller.status.totals.failed == 3


def test_a_request_by_name_releases_it_and_it_may_come_back_with_another_announcement():
    controller = stuck_for_an_hour()
    exhaust(controller, 15)

    controller.world.now += 15 * MINUTE
    controller.scan("v1")
    assert controller.status.quarantine == Quarantine()
    exhaust(controller, 15)

    assert len(controller.world.recoveries("v1")) == 6
    assert controller.announced == ["v1", "v1"]


def test_the_window_releases_it_for_one_attempt_after_another():
    controller = stuck_for_an_hour(retry={"window": "24h"})
    world = controller.world
    exhaust(controller, 15)
    first = world.recoveries("v1")[0].run.created
    assert first is not None

    world.now = first + timedelta(hours=24) - MINUTE
    controller.scan()
    assert len(world.recoveries("v1")) == 3
    world.now = first + timedelta(hours=24)
    controller.scan()

    assert len(world.recoveries("v1")) == 4
    assert controller.status.quarantine == Quarantine()
