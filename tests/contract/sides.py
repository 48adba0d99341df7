"""The two sides of the contract: the world in memory and the real services, with the same words to set them up."""

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from typing_extensions import override

from controller.adapters.prefect.server import open_server
from controller.adapters.supabase.table import open_supabase
from controller.api.manifest import Policy
from controller.flow_runs import FlowRun, StateType, idempotency_key
from controller.ports import FlowServer, ObjectStore, VideoTable
from devstack import Prefect, Supabase
from tests.support import DEPLOYMENT, policy
from tests.unit.fakes import DEPLOYMENT as WORLDS_DEPLOYMENT
from tests.world.world import World

BUCKET = "videos"
REFUSED = "REFUSED"
"""A tenant that the deployment's schema of parameters forbids."""

SCHEMA = {"type": "object", "properties": {"tenant_id": {"type": "string", "pattern": "^[a-z]+$"}}}


# The table


class TableSide(ABC):
    """A table of videos, to be filled."""

    @abstractmethod
    def insert(self, video_id: str, **columns: object) -> None:
        """A row; what is not given is as in a row of a stuck video."""

    @abstractmethod
    def open(self, **spec: Any) -> AbstractAsyncContextManager[VideoTable]:
        """The table, as a policy sees it; keyword arguments are merged into its spec."""


def _row(video_id: str, columns: Mapping[str, object]) -> dict[str, object]:
    stuck = {"status": "pending", "created_at": None, "tenant_id": "tenant", "display_path": "a.mp4"}
    return {**stuck, "id": video_id, **columns}


class WorldTableSide(TableSide):
    """A world in memory."""

    def __init__(self) -> None:
        self.world = World()

    @override
    def insert(self, video_id: str, **columns: object) -> None:
        self.world.rows.append(_row(video_id, columns))

    @override
    @asynccontextmanager
    async def open(self, **spec: Any) -> AsyncIterator[VideoTable]:
        async with self.world.connect(policy(**spec)) as clients:
            yield clients.table


class RealTableSide(TableSide):
    """PostgreSQL behind PostgREST.

    Args:
        supabase: The server.
        table: A table in which a row may have no time.
    """

    def __init__(self, supabase: Supabase, table: str) -> None:
        self.supabase, self.name = supabase, table

    @override
    def insert(self, video_id: str, **columns: object) -> None:
        self.supabase.insert("captionacc", self.name, [_row(video_id, columns)])

    @override
    @asynccontextmanager
    async def open(self, **spec: Any) -> AsyncIterator[VideoTable]:
        changed = {**spec, "supabase": {"table": self.name, **spec.get("supabase", {})}}
        key = self.supabase.secret_key
        async with open_supabase(self.supabase.url, key, policy(**changed).spec) as (table, _):
            yield table


# The bucket


class StoreSide(ABC):
    """A bucket, to be filled."""

    @abstractmethod
    def put(self, path: str) -> None:
        """A whole file."""

    @abstractmethod
    def remove_bucket(self) -> None:
        """There is no such bucket any more."""

    @abstractmethod
    def open(self) -> AbstractAsyncContextManager[ObjectStore]:
        """The bucket, as a policy sees it."""


def _looking() -> Policy:
    return policy(upload={"bucket": BUCKET, "objectPath": "{id}.mp4"})


class WorldStoreSide(StoreSide):
    """A world in memory."""

    def __init__(self) -> None:
        self.world = World()

    @override
    def put(self, path: str) -> None:
        self.world.files.add(path)

    @override
    def remove_bucket(self) -> None:
        self.world.has_bucket = False

    @override
    @asynccontextmanager
    async def open(self) -> AsyncIterator[ObjectStore]:
        async with self.world.connect(_looking()) as clients:
            assert clients.store is not None
            yield clients.store


class RealStoreSide(StoreSide):
    """The stand-in for Storage."""

    def __init__(self, supabase: Supabase) -> None:
        self.supabase = supabase
        supabase.create_bucket(BUCKET)

    @override
    def put(self, path: str) -> None:
        self.supabase.upload(BUCKET, path)

    @override
    def remove_bucket(self) -> None:
        self.supabase.clear_storage()

    @override
    @asynccontextmanager
    async def open(self) -> AsyncIterator[ObjectStore]:
        async with open_supabase(self.supabase.url, self.supabase.secret_key, _looking().spec) as (_, store):
            assert store is not None
            yield store


# Prefect


