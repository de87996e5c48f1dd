"""The served model: an operation comes in as its trits or its index, one record an operation goes out.

The space is finite, so the network runs once, as the model is loaded, and every request is answered from a table.

MLflow takes this file as the model's code and runs it under a name of its own; `tvae.serving` is the same file as a
module, with what the room that logs the model needs: `pyfunc_arguments`.

Whatever a request holds is judged here and not by MLflow's parser: the signature asks for cells of any type, since a
numeric one would turn 0.5 into 0, "1" into 1 and null into NaN before anybody could see it.
"""

import gc
import json
import logging
import math
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array

from tvae import poincare, ternary
from tvae.checkpoint import Checkpoint, load
from tvae.errors import EvaluationError
from tvae.metrics import posterior_mean
from tvae.model import TernaryVAE
from tvae.torch_defaults import torch_defaults

__all__ = ["MAX_ROWS", "Answers", "ServedModel", "answers", "pyfunc_arguments"]

# Ten times all operations: measured on two busy cores, 6 s of the server's 60, and 21 s with `embedding`.
MAX_ROWS = 200_000
ARTIFACT = "checkpoint"
# What importing tvae.checkpoint takes; the model's own code travels with it.
REQUIREMENTS = ("mlflow", "numpy", "torch")
MODULE = "tvae.serving"

# It loads the model as it is imported, and is imported by nobody but the server.
_SERVER_MODULE = "mlflow.pyfunc.scoring_server.app"
_LONGEST_QUOTE = 60
_COUNTED = "Rows and positions count from 0."
_logger = logging.getLogger(MODULE)

