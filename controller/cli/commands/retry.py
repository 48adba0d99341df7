"""`retry`: one scan, now, by the controller's own rules, beside the controller or without one."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Self

import click

from controller.cli.clock import read_clock
from controller.cli.console import BAD, DIM, GOOD, STRONG, Console, format_counts
from controller.cli.options import Where, age_option, open_runner, policy_options
from controller.cli.preview import Missing, describe_age, explain_missing, request_for, with_age
from controller.cli.program import program_name
from controller.cli.progress import A_FEW, RetryProgress
from controller.cli.source import Source, open_source
from controller.decisions.decision import Failure, Skip
from controller.outcome import Outcome, PreparedScan, Recovered
from controller.ports import Clients
from controller.scan import execute, prepare
from controller.videos import same_id, shown

RULE = "=" * 60


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would be retried, and change nothing.")
@click.option(
    "--video-id", "video_ids", multiple=True, metavar="ID",
    help="Retry only this video, also from quarantine or back-off; repeatable.",
)  # fmt: skip
@age_option
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
    with open_runner() as runner:
        _retry(runner, Where(**where), tuple(dict.fromkeys(video_ids)), age_minutes, dry_run=dry_run, yes=yes)


@dataclass(frozen=True, slots=True)
class _Session:
    """A retry whose decisions are made."""

    source: Source
    clients: Clients
    prepared: PreparedScan


def _retry(
    runner: asyncio.Runner,
    where: Where,
    video_ids: tuple[str, ...],
    age_minutes: int | None,
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    console, stack = Console(), AsyncExitStack()
    progress = RetryProgress(console)
    try:
        session = runner.run(_prepare(stack, console, where, video_ids, age_minutes))
        prepared = session.prepared
        progress.show_decisions(prepared, dry_run=dry_run)
        # The question comes between two runs of the loop: nothing else goes on meanwhile, and Ctrl-C ends it.
        must_ask = not (dry_run or yes) and console.is_interactive and len(prepared.recoveries) > A_FEW
        goes_on = not dry_run and (not must_ask or progress.ask(prepared.recoveries, now=read_clock()))
        outcome = runner.run(_execute(session, progress)) if goes_on else None
        summary = _Summary.of(prepared, outcome, dry_run=dry_run, is_interrupted=progress.stop.is_set())
        error = outcome.error if outcome is not None else prepared.error
        missing = runner.run(_explain_others(session, summary.seen)) if error is None else {}
    finally:
        runner.run(stack.aclose())
    _print_missing(console, session.source, missing)
    unknown = sum(not each.exists for each in missing.values())
    if error is None or outcome is not None:  # of a dry run that failed nothing is known
        _print_summary(console, summary, unknown=unknown, is_named=bool(missing), is_failed=error is not None)
    if error is not None:
        raise session.source.in_words(error)
    if progress.stop.is_set():
        raise click.exceptions.Exit(130)
    if summary.not_triggered or unknown or summary.failures:
        raise click.exceptions.Exit(1)


async def _prepare(
    stack: AsyncExitStack, console: Console, where: Where, video_ids: Sequence[str], age_minutes: int | None
) -> _Session:
    source = await stack.enter_async_context(open_source(where))
    console.note(f"Settings: {source.description}")
    policy = with_age(source.policy, age_minutes)
    console.print(f"Searching for stuck videos (age > {describe_age(policy.spec)})...\n")
    with console.spinner("Asking Supabase and Prefect"):
        clients = await stack.enter_async_context(source.connect(policy))
        prepared = await prepare(policy, request_for(source, video_ids), clients, now=read_clock())
    return _Session(source, clients, prepared)


async def _execute(session: _Session, progress: RetryProgress) -> Outcome:
    prepared = session.prepared
    try:
        with progress.shown(len(prepared.recoveries)):
            return await execute(prepared, session.clients, stop=progress.stop, on_result=progress.on_result)
    except asyncio.CancelledError:
        if not progress.stop.is_set():
            raise
        # It was pressed twice. Prefect may still be at work on a batch; its keys are what keeps that safe.
        progress.console.print(
            "Ended in the middle of a batch. What Prefect creates of it is found by the next scan, not doubled."
        )
        raise click.exceptions.Exit(130) from None


async def _explain_others(session: _Session, seen: Set[str]) -> dict[str, Missing]:
    """Why the scan has nothing about videos that were named."""
    left = [each for each in session.prepared.request.video_ids if same_id(each) not in seen]
    return await explain_missing(session.clients, session.prepared.policy, left)


def _print_missing(console: Console, source: Source, missing: Mapping[str, Missing]) -> None:
    for video_id, each in missing.items():
        if each.exists:
            console.print(("✗", DIM), f" Skipping video {video_id}: {each.why}")
        else:
            advice = f"; see the ids that `{program_name()} find{source.arguments}` lists"
            console.print(("✗", BAD), f" Video {shown(video_id)} {each.why}{advice}")


@dataclass(frozen=True, slots=True)
class _Summary:
    """A retry in numbers; they add up to `found`.

    Attributes:
        title: What the recoveries are called.
        not_triggered: Recoveries that a person did not want.
        seen: The ids of all videos that were found, in the form of `same_id`.
        end: What the last line says, if there is one.
    """

    found: int
    title: str
    recovered: int
    not_triggered: int
    skips: Mapping[str, int]
    failures: Mapping[str, int]
    seen: Set[str]
    end: str = ""

    @classmethod
    def of(cls, prepared: PreparedScan, outcome: Outcome | None, *, dry_run: bool, is_interrupted: bool) -> Self:
        results = outcome.results if outcome is not None else prepared.left_alone
        wanted = prepared.recoveries if outcome is None else []
        recovered = len(wanted) if dry_run else sum(isinstance(each, Recovered) for each in results)
        end = ""
        if dry_run:
            end = "\n(DRY RUN: nothing was changed)"
        elif wanted:
            end = "\nNothing was triggered."
        elif is_interrupted:
            end = "\nInterrupted; what is left waits for the next scan."
        return cls(
            len(results) + len(wanted),
            "Would be triggered:     " if dry_run else "Successfully triggered: ",
            recovered,
            0 if dry_run else len(wanted),
            Counter(str(each.reason) for each in results if isinstance(each, Skip)),
            Counter(str(each.reason) for each in results if isinstance(each, Failure)),
            {same_id(each.video_id) for each in results} | {same_id(each.video.id) for each in wanted},
            end,
        )


def _print_summary(console: Console, summary: _Summary, *, unknown: int, is_named: bool, is_failed: bool) -> None:
    if not summary.found and not unknown:
        if not is_failed:
            text = "\nNothing to retry." if is_named else " No stuck videos found!"
            console.print(*([] if is_named else [("✓", GOOD)]), text)
        return
    skips, failures = format_counts(dict(summary.skips)), format_counts(dict(summary.failures))
    console.print(("\n" + RULE + "\nRETRY SUMMARY\n" + RULE, STRONG))
    console.print(f"Total videos found:     {summary.found}")
    console.print(f"{summary.title}{summary.recovered}")
    if summary.not_triggered:
        console.print(f"Not triggered:          {summary.not_triggered}")
    console.print(f"Skipped:                {sum(summary.skips.values())}", f"  ({skips})" if skips else "")
    console.print(
        f"Failed:                 {sum(summary.failures.values()) + unknown}", f"  ({failures})" if failures else ""
    )
    if summary.end:
        console.print(summary.end)
