"""Prefect: reads the flow runs, creates the recoveries, asks abandoned runs to stop. Never forces or deletes a run.

The index is complete or an error is raised.
"""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from more_itertools import chunked
from typing_extensions import override

from controller.adapters.http import HttpError, ServiceClient
from controller.adapters.prefect.abandoned import cancel, heartbeats
from controller.adapters.prefect.api import NO_SUCH_DEPLOYMENT, Json, PrefectApi, no_deployment
from controller.adapters.prefect.creation import RunCreator
from controller.adapters.prefect.runs import read_run
from controller.api.policy import Prefect
from controller.decisions.decision import Recover
from controller.errors import Service
from controller.flow_runs import (
    ACTIVE,
    ENDED,
    Deployment,
    FlowRun,
    Recoveries,
    Recovery,
    idempotency_key,
)
from controller.ports import CreatedRun, FlowServer

KEYS_ASKED = 200
"""Idempotency keys in one question: Prefect answers at most 200 runs, and a key has at most one in a flow."""

OVERLAP = timedelta(seconds=30)
"""How far each look for new runs reaches back behind the one before: a run gets its start time when its transaction
begins and is seen when that ends."""

OWN_RUNS_LEFT_OUT = 1000
"""Runs of our own, the newest, that a look for new runs leaves out: a backlog must not be read again at each batch."""


def authorization(api_key: str | None, auth_string: str | None) -> dict[str, str]:
    """The header for Prefect Cloud (a key), a server with basic auth (`user:password`), or neither."""
    if api_key:
        return {"Authorization": f"Bearer {api_key}"}
    if auth_string:
        return {"Authorization": f"Basic {b64encode(auth_string.encode()).decode()}"}
    return {}


@asynccontextmanager
async def open_server(
    url: str,
    headers: Mapping[str, str],
    secrets: Sequence[str],
    prefect: Prefect,
    lock: asyncio.Lock | None = None,
) -> AsyncIterator["PrefectServer"]:
    """Make a client for a policy's deployment; sends nothing yet.

    Args:
        url: `PREFECT_API_URL`.
        headers: From `authorization`.
        secrets: What must never be shown.
        prefect: The deployment and which flows count.
        lock: Shared by all scans that use one server; see `controller.ports.FlowServer.creation_lock`.
    """
    service = ServiceClient(Service.PREFECT, "PREFECT_API_URL", secrets)
    async with service.http_client(base_url=url.rstrip("/"), headers=headers) as http:
        yield PrefectServer(PrefectApi(http, service), prefect, lock or asyncio.Lock())


