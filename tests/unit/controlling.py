"""A controller with one policy in a world: it scans again and again, may be killed, and keeps a status."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from controller.api.manifest import Policy
from controller.api.status import PolicyStatus
from controller.errors import ScanError
from controller.outcome import Outcome
from controller.reporting.conditions import Findings
from controller.reporting.status import after_check, after_scan, newly_quarantined
from controller.scan import run_scan
from controller.schedule import Plan, ScanRequest, Trigger
from tests.unit.fakes import DEPLOYMENT, STATUS_SCHEMA, violations
from tests.world.world import Process, World

NO_WORKER = replace(DEPLOYMENT, not_ready="no worker polls work pool 'p'; start one", not_ready_reason="NoWorkerReady")
FLOW = DEPLOYMENT.flow_id

QUESTION = timedelta(seconds=1, milliseconds=130)
"""How long an answer takes: no whole seconds, in which Prefect tells its time and a status keeps it."""


class KilledError(Exception):
    """The controller died before it could do anything about it."""


def slow_world(**world: Any) -> World:
    """A world in which each answer takes a while, and each batch of recoveries has to be sent twice."""
    return World(takes=QUESTION, half_done=True, **world)


@dataclass
class Controller:
    """One controller with one policy: scans, and keeps the status as the API server would.

    Attributes:
        announced: The videos of which an Event said that they are quarantined.
    """

    world: World
    policy: Policy
    status: PolicyStatus = field(default_factory=PolicyStatus)
    announced: list[str] = field(default_factory=list)

    def check(self) -> None:
        """See a new or edited policy for the first time."""
        findings = Findings(True, DEPLOYMENT)
        self._write(after_check(self.status, self.policy, findings, Plan(None, None), now=self.world.now))

    def scan(self, video_id: str | None = None) -> Outcome | None:
        """Run a scan; gives nothing if it was killed."""
        trigger = Trigger.REQUEST if video_id is not None else Trigger.SCHEDULE
        named = (video_id,) if video_id is not None else ()
        request = ScanRequest(trigger, video_ids=named, allowance=self.status.ramp_up)
        try:
            return asyncio.run(self._scan(request))
        except KilledError:
            return None
        finally:
            self.world.happens = {}

    async def _scan(self, request: ScanRequest) -> Outcome:
        services = Process(self.world)
        outcome = await run_scan(self.policy, request, services, now=self.world.now, stop=asyncio.Event())
        with suppress(ScanError):  # it may be killed here, but there is no service to fail
            await self.world.ask()
        self.announced += [skip.video_id for skip in newly_quarantined(self.status, self.policy, outcome)]
        self._write(after_scan(self.status, self.policy, outcome, Plan(outcome.request, None), now=self.world.now))
        return outcome

    def _write(self, status: PolicyStatus) -> None:
        manifest = status.to_manifest()
        assert violations(STATUS_SCHEMA, manifest) == []
        self.status = PolicyStatus.model_validate(manifest)
