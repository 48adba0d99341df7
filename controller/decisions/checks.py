"""What can speak against the recovery of a video: a chain of small checks; the first that objects gives the reason.

Pure: no I/O, no clock. A check looks at one video and never at another one's decision. The chain comes in parts: a
scan finds out what is dear to know only for the videos to which nothing cheap objects.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from controller.api.durations import format_duration
from controller.api.policy import AbandonedRunAction, PolicySpec, Upload
from controller.decisions.attempts import next_try_at, released_at, used_up
from controller.decisions.decision import Skip, SkipReason
from controller.decisions.facts import Facts
from controller.flow_runs import FlowRun, StateType
from controller.videos import UnusableValueError, Video, render

Check = Callable[[Video, Facts, PolicySpec, datetime], Skip | None]


def first_objection(
    video: Video, facts: Facts, spec: PolicySpec, *, now: datetime, checks: Sequence[Check]
) -> Skip | None:
    """What the first of the checks that objects says; `None` if none does.

    Raises:
        UnusableValueError: The row has a value that a template cannot take.
    """
    return next((objection for check in checks if (objection := check(video, facts, spec, now))), None)


def passing(
    videos: Iterable[Video], facts: Facts, spec: PolicySpec, *, now: datetime, checks: Sequence[Check]
) -> list[Video]:
    """The videos to which none of the checks objects."""
    return [video for video in videos if first_objection(video, facts, spec, now=now, checks=checks) is None]


def is_old(run: FlowRun, spec: PolicySpec, *, now: datetime) -> bool:
    """Whether a run is active and nothing has happened to it for longer than `stuck.abandonedRunAfter`."""
    limit = spec.stuck.abandoned_run_after
    return run.active and limit is not None and run.since is not None and now - run.since > limit


def is_abandoned(run: FlowRun, facts: Facts, spec: PolicySpec, *, now: datetime) -> bool:
    """Whether nobody works on an active run any more: it is old and gave no sign of life of late."""
    return is_old(run, spec, now=now) and run.id not in facts.alive


def abandoned_runs(video: Video, facts: Facts, spec: PolicySpec, *, now: datetime) -> tuple[FlowRun, ...]:
    """The abandoned flow runs of a video."""
    return tuple(run for run in facts.index.of(video.id) if is_abandoned(run, facts, spec, now=now))


def active_flow_run(video: Video, facts: Facts, spec: PolicySpec, now: datetime) -> Skip | None:
    """A video that a flow run works on is not stuck."""
    for run in facts.index.of(video.id):
        if run.active and not is_abandoned(run, facts, spec, now=now):
            return Skip(video, SkipReason.ACTIVE_FLOW_RUN, f"flow run {run.name} is {run.state}")
    return None


def no_abandoned_run(video: Video, facts: Facts, spec: PolicySpec, now: datetime) -> Skip | None:
    """A run may only look abandoned: unless the policy says otherwise, a person looks first.

    One that was asked to stop and has not is not asked again: it would take a place of the budget in every scan.
    """
    replaces = spec.stuck.abandoned_run_action is AbandonedRunAction.REPLACE
    for run in abandoned_runs(video, facts, spec, now=now):
        if not replaces or run.state is StateType.CANCELLING:
            return Skip(video, SkipReason.ABANDONED_RUN, describe_abandoned(run, now))
    return None


def describe_abandoned(run: FlowRun, now: datetime) -> str:
    """An abandoned run in words for the person who has to see to it."""
    silence = max(timedelta(0), now - run.since) if run.since else timedelta(0)
    return (
        f"flow run {run.name} is {run.state} without a sign of life for {format_duration(silence)}; end it in Prefect "
        "if nothing works on it"
    )


def recently_processed(video: Video, facts: Facts, spec: PolicySpec, now: datetime) -> Skip | None:
    """A run that ended only just may have done its work: the status can still be on the way."""
    window = spec.stuck.recent_run_window
    if not window:
        return None
    for run in facts.index.of(video.id):
        if run.end_time is not None and now - run.end_time < window:
            return Skip(video, SkipReason.RECENTLY_PROCESSED, f"flow run {run.name} ended {run.state} just now")
    return None


def quarantined(video: Video, facts: Facts, spec: PolicySpec, now: datetime) -> Skip | None:
    """A video that uses up its attempts is left to a person: each further one may crash a worker again."""
    attempts = facts.attempts(video, spec, now)
    if facts.by_name or not used_up(attempts, spec.retry):
        return None
    until = released_at(attempts, spec.retry)
    text = (
        f"{len(attempts)} attempts within {format_duration(spec.retry.window)}, the last one {attempts[-1].run.state}"
    )
    return Skip(video, SkipReason.QUARANTINED, f"{text}; released {_at(until)}" if until else text)


def backing_off(video: Video, facts: Facts, spec: PolicySpec, now: datetime) -> Skip | None:
    """What has just failed most likely fails again."""
    attempts = facts.attempts(video, spec, now)
    ready = next_try_at(video.id, attempts, spec.retry)
    if facts.by_name or ready is None or now >= ready:
        return None
    last = attempts[-1]
    return Skip(
        video, SkipReason.BACKING_OFF, f"attempt {last.attempt} is {last.run.state}; the next one comes {_at(ready)}"
    )


def deployment_not_ready(video: Video, facts: Facts, spec: PolicySpec, _now: datetime) -> Skip | None:
    """A run that nothing would pick up only piles up: hold the backlog until the deployment is ready."""
    held = spec.prefect.hold_until_ready and facts.deployment.not_ready
    return Skip(video, SkipReason.DEPLOYMENT_NOT_READY, held) if held else None


def upload_complete(video: Video, facts: Facts, spec: PolicySpec, now: datetime) -> Skip | None:
    """Without its file a video cannot be processed: Storage has the file only once its upload is complete."""
    if spec.upload is None:
        return None
    path = upload_path(video, spec.upload)
    if path in facts.uploaded:
        return None
    limit = spec.upload.abandoned_after
    if now - video.created_at > limit:
        return Skip(
            video, SkipReason.UPLOAD_ABANDONED, f"no file {path} after {format_duration(limit)}; upload it again"
        )
    return Skip(video, SkipReason.UPLOAD_IN_PROGRESS, f"no file {path} yet")


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


FLOW_RUN_CHECKS: tuple[Check, ...] = (active_flow_run, no_abandoned_run, recently_processed)
"""What the index of flow runs tells; asked again just before a recovery is created."""

CHEAP_CHECKS: tuple[Check, ...] = (*FLOW_RUN_CHECKS, quarantined, backing_off, deployment_not_ready)
"""All that goes without asking Storage."""

CHECKS: tuple[Check, ...] = (*CHEAP_CHECKS, upload_complete)
"""The chain, in the order in which reasons take precedence."""


def heartbeats_wanted(videos: Iterable[Video], facts: Facts, spec: PolicySpec, *, now: datetime) -> list[str]:
    """The ids of the runs for which it matters whether they gave a sign of life: the old ones that are running."""
    runs = (run for video in videos for run in facts.index.of(video.id))
    return [run.id for run in runs if run.state is StateType.RUNNING and is_old(run, spec, now=now)]


def _at(moment: datetime) -> str:
    return f"at {moment:%Y-%m-%d %H:%M} UTC"
