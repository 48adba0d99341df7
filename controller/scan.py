"""One scan, from top to bottom: read this first.

`run_scan` does the numbered steps of a scan in order. What it needs from outside comes through the protocols below; the
adapters behind them do the I/O, `controller.decisions` does the thinking, and `controller.reporting` turns the outcome
into a status. A scan ends with an outcome, also when a service fails: what was done until then stays counted.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Protocol

from controller.decisions import (
    Decision,
    Facts,
    Failure,
    FailureReason,
    Recover,
    Skip,
    SkipReason,
    decide,
    flow_run_objection,
)
from controller.errors import ScanError
from controller.flow_runs import Deployment, FlowRun, FlowRunIndex, Recoveries
from controller.policy import Policy
from controller.schedule import Order
from controller.videos import BadRow, Row, Video, is_stuck, read_rows, same_id, youngest_age

BATCH = 100
"""Recoveries that are created at once: the most that Prefect's bulk route takes."""


@dataclass(frozen=True, slots=True)
class Created:
    """Prefect's answer for one recovery: the run, or why there is none.

    Attributes:
        run_id: The flow run; `None` if Prefect refused.
        error: What it said then.
    """

    run_id: str | None
    error: str = ""


class VideoTable(Protocol):
    """The table of videos. Every method raises `ScanError` when Supabase does not do its part."""

    async def candidates(self, *, created_before: datetime, video_id: str | None) -> list[Row]:
        """All rows in a stuck status created before a time, oldest first, and those that have no such time."""

    async def still_stuck(self, video_ids: Sequence[str]) -> set[str]:
        """Those of the ids (in the form of `same_id`) whose rows are in a stuck status now."""


class FlowServer(Protocol):
    """Prefect. Every method raises `ScanError` when it does not do its part; no answer is ever cut short."""

    async def deployment(self) -> Deployment:
        """The policy's deployment, with what keeps it from running."""

    async def flow_runs(self, *, ended_since: datetime) -> list[FlowRun]:
        """Every active flow run, and those that ended since a time."""

    async def appeared(self) -> list[FlowRun]:
        """Every flow run, whatever its state, that appeared since `flow_runs` or since the last call of this."""

    async def recoveries(self, deployment: Deployment, video_ids: Sequence[str]) -> Recoveries:
        """The earlier recoveries of each video that has any."""

    def create(self, deployment: Deployment, batch: Sequence[Recover]) -> AsyncIterator[Created]:
        """Create the runs of at most `BATCH` decisions; an answer for each, in their order, as it comes."""


class Services(Protocol):
    """The way to the services of a policy."""

    def connect(self, policy: Policy) -> AbstractAsyncContextManager[tuple[VideoTable, FlowServer]]:
        """Read the policy's Secrets and make both clients; asks neither service yet."""


class Reporter(Protocol):
    """Whoever wants to know how a scan ended."""

    async def report(self, policy: Policy, outcome: "Outcome") -> None:
        """Take over an outcome, whether or not it has an error."""


