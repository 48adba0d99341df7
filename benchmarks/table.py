"""The one table: what was measured, its goal if it has one, whether it is met, and if not, why not.

The goals stand here and nowhere else.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.figures import Figures, series

HEAD = ("What", "Measured", "Goal", "", "Details")


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound.

    Attributes:
        upper: Whether a figure must not be above it; otherwise it must not be below.
    """

    bound: float
    upper: bool = True

    def __str__(self) -> str:
        return f"at {'most' if self.upper else 'least'} {self.bound:g}"

    def met(self, value: float) -> bool:
        """Whether a figure is within the bound."""
        return value <= self.bound if self.upper else value >= self.bound


MEMORY, CPU = Goal(150), Goal(5)
GOALS = {
    "backlog_300_over_floor": Goal(1.2),
    "backlog_1000_over_floor": Goal(1.2),
    "backlog_300_speedup_over_replaced": Goal(20, upper=False),
    "idle_scan_requests": Goal(1),
    "requests_1000_stuck_10000_active": Goal(120),
    **{f"policies_{count}_rss_mb": MEMORY for count in (1, 100, 1000)},
    **{f"policies_{count}_cpu_percent": CPU for count in (1, 100, 1000)},
}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table.

    Attributes:
        name: The figure's.
        unit: A format of the figure, with its unit.
        details: A format of all figures.
        why_missed: The reason of a miss where the figures of the run prove one.
    """

    what: str
    name: str
    unit: str
    details: str = ""
    why_missed: str = ""

    def cells(self, figures: Figures) -> tuple[str, ...]:
        """The row's text, column by column."""
        value, goal = figures[self.name], GOALS.get(self.name)
        measured, details = self.unit.format(value), self.details.format_map(figures)
        if goal is None:
            return self.what, measured, "", "", details
        if goal.met(value):
            return self.what, measured, str(goal), "met", details
        why = self.why_missed or "the reason is not known"
        return self.what, measured, str(goal), "**missed**", ". ".join(filter(None, [details, f"Missed: {why}"]))


def table(figures: Figures) -> str:
    """The table in Markdown, with columns that line up, for a terminal and for a page."""
    rows = [HEAD, *(row.cells(figures) for row in _rows(figures))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD) - 1)]
    lines = [_line([*map(str.ljust, row, widths), row[-1]]) for row in rows]
    return "\n".join([lines[0], _line(["-" * width for width in [*widths, len(HEAD[-1])]]), *lines[1:]])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rows(figures: Figures) -> Iterator[Row]:
    yield from _backlogs(figures)
    yield from _replaced(figures)
    worst = "at worst {idle_scan_milliseconds_max:.0f} ms"
    yield Row("An idle scan", "idle_scan_requests", "{:g} request", "{idle_scan_requests_to_prefect:g} to Prefect")
    yield Row("An idle scan", "idle_scan_milliseconds", "{:.0f} ms", worst)
    yield from _requests(figures)
    yield from _policies(figures)
    yield from _candidates(figures)


def _backlogs(figures: Figures) -> Iterator[Row]:
    for size, _ in series(figures, "backlog_{}_over_floor"):
        name = f"backlog_{size}"
        yield Row(
            f"Backlog of {size:,}: a scan's time over that of the bulk creates alone",
            f"{name}_over_floor",
            "{:.2f}",
            f"{{{name}_scan_seconds:.1f}} s over {{{name}_floor_seconds:.1f}} s; rounds from "
            f"{{{name}_over_floor_min:.2f}} to {{{name}_over_floor_max:.2f}}, the fastest of each "
            f"{{{name}_over_floor_of_fastest:.2f}}; requests sent again: {{{name}_scan_sent_again:g}} and "
            f"{{{name}_floor_sent_again:g}}",
            _locked_more_often(figures, name),
        )


