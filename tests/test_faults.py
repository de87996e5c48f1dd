"""Processes that die, wherever it hurts: what they leave, and what the next command makes of it.

Signals while training are in test_commands.py, a killed sweep is in test_sweep_command.py: docs/reliability.md names
all.
"""

import json
import os
import re
import signal
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from desk import ROOT, Desk
from exact_model import exact_model
from halted import HALT, begin_next_command, count, epochs_logged, fell, start
from mlflow.entities import Run
from patience import PATIENCE_SECONDS, until

from tvae.checkpoint import FILE_NAME, read, save
from tvae.model import COMPONENTS
from tvae.registry import MODEL
from tvae.tracking.process import PROCESS

pytestmark = [pytest.mark.fault, pytest.mark.integration]

SHORT = ("entry_points.train", "--n_trits", "5", "--epochs", "1", "--promote", "never")
LONG = ("entry_points.train", "--n_trits", "5", "--epochs", "10000", "--patience", "10000", "--promote", "never")


def only(desk: Desk, experiment: str = "tvae") -> Run:
    (run,) = desk.runs(experiment)
    return run


# In training, and two at once


def test_a_killed_training_is_failed_by_the_next_command_and_another_of_the_same_store_goes_on(desk: Desk) -> None:
    processes = [desk.fork(*LONG, "--seed", str(seed)) for seed in (1, 2)]
    killed, living = processes
    at_work = "(SELECT DISTINCT run_uuid FROM metrics WHERE key = 'loss')"
    until(lambda: count(desk.folder, at_work) == 2 or living.poll() is not None, killed)
    killed.kill()
    killed.communicate(timeout=PATIENCE_SECONDS)
    begin_next_command(desk)
    runs = {run.data.params["seed"]: run for run in desk.runs()}
    assert {seed: run.info.status for seed, run in runs.items()} == {"1": "FAILED", "2": "RUNNING"}
    note = runs["1"].data.tags["mlflow.note.content"]
    assert note.startswith(f"**Failed**: its process ended without a word (pid {killed.pid}, host ")
    assert "start the command again" in note
    assert desk.client.get_metric_history(runs["1"].info.run_id, "loss")

    logged = len(desk.client.get_metric_history(runs["2"].info.run_id, "loss"))
    until(lambda: len(desk.client.get_metric_history(runs["2"].info.run_id, "loss")) > logged, living)
    living.terminate()
    out, err = living.communicate(timeout=PATIENCE_SECONDS)
    assert living.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in out + err
    assert Counter(run.info.status for run in desk.runs()) == {"FAILED": 1, "KILLED": 1}


def test_a_training_whose_reader_has_gone_is_finished_and_kept(desk: Desk) -> None:
    script = f"set -o pipefail; {sys.executable} -m {' '.join(SHORT)} 2>&1 | true"
    process = desk.launch("bash", "-c", script, PYTHONIOENCODING="latin-1")
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, out, err) == (0, "", "")
    run = only(desk)
    assert (run.info.status, run.data.tags["verified"]) == ("FINISHED", "false")  # after one epoch
    assert read(desk.artifact(run, "checkpoint") / FILE_NAME).trained == ("encoder", "decoder")


def test_a_training_goes_on_when_its_terminal_is_closed_under_nohup(desk: Desk) -> None:
    process = desk.launch("nohup", sys.executable, "-m", *LONG, apart=True)
    until(lambda: epochs_logged(desk.folder) > 0, process)
    os.killpg(process.pid, signal.SIGHUP)
    logged = epochs_logged(desk.folder)
    until(lambda: epochs_logged(desk.folder) > logged, process)
    assert only(desk).info.status == "RUNNING"


# In saving and in logging

IN_SAVING = """
import tvae.checkpoint.atomic as atomic
def replace(source, target, replace=atomic.os.replace):
    if str(target).endswith("checkpoint.safetensors"):
        halt()
    replace(source, target)
atomic.os.replace = replace
"""

# MLflow copies a file into a local store piece by piece; this copy stops at the half of it.
IN_LOGGING = """
import shutil
def copy(source, target, *rest, copy=shutil.copyfileobj, **named):
    if str(source.name).endswith("checkpoint.safetensors"):
        target.write(source.read(100_000))
        target.flush()
        halt()
    return copy(source, target, *rest, **named)
shutil.copyfileobj = copy
"""

# While another process loads the file.
IN_VERIFYING = """
import tvae.tracking.outcome as outcome
def verifying(path, verify=outcome.verify, **options):
    halt()
    return verify(path, **options)
outcome.verify = verifying
"""

ENDS = [
    (signal.SIGKILL, -signal.SIGKILL, "FAILED"),
    (signal.SIGTERM, 128 + signal.SIGTERM, "KILLED"),
    (signal.SIGINT, 128 + signal.SIGINT, "KILLED"),
]


