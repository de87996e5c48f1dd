"""The losses. Every term is a vector of length `M`, one value for each member of a cohort.

A batch holds `R` operations for each member: a population part, drawn evenly over operations, so that a term weighs
levels as the metrics do; then a stratified part, `S` operations of each level, so that the rare high valuations are
ordered too. All radii below are hyperbolic lengths, divided by the largest that the projection can give: a loss then
has one scale at every curvature, and curvature enters through the margins, which are lengths.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tvae import poincare

__all__ = [
    "TERMS",
    "Placed",
    "distance_term",
    "elbo_terms",
    "level_margin",
    "level_mean_terms",
    "parting_term",
    "ranking_terms",
]

TERMS = ("hierarchy", "coverage", "richness", "separation", "distance", "kl")

# The margin between levels, as a share of the largest radius, runs between two ends: where the ball is wide against
# MARGIN, a hyperbolic length, it comes near the lower; where it is narrow, near the upper, at which nine margins take a
# tenth of the ball. So curvature enters at every value, and ten levels have room at every value.
MARGIN = 0.03
MARGIN_SHARE = (1 / 130, 1 / 90)
MIDDLE_SHARE = 0.01
N_PARTNERS = 8
# Beyond this share of max_radius the sigmoid runs out of float32 digits, and radii would become equal. In a ball used
# beyond a unit norm of 0.95 this share comes nearer to 1 as max_radius does: there is the room of such a ball.
SATURATION = 0.98
SATURATION_NORM = 0.95
SATURATION_WEIGHT = 2.0
# Richness is asked for up to this share of its ceiling: the rest of the ball is what nine other levels and the margins
# need. Each level is also asked for a spread of its own, in shares of max_radius.
RICHNESS_TARGET = 0.54
RICHNESS_SCALE = 0.004
LEAST_SPREAD = 0.003
LEAST_SPREAD_SCALE = 0.3
# The distance in mean unit norm, in shares of max_radius, that the two halves of level 0 are asked for.
PARTING_TARGET = 0.6

# A mean over what is violated, with this share of everything added to the count, so that it falls to 0 in the end.
LEAST_VIOLATED = 0.05


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a batch lies in the ball.

    Attributes:
        valuations: int64, shape `(M, R)`.
        n_population: how many of the `R` belong to the population part; the rest is `(levels, S)`, flattened.
        unit_norm: shape `(M, R)`.
        radius: hyperbolic length, shape `(M, R)`.
        largest_radius: hyperbolic length of max_radius, shape `(M, 1)`.
        max_radius: largest unit norm.
        n_levels: number of levels of valuation.
        n_strata: how many of them the stratified part has, from the lowest up: those of which anything is seen.
    """

    valuations: Tensor
    n_population: int
    unit_norm: Tensor
    radius: Tensor
    largest_radius: Tensor
    max_radius: float
    n_levels: int
    n_strata: int


