"""A thousand policies that come due at the same moment: each is scanned once for it, a few at a time."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from controller.schedule import fingerprint
from tests.e2e.conftest import Namespace, run_controller
from tests.faults.scenario import Parts
from tests.proxy import Crowd, Proxy
from tests.support import manifest
from tests.waiting import wait_for

pytestmark = pytest.mark.faults

POLICIES = 1000
AT_ONCE = 4
"""What the controller scans at once by default."""

SUMMARY = "Schedule scan: 0 found: 0 recovered, 0 skipped, 0 failed"

MINUTE = timedelta(minutes=1)
EVERY = 20
"""Minutes from one scheduled time to the next; a divisor of 60."""

TIME = "%Y-%m-%dT%H:%M:%SZ"


class Thousand(Namespace):
    """A namespace with a thousand policies for one table in which nothing is stuck."""

    def __init__(self, parts: Parts, supabase: Proxy, api: httpx.Client) -> None:
        super().__init__(parts.cluster, parts.supabase, parts.prefect)
        self.create_secret(**{**self.credentials, "SUPABASE_URL": supabase.url})
        self.path = f"/apis/recovery.captiona.cc/v1alpha1/namespaces/{self.name}/videorecoverypolicies"
        self._api = api
        # When all are created, also on a busy machine; then seldom enough for it to be done by the next time.
        self._first = (datetime.now(UTC) + 5 * MINUTE).minute % EVERY
        self.schedule = f"{self._first}-59/{EVERY} * * * *"

    def create_policies(self) -> None:
        body = manifest(schedule=self.schedule, stuck={"statuses": [self.name]})
        policies = [{**body, "metadata": {"name": f"policy-{number}"}} for number in range(POLICIES)]
        self.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": policies}))

    def remember(self, slot: datetime) -> None:
        """Give each the status that a controller which has checked it leaves behind."""
        observed = fingerprint(self.schedule, "Etc/UTC", suspend=False)
        status = {"observedGeneration": 1, "observedSchedule": observed, "nextScheduleTime": slot.strftime(TIME)}

        def put(policy: Mapping[str, Any]) -> None:
            path = f"{self.path}/{policy['metadata']['name']}/status"
            self._api.put(path, json={**policy, "status": status}).raise_for_status()

        with ThreadPoolExecutor(4) as several:
            list(several.map(put, self.policies()))

    def policies(self) -> list[dict[str, Any]]:
        policies: list[dict[str, Any]] = self._api.get(self.path).raise_for_status().json()["items"]
        return policies

    def statuses(self) -> list[dict[str, Any]]:
        return [policy["status"] for policy in self.policies()]

    def next_slot(self) -> datetime:
        """The next scheduled time that is far enough away for a controller to start before it."""
        slot = (datetime.now(UTC) + MINUTE).replace(second=0, microsecond=0) + MINUTE
        while slot.minute % EVERY != self._first:
            slot += MINUTE
        return slot


@pytest.fixture
def parts(make_parts: Callable[[], Parts]) -> Parts:
    return make_parts()


@pytest.fixture
def supabase_proxy(parts: Parts) -> Iterator[Proxy]:
    with parts.loop.serve(parts.supabase.url) as between:
        yield between


@pytest.fixture
def thousand(parts: Parts, supabase_proxy: Proxy) -> Iterator[Thousand]:
    with parts.kubernetes() as api:
        namespace = Thousand(parts, supabase_proxy, api)
        namespace.create_policies()
        yield namespace
        namespace.kubectl("delete", "--raw", namespace.path)


def test_a_thousand_policies_on_one_schedule_are_each_scanned_once_a_few_at_a_time(
    thousand: Thousand, supabase_proxy: Proxy, parts: Parts, tmp_path: Path
):
    crowd = Crowd()
    parts.loop.call(supabase_proxy.treat, crowd)
    slot = thousand.next_slot()
    thousand.remember(slot)
    arguments = ("--namespace", thousand.name, "--max-concurrent-scans", str(AT_ONCE))

    with run_controller(parts.kubeconfig, tmp_path / "log", *arguments) as controller:
        wait_for(
            lambda: controller.log.count(SUMMARY) >= POLICIES,
            what="the scans",
            seconds=30 * 60,  # the time of the schedule may be some minutes away
            seen=lambda: controller.log[-2000:],
        )
        assert controller.stop() == 0

    statuses = thousand.statuses()
    assert Counter(status["lastScheduleTime"] for status in statuses) == {slot.strftime(TIME): POLICIES}
    assert {status["totals"]["scans"] for status in statuses} == {1}
    assert {status["lastScan"]["trigger"] for status in statuses} == {"Schedule"}
    assert {status["nextScheduleTime"] for status in statuses} == {(slot + EVERY * MINUTE).strftime(TIME)}
    assert not [status for status in statuses if "lastMissedTime" in status or "error" in status["lastScan"]]
    assert controller.log.count(SUMMARY) == POLICIES
    assert Counter(request.method for request in supabase_proxy.requests) == {"GET": POLICIES}
    assert 1 < crowd.most <= AT_ONCE
    assert thousand.events() == []
