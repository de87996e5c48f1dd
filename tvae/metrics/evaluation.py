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
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tvae import poincare, ternary
from tvae.errors import EvaluationError
from tvae.metrics.nearest import nearest
from tvae.model import Embedding, TernaryVAE, require_model
from tvae.torch_defaults import torch_defaults

__all__ = [
    "CHUNK",
    "N_PAIRS",
    "N_TREE_SAMPLE",
    "SAMPLE_SEED",
    "Evaluation",
    "Measurement",
    "ball_coverage",
    "distance_fidelity_ceiling",
    "distances_by_valuation",
    "evaluate",
    "hierarchy_ceiling",
    "measure",
    "measure_norms",
    "pair_chords",
    "posterior_mean",
    "q_ceiling",
    "rank_correlation",
    "reproduced",
    "richness_ceiling",
    "sample_pairs",
    "sample_partners",
    "sibling_recall",
    "targets",
    "tree_precision_by_level",
    "trit_table",
]

N_PAIRS = 40_960
N_TREE_SAMPLE = 1_024
# The samples are part of the metrics' definition: another seed is another metric.
SAMPLE_SEED = 20_251_229
# Operations that go through the network at a time: their activations then stay in the processor's cache. A multiple of
# 16 keeps the rows of every member aligned, so that a cohort measures a member as it would be measured alone.
CHUNK = 2_048
# Mean radii of levels that are as near as this, as a share of the largest radius, differ by rounding alone.
LEAST_SCALE = 1e-9
ANCHORS = 32

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measurement:
    """The metrics of one embedding that cost little enough to be taken at every epoch.

    Attributes:
        hierarchy: in -1 … 1; `hierarchy_ceiling` bounds it where no two radii are equal.
        richness: at least 0; `richness_ceiling` bounds it where levels do not overlap.
        ordered_levels: 0 … n_trits.
        level_gap: at most 1.
        distance_fidelity: in -1 … 1; `distance_fidelity_ceiling` bounds it where no two distances are equal.
        level_gaps: the gap between each level and the next, from valuation 0 up; `level_gap` is the smallest.
        level_radii: mean radius of each level, hyperbolic length, from valuation 0 up.
        level_richness: the summand of richness that each level has, from valuation 0 up.
    """

    hierarchy: float
    richness: float
    ordered_levels: int
    level_gap: float
    distance_fidelity: float
    level_gaps: tuple[float, ...]
    level_radii: tuple[float, ...]
    level_richness: tuple[float, ...]

    @property
    def q(self) -> float:
        """Distance fidelity + 1.5·|hierarchy|."""
        return self.distance_fidelity + 1.5 * abs(self.hierarchy)


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

    @property
    def q(self) -> float:
        """Distance fidelity + 1.5·|hierarchy|."""
        return self.distance_fidelity + 1.5 * abs(self.hierarchy)

    def metrics(self) -> dict[str, float]:
        """Return the scalar metrics under the names they are logged with."""
        return {
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
    covered = reproduced(model, latent).double().mean()
    unit_norm, direction = model.project(latent)
    embedding = Embedding(unit_norm.cpu(), direction.cpu())
    measured = measure(embedding, n_trits=n_trits, curvature=curvature)
    by_level = tree_precision_by_level(embedding, n_trits=n_trits, curvature=curvature)
    radii = poincare.radius(embedding.unit_norm, curvature=curvature).double().numpy()
    norms = embedding.unit_norm.double().numpy() / math.sqrt(curvature)
    radii.flags.writeable = norms.flags.writeable = False
    return Evaluation(
        coverage=float(covered),
        hierarchy=measured.hierarchy,
        richness=measured.richness,
        ordered_levels=measured.ordered_levels,
        level_gap=measured.level_gap,
        distance_fidelity=measured.distance_fidelity,
        tree_precision=float(np.mean(by_level)),
        tree_precision_by_level=by_level,
        sibling_recall=sibling_recall(embedding, n_trits=n_trits, curvature=curvature),
        ball_coverage=ball_coverage(embedding.points(curvature).float(), curvature=curvature),
        level_distances=tuple(distances_by_valuation(embedding, n_trits=n_trits, curvature=curvature).mean(1).tolist()),
        level_gaps=measured.level_gaps,
        level_radii=measured.level_radii,
        level_richness=measured.level_richness,
        radii=radii,
        norms=norms,
    )


@torch_defaults()
def posterior_mean(model: TernaryVAE) -> Tensor:
    """Return the posterior mean of all operations in index order, shape `(…, N, D)`, for a network or a cohort."""
    table = trit_table(model.architecture.n_trits).to(_device(model))
    return torch.cat([model.encode(table[start : start + CHUNK])[0] for start in range(0, len(table), CHUNK)], dim=-2)


@torch_defaults()
def measure(embedding: Embedding, *, n_trits: int, curvature: float) -> Measurement:
    """Measure one embedding of all operations.

    Args:
        embedding: unit norms `(N,)` and directions `(N, D)` of all operations in index order, on the CPU.
        n_trits: number of trits.
        curvature: c > 0.

    Raises:
        EvaluationError: if a radius is NaN, infinite or outside the ball, or a direction is not finite.
    """
    _require_inside(embedding.unit_norm)
    chords = pair_chords(embedding.direction, n_trits=n_trits)
    return measure_norms(embedding.unit_norm, chords, n_trits=n_trits, curvature=curvature)


@torch_defaults()
def measure_norms(unit_norm: Tensor, chords: Tensor, *, n_trits: int, curvature: float) -> Measurement:
    """Measure an embedding of which only the unit norms are new: directions that do not learn keep their chords.

    Args:
        unit_norm: of all operations in index order, shape `(N,)`, on the CPU.
        chords: `pair_chords` of the directions.
        n_trits: number of trits.
        curvature: c > 0.

    Raises:
        EvaluationError: if a radius is NaN, infinite or outside the ball.
    """
    _require_inside(unit_norm)
    radius = poincare.radius(unit_norm, curvature=curvature)
    i, j, _ = sample_pairs(n_trits)
    # Ranks need no more of a distance than something that grows with it.
    apart = poincare.excess(radius[i], radius[j], chords, curvature=curvature)
    sizes, valuations = ternary.level_sizes(n_trits), ternary.valuations(n_trits)
    hierarchy, fidelity = _rank_correlations(radius, apart, n_trits)
    means = np.bincount(valuations, weights=radius.numpy()) / sizes
    gaps = _level_gaps(radius.double().numpy(), means, n_trits)
    norm = unit_norm.double().numpy()
    centred = norm - (np.bincount(valuations, weights=norm) / sizes)[valuations]
    variances = np.bincount(valuations, weights=centred**2) / sizes
    return Measurement(
        hierarchy=hierarchy,
        richness=float(variances.sum() / len(sizes)),
        ordered_levels=int((np.diff(means) < 0).sum()),
        level_gap=min(gaps),
        distance_fidelity=fidelity,
        level_gaps=gaps,
        level_radii=tuple(means.tolist()),
        level_richness=tuple((variances / len(sizes)).tolist()),
    )


def _level_gaps(radius: Floats, means: Floats, n_trits: int) -> tuple[float, ...]:
    """Return the gap between each level and the next, in shares of the mean distance between levels.

    Where radii rise with valuation the scale is taken as positive, so that the gap is negative. Without any scale, at
    equal mean radii, levels cannot be apart: it is -1.
    """
    scale = abs(means[0] - means[-1]) / n_trits
    if scale <= LEAST_SCALE * radius.max():
        return (-1.0,) * n_trits
    by_level = radius[_by_level(n_trits)]
    starts = np.cumsum(ternary.level_sizes(n_trits)) - ternary.level_sizes(n_trits)
    gaps = np.minimum.reduceat(by_level, starts)[:-1] - np.maximum.reduceat(by_level, starts)[1:]
    return tuple((gaps / scale).tolist())


@torch_defaults()
def pair_chords(direction: Tensor, *, n_trits: int) -> Tensor:
    """Return |u - v|² of the directions of every pair of the fixed sample, shape `(40960,)`.

    Args:
        direction: norm 1, shape `(N, D)`, on the CPU.
        n_trits: number of trits.

    Raises:
        EvaluationError: if a direction is not finite.
    """
    finite = direction.isfinite().all(-1)
    if not bool(finite.all()):
        worst = int(torch.nonzero(~finite)[0])
        raise EvaluationError(
            f"Every direction must be finite; that of operation {worst} is not, and those of {int((~finite).sum())} of "
            f"{len(finite)} operations are not. The model is not usable."
        )
    i, j, _ = sample_pairs(n_trits)
    return (direction[i] - direction[j]).square().sum(-1)


def hierarchy_ceiling(n_trits: int = ternary.N_TRITS, sizes: npt.NDArray[np.integer] | None = None) -> float:
    """Return the most negative hierarchy that embeddings with N distinct radii can reach.

    Args:
        n_trits: number of trits.
        sizes: of the levels, where not all operations count.

    Spearman's correlation with tied ranks on one side only is at most sqrt(1 - Σ(n³ - n)/(N³ - N)), n the sizes of the
    ties: here the levels. Reached when every radius of a level is below every radius of the level before.

    Source:
        Kendall, Rank Correlation Methods (1948), section 3.8.

    Example:
        >>> round(hierarchy_ceiling(), 5)
        -0.83205
    """
    return -math.sqrt(_untied(ternary.level_sizes(n_trits) if sizes is None else sizes))


def distance_fidelity_ceiling(n_trits: int = ternary.N_TRITS) -> float:
    """Return the largest distance fidelity that embeddings with distinct distances can reach, on the fixed sample.

    As `hierarchy_ceiling`, with the pairs of one 3-adic distance for the levels. A pair that the sample holds more than
    once is tied with itself on either side, which is allowed for.

    Example:
        >>> round(distance_fidelity_ceiling(), 5)
        0.83165
    """
    i, j, apart = sample_pairs(n_trits)
    pairs = torch.minimum(i, j) * 3**n_trits + torch.maximum(i, j)
    sizes, times = (np.unique(values, return_counts=True)[1] for values in (apart, pairs.numpy()))
    return math.sqrt(_untied(sizes) / _untied(times))


def q_ceiling(n_trits: int = ternary.N_TRITS) -> float:
    """Return the largest Q that embeddings with distinct radii and distances can reach.

    Example:
        >>> round(q_ceiling(), 4)
        2.0797
    """
    return distance_fidelity_ceiling(n_trits) + 1.5 * abs(hierarchy_ceiling(n_trits))


def _untied(sizes: npt.NDArray[np.integer]) -> float:
    """Return the share of the variance of N distinct ranks that is left where groups of these sizes are tied."""
    n, total = sizes.astype(float), float(sizes.sum())
    return 1 - float((n**3 - n).sum()) / (total**3 - total)


def richness_ceiling(max_radius: float, n_trits: int = ternary.N_TRITS) -> float:
    """Return the largest richness that levels which do not overlap can have: max_radius²/(4·number of levels).

    The levels' unit norms then lie in disjoint intervals of total length max_radius at most, and an interval of length
    L holds a variance of L²/4 at most; the sum is largest when one level has the whole length. Levels that overlap can
    have more, up to n_trits times as much: a richness above this bound shows that they do.

    Example:
        >>> round(richness_ceiling(0.95), 7)
        0.0225625
    """
    return max_radius**2 / (4 * (n_trits + 1))


@torch_defaults()
def reproduced(model: TernaryVAE, latent: Tensor) -> Tensor:
    """Return which operations come back whole from the decoder.

    Args:
        model: a network or a cohort.
        latent: posterior means of all operations in index order, shape `(…, N, D)`.

    Returns:
        Boolean, shape `(…, N)`.
    """
    target = targets(model.architecture.n_trits).to(latent.device)
    chunks = [
        (model.decode(latent[..., start : start + CHUNK, :]).argmax(-1) == target[start : start + CHUNK]).all(-1)
        for start in range(0, len(target), CHUNK)
    ]
    return torch.cat(chunks, dim=-1)


@torch_defaults()
def tree_precision_by_level(
    embedding: Embedding,
    *,
    n_trits: int,
    curvature: float,
    sample: int = N_TREE_SAMPLE,
    dtype: torch.dtype = torch.float32,
    chosen: npt.NDArray[np.bool_] | None = None,
) -> tuple[float, ...]:
    """Return tree precision at k = 1 … n_trits - 1, before averaging over k.

    Where several operations are equally far, the expected share under random tie-breaking counts.

    Args:
        embedding: unit norms `(N,)` and directions `(N, D)` of all operations in index order.
        n_trits: number of trits.
        curvature: c > 0.
        sample: how many operations to average over; all of them if there are no more.
        dtype: of the distances. float32 is enough of a radius and a direction, if not of a unit norm near 1, in a ball
            as small as a model's.
        chosen: the operations to average over, or to take the sample from, shape `(N,)`; None means all.
    """
    anchors = np.arange(3**n_trits) if chosen is None else np.flatnonzero(chosen)
    if sample < len(anchors):
        anchors = anchors[np.random.default_rng(SAMPLE_SEED).choice(len(anchors), sample, replace=False)]
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
                shares[start + row, k - 1] = _share_of_nearest(distances[row, i % 3**k :: 3**k], ordered[row])
    return tuple(shares.mean(0).tolist())


@torch_defaults()
def sibling_recall(
    embedding: Embedding, *, n_trits: int, curvature: float, chosen: npt.NDArray[np.bool_] | None = None
) -> float:
    """Return the share of every operation's two nearest that are its siblings, i ± 3^(n_trits - 1) mod 3^n_trits.

    Distances are those of float64. Where several operations are equally far, the expected share under random
    tie-breaking counts.

    Args:
        embedding: unit norms `(N,)` and directions `(N, D)` of all operations in index order.
        n_trits: number of trits.
        curvature: c > 0.
        chosen: the operations to average over, shape `(N,)`; None means all.
    """
    n, operation = 3**n_trits, torch.arange(3**n_trits)
    direction = torch.nn.functional.normalize(embedding.direction.double(), dim=-1)
    z = Embedding(embedding.unit_norm.double(), direction).points(curvature)
    siblings = (operation[:, None] + torch.tensor([n // 3, 2 * n // 3])) % n
    of_siblings = poincare.distance_between_points(z[:, None], z[siblings], curvature=curvature)
    # Two others nearer than both siblings settle it, and mostly they are not far to seek: operations with another trit.
    beaten = torch.zeros(n, dtype=torch.int64)
    for power in 3 ** torch.arange(n_trits - 1):
        trit = operation // power % 3
        for step in (1, 2):
            other = operation + ((trit + step) % 3 - trit) * power
            beaten += poincare.distance_between_points(z, z[other], curvature=curvature) < of_siblings.amin(1)
    asked = torch.ones(n, dtype=torch.bool) if chosen is None else torch.tensor(chosen)
    i = torch.nonzero((beaten < 2) & asked).flatten()
    found, distance = nearest(z[i], z, curvature=curvature, count=min(4, n))
    # The operation itself is at distance 0, so that the second of the others is the third in all.
    second, tied = distance[:, 2], (distance[:, 2:] == distance[:, 2:3]).sum(1) > 1
    hits = (found[:, :3, None] == siblings[i, None]).sum((1, 2)).double()
    if bool(tied.any()):
        hits[tied] = _expected_hits(z, i[tied], second[tied], of_siblings[i[tied]], curvature)
    return float(hits.sum() / (2 * asked.sum()))


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
def ball_coverage(points: Tensor, *, curvature: float, chosen: npt.NDArray[np.bool_] | None = None) -> float:
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

    At each valuation every operation has one partner, of the fixed sample `sample_partners`.

    Args:
        embedding: unit norms `(N,)` and directions `(N, D)` of all operations in index order.
        n_trits: number of trits.
        curvature: c > 0.

    Returns:
        Shape `(n_trits, N)`: a row a valuation, from 0 up; a column an operation.
    """
    partner = sample_partners(n_trits)
    radius, direction = poincare.radius(embedding.unit_norm.double(), curvature=curvature), embedding.direction.double()
    return poincare.distance(radius, direction, radius[partner], direction[partner], curvature=curvature).numpy()


def _share_of_nearest(ball: npt.NDArray[np.floating], ordered: npt.NDArray[np.floating]) -> float:
    """Share of a ball's members, its centre aside, among the `len(ball)` smallest of all distances."""
    farthest = ordered[len(ball) - 1]
    surely_in, tied = int((ball < farthest).sum()), int((ball == farthest).sum())
    below, up_to = np.searchsorted(ordered, farthest, "left"), np.searchsorted(ordered, farthest, "right")
    expected = surely_in + tied * (len(ball) - below) / (up_to - below)
    return float((expected - 1) / (len(ball) - 1))


def _require_inside(unit_norm: Tensor) -> None:
    inside = (unit_norm >= 0) & (unit_norm < 1)
    if not bool(inside.all()):
        worst = int(torch.nonzero(~inside)[0])
        raise EvaluationError(
            f"Every radius must be finite and inside the ball; operation {worst} has unit norm "
            f"{float(unit_norm[worst])}, and {int((~inside).sum())} of {len(unit_norm)} operations are outside [0, 1). "
            "The model is not usable."
        )


@lru_cache
@torch_defaults()
def trit_table(n_trits: int) -> Tensor:
    """Return all operations in index order as the network's input, float32 of shape `(N, n_trits)`."""
    return torch.from_numpy(ternary.operations(n_trits).astype(np.float32))


@lru_cache
@torch_defaults()
def targets(n_trits: int) -> Tensor:
    """Return all operations in index order as classes 0, 1, 2 for -1, 0, 1, int64 of shape `(N, n_trits)`."""
    return torch.from_numpy(ternary.operations(n_trits).astype(np.int64) + 1)


@lru_cache
@torch_defaults()
def sample_pairs(n_trits: int) -> tuple[Tensor, Tensor, Floats]:
    """Return the fixed sample of pairs i != j, and their 3-adic distances, each of shape `(40960,)`."""
    rng = np.random.default_rng(SAMPLE_SEED)
    n = 3**n_trits
    i = rng.integers(n, size=N_PAIRS)
    j = (i + rng.integers(1, n, size=N_PAIRS)) % n
    return torch.from_numpy(i), torch.from_numpy(j), ternary.distance(i, j, n_trits)


@lru_cache
@torch_defaults()
def sample_partners(n_trits: int) -> Tensor:
    """Return for every valuation k and operation i a fixed operation j with v(i - j) = k, shape `(n_trits, N)`."""
    rng, n = np.random.default_rng(SAMPLE_SEED), 3**n_trits
    k = np.arange(n_trits)[:, None]
    # 3^k·u with u not divisible by 3: modulo N there are 2·3^(n_trits - 1 - k) of them.
    u = 3 * rng.integers(3 ** (n_trits - 1 - k), size=(n_trits, n)) + rng.integers(1, 3, size=(n_trits, n))
    return torch.from_numpy((np.arange(n) + 3**k * u) % n)


@lru_cache
def _by_level(n_trits: int) -> npt.NDArray[np.int64]:
    """Return all operations by valuation, from 0 up."""
    return np.argsort(ternary.valuations(n_trits), kind="stable")


@lru_cache
def _valuation_ranks(n_trits: int) -> Floats:
    return _centred_ranks(ternary.valuations(n_trits))


@lru_cache
def _pair_ranks(n_trits: int) -> Floats:
    return _centred_ranks(sample_pairs(n_trits)[2])


def rank_correlation(values: npt.NDArray[np.generic], others: npt.NDArray[np.generic]) -> float:
    """Return the Spearman correlation of two rows of numbers; 0 where one is constant."""
    return _correlation_of_ranks(_centred_ranks(values), _centred_ranks(others))


def _centred_ranks(values: npt.NDArray[np.generic]) -> Floats:
    """Return average ranks less their mean. Not scipy's `rankdata`: importing scipy.stats takes as long as torch."""
    order = np.argsort(values)
    ranks = np.empty(len(values))
    ranks[order] = _centred_ranks_of_ascending(values[order])
    return ranks


def _centred_ranks_of_ascending(values: npt.NDArray[np.generic]) -> Floats:
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    counts = np.diff(starts, append=len(values))
    return np.repeat(starts + (counts - len(values)) / 2, counts)


def _rank_correlations(radius: Tensor, apart: Tensor, n_trits: int) -> tuple[float, float]:
    """Spearman correlation of radius with valuation, and of how far pairs are apart with their 3-adic distance.

    One sort serves both: torch sorts integers digit by digit, ten times as fast as floats, from 32,768 values on. The
    bits of floats >= 0 are ordered as the floats are, and with the sign bit set all radii come before all distances.
    """
    integer = {torch.float32: torch.int32, torch.float64: torch.int64}[radius.dtype]
    bits = torch.cat([radius.view(integer) + torch.iinfo(integer).min, apart.view(integer)])
    ascending, order = (part.numpy() for part in torch.sort(bits, stable=True))
    n = len(radius)
    return (
        _correlation(_valuation_ranks(n_trits)[order[:n]], ascending[:n]),
        _correlation(_pair_ranks(n_trits)[order[n:] - n], ascending[n:]),
    )


def _correlation(ranks: Floats, ascending: npt.NDArray[np.integer]) -> float:
    """Correlation of centred ranks and the ranks of ascending values; 0 where one side is constant: it says nothing."""
    return _correlation_of_ranks(ranks, _centred_ranks_of_ascending(ascending))


def _correlation_of_ranks(ranks: Floats, others: Floats) -> float:
    # Plain sums rather than `@`: a BLAS that starts threads costs more than these sums do.
    scale = math.sqrt(float((ranks * ranks).sum()) * float((others * others).sum()))
    return float((ranks * others).sum()) / scale if scale else 0.0


def _device(model: TernaryVAE) -> torch.device:
    return next(model.parameters()).device
