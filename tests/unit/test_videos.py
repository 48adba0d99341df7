"""Rows from outside, however hostile; templates; ids; and when a video is stuck."""

import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.api.policy import Columns
from controller.videos import (
    MAX_ID_LENGTH,
    MAX_SHOWN_LENGTH,
    BadRow,
    UnusableValueError,
    Video,
    columns_needed,
    is_stuck,
    printable,
    read_rows,
    render,
    same_id,
    shown,
    youngest_age,
)
from tests.support import policy
from tests.unit.fakes import MICROSECOND, NOW, row, video

UUID = "6b2d1ef0-5a55-4a3c-9f3e-0f4f6d1a2b3c"
RIGHT_TO_LEFT = "\N{RIGHT-TO-LEFT OVERRIDE}"
calmly = settings(max_examples=80)


def read(*rows: dict[str, object], **columns: str) -> tuple[list[Video], list[BadRow]]:
    return read_rows(rows, Columns.model_validate(columns))


# Ids


@pytest.mark.parametrize(
    ("raw", "read_as"),
    [
        pytest.param("v1", "v1", id="a_text"),
        pytest.param(7, "7", id="an_integer"),
        pytest.param(2**63 - 1, "9223372036854775807", id="a_bigint"),
        pytest.param(0, "0", id="zero"),
        pytest.param(-1, "-1", id="a_negative_integer"),
        pytest.param(UUID.upper(), UUID.upper(), id="a_UUID_in_capitals_as_it_is"),
        pytest.param("a/../b", "a/../b", id="a_path"),
        pytest.param("\N{CLAPPER BOARD}", "\N{CLAPPER BOARD}", id="an_emoji"),
        pytest.param('"; drop table videos; --', '"; drop table videos; --', id="SQL"),
        pytest.param("x" * MAX_ID_LENGTH, "x" * MAX_ID_LENGTH, id="exactly_the_longest"),
    ],
)
def test_reads_an_id_that_is(raw, read_as):
    [found], bad = read(row(raw))

    assert found.id == read_as
    assert not bad


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(None, id="null"),
        pytest.param("", id="empty"),
        pytest.param(True, id="a_boolean"),
        pytest.param(1.5, id="a_fraction"),
        pytest.param(float("nan"), id="not_a_number"),
        pytest.param({"id": "v1"}, id="an_object"),
        pytest.param(["v1"], id="a_list"),
        pytest.param("x" * (MAX_ID_LENGTH + 1), id="one_character_too_long"),
        pytest.param("x" * 10_000, id="10_kB"),
        pytest.param("a\nb", id="two_lines"),
        pytest.param("a\0b", id="a_NUL"),
        pytest.param("\x1b[31mred", id="an_escape_sequence"),
        pytest.param(f"gpj{RIGHT_TO_LEFT}.exe", id="text_that_turns_its_direction"),
        pytest.param("a\ud800b", id="half_a_surrogate_pair"),
    ],
)
def test_a_row_is_bad_whose_id_is(raw):
    found, [bad] = read(row(raw))

    assert not found
    assert bad.problem == "column 'id' holds no usable id"
    assert printable(bad.id) == bad.id
    assert len(bad.id) <= MAX_SHOWN_LENGTH


def test_a_row_without_an_id_column_is_bad():
    found, bad = read({"status": "pending"})

    assert not found
    assert len(bad) == 1


def test_a_bad_row_does_not_take_the_good_ones_with_it():
    found, bad = read(row("v1"), row(None), row("v2"))

    assert [each.id for each in found] == ["v1", "v2"]
    assert len(bad) == 1


def test_a_video_that_came_twice_is_there_once_as_it_came_first():
    found, _ = read(row(UUID, display_path="first.mp4"), row(UUID.upper(), display_path="second.mp4"))

    assert [each.name for each in found] == ["first.mp4"]


# Times


