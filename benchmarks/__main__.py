"""`make bench`: measure everything, print one table, write the figures, the plots and the page that shows them."""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import backlog, candidates, idle, plots, policies, requests
from benchmarks.controllers import PROJECT
from benchmarks.figures import Figures, rounded
from benchmarks.parts import Services
from benchmarks.table import table
from devstack import Unavailable
from devstack.__main__ import build

PAGE = Path("docs", "performance.md")
RESULTS = Path("benchmarks", "results.json")
BEGIN, END = "<!-- table -->", "<!-- end -->"


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured; `calm` and `watch` are the seconds before and of each look at idle policies."""

    rounds: int
    backlogs: tuple[int, ...]
    replaced: int
    idle_scans: int
    sizes: tuple[int, ...]
    active: int
    policies: tuple[int, ...]
    calm: float
    watch: float


FULL = Extent(5, (100, 300, 1000), 300, 50, (10, 100, 1000, 10_000), 10_000, (1, 100, 1000), 30, 60)
QUICK = Extent(1, (100, 300), 100, 10, (10, 100, 1000), 1000, (1, 100), 3, 5)
"""Only to see whether everything works: one round says nothing."""


def main() -> None:
    """Read the arguments, measure, publish."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only try it out, and write into a temporary directory")
    quick = parser.parse_args().quick
    directory = Path(tempfile.mkdtemp(prefix="video-recovery-bench-")) if quick else PROJECT
    build()  # says what it is doing, and what cannot be had; nothing to do the second time
    try:
        where, figures = measure(QUICK if quick else FULL)
    except Unavailable as reason:
        sys.exit(f"The benchmarks cannot run here: {reason}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"{where}\n\n{table(figures)}\n")
    for path in publish(figures, where, directory):
        print(f"wrote {path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path}")


def measure(extent: Extent) -> tuple[str, Figures]:
    """Measure everything, one thing after the other; return where that was, and the figures.

    Raises:
        Unavailable: A part cannot be had here.
    """
    figures: dict[str, float] = {}

    def take(what: str, measuring: Callable[[], dict[str, float]]) -> None:
        began = time.monotonic()
        figures.update(measuring())
        print(f"{what}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

    rounds = extent.rounds
    with Services.start(marks_late=True) as services:
        where = _where(services)
        take("what is replaced", lambda: backlog.measure_replaced(services, extent.replaced, rounds=rounds))
    with Services.start(marks_late=False) as services:
        take("backlogs", lambda: backlog.measure(services, extent.backlogs, rounds=rounds))
        take("idle scans", lambda: idle.measure(services, scans=extent.idle_scans))
        take("requests", lambda: requests.measure(services, extent.sizes))
        take("beside active runs", lambda: requests.measure_beside(services, 1000, extent.active))
        take("candidates", lambda: candidates.measure(services, extent.sizes))
        take("policies", lambda: policies.measure(services, extent.policies, calm=extent.calm, seconds=extent.watch))
    return where, rounded(figures)


def publish(figures: Figures, where: str, directory: Path) -> list[Path]:
    """Write the figures, the plots and the page with the table, as they lie in the project; return the files."""
    results, page = directory / RESULTS, directory / PAGE
    drawn = plots.draw(figures, page.parent)
    before, _, rest = (PROJECT / PAGE).read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{where}\n\n{table(figures)}\n{END}{rest.partition(END)[2]}")
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(figures, indent=2) + "\n")
    return [results, page, *drawn]


def _where(services: Services) -> str:
    prefect = services.prefect.http.get("admin/version").raise_for_status().json()
    [postgres] = services.supabase.query("select current_setting('server_version') as version")
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d} on {os.cpu_count()} cores, which everything shares: controller, "
        f"Prefect {prefect} on SQLite, PostgreSQL {postgres['version']} with PostgREST, Kubernetes; "
        f"Python {platform.python_version()}."
    )


if __name__ == "__main__":
    main()
