"""`retry`: one scan, now, by the controller's own rules, beside the controller or without one."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from controller.checks import Facts
from controller.cli.find import AGE
from controller.cli.looking import describe_age, name_of, order_for, read_clock, why_missing, with_age
from controller.cli.options import Where, policy_options, run_async
from controller.cli.program import program_name
from controller.cli.screen import BAD, DIM, GOOD, STRONG, Screen, ago, counted
from controller.cli.source import Source, open_source
from controller.decisions import Decision, Recover, Skip, SkipReason
from controller.outcome import Outcome, Recovered, Result
from controller.policy import Policy
from controller.scan import Reporter, run_scan
from controller.videos import same_id, shown

A_FEW = 3
"""More videos than this are retried only after a person has said so, where one is there."""

LISTED = 10
"""Videos that are listed before a person is asked."""

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
        run = _Run(screen, dry_run=dry_run, ask=not yes and screen.person_is_there)
        with run.shown():
            order = order_for(source, video_ids)
            outcome = await run_scan(policy, order, source.services, run, now=read_clock(), stop=run.stop)
        unknown = await _tell_of_others(screen, source, policy, outcome) if outcome.error is None else 0
    _print_summary(screen, outcome, run, unknown)
    if outcome.error is not None:
        raise source.in_words(outcome.error)
    if run.stop.is_set():
        raise click.exceptions.Exit(130)
    if run.declined or unknown or any(not isinstance(each, Recovered | Skip) for each in outcome.results):
        raise click.exceptions.Exit(1)


@dataclass
class _Run(Reporter):
    """Shows a scan as it goes; asks before it acts; ends it in good order."""

    screen: Screen
    dry_run: bool
    ask: bool
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    declined: bool = False
    told: bool = False
    early: list[Result] = field(default_factory=list)
    progress: Progress | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """A sign of life until the decisions are made, then a bar."""
        self.waiting = self.screen.waiting("Asking Supabase and Prefect")
        self.waiting.start()
        try:
            yield
        finally:
            self._rest()
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)

    async def approves(self, facts: Facts, decisions: Sequence[Decision]) -> bool:
        """See `controller.scan.Reporter`."""
        self._rest()
        wanted = [decision for decision in decisions if isinstance(decision, Recover)]
        self._begin(len(self.early) + len(wanted))
        if self.dry_run:
            for each in wanted:
                self.screen.say(("✓", GOOD), f" Would trigger a flow run for video {each.video.id}", *_name(each.video))
            return False
        if self.ask and len(wanted) > A_FEW and not self._person_agrees(wanted, read_clock()):
            self.declined = True
            return False
        if wanted:
            self._watch(len(wanted))
        return True

    def _begin(self, found: int) -> None:
        self.told = True
        self.screen.say(f"Found {found} stuck video(s)\n")
        if self.dry_run:
            self.screen.say("[DRY RUN: no flow run is triggered]\n")
        for result in self.early:
            self._show(result)

    def _person_agrees(self, wanted: Sequence[Recover], now: datetime) -> bool:
        for each in wanted[:LISTED]:
            age = ago(now - each.video.created_at)
            self.screen.say(
                f"• {each.video.id}  {each.video.status}, {age}, attempt {each.attempt}", *_name(each.video)
            )
        if len(wanted) > LISTED:
            self.screen.say((f"• and {len(wanted) - LISTED} more", DIM))
        # While a person thinks, Ctrl-C has to reach the prompt; nothing else is going on.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return click.confirm(f"\nTrigger {len(wanted)} flow runs?", default=False)
        except click.Abort:
            self.screen.say("")
            self.stop.set()
            return False
        finally:
            signal.signal(signal.SIGINT, before)

    def _watch(self, count: int) -> None:
        """From now on something could be half done: Ctrl-C ends the scan after its batch."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupt)
        if self.screen.out.is_terminal and count > A_FEW:
            columns = (TextColumn("Triggering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.progress = Progress(*columns, console=self.screen.out, transient=True)
            self.progress.add_task("", total=count)
            self.progress.start()

    def _interrupt(self) -> None:
        self.screen.note("Ctrl-C: the batch under way is finished, then it ends")
        self.stop.set()

    def concluded(self, result: Result) -> None:
        """See `controller.scan.Reporter`."""
        if not self.told:
            self.early.append(result)
            return
        if self.progress is not None:
            self.progress.advance(self.progress.task_ids[0])
        self._show(result)

    def _show(self, result: Result) -> None:
        if isinstance(result, Recovered):
            text = f" Triggered flow run {result.run_id} for video {result.video_id}"
            self.screen.say(("✓", GOOD), text, *_name(result.video))
        elif isinstance(result, Skip):
            if result.reason is not SkipReason.INTERRUPTED:
                reason = (f" Skipping video {result.video_id}: {result.reason}", "")
                self.screen.say(("✗", DIM), reason, (f" ({result.detail})", DIM), *_name(result.video))
        else:
            text = f" Failed to trigger flow for video {result.video_id}: {result.reason}"
            self.screen.say(("✗", BAD), text, f" ({result.detail})")

    async def report(self, policy: Policy, outcome: Outcome) -> None:
        """See `controller.scan.Reporter`."""
        self._rest()
        if not self.told and outcome.results:
            self._begin(len(outcome.results))

    def _rest(self) -> None:
        self.waiting.stop()
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


def _name(video: Any) -> list[tuple[str, str]]:
    return [(f"  {name_of(video)}", DIM)] if video is not None and video.name else []


async def _tell_of_others(screen: Screen, source: Source, policy: Policy, outcome: Outcome) -> int:
    """Say of each video that was named and has no result why; return how many there are not."""
    seen = {same_id(each.video_id) for each in outcome.results}
    left = [video_id for video_id in outcome.order.video_ids if same_id(video_id) not in seen]
    missing = await why_missing(source.services, policy, left) if left else {}
    for video_id, each in missing.items():
        if each.exists:
            screen.say(("✗", DIM), f" Skipping video {video_id}: {each.why}")
        else:
            advice = f"; see the ids that `{program_name()} find{source.arguments}` lists"
            screen.say(("✗", BAD), f" Video {shown(video_id)} {each.why}{advice}")
    return sum(not each.exists for each in missing.values())


def _print_summary(screen: Screen, outcome: Outcome, run: _Run, unknown: int) -> None:
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
