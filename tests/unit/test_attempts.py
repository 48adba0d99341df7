"""Earlier recoveries of one video: how long to wait after them, which of them count, and when they are used up."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.api.policy import Retry
from controller.decisions.attempts import (
    JITTER_SHARE,
    attempts_that_count,
    next_attempt,
    next_try_at,
    released_at,
    used_up,
)
from controller.decisions.decision import Skip, SkipReason
from controller.flow_runs import RELEASED, FlowRun, Recovery
from tests.support import policy
from tests.unit.deciding import RECOVER, by_name, conclude, said
from tests.unit.fakes import MICROSECOND, NOW, earlier, flow_run, video

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
UUID = "6b2d1ef0-5a55-4a3c-9f3e-0f4f6d1a2b3c"
RELEASING = frozenset({"recovery", RELEASED})
calmly = settings(max_examples=60)


def retry(**spec: Any) -> Retry:
    return policy(retry=spec).spec.retry


def crashed(ended: timedelta, *, created: timedelta = MINUTE, **run: Any) -> FlowRun:
    """An attempt that crashed so long ago, and was created so long before that."""
    return flow_run("v1", "CRASHED", ended=ended, created=created, **run)


def attempts(count: int, last_ended: timedelta = timedelta(0)) -> tuple[Recovery, ...]:
    """Attempts an hour apart."""
    return earlier(*(crashed(last_ended + n * HOUR, attempt=count - n) for n in reversed(range(count))))


def unknown_times(state: str = "CRASHED") -> FlowRun:
    return FlowRun("r", "happy-fox", flow_run("v1", state).state, "v1")


# The ordinal


def test_the_first_attempt_is_1():
    assert next_attempt(()) == 1


def test_the_next_attempt_is_behind_the_highest_whatever_their_order_and_gaps():
    run = flow_run("v1", "FAILED")

    assert next_attempt(earlier(run, run)) == 3
    assert next_attempt((Recovery(7, run), Recovery(2, run))) == 8


def test_an_attempt_that_counts_no_more_keeps_its_ordinal():
    long_ago = earlier(crashed(timedelta(days=9)), crashed(timedelta(days=8)))

    assert attempts_that_count(long_ago, retry(), now=NOW) == ()
    assert next_attempt(long_ago) == 3


# How long to wait


@pytest.mark.parametrize(
    ("count", "longest"),
    [(1, 15), (2, 30), (3, 60), (4, 120), (5, 240), (6, 360), (7, 360), (20, 360)],
    ids=lambda value: str(value),
)
def test_the_wait_doubles_with_each_attempt_up_to_the_longest(count, longest):
    ready = next_try_at("v1", attempts(count), retry())

    assert ready is not None
    assert longest * MINUTE * (1 - JITTER_SHARE) < ready - NOW <= longest * MINUTE


def test_but_for_the_jitter_the_wait_doubles_exactly():
    last = Recovery(9, crashed(timedelta(0)))
    waits = [next_try_at("v1", (last,) * count, retry()) for count in (1, 2, 3)]

    assert all(waits)
    once, twice, thrice = (wait - NOW for wait in waits if wait)
    assert twice == pytest.approx(2 * once, abs=2 * MICROSECOND)
    assert thrice == pytest.approx(4 * once, abs=4 * MICROSECOND)


def test_attempts_out_of_the_window_do_not_lengthen_the_wait():
    recent = crashed(timedelta(0), attempt=4)
    runs = [crashed(timedelta(days=9 - n)) for n in range(3)] + [recent]
    counting = attempts_that_count(earlier(*runs), retry(), now=NOW)

    assert next_try_at("v1", counting, retry()) == next_try_at("v1", (Recovery(4, recent),), retry())


def test_waits_from_the_end_of_the_last_attempt_and_not_from_its_creation():
    ran_long = next_try_at("v1", earlier(crashed(MINUTE, created=5 * HOUR)), retry())
    ran_short = next_try_at("v1", earlier(crashed(MINUTE, created=MINUTE)), retry())

    assert ran_long == ran_short


def test_waits_from_the_creation_of_an_attempt_that_has_no_end():
    lost = next_try_at("v1", earlier(flow_run("v1", "PENDING", created=7 * MINUTE)), retry())

    assert lost == next_try_at("v1", earlier(crashed(7 * MINUTE)), retry())


def test_waits_for_nothing_without_an_attempt():
    assert next_try_at("v1", (), retry()) is None


def test_waits_for_nothing_after_an_attempt_of_unknown_times():
    assert next_try_at("v1", earlier(unknown_times()), retry()) is None


@pytest.mark.parametrize("count", [1, 2, 3])
def test_backs_off_until_the_wait_is_over_and_no_longer(count):
    spec = policy(retry={"maxAttempts": 5}).spec
    before = attempts(count, last_ended=10 * MINUTE)
    ready = next_try_at("v1", before, spec.retry)
    assert ready is not None

    def at(moment: datetime) -> str:
        [decision] = conclude([video()], spec, now=moment, recoveries={"v1": before})
        return said(decision)

    assert at(ready - MICROSECOND) == SkipReason.BACKING_OFF
    assert at(ready) == RECOVER


@pytest.mark.parametrize("count", [2, 19, 20, 30, 300])
def test_a_request_by_name_waits_for_nothing_however_many_attempts_there_were(count):
    # Before there was a limit to them a video could have any number of attempts.
    before = earlier(*(crashed(MINUTE * n, attempt=count - n) for n in reversed(range(count))))

    [decision] = conclude([video()], policy().spec, request=by_name(), recoveries={"v1": before})

    assert said(decision) == RECOVER


def test_a_skip_says_which_attempt_it_waits_after_and_until_when():
    [decision] = conclude([video()], policy().spec, recoveries={"v1": attempts(2, 10 * MINUTE)})

    assert isinstance(decision, Skip)
    assert decision.detail.startswith("attempt 2 is CRASHED; the next one comes at 2026-03-10 12:2")
    assert decision.detail.endswith(" UTC")


# Its jitter


def wait(video_id: str, attempt: int) -> timedelta:
    ready = next_try_at(video_id, (Recovery(attempt, crashed(timedelta(0))),), retry())
    assert ready is not None
    return ready - NOW


def test_the_jitter_of_an_attempt_is_the_same_in_every_process():
    assert wait("v1", 1) == timedelta(seconds=884, microseconds=1995)


def test_the_jitter_is_the_same_in_any_spelling_of_a_uuid():
    assert wait(UUID, 1) == wait(UUID.upper(), 1)


def test_the_jitter_differs_between_videos_and_between_attempts():
    assert len({wait(f"v{n}", 1) for n in range(100)}) == 100
    assert len({wait("v1", n) for n in range(1, 101)}) == 100


def test_the_jitter_takes_up_its_whole_share():
    waits = [wait(f"v{n}", 1) / (15 * MINUTE) for n in range(200)]

    assert min(waits) < 1 - 0.9 * JITTER_SHARE
    assert max(waits) > 1 - 0.1 * JITTER_SHARE


@given(
    video_id=st.text(min_size=1, max_size=40),
    count=st.integers(1, 400),
    backoff=st.integers(1, 168 * 60),
    longest=st.integers(1, 168 * 60),
)
@calmly
def test_never_waits_longer_than_the_policy_says_nor_much_shorter(video_id, count, backoff, longest):
    longest = max(backoff, longest)
    rule = retry(backoff=f"{backoff}m", maxBackoff=f"{longest}m", window="8760h")
    ready = next_try_at(video_id, (Recovery(count, crashed(timedelta(0))),) * count, rule)
    base = min(backoff * 2 ** (count - 1), longest) * MINUTE

    assert ready is not None
    assert base * (1 - JITTER_SHARE) <= ready - NOW <= base


# Which attempts count


@pytest.mark.parametrize(
    ("created", "counts"),
    [
        pytest.param(72 * HOUR - MICROSECOND, True, id="one_microsecond_within_the_window"),
        pytest.param(72 * HOUR, False, id="exactly_the_window_ago"),
        pytest.param(72 * HOUR + MICROSECOND, False, id="one_microsecond_before_the_window"),
        pytest.param(timedelta(0), True, id="now"),
        pytest.param(-MINUTE, True, id="by_a_clock_that_is_ahead"),
    ],
)
def test_an_attempt_counts_from_its_creation_for_as_long_as_the_window(created, counts):
    before = earlier(flow_run("v1", "CRASHED", ended=timedelta(0), created=created))

    assert bool(attempts_that_count(before, retry(), now=NOW)) is counts


def test_an_attempt_of_unknown_times_counts():
    before = earlier(unknown_times())

    assert attempts_that_count(before, retry(), now=NOW) == before


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED", "CRASHED", "RUNNING"])
def test_an_attempt_counts_whatever_became_of_it(state):
    before = earlier(flow_run("v1", state, ended=None if state == "RUNNING" else HOUR))

    assert attempts_that_count(before, retry(), now=NOW) == before


@pytest.mark.parametrize(
    ("released", "count"),
    [
        pytest.param([], 5, id="without_a_release_all_count"),
        pytest.param([1], 5, id="the_first_one_releases_nothing"),
        pytest.param([3], 3, id="from_the_released_one_on"),
        pytest.param([2, 4], 2, id="from_the_last_released_one_on"),
        pytest.param([5], 1, id="only_the_released_one"),
    ],
)
def test_attempts_count_from_the_last_release_on(released, count):
    runs = [crashed((6 - n) * HOUR, tags=RELEASING if n in released else frozenset()) for n in range(1, 6)]

    assert [each.attempt for each in attempts_that_count(earlier(*runs), retry(), now=NOW)] == list(range(6 - count, 6))


def test_a_release_out_of_the_window_still_hides_what_was_before_it():
    # The run before it may carry a later time, if its creation was slow.
    runs = [crashed(HOUR), crashed(100 * HOUR, tags=RELEASING), crashed(HOUR)]

    assert [each.attempt for each in attempts_that_count(earlier(*runs), retry(), now=NOW)] == [3]


# Used up


@pytest.mark.parametrize("limit", [1, 3, 20])
def test_attempts_are_used_up_at_the_limit_and_not_before(limit):
    rule = retry(maxAttempts=limit)

    assert not used_up(attempts(limit - 1), rule)
    assert used_up(attempts(limit), rule)
    assert used_up(attempts(limit + 1), rule)


def test_the_window_releases_when_the_decisive_attempt_leaves_it():
    before = attempts(4, HOUR)  # where three are allowed, the second one is decisive

    assert released_at(before, retry()) == before[1].run.created + 72 * HOUR  # type: ignore[operator]


def test_when_the_window_releases_is_not_known_if_the_decisive_time_is_not():
    assert released_at(earlier(unknown_times(), crashed(HOUR), crashed(HOUR)), retry()) is None


@given(
    ages=st.lists(st.integers(1, 72 * 60 - 1), min_size=1, max_size=8, unique=True),
    limit=st.integers(1, 8),
)
@calmly
def test_a_video_is_released_exactly_when_it_says(ages, limit):
    rule = retry(maxAttempts=limit)
    before = earlier(*(crashed(timedelta(0), created=age * MINUTE) for age in sorted(ages, reverse=True)))
    if not used_up(attempts_that_count(before, rule, now=NOW), rule):
        return
    release = released_at(attempts_that_count(before, rule, now=NOW), rule)

    assert release is not None
    assert used_up(attempts_that_count(before, rule, now=release - MICROSECOND), rule)
    assert not used_up(attempts_that_count(before, rule, now=release), rule)


# Quarantine


def test_a_quarantined_video_says_how_it_came_to_that_and_how_long_it_lasts():
    [decision] = conclude([video()], policy().spec, recoveries={"v1": attempts(3, HOUR)})

    assert isinstance(decision, Skip)
    assert decision.reason is SkipReason.QUARANTINED
    assert decision.detail == "3 attempts within 72h, the last one CRASHED; released at 2026-03-13 09:06 UTC"


def test_a_quarantined_video_of_unknown_times_says_no_more_than_is_known():
    [decision] = conclude([video()], policy().spec, recoveries={"v1": earlier(*[unknown_times()] * 3)})

    assert isinstance(decision, Skip)
    assert decision.detail == "3 attempts within 72h, the last one CRASHED"


@pytest.mark.parametrize(
    ("count", "released"), [pytest.param(2, False, id="not_yet"), pytest.param(3, True, id="quarantined")]
)
def test_only_the_recovery_of_a_quarantined_video_releases_it(count, released):
    before = {"v1": attempts(count, HOUR)}

    [decision] = conclude([video()], policy().spec, request=by_name(), recoveries=before)

    assert said(decision) == RECOVER
    assert getattr(decision, "released", None) is released


def test_after_a_release_all_attempts_are_there_again():
    runs = [crashed(n * HOUR, attempt=5 - n) for n in (4, 3, 2)]
    released = crashed(HOUR, attempt=4, tags=RELEASING)

    def after(*more: FlowRun) -> str:
        [decision] = conclude([video()], policy().spec, recoveries={"v1": earlier(*runs, released, *more)})
        return said(decision)

    assert after() == RECOVER
    assert after(crashed(HOUR, attempt=5)) == RECOVER
    assert after(crashed(HOUR, attempt=5), crashed(HOUR, attempt=6)) == SkipReason.QUARANTINED
