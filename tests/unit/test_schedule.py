"""When a scan is due: slots, requests, what was missed; and cron lines in zones with daylight saving time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controller.errors import ConfigurationError, ErrorReason
from controller.schedule import (
    MAX_JITTER,
    ON_TIME,
    Plan,
    RequestAnnotations,
    ScanRequest,
    Schedule,
    ScheduleState,
    Timing,
    Trigger,
    plan,
    request_token,
)
from tests.unit.fakes import MICROSECOND, SECOND

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
BERLIN = ZoneInfo("Europe/Berlin")

HOURLY = Timing("0 * * * *", "Etc/UTC", starting_deadline=10 * MINUTE, suspend=False, uid="uid-1")
SLOT = datetime(2026, 3, 10, 12, tzinfo=UTC)
JITTER = Schedule(HOURLY.schedule, HOURLY.time_zone).jitter(SLOT, HOURLY.uid)
START = SLOT + JITTER
PLANNED = ScheduleState(HOURLY.fingerprint, SLOT)
NOTHING = RequestAnnotations()


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


def berlin(*parts: int, second_time: bool = False) -> datetime:
    """A time on Berlin's clocks, in UTC; `second_time` where the clocks show it twice."""
    return datetime(*parts, tzinfo=BERLIN, fold=int(second_time)).astimezone(UTC)  # type: ignore[arg-type, misc]


# By schedule


def test_a_new_policy_waits_for_its_first_slot():
    planned = plan(HOURLY, ScheduleState(), NOTHING, now=SLOT - MINUTE)

    assert planned == Plan(None, SLOT)


def test_a_new_policy_does_not_scan_for_the_slot_of_this_very_moment():
    assert plan(HOURLY, ScheduleState(), NOTHING, now=SLOT) == Plan(None, SLOT + HOUR)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(SLOT - HOUR, Plan(None, SLOT), id="nothing_is_due_an_hour_before"),
        pytest.param(SLOT, Plan(None, SLOT), id="nothing_is_due_at_the_slot_itself_but_for_the_jitter"),
        pytest.param(START - MICROSECOND, Plan(None, SLOT), id="nothing_is_due_one_microsecond_before_the_jitter_ends"),
        pytest.param(
            START,
            Plan(ScanRequest(Trigger.SCHEDULE, SLOT), SLOT + HOUR),
            id="a_scan_is_due_exactly_when_the_jitter_ends",
        ),
        pytest.param(
            START + ON_TIME,
            Plan(ScanRequest(Trigger.SCHEDULE, SLOT), SLOT + HOUR),
            id="a_scan_at_the_end_of_on_time_is_on_time",
        ),
        pytest.param(
            START + ON_TIME + MICROSECOND,
            Plan(ScanRequest(Trigger.CATCH_UP, SLOT), SLOT + HOUR, missed=SLOT),
            id="a_scan_one_microsecond_later_was_missed_and_is_caught_up",
        ),
        pytest.param(
            SLOT + 10 * MINUTE - MICROSECOND,
            Plan(ScanRequest(Trigger.CATCH_UP, SLOT), SLOT + HOUR, missed=SLOT),
            id="a_missed_scan_is_caught_up_until_one_microsecond_before_the_deadline",
        ),
        pytest.param(
            SLOT + 10 * MINUTE,
            Plan(None, SLOT + HOUR, missed=SLOT),
            id="a_missed_scan_at_exactly_the_deadline_is_reported_alone",
        ),
        pytest.param(
            SLOT + 72 * HOUR + 5 * MINUTE,
            Plan(ScanRequest(Trigger.CATCH_UP, SLOT + 72 * HOUR), SLOT + 73 * HOUR, missed=SLOT + 72 * HOUR),
            id="after_three_days_only_the_latest_slot_is_caught_up",
        ),
        pytest.param(
            SLOT + 72 * HOUR + 50 * MINUTE,
            Plan(None, SLOT + 73 * HOUR, missed=SLOT + 72 * HOUR),
            id="after_three_days_the_latest_slot_is_what_was_missed",
        ),
    ],
)
def test_by_schedule(now, expected):
    assert plan(HOURLY, PLANNED, NOTHING, now=now) == expected


