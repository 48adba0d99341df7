"""One turn of a policy, where only a stand-in for the cluster can show it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from kubernetes.aio.client.exceptions import ApiException

from controller.adapters.kubernetes import PolicyKey
from controller.reconcile import Tools, reconcile
from tests.support import manifest

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


class Empty:
    """Services without a stuck video."""

    @asynccontextmanager
    async def connect(self, policy: object) -> AsyncIterator[tuple[Any, Any]]:
        yield self, None

    async def candidates(self, **_: object) -> list[Any]:
        return []


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

    await turn(cluster, Empty())

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
        await turn(cluster, Empty())

    assert cluster.writes == 1
    assert caplog.text == ""


async def test_a_policy_of_the_same_name_that_came_after_it_has_no_turn():
    cluster = Cluster()
    cluster.manifest["metadata"]["uid"] = "uid-2"

    await turn(cluster, Broken())

    assert cluster.writes == 0
