"""Logged models: what a checkpoint is worth, under a name of its own, and the files that serve it.

MLflow's `log_model` gives a model the run's metrics of one step, which are those of a training and not of the file, and
asks the store for each by itself. Its parts, which it has in public too, log the model with what was verified.
"""

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.models import Model
from mlflow.utils import requirements_utils

from tvae.checkpoint import FILE_NAME, Checkpoint, Verification
from tvae.serving import pyfunc_arguments
from tvae.tracking.dataset import operations_dataset
from tvae.tracking.description import describe_model, model_settings
from tvae.tracking.failure import NOTE
from tvae.tracking.links import run_page
from tvae.tracking.run import Run

__all__ = ["log_foundation_model", "log_model", "log_with_file"]


def log_model(client: MlflowClient, run_id: str, verification: Verification, *, step: int = 0) -> str:
    """Log a checkpoint to a run, open or not, as a model that can be served.

    Args:
        client: of the store.
        run_id: of the run, in whose artifacts the checkpoint is.
        verification: of the checkpoint, whose metrics are the model's. Its file keeps its name in the store, and is
            looked for by that.
        step: the epoch that the checkpoint is of.

    Returns:
        The id of the logged model, as all functions here do.
    """
    checkpoint = _checkpoint(verification)
    with _logging(client, run_id, verification, step) as model, tempfile.TemporaryDirectory(prefix="tvae-") as folder:
        files = Path(folder, "model")
        stated = Model(artifact_path=model.artifact_location, run_id=run_id, model_id=model.model_id)
        with _requirements_as_stated():
            mlflow.pyfunc.save_model(files, mlflow_model=stated, **pyfunc_arguments(checkpoint, Path(folder, "made")))
        client.log_model_artifacts(model.model_id, str(files))
    return str(model.model_id)


def log_foundation_model(client: MlflowClient, run_id: str, verification: Verification, *, step: int) -> str:
    """Log a foundation to a run as a model, for its metrics: it has no radii to serve, and its file is the run's."""
    with _logging(client, run_id, verification, step) as model:
        client.log_model_artifact(model.model_id, str(_checkpoint(verification).path))
    return str(model.model_id)


def log_with_file(client: MlflowClient, run: Run, verification: Verification) -> str:
    """Log a checkpoint that no run of this store has trained to the run that is open: its file, and as a model."""
    checkpoint = _checkpoint(verification)
    path = run.folder / FILE_NAME
    if checkpoint.path != path:
        shutil.copyfile(checkpoint.path, path)
    run.log_file(path, "checkpoint")
    run.log_operations(checkpoint.architecture.n_trits)
    return log_model(client, run.id, replace(verification, checkpoint=replace(checkpoint, path=path)))


@contextmanager
def _logging(client: MlflowClient, run_id: str, verification: Verification, step: int) -> Iterator[LoggedModel]:
    """Make a logged model of a run, with all but its files; READY when they are there too."""
    checkpoint, run = _checkpoint(verification), client.get_run(run_id)
    note = describe_model(verification, page=run_page(run.info.experiment_id, run_id))
    model = mlflow.initialize_logged_model(
        name=_name(checkpoint),
        source_run_id=run_id,
        experiment_id=run.info.experiment_id,
        params=model_settings(checkpoint),
        tags={"verified": str(verification.passed).lower(), "checkpoint": checkpoint.digest[:16], NOTE: note},
    )
    try:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
        data, now = operations_dataset(checkpoint.architecture.n_trits), int(time.time() * 1000)
        of_model = {"dataset_name": data.name, "dataset_digest": data.digest, "model_id": model.model_id}
        metrics = [Metric(name, value, now, step, **of_model) for name, value in verification.metrics.items()]
        client.log_batch(run_id, metrics=metrics)
        yield model
    except BaseException:
        client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
        raise
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _name(checkpoint: Checkpoint) -> str:
    """Return a name that tells a model from others: `finetune rich c=2 seed=0 1a2b3c4d`; MLflow takes no dots."""
    settings = model_settings(checkpoint)
    curvature = f"c={checkpoint.architecture.curvature:g}"
    seed = f"seed={settings['seed']}" if "seed" in settings else ""
    words = (settings.get("stage", "model"), settings.get("preset", ""), curvature, seed, checkpoint.digest[:8])
    return re.sub(r"[^\w =-]", "_", " ".join(filter(None, words)))


def _checkpoint(verification: Verification) -> Checkpoint:
    if verification.checkpoint is None:
        raise ValueError("`verification` must be of a checkpoint that loads.")
    return verification.checkpoint


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
