"""What a model is worth, measured on every operation at the posterior mean: no sampling, no noise.

Definitions, with N operations and 10 levels of valuation (9 trits):

- coverage: share of operations whose trits all come back from the decoder (argmax).
- hierarchy: Spearman correlation of valuation and radius, in -1 … 1. Negative is right.
- richness: (1/10)·Σ over levels with more than one member of the population variance of the unit norm within the level.
- ordered levels: how many of the 9 neighbouring pairs of levels have strictly falling mean radius.
- level gap: the smallest over neighbouring levels of (smallest radius of v - largest radius of v + 1), in shares of a
  ninth of the difference of mean radius between the first level and the last. 1: thin shells, evenly spaced; 0: two
  levels touch; below 0: they overlap.
- distance fidelity: Spearman correlation of hyperbolic and 3-adic distance over a fixed sample of pairs.
- tree precision: for operation i and level k = 1 … 8, of the 3^(9-k) - 1 operations nearest to i, the share in its
  3-adic ball i + 3^k·Z; averaged over k, then over a fixed sample of operations.
- sibling recall: for every operation i, of the 2 operations nearest to it, the share that are its 3-adic siblings
  i ± 3^8 mod 3^9: tree precision at k = 8, over all operations.
- ball coverage: share of operations that come back from their point in the ball alone, as the float32 coordinates that
  a user has of it, when the nearest embedding is taken. With this decoder, that of `tvae.decode`, an operation is lost
  where it shares its point with another, or where rounding has moved the point out of the ball.
- Q: distance fidelity + 1.5·|hierarchy|.

Of more than 13 trits operations are not listed but drawn, and everything is measured of `population`: the first part,
drawn evenly, gives the metrics of all operations, and those of a level come from all that are drawn of it. Neighbours
are then looked for among drawn partners, see `tvae.metrics.drawn`. From 11 trits on, what would take more than linear
time is measured of a fixed sample, and `Evaluation.intervals` says how far it may be off.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tvae import poincare, ternary
from tvae.arrays import Floats
from tvae.metrics.drawn import drawn_tree
from tvae.metrics.measurement import embed, measure, posterior_mean, q, rank_correlation, reproduced
from tvae.metrics.population import SAMPLE_SEED, population
from tvae.metrics.tree import ball_coverage, distances_by_valuation, sibling_hits, tree_precisions, tree_sample
from tvae.model import TernaryVAE, require_model
from tvae.torch_defaults import torch_defaults

__all__ = ["MOST_EXACT", "Evaluation", "evaluate", "interval"]

# Up to as many trits tree precision alone is an estimate, over a sample that is part of its definition.
MOST_EXACT = 10
RESAMPLES = 200
# Of the normal distribution, for intervals of 95 %.
TWO_SIDED = 1.959964


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Everything that is measured of a finished model, and every operation's radius and norm.

    Attributes:
        coverage: in 0 … 1.
        hierarchy: in -1 … 1.
        richness: at least 0; `richness_ceiling` bounds it where levels do not overlap.
        ordered_levels: 0 … n_trits.
        level_gap: at most 1.
        distance_fidelity: in -1 … 1; `distance_fidelity_ceiling` bounds it where no two distances are equal.
        tree_precision: in 0 … 1.
        tree_precision_by_level: tree precision at k = 1 … n_trits - 1, before averaging over k.
        sibling_recall: in 0 … 1.
        ball_coverage: in 0 … 1.
        level_distances: mean hyperbolic distance of two operations, by the valuation of their difference, from 0 up.
        level_gaps: the gap between each level and the next, from valuation 0 up; `level_gap` is the smallest.
        level_radii: mean radius of each level, hyperbolic length, from valuation 0 up.
        level_richness: the summand of richness that each level has, from valuation 0 up.
        radii: hyperbolic distance from the origin of every operation in index order, shape `(N,)`, read-only.
        norms: Euclidean norm of every operation's point in the ball, shape `(N,)`, in [0, 1/sqrt(c)), read-only.
        intervals: low and high of metrics that are taken of a sample, by name: 95 % intervals of what a larger sample
            would have. Above 13 trits those of neighbours are against drawn partners, as the metrics are.
    """

    coverage: float
    hierarchy: float
    richness: float
    ordered_levels: int
    level_gap: float
    distance_fidelity: float
    tree_precision: float
    tree_precision_by_level: tuple[float, ...]
    sibling_recall: float
    ball_coverage: float
    level_distances: tuple[float, ...]
    level_gaps: tuple[float, ...]
    level_radii: tuple[float, ...]
    level_richness: tuple[float, ...]
    radii: Floats
    norms: Floats
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def q(self) -> float:
        """Of distance fidelity and hierarchy."""
        return q(self.distance_fidelity, self.hierarchy)

    def metrics(self) -> dict[str, float]:
        """Return the scalar metrics under the names they are logged with, and the ends of intervals as `NAME_low`."""
        ends = {f"{name}_{end}": of[k] for name, of in self.intervals.items() for k, end in enumerate(("low", "high"))}
        found = {
            "coverage": self.coverage,
            "hierarchy": self.hierarchy,
            "richness": self.richness,
            "ordered_levels": float(self.ordered_levels),
            "level_gap": self.level_gap,
            "distance_fidelity": self.distance_fidelity,
            "tree_precision": self.tree_precision,
            "sibling_recall": self.sibling_recall,
            "ball_coverage": self.ball_coverage,
            "q": self.q,
        }
        return found | ends


