"""Durations as a policy writes them."""

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.durations import DURATION_PATTERN, format_duration, parse_duration

WHOLE_SECONDS = st.integers(min_value=0, max_value=999_999 * 3600).map(lambda seconds: timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("90s", 90, id="seconds beyond a minute"),
        pytest.param("10m", 600, id="minutes"),
        pytest.param("1h30m", 5400, id="hours and minutes"),
        pytest.param("72h", 259_200, id="hours beyond a day"),
        pytest.param("1h1s", 3601, id="hours and seconds"),
        pytest.param("0h0m0s", 0, id="zeros"),
        pytest.param("0s", 0, id="zero"),
        pytest.param("007m", 420, id="leading zeros"),
    ],
)
def test_reads_a_duration(text: str, seconds: int):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "m",
        "1d",
        "1.5h",
        "-5m",
        "+5m",
        "5m1h",
        "1h1h",
        " 5m",
        "5m ",
        "5 m",
        "5m\n",
        "5M",
        "٣m",
        "1234567s",
        "1ms",
    ],
)
def test_refuses_what_is_no_duration_and_says_what_to_write(text: str):
    with pytest.raises(ValueError, match=r"^write a duration such as 90s, 10m or 1h30m$"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (90, "1m30s"), (3600, "1h"), (3900, "1h5m"), (3601, "1h1s"), (259_200, "72h")],
)
def test_writes_the_shortest_form(seconds: int, text: str):
    assert format_duration(timedelta(seconds=seconds)) == text


def test_cuts_off_parts_of_a_second():
    assert format_duration(timedelta(milliseconds=1999)) == "1s"


def test_does_not_write_a_negative_duration():
    with pytest.raises(ValueError, match="negative"):
        format_duration(timedelta(seconds=-1))


@given(WHOLE_SECONDS)
def test_reads_what_it_writes(duration: timedelta):
    assert parse_duration(format_duration(duration)) == duration


@given(st.text(alphabet="0123456789hms .-\n", max_size=12) | st.from_regex(DURATION_PATTERN))
def test_reads_just_what_the_api_servers_pattern_matches(text: str):
    matches = text != "" and re.fullmatch(DURATION_PATTERN, text) is not None
    try:
        parse_duration(text)
    except ValueError:
        assert not matches
    else:
        assert matches