class PrefectServer(FlowServer):
    """A Prefect server or Prefect Cloud."""

    def __init__(self, api: PrefectApi, prefect: Prefect, creation_lock: asyncio.Lock) -> None:
        self._api, self._service, self._prefect = api, api.service, prefect
        self._horizon = datetime.max.replace(tzinfo=UTC)
        self._own_runs: list[str] = []
        self._creator, self._creation_lock = RunCreator(api, prefect), creation_lock

    @property
    def api(self) -> PrefectApi:
        """The client that asks, for questions that no scan has."""
        return self._api

    @property
    @override
    def clock(self) -> datetime | None:
        return self._api.clock

    @override
    async def deployment(self) -> Deployment:
        flow, name = self._prefect.deployment.split("/", 1)
        try:
            found = await self._api.get(f"/deployments/name/{quote(flow, safe='')}/{quote(name, safe='')}")
        except HttpError as error:
            # A server that does not know the address answers 404 as well, but does not speak of deployments.
            if error.status == 404 and NO_SUCH_DEPLOYMENT in error.text:
                raise no_deployment(self._prefect) from None
            raise self._service.refused(error) from None
        reason, message = await self._not_ready(found)
        return Deployment(self._api.text(found, "id"), self._api.text(found, "flow_id"), message, reason)

    async def _not_ready(self, deployment: Json) -> tuple[str, str] | tuple[None, None]:
        """Why nothing would run the deployment's runs now: a reason and a message."""
        name = self._prefect.deployment
        if deployment.get("paused"):
            return "DeploymentPaused", f"deployment {name!r} is paused; resume it in Prefect"
        pool_name = deployment.get("work_pool_name")
        if not isinstance(pool_name, str):
            if deployment.get("status") == "READY":
                return None, None
            return "DeploymentNotReady", f"nothing serves deployment {name!r}; start the process that does"
        return await self.pool_not_ready(pool_name, self._prefect.work_queue or deployment.get("work_queue_name"))

    async def pool_not_ready(self, pool_name: str, queue_name: object) -> tuple[str, str] | tuple[None, None]:
        """Why a work pool, or its queue, would run nothing now: a reason and a message."""
        pool_path = f"/work_pools/{quote(pool_name, safe='')}"
        pool = await self._api.get_object(pool_path)
        if pool.get("is_paused"):
            return "WorkPoolPaused", f"work pool {pool_name!r} is paused; resume it in Prefect"
        if pool.get("status") != "READY":
            return "NoWorkerReady", f"no worker polls work pool {pool_name!r}; start one"
        if isinstance(queue_name, str):
            queue = await self._api.get_object(f"{pool_path}/queues/{quote(queue_name, safe='')}", missing_ok=True)
            if queue.get("is_paused"):
                return "WorkQueuePaused", f"work queue {queue_name!r} is paused; resume it in Prefect"
        return None, None

    @override
    async def flow_runs(self, *, ended_since: datetime) -> list[FlowRun]:
        self._api.answered_at, self._horizon = None, ended_since
        # First the active ones: a run that ends in between is then found among the ended ones, never in neither.
        active = await self._runs({"state": {"type": {"any_": sorted(ACTIVE)}}})
        ended = {"state": {"type": {"any_": sorted(ENDED)}}, "end_time": {"after_": ended_since.isoformat()}}
        return active + await self._runs(ended)

    @override
    async def new_flow_runs(self) -> list[FlowRun]:
        since, self._api.answered_at = (self._api.answered_at or self._horizon) - OVERLAP, None
        mine, moment = self._own_runs[-OWN_RUNS_LEFT_OUT:], since.isoformat()
        # A run that somebody retries keeps its old expected start time and gets a new scheduled one.
        retried = {"expected_start_time": {"before_": moment}, "next_scheduled_start_time": {"after_": moment}}
        return await self._runs({}, after=moment, leave_out=mine) + await self._runs(retried)

    async def _runs(self, wanted: Json, *, after: str | None = None, leave_out: Sequence[str] = ()) -> list[FlowRun]:
        # Recoveries count whatever the policy says of other flows.
        own = self._prefect.deployment.partition("/")[0]
        flows: Json = {"name": {"any_": [*self._prefect.flows, own]}} if self._prefect.flows else {}
        return [self._run(raw) for raw in await self._api.runs(wanted, flows, after=after, leave_out=leave_out)]

    def _run(self, raw: Json) -> FlowRun:
        return read_run(self._api, raw, self._prefect.video_id_parameter)

    @override
    async def recoveries(self, deployment: Deployment, video_ids: Sequence[str]) -> Recoveries:
        # Ask for the first attempts, then of the videos whose last attempt asked for exists for as many again.
        found: dict[str, tuple[Recovery, ...]] = {}
        first, last, remaining = 1, 1, list(dict.fromkeys(video_ids))
        while remaining:
            asked = [(video_id, attempt) for video_id in remaining for attempt in range(first, last + 1)]
            runs = await self._runs_by_key(deployment, asked)
            for (video_id, attempt), run in sorted(runs.items()):
                found[video_id] = (*found.get(video_id, ()), Recovery(attempt, run))
            remaining = [video_id for video_id in remaining if (video_id, last) in runs]
            first, last = last + 1, 2 * last
        return found

    async def _runs_by_key(
        self, deployment: Deployment, wanted: Sequence[tuple[str, int]]
    ) -> dict[tuple[str, int], FlowRun]:
        attempts = {
            idempotency_key(deployment.flow_id, video_id, attempt): (video_id, attempt) for video_id, attempt in wanted
        }
        runs: dict[tuple[str, int], FlowRun] = {}
        for chunk in chunked(attempts, KEYS_ASKED):
            asked = {"idempotency_key": {"any_": chunk}}
            for raw in await self._api.runs(asked, {"id": {"any_": [deployment.flow_id]}}):
                key = self._api.text(raw, "idempotency_key")
                if key not in attempts:
                    raise self._service.unexpected(f"a run with the key {key}, which nobody asked for")
                runs[attempts[key]] = self._run(raw)
        return runs

    @override
    async def created_until(self, run_ids: Sequence[str]) -> datetime | None:
        times = [self._api.time(raw, "created") for raw in await self._api.runs_by_id(run_ids)]
        return max((time for time in times if time is not None), default=None)

    @override
    async def heartbeats(self, run_ids: Sequence[str], *, since: datetime) -> set[str]:
        return await heartbeats(self._api, run_ids, since=since)

    @override
    async def cancel(self, runs: Sequence[FlowRun]) -> list[FlowRun]:
        return await cancel(self._api, runs, self._run)

    @override
    def creation_lock(self) -> asyncio.Lock:
        return self._creation_lock

    @override
    async def create(self, deployment: Deployment, batch: Sequence[Recover]) -> AsyncIterator[CreatedRun]:
        async for created in self._creator.create(deployment, batch):
            if created.run_id is not None:
                self._own_runs.append(created.run_id)
            yield created
