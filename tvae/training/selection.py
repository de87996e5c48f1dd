"""Which epoch of a run is its best, and when to stop waiting for a better one."""

import math

from tvae.metrics import Measurement
from tvae.training.member import Record

__all__ = ["Rank", "rank"]

# Hierarchies this near to the ceiling count as equal, and richness decides: all from -0.8319 on, for 9 trits.
HIERARCHY_STEP = 1.5e-4
# Within a step distances are in order but for a few near ties, and their margins may wait for the hierarchy: where
# richness is wanted too they are never met in full.
TREE_LOSS_STEP = 5e-3

Rank = tuple[float, ...]
"""Ranks compare as tuples: the greater is the better epoch."""


def rank(record: Record, measured: Measurement | None, ceiling: float, *, distances: bool = False) -> Rank:
    """Return what an epoch is compared by.

    With a projection: coverage, then hierarchy in steps of 1.5e-4 from its ceiling, then ordered levels, then richness.
    Of equal epochs the later one is kept. Where distances are learned, the tree's loss comes right after coverage, in
    steps of 0.005, and as it is instead of richness. Without a projection: coverage, then the loss.

    Args:
        record: of the epoch; before training it has no loss.
        measured: the embedding's metrics, None where no projection learns.
        ceiling: the most negative hierarchy that can be had.
        distances: whether distances are learned.
    """
    coverage = record["coverage"]
    if measured is None:
        return coverage, -record.get("loss", math.inf)
    shortfall = max(0.0, measured.hierarchy - ceiling)
    hierarchy = -float(int(shortfall / HIERARCHY_STEP))
    ordered = float(measured.ordered_levels)
    if not distances:
        return coverage, hierarchy, ordered, measured.richness
    tree_loss = record.get("tree_loss", math.inf)
    in_steps = tree_loss if math.isinf(tree_loss) else float(int(tree_loss / TREE_LOSS_STEP))
    return coverage, -in_steps, hierarchy, ordered, -tree_loss
