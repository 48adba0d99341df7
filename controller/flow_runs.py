"""Flow runs as Prefect has them, and the index that tells which videos they work on.

Decides nothing and asks nobody. The index is complete or it does not exist: whoever builds it raises instead of leaving
a page out.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from controller.videos import same_id


class StateType(StrEnum):
    """The types of a Prefect state. Names of states are free text; types are not."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"


ENDED = frozenset({StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED})
"""A run in one of these does nothing any more."""

ACTIVE = frozenset(StateType) - ENDED
"""A run in one of these processes its video, or still may."""


@dataclass(frozen=True, slots=True)
class FlowRun:
    """One flow run, with just what decisions need.

    Attributes:
        video_id: The video it works on, as its parameters say; `None` for a run of something else.
        end_time: When it ended; `None` while it has not.
        created: When it was created; `None` if Prefect does not say.
        since: Since when nothing has happened to it: the latest of its planned start, its start and the last change of
            its state (but for being cancelled, which is no sign of life); `None` if Prefect does not say.
        key: Its idempotency key, if it has one.
    """

    id: str
    name: str
    state: StateType
    video_id: str | None
    end_time: datetime | None = None
    created: datetime | None = None
    since: datetime | None = None
    key: str | None = None
    tags: frozenset[str] = frozenset()

    @property
    def active(self) -> bool:
        """Whether it processes its video, or still may."""
        return self.state in ACTIVE


RELEASED = "video-recovery/released"
"""The tag of a recovery that somebody asked for by name while its video was quarantined: attempts count from it on."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """A flow run that was created to recover a video, and which attempt it was (1 is the first)."""

    attempt: int
    run: FlowRun

    @property
    def last_sign(self) -> datetime | None:
        """When it ended, or was created if it has not; `None` if Prefect does not say."""
        return self.run.end_time or self.run.created


@dataclass(frozen=True, slots=True)
class Deployment:
    """The deployment that recoveries run.

    Attributes:
        not_ready: Why nothing it starts would run now, in words for its owner; `None` if it is ready.
        not_ready_reason: The same as one word for a condition's `reason`.
    """

    id: str
    flow_id: str
    not_ready: str | None = None
    not_ready_reason: str | None = None


class FlowRunIndex:
    """All active and recently ended flow runs, by the video they work on. Never changes: news make a new one."""

    def __init__(self, runs: Iterable[FlowRun] = ()) -> None:
        self._by_video: Mapping[str, Mapping[str, FlowRun]] = _add({}, runs)

    def with_runs(self, runs: Iterable[FlowRun]) -> "FlowRunIndex":
        """The index with runs that were seen later than all those before."""
        return self._changed(_add(self._by_video, runs))

    def without_runs(self, runs: Iterable[FlowRun]) -> "FlowRunIndex":
        """The index without runs that the scan itself has stopped: they speak against nothing."""
        by_video = dict(self._by_video)
        for run in runs:
            for video_id in _videos(run) & by_video.keys():
                by_video[video_id] = {key: other for key, other in by_video[video_id].items() if key != run.id}
        return self._changed(by_video)

    @staticmethod
    def _changed(by_video: Mapping[str, Mapping[str, FlowRun]]) -> "FlowRunIndex":
        changed = FlowRunIndex()
        changed._by_video = by_video
        return changed

    def of(self, video_id: str) -> tuple[FlowRun, ...]:
        """The runs that work, or recently worked, on a video."""
        return tuple(self._by_video.get(same_id(video_id), {}).values())

    def recoveries_of(self, video_id: str, flow_id: str) -> tuple["Recovery", ...]:
        """Those of a video's runs that are recoveries by a flow, in the order of their attempts."""
        numbered = ((attempt_of(run, flow_id, video_id), run) for run in self.of(video_id))
        recoveries = (Recovery(attempt, run) for attempt, run in numbered if attempt is not None)
        return tuple(sorted(recoveries, key=lambda recovery: recovery.attempt))

    def in_flight(self, flow_id: str) -> int:
        """How many recoveries by a flow are active, of whatever videos."""
        runs = (run for of_video in self._by_video.values() for run in of_video.values())
        return len({run.id for run in runs if run.active and is_recovery(run, flow_id)})


def _add(by_video: Mapping[str, Mapping[str, FlowRun]], runs: Iterable[FlowRun]) -> Mapping[str, Mapping[str, FlowRun]]:
    added: dict[str, dict[str, FlowRun]] = {}
    for run in runs:
        for video_id in _videos(run):
            # A run that was read twice counts once, in its later state.
            added.setdefault(video_id, dict(by_video.get(video_id, {})))[run.id] = run
    return {**by_video, **added}


def _videos(run: FlowRun) -> set[str]:
    """The videos that a run works on: by its parameters, and by its key, which no edit of a policy renames."""
    named = {same_id(run.video_id)} if run.video_id is not None else set()
    by_key = _KEY.fullmatch(run.key or "")
    return named | {by_key["video"]} if by_key else named


_KEY = re.compile(r"video-recovery/[^/]+/(?P<video>.+)/[0-9]+", re.DOTALL)


def is_recovery(run: FlowRun, flow_id: str) -> bool:
    """Whether a run was created to recover some video by a flow."""
    return (run.key or "").startswith(_key_prefix(flow_id))


def _key_prefix(flow_id: str) -> str:
    return f"video-recovery/{flow_id}/"


def idempotency_key(flow_id: str, video_id: str, attempt: int) -> str:
    """The key under which Prefect keeps one run: made of the flow, the video and the attempt, and of nothing else.

    Two controllers, a restart in between and the command line beside it all arrive at the same key; nothing of a policy
    or of a process may go into it.
    """
    return f"{_key_prefix(flow_id)}{same_id(video_id)}/{attempt}"


def attempt_of(run: FlowRun, flow_id: str, video_id: str) -> int | None:
    """Which attempt at a video a run is, by its idempotency key; `None` if it is no recovery."""
    start, _, attempt = (run.key or "").rpartition("/")
    is_recovery = start == f"{_key_prefix(flow_id)}{same_id(video_id)}" and attempt.isdecimal()
    return int(attempt) if is_recovery else None


Recoveries = Mapping[str, tuple[Recovery, ...]]
"""Earlier recoveries by the id of their video, in the order of their attempts."""