@pytest.mark.parametrize(("number", "code", "status"), ENDS, ids=["KILL", "TERM", "INT"])
@pytest.mark.parametrize("fault", [IN_SAVING, IN_LOGGING], ids=["saving", "logging"])
def test_a_training_that_ends_while_it_is_written_leaves_no_half_and_no_run_at_work(
    desk: Desk, fault: str, number: signal.Signals, code: int, status: str
) -> None:
    found, out, err = fell(desk, start(desk, fault, *SHORT), number)
    assert found == code
    assert "Traceback" not in out + err
    begin_next_command(desk)
    run = only(desk)
    assert run.info.status == status
    assert run.data.tags["failure"]
    assert not desk.client.search_registered_models()
    assert not list((desk.folder / "mlruns").rglob(FILE_NAME))
    if number != signal.SIGKILL and fault == IN_LOGGING:
        kept = desk.folder / "kept" / run.info.run_id / FILE_NAME
        assert f"The trained model is not lost: {kept}\n" in err
        assert f"Continue with: python -m entry_points.finetune --checkpoint {kept}\n" in err
        assert read(kept).trained == ("encoder", "decoder")


def test_ctrl_c_while_a_model_is_verified_reaches_all_processes_and_loses_nothing(desk: Desk) -> None:
    # Not a fork: the process that loads the file is to be one that Ctrl-C would reach.
    script = f"{HALT}{IN_VERIFYING}\nimport runpy\nrunpy.run_module('{SHORT[0]}', run_name='__main__', alter_sys=True)"
    process = desk.launch("env", "--default-signal", sys.executable, "-c", script, *SHORT[1:], apart=True)
    code, out, err = fell(desk, process, signal.SIGINT, os.killpg)
    assert code == 130
    assert "Traceback" not in out + err
    run = only(desk)
    assert run.info.status == "KILLED"
    assert f"The trained model is not lost: runs:/{run.info.run_id}/checkpoint\n" in err
    assert read(desk.artifact(run, "checkpoint") / FILE_NAME).trained == ("encoder", "decoder")


# In promotion

BEFORE = """
from mlflow import MlflowClient
def halting(self, *arguments, true=MlflowClient.{method}, **named):
    if {condition}:
        halt()
    return true(self, *arguments, **named)
MlflowClient.{method} = halting
"""
NO_VERSION_YET = BEFORE.format(method="create_model_version", condition="True")
VERSION_WITHOUT_ALIAS = BEFORE.format(method="set_registered_model_alias", condition="'previous' in arguments")
PREVIOUS_WITHOUT_CHAMPION = BEFORE.format(method="set_registered_model_alias", condition="'champion' in arguments")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Desk, list[Path]]:
    """A desk with a champion, and checkpoints that would pass verification."""
    desk = Desk(tmp_path_factory.mktemp("shop"))
    paths = [desk.folder / f"{number}.safetensors" for number in range(6)]
    for number, path in enumerate(paths):
        training = {"number": number}
        save(path, exact_model(5), trained=COMPONENTS, training=training, metrics={})
    code, _, err = promote(desk, paths[0])
    assert code == 0, err
    return desk, paths[1:]


def promote(desk: Desk, path: Path) -> tuple[int, str, str]:
    return desk.type("entry_points.promote", "--checkpoint", str(path), "--mode", "force")


def champion(desk: Desk) -> str:
    """The digest of the champion, which is verified, as every version is."""
    found = desk.client.search_model_versions(f"name = '{MODEL}'")
    assert {version.tags["verified"] for version in found} == {"true"}
    return str(desk.client.get_model_version_by_alias(MODEL, "champion").tags["digest"])


@pytest.mark.parametrize(
    ("which", "fault", "number", "code"),
    [
        (0, NO_VERSION_YET, signal.SIGKILL, -signal.SIGKILL),
        (1, VERSION_WITHOUT_ALIAS, signal.SIGKILL, -signal.SIGKILL),
        (2, PREVIOUS_WITHOUT_CHAMPION, signal.SIGKILL, -signal.SIGKILL),
        (3, PREVIOUS_WITHOUT_CHAMPION, signal.SIGTERM, 143),
        (4, NO_VERSION_YET, signal.SIGINT, 130),
    ],
    ids=["KILL no version yet", "KILL no alias yet", "KILL previous only", "TERM previous only", "INT no version yet"],
)
def test_a_promotion_that_ends_anywhere_leaves_the_verified_champion_and_is_done_again_at_once(
    shop: tuple[Desk, list[Path]], which: int, fault: str, number: signal.Signals, code: int
) -> None:
    desk, paths = shop
    before = champion(desk)
    words = ("entry_points.promote", "--checkpoint", str(paths[which]), "--mode", "force")
    found, out, err = fell(desk, start(desk, fault, *words), number)
    assert found == code
    assert "Traceback" not in out + err
    assert champion(desk) == before
    # Nobody waits until the turn of the dead one is taken for abandoned.
    code, out, err = promote(desk, paths[which])
    assert code == 0, err
    assert "Another process is changing" not in out
    assert champion(desk) == read(paths[which]).digest
    assert not [run for run in desk.runs() if run.info.status == "RUNNING"]
    digests = Counter(v.tags["digest"] for v in desk.client.search_model_versions(f"name = '{MODEL}'"))
    assert set(digests.values()) == {1}


# `mlflow run`


