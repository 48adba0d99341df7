"""What a scan would do right now: a scan up to its decisions, and what a person reads of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from controller.api.manifest import Policy
from controller.api.policy import PolicySpec
from controller.cli.clock import read_clock
from controller.cli.source import Source
from controller.decisions.attempts import next_attempt
from controller.decisions.decide import describe_recovery
from controller.decisions.decision import Failure, Recover, Skip
from controller.decisions.explain import why_not_stuck
from controller.outcome import PreparedScan
from controller.ports import Clients
from controller.scan import prepare
from controller.schedule import ScanRequest, Trigger
from controller.videos import Video


def with_age(policy: Policy, minutes: int | None) -> Policy:
    """The policy with another age from which on videos are stuck; `None` leaves it as it is."""
    if minutes is None:
        return policy
    age = timedelta(minutes=minutes)
    stuck = policy.spec.stuck.model_copy(update={"age": age, "age_by_status": {}})
    return replace(policy, spec=policy.spec.model_copy(update={"stuck": stuck}))


def describe_age(spec: PolicySpec) -> str:
    """From which age on videos are stuck, in minutes: `10 minutes`."""
    minutes = {status: f"{spec.stuck.age_of(status).total_seconds() / 60:g}" for status in spec.stuck.statuses}
    if len(set(minutes.values())) == 1:
        return f"{next(iter(minutes.values()))} minutes"
    return ", ".join(f"{number} ({status})" for status, number in minutes.items()) + " minutes"


def request_for(source: Source, video_ids: Sequence[str] = ()) -> ScanRequest:
    """A scan that a person asks for, by the limits that the controller's own scans have now."""
    return ScanRequest(
        Trigger.REQUEST, video_ids=tuple(video_ids), allowance=None if video_ids else source.status.ramp_up
    )


async def preview(source: Source, policy: Policy) -> PreparedScan:
    """A scan of all videos up to its decisions; nothing is changed.

    Raises:
        click.ClickException: It did not come that far.
    """
    async with source.connect(policy) as clients:
        return source.checked(await prepare(policy, request_for(source), clients, now=read_clock()))


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What a scan would do with one video.

    Attributes:
        video: `None` if its row cannot be read.
        decision: Recover, Skip or Fail.
        reason: Why not Recover.
        message: What was found out about it.
        attempt: The ordinal of the next recovery, if the scan found it out.
    """

    video_id: str
    video: Video | None
    decision: str
    reason: str | None
    message: str
    attempt: int | None


def conclusions(prepared: PreparedScan) -> list[Conclusion]:
    """One for each video, the oldest first, and those whose row cannot be read in front."""
    concluded = [_conclusion(decision, prepared) for decision in prepared.decisions]
    return sorted(concluded, key=lambda each: (each.video.created_at.timestamp() if each.video else 0, each.video_id))


def _conclusion(decision: Recover | Skip | Failure, prepared: PreparedScan) -> Conclusion:
    if isinstance(decision, Recover):
        message, attempt = describe_recovery(decision), decision.attempt
        return Conclusion(decision.video.id, decision.video, "Recover", None, message, attempt)
    reason, video_id = str(decision.reason), decision.video_id
    if isinstance(decision, Skip):
        return Conclusion(video_id, decision.video, "Skip", reason, decision.detail, _next_attempt(decision, prepared))
    video = next((each for each in prepared.stuck or () if each.id == video_id), None)
    return Conclusion(video_id, video, "Fail", reason, decision.detail, None)


def _next_attempt(skip: Skip, prepared: PreparedScan) -> int | None:
    return next_attempt(prepared.facts.recoveries.get(skip.video.id, ())) if prepared.facts else None


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a scan did not find a video that somebody named.

    Attributes:
        exists: Whether the table has it at all.
        why: In a few words.
    """

    exists: bool
    why: str


async def explain_missing(clients: Clients, policy: Policy, video_ids: Sequence[str]) -> dict[str, Missing]:
    """Tell videos that do not exist from those that are not stuck.

    Raises:
        ScanError: Supabase cannot tell.
    """
    at = policy.spec.supabase
    missing: dict[str, Missing] = {}
    for video_id in video_ids:
        row = await clients.table.row(video_id)
        if row is None:
            missing[video_id] = Missing(False, f"not found in {at.schema_name}.{at.table}")
        else:
            why = why_not_stuck(row, policy.spec, now=read_clock()) or "it got going during the scan"
            missing[video_id] = Missing(True, f"not stuck ({why})")
    return missing
