"""Geometry of the Poincaré ball {z : sqrt(c)·|z| < 1} of sectional curvature -c, c > 0.

A point is held in polar form, a direction of norm 1 and either its unit norm `sqrt(c)·|z|` in [0, 1) or its radius, the
hyperbolic distance from the origin. Polar formulas keep their digits where coordinates lose them: near the boundary,
where 1 - c·|z|² cancels, and between near points, where the distance is small against both radii.

`curvature` is a number, or a tensor that broadcasts with the other arguments: one for each member of a cohort.
Lengths are hyperbolic lengths at curvature -c.
"""

import math

import torch
from torch import Tensor

__all__ = [
    "distance",
    "distance_between_points",
    "distance_from_chord",
    "distance_matrix",
    "excess",
    "geodesic",
    "inside",
    "radius",
    "translate",
    "unit_norm",
]


def radius(unit_norm: Tensor, *, curvature: float | Tensor) -> Tensor:
    """Return the hyperbolic distance from the origin, (2/sqrt(c))·artanh(unit norm).

    Value and gradient are finite for unit norms in [0, 1 - 1e-7] in float32. The two logarithms are exact where
    `torch.atanh` has a gradient that cancels: 1 - x is exact for x >= 1/2, 1 - x² is not.

    Args:
        unit_norm: sqrt(c)·|z|, in [0, 1), any shape.
        curvature: c > 0.

    Returns:
        Same shape, hyperbolic length, in [0, inf).

    Source:
        Nickel & Kiela 2017, arXiv:1705.08039, eq. 1 with one point at the origin; Ganea et al. 2018, arXiv:1805.09112.

    Example:
        >>> round(float(radius(torch.tensor(0.5), curvature=1.0)), 6)
        1.098612
    """
    return (torch.log1p(unit_norm) - torch.log1p(-unit_norm)) / _sqrt(curvature)


def unit_norm(radius: Tensor, *, curvature: float | Tensor) -> Tensor:
    """Return the unit norm of a hyperbolic radius, tanh(sqrt(c)·radius/2): the inverse of `radius`.

    Args:
        radius: hyperbolic length, >= 0, any shape.
        curvature: c > 0.

    Returns:
        Same shape, in [0, 1).
    """
    return torch.tanh(radius * _sqrt(curvature) / 2)


def distance(
    radius_a: Tensor, direction_a: Tensor, radius_b: Tensor, direction_b: Tensor, *, curvature: float | Tensor
) -> Tensor:
    """Return the hyperbolic distance of points in polar form.

    With a = sqrt(c)·radius_a, b = sqrt(c)·radius_b and directions u, v, the hyperbolic law of cosines reads
    cosh(sqrt(c)·d) - 1 = 2·sinh²((a - b)/2) + sinh(a)·sinh(b)·|u - v|²/2, a sum of terms >= 0 in which nothing cancels.

    Args:
        radius_a: hyperbolic length, shape `(…)`.
        direction_a: norm 1, shape `(…, D)`.
        radius_b: as `radius_a`.
        direction_b: as `direction_a`.
        curvature: c > 0; a tensor broadcasts with the radii.

    Returns:
        Shape `(…)`, hyperbolic length; exactly 0, with gradient 0, for equal points.

    Source:
        Ratcliffe, Foundations of Hyperbolic Manifolds (2006), theorem 3.5.3, with cos = 1 - |u - v|²/2.
    """
    chord = (direction_a - direction_b).square().sum(-1)
    return distance_from_chord(radius_a, radius_b, chord, curvature=curvature)


def distance_from_chord(radius_a: Tensor, radius_b: Tensor, chord: Tensor, *, curvature: float | Tensor) -> Tensor:
    """Return `distance` where |u - v|², the squared chord of the two directions, is already known.

    Args:
        radius_a: hyperbolic length, shape `(…)`.
        radius_b: as `radius_a`.
        chord: |u - v|², in [0, 4], shape `(…)`.
        curvature: c > 0; a tensor broadcasts with the radii.

    Returns:
        Shape `(…)`, hyperbolic length.
    """
    return _arcosh_1p(excess(radius_a, radius_b, chord, curvature=curvature)) / _sqrt(curvature)


