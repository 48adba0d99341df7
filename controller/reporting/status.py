"""From what happened to what the status says: counts, records and the summary line.

Pure: no I/O, no clock. Each function takes the status as it is and returns the status as it should be.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from statistics import median_low

from controller.api.durations import format_duration
from controller.api.manifest import Policy
from controller.api.status import (
    MAX_DECISIONS,
    MAX_DETAIL,
    MAX_MESSAGE,
    MAX_QUARANTINED,
    Confirmations,
    DecisionRecord,
    LastScan,
    PolicyStatus,
    Quarantine,
    RecoveryCursor,
    ScanRecord,
    Stuck,
    WaitTime,
)
from controller.decisions.decision import FOR_A_PERSON, Failure, Skip, SkipReason
from controller.errors import ScanError
from controller.outcome import Outcome, Recovered, Result
from controller.reporting.conditions import Findings, conditions, conditions_of_invalid
from controller.reporting.summary import count_reasons, summary
from controller.reporting.totals import update_totals
from controller.schedule import Plan, fingerprint, request_token
from controller.videos import shown


def after_scan(status: PolicyStatus, policy: Policy, outcome: Outcome, plan: Plan, *, now: datetime) -> PolicyStatus:
    """The status once a scan is done.

    Args:
        status: The status before.
        policy: The policy that was scanned.
        outcome: How the scan ended.
        plan: The plan that the scan came from.
        now: When it was done.
    """
    findings = Findings(outcome.stuck is not None, outcome.deployment, outcome.error)
    update = update_totals(status, outcome)
    record = _record(outcome, update.confirmations, now)
    changes: dict[str, object] = {
        "last_scan": LastScan(**dict(record), decisions=_decision_records(outcome.results)),
        "history": (record, *status.history)[: policy.spec.history_limit],
        "totals": update.totals.model_copy(update={"scans": status.totals.scans + 1}),
        "recovery_cursor": update.cursor,
        "quarantine": _quarantine(status.quarantine, outcome),
        "ramp_up": _ramp_up(status.ramp_up, policy, outcome),
        "conditions": conditions(status, policy, findings, summary(outcome), plan, now=now),
        "observed_generation": policy.generation,
        **_planned(status, policy, plan),
    }
    if outcome.stuck is not None and not outcome.request.video_ids:
        changes["stuck"] = _stuck(outcome, now)
    if outcome.error is None:
        changes["last_successful_time"] = now
    if outcome.request.slot is not None:
        changes["last_schedule_time"] = outcome.request.slot
    if outcome.request.token is not None:
        changes["last_handled_reconcile_at"] = request_token(outcome.request.token)
    return status.model_copy(update=changes)


def after_check(status: PolicyStatus, policy: Policy, findings: Findings, plan: Plan, *, now: datetime) -> PolicyStatus:
    """The status once a new or edited policy was checked, with no scan; arguments as for `after_scan`."""
    message = "the policy is valid and both services answer"
    changes: dict[str, object] = {
        "conditions": conditions(status, policy, findings, message, plan, now=now),
        "observed_generation": policy.generation,
        # Whatever is created from now on counts, also by a first scan that is killed before it can say so.
        "recovery_cursor": status.recovery_cursor or RecoveryCursor(created_until=now, ended_until=now),
        **_planned(status, policy, plan),
    }
    return status.model_copy(update=changes)


def after_plan(status: PolicyStatus, policy: Policy, plan: Plan) -> PolicyStatus:
    """The status once the schedule was planned anew, and nothing else happened."""
    return status.model_copy(update=_planned(status, policy, plan))


def after_invalid(status: PolicyStatus, generation: int, error: ScanError, *, now: datetime) -> PolicyStatus:
    """The status of a policy that cannot even be planned: its schedule or its spec is invalid."""
    changes: dict[str, object] = {
        "conditions": conditions_of_invalid(status, generation, error, now=now),
        "observed_generation": generation,
        "observed_schedule": None,
        "next_schedule_time": None,
    }
    return status.model_copy(update=changes)


def _planned(status: PolicyStatus, policy: Policy, plan: Plan) -> dict[str, object]:
    spec = policy.spec
    return {
        "observed_schedule": fingerprint(spec.schedule, spec.time_zone, suspend=spec.suspend),
        "next_schedule_time": plan.next_time,
        "last_missed_time": plan.missed or status.last_missed_time,
    }


def newly_quarantined(status: PolicyStatus, policy: Policy, outcome: Outcome) -> list[Skip]:
    """The videos that the status does not have in quarantine yet, so that each is announced once.

    Args:
        status: The status before the scan. Where it has more in quarantine than it lists, only those that the scan
            before could not know yet are taken to be new: their last attempt had not ended for the recentRunWindow.
        policy: The policy that was scanned.
        outcome: How the scan ended.
    """
    snapshot, before = outcome.snapshot, status.quarantine or Quarantine()
    if snapshot is None or outcome.request.video_ids:
        return []
    unknown = [skip for skip in _quarantined(outcome) if skip.video_id not in before.videos]
    if before.count <= len(before.videos) or status.recovery_cursor is None:
        return unknown
    horizon = status.recovery_cursor.ended_until - policy.spec.stuck.recent_run_window
    ended = {video_id: recoveries[-1].last_sign for video_id, recoveries in snapshot.recoveries.items()}
    return [skip for skip in unknown if (ended[skip.video_id] or horizon) > horizon]


def _quarantined(outcome: Outcome) -> list[Skip]:
    skips = (result for result in outcome.results if isinstance(result, Skip))
    return [skip for skip in skips if skip.reason is SkipReason.QUARANTINED]


def _quarantine(before: Quarantine | None, outcome: Outcome) -> Quarantine | None:
    """Who is quarantined after a scan; one that did not see all videos only knows whom it released."""
    if outcome.stuck is None or outcome.request.video_ids or (outcome.stuck and outcome.snapshot is None):
        released = {result.video_id for result in outcome.recovered if result.released}
        if before is None or not released:
            return before
        remaining = tuple(video_id for video_id in before.videos if video_id not in released)
        return Quarantine(count=max(len(remaining), before.count - len(released)), videos=remaining)
    videos = [skip.video_id for skip in _quarantined(outcome)]
    return Quarantine(count=len(videos), videos=tuple(videos[:MAX_QUARANTINED]))


RAMP_START = 10
"""The first scan after a hold recovers a tenth of what `limits.perScan` allows; each further one twice as many."""


def _ramp_up(before: int | None, policy: Policy, outcome: Outcome) -> int | None:
    """How many videos the next scan may recover; `None` for as many as the limits allow."""
    if outcome.request.video_ids or outcome.error is not None:
        return before
    reasons = {result.reason for result in outcome.results if isinstance(result, Skip)}
    if SkipReason.DEPLOYMENT_NOT_READY in reasons:
        return max(1, policy.spec.limits.per_scan // RAMP_START)
    if before is None or not reasons & {SkipReason.OVER_SCAN_LIMIT, SkipReason.OVER_ACTIVE_LIMIT}:
        return None  # at full speed, or nothing is left of the backlog
    return before * 2 if before * 2 < policy.spec.limits.per_scan else None


def _record(outcome: Outcome, confirmations: Confirmations | None, now: datetime) -> ScanRecord:
    counts = Counter(type(result) for result in outcome.results)
    return ScanRecord(
        trigger=outcome.request.trigger,
        start_time=outcome.started,
        completion_time=now,
        found=sum(counts.values()),
        recovered=counts[Recovered],
        skipped=counts[Skip],
        failed=counts[Failure],
        wait_time=_wait_time(outcome),
        confirmations=confirmations,
        reasons=count_reasons(outcome.results),
        error=outcome.error.message[:MAX_MESSAGE] if outcome.error else None,
        video=shown(", ".join(outcome.request.video_ids)) or None,
    )


def _decision_records(results: Sequence[Result]) -> tuple[DecisionRecord, ...]:
    return tuple(_decision_record(result) for result in sorted(results, key=_rank)[:MAX_DECISIONS])


def _rank(result: Result) -> int:
    """What a person has to look into comes first, what goes away by itself last."""
    if isinstance(result, Failure):
        return 0
    if isinstance(result, Recovered):
        return 2
    return 1 if result.reason in FOR_A_PERSON else 3


def _decision_record(result: Result) -> DecisionRecord:
    if isinstance(result, Recovered):
        return DecisionRecord(
            video=result.video_id, decision="Recovered", flow_run=result.run_id, attempt=result.attempt
        )
    message = result.detail[:MAX_DETAIL] or None
    if isinstance(result, Skip):
        return DecisionRecord(video=result.video_id, decision="Skipped", reason=result.reason, message=message)
    return DecisionRecord(video=result.video_id, decision="Failed", reason=result.reason, message=message)


def _wait_time(outcome: Outcome) -> WaitTime | None:
    waits = [outcome.started - recovered.video.created_at for recovered in outcome.recovered]
    if not waits:
        return None
    return WaitTime(median=format_duration(median_low(waits)), longest=format_duration(max(waits)))


def _stuck(outcome: Outcome, now: datetime) -> Stuck:
    videos = outcome.stuck or []
    oldest = min((video.created_at for video in videos), default=None)
    return Stuck(
        total=len(videos),
        oldest_age=format_duration(now - oldest) if oldest else None,
        by_status=dict(sorted(Counter(video.status for video in videos).items())),
    )
