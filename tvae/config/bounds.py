"""What a model must reach to pass verification, stated once; the command `verify` takes its defaults from here."""

from dataclasses import dataclass

__all__ = ["RELOADS", "Bounds"]

RELOADS = 3
"""Fresh processes that load a checkpoint when it is verified, besides the one that verifies it."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a model must reach.

    Attributes:
        coverage: smallest share of operations that come back whole from the decoder.
        hierarchy: largest correlation of valuation and radius; negative is right.
        ordered_levels: smallest number of neighbouring levels with falling mean radius; None means all of them.
        level_gap: smallest gap between neighbouring levels; None means at least 0, no two overlap, where the training
            promised it: distances were learned about operation 0, without richness. Of other models it is reported.
        distinct_points: smallest share of distinct points among those of all operations, in float32.
        ceiling_slack: how far the hierarchy may pass the ceiling for distinct radii; accidental ties in float32 move it
            by less, also where levels are as narrow as in an exact tree, while a level at one radius moves it by more.
        metric_tolerance: largest difference of a claimed metric from the recomputed one.
    """

    coverage: float = 1.0
    hierarchy: float = -0.8
    ordered_levels: int | None = None
    level_gap: float | None = None
    distinct_points: float = 0.9
    ceiling_slack: float = 1e-5
    metric_tolerance: float = 1e-6
