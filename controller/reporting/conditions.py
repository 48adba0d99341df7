"""What the conditions of a policy say, from what a scan or a check found out.

Pure: no I/O, no clock. Ready speaks of the whole; Stalled (somebody has to edit something) and Reconciling (the next
scan tries again) are there only while they are True, as kstatus expects; one condition each for Supabase, Prefect and
the deployment.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from controller.api.manifest import Policy
from controller.api.status import MAX_MESSAGE, Condition, ConditionType, PolicyStatus
from controller.errors import ConfigurationError, ErrorReason, ScanError, Service
from controller.flow_runs import Deployment
from controller.schedule import Plan


@dataclass(frozen=True, slots=True)
class Findings:
    """What a scan or a check found out about the services.

    Attributes:
        supabase_answered: Whether Supabase did its part.
        deployment: What Prefect said of the deployment; `None` if it was not asked or did not answer.
        error: What went wrong, if anything did.
    """

    supabase_answered: bool
    deployment: Deployment | None = None
    error: ScanError | None = None


@dataclass(frozen=True, slots=True)
class _Statement:
    """What a condition should say."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


_Draft = dict[ConditionType, _Statement | None]
"""What each condition should say; `None` takes it away, and one that is not named stays as it is."""


def conditions(
    status: PolicyStatus, policy: Policy, findings: Findings, message: str, plan: Plan, *, now: datetime
) -> tuple[Condition, ...]:
    """All conditions after a scan or a check.

    Args:
        status: The status before; a condition that nothing was found out about stays as it is.
        policy: The policy, for its generation.
        findings: What was found out.
        message: What Ready says if nothing went wrong.
        plan: When the next scan comes, if one does.
        now: When a condition that changes has changed.
    """
    if findings.error is not None:
        draft = _failed(findings.error, plan.next_time)
    else:
        draft = {
            ConditionType.READY: _Statement("True", "Succeeded", message),
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
    message = "nothing was stuck in the last scan, so Prefect was not asked"
    return dict.fromkeys(doubtful, _Statement("Unknown", "NotAsked", message))


def conditions_of_invalid(
    status: PolicyStatus, generation: int, error: ScanError, *, now: datetime
) -> tuple[Condition, ...]:
    """All conditions of a policy that cannot even be planned."""
    return _merge(status, _failed(error, None), generation, now)


def _failed(error: ScanError, next_time: datetime | None) -> _Draft:
    """Configuration errors wait for an edit (Stalled); all others for the next scan (Reconciling)."""
    stalled = isinstance(error, ConfigurationError)
    retrying = not stalled and next_time is not None
    draft: _Draft = {
        ConditionType.READY: _about(error, "False"),
        ConditionType.STALLED: _about(error, "True") if stalled else None,
        ConditionType.RECONCILING: _Statement("True", "Retrying", "the next scan tries again") if retrying else None,
    }
    if error.reason in {ErrorReason.SECRET_NOT_FOUND, ErrorReason.SECRET_FORBIDDEN}:
        unknown = _about(error, "Unknown")
        draft |= {ConditionType.SUPABASE_REACHABLE: unknown, ConditionType.PREFECT_REACHABLE: unknown}
    return draft


def _about(error: ScanError, status: Literal["True", "False", "Unknown"]) -> _Statement:
    return _Statement(status, str(error.reason), error.message)


def _services(findings: Findings) -> _Draft:
    draft: _Draft = {}
    if findings.supabase_answered:
        draft[ConditionType.SUPABASE_REACHABLE] = _Statement("True", "Answered", "Supabase answers")
    if findings.deployment is not None:
        draft[ConditionType.PREFECT_REACHABLE] = _PREFECT_ANSWERS
        draft[ConditionType.DEPLOYMENT_READY] = _deployment_ready(findings.deployment)
    error = findings.error
    if error is None or error.service is None:
        return draft
    if error.service is Service.SUPABASE:
        draft[ConditionType.SUPABASE_REACHABLE] = _about(error, "False")
    elif error.reason is ErrorReason.DEPLOYMENT_NOT_FOUND:
        draft[ConditionType.PREFECT_REACHABLE] = _PREFECT_ANSWERS
        draft[ConditionType.DEPLOYMENT_READY] = _about(error, "False")
    else:
        draft[ConditionType.PREFECT_REACHABLE] = _about(error, "False")
    return draft


_PREFECT_ANSWERS = _Statement("True", "Answered", "Prefect answers")


def _deployment_ready(deployment: Deployment) -> _Statement:
    if deployment.not_ready is None:
        return _Statement("True", "Ready", "the deployment is ready to run recoveries")
    return _Statement("False", deployment.not_ready_reason or "NotReady", deployment.not_ready)


def _merge(status: PolicyStatus, draft: _Draft, generation: int, now: datetime) -> tuple[Condition, ...]:
    conditions: dict[str, Condition | None] = {condition.type: condition for condition in status.conditions}
    for kind, statement in draft.items():
        conditions[kind] = _condition(kind, statement, conditions.get(kind), generation, now) if statement else None
    known = [conditions.pop(kind, None) for kind in ConditionType]
    return tuple(condition for condition in (*known, *conditions.values()) if condition is not None)


def _condition(
    kind: ConditionType, statement: _Statement, before: Condition | None, generation: int, now: datetime
) -> Condition:
    changed = before is None or before.status != statement.status
    return Condition(
        type=str(kind),
        status=statement.status,
        reason=statement.reason,
        message=statement.message[:MAX_MESSAGE],
        last_transition_time=now if changed or before is None else before.last_transition_time,
        observed_generation=generation,
    )
