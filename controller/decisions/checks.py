"""What can speak against the recovery of a video: a chain of small checks; the first that objects gives the reason.

Pure: no I/O, no clock. A check looks at one video and never at another one's decision, and has all its words: what it
asks, what it means, and what it saw. The chain comes in parts: a scan asks for what takes many requests only where
nothing cheaper objects.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import ClassVar

from typing_extensions import override

from controller.api.durations import format_duration
from controller.api.policy import AbandonedRunAction, Upload
from controller.decisions.attempts import next_try_at, released_at, used_up
from controller.decisions.decision import Skip, SkipReason
from controller.decisions.facts import Facts
from controller.flow_runs import FlowRun, StateType
from controller.videos import UnusableValueError, Video, render


class Check(ABC):
    """One question about one video.

    Attributes:
        title: What is asked, as a statement that is true where the check does not object.
        meaning: Why a video is left alone where it does.
    """

    title: ClassVar[str]
    meaning: ClassVar[str]

    @abstractmethod
    def objection(self, video: Video, facts: Facts) -> Skip | None:
        """Why the video has to be left alone; `None` if this check has nothing against its recovery.

        Raises:
            UnusableValueError: The row has a value that a template cannot take.
        """

    @abstractmethod
    def observation(self, video: Video, facts: Facts) -> str:
        """What this check saw where it does not object, for a person; errors as for `objection`."""


class _NoActiveFlowRun(Check):
    title = "No flow run works on it"
    meaning = "a video that a flow run works on is not stuck; a recovery would process it a second time"

    @override
    def objection(self, video: Video, facts: Facts) -> Skip | None:
        for run in facts.index.of(video.id):
            if run.active and not facts.is_abandoned(run):
                return Skip(video, SkipReason.ACTIVE_FLOW_RUN, f"flow run {run.name} is {run.state}")
        return None

    @override
    def observation(self, video: Video, facts: Facts) -> str:
        runs = facts.index.of(video.id)
        if not runs:
            return "no flow run, active or recently ended, names it"
        return ", ".join(f"flow run {run.name} is {run.state}" for run in runs)


class _NoAbandonedFlowRun(Check):
    title = "No abandoned flow run stands in its way"
    meaning = "a flow run may only look abandoned; unless the policy replaces such runs, a person looks first"

    @override
    def objection(self, video: Video, facts: Facts) -> Skip | None:
        replaces = facts.spec.stuck.abandoned_run_action is AbandonedRunAction.REPLACE
        for run in facts.abandoned_runs(video):
            # One that was asked to stop and has not is not asked again: it would use up the budget of every scan.
            if not replaces or run.state is StateType.CANCELLING:
                return Skip(video, SkipReason.ABANDONED_RUN, describe_abandoned(run, now=facts.now))
        return None

    @override
    def observation(self, video: Video, facts: Facts) -> str:
        limit = facts.spec.stuck.abandoned_run_after
        if limit is None:
            return "the policy sets no stuck.abandonedRunAfter"
        if replaced := facts.abandoned_runs(video):
            return ", ".join(f"flow run {run.name} is abandoned and will be replaced" for run in replaced)
        old = any(facts.is_old(run) for run in facts.index.of(video.id))
        return "it gives signs of life" if old else f"no active run is older than {format_duration(limit)}"


def describe_abandoned(run: FlowRun, *, now: datetime) -> str:
    """An abandoned run in words, for the person who has to look into it."""
    silence = max(timedelta(0), now - run.since) if run.since else timedelta(0)
    return (
        f"flow run {run.name} is {run.state} without a sign of life for {format_duration(silence)}; end it in Prefect "
        "if nothing works on it"
    )


class _NotRecentlyProcessed(Check):
    title = "No flow run ended just now"
    meaning = "a flow run that ended just now may have done its work; the status may still be on the way"

    @override
    def objection(self, video: Video, facts: Facts) -> Skip | None:
        window = facts.spec.stuck.recent_run_window
        if not window:
            return None
        for run in facts.index.of(video.id):
            if run.end_time is not None and facts.now - run.end_time < window:
                return Skip(video, SkipReason.RECENTLY_PROCESSED, f"flow run {run.name} ended {run.state} just now")
        return None

    @override
    def observation(self, video: Video, facts: Facts) -> str:
        window = facts.spec.stuck.recent_run_window
        return f"none ended within {format_duration(window)}" if window else "stuck.recentRunWindow is 0s: nobody looks"


class _NotQuarantined(Check):
    title = "It has attempts left"
    meaning = "a video that used up its attempts is left to a person; each further one may crash a worker again"

    @override
    def objection(self, video: Video, facts: Facts) -> Skip | None:
        attempts, retry = facts.attempts(video), facts.spec.retry
        if facts.by_name or not used_up(attempts, retry):
            return None
        until, window = released_at(attempts, retry), format_duration(retry.window)
        text = f"{len(attempts)} attempts within {window}, the last one {attempts[-1].run.state}"
        return Skip(video, SkipReason.QUARANTINED, f"{text}; released {_at(until)}" if until else text)

    @override
    def observation(self, video: Video, facts: Facts) -> str:
        used, retry = len(facts.attempts(video)), facts.spec.retry
        return f"{used} of {retry.max_attempts} attempts within {format_duration(retry.window)}"


class _NotBackingOff(Check):
    title = "Its back-off is over"
    meaning = "what has just failed most likely fails again, so each attempt waits longer than the one before"

    @override
    def objection(self, video: Video, facts: Facts) -> Skip | None:
        attempts = facts.attempts(video)
        ready = next_try_at(video.id, attempts, facts.spec.retry)
        if facts.by_name or ready is None or facts.now >= ready:
            return None
        last = attempts[-1]
        text = f"attempt {last.attempt} is {last.run.state}; the next one comes {_at(ready)}"
        return Skip(video, SkipReason.BACKING_OFF, text)

    @override
    def observation(self, video: Video, facts: Facts) -> str:
        attempts = facts.attempts(video)
        if not attempts:
            return "there is no earlier attempt"
        ready = next_try_at(video.id, attempts, facts.spec.retry)
        last = f"attempt {attempts[-1].attempt} is {attempts[-1].run.state}"
        return f"{last}; the wait ended {_at(ready)}" if ready else last


class _DeploymentReady(Check):
    title = "Something would run it"
    meaning = "a run that nothing picks up only waits in Prefect; the backlog is held until the deployment is ready"

    @override
    def objection(self, video: Video, facts: Facts) -> Skip | None:
        held = facts.spec.prefect.hold_until_ready and facts.deployment.not_ready
        return Skip(video, SkipReason.DEPLOYMENT_NOT_READY, held) if held else None

    @override
    def observation(self, video: Video, facts: Facts) -> str:
        if facts.deployment.not_ready is None:
            return "the deployment is ready"
        return f"{facts.deployment.not_ready}, but prefect.holdUntilReady is false"


class _FileUploaded(Check):
    title = "Its file is there"
    meaning = "a video without its file cannot be processed; Storage has the file only once its upload is complete"

    @override
    def objection(self, video: Video, facts: Facts) -> Skip | None:
        upload = facts.spec.upload
        if upload is None or (path := upload_path(video, upload)) in facts.uploaded:
            return None
        if facts.now - video.created_at <= upload.abandoned_after:
            return Skip(video, SkipReason.UPLOAD_IN_PROGRESS, f"no file {path} yet")
        text = f"no file {path} after {format_duration(upload.abandoned_after)}; upload it again"
        return Skip(video, SkipReason.UPLOAD_ABANDONED, text)

    @override
    def observation(self, video: Video, facts: Facts) -> str:
        upload = facts.spec.upload
        return f"the file {upload_path(video, upload)} is there" if upload else "the policy does not look at uploads"


MAX_PATH = 1024
"""Bytes of a path: no object store takes a longer one, and Storage refuses the question for all if it is far longer."""


def upload_path(video: Video, upload: Upload) -> str:
    """Where in the bucket the video's file belongs.

    Raises:
        UnusableValueError: The row has a value that cannot be part of the path.
    """
    path = render(upload.object_path, video.row)
    if len(path.encode()) > MAX_PATH:
        raise UnusableValueError(f"the path of its file in the bucket would be longer than {MAX_PATH} bytes")
    return path


FLOW_RUN_CHECKS: tuple[Check, ...] = (_NoActiveFlowRun(), _NoAbandonedFlowRun(), _NotRecentlyProcessed())
"""What the index of flow runs tells; asked again just before a recovery is created."""

CHEAP_CHECKS: tuple[Check, ...] = (*FLOW_RUN_CHECKS, _NotQuarantined(), _NotBackingOff(), _DeploymentReady())
"""All that goes without asking Storage."""

CHECKS: tuple[Check, ...] = (*CHEAP_CHECKS, _FileUploaded())
"""The chain, in the order in which reasons take precedence."""


def first_objection(video: Video, facts: Facts, checks: Sequence[Check] = CHECKS) -> Skip | None:
    """What the first of the checks that objects says; `None` if none does.

    Raises:
        UnusableValueError: The row has a value that a template cannot take.
    """
    return next((objection for check in checks if (objection := check.objection(video, facts))), None)


def passing(videos: Iterable[Video], facts: Facts, checks: Sequence[Check]) -> list[Video]:
    """The videos to which none of the checks objects."""
    return [video for video in videos if first_objection(video, facts, checks) is None]


def heartbeats_wanted(videos: Iterable[Video], facts: Facts) -> list[str]:
    """The ids of the runs for which it matters whether they gave a sign of life: the old ones that are running."""
    runs = (run for video in videos for run in facts.index.of(video.id))
    return [run.id for run in runs if run.state is StateType.RUNNING and facts.is_old(run)]


def _at(moment: datetime) -> str:
    return f"at {moment:%Y-%m-%d %H:%M} UTC"
