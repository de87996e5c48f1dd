"""What to ask of an embedding: distances, nearest operations, 3-adic balls, and the way from one operation to another.

An operation is given by its index or by its trits, least significant first; many by an array of indices, or of trits
whose last axis has `n_trits` places. So nine integers in a row are the trits of one operation; nine indices are given
as a column, of shape `(9, 1)`, as any number of them may be.

The source is a model, or its codebook where there is much to ask: `tvae.codebook(model)` runs the network once.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tvae import poincare, ternary
from tvae.arrays import Floats, Ints
from tvae.embedding.codebook import Codebook, Operations, codebook, decode, require_inside
from tvae.errors import OperationError, PointError
from tvae.metrics.nearest import nearest
from tvae.model import TernaryVAE
from tvae.torch_defaults import torch_defaults

__all__ = ["Geodesic", "PoincareDistance", "adic_ball", "distance", "geodesic", "nearest_operations"]

Source = TernaryVAE | Codebook

# Distances of a matrix that are measured at a time: 16 MB for each step of it.
BLOCK = 2_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Geodesic:
    """Points along a geodesic of the ball, and the operations nearest to them.

    Attributes:
        t: how far along each point is, shape `(n,)`, from 0 to 1.
        points: ball coordinates, float64 of shape `(n, D)`.
        operations: that of the nearest embedding to each point, with its distance from the point.
    """

    t: Floats
    points: Floats
    operations: Operations


@dataclass(frozen=True, slots=True)
class PoincareDistance:
    """The hyperbolic distance of two points in the ball as a metric that scikit-learn takes.

    `KNeighborsClassifier(metric=tvae.PoincareDistance(2.0), algorithm="ball_tree")` on what `tvae.TernaryEmbedding`
    gives. scikit-learn calls it for one pair at a time, some microseconds each; `ball_tree` leaves out a part of the
    pairs. Where many are to be measured, `tvae.distance(…, matrix=True)` with `metric="precomputed"` is faster.

    Args:
        curvature: c > 0, that of the model.
    """

    curvature: float

    def __call__(self, z: Floats, w: Floats) -> float:
        """Return the distance of two points, shape `(D,)` each, inside the ball."""
        c, difference = self.curvature, z - w
        shares = (1 - c * float(z @ z)) * (1 - c * float(w @ w))
        x = 2 * c * float(difference @ difference) / shares
        return math.log1p(x + math.sqrt(x * (x + 2))) / math.sqrt(c)


@torch_defaults()
def distance(a: npt.ArrayLike, b: npt.ArrayLike, source: Source, *, matrix: bool = False) -> Floats:
    """Return hyperbolic distances of operations or points: of pairs, or of all of one with all of the other.

    Integers are operations, by index or by trits; floating-point numbers are points in the ball.

    Args:
        a: operations of shape `(…)` (of trits `(…, n_trits)`), or points `(…, D)`.
        b: as `a`; what shapes are there broadcast, so that one may be compared with many.
        source: the model whose ball they lie in, or its codebook.
        matrix: measure every `a` with every `b`, of shapes `(n,)` and `(m,)`; `metric="precomputed"` of scikit-learn
            takes the result.

    Returns:
        float64, the broadcast shape, or `(n, m)` with `matrix`; hyperbolic length.

    Raises:
        OperationError: if there is no such operation.
        PointError: if a point is not inside the ball.
        ValueError: if the shapes do not fit.
    """
    book = codebook(source)
    z, w = (_points(given, name, book) for given, name in ((a, "a"), (b, "b")))
    if not matrix:
        np.broadcast_shapes(z.shape[:-1], w.shape[:-1])
        found: Floats = poincare.distance_between_points(z, w, curvature=book.curvature).numpy()[()]
        return found
    z, w = (points.reshape(-1, points.shape[-1]) for points in (z, w))
    rows = max(1, BLOCK // max(1, len(w)))
    parts = (poincare.distance_matrix(some, w, curvature=book.curvature) for some in torch.split(z, rows))
    distances: Floats = torch.cat(list(parts)).numpy()
    return distances


@torch_defaults()
def nearest_operations(operation: npt.ArrayLike, source: Source, *, count: int = 10) -> Operations:
    """Return the operations nearest to an operation in the ball, the nearest first, without itself; or to each of many.

    Args:
        operation: its index or its trits; or many: indices `(m,)`, a column of them `(m, 1)`, or trits `(m, n_trits)`.
        source: a model or its codebook.
        count: how many, in 1 … 3^n_trits - 1.

    Returns:
        The operations, each with its hyperbolic distance; of equally near ones that of the lower index first. For many,
        every array has a leading axis `m`.

    Raises:
        OperationError: if there is no such operation, or `count` is out of range.
    """
    book = codebook(source)
    i = _indices(operation, book.n_trits)
    if not 1 <= count < len(book.points):
        raise OperationError(f"`count` must be in 1 … {len(book.points) - 1}, got {count}.")
    of = i.reshape(-1)
    index, distance = (
        x.numpy() for x in nearest(book.points[of], book.points, curvature=book.curvature, count=count + 1)
    )
    # With more others at its own point than were asked for, the operation itself may not be among them.
    others = index != of[:, None]
    others[others.all(1), -1] = False
    shape = (*i.shape, count)
    return book.operations(index[others].reshape(shape), distance[others].reshape(shape))


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
    """Return the index of one operation given by index or trits."""
    i = _indices(operation, n_trits)
    if i.ndim:
        shape = np.shape(operation)
        raise OperationError(f"`operation` must be an index or {n_trits} trits, got an array of shape {shape}.")
    return int(i)


def _indices(operations: npt.ArrayLike, n_trits: int) -> Ints:
    """Return indices, shape `(…)`, of operations given by index `(…)` or `(m, 1)`, or by trits `(…, n_trits)`."""
    given = np.asarray(operations)
    if given.ndim and given.shape[-1] == n_trits:
        return ternary.to_index(given)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    elif given.ndim > 1:
        raise OperationError(
            f"Operations must be indices, shape (m,), or trits, shape (m, {n_trits}), got shape {given.shape}."
        )
    return ternary.to_index(ternary.to_trits(given, n_trits))


def _points(given: npt.ArrayLike, name: str, book: Codebook) -> Tensor:
    """Return the points, float64 of shape `(…, D)`, of operations, or points in the ball as they are."""
    array, width = np.asarray(given), book.points.shape[1]
    if array.dtype.kind != "f":
        return book.points[torch.from_numpy(np.asarray(_indices(array, book.n_trits)))].double()
    if not array.ndim or array.shape[-1] != width:
        raise PointError(f"`{name}` must be operations, or points of shape (…, {width}), got shape {array.shape}.")
    return require_inside(array.reshape(-1, width), book, name).reshape(array.shape)
