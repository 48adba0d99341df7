"""`retry`: one scan, now, by the controller's own rules, beside the controller or without one."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click

from controller.api.manifest import Policy
from controller.cli.clock import read_clock
from controller.cli.commands.find import AGE
from controller.cli.console import BAD, DIM, GOOD, STRONG, Screen, counted
from controller.cli.options import Where, policy_options, run_async
from controller.cli.preview import describe_age, request_for, why_missing, with_age
from controller.cli.program import program_name
from controller.cli.progress import WatchedScan
from controller.cli.source import Source, open_source
from controller.decisions.decision import Skip, SkipReason
from controller.outcome import Outcome, Recovered
from controller.scan import run_scan
from controller.videos import same_id, shown

RULE = "=" * 60


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would be retried, and change nothing.")
@click.option(
    "--video-id", "video_ids", multiple=True, metavar="ID",
    help="Retry only this video, also from quarantine or back-off; repeatable.",
)  # fmt: skip
@AGE
@click.option("-y", "--yes", is_flag=True, help="Do not ask, however many there are.")
@policy_options
def retry(dry_run: bool, video_ids: tuple[str, ...], age_minutes: int | None, yes: bool, **where: Any) -> None:
    """Retry the stuck videos that a scan would recover, now.

    Runs one scan by the same rules and limits as the controller; beside a running controller too, since Prefect keeps
    one run for each attempt whoever asks for it. With --video-id only the named videos are looked at; that lifts their
    quarantine and back-off. On a terminal it asks before it retries more than a few. Ctrl-C ends it after the batch
    that is under way.

    Exit code: 0 if nothing failed, 1 if something did, 2 for wrong use, 130 after Ctrl-C.
    """
    run_async(_retry(Where(**where), tuple(dict.fromkeys(video_ids)), age_minutes, dry_run=dry_run, yes=yes))


async def _retry(
    where: Where, video_ids: tuple[str, ...], age_minutes: int | None, *, dry_run: bool, yes: bool
) -> None:
    screen = Screen()
    async with open_source(where) as source:
        screen.note(f"Settings: {source.said}")
        policy = with_age(source.policy, age_minutes)
        screen.say(f"Searching for stuck videos (age > {describe_age(policy.spec)})...\n")
        run = WatchedScan(screen, dry_run=dry_run, ask=not yes and screen.person_is_there)
        outcome = await _watch(source, policy, video_ids, run)
        unknown = await _tell_of_others(screen, source, policy, outcome) if outcome.error is None else 0
    _print_summary(screen, outcome, run, unknown)
    if outcome.error is not None:
        raise source.in_words(outcome.error)
    if run.stop.is_set():
        raise click.exceptions.Exit(130)
    if run.declined or unknown or any(not isinstance(each, Recovered | Skip) for each in outcome.results):
        raise click.exceptions.Exit(1)


async def _watch(source: Source, policy: Policy, video_ids: Sequence[str], run: WatchedScan) -> Outcome:
    try:
        with run.shown():
            request = request_for(source, video_ids)
            return await run_scan(policy, request, source.services, run, now=read_clock(), stop=run.stop)
    except asyncio.CancelledError:
        if not run.stop.is_set():
            raise
        # It was pressed twice. Prefect may still be at work on a batch; its keys are what keeps that safe.
        run.screen.say(
            "Ended in the middle of a batch. What Prefect creates of it is found by the next scan, not doubled."
        )
        raise click.exceptions.Exit(130) from None


async def _tell_of_others(screen: Screen, source: Source, policy: Policy, outcome: Outcome) -> int:
    """Say of each video that was named and has no result why; return how many there are not."""
    seen = {same_id(each.video_id) for each in outcome.results}
    left = [video_id for video_id in outcome.request.video_ids if same_id(video_id) not in seen]
    missing = await why_missing(source.services, policy, left) if left else {}
    for video_id, each in missing.items():
        if each.exists:
            screen.say(("✗", DIM), f" Skipping video {video_id}: {each.why}")
        else:
            advice = f"; see the ids that `{program_name()} find{source.arguments}` lists"
            screen.say(("✗", BAD), f" Video {shown(video_id)} {each.why}{advice}")
    return sum(not each.exists for each in missing.values())


def _print_summary(screen: Screen, outcome: Outcome, run: WatchedScan, unknown: int) -> None:
    kinds = Counter(type(each) for each in outcome.results)
    skips = [each for each in outcome.results if isinstance(each, Skip)]
    if run.dry_run or run.declined:
        skips = [each for each in skips if each.reason is not SkipReason.INTERRUPTED]
    failed = len(outcome.results) - kinds[Recovered] - kinds[Skip] + unknown
    reasons = counted(dict(Counter(str(each.reason) for each in skips)))
    failures = counted(
        dict(Counter(str(each.reason) for each in outcome.results if not isinstance(each, Recovered | Skip)))
    )
    if not outcome.results and not unknown:
        if outcome.error is None:
            screen.say(("✓", GOOD), " No stuck videos found!")
        return
    screen.say(("\n" + RULE + "\nRETRY SUMMARY\n" + RULE, STRONG))
    screen.say(f"Total videos found:     {len(outcome.results)}")
    if run.dry_run:
        screen.say(f"Would be triggered:     {kinds[Skip] - len(skips)}")
    else:
        screen.say(f"Successfully triggered: {kinds[Recovered]}")
    screen.say(f"Skipped:                {len(skips)}", f"  ({reasons})" if reasons else "")
    screen.say(f"Failed:                 {failed}", f"  ({failures})" if failures else "")
    if run.dry_run:
        screen.say("\n(DRY RUN: nothing was changed)")
    elif run.declined and not kinds[Recovered]:
        screen.say("\nNothing was triggered.")
    elif run.stop.is_set():
        screen.say("\nInterrupted; what is left waits for the next scan.")