class ServerSide(ABC):
    """A Prefect server, and what workers and people do to its flow runs.

    Attributes:
        policy: The policy whose deployment is there.
        flow_id: The id of its flow.
    """

    policy: Policy
    flow_id: str

    @property
    @abstractmethod
    def now(self) -> datetime:
        """The server's clock."""

    @abstractmethod
    def begin(self, video_id: str | None, state: str = "SCHEDULED", *, attempt: int | None = None) -> str:
        """A flow run of a video or of something else begins now and takes a state; with an attempt it is a recovery."""

    @abstractmethod
    def become(self, run_id: str, state: str) -> None:
        """A flow run takes another state."""

    @abstractmethod
    def backdate(self, run_id: str, by: timedelta) -> None:
        """All of a flow run was earlier."""

    @abstractmethod
    def remove(self, run_id: str) -> None:
        """Somebody deletes a flow run."""

    @abstractmethod
    def beat(self, run_id: str, at: datetime) -> None:
        """A flow run gives a sign of life."""

    @abstractmethod
    def run(self, run_id: str) -> tuple[str, str | None, set[str]]:
        """The state of a flow run, its idempotency key and its tags."""

    @abstractmethod
    def open(self) -> AbstractAsyncContextManager[FlowServer]:
        """The server, as a scan sees it."""

    def key(self, video_id: str | None, attempt: int | None) -> str | None:
        """The idempotency key of a recovery."""
        return None if attempt is None or video_id is None else idempotency_key(self.flow_id, video_id, attempt)

    async def seen(self, server: FlowServer, run_id: str) -> FlowRun:
        """A flow run as a scan has it."""
        runs = await server.flow_runs(ended_since=self.now - timedelta(days=30))
        return next(run for run in runs if run.id == run_id)


class WorldServerSide(ServerSide):
    """A world in memory, in which no worker stops what it runs."""

    def __init__(self) -> None:
        self.world, self.policy, self.flow_id = World(), policy(), WORLDS_DEPLOYMENT.flow_id

    @property
    @override
    def now(self) -> datetime:
        return self.world.server_time

    @override
    def begin(self, video_id: str | None, state: str = "SCHEDULED", *, attempt: int | None = None) -> str:
        run_id = self.world.begin(video_id, self.key(video_id, attempt))
        if state != "SCHEDULED":
            self.become(run_id, state)
        return run_id

    @override
    def become(self, run_id: str, state: str) -> None:
        self.world.become(run_id, StateType(state))
        without_infrastructure = {StateType.SCHEDULED}
        self.world.stops[run_id] = "CANCELLED" if state in without_infrastructure else "CANCELLING"

    @override
    def backdate(self, run_id: str, by: timedelta) -> None:
        self.world.backdate(run_id, by)

    @override
    def remove(self, run_id: str) -> None:
        self.world.remove(run_id)

    @override
    def beat(self, run_id: str, at: datetime) -> None:
        self.world.last_beats[run_id] = at

    @override
    def run(self, run_id: str) -> tuple[str, str | None, set[str]]:
        run = self.world.runs[run_id]
        return run.state, run.key, set(run.tags)

    @override
    def open(self) -> AbstractAsyncContextManager[FlowServer]:
        self.world.refused = {f"of-{REFUSED}": "Prefect refused the run"}
        return _server_of(self.world, self.policy)


@asynccontextmanager
async def _server_of(world: World, of: Policy) -> AsyncIterator[FlowServer]:
    async with world.connect(of) as clients:
        yield clients.server


class RealServerSide(ServerSide):
    """A real Prefect server without a worker."""

    def __init__(self, prefect: Prefect) -> None:
        self.prefect, self.policy = prefect, policy()
        strict: dict[str, Any] = {"enforce_parameter_schema": True, "parameter_openapi_schema": SCHEMA}
        self.deployment = prefect.create_deployment(DEPLOYMENT, **strict)
        self.flow_id = self.deployment.flow_id

    @property
    @override
    def now(self) -> datetime:
        return datetime.now(UTC)

    @override
    def begin(self, video_id: str | None, state: str = "SCHEDULED", *, attempt: int | None = None) -> str:
        key = self.key(video_id, attempt)
        fields = {"idempotency_key": key} if key else {}
        parameters = {"video_id": video_id} if video_id is not None else {}
        return self.prefect.create_flow_run(self.deployment, state, parameters=parameters, **fields)

    @override
    def become(self, run_id: str, state: str) -> None:
        self.prefect.set_state(run_id, state)

    @override
    def backdate(self, run_id: str, by: timedelta) -> None:
        self.prefect.backdate(run_id, by)

    @override
    def remove(self, run_id: str) -> None:
        self.prefect.http.delete(f"flow_runs/{run_id}").raise_for_status()

    @override
    def beat(self, run_id: str, at: datetime) -> None:
        event = {
            "id": str(uuid.uuid4()),
            "event": "prefect.flow-run.heartbeat",
            "occurred": at.isoformat(),
            "resource": {"prefect.resource.id": f"prefect.flow-run.{run_id}"},
        }
        self.prefect.http.post("events", json=[event]).raise_for_status()
        wanted = {"filter": {"event": {"name": [event["event"]]}, "resource": {"id": [f"prefect.flow-run.{run_id}"]}}}
        until(lambda: bool(self.prefect.http.post("events/filter", json=wanted).json()["events"]))

    @override
    def run(self, run_id: str) -> tuple[str, str | None, set[str]]:
        run = self.prefect.flow_run(run_id)
        return run["state_type"], run["idempotency_key"], set(run["tags"])

    @override
    def open(self) -> AbstractAsyncContextManager[FlowServer]:
        return open_server(self.prefect.api_url, {}, [], self.policy.spec.prefect)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what is sure to come; the deadline only ends a test that would wait for ever."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