def test_the_jitter_under_test_is_none_of_the_extremes():
    assert timedelta(0) < JITTER < MAX_JITTER


@pytest.mark.parametrize("late", [ON_TIME + JITTER + MICROSECOND, 30 * MINUTE, 5 * HOUR + 10 * MINUTE])
def test_a_deadline_of_0s_never_catches_up(late):
    planned = plan(replace(HOURLY, starting_deadline=timedelta(0)), PLANNED, NOTHING, now=SLOT + late)

    assert planned.request is None
    assert planned.missed is not None


def test_a_slot_that_comes_just_as_the_controller_is_back_is_served_whatever_the_deadline():
    no_catching_up = replace(HOURLY, starting_deadline=timedelta(0))
    requests = []
    state = PLANNED
    for seconds in range(0, 200, 10):
        planned = plan(no_catching_up, state, NOTHING, now=SLOT + 3 * HOUR + seconds * SECOND)
        requests += [planned.request] if planned.request else []
        state = ScheduleState(HOURLY.fingerprint, planned.next_time)

    assert [request.slot for request in requests] == [SLOT + 3 * HOUR]


def test_a_slot_after_others_that_were_missed_waits_for_its_jitter_and_reports_them_once():
    now = SLOT + 3 * HOUR
    waits = plan(HOURLY, PLANNED, NOTHING, now=now)
    serves = plan(HOURLY, ScheduleState(HOURLY.fingerprint, waits.next_time), NOTHING, now=now + JITTER)

    assert waits == Plan(None, now, missed=SLOT + 2 * HOUR)
    assert serves == Plan(ScanRequest(Trigger.SCHEDULE, now), now + HOUR)


def test_a_scan_that_was_caught_up_is_not_caught_up_again():
    now = SLOT + 5 * MINUTE
    first = plan(HOURLY, PLANNED, NOTHING, now=now)
    second = plan(HOURLY, ScheduleState(HOURLY.fingerprint, first.next_time), NOTHING, now=now + SECOND)

    assert first.request is not None
    assert second == Plan(None, SLOT + HOUR)


# Suspended, resumed, edited, restarted


def test_a_suspended_policy_has_no_next_scan():
    assert plan(replace(HOURLY, suspend=True), PLANNED, NOTHING, now=START) == Plan(None, None)


def test_resuming_scans_nothing_of_the_time_in_between():
    suspended = replace(HOURLY, suspend=True)

    planned = plan(HOURLY, ScheduleState(suspended.fingerprint, None), NOTHING, now=SLOT + 5 * MINUTE)

    assert planned == Plan(None, SLOT + HOUR)


def test_suspending_and_resuming_unseen_keeps_what_was_planned():
    assert plan(HOURLY, PLANNED, NOTHING, now=START).request == ScanRequest(Trigger.SCHEDULE, SLOT)


@pytest.mark.parametrize(
    "edited",
    [
        pytest.param(replace(HOURLY, schedule="*/5 * * * *"), id="another_line"),
        pytest.param(replace(HOURLY, time_zone="Asia/Kolkata"), id="another_zone"),
    ],
)
def test_editing_the_schedule_scans_nothing_of_the_past(edited):
    now = SLOT + 5 * MINUTE

    planned = plan(edited, PLANNED, NOTHING, now=now)

    assert planned.request is None
    assert planned.missed is None
    assert planned.next_time is not None
    assert planned.next_time > now


def test_editing_something_else_keeps_what_was_planned():
    edited = replace(HOURLY, starting_deadline=HOUR)

    assert plan(edited, PLANNED, NOTHING, now=START).request == ScanRequest(Trigger.SCHEDULE, SLOT)


def test_a_restart_changes_nothing():
    assert plan(replace(HOURLY), replace(PLANNED), NOTHING, now=START) == plan(HOURLY, PLANNED, NOTHING, now=START)


def test_a_clock_that_was_set_back_waits():
    assert plan(HOURLY, PLANNED, NOTHING, now=SLOT - 24 * HOUR) == Plan(None, SLOT)


# By request

ASKED = RequestAnnotations("2026-03-10T11:30:00+00:00")
ASKED_FOR_ONE = replace(ASKED, video_id="v1")


