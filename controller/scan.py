"""One scan, from top to bottom: read this first.

`run_scan` does the numbered steps of a scan in order. What it needs from outside comes through the protocols of
`controller.ports`; `controller.decisions` does the thinking; `controller.reporting` turns the outcome into a status. A
scan ends with an outcome, also when a service fails: what was done until then stays counted.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from controller.api.manifest import Policy
from controller.decisions.checks import (
    CHEAP_CHECKS,
    FLOW_RUN_CHECKS,
    describe_abandoned,
    first_objection,
    heartbeats_wanted,
    is_abandoned,
    passing,
    upload_path,
)
from controller.decisions.decide import decide
from controller.decisions.decision import Decision, Failure, FailureReason, Recover, Skip, SkipReason
from controller.decisions.facts import Facts
from controller.errors import ScanError
from controller.flow_runs import Deployment, FlowRunIndex, Recoveries, StateType
from controller.outcome import Outcome, Recovered, RecoverySnapshot, Result
from controller.ports import BATCH, Clients, Created, FlowServer, Services, Stop
from controller.schedule import ScanRequest
from controller.videos import BadRow, UnusableValueError, Video, is_stuck, read_rows, same_id, youngest_age

HEARTBEAT_FRESH = timedelta(minutes=15)
"""A run that gave a sign of life within this time is at work: five of those that Prefect sends by default."""


class Reporter(ABC):
    """Whoever wants to know how a scan goes and how it ended."""

    async def approves(self, facts: Facts, decisions: Sequence[Decision]) -> bool:
        """See the decisions before the first is carried out; `False` carries none out.

        Whatever happens while somebody thinks it over is seen by the second look.
        """
        return True

    def concluded(self, result: Result) -> None:  # noqa: B027 - most only look at the end
        """See what became of a video, as soon as that is known."""

    @abstractmethod
    async def report(self, policy: Policy, outcome: Outcome) -> None:
        """Take over an outcome, whether or not it has an error."""


async def run_scan(
    policy: Policy, request: ScanRequest, services: Services, reporter: Reporter, *, now: datetime, stop: Stop
) -> Outcome:
    """Run one scan of a policy and report how it ended.

    Args:
        policy: A snapshot of the policy; a change of the resource during the scan changes nothing here.
        request: Why the scan runs, and whether it is narrowed to one video.
        services: Where the services come from.
        reporter: Who is told the outcome.
        now: The time of the scan, for every decision in it.
        stop: Set to end the scan after its current batch.
    """
    outcome = Outcome(request, now)
    try:
        # 1. Read the Secrets.
        async with services.connect(policy) as clients:
            # 2. Find the stuck videos. None: done, with one request.
            scan = _Scan(policy, clients, outcome, reporter, now)
            outcome.stuck, bad_rows = await _find_stuck(scan)
            scan.conclude(Failure(row.id, FailureReason.INVALID_ROW, row.problem) for row in bad_rows)
            if outcome.stuck:
                # 3. Ask for the deployment and whether anything would run its runs.
                outcome.deployment = await clients.server.deployment()
                # 4. Index the flow runs. 5. Look up earlier recoveries. 6. Check uploads.
                facts = await _gather_facts(scan, outcome.deployment, outcome.stuck)
                # 7. Decide.
                decisions = decide(outcome.stuck, facts, policy.spec, now=now)
                scan.conclude(decision for decision in decisions if not isinstance(decision, Recover))
                # 8. Create the recoveries, in batches, each after a second look.
                if await reporter.approves(facts, decisions):
                    await _recover(scan, facts, decisions, stop)
    except ScanError as error:
        outcome.error = error
    _conclude(outcome, reporter, [_interrupted(video) for video in outcome.undecided()])
    # 9. Write the status, the Events and the summary line.
    await reporter.report(policy, outcome)
    return outcome


@dataclass(frozen=True, slots=True)
class _Scan:
    """What the steps of one scan have in common."""

    policy: Policy
    clients: Clients
    outcome: Outcome
    reporter: Reporter
    now: datetime

    def conclude(self, results: Iterable[Result]) -> None:
        """Keep what became of some videos, and tell."""
        _conclude(self.outcome, self.reporter, results)


def _conclude(outcome: Outcome, reporter: Reporter, results: Iterable[Result]) -> None:
    for result in results:
        outcome.results.append(result)
        reporter.concluded(result)


async def _find_stuck(scan: _Scan) -> tuple[list[Video], list[BadRow]]:
    spec, now = scan.policy.spec, scan.now
    rows = await scan.clients.table.candidates(
        created_before=now - youngest_age(spec.stuck), video_ids=scan.outcome.request.video_ids
    )
    videos, bad_rows = read_rows(rows, spec.supabase.columns)
    return [video for video in videos if is_stuck(video, spec.stuck, now=now)], bad_rows


async def _gather_facts(scan: _Scan, deployment: Deployment, videos: list[Video]) -> Facts:
    spec, server, now = scan.policy.spec, scan.clients.server, scan.now
    since = (server.clock or now).replace(microsecond=0)
    index = FlowRunIndex(await server.flow_runs(ended_since=now - spec.stuck.recent_run_window))
    facts = Facts(scan.outcome.request, index, deployment)
    if old := heartbeats_wanted(videos, facts, spec, now=now):
        alive = await server.heartbeats(old, since=since - HEARTBEAT_FRESH)
        facts = replace(facts, alive=frozenset(alive))
    facts = replace(facts, recoveries=await _look_up_recoveries(server, facts, videos, scan))
    facts = replace(facts, uploaded=await _check_uploads(scan, facts, videos))
    scan.outcome.seen = RecoverySnapshot(facts.recoveries, since)
    return facts


async def _look_up_recoveries(server: FlowServer, facts: Facts, videos: list[Video], scan: _Scan) -> Recoveries:
    flow_id = facts.deployment.flow_id
    indexed = {video.id: facts.index.recoveries_of(video.id, flow_id) for video in videos}
    idle = passing(videos, facts, scan.policy.spec, now=scan.now, checks=FLOW_RUN_CHECKS)
    # Of a video at work the index may have them all.
    incomplete = [video_id for video_id, found in indexed.items() if not found or found[-1].attempt > len(found)]
    unknown = dict.fromkeys([video.id for video in idle] + incomplete)
    found = await server.recoveries(facts.deployment, list(unknown))
    # A recovery that somebody else created after the index was read is at work too.
    facts.index.add(recovery.run for of_video in found.values() for recovery in of_video)
    return {**{video_id: of_video for video_id, of_video in indexed.items() if of_video}, **found}


async def _check_uploads(scan: _Scan, facts: Facts, videos: list[Video]) -> frozenset[str]:
    spec, store = scan.policy.spec, scan.clients.store
    if spec.upload is None or store is None:
        return frozenset()
    paths: list[str] = []
    for video in passing(videos, facts, spec, now=scan.now, checks=CHEAP_CHECKS):
        try:
            paths.append(upload_path(video, spec.upload))
        except UnusableValueError:
            continue  # the decision will say so
    return frozenset(await store.complete(paths)) if paths else frozenset()


async def _recover(scan: _Scan, facts: Facts, decisions: list[Decision], stop: Stop) -> None:
    for batch in _batches([decision for decision in decisions if isinstance(decision, Recover)]):
        async with scan.clients.server.turn():
            if stop.is_set():
                break
            remaining = await _second_look(scan, facts, batch)
            if any(decision.replaces for decision in remaining):
                remaining = await _second_look(scan, facts, await _stop_abandoned(scan, facts, remaining))
            await _create(scan, facts, remaining)
    if scan.outcome.recovered:
        with suppress(ScanError):  # the work is done
            # A batch that is sent again creates what was left out, after runs that stand behind it.
            last_batch = [recovered.run_id for recovered in scan.outcome.recovered[-BATCH:]]
            scan.outcome.created_until = await scan.clients.server.created_until(last_batch)


async def _second_look(scan: _Scan, facts: Facts, batch: list[Recover]) -> list[Recover]:
    """Keep what is still to be recovered: the first look may be minutes old when a late batch has its turn."""
    if not batch:
        return []
    still_stuck = await scan.clients.table.still_stuck([decision.video.id for decision in batch])
    facts.index.add(await scan.clients.server.appeared())
    remaining: list[Recover] = []
    for decision in batch:
        objection = first_objection(decision.video, facts, scan.policy.spec, now=scan.now, checks=FLOW_RUN_CHECKS)
        if objection is not None:
            scan.conclude([objection])
        elif same_id(decision.video.id) in still_stuck:
            remaining.append(decision)
        else:
            scan.outcome.forget(decision.video)
    return remaining


async def _stop_abandoned(scan: _Scan, facts: Facts, batch: list[Recover]) -> list[Recover]:
    """Stop the abandoned flow runs of a batch, and keep the videos that none of them works on any more."""
    wanted = [run for decision in batch for run in decision.replaces]
    runs = {run.id: run for run in await scan.clients.server.cancel(wanted)}
    # What has gone on or ended by itself in the last moment still speaks against a recovery; the second look says so.
    facts.index.remove(wanted)
    facts.index.add(run for run in runs.values() if run.state is not StateType.CANCELLED)
    remaining: list[Recover] = []
    for decision in batch:
        after = (runs[run.id] for run in decision.replaces if run.id in runs)
        going_on = next((run for run in after if is_abandoned(run, facts, scan.policy.spec, now=scan.now)), None)
        if going_on is None:
            remaining.append(decision)
        else:
            detail = f"it was asked to stop; {describe_abandoned(going_on, scan.now)}"
            scan.conclude([Skip(decision.video, SkipReason.ABANDONED_RUN, detail)])
    return remaining


async def _create(scan: _Scan, facts: Facts, unanswered: list[Recover]) -> None:
    if not unanswered:
        return
    try:
        async for answer in scan.clients.server.create(facts.deployment, tuple(unanswered)):
            scan.conclude([_result(unanswered.pop(0), answer)])
    except ScanError as error:
        scan.conclude(Failure(decision.video.id, FailureReason.NOT_CREATED, error.message) for decision in unanswered)
        raise


def _interrupted(video: Video) -> Skip:
    return Skip(video, SkipReason.INTERRUPTED, "the scan ended before its turn; the next one takes it up")


def _result(decision: Recover, answer: Created) -> Result:
    if answer.run_id is None:
        return Failure(decision.video.id, FailureReason.REFUSED, answer.error)
    return Recovered(decision.video, decision.attempt, answer.run_id, decision.released)


def _batches(decisions: list[Recover]) -> Iterator[list[Recover]]:
    remaining = iter(decisions)
    while batch := list(islice(remaining, BATCH)):
        yield batch
