"""How figures and lists are written."""

import math
from collections.abc import Iterable, Mapping, Sequence

from tvae.experiments.statistics import Spread

__all__ = ["MOST_SEEDS", "assignments", "average", "count", "ends", "figure", "listed", "mean", "number", "seeds_text"]

# More seeds than this nobody waits for.
MOST_SEEDS = 100_000


def number(value: float | None, decimals: int = 5) -> str:
    """Write a figure, or a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    # What rounds to 0 has no sign.
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def figure(found: Spread | None, decimals: int = 5) -> str:
    """Write the mean of a metric with its standard deviation, where there is more than one run to have one."""
    if found is None:
        return "–"
    return number(found.mean, decimals) + (f" ± {number(found.std, decimals)}" if found.n > 1 else "")


def mean(found: Spread | None, decimals: int = 5) -> str:
    """Write the mean alone."""
    return number(found.mean if found else None, decimals)


def ends(found: Spread | None) -> str:
    """Write the smallest and the largest value, where there is more than one."""
    return f"{found.minimum:.5f} … {found.maximum:.5f}" if found and found.n > 1 else "–"


def count(n: int, what: str) -> str:
    """Write how many there are of something."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Write names one after the other, `and` before the last."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def assignments(changed: Mapping[str, str]) -> str:
    """Write settings as a cell would be called."""
    return " ".join(f"{name}={value}" for name, value in changed.items())


def seeds_text(n: int) -> str:
    """Write a number of seeds to two digits, since the noise is known no better."""
    return f"more than {MOST_SEEDS:,}" if n > MOST_SEEDS else f"{int(float(f'{n:.2g}')):,}"


def average(values: Iterable[float]) -> float:
    """Return the mean of any number of values; NaN of none."""
    known = list(values)
    return math.fsum(known) / len(known) if known else math.nan
