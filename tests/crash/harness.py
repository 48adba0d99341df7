"""One scan after another in a sandbox, each in a newly set scenario, and what must be true once a request is served."""

import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from typing import Any

from controller.api.names import REQUESTED_AT
from tests.crash.crashing_controller import CrashPlan
from tests.crash.sandbox import Sandbox
from tests.crash.scenario import (
    RECOVERED,
    ROLES,
    STUCK,
    Scenario,
    ScenarioBuilder,
    active_recoveries,
    spec,
    wanted_flow_runs,
)
from tests.waiting import wait_for

EVENTS = ("Recovered", "Quarantined")
"""What each scan of the scenario has to say."""

Problems = dict[str, Any]
"""What is not as it should be: how it is, and how it should be."""


@dataclass(frozen=True)
class RequestedScan:
    """A scan that was asked for.

    Attributes:
        before: The policy's status before it.
        token: The request.
    """

    scenario: Scenario
    policy: str
    before: dict[str, Any]
    token: str

    @property
    def is_served(self) -> bool:
        """Whether the request is served."""
        return self.scenario.sandbox.is_served(self.token, self.policy)

    def wait(self) -> dict[str, Any]:
        """Wait until the request is served; return the status."""
        return self.scenario.sandbox.wait_served(self.token, self.policy)

    def problems(self) -> Problems:
        """Wait until the request is served, and tell what is not as it should be."""
        return differences(self.scenario, self.before, self.wait())

    def wait_for_events(self) -> None:
        """Wait until the scan, which was not broken off, has posted its Events: the last that it does."""
        files = self.scenario.sandbox.plan_files
        wait_for(lambda: files.posted_events() >= len(EVENTS), what="the Events of a scan", seen=files.noted)

    def again(self) -> "RequestedScan":
        """Ask for another scan of the same scenario."""
        return replace(self, token=self.scenario.sandbox.ask(self.policy))


class Harness:
    """A sandbox with a policy and a controller.

    Args:
        sandbox: The sandbox.
        new_policies: Whether each scan is the first one of a new policy, instead of a later one of an old policy.
    """

    def __init__(self, sandbox: Sandbox, *, new_policies: bool = False) -> None:
        self.sandbox, self._new_policies = sandbox, new_policies
        self._builder, self._policy = ScenarioBuilder(sandbox), ""
        self._running = ExitStack()
        self._controller: BaseProcess | None = None

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Have a controller running that has one scan behind it."""
        with self._running:
            self.restart()
            problems = self.begin(CrashPlan()).problems()
            assert problems == {}, problems
            yield

    @property
    def controller(self) -> BaseProcess:
        """The controller, or the one that was running last."""
        assert self._controller is not None
        return self._controller

    def restart(self) -> None:
        """Start a controller; kill the one before it, if it runs."""
        self._running.close()
        self._controller = self._running.enter_context(self.sandbox.controller())

    def begin(self, plan: CrashPlan) -> RequestedScan:
        """Set the scenario and ask for a scan, with a plan for the controller."""
        scenario = self._builder.set()
        if self._new_policies or not self._policy:
            return RequestedScan(scenario, *self._begin_with_new_policy(plan))
        before = self.sandbox.status(self._policy)
        self.sandbox.plan_files.arm(plan)
        return RequestedScan(scenario, self._policy, before, self.sandbox.ask(self._policy))

    def _begin_with_new_policy(self, plan: CrashPlan) -> tuple[str, dict[str, Any], str]:
        if self._policy:
            self.sandbox.delete(self._policy)
        self._policy = f"policy-{uuid.uuid4().hex[:8]}"
        body, token = self.sandbox.manifest(self._policy, **spec(self.sandbox)), uuid.uuid4().hex
        body["metadata"]["annotations"] = {REQUESTED_AT: token}
        self.sandbox.plan_files.arm(plan)
        self.sandbox.create(body)
        return self._policy, {}, token


def differences(scenario: Scenario, before: dict[str, Any], status: dict[str, Any]) -> Problems:
    """What is not as it should be once a request is served that was made when the status was as before."""
    is_so, should_be = _found(scenario, before, status), _wanted(scenario, status)
    return {key: (is_so[key], should_be[key]) for key in should_be if is_so[key] != should_be[key]}


def _found(scenario: Scenario, before: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    earlier = before.get("totals", {"scans": 0, "recovered": 0})
    totals, last = status["totals"], status["lastScan"]
    return {
        "flow runs": scenario.flow_runs(),
        "scans": totals["scans"] - earlier["scans"],
        "recovered": totals["recovered"] - earlier["recovered"],
        "in flight": totals["recovered"] - totals["confirmed"] - totals["failed"],
        "the last scan": {key: last.get(key) for key in ("trigger", "found", "failed", "reasons", "error")},
        "the last scan's sum": last["recovered"] + last["skipped"],
        "history": status["history"][0] == {key: last[key] for key in last if key != "decisions"},
        "stuck": {key: status["stuck"][key] for key in ("total", "byStatus")},
        "quarantine": status.get("quarantine"),
        "conditions": {condition["type"]: condition["status"] for condition in status["conditions"]},
    }


def _wanted(scenario: Scenario, status: dict[str, Any]) -> dict[str, Any]:
    recovered_before = len(RECOVERED) - status["lastScan"]["recovered"]  # by a scan that broke off
    skipped = Counter(role.reason for role in ROLES.values() if role.reason)
    reasons = dict(skipped + Counter(ActiveFlowRun=recovered_before))
    return {
        "flow runs": wanted_flow_runs(),
        "scans": 1,
        "recovered": len(RECOVERED),
        "in flight": active_recoveries(wanted_flow_runs()),
        "the last scan": {"trigger": "Request", "found": len(STUCK), "failed": 0, "reasons": reasons, "error": None},
        "the last scan's sum": len(STUCK),
        "history": True,
        "stuck": {"total": len(STUCK), "byStatus": {scenario.sandbox.waiting: len(STUCK)}},
        "quarantine": {"count": 1, "videos": [scenario.videos["tried too often"]]},
        "conditions": dict.fromkeys(["Ready", "SupabaseReachable", "PrefectReachable", "DeploymentReady"], "True"),
    }
