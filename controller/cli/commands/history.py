"""`history`: recent scans as a table, with a small picture of them over time; or one of them."""

from typing import Any

import click
from rich.text import Text

from controller.api.durations import format_duration
from controller.api.status import PolicyStatus, ScanRecord
from controller.cli.clock import read_clock
from controller.cli.console import BAD, DIM, Console, ago, format_counts
from controller.cli.errors import WrongUseError
from controller.cli.options import Where, connection_options, run_async
from controller.cli.policies import open_policy
from controller.cli.render import print_decisions, print_scan, sparkline


@click.command()
@click.argument("name_and_run", nargs=-1, metavar="[NAME] [RUN]")
@connection_options
def history(name_and_run: tuple[str, ...], **where: Any) -> None:
    """Show the recent scans of a policy.

    The newest is first. With RUN, a number from the table, it shows that one alone, with its decisions if it was
    the last. How many there are is the policy's historyLimit. The numbers count the scans since the policy was
    created, so one keeps its number. The pictures go from the oldest scan, on the left, to the newest.
    """
    runs = [each for each in name_and_run if each.isdecimal()]
    names = [each for each in name_and_run if not each.isdecimal()]
    if len(runs) > 1 or len(names) > 1:
        raise WrongUseError(
            "write at most the name of a policy and the number of a scan, such as: history my-policy 42"
        )
    run_async(_history(Where(name=names[0] if names else None, **where), int(runs[0]) if runs else None))


async def _history(where: Where, run: int | None) -> None:
    console = Console()
    async with open_policy(where) as found:
        status = found.status
    scans = _numbered(status)
    if not scans:
        console.print("No scan yet, or the policy's historyLimit is 0")
    elif run is None:
        _print_table(console, scans)
    elif run in scans:
        print_scan(console, scans[run], now=read_clock())
        if run == status.totals.scans and status.last_scan is not None:
            print_decisions(console, status.last_scan)
        else:
            console.print(("\nDecisions are kept for the last scan only; the controller's log has them with -v", DIM))
    else:
        numbers = f"{min(scans)} to {max(scans)}" if len(scans) > 1 else str(max(scans))
        raise WrongUseError(f"the history has no scan {run}; write a number from the table: {numbers}")


def _numbered(status: PolicyStatus) -> dict[int, ScanRecord]:
    """The scans by their number since the policy was created, the newest first."""
    scans = status.history or ((status.last_scan,) if status.last_scan else ())
    return {status.totals.scans - position: scan for position, scan in enumerate(scans)}


def _print_table(console: Console, scans: dict[int, ScanRecord]) -> None:
    now = read_clock()
    rows: list[list[str | Text]] = []
    for number, scan in scans.items():
        problem = Text(scan.error, BAD) if scan.error else Text(format_counts(dict(scan.reasons)), DIM)
        took = format_duration(scan.completion_time - scan.start_time)
        numbers = [str(count) for count in (scan.found, scan.recovered, scan.skipped, scan.failed)]
        trigger = f"{scan.trigger} of one video" if scan.video else str(scan.trigger)
        rows.append([str(number), ago(now - scan.start_time), trigger, took, *numbers, problem])
    console.table(["Run", "Started", "Trigger", "Took", "Found", "Recovered", "Skipped", "Failed", "Reasons"], rows)
    if len(scans) > 1:
        oldest_first = list(reversed(scans.values()))
        console.print("")
        for title, values in (
            ("Found    ", [scan.found for scan in oldest_first]),
            ("Recovered", [scan.recovered for scan in oldest_first]),
        ):
            console.print(f"{title}  {sparkline(values)}  at most {max(values)}")