class Stop(Protocol):
    """Tells a scan that it should end after its current batch."""

    def is_set(self) -> bool:
        """Whether to end now."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """A video for which a flow run was created."""

    video: Video
    attempt: int
    run_id: str

    @property
    def video_id(self) -> str:
        """The id of the video."""
        return self.video.id


Result = Recovered | Skip | Failure


@dataclass(slots=True)
class Outcome:
    """How a scan ended.

    Attributes:
        stuck: The stuck videos; `None` if Supabase could not tell. Rows that cannot be read are not among them.
        deployment: What Prefect said of it; `None` if it was not asked, or did not answer.
        results: What became of each video.
        error: What ended the scan early, if anything did.
    """

    order: Order
    started: datetime
    stuck: list[Video] | None = None
    deployment: Deployment | None = None
    results: list[Result] = field(default_factory=list)
    error: ScanError | None = None

    def undecided(self) -> list[Video]:
        """The stuck videos that have no result yet."""
        decided = {result.video_id for result in self.results}
        return [video for video in self.stuck or () if video.id not in decided]

    def forget(self, video: Video) -> None:
        """Take out a video that got going by itself during the scan: there is nothing to recover or to count."""
        self.stuck = [other for other in self.stuck or () if other is not video]


async def run_scan(
    policy: Policy, order: Order, services: Services, reporter: Reporter, *, now: datetime, stop: Stop
) -> Outcome:
    """Run one scan of a policy and report how it ended.

    Args:
        policy: A snapshot of the policy; a change of the resource during the scan changes nothing here.
        order: Why the scan runs, and whether it is narrowed to one video.
        services: Where the services come from.
        reporter: Who is told the outcome.
        now: The time of the scan, for every decision in it.
        stop: Set to end the scan after its current batch.
    """
    outcome = Outcome(order, now)
    try:
        # 1. Read the Secrets.
        async with services.connect(policy) as (table, server):
            # 2. Find the stuck videos. None: done, with one request.
            outcome.stuck, bad_rows = await _find_stuck(policy, table, order.video_id, now)
            outcome.results += [Failure(row.id, FailureReason.INVALID_ROW, row.problem) for row in bad_rows]
            if outcome.stuck:
                # 3. Ask for the deployment and whether anything would run its runs.
                outcome.deployment = await server.deployment()
                # 4. Index the flow runs; look up earlier recoveries of the videos that have none.
                facts = await _gather_facts(policy, server, outcome.deployment, outcome.stuck, now)
                # 5. Decide.
                decisions = decide(outcome.stuck, facts, policy.spec, now=now)
                outcome.results += [decision for decision in decisions if not isinstance(decision, Recover)]
                # 6. Create the recoveries, in batches, each after a second look.
                await _recover(_Recovering(policy, table, server, facts, outcome, now), decisions, stop)
    except ScanError as error:
        outcome.error = error
    outcome.results += [_interrupted(video) for video in outcome.undecided()]
    # 7. Write the status, the Events and the summary line.
    await reporter.report(policy, outcome)
    return outcome


async def _find_stuck(
    policy: Policy, table: VideoTable, video_id: str | None, now: datetime
) -> tuple[list[Video], list[BadRow]]:
    stuck = policy.spec.stuck
    rows = await table.candidates(created_before=now - youngest_age(stuck), video_id=video_id)
    videos, bad_rows = read_rows(rows, policy.spec.supabase.columns)
    return [video for video in videos if is_stuck(video, stuck, now=now)], bad_rows


async def _gather_facts(
    policy: Policy, server: FlowServer, deployment: Deployment, videos: list[Video], now: datetime
) -> Facts:
    index = FlowRunIndex(await server.flow_runs(ended_since=now - policy.spec.stuck.recent_run_window))
    idle = [video.id for video in videos if flow_run_objection(video, index, policy.spec, now=now) is None]
    recoveries = await server.recoveries(deployment, idle)
    # A recovery that somebody else created after the index was read is at work too.
    index.add(recovery.run for of_video in recoveries.values() for recovery in of_video)
    return Facts(index, recoveries, deployment)


@dataclass(frozen=True, slots=True)
class _Recovering:
    """What the batches of one scan have in common."""

    policy: Policy
    table: VideoTable
    server: FlowServer
    facts: Facts
    outcome: Outcome
    now: datetime


async def _recover(scan: _Recovering, decisions: list[Decision], stop: Stop) -> None:
    for batch in _batches([decision for decision in decisions if isinstance(decision, Recover)]):
        if stop.is_set():
            return
        await _recover_batch(scan, batch)


async def _recover_batch(scan: _Recovering, batch: list[Recover]) -> None:
    unanswered = await _second_look(scan, batch)
    if not unanswered:
        return
    try:
        async for answer in scan.server.create(scan.facts.deployment, tuple(unanswered)):
            scan.outcome.results.append(_result(unanswered.pop(0), answer))
    except ScanError as error:
        scan.outcome.results += [
            Failure(decision.video.id, FailureReason.NOT_CREATED, error.message) for decision in unanswered
        ]
        raise


async def _second_look(scan: _Recovering, batch: list[Recover]) -> list[Recover]:
    """Keep what is still to be recovered: the first look may be minutes old when a late batch has its turn."""
    still_stuck = await scan.table.still_stuck([decision.video.id for decision in batch])
    scan.facts.index.add(await scan.server.appeared())
    remaining: list[Recover] = []
    for decision in batch:
        objection = flow_run_objection(decision.video, scan.facts.index, scan.policy.spec, now=scan.now)
        if objection is not None:
            scan.outcome.results.append(objection)
        elif same_id(decision.video.id) in still_stuck:
            remaining.append(decision)
        else:
            scan.outcome.forget(decision.video)
    return remaining


def _interrupted(video: Video) -> Skip:
    return Skip(video, SkipReason.INTERRUPTED, "the scan ended before its turn; the next one takes it up")


def _result(decision: Recover, answer: Created) -> Result:
    if answer.run_id is None:
        return Failure(decision.video.id, FailureReason.REFUSED, answer.error)
    return Recovered(decision.video, decision.attempt, answer.run_id)


def _batches(decisions: list[Recover]) -> Iterator[list[Recover]]:
    remaining = iter(decisions)
    while batch := list(islice(remaining, BATCH)):
        yield batch
