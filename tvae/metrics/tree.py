"""How far an embedding is the 3-adic tree: distances and nearest neighbours among all operations."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tvae import poincare
from tvae.arrays import Bools, Floats, Ints
from tvae.metrics.nearest import nearest
from tvae.metrics.population import SAMPLE_SEED, sample_partners
from tvae.model import Embedding
from tvae.torch_defaults import torch_defaults

__all__ = [
    "N_TREE_SAMPLE",
    "ball_coverage",
    "distances_by_valuation",
    "share_of_nearest",
    "sibling_hits",
    "sibling_recall",
    "tree_precision_by_level",
    "tree_precisions",
    "tree_sample",
]

N_TREE_SAMPLE = 1_024
ANCHORS = 32
# Of more operations than 3^11 fewer are looked at, so that what is computed stays in proportion to their number; and of
# more than 3^10, not all have their nearest two looked for.
N_TREE_DISTANCES = N_TREE_SAMPLE * 3**11
N_SIBLING_DISTANCES = 3**18


def tree_sample(n_trits: int, chosen: Bools | None = None, sample: int = N_TREE_SAMPLE) -> Ints:
    """Return the operations that tree precision is averaged over.

    Args:
        n_trits: number of trits.
        chosen: the operations to take them from, shape `(N,)`; None means all.
        sample: how many; all of them if there are no more, and fewer of more than 3^11.
    """
    anchors = np.arange(3**n_trits) if chosen is None else np.flatnonzero(chosen)
    if n_trits > 11:
        sample = min(sample, N_TREE_DISTANCES // 3**n_trits)
    if sample < len(anchors):
        anchors = anchors[np.random.default_rng(SAMPLE_SEED).choice(len(anchors), sample, replace=False)]
    return anchors


def tree_precision_by_level(
    embedding: Embedding,
    *,
    n_trits: int,
    curvature: float,
    sample: int = N_TREE_SAMPLE,
    dtype: torch.dtype = torch.float32,
    chosen: Bools | None = None,
) -> tuple[float, ...]:
    """Return the mean of `tree_precisions` over `tree_sample`, at k = 1 … n_trits - 1."""
    anchors = tree_sample(n_trits, chosen, sample)
    shares = tree_precisions(embedding, anchors, n_trits=n_trits, curvature=curvature, dtype=dtype)
    return tuple(shares.mean(0).tolist())


@torch_defaults()
def tree_precisions(
    embedding: Embedding,
    anchors: Ints,
    *,
    n_trits: int,
    curvature: float,
    dtype: torch.dtype = torch.float32,
) -> Floats:
    """Return tree precision of some operations at k = 1 … n_trits - 1.

    Where several operations are equally far, the expected share under random tie-breaking counts.

    Args:
        embedding: unit norms `(N,)` and directions `(N, D)` of all operations in index order.
        anchors: the operations, shape `(n,)`.
        n_trits: number of trits.
        curvature: c > 0.
        dtype: of the distances. float32 is enough of a radius and a direction, if not of a unit norm near 1, in a ball
            as small as a model's.

    Returns:
        Shape `(n, n_trits - 1)`.
    """
    radius = poincare.radius(embedding.unit_norm, curvature=curvature).to(dtype)
    direction = embedding.direction.to(dtype)
    shares = np.empty((len(anchors), n_trits - 1))
    for start in range(0, len(anchors), ANCHORS):
        some = anchors[start : start + ANCHORS]
        # Differences, not products: between near points the squared chord would cancel.
        chord = torch.cdist(direction[some], direction, compute_mode="donot_use_mm_for_euclid_dist").square()
        distances = poincare.distance_from_chord(radius[some, None], radius, chord, curvature=curvature).numpy()
        distances[np.arange(len(some)), some] = -1.0  # the operation itself comes first, and is not counted
        ordered = np.sort(distances, axis=1)
        for row, i in enumerate(some):
            for k in range(1, n_trits):
                shares[start + row, k - 1] = share_of_nearest(distances[row, i % 3**k :: 3**k], ordered[row])
    return shares


def share_of_nearest(ball: npt.NDArray[np.floating], ordered: npt.NDArray[np.floating]) -> float:
    """Return the share of a ball's members, its centre aside, among the `len(ball)` smallest of all distances."""
    farthest = ordered[len(ball) - 1]
    surely_in, tied = int((ball < farthest).sum()), int((ball == farthest).sum())
    below, up_to = np.searchsorted(ordered, farthest, "left"), np.searchsorted(ordered, farthest, "right")
    expected = surely_in + tied * (len(ball) - below) / (up_to - below)
    return float((expected - 1) / (len(ball) - 1))


def sibling_recall(embedding: Embedding, *, n_trits: int, curvature: float, chosen: Bools | None = None) -> float:
    """Return the share of every operation's two nearest that are its siblings, as `sibling_hits` has it."""
    return float(sibling_hits(embedding, n_trits=n_trits, curvature=curvature, chosen=chosen).mean())


