"""One scan after another in a lane, each in a newly set scene, and what must be true once a request is served."""

import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from typing import Any

from controller.api.names import REQUESTED_AT
from tests.crash.dying import Plan
from tests.crash.lane import Lane
from tests.crash.scene import RECOVERED, ROLES, STUCK, Scene, Stage, active_recoveries, spec, wanted_flow_runs

Problems = dict[str, Any]
"""What is not as it should be: how it is, and how it should be."""


@dataclass(frozen=True)
class Act:
    """A scan that was asked for.

    Attributes:
        before: The policy's status before it.
        token: The request.
    """

    scene: Scene
    policy: str
    before: dict[str, Any]
    token: str

    @property
    def is_served(self) -> bool:
        """Whether the request is served."""
        return self.scene.lane.is_served(self.token, self.policy)

    def wait(self) -> dict[str, Any]:
        """Wait until the request is served; return the status."""
        return self.scene.lane.wait_served(self.token, self.policy)

    def problems(self) -> Problems:
        """Wait until the request is served, and tell what is not as it should be."""
        return differences(self.scene, self.before, self.wait())

    def again(self) -> "Act":
        """Ask for another scan of the same scene."""
        return replace(self, token=self.scene.lane.ask(self.policy))


class Play:
    """A lane with a policy and a controller.

    Args:
        lane: The lane.
        new_policies: Whether each scan is the first one of a new policy, instead of a later one of an old policy.
    """

    def __init__(self, lane: Lane, *, new_policies: bool = False) -> None:
        self.lane, self._new_policies = lane, new_policies
        self._stage, self._policy = Stage(lane), ""
        self._running = ExitStack()
        self._controller: BaseProcess | None = None

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Have a controller running that has one scan behind it."""
        with self._running:
            self.restart()
            problems = self.begin(Plan()).problems()
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
        self._controller = self._running.enter_context(self.lane.controller())

    def begin(self, plan: Plan) -> Act:
        """Set the scene and ask for a scan, with a plan for the controller."""
        scene = self._stage.set()
        if self._new_policies or not self._policy:
            return Act(scene, *self._begin_with_new_policy(plan))
        before = self.lane.status(self._policy)
        self.lane.script.arm(plan)
        return Act(scene, self._policy, before, self.lane.ask(self._policy))

    def _begin_with_new_policy(self, plan: Plan) -> tuple[str, dict[str, Any], str]:
        if self._policy:
            self.lane.delete(self._policy)
        self._policy = f"policy-{uuid.uuid4().hex[:8]}"
        body, token = self.lane.manifest(self._policy, **spec(self.lane)), uuid.uuid4().hex
        body["metadata"]["annotations"] = {REQUESTED_AT: token}
        self.lane.script.arm(plan)
        self.lane.create(body)
        return self._policy, {}, token


def differences(scene: Scene, before: dict[str, Any], status: dict[str, Any]) -> Problems:
    """What is not as it should be once a request is served that was made when the status was as before."""
    is_so, should_be = _found(scene, before, status), _wanted(scene, status)
    return {key: (is_so[key], should_be[key]) for key in should_be if is_so[key] != should_be[key]}


def _found(scene: Scene, before: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    earlier = before.get("totals", {"scans": 0, "recovered": 0})
    totals, last = status["totals"], status["lastScan"]
    return {
        "flow runs": scene.flow_runs(),
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


def _wanted(scene: Scene, status: dict[str, Any]) -> dict[str, Any]:
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
        "stuck": {"total": len(STUCK), "byStatus": {scene.lane.waiting: len(STUCK)}},
        "quarantine": {"count": 1, "videos": [scene.videos["tried too often"]]},
        "conditions": dict.fromkeys(["Ready", "SupabaseReachable", "PrefectReachable", "DeploymentReady"], "True"),
    }
