"""How far a model is the 3-adic tree where its operations cannot be listed: against partners that are drawn.

Each of some operations, the anchors, has partners of every valuation k of the difference: all 2·3^(n_trits - 1 - k) of
them, or 54 that are drawn if there are more. If m of an anchor's partners lie in its 3-adic ball i + 3^k·Z, tree
precision at k is the share of its m nearest partners that do. Among all operations, of which there are three times as
many with every level farther out, the nearest of the far ones would be nearer, and the figure lower.
"""

from typing import NamedTuple

import numpy as np
import torch

from tvae import poincare, ternary
from tvae.arrays import Floats, Ints
from tvae.metrics.measurement import embed, posterior_mean
from tvae.metrics.population import SAMPLE_SEED, population
from tvae.metrics.tree import share_of_nearest
from tvae.model import Embedding, TernaryVAE
from tvae.torch_defaults import torch_defaults

__all__ = ["DrawnTree", "drawn_tree"]

N_ANCHORS = 729
N_DRAWN_PARTNERS = 54


class DrawnTree(NamedTuple):
    """What was found of each anchor.

    Attributes:
        precisions: tree precision at k = 1 … n_trits - 1, shape `(n, n_trits - 1)`.
        sibling_hits: which share of its two nearest partners are its siblings, shape `(n,)`.
        distances: mean hyperbolic distance of partners, by valuation from 0 up, shape `(n_trits, n)`.
        back: whether it is alone at its point in the ball, float32 as a user has it, among its partners, shape `(n,)`.
    """

    precisions: Floats
    sibling_hits: Floats
    distances: Floats
    back: Floats


@torch_defaults(threads=1)
def drawn_tree(model: TernaryVAE, n_anchors: int = N_ANCHORS) -> DrawnTree:
    """Measure a model of any number of trits.

    Args:
        model: one network.
        n_anchors: how many operations to measure, the first ones of the population.
    """
    n_trits, curvature = model.architecture.n_trits, model.architecture.curvature
    rng = np.random.default_rng(SAMPLE_SEED)
    found = []
    for anchor in population(n_trits).index[:n_anchors].tolist():
        index, levels = _partners(anchor, n_trits, rng)
        embedding = embed(model, posterior_mean(model, np.append(anchor, index)))
        found.append(_of_anchor(embedding, levels, n_trits, curvature))
    precisions, hits, distances, back = (np.stack(column) for column in zip(*found, strict=True))
    return DrawnTree(precisions, hits, distances.T, back)


def _partners(anchor: int, n_trits: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Return an anchor's partners, by valuation of the difference from 0 up, and that valuation."""
    sizes = ternary.level_sizes(n_trits)[:-1].tolist()
    places = [np.arange(n) if n <= N_DRAWN_PARTNERS else rng.integers(n, size=N_DRAWN_PARTNERS) for n in sizes]
    levels = np.repeat(np.arange(n_trits), [len(some) for some in places])
    return (anchor + ternary.of_level(levels, np.concatenate(places), n_trits)) % 3**n_trits, levels


def _of_anchor(
    embedding: Embedding, levels: Ints, n_trits: int, curvature: float
) -> tuple[Floats, float, Floats, bool]:
    radius = poincare.radius(embedding.unit_norm.double(), curvature=curvature)
    direction = torch.nn.functional.normalize(embedding.direction.double(), dim=-1)
    distance = poincare.distance(radius[:1], direction[:1], radius, direction, curvature=curvature).numpy()
    distance[0] = -1.0  # the anchor itself comes first, and is not counted
    ordered = np.sort(distance)
    starts = np.searchsorted(levels, np.arange(n_trits))
    balls = [np.append(distance[0], distance[1 + start :]) for start in starts[1:]]
    precisions = np.array([share_of_nearest(ball, ordered) for ball in balls])
    means = np.add.reduceat(distance[1:], starts) / np.diff(starts, append=len(levels))
    points = embedding.points(curvature).float()
    alone = bool((points[1:] != points[0]).any(-1).all()) and bool(poincare.inside(points[0], curvature=curvature))
    return precisions, float(precisions[-1]), means, alone
