"""How a scan ended: what was found, what became of each video, and what ended the scan early.

Kept by the scan as it goes, so that what was done stays counted whatever happens next.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from controller.decisions.decision import Failure, Skip
from controller.errors import ErrorReason, ScanError
from controller.flow_runs import Deployment, FlowRun, Recoveries
from controller.schedule import ScanRequest
from controller.videos import Video


@dataclass(frozen=True, slots=True)
class Recovered:
    """A video for which a flow run was created.

    Attributes:
        released: Whether that took it out of quarantine.
    """

    video: Video
    attempt: int
    run_id: str
    released: bool = False

    @property
    def video_id(self) -> str:
        """The id of the video."""
        return self.video.id


Result = Recovered | Skip | Failure


@dataclass(frozen=True, slots=True)
class RecoverySnapshot:
    """The earlier recoveries of the stuck videos, all of them, as Prefect showed them.

    Attributes:
        recoveries: By video, in the order of their attempts.
        since: Prefect's clock just before it was asked: a run that ended later may be shown as active. In whole
            seconds, as the status keeps it.
    """

    recoveries: Recoveries
    since: datetime

    @property
    def runs(self) -> list[FlowRun]:
        """The flow runs of them all."""
        return [recovery.run for of_video in self.recoveries.values() for recovery in of_video]


@dataclass(slots=True)
class Outcome:
    """How a scan ended.

    Attributes:
        stuck: The stuck videos; `None` if Supabase could not tell. Rows that cannot be read are not among them.
        deployment: What Prefect said of it; `None` if it was not asked, or did not answer.
        seen: The earlier recoveries; `None` if the scan did not come so far as to decide.
        created_until: When the last of this scan's recoveries was created, by Prefect's clock; `None` if not known.
        results: What became of each video.
        error: What ended the scan early, if anything did.
    """

    request: ScanRequest
    started: datetime
    stuck: list[Video] | None = None
    deployment: Deployment | None = None
    seen: RecoverySnapshot | None = None
    created_until: datetime | None = None
    results: list[Result] = field(default_factory=list)
    error: ScanError | None = None

    @property
    def recovered(self) -> Sequence[Recovered]:
        """The videos for which a flow run was created."""
        return [result for result in self.results if isinstance(result, Recovered)]

    def undecided(self) -> list[Video]:
        """The stuck videos that have no result yet."""
        decided = {result.video_id for result in self.results}
        return [video for video in self.stuck or () if video.id not in decided]

    def forget(self, video: Video) -> None:
        """Take out a video that got going by itself during the scan: there is nothing to recover or to count."""
        self.stuck = [other for other in self.stuck or () if other is not video]


def broken_off(request: ScanRequest, defect: Exception, *, now: datetime) -> Outcome:
    """The outcome of a scan that a defect of ours ended; a log has the details."""
    problem = ScanError(f"the controller failed: {type(defect).__name__}", reason=ErrorReason.INTERNAL_ERROR)
    return Outcome(request, now, error=problem)