@pytest.mark.parametrize(
    ("raw", "moment"),
    [
        pytest.param("2026-03-10T12:00:00+00:00", datetime(2026, 3, 10, 12, tzinfo=UTC), id="with_a_zone"),
        pytest.param("2026-03-10T12:00:00Z", datetime(2026, 3, 10, 12, tzinfo=UTC), id="with_a_Z"),
        pytest.param("2026-03-10T12:00:00", datetime(2026, 3, 10, 12, tzinfo=UTC), id="without_a_zone_as_UTC"),
        pytest.param("2026-03-10 12:00:00+00", datetime(2026, 3, 10, 12, tzinfo=UTC), id="as_PostgreSQL_writes_it"),
        pytest.param(
            "2026-03-10T17:30:00+05:30",
            datetime(2026, 3, 10, 17, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))),
            id="with_another_zone",
        ),
        *(
            pytest.param(
                f"2026-03-10T12:00:00.{'123456'[:digits]}+00:00",
                datetime(2026, 3, 10, 12, 0, 0, int("123456"[:digits].ljust(6, "0")), tzinfo=UTC),
                id=f"with_{digits}_digits_behind_the_second",
            )
            for digits in range(1, 7)
        ),
        pytest.param("2026-03-10", datetime(2026, 3, 10, tzinfo=UTC), id="a_day_alone"),
    ],
)
def test_reads_a_time(raw, moment):
    [found], _ = read(row(created_at=raw))

    assert found.created_at == moment
    assert found.created_at.tzinfo is not None


@pytest.mark.parametrize(
    "raw",
    [None, "", "infinity", "-infinity", "0044-03-15 12:00:00 BC", "10000-01-01T00:00:00", "yesterday", 0, 1.5, True,
     {"$date": 1}, ["2026-03-10"], "2026-13-01", "2026-03-10T25:00:00", "2026-03-10T12:00:00+99:00", "x" * 10_000,
     "2026-03-10T12:00:00\n"],
    ids=lambda raw: repr(raw)[:30],
)  # fmt: skip
def test_a_row_is_bad_whose_time_is(raw):
    found, [bad] = read(row("v1", created_at=raw))

    assert not found
    assert bad.id == "v1"
    assert bad.problem.startswith("column 'created_at' holds no usable time (")
    assert printable(bad.problem) == bad.problem
    assert len(bad.problem) < 256


# Names, tenants, statuses


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        pytest.param(None, "", id="null"),
        pytest.param("", "", id="empty"),
        pytest.param(7, "7", id="a_number"),
        pytest.param({"a": 1}, "{'a': 1}", id="an_object"),
        pytest.param("\N{CLAPPER BOARD}.mp4", "\N{CLAPPER BOARD}.mp4", id="an_emoji"),
        pytest.param("a\x1b[2Jb\n", "a\ufffd[2Jb\ufffd", id="an_escape_sequence"),
        pytest.param(f"gpj{RIGHT_TO_LEFT}.exe", "gpj\ufffd.exe", id="text_that_turns_its_direction"),
        pytest.param("x" * MAX_SHOWN_LENGTH, "x" * MAX_SHOWN_LENGTH, id="exactly_the_longest"),
        pytest.param("x" * (MAX_SHOWN_LENGTH + 1), "x" * (MAX_SHOWN_LENGTH - 1) + "…", id="one_character_too_long"),
        pytest.param("x" * 10_000, "x" * (MAX_SHOWN_LENGTH - 1) + "…", id="10_kB"),
    ],
)
def test_shows_a_name_that_is(raw, name):
    [found], _ = read(row(display_path=raw))

    assert found.name == name


@pytest.mark.parametrize(
    ("raw", "tenant"),
    [("t1", "t1"), (7, "7"), (None, None), ("", None), (True, None), ({"id": 1}, None), ("../x", "../x")],
    ids=repr,
)
def test_reads_a_tenant(raw, tenant):
    [found], _ = read(row(tenant_id=raw))

    assert found.tenant_id == tenant


def test_reads_no_name_and_no_tenant_where_the_policy_names_no_columns():
    [found], _ = read(row(), name="", tenantId="", deletedAt="")

    assert found.name == ""
    assert found.tenant_id is None


