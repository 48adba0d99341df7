"""Which policy is reconciled when: a queue of due policies and a fixed number of workers.

A policy is never reconciled twice at the same time; one that becomes due meanwhile is reconciled again right after. The
workers are started before whatever ticks and outlive it, so that a scan in flight can finish its batch when the
controller stops: kopf cancels whatever was started after it.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from controller.api.manifest import PolicyKey, key_of, parse_policy, read_status
from controller.api.names import REQUESTED_AT
from controller.api.status import ConditionType
from controller.errors import ClusterError, ConfigurationError
from controller.operator.planning import plan_policy
from controller.operator.settings import LONGEST_BACK_OFF, RECHECK, TICK
from controller.ports import Stop
from controller.schedule import request_token

logger = logging.getLogger(__name__)


class Reconcile(Protocol):
    """Does what is due for one policy; see `controller.operator.reconcile.Reconciler.reconcile`."""

    async def __call__(self, key: PolicyKey, /, *, due_at: datetime, recheck: bool, stop: Stop) -> bool:
        """Tell whether the policy is there; raise `ClusterError` if that or its status could not be read or written."""


class Dispatcher:
    """Finds out which policies are due, and has them reconciled.

    Args:
        reconcile: Reconciles one policy.
        clock: Tells the time.
    """

    def __init__(self, reconcile: Reconcile, clock: Callable[[], datetime]) -> None:
        self._reconcile, self._clock = reconcile, clock
        self._queue: asyncio.Queue[PolicyKey | None] = asyncio.Queue()
        self._due_at: dict[PolicyKey, datetime] = {}
        self._running: set[PolicyKey] = set()
        self._forgotten: set[PolicyKey] = set()
        self._gone: set[PolicyKey] = set()
        self._checked_at: dict[PolicyKey, datetime] = {}
        self._back_offs: dict[PolicyKey, _BackOff] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self, workers: int) -> None:
        """Start the workers; before kopf."""
        self._workers = [asyncio.create_task(self._work(), name=f"scan worker {n}") for n in range(workers)]

    async def drain(self, *, grace: float) -> None:
        """Let the scans in flight finish their batch, start no new ones, and end.

        Args:
            grace: Seconds after which scans that still run are cut off.
        """
        self.request_stop()
        for _ in self._workers:
            self._queue.put_nowait(None)
        _, pending = await asyncio.wait(self._workers, timeout=grace)
        for worker in pending:
            worker.cancel()
        if pending:
            logger.error("%d scans were cut off after %g s; the next controller takes them up", len(pending), grace)
            await asyncio.wait(pending, timeout=5)

    def request_stop(self) -> None:
        """Have scans in flight end after their batch; may be called from a signal handler."""
        self._stopping = True

    def enqueue_if_due(self, manifest: Mapping[str, Any]) -> None:
        """Queue a policy if something is due for it; cheap, for every tick and every event of every policy."""
        key, now = key_of(manifest), self._clock()
        if "deletionTimestamp" in manifest["metadata"]:
            self.forget(key)
        elif key not in self._due_at and key not in self._gone and self._is_due(key, manifest, now):
            self._due_at[key] = now
            if key not in self._running:
                self._queue.put_nowait(key)

    def forget(self, key: PolicyKey) -> None:
        """A policy is being deleted: end its scan after the current batch, and start no other."""
        self._due_at.pop(key, None)
        self._checked_at.pop(key, None)
        self._back_offs.pop(key, None)
        self._gone.discard(key)
        if key in self._running:
            self._forgotten.add(key)

    def _is_due(self, key: PolicyKey, manifest: Mapping[str, Any], now: datetime) -> bool:
        if key in self._back_offs and now < self._back_offs[key].until:
            return False
        # Most ticks end here, on plain comparisons; only what may be due is planned.
        raw = manifest.get("status") or {}
        if raw.get("observedGeneration") != manifest["metadata"].get("generation"):
            return True
        requested = request_token((manifest["metadata"].get("annotations") or {}).get(REQUESTED_AT))
        if requested is not None and requested != raw.get("lastHandledReconcileAt"):
            return True
        stalled = any(condition.get("type") == ConditionType.STALLED for condition in raw.get("conditions", ()))
        if stalled and self._may_recheck(key, now):
            return True
        planned_time = raw.get("nextScheduleTime")
        if planned_time is None or datetime.fromisoformat(planned_time) > now:
            return False
        try:
            plan = plan_policy(parse_policy(manifest), manifest, read_status(manifest), now=now)
        except ConfigurationError:
            return True
        return plan.request is not None or plan.missed is not None

    def _may_recheck(self, key: PolicyKey, now: datetime) -> bool:
        checked_at = self._checked_at.get(key)
        return checked_at is None or now - checked_at >= RECHECK

    async def _work(self) -> None:
        while (key := await self._queue.get()) is not None:
            if key in self._running or key not in self._due_at or self._stopping:
                continue  # an entry that outlived its reason: the policy was forgotten in between
            due_at = self._due_at.pop(key)
            self._running.add(key)
            try:
                await self._reconcile_or_back_off(key, due_at)
            finally:
                self._running.discard(key)
                self._forgotten.discard(key)
            if key in self._back_offs:
                self._due_at.pop(key, None)  # a tick takes it up again when the wait is over
            elif key in self._due_at:
                self._queue.put_nowait(key)

    async def _reconcile_or_back_off(self, key: PolicyKey, due_at: datetime) -> None:
        recheck = self._may_recheck(key, due_at)
        self._checked_at[key] = due_at
        stop = _Stop(lambda: self._stopping or key in self._forgotten)
        try:
            if not await self._reconcile(key, due_at=due_at, recheck=recheck, stop=stop):
                # It was deleted while the watch was interrupted, so nobody saw that: its timer ticks for ever.
                self._gone.add(key)
        except ClusterError as error:
            logger.warning("%s: %s; trying again in %s", key, error.problem, self._back_off(key))
        except Exception:
            logger.exception("%s: the controller failed; trying again in %s", key, self._back_off(key))
        else:
            self._back_offs.pop(key, None)

    def _back_off(self, key: PolicyKey) -> timedelta:
        """Put off the next reconcile, longer each time: a status that cannot be written must not mean endless scans."""
        before = self._back_offs.get(key)
        wait = min(before.wait * 2, LONGEST_BACK_OFF) if before else TICK
        self._back_offs[key] = _BackOff(wait, self._clock() + wait)
        return wait


@dataclass(frozen=True, slots=True)
class _BackOff:
    """How long a policy whose last reconcile failed waits for the next, and until when."""

    wait: timedelta
    until: datetime


class _Stop:
    def __init__(self, is_requested: Callable[[], bool]) -> None:
        self._is_requested = is_requested

    def is_set(self) -> bool:
        return self._is_requested()
