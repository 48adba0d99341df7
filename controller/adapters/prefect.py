"""Prefect: reads the flow runs, creates the recoveries. Never changes or deletes a run.

The index is complete or an error is raised.
"""

from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import httpx

from controller.adapters.http import Channel, HttpError
from controller.adapters.prefect_api import Json, PrefectApi
from controller.decisions import Recover
from controller.errors import ConfigurationError, ErrorReason, Service
from controller.flow_runs import ACTIVE, ENDED, Deployment, FlowRun, Recoveries, Recovery, StateType, idempotency_key
from controller.policy import Prefect
from controller.scan import Created

KEYS_ASKED = 200
"""Idempotency keys in one question: Prefect answers at most 200 runs, and a key has at most one in a flow."""

OVERLAP = timedelta(seconds=30)
"""How far each look for new runs reaches back behind the one before: a run gets its start time when its transaction
begins and is seen when that ends."""

OWN_RUNS_LEFT_OUT = 1000
"""Runs of our own, the newest, that a look for new runs leaves out: a backlog must not be read again at each batch."""

NO_SUCH_DEPLOYMENT = "Deployment not found"
"""What Prefect says in a 404 for a deployment; one for an address that it does not know says something else."""

DATABASE_LOCKED = "database is locked"
"""What a Prefect server on SQLite says of runs that it could not create because it was writing something else."""


def authorization(api_key: str | None, auth_string: str | None) -> dict[str, str]:
    """The header for Prefect Cloud (a key), a server with basic auth (`user:password`), or neither."""
    if api_key:
        return {"Authorization": f"Bearer {api_key}"}
    if auth_string:
        return {"Authorization": f"Basic {b64encode(auth_string.encode()).decode()}"}
    return {}


@asynccontextmanager
async def open_server(
    url: str, headers: Mapping[str, str], secrets: Sequence[str], prefect: Prefect
) -> AsyncIterator["PrefectServer"]:
    """Make a client for a policy's deployment; sends nothing yet.

    Args:
        url: `PREFECT_API_URL`.
        headers: From `authorization`.
        secrets: What must never be shown.
        prefect: The deployment and which flows count.
    """
    channel = Channel(Service.PREFECT, "PREFECT_API_URL", secrets)
    async with channel.client(base_url=url.rstrip("/"), headers=headers) as http:
        yield PrefectServer(PrefectApi(http, channel), prefect)


