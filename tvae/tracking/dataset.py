"""All operations as a dataset of MLflow: what every training sees, and every metric is measured on."""

from functools import cache

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from tvae import ternary

__all__ = ["log_operations", "operations_dataset"]


@cache
def operations_dataset(n_trits: int) -> Dataset:
    """Return all operations of some trits, with their valuations."""
    from mlflow.data.numpy_dataset import from_numpy  # imports pandas

    name = "ternary-operations" if n_trits == ternary.N_TRITS else f"ternary-operations-{n_trits}"
    data = from_numpy(ternary.operations(n_trits), targets=ternary.valuations(n_trits), name=name)
    return Dataset(**data.to_dict())


def log_operations(client: MlflowClient, run_id: str, n_trits: int, context: str = "training") -> None:
    """Log to a run, open or not, that it sees all operations of some trits."""
    tags = [InputTag(MLFLOW_DATASET_CONTEXT, context)]
    client.log_inputs(run_id, datasets=[DatasetInput(operations_dataset(n_trits), tags)])