def test_reads_the_columns_that_the_policy_names():
    other = {"key": 1, "state": "pending", "at": "2026-03-10T12:00:00Z", "title": "a", "org": "o"}

    [found], _ = read(other, id="key", status="state", createdAt="at", name="title", tenantId="org")

    assert (found.id, found.status, found.name, found.tenant_id) == ("1", "pending", "a", "o")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.sampled_from(list(row())), json_values), max_size=5))
@calmly
def test_no_row_ever_raises_and_nothing_of_it_breaks_a_line(rows):
    found, bad = read(*rows)

    texts = [text for each in found for text in (each.id, each.name, each.status)]
    texts += [text for each in bad for text in (each.id, each.problem)]
    assert not [text for text in texts if any(unicodedata.category(c)[0] == "C" for c in text)]
    assert max((len(text) for text in texts), default=0) <= 256
    assert len({same_id(each.id) for each in found}) == len(found)


@given(json_values)
@calmly
def test_anything_is_shown_in_one_short_line(value):
    assert len(shown(value)) <= MAX_SHOWN_LENGTH
    assert len(shown(value).splitlines()) <= 1


@pytest.mark.parametrize(
    "separator", ["\n", "\r", "\x0b", "\x85", "\N{LINE SEPARATOR}", "\N{PARAGRAPH SEPARATOR}"], ids=ascii
)
def test_nothing_that_ends_a_line_is_shown(separator):
    assert shown(f"one{separator}two") == "one\ufffdtwo"


# Ids that mean the same


def test_two_spellings_of_a_uuid_are_one_id():
    assert same_id(UUID.upper()) == same_id(UUID) == UUID


@pytest.mark.parametrize(
    "other",
    [
        pytest.param("Abc", id="text"),
        pytest.param("", id="nothing"),
        pytest.param("z" * 36, id="36_characters"),
        pytest.param(UUID.replace("-", ""), id="a_UUID_without_hyphens"),
        pytest.param("----" + UUID.replace("-", ""), id="a_UUIDs_digits_with_hyphens_elsewhere"),
        pytest.param("{" + UUID[:34] + "}", id="36_characters_in_braces"),
        pytest.param("0x2d1ef0-5a55-4a3c-9f3e-0f4f6d1a2b3c", id="a_UUIDs_form_with_an_x"),
        pytest.param(" b2d1ef0-5a55-4a3c-9f3e-0f4f6d1a2b3c", id="a_UUIDs_form_with_a_space"),
        pytest.param("6_2d1ef0-5a55-4a3c-9f3e-0f4f6d1a2b3c", id="a_UUIDs_form_with_an_underscore"),
        pytest.param("\N{ARABIC-INDIC DIGIT SIX}b2d1ef0-5a55-4a3c-9f3e-0f4f6d1a2b3c", id="a_UUID_in_other_digits"),
    ],
)
def test_any_other_id_stays_as_it_is(other):
    assert same_id(other) == other


@given(st.uuids())
@calmly
def test_every_uuid_is_the_same_id_in_capitals(uuid):
    assert same_id(str(uuid).upper()) == str(uuid)