def ranking_terms(placed: Placed) -> dict[str, Tensor]:
    """Order radii by valuation, pair by pair: what the Spearman correlation counts, with a margin.

    - hierarchy: mean over pairs of different level in the population part of relu(margin - (r_low - r_high)), r_low the
      radius of the operation of lower valuation; plus a wall before the sigmoid's saturation.
    - separation: the same over pairs of neighbouring levels in the stratified part, each pair of levels counting alike.
    - richness: what the variance of the unit norm within levels still lacks to its target.

    Returns:
        hierarchy, separation and richness, each >= 0, of shape `(M,)`.
    """
    n, members = placed.n_population, placed.radius.shape[0]
    scaled = placed.radius / placed.largest_radius
    margin = level_margin(placed.largest_radius)

    # The batch is in random order, so that neighbours in it are random partners.
    population, v = scaled[:, :n], placed.valuations[:, :n].to(scaled.dtype)
    order = (_partners(v) - v[:, None]).sign()
    gap = order * (population[:, None] - _partners(population))
    different = order.abs()
    violation = (torch.relu(margin[..., None] - gap) * different).sum((1, 2))
    pairs = different.sum((1, 2))
    share = placed.unit_norm / placed.max_radius
    room = (1 - SATURATION) * min(1.0, (1 - placed.max_radius) / (1 - SATURATION_NORM))
    wall = torch.relu(share - (1 - room)).sum(1) / share.shape[1] * ((1 - SATURATION) / room)

    levels = scaled[:, n:].reshape(members, placed.n_strata, -1)
    gaps = levels[:, :-1, :, None] - levels[:, 1:, None, :]
    crossed = torch.relu(margin[:, :, None, None] - gaps).mean((1, 2, 3))

    variance = share[:, n:].reshape(members, placed.n_strata, -1)[:, :-1].var(2, correction=0)
    too_narrow = torch.relu(LEAST_SPREAD - (variance + 1e-10).sqrt()).sum(1) / (placed.n_strata - 1)
    richness = RICHNESS_SCALE * torch.relu(RICHNESS_TARGET - 4 * variance.sum(1)) + LEAST_SPREAD_SCALE * too_narrow
    return {
        "hierarchy": violation / pairs.clamp(min=1) + SATURATION_WEIGHT * wall,
        "separation": crossed,
        "richness": richness,
    }


