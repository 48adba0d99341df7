"""One policy, one turn: look at it afresh, do what is due, write the status.

The wiring between the API server, the schedule and the scan; decides nothing itself. Whoever calls it sees to it that a
policy has one turn at a time.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from controller.adapters.kubernetes.cluster import TRANSPORT_ERRORS, Cluster, PolicyKey
from controller.adapters.kubernetes.errors import ClusterError
from controller.adapters.kubernetes.events import EventRecorder
from controller.api.manifest import Policy, parse_policy, read_status
from controller.api.status import ConditionType, PolicyStatus
from controller.decisions.decision import Failure, Skip
from controller.errors import ConfigurationError, ScanError
from controller.operator.planning import describe_missed, plan_policy
from controller.outcome import Outcome, broken_off
from controller.ports import Services, Stop
from controller.reporting.conditions import Findings
from controller.reporting.status import after_check, after_invalid, after_plan, after_scan, newly_quarantined
from controller.reporting.summary import describe, describe_quarantined, summary
from controller.scan import Reporter, run_scan
from controller.schedule import Plan, ScanRequest

logger = logging.getLogger(__name__)

Clock = Callable[[], datetime]
Compute = Callable[[PolicyStatus], PolicyStatus]


@dataclass(frozen=True, slots=True)
class Tools:
    """What a turn needs from outside."""

    cluster: Cluster
    services: Services
    events: EventRecorder
    clock: Clock


async def reconcile(key: PolicyKey, tools: Tools, *, due_at: datetime, recheck: bool, stop: Stop) -> None:
    """Give a policy its turn.

    Args:
        key: The policy.
        tools: What a turn needs from outside.
        due_at: When it was found to be due; the wait for a place since then does not make a scan a missed one.
        recheck: Whether a Stalled policy is to be checked again.
        stop: Set to end a scan after its current batch.
    """
    manifest = await tools.cluster.policy(key.namespace, key.name)
    if manifest is None or manifest["metadata"]["uid"] != key.uid or "deletionTimestamp" in manifest["metadata"]:
        return
    status = read_status(manifest)
    try:
        policy = parse_policy(manifest)
        planned = plan_policy(policy, manifest, status, now=due_at)
    except ConfigurationError as error:
        await _report_invalid(key, tools, manifest, error)
        return
    is_new = status.observed_generation != policy.generation
    if is_new or (recheck and status.condition(ConditionType.STALLED) is not None):
        await _check(key, policy, planned, tools)
    if planned.request is not None:
        await _scan(key, policy, planned, replace(planned.request, allowance=status.ramp_up), tools, stop)
    elif not is_new:
        await _write(tools.cluster, key, lambda status: after_plan(status, policy, planned))
    if planned.missed is not None:
        await _report_missed(key, planned, tools)


async def _check(key: PolicyKey, policy: Policy, planned: Plan, tools: Tools) -> None:
    """See whether a new or edited policy could be scanned: its Secrets, its table, its deployment."""
    findings = await find_problems(policy, tools.services)
    now = tools.clock()
    changed = await _write(tools.cluster, key, lambda status: after_check(status, policy, findings, planned, now=now))
    if findings.error is not None and changed:
        logger.warning("%s/%s cannot be scanned: %s", key.namespace, key.name, findings.error)
        await tools.events.post(key, "Warning", findings.error.reason, findings.error.message)


async def find_problems(policy: Policy, services: Services) -> Findings:
    """See whether a policy could be scanned, without a scan."""
    supabase_answered = False
    try:
        async with services.connect(policy) as clients:
            await clients.table.check()
            if clients.store is not None:
                await clients.store.check()
            supabase_answered = True
            return Findings(supabase_answered, await clients.server.deployment())
    except ScanError as error:
        return Findings(supabase_answered, error=error)


async def _scan(key: PolicyKey, policy: Policy, planned: Plan, request: ScanRequest, tools: Tools, stop: Stop) -> None:
    reporter = _Reporter(key, planned, tools)
    try:
        await run_scan(policy, request, tools.services, reporter, now=tools.clock(), stop=stop)
    except (ApiException, ClusterError, *TRANSPORT_ERRORS):
        raise  # the outcome could not be written; the dispatcher gives the policy another turn
    except Exception as error:
        # A defect of ours must not look like a scan that never ran, nor be tried again every few seconds.
        logger.exception("the scan of %s/%s broke off", key.namespace, key.name)
        await reporter.report(policy, broken_off(request, error, now=tools.clock()))


def log_outcome(where: str, outcome: Outcome) -> None:
    """Log a scan in one line, and at debug level what became of each video.

    Args:
        where: The policy, for people.
        outcome: How the scan ended.
    """
    trigger = outcome.request.trigger
    if outcome.error is not None:
        logger.warning("%s: %s scan failed: %s; %s", where, trigger, outcome.error, summary(outcome))
    else:
        logger.info("%s: %s scan: %s", where, trigger, summary(outcome))
    for result in outcome.results:
        logger.debug("%s: %s", where, describe(result))


@dataclass(frozen=True, slots=True)
class _Reporter(Reporter):
    """The last step of a scan in a cluster."""

    key: PolicyKey
    planned: Plan
    tools: Tools

    async def report(self, policy: Policy, outcome: Outcome) -> None:
        now = self.tools.clock()
        quarantined: list[Skip] = []

        def compute(status: PolicyStatus) -> PolicyStatus:
            quarantined[:] = newly_quarantined(status, policy, outcome)
            return after_scan(status, policy, outcome, self.planned, now=now)

        await _write(self.tools.cluster, self.key, compute)
        log_outcome(f"{self.key.namespace}/{self.key.name}", outcome)
        await self._post_events(outcome, quarantined)

    async def _post_events(self, outcome: Outcome, quarantined: Sequence[Skip]) -> None:
        post = self.tools.events.post
        if outcome.recovered:
            await post(self.key, "Normal", "Recovered", summary(outcome))
        if quarantined:
            await post(self.key, "Warning", "Quarantined", describe_quarantined(quarantined))
        failures = [result for result in outcome.results if isinstance(result, Failure)]
        if failures:
            first = failures[0]
            text = f"{len(failures)} videos could not be recovered; the first is {first.video_id}: {first.detail}"
            await post(self.key, "Warning", "RecoveryFailed", text)
        if outcome.error is not None:
            await post(self.key, "Warning", outcome.error.reason, outcome.error.message)


async def _report_invalid(key: PolicyKey, tools: Tools, manifest: Mapping[str, Any], error: ConfigurationError) -> None:
    generation, now = manifest["metadata"]["generation"], tools.clock()
    if await _write(tools.cluster, key, lambda status: after_invalid(status, generation, error, now=now)):
        logger.warning("%s/%s is invalid: %s", key.namespace, key.name, error)
        await tools.events.post(key, "Warning", error.reason, error.message)


async def _report_missed(key: PolicyKey, planned: Plan, tools: Tools) -> None:
    text = describe_missed(planned)
    logger.warning("%s/%s: %s", key.namespace, key.name, text)
    await tools.events.post(key, "Warning", "MissedSchedule", text)


async def _write(cluster: Cluster, key: PolicyKey, compute: Compute) -> bool:
    def merged(current: Mapping[str, Any]) -> Mapping[str, Any]:
        return compute(read_status({"status": current})).to_manifest()

    return await cluster.update_status(key, merged)