def excess(radius_a: Tensor, radius_b: Tensor, chord: Tensor, *, curvature: float | Tensor) -> Tensor:
    """Return cosh(sqrt(c)·d) - 1 for the `distance` d: it grows with d, and costs less where order alone counts.

    Args:
        radius_a: hyperbolic length, shape `(…)`.
        radius_b: as `radius_a`.
        chord: |u - v|², in [0, 4], shape `(…)`.
        curvature: c > 0; a tensor broadcasts with the radii.

    Returns:
        Shape `(…)`, >= 0.
    """
    root = _sqrt(curvature)
    a, b = radius_a * root, radius_b * root
    return 2 * torch.sinh((a - b) / 2).square() + torch.sinh(a) * torch.sinh(b) * chord / 2


def distance_between_points(z: Tensor, w: Tensor, *, curvature: float | Tensor) -> Tensor:
    """Return the hyperbolic distance of points given by their coordinates in the ball.

    Args:
        z: shape `(…, D)`, inside the ball: c·|z|² < 1.
        w: as `z`.
        curvature: c > 0; a tensor broadcasts with shape `(…)`.

    Returns:
        Shape `(…)`, hyperbolic length; exactly 0, with gradient 0, for equal points.

    Source:
        Nickel & Kiela 2017, arXiv:1705.08039, eq. 1: cosh(d) = 1 + 2·|z - w|²/((1 - |z|²)(1 - |w|²)) at c = 1.
    """
    root = _sqrt(curvature)
    conformal = _one_minus_square(z, root) * _one_minus_square(w, root)
    return _arcosh_1p(2 * (z - w).square().sum(-1) * root**2 / conformal) / root


def distance_matrix(z: Tensor, w: Tensor, *, curvature: float) -> Tensor:
    """Return `distance_between_points` of all rows of z with all rows of w.

    Args:
        z: shape `(n, D)`, inside the ball: c·|z|² < 1.
        w: as `z`, shape `(m, D)`.
        curvature: c > 0.

    Returns:
        Shape `(n, m)`, hyperbolic length; exactly 0 for equal points.
    """
    root = math.sqrt(curvature)
    # From differences of coordinates, which a matrix product would lose between near points.
    apart = torch.cdist(z, w, compute_mode="donot_use_mm_for_euclid_dist")
    x = 2 * apart.square() * curvature / (_one_minus_square(z, root)[:, None] * _one_minus_square(w, root))
    return _arcosh_1p(x) / root


def inside(z: Tensor, *, curvature: float) -> Tensor:
    """Return which points lie in the ball, sqrt(c)·|z| < 1 in float64: those that distances can be measured of.

    Args:
        z: shape `(…, D)`.
        curvature: c > 0.

    Returns:
        Boolean, shape `(…)`; False where a coordinate is NaN.
    """
    return z.double().square().sum(-1).sqrt() * math.sqrt(curvature) < 1


