"""A backlog of stuck videos: how long one scan takes to recover it.

This is compared with what a scan cannot beat (the same server's bulk creates alone) and with what it replaces (two
questions a video). Scans and bulk creates take turns on the same server: whatever else the machine does hits both.
"""

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import repeat
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from more_itertools import chunked

from benchmarks import replaced
from benchmarks.counting import counted
from benchmarks.parts import TENANT, Services, scan_backlog
from benchmarks.replaced import LAST_RUNS, is_or_was_at_work
from controller.adapters.http import RETRIED, TIMEOUT, HttpError, ServiceClient
from controller.adapters.prefect.creation import DATABASE_LOCKED
from controller.errors import Service
from controller.flow_runs import idempotency_key
from controller.ports import BATCH
from devstack.prefect import environment

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rounds:
    """What one way of creating a backlog took, round by round.

    Attributes:
        again: How many requests were sent again, mostly because the server's database was locked.
    """

    create: Callable[[], object]
    seconds: list[float] = field(default_factory=list)
    again: list[int] = field(default_factory=list)


def measure(services: Services, sizes: Iterable[int], *, rounds: int) -> dict[str, float]:
    """Measure backlogs of several sizes, each in so many rounds."""
    _warm_up(services)
    figures: dict[str, float] = {}
    for size in sizes:
        scan, floor = _take_turns(services, size, rounds)
        ratios = [mine / least for mine, least in zip(scan.seconds, floor.seconds, strict=True)]
        found = {
            "over_floor": median(scan.seconds) / median(floor.seconds),
            "over_floor_min": min(ratios),
            "over_floor_max": max(ratios),
            "over_floor_of_fastest": min(scan.seconds) / min(floor.seconds),
            "scan_seconds": median(scan.seconds),
            "scan_sent_again": sum(scan.again),
            "floor_seconds": median(floor.seconds),
            "floor_sent_again": sum(floor.again),
        }
        figures |= {f"backlog_{size}_{name}": value for name, value in found.items()}
    return figures


def measure_replaced(services: Services, size: int, *, rounds: int) -> dict[str, float]:
    """Measure the scan, in so many rounds, and, once each, two ways of doing what it replaces.

    One is that of the scripts, with Prefect's own client. The other one is lean: the same questions, sent over a single
    connection with nothing around them.
    """
    _warm_up(services)
    services.clear()
    videos = services.add_stuck_videos(size)
    scan, lean = Rounds(lambda: scan_backlog(services, size)), Rounds(lambda: _replaced_lean(services, videos))
    for way in (*repeat(scan, rounds), lean):
        _run(way, services, size)
    by_script, [by_hand], by_scan = _replaced(services, videos), lean.seconds, median(scan.seconds)
    return {
        f"backlog_{size}_speedup_over_replaced": by_script / by_scan,
        f"backlog_{size}_replaced_seconds": by_script,
        f"backlog_{size}_speedup_over_replaced_lean": by_hand / by_scan,
        f"backlog_{size}_replaced_lean_seconds": by_hand,
        f"backlog_{size}_instead_of_replaced_seconds": by_scan,
    }


def _warm_up(services: Services) -> None:
    _take_turns(services, BATCH, 1)


def _take_turns(services: Services, size: int, rounds: int) -> tuple[Rounds, Rounds]:
    """The rounds of the scan and those of the bulk creates alone; each way goes first every second time."""
    services.clear()
    videos = services.add_stuck_videos(size)
    scan, floor = Rounds(lambda: scan_backlog(services, size)), Rounds(lambda: _create_in_bulk(services, videos))
    for number in range(rounds):
        for way in (scan, floor) if number % 2 else (floor, scan):
            _run(way, services, size)
    return scan, floor


def _run(way: Rounds, services: Services, size: int) -> None:
    """Run one more round on a server without flow runs that has come to rest."""
    _begin(services)
    began = time.perf_counter()
    with counted() as sent:
        way.create()
    way.seconds.append(time.perf_counter() - began)
    way.again.append(sent.again)
    _validate_backlog(services, size)


def _begin(services: Services) -> None:
    services.prefect.clear_flow_runs()
    services.settle()


def _validate_backlog(services: Services, size: int) -> None:
    if (created := services.prefect.count_flow_runs()) != size:
        raise RuntimeError(f"{created} flow runs were created for {size} videos")


def _create_in_bulk(services: Services, videos: Sequence[str]) -> None:
    """Create a run for each video, a hundred a request, and do nothing else."""

    async def create() -> None:
        path = f"deployments/{services.deployment.id}/create_flow_run/bulk"
        bodies = [_body(video, idempotency_key(services.deployment.flow_id, video, 1)) for video in videos]
        service = ServiceClient(Service.PREFECT, "PREFECT_API_URL", [])  # only for its retries: both ways wait alike
        async with httpx.AsyncClient(base_url=services.prefect.api_url, timeout=TIMEOUT) as http:
            for batch in chunked(bodies, BATCH):
                await service.send(lambda batch=batch: _post(http, path, batch))  # type: ignore[misc]

    asyncio.run(create())


async def _post(http: httpx.AsyncClient, path: str, bodies: Sequence[Json]) -> None:
    response = await http.post(path, json=bodies)
    if response.status_code in RETRIED or DATABASE_LOCKED in response.text:
        raise HttpError(httpx.codes.SERVICE_UNAVAILABLE, DATABASE_LOCKED)
    response.raise_for_status()


def _body(video: str, key: str | None = None) -> Json:
    """What the scan sends for a video; without a key, what the procedure that it replaces sent."""
    storage_key = f"{TENANT}/client/videos/{video}/video.mp4"
    parameters = {"video_id": video, "tenant_id": TENANT, "storage_key": storage_key}
    return {"parameters": parameters, "tags": ["recovery"], **({"idempotency_key": key} if key else {})}


def _replaced(services: Services, videos: Sequence[str]) -> float:
    """The seconds that the scripts' way takes, without the start of its process."""
    _begin(services)
    command = [str(environment.python()), "-P", replaced.__file__, services.deployment.id]
    stuck = json.dumps([_body(video)["parameters"] for video in videos])
    with TemporaryDirectory() as home:
        variables = environment.variables(Path(home), {"PREFECT_API_URL": services.prefect.api_url})
        done = subprocess.run(command, input=stuck, env=variables, check=True, stdout=subprocess.PIPE, text=True)
    _validate_backlog(services, len(videos))
    return float(done.stdout)


def _replaced_lean(services: Services, videos: Sequence[str]) -> None:
    """Per video: ask for the last hundred runs, look for it among them, create one run."""
    create = f"deployments/{services.deployment.id}/create_flow_run"
    last_runs = {"sort": "EXPECTED_START_TIME_DESC", "limit": LAST_RUNS}
    http = services.prefect.http  # sends again, soon, while the server's database is locked
    for video in videos:
        runs = http.post("flow_runs/filter", json=last_runs).raise_for_status().json()
        of_video = (run for run in runs if run["parameters"].get("video_id") == video)
        if not any(is_or_was_at_work(run["state_type"], _time(run["end_time"])) for run in of_video):
            http.post(create, json=_body(video)).raise_for_status()


def _time(written: str | None) -> datetime | None:
    return datetime.fromisoformat(written) if written else None
