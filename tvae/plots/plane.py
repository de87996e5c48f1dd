"""Where operations lie in a picture in the plane: their points in polar form, and two angles."""

import math

import numpy as np
import numpy.typing as npt
import torch

from tvae import poincare, ternary
from tvae.arrays import Floats
from tvae.model import Embedding

__all__ = ["adic_angle", "learned_angle", "polar"]


def polar(points: npt.ArrayLike, curvature: float) -> tuple[Embedding, int]:
    """Return points of all operations in polar form, float64, and the number of trits.

    Raises:
        ValueError: if the points are not those of all operations, or one is not inside the ball.
    """
    z = np.asarray(points, dtype=np.float64)
    n_trits = round(math.log(max(len(z), 1), 3)) if z.ndim == 2 else 0
    if z.ndim != 2 or z.shape[1] < 2 or n_trits < 1 or len(z) != 3**n_trits:
        raise ValueError(f"`points` must have shape (3^n_trits, D) with D >= 2, got {z.shape}.")
    direction = torch.from_numpy(z)
    unit_norm = direction.norm(dim=-1) * math.sqrt(curvature)
    if not bool((unit_norm < 1).all()):
        raise ValueError(f"`points` must be finite and inside the ball, of unit norm < 1, got {unit_norm.max():g}.")
    return Embedding(unit_norm, torch.nn.functional.normalize(direction, dim=-1)), n_trits


def learned_angle(embedding: Embedding) -> tuple[Floats, float]:
    """Return the angle of points seen from their middle, in the plane that holds the most, and the share it holds.

    The middle is the mean on the hyperboloid, scaled back onto it. From the origin an angle would say little where
    operation 0 lies there: seen from a leaf, all of a tree lies the same way. The plane goes through the middle, along
    the first two principal axes of the directions, not centred; what lies across it is lost.

    Source:
        Ungar, Analytic Hyperbolic Geometry (2008), section 6.20, for the mean.
    """
    radius, direction = poincare.radius(embedding.unit_norm, curvature=1.0), embedding.direction
    # The sum on the hyperboloid: its first coordinate, and the others.
    time, space = torch.cosh(radius).sum(), (torch.sinh(radius)[:, None] * direction).sum(0)
    middle = poincare.unit_norm(torch.atanh(space.norm() / time), curvature=1.0)
    towards = torch.nn.functional.normalize(space, dim=0)
    seen = poincare.translate(*embedding, middle[None], towards[None])[1].numpy()
    moments = seen.T @ seen
    values, axes = np.linalg.eigh(moments)
    values, axes = values[-2:], axes[:, -2:]
    # An axis is known up to its sign: its largest coordinate is made positive.
    inside = seen @ (axes * np.sign(axes[np.abs(axes).argmax(0), [0, 1]]))
    return np.arctan2(inside[:, 0], inside[:, 1]), float(values.sum() / max(float(np.trace(moments)), 1e-300))


def adic_angle(n_trits: int) -> Floats:
    """Return 2π·Σ (t_k + 1)·3^-(k+1) for every operation, the index with its base-3 digits reversed.

    The 3-adic ball i + 3^k·Z fills one arc of 2π/3^k, and nearer operations are nearer neighbours. Nothing is learned.
    """
    digits = ternary.operations(n_trits).astype(np.float64) + 1
    return 2 * math.pi * digits @ 3.0 ** -np.arange(1, n_trits + 1)
