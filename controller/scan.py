"""One scan, from top to bottom: read this first.

`run_scan` does the numbered steps of a scan in order. `prepare` finds out and decides, and changes nothing; `execute`
creates the recoveries; whoever called reports the outcome. What a scan needs from outside comes through the protocols
of `controller.ports`, and `controller.decisions` does the thinking. A scan ends with an outcome, also when a service
fails: what was done until then stays counted.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from more_itertools import chunked

from controller.api.manifest import Policy
from controller.api.policy import PolicySpec
from controller.decisions.checks import (
    CHEAP_CHECKS,
    FLOW_RUN_CHECKS,
    describe_abandoned,
    first_objection,
    heartbeats_wanted,
    passing,
    upload_path,
)
from controller.decisions.decide import decide
from controller.decisions.decision import Failure, FailureReason, Recover, Skip, SkipReason
from controller.decisions.facts import Facts
from controller.errors import ScanError
from controller.flow_runs import FlowRunIndex, Recoveries, StateType
from controller.outcome import Outcome, PreparedScan, Recovered, RecoverySnapshot, Result
from controller.ports import BATCH, Clients, CreatedRun, FlowServer, ObjectStore, Services, Stop, VideoTable
from controller.schedule import ScanRequest
from controller.videos import BadRow, UnusableValueError, Video, is_stuck, read_rows, same_id, youngest_age

HEARTBEAT_FRESH = timedelta(minutes=15)
"""A run that gave a sign of life within this time is at work: five of those that Prefect sends by default."""


async def run_scan(policy: Policy, request: ScanRequest, services: Services, *, now: datetime, stop: Stop) -> Outcome:
    """Run one scan of a policy; the caller reports how it ended.

    Args:
        policy: A snapshot of the policy; a change of the resource during the scan changes nothing here.
        request: Why the scan runs, and whether it is narrowed to some videos.
        services: Where the services come from.
        now: The time of the scan, for every decision in it.
        stop: Set to end the scan after its current batch.
    """
    try:
        # 1. Read the Secrets.
        async with services.connect(policy) as clients:
            # 2. to 7. Find out, and decide.
            prepared = await prepare(policy, request, clients, now=now)
            # 8. Create the recoveries.
            return await execute(prepared, clients, stop=stop)
    except ScanError as error:
        return Outcome(request, now, error=error)


async def prepare(policy: Policy, request: ScanRequest, clients: Clients, *, now: datetime) -> PreparedScan:
    """Find out what there is to know and decide about each stuck video; arguments as for `run_scan`.

    Changes nothing. If a service fails, what is known until then comes with the error.
    """
    prepared = PreparedScan(policy, request, now)
    try:
        # 2. Find the stuck videos. None: done, with one request.
        stuck, bad_rows = await _find_stuck(policy.spec, request, clients.table, now=now)
        failures = tuple(Failure(row.id, FailureReason.INVALID_ROW, row.problem) for row in bad_rows)
        prepared = replace(prepared, stuck=tuple(stuck), decisions=failures)
        if not stuck:
            return prepared
        # 3. Ask for the deployment and whether anything would run its runs.
        deployment = await clients.server.deployment()
        prepared = replace(prepared, deployment=deployment)
        # 4. Index the flow runs.
        since = (clients.server.clock or now).replace(microsecond=0)
        index = await _index_flow_runs(policy.spec, clients.server, now=now)
        facts = Facts(policy.spec, now, request, index, deployment)
        facts = await _look_for_heartbeats(facts, stuck, clients.server, since=since - HEARTBEAT_FRESH)
        # 5. Look up earlier recoveries.
        facts = await _look_up_recoveries(facts, stuck, clients.server)
        # 6. Check uploads.
        facts = await _check_uploads(facts, stuck, clients.store)
        # 7. Decide.
        snapshot = RecoverySnapshot(facts.recoveries, since)
        return replace(prepared, facts=facts, snapshot=snapshot, decisions=(*failures, *decide(stuck, facts)))
    except ScanError as error:
        return replace(prepared, error=error)


def _ignore(_result: Result) -> None:
    pass


async def execute(
    prepared: PreparedScan, clients: Clients, *, stop: Stop, on_result: Callable[[Result], None] = _ignore
) -> Outcome:
    """Create the recoveries of a prepared scan, in batches, each after a second look at its videos.

    Whatever happened since the decisions, however long ago they were, is seen by that second look.

    Args:
        prepared: The decisions.
        clients: Those with which the scan was prepared.
        stop: Set to end after the current batch.
        on_result: Told what became of a video to be recovered, as soon as that is known.
    """
    execution = _Execution(prepared, clients, on_result, list(prepared.left_alone))
    error = prepared.error
    try:
        await execution.run(stop)
    except ScanError as failed:
        error = failed
    return Outcome(
        prepared.request,
        prepared.started,
        execution.still_stuck,
        prepared.deployment,
        prepared.snapshot,
        execution.created_until,
        [*execution.results, *execution.interrupted()],
        error,
    )


# Steps 2 to 6: find out


async def _find_stuck(
    spec: PolicySpec, request: ScanRequest, table: VideoTable, *, now: datetime
) -> tuple[list[Video], list[BadRow]]:
    rows = await table.candidates(created_before=now - youngest_age(spec.stuck), video_ids=request.video_ids)
    videos, bad_rows = read_rows(rows, spec.supabase.columns)
    return [video for video in videos if is_stuck(video, spec.stuck, now=now)], bad_rows


async def _index_flow_runs(spec: PolicySpec, server: FlowServer, *, now: datetime) -> FlowRunIndex:
    return FlowRunIndex(await server.flow_runs(ended_since=now - spec.stuck.recent_run_window))


async def _look_for_heartbeats(facts: Facts, stuck: list[Video], server: FlowServer, *, since: datetime) -> Facts:
    wanted = heartbeats_wanted(stuck, facts)
    return replace(facts, alive=frozenset(await server.heartbeats(wanted, since=since))) if wanted else facts


async def _look_up_recoveries(facts: Facts, stuck: list[Video], server: FlowServer) -> Facts:
    flow_id = facts.deployment.flow_id
    indexed = {video.id: facts.index.recoveries_of(video.id, flow_id) for video in stuck}
    idle = passing(stuck, facts, FLOW_RUN_CHECKS)
    # Of a video at work the index may have them all.
    incomplete = [video_id for video_id, known in indexed.items() if not known or known[-1].attempt > len(known)]
    unknown = dict.fromkeys([video.id for video in idle] + incomplete)
    found = await server.recoveries(facts.deployment, list(unknown))
    recoveries: Recoveries = {**{video_id: known for video_id, known in indexed.items() if known}, **found}
    # A recovery that somebody else created after the index was read is at work too.
    index = facts.index.with_runs(recovery.run for of_video in found.values() for recovery in of_video)
    return replace(facts, index=index, recoveries=recoveries)


async def _check_uploads(facts: Facts, stuck: list[Video], store: ObjectStore | None) -> Facts:
    upload = facts.spec.upload
    if upload is None or store is None:
        return facts
    paths: list[str] = []
    for video in passing(stuck, facts, CHEAP_CHECKS):
        with suppress(UnusableValueError):  # the decision will say so
            paths.append(upload_path(video, upload))
    return replace(facts, uploaded=frozenset(await store.existing_files(paths))) if paths else facts


# Step 8: create


@dataclass(slots=True)
class _Execution:
    """The creation of one scan's recoveries, as it goes.

    Attributes:
        results: What became of each video so far.
        got_going: The ids of videos that left the stuck statuses by themselves: nothing to recover or to count.
        created_until: When the last of the recoveries was created; `None` while that is not known.
    """

    prepared: PreparedScan
    clients: Clients
    on_result: Callable[[Result], None]
    results: list[Result]
    got_going: set[str] = field(default_factory=set)
    created_until: datetime | None = None

    async def run(self, stop: Stop) -> None:
        """Create the recoveries, until all are or somebody wants to stop."""
        server, facts = self.clients.server, self.prepared.facts
        if facts is None:
            return
        for batch in chunked(self.prepared.recoveries, BATCH):
            async with server.creation_lock():
                if stop.is_set():
                    break
                facts, remaining = await self._revalidate(facts, batch)
                if any(decision.replaces for decision in remaining):
                    facts, stopped = await self._stop_abandoned(facts, remaining)
                    facts, remaining = await self._revalidate(facts, stopped)
                await self._create(facts, remaining)
        self.created_until = await self._created_until()

    async def _revalidate(self, facts: Facts, batch: list[Recover]) -> tuple[Facts, list[Recover]]:
        """Look a second time, and keep what is still to be recovered: the first look may be minutes old."""
        if not batch:
            return facts, []
        still_stuck = await self.clients.table.still_stuck([decision.video.id for decision in batch])
        facts = replace(facts, index=facts.index.with_runs(await self.clients.server.new_flow_runs()))
        remaining: list[Recover] = []
        for decision in batch:
            objection = first_objection(decision.video, facts, FLOW_RUN_CHECKS)
            if objection is not None:
                self._conclude(objection)
            elif same_id(decision.video.id) in still_stuck:
                remaining.append(decision)
            else:
                self.got_going.add(decision.video.id)
        return facts, remaining

    async def _stop_abandoned(self, facts: Facts, batch: list[Recover]) -> tuple[Facts, list[Recover]]:
        """Stop the abandoned flow runs of a batch, and keep the videos that none of them works on any more."""
        wanted = [run for decision in batch for run in decision.replaces]
        runs = {run.id: run for run in await self.clients.server.cancel(wanted)}
        # What has gone on or ended by itself in the last moment still speaks against a recovery; so says `_revalidate`.
        index = facts.index.without_runs(wanted)
        index = index.with_runs(run for run in runs.values() if run.state is not StateType.CANCELLED)
        facts = replace(facts, index=index)
        remaining: list[Recover] = []
        for decision in batch:
            after = (runs[run.id] for run in decision.replaces if run.id in runs)
            going_on = next((run for run in after if facts.is_abandoned(run)), None)
            if going_on is None:
                remaining.append(decision)
            else:
                detail = f"it was asked to stop; {describe_abandoned(going_on, now=facts.now)}"
                self._conclude(Skip(decision.video, SkipReason.ABANDONED_RUN, detail))
        return facts, remaining

    async def _create(self, facts: Facts, batch: Sequence[Recover]) -> None:
        if not batch:
            return
        unanswered = {decision.video.id: decision for decision in batch}
        try:
            async for created in self.clients.server.create(facts.deployment, batch):
                del unanswered[created.decision.video.id]
                self._conclude(_result(created))
        except ScanError as error:
            for video_id in unanswered:
                self._conclude(Failure(video_id, FailureReason.NOT_CREATED, error.message))
            raise

    def _conclude(self, result: Result) -> None:
        self.results.append(result)
        self.on_result(result)

    @property
    def still_stuck(self) -> Sequence[Video] | None:
        """The stuck videos, without those that got going by themselves meanwhile."""
        stuck = self.prepared.stuck
        return None if stuck is None else [video for video in stuck if video.id not in self.got_going]

    def interrupted(self) -> Iterable[Skip]:
        """A result for each stuck video that has none: the scan ended before its turn."""
        concluded = {result.video_id for result in self.results}
        detail = "the scan ended before its turn; the next one takes it up"
        remaining = (video for video in self.still_stuck or () if video.id not in concluded)
        return [Skip(video, SkipReason.INTERRUPTED, detail) for video in remaining]

    async def _created_until(self) -> datetime | None:
        # A batch that is sent again creates what was left out, after runs that stand behind it.
        last_batch = [result.run_id for result in self.results if isinstance(result, Recovered)][-BATCH:]
        if last_batch:
            with suppress(ScanError):  # the work is done
                return await self.clients.server.created_until(last_batch)
        return None


def _result(created: CreatedRun) -> Result:
    decision = created.decision
    if created.run_id is None:
        return Failure(decision.video.id, FailureReason.REFUSED, created.error)
    return Recovered(decision.video, decision.attempt, created.run_id, decision.released)
