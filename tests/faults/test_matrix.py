"""Each fault of each service, between a real controller and the service: nothing twice, nothing lost, and it heals.

All of them are played side by side, since most of their time is waiting; each test then looks at how its own went.
"""

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any, cast

import pytest

from tests.faults.faults import Fault, Kind, Moment, Trouble
from tests.faults.world import AT_WORK, JUST_DONE, STUCK, Part, Parts, World

pytestmark = pytest.mark.faults

OUR_TRACEBACK = re.compile(r'File ".*/controller/')
"""Kopf logs one of its own when an answer to its watch is no JSON, and ends."""

LANES = 8
"""Faults at once."""


def is_possible(part: Part, kind: Kind, moment: Moment) -> bool:
    if kind is Kind.OUTAGE:
        return part is Part.KUBERNETES and moment is Moment.MIDDLE
    return moment is not Moment.WRITING or (part is not Part.SUPABASE and kind is not Kind.REFUSED)


FAULTS = [Fault(*each) for each in product(Part, Kind, Moment) if is_possible(*each)]


@pytest.fixture(scope="module")
def played(
    request: pytest.FixtureRequest, parts: Parts, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[Fault, Future[None]]]:
    """The faults of the tests that were chosen, being played; the longest begin."""
    items = [
        item for item in request.session.items if isinstance(item, pytest.Function) and item.parent is request.node
    ]
    chosen = [cast(Fault, item.callspec.params["fault"]) for item in items]
    chosen.sort(key=lambda fault: fault.seconds, reverse=True)
    lanes = ThreadPoolExecutor(LANES, thread_name_prefix="lane")
    directory = tmp_path_factory.mktemp("faults")
    yield {fault: lanes.submit(play, fault, parts, directory) for fault in chosen}
    lanes.shutdown(cancel_futures=True)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_recovers_each_video_once_and_heals(fault, played):
    played[fault].result()


def play(fault: Fault, parts: Parts, directory: Path) -> None:
    with World.begin(parts, directory) as world:
        trouble = Trouble(fault, world.proxies)
        parts.loop.call(trouble.begin)
        if fault.part is Part.KUBERNETES:
            world.ask("a scan during the fault")
            world.wait_for(lambda: trouble.hit, what="the fault")
            time.sleep(fault.seconds)
            parts.loop.call(trouble.end)
            world.served("a scan during the fault")
        else:
            hit = scan_until_hit(world, trouble)
            parts.loop.call(trouble.end)
            assert_reported(fault, hit)

        world.ask("a scan after it")
        status = world.served("a scan after it")

        assert world.recoveries() == Counter(world.stuck)
        assert_true(status)
        assert world.starts == 1 or is_fatal(fault)
        assert world.stop() == 0
        assert not OUR_TRACEBACK.search(world.log), world.log


def scan_until_hit(world: World, trouble: Trouble) -> Mapping[str, Any]:
    """The status after a scan that met the fault: a server on SQLite is too busy for some scans to come so far."""
    for number in range(5):
        world.ask(f"scan {number}")
        status = world.served(f"scan {number}")
        if trouble.hit:
            return status
    raise AssertionError(f"no scan met the fault; the log ends with {world.log[-2000:]}")


def is_fatal(fault: Fault) -> bool:
    """An answer to kopf's watch that is none ends the controller; a cluster starts it again."""
    return fault.part is Part.KUBERNETES and fault.kind is Kind.HTML


def assert_reported(fault: Fault, status: Mapping[str, Any]) -> None:
    """A scan that failed says so; one of two requests that fail is no reason to."""
    if fault.kind is Kind.STORM:
        return
    conditions = {condition["type"]: condition for condition in status["conditions"]}
    assert conditions["Ready"]["status"] == conditions[f"{fault.part}Reachable"]["status"] == "False"
    assert str(fault.part) in status["lastScan"]["error"]


def assert_true(status: Mapping[str, Any]) -> None:
    """The status says what is so, once every stuck video has been recovered."""
    found, last = STUCK + AT_WORK + JUST_DONE, status["lastScan"]
    conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
    assert conditions == dict.fromkeys(["Ready", "SupabaseReachable", "PrefectReachable", "DeploymentReady"], "True")
    assert "error" not in last
    assert status["stuck"]["total"] == last["found"] == last["recovered"] + last["skipped"] == found
    assert last["reasons"] == {"ActiveFlowRun": STUCK + AT_WORK - last["recovered"], "RecentlyProcessed": JUST_DONE}
    totals = {"scans": len(status["history"]), "recovered": STUCK, "confirmed": 0, "failed": 0}
    assert status["totals"] == totals, status
