"""The nearest of given points in the ball, exactly: the search behind reading an embedding back.

For a fixed point p the hyperbolic distance to q grows with s = |p - q|²/(1 - |q|²) (unit ball coordinates), which is
not the order of Euclidean distance: of two points equally far in the picture, the one nearer to the boundary is farther
in the ball. Written out, s is one matrix product of (p, |p|², 1) and (-2q, 1, |q|²)/(1 - |q|²).

That product cancels between near points. So it serves as a lower bound: from |p|² and |q|² is taken beforehand what
rounding can add to the sum. The points of least bound are then measured by
`poincare.distance_between_points`, from the differences of the coordinates, and a row is done when the least bound that
was not measured lies above the last distance kept; else every point of the row is measured. Either way the result is
that of measuring all distances.
"""

import math

import torch
from torch import Tensor

from tvae import poincare
from tvae.torch_defaults import torch_defaults

__all__ = ["nearest"]

# Points that are searched for at a time: 20 MB of bounds for 19,683 points to search among, and never more than 256 MB.
ROWS = 128
MOST_BOUNDS = 32_000_000
# Columns whose least bound is looked at first; 19,683 is 27 x 729.
GROUP = 27
# Measured beside those that are asked for.
SPARE = 4
# At most this many numbers are held when all distances of some rows are measured: 64 MB.
BLOCK = 8_000_000
# In float64 a sum of n products is off by at most n·2^-53 of what its absolute terms add up to. Here n = D + 2,
# and they add up to 2·(|p|² + |q|²). Norms and quotient are off by as much again, and this is twice all of it.
ROUNDING = 8 * 2.0**-53


@torch_defaults()
def nearest(points: Tensor, among: Tensor, *, curvature: float, count: int = 1) -> tuple[Tensor, Tensor]:
    """Return for each point the nearest of others, by hyperbolic distance in float64.

    Args:
        points: shape `(n, D)`, inside the ball: c·|z|² < 1. float32 is taken at its exact value.
        among: as `points`, shape `(m, D)`.
        curvature: c > 0.
        count: how many are asked for, in 1 … m.

    Returns:
        Indices into `among` and distances, int64 and float64 of shape `(n, count)`, the nearest first; of equal
        distances, that of the lower index first.

    Raises:
        ValueError: if `count` is not in 1 … m.
    """
    if not 1 <= count <= len(among):
        raise ValueError(f"`count` must be in 1 … {len(among)}, got {count}.")
    z, w = points.double(), among.double()
    if len(w) <= (count + 1) * GROUP:
        return _measure_all(z, w, curvature, count)
    rounding = ROUNDING * (z.shape[-1] + 2)
    left, right, share = _factors(z, w, curvature, rounding)
    index, distance = torch.empty(len(z), count, dtype=torch.int64), z.new_empty(len(z), count)
    undecided = [torch.empty(0, dtype=torch.int64)]
    rows = max(1, min(ROWS, MOST_BOUNDS // right.shape[1]))
    buffer = z.new_empty(min(rows, len(z)), right.shape[1])
    for start in range(0, len(z), rows):
        here = slice(start, start + rows)
        candidates, unmeasured = _least(torch.mm(left[here], right, out=buffer[: len(left[here])]), count)
        index[here], distance[here] = _measure(z[here], w, candidates, curvature, count)
        last = index[here, -1]
        kept = (z[here] - w[last]).square().sum(-1) * curvature * share[last]
        undecided.append(start + torch.nonzero(unmeasured <= kept * (1 + rounding)).flatten())
    rest = torch.cat(undecided)
    if len(rest):
        # Where an embedding has collapsed, the same few points stand in many rows.
        rows, places = torch.unique(z[rest], dim=0, return_inverse=True)
        found, far = _measure_all(rows, w, curvature, count)
        index[rest], distance[rest] = found[places], far[places]
    return index, distance


def _factors(z: Tensor, w: Tensor, curvature: float, rounding: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return both factors of the bounds, and 1/(1 - |q|²).

    Columns that fill up the last group get a bound that is larger than any.
    """
    p, q = (x * math.sqrt(curvature) for x in (z, w))
    of_p, of_q = (x.square().sum(-1, keepdim=True) for x in (p, q))
    norm = of_q.sqrt()
    share = 1 / ((1 - norm) * (1 + norm))
    left = torch.cat([p, of_p * (1 - rounding), torch.ones_like(of_p)], -1)
    right = torch.cat([-2 * q, torch.ones_like(of_q), of_q * (1 - rounding)], -1) * share
    padding = right.new_zeros(-len(right) % GROUP, right.shape[-1])
    padding[:, -1] = torch.finfo(right.dtype).max
    return left, torch.cat([right, padding]).T.contiguous(), share.squeeze(-1)


def _least(bounds: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the columns of least bound, `count + SPARE` a row, and the least bound of all others."""
    groups = bounds.shape[1] // GROUP
    # Column i is in group i % groups. The `count` least bounds lie in the `count` groups whose least ones are least.
    best = torch.topk(bounds.view(-1, GROUP, groups).amin(1), count + 1, largest=False)
    columns = (best.indices[:, :count, None] + groups * torch.arange(GROUP)).flatten(1)
    least = torch.topk(bounds.gather(1, columns), count + SPARE + 1, largest=False)
    return columns.gather(1, least.indices[:, :-1]), torch.minimum(best.values[:, -1], least.values[:, -1])


def _measure(z: Tensor, w: Tensor, candidates: Tensor, curvature: float, count: int) -> tuple[Tensor, Tensor]:
    """Return the nearest of each row's candidates."""
    # In ascending order of index, so that a stable sort leaves the lower one first.
    candidates = candidates.sort(-1).values
    distance = poincare.distance_between_points(z[:, None], w[candidates], curvature=curvature)
    near, order = torch.sort(distance, dim=-1, stable=True)
    return candidates.gather(1, order[:, :count]), near[:, :count]


def _measure_all(z: Tensor, w: Tensor, curvature: float, count: int) -> tuple[Tensor, Tensor]:
    """Return the nearest of all points, from all distances."""
    index, distance = torch.empty(len(z), count, dtype=torch.int64), z.new_empty(len(z), count)
    rows = max(1, BLOCK // w.numel())
    for start in range(0, len(z), rows):
        some = poincare.distance_between_points(z[start : start + rows, None], w, curvature=curvature)
        near, order = torch.sort(some, dim=-1, stable=True)
        index[start : start + rows], distance[start : start + rows] = order[:, :count], near[:, :count]
    return index, distance
