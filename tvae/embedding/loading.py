"""Where a model comes from: a file, or a run or registered model of MLflow."""

import os
import re
import tempfile
from pathlib import Path

from tvae import checkpoint
from tvae.model import TernaryVAE

__all__ = ["load"]

# mlflow takes seconds to import: a file is loaded without it.
_OF_MLFLOW = re.compile(r"(runs|models):/")


def load(address: str | os.PathLike[str]) -> TernaryVAE:
    """Return the model that a checkpoint holds, in evaluation mode, on the CPU.

    Args:
        address: the path of a checkpoint, or an address of MLflow: `runs:/<id>/checkpoint`, `models:/tvae@champion`,
            `models:/tvae/3`. MLflow is asked where `mlflow.set_tracking_uri` or MLFLOW_TRACKING_URI says, and is
            imported for such an address alone.

    Raises:
        CheckpointError: if there is none, or it is damaged or not a checkpoint of this format.
    """
    if not (isinstance(address, str) and _OF_MLFLOW.match(address)):
        return checkpoint.load(address)
    from tvae import registry

    with tempfile.TemporaryDirectory() as folder:
        return checkpoint.load(registry.fetch(address, Path(folder)))
