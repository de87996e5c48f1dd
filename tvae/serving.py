"""How a checkpoint becomes a model that can be served.

Up to `MOST_OPERATIONS` the network runs once, as the model is logged: what it says of every operation is written as a
table, and the logged model answers from that with the code of `tvae.served`, without torch. Of more operations the
logged model holds the network, which answers each request as it comes.
"""

import hashlib
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.models import ModelSignature
from mlflow.pyfunc import scoring_server
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

from tvae import poincare, served, ternary
from tvae.arrays import Floats, Ints
from tvae.checkpoint import FILE_NAME, Checkpoint, load, read
from tvae.errors import EvaluationError
from tvae.metrics import CHUNK, embed
from tvae.model import TernaryVAE
from tvae.served import TABLE, Answers, Record, ServedModel, read_table, take_every_format
from tvae.torch_defaults import torch_defaults

__all__ = ["MOST_OPERATIONS", "Answers", "NetworkAnswers", "answers", "pyfunc_arguments", "require_same_answers"]

# 3^11 operations in 16 dimensions are a table of 28 MB.
MOST_OPERATIONS = 200_000
# What importing tvae.served takes, and tvae.serving; the model's own code travels with it.
REQUIREMENTS = ("mlflow", "numpy")
REQUIREMENTS_OF_NETWORK = (*REQUIREMENTS, "torch")
MODULE = "tvae.serving"

# What `tvae.serving` imports of the package, for a model that holds the network.
CODE_OF_NETWORK = (
    *("__init__.py", "arrays.py", "checkpoint", "config", "errors.py", "fresh.py", "locks.py", "markdown.py"),
    *("metrics", "model.py", "poincare.py", "served.py", "serving.py", "ternary.py", "torch_defaults.py"),
)


@torch_defaults(threads=1)
def answers(model: TernaryVAE) -> Answers:
    """Run a model on every operation, at the posterior mean.

    Args:
        model: one network, on the CPU.

    Raises:
        EvaluationError: if a radius or a point is NaN or infinite.
    """
    n_trits, curvature = model.architecture.n_trits, model.architecture.curvature
    embedding = embed(model)
    radius, points = poincare.radius(embedding.unit_norm, curvature=curvature), embedding.points(curvature).float()
    finite = radius.isfinite() & points.isfinite().all(-1)
    if not bool(finite.all()):
        raise EvaluationError(
            f"Every radius and every point must be finite and inside the ball; those of operation "
            f"{int(torch.nonzero(~finite)[0])} are not, nor are those of {int((~finite).sum())} of {len(finite)} "
            "operations. The model cannot be served."
        )
    places = _decimal(points)
    # The nearest embedding to an embedding is the one at distance 0: itself, or the first operation of the same point.
    _, first, place = np.unique(places, axis=0, return_index=True, return_inverse=True)
    decoded = ternary.operations(n_trits)[first[place]]
    table = Answers(n_trits, _decimal(radius), places, ternary.valuations(n_trits), decoded)
    for array in (table.radius, table.embedding, table.decoded):
        array.flags.writeable = False
    return table


class NetworkAnswers:
    """What the network says of the operations of a request, at the posterior mean.

    As `Answers`, but that `decoded` is what the decoder reads back from the posterior mean: there is no list of
    embeddings in which the nearest could be looked up.

    Args:
        model: one network, on the CPU.
    """

    def __init__(self, model: TernaryVAE) -> None:
        self._model, self.n_trits = model, model.architecture.n_trits

    @torch_defaults(threads=1)
    def records(self, indices: Ints, *, embedding: bool) -> list[Record]:
        """Return one record an operation, as `Answers.records` does.

        Raises:
            EvaluationError: if a radius or a point is NaN or infinite.
        """
        model, curvature = self._model, self._model.architecture.curvature
        rows: list[Record] = []
        for start in range(0, len(indices), CHUNK):
            some = indices[start : start + CHUNK]
            mean, _ = model.encode(torch.from_numpy(ternary.to_trits(some, self.n_trits)).float())
            placed = model.project(mean)
            radius, points = poincare.radius(placed.unit_norm, curvature=curvature), placed.points(curvature).float()
            if not bool(radius.isfinite().all() and points.isfinite().all()):
                raise EvaluationError("Every radius and every point must be finite; the model cannot be served.")
            part: dict[str, list[Any]] = {"radius": _decimal(radius).tolist()}
            if embedding:
                part["embedding"] = _decimal(points).tolist()
                part["valuation"] = ternary.valuation(some, self.n_trits).tolist()
                part["decoded"] = (model.decode(mean).argmax(-1) - 1).tolist()
            rows += [dict(zip(part, row, strict=True)) for row in zip(*part.values(), strict=True)]
        return rows


