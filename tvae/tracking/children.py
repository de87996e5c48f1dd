"""The runs of a sweep under their parent: written when they are over, and found again when a sweep goes on."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from tvae.checkpoint import FILE_NAME
from tvae.config.presets import nearest_preset
from tvae.sweeps.trial import Trial
from tvae.tracking.dataset import log_operations
from tvae.tracking.description import describe_trial
from tvae.tracking.failure import NOTE, note_failure
from tvae.tracking.links import run_page
from tvae.tracking.outcome import MEASURED, save_result
from tvae.tracking.process import PROCESS, own_process
from tvae.tracking.run import log_history, write_history, write_json
from tvae.tracking.search import all_runs, each_run
from tvae.training import Result

__all__ = ["Children", "Finished"]

# The tag `stage` of a trial; and of one that was not finished and is tried again, so that it no longer counts.
_CHILD, _REPEATED = "trial", "repeated trial"


class Finished(NamedTuple):
    """A trial that is finished: its cell, and the two figures that a search learns from."""

    cell: str
    hierarchy: float
    richness: float

    @classmethod
    def of(cls, cell: str, summary: Mapping[str, float]) -> "Finished":
        """Take the figures from the summary of a result."""
        return cls(cell, summary["best_hierarchy"], summary["best_richness"])


@dataclass(frozen=True, slots=True)
class Children:
    """The runs under one parent, which share its experiment and `source`, the tags that say where it comes from.

    Files pass through `folder`, which is temporary.
    """

    client: MlflowClient
    experiment_id: str
    parent_id: str
    folder: Path
    source: Mapping[str, str]

    def finished(self) -> dict[str, Finished]:
        """Return the trials that are finished, by their keys, in the order in which they were written."""
        runs = each_run(self.client, [self.experiment_id], f"{self._those_that_count} = 'FINISHED'")
        return {run.data.tags["trial"]: Finished.of(run.data.tags["cell"], run.data.metrics) for run in runs}

    def clear_unfinished(self) -> int:
        """Put aside what is not finished, for it is tried again: it no longer counts, and is RUNNING no longer.

        Returns:
            How many trials there were.
        """
        unfinished = all_runs(self.client, [self.experiment_id], f"{self._those_that_count} != 'FINISHED'")
        for run in unfinished:
            self.client.set_tag(run.info.run_id, "stage", _REPEATED)
            if run.info.status == "RUNNING":
                note_failure(self.client, run.info.run_id, "the sweep ended while it was written", how="Stopped")
                self.client.set_terminated(run.info.run_id, "KILLED")
        return len(unfinished)

    def log_result(self, trial: Trial, result: Result, start: Mapping[str, Any]) -> None:
        """Write the run of one trial: settings, every epoch, its checkpoint; FAILED with its reason if it failed.

        `start` says in JSON values where its weights come from.
        """
        with self._open(trial) as run_id:
            log_history(self.client, run_id, result.history)
            now = int(time.time() * 1000)
            summary = [Metric(name, value, now, 0) for name, value in result.summary().items()]
            self.client.log_batch(run_id, metrics=summary)
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                files = Path(folder)
                write_history(files, result.history)
                write_json(files / "architecture.json", trial.architecture.to_dict())
                if result.error is None:
                    self._save(files / "checkpoint", trial, result, start)
                self.client.log_artifacts(run_id, folder)
            look = {"report": run_page(self.experiment_id, self.parent_id, "artifacts/report.html")}
            self.client.set_tag(run_id, NOTE, describe_trial(trial, result, look=look))
            if result.error is not None:
                note_failure(self.client, run_id, str(result.error))
            self.client.set_terminated(run_id, "FINISHED" if result.error is None else "FAILED")

    def log_lost(self, trial: Trial, reason: str) -> None:
        """Write the run of a trial that did not come back from its worker."""
        with self._open(trial) as run_id:
            note_failure(self.client, run_id, reason)
            self.client.set_terminated(run_id, "FAILED")

    @contextmanager
    def _open(self, trial: Trial) -> Iterator[str]:
        """Open a run, which its user ends; if it cannot be written, it ends as FAILED with the reason."""
        tags = {MLFLOW_PARENT_RUN_ID: self.parent_id, "stage": _CHILD, "trial": trial.key}
        tags |= {"phase": trial.phase, "cell": trial.cell, PROCESS: own_process(), **self.source}
        made = self.client.create_run(self.experiment_id, run_name=trial.name, tags=tags)
        run_id: str = made.info.run_id
        try:
            settings = {name: str(value) for name, value in trial.settings().items()}
            settings["preset"] = nearest_preset(settings)[0]
            self.client.log_batch(run_id, params=[Param(name, value) for name, value in settings.items()])
            log_operations(self.client, run_id, trial.architecture.n_trits)
            yield run_id
        except BaseException as error:
            note_failure(self.client, run_id, f"it could not be written: {error}")
            self.client.set_terminated(run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise

    def _save(self, folder: Path, trial: Trial, result: Result, start: Mapping[str, Any]) -> None:
        folder.mkdir()
        trained = ("encoder", "decoder", "projection", *(["controller"] if trial.architecture.use_controller else []))
        training = {
            "stage": _CHILD,
            "seed": trial.configuration.seed,
            "configuration": trial.configuration.to_dict(),
            "start": start,
        }
        save_result(folder / FILE_NAME, result, MEASURED, trained, training)

    @property
    def _those_that_count(self) -> str:
        children = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{self.parent_id}' and tags.stage = '{_CHILD}'"
        return f"{children} and attributes.status"
