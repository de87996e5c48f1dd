"""All embeddings of a model as a table, one row an operation, for programmes that know nothing of tvae."""

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tvae import poincare, ternary
from tvae.metrics import embed, measure
from tvae.model import TernaryVAE
from tvae.torch_defaults import torch_defaults

__all__ = ["NPZ", "PARQUET", "embeddings", "to_npz", "to_parquet"]

NPZ = "embeddings.npz"
PARQUET = "embeddings.parquet"

Columns = Mapping[str, npt.NDArray[Any]]


@torch_defaults(threads=1)
def embeddings(model: TernaryVAE) -> dict[str, npt.NDArray[Any]]:
    """Embed every operation at the posterior mean.

    Args:
        model: one network, on any device.

    Returns:
        Arrays with a row an operation, in index order: `index`; `trits`, shape `(N, n_trits)`; `valuation`; `radius`,
        hyperbolic length at curvature -c; `norm`, ball coordinate; `z`, the point in the ball, shape `(N, D)`. Radius
        and norm are those of `tvae.evaluate`.

    Raises:
        OperationError: if there are more operations than can be listed.
        EvaluationError: if a radius is NaN, infinite or outside the ball, or a direction is not finite.
    """
    n_trits, curvature = model.architecture.n_trits, model.architecture.curvature
    ternary.require_listed(n_trits)
    embedding = embed(model)
    measure(embedding, n_trits=n_trits, curvature=curvature)
    norm = embedding.unit_norm.double().numpy() / math.sqrt(curvature)
    return {
        "index": np.arange(3**n_trits, dtype=np.int32),
        "trits": ternary.operations(n_trits).astype(np.int8),
        "valuation": ternary.valuations(n_trits).astype(np.int8),
        "radius": poincare.radius(embedding.unit_norm, curvature=curvature).double().numpy(),
        "norm": norm,
        "z": embedding.direction.double().numpy() * norm[:, None],
    }


def to_npz(table: Columns) -> bytes:
    """Return a table as the content of a `.npz` file, an array a name."""
    stream = io.BytesIO()
    arrays: dict[str, Any] = dict(table)
    np.savez(stream, **arrays)
    return stream.getvalue()


def to_parquet(table: Columns) -> bytes:
    """Return a table as the content of a Parquet file: `trits` as a list in its row, `z` as the columns z0, z1, ….

    Args:
        table: as `embeddings` returns it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(values) for name, values in table.items() if values.ndim == 1}
    trits = pa.FixedSizeListArray.from_arrays(pa.array(table["trits"].ravel()), table["trits"].shape[1])
    points = {f"z{k}": pa.array(values) for k, values in enumerate(table["z"].T)}
    stream = io.BytesIO()
    pq.write_table(pa.table({"index": columns.pop("index"), "trits": trits, **columns, **points}), stream)
    return stream.getvalue()
