"""A checkpoint that was not trained in a run of this store, logged so that it can be served."""

from pathlib import Path

import mlflow

from tvae.serving import pyfunc_arguments
from tvae.tracking.run import Run

__all__ = ["log_model"]


def log_model(run: Run, checkpoint_path: Path) -> str:
    """Log a checkpoint to the run that is open, as an artifact and as a model.

    Args:
        run: where to.
        checkpoint_path: a file that `tvae.checkpoint.save` wrote.

    Returns:
        The id of the logged model.
    """
    run.log_file(checkpoint_path, "checkpoint")
    return str(mlflow.pyfunc.log_model(name="model", **pyfunc_arguments(checkpoint_path)).model_id)