def pyfunc_arguments(checkpoint: Checkpoint, folder: Path) -> dict[str, Any]:
    """Write the files of a model that can be served, and return what `mlflow.pyfunc.log_model` needs beyond a name.

    Args:
        checkpoint: as `tvae.checkpoint.save` or `read` returned it; its file is there still.
        folder: where the files go, new or empty; it has to stay until the model is logged.

    Raises:
        EvaluationError: if an answer is not finite, or the table does not hold the network's answers bit for bit.
    """
    n_trits = checkpoint.architecture.n_trits
    data, code = folder / "served", folder / "code"
    data.mkdir(parents=True)
    code.mkdir()
    # Whoever is given the model's address finds the checkpoint in it.
    shutil.copyfile(checkpoint.path, data / FILE_NAME)
    if 3**n_trits <= MOST_OPERATIONS:
        source = Path(served.__file__)
        # A name of its own for each version of the code: Python imports a name once for all models of a process.
        module = f"tvae_served_{hashlib.sha256(source.read_bytes()).hexdigest()[:8]}"
        code_path = shutil.copyfile(source, code / f"{module}.py")
        answers(load(checkpoint.path)).write(data / TABLE, checkpoint.digest)
        require_same_answers(data)
    else:
        module, code_path = MODULE, code / "tvae"
        code_path.mkdir()
        for name in CODE_OF_NETWORK:
            path = Path(__file__).with_name(name)
            if path.is_dir():
                shutil.copytree(path, code_path / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(path, code_path / name)
    # Of objects: MLflow compares the names with numbers, of which pandas warns where they are texts.
    names = pd.Index(served.trit_names(n_trits), dtype=object)
    example = pd.DataFrame(ternary.to_trits(np.arange(2), n_trits), columns=names)
    # MLflow tries the example as its server would.
    take_every_format(scoring_server)
    return {
        "loader_module": module,
        "data_path": str(data),
        "code_paths": [str(code_path)],
        "signature": signature(n_trits),
        "input_example": example,
        "pip_requirements": pip_requirements(REQUIREMENTS if module != MODULE else REQUIREMENTS_OF_NETWORK),
        "metadata": {"digest": checkpoint.digest, "trained": list(checkpoint.trained)},
    }


def require_same_answers(folder: Path) -> None:
    """Refuse a model's folder whose table is not, bit for bit, what the network of its checkpoint answers.

    Args:
        folder: that holds a checkpoint; without a table, it is the network that answers.

    Raises:
        EvaluationError: if the table is damaged, of another checkpoint, or says anything else than the network.
        CheckpointError: if the checkpoint cannot be read.
    """
    if not (folder / TABLE).exists():
        return
    checkpoint = read(folder / FILE_NAME)
    try:
        table, digest = read_table(folder / TABLE)
    except ValueError as error:
        raise EvaluationError(str(error)) from error
    if digest != checkpoint.digest or not table.same(answers(checkpoint.model)):
        raise EvaluationError(
            f"The table of a served model must hold the answers of its network, {checkpoint.digest}, bit for bit; it "
            f"holds others, of {digest}. Log the model again."
        )


def signature(n_trits: int) -> ModelSignature:
    """Return what the model takes and gives, as MLflow records it.

    It is marked as MLflow marks one that is made of a type hint: then the model judges its input itself.
    """
    outputs: list[ColSpec] = [
        ColSpec(DataType.double, "radius"),
        ColSpec(Array(DataType.double), "embedding", required=False),
        ColSpec(DataType.long, "valuation", required=False),
        ColSpec(Array(DataType.long), "decoded", required=False),
    ]
    made = ModelSignature(
        inputs=served.schema_of(n_trits),
        outputs=Schema(outputs),  # type: ignore[arg-type]
        params=ParamSchema([ParamSpec("embedding", DataType.boolean, False)]),
    )
    made._is_signature_from_type_hint = True
    return made


def pip_requirements(names: tuple[str, ...] = REQUIREMENTS) -> list[str]:
    """Return the installed versions of what a model needs: the ones that it was made and tried with.

    The label after a `+`, such as `cpu`, names a build and is no version that an index would know.
    """
    return [f"{name}=={version(name).split('+')[0]}" for name in names]


def _load_pyfunc(path: str) -> ServedModel:
    """Return a model that holds the network, for MLflow: `path` is the folder of the checkpoint."""
    return ServedModel(NetworkAnswers(load(Path(path) / FILE_NAME)))


def _decimal(x: torch.Tensor) -> Floats:
    """Return values as the float64 nearest to their 9-digit decimals.

    Nine digits give back the same float32, and are written in half the characters of the 17 of a float64.
    """
    exact = x.double().numpy()
    magnitude = np.floor(np.log10(np.where(exact == 0, 1.0, np.abs(exact))))
    scale = 10.0 ** (8 - magnitude)
    return np.rint(exact * scale) / scale
