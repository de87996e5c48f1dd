"""The embedding as a scikit-learn transformer, so that it can stand in a Pipeline."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from tvae import ternary
from tvae.checkpoint import Checkpoint, load
from tvae.model import TernaryVAE
from tvae.reading import Codebook, codebook, decode

if TYPE_CHECKING:
    from sklearn.utils import Tags

__all__ = ["TernaryEmbedding"]


class TernaryEmbedding(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """From the trits of operations to their points in the Poincaré ball, and back.

    `fit` trains nothing: it takes a trained model, and from it the point of every operation. The space is finite, so
    `transform` looks points up, and `inverse_transform` finds the nearest embedding, as `tvae.decode` does.

    Args:
        model: the path of a checkpoint, a `Checkpoint`, or a `TernaryVAE`.

    Attributes:
        codebook_: the points of all operations.
        n_features_in_: number of trits.

    Example:
        `make_pipeline(TernaryEmbedding("checkpoint.safetensors"), KNeighborsClassifier()).fit(trits, labels)`
    """

    def __init__(self, model: str | os.PathLike[str] | Checkpoint | TernaryVAE | None = None) -> None:
        self.model = model

    def fit(self, X: npt.ArrayLike, y: object = None) -> "TernaryEmbedding":
        """Take the points of all operations from the model.

        Args:
            X: trits, shape `(n, n_trits)`, least significant first; their values are checked, nothing is learned.
            y: not used.

        Raises:
            ValueError: if `X` is not trits of the model's width, or no model was given.
            CheckpointError: if the checkpoint is missing, damaged, or not one of this format.
        """
        given = validate_data(self, X)
        if self.model is None:
            raise ValueError("`model` must be the path of a checkpoint, a Checkpoint or a TernaryVAE, got None.")
        model = self.model.model if isinstance(self.model, Checkpoint) else self.model
        self.codebook_: Codebook = codebook(model if isinstance(model, TernaryVAE) else load(model))
        _indices(given, self.codebook_.n_trits)
        return self

    def transform(self, X: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return the points of operations, float32 of shape `(n, D)`, for their trits `(n, n_trits)`.

        Raises:
            ValueError: if `X` is not trits of the model's width.
        """
        check_is_fitted(self)
        index = _indices(validate_data(self, X, reset=False), self.codebook_.n_trits)
        points: npt.NDArray[np.float32] = self.codebook_.points[torch.from_numpy(index)].float().numpy()
        return points

    def inverse_transform(self, X: npt.ArrayLike) -> npt.NDArray[np.int8]:
        """Return the trits, int8 of shape `(n, n_trits)`, of the operations nearest to points `(n, D)` in the ball.

        Raises:
            PointError: if a point is not inside the ball, or of another width.
        """
        check_is_fitted(self)
        return decode(check_array(X, dtype=[np.float64, np.float32]), self.codebook_).trits

    @property
    def _n_features_out(self) -> int:
        return self.codebook_.points.shape[1]

    def __sklearn_tags__(self) -> "Tags":
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # whatever type trits are in, points are float32
        return tags


def _indices(X: npt.NDArray[Any], n_trits: int) -> npt.NDArray[np.int64]:
    """Return the indices of rows of trits, or refuse the first value that is none, by its place."""
    if X.shape[1] != n_trits:
        raise ValueError(f"`X` must have a column for each of {n_trits} trits, got {X.shape[1]} feature(s).")
    wrong = ~np.isin(X, (-1, 0, 1))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(f"`X` must hold trits, -1, 0 or 1; row {row}, column {column} is {X[row, column]}.")
    return ternary.to_index(X)
