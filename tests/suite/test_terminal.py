"""What a command writes is compared as a whole: only what differs from run to run is masked, and that always the same.

Nothing that the clock, a random name or a port can be may change the text that is compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.terminal import Said, masked, stable, video_id

moments = st.datetimes(datetime(2020, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))
digits = st.integers(0, 6)


def without_zeros(time: datetime) -> str:
    """A time as PostgreSQL writes it into JSON: without the zeros at the end of its fraction."""
    whole, _, fraction = f"{time:%Y-%m-%dT%H:%M:%S.%f}".partition(".")
    kept = fraction.rstrip("0")
    return f"{whole}{f'.{kept}' if kept else ''}+00:00"


def cut(time: datetime, kept: int) -> datetime:
    """A time with so many digits of its fraction, and zeros behind them."""
    return time.replace(microsecond=int(f"{time:%f}"[:kept].ljust(6, "0")))


def span(seconds: int) -> str:
    hours, minutes, rest = seconds // 3600, seconds % 3600 // 60, seconds % 60
    return "".join(f"{number}{unit}" for number, unit in ((hours, "h"), (minutes, "m"), (rest, "s")) if number) or "0s"


@dataclass(frozen=True)
class Values:
    """What may differ between two runs of one test."""

    deleted: datetime
    created: datetime
    late: int
    distance: int
    took: int
    run: str
    run_name: str
    port: int
    path: str


values = st.builds(
    Values,
    deleted=st.builds(lambda time, kept: cut(time, kept), moments, digits),
    created=moments,
    late=st.integers(0, 299),
    distance=st.integers(0, 400 * 86400),
    took=st.integers(0, 1000),
    run=st.uuids(version=4).map(str),
    run_name=st.from_regex(r"[a-z]{3,9}-[a-z]{3,9}", fullmatch=True),
    port=st.integers(1, 65535),
    path=st.from_regex(r"/tmp/pytest-of-[a-z]{1,8}/pytest-[0-9]{1,4}/policy\.yaml", fullmatch=True),
)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns, each as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )


def output(of: Values) -> Said:
    """Everything that a command writes and that differs, with values of one run."""
    age = span(45 * 60 + of.late)
    distance = span(of.distance)
    rows = [
        ["ID", "Age", "Created", "Why"],
        [video_id(1), f"{age} ago", f"{of.created:%Y-%m-%d %H:%M} UTC", f"flow run {of.run_name} is RUNNING"],
        [video_id(2), "12d ago", f"{of.created:%Y-%m-%d %H:%M} UTC", f"flow run {of.run}, attempt 1"],
    ]
    return Said(
        0,
        f"Request scan at {of.created:%Y-%m-%d %H:%M} UTC ({distance} ago), {span(of.took)} long\n"
        f"Recovered: 1  (waited {age}, the longest {age})\n\n"
        f"{table(rows)}\n"
        f"✗ It is not deleted      it is deleted: deleted_at is {without_zeros(of.deleted)}\n"
        f"✓ It waits long enough   it is {age} old; stuck from 10m on\n"
        f"Next scan: {of.created:%Y-%m-%d %H:%M} UTC (in {distance})\n",
        f"Settings: policy captionacc-prod of {of.path}, at https://127.0.0.1:{of.port}\n",
    )


EXPECTED = f"""\
Request scan at <minute> (<distance>), <distance> long
Recovered: 1  (waited <45m>, the longest <45m>)

ID                                    Age        Created   Why
{video_id(1)}  <45m> ago  <minute>  flow run <name> is RUNNING
{video_id(2)}  <age> ago  <minute>  flow run <id>, attempt 1

✗ It is not deleted      it is deleted: deleted_at is <time>
✓ It waits long enough   it is <45m> old; stuck from 10m on
Next scan: <minute> (<distance>)
--- standard error
Settings: policy captionacc-prod of policy.yaml, at https://127.0.0.1:<port>
--- exit code 0
"""


@given(values)
def test_outputs_that_differ_only_from_run_to_run_are_the_same(of: Values):
    assert stable(output(of), names={of.path: "policy.yaml"}) == EXPECTED


@given(moments, digits, st.sampled_from(["Z", "+00:00", "+00", "-07:30", ""]), st.sampled_from("T "))
def test_a_time_has_one_mask_however_many_digits_it_has(time: datetime, kept: int, zone: str, between: str):
    fraction = f".{time:%f}"[: kept + 1] if kept else ""

    assert masked(f"at {time:%Y-%m-%d}{between}{time:%H:%M:%S}{fraction}{zone}, it") == "at <time>, it"


@given(moments, st.integers(-12, 12))
def test_a_time_of_any_zone_has_the_same_mask(time: datetime, hours: int):
    assert masked(time.astimezone(timezone(timedelta(hours=hours))).isoformat()) == "<time>"


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        pytest.param("44m59s old", "<age> old", id="younger"),
        pytest.param("45m old", "<45m> old", id="as old"),
        pytest.param("49m59s old", "<45m> old", id="a little older, since the test took its time"),
        pytest.param("50m old", "<age> old", id="too old"),
        pytest.param("45s ago", "<age> ago", id="in another unit"),
    ],
)
def test_a_wrong_age_shows(age: str, expected: str):
    assert masked(age, ages=["45m"]) == expected


@pytest.mark.parametrize(
    "text",
    [
        "stuck from 10m on",
        "0 of 3 attempts within 72h",
        "no active run is older than 6h",
        f"video {video_id(7)}",
        "flow run run-of-3 is RUNNING",
        "flow run of-a-person ended",
        "https://supabase.example:8443",
        "3 found: 1 recovered, 2 skipped",
    ],
)
def test_what_a_test_decides_is_not_masked(text: str):
    assert masked(text) == text


def test_columns_that_do_not_stand_under_each_other_show():
    straight = Said(0, "ID  Age\na   45m ago\n", "")
    crooked = Said(0, "ID  Age\na    45m ago\n", "")

    assert stable(straight) != stable(crooked)
