"""One policy, one reconcile: read it afresh, do what is due, write the status.

The wiring between a store of policies, the schedule and the scan; decides nothing itself. The store is a cluster or the
files of a policy. The caller makes sure that a policy is not reconciled twice at the same time.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from controller.api.manifest import Manifest, Policy, PolicyKey, parse_policy, read_status
from controller.api.status import ConditionType, PolicyStatus
from controller.decisions.decision import Failure, Skip
from controller.errors import ConfigurationError, ScanError
from controller.operator.planning import describe_missed, plan_policy
from controller.outcome import Outcome, broken_off, internal_error
from controller.ports import Clients, PolicyEvent, PolicyStore, Services, Stop
from controller.reporting.conditions import Findings
from controller.reporting.status import after_check, after_invalid, after_plan, after_scan, newly_quarantined
from controller.reporting.summary import describe, describe_quarantined, summary
from controller.scan import run_scan
from controller.schedule import Plan, ScanRequest

logger = logging.getLogger(__name__)

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Reconciles policies.

    Attributes:
        store: Where the policies are.
        services: The way to their services.
        clock: Tells the time.
    """

    store: PolicyStore
    services: Services
    clock: Clock

    async def reconcile(self, key: PolicyKey, *, due_at: datetime, recheck: bool, stop: Stop) -> bool:
        """Do what is due for a policy.

        Args:
            key: The policy.
            due_at: When it was found to be due; the wait for a place since then does not make a scan a missed one.
            recheck: Whether a Stalled policy is to be checked again.
            stop: Set to end a scan after its current batch, and to start none.

        Returns:
            Whether the policy is there; one that is gone never comes back, since another one has another uid.

        Raises:
            ClusterError: The policy could not be read, or its status not be written.
        """
        manifest = await self.store.read(key)
        if manifest is not None and "deletionTimestamp" not in manifest["metadata"]:
            await self._reconcile(key, manifest, due_at=due_at, recheck=recheck, stop=stop)
        return manifest is not None

    async def _reconcile(
        self, key: PolicyKey, manifest: Manifest, *, due_at: datetime, recheck: bool, stop: Stop
    ) -> None:
        status = read_status(manifest)
        try:
            policy = parse_policy(manifest)
            plan = plan_policy(policy, manifest, status, now=due_at)
        except ConfigurationError as error:
            await self._report_invalid(key, manifest, error)
            return
        is_new = status.observed_generation != policy.generation
        if is_new or (recheck and status.condition(ConditionType.STALLED) is not None):
            await self._check(policy, plan)
        if plan.request is not None and not stop.is_set():
            await self.scan(policy, plan, replace(plan.request, allowance=status.ramp_up), stop=stop)
        elif plan.request is None and not is_new:
            await self._write(key, lambda status: after_plan(status, policy, plan))
        if plan.missed is not None:
            await self._warn(key, "MissedSchedule", describe_missed(plan))

    async def scan(self, policy: Policy, plan: Plan, request: ScanRequest, *, stop: Stop) -> Outcome:
        """Run a scan and report how it ended; arguments as for `reconcile` and `run_scan`.

        Raises:
            ClusterError: The outcome could not be written.
        """
        try:
            outcome = await run_scan(policy, request, self.services, now=self.clock(), stop=stop)
        except Exception as error:
            # A defect of ours must not look like a scan that never ran, nor be tried again every few seconds.
            logger.exception("the scan of %s broke off", policy.key)
            outcome = broken_off(request, error, now=self.clock())
        await self._report(policy, plan, outcome)
        return outcome

    async def _check(self, policy: Policy, plan: Plan) -> None:
        findings = await find_problems(policy, self.services)
        now = self.clock()
        is_news = await self._write(policy.key, lambda status: after_check(status, policy, findings, plan, now=now))
        if findings.error is not None and is_news:
            logger.warning("%s cannot be scanned: %s", policy.key, findings.error)
            await self._emit(policy.key, "Warning", findings.error.reason, findings.error.message)

    async def _report(self, policy: Policy, plan: Plan, outcome: Outcome) -> None:
        """The last step of a scan: write the status, the summary line and the Events."""
        now = self.clock()
        before = await self._write(policy.key, lambda status: after_scan(status, policy, outcome, plan, now=now))
        log_outcome(policy.key, outcome)
        quarantined = newly_quarantined(before, policy, outcome) if before is not None else []
        await self._emit_events(policy.key, outcome, quarantined)

    async def _emit_events(self, key: PolicyKey, outcome: Outcome, quarantined: Sequence[Skip]) -> None:
        if outcome.recovered:
            await self._emit(key, "Normal", "Recovered", summary(outcome))
        if quarantined:
            await self._warn(key, "Quarantined", describe_quarantined(quarantined))
        failures = [result for result in outcome.results if isinstance(result, Failure)]
        if failures:
            first = failures[0]
            text = f"{len(failures)} videos could not be recovered; the first is {first.video_id}: {first.detail}"
            await self._emit(key, "Warning", "RecoveryFailed", text)
        if outcome.error is not None:
            await self._emit(key, "Warning", outcome.error.reason, outcome.error.message)

    async def _report_invalid(self, key: PolicyKey, manifest: Manifest, error: ConfigurationError) -> None:
        generation, now = manifest["metadata"]["generation"], self.clock()
        if await self._write(key, lambda status: after_invalid(status, generation, error, now=now)):
            logger.warning("%s is invalid: %s", key, error)
            await self._emit(key, "Warning", error.reason, error.message)

    async def _warn(self, key: PolicyKey, reason: str, message: str) -> None:
        logger.warning("%s: %s", key, message)
        await self._emit(key, "Warning", reason, message)

    async def _emit(self, key: PolicyKey, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        await self.store.emit_event(key, PolicyEvent(kind, reason, message))

    async def _write(self, key: PolicyKey, compute: Callable[[PolicyStatus], PolicyStatus]) -> PolicyStatus | None:
        """Write a status; returns the one before, or `None` if nothing was written."""

        def computed(current: Mapping[str, object]) -> Mapping[str, object]:
            return compute(read_status({"status": current})).to_manifest()

        change = await self.store.update_status(key, computed)
        return read_status({"status": change.before}) if change is not None else None


async def find_problems(policy: Policy, services: Services) -> Findings:
    """Find out whether a policy could be scanned, without a scan."""
    supabase_answered = False
    try:
        async with services.connect(policy) as clients:
            await _check_supabase(clients)
            supabase_answered = True
            return Findings(supabase_answered, await clients.server.deployment())
    except ScanError as error:
        return Findings(supabase_answered, error=error)
    except Exception as error:
        logger.exception("the check of %s broke off", policy.key)
        return Findings(supabase_answered, error=internal_error(error))


async def _check_supabase(clients: Clients) -> None:
    await clients.table.check()
    if clients.store is not None:
        await clients.store.check()


def log_outcome(key: PolicyKey, outcome: Outcome) -> None:
    """Log a scan in one line, and at debug level what became of each video."""
    trigger = outcome.request.trigger
    if outcome.error is not None:
        parts = (outcome.error.problem, summary(outcome), outcome.error.solution)
        logger.warning("%s: %s scan failed: %s", key, trigger, "; ".join(filter(None, parts)))
    else:
        logger.info("%s: %s scan: %s", key, trigger, summary(outcome))
    for result in outcome.results:
        logger.debug("%s: %s", key, describe(result))
