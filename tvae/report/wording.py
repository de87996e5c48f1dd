"""How figures and lists are written."""

import math
from collections.abc import Mapping, Sequence

from tvae.sweeps.statistics import Spread

__all__ = ["assignments", "count", "listed", "mean_std", "places"]


def mean_std(found: Spread | None) -> str:
    """Write a mean with its standard deviation, where runs differ."""
    if found is None:
        return "–"
    # What rounds to 0 has no sign.
    mean = f"{round(found.mean, 5) + 0.0:.5f}"
    return f"{mean} ± {found.std:.5f}" if found.std > 0 else mean


def places(value: float) -> int:
    """Return how many decimals show two digits of a number."""
    return max(0, 1 - math.floor(math.log10(abs(value)))) if value else 1


def count(n: int, what: str) -> str:
    """Write how many there are of something."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Write names one after the other, `and` before the last."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def assignments(changed: Mapping[str, str]) -> str:
    """Write settings as a cell would be called."""
    return " ".join(f"{name}={value}" for name, value in changed.items())
