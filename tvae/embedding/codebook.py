"""Reading points back: from a place in the ball to the operation that is nearest to it.

The space is finite, so nothing has to be learned for it. Take every operation to be equally likely, and a point to be
the likelier an operation's, the nearer it is to the operation's own: then the operation of maximum likelihood is the
one whose embedding is nearest in hyperbolic distance, and the embeddings are the whole decoder. It is exact, and says
of any point in the ball how far it is from being an embedding. The network's decoder is another thing: it reads the
posterior mean, which is not in the ball, and `coverage` measures it; `ball_coverage` measures this one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tvae import poincare, ternary
from tvae.arrays import Floats, Ints, Trits
from tvae.errors import EvaluationError, PointError
from tvae.metrics import embed
from tvae.metrics.nearest import nearest
from tvae.model import TernaryVAE, require_model
from tvae.torch_defaults import torch_defaults

__all__ = ["Codebook", "Operations", "codebook", "decode", "require_inside"]


@dataclass(frozen=True, slots=True, eq=False)
class Operations:
    """Some operations, each with its distance from what was asked about; a row an operation.

    Where many things were asked about at once, `(n,)` reads `(m, n)`: a row for each of them.

    Attributes:
        index: shape `(n,)`, in 0 … 3^n_trits - 1.
        trits: shape `(n, n_trits)`, in {-1, 0, 1}.
        valuation: 3-adic valuation, shape `(n,)`, in 0 … n_trits.
        distance: hyperbolic length, shape `(n,)`, >= 0.
    """

    index: Ints
    trits: Trits
    valuation: Ints
    distance: Floats

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, slots=True, eq=False)
class Codebook:
    """The point of every operation, in index order: what reading back takes, made once for many questions.

    Attributes:
        points: coordinates in the ball, shape `(3^n_trits, D)`: float64 of a centred model, else float32.
        curvature: c > 0.
        n_trits: number of trits.
    """

    points: Tensor
    curvature: float
    n_trits: int

    def operations(self, index: npt.ArrayLike, distance: npt.ArrayLike) -> Operations:
        """Return operations given by index, with their distances, both of one shape."""
        i = np.asarray(index, dtype=np.int64)
        return Operations(
            index=i,
            trits=ternary.operations(self.n_trits)[i],
            valuation=ternary.valuations(self.n_trits)[i],
            distance=np.asarray(distance, dtype=np.float64),
        )


@torch_defaults(threads=1)
def codebook(source: TernaryVAE | Codebook) -> Codebook:
    """Return the points of all operations, at the posterior mean; a codebook is returned as it is.

    Args:
        source: one network, on any device, or a codebook.

    Raises:
        EvaluationError: if a point is not finite or not inside the ball.
        OperationError: if there are more operations than can be listed.
        TypeError: if it is neither.
    """
    if isinstance(source, Codebook):
        return source
    require_model(source)
    n_trits, curvature = source.architecture.n_trits, source.architecture.curvature
    ternary.require_listed(n_trits)
    points = embed(source).points(curvature)
    inside = poincare.inside(points, curvature=curvature)
    if not bool(inside.all()):
        raise EvaluationError(
            f"Every point must be finite and inside the ball; that of operation {int(torch.nonzero(~inside)[0])} is "
            f"not, nor are those of {int((~inside).sum())} of {len(inside)} operations. Nothing can be read back."
        )
    return Codebook(points, curvature, n_trits)


@torch_defaults()
def decode(points: npt.ArrayLike, source: TernaryVAE | Codebook) -> Operations:
    """Read points in the ball back: return for each the operation whose embedding is nearest, and how far it is.

    Distances are hyperbolic, in float64, and compared exactly; of equally near operations the one of lower index is
    taken. An embedding's own coordinates, as `model(trits)` gives them, are at distance 0 from it, up to the last bits
    of the network's arithmetic; those of a centred model, rounded to float32, within 2e-4/sqrt(c).

    Args:
        points: numbers, shape `(n, D)`, inside the ball: c·|z|² < 1. float32 is taken at its exact value.
        source: the model whose embeddings they are compared with, or its codebook.

    Returns:
        An operation for each point, in the points' order.

    Raises:
        PointError: if a point is not finite or not inside the ball, or the array has another form.
        EvaluationError: if the model's own embeddings are not all inside the ball.
    """
    book = codebook(source)
    z = require_inside(points, book)
    index, distance = nearest(z, book.points, curvature=book.curvature)
    return book.operations(index[:, 0].numpy(), distance[:, 0].numpy())


def require_inside(points: npt.ArrayLike, book: Codebook, name: str = "points") -> Tensor:
    """Return points `(n, D)` as float64, or refuse the first that is at fault, by its row and value."""
    given: npt.NDArray[Any] = np.asarray(points)
    width = book.points.shape[1]
    if given.dtype.kind not in "fiu":
        raise PointError(f"`{name}` must be numbers, got an array of type {given.dtype}.")
    if given.ndim != 2 or given.shape[1] != width:
        raise PointError(f"`{name}` must have shape (n, {width}), a row a point of this ball, got {given.shape}.")
    z = torch.from_numpy(given.astype(np.float64))
    if not bool(z.isfinite().all()):
        row, position = torch.nonzero(~z.isfinite())[0].tolist()
        raise PointError(
            f"Row {row}, position {position} of `{name}` must be finite, got {float(z[row, position])}. Rows and "
            "positions count from 0."
        )
    outside = ~poincare.inside(z, curvature=book.curvature)
    if bool(outside.any()):
        row = int(torch.nonzero(outside)[0])
        norm = float(z[row].norm()) * book.curvature**0.5
        raise PointError(
            f"Row {row} of `{name}` must lie inside the ball, of unit norm sqrt(c)·|z| < 1 at curvature "
            f"c = {book.curvature:g}, got unit norm {norm:.9g}. Rows count from 0."
        )
    return z