def test_a_request_is_served_at_once_and_leaves_the_schedule_alone():
    assert plan(HOURLY, PLANNED, ASKED, now=SLOT - 30 * MINUTE) == Plan(
        ScanRequest(Trigger.REQUEST, None, ASKED.token), SLOT
    )


def test_a_request_is_served_once():
    served = replace(PLANNED, handled_request=ASKED.token)

    assert plan(HOURLY, served, ASKED, now=SLOT - 30 * MINUTE) == Plan(None, SLOT)


@pytest.mark.parametrize("token", [None, ""])
def test_no_token_is_no_request(token):
    assert plan(HOURLY, PLANNED, RequestAnnotations(token, "v1"), now=SLOT - 30 * MINUTE) == Plan(None, SLOT)


@pytest.mark.parametrize(
    ("annotation", "token"),
    [(None, None), ("", None), ("now", "now"), ("t" * 1024, "t" * 1024), ("t" * 1025, "t" * 1024)],
    ids=["none", "empty", "short", "exactly_the_longest", "one_character_too_long"],
)
def test_a_token_is_what_the_status_can_keep_of_the_annotation(annotation, token):
    assert request_token(annotation) == token


def test_another_token_is_another_request():
    served = replace(PLANNED, handled_request="before")

    assert plan(HOURLY, served, ASKED, now=SLOT - 30 * MINUTE).request == ScanRequest(
        Trigger.REQUEST, None, ASKED.token
    )


def test_a_request_is_served_while_suspended():
    planned = plan(replace(HOURLY, suspend=True), ScheduleState(), ASKED, now=SLOT)

    assert planned == Plan(ScanRequest(Trigger.REQUEST, None, ASKED.token), None)


def test_a_request_serves_a_slot_that_is_due():
    assert plan(HOURLY, PLANNED, ASKED, now=START) == Plan(ScanRequest(Trigger.REQUEST, SLOT, ASKED.token), SLOT + HOUR)


def test_a_request_serves_a_slot_that_was_missed_and_reports_it():
    assert plan(HOURLY, PLANNED, ASKED, now=SLOT + 5 * MINUTE) == Plan(
        ScanRequest(Trigger.REQUEST, SLOT, ASKED.token), SLOT + HOUR, missed=SLOT
    )


def test_a_request_with_a_slot_too_long_ago_serves_no_slot_and_reports_it():
    assert plan(HOURLY, PLANNED, ASKED, now=SLOT + 30 * MINUTE) == Plan(
        ScanRequest(Trigger.REQUEST, None, ASKED.token), SLOT + HOUR, missed=SLOT
    )


def test_a_request_for_one_video_leaves_a_due_slot_to_the_next_turn():
    first = plan(HOURLY, PLANNED, ASKED_FOR_ONE, now=START)
    served = ScheduleState(HOURLY.fingerprint, first.next_time, ASKED.token)
    second = plan(HOURLY, served, ASKED_FOR_ONE, now=START + SECOND)

    assert first == Plan(ScanRequest(Trigger.REQUEST, None, ASKED.token, ("v1",)), SLOT)
    assert second.request == ScanRequest(Trigger.SCHEDULE, SLOT)


def test_a_request_for_one_video_leaves_a_missed_slot_to_the_next_turn_to_report():
    now = SLOT + 5 * MINUTE
    first = plan(HOURLY, PLANNED, ASKED_FOR_ONE, now=now)
    second = plan(HOURLY, ScheduleState(HOURLY.fingerprint, first.next_time, ASKED.token), ASKED_FOR_ONE, now=now)

    assert first.missed is None
    assert second == Plan(ScanRequest(Trigger.CATCH_UP, SLOT), SLOT + HOUR, missed=SLOT)


# Through a day, as the controller lives through it


