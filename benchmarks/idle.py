"""The idle scan, which is what a policy does nearly always: how many requests it takes, and how long."""

import time
from statistics import median

from benchmarks.counting import counted
from benchmarks.parts import Services, manifest, scan
from controller.api.manifest import parse_policy
from controller.errors import Service

WARM_UP = 5


def measure(services: Services, *, scans: int) -> dict[str, float]:
    """Scan so many times while no video is stuck.

    Raises:
        RuntimeError: The gateway answered another number of requests than the controller's clients count.
    """
    services.clear()
    policy, credentials = parse_policy(manifest()), services.credentials
    for _ in range(WARM_UP):
        scan(policy, credentials)
    services.supabase.reset_requests()
    seconds: list[float] = []
    with counted() as sent:
        for _ in range(scans):
            began = time.perf_counter()
            scan(policy, credentials)
            seconds.append(time.perf_counter() - began)
    if (answered := len(services.supabase.requests)) != sent.to[Service.SUPABASE]:
        raise RuntimeError(f"Supabase answered {answered} requests, and {sent.to[Service.SUPABASE]} were sent")
    return {
        "idle_scan_requests": sent.to.total() / scans,
        "idle_scan_requests_to_prefect": sent.to[Service.PREFECT] / scans,
        "idle_scan_milliseconds": 1000 * median(seconds),
        "idle_scan_milliseconds_max": 1000 * max(seconds),
    }
