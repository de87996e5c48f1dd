"""Metrics of some operations: of those that a training saw, and of those that it was kept from.

Each is the metric of the same name over the chosen operations alone. Neighbours and decoded operations are looked for
among all operations, chosen or not; a pair of the distance fidelity counts by its first operation; levels of which
nothing is chosen are left out.
"""

import math
from typing import Any

import numpy as np

from tvae import ternary
from tvae.metrics.measurement import embed, measure_norms, pair_chords, posterior_mean, reproduced
from tvae.metrics.tree import ball_coverage, sibling_recall, tree_precision_by_level
from tvae.model import TernaryVAE
from tvae.torch_defaults import torch_defaults

__all__ = ["holdout_metrics"]


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
        found = measure_norms(embedding.unit_norm, chords, **where, chosen=chosen)
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
