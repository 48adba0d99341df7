"""The Prefect of a world, as a server answers through its adapter."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from typing_extensions import override

from controller.api.manifest import Policy
from controller.decisions.decision import Recover
from controller.flow_runs import (
    RELEASED,
    Deployment,
    FlowRun,
    Recoveries,
    Recovery,
    StateType,
    idempotency_key,
)
from controller.ports import CreatedRun, FlowServer

if TYPE_CHECKING:
    from tests.world.world import Process, World

GONE, STAYS = "gone", "stays"
"""What may become of a run that is asked to stop, other than a state: it was deleted meanwhile, or Prefect refuses."""

REACHES_BACK = timedelta(seconds=30)
"""How far each look for new runs reaches back behind the one before."""

ASKED_NOTHING = datetime.max.replace(tzinfo=UTC)

LEFT_OUT = 1000
"""Runs of its own that such a look leaves out, the newest."""


@dataclass
class WorldServer(FlowServer):
    """One connection to the server: it remembers when it asked, and what it created."""

    world: "World"
    policy: Policy
    process: "Process"
    told: datetime | None = None
    asked_at: datetime | None = None
    horizon: datetime = ASKED_NOTHING
    mine: list[str] = field(default_factory=list)

    @property
    @override
    def clock(self) -> datetime | None:
        return self.told

    async def _ask(self, name: str = "", asked: object = None) -> datetime | None:
        """Ask the server; gives its clock when it took up the question, as well as a client can know that."""
        await self.world.ask(name, asked)
        self.told = self.world.server_time.replace(microsecond=0) if self.world.tells_time else None
        return self.told and self.told - self.world.takes

    @override
    async def deployment(self) -> Deployment:
        await self._ask("deployment")
        return self.world.deployment

    @override
    async def flow_runs(self, *, ended_since: datetime) -> list[FlowRun]:
        self.horizon, self.asked_at = ended_since, await self._ask("flow_runs", ended_since)
        runs = self.world.runs.values()
        return [run for run in runs if run.end_time is None or run.end_time >= ended_since]

    @override
    async def new_flow_runs(self) -> list[FlowRun]:
        since, mine = (self.asked_at or self.horizon) - REACHES_BACK, set(self.mine[-LEFT_OUT:])
        self.asked_at = await self._ask("new_flow_runs")
        times = self.world.times
        new = [run for run in self.world.runs.values() if times[run.id].expected >= since and run.id not in mine]
        # One that is retried keeps the time at which it was to start first.
        return new + [run for run in self.world.runs.values() if times[run.id].was_planned_anew(since)]

    @override
    async def heartbeats(self, run_ids: Sequence[str], *, since: datetime) -> set[str]:
        await self._ask("heartbeats", (list(run_ids), since))
        return {run_id for run_id in run_ids if self.world.is_alive(run_id, since)}

    @override
    async def recoveries(self, deployment: Deployment, video_ids: Sequence[str]) -> Recoveries:
        await self._ask("recoveries", list(video_ids))
        found = {video_id: self._attempts(deployment.flow_id, video_id) for video_id in video_ids}
        return {video_id: attempts for video_id, attempts in found.items() if attempts}

    def _attempts(self, flow_id: str, video_id: str) -> tuple[Recovery, ...]:
        """Asked for are 1, 2, 3 to 4, 5 to 8 and so on, as long as the last one of those is there."""
        found: list[Recovery] = []
        first, last = 1, 1
        while True:
            runs = {attempt: self._by_key(flow_id, video_id, attempt) for attempt in range(first, last + 1)}
            found += [Recovery(attempt, run) for attempt, run in runs.items() if run is not None]
            if runs[last] is None:
                return tuple(found)
            first, last = last + 1, 2 * last

    def _by_key(self, flow_id: str, video_id: str, attempt: int) -> FlowRun | None:
        return self.world.runs.get(self.world.by_key.get(idempotency_key(flow_id, video_id, attempt), ""))

    @override
    async def cancel(self, runs: Sequence[FlowRun]) -> list[FlowRun]:
        await self._ask("cancel", [run.id for run in runs])
        for run in runs:
            there = self.world.runs.get(run.id)
            if there is not None and there.since == run.since:
                self._ask_to_stop(there)
        await self._ask()
        return [self.world.runs[run.id] for run in runs if run.id in self.world.runs]

    def _ask_to_stop(self, run: FlowRun) -> None:
        is_alive = run.id in self.world.beating and run.state is StateType.RUNNING
        assert not is_alive, f"{run} gives signs of life"
        becomes = self.world.stops.get(run.id, "CANCELLED")
        self.world.writes.append(f"stop {run.id}")
        if becomes == GONE:
            self.world.remove(run.id)
        elif becomes != STAYS and run.active and becomes != run.state:
            self.world.become(run.id, StateType(becomes))

    @override
    def creation_lock(self) -> asyncio.Lock:
        return self.process.lock

    @override
    async def create(self, deployment: Deployment, batch: Sequence[Recover]) -> AsyncIterator[CreatedRun]:
        assert len(batch) <= 100, "the bulk route takes a hundred"
        assert not self.process.creates, "two scans of one process create runs at once"
        # The question before this one has to be the last look: a scan can know of all runs that were there then.
        known = frozenset(self.world.appeared[: self.world.had_appeared])
        self.world.batches.append([decision.video.id for decision in batch])
        self.process.creates = True
        try:
            name = "create"
            for together in [batch] if self.world.bulk else [[decision] for decision in batch]:
                for answer in await self._create(name, deployment, together, known):
                    yield answer
                name = ""
        finally:
            self.process.creates = False

    async def _create(
        self, name: str, deployment: Deployment, together: Sequence[Recover], known: Iterable[str]
    ) -> list[CreatedRun]:
        """One request, or two where the database was locked in the midst of the first one."""
        await self._ask(name)
        if self.world.half_done:
            self._create_one(deployment, together[-1], known)
            await self._ask()
        created = [self._create_one(deployment, decision, known) for decision in together]
        await self._ask("answer")  # an answer may be lost
        return created

    def _create_one(self, deployment: Deployment, decision: Recover, known: Iterable[str]) -> CreatedRun:
        video_id = decision.video.id
        if video_id in self.world.refused:
            return CreatedRun(decision, None, self.world.refused[video_id])
        key = idempotency_key(deployment.flow_id, video_id, decision.attempt)
        run_id = self.world.by_key.get(key)
        if run_id is None:
            active = [run for run in self.world.active(video_id) if run.id in known]
            assert not active, f"a second active run of {video_id} beside {active}"
            tags = {*self.policy.spec.prefect.tags, *({RELEASED} if decision.released else ())}
            run_id = self.world.begin(video_id, key, tags=frozenset(tags))
            self.world.writes.append(f"create {run_id}")
            self.world.created.append(video_id)
        if run_id not in self.mine:
            self.mine.append(run_id)
        return CreatedRun(decision, run_id)

    @override
    async def created_until(self, run_ids: Sequence[str]) -> datetime | None:
        await self._ask("created_until", list(run_ids))
        runs = [self.world.runs[run_id] for run_id in run_ids if run_id in self.world.runs]
        return max((run.created for run in runs if run.created is not None), default=None)
