"""Who has a turn when: a queue of due policies and a fixed number of workers.

A policy has one turn at a time; one that becomes due during its turn has another right after. The workers are started
before kopf and outlive it, so that a scan in flight can finish its batch when the controller leaves: kopf cancels
whatever was started after it.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from controller.adapters.kubernetes.cluster import TRANSPORT_ERRORS, PolicyKey, explain
from controller.adapters.kubernetes.errors import ClusterError
from controller.api.manifest import parse_policy, read_status
from controller.api.names import REQUESTED_AT
from controller.api.status import ConditionType
from controller.errors import ConfigurationError
from controller.operator.planning import plan_policy
from controller.operator.reconcile import Tools, reconcile
from controller.operator.settings import LONGEST_BACK_OFF, RECHECK, TICK
from controller.schedule import request_token

logger = logging.getLogger(__name__)


class Dispatcher:
    """Finds out which policies are due, and gives them their turns.

    Args:
        tools: What a turn needs from outside.
        reconcile_one: Gives one policy its turn.
    """

    def __init__(self, tools: Tools, reconcile_one: Callable[..., Any] = reconcile) -> None:
        self._tools, self._reconcile = tools, reconcile_one
        self._queue: asyncio.Queue[PolicyKey | None] = asyncio.Queue()
        self._due_at: dict[PolicyKey, datetime] = {}
        self._at_work: set[PolicyKey] = set()
        self._gone: set[PolicyKey] = set()
        self._checked_at: dict[PolicyKey, datetime] = {}
        self._put_off: dict[PolicyKey, _PutOff] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._leaving = False

    def start(self, workers: int) -> None:
        """Start the workers; before kopf."""
        self._workers = [asyncio.create_task(self._work(), name=f"scan worker {n}") for n in range(workers)]

    async def leave(self, *, grace: float) -> None:
        """Let the scans in flight finish their batch, start no new ones, and end.

        Args:
            grace: Seconds after which scans that are still at work are cut off.
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
        """Tell scans in flight to end after their batch; may be called from a signal handler."""
        self._leaving = True

    def enqueue_if_due(self, manifest: Mapping[str, Any]) -> None:
        """Queue a policy if something is due for it; cheap, for every tick and every event of every policy."""
        metadata, now = manifest["metadata"], self._tools.clock()
        key = PolicyKey(metadata["namespace"], metadata["name"], metadata["uid"])
        if "deletionTimestamp" in metadata:
            self.forget(key)
        elif key not in self._due_at and self._is_due(key, manifest, now):
            self._due_at[key] = now
            if key not in self._at_work:
                self._queue.put_nowait(key)

    def forget(self, key: PolicyKey) -> None:
        """A policy is being deleted: end its scan after the current batch, and start no other."""
        self._due_at.pop(key, None)
        self._checked_at.pop(key, None)
        self._put_off.pop(key, None)
        if key in self._at_work:
            self._gone.add(key)

    def _is_due(self, key: PolicyKey, manifest: Mapping[str, Any], now: datetime) -> bool:
        if key in self._put_off and now < self._put_off[key].until:
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
            planned = plan_policy(parse_policy(manifest), manifest, read_status(manifest), now=now)
        except ConfigurationError:
            return True
        return planned.request is not None or planned.missed is not None

    def _may_recheck(self, key: PolicyKey, now: datetime) -> bool:
        checked_at = self._checked_at.get(key)
        return checked_at is None or now - checked_at >= RECHECK

    async def _work(self) -> None:
        while (key := await self._queue.get()) is not None:
            if key in self._at_work or key not in self._due_at or self._leaving:
                continue  # an entry that outlived its reason: the policy was forgotten in between
            due_at = self._due_at.pop(key)
            self._at_work.add(key)
            try:
                await self._turn(key, due_at)
            finally:
                self._at_work.discard(key)
                self._gone.discard(key)
            if key in self._put_off:
                self._due_at.pop(key, None)  # a tick takes it up again when the wait is over
            elif key in self._due_at:
                self._queue.put_nowait(key)

    async def _turn(self, key: PolicyKey, due_at: datetime) -> None:
        recheck = self._may_recheck(key, due_at)
        self._checked_at[key] = due_at
        stop = _Stop(lambda: self._leaving or key in self._gone)
        try:
            await self._reconcile(key, self._tools, due_at=due_at, recheck=recheck, stop=stop)
        except (ApiException, ClusterError, *TRANSPORT_ERRORS) as error:
            problem = str(error) if isinstance(error, ClusterError) else explain(error)
            logger.warning("%s/%s: %s; trying again in %s", key.namespace, key.name, problem, self._back_off(key))
        except Exception:
            again = self._back_off(key)
            logger.exception("%s/%s: the controller failed; trying again in %s", key.namespace, key.name, again)
        else:
            self._put_off.pop(key, None)

    def _back_off(self, key: PolicyKey) -> timedelta:
        """Put off the next turn, longer each time: a status that cannot be written must not mean endless scans."""
        before = self._put_off.get(key)
        wait = min(before.wait * 2, LONGEST_BACK_OFF) if before else TICK
        self._put_off[key] = _PutOff(wait, self._tools.clock() + wait)
        return wait


@dataclass(frozen=True, slots=True)
class _PutOff:
    """How long a policy whose last turn failed waits for the next, and until when."""

    wait: timedelta
    until: datetime


class _Stop:
    def __init__(self, asked: Callable[[], bool]) -> None:
        self._asked = asked

    def is_set(self) -> bool:
        return self._asked()
