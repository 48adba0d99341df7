"""Prefect: reads the flow runs, creates the recoveries. Never changes or deletes a run.

The index is complete or an error is raised. Pages follow `expected_start_time`, which Prefect sets once and never
changes, so runs that come and go in between shift nothing; runs that share one instant are told apart by leaving out
those already seen.
"""

from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import httpx

from controller.adapters.http import Channel, HttpError
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

DATABASE_LOCKED = "database is locked"
"""What a Prefect server on SQLite says of runs that it could not create because it was writing something else."""

Json = Mapping[str, object]


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
        yield PrefectServer(http, channel, prefect)


class PrefectServer:
    """A Prefect server or Prefect Cloud; see `controller.scan.FlowServer`."""

    def __init__(self, http: httpx.AsyncClient, channel: Channel, prefect: Prefect) -> None:
        self._http, self._channel, self._prefect = http, channel, prefect
        self._looked_at: datetime | None = None
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
            found = await self._get(f"/deployments/name/{quote(flow, safe='')}/{quote(name, safe='')}")
        except HttpError as error:
            # A server that does not know the address answers 404 as well, but does not speak of deployments.
            if error.status == 404 and "deployment" in error.text.lower():
                raise self._no_deployment() from None
            raise self._channel.refused(error) from None
        reason, message = await self._what_keeps_it(found)
        return Deployment(self._text(found, "id"), self._text(found, "flow_id"), message, reason)

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
        pool = await self._look(pool_path)
        if pool.get("is_paused"):
            return "WorkPoolPaused", f"work pool {pool_name!r} is paused; resume it in Prefect"
        if pool.get("status") != "READY":
            return "NoWorkerReady", f"no worker polls work pool {pool_name!r}; start one"
        queue_name = self._prefect.work_queue or deployment.get("work_queue_name")
        if isinstance(queue_name, str):
            queue = await self._look(f"{pool_path}/queues/{quote(queue_name, safe='')}", missing_ok=True)
            if queue.get("is_paused"):
                return "WorkQueuePaused", f"work queue {queue_name!r} is paused; resume it in Prefect"
        return None, None

    async def flow_runs(self, *, ended_since: datetime) -> list[FlowRun]:
        """See `controller.scan.FlowServer.flow_runs`."""
        self._looked_at, self._horizon = None, ended_since
        # First the active ones: a run that ends in between is then found among the ended ones, never in neither.
        active = await self._runs({"state": {"type": {"any_": sorted(ACTIVE)}}}, self._flows())
        ended = {"state": {"type": {"any_": sorted(ENDED)}}, "end_time": {"after_": ended_since.isoformat()}}
        return active + await self._runs(ended, self._flows())

    async def appeared(self) -> list[FlowRun]:
        """See `controller.scan.FlowServer.appeared`."""
        since, self._looked_at = (self._looked_at or self._horizon) - OVERLAP, None
        mine = self._own_runs[-OWN_RUNS_LEFT_OUT:]
        return await self._runs({}, self._flows(), after=since.isoformat(), leave_out=mine)

    def _flows(self) -> Json:
        return {"name": {"any_": list(self._prefect.flows)}} if self._prefect.flows else {}

    async def _runs(
        self, flow_runs: Json, flows: Json, *, after: str | None = None, leave_out: Sequence[str] = ()
    ) -> list[FlowRun]:
        """All runs that a filter finds, page by page; no `limit` is sent, so that a page is as long as allowed."""
        runs: list[FlowRun] = []
        seen_at_cursor: list[str] = []
        while page := await self._page(flow_runs, flows, after, [*leave_out, *seen_at_cursor]):
            runs += [self._run(raw) for raw in page]
            cursor = page[-1].get("expected_start_time")
            if cursor != after:
                seen_at_cursor = []
            seen_at_cursor += [self._text(raw, "id") for raw in page if raw.get("expected_start_time") == cursor]
            after = cursor if isinstance(cursor, str) else None
        return runs

    async def _page(self, flow_runs: Json, flows: Json, after: str | None, leave_out: Sequence[str]) -> list[Json]:
        wanted = dict(flow_runs)
        if after:
            wanted["expected_start_time"] = {"after_": after}
        if leave_out:
            wanted["id"] = {"not_any_": list(leave_out)}
        body = {"sort": "EXPECTED_START_TIME_ASC", "flow_runs": wanted, **({"flows": flows} if flows else {})}
        try:
            page = await self._ask("/flow_runs/filter", body)
        except HttpError as error:
            raise self._channel.refused(error) from None
        if not isinstance(page, list) or not all(isinstance(run, Mapping) for run in page):
            raise self._channel.unexpected(str(page))
        return page

    def _run(self, raw: Json) -> FlowRun:
        parameters = raw.get("parameters")
        video = parameters.get(self._prefect.video_id_parameter) if isinstance(parameters, Mapping) else None
        state, end_time = raw.get("state_type"), raw.get("end_time")
        return FlowRun(
            id=self._text(raw, "id"),
            name=str(raw.get("name", "")),
            # A state that we do not know may well mean work.
            state=StateType(state) if isinstance(state, str) and state in StateType.__members__ else StateType.PENDING,
            video_id=str(video) if isinstance(video, str | int) else None,
            end_time=datetime.fromisoformat(end_time) if isinstance(end_time, str) else None,
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
            for raw in await self._page(asked, {"id": {"any_": [deployment.flow_id]}}, None, ()):
                runs[videos[self._text(raw, "idempotency_key")]] = self._run(raw)
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
        path = f"/deployments/{deployment.id}/create_flow_run/bulk"

        async def create() -> list[object]:
            answer = self._json(await self._http.post(path, json=bodies))
            results = answer.get("results") if isinstance(answer, Mapping) else None
            if not isinstance(results, list) or len(results) != len(bodies):
                raise self._channel.unexpected(str(answer))
            if any(DATABASE_LOCKED in str(result) for result in results):
                # The server says so in an answer of 200. Nothing is lost by asking again: the keys are the same.
                raise HttpError(httpx.codes.SERVICE_UNAVAILABLE, DATABASE_LOCKED)
            return results

        try:
            results = await self._channel.send(create)
        except HttpError as error:
            if error.status == 404 and "deployment" in error.text.lower():
                raise self._no_deployment() from None
            if error.status in {404, 405}:  # an older server
                self._has_bulk_route = False
                return None
            if error.status in {400, 413, 422}:  # one of them is refused, or all are too long: find out which
                return None
            raise self._channel.refused(error) from None
        return [self._created(result) for result in results]

    def _created(self, result: object) -> Created:
        if not isinstance(result, Mapping):
            raise self._channel.unexpected(str(result))
        if result.get("status") == "CREATED":
            return Created(self._text(result, "flow_run_id"))
        return Created(None, self._channel.clean(f"Prefect refused the run: {result.get('error')}"))

    async def _create_one(self, deployment: Deployment, body: Json) -> Created:
        try:
            run = await self._ask(f"/deployments/{deployment.id}/create_flow_run", body)
        except HttpError as error:
            if error.status == 404:
                raise self._no_deployment() from None
            if error.status in {400, 409, 413, 422}:
                return Created(None, f"Prefect refused the run: {error.text}")
            raise self._channel.refused(error) from None
        if not isinstance(run, Mapping):
            raise self._channel.unexpected(str(run))
        return Created(self._text(run, "id"))

    async def _look(self, path: str, *, missing_ok: bool = False) -> Json:
        try:
            return await self._get(path)
        except HttpError as error:
            if error.status == 404 and missing_ok:
                return {}
            raise self._channel.refused(error) from None

    async def _get(self, path: str) -> Json:
        response = await self._channel.send(lambda: self._http.get(path))
        answer = self._json(response)
        if not isinstance(answer, Mapping):
            raise self._channel.unexpected(str(answer))
        return answer

    async def _ask(self, path: str, body: object) -> object:
        response = await self._channel.send(lambda: self._http.post(path, json=body))
        return self._json(response)

    def _json(self, response: httpx.Response) -> object:
        if self._looked_at is None:
            self._looked_at = _asked_at(response)
        try:
            return response.json()
        except ValueError:
            raise self._channel.unexpected(response.text) from None

    def _text(self, raw: Json, key: str) -> str:
        value = raw.get(key)
        if not isinstance(value, str) or not value:
            raise self._channel.unexpected(f"no {key} in {raw}")
        return value


def _asked_at(response: httpx.Response) -> datetime | None:
    """When the server took up a request, by the server's own clock; `None` if it does not tell the time."""
    try:
        return parsedate_to_datetime(response.headers["Date"]).astimezone(UTC) - response.elapsed
    except (KeyError, ValueError):
        return None
