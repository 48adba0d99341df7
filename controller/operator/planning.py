"""What the schedule and the annotations of a policy say now. Pure: `now` is an argument."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from controller.api.manifest import Policy
from controller.api.names import REQUESTED_AT, REQUESTED_VIDEO
from controller.api.status import PolicyStatus
from controller.schedule import Plan, RequestAnnotations, ScheduleState, Timing, plan, request_token


def plan_policy(policy: Policy, manifest: Mapping[str, Any], status: PolicyStatus, *, now: datetime) -> Plan:
    """What the schedule and the annotations of a policy say now.

    Raises:
        ConfigurationError: The schedule is invalid.
    """
    spec = policy.spec
    timing = Timing(spec.schedule, spec.time_zone, spec.starting_deadline, spec.suspend, policy.uid)
    state = ScheduleState(status.observed_schedule, status.next_schedule_time, status.last_handled_reconcile_at)
    annotations = manifest["metadata"].get("annotations") or {}
    token, video_id = request_token(annotations.get(REQUESTED_AT)), annotations.get(REQUESTED_VIDEO) or None
    return plan(timing, state, RequestAnnotations(token, video_id), now=now)


def describe_missed(plan: Plan) -> str:
    """The scheduled time that a plan says was missed, and what happens about it, in a sentence."""
    caught_up = plan.request is not None and plan.request.slot == plan.missed
    what_now = "it is caught up now" if caught_up else "it is not caught up"
    return f"no scan could start at {plan.missed:%Y-%m-%d %H:%M %Z}; {what_now}"
