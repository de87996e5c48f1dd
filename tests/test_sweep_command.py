"""`stability` and `sweep` as a user types them: what they leave in MLflow, what a kill costs, how they go on."""

import json
import signal
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from desk import Desk
from halted import count, fell, start
from mlflow.entities import Run
from patience import until

from tvae.checkpoint import read
from tvae.workflows.sweep import covered, run_to_resume

pytestmark = pytest.mark.integration

# Operations of four trits train in an instant.
SMALL = {"n_trits": 4, "epochs": 3, "batch_size": 64}
CELLS = {"slow": {"lr": 1e-3}, "fast": {"lr": 1e-2}}


def grid(desk: Desk, cells: dict[str, Any] = CELLS) -> str:
    path = desk.folder / "grid.json"
    path.write_text(json.dumps({"base": SMALL, "cells": cells}))
    return str(path)


def parent(desk: Desk, stage: str = "sweep") -> Run:
    (run,) = [run for run in desk.runs() if run.data.tags.get("stage") == stage]
    return run


def trials(desk: Desk) -> list[Run]:
    return [run for run in desk.runs() if run.data.tags.get("stage") == "trial"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk at which a sweep of two cells with three seeds was typed."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    desk.said = desk.done("entry_points.sweep", "--grid", grid(desk), "--workers", "1")
    return desk


def test_every_trial_is_a_run_under_the_parent(swept: Desk) -> None:
    found = trials(swept)
    assert Counter((run.data.tags["cell"], run.info.status) for run in found) == {
        ("slow", "FINISHED"): 3,
        ("fast", "FINISHED"): 3,
    }
    assert {run.data.tags["mlflow.parentRunId"] for run in found} == {parent(swept).info.run_id}
    assert {run.data.tags["phase"] for run in found} == {"grid"}
    assert len({run.data.tags["trial"] for run in found}) == 6
    assert parent(swept).info.status == "FINISHED"


def test_a_trial_has_its_settings_every_epoch_and_what_it_came_to(swept: Desk) -> None:
    run = next(run for run in trials(swept) if run.info.run_name == "fast seed=2")
    expected = {"lr": "0.01", "seed": "2", "n_trits": "4", "epochs": "3", "load": "matched"}
    assert expected.items() <= run.data.params.items()
    assert run.data.params["preset"] == "default"
    for name in ("hierarchy", "coverage", "richness"):
        assert [m.step for m in swept.client.get_metric_history(run.info.run_id, name)] == [0, 1, 2, 3]
    history = swept.client.get_metric_history(run.info.run_id, "hierarchy")
    metrics = run.data.metrics
    assert metrics["best_hierarchy"] == history[int(metrics["best_epoch"])].value
    assert metrics["init_hierarchy"] == history[0].value
    assert {"best_richness", "best_coverage", "best_q", "degradation", "train_seconds"} <= metrics.keys()


def test_a_trial_has_its_operations_and_the_version_of_its_parent(swept: Desk) -> None:
    for run in (parent(swept), *trials(swept)):
        (data,) = run.inputs.dataset_inputs
        assert data.dataset.name == "ternary-operations-4"
        for name in ("tvae.version", "git_dirty", "mlflow.source.name"):
            assert run.data.tags[name] == parent(swept).data.tags[name]


def test_a_parent_has_the_means_of_its_trials_and_no_parameter_that_it_leaves_to_them(swept: Desk) -> None:
    made = parent(swept)
    for name in ("best_coverage", "best_hierarchy", "best_level_gap", "best_richness", "best_q"):
        assert made.data.metrics[name] == pytest.approx(fmean(run.data.metrics[name] for run in trials(swept)))
    assert "auto" not in {value for name, value in made.data.params.items() if name != "promote"}
    assert made.data.params["seeds"] == "3"
    assert made.data.tags["command"].startswith("mlflow run . -e sweep -P grid=")
    assert made.data.tags["command"] in made.data.tags["mlflow.note.content"]


def test_a_trials_checkpoint_says_what_the_run_says(swept: Desk) -> None:
    run = trials(swept)[0]
    checkpoint = read(swept.artifact(run, "checkpoint") / "checkpoint.safetensors")
    assert checkpoint.metrics["hierarchy"] == run.data.metrics["best_hierarchy"]
    assert checkpoint.training["configuration"]["lr"] == float(run.data.params["lr"])
    assert checkpoint.architecture.n_trits == 4


def test_what_has_finished_is_not_resumed(swept: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tvae")
    done = parent(swept)
    assert run_to_resume(swept.client, "sweep", done.data.tags["plan"], "auto") is None
    assert f"run {done.info.run_id} has finished all of them. Starting a new one." in caplog.text
    assert run_to_resume(swept.client, "sweep", "0" * 16, "auto") is None
    assert "the options say which they are. Starting a new one." in caplog.text


def test_the_parent_has_report_plan_and_times(swept: Desk) -> None:
    run = parent(swept)
    assert run.data.metrics["trials"] == run.data.metrics["trials_finished"] == 6
    assert run.data.metrics["trials_failed"] == 0
    times = [run.data.metrics[f"{name}_seconds"] for name in ("train", "logging", "total")]
    assert 0 < times[0] < times[2]
    assert 0 < times[1] < times[2]
    assert "<html" in swept.artifact(run, "report.html").read_text()
    assert "slow" in swept.artifact(run, "report.md").read_text()
    assert len(json.loads(swept.artifact(run, "plan.json").read_text())) == 6
    assert run.data.tags["mlflow.note.content"]


def test_the_command_says_where_to_look(swept: Desk) -> None:
    assert f"/runs/{parent(swept).info.run_id}/artifacts/report.html" in swept.said
    assert "6 of 6 trials are done" in swept.said


def test_what_is_finished_is_not_trained_again(swept: Desk) -> None:
    before = {run.info.run_id: run.info.end_time for run in swept.runs()}
    run_id = parent(swept).info.run_id
    out = swept.done("entry_points.sweep", "--resume", run_id)
    assert "6 of 6 trials are finished already" in out
    after = {run.info.run_id: run.info.end_time for run in swept.runs()}
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != before[name]] == [run_id]


def test_a_mistake_in_one_cell_is_named_before_anything_trains(tmp_path: Path) -> None:
    desk = Desk(tmp_path, bare=True)
    code, _, err = desk.type("entry_points.sweep", "--grid", grid(desk, {**CELLS, "wrong": {"lr": -1.0}}))
    assert code == 2
    assert "cell `wrong`: `lr` must be" in err
    assert "Traceback" not in err
    assert not (tmp_path / "mlflow.db").exists()


def test_a_run_that_cannot_go_on_is_refused(swept: Desk) -> None:
    for address, words in (("nosuch", "the id of a run"), (trials(swept)[0].info.run_id, "is one of trial")):
        code, _, err = swept.type("entry_points.sweep", "--resume", address)
        assert code == 2
        assert words in err


def test_what_trains_side_by_side_counts_once() -> None:
    assert covered([]) == 0
    assert covered([(10, 20), (0, 25), (30, 31)]) == 26
    assert covered([(0, 2), (1, 3), (5, 6)]) == 4


# A kill

# Each batch size makes a cohort of its own, so that a sweep can be killed between cohorts.
MANY = {f"batch={size}": {"batch_size": size, "epochs": 8} for size in range(8, 14)}

# Halts in the writing of one more trial than so many.
AFTER = """
import itertools
import tvae.tracking.children as children
written = itertools.count()
def log_history(*arguments, true=children.log_history):
    if next(written) == {n}:
        halt()
    true(*arguments)
children.log_history = log_history
"""


def kill_after(desk: Desk, n: int, number: int, *words: str) -> dict[str, str]:
    """Send a sweep a signal when so many trials are finished, and return those: the keys of trials by their runs."""
    fell(desk, start(desk, AFTER.format(n=n), *words), number)
    found = {run.info.run_id: run.data.tags["trial"] for run in trials(desk) if run.info.status == "FINISHED"}
    assert len(found) == n
    return found


@pytest.mark.fault
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM], ids=["KILL", "TERM"])
def test_a_killed_sweep_goes_on_with_what_is_missing(desk: Desk, signal_number: int) -> None:
    words = ("entry_points.sweep", "--grid", grid(desk, MANY), "--seeds", "1", "--workers", "1")
    killed = kill_after(desk, 2, signal_number, *words)
    stopped = parent(desk)

    out = desk.done(*words, "--resume", "auto")
    assert f"Resuming run {stopped.info.run_id}" in out
    done = trials(desk)
    assert Counter(run.data.tags["trial"] for run in done) == Counter({run.data.tags["trial"]: 1 for run in done})
    assert len(done) == len(MANY)
    assert killed.items() <= {run.info.run_id: run.data.tags["trial"] for run in done}.items()
    assert {run.info.status for run in done} == {"FINISHED"}
    assert parent(desk).info.run_id == stopped.info.run_id
    assert parent(desk).info.status == "FINISHED"
    assert "failure" not in parent(desk).data.tags
    assert not [run for run in desk.runs() if run.info.status == "RUNNING"]