def geodesic(z: Tensor, w: Tensor, t: Tensor, *, curvature: float) -> Tensor:
    """Return points of the geodesic from z at t = 0 to w at t = 1, at constant speed: d(z, point) = |t|·d(z, w).

    On the hyperboloid, X = ((1 + |z|²)/(1 - |z|²), 2z/(1 - |z|²)) at c = 1, the geodesic is
    (sinh((1 - t)·d)·X + sinh(t·d)·Y)/sinh(d), a sum of two vectors; for 0 <= t <= 1 nothing in its first coordinate
    cancels. A t outside goes on beyond the ends.

    Args:
        z: shape `(D,)`, inside the ball: c·|z|² < 1.
        w: as `z`.
        t: any shape `(…)`.
        curvature: c > 0.

    Returns:
        Shape `(…, D)`, inside the ball.

    Source:
        Ratcliffe, Foundations of Hyperbolic Manifolds (2006), theorem 3.2.4, and section 4.5 for the map to the ball.
    """
    root = math.sqrt(curvature)
    length = distance_between_points(z, w, curvature=curvature) * root
    still = length == 0
    safe = torch.where(still, 1.0, length)
    of_z = torch.where(still, 1 - t, torch.sinh((1 - t) * safe) / torch.sinh(safe)) / _one_minus_square(z, root)
    of_w = torch.where(still, t, torch.sinh(t * safe) / torch.sinh(safe)) / _one_minus_square(w, root)
    time = of_z * (1 + z.square().sum() * curvature) + of_w * (1 + w.square().sum() * curvature)
    return 2 * (of_z.unsqueeze(-1) * z + of_w.unsqueeze(-1) * w) / (1 + time).unsqueeze(-1)


def translate(
    unit_norm: Tensor, direction: Tensor, origin_norm: Tensor, origin_direction: Tensor
) -> tuple[Tensor, Tensor]:
    """Move points by the isometry that takes a given point to the origin: the Möbius translation by its negative.

    On the hyperboloid at c = 1 a point is (cosh a, sinh a·u) and the new origin (cosh b, sinh b·w). The boost along w
    takes the point's spatial part to sinh a·(u - w) + (sinh(a - b) - (cosh b - 1)·sinh a·q/2)·w, q = |u - w|², in which
    nothing large cancels: that is the new direction. The new radius is the distance of the two points, by the sum of
    `excess`, and tanh²(d/2) = x/(x + 2) for x = cosh d - 1.

    It computes in float64, from directions brought to norm 1 again: unit norms come close to 1, and there the rounding
    of a float32 would be seen in the distances.

    Args:
        unit_norm: sqrt(c)·|z|, in [0, 1), shape `(…, B)`.
        direction: norm 1, shape `(…, B, D)`.
        origin_norm: of the point that becomes the origin, shape `(…, 1)`.
        origin_direction: of that point, shape `(…, 1, D)`.

    Returns:
        Unit norms and directions, float64, of the shapes given; the direction of the origin itself has norm 0.

    Source:
        Ratcliffe, Foundations of Hyperbolic Manifolds (2006), section 3.2 (positive Lorentz transformations).
    """
    u, w = (torch.nn.functional.normalize(x.double(), dim=-1) for x in (direction, origin_direction))
    a, b = (radius(norm.double(), curvature=1.0) for norm in (unit_norm, origin_norm))
    chord = (u - w).square().sum(-1)
    x = excess(a, b, chord, curvature=1.0)
    along = torch.sinh(a - b) - (torch.cosh(b) - 1) * torch.sinh(a) * chord / 2
    moved = torch.sinh(a)[..., None] * (u - w) + along[..., None] * w
    return _safe_sqrt(x / (x + 2)), torch.nn.functional.normalize(moved, dim=-1)


def _arcosh_1p(x: Tensor) -> Tensor:
    """Return arcosh(1 + x) for x >= 0, as log1p(x + sqrt(x·(x + 2))): exact for small x, with gradient 0 at 0.

    Finite in float32 for x up to 1e19, a distance of 44/sqrt(c); no two points of the ball in float32 are 35 apart.
    """
    return torch.log1p(x + _safe_sqrt(x * (x + 2)))


def _one_minus_square(z: Tensor, root: float | Tensor) -> Tensor:
    norm = _safe_sqrt(z.square().sum(-1)) * root
    return (1 - norm) * (1 + norm)


def _safe_sqrt(x: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 rather than infinite; a NaN stays one."""
    none = x <= 0
    return torch.where(none, 0.0, torch.where(none, 1.0, x).sqrt())


def _sqrt(curvature: float | Tensor) -> float | Tensor:
    return curvature.sqrt() if isinstance(curvature, Tensor) else math.sqrt(curvature)
