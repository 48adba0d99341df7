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
from controller.flow_runs import Deployment, FlowRun
from controller.ports import Clients, Services
from tests.unit.fakes import DEPLOYMENT, NOW
from tests.world.prefect import WorldServer
from tests.world.runs import FlowRuns
from tests.world.supabase import WorldStore, WorldTable

Happening = Callable[[], object]


class World(FlowRuns, Services):
    """The services of a scan; of the flow runs that they have see `FlowRuns`.

    Attributes:
        now: The time by everybody's clock but Prefect's.
        rows: The table. An id in the canonical form of a UUID is one of a column of UUIDs; any other is text.
        files: The paths at which the bucket has a whole file.
        has_bucket: Whether there is such a bucket.
        had_appeared: How many runs had appeared when the last question was answered.
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
        tells_time: bool = True,
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
            beating: The runs that give signs of life all the time.
            stops: The state that a flow run takes when it is asked to stop, or `GONE` or `STAYS` of
                `tests.world.prefect`; CANCELLED for others.
            refused: The videos whose runs Prefect refuses, and what it says then.
            on: See the attribute.
            skew: How far Prefect's clock is ahead of everybody else's.
            tells_time: Whether Prefect tells its time.
            takes: How long each answer takes.
            bulk: Whether Prefect has the bulk route; an older server creates runs one by one.
            half_done: Whether each batch is done in part first, and sent again: Prefect's database was locked.
        """
        super().__init__(deployment.flow_id, beating)
        self.now, self.skew, self.takes, self.tells_time = NOW, skew, takes, tells_time
        self.rows, self.files, self.has_bucket = list(rows), set(files), True
        self.deployment, self.bulk, self.half_done = deployment, bulk, half_done
        self.refused, self.stops = dict(refused or {}), dict(stops or {})
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
        self._change(video_id, status=status)

    def delete(self, video_id: str) -> None:
        """Somebody deletes a video; its row stays."""
        self._change(video_id, deleted_at=self.now.isoformat())

    def _change(self, video_id: str, **columns: object) -> None:
        self.rows = [{**row, **columns} if row["id"] == video_id else row for row in self.rows]

    # Time, and what happens when something is asked

    @property
    @override
    def server_time(self) -> datetime:
        return self.now + self.skew

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
