"""How a scan of a status is shown."""

import io
from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console as RichConsole

from controller.api.status import Confirmations, DecisionRecord, LastScan, WaitTime
from controller.cli.console import Console, ago, moment
from controller.cli.render import print_decisions, print_scan, sparkline
from controller.schedule import Trigger
from tests.unit.fakes import NOW, SECOND

MINUTE = timedelta(minutes=1)


def shown(**fields: Any) -> str:
    """What the screen shows of a scan."""
    output = io.StringIO()
    screen = Console(RichConsole(file=output, width=200))
    scan = LastScan(trigger=Trigger.SCHEDULE, start_time=NOW - MINUTE, completion_time=NOW - 58 * SECOND, **fields)
    print_scan(screen, scan, now=NOW)
    print_decisions(screen, scan)
    return output.getvalue()


def test_shows_skips_and_failures_each_with_their_reasons():
    text = shown(found=4, recovered=1, skipped=2, failed=1, reasons={"ActiveFlowRun": 2, "InvalidRow": 1})

    assert text.splitlines() == [
        "Schedule scan at 2026-03-10 12:06 UTC (1m ago), 2s long",
        "Found:     4",
        "Recovered: 1",
        "Skipped:   2  (ActiveFlowRun 2)",
        "Failed:    1  (InvalidRow 1)",
    ]


def test_shows_what_ended_a_scan_and_what_came_of_earlier_ones():
    text = shown(
        error="Prefect is down",
        recovered=1,
        wait_time=WaitTime(median="5m", longest="2h"),
        confirmations=Confirmations(confirmed=3),
    )

    assert "Ended early: Prefect is down" in text
    assert "Recovered: 1  (waited 5m, the longest 2h)" in text
    assert "Earlier recoveries that worked: 3, that did not: 0" in text


def test_says_how_many_decisions_are_left_out():
    decisions = (DecisionRecord(video="v1", decision="Skipped", reason="Quarantined", message="3 attempts"),)

    assert "and 6 more, which the status does not list" in shown(found=7, decisions=decisions)


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        pytest.param([], "", id="nothing"),
        pytest.param([0, 0], "··", id="zeros"),
        pytest.param([1, 2, 3, 4, 5, 6, 7, 8], "▁▂▃▄▅▆▇█", id="each_height"),
        pytest.param([0, 1, 1000], "·▁█", id="a_little_is_not_nothing"),
    ],
)
def test_draws_numbers_as_bars(values, bars):
    assert sparkline(values) == bars


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(seconds=59), "59s ago"),
        (45 * MINUTE, "45m ago"),
        (60 * MINUTE, "1h ago"),
        (timedelta(hours=5, minutes=12), "5h12m ago"),
        (timedelta(hours=48), "2d ago"),
        (-MINUTE, "0s ago"),
    ],
)
def test_says_an_age_in_its_largest_parts(age, text):
    assert ago(age) == text


def test_says_when_something_is_and_how_far():
    assert moment(NOW + 7 * MINUTE, now=NOW) == "2026-03-10 12:14 UTC (in 7m)"
    assert moment(None, now=NOW) == "never"
