"""One policy from files, without a cluster: scans by its schedule, with a status that lives in memory.

Plans and scans as a turn in a cluster does, and reads the files again when they change or a signal asks for it. What
they say is taken only if all of it is valid; until then the policy stays as it was. Writes nothing down for the next
process: attempts are Prefect's to remember.
"""

import asyncio
import hashlib
import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from controller.api.manifest import Policy
from controller.api.status import PolicyStatus
from controller.decisions.decision import Failure
from controller.errors import ConfigurationError
from controller.operator.planning import describe_missed, plan_policy
from controller.operator.reconcile import Clock, find_problems, log_outcome
from controller.outcome import Outcome, broken_off
from controller.ports import Services
from controller.reporting.status import after_check, after_plan, after_scan, newly_quarantined
from controller.scan import Reporter, run_scan
from controller.schedule import Plan, ScanRequest, Schedule, Trigger

logger = logging.getLogger(__name__)

LOOK = timedelta(seconds=2)
"""How often the files and the clock are looked at."""

NO_ANNOTATIONS: dict[str, Any] = {"metadata": {}}
"""Without a cluster nobody requests a scan by an annotation."""


@dataclass(frozen=True, slots=True)
class Source:
    """A policy, the way to its services, and where both are from, for people."""

    policy: Policy
    services: Services
    said: str


Load = Callable[[], Source]
"""Reads the files; raises `ConfigurationError` if they cannot be used."""


class Standalone:
    """Runs the scans of one policy, one at a time.

    Args:
        load: Reads the policy from the files.
        files: The files to watch.
        clock: Tells the time.

    Raises:
        ConfigurationError: The files cannot be used. Only here: later the last valid policy stays in force.
    """

    def __init__(self, load: Load, files: Sequence[Path], clock: Clock) -> None:
        self.status = PolicyStatus()
        self.clock = clock
        self._files = _Files(files)  # before they are read: what changes meanwhile is read again
        self._load = load
        self._source = self._read()
        self._news = "running"
        self._reload_asked = False
        self._leaving, self._wake = asyncio.Event(), asyncio.Event()

    def request_stop(self) -> None:
        """End after the batch under way; may be called from a signal handler."""
        self._leaving.set()
        self._wake.set()

    def request_reload(self) -> None:
        """Read the files again once no scan is under way; may be called from a signal handler."""
        self._reload_asked = True
        self._wake.set()

    @property
    def name(self) -> str:
        """What log lines call the policy."""
        return f"{self._source.policy.namespace}/{self._source.policy.name}"

    async def scan_once(self) -> bool:
        """Run one scan now, whatever the schedule says; tell whether nothing failed."""
        outcome = await self._scan(ScanRequest(Trigger.REQUEST), Plan(None, None))
        return outcome.error is None and not any(isinstance(result, Failure) for result in outcome.results)

    async def run(self) -> None:
        """Run scans by the schedule until somebody asks to leave."""
        while not self._leaving.is_set():
            asked, self._reload_asked = self._reload_asked, False
            if self._files.changed(at_once=asked) or asked:
                self._reload()
            await self._turn()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), LOOK.total_seconds())
            self._wake.clear()

    def _reload(self) -> None:
        before = self.name
        try:
            self._source = self._read()
        except ConfigurationError as error:
            logger.error("not reloaded, the policy stays as it was: %s", error)
        except Exception:
            logger.exception("not reloaded, the policy stays as it was")
        else:
            self._news = "reloaded"
            if self.name != before:
                self.status = PolicyStatus()  # what it holds is about another policy

    def _read(self) -> Source:
        source = self._load()
        policy = source.policy
        Schedule(policy.spec.schedule, policy.spec.time_zone)  # refuses one that never fires
        # Jitter goes by the uid, which only an API server gives out.
        return replace(source, policy=replace(policy, uid=policy.uid or f"{policy.namespace}/{policy.name}"))

    async def _turn(self) -> None:
        planned = plan_policy(self._source.policy, NO_ANNOTATIONS, self.status, now=self.clock())
        if self._news:
            logger.info("%s %s; %s", self._news, self._source.said, _outlook(self._source.policy, planned))
            self._news = ""
            await self._check(planned)
        if planned.missed is not None:
            logger.warning("%s: %s", self.name, describe_missed(planned))
        if planned.request is None:
            self.status = after_plan(self.status, self._source.policy, planned)
        elif not self._leaving.is_set():
            await self._scan(planned.request, planned)

    async def _check(self, planned: Plan) -> None:
        """See now what would otherwise end the first scan."""
        try:
            findings = await find_problems(self._source.policy, self._source.services)
        except Exception:
            logger.exception("the check of %s broke off", self.name)
            return
        if findings.error is not None:
            logger.warning("%s cannot be scanned: %s", self.name, findings.error)
        self.status = after_check(self.status, self._source.policy, findings, planned, now=self.clock())

    async def _scan(self, request: ScanRequest, planned: Plan) -> Outcome:
        now, reporter = self.clock(), _Reporter(self, planned)
        request = replace(request, allowance=self.status.ramp_up)
        try:
            return await run_scan(
                self._source.policy, request, self._source.services, reporter, now=now, stop=self._leaving
            )
        except Exception as error:
            logger.exception("the scan of %s broke off", self.name)
            outcome = broken_off(request, error, now=now)
            await reporter.report(self._source.policy, outcome)
            return outcome


