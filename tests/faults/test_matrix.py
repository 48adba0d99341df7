"""Each fault of each service, between a real controller and the service: nothing twice, nothing lost, and it heals.

All of them run side by side, since most of their time is waiting; each test then looks at how its own went.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import pytest

from tests.faults.faults import Fault, FaultInjection, Kind, Moment
from tests.faults.scenario import AT_WORK, JUST_DONE, STUCK, FaultScenario, Part, Parts

pytestmark = pytest.mark.faults

OUR_TRACEBACK = re.compile(r'File ".*/controller/')
"""Kopf logs one of its own when an answer to its watch is no JSON, and ends."""

AT_ONCE = 4
"""Faults at once, each with a Prefect of its own: most of their time is waiting."""


def is_possible(part: Part, kind: Kind, moment: Moment) -> bool:
    if kind is Kind.OUTAGE:
        return part is Part.KUBERNETES and moment is Moment.MIDDLE
    return moment is not Moment.WRITING or (part is not Part.SUPABASE and kind is not Kind.REFUSED)


FAULTS = [Fault(*each) for each in product(Part, Kind, Moment) if is_possible(*each)]


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, make_parts: Callable[[], Parts], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[Fault, Future[None]]]:
    """How the faults of the tests that were chosen go, at work on them; the longest begin."""
    items = [
        item for item in request.session.items if isinstance(item, pytest.Function) and item.parent is request.node
    ]
    chosen = [cast(Fault, item.callspec.params["fault"]) for item in items]
    chosen.sort(key=lambda fault: fault.seconds, reverse=True)
    free: SimpleQueue[Parts] = SimpleQueue()
    for _ in range(min(AT_ONCE, len(chosen))):
        free.put(make_parts())
    threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fault")
    directory = tmp_path_factory.mktemp("faults")
    yield {fault: threads.submit(run_with_free_parts, fault, free, directory) for fault in chosen}
    threads.shutdown(cancel_futures=True)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_recovers_each_video_once_and_heals(fault, outcomes):
    outcomes[fault].result()


def run_with_free_parts(fault: Fault, free: SimpleQueue[Parts], directory: Path) -> None:
    parts = free.get()
    try:
        run_scenario(fault, parts, directory)
    finally:
        parts.prefect.clear_flow_runs()
        free.put(parts)


def run_scenario(fault: Fault, parts: Parts, directory: Path) -> None:
    with FaultScenario.begin(parts, directory) as scenario:
        injection = FaultInjection(fault, scenario.proxies)
        parts.loop.call(injection.begin)
        scenario.ask("a scan during the fault")
        if fault.part is Part.KUBERNETES:
            scenario.wait_for(lambda: injection.hit, what="the fault")
            time.sleep(fault.seconds)
            parts.loop.call(injection.end)
            scenario.served("a scan during the fault")
        else:
            status = scenario.served("a scan during the fault")
            assert injection.hit, scenario.log
            parts.loop.call(injection.end)
            assert_reported(fault, status)

        scenario.ask("a scan after it")
        status = scenario.served("a scan after it")

        assert scenario.recoveries() == Counter(scenario.stuck)
        assert_true(status)
        assert scenario.starts == 1 or is_fatal(fault)
        assert scenario.stop() == 0
        assert not OUR_TRACEBACK.search(scenario.log), scenario.log


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
