"""Why a video is recovered or not, step by step: for a person who asks about one video.

Pure: no I/O, no clock. Decides nothing: it walks the chain of `controller.decisions.checks` and tells what each
check saw, also of those that do not object.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from controller.api.durations import format_duration
from controller.api.policy import Columns, PolicySpec
from controller.decisions.checks import CHECKS, Check
from controller.decisions.decision import FailureReason
from controller.decisions.facts import Facts
from controller.videos import Row, UnusableValueError, Video, is_stuck, read_rows, shown


@dataclass(frozen=True, slots=True)
class Step:
    """One check of one video.

    Attributes:
        title: What is asked.
        passed: Whether nothing speaks against a recovery.
        saw: What was seen.
        reason: The reason for a skip or a failure, where there is one.
        meaning: What a skip with this reason means, where a check of the chain objects.
    """

    title: str
    passed: bool
    saw: str
    reason: str = ""
    meaning: str = ""


def explain_row(row: Row, spec: PolicySpec, *, now: datetime) -> tuple[list[Step], Video | None]:
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
        return [deletion, Step("Its row can be read", False, bad[0].problem, str(FailureReason.INVALID_ROW))], None
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
    steps, video = explain_row(row, spec, now=now)
    if video is not None:
        return None
    return next(step.saw for step in steps if not step.passed)


def explain_checks(video: Video, facts: Facts) -> list[Step]:
    """What each check of the chain says of a stuck video, in the order in which they take precedence.

    Args:
        video: The video.
        facts: With all there is to know of it, also what a scan would not have asked for.
    """
    return [_explain(check, video, facts) for check in CHECKS]


def _explain(check: Check, video: Video, facts: Facts) -> Step:
    try:
        objection = check.objection(video, facts)
        if objection is None:
            return Step(check.title, True, check.observation(video, facts))
        return Step(check.title, False, objection.detail, str(objection.reason), check.meaning)
    except UnusableValueError as error:
        return Step(check.title, False, str(error), str(FailureReason.INVALID_ROW))