class PrefectServer:
    """A Prefect server or Prefect Cloud; see `controller.scan.FlowServer`."""

    def __init__(self, api: PrefectApi, prefect: Prefect) -> None:
        self._api, self._channel, self._prefect = api, api.channel, prefect
        self._horizon = datetime.max.replace(tzinfo=UTC)
        self._own_runs: list[str] = []
        self._has_bulk_route = True

    async def deployment(self) -> Deployment:
        """See `controller.scan.FlowServer.deployment`.

        Raises:
            ConfigurationError: There is no such deployment.
        """
        flow, name = self._prefect.deployment.split("/", 1)
        try:
            found = await self._api.get(f"/deployments/name/{quote(flow, safe='')}/{quote(name, safe='')}")
        except HttpError as error:
            # A server that does not know the address answers 404 as well, but does not speak of deployments.
            if error.status == 404 and NO_SUCH_DEPLOYMENT in error.text:
                raise self._no_deployment() from None
            raise self._channel.refused(error) from None
        reason, message = await self._what_keeps_it(found)
        return Deployment(self._api.text(found, "id"), self._api.text(found, "flow_id"), message, reason)

    def _no_deployment(self) -> ConfigurationError:
        return ConfigurationError(
            f"spec.prefect.deployment: Prefect has no deployment {self._prefect.deployment!r}; write flow/deployment "
            "as `prefect deployment ls` shows it, or deploy it",
            reason=ErrorReason.DEPLOYMENT_NOT_FOUND,
            service=Service.PREFECT,
        )

    async def _what_keeps_it(self, deployment: Json) -> tuple[str, str] | tuple[None, None]:
        """Why nothing would run the deployment's runs now: a reason and a message."""
        name = self._prefect.deployment
        if deployment.get("paused"):
            return "DeploymentPaused", f"deployment {name!r} is paused; resume it in Prefect"
        pool_name = deployment.get("work_pool_name")
        if not isinstance(pool_name, str):
            if deployment.get("status") == "READY":
                return None, None
            return "DeploymentNotReady", f"nothing serves deployment {name!r}; start the process that does"
        pool_path = f"/work_pools/{quote(pool_name, safe='')}"
        pool = await self._api.look(pool_path)
        if pool.get("is_paused"):
            return "WorkPoolPaused", f"work pool {pool_name!r} is paused; resume it in Prefect"
        if pool.get("status") != "READY":
            return "NoWorkerReady", f"no worker polls work pool {pool_name!r}; start one"
        queue_name = self._prefect.work_queue or deployment.get("work_queue_name")
        if isinstance(queue_name, str):
            queue = await self._api.look(f"{pool_path}/queues/{quote(queue_name, safe='')}", missing_ok=True)
            if queue.get("is_paused"):
                return "WorkQueuePaused", f"work queue {queue_name!r} is paused; resume it in Prefect"
        return None, None

    async def flow_runs(self, *, ended_since: datetime) -> list[FlowRun]:
        """See `controller.scan.FlowServer.flow_runs`."""
        self._api.answered_at, self._horizon = None, ended_since
        # First the active ones: a run that ends in between is then found among the ended ones, never in neither.
        active = await self._runs({"state": {"type": {"any_": sorted(ACTIVE)}}})
        ended = {"state": {"type": {"any_": sorted(ENDED)}}, "end_time": {"after_": ended_since.isoformat()}}
        return active + await self._runs(ended)

    async def appeared(self) -> list[FlowRun]:
        """See `controller.scan.FlowServer.appeared`."""
        since, self._api.answered_at = (self._api.answered_at or self._horizon) - OVERLAP, None
        mine, moment = self._own_runs[-OWN_RUNS_LEFT_OUT:], since.isoformat()
        # A run that somebody retries keeps its old expected start time and gets a new scheduled one.
        retried = {"expected_start_time": {"before_": moment}, "next_scheduled_start_time": {"after_": moment}}
        return await self._runs({}, after=moment, leave_out=mine) + await self._runs(retried)

    async def _runs(self, wanted: Json, *, after: str | None = None, leave_out: Sequence[str] = ()) -> list[FlowRun]:
        flows: Json = {"name": {"any_": list(self._prefect.flows)}} if self._prefect.flows else {}
        return [self._run(raw) for raw in await self._api.runs(wanted, flows, after=after, leave_out=leave_out)]

    def _run(self, raw: Json) -> FlowRun:
        parameters = raw.get("parameters")
        video = parameters.get(self._prefect.video_id_parameter) if isinstance(parameters, Mapping) else None
        state = raw.get("state_type")
        return FlowRun(
            id=self._api.text(raw, "id"),
            name=str(raw.get("name", "")),
            # A state that we do not know may well mean work.
            state=StateType(state) if isinstance(state, str) and state in StateType.__members__ else StateType.PENDING,
            video_id=str(video) if isinstance(video, str | int) else None,
            end_time=self._api.time(raw, "end_time"),
        )

    async def recoveries(self, deployment: Deployment, video_ids: Sequence[str]) -> Recoveries:
        """See `controller.scan.FlowServer.recoveries`: asks for the first attempts, then on where there is one."""
        found: dict[str, tuple[Recovery, ...]] = {}
        attempt, remaining = 1, list(video_ids)
        while remaining:
            runs = await self._runs_by_key(deployment, remaining, attempt)
            for video_id, run in runs.items():
                found[video_id] = (*found.get(video_id, ()), Recovery(attempt, run))
            attempt, remaining = attempt + 1, list(runs)
        return found

    async def _runs_by_key(self, deployment: Deployment, video_ids: Sequence[str], attempt: int) -> dict[str, FlowRun]:
        videos = {idempotency_key(deployment.flow_id, video_id, attempt): video_id for video_id in video_ids}
        keys, runs = list(videos), {}
        for start in range(0, len(keys), KEYS_ASKED):
            asked = {"idempotency_key": {"any_": keys[start : start + KEYS_ASKED]}}
            for raw in await self._api.runs(asked, {"id": {"any_": [deployment.flow_id]}}):
                key = self._api.text(raw, "idempotency_key")
                if key not in videos:
                    raise self._channel.unexpected(f"a run with the key {key}, which nobody asked for")
                runs[videos[key]] = self._run(raw)
        return runs

    async def create(self, deployment: Deployment, batch: Sequence[Recover]) -> AsyncIterator[Created]:
        """See `controller.scan.FlowServer.create`."""
        bodies = [self._body(deployment, decision) for decision in batch]
        answers = await self._create_in_bulk(deployment, bodies) if self._has_bulk_route else None
        if answers is None:
            for body in bodies:
                yield self._own(await self._create_one(deployment, body))
        else:
            for answer in answers:
                yield self._own(answer)

    def _own(self, created: Created) -> Created:
        if created.run_id is not None:
            self._own_runs.append(created.run_id)
        return created

    def _body(self, deployment: Deployment, decision: Recover) -> Json:
        body: dict[str, object] = {
            "parameters": dict(decision.parameters),
            "tags": list(self._prefect.tags),
            "idempotency_key": idempotency_key(deployment.flow_id, decision.video.id, decision.attempt),
        }
        if self._prefect.work_queue:
            body["work_queue_name"] = self._prefect.work_queue
        return body

    async def _create_in_bulk(self, deployment: Deployment, bodies: Sequence[Json]) -> list[Created] | None:
        """The answers; `None` if they have to be created one by one."""
        try:
            results = await self._channel.send(lambda: self._post_bulk(deployment, bodies))
        except HttpError as error:
            if error.status == 404 and NO_SUCH_DEPLOYMENT in error.text:
                raise self._no_deployment() from None
            if error.status in {404, 405}:  # an older server
                self._has_bulk_route = False
                return None
            if error.status in {400, 413, 422}:  # one of them is refused, or all are too long: find out which
                return None
            raise self._channel.refused(error) from None
        return [self._created(result) for result in results]

    async def _post_bulk(self, deployment: Deployment, bodies: Sequence[Json]) -> list[object]:
        answer = await self._api.post(f"/deployments/{deployment.id}/create_flow_run/bulk", bodies)
        results = answer.get("results") if isinstance(answer, Mapping) else None
        if not isinstance(results, list) or len(results) != len(bodies):
            raise self._channel.unexpected(str(answer))
        if any(DATABASE_LOCKED in str(result) for result in results):
            # The server says so in an answer of 200. Nothing is lost by asking again: the keys are the same.
            raise HttpError(httpx.codes.SERVICE_UNAVAILABLE, DATABASE_LOCKED)
        return results

    def _created(self, result: object) -> Created:
        if not isinstance(result, Mapping):
            raise self._channel.unexpected(str(result))
        if result.get("status") == "CREATED":
            return Created(self._api.text(result, "flow_run_id"))
        return Created(None, self._channel.clean(f"Prefect refused the run: {result.get('error')}"))

    async def _create_one(self, deployment: Deployment, body: Json) -> Created:
        try:
            run = await self._channel.send(
                lambda: self._api.post(f"/deployments/{deployment.id}/create_flow_run", body)
            )
        except HttpError as error:
            if error.status == 404:
                raise self._no_deployment() from None
            if error.status in {400, 409, 413, 422}:
                return Created(None, f"Prefect refused the run: {error.text}")
            raise self._channel.refused(error) from None
        if not isinstance(run, Mapping):
            raise self._channel.unexpected(str(run))
        return Created(self._api.text(run, "id"))
