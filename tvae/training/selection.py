"""Which epoch of a run is its best, and when to stop waiting for a better one."""

import math

from tvae.metrics import Measurement, hierarchy_ceiling
from tvae.training.member import Record

__all__ = ["Standing", "standing"]

# Hierarchies this near to the ceiling count as equal, and richness decides: all from -0.8319 on, for 9 trits.
HIERARCHY_STEP = 1.5e-4

Standing = tuple[float, ...]
"""Standings compare as tuples: the greater is the better epoch."""


def standing(record: Record, measured: Measurement | None, n_trits: int) -> Standing:
    """Return what an epoch is compared by.

    With a projection: coverage, then hierarchy in steps of 1.5e-4 from its ceiling, then ordered levels, then richness;
    where distances are learned, the tree's loss comes right after coverage. Without one: coverage, then the loss.

    Args:
        record: of the epoch.
        measured: the embedding's metrics, None where no projection learns.
        n_trits: number of trits.
    """
    coverage = record["coverage"]
    if measured is None:
        return coverage, -record.get("loss", math.inf)
    shortfall = max(0.0, measured.hierarchy - hierarchy_ceiling(n_trits))
    hierarchy = -float(int(shortfall / HIERARCHY_STEP))
    tree = -record.get("tree_loss", 0.0)
    return coverage, tree, hierarchy, float(measured.ordered_levels), measured.richness
