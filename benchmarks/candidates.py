"""Memory of a controller while it scans many candidates.

Its policy observes: it reads, looks up and decides everything as for a recovery, and creates nothing.
"""

from collections.abc import Sequence
from itertools import pairwise
from uuid import uuid4

from benchmarks.controllers import Cluster, wait_for
from benchmarks.parts import Services
from controller.api.names import REQUESTED_AT

POLICY = "vrp/policy-0"


def measure(services: Services, sizes: Sequence[int]) -> dict[str, float]:
    """Measure one controller after a scan of each of the sizes, which must grow.

    The last one is scanned once more beside as many active flow runs of other videos.
    """
    services.clear()
    figures: dict[str, float] = {}
    with Cluster.start(services) as cluster:
        cluster.create_policies(1, mode="Observe")
        with cluster.run_controller() as controller:
            cluster.wait_until_ready(1)
            for before, size in pairwise([0, *sizes]):
                services.add_stuck_videos(size - before)
                _scan(services, cluster, size)
                # Its peak is that of this scan, since those before were smaller.
                figures[f"candidates_{size}_peak_rss_mb"] = controller.peak_memory_mb
                figures[f"candidates_{size}_rss_mb"] = controller.memory_mb
            services.add_active_runs(sizes[-1])
            _scan(services, cluster, sizes[-1])
            figures[f"candidates_{sizes[-1]}_beside_active_peak_rss_mb"] = controller.peak_memory_mb
    return figures


def _scan(services: Services, cluster: Cluster, size: int) -> None:
    services.settle()
    token = str(uuid4())
    cluster.kubectl("annotate", "--overwrite", POLICY, f"{REQUESTED_AT}={token}")
    wait_for(lambda: _status(cluster, "lastHandledReconcileAt") == token, f"the scan of {size} candidates")
    if (observed := _status(cluster, "lastScan.reasons.ObserveMode")) != str(size):
        raise RuntimeError(f"the controller observed {observed or 'no'} videos instead of {size}")


def _status(cluster: Cluster, field: str) -> str:
    return cluster.kubectl("get", POLICY, "-o", f"jsonpath={{.status.{field}}}")