# Of 40,000 combinations, each batch size a cohort of its own.
SPACE = {
    "batch_size": [8, 9, 10, 11],
    "lr": [i / 1000 for i in range(1, 101)],
    "beta": [i / 100 for i in range(1, 101)],
}


@pytest.mark.fault
def test_a_killed_search_resumes_by_its_id_and_trains_what_is_missing(desk: Desk) -> None:
    path = desk.folder / "space.json"
    path.write_text(json.dumps({"base": {"n_trits": 4, "epochs": 5}, "grid": SPACE}))
    words = ("--search", "tpe", "--trials", "10", "--seeds", "2", "--workers", "1")
    # Of the third cell one seed of two.
    killed = kill_after(desk, 5, signal.SIGKILL, "entry_points.sweep", "--grid", str(path), *words)
    path.unlink()

    out = desk.done("entry_points.sweep", "--workers", "1", "--resume", parent(desk).info.run_id)
    done = trials(desk)
    assert killed.items() <= {run.info.run_id: run.data.tags["trial"] for run in done}.items()
    assert set(Counter(run.data.tags["cell"] for run in done).values()) == {2}
    assert len({run.data.tags["trial"] for run in done}) == len(done) == 20
    assert {run.info.status for run in done} == {"FINISHED"}
    assert parent(desk).info.status == "FINISHED"
    assert parent(desk).data.metrics["trials_finished"] == parent(desk).data.metrics["trials"] == 20
    assert "-P search=tpe" in parent(desk).data.tags["mlflow.note.content"]
    assert not [run for run in desk.runs() if run.info.status == "RUNNING"]
    assert "20 of 20 trials are done." in out


