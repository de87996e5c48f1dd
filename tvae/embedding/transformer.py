"""The embedding as a scikit-learn transformer, so that it can stand in a Pipeline."""

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from tvae import poincare, ternary
from tvae.arrays import Floats, Ints, Trits
from tvae.checkpoint import Checkpoint
from tvae.embedding.codebook import Codebook, codebook, decode
from tvae.embedding.loading import load
from tvae.model import TernaryVAE

if TYPE_CHECKING:
    from sklearn.utils import Tags

__all__ = ["TernaryEmbedding"]


SPACES = ("ball", "tangent", "radius")


class TernaryEmbedding(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """From the trits of operations to where they lie in the Poincaré ball, and back.

    `fit` trains nothing: it takes a trained model, and from it the point of every operation. The space is finite, so
    `transform` looks points up, and `inverse_transform` finds the nearest embedding, as `tvae.decode` does.

    What `transform` gives is, by `space`,

    - `ball`: coordinates in the ball, for `tvae.PoincareDistance`;
    - `tangent`: coordinates in the tangent space at the origin, for estimators that know Euclidean space alone: the
      direction is that of the point, the length its hyperbolic radius. Distances from the origin are kept, others are
      not;
    - `radius`: the hyperbolic radius, one column.

    Args:
        model: a `TernaryVAE`, its codebook, a `Checkpoint`, or what `tvae.load` takes: a path, or an address of MLflow.
        space: `ball`, `tangent` or `radius`.

    Attributes:
        codebook_: the points of all operations.
        n_features_in_: number of trits.

    Example:
        `make_pipeline(TernaryEmbedding("checkpoint.safetensors"), KNeighborsClassifier()).fit(trits, labels)`
    """

    def __init__(
        self, model: str | os.PathLike[str] | Checkpoint | TernaryVAE | Codebook | None = None, *, space: str = "ball"
    ) -> None:
        self.model = model
        self.space = space

    def fit(self, X: npt.ArrayLike, y: object = None) -> "TernaryEmbedding":
        """Take the points of all operations from the model.

        Args:
            X: trits, shape `(n, n_trits)`, least significant first; their values are checked, nothing is learned.
            y: not used.

        Raises:
            ValueError: if `X` is not trits of the model's width, no model was given, or `space` is unknown.
            CheckpointError: if the checkpoint is missing, damaged, or not one of this format.
        """
        given = validate_data(self, X)
        if self.model is None:
            raise ValueError("`model` must be the path of a checkpoint, a Checkpoint or a TernaryVAE, got None.")
        if self.space not in SPACES:
            raise ValueError(f"`space` must be one of {', '.join(SPACES)}, got {self.space!r}.")
        model = self.model.model if isinstance(self.model, Checkpoint) else self.model
        self.codebook_: Codebook = codebook(model if isinstance(model, TernaryVAE | Codebook) else load(model))
        _indices(given, self.codebook_.n_trits)
        return self

    def transform(self, X: npt.ArrayLike) -> Floats:
        """Return where operations lie, float64 of shape `(n, D)`, or `(n, 1)` radii, for their trits `(n, n_trits)`.

        Raises:
            ValueError: if `X` is not trits of the model's width.
        """
        check_is_fitted(self)
        book = self.codebook_
        index = _indices(validate_data(self, X, reset=False), book.n_trits)
        z: Floats = book.points[torch.from_numpy(index)].double().numpy()
        if self.space == "ball":
            return z
        norm = np.linalg.norm(z, axis=1, keepdims=True)
        radius = poincare.radius(torch.from_numpy(norm * math.sqrt(book.curvature)), curvature=book.curvature).numpy()
        if self.space == "radius":
            return np.asarray(radius)
        return np.asarray(z * np.divide(radius, norm, out=np.zeros_like(norm), where=norm > 0))

    def inverse_transform(self, X: npt.ArrayLike) -> Trits:
        """Return the trits, int8 of shape `(n, n_trits)`, of the operations nearest to points `(n, D)`.

        Args:
            X: points of the ball, or of the tangent space where `space` is `tangent`.

        Raises:
            PointError: if a point is not inside the ball, or of another width.
            ValueError: if `space` is `radius`, which many operations share.
        """
        check_is_fitted(self)
        if self.space == "radius":
            raise ValueError("`space` must be ball or tangent for the way back: many operations share one radius.")
        points, curvature = check_array(X, dtype=[np.float64, np.float32]), self.codebook_.curvature
        if self.space == "tangent":
            radius = np.linalg.norm(points, axis=1, keepdims=True)
            norm = np.tanh(math.sqrt(curvature) * radius / 2) / math.sqrt(curvature)
            points = points * np.divide(norm, radius, out=np.zeros_like(radius), where=radius > 0)
        return decode(points, self.codebook_).trits

    @property
    def _n_features_out(self) -> int:
        return 1 if self.space == "radius" else self.codebook_.points.shape[1]

    def __sklearn_tags__(self) -> "Tags":
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # whatever type trits are in, points are float64
        return tags


def _indices(X: npt.NDArray[Any], n_trits: int) -> Ints:
    """Return the indices of rows of trits, or refuse the first value that is none, by its place."""
    if X.shape[1] != n_trits:
        raise ValueError(f"`X` must have a column for each of {n_trits} trits, got {X.shape[1]} feature(s).")
    wrong = ~np.isin(X, (-1, 0, 1))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(f"`X` must hold trits, -1, 0 or 1; row {row}, column {column} is {X[row, column]}.")
    return ternary.to_index(X)
