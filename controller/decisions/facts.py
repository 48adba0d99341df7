"""What a scan has found out before it decides. Pure data."""

from dataclasses import dataclass, field
from datetime import datetime

from controller.api.policy import PolicySpec
from controller.decisions.attempts import counted
from controller.flow_runs import Deployment, FlowRunIndex, Recoveries, Recovery
from controller.schedule import ScanRequest
from controller.videos import Video


@dataclass(frozen=True, slots=True)
class Facts:
    """What the scan has found out before it decides; complete, or the scan has failed before this.

    Attributes:
        order: Why the scan runs. Videos that it asks for by name are released from quarantine and back-off.
        index: The flow runs.
        deployment: The deployment that recoveries run.
        recoveries: Earlier recoveries of the videos.
        alive: The ids of flow runs that gave a sign of life of late.
        uploaded: The paths, in the policy's bucket, of files that are there.
    """

    request: ScanRequest
    index: FlowRunIndex
    deployment: Deployment
    recoveries: Recoveries = field(default_factory=dict)
    alive: frozenset[str] = frozenset()
    uploaded: frozenset[str] = frozenset()

    def attempts(self, video: Video, spec: PolicySpec, now: datetime) -> tuple[Recovery, ...]:
        """The earlier recoveries of a video that count now."""
        return counted(self.recoveries.get(video.id, ()), spec.retry, now=now)

    @property
    def by_name(self) -> bool:
        """Whether somebody asked for these videos by name: the scan then has no others."""
        return bool(self.request.video_ids)