def test_a_run_that_was_stopped_before_it_had_a_plan_says_so(swept: Desk) -> None:
    done = parent(swept)
    tags = {"stage": "sweep", "plan": "0" * 16}
    bare = swept.client.create_run(done.info.experiment_id, run_name="bare", tags=tags)
    swept.client.set_terminated(bare.info.run_id, "FAILED")
    code, _, err = swept.type("entry_points.sweep", "--resume", bare.info.run_id)
    swept.client.delete_run(bare.info.run_id)
    assert code == 2
    assert "has no plan.json that says what to train" in err


def test_a_sweep_at_work_is_not_gone_on_with(desk: Desk) -> None:
    endless = {"endless": {"epochs": 100_000, "patience": 100_000}}
    process = desk.fork("entry_points.sweep", "--grid", grid(desk, endless), "--seeds", "1")
    until(lambda: count(desk.folder, "tags WHERE key = 'stage' AND value = 'sweep'") > 0, process)
    code, _, err = desk.type("entry_points.sweep", "--resume", parent(desk).info.run_id)
    assert code == 2
    assert "still at work" in err


# Stability

QUICK = ("--preset", "radii", "--seeds", "4")


@pytest.fixture(scope="module")
def stable(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk at which `stability` was typed: four seeds, the initial hierarchies forced positive."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    desk.done("entry_points.stability", *QUICK, "--initial_hierarchy", "positive")
    return desk


@pytest.mark.long
def test_stability_reaches_the_ceiling_from_inverted_starts(stable: Desk) -> None:
    metrics = parent(stable, "stability").data.metrics
    assert all(run.data.metrics["init_hierarchy"] > 0 for run in trials(stable))
    assert metrics["best_hierarchy_worst"] <= -0.8315
    assert metrics["best_hierarchy_std"] <= 0.0002
    assert metrics["coverage_min"] == 1.0


@pytest.mark.long
def test_stability_has_its_statistics_on_the_parent(stable: Desk) -> None:
    metrics = parent(stable, "stability").data.metrics
    values = [run.data.metrics["best_hierarchy"] for run in trials(stable)]
    assert metrics["best_hierarchy_mean"] == pytest.approx(sum(values) / 4, abs=1e-12)
    assert (metrics["best_hierarchy_best"], metrics["best_hierarchy_worst"]) == (min(values), max(values))
    for name in ("coverage", "richness", "q", "best_epoch"):
        assert {f"{name}_{end}" for end in ("mean", "std", "best", "worst")} <= metrics.keys()
    assert -1 <= metrics["init_best_correlation_low"] <= metrics["init_best_correlation_high"] <= 1
    assert metrics["train_seconds"] > 0


@pytest.mark.long
def test_the_demonstration_of_a_partial_load_is_labelled_as_one(stable: Desk) -> None:
    words = (*QUICK, "--load", "mismatched", "--epochs", "2")
    stable.done("entry_points.stability", *words)
    run = max((run for run in stable.runs() if run.data.tags["stage"] == "stability"), key=lambda r: r.info.start_time)
    assert "DEMONSTRATION" in run.info.run_name
    shown = [r for r in trials(stable) if r.data.tags["mlflow.parentRunId"] == run.info.run_id]
    assert {r.data.params["load"] for r in shown} == {"mismatched"}
    assert all("DEMONSTRATION" in r.data.tags["cell"] for r in shown)
    checkpoint = read(stable.artifact(shown[0], "checkpoint") / "checkpoint.safetensors")
    assert len(checkpoint.training["start"]["silently random"]) >= 10
    assert len({r.data.metrics["init_hierarchy"] for r in shown}) == 4
