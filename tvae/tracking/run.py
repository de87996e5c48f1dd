"""One run in MLflow: adopted or made, filled while it goes on, and closed as what it was."""

import csv
import json
import logging
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param, RunTag

from tvae.checkpoint import FILE_NAME
from tvae.checkpoint.provenance import UNKNOWN, git_trouble, provenance
from tvae.errors import TrackingError
from tvae.tracking import links
from tvae.tracking.dataset import log_operations
from tvae.tracking.failure import NOTE, note_failure
from tvae.tracking.process import PROCESS, own_process
from tvae.tracking.store import STORE_ERRORS, adopted_run_id, deleted_run, enter, using_store, without_patience
from tvae.tracking.view import save_view
from tvae.training import Record

__all__ = ["HISTORY", "Run", "log_history", "open_run", "source_tags", "write_history", "write_json"]

HISTORY = "history.csv"
# What MLflow takes in one call.
_MOST_METRICS = 1000
# What MLflow calls a run that nobody has named: calm-grouse-40.
_UNNAMED = re.compile(r"[a-z]+-[a-z]+-\d{1,4}")


class Run:
    """A run that is open.

    Attributes:
        id: of the run.
        experiment_id: of its experiment.
        folder: a temporary folder for files on their way into the run.
    """

    def __init__(self, client: MlflowClient, run_id: str, experiment_id: str, folder: Path) -> None:
        self._client = client
        self.id, self.experiment_id, self.folder = run_id, experiment_id, folder
        self._missed: list[Metric] = []
        self._checkpoint: Path | None = None
        self._logged = False

    def page(self, within: str = "") -> str:
        """Return a page of this run within the UI, as `links.run_page`."""
        return links.run_page(self.experiment_id, self.id, within)

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Log what was used, one value for each parameter.

        `mlflow run` has logged what MLproject declares as it was typed, and a parameter cannot be changed. Where that
        says something else, as `auto` does, what was used stands beside it as `resolved.NAME`.
        """
        known = self._client.get_run(self.id).data.params
        new = {
            f"resolved.{name}" if name in known else name: str(value)
            for name, value in parameters.items()
            if name not in known or not _says(known[name], value)
        }
        self._client.log_batch(self.id, params=[Param(*item) for item in new.items() if item[0] not in known])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics, all under one step."""
        now = int(time.time() * 1000)
        self._client.log_batch(self.id, metrics=[Metric(name, value, now, step) for name, value in metrics.items()])

    def log_epochs(self, records: Sequence[Record], offset: int = 0) -> None:
        """Log epochs of a training; `offset` epochs of another stage came before.

        A store that fails does not cost the training: the epochs from then on wait for `log_checkpoint`.

        Raises:
            TrackingError: the first time that the store does not take epochs.
        """
        metrics = _metrics(records, offset)
        if self._missed:
            self._missed += metrics
            return
        try:
            with using_store():
                _log_metrics(self._client, self.id, metrics)
        except TrackingError:
            self._missed += metrics
            raise

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        self._client.log_batch(self.id, tags=[RunTag(name, value) for name, value in tags.items()])

    def drop_tag(self, name: str) -> None:
        """Delete a tag, if it is there."""
        if name in self._client.get_run(self.id).data.tags:
            self._client.delete_tag(self.id, name)

    def describe(self, markdown: str) -> None:
        """Set the description, which the run's page shows first."""
        self.set_tags({NOTE: markdown})

    def log_operations(self, n_trits: int) -> None:
        """Log the data that this run sees: all operations of some trits, with their valuations."""
        enter(lambda: log_operations(self._client, self.id, n_trits))

    def log_json(self, name: str, content: Any) -> None:
        """Log an artifact `name` in JSON."""
        self._client.log_artifact(self.id, str(write_json(self.folder / name, content)))

    def log_checkpoint(self, path: Path, history: list[Record]) -> None:
        """Log the checkpoint that a training came to and `history.csv`, an epoch a row; and epochs that were missed."""
        self._checkpoint = path
        written = write_history(self.folder, history)
        self.log_file(path, "checkpoint")
        self._logged = True
        self.log_file(written)
        _log_metrics(self._client, self.id, self._missed)
        self._missed = []

    def keep_checkpoint(self) -> str | None:
        """Return where the checkpoint is that was trained; one that is not in the store yet is put where it stays.

        Returns:
            Its address in the store, or its path in `kept/`, or under the system's temporary folder where that cannot
            be written; None if there is none. What a deleted run holds is not there for long.
        """
        if self._checkpoint is None:
            return None
        if self._logged and not self._deleted():
            return f"runs:/{self.id}/checkpoint"
        for kept in (Path.cwd() / "kept", Path(tempfile.gettempdir()) / "tvae-kept"):
            folder = kept / self.id
            try:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.folder / HISTORY, folder / HISTORY)
                return str(shutil.copyfile(self._checkpoint, folder / FILE_NAME))
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
        return None

    def _deleted(self) -> bool:
        try:
            with without_patience():
                return bool(self._client.get_run(self.id).info.lifecycle_stage == LifecycleStage.DELETED)
        except STORE_ERRORS as error:
            return deleted_run(error) is not None

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Log a file as an artifact, in a folder of the run's artifacts."""
        self._client.log_artifact(self.id, str(path), folder)


def _says(typed: str, value: Any) -> bool:
    """Whether a text that somebody typed is a value."""
    if isinstance(value, bool):
        return typed.lower() == str(value).lower()
    try:
        return bool(float(typed) == value)
    except ValueError:
        return typed in (str(value), shlex.quote(str(value)))