def under_mlflow(desk: Desk, *words: str, **environment: str) -> Any:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return desk.start("mlflow", "run", str(ROOT), "-e", "train", *words, PATH=path, **environment)


def child_of(desk: Desk, process: Any) -> int:
    """The process that `mlflow run` started, as its run says."""
    until(lambda: count(desk.folder, f"tags WHERE key = '{PROCESS}'") > 0, process)
    return int(only(desk, "Default").data.tags[PROCESS].split()[1])


def test_a_command_outlives_the_mlflow_run_that_started_it(desk: Desk) -> None:
    process = under_mlflow(desk, "-P", "epochs=30", "-P", "promote=never", "--env-manager=local")
    child_of(desk, process)
    process.kill()
    assert only(desk, "Default").info.status == "RUNNING"
    process.communicate(timeout=PATIENCE_SECONDS)
    until(lambda: count(desk.folder, "runs WHERE status != 'RUNNING'") > 0)
    run = only(desk, "Default")
    assert run.info.status == "FINISHED"
    assert len(desk.client.get_metric_history(run.info.run_id, "loss")) == 30
    assert read(desk.artifact(run, "checkpoint") / FILE_NAME).trained == ("encoder", "decoder")


def test_a_command_that_dies_with_its_mlflow_run_is_failed_by_the_next_command(desk: Desk) -> None:
    process = under_mlflow(desk, "-P", "n_trits=5", "-P", "epochs=10000", "-P", "promote=never", "--env-manager=local")
    child = child_of(desk, process)
    process.kill()
    os.kill(child, signal.SIGKILL)
    process.communicate(timeout=PATIENCE_SECONDS)
    begin_next_command(desk)
    run = only(desk, "Default")
    assert run.info.status == "FAILED"
    assert f"(pid {child}, host " in run.data.tags["failure"]


def test_a_run_that_mlflow_left_when_conda_was_missing_is_failed_once_nobody_can_adopt_it(desk: Desk) -> None:
    process = under_mlflow(desk, "-P", "promote=never", MLFLOW_CONDA_HOME=str(desk.folder / "none"))
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1, err
    begin_next_command(desk)
    assert only(desk, "Default").info.status == "RUNNING"
    with closing(sqlite3.connect(desk.folder / "mlflow.db")) as database, database:
        database.execute("UPDATE runs SET start_time = start_time - 2 * 60 * 60 * 1000")
    begin_next_command(desk)
    run = only(desk, "Default")
    assert run.info.status == "FAILED"
    said = r"`mlflow run` made it \d+ minutes ago, and no command began\. Run it again\."
    assert re.search(said, run.data.tags["failure"])


# Clocks, and many children

JUMPS = """
import time
from tvae.workflows import session
from tvae.tracking.run import Run
session._LOG_SECONDS = 0.0  # each epoch by itself
away = [0]
def jumping(true=time.time):
    return true() + away[0]
def logging(self, records, offset=0, true=Run.log_epochs):
    if any(record["epoch"] == 4 for record in records):
        away[0] = {seconds}
    true(self, records, offset)
time.time, Run.log_epochs = jumping, logging
"""


@pytest.mark.parametrize("seconds", [-86400, 365 * 86400], ids=["a day back", "a year ahead"])
def test_a_clock_that_jumps_in_a_training_changes_no_result(desk: Desk, seconds: int) -> None:
    process = start(desk, JUMPS.format(seconds=seconds), *SHORT, "--epochs", "8")
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    begin_next_command(desk)
    run = only(desk)
    assert run.info.status == "FINISHED"
    history = sorted(desk.client.get_metric_history(run.info.run_id, "loss"), key=lambda metric: metric.step)
    times = [metric.timestamp / 1000 for metric in history]
    assert abs(times[-1] - times[0] - seconds) < 43200, "the clock jumped while the run was logged"
    assert [metric.step for metric in history] == list(range(1, 9))
    assert run.data.metrics["loss"] == history[-1].value
    assert 0 < run.data.metrics["train_seconds"] < 43200
    coverages = [metric.value for metric in desk.client.get_metric_history(run.info.run_id, "coverage")]
    assert read(desk.artifact(run, "checkpoint") / FILE_NAME).metrics["coverage"] == max(coverages)


def test_a_sweep_of_200_runs_is_written_whole(desk: Desk) -> None:
    (desk.folder / "grid.json").write_text(json.dumps({"base": {"n_trits": 3, "epochs": 1}, "cells": {"one": {}}}))
    words = ("entry_points.sweep", "--grid", "grid.json", "--seeds", "200")
    desk.done(*words)
    runs = desk.runs()
    assert Counter((run.data.tags["stage"], run.info.status) for run in runs) == {
        ("trial", "FINISHED"): 200,
        ("sweep", "FINISHED"): 1,
        ("foundation", "FINISHED"): 1,
    }
    (parent,) = [run for run in runs if run.data.tags["stage"] == "sweep"]
    assert parent.data.metrics["trials_finished"] == 200
    assert len({run.data.tags["trial"] for run in runs if run.data.tags["stage"] == "trial"}) == 200
    out = desk.done(*words, "--resume", parent.info.run_id)
    assert "200 of 200 trials are finished already." in out
