"""How many requests a scan sends, to each service: for backlogs of several sizes, and beside many foreign flow runs."""

import time
from collections.abc import Iterable

from benchmarks.counting import counted
from benchmarks.parts import Services, scan_backlog
from controller.errors import Service


def measure(services: Services, sizes: Iterable[int]) -> dict[str, float]:
    """Count the requests of one scan that recovers a backlog, for each of the sizes."""
    figures: dict[str, float] = {}
    for size in sizes:
        services.clear()
        figures |= _scan(services, size, f"requests_{size}")
    return figures


def measure_beside(services: Services, stuck: int, active: int) -> dict[str, float]:
    """Count the requests of one scan that recovers a backlog while so many flow runs of other videos are active."""
    services.clear()
    services.add_active_runs(active)
    return _scan(services, stuck, f"requests_{stuck}_stuck_{active}_active")


def _scan(services: Services, stuck: int, name: str) -> dict[str, float]:
    services.add_stuck_videos(stuck)
    services.settle()
    began = time.perf_counter()
    with counted() as sent:
        scan_backlog(services, stuck)
    return {
        name: sent.to.total(),
        f"{name}_to_supabase": sent.to[Service.SUPABASE],
        f"{name}_to_prefect": sent.to[Service.PREFECT],
        f"{name}_sent_again": sent.again,
        f"{name}_seconds": time.perf_counter() - began,
    }
