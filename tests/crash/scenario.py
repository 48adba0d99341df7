"""The videos and flow runs that a scan meets, each for one thing it does, and how the world must be afterwards."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.adapters.prefect.abandoned import HEARTBEAT
from controller.flow_runs import idempotency_key
from devstack.prefect import ACTIVE
from tests.crash.sandbox import Sandbox
from tests.support import ago
from tests.waiting import wait_for

SPEC: dict[str, Any] = {
    "stuck": {"abandonedRunAfter": "2h", "abandonedRunAction": "Replace"},
    "retry": {"maxAttempts": 2},
}
LONG_AGO = timedelta(hours=3)


@dataclass(frozen=True)
class Role:
    """What a video has behind it when the scan comes, and what it must have afterwards.

    Flow runs are written as their state; recoveries with the attempt in front, such as `1 FAILED`. Those of before are
    hours old.

    Attributes:
        before: Its flow runs, the oldest first.
        after: Its flow runs after the scan.
        reason: Why it is skipped; `None` if it is recovered, or not stuck.
        minutes: Its age.
        uploaded: Whether its file is there.
    """

    before: Sequence[str] = ()
    after: Sequence[str] = ()
    reason: str | None = None
    minutes: int = 90
    uploaded: bool = True


BEATING = "old, and alive"
FRESH = "at work"
ROLES = {
    "never tried, a": Role(after=["1 SCHEDULED"]),
    "never tried, b": Role(after=["1 SCHEDULED"]),
    "never tried, c": Role(after=["1 SCHEDULED"]),
    "never tried, d": Role(after=["1 SCHEDULED"]),
    "tried in vain": Role(before=["1 FAILED"], after=["1 FAILED", "2 SCHEDULED"]),
    "never started": Role(before=["SCHEDULED"], after=["CANCELLED", "1 SCHEDULED"]),
    "does not stop": Role(before=["RUNNING"], after=["CANCELLING"], reason="AbandonedRun"),
    BEATING: Role(after=["RUNNING"], reason="ActiveFlowRun"),
    FRESH: Role(after=["RUNNING"], reason="ActiveFlowRun"),
    "tried too often": Role(before=["1 FAILED", "2 CRASHED"], after=["1 FAILED", "2 CRASHED"], reason="Quarantined"),
    "still uploading": Role(uploaded=False, reason="UploadInProgress"),
    "too young": Role(minutes=1),
}
STUCK = [name for name, role in ROLES.items() if role.minutes > 10]
RECOVERED = [name for name in STUCK if ROLES[name].reason is None]


def spec(sandbox: Sandbox) -> dict[str, Any]:
    """What a policy has to say for the scenario."""
    return {**SPEC, "upload": {"bucket": sandbox.name, "objectPath": "videos/{id}.mp4"}}


class ScenarioBuilder:
    """A sandbox in which the scenario is set again and again."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._beating_video = str(uuid.uuid4())
        self._beating_run = self._create_run(self._beating_video, "RUNNING", LONG_AGO)
        self._beat()
        wait_for(self._is_heard, what="the heartbeat to be readable")

    def set(self) -> "Scenario":
        """Set the scenario: the same videos with the same past, as new ones."""
        sandbox = self._sandbox
        sandbox.clear(spare=[self._beating_run])
        sandbox.pretend_worker()
        self._beat()
        row = {"tenant_id": "tenant", "status": sandbox.waiting}
        videos = {name: self._beating_video if name == BEATING else str(uuid.uuid4()) for name in ROLES}
        sandbox.supabase.insert_videos(
            [
                # In the order of the roles, so that the same ones share a batch in all scenarios.
                {"id": videos[name], "created_at": ago(minutes=role.minutes, seconds=-place), **row}
                for place, (name, role) in enumerate(ROLES.items())
            ]
        )
        paths = [f"videos/{videos[name]}.mp4" for name, role in ROLES.items() if role.uploaded]
        sandbox.supabase.upload_many(sandbox.name, paths)
        for name, role in ROLES.items():
            for place, run in enumerate(role.before):
                self._create_run(videos[name], run, (len(role.before) - place) * LONG_AGO)
        # A run as new as this one is read again before each batch: so all scenarios take the same steps.
        self._create_run(videos[FRESH], "RUNNING", timedelta(0))
        return Scenario(sandbox, videos)

    def _create_run(self, video: str, run: str, age: timedelta) -> str:
        sandbox, (*attempt, state) = self._sandbox, run.split()
        key = idempotency_key(sandbox.deployment.flow_id, video, int(attempt[0])) if attempt else None
        parameters = {"video_id": video}
        run_id = sandbox.prefect.create_flow_run(sandbox.deployment, state, parameters=parameters, idempotency_key=key)
        if age:
            sandbox.prefect.backdate(run_id, age)
        return run_id

    def _beat(self) -> None:
        heartbeat = {
            "id": str(uuid.uuid4()),
            "event": HEARTBEAT,
            "occurred": datetime.now(UTC).isoformat(),
            "resource": {"prefect.resource.id": f"prefect.flow-run.{self._beating_run}"},
        }
        self._sandbox.prefect.http.post("events", json=[heartbeat]).raise_for_status()

    def _is_heard(self) -> bool:
        wanted = {"event": {"name": [HEARTBEAT]}, "resource": {"id": [f"prefect.flow-run.{self._beating_run}"]}}
        answer = self._sandbox.prefect.http.post("events/filter", json={"filter": wanted}).raise_for_status()
        return bool(answer.json()["events"])


@dataclass(frozen=True)
class Scenario:
    """The scenario as it was set once: the ids of its videos, by their roles."""

    sandbox: Sandbox
    videos: Mapping[str, str]

    def flow_runs(self) -> dict[str, list[str]]:
        """The flow runs of each role, as they are now."""
        filters = {"deployments": {"id": {"any_": [self.sandbox.deployment.id]}}}
        names = {video: name for name, video in self.videos.items()}
        found: dict[str, list[str]] = {name: [] for name in ROLES}
        for run in self.sandbox.prefect.flow_runs(**filters):
            found[names[run["parameters"]["video_id"]]].append(self._written(run))
        return {name: sorted(runs) for name, runs in found.items()}

    def _written(self, run: Mapping[str, Any]) -> str:
        first = idempotency_key(self.sandbox.deployment.flow_id, run["parameters"]["video_id"], 1)
        before, _, attempt = (run["idempotency_key"] or "").rpartition("/")
        return f"{attempt} {run['state_type']}" if before == first.removesuffix("/1") else str(run["state_type"])


def wanted_flow_runs() -> dict[str, list[str]]:
    """The flow runs of each role, as they must be when all is done."""
    return {name: sorted(role.after) for name, role in ROLES.items()}


def active_recoveries(flow_runs: Mapping[str, Iterable[str]]) -> int:
    """How many of the flow runs are recoveries that have not ended."""
    runs = [run.split() for of_role in flow_runs.values() for run in of_role]
    return sum(len(run) == 2 and run[1] in ACTIVE for run in runs)