Record = dict[str, Any]
Floats = npt.NDArray[np.float64]
Cells = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What can be said of every operation, in index order; all arrays are read-only.

    Attributes:
        n_trits: number of trits; there are N = 3^n_trits operations.
        radius: hyperbolic distance from the origin, shape `(N,)`.
        embedding: points in the ball, shape `(N, D)`.
        valuation: 3-adic valuation, shape `(N,)`, in 0 … n_trits.
        decoded: trits of the operation that is read back from `embedding`, shape `(N, n_trits)`.
    """

    n_trits: int
    radius: Floats
    embedding: Floats
    valuation: npt.NDArray[np.int64]
    decoded: npt.NDArray[np.int8]

    def records(self, indices: npt.NDArray[np.int64], *, embedding: bool) -> list[Record]:
        """Return one record an operation.

        A list of dicts is the quickest thing to return that MLflow writes as one record an operation: from a DataFrame
        it would make the same list first.

        Args:
            indices: shape `(n,)`, in 0 … N - 1.
            embedding: whether to say more than the radius.

        Returns:
            `n` dicts with `radius`, and with `embedding` also `embedding`, `valuation` and `decoded`.
        """
        radius = self.radius[indices].tolist()
        if not embedding:
            return [{"radius": r} for r in radius]
        columns = (array[indices].tolist() for array in (self.embedding, self.valuation, self.decoded))
        return [
            {"radius": r, "embedding": e, "valuation": v, "decoded": d}
            for r, e, v, d in zip(radius, *columns, strict=True)
        ]


@torch_defaults(threads=1)
def answers(model: TernaryVAE) -> Answers:
    """Run a model on every operation, at the posterior mean.

    Args:
        model: one network, on the CPU.

    Raises:
        EvaluationError: if a radius or a point is NaN or infinite.
    """
    n_trits, curvature = model.architecture.n_trits, model.architecture.curvature
    embedding = model.project(posterior_mean(model))
    radius, points = poincare.radius(embedding.unit_norm, curvature=curvature), embedding.points(curvature)
    finite = radius.isfinite() & points.isfinite().all(-1)
    if not bool(finite.all()):
        raise EvaluationError(
            f"Every radius and every point must be finite and inside the ball; those of operation "
            f"{int(torch.nonzero(~finite)[0])} are not, nor are those of {int((~finite).sum())} of {len(finite)} "
            "operations. The model cannot be served."
        )
    served = _decimal(points)
    # The nearest embedding to an embedding is the one at distance 0: itself, or the first operation of the same point.
    _, first, place = np.unique(served, axis=0, return_index=True, return_inverse=True)
    decoded = ternary.operations(n_trits)[first[place]]
    table = Answers(n_trits, _decimal(radius), served, ternary.valuations(n_trits), decoded)
    for array in (table.radius, table.embedding, table.decoded):
        array.flags.writeable = False
    return table


class InputError(MlflowException):
    """A request that cannot be answered, with the one sentence that says why.

    MLflow's server assigns a new message that begins with the whole input. The sentence already names the row, the
    position and the value, so it stays as it is.
    """

    @property
    def message(self) -> str:
        return self._message

    @message.setter
    def message(self, text: str) -> None:
        if not hasattr(self, "_message"):
            self._message = text


class ServedModel(PythonModel):
    """The pyfunc that MLflow loads and serves."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the checkpoint, with every check that reading makes, and answer every operation once.

        Raises:
            CheckpointError: if the file is missing, damaged, or not a checkpoint of this format.
            EvaluationError: if the model gives a radius or a point that is NaN or infinite.
        """
        self.answers = answers(load(context.artifacts[ARTIFACT]))
        if _SERVER_MODULE in sys.modules:
            # Parsing a large body makes enough lists to start full collections, which would walk through everything
            # that torch and mlflow have made: more than half of the request's time. This process only serves, and
            # nothing in it now will be garbage later.
            gc.collect()
            gc.freeze()

    # The type hint is one of the few that leave the signature as it is.
    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> list[Record]:
        """Answer a request.

        Args:
            context: not used.
            model_input: trits, shape `(n, 9)`, or indices, shape `(n, 1)`, with cells of any type.
            params: `embedding`: whether to say more than the radius.

        Returns:
            One record an operation, as `Answers.records` has them.

        Raises:
            MlflowException: 4xx if the input is anything else; 500 if something is wrong here.
        """
        try:
            indices = to_indices(model_input, self.answers.n_trits)
            return self.answers.records(indices, embedding=bool((params or {}).get("embedding", False)))
        except InputError:
            raise
        except Exception:
            # MLflow would answer any other exception with 400 and the stack trace.
            _logger.exception("A request could not be answered.")
            raise InputError("The request could not be answered; the server's log says why.") from None


def to_indices(model_input: Cells, n_trits: int) -> npt.NDArray[np.int64]:
    """Return the indices of the operations in a request.

    Args:
        model_input: what MLflow made of the request's `inputs`; an array of any type and shape.
        n_trits: number of trits of an operation.

    Returns:
        Shape `(n,)`, in 0 … 3^n_trits - 1.

    Raises:
        InputError: if the input is not `(n, n_trits)` trits or `(n, 1)` indices; names row, position and value.
    """
    cells = np.asarray(model_input)
    _require_rows(cells, n_trits)
    numbers = _numbers(cells)
    if cells.shape[1] == 1:
        index = numbers[:, 0]
        _require(cells, (index >= 0) & (index < 3**n_trits) & (index == np.rint(index)), n_trits)
        return index.astype(np.int64)
    _require(cells, (numbers == 0) | (np.abs(numbers) == 1), n_trits)
    # In float64, exact, rather than in the integers of `ternary.to_index`, which would check every cell again.
    index = (numbers + 1) @ _powers(n_trits)
    return index.astype(np.int64)


def pyfunc_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what `mlflow.pyfunc.log_model` needs, beyond a name, to log a checkpoint as a model that can be served.

    Args:
        checkpoint: as `tvae.checkpoint.save` or `read` returned it; its file is there still.
    """
    example = ternary.to_trits(np.arange(2), checkpoint.architecture.n_trits).astype(np.int64)
    here = Path(__file__)
    return {
        "python_model": str(here),
        "artifacts": {ARTIFACT: str(checkpoint.path)},
        "code_paths": [str(here.parent)],
        "signature": signature(),
        "input_example": example,
        "pip_requirements": pip_requirements(),
        "metadata": {"digest": checkpoint.digest, "trained": list(checkpoint.trained)},
    }


def signature() -> ModelSignature:
    """Return what the model takes and gives, as MLflow records it.

    Of all input types only "cells of any type, in any shape" leaves the judgement to `to_indices`.
    """
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.double, "radius"),
        ColSpec(Array(DataType.double), "embedding", required=False),
        ColSpec(DataType.long, "valuation", required=False),
        ColSpec(Array(DataType.long), "decoded", required=False),
    ]
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(object), (-1,))]),
        outputs=Schema(outputs),
        params=ParamSchema([ParamSpec("embedding", DataType.boolean, False)]),
    )


