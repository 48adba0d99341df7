"""Supabase and Prefect over time, in memory: videos come and go, flow runs start, end and hang, and clocks run.

Unlike a `World` it remembers what a scan created and stopped, and it refuses to let a scan break the one rule that no
mistake may break: two active runs of one video.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from controller.api.manifest import Policy
from controller.api.status import PolicyStatus
from controller.decisions.decision import Recover
from controller.errors import ScanError
from controller.flow_runs import (
    RELEASED,
    Deployment,
    FlowRun,
    Recoveries,
    Recovery,
    StateType,
    attempt_of,
    idempotency_key,
    is_recovery,
)
from controller.outcome import Outcome
from controller.ports import Clients, CreatedRun
from controller.reporting.conditions import Findings
from controller.reporting.status import after_check, after_scan, newly_quarantined
from controller.scan import run_scan
from controller.schedule import Plan, ScanRequest, Trigger
from controller.videos import Row, same_id
from tests.unit.fakes import DEPLOYMENT, NOW, STATUS_SCHEMA, violations

NO_WORKER = replace(DEPLOYMENT, not_ready="no worker polls work pool 'p'; start one", not_ready_reason="NoWorkerReady")
FLOW = DEPLOYMENT.flow_id

QUESTION = timedelta(seconds=1, milliseconds=130)
"""How long an answer takes: no whole seconds, in which Prefect tells its time and a status keeps it."""


class KilledError(Exception):
    """The controller died before it could do anything about it."""


@dataclass
class Simulator:
    """The services; each question to them takes `QUESTION`.

    Attributes:
        skew: How far Prefect's clock is ahead of everybody else's.
        runs: All flow runs by id, in the order of their creation.
        by_video: The ids of the runs that work or worked on a video.
        appeared: The ids of runs in the order in which they became active, also once more.
        files: The paths at which the bucket has a whole file.
        beating: The runs that give signs of life.
        stubborn: The runs that do not stop.
        ready: Whether a worker is there.
        bulk: Whether Prefect has the bulk route; an older server creates runs one by one.
        happens: What happens at the n-th question from now (0 is the next one), just before it is answered.
        had_appeared: How many runs had appeared at each of the last two questions.
        writes: Every creation and every stop, in order.
    """

    now: datetime = NOW
    skew: timedelta = timedelta(0)
    rows: dict[str, dict[str, object]] = field(default_factory=dict)
    runs: dict[str, FlowRun] = field(default_factory=dict)
    by_video: dict[str, tuple[str, ...]] = field(default_factory=dict)
    appeared: list[str] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    beating: set[str] = field(default_factory=set)
    stubborn: set[str] = field(default_factory=set)
    ready: bool = True
    bulk: bool = True
    happens: dict[int, Callable[[], object]] = field(default_factory=dict)
    had_appeared: tuple[int, int] = (0, 0)
    writes: list[str] = field(default_factory=list)

    def copy(self) -> "Simulator":
        """The same services in a world of their own, where nothing happens by itself."""
        return replace(
            self,
            rows=dict(self.rows),
            runs=dict(self.runs),
            by_video=dict(self.by_video),
            appeared=list(self.appeared),
            files=set(self.files),
            happens={},
            writes=list(self.writes),
        )

    @property
    def server_time(self) -> datetime:
        """The time by Prefect's clock."""
        return self.now + self.skew

    # What people, workers and users do

    def upload(self, video_id: str, tenant: str | None, age: timedelta) -> None:
        """A video comes, or came some time ago."""
        self.rows[video_id] = {
            "id": video_id,
            "status": "pending",
            "created_at": (self.now - age).isoformat(),
            "tenant_id": tenant,
        }

    def set_status(self, video_id: str, status: str) -> None:
        """A video leaves the stuck statuses, or returns to them."""
        self.rows[video_id] = {**self.rows[video_id], "status": status}

    def begin(self, video_id: str, key: str | None = None, *, tags: frozenset[str] = frozenset()) -> str:
        """Somebody creates a flow run."""
        run_id, at = f"run{len(self.runs)}", self.server_time
        self.runs[run_id] = FlowRun(run_id, run_id, StateType.SCHEDULED, video_id, None, at, at, key, tags)
        self.appeared.append(run_id)
        self.by_video[video_id] = (*self.by_video.get(video_id, ()), run_id)
        return run_id

    def become(self, run_id: str, state: StateType) -> None:
        """A flow run changes its state; one that had ended and is active again is a retry."""
        run, at = self.runs[run_id], self.server_time
        changed = replace(run, state=state, since=run.since if state is StateType.CANCELLING else at)
        if changed.active and not run.active:
            self.appeared.append(run_id)
        self.runs[run_id] = replace(changed, end_time=None if changed.active else at)

    # What can be seen of them

    def active(self, video_id: str) -> list[FlowRun]:
        """The runs that work on a video."""
        return [run for run in self._of(video_id) if run.active]

    def _of(self, video_id: str) -> list[FlowRun]:
        return [self.runs[run_id] for run_id in self.by_video.get(video_id, ())]

    def recoveries(self, video_id: str) -> list[Recovery]:
        """The recoveries of a video, in the order of their attempts."""
        numbered = ((attempt_of(run, FLOW, video_id), run) for run in self._of(video_id))
        return sorted(
            (Recovery(attempt, run) for attempt, run in numbered if attempt is not None), key=lambda each: each.attempt
        )

    def in_flight(self) -> int:
        """How many recoveries are active."""
        return sum(run.active and is_recovery(run, FLOW) for run in self.runs.values())

    # What a scan asks

    def question(self) -> None:
        """Time passes, and what is to happen now happens."""
        self.now += QUESTION
        self.happens = {turn - 1: event for turn, event in self.happens.items()}
        self.happens.pop(-1, lambda: None)()
        self.had_appeared = (self.had_appeared[-1], len(self.appeared))

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[Clients]:
        """See `controller.ports.Services`."""
        store = _Store(self) if policy.spec.upload is not None else None
        yield Clients(_Table(self, policy), _Server(self), store)


