"""The model that can be served, logged beside its checkpoint."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mlflow
from mlflow.utils import requirements_utils

from tvae.checkpoint import FILE_NAME, Checkpoint
from tvae.serving import pyfunc_arguments
from tvae.tracking.run import Run

__all__ = ["log_model", "log_with_file"]


def log_model(checkpoint: Checkpoint) -> str:
    """Log a checkpoint to the run that is open, as a model.

    Args:
        checkpoint: as `save` or `read` returned it. Its file keeps its name in the store, and is looked for by that.

    Returns:
        The id of the logged model.
    """
    with _requirements_as_stated(), tempfile.TemporaryDirectory(prefix="tvae-") as folder:
        return str(mlflow.pyfunc.log_model(name="model", **pyfunc_arguments(checkpoint, Path(folder))).model_id)


def log_with_file(run: Run, checkpoint: Checkpoint) -> str:
    """Log a checkpoint that was not trained in a run of this store to the run that is open: its file, and as a model.

    Args:
        run: where to.
        checkpoint: as `read` returned it, from a file of any name.

    Returns:
        The id of the logged model.
    """
    named = run.folder / "named"
    named.mkdir()
    path = Path(shutil.copyfile(checkpoint.path, named / FILE_NAME))
    run.log_file(path, "checkpoint")
    return log_model(replace(checkpoint, path=path))


@contextmanager
def _requirements_as_stated() -> Iterator[None]:
    """Keep MLflow from listing the files of all installed packages, which takes longer than all else in logging.

    It looks there for modules of another name than their package, to warn of requirements that are not installed. Ours
    are the installed ones.
    """
    name = "_MODULES_TO_PACKAGES"
    before = getattr(requirements_utils, name, None)
    setattr(requirements_utils, name, before or {})
    try:
        yield
    finally:
        setattr(requirements_utils, name, before)
