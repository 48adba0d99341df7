"""Why a video is recovered or not, step by step: for a person who asks about one video.

Pure: no I/O, no clock. Decides nothing: it walks the chain of `controller.decisions.checks` and tells what each
check saw, also of those that do not object.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from controller.api.durations import format_duration
from controller.api.policy import Columns, PolicySpec
from controller.decisions.attempts import counted, next_try_at
from controller.decisions.checks import (
    CHECKS,
    Check,
    abandoned_runs,
    active_flow_run,
    backing_off,
    deployment_not_ready,
    is_old,
    no_abandoned_run,
    quarantined,
    recently_processed,
    upload_complete,
    upload_path,
)
from controller.decisions.facts import Facts
from controller.videos import Row, UnusableValueError, Video, is_stuck, read_rows, shown


@dataclass(frozen=True, slots=True)
class Step:
    """One check of one video.

    Attributes:
        title: What is asked.
        passed: Whether nothing speaks against a recovery.
        saw: What was seen.
        reason: The reason for a skip, where there is one.
    """

    title: str
    passed: bool
    saw: str
    reason: str = ""


def steps_of_row(row: Row, spec: PolicySpec, *, now: datetime) -> tuple[list[Step], Video | None]:
    """What the row says, and the video if it is stuck.

    Args:
        row: From `VideoTable.row`.
        spec: The policy.
        now: The time of the scan.
    """
    columns, stuck = spec.supabase.columns, spec.stuck
    deletion = _deletion(row, columns)
    videos, bad = read_rows([row], columns)
    if bad:
        return [deletion, Step("Its row can be read", False, bad[0].problem, "InvalidRow")], None
    video = videos[0]
    waits = video.status in stuck.statuses
    status = f"its status is {shown(video.status)}" + ("" if waits else f"; stuck are {', '.join(stuck.statuses)}")
    age, limit = now - video.created_at, stuck.age_of(video.status)
    old = f"it is {_in_minutes(age)} old; stuck from {format_duration(limit)} on"
    steps = [
        deletion,
        Step("Its status is a stuck one", waits, status),
        Step("It waits for long enough", age > limit, old),
    ]
    return steps, video if deletion.passed and is_stuck(video, stuck, now=now) else None


def _deletion(row: Row, columns: Columns) -> Step:
    title, column = "It is not deleted", columns.deleted_at
    if not column:
        return Step(title, True, "the policy names no column for that")
    if row.get(column) is None:
        return Step(title, True, f"{column} is null")
    return Step(title, False, f"it is deleted: {column} is {shown(row[column])}")


def _in_minutes(age: timedelta) -> str:
    minute = timedelta(minutes=1)
    return format_duration(max(timedelta(0), age if age < minute else age - age % minute))


def why_not_stuck(row: Row, spec: PolicySpec, *, now: datetime) -> str | None:
    """Why a video that exists is not stuck, in a few words; `None` if it is."""
    steps, video = steps_of_row(row, spec, now=now)
    if video is not None:
        return None
    return next(step.saw for step in steps if not step.passed)


def steps_of_checks(video: Video, facts: Facts, spec: PolicySpec, *, now: datetime) -> list[Step]:
    """What each check of the chain says of a stuck video, in the order in which they take precedence.

    Args:
        video: The video.
        facts: With all there is to know of it, also what a scan would not have asked for.
        spec: The policy.
        now: The time of the scan.
    """
    return [_step(check, video, facts, spec, now) for check in CHECKS]


def _step(check: Check, video: Video, facts: Facts, spec: PolicySpec, now: datetime) -> Step:
    title, saw = _SEEN[check]
    try:
        objection = check(video, facts, spec, now)
        if objection is not None:
            return Step(title, False, objection.detail, str(objection.reason))
        return Step(title, True, saw(video, facts, spec, now))
    except UnusableValueError as error:
        return Step(title, False, str(error), "InvalidRow")


def _saw_no_active_run(video: Video, facts: Facts, spec: PolicySpec, now: datetime) -> str:
    runs = facts.index.of(video.id)
    if not runs:
        return "no flow run, active or recently ended, names it"
    return ", ".join(f"flow run {run.name} is {run.state}" for run in runs)


def _saw_no_abandoned_run(video: Video, facts: Facts, spec: PolicySpec, now: datetime) -> str:
    limit = spec.stuck.abandoned_run_after
    if limit is None:
        return "the policy sets no stuck.abandonedRunAfter"
    replaced = abandoned_runs(video, facts, spec, now=now)
    if replaced:
        return ", ".join(f"flow run {run.name} is abandoned and will be replaced" for run in replaced)
    old = sum(is_old(run, spec, now=now) for run in facts.index.of(video.id))
    return f"no active run is older than {format_duration(limit)}" if not old else "it gives signs of life"


def _saw_nothing_recent(video: Video, facts: Facts, spec: PolicySpec, now: datetime) -> str:
    window = spec.stuck.recent_run_window
    return f"none ended within {format_duration(window)}" if window else "stuck.recentRunWindow is 0s: nobody looks"


def _saw_attempts_left(video: Video, facts: Facts, spec: PolicySpec, now: datetime) -> str:
    used, retry = len(facts.attempts(video, spec, now)), spec.retry
    return f"{used} of {retry.max_attempts} attempts within {format_duration(retry.window)}"


def _saw_no_wait(video: Video, facts: Facts, spec: PolicySpec, now: datetime) -> str:
    earlier = counted(facts.recoveries.get(video.id, ()), spec.retry, now=now)
    if not earlier:
        return "there is no earlier attempt"
    ready = next_try_at(video.id, earlier, spec.retry)
    last = f"attempt {earlier[-1].attempt} is {earlier[-1].run.state}"
    return f"{last}; the wait ended at {ready:%Y-%m-%d %H:%M} UTC" if ready else last


def _saw_readiness(video: Video, facts: Facts, spec: PolicySpec, now: datetime) -> str:
    if facts.deployment.not_ready is None:
        return "the deployment is ready"
    return f"{facts.deployment.not_ready}, but prefect.holdUntilReady is false"


def _saw_file(video: Video, facts: Facts, spec: PolicySpec, now: datetime) -> str:
    return (
        f"the file {upload_path(video, spec.upload)} is there" if spec.upload else "the policy does not look at uploads"
    )


_Saw = Callable[[Video, Facts, PolicySpec, datetime], str]

_SEEN: Mapping[Check, tuple[str, _Saw]] = {
    active_flow_run: ("No flow run works on it", _saw_no_active_run),
    no_abandoned_run: ("No abandoned flow run stands in its way", _saw_no_abandoned_run),
    recently_processed: ("No flow run ended just now", _saw_nothing_recent),
    quarantined: ("It has attempts left", _saw_attempts_left),
    backing_off: ("Its back-off is over", _saw_no_wait),
    deployment_not_ready: ("Something would run it", _saw_readiness),
    upload_complete: ("Its file is there", _saw_file),
}
