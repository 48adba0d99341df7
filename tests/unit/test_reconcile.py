"""One reconcile of a policy, over a store in memory."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.api.manifest import Manifest, PolicyKey
from controller.errors import ClusterError, Service
from controller.operator.reconcile import Reconciler
from controller.ports import PolicyEvent, StatusChange
from tests.support import manifest
from tests.unit.fakes import flow_run, raising, unavailable
from tests.unit.scanning import rows
from tests.world.world import World

NOW = datetime(2026, 3, 10, 12, 7, 30, tzinfo=UTC)
KEY = PolicyKey("captionacc", "captionacc-prod", "uid-1")


class Store:
    """A store with one policy; writes of its status may be refused, or its status be computed more than once."""

    def __init__(self, *, refuse: bool = False, conflicts: int = 0) -> None:
        self.refuse, self.conflicts, self.writes = refuse, conflicts, 0
        self.events: list[PolicyEvent] = []
        self.manifest = manifest()
        self.manifest["metadata"]["annotations"] = {"recovery.captiona.cc/requestedAt": "now"}
        self.manifest["status"] = {"observedGeneration": 1}

    async def read(self, key: PolicyKey) -> Manifest | None:
        return self.manifest if self.manifest["metadata"]["uid"] == key.uid else None

    async def update_status(
        self, key: PolicyKey, compute: Callable[[Mapping[str, object]], Mapping[str, object]]
    ) -> StatusChange | None:
        self.writes += 1
        if self.refuse:
            raise ClusterError("the API server answered 403 Forbidden", status=403)
        before = self.manifest["status"]
        for _ in range(self.conflicts):
            compute(before)
        self.manifest["status"] = dict(compute(before))
        return StatusChange(before, self.manifest["status"]) if self.manifest["status"] != before else None

    async def emit_event(self, key: PolicyKey, event: PolicyEvent) -> None:
        self.events.append(event)

    @property
    def posted(self) -> list[tuple[str, str]]:
        """The kind and reason of each Event; takes them away."""
        posted: list[tuple[str, str]] = [(event.kind, event.reason) for event in self.events]
        self.events = []
        return posted


class Broken:
    """Services with a defect."""

    @asynccontextmanager
    async def connect(self, policy: object) -> AsyncIterator[Any]:
        if policy is not None:
            raise KeyError("a defect")
        yield None


async def reconcile(store: Store, services: Any, *, recheck: bool = False, stop: asyncio.Event | None = None) -> None:
    reconciler = Reconciler(store, services, lambda: NOW)
    await reconciler.reconcile(KEY, due_at=NOW, recheck=recheck, stop=stop or asyncio.Event())


def reasons(store: Store, kind: str = "Ready") -> list[str]:
    return [each["reason"] for each in store.manifest["status"]["conditions"] if each["type"] == kind]


async def test_a_request_is_served_and_the_token_taken_over():
    store = Store()

    await reconcile(store, World())

    assert store.manifest["status"]["lastHandledReconcileAt"] == "now"
    assert store.manifest["status"]["lastScan"]["found"] == 0


async def test_a_defect_ends_in_a_status_and_is_not_tried_again_at_every_tick(caplog):
    store = Store()

    await reconcile(store, Broken())

    assert store.manifest["status"]["lastHandledReconcileAt"] == "now"
    assert reasons(store) == ["InternalError"]
    assert store.posted == [("Warning", "InternalError")]
    assert "a defect" in caplog.text


async def test_a_defect_in_the_check_of_a_new_policy_is_in_its_conditions(caplog):
    store = Store()
    store.manifest["metadata"] |= {"generation": 2, "annotations": {}}

    await reconcile(store, Broken())

    assert store.manifest["status"]["observedGeneration"] == 2
    assert reasons(store) == ["InternalError"]
    assert store.posted == [("Warning", "InternalError")]
    assert "Traceback" in caplog.text


async def test_a_status_that_cannot_be_written_is_no_defect(caplog):
    store = Store(refuse=True)

    with pytest.raises(ClusterError), caplog.at_level(logging.ERROR):
        await reconcile(store, World())

    assert store.writes == 1
    assert caplog.text == ""


async def test_a_policy_that_is_being_deleted_is_left_alone():
    store = Store()
    store.manifest["metadata"]["deletionTimestamp"] = "2026-03-10T12:00:00Z"

    await reconcile(store, Broken())

    assert store.writes == 0


async def test_a_status_that_cannot_be_read_does_not_keep_a_scan_from_running():
    store = Store()
    store.manifest["status"] = {"observedGeneration": 1, "conditions": "not a list"}

    await reconcile(store, World(rows(1)))

    assert store.manifest["status"]["totals"] == {"scans": 1, "recovered": 1, "confirmed": 0, "failed": 0}


async def test_a_video_that_fails_is_told_by_a_warning():
    store, world = Store(), World(rows(2), refused={"v0001": "no"})

    await reconcile(store, world)

    [recovered, failed] = store.events
    assert (recovered.kind, recovered.reason) == ("Normal", "Recovered")
    assert recovered.message == "2 found: 1 recovered, 0 skipped, 1 failed (Refused 1)"
    assert (failed.kind, failed.reason) == ("Warning", "RecoveryFailed")
    assert failed.message == "1 videos could not be recovered; the first is v0001: no"


async def test_a_scan_that_fails_is_told_by_a_warning_with_its_reason():
    store, world = Store(), World(on={("candidates", 1): raising(unavailable(Service.SUPABASE))})

    await reconcile(store, world)

    [event] = store.events
    assert (event.kind, event.reason) == ("Warning", "ServerError")
    assert event.message.startswith("Supabase answered 503: busy")


async def test_a_missed_time_is_told_by_a_warning():
    store = Store()
    store.manifest["metadata"]["annotations"] = {}
    planned = {"observedSchedule": "*/15 * * * * Etc/UTC", "nextScheduleTime": "2026-03-10T09:00:00Z"}
    store.manifest["status"] |= planned

    await reconcile(store, World())

    [event] = store.events
    assert (event.kind, event.reason) == ("Warning", "MissedSchedule")
    assert event.message == "no scan could start at 2026-03-10 12:00 UTC; it is caught up now"


async def test_told_to_stop_it_starts_no_scan_and_the_request_is_still_owed():
    store, world, stop = Store(), World(rows(1)), asyncio.Event()
    stop.set()

    await reconcile(store, world, stop=stop)

    assert "candidates" not in world.steps
    assert "lastHandledReconcileAt" not in store.manifest["status"]


async def test_an_invalid_schedule_stalls_the_policy_and_is_told_once():
    store = Store()
    store.manifest["spec"]["schedule"] = "0 0 30 2 *"

    await reconcile(store, Broken())
    await reconcile(store, Broken())

    assert reasons(store, "Stalled") == ["InvalidSchedule"]
    assert store.posted == [("Warning", "InvalidSchedule")]


async def test_a_policy_of_the_same_name_that_came_after_it_is_left_alone():
    store = Store()
    store.manifest["metadata"]["uid"] = "uid-2"

    await reconcile(store, Broken())

    assert store.writes == 0


async def test_a_scan_recovers_no_more_than_the_status_allows_while_it_ramps_up():
    store, world = Store(), World(rows(3))
    store.manifest["status"]["rampUp"] = 2

    await reconcile(store, world)

    assert world.created == ["v0000", "v0001"]
    assert store.manifest["status"]["rampUp"] == 4


async def test_a_video_that_used_up_its_attempts_is_announced_by_one_event():
    attempts = [flow_run("v0000", "CRASHED", ended=timedelta(hours=n), attempt=4 - n) for n in (3, 2, 1)]
    store, world = Store(conflicts=2), World(rows(1), attempts)

    await reconcile(store, world)
    first = store.posted
    store.manifest["metadata"]["annotations"]["recovery.captiona.cc/requestedAt"] = "later"
    await reconcile(store, world)

    assert store.manifest["status"]["lastHandledReconcileAt"] == "later"
    assert store.manifest["status"]["quarantine"] == {"count": 1, "videos": ["v0000"]}
    assert (first, store.posted) == ([("Warning", "Quarantined")], [])


async def test_an_edited_policy_is_checked_with_its_bucket():
    store, world = Store(), World()
    store.manifest["spec"]["upload"] = {"bucket": "videos", "objectPath": "{id}.mp4"}
    store.manifest["metadata"] |= {"generation": 2, "annotations": {}}

    await reconcile(store, world)

    assert world.steps == ["connect", "check", "check_bucket", "deployment"]
    assert store.manifest["status"]["observedGeneration"] == 2
