"""The figures of one run, flat, by name; a number in a name says for how many videos or policies it holds."""

import re
from collections.abc import Mapping

Figures = Mapping[str, float]


def series(figures: Figures, pattern: str) -> list[tuple[int, float]]:
    """The figures whose names differ only in one number, in its order.

    Args:
        figures: All figures.
        pattern: Their name, with `{}` in the place of the number: `requests_{}_to_prefect`.
    """
    before, after = map(re.escape, pattern.split("{}"))
    found = ((re.fullmatch(f"{before}([0-9]+){after}", name), value) for name, value in figures.items())
    return sorted((int(match[1]), value) for match, value in found if match)


def rounded(figures: Figures) -> dict[str, float]:
    """The figures with as many digits as mean something."""
    return {name: value if isinstance(value, int) else round(value, 3) for name, value in figures.items()}
