"""What every benchmark starts from: real services, videos that are stuck, and a scan of them without a cluster.

Measures nothing itself.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from controller.adapters.clients import LiveServices
from controller.adapters.credentials import Secret
from controller.api.manifest import Policy, parse_policy
from controller.outcome import Outcome
from controller.scan import run_scan
from controller.schedule import ScanRequest, Trigger
from devstack import Deployment, Prefect, Supabase

DEPLOYMENT = "captionacc-video-initial-processing/captionacc-prod-video-initial-processing"
SECRET = "captionacc-credentials"
TENANT = "tenant"
NO_LIMITS = {"perScan": 10_000, "perTenant": 10_000, "active": 100_000}
"""The most that a policy allows, so that one scan recovers a backlog of 10,000."""

CALM = 2.0
"""Seconds before each measurement: a Prefect server writes events for about one after its last run was created."""


@dataclass(frozen=True, slots=True)
class Services:
    """A Supabase and a Prefect with the policy's deployment."""

    supabase: Supabase
    prefect: Prefect
    deployment: Deployment

    @classmethod
    @contextmanager
    def start(cls, *, marks_late: bool) -> Iterator["Services"]:
        """Start both with nothing in them.

        Args:
            marks_late: Whether Prefect marks runs as late, as it does unless it is told not to. No worker takes the
                runs here, so from 15 s after the first one on it is busier with marking than with creating.

        Raises:
            Unavailable: One of them cannot be had here.
        """
        settings = {"PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": str(marks_late).lower()}
        with Supabase.start() as supabase, Prefect.start(settings=settings) as prefect:
            yield cls(supabase, prefect, prefect.create_deployment(DEPLOYMENT))

    @property
    def credentials(self) -> dict[str, str]:
        """What a policy's Secret holds."""
        return {**self.supabase.env(), **self.prefect.env()}

    def clear(self) -> None:
        """Leave no video and no flow run."""
        self.supabase.execute("truncate captionacc.videos")
        self.prefect.clear_flow_runs()

    def settle(self) -> None:
        """Let the server come to rest; for a minute from then on a worker seems to be ready."""
        time.sleep(CALM)
        self.prefect.pretend_worker()

    def add_stuck_videos(self, count: int) -> list[str]:
        """Add videos that have waited for an hour and more, a second apart; return their ids, the oldest first."""
        newest = datetime.now(UTC) - timedelta(hours=1)
        times = [newest - timedelta(seconds=count - number) for number in range(count)]
        row = {"tenant_id": TENANT, "display_path": "a.mp4", "status": "pending"}
        return self.supabase.insert_videos([{**row, "created_at": time.isoformat()} for time in times])

    def add_active_runs(self, count: int) -> None:
        """Add flow runs that are RUNNING, each of a video that the table does not know."""
        first, *others = ({"video_id": str(uuid4())} for _ in range(count))
        run = self.prefect.create_flow_run(self.deployment, "RUNNING", parameters=first)
        self.prefect.clone_flow_run(run, others)


def manifest(name: str = "captionacc-prod", namespace: str = "captionacc", **spec: Any) -> dict[str, Any]:
    """A policy's manifest: the design's example, with other fields of the spec where they are given."""
    return {
        "apiVersion": "recovery.captiona.cc/v1alpha1",
        "kind": "VideoRecoveryPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "supabase": {"secretRef": {"name": SECRET}, "schema": "captionacc"},
            "prefect": {"secretRef": {"name": SECRET}, "deployment": DEPLOYMENT},
            "limits": NO_LIMITS,
            **spec,
        },
    }


def scan(policy: Policy, credentials: Mapping[str, str]) -> Outcome:
    """One scan from its Secret to its outcome, which nobody reports.

    Raises:
        ScanError: The scan did not come to its end.
    """

    async def read_secret(namespace: str, name: str) -> Secret:
        return Secret("the benchmark", credentials)

    request, services = ScanRequest(Trigger.SCHEDULE), LiveServices(read_secret)
    outcome = asyncio.run(run_scan(policy, request, services, now=datetime.now(UTC), stop=asyncio.Event()))
    if outcome.error is not None:
        raise outcome.error
    return outcome


def scan_backlog(services: Services, count: int) -> None:
    """One scan that recovers so many stuck videos.

    Raises:
        RuntimeError: It recovered more or fewer: what was measured is not what it should be.
    """
    outcome = scan(parse_policy(manifest()), services.credentials)
    if len(outcome.recovered) != count:
        raise RuntimeError(f"the scan recovered {len(outcome.recovered)} videos instead of {count}")
