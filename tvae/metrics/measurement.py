"""What is measured at every epoch, at the posterior mean: no sampling of the latent, no noise.

Each function takes and returns what belongs to the operations of `population`, in its order: all operations in index
order up to 13 trits.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tvae import poincare, ternary
from tvae.arrays import Bools, Floats, Ints
from tvae.errors import EvaluationError
from tvae.metrics.population import Population, in_pairs, population, sample_pairs, targets, trit_table
from tvae.model import Embedding, TernaryVAE
from tvae.torch_defaults import torch_defaults

__all__ = [
    "CHUNK",
    "Measurement",
    "chords_in_pairs",
    "distance_fidelity_ceiling",
    "embed",
    "hierarchy_ceiling",
    "measure",
    "measure_norms",
    "pair_chords",
    "posterior_mean",
    "q",
    "q_ceiling",
    "rank_correlation",
    "reproduced",
    "require_finite_directions",
    "richness_ceiling",
]

# Operations that go through the network at a time: their activations then stay in the processor's cache. A multiple of
# 16 keeps the rows of every member aligned, so that a cohort measures a member as it would be measured alone.
CHUNK = 2_048
# Mean radii of levels that are as near as this, as a share of the largest radius, differ by rounding alone.
LEAST_SCALE = 1e-9


@dataclass(frozen=True, slots=True)
class Measurement:
    """The metrics of one embedding that cost little enough to be taken at every epoch.

    Those by level have an entry for each level that is there.

    Attributes:
        hierarchy: in -1 … 1; `hierarchy_ceiling` bounds it where no two radii are equal.
        richness: at least 0; `richness_ceiling` bounds it where levels do not overlap.
        ordered_levels: 0 … n_trits.
        level_gap: at most 1; NaN where there is one level only.
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
        """Of distance fidelity and hierarchy."""
        return q(self.distance_fidelity, self.hierarchy)


@torch_defaults()
def posterior_mean(model: TernaryVAE, index: Ints | None = None) -> Tensor:
    """Return the posterior mean of operations, shape `(…, N, D)`.

    Args:
        model: a network or a cohort.
        index: of the operations, shape `(N,)`; None means the population.
    """
    n_trits = model.architecture.n_trits
    trits = trit_table(n_trits) if index is None else torch.from_numpy(ternary.to_trits(index, n_trits)).float()
    return torch.cat([model.encode(some)[0] for some in torch.split(trits.to(model.device), CHUNK)], dim=-2)