def pip_requirements() -> list[str]:
    """Return the installed versions of what the model needs: the ones that it was made and tried with.

    The label after a `+`, such as `cpu`, names a build and is no version that an index would know.
    """
    return [f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS]


@lru_cache
def _powers(n_trits: int) -> Floats:
    return np.power(3.0, np.arange(n_trits), dtype=np.float64)


def _require_rows(cells: Cells, n_trits: int) -> None:
    """Refuse what is not of shape `(n, n_trits)` or `(n, 1)`, by the first row that is at fault."""
    form = f"a list of {n_trits} trits or of one index"
    widths = (n_trits, 1)
    if cells.ndim == 0:
        raise _refusal(f"`inputs` must be a list of rows, each {form}; got {_quote(cells.item())}.")
    if not 1 <= len(cells) <= MAX_ROWS:
        raise _refusal(f"`inputs` must have 1 to {MAX_ROWS} rows, each {form}; got {len(cells)} rows.")
    if cells.ndim == 2 and cells.shape[1] in widths:
        return
    if cells.ndim > 2 and cells.shape[1] in widths:
        raise _cell_refusal(0, 0, cells[0, 0].tolist(), n_trits, cells.shape[1])
    rows = cells.tolist()
    for number, row in enumerate(rows):
        if not isinstance(row, list):
            raise _refusal(f"Row {number} must be {form}, got {_quote(row)}. {_COUNTED}")
        if len(row) not in widths:
            raise _refusal(f"Row {number} must be {form}, got {len(row)} values: {_quote(row)}. {_COUNTED}")
        if len(row) != len(rows[0]):
            raise _refusal(
                f"Row {number} must have {len(rows[0])} values as row 0 has, got {len(row)}: {_quote(row)}. {_COUNTED} "
                "A request holds trits or indices, not both."
            )
    raise _refusal(f"`inputs` must be an array of shape (n, {n_trits}) or (n, 1), got {cells.shape}.")


def _numbers(cells: Cells) -> Floats:
    """Return cells as float64, NaN for what is no number; a boolean and a text are none."""
    if cells.dtype.kind in "iuf":
        return cells.astype(np.float64)
    flat = cells.ravel().tolist()
    if cells.dtype.kind == "O" and set(map(type, flat)) <= {int, float}:
        try:
            return cells.astype(np.float64)
        except OverflowError:
            pass
    return np.array(list(map(_number, flat))).reshape(cells.shape)


def _number(cell: object) -> float:
    if isinstance(cell, bool) or not isinstance(cell, int | float | np.integer | np.floating):
        return math.nan
    try:
        return float(cell)
    except OverflowError:
        return math.nan


def _require(cells: Cells, allowed: npt.NDArray[np.bool_], n_trits: int) -> None:
    """Refuse the first cell that is not allowed."""
    first = int(allowed.argmin())
    if not allowed.item(first):
        row, position = divmod(first, cells.shape[1])
        raise _cell_refusal(row, position, cells[row, position], n_trits, cells.shape[1])


def _cell_refusal(row: int, position: int, value: object, n_trits: int, width: int) -> InputError:
    allowed = "-1, 0 or 1" if width == n_trits else f"an index, an integer from 0 to {3**n_trits - 1}"
    return _refusal(f"Row {row}, position {position} must be {allowed}, got {_quote(value)}. {_COUNTED}")


def _refusal(sentence: str) -> InputError:
    return InputError(sentence, error_code=INVALID_PARAMETER_VALUE)


def _quote(value: object) -> str:
    """Return a value as JSON writes it, cut to a readable length."""
    try:
        text = json.dumps(value.item() if isinstance(value, np.generic) else value, ensure_ascii=False)
    # An integer of thousands of digits is a ValueError; a Python caller can pass anything.
    except (TypeError, ValueError, RecursionError):
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}..."


def _decimal(x: torch.Tensor) -> Floats:
    """Return float32 values as the float64 nearest to their 9-digit decimals.

    Nine digits give back the same float32, and are written in half the characters of the 17 of the float32 itself.
    """
    exact = x.double().numpy()
    magnitude = np.floor(np.log10(np.where(exact == 0, 1.0, np.abs(exact))))
    scale = 10.0 ** (8 - magnitude)
    return np.rint(exact * scale) / scale


if __name__ != MODULE:
    set_model(ServedModel())
