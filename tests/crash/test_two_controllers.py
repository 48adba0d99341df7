"""Two controllers at work on the same policies, and a scan beside them: one run a video."""

import asyncio
from typing import Any

import pytest

from controller.api.manifest import parse_policy
from controller.flow_runs import idempotency_key
from tests.crash.conftest import MakeSandbox
from tests.crash.sandbox import Sandbox
from tests.support import ago, merge, scan
from tests.waiting import wait_for

pytestmark = pytest.mark.crash

POLICIES = ("one", "two", "three")
VIDEOS = 240
ROUNDS = 3
LIMITS = {"perTenant": 1000}


def backlog(sandbox: Sandbox) -> list[str]:
    """Other videos than before, which have got going by themselves; the runs of those stay.

    One of the controllers may still be at the end of an earlier scan, and about to create them once more.
    """
    sandbox.supabase.execute("update captionacc.videos set status = 'ready' where status = %s", [sandbox.waiting])
    sandbox.pretend_worker()
    row = {"tenant_id": "tenant", "status": sandbox.waiting, "created_at": ago(hours=1)}
    return sandbox.supabase.insert_videos([row] * VIDEOS)


def keys(sandbox: Sandbox) -> list[str]:
    """The idempotency keys of all flow runs."""
    filters = {"deployments": {"id": {"any_": [sandbox.deployment.id]}}}
    return sorted(run["idempotency_key"] for run in sandbox.prefect.flow_runs(**filters))


def scan_beside(sandbox: Sandbox) -> None:
    """A scan as the command line runs it: with a policy from a file, and no cluster."""
    body = merge(sandbox.manifest(limits=LIMITS), {"metadata": {"uid": "from a file", "generation": 1}})
    asyncio.run(scan(parse_policy(body), sandbox.namespace.credentials))


def is_true(status: dict[str, Any]) -> bool:
    """Whether a status says that each video is being processed, and nothing else."""
    last = status["lastScan"]
    conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
    return (
        (last["found"], last["recovered"], last["failed"], last["reasons"]) == (VIDEOS, 0, 0, {"ActiveFlowRun": VIDEOS})
        and status["stuck"]["total"] == VIDEOS
        and conditions == dict.fromkeys(["Ready", "SupabaseReachable", "PrefectReachable", "DeploymentReady"], "True")
    )


def test_two_controllers_and_a_scan_beside_them_create_one_run_a_video(make_sandbox: MakeSandbox):
    sandbox = make_sandbox("two-controllers")
    for name in POLICIES:
        sandbox.create(sandbox.manifest(name, limits=LIMITS))

    videos: list[str] = []
    with sandbox.controller(batch=20), sandbox.controller(batch=20):
        for _ in range(ROUNDS):
            videos += backlog(sandbox)
            requests = {name: sandbox.ask(name) for name in POLICIES}
            scan_beside(sandbox)
            for name, token in requests.items():
                sandbox.wait_served(token, name)
            assert keys(sandbox) == sorted(idempotency_key(sandbox.deployment.flow_id, video, 1) for video in videos)
            for name in POLICIES:
                sandbox.wait_served(sandbox.ask(name), name)
            # Either controller serves a request, and one may write what it saw a little later than the other.
            wait_for(lambda: all(map(is_true, map(sandbox.status, POLICIES))), what="true statuses")

    sandbox.assert_good_order()