def parting_term(unit_norm: Tensor, index: Tensor, *, max_radius: float) -> Tensor:
    """Move the two halves of level 0, the balls ±1 + 3·Z, apart in unit norm: the richness that a tree can have.

    A shift that a whole ball shares leaves the order of distances within it as it is. Level 0 holds two thirds of all
    operations in two balls, so that a shift of these is the one that the most operations share.

    Args:
        unit_norm: about operation 0, shape `(M, R)`.
        index: of the operations, shape `(M, R)`.
        max_radius: largest unit norm.

    Returns:
        What the difference of the halves' mean unit norms lacks to 0.6·max_radius, in shares of max_radius, shape
        `(M,)`: of a difference rather than a variance, which has no slope where both lie at one radius.
    """
    first, second = (_mean_where(unit_norm, index % 3 == branch) for branch in (1, 2))
    return torch.relu(PARTING_TARGET - (first - second).abs() / max_radius)


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of the chosen values of each row; 0 of none."""
    weight = chosen.to(values.dtype)
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1)


def _partners(values: Tensor) -> Tensor:
    """Return the next values of each in a row that closes on itself: shape `(M, n)` to `(M, N_PARTNERS, n)`."""
    n = values.shape[1]
    closed = torch.cat([values[:, 1:]] + [values] * -(-N_PARTNERS // n), 1)
    return closed[:, : n + N_PARTNERS - 1].unfold(1, n, 1)


def level_margin(largest_radius: Tensor) -> Tensor:
    """Return the margin between levels as a share of the largest radius, low + (high - low)·x/(x + 0.01).

    Here x = 0.03/largest radius, and low and high are 1/130 and 1/90.

    Args:
        largest_radius: hyperbolic length, any shape.
    """
    low, high = MARGIN_SHARE
    share = MARGIN / largest_radius
    return low + (high - low) * share / (share + MIDDLE_SHARE)


def level_mean_terms(placed: Placed, initial_variance: Tensor) -> dict[str, Tensor]:
    """The reference sweep's loss, kept to reproduce it: level means are pulled to targets, whatever the overlap.

    It works on unit norms, so that curvature does not enter, and on the population part alone.

    - hierarchy: mean over the levels present of (mean of level v - (0.9 - 0.8·v/9))².
    - separation: sum over neighbouring levels present of relu(mean of the higher - mean of the lower + 0.01).
    - richness: mean over the levels present of (0.5 - ratio)² where the ratio of the variance now to that at the start
      is under 0.5.

    Args:
        placed: the batch.
        initial_variance: variance of the unit norm within each level before training, shape `(M, levels)`.

    Returns:
        hierarchy, separation and richness, each of shape `(M,)`.
    """
    n = placed.n_population
    norm, levels = placed.unit_norm[:, :n], torch.arange(placed.n_levels, device=placed.unit_norm.device)
    member_of = (placed.valuations[:, :n, None] == levels).to(norm.dtype)
    count = member_of.sum(1)
    present = count > 0
    mean = (member_of * norm[..., None]).sum(1) / count.clamp(min=1)
    variance = (member_of * (norm[..., None] - mean[:, None]).square()).sum(1) / count.clamp(min=1)

    target = 0.9 - 0.8 * levels / (placed.n_levels - 1)
    off_target = torch.where(present, (mean - target).square(), 0.0).sum(1) / present.sum(1)
    both = present[:, 1:] & present[:, :-1]
    overlap = torch.where(both, torch.relu(mean[:, 1:] - mean[:, :-1] + 0.01), 0.0).sum(1)
    ratio = variance / initial_variance.clamp(min=1e-12)
    lost = torch.where(present & (count > 1) & (ratio < 0.5), (0.5 - ratio).square(), 0.0).sum(1) / present.sum(1)
    return {"hierarchy": off_target, "separation": overlap, "richness": lost}


def elbo_terms(logits: Tensor, target: Tensor, mean: Tensor, log_variance: Tensor) -> dict[str, Tensor]:
    """The negative evidence lower bound's two parts.

    - coverage: cross-entropy of a trit, mean over trits and operations.
    - kl: Kullback-Leibler divergence of N(mean, exp(log_variance)) from N(0, 1), summed over dimensions, mean over
      operations.

    Args:
        logits: shape `(M, R, n_trits, 3)`.
        target: classes 0, 1, 2, int64 of shape `(M, R, n_trits)`.
        mean: shape `(M, R, D)`.
        log_variance: shape `(M, R, D)`.

    Source:
        Kingma & Welling 2014, arXiv:1312.6114, appendix B.
    """
    entropy = -logits.log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1) / 2
    return {"coverage": entropy.mean((1, 2)), "kl": divergence.mean(1)}


def distance_term(
    radius: Tensor,
    direction: Tensor,
    *,
    curvature: Tensor,
    longest: Tensor,
    margin: Tensor,
    parted: Tensor | None = None,
) -> Tensor:
    """Order hyperbolic distances as the 3-adic tree does, in binary subtrees, level by level, with a margin.

    In a subtree of 2^n operations, the places of two operations, written in binary, differ first at the bit that is the
    valuation of their difference. For each operation i and each level k, with p nearer to i than q by one level,
    relu(margin + d(i, p) - d(i, q)) is asked of two choices of p and q: those at the mirrored places (i itself for p at
    the last level), and the farthest p and the nearest q of the subtree. The same is asked with the distance d(j, q) of
    the operation j at the mirrored place, in another ball of level 1: then distances are in order across the tree, not
    only around each operation. Each of the four counts a quarter, as a mean over what is violated: otherwise the last
    violations, one in 10⁵, would have no weight.

    Args:
        radius: hyperbolic length, shape `(M, T, 2^n)`: `T` subtrees of each member.
        direction: norm 1, shape `(M, T, 2^n, D)`.
        curvature: c > 0, shape `(M, 1)`.
        longest: the largest distance that two points can have, hyperbolic length, shape `(M, 1)`.
        margin: in shares of the longest distance, for each level and the next, shape `(M, n)`.
        parted: whether the node of each operation at each level has two branches, shape `(M, T, n, 2^n)`; None if all
            have. Where it has one, all of its places are nearer than the level says, and none is farther.

    Returns:
        Shape `(M,)`, in shares of the longest distance.

    Source:
        The farthest and the nearest of a batch: Hermans et al. 2017, arXiv:1703.07737, "batch hard".
    """
    mirrored, farthest, nearest = _mirrored(radius), *_extreme(radius, direction, curvature)
    # One call for all: what many small ones cost is their number.
    place = torch.cat([mirrored, farthest, nearest], 2)
    levels = mirrored.shape[2]
    distance = _partner_distances(radius, direction, place, curvature) / longest[..., None, None]
    of_mirrored, farthest_near, nearest_far = torch.split(distance, [levels, levels - 1, levels - 1], 2)
    nearer = torch.nn.functional.pad(of_mirrored[:, :, 1:], (0, 0, 0, 1))
    total = torch.zeros_like(radius[:, 0, 0])
    for near, far in ((nearer, of_mirrored), (farthest_near, nearest_far)):
        for compared in (far, far.flip(-1)):
            over = torch.relu(margin[:, None, : near.shape[2], None] + near - compared)
            asked: float | Tensor = over[0].numel()
            if parted is not None:
                there = parted[:, :, : near.shape[2]]
                there = there if compared is far else there.flip(-1)
                over, asked = over * there, there.sum((1, 2, 3)).clamp(min=1).to(over.dtype)
            violated = (over.detach() > 0).to(over.dtype).sum((1, 2, 3)) + LEAST_VIOLATED * asked
            total = total + over.sum((1, 2, 3)) / violated / 4
    return total


def _mirrored(radius: Tensor) -> Tensor:
    """Return a partner's place at each level, `(M, T, n, 2^n)`: from the first bit that differs, all bits differ."""
    size = radius.shape[-1]
    place, levels = torch.arange(size, device=radius.device), size.bit_length() - 1
    partner = torch.stack([place ^ ((size >> level) - 1) for level in range(levels)])
    return partner.expand(*radius.shape[:2], levels, size)


