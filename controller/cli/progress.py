"""What a person sees of a retry: its decisions, a question before it acts, a line a video, a bar, and Ctrl-C."""

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from controller.cli.console import BAD, DIM, GOOD, Console, ago
from controller.decisions.decision import Recover, Skip
from controller.outcome import PreparedScan, Recovered, Result
from controller.videos import Video

A_FEW = 3
"""More videos than this are retried only after a person has said so, where one is there."""

LISTED = 10
"""Videos that are listed before a person is asked."""


@dataclass(slots=True)
class RetryProgress:
    """Shows a retry as it goes, and ends it in good order.

    Attributes:
        stop: Set once somebody has pressed Ctrl-C; the batch under way is finished.
    """

    console: Console
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    bar: Progress | None = None

    def show_decisions(self, prepared: PreparedScan, *, dry_run: bool) -> None:
        """Write how many videos were found, and which of them are left alone and why."""
        if not prepared.stuck and not prepared.decisions:
            return
        found = (
            len(prepared.decisions) if prepared.error is None else len(prepared.stuck or ()) + len(prepared.decisions)
        )
        self.console.print(f"Found {found} stuck video(s)\n")
        if dry_run:
            self.console.print("[DRY RUN: no flow run is triggered]\n")
        for decision in prepared.left_alone:
            self._show(decision)
        if dry_run:
            for recovery in prepared.recoveries:
                text = f" Would trigger a flow run for video {recovery.video.id}"
                self.console.print(("✓", GOOD), text, *name_beside(recovery.video))

    def ask(self, wanted: Sequence[Recover], *, now: datetime) -> bool:
        """Ask a person whether to go on; no means no, and so does Ctrl-C, which sets `stop`."""
        for each in wanted[:LISTED]:
            age = ago(now - each.video.created_at)
            text = f"• {each.video.id}  {each.video.status}, {age}, attempt {each.attempt}"
            self.console.print(text, *name_beside(each.video))
        if len(wanted) > LISTED:
            self.console.print((f"• and {len(wanted) - LISTED} more", DIM))
        try:
            return click.confirm(f"\nTrigger {len(wanted)} flow runs?", default=False)
        except click.Abort:
            self.console.print("")
            self.stop.set()
            return False

    @contextmanager
    def shown(self, count: int) -> Iterator[None]:
        """A bar while so many recoveries are created; Ctrl-C ends that after the batch, a second one at once."""
        # From now on something could be half done.
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupt, asyncio.current_task())
        if self.console.out.is_terminal and count > A_FEW:
            columns = (TextColumn("Triggering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, console=self.console.out, transient=True)
            self.bar.add_task("", total=count)
            self.bar.start()
        try:
            yield
        finally:
            if self.bar is not None:
                self.bar.stop()
                self.bar = None
            loop.remove_signal_handler(signal.SIGINT)

    def _interrupt(self, execution: "asyncio.Task[object] | None") -> None:
        if not self.stop.is_set():
            self.console.note("Ctrl-C: the batch under way is finished, then it ends; press it again to end at once")
            self.stop.set()
        elif execution is not None:
            execution.cancel()

    def on_result(self, result: Result) -> None:
        """Write what became of a video, and move the bar."""
        if self.bar is not None:
            self.bar.advance(self.bar.task_ids[0])
        self._show(result)

    def _show(self, result: Result) -> None:
        if isinstance(result, Recovered):
            text = f" Triggered flow run {result.run_id} for video {result.video_id}"
            self.console.print(("✓", GOOD), text, *name_beside(result.video))
        elif isinstance(result, Skip):
            reason = (f" Skipping video {result.video_id}: {result.reason}", "")
            self.console.print(("✗", DIM), reason, (f" ({result.detail})", DIM), *name_beside(result.video))
        else:
            text = f" Failed to trigger flow for video {result.video_id}: {result.reason}"
            self.console.print(("✗", BAD), text, f" ({result.detail})")


def name_beside(video: Video) -> list[tuple[str, str]]:
    """A video's name as the end of a line, if it has one."""
    return [(f"  {video.name}", DIM)] if video.name else []
