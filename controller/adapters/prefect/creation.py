"""Prefect: creates the flow runs of recoveries, in bulk where the server can. Never changes or deletes a run."""

from collections.abc import AsyncIterator, Mapping, Sequence

import httpx

from controller.adapters.http import HttpError
from controller.adapters.prefect.api import NO_SUCH_DEPLOYMENT, Json, PrefectApi, no_deployment
from controller.api.policy import Prefect
from controller.decisions.decision import Recover
from controller.flow_runs import RELEASED, Deployment, idempotency_key
from controller.ports import CreatedRun

DATABASE_LOCKED = "database is locked"
"""What a Prefect server on SQLite says of runs that it could not create because it was writing something else."""


class RunCreator:
    """Creates runs of a policy's deployment.

    Args:
        api: The server.
        prefect: The deployment, tags and queue.
    """

    def __init__(self, api: PrefectApi, prefect: Prefect) -> None:
        self._api, self._service, self._prefect = api, api.service, prefect
        self._has_bulk_route = True

    async def create(self, deployment: Deployment, batch: Sequence[Recover]) -> AsyncIterator[CreatedRun]:
        """Create the runs of a batch; an answer for each, as it comes. See `controller.ports.FlowServer.create`."""
        created = await self._create_in_bulk(deployment, batch) if self._has_bulk_route else None
        if created is None:
            for decision in batch:
                yield await self._create_one(deployment, decision)
        else:
            for each in created:
                yield each

    def _body(self, deployment: Deployment, decision: Recover) -> Json:
        body: dict[str, object] = {
            "parameters": dict(decision.parameters),
            "tags": [*self._prefect.tags, *([RELEASED] if decision.released else [])],
            "idempotency_key": idempotency_key(deployment.flow_id, decision.video.id, decision.attempt),
        }
        if self._prefect.work_queue:
            body["work_queue_name"] = self._prefect.work_queue
        return body

    async def _create_in_bulk(self, deployment: Deployment, batch: Sequence[Recover]) -> list[CreatedRun] | None:
        """The answers; `None` if they have to be created one by one."""
        bodies = [self._body(deployment, decision) for decision in batch]
        try:
            results = await self._service.send(lambda: self._post_bulk(deployment, bodies))
        except HttpError as error:
            if error.status == 404 and NO_SUCH_DEPLOYMENT in error.text:
                raise no_deployment(self._prefect) from None
            if error.status in {404, 405}:  # an older server
                self._has_bulk_route = False
                return None
            if error.status in {400, 413, 422}:  # one of them is refused, or all are too long: find out which
                return None
            raise self._service.refused(error) from None
        # Prefect answers in the order of the question, and `_post_bulk` has seen that it answers for all.
        return [self._created(decision, result) for decision, result in zip(batch, results, strict=True)]

    async def _post_bulk(self, deployment: Deployment, bodies: Sequence[Json]) -> list[object]:
        answer = await self._api.post(f"/deployments/{deployment.id}/create_flow_run/bulk", bodies)
        results = answer.get("results") if isinstance(answer, Mapping) else None
        if not isinstance(results, list) or len(results) != len(bodies):
            raise self._service.unexpected(str(answer))
        if any(DATABASE_LOCKED in str(result) for result in results):
            # The server says so in an answer of 200. Nothing is lost by asking again: the keys are the same.
            raise HttpError(httpx.codes.SERVICE_UNAVAILABLE, DATABASE_LOCKED)
        return results

    def _created(self, decision: Recover, result: object) -> CreatedRun:
        if not isinstance(result, Mapping):
            raise self._service.unexpected(str(result))
        if result.get("status") == "CREATED":
            return CreatedRun(decision, self._api.text(result, "flow_run_id"))
        return CreatedRun(decision, None, self._service.clean(f"Prefect refused the run: {result.get('error')}"))

    async def _create_one(self, deployment: Deployment, decision: Recover) -> CreatedRun:
        body = self._body(deployment, decision)
        try:
            run = await self._service.send(
                lambda: self._api.post(f"/deployments/{deployment.id}/create_flow_run", body)
            )
        except HttpError as error:
            if error.status == 404:
                raise no_deployment(self._prefect) from None
            if error.status in {400, 409, 413, 422}:
                return CreatedRun(decision, None, f"Prefect refused the run: {error.text}")
            raise self._service.refused(error) from None
        if not isinstance(run, Mapping):
            raise self._service.unexpected(str(run))
        return CreatedRun(decision, self._api.text(run, "id"))
