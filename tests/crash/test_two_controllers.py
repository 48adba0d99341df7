"""Two controllers at work on the same policies, and a scan beside them: one run a video."""

import asyncio
from typing import Any

import pytest

from controller.api.manifest import parse_policy
from controller.flow_runs import idempotency_key
from tests.crash.conftest import MakeLane
from tests.crash.lane import PATIENCE, Lane
from tests.e2e.conftest import wait_for
from tests.support import ago, merge, scan

pytestmark = pytest.mark.crash

POLICIES = ("one", "two", "three")
VIDEOS = 240
ROUNDS = 3
LIMITS = {"perTenant": 1000}


def backlog(lane: Lane) -> list[str]:
    """Other videos than before, which have got going by themselves; the runs of those stay.

    One of the controllers may still be at the end of an earlier scan, and about to create them once more.
    """
    lane.supabase.execute("update captionacc.videos set status = 'ready' where status = %s", [lane.waiting])
    lane.pretend_worker()
    row = {"tenant_id": "tenant", "status": lane.waiting, "created_at": ago(hours=1)}
    return lane.supabase.insert_videos([row] * VIDEOS)


def keys(lane: Lane) -> list[str]:
    """The idempotency keys of all flow runs."""
    filters = {"deployments": {"id": {"any_": [lane.deployment.id]}}}
    return sorted(run["idempotency_key"] for run in lane.prefect.flow_runs(**filters))


def scan_beside(lane: Lane) -> None:
    """A scan as the command line runs it: with a policy from a file, and no cluster."""
    body = merge(lane.manifest(limits=LIMITS), {"metadata": {"uid": "from a file", "generation": 1}})
    asyncio.run(scan(parse_policy(body), lane.namespace.credentials))


def is_true(status: dict[str, Any]) -> bool:
    """Whether a status says that each video is being processed, and nothing else."""
    last = status["lastScan"]
    conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
    return (
        (last["found"], last["recovered"], last["failed"], last["reasons"]) == (VIDEOS, 0, 0, {"ActiveFlowRun": VIDEOS})
        and status["stuck"]["total"] == VIDEOS
        and conditions == dict.fromkeys(["Ready", "SupabaseReachable", "PrefectReachable", "DeploymentReady"], "True")
    )


def test_two_controllers_and_a_scan_beside_them_create_one_run_a_video(make_lane: MakeLane):
    lane = make_lane("two-controllers")
    for name in POLICIES:
        lane.create(lane.manifest(name, limits=LIMITS))

    videos: list[str] = []
    with lane.controller(batch=20), lane.controller(batch=20):
        for _ in range(ROUNDS):
            videos += backlog(lane)
            requests = {name: lane.ask(name) for name in POLICIES}
            scan_beside(lane)
            for name, token in requests.items():
                lane.wait_served(token, name)
            assert keys(lane) == sorted(idempotency_key(lane.deployment.flow_id, video, 1) for video in videos)
            for name in POLICIES:
                lane.wait_served(lane.ask(name), name)
            # Either controller serves a request, and one may write what it saw a little later than the other.
            wait_for(lambda: all(map(is_true, map(lane.status, POLICIES))), what="true statuses", seconds=PATIENCE)

    lane.assert_good_order()