def live(line: str, start: datetime, end: datetime, *, away: tuple[datetime, datetime] | None = None) -> list[datetime]:
    """Tick every 10 seconds as the controller does; gives the slots that were served."""
    timing = Timing(line, "Europe/Berlin", starting_deadline=10 * MINUTE, suspend=False, uid="uid-1")
    state, served, now = ScheduleState(), [], start
    while now < end:
        if (away is None or not away[0] <= now < away[1]) and (state.next_time is None or state.next_time <= now):
            planned = plan(timing, state, NOTHING, now=now)
            if planned.request is not None and planned.request.slot is not None:
                served.append(planned.request.slot.astimezone(UTC))
            # The status keeps times in UTC.
            next_time = planned.next_time.astimezone(UTC) if planned.next_time else None
            state = ScheduleState(timing.fingerprint, next_time)
        now += 10 * SECOND
    return served


def quarters(start: datetime, end: datetime) -> list[datetime]:
    return [start + n * 15 * MINUTE for n in range(int((end - start) / (15 * MINUTE)))]


SPRING = (berlin(2026, 3, 29, 0, 7), berlin(2026, 3, 29, 5, 7))
AUTUMN = (berlin(2026, 10, 25, 0, 7), berlin(2026, 10, 25, 5, 7))


def test_every_15_minutes_goes_on_through_the_hour_that_is_left_out_in_spring():
    assert live("*/15 * * * *", *SPRING) == quarters(berlin(2026, 3, 29, 0, 15), berlin(2026, 3, 29, 5, 15))


def test_every_15_minutes_goes_on_through_the_hour_that_comes_twice_in_autumn():
    assert live("*/15 * * * *", *AUTUMN) == quarters(berlin(2026, 10, 25, 0, 15), berlin(2026, 10, 25, 5, 15))


def test_a_fixed_time_that_is_left_out_in_spring_is_served_when_the_clocks_have_changed():
    assert live("30 2 * * *", *SPRING) == [berlin(2026, 3, 29, 3, 0)]


def test_a_fixed_time_that_comes_twice_in_autumn_is_served_the_first_time_only():
    assert live("30 2 * * *", *AUTUMN) == [berlin(2026, 10, 25, 2, 30)]


def test_a_fixed_time_beside_the_change_is_served_as_ever():
    assert live("30 4 * * *", *SPRING) == [berlin(2026, 3, 29, 4, 30)]
    assert live("30 4 * * *", *AUTUMN) == [berlin(2026, 10, 25, 4, 30)]


def test_a_slot_missed_in_the_hour_that_comes_twice_is_caught_up_once():
    away = (berlin(2026, 10, 25, 2, 10, second_time=True), berlin(2026, 10, 25, 2, 35, second_time=True))

    served = live("*/15 * * * *", *AUTUMN, away=away)

    missed = [berlin(2026, 10, 25, 2, 15, second_time=True)]
    assert served == [slot for slot in quarters(AUTUMN[0] + 8 * MINUTE, AUTUMN[1] + 8 * MINUTE) if slot not in missed]


@pytest.mark.parametrize("minute", [0, 15, 45])
def test_a_policy_made_in_the_hour_that_comes_twice_waits_for_the_future(minute):
    now = berlin(2026, 10, 25, 2, minute, second_time=True)
    timing = replace(HOURLY, schedule="30 2 * * *", time_zone="Europe/Berlin")

    planned = plan(timing, ScheduleState(), NOTHING, now=now)

    assert planned.request is None
    assert planned.next_time is not None
    assert planned.next_time.astimezone(UTC) == berlin(2026, 10, 26, 2, 30)


# Cron lines, forward and backward

LINES = ["*/15 * * * *", "30 2 * * *", "0 * * * *", "*/7 1-3 * * *", "15,45 2,3 * * *", "0 0 * * MON", "59 23 31 * *"]
ZONES = ["Etc/UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Auckland"]
CHANGES = [
    berlin(2026, 3, 29, 3),
    berlin(2026, 10, 25, 2),
    utc(2026, 3, 8, 7),
    utc(2026, 11, 1, 6),
    utc(2026, 4, 4, 14),
]
near_a_change = st.builds(
    lambda change, seconds: change + seconds * SECOND, st.sampled_from(CHANGES), st.integers(-4 * 3600, 4 * 3600)
)
any_second = st.integers(0, 366 * 86400).map(lambda seconds: utc(2026, 1, 1) + seconds * SECOND)
any_moment = st.builds(
    lambda moment, micro: moment + micro * MICROSECOND, near_a_change | any_second, st.sampled_from([0, 0, 1, 999_999])
)


