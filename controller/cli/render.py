"""A scan as the status has it, in words and tables."""

from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from controller.api.durations import format_duration
from controller.api.status import LastScan, ScanRecord
from controller.cli.console import BAD, DIM, GOOD, Screen, counted, moment
from controller.decisions.decision import FailureReason

BARS = "▁▂▃▄▅▆▇█"


def print_scan(screen: Screen, scan: ScanRecord, *, now: datetime) -> None:
    """Write what a scan found and did."""
    took = format_duration(scan.completion_time - scan.start_time)
    narrowed = f", only video {scan.video}" if scan.video else ""
    screen.say(f"{scan.trigger} scan at {moment(scan.start_time, now=now)}, {took} long{narrowed}")
    if scan.error is not None:
        screen.say(("Ended early: ", BAD), scan.error)
    screen.say(f"Found:     {scan.found}")
    screen.say(
        f"Recovered: {scan.recovered}",
        f"  (waited {scan.waited.median}, the longest {scan.waited.longest})" if scan.waited else "",
    )
    failures = {reason: count for reason, count in scan.reasons.items() if reason in set(FailureReason)}
    skips = {reason: count for reason, count in scan.reasons.items() if reason not in failures}
    screen.say(f"Skipped:   {scan.skipped}", f"  ({counted(skips)})" if skips else "")
    screen.say(f"Failed:    {scan.failed}", f"  ({counted(failures)})" if failures else "")
    if scan.settled is not None:
        screen.say(f"Earlier recoveries that worked: {scan.settled.confirmed}, that did not: {scan.settled.failed}")


def print_decisions(screen: Screen, scan: LastScan) -> None:
    """Write the decisions that the status has of its last scan."""
    if not scan.decisions:
        return
    screen.say("")
    rows: list[list[str | Text]] = []
    for each in scan.decisions:
        style = {"Recovered": GOOD, "Failed": BAD}.get(each.decision, DIM)
        why = f"flow run {each.flow_run}, attempt {each.attempt}" if each.flow_run else each.message or ""
        rows.append([each.video, Text(each.decision, style), each.reason or "", why])
    screen.table(["Video", "Decision", "Reason", "What was seen"], rows, whole=["Video"])
    left_out = scan.found - len(scan.decisions)
    if left_out > 0:
        screen.say((f"and {left_out} more, which the status does not list", DIM))


def picture(values: Sequence[int]) -> str:
    """Numbers as a line of small bars; zero is a dot, so that it differs from little."""
    highest = max(values, default=0)
    return "".join("·" if value == 0 else BARS[(value * len(BARS) - 1) // highest] for value in values)
