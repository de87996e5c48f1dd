"""The operations in the Poincaré disk as a page to move about in: one HTML file that asks the network for nothing.

An operation's distance from the centre is its hyperbolic radius. The page is `disk.html`, which draws and answers by
itself; what stands here gives it the embedding. Directions in the ball, from which it finds the nearest operations, are
rounded to 24 bits a coordinate.
"""

import base64
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jinja2 import Environment, StrictUndefined

from tvae import gates, poincare, ternary
from tvae.model import Embedding

__all__ = ["FILE_NAME", "MOST_TRITS", "learned_angle", "page", "polar"]

FILE_NAME = "disk.html"
MOST_TRITS = 10
"""59,049 operations are 4.5 MB, and as many as a browser draws while a hand moves them."""

_TEMPLATE = Path(__file__).with_name(FILE_NAME)
_LARGEST = 2**23 - 1  # of 24 bits with a sign

Floats = npt.NDArray[np.float64]


def page(points: npt.ArrayLike, *, curvature: float) -> str:
    """Return the page.

    Args:
        points: embeddings of all operations in index order, shape `(3^n_trits, D)`, D >= 2, inside the ball.
        curvature: c > 0.

    Raises:
        ValueError: if the points are not those of all operations, one is not inside the ball, or there are more than
            3^`MOST_TRITS`.
    """
    embedding, n_trits = polar(points, curvature)
    if n_trits > MOST_TRITS:
        raise ValueError(f"A page holds at most {3**MOST_TRITS:,} operations, got {3**n_trits:,}.")
    angle, share = learned_angle(embedding)
    radius = poincare.radius(embedding.unit_norm, curvature=curvature).numpy()
    data = {
        "trits": n_trits,
        "curvature": curvature,
        "dimensions": embedding.direction.shape[1],
        "share": share,
        "names": gates.NAMES if n_trits == ternary.N_TRITS else {},
        "radius": _base64(radius.astype("<f4")),
        "angle": _base64(angle.astype("<f4")),
        "direction": _base64(_to_24_bits(embedding.direction.numpy())),
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(n=3**n_trits, data=data)


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
    operation 0 lies there: seen from a leaf, all of a tree lies the same way.

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


def _to_24_bits(direction: Floats) -> npt.NDArray[np.uint8]:
    """Return coordinates in -1 … 1 as three bytes each, the lowest first."""
    integers = np.rint(direction * _LARGEST).astype("<i4")
    return integers.ravel().view(np.uint8).reshape(-1, 4)[:, :3]


def _base64(array: npt.NDArray[np.generic]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")
