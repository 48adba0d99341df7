"""Who may be recovered when not all may: the scan's budget, shared fairly between tenants.

Pure: no I/O, no clock. Only videos to which nothing else objects come here, so a video that cannot be recovered uses
none of the budget.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby

from controller.decisions.decision import Recover, Skip, SkipReason
from controller.decisions.facts import Facts
from controller.flow_runs import is_recovery


def share(wanted: Sequence[Recover], facts: Facts) -> list[Recover | Skip]:
    """Keep the recoveries that fit the limits, in the order in which they are to be created.

    Tenants take turns, and each sends the video that waits longest. A video waits from its creation or, once it was
    recovered, from the end of that attempt. Each recovery thereby goes to the end of the queue, so that no video is
    overtaken for ever.

    Args:
        wanted: Everything that could be recovered, in any order.
        facts: For the limits, the attempts so far, and the recoveries in flight.
    """
    limits, allowance, flow_id = facts.spec.limits, facts.request.allowance, facts.deployment.flow_id
    budget = limits.per_scan if allowance is None else min(allowance, limits.per_scan)
    in_flight, taken = facts.index.in_flight(flow_id), 0
    shared: list[Recover | Skip] = []
    for turn, recover in _in_turns(wanted, facts):
        if turn >= limits.per_tenant:
            detail = f"{limits.per_tenant} videos of its tenant have waited longer"
            shared.append(Skip(recover.video, SkipReason.OVER_TENANT_LIMIT, detail))
        elif in_flight >= limits.active and not _replaces_a_recovery(recover, flow_id):
            detail = f"{in_flight} recoveries are in flight"
            shared.append(Skip(recover.video, SkipReason.OVER_ACTIVE_LIMIT, detail))
        elif taken >= budget:
            ramping = "while it ramps up after a hold " if budget < limits.per_scan else ""
            detail = f"the scan takes {budget} videos {ramping}and others come first"
            shared.append(Skip(recover.video, SkipReason.OVER_SCAN_LIMIT, detail))
        else:
            taken += 1
            in_flight += not _replaces_a_recovery(recover, flow_id)
            shared.append(recover)
    return shared


def _replaces_a_recovery(recover: Recover, flow_id: str) -> bool:
    """Whether a recovery takes the place of one in flight: it is created only once that one has ended."""
    return any(is_recovery(run, flow_id) for run in recover.replaces)


def _in_turns(wanted: Sequence[Recover], facts: Facts) -> Iterator[tuple[int, Recover]]:
    """Each recovery with the number of its turn among those of its tenant (from 0), the first turns first."""

    def waits(recover: Recover) -> tuple[datetime, datetime, str]:
        video = recover.video
        signs = [recovery.last_sign for recovery in facts.recoveries.get(video.id, ())]
        return max([video.created_at, *(sign for sign in signs if sign)]), video.created_at, video.id

    def tenant(recover: Recover) -> str:
        return recover.video.tenant_id or ""

    by_tenant = groupby(sorted(wanted, key=lambda recover: (tenant(recover), waits(recover))), key=tenant)
    turns = [(turn, recover) for _, of_tenant in by_tenant for turn, recover in enumerate(of_tenant)]
    yield from sorted(turns, key=lambda each: (each[0], waits(each[1])))
