"""`find`: the stuck videos, and what a scan would do with each. Changes nothing."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click
import yaml
from rich.text import Text

from controller.api.manifest import Policy
from controller.cli.console import BAD, DIM, GOOD, Console, ago
from controller.cli.errors import WrongUseError
from controller.cli.options import Where, age_option, policy_options, run_async
from controller.cli.preview import Conclusion, conclusions, describe_age, preview, with_age
from controller.cli.program import program_name
from controller.cli.source import Source, open_source
from controller.outcome import PreparedScan


@click.command()
@age_option
@click.option("--status", "statuses", multiple=True, metavar="STATUS", help="Show only videos in this one; repeatable.")
@click.option("--tenant", "tenants", multiple=True, metavar="ID", help="Show only videos of this one; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml", "wide", "name"]), help="Another form of output.")
@policy_options
def find(
    age_minutes: int | None,
    statuses: tuple[str, ...],
    tenants: tuple[str, ...],
    as_json: bool,
    output: str | None,
    **where: Any,
) -> None:
    """List the stuck videos, and what a scan would do with each and why.

    Nothing is changed. The decisions are those of a whole scan at this moment; --status and --tenant only choose which
    of them are shown. NAME is a policy in the cluster; without it, and without -f, the variables SUPABASE_URL,
    SUPABASE_SERVICE_ROLE_KEY and PREFECT_API_URL are used if they are set, else the only policy of the cluster.

    \b
    -o json and -o yaml show an object:
      policy   its namespace and name
      found    how many videos are listed
      videos   of each: id, name, status, createdAt, ageSeconds, tenantId,
               decision (Recover, Skip or Fail), reason, message, attempt
    A field that is not known is null. -o name shows an id a line; -o wide adds what was seen.
    """  # noqa: D301 - click wants the character
    run_async(_find(Where(**where), age_minutes, statuses, tenants, "json" if as_json else output))


async def _find(
    where: Where, age_minutes: int | None, statuses: Sequence[str], tenants: Sequence[str], output: str | None
) -> None:
    console = Console()
    async with open_source(where) as source:
        console.note(f"Settings: {source.description}")
        policy = with_age(source.policy, age_minutes)
        _validate_statuses(policy, statuses)
        if output in {None, "wide"}:
            console.print(f"Searching for videos stuck for >{describe_age(policy.spec)}...\n")
        with console.spinner("Asking Supabase and Prefect"):
            prepared = await preview(source, policy)
    shown = [each for each in conclusions(prepared) if _is_wanted(each, statuses, tenants)]
    if output in {"json", "yaml"}:
        _print_data(console, source, prepared, shown, output)
    elif output == "name":
        for each in shown:
            console.print(each.video_id)
    else:
        filters = "".join(f" --status {each}" for each in statuses) + "".join(f" --tenant {each}" for each in tenants)
        _print_table(console, prepared, shown, filters, wide=output == "wide")
        if any(each.decision == "Recover" for each in shown):
            age = f" --age-minutes {age_minutes}" if age_minutes is not None else ""
            console.print(f"\nTo retry these videos, run:\n  {program_name()} retry{source.arguments}{age}")


def _validate_statuses(policy: Policy, statuses: Sequence[str]) -> None:
    known = policy.spec.stuck.statuses
    if unknown := [status for status in statuses if status not in known]:
        raise WrongUseError(
            f"--status {unknown[0]}: the policy does not count that as stuck; write {' or '.join(known)}, or add it to "
            "the policy's stuck.statuses"
        )


def _is_wanted(each: Conclusion, statuses: Sequence[str], tenants: Sequence[str]) -> bool:
    if not statuses and not tenants:
        return True
    video = each.video
    return (
        video is not None and (not statuses or video.status in statuses) and (not tenants or video.tenant_id in tenants)
    )


def _print_table(
    console: Console, prepared: PreparedScan, shown: Sequence[Conclusion], filters: str, *, wide: bool
) -> None:
    if not shown:
        console.print(("✓", GOOD), f" No stuck videos found{' with' + filters if filters else ''}!")
        return
    console.print(f"Found {len(shown)} stuck video(s):\n")
    columns = ["ID", "Name", "Status", "Age", "Tenant ID", "A scan would"]
    if wide:
        columns += ["Created", "Why"]
    console.table(columns, (_row(each, prepared, wide=wide) for each in shown), whole=["ID", "Status", "Age"])


def _row(each: Conclusion, prepared: PreparedScan, *, wide: bool) -> list[str | Text]:
    video = each.video
    about: list[str | Text] = (
        [video.name, video.status, ago(prepared.started - video.created_at), video.tenant_id or ""]
        if video is not None
        else [""] * 4
    )
    row = [each.video_id, *about, _verdict(each)]
    if wide:
        row += [f"{video.created_at:%Y-%m-%dT%H:%M:%SZ}" if video else "", each.message]
    return row


def _verdict(each: Conclusion) -> Text:
    if each.decision == "Recover":
        return Text(f"recover (attempt {each.attempt})", GOOD)
    return Text(f"{each.decision.lower()}: {each.reason}", BAD if each.decision == "Fail" else DIM)


def _print_data(
    console: Console, source: Source, prepared: PreparedScan, shown: Sequence[Conclusion], form: str
) -> None:
    policy = source.policy
    data = {
        "policy": {"namespace": policy.namespace, "name": policy.name},
        "found": len(shown),
        "videos": [_data(each, age=prepared.started - each.video.created_at if each.video else None) for each in shown],
    }
    text = json.dumps(data, indent=2, ensure_ascii=False) if form == "json" else yaml.safe_dump(data, sort_keys=False)
    console.print(text.rstrip())


def _data(each: Conclusion, *, age: timedelta | None) -> dict[str, object]:
    video = each.video
    return {
        "id": each.video_id,
        "name": video.name if video else None,
        "status": video.status if video else None,
        "createdAt": video.created_at.isoformat() if video else None,
        "ageSeconds": int(age.total_seconds()) if age is not None else None,
        "tenantId": video.tenant_id if video else None,
        "decision": each.decision,
        "reason": each.reason,
        "message": each.message,
        "attempt": each.attempt,
    }
