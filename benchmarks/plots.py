"""Draws how the figures grow, as small SVG files that are the same bytes for the same figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks.figures import Figures, series
from benchmarks.table import CPU, MEMORY

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "video-recovery",  # or each run names its elements anew
    "svg.fonttype": "none",  # text stays text: small, and searchable
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
GOAL: dict[str, Any] = {"color": "0.4", "linestyle": "--", "linewidth": 1}

Points = Sequence[tuple[float, float]]


def draw(figures: Figures, directory: Path) -> list[Path]:
    """Draw all plots into a directory; return their files."""
    directory.mkdir(parents=True, exist_ok=True)
    plots = {"backlog": _backlog, "requests": _requests, "controller": _controller}
    with mpl.rc_context(STYLE):
        return [_save(plot(figures), directory / f"performance-{name}.svg") for name, plot in plots.items()]


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    return path


def _backlog(figures: Figures) -> Figure:
    figure, (axes,) = _panels(1)
    _line(axes, series(figures, "requests_{}_seconds"), "one scan")
    _line(axes, series(figures, "backlog_{}_floor_seconds"), "the server's bulk creates alone")
    _line(axes, series(figures, "backlog_{}_replaced_seconds"), "what it replaces")
    _line(axes, series(figures, "backlog_{}_replaced_lean_seconds"), "the same done with one plain connection")
    _finish(axes, "stuck videos", "seconds until all are recovered", log_y=True)
    return figure


def _requests(figures: Figures) -> Figure:
    figure, (axes,) = _panels(1)
    to_prefect = series(figures, "requests_{}_to_prefect")
    _line(axes, to_prefect, "to Prefect")
    _line(axes, series(figures, "requests_{}_to_supabase"), "to Supabase")
    sizes = [size for size, _ in to_prefect]
    axes.plot(sizes, sizes, label="one a video", **GOAL)
    _finish(axes, "stuck videos", "requests of a scan", log_y=True)
    return figure


def _controller(figures: Figures) -> Figure:
    figure, (memory, cpu, candidates) = _panels(3)
    _line(memory, series(figures, "policies_{}_rss_mb"), "memory")
    memory.axhline(MEMORY.bound, label="goal", **GOAL)
    _finish(memory, "idle policies", "MB")
    _line(cpu, series(figures, "policies_{}_cpu_percent"), "computing time")
    cpu.axhline(CPU.bound, label="goal", **GOAL)
    _finish(cpu, "idle policies", "% of one core")
    _line(candidates, series(figures, "candidates_{}_peak_rss_mb"), "memory, at its peak")
    _finish(candidates, "candidates of one scan", "MB")
    return figure


def _panels(count: int) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(6.4 if count == 1 else 3 * count, 3.2), layout="constrained")
    return figure, [figure.add_subplot(1, count, number + 1) for number in range(count)]


def _line(axes: Axes, points: Points, label: str) -> None:
    if points:
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=label)


def _finish(axes: Axes, across: str, up: str, *, log_y: bool = False) -> None:
    plain = FuncFormatter(lambda value, _: f"{value:,.10g}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(plain)
    if log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    axes.yaxis.set_major_formatter(plain)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1))  # above, where no line can be
