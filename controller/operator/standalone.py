"""One policy from files, without a cluster: the dispatcher, the reconcile and the scans of the controller, on files.

Reads the files again when they change or a signal asks for it. What they say is taken only if all of it is valid; until
then the policy stays as it was. Loads neither kopf nor the Kubernetes client.
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from typing_extensions import override

from controller.api.manifest import Manifest, Policy, key_of, parse_policy, read_status
from controller.api.status import PolicyStatus
from controller.decisions.decision import Failure
from controller.errors import ConfigurationError
from controller.operator.dispatcher import Dispatcher
from controller.operator.files import FileStore, FileWatcher
from controller.operator.planning import plan_policy
from controller.operator.reconcile import Clock, Reconciler
from controller.operator.settings import GRACE
from controller.ports import Clients, Services
from controller.schedule import Plan, ScanRequest, Schedule, Trigger

logger = logging.getLogger(__name__)

TICK = timedelta(seconds=2)
"""How often the files and the clock are looked at."""


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A policy, the way to its services, and where both are from, for people."""

    manifest: Manifest
    services: Services
    description: str


Load = Callable[[], LoadedPolicy]
"""Reads the files; raises `ConfigurationError` if they cannot be used."""


class Standalone(Services):
    """Runs the scans of one policy, one at a time.

    Args:
        load: Reads the policy from the files.
        files: The files to watch.
        clock: Tells the time.

    Raises:
        ConfigurationError: The files cannot be used. Only here: later the last valid policy stays in force.
    """

    def __init__(self, load: Load, files: Sequence[Path], clock: Clock) -> None:
        self._load, self._clock = load, clock
        self._watcher = FileWatcher(files)  # before they are read: what changes meanwhile is read again
        self._store = FileStore()
        self._loaded = self._read()
        self._reconciler = Reconciler(self._store, self, clock)
        self._dispatcher = Dispatcher(self._reconciler.reconcile, clock)
        self._reload_requested = False
        self._stopping, self._wake = asyncio.Event(), asyncio.Event()

    @property
    def status(self) -> PolicyStatus:
        """The status of the policy."""
        return read_status(self._store.manifest)

    def request_stop(self) -> None:
        """End after the batch under way; may be called from a signal handler."""
        self._dispatcher.request_stop()
        self._stopping.set()
        self._wake.set()

    def request_reload(self) -> None:
        """Read the files again; may be called from a signal handler."""
        self._reload_requested = True
        self._wake.set()

    @override
    def connect(self, policy: Policy) -> AbstractAsyncContextManager[Clients]:
        # With the credentials that were read last.
        return self._loaded.services.connect(policy)

    async def scan_once(self) -> bool:
        """Run one scan now, whatever the schedule says; tell whether nothing failed."""
        policy, request = parse_policy(self._store.manifest), ScanRequest(Trigger.REQUEST)
        outcome = await self._reconciler.scan(policy, Plan(None, None), request, stop=self._stopping)
        return outcome.error is None and not any(isinstance(result, Failure) for result in outcome.results)

    async def run(self) -> None:
        """Run scans by the schedule until somebody requests a stop."""
        self._dispatcher.start(1)
        self._log_plan("running")
        while not self._stopping.is_set():
            requested, self._reload_requested = self._reload_requested, False
            if self._watcher.changed(at_once=requested) or requested:
                self._reload()
            self._dispatcher.enqueue_if_due(self._store.manifest)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TICK.total_seconds())
            self._wake.clear()
        await self._dispatcher.drain(grace=GRACE.total_seconds())

    def _reload(self) -> None:
        before = key_of(self._store.manifest)
        try:
            self._loaded = self._read()
        except ConfigurationError as error:
            logger.error("not reloaded, the policy stays as it was: %s", error)
        except Exception:
            logger.exception("not reloaded, the policy stays as it was")
        else:
            if key_of(self._store.manifest) != before:
                self._dispatcher.forget(before)
            self._log_plan("reloaded")

    def _read(self) -> LoadedPolicy:
        loaded = self._load()
        spec = parse_policy(loaded.manifest).spec
        Schedule(spec.schedule, spec.time_zone)  # refuses one that never fires
        self._store.put(loaded.manifest)
        return loaded

    def _log_plan(self, news: str) -> None:
        manifest = self._store.manifest
        policy = parse_policy(manifest)
        plan = plan_policy(policy, manifest, read_status(manifest), now=self._clock())
        logger.info("%s %s; %s", news, self._loaded.description, _describe(policy, plan))


def _describe(policy: Policy, plan: Plan) -> str:
    spec = policy.spec
    if plan.next_time is None:
        return "suspended: no scan until spec.suspend is false"
    start = plan.next_time + Schedule(spec.schedule, spec.time_zone).jitter(plan.next_time, policy.uid)
    return f"schedule {spec.schedule} ({spec.time_zone}), mode {spec.mode}; next scan at {start:%Y-%m-%d %H:%M:%S} UTC"


async def run_standalone(runner: Standalone, *, once: bool) -> bool:
    """Run scans until a signal says to stop, or one scan now; tell whether nothing failed in that one."""

    def stop(name: str) -> None:
        logger.info("%s: stopping; a scan under way finishes its batch", name)
        runner.request_stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number.name)
    if once:
        return await runner.scan_once()
    loop.add_signal_handler(signal.SIGHUP, runner.request_reload)
    await runner.run()
    return True
