"""A scan that a person watches: a line a video as it happens, a question before it acts, a bar, and Ctrl-C."""

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from controller.api.manifest import Policy
from controller.cli.clock import read_clock
from controller.cli.console import BAD, DIM, GOOD, Screen, ago
from controller.decisions.decision import Decision, Recover, Skip, SkipReason
from controller.decisions.facts import Facts
from controller.outcome import Outcome, Recovered, Result
from controller.scan import Reporter
from controller.videos import Video

A_FEW = 3
"""More videos than this are retried only after a person has said so, where one is there."""

LISTED = 10
"""Videos that are listed before a person is asked."""


@dataclass
class WatchedScan(Reporter):
    """Shows a scan as it goes; asks before it acts; ends it in good order.

    Attributes:
        dry_run: Whether nothing is to be carried out.
        ask: Whether a person is there to be asked before more than a few are.
        stop: Set once somebody has pressed Ctrl-C.
        declined: Whether the person said no.
    """

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
                self.screen.say(
                    ("✓", GOOD), f" Would trigger a flow run for video {each.video.id}", *name_beside(each.video)
                )
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
                f"• {each.video.id}  {each.video.status}, {age}, attempt {each.attempt}", *name_beside(each.video)
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
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupt, asyncio.current_task())
        if self.screen.out.is_terminal and count > A_FEW:
            columns = (TextColumn("Triggering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.progress = Progress(*columns, console=self.screen.out, transient=True)
            self.progress.add_task("", total=count)
            self.progress.start()

    def _interrupt(self, scan: "asyncio.Task[Any] | None") -> None:
        if not self.stop.is_set():
            self.screen.note("Ctrl-C: the batch under way is finished, then it ends; press it again to end at once")
            self.stop.set()
        elif scan is not None:
            scan.cancel()

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
            self.screen.say(("✓", GOOD), text, *name_beside(result.video))
        elif isinstance(result, Skip):
            if result.reason is not SkipReason.INTERRUPTED:
                reason = (f" Skipping video {result.video_id}: {result.reason}", "")
                self.screen.say(("✗", DIM), reason, (f" ({result.detail})", DIM), *name_beside(result.video))
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


def name_beside(video: Video) -> list[tuple[str, str]]:
    """A video's name as the end of a line, if it has one."""
    return [(f"  {video.name}", DIM)] if video.name else []