async def run_standalone(runner: Standalone, *, once: bool) -> bool:
    """Run scans until a signal says to leave, or one scan now; tell whether nothing failed in that one."""

    def leave(name: str) -> None:
        logger.info("%s: leaving; a scan under way finishes its batch", name)
        runner.request_stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave, number.name)
    if once:
        return await runner.scan_once()
    loop.add_signal_handler(signal.SIGHUP, runner.request_reload)
    await runner.run()
    return True


@dataclass(frozen=True, slots=True)
class _Reporter(Reporter):
    """The last step of a scan without a cluster."""

    runner: Standalone
    planned: Plan

    async def report(self, policy: Policy, outcome: Outcome) -> None:
        log_outcome(self.runner.name, outcome)
        before, now = self.runner.status, self.runner.clock()
        self.runner.status = after_scan(before, policy, outcome, self.planned, now=now)
        quarantined = newly_quarantined(before, policy, outcome)
        if quarantined and outcome.request.trigger is not Trigger.REQUEST:  # each would say it: it knows of none before
            logger.warning(
                "%s: %d videos used up their attempts and are left alone, such as %s; see what their flow runs say, "
                "then release one with: video-recovery retry -f FILE --video-id ID",
                self.runner.name, len(quarantined), quarantined[0].video_id,
            )  # fmt: skip


class _Files:
    """Notices that files changed, by what is in them: a mounted ConfigMap changes by a link to another folder."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._told = self._seen = self._digest()

    def changed(self, *, at_once: bool) -> bool:
        """Whether they differ from what this told of last; unless at once, after two looks that saw the same.

        Whoever writes a file may be half way, and a file that is replaced may be missing for a moment.
        """
        before, self._seen = self._seen, self._digest()
        if self._seen == self._told or (self._seen != before and not at_once):
            return False
        self._told = self._seen
        return True

    def _digest(self) -> bytes:
        whole = hashlib.sha256()
        for path in self._paths:
            try:
                whole.update(hashlib.sha256(path.read_bytes()).digest())
            except OSError:
                whole.update(b"it cannot be read")
        return whole.digest()


def _outlook(policy: Policy, planned: Plan) -> str:
    spec = policy.spec
    if planned.next_time is None:
        return "suspended: no scan until spec.suspend is false"
    start = planned.next_time + Schedule(spec.schedule, spec.time_zone).jitter(planned.next_time, policy.uid)
    return f"schedule {spec.schedule} ({spec.time_zone}), mode {spec.mode}; next scan at {start:%Y-%m-%d %H:%M:%S} UTC"
