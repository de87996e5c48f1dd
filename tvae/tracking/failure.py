"""Runs that did not finish: each says why, also where its process had no time to."""

import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_SOURCE_NAME

from tvae.errors import without_credentials
from tvae.markdown import escaped
from tvae.tracking.process import PROCESS, process_state
from tvae.tracking.search import all_runs

__all__ = ["NOTE", "UNADOPTED_MINUTES", "close_ended", "note_failure"]

NOTE = "mlflow.note.content"
# `mlflow run` makes a run before the environment, which takes minutes; a command that comes later reopens its run.
UNADOPTED_MINUTES = 60
_PROJECT = Path(__file__).parents[2]


def note_failure(client: MlflowClient, run_id: str, text: str, *, how: str = "Failed") -> None:
    """Put the reason of a failure above what a run's description says already."""
    note, text = client.get_run(run_id).data.tags.get(NOTE, ""), without_credentials(text)
    shown = "\n".join(escaped(line, code=True) for line in text.splitlines())
    client.set_tag(run_id, NOTE, f"**{how}**: {shown}\n\n{note}".rstrip())
    client.set_tag(run_id, "failure", text[:500])


def close_ended(client: MlflowClient) -> None:
    """Mark as FAILED, with the reason, what is RUNNING though nobody is at work in it any more.

    That is a run whose process was one of this machine and has ended; and a run that `mlflow run` made for this project
    and that no command of ours has adopted within `UNADOPTED_MINUTES`: of its process nothing is known, and nothing of
    ours is in it. A run of a living process, of another machine, or of another project is never touched.
    """
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    running = "attributes.status = 'RUNNING'"
    for run in all_runs(client, experiments, f"{running} and tags.`{PROCESS}` LIKE '%'"):
        if process_state(run.data.tags[PROCESS]) == "ended":
            host, number, *_ = run.data.tags[PROCESS].split(" ")
            _close(client, run, f"its process ended without a word (pid {number}, host {host}). {_advice(run)}")
    for run in all_runs(client, experiments, f"{running} and tags.`{MLFLOW_SOURCE_NAME}` LIKE '%'"):
        minutes = (time.time() - run.info.start_time / 1000) / 60
        if PROCESS not in run.data.tags and minutes > UNADOPTED_MINUTES and _made_here(run):
            _close(client, run, f"`mlflow run` made it {minutes:.0f} minutes ago, and no command began. Run it again.")


def _made_here(run: Run) -> bool:
    """Whether `mlflow run` made a run from this project.

    MLflow names the folder as it is, or as `file://REPOSITORY#FOLDER`, or as a quoted address.
    """
    named = run.data.tags[MLFLOW_SOURCE_NAME].removeprefix("file://")
    return str(_PROJECT) in (named, named.replace("#", "/", 1), unquote(named))


def _advice(run: Run) -> str:
    stage = run.data.tags.get("stage")
    if stage in ("stability", "sweep"):
        return f"Continue with: mlflow run . -e {stage} -P resume={run.info.run_id} --env-manager=local"
    return "What it had logged is here; start the command again."


def _close(client: MlflowClient, run: Run, text: str) -> None:
    # A server with accounts may refuse: that is no reason to stop the command that looked.
    with suppress(MlflowException):
        note_failure(client, run.info.run_id, text)
        client.set_terminated(run.info.run_id, "FAILED")
