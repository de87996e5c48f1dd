"""The operations in the Poincaré disk as a page to move about in: one HTML file that asks the network for nothing.

An operation's distance from the centre is its hyperbolic radius. The page is `disk.html`, which draws and answers by
itself; what stands here gives it the embedding. Directions in the ball, from which it finds the nearest operations, are
rounded to 24 bits a coordinate.
"""

import base64
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, StrictUndefined

from tvae import gates, poincare, ternary
from tvae.arrays import Floats
from tvae.plots.plane import learned_angle, polar

__all__ = ["MOST_TRITS", "PAGE_NAME", "page"]

PAGE_NAME = "disk.html"
MOST_TRITS = 10
"""59,049 operations are 4.5 MB, and as many as a browser draws while a hand moves them."""

_TEMPLATE = Path(__file__).with_name(PAGE_NAME)
_LARGEST = 2**23 - 1  # of 24 bits with a sign


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


def _to_24_bits(direction: Floats) -> npt.NDArray[np.uint8]:
    """Return coordinates in -1 … 1 as three bytes each, the lowest first."""
    integers = np.rint(direction * _LARGEST).astype("<i4")
    return integers.ravel().view(np.uint8).reshape(-1, 4)[:, :3]


def _base64(array: npt.NDArray[np.generic]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")
