"""Did it work? What became of earlier recoveries, without asking for more than a scan sees anyway.

Pure: no I/O, no clock. A scan sees the recoveries of the videos that are stuck. Those in flight that it does not see
belong to videos that left the stuck statuses: they worked. Two times on Prefect's clock, the recovery cursor, keep
every recovery from being counted twice, also one whose controller was killed before it could write its status.
"""

from dataclasses import dataclass
from datetime import datetime

from controller.api.status import Confirmations, PolicyStatus, RecoveryCursor, Totals
from controller.flow_runs import StateType
from controller.outcome import Outcome, RecoverySnapshot


@dataclass(frozen=True, slots=True)
class TotalsUpdate:
    """The totals after a scan, and what the scan adds to them.

    Attributes:
        totals: With all counts but that of the scans.
        confirmations: What the scan learned of earlier recoveries; `None` if nothing.
        cursor: How far the totals have counted; `None` if no scan has asked Prefect yet.
    """

    totals: Totals
    confirmations: Confirmations | None
    cursor: RecoveryCursor | None


def update_totals(status: PolicyStatus, outcome: Outcome) -> TotalsUpdate:
    """Count what became of earlier recoveries, and the new ones.

    A scan narrowed to one video, or one that failed before it had seen all recoveries, learns nothing of earlier ones.
    """
    totals, confirmations = status.totals, Confirmations()
    snapshot = _complete_snapshot(outcome)
    if snapshot is not None:
        adopted = _adopted(snapshot, status.recovery_cursor)
        totals = totals.model_copy(update={"recovered": totals.recovered + adopted})
        confirmations = _confirm(totals, status.recovery_cursor, snapshot)
    changes = {
        "recovered": totals.recovered + len(outcome.recovered),
        "confirmed": totals.confirmed + confirmations.confirmed,
        "failed": totals.failed + confirmations.failed,
    }
    cursor = _advance(status.recovery_cursor, outcome)
    return TotalsUpdate(
        totals.model_copy(update=changes), confirmations if confirmations != Confirmations() else None, cursor
    )


def _complete_snapshot(outcome: Outcome) -> RecoverySnapshot | None:
    """The earlier recoveries of all stuck videos; `None` if the scan did not see them all."""
    if outcome.request.video_ids:
        return None
    found_none = outcome.stuck is not None and not outcome.stuck
    nothing_stuck = found_none and outcome.deployment is None and outcome.error is None
    return RecoverySnapshot({}, outcome.started) if nothing_stuck else outcome.snapshot


def _adopted(snapshot: RecoverySnapshot, cursor: RecoveryCursor | None) -> int:
    """How many recoveries no status knows of yet: somebody else created them, or a controller that was killed."""
    if cursor is None:
        return 0
    news = sum(run.created is not None and run.created > cursor.created_until for run in snapshot.runs)
    return max(0, news - cursor.counted_later)


def _confirm(totals: Totals, cursor: RecoveryCursor | None, snapshot: RecoverySnapshot) -> Confirmations:
    in_flight = totals.recovered - totals.confirmed - totals.failed
    still_active = failed = 0
    for run in snapshot.runs:
        if run.active or (run.end_time is not None and run.end_time > snapshot.since):
            still_active += 1
        elif run.state is not StateType.COMPLETED and _ended_since(cursor, run.end_time, snapshot):
            failed += 1
    failed = min(failed, in_flight)
    return Confirmations(confirmed=max(0, in_flight - failed - still_active), failed=failed)


def _ended_since(cursor: RecoveryCursor | None, end_time: datetime | None, snapshot: RecoverySnapshot) -> bool:
    """Whether something ended after what is counted and before the scan asked."""
    return end_time is not None and end_time <= snapshot.since and (cursor is None or end_time > cursor.ended_until)


def _advance(before: RecoveryCursor | None, outcome: Outcome) -> RecoveryCursor | None:
    """The cursor after a scan; its times never go back, for Prefect's clock is told late where it is busy."""
    snapshot, own = outcome.snapshot, outcome.created_until
    if snapshot is None:
        return before
    before = before or RecoveryCursor(created_until=snapshot.since, ended_until=snapshot.since)
    # When the scan's own recoveries were created may not be known: their number is.
    unknown = len(outcome.recovered) if own is None else 0
    if outcome.request.video_ids:
        created_until = max(before.created_until, own or before.created_until)
        later = (before.counted_later if own is None else 0) + unknown
        return RecoveryCursor(created_until=created_until, counted_later=later, ended_until=before.ended_until)
    created = [run.created for run in snapshot.runs if run.created is not None]
    created_until = max([before.created_until, *created, *([own] if own else [])])
    ended_until = max(before.ended_until, snapshot.since)
    return RecoveryCursor(created_until=created_until, counted_later=unknown, ended_until=ended_until)
