"""Prefect: looks whether old flow runs are alive, and asks them to stop. Never forces a state.

A run is asked to stop as `prefect flow-run cancel` does it. One that no infrastructure runs is CANCELLED at once; any
other one is CANCELLING until whoever runs it has ended it. Where nobody is left to do that it stays so, or is marked as
CANCELLED by the server after five minutes (`PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS`).
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

import httpx
from more_itertools import chunked

from controller.adapters.http import HttpError
from controller.adapters.prefect.api import Json, PrefectApi
from controller.flow_runs import FlowRun, StateType

HEARTBEAT = "prefect.flow-run.heartbeat"
"""The event that a running flow run sends every `PREFECT_FLOWS_HEARTBEAT_FREQUENCY` seconds, 30 at least."""

RUN = "prefect.flow-run."
"""What stands before a flow run's id where an event names the run."""

RUNS_ASKED = 50
"""Runs in one question: as many as Prefect answers events."""

AHEAD = timedelta(days=1)
"""How far events are asked for into the future."""

CANCEL_WAIT = 10
"""Seconds that runs get to stop within a scan: twice what a worker takes. One that takes longer is found ended by a
later scan."""


async def heartbeats(api: PrefectApi, run_ids: Sequence[str], *, since: datetime) -> set[str]:
    """Those of the runs that gave a sign of life since a time. A server that keeps no events knows of none."""
    alive: set[str] = set()
    for asked in chunked(run_ids, RUNS_ASKED):
        # One run may fill an answer with its events: what was found is left out until an answer says nothing new.
        while asked and (found := await _runs_with_events(api, asked, since)):
            alive |= found
            asked = [run_id for run_id in asked if run_id not in found]
    return alive


async def _runs_with_events(api: PrefectApi, run_ids: Sequence[str], since: datetime) -> set[str]:
    wanted = {
        "event": {"name": [HEARTBEAT]},
        "resource": {"id": [RUN + run_id for run_id in run_ids]},
        # The worker's clock may be ahead of the server's, which is where an answer ends by default.
        "occurred": {"since": since.isoformat(), "until": (since + AHEAD).isoformat()},
    }
    try:
        answer = await api.service.send(lambda: api.post("/events/filter", {"filter": wanted, "limit": RUNS_ASKED}))
    except HttpError as error:
        if error.status in {httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED}:
            return set()
        raise api.service.refused(error) from None
    events = answer.get("events") if isinstance(answer, Mapping) else None
    if not isinstance(events, list):
        raise api.service.unexpected(str(answer))
    found = {_resource(api, event).removeprefix(RUN) for event in events}
    if not found <= set(run_ids):
        raise api.service.unexpected("events that were not asked for")
    return found


def _resource(api: PrefectApi, event: object) -> str:
    resource = event.get("resource") if isinstance(event, Mapping) else None
    if not isinstance(resource, Mapping):
        raise api.service.unexpected(str(event))
    return api.text(resource, "prefect.resource.id")


async def cancel(api: PrefectApi, runs: Sequence[FlowRun], read: Callable[[Json], FlowRun]) -> list[FlowRun]:
    """Ask runs to stop, give them a moment, and tell how they are then; see `controller.ports.FlowServer.cancel`.

    Args:
        api: The server.
        runs: The runs as they were when somebody decided to stop them.
        read: Reads a run as the API has it.
    """
    known = {run.id: run for run in runs}
    for run in await _read_runs(api, list(known), read):
        if run.since == known[run.id].since:
            await _ask_to_stop(api, run.id)
    after = await _read_runs(api, list(known), read)
    for _ in range(CANCEL_WAIT):
        if not any(run.state is StateType.CANCELLING for run in after):
            break
        await asyncio.sleep(1)
        after = await _read_runs(api, list(known), read)
    return after


async def _ask_to_stop(api: PrefectApi, run_id: str) -> None:
    body = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    try:
        await api.service.send(lambda: api.post(f"/flow_runs/{run_id}/set_state", body))
    except HttpError as error:
        if error.status != httpx.codes.NOT_FOUND:  # it was deleted in the meantime
            raise api.service.refused(error) from None


async def _read_runs(api: PrefectApi, run_ids: Sequence[str], read: Callable[[Json], FlowRun]) -> list[FlowRun]:
    return [read(raw) for raw in await api.runs_by_id(run_ids)]