@torch_defaults(threads=1)
def evaluate(model: TernaryVAE) -> Evaluation:
    """Measure a model on every operation at the posterior mean.

    Args:
        model: one network, on any device.

    Returns:
        The metrics, with float64 statistics over the float32 values that the model computes.

    Raises:
        EvaluationError: if a radius is NaN, infinite or outside the ball, or a direction is not finite.
        TypeError: if it is no model.
    """
    require_model(model)
    n_trits, curvature = model.architecture.n_trits, model.architecture.curvature
    latent = posterior_mean(model)
    covered = reproduced(model, latent)[: population(n_trits).n_even].double()
    embedding = embed(model, latent)
    measured = measure(embedding, n_trits=n_trits, curvature=curvature)
    where: dict[str, Any] = {"n_trits": n_trits, "curvature": curvature}
    if n_trits <= ternary.MOST_LISTED:
        precisions = tree_precisions(embedding, tree_sample(n_trits), **where)
        hits, distances = sibling_hits(embedding, **where), distances_by_valuation(embedding, **where)
        alone = ball_coverage(embedding.points(curvature).float(), curvature=curvature)
    else:
        precisions, hits, distances, back = drawn_tree(model)
        alone = float(back.mean())
    by_level = tuple(precisions.mean(0).tolist())
    intervals: dict[str, tuple[float, float]] = {}
    if n_trits > MOST_EXACT:
        intervals["tree_precision"] = interval(float(np.mean(by_level)), len(precisions))
        intervals["sibling_recall"] = interval(float(hits.mean()), len(hits))
    radii = poincare.radius(embedding.unit_norm, curvature=curvature).double().numpy()
    norms = embedding.unit_norm.double().numpy() / math.sqrt(curvature)
    if n_trits > ternary.MOST_LISTED:
        intervals["coverage"] = interval(float(covered.mean()), len(covered))
        intervals["ball_coverage"] = interval(alone, len(hits))
        intervals["hierarchy"] = hierarchy_interval(radii, n_trits)
    radii.flags.writeable = norms.flags.writeable = False
    return Evaluation(
        coverage=float(covered.mean()),
        hierarchy=measured.hierarchy,
        richness=measured.richness,
        ordered_levels=measured.ordered_levels,
        level_gap=measured.level_gap,
        distance_fidelity=measured.distance_fidelity,
        tree_precision=float(np.mean(by_level)),
        tree_precision_by_level=by_level,
        sibling_recall=float(hits.mean()),
        ball_coverage=alone,
        level_distances=tuple(distances.mean(1).tolist()),
        level_gaps=measured.level_gaps,
        level_radii=measured.level_radii,
        level_richness=measured.level_richness,
        radii=radii,
        norms=norms,
        intervals=intervals,
    )


def hierarchy_interval(radii: Floats, n_trits: int) -> tuple[float, float]:
    """Return the 95 % interval of the hierarchy of all operations, from the sample that stands for them.

    It is that of the bootstrap: of as many operations, drawn again and again from the sample. The limit of hierarchy
    differs from sample to sample by about as much.

    Args:
        radii: of the population, shape `(N,)`.
        n_trits: number of trits.

    Source:
        Efron & Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.
    """
    people, rng = population(n_trits), np.random.default_rng(SAMPLE_SEED)
    drawn = (rng.integers(people.n_even, size=people.n_even) for _ in range(RESAMPLES))
    low, high = np.quantile([rank_correlation(people.valuations[some], radii[some]) for some in drawn], [0.025, 0.975])
    return float(low), float(high)


def interval(mean: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval for the mean of numbers in 0 … 1, of which `n` independent ones have a mean.

    It is meant for shares of yes and no, which vary as much as numbers in 0 … 1 can: of others it is too wide, never
    too narrow. Where all are 1 it still says how many were looked at.

    Source:
        Wilson, J. Am. Stat. Assoc. 22 (1927) 209.

    Example:
        >>> interval(1.0, 100)
        (0.96..., 1.0)
    """
    z2 = TWO_SIDED**2
    middle = (mean + z2 / (2 * n)) / (1 + z2 / n)
    half = TWO_SIDED * math.sqrt(max(0.0, mean * (1 - mean)) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)
