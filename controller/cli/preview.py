"""A scan that only looks: what a scan would do right now, by the scan itself, which is not allowed to go on."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from controller.api.manifest import Policy
from controller.api.policy import PolicySpec
from controller.cli.clock import read_clock
from controller.cli.source import Source
from controller.decisions.attempts import next_attempt
from controller.decisions.decide import describe_recovery
from controller.decisions.decision import Decision, Failure, Recover, Skip
from controller.decisions.explain import why_not_stuck
from controller.decisions.facts import Facts
from controller.outcome import Outcome
from controller.ports import Services
from controller.scan import Reporter, run_scan
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


@dataclass
class Look(Reporter):
    """What a scan found, up to its decisions.

    Attributes:
        facts: `None` if nothing was stuck.
    """

    now: datetime
    outcome: Outcome | None = None
    facts: Facts | None = None
    decisions: Sequence[Decision] = ()

    async def approves(self, facts: Facts, decisions: Sequence[Decision]) -> bool:
        """See `controller.scan.Reporter`: nothing is carried out."""
        self.facts, self.decisions = facts, decisions
        return False

    async def report(self, policy: Policy, outcome: Outcome) -> None:
        """See `controller.scan.Reporter`."""
        self.outcome = outcome

    @property
    def conclusions(self) -> list["Conclusion"]:
        """One for each video, the oldest first, and those whose row cannot be read in front."""
        stuck, results = (self.outcome.stuck, self.outcome.results) if self.outcome else ([], [])
        videos = {video.id: video for video in stuck or ()}
        bad = [each for each in results if isinstance(each, Failure) and each.video_id not in videos]
        concluded = [self._conclusion(each, videos) for each in (*bad, *self.decisions)]
        return sorted(
            concluded, key=lambda each: (each.video.created_at.timestamp() if each.video else 0, each.video_id)
        )

    def _conclusion(self, decision: Decision, videos: dict[str, Video]) -> "Conclusion":
        if isinstance(decision, Recover):
            message, attempt = describe_recovery(decision), decision.attempt
            return Conclusion(decision.video.id, decision.video, "Recover", None, message, attempt)
        word, video = (
            ("Skip", decision.video) if isinstance(decision, Skip) else ("Fail", videos.get(decision.video_id))
        )
        return Conclusion(
            decision.video_id, video, word, str(decision.reason), decision.detail, self._attempt(decision)
        )

    def _attempt(self, decision: Decision) -> int | None:
        if self.facts is None or not isinstance(decision, Skip):
            return None
        return next_attempt(self.facts.recoveries.get(decision.video.id, ()))


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What a scan would do with one video.

    Attributes:
        video: `None` if its row cannot be read.
        decision: Recover, Skip or Fail.
        reason: Why not Recover.
        message: What was seen.
        attempt: The ordinal of the next recovery, if the scan found it out.
    """

    video_id: str
    video: Video | None
    decision: str
    reason: str | None
    message: str
    attempt: int | None


async def look(source: Source, policy: Policy, request: ScanRequest) -> Look:
    """Run a scan up to its decisions.

    Raises:
        click.ClickException: It did not come that far.
    """
    seen = Look(read_clock())
    outcome = await run_scan(policy, request, source.services, seen, now=seen.now, stop=asyncio.Event())
    if outcome.error is not None:
        raise source.in_words(outcome.error)
    return seen


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a scan did not find a video that somebody named.

    Attributes:
        exists: Whether the table has it at all.
        why: In a few words.
    """

    exists: bool
    why: str


async def why_missing(services: Services, policy: Policy, video_ids: Sequence[str]) -> dict[str, Missing]:
    """Tell videos that do not exist from those that are not stuck.

    Raises:
        ScanError: Supabase cannot tell.
    """
    at = policy.spec.supabase
    missing: dict[str, Missing] = {}
    async with services.connect(policy) as clients:
        for video_id in video_ids:
            row = await clients.table.row(video_id)
            if row is None:
                missing[video_id] = Missing(False, f"not found in {at.schema_name}.{at.table}")
            else:
                why = why_not_stuck(row, policy.spec, now=read_clock()) or "it got going during the scan"
                missing[video_id] = Missing(True, f"not stuck ({why})")
    return missing
