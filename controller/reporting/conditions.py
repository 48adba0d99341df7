"""What the conditions of a policy say, from what a scan or a check found out.

Pure: no I/O, no clock. Ready speaks of the whole; Stalled (somebody has to edit something) and Reconciling (the next
scan tries again) are there only while they are True, as kstatus expects; one condition each for Supabase, Prefect and
the deployment.
"""

from dataclasses import dataclass
from datetime import datetime

from controller.api.manifest import Policy
from controller.api.status import MAX_MESSAGE, Condition, ConditionType, PolicyStatus
from controller.errors import ConfigurationError, ErrorReason, ScanError, Service
from controller.flow_runs import Deployment
from controller.schedule import Plan


@dataclass(frozen=True, slots=True)
class Findings:
    """What a scan or a check saw of the services.

    Attributes:
        supabase_answered: Whether Supabase did its part.
        deployment: What Prefect said of the deployment; `None` if it was not asked or did not answer.
        error: What went wrong, if anything did.
    """

    supabase_answered: bool
    deployment: Deployment | None = None
    error: ScanError | None = None


_Draft = dict[ConditionType, tuple[str, str, str] | None]
"""The status, reason and message that a condition should have; `None` takes it away."""


def conditions(
    status: PolicyStatus, policy: Policy, findings: Findings, message: str, plan: Plan, *, now: datetime
) -> tuple[Condition, ...]:
    """All conditions after a scan or a check.

    Args:
        status: The status before; a condition that nothing was found out about stays as it is.
        policy: The policy, for its generation.
        findings: What was seen.
        message: What Ready says if nothing went wrong.
        plan: When the next scan comes, if one does.
        now: When a condition that changes has changed.
    """
    if findings.error is not None:
        draft = _failed(findings.error, plan.next_time)
    else:
        draft = {
            ConditionType.READY: ("True", "Succeeded", message),
            ConditionType.STALLED: None,
            ConditionType.RECONCILING: None,
            **_not_asked(status, findings),
        }
    return _merge(status, {**_services(findings), **draft}, policy.generation, now)


def _not_asked(status: PolicyStatus, findings: Findings) -> _Draft:
    """What a scan that had no reason to ask Prefect makes of an older complaint about it."""
    if findings.deployment is not None:
        return {}
    kinds = (ConditionType.PREFECT_REACHABLE, ConditionType.DEPLOYMENT_READY)
    doubtful = [kind for kind in kinds if (known := status.condition(kind)) and known.status == "False"]
    unknown = ("Unknown", "NotAsked", "nothing was stuck in the last scan, so Prefect was not asked")
    return dict.fromkeys(doubtful, unknown)


def conditions_of_invalid(
    status: PolicyStatus, generation: int, error: ScanError, *, now: datetime
) -> tuple[Condition, ...]:
    """All conditions of a policy that cannot even be planned."""
    return _merge(status, _failed(error, None), generation, now)


def _failed(error: ScanError, next_time: datetime | None) -> _Draft:
    """Configuration errors wait for an edit (Stalled); all others for the next scan (Reconciling)."""
    bad = ("True", str(error.reason), error.message)
    stalled = isinstance(error, ConfigurationError)
    retrying = not stalled and next_time is not None
    draft: _Draft = {
        ConditionType.READY: ("False", str(error.reason), error.message),
        ConditionType.STALLED: bad if stalled else None,
        ConditionType.RECONCILING: ("True", "Retrying", "the next scan tries again") if retrying else None,
    }
    if error.reason in {ErrorReason.SECRET_NOT_FOUND, ErrorReason.SECRET_FORBIDDEN}:
        unknown = ("Unknown", str(error.reason), error.message)
        draft |= {ConditionType.SUPABASE_REACHABLE: unknown, ConditionType.PREFECT_REACHABLE: unknown}
    return draft


def _services(findings: Findings) -> _Draft:
    draft: _Draft = {}
    if findings.supabase_answered:
        draft[ConditionType.SUPABASE_REACHABLE] = ("True", "Answered", "Supabase answers")
    if findings.deployment is not None:
        draft[ConditionType.PREFECT_REACHABLE] = ("True", "Answered", "Prefect answers")
        draft[ConditionType.DEPLOYMENT_READY] = _deployment_ready(findings.deployment)
    error = findings.error
    if error is None or error.service is None:
        return draft
    bad = ("False", str(error.reason), error.message)
    if error.service is Service.SUPABASE:
        draft[ConditionType.SUPABASE_REACHABLE] = bad
    elif error.reason is ErrorReason.DEPLOYMENT_NOT_FOUND:
        draft[ConditionType.PREFECT_REACHABLE] = ("True", "Answered", "Prefect answers")
        draft[ConditionType.DEPLOYMENT_READY] = bad
    else:
        draft[ConditionType.PREFECT_REACHABLE] = bad
    return draft


def _deployment_ready(deployment: Deployment) -> tuple[str, str, str]:
    if deployment.not_ready is None:
        return "True", "Ready", "the deployment is ready to run recoveries"
    return "False", deployment.not_ready_reason or "NotReady", deployment.not_ready


def _merge(status: PolicyStatus, draft: _Draft, generation: int, now: datetime) -> tuple[Condition, ...]:
    conditions: dict[str, Condition | None] = {condition.type: condition for condition in status.conditions}
    for kind, wanted in draft.items():
        before = conditions.get(kind)
        if wanted is None:
            conditions[kind] = None
            continue
        state, reason, message = wanted
        since = before.last_transition_time if before is not None and before.status == state else now
        conditions[kind] = Condition.model_validate(
            {
                "type": str(kind),
                "status": state,
                "reason": reason,
                "message": message[:MAX_MESSAGE],
                "last_transition_time": since,
                "observed_generation": generation,
            }
        )
    known = [conditions.pop(kind, None) for kind in ConditionType]
    return tuple(condition for condition in (*known, *conditions.values()) if condition is not None)
