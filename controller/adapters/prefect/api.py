"""Prefect's REST API: one question and its answer, and all runs that a filter finds. Knows no policy and no video.

Pages of runs follow `expected_start_time`, which Prefect sets once and never changes, so runs that come and go in
between shift nothing; runs that share one instant are told apart by leaving out those already seen.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from controller.adapters.http import HttpError, ServiceClient
from controller.api.policy import Prefect
from controller.errors import ConfigurationError, ErrorReason, Service

Json = Mapping[str, object]

NO_SUCH_DEPLOYMENT = "Deployment not found"
"""What Prefect says in a 404 for a deployment; one for an address that it does not know says something else."""


def no_deployment(prefect: Prefect) -> ConfigurationError:
    """What it means that Prefect has no such deployment."""
    return ConfigurationError(
        f"spec.prefect.deployment: Prefect has no deployment {prefect.deployment!r}",
        "write flow/deployment as `prefect deployment ls` shows it, or deploy it",
        reason=ErrorReason.DEPLOYMENT_NOT_FOUND,
        service=Service.PREFECT,
    )


class PrefectApi:
    """A client of one server.

    Args:
        http: Made by `service`, with the server's address and credentials.
        service: Sends, tries again, and words errors.
    """

    def __init__(self, http: httpx.AsyncClient, service: ServiceClient) -> None:
        self._http, self.service = http, service
        self.answered_at: datetime | None = None
        """By the server's own clock, when it took up the first request since this was last set to `None`."""
        self.clock: datetime | None = None
        """The server's own clock when it last answered, in whole seconds; `None` if it does not tell."""

    async def get(self, path: str) -> Json:
        """Ask for one object; raises `HttpError` as it comes."""
        answer = await self.ask(path)
        if not isinstance(answer, Mapping):
            raise self.service.unexpected(str(answer))
        return answer

    async def ask(self, path: str) -> object:
        """Ask for anything; raises `HttpError` as it comes."""
        return self._json(await self.service.send(lambda: self._http.get(path)))

    async def get_object(self, path: str, *, missing_ok: bool = False) -> Json:
        """Ask for one object; raises `ServiceError`, or answers with an empty one if it may be missing."""
        try:
            return await self.get(path)
        except HttpError as error:
            if error.status == httpx.codes.NOT_FOUND and missing_ok:
                return {}
            raise self.service.refused(error) from None

    async def post(self, path: str, body: object) -> object:
        """Send a body once and return the answer; to be wrapped in `service.send`."""
        return self._json(await self._http.post(path, json=body))

    async def runs(
        self, flow_runs: Json, flows: Json, *, after: str | None = None, leave_out: Sequence[str] = ()
    ) -> list[Json]:
        """All runs that a filter finds, the one that is to start first in front.

        Args:
            flow_runs: Prefect's filter of flow runs.
            flows: Its filter of flows; empty for all.
            after: Only runs with this expected start time or a later one.
            leave_out: Ids of runs that are not wanted.
        """
        runs: list[Json] = []
        seen: set[str] = set()
        seen_at_cursor: list[str] = []
        while page := await self._page(flow_runs, flows, after, [*leave_out, *seen_at_cursor]):
            ids = {self.text(run, "id") for run in page}
            if ids <= seen:
                raise self.service.unexpected("the same page of runs twice")
            seen |= ids
            runs += page
            cursor = page[-1].get("expected_start_time")
            if cursor != after:
                seen_at_cursor = []
            seen_at_cursor += [self.text(run, "id") for run in page if run.get("expected_start_time") == cursor]
            after = cursor if isinstance(cursor, str) else None
        return runs

    async def runs_by_id(self, run_ids: Sequence[str]) -> list[Json]:
        """Those of the runs with these ids that are there."""
        runs: list[Json] = []
        remaining = list(dict.fromkeys(run_ids))
        # A page may be cut; an empty one says that the others are gone.
        while remaining and (page := await self._page({"id": {"any_": remaining}}, {}, None, ())):
            ids = {self.text(run, "id") for run in page}
            if not ids <= set(remaining):
                raise self.service.unexpected("runs that were not asked for")
            remaining = [run_id for run_id in remaining if run_id not in ids]
            runs += page
        return runs

    async def _page(self, flow_runs: Json, flows: Json, after: str | None, leave_out: Sequence[str]) -> list[Json]:
        wanted = dict(flow_runs)
        if after:
            wanted["expected_start_time"] = {**_object(wanted.get("expected_start_time")), "after_": after}
        if leave_out:
            wanted["id"] = {**_object(wanted.get("id")), "not_any_": list(leave_out)}
        # No `limit`: a page is then as long as the server allows, 200 unless it is set to less.
        body = {"sort": "EXPECTED_START_TIME_ASC", "flow_runs": wanted, **({"flows": flows} if flows else {})}
        try:
            page = await self.service.send(lambda: self.post("/flow_runs/filter", body))
        except HttpError as error:
            raise self.service.refused(error) from None
        if not isinstance(page, list) or not all(isinstance(run, Mapping) for run in page):
            raise self.service.unexpected(str(page))
        return page

    def text(self, raw: Json, key: str) -> str:
        """A text that must be there."""
        value = raw.get(key)
        if not isinstance(value, str) or not value:
            raise self.service.unexpected(f"no {key} in {raw}")
        return value

    def time(self, raw: Json, key: str) -> datetime | None:
        """A time with its zone, or none."""
        value = raw.get(key)
        try:
            moment = datetime.fromisoformat(str(value)) if value is not None else None
        except ValueError:
            raise self.service.unexpected(f"no time as {key}: {value}") from None
        if moment is not None and moment.tzinfo is None:
            raise self.service.unexpected(f"a time without zone as {key}: {value}")
        return moment

    def _json(self, response: httpx.Response) -> object:
        self.clock = _date(response)
        if self.answered_at is None and self.clock is not None:
            self.answered_at = self.clock - response.elapsed
        try:
            return response.json()
        except (ValueError, RecursionError):
            raise self.service.unexpected(response.text) from None


def _object(value: object) -> Json:
    return value if isinstance(value, Mapping) else {}


def _date(response: httpx.Response) -> datetime | None:
    try:
        return parsedate_to_datetime(response.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return None
