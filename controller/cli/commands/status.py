"""`status`: the status of a policy: its conditions, its next scan, its last one, and the quarantined videos."""

from datetime import datetime
from typing import Any

import click
from rich.text import Text

from controller.api.status import Condition, PolicyStatus, Quarantine
from controller.cli.clock import read_clock
from controller.cli.console import BAD, DIM, GOOD, STRONG, Console, ago, format_counts, moment
from controller.cli.options import Where, cluster_options, run_async
from controller.cli.policies import ClusterPolicy, open_policy
from controller.cli.program import program_name
from controller.cli.render import print_decisions, print_scan
from controller.errors import ConfigurationError


@click.command()
@cluster_options
def status(**where: Any) -> None:
    """Show the status of a policy.

    Its conditions, its next scan, its last one with the reasons for skips, the quarantined videos, and the totals.
    """
    run_async(_status(Where(**where)))


async def _status(where: Where) -> None:
    console = Console()
    async with open_policy(where) as found:
        now, seen = read_clock(), found.status
    console.print((f"Policy {found.key.namespace}/{found.key.name}", STRONG))
    console.print(_in_short(found))
    if seen.observed_generation != found.manifest["metadata"]["generation"]:
        console.print(("!", BAD), f" No controller has seen this version yet; `{program_name()} doctor` tells why")
    console.print(f"Next scan: {_next(found, seen, now)}\n")
    if seen.conditions:
        console.table(
            ["Condition", "Status", "Since", "Reason", "Message"], [_row(each, now) for each in seen.conditions]
        )
    _print_stuck(console, seen)
    if seen.last_scan is not None:
        console.print(("\nLast scan", STRONG))
        print_scan(console, seen.last_scan, now=now)
        print_decisions(console, seen.last_scan)
    if seen.quarantine is not None and seen.quarantine.count:
        _print_quarantine(console, seen.quarantine, found)
    totals = seen.totals
    in_flight = totals.recovered - totals.confirmed - totals.failed
    console.print(
        f"\nIn all: {totals.scans} scans, {totals.recovered} recovered ({totals.confirmed} worked, {totals.failed} did "
        f"not, {in_flight} in flight)"
    )


def _in_short(found: ClusterPolicy) -> str:
    try:
        spec = found.policy.spec
    except ConfigurationError as error:
        return f"It is not valid: {error.message}"
    return f"Schedule {spec.schedule} ({spec.time_zone}), mode {spec.mode}{', suspended' if spec.suspend else ''}"


def _next(found: ClusterPolicy, seen: PolicyStatus, now: datetime) -> str:
    if found.manifest["spec"].get("suspend"):
        return f"none while suspended; {program_name()} resume {found.key.name} -n {found.key.namespace}"
    return "not planned yet" if seen.next_schedule_time is None else moment(seen.next_schedule_time, now=now)


def _row(each: Condition, now: datetime) -> list[str | Text]:
    good = each.status == ("False" if each.type in {"Stalled", "Reconciling"} else "True")
    style = GOOD if good else DIM if each.status == "Unknown" or each.type == "Reconciling" else BAD
    return [each.type, Text(each.status, style), ago(now - each.last_transition_time), each.reason, each.message]


def _print_stuck(console: Console, seen: PolicyStatus) -> None:
    if seen.stuck is None:
        return
    oldest = f", the oldest {seen.stuck.oldest_age} old" if seen.stuck.oldest_age else ""
    by_status = format_counts(dict(seen.stuck.by_status))
    console.print(f"\nStuck: {seen.stuck.total}{oldest}{f' ({by_status})' if by_status else ''}")


def _print_quarantine(console: Console, quarantine: Quarantine, found: ClusterPolicy) -> None:
    console.print((f"\nQuarantined: {quarantine.count}", STRONG))
    for video_id in quarantine.videos:
        console.print(f"  {video_id}")
    if quarantine.count > len(quarantine.videos):
        console.print((f"  and {quarantine.count - len(quarantine.videos)} more", DIM))
    console.print(
        f"See what their flow runs say in Prefect, then release one with:\n  {program_name()} release {found.key.name} "
        f"-n {found.key.namespace} --video-id ID"
    )
