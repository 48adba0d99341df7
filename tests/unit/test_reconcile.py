"""One turn of a policy, where only a stand-in for the cluster can show it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kubernetes.aio.client.exceptions import ApiException

from controller.adapters.kubernetes.cluster import PolicyKey
from controller.operator.reconcile import Tools, reconcile
from tests.support import manifest
from tests.unit.fakes import World, earlier, flow_run
from tests.unit.scanning import rows

NOW = datetime(2026, 3, 10, 12, 7, 30, tzinfo=UTC)
KEY = PolicyKey("captionacc", "captionacc-prod", "uid-1")


class Cluster:
    """A cluster with one policy; writes of its status may be refused."""

    def __init__(self, *, refuse: bool = False) -> None:
        self.refuse, self.writes = refuse, 0
        self.manifest = manifest()
        self.manifest["metadata"]["annotations"] = {"recovery.captiona.cc/requestedAt": "now"}
        self.manifest["status"] = {"observedGeneration": 1}

    async def policy(self, namespace: str, name: str) -> dict[str, Any]:
        return self.manifest

    async def update_status(self, key: PolicyKey, compute: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> bool:
        self.writes += 1
        if self.refuse:
            raise ApiException(status=403, reason="Forbidden")
        self.manifest["status"] = dict(compute(self.manifest["status"]))
        return True


class Broken:
    """Services with a defect."""

    @asynccontextmanager
    async def connect(self, policy: object) -> AsyncIterator[tuple[Any, Any]]:
        if policy is not None:
            raise KeyError("a defect")
        yield self, None


class Events:
    def __init__(self) -> None:
        self.posted: list[str] = []

    async def post(self, key: PolicyKey, kind: str, reason: str, message: str) -> None:
        self.posted.append(reason)


async def turn(cluster: Cluster, services: Any) -> Events:
    events = Events()
    tools = Tools(cluster, services, events, lambda: NOW)  # type: ignore[arg-type]
    await reconcile(KEY, tools, due_at=NOW, recheck=False, stop=asyncio.Event())
    return events


async def test_a_request_is_served_and_the_token_taken_over():
    cluster = Cluster()

    await turn(cluster, World())

    assert cluster.manifest["status"]["lastHandledReconcileAt"] == "now"
    assert cluster.manifest["status"]["lastScan"]["found"] == 0


async def test_a_defect_ends_in_a_status_and_is_not_tried_again_at_every_tick(caplog):
    cluster = Cluster()

    events = await turn(cluster, Broken())

    status = cluster.manifest["status"]
    assert status["lastHandledReconcileAt"] == "now"
    assert [c["reason"] for c in status["conditions"] if c["type"] == "Ready"] == ["InternalError"]
    assert events.posted == ["InternalError"]
    assert "a defect" in caplog.text


async def test_a_status_that_cannot_be_written_is_no_defect(caplog):
    cluster = Cluster(refuse=True)

    with pytest.raises(ApiException), caplog.at_level(logging.ERROR):
        await turn(cluster, World())

    assert cluster.writes == 1
    assert caplog.text == ""


async def test_a_policy_of_the_same_name_that_came_after_it_has_no_turn():
    cluster = Cluster()
    cluster.manifest["metadata"]["uid"] = "uid-2"

    await turn(cluster, Broken())

    assert cluster.writes == 0


async def test_a_scan_recovers_no_more_than_the_status_allows_while_it_ramps_up():
    cluster, world = Cluster(), World(rows(3))
    cluster.manifest["status"]["rampUp"] = 2

    await turn(cluster, world)

    assert world.created == ["v0000", "v0001"]
    assert cluster.manifest["status"]["rampUp"] == 4


async def test_a_video_that_used_up_its_attempts_is_announced_by_one_event():
    attempts = [flow_run("v0000", "CRASHED", ended=timedelta(hours=n), attempt=4 - n) for n in (3, 2, 1)]
    cluster, world = Cluster(), World(rows(1), recoveries={"v0000": earlier(*attempts)})

    first = await turn(cluster, world)
    cluster.manifest["metadata"]["annotations"]["recovery.captiona.cc/requestedAt"] = "later"
    second = await turn(cluster, world)

    assert cluster.manifest["status"]["lastHandledReconcileAt"] == "later"
    assert cluster.manifest["status"]["quarantine"] == {"count": 1, "videos": ["v0000"]}
    assert (first.posted, second.posted) == (["Quarantined"], [])


async def test_an_edited_policy_is_checked_with_its_bucket():
    cluster, world = Cluster(), World()
    cluster.manifest["spec"]["upload"] = {"bucket": "videos", "objectPath": "{id}.mp4"}
    cluster.manifest["metadata"] |= {"generation": 2, "annotations": {}}

    await turn(cluster, world)

    assert world.steps == ["connect", "check", "check_bucket", "deployment"]
    assert cluster.manifest["status"]["observedGeneration"] == 2
