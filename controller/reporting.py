"""From what happened to what the status says: counts, records and the summary line.

Pure: no I/O, no clock. Each function takes the status as it is and returns the status as it should be.
"""

from collections import Counter
from datetime import datetime

from controller.conditions import Findings, conditions, conditions_of_invalid
from controller.decisions import Failure, Skip
from controller.durations import format_duration
from controller.errors import ScanError
from controller.policy import Policy
from controller.scan import Outcome, Recovered, Result
from controller.schedule import Plan, fingerprint, request_token
from controller.status import (
    MAX_DECISIONS,
    MAX_DETAIL,
    MAX_MESSAGE,
    DecisionRecord,
    LastScan,
    PolicyStatus,
    ScanRecord,
    Stuck,
    Totals,
)
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
    record = _record(outcome, now)
    changes: dict[str, object] = {
        "last_scan": LastScan(**dict(record), decisions=_decision_records(outcome.results)),
        "history": (record, *status.history)[: policy.spec.history_limit],
        "totals": _totals(status.totals, record),
        "conditions": conditions(status, policy, findings, summary(outcome), plan, now=now),
        "observed_generation": policy.generation,
        **_planned(status, policy, plan),
    }
    if outcome.stuck is not None and outcome.order.video_id is None:
        changes["stuck"] = _stuck(outcome, now)
    if outcome.error is None:
        changes["last_successful_time"] = now
    if outcome.order.slot is not None:
        changes["last_schedule_time"] = outcome.order.slot
    if outcome.order.token is not None:
        changes["last_handled_reconcile_at"] = request_token(outcome.order.token)
    return status.model_copy(update=changes)


def after_check(status: PolicyStatus, policy: Policy, findings: Findings, plan: Plan, *, now: datetime) -> PolicyStatus:
    """The status once a new or edited policy was checked, with no scan; arguments as for `after_scan`."""
    message = "the policy is valid and both services answer"
    changes: dict[str, object] = {
        "conditions": conditions(status, policy, findings, message, plan, now=now),
        "observed_generation": policy.generation,
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


def summary(outcome: Outcome) -> str:
    """The scan in one sentence: for the log, for Events and for people."""
    counts = Counter(type(result) for result in outcome.results)
    text = (
        f"{len(outcome.results)} found: {counts[Recovered]} recovered, {counts[Skip]} skipped, {counts[Failure]} failed"
    )
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(_reasons(outcome.results).items()))
    return f"{text} ({reasons})" if reasons else text


def describe(result: Result) -> str:
    """What became of one video, in one line."""
    if isinstance(result, Recovered):
        return f"recovered video {result.video_id} by flow run {result.run_id}, attempt {result.attempt}"
    verb = "skipped" if isinstance(result, Skip) else "failed to recover"
    return f"{verb} video {result.video_id}: {result.reason}: {result.detail}"


def _planned(status: PolicyStatus, policy: Policy, plan: Plan) -> dict[str, object]:
    spec = policy.spec
    return {
        "observed_schedule": fingerprint(spec.schedule, spec.time_zone, suspend=spec.suspend),
        "next_schedule_time": plan.next_time,
        "last_missed_time": plan.missed or status.last_missed_time,
    }


def _record(outcome: Outcome, now: datetime) -> ScanRecord:
    counts = Counter(type(result) for result in outcome.results)
    return ScanRecord(
        trigger=outcome.order.trigger,
        start_time=outcome.started,
        completion_time=now,
        found=sum(counts.values()),
        recovered=counts[Recovered],
        skipped=counts[Skip],
        failed=counts[Failure],
        reasons=_reasons(outcome.results),
        error=outcome.error.message[:MAX_MESSAGE] if outcome.error else None,
        video=shown(outcome.order.video_id) if outcome.order.video_id else None,
    )


def _reasons(results: list[Result]) -> dict[str, int]:
    counted = Counter(str(result.reason) for result in results if not isinstance(result, Recovered))
    return dict(sorted(counted.items()))


def _decision_records(results: list[Result]) -> tuple[DecisionRecord, ...]:
    failures_first = sorted(results, key=lambda result: (Failure, Recovered, Skip).index(type(result)))
    return tuple(_decision_record(result) for result in failures_first[:MAX_DECISIONS])


def _decision_record(result: Result) -> DecisionRecord:
    if isinstance(result, Recovered):
        return DecisionRecord(
            video=result.video_id, decision="Recovered", flow_run=result.run_id, attempt=result.attempt
        )
    message = result.detail[:MAX_DETAIL] or None
    if isinstance(result, Skip):
        return DecisionRecord(video=result.video_id, decision="Skipped", reason=result.reason, message=message)
    return DecisionRecord(video=result.video_id, decision="Failed", reason=result.reason, message=message)


def _totals(totals: Totals, record: ScanRecord) -> Totals:
    return totals.model_copy(
        update={
            "scans": totals.scans + 1,
            "recovered": totals.recovered + record.recovered,
            "failed": totals.failed + record.failed,
        }
    )


def _stuck(outcome: Outcome, now: datetime) -> Stuck:
    videos = outcome.stuck or []
    oldest = min((video.created_at for video in videos), default=None)
    return Stuck(
        total=len(videos),
        oldest_age=format_duration(now - oldest) if oldest else None,
        by_status=dict(sorted(Counter(video.status for video in videos).items())),
    )
