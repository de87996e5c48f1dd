"""Metrics of some operations: of those that a training saw, and of those that it was kept from.

Each is the metric of the same name over the chosen operations alone. Neighbours and decoded operations are looked for
among all operations, chosen or not; a pair of the distance fidelity counts by its first operation; levels of which
nothing is chosen are left out.
"""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tvae import poincare, ternary
from tvae.metrics.measurement import (
    LEAST_SCALE,
    Measurement,
    embed,
    pair_chords,
    posterior_mean,
    rank_correlation,
    reproduced,
)
from tvae.metrics.population import sample_pairs
from tvae.metrics.tree import ball_coverage, sibling_recall, tree_precision_by_level
from tvae.model import TernaryVAE
from tvae.torch_defaults import torch_defaults

__all__ = ["holdout_metrics", "measure_subset"]

Mask = npt.NDArray[np.bool_]


@torch_defaults()
def measure_subset(unit_norm: Tensor, chords: Tensor, chosen: Mask, *, n_trits: int, curvature: float) -> Measurement:
    """Measure some of the operations of an embedding.

    Args:
        unit_norm: of all operations in index order, shape `(N,)`, on the CPU, in [0, 1).
        chords: `pair_chords` of the directions.
        chosen: which operations, shape `(N,)`, at least one.
        n_trits: number of trits.
        curvature: c > 0.

    Returns:
        The metrics. Radii and gaps by level have an entry for each level that is there, from the lowest up; of a single
        level `level_gap` is NaN.
    """
    radius = poincare.radius(unit_norm, curvature=curvature).double().numpy()
    i, j, apart = sample_pairs(n_trits)
    r_i, r_j = torch.from_numpy(radius[i.numpy()]), torch.from_numpy(radius[j.numpy()])
    distance = poincare.excess(r_i, r_j, chords.double(), curvature=curvature).numpy()
    pairs = chosen[i.numpy()]
    levels, place = np.unique(ternary.valuations(n_trits)[chosen], return_inverse=True)
    r, norm = radius[chosen], unit_norm.double().numpy()[chosen]
    by_level = [(r[place == k], norm[place == k]) for k in range(len(levels))]
    means = np.array([radii.mean() for radii, _ in by_level])
    step = abs(means[0] - means[-1]) / max(1, levels[-1] - levels[0])
    apart_enough = step > LEAST_SCALE * r.max()
    gaps = [(low.min() - high.max()) / step if apart_enough else -1.0 for (low, _), (high, _) in pairwise(by_level)]
    variances = np.zeros(n_trits + 1)
    variances[levels] = [norms.var() / (n_trits + 1) for _, norms in by_level]
    return Measurement(
        hierarchy=rank_correlation(ternary.valuations(n_trits)[chosen], r),
        richness=float(variances.sum()),
        ordered_levels=int((np.diff(means) < 0).sum()),
        level_gap=float(min(gaps, default=math.nan)),
        distance_fidelity=rank_correlation(apart[pairs], distance[pairs]),
        level_gaps=tuple(map(float, gaps)),
        level_radii=tuple(map(float, means)),
        level_richness=tuple(variances.tolist()),
    )


@torch_defaults(threads=1)
def holdout_metrics(model: TernaryVAE, share: float) -> dict[str, float]:
    """Return every metric of the operations that a training saw, and of those that were held out of it.

    Args:
        model: one network, on the CPU.
        share: what was held out, in (0, 1).

    Returns:
        By name, as `seen_coverage` and `unseen_coverage`; without a level gap where all are of one level.
    """
    n_trits, curvature = model.architecture.n_trits, model.architecture.curvature
    latent = posterior_mean(model)
    covered, embedding = reproduced(model, latent).cpu().numpy(), embed(model, latent)
    chords, points = pair_chords(embedding.direction, n_trits=n_trits), embedding.points(curvature).float()
    unseen = ternary.held_out(share, n_trits)
    where: dict[str, Any] = {"n_trits": n_trits, "curvature": curvature}
    metrics: dict[str, float] = {}
    for name, chosen in (("seen", ~unseen), ("unseen", unseen)):
        found = measure_subset(embedding.unit_norm, chords, chosen, **where)
        among = {
            "coverage": float(covered[chosen].mean()),
            "hierarchy": found.hierarchy,
            "richness": found.richness,
            "ordered_levels": float(found.ordered_levels),
            "level_gap": found.level_gap,
            "distance_fidelity": found.distance_fidelity,
            "tree_precision": float(np.mean(tree_precision_by_level(embedding, **where, chosen=chosen))),
            "sibling_recall": sibling_recall(embedding, **where, chosen=chosen),
            "ball_coverage": ball_coverage(points, curvature=curvature, chosen=chosen),
            "q": found.q,
        }
        metrics |= {f"{name}_{metric}": value for metric, value in among.items() if math.isfinite(value)}
    return metrics
