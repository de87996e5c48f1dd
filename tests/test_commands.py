"""The commands as a user types them: what they print, what they leave in MLflow, how they refuse."""

import csv
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from desk import ROOT, Desk
from halted import epochs_logged
from mlflow.entities import Run
from patience import PATIENCE_SECONDS, until

import tvae
from entry_points import finetune
from tvae.checkpoint import read

pytestmark = pytest.mark.integration

FINETUNE = ("entry_points.finetune", "--n_trits", "4", "--epochs", "40")
# Of the hierarchy, at four trits.
LIMIT = "-0.83211"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk at which `finetune` was typed once, for few operations."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    desk.said = desk.done(*FINETUNE)
    return desk


@pytest.fixture(scope="module")
def by_default(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What `finetune` comes to with its defaults."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    desk.done("entry_points.finetune")
    return finetuned(desk)


def finetuned(desk: Desk) -> Run:
    (run,) = [r for r in desk.runs() if r.data.tags["stage"] == "finetune"]
    return run


def test_finetune_trains_a_foundation_first_as_a_run_of_its_own_and_says_so(finished: Desk) -> None:
    said = "No foundation is registered for this architecture: training one first, in a run of its own."
    assert said in finished.said
    assert sorted((r.data.tags["stage"], r.info.status) for r in finished.runs()) == [
        ("finetune", "FINISHED"),
        ("foundation", "FINISHED"),
    ]
    assert all("mlflow.parentRunId" not in r.data.tags for r in finished.runs())


@pytest.mark.long
def test_finetune_reaches_the_ceiling(by_default: Run) -> None:
    metrics = by_default.data.metrics
    assert metrics["coverage"] == 1.0
    assert metrics["final_hierarchy"] <= -0.8319
    assert metrics["best_hierarchy"] <= -0.8319
    assert metrics["ordered_levels"] == 9
    assert metrics["degradation"] <= 0.0005


@pytest.mark.long
def test_finetune_gives_the_exact_tree(by_default: Run) -> None:
    metrics = by_default.data.metrics
    assert metrics["level_gap"] > 0
    assert [metrics[name] for name in ("tree_precision", "sibling_recall", "ball_coverage")] == [1.0, 1.0, 1.0]


def test_every_metric_has_a_step_an_epoch(finished: Desk) -> None:
    run = finetuned(finished)
    epochs, best = int(run.data.params["epochs"]), int(run.data.metrics["best_epoch"])
    for name in ["coverage", "hierarchy", "richness", "ordered_levels", "distance_fidelity"]:
        steps = [m.step for m in finished.client.get_metric_history(run.info.run_id, name)]
        # That of the model, as it was verified, is at its epoch too.
        assert sorted(steps) == sorted([*range(epochs + 1), best])
    for name in ["loss", "lr"]:
        assert [m.step for m in finished.client.get_metric_history(run.info.run_id, name)] == list(range(1, epochs + 1))


def test_history_csv_holds_the_same_epochs(finished: Desk) -> None:
    run = finetuned(finished)
    with finished.artifact(run, "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(float(row["epoch"])) for row in rows] == list(range(int(run.data.params["epochs"]) + 1))
    assert {f"radius_v{v}" for v in range(5)} <= rows[0].keys()
    assert float(rows[-1]["hierarchy"]) == run.data.metrics["final_hierarchy"]


def test_a_run_has_the_artifacts_that_users_know(finished: Desk) -> None:
    run = finetuned(finished)
    names = {a.path for a in finished.client.list_artifacts(run.info.run_id)}
    assert names == {"architecture.json", "checkpoint", "history.csv", "plots", "verification.json"}
    plots = {Path(a.path).name for a in finished.client.list_artifacts(run.info.run_id, "plots")}
    assert plots == {
        "training_curves.png", "radius_by_valuation.png", "poincare_disk.png", "poincare_disk_3-adic.png", "tree.png",
        "distance_by_valuation.png", "disk.html",
    }  # fmt: skip
    assert run.outputs.model_outputs


def test_the_checkpoint_is_what_the_run_reports(finished: Desk) -> None:
    run = finetuned(finished)
    evaluation = tvae.evaluate(tvae.load(finished.artifact(run, "checkpoint/checkpoint.safetensors")))
    assert evaluation.hierarchy == pytest.approx(run.data.metrics["best_hierarchy"], abs=1e-6)
    for name in ("sibling_recall", "ball_coverage"):
        assert evaluation.metrics()[name] == pytest.approx(run.data.metrics[name], abs=1e-3)
    assert evaluation.tree_precision == pytest.approx(run.data.metrics["tree_precision"], abs=1e-3)
    assert json.loads(finished.artifact(run, "architecture.json").read_text()) == tvae.Architecture(n_trits=4).to_dict()


@pytest.mark.fault
def test_a_run_whose_figures_cannot_be_drawn_is_as_good_as_another(finished: Desk, tmp_path: Path) -> None:
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").write_text("raise ImportError('not here')\n")
    apart = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "MLFLOW_EXPERIMENT_NAME": "without figures"}
    code, out, err = finished.type(*FINETUNE, "--seed", "3", **apart)
    assert (code, "Registered as tvae version" in out) == (0, True)
    assert "The figure tree was not drawn: ImportError: not here" in err
    (run,) = finished.runs("without figures")
    assert (run.info.status, run.data.tags["verified"]) == ("FINISHED", "true")
    assert "poincare_disk" not in run.data.tags["mlflow.note.content"]


@pytest.mark.fault
def test_a_notebooks_backend_and_a_library_that_prints_change_nothing(finished: Desk) -> None:
    inherited = {"MPLBACKEND": "no-such-backend", "MKL_VERBOSE": "1", "MLFLOW_EXPERIMENT_NAME": "from a notebook"}
    code, _, err = finished.type(*FINETUNE, "--seed", "4", **inherited)
    assert (code, "not drawn" in err) == (0, False)
    (run,) = finished.runs("from a notebook")
    assert (run.info.status, run.data.tags["verified"]) == ("FINISHED", "true")
    assert len(finished.client.list_artifacts(run.info.run_id, "plots")) == 7


def test_verification_passed_and_is_logged(finished: Desk) -> None:
    verdict = json.loads(finished.artifact(finetuned(finished), "verification.json").read_text())
    assert verdict["passed"] is True
    assert verdict["checks"]


def test_every_option_is_a_parameter_with_the_one_value_that_was_used(finished: Desk) -> None:
    run = finetuned(finished)
    params = run.data.params
    assert params.keys() == {option.name for option in finetune.main.params}
    assert [name for name, value in params.items() if value == "auto"] == ["promote"]
    assert (params["curvature"], params["lr"], params["max_radius"]) == ("2.0", "0.015", "0.9995")
    assert params["checkpoint"] == run.data.tags["start"]


def test_the_logged_model_is_found_by_what_its_file_is_worth(finished: Desk) -> None:
    run = finetuned(finished)
    (model,) = finished.client.search_logged_models(
        [run.info.experiment_id], filter_string="metrics.hierarchy < -0.83 AND params.lr = '0.015'"
    )
    assert model.source_run_id == run.info.run_id
    assert re.fullmatch("finetune default c=2 seed=0 [0-9a-f]{8}", model.name)
    verdict = json.loads(finished.artifact(run, "verification.json").read_text())
    assert {m.key: m.value for m in model.metrics} == verdict["metrics"]
    (data,) = run.inputs.dataset_inputs
    where = {(m.step, m.dataset_name, m.dataset_digest) for m in model.metrics}
    assert where == {(int(run.data.metrics["best_epoch"]), data.dataset.name, data.dataset.digest)}
    assert model.tags["mlflow.note.content"].startswith(f"Verified: coverage 1, hierarchy {LIMIT}")


def test_the_logged_model_of_a_foundation_is_found_by_its_coverage(finished: Desk) -> None:
    (version,) = finished.client.search_model_versions("name = 'tvae-foundation'")
    found = finished.client.search_logged_models(["1"], filter_string="metrics.coverage = 1")
    (model,) = [model for model in found if model.source_run_id == version.run_id]
    assert [m.key for m in model.metrics] == ["coverage"]
    assert version.description.startswith("Verified: coverage 1.")
    assert version.tags["verified"] == "true"


def test_the_operations_are_the_input(finished: Desk) -> None:
    (data,) = finetuned(finished).inputs.dataset_inputs
    assert data.dataset.name == "ternary-operations-4"


def test_the_description_says_what_came_out_and_how_to_repeat_it(finished: Desk) -> None:
    run = finetuned(finished)
    note = run.data.tags["mlflow.note.content"]
    rows = [line.split() for line in note.splitlines()]
    assert ["hierarchy", f"{run.data.metrics['best_hierarchy']:.5f}", LIMIT, "-0.792", "at", "best"] in rows
    words = f"-P n_trits=4 -P epochs=40 -P checkpoint={run.data.tags['start']}"
    assert sorted(re.search("mlflow run . -e finetune (.*) --env-manager=local", note)[1].split()) == sorted(
        words.split()
    )
    page = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/plots/poincare_disk.png"
    assert f"[ball]({page}?workflowType=machine_learning)" in note


def test_the_terminal_shows_the_figures_and_where_to_look(finished: Desk) -> None:
    assert ["hierarchy", LIMIT, "limit", LIMIT] in [line.split() for line in finished.said.splitlines()]
    assert f"/runs/{finetuned(finished).info.run_id}?workflowType=machine_learning" in finished.said
    assert "\r" not in finished.said


@contextmanager
def more_runs(desk: Desk) -> Iterator[Callable[[], list[Run]]]:
    """Runs of a desk that others use too: they are given, and deleted at the end."""
    before = {run.info.run_id for run in desk.runs()}

    def new() -> list[Run]:
        return [run for run in desk.runs() if run.info.run_id not in before]

    try:
        yield new
    finally:
        for run in new():
            desk.client.delete_run(run.info.run_id)


def test_a_repeated_run_gives_the_same_file_byte_for_byte(finished: Desk) -> None:
    first = finetuned(finished)
    with more_runs(finished) as new:
        finished.done(*FINETUNE, "--promote", "never")
        one, other = (finished.artifact(run, "checkpoint/checkpoint.safetensors") for run in (first, *new()))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.long
def test_mlflow_run_adopts_the_run_and_finds_the_foundation(finished: Desk) -> None:
    out = finished.done(
        *("mlflow", "run", str(ROOT), "-e", "finetune", "--env-manager=local", "--experiment-name", "mine"),
        *("-P", "n_trits=4", "-P", "epochs=10", "-P", "curvature=0.5", "-P", "preset=max_hierarchy"),
        *("-P", "objective=level_mean", "-P", "promote=never"),
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    )
    assert "Starting from models:/tvae-foundation/1." in out
    (run,) = finished.runs("mine")
    assert (run.info.status, run.data.params["curvature"], run.data.params["resolved.lr"]) == (
        "FINISHED",
        "0.5",
        "0.0003",
    )
    assert run.data.metrics["best_hierarchy"] > -0.82


@pytest.mark.long
def test_scratch_does_both_stages_in_one_run(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.done(*("entry_points.scratch", "--preset", "radii", "--curvature", "5", "--seed", "7", "--promote", "never"))
    (run,) = desk.runs()
    metrics = run.data.metrics
    assert (run.info.status, metrics["coverage"], metrics["ordered_levels"]) == ("FINISHED", 1.0, 9)
    assert metrics["final_hierarchy"] <= -0.8319
    assert metrics["richness"] >= 0.010
    checkpoint = read(desk.artifact(run, "checkpoint/checkpoint.safetensors"))
    assert checkpoint.trained == ("encoder", "decoder", "projection")


def test_the_controller_trains_and_its_weights_are_logged(finished: Desk) -> None:
    words = ("--n_trits", "4", "--preset", "radii", "--use_controller", "true", "--epochs", "3", "--promote", "never")
    with more_runs(finished) as new:
        finished.done("entry_points.finetune", *words)
        (run,) = new()
        history = finished.client.get_metric_history(run.info.run_id, "controller_hierarchy")
    assert [m.step for m in history] == [1, 2, 3]
    assert len({m.value for m in history}) == 3


BAD_USAGE = [
    (("--curvature", "abc"), "'abc' is not a valid float"),
    (("--curvature", "-1"), "`curvature` must be a number between 1e-6 and 1e6, got -1.0."),
    (("--curvature", "nan"), "`curvature` must be a number between 1e-6 and 1e6, got nan."),
    (("--curvature", "inf"), "`curvature` must be a number between 1e-6 and 1e6, got inf."),
    (("--max_radius", "1"), "`max_radius` must be"),
    (("--lr", "0"), "`lr` must be a number in (0, 10], got 0.0."),
    (("--epochs", "1.5"), "'1.5' is not a valid integer"),
    (("--seed", "-1"), "`seed` must be an integer in 0"),
    (("--objective", "nosuch"), "'nosuch' is not one of 'ranking', 'level_mean'"),
    (("--scheduler", "nosuch"), "'nosuch' is not one of"),
    (("--device", "tpu9"), "`device` must be auto or one of cpu"),
    (("--bogus", "7"), "No such option '--bogus'"),
    (("extra",), "Got unexpected extra argument"),
]


@pytest.mark.parametrize(("words", "text"), BAD_USAGE, ids=[" ".join(words) for words, _ in BAD_USAGE])
def test_bad_usage_is_one_message_and_exit_code_2(tmp_path: Path, words: tuple[str, ...], text: str) -> None:
    code, _, err = Desk(tmp_path, bare=True).type("entry_points.finetune", *words)
    assert code == 2
    assert text in err
    assert "Traceback" not in err
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.long
def test_bad_usage_under_mlflow_run_leaves_its_reason_in_the_failed_run(finished: Desk) -> None:
    code, _, err = finished.type(
        *("mlflow", "run", str(ROOT), "-e", "finetune", "--env-manager=local", "--experiment-name", "bad"),
        *("-P", "curvature=nan"),
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    )
    assert code == 1
    assert "Traceback" not in err
    (run,) = finished.runs("bad")
    assert run.info.status == "FAILED"
    assert "`curvature` must be a number between 1e-6 and 1e6, got nan." in run.data.tags["mlflow.note.content"]


BAD_CHECKPOINT = [
    ("nosuch.safetensors", "got nosuch.safetensors: nothing is there"),
    ("models:/nosuch@champion", "models:/nosuch@champion"),
    ("runs:/0123/checkpoint", "runs:/0123/checkpoint"),
]


@pytest.mark.parametrize(("address", "text"), BAD_CHECKPOINT)
def test_a_checkpoint_that_is_not_there_fails_the_run_with_its_reason(tmp_path: Path, address: str, text: str) -> None:
    desk = Desk(tmp_path)
    code, _, err = desk.type("entry_points.finetune", "--checkpoint", address)
    assert code == 1
    assert text in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) <= 2
    (run,) = desk.runs()
    assert run.info.status == "FAILED"
    assert text in run.data.tags["mlflow.note.content"]


def test_another_architecture_than_the_checkpoints_is_refused_field_by_field(finished: Desk) -> None:
    path = finished.artifact(finetuned(finished), "checkpoint/checkpoint.safetensors")
    code, _, err = finished.type(
        *("entry_points.finetune", "--checkpoint", str(path), "--n_trits", "4"),
        *("--curvature", "1", "--hidden_dim", "64"),
    )
    assert code == 1
    assert "`curvature` is 2.0 in the file, 1.0 here" in err
    assert "`hidden_dim` is 128 in the file, 64 here" in err
    assert "or `new_projection` to true" in err
    failed = next(r for r in finished.runs() if r.info.status == "FAILED")
    finished.client.delete_run(failed.info.run_id)


def test_a_loss_that_is_not_finite_fails_the_run_and_names_epoch_and_term(finished: Desk) -> None:
    words = ("--n_trits", "4", "--preset", "radii", "--hierarchy_weight", "1e6", "--lr", "10", "--epochs", "3")
    words += ("--unfreeze", "all", "--encoder_lr_scale", "10")
    code, _, err = finished.type("entry_points.finetune", *words)
    assert code == 1
    assert "Training stopped at epoch" in err
    assert "is NaN or infinite" in err
    failed = next(r for r in finished.runs() if r.info.status == "FAILED")
    assert "Training stopped at epoch" in failed.data.tags["mlflow.note.content"]
    assert "checkpoint" not in {a.path for a in finished.client.list_artifacts(failed.info.run_id)}
    finished.client.delete_run(failed.info.run_id)


def test_a_tracking_server_that_does_not_answer_is_one_message(tmp_path: Path) -> None:
    code, _, err = Desk(tmp_path, "http://127.0.0.1:9").type("entry_points.finetune")
    assert code == 1
    assert "The tracking server http://127.0.0.1:9 must answer within" in err
    assert "Traceback" not in err


def test_a_folder_that_cannot_hold_the_store_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    code, _, err = Desk(tmp_path).type("entry_points.finetune")
    assert code == 1
    assert "must be a database that can be written; found: unable to open database file" in err
    assert "Traceback" not in err


def test_artifacts_that_cannot_be_written_fail_the_run(tmp_path: Path) -> None:
    (tmp_path / "mlruns").write_text("in the way")
    desk = Desk(tmp_path)
    code, _, err = desk.type("entry_points.train", "--epochs", "1", "--promote", "never")
    assert code == 1
    assert "Traceback" not in err
    assert [r.info.status for r in desk.runs()] == ["FAILED"]


def test_a_foundation_short_of_full_coverage_is_not_registered(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    code, _, err = desk.type("entry_points.train", "--epochs", "1")
    assert code == 1
    assert "Only a verified foundation can be registered" in err
    assert not desk.client.search_registered_models()


# `make test-faults` tries the others.
STOPS = [
    pytest.param(signal.SIGINT, "by the user", id="by the user"),
    pytest.param(signal.SIGTERM, "by SIGTERM", id="by SIGTERM", marks=pytest.mark.fault),
    pytest.param(signal.SIGHUP, "by SIGHUP", id="by SIGHUP", marks=pytest.mark.fault),
]


@pytest.mark.parametrize(("number", "reason"), STOPS)
def test_a_signal_ends_the_run_as_killed_with_its_reason(desk: Desk, number: signal.Signals, reason: str) -> None:
    endless = ("--epochs", "10000", "--patience", "10000", "--promote", "never")
    process = desk.fork("entry_points.train", "--n_trits", "4", *endless)
    until(lambda: epochs_logged(desk.folder) > 0, process)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 128 + number
    assert f"Stopped {reason}: what was logged" in err
    assert "Traceback" not in out + err
    (run,) = desk.runs()
    assert run.info.status == "KILLED"
    assert run.data.tags["mlflow.note.content"].startswith(f"**Stopped**: {reason}")
