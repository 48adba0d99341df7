"""What tests of several tiers share: a policy to start from, videos, and a scan of real services without a cluster."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.adapters.clients import LiveServices
from controller.adapters.credentials import Secret
from controller.api.manifest import Policy, parse_policy
from controller.outcome import Outcome, Recovered
from controller.scan import run_scan
from controller.schedule import ScanRequest, Trigger
from devstack import Supabase

DEPLOYMENT = "captionacc-video-initial-processing/captionacc-prod-video-initial-processing"
SECRET = "captionacc-credentials"
NEVER = "0 0 1 1 *"
"""A schedule that stays out of the way, whenever tests run: scans come when they are asked for."""


def manifest(**spec: Any) -> dict[str, Any]:
    """A policy's manifest; keyword arguments are merged into the spec of the design's example."""
    base = {
        "supabase": {"secretRef": {"name": SECRET}, "schema": "captionacc"},
        "prefect": {"secretRef": {"name": SECRET}, "deployment": DEPLOYMENT},
    }
    return {
        "apiVersion": "recovery.captiona.cc/v1alpha1",
        "kind": "VideoRecoveryPolicy",
        "metadata": {"name": "captionacc-prod", "namespace": "captionacc", "uid": "uid-1", "generation": 1},
        "spec": merge(base, spec),
    }


def policy(**spec: Any) -> Policy:
    """A parsed policy; see `manifest`."""
    return parse_policy(manifest(**spec))


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A deep merge; `None` in the changes removes a key."""
    merged = dict(base)
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def ago(**time: float) -> str:
    """A time before now, as a table has it: `ago(minutes=11)`."""
    return (datetime.now(UTC) - timedelta(**time)).isoformat()


def stuck_videos(supabase: Supabase, count: int, **columns: object) -> list[str]:
    """Insert videos that wait for an hour; return their ids."""
    row = {"tenant_id": "tenant", "display_path": "a.mp4", "status": "pending", "created_at": ago(hours=1), **columns}
    return supabase.insert_videos([row] * count)


def reasons(outcome: Outcome) -> dict[str, int]:
    """How many videos were skipped or failed, by reason."""
    return dict(Counter(str(result.reason) for result in outcome.results if not isinstance(result, Recovered)))


def recovered(outcome: Outcome) -> list[str]:
    """The ids of the videos for which a run was created."""
    return [result.video_id for result in outcome.results if isinstance(result, Recovered)]


def live(environment: Mapping[str, str]) -> LiveServices:
    """The way to real services, with these credentials in each Secret."""

    async def read_secret(namespace: str, name: str) -> Secret:
        return Secret(f"Secret {namespace}/{name}", environment)

    return LiveServices(read_secret)


async def scan(
    policy: Policy,
    environment: Mapping[str, str],
    *,
    video_id: str | None = None,
    stop: asyncio.Event | None = None,
    now: datetime | None = None,
    services: LiveServices | None = None,
) -> Outcome:
    """One scan of real services, with credentials as a Secret would hold them."""
    request = ScanRequest(Trigger.REQUEST, token="test", video_ids=(video_id,) if video_id is not None else ())
    return await run_scan(
        policy, request, services or live(environment), now=now or datetime.now(UTC), stop=stop or asyncio.Event()
    )
