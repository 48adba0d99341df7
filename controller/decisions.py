"""What a scan concludes for each candidate: recover it, or skip it with a reason.

Pure: no I/O, no clock. `decide` runs every candidate through a chain of small checks, in order; the first that objects
gives the reason. What passes all of them shares the budget, oldest video first. A check looks at one video and never at
another one's decision; only the budget does.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from controller.flow_runs import Deployment, FlowRunIndex, Recoveries, next_attempt
from controller.policy import Mode, PolicySpec
from controller.videos import UnusableValueError, Video, render


class SkipReason(StrEnum):
    """Why a stuck video is left alone this time: the same word in status, Events, metrics and logs."""

    ACTIVE_FLOW_RUN = "ActiveFlowRun"
    """A flow run for it is scheduled, pending, running, paused or being cancelled."""
    RECENTLY_PROCESSED = "RecentlyProcessed"
    """A flow run for it ended within `stuck.recentRunWindow`; its status may still be on the way."""
    OVER_SCAN_LIMIT = "OverScanLimit"
    """The scan recovered `limits.perScan` older videos; this one's turn comes in a later scan."""
    DEPLOYMENT_NOT_READY = "DeploymentNotReady"
    """Nothing would run it now (no ready worker, or paused), and `prefect.holdUntilReady` holds the backlog."""
    OBSERVE_MODE = "ObserveMode"
    """The policy only observes; otherwise this video would have been recovered now."""
    INTERRUPTED = "Interrupted"
    """The scan ended before the video's turn: the controller stopped, the policy was deleted, or a service failed."""


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
    """The decision to create a recovery, with everything that it is created from."""

    video: Video
    attempt: int
    parameters: Mapping[str, str]


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


@dataclass(frozen=True, slots=True)
class Facts:
    """What the scan found out before it decides; complete, or the scan has failed before this."""

    index: FlowRunIndex
    recoveries: Recoveries
    deployment: Deployment


def decide(videos: Iterable[Video], facts: Facts, spec: PolicySpec, *, now: datetime) -> list[Decision]:
    """Conclude one decision for each video, oldest first.

    Args:
        videos: Stuck videos, each once, in any order: the order changes nothing.
        facts: What Prefect said.
        spec: The policy.
        now: The time of the scan.
    """
    decisions = [_decide_one(video, facts, spec, now) for video in sorted(videos, key=_oldest_first)]
    within_limits = _limit_per_scan(decisions, spec)
    return _observe(within_limits) if spec.mode is Mode.OBSERVE else within_limits


def flow_run_objection(video: Video, index: FlowRunIndex, spec: PolicySpec, *, now: datetime) -> Skip | None:
    """Whether a flow run speaks against a recovery: one that is active, or one that ended only just."""
    return _active_flow_run(video, index) or _recently_processed(video, index, spec, now)


def _oldest_first(video: Video) -> tuple[datetime, str]:
    return video.created_at, video.id


def _decide_one(video: Video, facts: Facts, spec: PolicySpec, now: datetime) -> Decision:
    for check in CHECKS:
        if objection := check(video, facts, spec, now):
            return objection
    try:
        parameters = {name: render(template, video.row) for name, template in spec.prefect.parameters.items()}
    except UnusableValueError as error:
        return Failure(video.id, FailureReason.INVALID_ROW, str(error))
    return Recover(video, next_attempt(facts.recoveries.get(video.id, ())), parameters)


def _check_flow_runs(video: Video, facts: Facts, spec: PolicySpec, now: datetime) -> Skip | None:
    """A video with a flow run at work, or just done, is not stuck."""
    return flow_run_objection(video, facts.index, spec, now=now)


def _check_deployment(video: Video, facts: Facts, spec: PolicySpec, _now: datetime) -> Skip | None:
    """A run that nothing would pick up only piles up: hold the backlog until the deployment is ready."""
    held = spec.prefect.hold_until_ready and facts.deployment.not_ready
    return Skip(video, SkipReason.DEPLOYMENT_NOT_READY, held) if held else None


Check = Callable[[Video, Facts, PolicySpec, datetime], Skip | None]

CHECKS: tuple[Check, ...] = (_check_flow_runs, _check_deployment)
"""The chain, in the order in which reasons take precedence."""


def _active_flow_run(video: Video, index: FlowRunIndex) -> Skip | None:
    for run in index.of(video.id):
        if run.active:
            return Skip(video, SkipReason.ACTIVE_FLOW_RUN, f"flow run {run.name} is {run.state}")
    return None


def _recently_processed(video: Video, index: FlowRunIndex, spec: PolicySpec, now: datetime) -> Skip | None:
    window = spec.stuck.recent_run_window
    if not window:
        return None
    for run in index.of(video.id):
        if run.end_time is not None and now - run.end_time < window:
            return Skip(video, SkipReason.RECENTLY_PROCESSED, f"flow run {run.name} ended {run.state} just now")
    return None


def _limit_per_scan(decisions: list[Decision], spec: PolicySpec) -> list[Decision]:
    """Keep the oldest recoveries that fit the scan's budget; a video that is not recovered uses none of it."""
    limit, taken = spec.limits.per_scan, 0
    limited: list[Decision] = []
    for decision in decisions:
        if isinstance(decision, Recover):
            taken += 1
            if taken > limit:
                detail = f"{limit} older videos came first"
                decision = Skip(decision.video, SkipReason.OVER_SCAN_LIMIT, detail)
        limited.append(decision)
    return limited


def _observe(decisions: list[Decision]) -> list[Decision]:
    return [
        Skip(decision.video, SkipReason.OBSERVE_MODE, f"attempt {decision.attempt} would be triggered")
        if isinstance(decision, Recover)
        else decision
        for decision in decisions
    ]
