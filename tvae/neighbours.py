"""What to ask of an embedding: nearest operations, 3-adic balls, and the way from one operation to another.

An operation is given by its index or by its trits. The source is a model, or its codebook where there is much to ask:
`tvae.codebook(model)` runs the network once.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tvae import poincare, ternary
from tvae.errors import OperationError
from tvae.model import TernaryVAE
from tvae.nearest import nearest
from tvae.reading import Codebook, Operations, codebook, decode
from tvae.torch_defaults import torch_defaults

__all__ = ["Geodesic", "adic_ball", "geodesic", "nearest_operations"]

Source = TernaryVAE | Codebook


@dataclass(frozen=True, slots=True, eq=False)
class Geodesic:
    """Points along a geodesic of the ball, and the operations nearest to them.

    Attributes:
        t: how far along each point is, shape `(n,)`, from 0 to 1.
        points: ball coordinates, float64 of shape `(n, D)`.
        operations: that of the nearest embedding to each point, with its distance from the point.
    """

    t: npt.NDArray[np.float64]
    points: npt.NDArray[np.float64]
    operations: Operations


@torch_defaults()
def nearest_operations(operation: npt.ArrayLike, source: Source, *, count: int = 10) -> Operations:
    """Return the operations nearest to an operation in the ball, the nearest first, without itself.

    Args:
        operation: its index, or its trits, least significant first.
        source: a model or its codebook.
        count: how many, in 1 … 3^n_trits - 1.

    Returns:
        The operations, each with its hyperbolic distance; of equally near ones that of the lower index first.

    Raises:
        OperationError: if there is no such operation, or `count` is out of range.
    """
    book = codebook(source)
    i = _index(operation, book.n_trits)
    if not 1 <= count < len(book.points):
        raise OperationError(f"`count` must be in 1 … {len(book.points) - 1}, got {count}.")
    found = nearest(book.points[i : i + 1], book.points, curvature=book.curvature, count=count + 1)
    index, distance = (column[0].numpy() for column in found)
    # With more others at its own point than were asked for, the operation itself may not be among them.
    others = np.flatnonzero(index != i)[:count]
    return book.operations(index[others], distance[others])


@torch_defaults()
def adic_ball(operation: npt.ArrayLike, level: int, source: Source) -> Operations:
    """Return the 3-adic ball i + 3^level·Z around an operation: all that agree with it on their first `level` trits.

    Args:
        operation: its index, or its trits, least significant first.
        level: in 0 … n_trits; the ball has 3^(n_trits - level) members.
        source: a model or its codebook.

    Returns:
        The members, the operation itself first, then by hyperbolic distance from it.

    Raises:
        OperationError: if there is no such operation or level.
    """
    book = codebook(source)
    i = _index(operation, book.n_trits)
    members = ternary.ball(i, level, book.n_trits)
    z = book.points.double()
    distance = poincare.distance_between_points(z[i], z[members], curvature=book.curvature).numpy()
    order = np.lexsort((members != i, distance))
    return book.operations(members[order], distance[order])


@torch_defaults()
def geodesic(start: npt.ArrayLike, end: npt.ArrayLike, source: Source, *, count: int = 9) -> Geodesic:
    """Return evenly spaced points of the geodesic between two operations, and the operations nearest to them.

    Args:
        start: index or trits of the operation where it begins.
        end: as `start`, where it ends.
        source: a model or its codebook.
        count: how many points, both ends among them; at least 2.

    Raises:
        OperationError: if there is no such operation, or `count` is below 2.
    """
    if count < 2:
        raise OperationError(f"`count` must be at least 2, both ends, got {count}.")
    book = codebook(source)
    z, w = (book.points[_index(operation, book.n_trits)].double() for operation in (start, end))
    t = torch.linspace(0, 1, count, dtype=torch.float64)
    between = poincare.geodesic(z, w, t[1:-1], curvature=book.curvature)
    points = torch.cat([z[None], between, w[None]]).numpy()
    return Geodesic(t.numpy(), points, decode(points, book))


def _index(operation: npt.ArrayLike, n_trits: int) -> int:
    """Return the index of an operation given by index or trits."""
    given = np.asarray(operation)
    if given.ndim and given.shape != (n_trits,):
        raise OperationError(f"`operation` must be an index or {n_trits} trits, got an array of shape {given.shape}.")
    return int(ternary.to_index(given if given.ndim else ternary.to_trits(given, n_trits)))
