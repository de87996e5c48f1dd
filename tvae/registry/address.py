"""Where a checkpoint is: a path, a run, or an address of MLflow."""

import os
import re
import tempfile
from pathlib import Path

import mlflow
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from tvae.checkpoint import FILE_NAME
from tvae.errors import CheckpointError, without_credentials
from tvae.tracking.store import local_folder, reason

__all__ = ["fetch", "model_named", "run_named", "run_of", "short"]

_RUN_ID = r"[0-9a-f]{32}"
_MODEL_ID = r"m-[0-9a-f]{32}"
# MLflow follows `..` out of a run's artifacts, and reads %2e as a dot.
_INSIDE = re.compile(r"(runs|models):/(?!/|.*/\.\.)[^%]*")


def fetch(address: str, folder: Path) -> Path:
    """Bring a checkpoint to this machine.

    Args:
        address: a path of a file or of a folder that holds one checkpoint, the id of a run, or a `models:/` or `runs:/`
            address.
        folder: where downloads go.

    Returns:
        The path of the checkpoint.

    Raises:
        CheckpointError: if there is none, or more than one.
    """
    if not address:
        raise CheckpointError("`checkpoint` must name a checkpoint, got nothing.")
    path = Path(os.path.expanduser(address))
    if re.fullmatch(_RUN_ID, address) and not path.exists():
        address = f"runs:/{address}/checkpoint"
    if ":/" not in address:
        if path.is_file():
            return path
        found = sorted(path.rglob(FILE_NAME)) if path.is_dir() else []
    elif not _INSIDE.fullmatch(address):
        raise CheckpointError(
            f"`checkpoint` must be a path, the id of a run, or a models:/ or runs:/ address without `..` and `%`, got "
            f"{address}."
        )
    else:
        try:
            inside = tempfile.mkdtemp(dir=folder)
            found = sorted(Path(mlflow.artifacts.download_artifacts(address, dst_path=inside)).rglob(FILE_NAME))
        except (MlflowException, OSError) as error:
            raise CheckpointError(
                f"`checkpoint` must name a checkpoint, got {address}; {reason(error).rstrip('.')}, in "
                f"{without_credentials(mlflow.get_tracking_uri())}.{_advice(address)}"
            ) from error
    if len(found) != 1:
        what = "nothing is there" if not found else f"{len(found)} of them are there, name one"
        raise CheckpointError(
            f"`checkpoint` must be the path of a {FILE_NAME}, the id of a run, or a models:/ or runs:/ address of one, "
            f"got {address}: {what}.{'' if found else _advice(address)}"
        )
    return found[0]


def _advice(address: str) -> str:
    """Return what to do about an address at which there is no checkpoint: a name of the registry outlives its files."""
    registered = re.fullmatch(r"models:/+([^/@]+)(?:/(\d+)|@(\w+))", address)
    if registered is None:
        return ""
    name, number, alias = registered.groups()
    client = mlflow.MlflowClient()
    try:
        version = client.get_model_version(name, number) if number else client.get_model_version_by_alias(name, alias)
    except (MlflowException, SQLAlchemyError):
        return " The first verified `finetune` becomes it." if alias == "champion" else ""
    try:
        files = _files(client, str(version.source))
    except (MlflowException, SQLAlchemyError):
        files = None
    if files and files.exists():
        return ""
    where = f": nothing is at {files}" if files else ""
    return (
        f" {name} version {version.version} is registered, but its files are gone{where}. "
        "If the project was moved, move it back, or leave a link where it was. If they were deleted, train another."
    )


def _files(client: mlflow.MlflowClient, source: str) -> Path | None:
    """Return the local folder of a version's files, None if they are elsewhere."""
    model_id, run_id = model_named(source), run_named(source)
    if model_id:
        location = client.get_logged_model(model_id).artifact_location
    elif run_id:
        location = f"{client.get_run(run_id).info.artifact_uri}/checkpoint"
    else:
        location = source
    return local_folder(location)


def short(address: str) -> str:
    """Return an address as a run's name shows it, without what all have: `tvae@champion`, `run 3fca4df4`."""
    run_id = run_named(address)
    return f"run {run_id[:8]}" if run_id else re.sub("^models:/+", "", address)


def run_of(client: mlflow.MlflowClient, address: str) -> Run | None:
    """Return the run in an address if it is there, and not in the trash; None if it names none."""
    run_id = run_named(address)
    run = client.get_run(run_id) if run_id else None
    return run if run is not None and run.info.lifecycle_stage == LifecycleStage.ACTIVE else None


def run_named(address: str) -> str | None:
    """Return the id of the run in an address, None if it names none."""
    found = re.fullmatch(rf"(?:runs:/+)?({_RUN_ID})(?:/.*)?", address)
    return found[1] if found else None


def model_named(address: str) -> str | None:
    """Return the id of the logged model in an address, None if it names none."""
    found = re.fullmatch(rf"models:/+({_MODEL_ID})(?:/.*)?", address)
    return found[1] if found else None
