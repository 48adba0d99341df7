"""The words of a decision: recover a video, or skip it with a reason, or fail with one.

Words only. `checks` has the chain that finds objections, `limits` shares the budget, and `decide` puts them together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from controller.flow_runs import FlowRun
from controller.videos import Video


class SkipReason(StrEnum):
    """Why a stuck video is left alone this time: the same word in status, Events, metrics and logs."""

    ACTIVE_FLOW_RUN = "ActiveFlowRun"
    """A flow run for it is scheduled, pending, running, paused or being cancelled."""
    ABANDONED_RUN = "AbandonedRun"
    """Nothing has happened to its active flow run for longer than `stuck.abandonedRunAfter`, and it was not replaced:
    `abandonedRunAction` is Report, or the run does not stop."""
    RECENTLY_PROCESSED = "RecentlyProcessed"
    """A flow run for it ended within `stuck.recentRunWindow`; its status may still be on the way."""
    QUARANTINED = "Quarantined"
    """It used up its `retry.maxAttempts`; `retry.window`, or a request for it by name, releases it."""
    BACKING_OFF = "BackingOff"
    """Its last attempt ended too recently for the next one (`retry.backoff`)."""
    DEPLOYMENT_NOT_READY = "DeploymentNotReady"
    """Nothing would run it now (no ready worker, or paused), and `prefect.holdUntilReady` holds the backlog."""
    UPLOAD_IN_PROGRESS = "UploadInProgress"
    """Its file is not there, and it is younger than `upload.abandonedAfter`: it may still be uploading."""
    UPLOAD_ABANDONED = "UploadAbandoned"
    """Its file is not there although it is older than `upload.abandonedAfter`: somebody has to upload it again."""
    OVER_TENANT_LIMIT = "OverTenantLimit"
    """The scan recovered `limits.perTenant` videos of its tenant that wait longer."""
    OVER_ACTIVE_LIMIT = "OverActiveLimit"
    """`limits.active` recoveries are in flight."""
    OVER_SCAN_LIMIT = "OverScanLimit"
    """The scan recovered `limits.perScan` other videos; this one's turn comes in a later scan."""
    OBSERVE_MODE = "ObserveMode"
    """The policy only observes; otherwise this video would have been recovered now."""
    INTERRUPTED = "Interrupted"
    """The scan ended before the video's turn: the controller stopped, the policy was deleted, or a service failed."""


FOR_A_PERSON = frozenset({SkipReason.ABANDONED_RUN, SkipReason.QUARANTINED, SkipReason.UPLOAD_ABANDONED})
"""Reasons that do not go away by themselves: a person has to look into the video."""


class FailureReason(StrEnum):
    """Why one video could not be recovered although nothing speaks against it."""

    INVALID_ROW = "InvalidRow"
    """Its row holds a value that cannot be used."""
    REFUSED = "Refused"
    """Prefect refused this one run."""
    NOT_CREATED = "NotCreated"
    """The service failed while the run was being created; whether it exists shows in the next scan."""


@dataclass(frozen=True, slots=True)
class Recover:
    """The decision to create a recovery, with everything that it is created from.

    Attributes:
        released: Whether somebody asked for the video by name while it was quarantined.
        replaces: Abandoned flow runs that have to be stopped first.
    """

    video: Video
    attempt: int
    parameters: Mapping[str, str]
    released: bool = False
    replaces: tuple[FlowRun, ...] = ()


@dataclass(frozen=True, slots=True)
class Skip:
    """The decision to leave a video alone, with a reason and what was seen."""

    video: Video
    reason: SkipReason
    detail: str = ""

    @property
    def video_id(self) -> str:
        """The id of the video."""
        return self.video.id


@dataclass(frozen=True, slots=True)
class Failure:
    """A video that could not be recovered, with what its owner can do about it."""

    video_id: str
    reason: FailureReason
    detail: str


Decision = Recover | Skip | Failure
