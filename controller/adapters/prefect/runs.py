"""One flow run as Prefect's API has it, read into what decisions need."""

from collections.abc import Mapping
from datetime import datetime

from controller.adapters.prefect.api import Json, PrefectApi
from controller.flow_runs import FlowRun, StateType


def read_run(api: PrefectApi, raw: Json, video_id_parameter: str) -> FlowRun:
    """Read a run.

    Args:
        api: Checks what must be there.
        raw: The run as it came.
        video_id_parameter: The parameter that names the run's video.

    Raises:
        ServiceError: It is no run of Prefect's.
    """
    parameters = raw.get("parameters")
    video = parameters.get(video_id_parameter) if isinstance(parameters, Mapping) else None
    name, key, tags = raw.get("state_type"), raw.get("idempotency_key"), raw.get("tags")
    # A state that we do not know may well mean work.
    state = StateType(name) if isinstance(name, str) and name in StateType.__members__ else StateType.PENDING
    return FlowRun(
        id=api.text(raw, "id"),
        name=str(raw.get("name", "")),
        state=state,
        video_id=str(video) if isinstance(video, str | int) else None,
        end_time=api.time(raw, "end_time"),
        created=api.time(raw, "created"),
        since=_since(api, raw, state),
        key=key if isinstance(key, str) else None,
        tags=frozenset(map(str, tags)) if isinstance(tags, list) else frozenset(),
    )


def _since(api: PrefectApi, raw: Json, state: StateType) -> datetime | None:
    """Since when nothing has happened to a run.

    A run that is retried keeps its old start; what says so is the last change of its state, and when it is to go on.
    """
    times = [api.time(raw, name) for name in ("expected_start_time", "start_time", "next_scheduled_start_time")]
    changed = raw.get("state")
    if isinstance(changed, Mapping) and state is not StateType.CANCELLING:
        times.append(api.time(changed, "timestamp"))
    return max((time for time in times if time is not None), default=None)