@torch_defaults()
def embed(model: TernaryVAE, latent: Tensor | None = None) -> Embedding:
    """Return where operations lie in the ball, at the posterior mean.

    Args:
        model: one network, on any device.
        latent: `posterior_mean` of the operations, shape `(N, D)`; None means that of the population.

    Returns:
        Unit norms `(N,)` and directions `(N, D)`, on the CPU; they may be not finite.
    """
    latent = posterior_mean(model) if latent is None else latent
    # A piece at a time: the activations of all operations would be many times what is kept of them.
    parts = [model.project(some) for some in torch.split(latent, CHUNK)]
    return Embedding(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


@torch_defaults()
def reproduced(model: TernaryVAE, latent: Tensor) -> Tensor:
    """Return which operations come back whole from the decoder.

    Args:
        model: a network or a cohort.
        latent: posterior means of the population, shape `(…, N, D)`.

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
def measure(embedding: Embedding, *, n_trits: int, curvature: float) -> Measurement:
    """Measure one embedding of the population.

    Args:
        embedding: unit norms `(N,)` and directions `(N, D)` on the CPU.
        n_trits: number of trits.
        curvature: c > 0.

    Raises:
        EvaluationError: if a radius is NaN, infinite or outside the ball, or a direction is not finite.
    """
    _require_inside(embedding.unit_norm, n_trits)
    chords = pair_chords(embedding.direction, n_trits=n_trits)
    return measure_norms(embedding.unit_norm, chords, n_trits=n_trits, curvature=curvature)


@torch_defaults()
def measure_norms(
    unit_norm: Tensor, chords: Tensor, *, n_trits: int, curvature: float, chosen: Bools | None = None
) -> Measurement:
    """Measure an embedding of which only the unit norms are new: directions that do not learn keep their chords.

    Args:
        unit_norm: shape `(N,)`, on the CPU.
        chords: `pair_chords` of the directions.
        n_trits: number of trits.
        curvature: c > 0.
        chosen: which operations to measure, shape `(N,)`, at least one; None means all. A pair of the distance fidelity
            counts by its first operation.

    Returns:
        The metrics. Radii and gaps by level have an entry for each level that is there, from the lowest up; of a single
        level `level_gap` is NaN.

    Raises:
        EvaluationError: if a radius is NaN, infinite or outside the ball.
    """
    _require_inside(unit_norm, n_trits)
    radius = poincare.radius(unit_norm, curvature=curvature)
    i, j, of_pairs = sample_pairs(n_trits)
    # Ranks need no more of a distance than something that grows with it.
    apart = poincare.excess(radius[i], radius[j], chords, curvature=curvature)
    people, ranks = population(n_trits), (_valuation_ranks(n_trits), _pair_ranks(n_trits))
    if chosen is not None:
        here, people = torch.tensor(chosen), people.subset(chosen)
        unit_norm, radius, apart = unit_norm[here], radius[here], apart[here[i]]
        ranks = _centred_ranks(people.valuations[: people.n_even]), _centred_ranks(of_pairs[chosen[i.numpy()]])
    hierarchy, fidelity = _rank_correlations(radius[: people.n_even], apart, *ranks)
    lengths, norm = radius.double().numpy(), unit_norm.double().numpy()
    means = _level_means(lengths, people)
    gaps = _level_gaps(lengths, means, people)
    variances = _level_means((norm - _level_means(norm, people)[people.valuations]) ** 2, people)
    means = means[people.level_sizes > 0]
    return Measurement(
        hierarchy=hierarchy,
        richness=float(variances.sum() / len(variances)),
        ordered_levels=int((np.diff(means) < 0).sum()),
        level_gap=min(gaps, default=math.nan),
        distance_fidelity=fidelity,
        level_gaps=gaps,
        level_radii=tuple(means.tolist()),
        level_richness=tuple((variances / len(variances)).tolist()),
    )


def _level_means(values: Floats, people: Population) -> Floats:
    """Return the mean of each level, 0 of one that is not there."""
    return np.bincount(people.valuations, values, len(people.level_sizes)) / np.maximum(people.level_sizes, 1)


def _level_gaps(radius: Floats, means: Floats, people: Population) -> tuple[float, ...]:
    """Return the gap between each level and the next that is there, in shares of the mean distance between levels.

    Where radii rise with valuation the scale is taken as positive, so that the gap is negative. Without any scale, at
    equal mean radii, levels cannot be apart: it is -1.
    """
    there = np.flatnonzero(people.level_sizes)
    first, last = there[0], there[-1]
    scale = abs(means[first] - means[last]) / max(1, last - first)
    if scale <= LEAST_SCALE * radius.max():
        return (-1.0,) * (len(there) - 1)
    least, most = np.full(len(means), np.inf), np.zeros(len(means))
    np.minimum.at(least, people.valuations, radius)
    np.maximum.at(most, people.valuations, radius)
    return tuple(((least[there[:-1]] - most[there[1:]]) / scale).tolist())


@torch_defaults()
def pair_chords(direction: Tensor, *, n_trits: int) -> Tensor:
    """Return |u - v|² of the directions of every pair of the fixed sample, shape `(40960,)`.

    Args:
        direction: norm 1, shape `(N, D)`, on the CPU.
        n_trits: number of trits.

    Raises:
        EvaluationError: if a direction is not finite.
    """
    require_finite_directions(direction.isfinite().all(-1), n_trits)
    return chords_in_pairs(direction[in_pairs(n_trits)[0]], n_trits=n_trits)


def chords_in_pairs(direction: Tensor, *, n_trits: int) -> Tensor:
    """Return `pair_chords` from the directions of those operations alone that are `in_pairs`."""
    _, i, j = in_pairs(n_trits)
    return (direction[i] - direction[j]).square().sum(-1)


def hierarchy_ceiling(n_trits: int = ternary.N_TRITS, sizes: Ints | None = None) -> float:
    """Return the most negative hierarchy that embeddings with N distinct radii can reach.

    Args:
        n_trits: number of trits.
        sizes: of the levels, where not all operations count. Of more than 13 trits they are those of the sample that
            hierarchy is measured on.

    Spearman's correlation with tied ranks on one side only is at most sqrt(1 - Σ(n³ - n)/(N³ - N)), n the sizes of the
    ties: here the levels. Reached when every radius of a level is below every radius of the level before.

    Source:
        Kendall, Rank Correlation Methods (1948), section 3.8.

    Example:
        >>> round(hierarchy_ceiling(), 5)
        -0.83205
    """
    return -math.sqrt(_untied(_even_sizes(n_trits) if sizes is None else sizes))


def distance_fidelity_ceiling(n_trits: int = ternary.N_TRITS) -> float:
    """Return the largest distance fidelity that embeddings with distinct distances can reach, on the fixed sample.

    As `hierarchy_ceiling`, with the pairs of one 3-adic distance for the levels. A pair that the sample holds more than
    once is tied with itself on either side, which is allowed for.

    Example:
        >>> round(distance_fidelity_ceiling(), 5)
        0.83165
    """
    i, j, apart = sample_pairs(n_trits)
    pairs = torch.minimum(i, j) * population(n_trits).n_even + torch.maximum(i, j)
    sizes, times = (np.unique(values, return_counts=True)[1] for values in (apart, pairs.numpy()))
    return math.sqrt(_untied(sizes) / _untied(times))


def q(distance_fidelity: float, hierarchy: float) -> float:
    """Return Q, distance fidelity + 1.5·|hierarchy|."""
    return distance_fidelity + 1.5 * abs(hierarchy)


def q_ceiling(n_trits: int = ternary.N_TRITS) -> float:
    """Return the largest Q that embeddings with distinct radii and distances can reach.

    Example:
        >>> round(q_ceiling(), 4)
        2.0797
    """
    return q(distance_fidelity_ceiling(n_trits), hierarchy_ceiling(n_trits))


def _untied(sizes: Ints) -> float:
    """Return the share of the variance of N distinct ranks that is left where groups of these sizes are tied."""
    n, total = sizes.astype(float), float(sizes.sum())
    return 1 - float((n**3 - n).sum()) / (total**3 - total)


def _even_sizes(n_trits: int) -> Ints:
    people = population(n_trits)
    return np.bincount(people.valuations[: people.n_even], minlength=n_trits + 1)


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


def require_finite_directions(finite: Tensor, n_trits: int) -> None:
    """Refuse directions of the population of which not all are finite, a boolean each.

    Raises:
        EvaluationError: names the first that is not.
    """
    if not bool(finite.all()):
        worst = population(n_trits).index[int(torch.nonzero(~finite)[0])]
        raise EvaluationError(
            f"Every direction must be finite; that of operation {worst} is not, and those of {int((~finite).sum())} of "
            f"{len(finite)} operations are not. The model is not usable."
        )


def _require_inside(unit_norm: Tensor, n_trits: int) -> None:
    inside = (unit_norm >= 0) & (unit_norm < 1)
    if not bool(inside.all()):
        worst = int(torch.nonzero(~inside)[0])
        raise EvaluationError(
            f"Every radius must be finite and inside the ball; operation {population(n_trits).index[worst]} has unit "
            f"norm {float(unit_norm[worst])}, and {int((~inside).sum())} of {len(unit_norm)} operations are outside "
            "[0, 1). The model is not usable."
        )


@lru_cache
def _valuation_ranks(n_trits: int) -> Floats:
    return _centred_ranks(population(n_trits).valuations[: population(n_trits).n_even])


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


def _rank_correlations(
    radius: Tensor, apart: Tensor, valuation_ranks: Floats, pair_ranks: Floats
) -> tuple[float, float]:
    """Spearman correlation of radius with valuation, and of how far pairs are apart with their 3-adic distance.

    One sort serves both: torch sorts integers digit by digit, ten times as fast as floats, from 32,768 values on. The
    bits of floats >= 0 are ordered as the floats are, and with the sign bit set all radii come before all distances.
    """
    integer = {torch.float32: torch.int32, torch.float64: torch.int64}[radius.dtype]
    bits = torch.cat([radius.view(integer) + torch.iinfo(integer).min, apart.view(integer)])
    ascending, order = (part.numpy() for part in torch.sort(bits, stable=True))
    n = len(radius)
    return (
        _correlation(valuation_ranks[order[:n]], ascending[:n]),
        _correlation(pair_ranks[order[n:] - n], ascending[n:]),
    )


def _correlation(ranks: Floats, ascending: npt.NDArray[np.integer]) -> float:
    """Correlation of centred ranks and the ranks of ascending values; 0 where one side is constant: it says nothing."""
    return _correlation_of_ranks(ranks, _centred_ranks_of_ascending(ascending))


def _correlation_of_ranks(ranks: Floats, others: Floats) -> float:
    # Plain sums rather than `@`: a BLAS that starts threads costs more than these sums do.
    scale = math.sqrt(float((ranks * ranks).sum()) * float((others * others).sum()))
    return float((ranks * others).sum()) / scale if scale else 0.0