@given(line=st.sampled_from(LINES), zone=st.sampled_from(ZONES), moment=any_moment)
@example(line="*/15 * * * *", zone="Etc/UTC", moment=utc(2026, 1, 1, 11, 59, 59) + 500_000 * MICROSECOND)
@example(line="*/15 * * * *", zone="Europe/Berlin", moment=berlin(2026, 10, 25, 2, 20, second_time=True))
@example(line="*/15 * * * *", zone="Europe/Berlin", moment=berlin(2026, 10, 25, 2, 59) + 59 * SECOND)
@example(line="30 2 * * *", zone="Europe/Berlin", moment=berlin(2026, 10, 25, 2, 15, second_time=True))
@example(line="30 2 * * *", zone="Europe/Berlin", moment=berlin(2026, 10, 25, 2, 45, second_time=True))
@settings(max_examples=200)
def test_the_slots_before_and_after_a_moment_enclose_it_with_nothing_in_between(line, zone, moment):
    schedule = Schedule(line, zone)
    before, after = (slot.astimezone(UTC) for slot in (schedule.at_or_before(moment), schedule.after(moment)))

    assert before <= moment < after
    assert schedule.after(before).astimezone(UTC) == after
    assert schedule.at_or_before(after).astimezone(UTC) == after
    assert schedule.at_or_before(after - SECOND).astimezone(UTC) == before


@pytest.mark.parametrize(
    ("moment", "before"),
    [
        pytest.param(utc(2026, 1, 1, 12), utc(2026, 1, 1, 12), id="a_slot_is_not_after_itself"),
        pytest.param(utc(2026, 1, 1, 12) - SECOND, utc(2026, 1, 1, 11, 45), id="one_second_before_a_slot"),
        pytest.param(utc(2026, 1, 1, 12) - MICROSECOND, utc(2026, 1, 1, 11, 45), id="one_microsecond_before_a_slot"),
        pytest.param(utc(2026, 1, 1, 12) + MICROSECOND, utc(2026, 1, 1, 12), id="one_microsecond_after_a_slot"),
    ],
)
def test_the_last_slot_is_never_in_the_future(moment, before):
    assert Schedule("*/15 * * * *", "Etc/UTC").at_or_before(moment) == before


@given(moment=any_moment, deadline=st.sampled_from([0, 1, 10, 60]), planned=any_moment, line=st.sampled_from(LINES))
@settings(max_examples=150)
def test_never_serves_a_slot_of_the_future_nor_one_before_the_plan(moment, deadline, planned, line):
    timing = Timing(line, "Etc/UTC", deadline * MINUTE, suspend=False, uid="uid-1")
    slot = Schedule(line, "Etc/UTC").after(planned)

    decided = plan(timing, ScheduleState(timing.fingerprint, slot), NOTHING, now=moment)

    if decided.request is not None:
        assert decided.request.slot is not None
        assert slot <= decided.request.slot <= moment
    if decided.missed is not None:
        assert slot <= decided.missed <= moment
    assert decided.next_time is not None
    assert decided.next_time >= slot
    assert decided.next_time > moment or moment - decided.next_time < MAX_JITTER, "its slot is over, its jitter is not"


# Jitter


def jitter(line: str, uid: str, slot: datetime = SLOT, zone: str = "Etc/UTC") -> timedelta:
    return Schedule(line, zone).jitter(slot, uid)


def test_a_policys_jitter_is_the_same_for_every_slot_and_every_process():
    assert {jitter("*/15 * * * *", "uid-1", SLOT + n * 15 * MINUTE) for n in range(8)} == {
        jitter("*/15 * * * *", "uid-1")
    }
    assert jitter("*/15 * * * *", "uid-1") == timedelta(seconds=17, microseconds=411202)


@given(uid=st.uuids().map(str), line=st.sampled_from(["* * * * *", *LINES]))
@settings(max_examples=50)
def test_jitter_is_below_a_minute_and_a_tenth_of_the_gap(uid, line):
    schedule = Schedule(line, "Etc/UTC")
    slot = schedule.after(SLOT)

    put_off = schedule.jitter(slot, uid)

    assert timedelta(0) <= put_off < min(MAX_JITTER, (schedule.after(slot) - slot) / 10)


