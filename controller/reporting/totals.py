"""Did it work? What became of earlier recoveries, without asking for more than a scan sees anyway.

Pure: no I/O, no clock. A scan sees the recoveries of the videos that are stuck. Those in flight that it does not see
belong to videos that left the stuck statuses: they worked. Two times on Prefect's clock keep every recovery from being
counted twice, also one whose controller was killed before it could write its status.
"""

from dataclasses import dataclass
from datetime import datetime

from controller.api.status import Confirmations, PolicyStatus, RecoveryCursor, Totals
from controller.flow_runs import StateType
from controller.outcome import Outcome, RecoverySnapshot


@dataclass(frozen=True, slots=True)
class Settlement:
    """The totals after a scan, and what the scan adds to them.

    Attributes:
        totals: With all counts but that of the scans.
        settled: What the scan settled; `None` if nothing.
        counted: What need not be counted again; `None` if no scan has asked Prefect yet.
    """

    totals: Totals
    settled: Confirmations | None
    counted: RecoveryCursor | None


def settle(status: PolicyStatus, outcome: Outcome) -> Settlement:
    """Settle earlier recoveries after a scan, and count the new ones.

    A scan narrowed to one video, or one that failed before it had seen all recoveries, settles nothing.
    """
    totals, settled = status.totals, Confirmations()
    seen = _seen(outcome)
    if seen is not None:
        totals = totals.model_copy(update={"recovered": totals.recovered + _adopted(seen, status.counted)})
        settled = _settle(totals, status.counted, seen)
    changes = {
        "recovered": totals.recovered + len(outcome.recovered),
        "confirmed": totals.confirmed + settled.confirmed,
        "failed": totals.failed + settled.failed,
    }
    after = totals.model_copy(update=changes)
    return Settlement(after, settled if settled != Confirmations() else None, _counted(status.counted, outcome))


def _seen(outcome: Outcome) -> RecoverySnapshot | None:
    """The earlier recoveries of all stuck videos; `None` if the scan did not see them all."""
    if outcome.request.video_ids:
        return None
    nothing_stuck = outcome.stuck == [] and outcome.deployment is None and outcome.error is None
    return RecoverySnapshot({}, outcome.started) if nothing_stuck else outcome.seen


def _adopted(seen: RecoverySnapshot, counted: RecoveryCursor | None) -> int:
    """How many recoveries no status knows of yet: somebody else created them, or a controller that was killed."""
    if counted is None:
        return 0
    news = sum(run.created is not None and run.created > counted.created_until for run in seen.runs)
    return max(0, news - counted.already)


def _settle(totals: Totals, counted: RecoveryCursor | None, seen: RecoverySnapshot) -> Confirmations:
    in_flight = totals.recovered - totals.confirmed - totals.failed
    still_active = failed = 0
    for run in seen.runs:
        if run.active or (run.end_time is not None and run.end_time > seen.since):
            still_active += 1
        elif run.state is not StateType.COMPLETED and _ended_since(counted, run.end_time, seen):
            failed += 1
    failed = min(failed, in_flight)
    return Confirmations(confirmed=max(0, in_flight - failed - still_active), failed=failed)


def _ended_since(counted: RecoveryCursor | None, end_time: datetime | None, seen: RecoverySnapshot) -> bool:
    """Whether something ended after what is counted and before the scan looked."""
    return end_time is not None and end_time <= seen.since and (counted is None or end_time > counted.ended_until)


def _counted(before: RecoveryCursor | None, outcome: Outcome) -> RecoveryCursor | None:
    """What is counted after a scan; its times never go back, for Prefect's clock is told late where it is busy."""
    if outcome.seen is None:
        return before
    since, own = outcome.seen.since, outcome.created_until
    before = before or RecoveryCursor(created_until=since, ended_until=since)
    # When the scan's own recoveries were created may not be known: their number is.
    unknown = len(outcome.recovered) if own is None else 0
    if outcome.request.video_ids:
        created_until = max(before.created_until, own or before.created_until)
        already = before.already if own is None else 0
        return RecoveryCursor(created_until=created_until, already=already + unknown, ended_until=before.ended_until)
    created = [run.created for run in outcome.seen.runs if run.created is not None]
    created_until = max([before.created_until, *created, *([own] if own else [])])
    return RecoveryCursor(created_until=created_until, already=unknown, ended_until=max(before.ended_until, since))