@torch.no_grad()
def _extreme(radius: Tensor, direction: Tensor, curvature: Tensor) -> tuple[Tensor, Tensor]:
    """Return places of the farthest near and the nearest far partner at each level, `(M, T, n - 1, 2^n)`.

    They are found by cosh a·cosh b - sinh a·sinh b·cos, one product for each pair of sibling nodes; its digits are
    enough to choose by, and distances are recomputed.
    """
    size = radius.shape[-1]
    a = radius * curvature[..., None].sqrt()
    out, up = torch.sinh(a)[..., None] * direction, torch.cosh(a)[..., None]
    point, dual = torch.cat([up, out], -1), torch.cat([up, -out], -1)
    place = torch.arange(size, device=radius.device)
    farthest, nearest = [], []
    for width in (size >> level for level in range(1, size.bit_length())):
        # Nodes of the tree in pairs of siblings, the operations of each as a row; a partner is in the other node.
        nodes = (*radius.shape[:2], size // (2 * width), 2, width, point.shape[-1])
        apart = point.view(nodes) @ dual.view(nodes).flip(3).mT
        first = (place ^ width) & -width
        if width < size // 2:
            farthest.append(first + apart.max(-1).indices.flatten(2))
        if width > 1:
            nearest.append(first + apart.min(-1).indices.flatten(2))
    return torch.stack(farthest, 2), torch.stack(nearest, 2)


def _partner_distances(radius: Tensor, direction: Tensor, place: Tensor, curvature: Tensor) -> Tensor:
    """Return the distances of every operation from its partners at `place`, `(M, T, rows, 2^n)`."""
    members, subtrees, size, dim = direction.shape
    first = torch.arange(members * subtrees, device=place.device).view(members, subtrees, 1, 1) * size
    chosen = (first + place).flatten()  # rows of all subtrees: whole rows are quicker to find than single numbers
    return poincare.distance(
        radius[:, :, None],
        direction[:, :, None],
        radius.flatten().index_select(0, chosen).view(place.shape),
        direction.flatten(0, 2).index_select(0, chosen).view(*place.shape, dim),
        curvature=curvature[..., None, None],
    )
