"""Supabase and Prefect in memory, over time: what they hold, what they are asked, and what happens meanwhile.

One world for all unit tests. It answers as the real services do through their adapters, which `tests/contract` checks,
and it refuses to let a scan break the one rule that no mistake may break: two active runs of one video.
"""

import asyncio
import copy
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from typing_extensions import override

from controller.api.manifest import Policy
from controller.flow_runs import Deployment, FlowRun, Recovery, StateType, attempt_of, is_recovery
from controller.ports import Clients, Services
from controller.videos import same_id
from tests.unit.fakes import DEPLOYMENT, NOW
from tests.world.prefect import WorldServer
from tests.world.runs import Times
from tests.world.supabase import WorldStore, WorldTable

Happening = Callable[[], object]


class World(Services):
    """The services of a scan.

    Attributes:
        now: The time by everybody's clock but Prefect's.
        rows: The table. An id in the canonical form of a UUID is one of a column of UUIDs; any other is text.
        files: The paths at which the bucket has a whole file.
        has_bucket: Whether there is such a bucket.
        runs: Prefect's flow runs by id, in the order of their creation.
        beating: The runs that give signs of life all the time.
        last_beats: When each other run gave its last one, by Prefect's clock.
        appeared: The ids of runs in the order in which they became active, also once more.
        had_appeared: How many had appeared when the last question was answered.
        on: What happens at the n-th time (from 1) that something is asked, just before it is answered.
        happens: What happens at the n-th question from now (0 is the next one), whatever it is.
        steps: What was asked, in order.
        asked: With which arguments, the last time.
        batches: The videos of each batch that was to be created.
        created: The videos for which a scan created a run, in order.
        writes: Every creation and every stop, in order.
    """

    def __init__(
        self,
        rows: Iterable[dict[str, object]] = (),
        runs: Iterable[FlowRun] = (),
        *,
        deployment: Deployment = DEPLOYMENT,
        files: Iterable[str] = (),
        beating: Iterable[str] = (),
        stops: Mapping[str, str] | None = None,
        refused: Mapping[str, str] | None = None,
        on: Mapping[tuple[str, int], Happening] | None = None,
        skew: timedelta = timedelta(0),
        takes: timedelta = timedelta(0),
        bulk: bool = True,
        half_done: bool = False,
    ) -> None:
        """Make a world at `NOW`.

        Args:
            rows: See the attribute.
            runs: Flow runs that are there, with a past of their own.
            deployment: What Prefect says of the deployment.
            files: See the attribute.
            beating: See the attribute.
            stops: The state that a flow run takes when it is asked to stop, or `GONE` or `STAYS` of
                `tests.world.prefect`; CANCELLED for others.
            refused: The videos whose runs Prefect refuses, and what it says then.
            on: See the attribute.
            skew: How far Prefect's clock is ahead of everybody else's.
            takes: How long each answer takes.
            bulk: Whether Prefect has the bulk route; an older server creates runs one by one.
            half_done: Whether each batch is done in part first, and sent again: Prefect's database was locked.
        """
        self.now, self.skew, self.takes = NOW, skew, takes
        self.rows, self.files, self.has_bucket = list(rows), set(files), True
        self.deployment, self.bulk, self.half_done = deployment, bulk, half_done
        self.refused, self.stops = dict(refused or {}), dict(stops or {})
        self.beating: set[str] = set(beating)
        self.last_beats: dict[str, datetime] = {}
        self.runs: dict[str, FlowRun] = {}
        self.times: dict[str, Times] = {}
        self.by_video: dict[str, tuple[str, ...]] = {}
        self.by_key: dict[str, str] = {}
        self.appeared: list[str] = []
        self.had_appeared = 0
        self.on = dict(on or {})
        self.happens: dict[int, Happening] = {}
        self.steps: list[str] = []
        self.counts: Counter[str] = Counter()
        self.asked: dict[str, object] = {}
        self.batches: list[list[str]] = []
        self.created: list[str] = []
        self.writes: list[str] = []
        self._process = Process(self)
        for run in runs:
            self.add(run)

    def copy(self) -> "World":
        """The same services in a world of their own, where nothing happens by itself."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, dict | list | set):
                setattr(other, name, value.copy())
        other.on, other.happens, other._process = {}, {}, Process(other)
        return other

    @override
    def connect(self, policy: Policy) -> AbstractAsyncContextManager[Clients]:
        return self._process.connect(policy)

    # Videos

    def upload(self, video_id: str, tenant: str | None, age: timedelta) -> None:
        """A video comes, or came some time ago."""
        created_at = (self.now - age).isoformat()
        self.rows.append({"id": video_id, "status": "pending", "created_at": created_at, "tenant_id": tenant})

    def row(self, video_id: str) -> dict[str, object]:
        """The row of a video."""
        return next(row for row in self.rows if row["id"] == video_id)

    def set_status(self, video_id: str, status: str) -> None:
        """A video leaves the stuck statuses, or returns to them."""
        self.rows = [{**row, "status": status} if row["id"] == video_id else row for row in self.rows]

    # Flow runs

    @property
    def server_time(self) -> datetime:
        """The time by Prefect's clock."""
        return self.now + self.skew

    def add(self, run: FlowRun) -> None:
        """A flow run is there, with a past of its own; one that begins now is `begin`'s."""
        assert run.id not in self.runs, f"another run {run.id}"
        assert run.active == (run.end_time is None), f"{run} has ended, or has not"
        self._enter(run, Times.of(run, self.server_time))

    def begin(self, video_id: str, key: str | None = None, *, tags: frozenset[str] = frozenset()) -> str:
        """Somebody creates a flow run."""
        run_id, at = f"run{len(self.times)}", self.server_time
        run = FlowRun(run_id, run_id, StateType.SCHEDULED, video_id, None, at, at, key, tags)
        self._enter(run, Times(at, at, None, at))
        return run_id

    def _enter(self, run: FlowRun, times: Times) -> None:
        assert run.key is None or run.key not in self.by_key, f"another run with the key {run.key}"
        self.runs[run.id], self.times[run.id] = run, times
        self.appeared.append(run.id)
        if run.video_id is not None:
            video_id = same_id(run.video_id)
            self.by_video[video_id] = (*self.by_video.get(video_id, ()), run.id)
        if run.key is not None:
            self.by_key[run.key] = run.id

    def become(self, run_id: str, state: StateType) -> None:
        """A flow run changes its state; one that had ended and is active again is a retry."""
        run = self.runs[run_id]
        self.times[run_id], changed = self.times[run_id].changed(run, state, self.server_time)
        if changed.active and not run.active:
            self.appeared.append(run_id)
        if not changed.active and run_id in self.beating:
            self.beat(run_id, goes_on=False)
        self.runs[run_id] = changed

    def remove(self, run_id: str) -> None:
        """Somebody deletes a flow run."""
        run = self.runs.pop(run_id)
        self.by_key.pop(run.key or "", None)
        if run.video_id is not None:
            video_id = same_id(run.video_id)
            self.by_video[video_id] = tuple(each for each in self.by_video[video_id] if each != run_id)

    def backdate(self, run_id: str, by: timedelta) -> None:
        """All of a flow run was earlier."""
        self.times[run_id], self.runs[run_id] = self.times[run_id].earlier(self.runs[run_id], by)

    def beat(self, run_id: str, *, goes_on: bool) -> None:
        """A flow run gives a sign of life, and goes on with that or not."""
        self.last_beats[run_id] = self.server_time
        (self.beating.add if goes_on else self.beating.discard)(run_id)

    def stop_all_beats(self) -> None:
        """All workers crash."""
        for run_id in list(self.beating):
            self.beat(run_id, goes_on=False)

    def is_alive(self, run_id: str, since: datetime) -> bool:
        """Whether a run gave a sign of life since a time."""
        beat = self.server_time if run_id in self.beating else self.last_beats.get(run_id)
        return beat is not None and beat >= since

    def runs_of(self, video_id: str) -> list[FlowRun]:
        """The runs that work or worked on a video."""
        return [self.runs[run_id] for run_id in self.by_video.get(same_id(video_id), ())]

    def active(self, video_id: str) -> list[FlowRun]:
        """The runs that work on a video."""
        return [run for run in self.runs_of(video_id) if run.active]

    def recoveries(self, video_id: str) -> list[Recovery]:
        """The recoveries of a video, in the order of their attempts."""
        numbered = ((attempt_of(run, self.deployment.flow_id, video_id), run) for run in self.runs_of(video_id))
        found = [Recovery(attempt, run) for attempt, run in numbered if attempt is not None]
        return sorted(found, key=lambda recovery: recovery.attempt)

    def in_flight(self) -> int:
        """How many recoveries are active."""
        return sum(run.active and is_recovery(run, self.deployment.flow_id) for run in self.runs.values())

    # What happens when something is asked

    def note(self, name: str, asked: object = None) -> None:
        """Something is asked: note it, and let happen what happens then."""
        self.steps.append(name)
        self.counts[name] += 1
        self.asked[name] = asked
        self.on.get((name, self.counts[name]), _nothing)()

    async def ask(self, name: str = "", asked: object = None) -> None:
        """A service is asked something: others have their turn, time passes, and what is to happen now happens."""
        await asyncio.sleep(0)
        self.now += self.takes
        if name:
            self.note(name, asked)
        self.happens = {turn - 1: event for turn, event in self.happens.items()}
        self.happens.pop(-1, _nothing)()
        self.had_appeared = len(self.appeared)


def _nothing() -> None:
    pass


@dataclass
class Process(Services):
    """A process that scans in a world: all its scans share one creation lock.

    Attributes:
        creates: Whether one of them is creating runs.
    """

    world: World
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    creates: bool = False

    @override
    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[Clients]:
        self.world.note("connect")
        store = WorldStore(self.world, policy) if policy.spec.upload is not None else None
        yield Clients(WorldTable(self.world, policy), WorldServer(self.world, policy, self), store)