@pytest.mark.parametrize("line", ["* * * * *", "*/15 * * * *"])
@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(berlin(2026, 3, 29, 1, 58), id="before_an_hour_that_is_left_out"),
        pytest.param(berlin(2026, 10, 25, 2, 58), id="before_an_hour_that_comes_twice"),
    ],
)
def test_jitter_follows_the_true_gap_when_the_clocks_change(line, moment):
    schedule = Schedule(line, "Europe/Berlin")
    slot = schedule.after(moment)

    assert schedule.jitter(slot, "uid-1") == schedule.jitter(slot.astimezone(UTC), "uid-1")
    assert schedule.jitter(slot, "uid-1") == jitter(line, "uid-1")


def test_a_thousand_policies_with_one_schedule_are_spread_over_the_minute():
    starts = sorted(jitter("*/15 * * * *", f"uid-{n}") for n in range(1000))
    busiest = max(sum(second * SECOND <= start < (second + 1) * SECOND for start in starts) for second in range(60))

    assert starts[0] < SECOND
    assert starts[-1] > 59 * SECOND
    assert busiest < 40, "evenly would be 17 in each second"


# What is no schedule


@pytest.mark.parametrize(
    ("line", "why"),
    [
        pytest.param("", "five fields are needed", id="nothing"),
        pytest.param("* * * *", "five fields are needed", id="four_fields"),
        pytest.param("0 * * * * *", "five fields are needed", id="six_fields"),
        pytest.param("@hourly", "five fields are needed", id="a_macro"),
        pytest.param("60 * * * *", "Bad minute", id="a_minute_of_60"),
        pytest.param("* 24 * * *", "Bad hour", id="an_hour_of_24"),
        pytest.param("* * 0 * *", "Bad day-of-month", id="a_day_of_0"),
        pytest.param("* * * 13 *", "Bad month", id="a_month_of_13"),
        pytest.param("* * * * 8", "Bad day-of-week", id="a_weekday_of_8"),
        pytest.param("*/0 * * * *", "Bad minute", id="a_step_of_0"),
        pytest.param("5-1 * * * *", "Bad minute", id="a_range_backwards"),
        pytest.param("a * * * *", "Bad minute", id="a_word"),
        pytest.param("*/15 * * * MOND", "Bad day-of-week", id="a_misspelled_day"),
        pytest.param(", * * * *", "Bad minute", id="an_empty_list"),
        pytest.param("0 0 30 2 *", "Bad day-of-month", id="the_30th_of_February"),
        pytest.param("0 0 31 4,6 *", "Bad day-of-month", id="the_31st_of_short_months"),
        pytest.param("0 0 * 2 MON#6", "Bad day-of-week", id="the_sixth_Monday"),
    ],
)
def test_a_bad_cron_line_is_named_with_what_to_write(line, why):
    with pytest.raises(ConfigurationError) as caught:
        Schedule(line, "Etc/UTC")

    assert caught.value.reason is ErrorReason.INVALID_SCHEDULE
    assert caught.value.message.startswith(f"spec.schedule: {line!r} is no valid cron line ({why}")
    assert caught.value.message.endswith("write five fields such as */15 * * * *")


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "Europe", "europe/berlin ", "/etc/passwd", "../../etc/passwd", "A" * 5000, "Europe/\0"]
)
def test_a_bad_zone_is_named_with_what_to_write(zone):
    with pytest.raises(ConfigurationError) as caught:
        Schedule("* * * * *", zone)

    assert caught.value.reason is ErrorReason.INVALID_SCHEDULE
    assert caught.value.message.startswith(f"spec.timeZone: {zone!r} is no IANA time zone")
    assert "Europe/Berlin" in caught.value.message


def test_a_bad_schedule_is_told_also_while_suspended():
    with pytest.raises(ConfigurationError):
        plan(replace(HOURLY, schedule="nonsense", suspend=True), ScheduleState(), NOTHING, now=SLOT)


def test_the_day_that_comes_every_four_years_is_a_schedule():
    assert Schedule("0 0 29 2 *", "Etc/UTC").after(SLOT) == utc(2028, 2, 29)
