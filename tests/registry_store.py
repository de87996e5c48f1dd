"""A registry in a folder, and verified checkpoints of a few bytes to promote in it.

Models of 3 trits are quick to make and to log. Their metrics here are invented: the registry compares what the verdict
says, and that the verdict is true is tested elsewhere.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import mlflow
import pytest
from desk import put_store
from exact_model import exact_model
from mlflow import MlflowClient

from tvae.checkpoint import FILE_NAME, Check, Checkpoint, Verification, save
from tvae.model import COMPONENTS
from tvae.registry import MODEL
from tvae.serving import pyfunc_arguments

METRICS = {
    "coverage": 1.0,
    "hierarchy": -0.83,
    "level_gap": 0.3,
    "tree_precision": 0.9,
    "q": 1.4,
    "richness": 0.01,
}


class Entry(NamedTuple):
    """A checkpoint with a logged model."""

    checkpoint: Checkpoint
    run_id: str
    model_id: str

    def verdict(self, *, passed: bool = True, **metrics: float) -> Verification:
        checks = (
            Check("file", "loads", "loads", True, "It loads."),
            Check("coverage", 1.0 if passed else 0.5, ">= 1", passed, "Share of operations."),
        )
        metrics = METRICS | metrics
        return Verification(self.checkpoint.path, self.checkpoint.digest, "A model.", checks, metrics, self.checkpoint)


@contextmanager
def tracking_in(folder: Path) -> Iterator[MlflowClient]:
    """Use a store in a folder, and leave nothing of it in this process afterwards."""
    put_store(folder)
    uri, experiment = mlflow.get_tracking_uri(), mlflow.tracking.fluent._active_experiment_id
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            patch.delenv(name)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.tracking.fluent._active_experiment_id = None
        try:
            yield MlflowClient()
        finally:
            mlflow.tracking.fluent._active_experiment_id = experiment
            mlflow.set_tracking_uri(uri)
            os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


def log_entry(folder: Path, seed: int, **changes: object) -> Entry:
    """Log a checkpoint of its own digest as a run's model."""
    path = folder / str(seed) / FILE_NAME
    path.parent.mkdir()
    saved = save(path, exact_model(**changes), trained=COMPONENTS, training={"seed": seed}, metrics={})
    with mlflow.start_run() as run:
        tags = {"checkpoint": saved.digest[:16]}
        model = mlflow.pyfunc.log_model(name="model", tags=tags, **pyfunc_arguments(saved, path.parent / "model"))
    return Entry(saved, run.info.run_id, model.model_id)


def aliases(client: MlflowClient) -> dict[str, str]:
    return {alias: str(version) for alias, version in client.get_registered_model(MODEL).aliases.items()}


def versions(client: MlflowClient) -> list[int]:
    return sorted(int(v.version) for v in client.search_model_versions(f"name = '{MODEL}'"))
