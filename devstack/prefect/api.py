"""What tests ask of a Prefect server, by its REST API: deployments without a worker, runs in any state, counts."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

ACTIVE = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")
_PAGE = 200
_BULK = 100
_BUSY_TRIES = 100
_BUSY_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment of a flow; `full_name` is `flow/deployment`."""

    id: str
    flow_id: str
    full_name: str
    work_pool: str


class PrefectApi:
    """A Prefect server's REST API.

    `http` is a client of it, with the server's address and credentials, for whatever has no method here; it waits
    while the server answers 503, as one on SQLite does while it is busy. All methods raise httpx.HTTPStatusError
    with the answer in its message where the server refuses.
    """

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def create_flow(self, name: str) -> str:
        """Create a flow, or find it; return its id."""
        return str(self._ask("POST", "flows/", {"name": name})["id"])

    def create_work_pool(self, name: str, *, queues: Iterable[str] = (), kind: str = "process") -> None:
        """Create a work pool with its queue `default` and more queues; what exists stays as it is."""
        self._ask("POST", "work_pools/", {"name": name, "type": kind}, exists=True)
        for queue in queues:
            self._ask("POST", f"work_pools/{name}/queues", {"name": queue}, exists=True)

    def create_deployment(
        self,
        name: str,
        *,
        work_pool: str = "video-processing",
        work_queue: str = "default",
        queues: Iterable[str] = ("recovery",),
        **fields: Any,
    ) -> Deployment:
        """Create the deployment `flow/deployment`, with its flow and its work pool, whether or not these exist.

        `queues` are more queues of the pool; `fields` any other fields of Prefect's, such as `paused=True`.
        """
        flow, _, deployment = name.partition("/")
        flow_id = self.create_flow(flow)
        self.create_work_pool(work_pool, queues=queues)
        body = {
            "name": deployment,
            "flow_id": flow_id,
            "work_pool_name": work_pool,
            "work_queue_name": work_queue,
            **fields,
        }
        answer = self._ask("POST", "deployments/", body)
        return Deployment(str(answer["id"]), flow_id, name, work_pool)

    def deployment(self, name: str) -> dict[str, Any]:
        """Return what the server says of the deployment `flow/deployment`."""
        answer: dict[str, Any] = self._ask("GET", f"deployments/name/{name}")
        return answer

    def pretend_worker(self, work_pool: str = "video-processing") -> None:
        """Poll a pool once as a worker does: the pool, its queues and its deployments are READY, for a minute."""
        pool = f"work_pools/{work_pool}"
        self._ask("POST", f"{pool}/workers/heartbeat", {"name": "pretended", "heartbeat_interval_seconds": 30})
        self._ask("POST", f"{pool}/get_scheduled_flow_runs", {"limit": 1})

    def create_flow_run(
        self,
        deployment: Deployment,
        state: str = "SCHEDULED",
        *,
        parameters: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> str:
        """Create a run in a state of the type `state` and return its id; `fields` as for `create_flow_runs`."""
        return self.create_flow_runs(deployment, [parameters or {}], state, **fields)[0]

    def create_flow_runs(
        self,
        deployment: Deployment,
        parameters: Sequence[Mapping[str, Any]],
        state: str = "SCHEDULED",
        *,
        state_name: str | None = None,
        **fields: Any,
    ) -> list[str]:
        """Create one run for each of `parameters`, a hundred a request, and return the ids in order.

        `state` is a state type; `state_name` its name, such as `Late` or `AwaitingRetry`. `fields` are any other
        fields of each run, such as `tags`, `work_queue_name`, or (for a single one) `idempotency_key`.
        """
        state_body = {"type": state, "name": state_name} if state_name else {"type": state}
        runs = [{"parameters": dict(each), "state": state_body, **fields} for each in parameters]
        batches = [runs[start : start + _BULK] for start in range(0, len(runs), _BULK)]
        return [run_id for batch in batches for run_id in self._create_batch(deployment.id, batch)]

    def set_state(self, run_id: str, state: str, *, state_name: str | None = None) -> None:
        """Put a run into a state, whatever Prefect's rules say of the change."""
        body = {"type": state, "name": state_name} if state_name else {"type": state}
        self._ask("POST", f"flow_runs/{run_id}/set_state", {"state": body, "force": True})

    def flow_run(self, run_id: str) -> dict[str, Any]:
        """Return one run."""
        answer: dict[str, Any] = self._ask("GET", f"flow_runs/{run_id}")
        return answer

    def flow_runs(self, states: Iterable[str] = (), **filters: Any) -> list[dict[str, Any]]:
        """Return all runs, or those whose state type is one of `states`, oldest first.

        `filters` are Prefect's: `flow_runs={"tags": {"all_": ["recovery"]}}`, `deployments={…}`. Nothing may create
        runs meanwhile: the pages would shift.
        """
        body: dict[str, Any] = {**_filters(states, filters), "sort": "START_TIME_ASC", "limit": _PAGE}
        runs: list[dict[str, Any]] = []
        while True:
            page = self._ask("POST", "flow_runs/filter", {**body, "offset": len(runs)})
            runs.extend(page)
            if len(page) < _PAGE:
                return runs

    def count_flow_runs(self, states: Iterable[str] = (), **filters: Any) -> int:
        """Return the number of all runs, or as in `flow_runs`."""
        return int(self._ask("POST", "flow_runs/count", _filters(states, filters)))

    def wait_until_told(self, moment: datetime) -> None:
        """Wait until the server's clock, as it tells it, has reached a moment.

        It tells whole seconds, looks at its clock once in a second, and more seldom while it is busy.
        """
        while parsedate_to_datetime(self.http.get("health").headers["Date"]) < moment:
            time.sleep(_BUSY_SECONDS)

    def _create_batch(self, deployment_id: str, runs: list[dict[str, Any]]) -> list[str]:
        created: dict[int, str] = {}
        for _ in range(_BUSY_TRIES):
            missing = [place for place in range(len(runs)) if place not in created]
            body = [runs[place] for place in missing]
            results = self._ask("POST", f"deployments/{deployment_id}/create_flow_run/bulk", body)["results"]
            for place, result in zip(missing, results, strict=True):
                if _is_created(result):
                    created[place] = str(result["flow_run_id"])
            if len(created) == len(runs):
                return [created[place] for place in range(len(runs))]
            time.sleep(_BUSY_SECONDS)
        raise RuntimeError(f"{len(runs) - len(created)} runs were not created: the database stays locked")

    def _ask(self, method: str, path: str, body: Any = None, *, exists: bool = False) -> Any:
        response = self.http.request(method, path, json=body)
        if exists and response.status_code == httpx.codes.CONFLICT:
            return None
        if response.is_error:
            message = f"{method} {path}: {response.status_code} {response.text}"
            raise httpx.HTTPStatusError(message, request=response.request, response=response)
        return response.json() if response.content else None


class PatientTransport(httpx.HTTPTransport):
    """Sends a request again, for ten seconds, while the server says 503: SQLite was locked and nothing was done."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request; return the last answer."""
        response = super().handle_request(request)
        for _ in range(_BUSY_TRIES):
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            response.close()
            time.sleep(_BUSY_SECONDS)
            response = super().handle_request(request)
        return response


def _is_created(result: Mapping[str, Any]) -> bool:
    """Whether a run was created; while somebody else holds the lock, SQLite refuses some or all, in a 200."""
    if result["status"] != "CREATED" and "database is locked" not in result["error"]:
        raise RuntimeError(f"Prefect refused a run: {result['error']}")
    return bool(result["status"] == "CREATED")


def _filters(states: Iterable[str], filters: Mapping[str, Any]) -> dict[str, Any]:
    runs = dict(filters.get("flow_runs", {}))
    if types := list(states):
        runs["state"] = {"type": {"any_": types}}
    return {**filters, "flow_runs": runs}
