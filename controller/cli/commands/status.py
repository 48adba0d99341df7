"""`status`: how a policy is: its conditions, its next scan, its last one, and who is quarantined."""

from datetime import datetime
from typing import Any

import click
from rich.text import Text

from controller.api.status import Condition, PolicyStatus, Quarantine
from controller.cli.clock import read_clock
from controller.cli.console import BAD, DIM, GOOD, STRONG, Screen, ago, counted, moment
from controller.cli.options import Where, cluster_options, run_async
from controller.cli.policies import Found, open_policy
from controller.cli.program import program_name
from controller.cli.render import print_decisions, print_scan
from controller.errors import ConfigurationError


@click.command()
@cluster_options
def status(**where: Any) -> None:
    """Show how a policy is.

    Its conditions, its next scan, its last one with the reasons for skips, who is quarantined, and the totals.
    """
    run_async(_status(Where(**where)))


async def _status(where: Where) -> None:
    screen = Screen()
    async with open_policy(where) as found:
        now, seen = read_clock(), found.status
    screen.say((f"Policy {found.key.namespace}/{found.key.name}", STRONG))
    screen.say(_in_short(found))
    if seen.observed_generation != found.manifest["metadata"]["generation"]:
        screen.say(("!", BAD), f" No controller has seen this version yet; `{program_name()} doctor` tells why")
    screen.say(f"Next scan: {_next(found, seen, now)}\n")
    if seen.conditions:
        screen.table(
            ["Condition", "Status", "Since", "Reason", "Message"], [_row(each, now) for each in seen.conditions]
        )
    _print_stuck(screen, seen)
    if seen.last_scan is not None:
        screen.say(("\nLast scan", STRONG))
        print_scan(screen, seen.last_scan, now=now)
        print_decisions(screen, seen.last_scan)
    if seen.quarantine is not None and seen.quarantine.count:
        _print_quarantine(screen, seen.quarantine, found)
    totals = seen.totals
    in_flight = totals.recovered - totals.confirmed - totals.failed
    screen.say(
        f"\nIn all: {totals.scans} scans, {totals.recovered} recovered ({totals.confirmed} worked, {totals.failed} did "
        f"not, {in_flight} in flight)"
    )


def _in_short(found: Found) -> str:
    try:
        spec = found.policy.spec
    except ConfigurationError as error:
        return f"It is not valid: {error.message}"
    return f"Schedule {spec.schedule} ({spec.time_zone}), mode {spec.mode}{', suspended' if spec.suspend else ''}"


def _next(found: Found, seen: PolicyStatus, now: datetime) -> str:
    if found.manifest["spec"].get("suspend"):
        return f"none while suspended; {program_name()} resume {found.key.name} -n {found.key.namespace}"
    return "not planned yet" if seen.next_schedule_time is None else moment(seen.next_schedule_time, now=now)


def _row(each: Condition, now: datetime) -> list[str | Text]:
    good = each.status == ("False" if each.type in {"Stalled", "Reconciling"} else "True")
    style = GOOD if good else DIM if each.status == "Unknown" or each.type == "Reconciling" else BAD
    return [each.type, Text(each.status, style), ago(now - each.last_transition_time), each.reason, each.message]


def _print_stuck(screen: Screen, seen: PolicyStatus) -> None:
    if seen.stuck is None:
        return
    oldest = f", the oldest {seen.stuck.oldest_age} old" if seen.stuck.oldest_age else ""
    by_status = counted(dict(seen.stuck.by_status))
    screen.say(f"\nStuck: {seen.stuck.total}{oldest}{f' ({by_status})' if by_status else ''}")


def _print_quarantine(screen: Screen, quarantine: Quarantine, found: Found) -> None:
    screen.say((f"\nQuarantined: {quarantine.count}", STRONG))
    for video_id in quarantine.videos:
        screen.say(f"  {video_id}")
    if quarantine.count > len(quarantine.videos):
        screen.say((f"  and {quarantine.count - len(quarantine.videos)} more", DIM))
    screen.say(
        f"See what their flow runs say in Prefect, then release one with:\n  {program_name()} release {found.key.name} "
        f"-n {found.key.namespace} --video-id ID"
    )
