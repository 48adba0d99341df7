"""What a scan prepared, and how it ended: what was found, what became of each video, what ended the scan early.

Whatever happens, what was done until then is in the outcome, so that it is counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from controller.api.manifest import Policy
from controller.decisions.decision import Decision, Failure, Recover, Skip
from controller.decisions.facts import Facts
from controller.errors import ErrorReason, ScanError
from controller.flow_runs import Deployment, FlowRun, Recoveries
from controller.schedule import ScanRequest
from controller.videos import Video


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


@dataclass(frozen=True, slots=True)
class PreparedScan:
    """A scan up to its decisions. Nothing has been changed yet.

    Attributes:
        policy: A snapshot of the policy; a change of the resource during the scan changes nothing here.
        request: Why the scan runs.
        started: The time of the scan, for every decision in it.
        stuck: The stuck videos; `None` if Supabase could not tell. Rows that cannot be read are not among them.
        deployment: What Prefect said of it; `None` if it was not asked, or did not answer.
        facts: What was found out about the stuck videos; `None` if the scan did not come so far, or none is stuck.
        snapshot: Their earlier recoveries; `None` as for `facts`.
        decisions: What the scan concludes, with a failure for each row that cannot be read; without decisions for the
            stuck videos if the scan did not come so far.
        error: What ended it early, if anything did.
    """

    policy: Policy
    request: ScanRequest
    started: datetime
    stuck: tuple[Video, ...] | None = None
    deployment: Deployment | None = None
    facts: Facts | None = None
    snapshot: RecoverySnapshot | None = None
    decisions: tuple[Decision, ...] = ()
    error: ScanError | None = None

    @property
    def recoveries(self) -> list[Recover]:
        """The decisions to recover a video."""
        return [decision for decision in self.decisions if isinstance(decision, Recover)]

    @property
    def left_alone(self) -> list[Skip | Failure]:
        """All other decisions."""
        return [decision for decision in self.decisions if not isinstance(decision, Recover)]


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
class Outcome:
    """How a scan ended.

    Attributes:
        request: Why the scan ran.
        started: When.
        stuck: The stuck videos; `None` if Supabase could not tell. Rows that cannot be read are not among them.
        deployment: What Prefect said of it; `None` if it was not asked, or did not answer.
        snapshot: The earlier recoveries; `None` if the scan did not come so far as to decide.
        created_until: When the last of this scan's recoveries was created, by Prefect's clock; `None` if not known.
        results: What became of each video.
        error: What ended the scan early, if anything did.
    """

    request: ScanRequest
    started: datetime
    stuck: Sequence[Video] | None = None
    deployment: Deployment | None = None
    snapshot: RecoverySnapshot | None = None
    created_until: datetime | None = None
    results: Sequence[Result] = field(default_factory=tuple)
    error: ScanError | None = None

    @property
    def recovered(self) -> Sequence[Recovered]:
        """The videos for which a flow run was created."""
        return [result for result in self.results if isinstance(result, Recovered)]


def broken_off(request: ScanRequest, defect: Exception, *, now: datetime) -> Outcome:
    """The outcome of a scan that a defect of ours ended; a log has the details."""
    return Outcome(request, now, error=internal_error(defect))


def internal_error(defect: Exception) -> ScanError:
    """What a defect of ours is called towards users; a log has the details."""
    return ScanError(f"the controller failed: {type(defect).__name__}", reason=ErrorReason.INTERNAL_ERROR)
