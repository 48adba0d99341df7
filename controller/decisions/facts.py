"""What a scan has found out before it decides. Pure data, and the few questions that several checks ask of it."""

from dataclasses import dataclass, field
from datetime import datetime

from controller.api.policy import PolicySpec
from controller.decisions.attempts import attempts_that_count
from controller.flow_runs import Deployment, FlowRun, FlowRunIndex, Recoveries, Recovery
from controller.schedule import ScanRequest
from controller.videos import Video


@dataclass(frozen=True, slots=True)
class Facts:
    """What the scan has found out before it decides; complete, or the scan has failed before this.

    Attributes:
        spec: What the policy says.
        now: The time of the scan.
        request: Why the scan runs. Videos that it asks for by name are released from quarantine and back-off.
        index: The flow runs.
        deployment: The deployment that recoveries run.
        recoveries: Earlier recoveries of the videos.
        alive: The ids of flow runs that gave a sign of life of late.
        uploaded: The paths, in the policy's bucket, of files that are there.
    """

    spec: PolicySpec
    now: datetime
    request: ScanRequest
    index: FlowRunIndex
    deployment: Deployment
    recoveries: Recoveries = field(default_factory=dict)
    alive: frozenset[str] = frozenset()
    uploaded: frozenset[str] = frozenset()

    @property
    def by_name(self) -> bool:
        """Whether somebody asked for these videos by name: the scan then has no others."""
        return bool(self.request.video_ids)

    def attempts(self, video: Video) -> tuple[Recovery, ...]:
        """The earlier recoveries of a video that count now."""
        return attempts_that_count(self.recoveries.get(video.id, ()), self.spec.retry, now=self.now)

    def is_old(self, run: FlowRun) -> bool:
        """Whether a run is active and nothing has happened to it for longer than `stuck.abandonedRunAfter`."""
        limit = self.spec.stuck.abandoned_run_after
        return run.active and limit is not None and run.since is not None and self.now - run.since > limit

    def is_abandoned(self, run: FlowRun) -> bool:
        """Whether nobody works on an active run any more: it is old and gave no sign of life of late."""
        return self.is_old(run) and run.id not in self.alive

    def abandoned_runs(self, video: Video) -> tuple[FlowRun, ...]:
        """The abandoned flow runs of a video."""
        return tuple(run for run in self.index.of(video.id) if self.is_abandoned(run))
