"""A checkpoint that was not trained in a run of this store, logged so that it can be served."""

import shutil
from pathlib import Path

import mlflow

from tvae.checkpoint import FILE_NAME
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
    # A file keeps its name in the store, and is looked for there by the name that every checkpoint of a run has.
    named = run.folder / "named"
    named.mkdir()
    path = Path(shutil.copyfile(checkpoint_path, named / FILE_NAME))
    run.log_file(path, "checkpoint")
    return str(mlflow.pyfunc.log_model(name="model", **pyfunc_arguments(path)).model_id)