@dataclass
class _Table:
    """See `controller.ports.VideoTable`."""

    world: Simulator
    policy: Policy

    async def check(self) -> None:
        self.world.question()

    async def candidates(self, *, created_before: datetime, video_ids: Sequence[str] = ()) -> list[Row]:
        self.world.question()
        return [
            row for key, row in self.world.rows.items() if self._is_stuck(row) and (not video_ids or key in video_ids)
        ]

    async def row(self, video_id: str) -> Row | None:
        self.world.question()
        return self.world.rows.get(video_id)

    async def still_stuck(self, video_ids: Sequence[str]) -> set[str]:
        self.world.question()
        return {same_id(each) for each in video_ids if self._is_stuck(self.world.rows[each])}

    def _is_stuck(self, row: Row) -> bool:
        return row["status"] in self.policy.spec.stuck.statuses


@dataclass
class _Store:
    """See `controller.ports.ObjectStore`."""

    world: Simulator

    async def check(self) -> None:
        self.world.question()

    async def existing_files(self, paths: Sequence[str]) -> set[str]:
        self.world.question()
        return self.world.files & set(paths)


@dataclass
class _Server:
    """See `controller.ports.FlowServer`."""

    world: Simulator
    seen: int = 0

    @property
    def clock(self) -> datetime | None:
        return self.world.server_time.replace(microsecond=0)

    async def deployment(self) -> Deployment:
        self.world.question()
        return DEPLOYMENT if self.world.ready else NO_WORKER

    async def flow_runs(self, *, ended_since: datetime) -> list[FlowRun]:
        self.world.question()
        self.seen = len(self.world.appeared)
        return [run for run in self.world.runs.values() if run.active or (run.end_time and run.end_time >= ended_since)]

    async def new_flow_runs(self) -> list[FlowRun]:
        self.world.question()
        new, self.seen = self.world.appeared[self.seen :], len(self.world.appeared)
        return [self.world.runs[run_id] for run_id in new]

    async def heartbeats(self, run_ids: Sequence[str], *, since: datetime) -> set[str]:
        self.world.question()
        return self.world.beating & set(run_ids)

    async def recoveries(self, deployment: Deployment, video_ids: Sequence[str]) -> Recoveries:
        self.world.question()
        found = {video_id: tuple(self.world.recoveries(video_id)) for video_id in video_ids}
        return {video_id: of_video for video_id, of_video in found.items() if of_video}

    async def cancel(self, runs: Sequence[FlowRun]) -> list[FlowRun]:
        self.world.question()
        for run in runs:
            is_alive = run.id in self.world.beating and run.state is StateType.RUNNING
            assert not is_alive, f"{run} gives signs of life"
            if self.world.runs[run.id].active and self.world.runs[run.id].since == run.since:
                self.world.writes.append(f"stop {run.id}")
                stubborn = run.id in self.world.stubborn
                self.world.become(run.id, StateType.CANCELLING if stubborn else StateType.CANCELLED)
        self.world.question()
        return [self.world.runs[run.id] for run in runs]

    def creation_lock(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def create(self, deployment: Deployment, batch: Sequence[Recover]) -> AsyncIterator[CreatedRun]:
        together = [list(batch)] if self.world.bulk else [[decision] for decision in batch]
        # The question before this one has to be the last look: a scan can know of all runs that were there then.
        known_until = self.world.had_appeared[-1]
        for decisions in together:
            self.world.question()
            self._create(decisions[-1], known_until)
            self.world.question()  # the database was locked for all others, and the batch is sent again
            created = [self._create(decision, known_until) for decision in decisions]
            self.world.question()  # an answer may be lost
            for decision, run_id in zip(decisions, created, strict=True):
                yield CreatedRun(decision, run_id)

    async def created_until(self, run_ids: Sequence[str]) -> datetime | None:
        self.world.question()
        return max(run.created for run_id in run_ids if (run := self.world.runs[run_id]).created is not None)

    def _create(self, decision: Recover, known_until: int) -> str:
        key = idempotency_key(FLOW, decision.video.id, decision.attempt)
        for earlier in self.world.recoveries(decision.video.id):
            if earlier.run.key == key:
                return earlier.run.id
        known = self.world.appeared[:known_until]
        active = [run for run in self.world.active(decision.video.id) if run.id in known]
        assert not active, f"a second active run of {decision.video.id} beside {active}"
        tags = frozenset({RELEASED}) if decision.released else frozenset()
        run_id = self.world.begin(decision.video.id, key, tags=tags)
        self.world.writes.append(f"create {run_id}")
        return run_id


@dataclass
class Controller:
    """One controller with one policy: scans, and keeps the status as the API server would.

    Attributes:
        announced: The videos of which an Event said that they are quarantined.
    """

    world: Simulator
    policy: Policy
    status: PolicyStatus = field(default_factory=PolicyStatus)
    announced: list[str] = field(default_factory=list)

    def check(self) -> None:
        """See a new or edited policy for the first time."""
        findings = Findings(True, DEPLOYMENT)
        self._write(after_check(self.status, self.policy, findings, Plan(None, None), now=self.world.now))

    def scan(self, video_id: str | None = None) -> Outcome | None:
        """Run a scan; gives nothing if it was killed."""
        trigger = Trigger.REQUEST if video_id is not None else Trigger.SCHEDULE
        named = (video_id,) if video_id is not None else ()
        request = ScanRequest(trigger, video_ids=named, allowance=self.status.ramp_up)
        scan = run_scan(self.policy, request, self.world, now=self.world.now, stop=asyncio.Event())
        try:
            outcome = asyncio.run(scan)
            self._report(outcome)
        except KilledError:
            return None
        finally:
            self.world.happens = {}
        return outcome

    def _report(self, outcome: Outcome) -> None:
        with suppress(ScanError):  # it may be killed here, but there is no service to fail
            self.world.question()
        self.announced += [skip.video_id for skip in newly_quarantined(self.status, self.policy, outcome)]
        self._write(after_scan(self.status, self.policy, outcome, Plan(outcome.request, None), now=self.world.now))

    def _write(self, status: PolicyStatus) -> None:
        manifest = status.to_manifest()
        assert violations(STATUS_SCHEMA, manifest) == []
        self.status = PolicyStatus.model_validate(manifest)