# Templates


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        pytest.param("{id}", "v1", id="a_column"),
        pytest.param("{tenant_id}/client/videos/{id}/video.mp4", "tenant/client/videos/v1/video.mp4", id="a_path"),
        pytest.param("fixed", "fixed", id="a_fixed_text"),
        pytest.param("", "", id="nothing"),
        pytest.param("{number}", "7", id="an_integer"),
        pytest.param("{id}{id}", "v1v1", id="a_column_twice"),
        pytest.param("{braces}", "{id}", id="a_value_with_a_placeholder_which_stays_a_value"),
        pytest.param("{percent}", "%s %(id)s", id="a_value_with_percent_signs"),
        pytest.param("{backslash}", r"\1\g<0>", id="a_value_with_backslashes"),
        pytest.param("{two words}", "yes", id="a_column_with_a_space"),
        pytest.param("{slash}", "a/b", id="a_slash_where_no_path_is_written"),
        pytest.param("{dots}", "..", id="dots_where_no_path_is_written"),
        pytest.param("{id}/{hidden}", "v1/..a", id="a_step_that_only_begins_with_dots"),
    ],
)
def test_renders(template, expected):
    values: dict[str, Any] = {
        "number": 7, "braces": "{id}", "percent": "%s %(id)s", "backslash": r"\1\g<0>", "two words": "yes",
        "slash": "a/b", "dots": "..", "hidden": "..a",
    }  # fmt: skip

    assert render(template, row(**values)) == expected


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        pytest.param(None, "is empty", id="null"),
        pytest.param("", "is empty", id="empty"),
        pytest.param(True, "is empty", id="a_boolean"),
        pytest.param(1.5, "is empty", id="a_fraction"),
        pytest.param({"a": 1}, "is empty", id="an_object"),
        pytest.param("a\nb", "holds control characters", id="two_lines"),
        pytest.param("a\0", "holds control characters", id="a_NUL"),
        pytest.param("a/b", "would change the path", id="a_slash"),
        pytest.param("/", "would change the path", id="a_slash_alone"),
        pytest.param("a\\b", "would change the path", id="a_backslash"),
        pytest.param(".", "would change the path", id="a_dot"),
        pytest.param("..", "would change the path", id="two_dots"),
        pytest.param("../..", "would change the path", id="a_way_up"),
    ],
)
def test_refuses_in_a_path(value, problem):
    with pytest.raises(UnusableValueError, match=f"column 'tenant_id' {problem}"):
        render("{tenant_id}/videos/{id}.mp4", row(tenant_id=value))


def test_refuses_a_column_that_the_row_lacks():
    with pytest.raises(UnusableValueError, match="column 'missing' is empty"):
        render("{missing}", row())


def test_a_refusal_of_a_long_value_is_short():
    with pytest.raises(UnusableValueError) as caught:
        render("{tenant_id}/x", row(tenant_id="/" * 10_000))

    assert len(str(caught.value)) < 256


# What to select


def test_selects_the_named_columns_and_those_of_the_templates_once_each():
    spec = policy(
        supabase={"columns": {"name": "", "deletedAt": "gone"}},
        upload={"bucket": "videos", "objectPath": "{folder}/{id}.mp4"},
        prefect={"parameters": {"video_id": "{id}", "extra": "{priority}-{id}"}},
    ).spec

    assert columns_needed(spec) == ("id", "status", "created_at", "tenant_id", "priority", "folder")


# Stuck or not


@pytest.mark.parametrize("by_status", [{}, {"uploading": "1m"}])
def test_a_status_without_its_own_age_has_the_common_one(by_status):
    stuck = policy(stuck={"ageByStatus": by_status}).spec.stuck

    assert not is_stuck(video(age=timedelta(minutes=10)), stuck, now=NOW)
    assert is_stuck(video(age=timedelta(minutes=10) + MICROSECOND), stuck, now=NOW)


@pytest.mark.parametrize(
    ("by_status", "youngest"),
    [
        pytest.param({}, 10, id="the_common_age"),
        pytest.param({"uploading": "5m"}, 5, id="a_younger_one"),
        pytest.param({"uploading": "30m"}, 10, id="not_an_older_one"),
        pytest.param({"uploading": "30m", "pending": "20m"}, 20, id="the_youngest_where_each_has_its_own"),
    ],
)
def test_asks_for_videos_from_the_youngest_age_on(by_status, youngest):
    assert youngest_age(policy(stuck={"ageByStatus": by_status}).spec.stuck) == timedelta(minutes=youngest)


def test_a_time_at_the_end_of_all_days_is_compared_without_an_error():
    stuck = policy().spec.stuck

    assert is_stuck(video(created_at="0001-01-01T00:00:00+14:00"), stuck, now=NOW)
    assert not is_stuck(video(created_at="9999-12-31T23:59:59-14:00"), stuck, now=NOW)
