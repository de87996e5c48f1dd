"""Where runs are kept: the tracking store, and the experiment that a command logs to."""

import fcntl
import hashlib
import logging
import os
import sqlite3
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from tvae.errors import TrackingError
from tvae.tracking import links
from tvae.tracking.view import VIEW

__all__ = ["EXPERIMENT", "adopted_run_id", "connect", "reason"]

EXPERIMENT = "tvae"
# The UI shows a line break where there is one: a paragraph is one line.
_DESCRIPTION = "\n".join(
    [
        "Ternary operations in a Poincaré ball: a variational autoencoder learns all 19,683 of them, and a projection "
        "places them so that hyperbolic distance from the origin follows 3-adic valuation.",
        "",
        "- **train** makes a foundation: encoder and decoder, to full coverage.",
        "- **finetune** learns the projection. Its `hierarchy` (Spearman, negative is right) cannot pass **-0.83205**.",
        "- **scratch** does both in one run.",
        "",
        "All metrics are measured on all operations at the posterior mean. `best_hierarchy` is that of the run's "
        "model; `hierarchy` is how training got there, and a table shows its last epoch.",
    ]
)
ANSWER_SECONDS = 5


def connect() -> MlflowClient:
    """Make the tracking store ready, and choose the experiment unless `mlflow run` has chosen one.

    Returns:
        A client of the store.

    Raises:
        TrackingError: if the store does not answer or cannot be written.
    """
    # MLflow announces every table, experiment and download, and each line looks like trouble.
    for talkative in ("alembic", "mlflow"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # MLflow prints addresses of its own when a run ends; they open its landing page, where the run is not.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    uri = mlflow.get_tracking_uri()
    if uri.startswith(("http://", "https://")):
        _require_answer(uri)
    elif uri.startswith("sqlite:///"):
        _require_database(uri)
    try:
        with _first_use_lock(uri):
            client = MlflowClient()
            client.search_experiments(max_results=1)
        if adopted_run_id() is None and "MLFLOW_EXPERIMENT_ID" not in os.environ:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
            experiment = mlflow.set_experiment(name)
            if name == EXPERIMENT and "mlflow.note.content" not in experiment.tags:
                look = f"[The runs beside one another]({links.runs_page(experiment.experiment_id, VIEW)})"
                client.set_experiment_tag(experiment.experiment_id, "mlflow.note.content", f"{_DESCRIPTION}\n\n{look}")
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise TrackingError(
            f"The tracking store {uri} must be usable; found: {reason(error)}. "
            "Set MLFLOW_TRACKING_URI to another, or mend this one."
        ) from error
    return client


def adopted_run_id() -> str | None:
    """Return the run that `mlflow run` has made for this process, None outside `mlflow run`."""
    return os.environ.get("MLFLOW_RUN_ID")


def reason(error: BaseException) -> str:
    """Return the first line of what an error says."""
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _require_answer(uri: str) -> None:
    """MLflow's own client waits for minutes before it gives up on a server that is not there."""
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=ANSWER_SECONDS):
            return
    except urllib.error.HTTPError:
        return  # a server that refuses is there: MLflow will say what it wants
    except (OSError, ValueError) as error:
        raise TrackingError(
            f"The tracking server {uri} must answer within {ANSWER_SECONDS} s; found: {reason(error)}. "
            "Start it, or set MLFLOW_TRACKING_URI to another."
        ) from error


def _require_database(uri: str) -> None:
    """MLflow tries for two minutes to open a file that is no database."""
    path = uri.removeprefix("sqlite:///").split("?")[0]
    try:
        with closing(sqlite3.connect(path, timeout=ANSWER_SECONDS)) as database:
            database.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        if "locked" in str(error):
            return  # somebody is at work in it: MLflow waits longer than this
        raise TrackingError(
            f"The tracking store {uri} must be a database that can be written; found: {reason(error)}. "
            "Set MLFLOW_TRACKING_URI to another, or mend this one."
        ) from error


@contextmanager
def _first_use_lock(uri: str) -> Iterator[None]:
    """Held while a store may be creating its tables: MLflow's migration does not bear two at once."""
    name = hashlib.sha256(f"{uri} {os.getcwd()}".encode()).hexdigest()[:16]
    with (Path(tempfile.gettempdir()) / f"tvae-store-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
