"""Flow runs as Prefect has them, and the index that tells which videos they work on.

Decides nothing and asks nobody. The index is complete or it does not exist: whoever builds it raises instead of leaving
a page out.
"""

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
    """

    id: str
    name: str
    state: StateType
    video_id: str | None
    end_time: datetime | None = None

    @property
    def active(self) -> bool:
        """Whether it processes its video, or still may."""
        return self.state in ACTIVE


@dataclass(frozen=True, slots=True)
class Recovery:
    """A flow run that was created to recover a video, and which attempt it was (1 is the first)."""

    attempt: int
    run: FlowRun


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
    """All active and recently ended flow runs, by the video they work on."""

    def __init__(self, runs: Iterable[FlowRun] = ()) -> None:
        self._by_video: dict[str, dict[str, FlowRun]] = {}
        self.add(runs)

    def add(self, runs: Iterable[FlowRun]) -> None:
        """Take in runs that were seen later than all those before."""
        for run in runs:
            if run.video_id is not None:
                # A run that was read twice counts once, in its later state.
                self._by_video.setdefault(same_id(run.video_id), {})[run.id] = run

    def of(self, video_id: str) -> tuple[FlowRun, ...]:
        """The runs that work, or recently worked, on a video."""
        return tuple(self._by_video.get(same_id(video_id), {}).values())


def idempotency_key(flow_id: str, video_id: str, attempt: int) -> str:
    """The key under which Prefect keeps one run: made of the flow, the video and the attempt, and of nothing else.

    Two controllers, a restart in between and the command line beside it all arrive at the same key; nothing of a policy
    or of a process may go into it.
    """
    return f"video-recovery/{flow_id}/{same_id(video_id)}/{attempt}"


Recoveries = Mapping[str, tuple[Recovery, ...]]
"""Earlier recoveries by the id of their video, in the order of their attempts."""


def next_attempt(earlier: tuple[Recovery, ...]) -> int:
    """The ordinal of a video's next recovery: the highest that exists, plus one."""
    return max((recovery.attempt for recovery in earlier), default=0) + 1
