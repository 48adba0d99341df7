"""A scan as the status has it, in words and tables."""

from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from controller.api.durations import format_duration
from controller.api.status import LastScan, ScanRecord
from controller.cli.console import BAD, DIM, GOOD, Console, format_counts, moment
from controller.decisions.decision import FailureReason

BARS = "▁▂▃▄▅▆▇█"


def print_scan(console: Console, scan: ScanRecord, *, now: datetime) -> None:
    """Write what a scan found and did."""
    took = format_duration(scan.completion_time - scan.start_time)
    narrowed = f", only video {scan.video}" if scan.video else ""
    console.print(f"{scan.trigger} scan at {moment(scan.start_time, now=now)}, {took} long{narrowed}")
    if scan.error is not None:
        console.print(("Ended early: ", BAD), scan.error)
    console.print(f"Found:     {scan.found}")
    console.print(
        f"Recovered: {scan.recovered}",
        f"  (waited {scan.wait_time.median}, the longest {scan.wait_time.longest})" if scan.wait_time else "",
    )
    failures = {reason: count for reason, count in scan.reasons.items() if reason in set(FailureReason)}
    skips = {reason: count for reason, count in scan.reasons.items() if reason not in failures}
    console.print(f"Skipped:   {scan.skipped}", f"  ({format_counts(skips)})" if skips else "")
    console.print(f"Failed:    {scan.failed}", f"  ({format_counts(failures)})" if failures else "")
    if scan.confirmations is not None:
        confirmed, failed = scan.confirmations.confirmed, scan.confirmations.failed
        console.print(f"Earlier recoveries that worked: {confirmed}, that did not: {failed}")


def print_decisions(console: Console, scan: LastScan) -> None:
    """Write the decisions that the status has of its last scan."""
    if not scan.decisions:
        return
    console.print("")
    rows: list[list[str | Text]] = []
    for each in scan.decisions:
        style = {"Recovered": GOOD, "Failed": BAD}.get(each.decision, DIM)
        why = f"flow run {each.flow_run}, attempt {each.attempt}" if each.flow_run else each.message or ""
        rows.append([each.video, Text(each.decision, style), each.reason or "", why])
    console.table(["Video", "Decision", "Reason", "What was seen"], rows, whole=["Video"])
    left_out = scan.found - len(scan.decisions)
    if left_out > 0:
        console.print((f"and {left_out} more, which the status does not list", DIM))


def sparkline(values: Sequence[int]) -> str:
    """Numbers as a line of small bars; zero is a dot, so that it differs from little."""
    highest = max(values, default=0)
    return "".join("·" if value == 0 else BARS[(value * len(BARS) - 1) // highest] for value in values)
