"""`explain`: every check for one video, in order, with what it saw. It tells why a video was not retried."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import click

from controller.api.status import ConditionType
from controller.cli.clock import read_clock
from controller.cli.console import BAD, DIM, GOOD, STRONG, Console
from controller.cli.errors import Failed
from controller.cli.options import Where, policy_options, run_async
from controller.cli.preview import Conclusion, conclusions, request_for
from controller.cli.program import program_name
from controller.cli.source import Source, open_source
from controller.decisions.checks import upload_path
from controller.decisions.explain import Step, explain_checks, explain_row
from controller.decisions.facts import Facts
from controller.ports import Clients
from controller.scan import prepare
from controller.videos import Row, UnusableValueError, Video, same_id, shown


@click.command()
@click.option("--video-id", required=True, metavar="ID", help="The video.")
@policy_options
def explain(video_id: str, **where: Any) -> None:
    """Explain what a scan would do with one video, and why.

    Shows every check in the order in which they take precedence, with what it saw; also those that a scan does not
    reach because an earlier one objects. The last line is the decision of a whole scan at this moment, limits included.
    Nothing is changed.

    Exit code: 0 whatever the decision is, 1 if the video does not exist or a service does not answer.
    """
    run_async(_explain(Where(**where), video_id))


async def _explain(where: Where, video_id: str) -> None:
    console = Console()
    async with open_source(where) as source:
        console.note(f"Settings: {source.description}")
        with console.spinner("Asking Supabase and Prefect"):
            async with source.connect(source.policy) as clients:
                row = await _row(source, clients, video_id)
                steps, video = explain_row(row, source.policy.spec, now=read_clock())
                conclusion = None
                if video is not None:
                    more, conclusion = await _scan_for(source, clients, video)
                    steps += more
    _print_heading(console, video_id, row, source)
    for step in steps:
        _print_step(console, step)
    _print_verdict(console, source, video_id, steps, conclusion)


async def _row(source: Source, clients: Clients, video_id: str) -> Row:
    row = await clients.table.row(video_id)
    if row is None:
        at = source.policy.spec.supabase
        raise Failed(
            f"table {at.schema_name}.{at.table} has no video {shown(video_id)}",
            f"`{program_name()} find{source.arguments} -o name` lists the ids of the stuck ones",
        )
    return row


async def _scan_for(source: Source, clients: Clients, video: Video) -> tuple[list[Step], Conclusion | None]:
    """The checks of a stuck video, and what a scan of all videos concludes for it."""
    scan = prepare(source.policy, request_for(source), clients, now=read_clock())
    prepared = source.checked(await scan)
    conclusion = next((each for each in conclusions(prepared) if same_id(each.video_id) == same_id(video.id)), None)
    if prepared.facts is None:
        return [], conclusion
    return explain_checks(video, await _all_facts(clients, prepared.facts, video)), conclusion


async def _all_facts(clients: Clients, facts: Facts, video: Video) -> Facts:
    """What a scan does not ask for a video to which something cheaper objects."""
    recoveries = await clients.server.recoveries(facts.deployment, [video.id])
    uploaded: set[str] = set()
    if facts.spec.upload is not None and clients.store is not None:
        with suppress(UnusableValueError):  # the step says so
            uploaded = await clients.store.existing_files([upload_path(video, facts.spec.upload)])
    return replace(facts, recoveries={**facts.recoveries, **recoveries}, uploaded=facts.uploaded | uploaded)


def _print_heading(console: Console, video_id: str, row: Row, source: Source) -> None:
    columns = source.policy.spec.supabase.columns
    name = shown(row.get(columns.name)) if columns.name and row.get(columns.name) is not None else ""
    tenant = row.get(columns.tenant_id) if columns.tenant_id else None
    console.print(
        (f"Video {shown(video_id)}", STRONG), f"  {name}", (f"  of tenant {shown(tenant)}" if tenant else "", DIM)
    )
    console.print("")


def _print_step(console: Console, step: Step) -> None:
    mark, style = ("✓", GOOD) if step.passed else ("✗", BAD)
    console.print(
        (mark, style), f" {step.title:<42}", (f"{step.reason}: " if step.reason else "", STRONG), (step.saw, DIM)
    )
    if step.meaning:
        console.print((f"  {step.meaning}", DIM))


def _print_verdict(
    console: Console, source: Source, video_id: str, steps: list[Step], conclusion: Conclusion | None
) -> None:
    console.print("")
    if conclusion is not None and conclusion.decision == "Recover":
        console.print(("A scan would recover it: ", GOOD), conclusion.message)
        for obstacle in _scan_obstacles(source):
            console.print(("But ", BAD), obstacle)
        console.print(f"\nTo retry it now, run:\n  {program_name()} retry{source.arguments} --video-id {video_id}")
    elif conclusion is not None:
        console.print((f"A scan would leave it alone: {conclusion.reason}", STRONG), f" ({conclusion.message})")
    elif all(step.passed for step in steps):
        console.print("It got going just now: a scan would not find it any more.")
    else:
        failed = next(step for step in steps if not step.passed)
        console.print(("It is not stuck, so no scan looks at it: ", STRONG), failed.saw)


def _scan_obstacles(source: Source) -> Iterator[str]:
    """What may be the matter where nothing is with the video."""
    if source.policy.spec.suspend:
        yield f"the policy is suspended, so only requested scans run; {program_name()} resume{source.arguments}"
    ready = source.status.condition(ConditionType.READY)
    if ready is not None and ready.status == "False":
        yield f"the policy is not ready: {ready.reason}: {ready.message}"
    if source.policy.generation and source.status.last_scan is None:
        yield f"no controller has scanned yet; {program_name()} doctor{source.arguments}"