def _locked_more_often(figures: Figures, name: str) -> str:
    """The reason of a miss, if SQLite was locked more often for the scan, and the fastest rounds meet the goal."""
    goal = GOALS.get(f"{name}_over_floor")
    scan, floor = figures[f"{name}_scan_sent_again"], figures[f"{name}_floor_sent_again"]
    if goal is None or scan <= floor or not goal.met(figures[f"{name}_over_floor_of_fastest"]):
        return ""
    return f"SQLite was locked {scan:g} times for the scans and {floor:g} times for the others, and each time is a wait"


def _replaced(figures: Figures) -> Iterator[Row]:
    instead = "{{backlog_{size}_instead_of_replaced_seconds:.1f}} s instead of {{backlog_{size}_{other}_seconds:.0f}} s"
    for size, _ in series(figures, "backlog_{}_speedup_over_replaced"):
        what, name = f"Backlog of {size:,}: times as fast as", f"backlog_{size}_speedup_over_replaced"
        details = instead.format(size=size, other="replaced")
        yield Row(f"{what} what it replaces", name, "{:.1f}", details, _not_even_bulk_creates(figures, size))
        details = instead.format(size=size, other="replaced_lean")
        yield Row(f"{what} the same done with one plain connection", f"{name}_lean", "{:.1f}", details)


def _not_even_bulk_creates(figures: Figures, size: int) -> str:
    """The reason of a miss, if what no scan can beat would miss the goal as well."""
    goal, floor = GOALS.get(f"backlog_{size}_speedup_over_replaced"), figures[f"backlog_{size}_floor_seconds"]
    best = figures[f"backlog_{size}_replaced_seconds"] / floor
    if goal is None or goal.met(best):
        return ""
    return f"the server needs {floor:.1f} s to create the runs, and even that alone is only {best:.1f} times as fast"


def _requests(figures: Figures) -> Iterator[Row]:
    for size, _ in series(figures, "requests_{}"):
        yield _sent(figures, f"Requests of a scan that recovers {size:,}", f"requests_{size}")
    for active, _ in series(figures, "requests_1000_stuck_{}_active"):
        what = f"Requests of a scan that recovers 1,000 beside {active:,} active runs"
        yield _sent(figures, what, f"requests_1000_stuck_{active}_active")


def _sent(figures: Figures, what: str, name: str) -> Row:
    details = (
        f"{{{name}_to_supabase:g}} to Supabase, {{{name}_to_prefect:g}} to Prefect, of these "
        f"{{{name}_sent_again:g}} sent again; {{{name}_seconds:.1f}} s"
    )
    goal, without = GOALS.get(name), figures[name] - figures[f"{name}_sent_again"]
    enough = goal is not None and goal.met(without)
    return Row(what, name, "{:g}", details, f"without those sent again it is {without:g}" if enough else "")


def _policies(figures: Figures) -> Iterator[Row]:
    for count, _ in series(figures, "policies_{}_rss_mb"):
        name = f"policies_{count}"
        what = f"Controller with {count:,} idle {'policy' if count == 1 else 'policies'}"
        peak = f"{{{name}_peak_rss_mb:.0f}} MB at its peak"
        yield Row(f"{what}: memory", f"{name}_rss_mb", "{:.0f} MB", peak)
        yield Row(f"{what}: of one core", f"{name}_cpu_percent", "{:.1f} %")


def _candidates(figures: Figures) -> Iterator[Row]:
    for size, _ in series(figures, "candidates_{}_peak_rss_mb"):
        name, after = f"candidates_{size}_peak_rss_mb", f"{{candidates_{size}_rss_mb:.0f}} MB after it"
        yield Row(f"Controller that scans {size:,} candidates: memory at its peak", name, "{:.0f} MB", after)
    for size, _ in series(figures, "candidates_{}_beside_active_peak_rss_mb"):
        name = f"candidates_{size}_beside_active_peak_rss_mb"
        yield Row(f"The same with {size:,}, beside as many active runs", name, "{:.0f} MB")