@contextmanager
def open_run(
    client: MlflowClient, *, name: str, tags: Mapping[str, str], apart: bool = False, resume: str | None = None
) -> Iterator[Run]:
    """Open a run, and close it as FINISHED, FAILED or KILLED with its reason.

    Args:
        client: of the store that `connect` made ready.
        name: for a run that nobody has named.
        tags: to set at once.
        apart: make a run of its own beside the one that is open, instead of the run of this command.
        resume: the id of a run that goes on, instead of the run of this command.

    Raises:
        TrackingError: if the store fails.
    """
    code = provenance()
    all_tags = {"git_dirty": str(code["git_dirty"]).lower(), "tvae.version": code["tvae"], **tags}
    if code["git_dirty"] == UNKNOWN and (trouble := git_trouble(Path(__file__).parent)):
        all_tags["git_dirty"] = f"{UNKNOWN}: {trouble}"[:500]
        logging.getLogger(__name__).warning("The commit of this code is not recorded: %s", trouble)
    with using_store():
        active = _start(client, name, apart, resume)
    run_id = active.info.run_id
    try:
        with tempfile.TemporaryDirectory(prefix="tvae-") as folder, using_store():
            run = Run(client, run_id, active.info.experiment_id, Path(folder))
            run.set_tags(all_tags)
            enter(lambda: save_view(client, run.experiment_id))
            yield run
            run.drop_tag("failure")
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        text = str(error) or ("by the user" if stopped else type(error).__name__)
        closed = _close(client, run_id, text, stopped=stopped)
        if closed or stopped:
            raise
        raise TrackingError(
            f"{text} Run {run_id} could not be closed: the next command on this machine that reaches the store "
            "marks it as FAILED."
        ) from error
    with using_store():
        mlflow.end_run("FINISHED")


def _start(client: MlflowClient, name: str, apart: bool, resume: str | None) -> mlflow.ActiveRun:
    """Start the run that `open_run` is asked for; it says whose it is before it is RUNNING."""
    mine = {PROCESS: own_process()}
    if resume is not None:
        # MLflow refuses a run outside the experiment that is chosen.
        mlflow.set_experiment(experiment_id=client.get_run(resume).info.experiment_id)
        client.set_tag(resume, PROCESS, mine[PROCESS])
        return mlflow.start_run(run_id=resume, nested=True, log_system_metrics=False)
    if apart:
        beside = mlflow.active_run()
        if beside is None:
            raise RuntimeError("A run apart must have a run to be apart from.")
        made = client.create_run(beside.info.experiment_id, run_name=name, tags=source_tags(beside) | mine)
        return mlflow.start_run(run_id=made.info.run_id, nested=True, log_system_metrics=False)
    adopted = adopted_run_id()
    given = client.get_run(adopted).info.run_name if adopted else None
    named = given if given and not _UNNAMED.fullmatch(given) else name
    if adopted:
        client.set_tag(adopted, PROCESS, mine[PROCESS])
    return mlflow.start_run(run_name=named, tags=mine, log_system_metrics=False)


def _close(client: MlflowClient, run_id: str, text: str, *, stopped: bool) -> bool:
    """Close a run that did not finish, with the reason; return whether the store took it."""
    try:
        with without_patience():
            try:
                with suppress(*STORE_ERRORS):
                    note_failure(client, run_id, text, how="Stopped" if stopped else "Failed")
            finally:  # also at a second Ctrl-C: MLflow would end the run as FINISHED when the process exits
                mlflow.end_run("KILLED" if stopped else "FAILED")
    except STORE_ERRORS as error:
        return deleted_run(error) is not None  # nothing is left to be closed
    return True


def log_history(client: MlflowClient, run_id: str, records: Sequence[Record]) -> None:
    """Log all metrics of some epochs."""
    _log_metrics(client, run_id, _metrics(records))


def _metrics(records: Sequence[Record], offset: int = 0) -> list[Metric]:
    """Return the metrics of some epochs, with the time of now.

    Radii by level are in `history.csv` and in a figure: MLflow would draw ten charts that say something only together.

    Logged again with that time, as where a server took them and its answer was lost, they are the same rows in MLflow.
    """
    now = int(time.time() * 1000)
    return [
        Metric(name, value, now, offset + int(record["epoch"]))
        for record in records
        for name, value in record.items()
        if name != "epoch" and not name.startswith("radius_v")
    ]


def _log_metrics(client: MlflowClient, run_id: str, metrics: Sequence[Metric]) -> None:
    """Log metrics in as few calls as MLflow allows: a call costs more than its metrics."""
    for first in range(0, len(metrics), _MOST_METRICS):
        client.log_batch(run_id, metrics=metrics[first : first + _MOST_METRICS])


def write_json(path: Path, content: Any) -> Path:
    """Write JSON for people, and return the path."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def write_history(folder: Path, history: list[Record]) -> Path:
    """Write `history.csv`, an epoch a row, and return its path."""
    path = folder / HISTORY
    columns = list(dict.fromkeys(name for record in history for name in record))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(history)
    return path


def source_tags(beside: mlflow.entities.Run) -> dict[str, str]:
    """Return where a run comes from, code and its version, taken over from the one beside it."""
    names = ("mlflow.user", "mlflow.source.name", "mlflow.source.git.commit", "git_dirty", "tvae.version")
    return {name: beside.data.tags[name] for name in names if name in beside.data.tags}
