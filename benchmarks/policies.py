"""Memory and computing time of a controller whose policies are all valid and none of which is due."""

import time
from collections.abc import Iterable
from statistics import median

from benchmarks.controllers import Cluster, Controller
from benchmarks.parts import Services


def measure(services: Services, counts: Iterable[int], *, calm: float, seconds: float) -> dict[str, float]:
    """Measure a fresh controller in a fresh cluster for each number of policies.

    Args:
        services: The services that each policy is checked with.
        counts: How many policies.
        calm: Seconds to wait once all are checked.
        seconds: How long to measure then.
    """
    services.clear()
    figures: dict[str, float] = {}
    for count in counts:
        with Cluster.start(services) as cluster:
            cluster.create_policies(count)
            with cluster.run_controller() as controller:
                cluster.wait_until_ready(count)
                time.sleep(calm)
                figures |= {f"policies_{count}_{name}": value for name, value in _watch(controller, seconds).items()}
    return figures


def _watch(controller: Controller, seconds: float) -> dict[str, float]:
    cpu_before, began = controller.cpu_seconds, time.monotonic()
    memory: list[float] = []
    while time.monotonic() < began + seconds:
        memory.append(controller.memory_mb)
        time.sleep(1)
    cpu = (controller.cpu_seconds - cpu_before) / (time.monotonic() - began)
    return {"rss_mb": median(memory), "peak_rss_mb": controller.peak_memory_mb, "cpu_percent": 100 * cpu}