@torch_defaults()
def sibling_hits(embedding: Embedding, *, n_trits: int, curvature: float, chosen: Bools | None = None) -> Floats:
    """Return which share of an operation's two nearest are its siblings, i ± 3^(n_trits - 1) mod 3^n_trits.

    Distances are those of float64. Where several operations are equally far, the expected share under random
    tie-breaking counts.

    Args:
        embedding: unit norms `(N,)` and directions `(N, D)` of all operations in index order.
        n_trits: number of trits.
        curvature: c > 0.
        chosen: the operations that are looked at, shape `(N,)`; None means all. Of more than 3^10 operations a fixed
            sample of them is.

    Returns:
        Shape `(n,)`, an operation that is looked at each.
    """
    n = 3**n_trits
    asked = np.arange(n) if chosen is None else np.flatnonzero(chosen)
    if len(asked) * n > N_SIBLING_DISTANCES * 9:
        asked = np.random.default_rng(SAMPLE_SEED).choice(asked, N_SIBLING_DISTANCES // n, replace=False)
    operation = torch.from_numpy(asked)
    direction = torch.nn.functional.normalize(embedding.direction.double(), dim=-1)
    z = Embedding(embedding.unit_norm.double(), direction).points(curvature)
    siblings = (operation[:, None] + torch.tensor([n // 3, 2 * n // 3])) % n
    of_siblings = poincare.distance_between_points(z[operation, None], z[siblings], curvature=curvature)
    # Two others nearer than both siblings settle it, and mostly they are not far to seek: operations with another trit.
    beaten = torch.zeros(len(operation), dtype=torch.int64)
    for power in 3 ** torch.arange(n_trits - 1):
        trit = operation // power % 3
        for step in (1, 2):
            other = operation + ((trit + step) % 3 - trit) * power
            beaten += poincare.distance_between_points(z[operation], z[other], curvature=curvature) < of_siblings.amin(
                1
            )
    left = beaten < 2
    i, siblings, of_siblings = operation[left], siblings[left], of_siblings[left]
    found, distance = nearest(z[i], z, curvature=curvature, count=min(4, n))
    # The operation itself is at distance 0, so that the second of the others is the third in all.
    second, tied = distance[:, 2], (distance[:, 2:] == distance[:, 2:3]).sum(1) > 1
    hits = (found[:, :3, None] == siblings[:, None]).sum((1, 2)).double()
    if bool(tied.any()):
        hits[tied] = _expected_hits(z, i[tied], second[tied], of_siblings[tied], curvature)
    shares = torch.zeros(len(operation), dtype=torch.float64)
    shares[left] = hits / 2
    return shares.numpy()


def _expected_hits(z: Tensor, i: Tensor, second: Tensor, of_siblings: Tensor, curvature: float) -> Tensor:
    """Return how many siblings are expected among the two nearest where more than one operation is the second."""
    points, place = torch.unique(z[i], dim=0, return_inverse=True)
    farthest = second.new_zeros(len(points)).index_put((place,), second)
    below, tied = torch.empty_like(farthest), torch.empty_like(farthest)
    for row, (point, far) in enumerate(zip(points, farthest, strict=True)):
        distance = poincare.distance_between_points(point, z, curvature=curvature)
        # Less the operation itself, at distance 0.
        itself = float(far) > 0
        below[row], tied[row] = int((distance < far).sum()) - itself, int((distance == far).sum()) - (not itself)
    chance = ((2 - below) / tied)[place, None]
    return torch.where(of_siblings < second[:, None], 1.0, chance * (of_siblings == second[:, None])).sum(1)


@torch_defaults()
def ball_coverage(points: Tensor, *, curvature: float, chosen: Bools | None = None) -> float:
    """Return the share of operations that the nearest-embedding decoder gives back from their own points.

    A point is nearest to itself, at distance 0. So an operation comes back unless another has the very same
    coordinates, when none of them counts, or unless they are not inside the ball.

    Args:
        points: coordinates in the ball of all operations, in the precision that they are handed out in, shape `(N, D)`.
        curvature: c > 0.
        chosen: the operations to average over, shape `(N,)`; None means all.
    """
    _, place, count = np.unique(points.numpy(), axis=0, return_inverse=True, return_counts=True)
    alone = torch.from_numpy(count == 1)[torch.from_numpy(place)]
    back = (alone & poincare.inside(points, curvature=curvature)).double()
    return float((back if chosen is None else back[torch.tensor(chosen)]).mean())


@torch_defaults()
def distances_by_valuation(embedding: Embedding, *, n_trits: int, curvature: float) -> Floats:
    """Return hyperbolic distances between operations whose difference has a given valuation.

    At each valuation every operation has one partner, of the fixed sample `sample_partners`; beyond 3^10 operations a
    fixed sample of them has.

    Args:
        embedding: unit norms `(N,)` and directions `(N, D)` of all operations in index order.
        n_trits: number of trits.
        curvature: c > 0.

    Returns:
        Shape `(n_trits, n)`: a row a valuation, from 0 up; a column an operation.
    """
    i, partner = sample_partners(n_trits)
    radius, direction = poincare.radius(embedding.unit_norm.double(), curvature=curvature), embedding.direction.double()
    return torch.stack(
        [poincare.distance(radius[i], direction[i], radius[j], direction[j], curvature=curvature) for j in partner]
    ).numpy()
