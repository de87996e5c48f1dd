"""The operations that metrics are measured on as a dataset of MLflow: all of them, up to 13 trits."""

from functools import cache

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from tvae import ternary
from tvae.metrics import population

__all__ = ["log_operations", "operations_dataset"]


@cache
def operations_dataset(n_trits: int) -> Dataset:
    """Return all operations of some trits, or the sample that stands for them, with their valuations."""
    from mlflow.data.numpy_dataset import from_numpy  # imports pandas

    name = "ternary-operations" if n_trits == ternary.N_TRITS else f"ternary-operations-{n_trits}"
    some = population(n_trits)
    data = from_numpy(ternary.to_trits(some.index, n_trits), targets=some.valuations, name=name)
    return Dataset(**data.to_dict())


def log_operations(client: MlflowClient, run_id: str, n_trits: int) -> None:
    """Log to a run, open or not, that it sees all operations of some trits."""
    tags = [InputTag(MLFLOW_DATASET_CONTEXT, "training")]
    client.log_inputs(run_id, datasets=[DatasetInput(operations_dataset(n_trits), tags)])
