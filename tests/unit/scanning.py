"""How unit tests run a scan of a `World`, and read what came of it."""

import asyncio
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from controller.flow_runs import StateType
from controller.outcome import Outcome, Recovered
from controller.scan import run_scan
from controller.schedule import ScanRequest, Trigger
from tests.support import policy
from tests.unit.fakes import NOW, row
from tests.world.world import World

REQUEST = ScanRequest(Trigger.SCHEDULE, NOW)


async def scan(
    world: World, *, request: ScanRequest = REQUEST, stop: asyncio.Event | None = None, now: datetime = NOW, **spec: Any
) -> Outcome:
    """Run a scan; keyword arguments are merged into the policy's spec."""
    return await run_scan(policy(**spec), request, world, now=now, stop=stop or asyncio.Event())


def rows(count: int) -> list[dict[str, object]]:
    """Videos, the oldest first, each of a tenant of its own."""
    return [row(f"v{n:04}", age=timedelta(hours=1000 - n), tenant_id=f"t{n:04}") for n in range(count)]


def results(outcome: Outcome) -> dict[str, str]:
    """What became of each video; fails if one has two results."""
    found = Counter(result.video_id for result in outcome.results)
    assert set(found.values()) <= {1}
    return {
        result.video_id: "Recovered" if isinstance(result, Recovered) else str(result.reason)
        for result in outcome.results
    }


def detail(outcome: Outcome, video_id: str = "v0000") -> str:
    """What was seen of a video that was not recovered."""
    [text] = [
        result.detail for result in outcome.results if result.video_id == video_id and not isinstance(result, Recovered)
    ]
    return text


def leaves(world: World, video_id: str) -> None:
    """A video gets going by itself."""
    world.set_status(video_id, "ready")


def works_on(world: World, video_id: str, state: str = "RUNNING") -> str:
    """Somebody's flow run of a video appears now, and takes a state."""
    run_id = world.begin(video_id)
    if state != "SCHEDULED":
        world.become(run_id, StateType(state))
    return run_id
