"""Logged models say what their files are worth, whatever the run says that has them."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from exact_model import exact_model
from mlflow import MlflowClient
from mlflow.entities import Run
from registry_store import METRICS, Entry, tracking_in

from tvae.checkpoint import FILE_NAME, save
from tvae.config.architecture import Architecture
from tvae.config.presets import resolve
from tvae.model import COMPONENTS
from tvae.registry import MODEL, promote, run_of
from tvae.tracking import model
from tvae.tracking.dataset import log_operations, operations_dataset
from tvae.tracking.description import model_settings
from tvae.tracking.model import log_foundation_model, log_model


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowClient]:
    with tracking_in(tmp_path_factory.mktemp("store")) as client:
        yield client


@pytest.fixture
def trial(client: MlflowClient) -> Run:
    """A run that is over, whose training began elsewhere than it ended."""
    made = client.create_run("0")
    for step, value in ((0, -0.5), (7, -0.82)):
        client.log_metric(made.info.run_id, "hierarchy", value, step=step)
    client.log_metric(made.info.run_id, "train_seconds", 3.0)
    log_operations(client, made.info.run_id, 3)
    client.set_terminated(made.info.run_id)
    return client.get_run(made.info.run_id)


def saved(folder: Path, seed: int = 0, trained: tuple[str, ...] = COMPONENTS, **changes: object) -> Entry:
    """A checkpoint as a trial of the preset `rich` leaves it."""
    _, configuration = resolve("rich", {"seed": seed, "n_trits": 3, "epochs": 20})
    training = {"stage": "trial", "seed": seed, "configuration": configuration.to_dict()}
    changes = {"max_radius": 0.98, **changes}
    made = save(folder / FILE_NAME, exact_model(**changes), trained=trained, training=training, metrics={})
    return Entry(made, "", "")


def test_a_model_has_the_metrics_of_its_file_alone(client: MlflowClient, trial: Run, tmp_path: Path) -> None:
    entry, run_id = saved(tmp_path, curvature=0.5), trial.info.run_id
    assert client.search_logged_models(["0"], filter_string="metrics.hierarchy < -0.825") == []
    model_id = log_model(client, run_id, entry.verdict(), step=7)
    (found,) = client.search_logged_models(["0"], filter_string="metrics.hierarchy < -0.825")
    assert (found.model_id, found.source_run_id, str(found.status)) == (model_id, run_id, "READY")
    assert {metric.key: metric.value for metric in found.metrics} == METRICS
    data = trial.inputs.dataset_inputs[0].dataset
    assert (data.name, data.digest) == ("ternary-operations-3", operations_dataset(3).digest)
    assert {(m.step, m.dataset_name, m.dataset_digest) for m in found.metrics} == {(7, data.name, data.digest)}
    (output,) = client.get_run(run_id).outputs.model_outputs
    assert (output.model_id, output.step) == (model_id, 7)
    assert client.get_run(run_id).info.status == "FINISHED"
    client.delete_logged_model(model_id)


def test_name_parameters_and_description_tell_models_apart(client: MlflowClient, trial: Run, tmp_path: Path) -> None:
    entry = saved(tmp_path, seed=3, curvature=0.5)
    found = client.get_logged_model(log_model(client, trial.info.run_id, entry.verdict(), step=7))
    assert found.name == f"trial rich c=0_5 seed=3 {entry.checkpoint.digest[:8]}"
    assert found.params == model_settings(entry.checkpoint)
    told = {"preset": "rich", "stage": "trial", "curvature": "0.5", "seed": "3", "n_trits": "3", "epochs": "20"}
    assert told.items() <= found.params.items()
    note = found.tags["mlflow.note.content"]
    assert note.startswith("Verified: coverage 1, hierarchy -0.83, level gap 0.3, ")
    assert f"/runs/{trial.info.run_id}?" in note
    failed = client.get_logged_model(log_model(client, trial.info.run_id, entry.verdict(passed=False), step=7))
    assert failed.tags["mlflow.note.content"].startswith("Verification failed (coverage 0.5 (>= 1)): ")


def test_a_trials_model_is_served_and_registered_by_id(client: MlflowClient, trial: Run, tmp_path: Path) -> None:
    entry = saved(tmp_path)
    trained = run_of(client, f"runs:/{trial.info.run_id}/checkpoint")
    assert trained is not None
    model_id = log_model(client, trained.info.run_id, entry.verdict(), step=7)
    assert len(mlflow.pyfunc.load_model(f"models:/{model_id}").predict(np.array([[0], [26]]))) == 2
    promotion = promote(client, entry.verdict(), model_id=model_id)
    version = client.get_model_version(MODEL, promotion.version)
    assert (version.run_id, version.source) == (trial.info.run_id, f"models:/{model_id}")
    assert {"preset": "rich", "n_trits": "3", "verified": "true"}.items() <= version.tags.items()


def test_metrics_that_are_logged_afterwards_are_not_the_models(client: MlflowClient, tmp_path: Path) -> None:
    with mlflow.start_run() as run:
        model_id = log_model(client, run.info.run_id, saved(tmp_path).verdict())
        client.log_metric(run.info.run_id, "total_seconds", 5.0)
    assert {metric.key for metric in client.get_logged_model(model_id).metrics} == METRICS.keys()


def test_a_foundation_is_a_model_with_its_coverage(client: MlflowClient, trial: Run, tmp_path: Path) -> None:
    entry = saved(tmp_path, trained=("encoder", "decoder"))
    model_id = log_foundation_model(client, trial.info.run_id, entry.verdict(coverage=0.999), step=4)
    (found,) = client.search_logged_models(["0"], filter_string="metrics.coverage < 1")
    assert found.model_id == model_id
    assert "preset" not in found.params
    assert [file.path for file in client.list_logged_model_artifacts(model_id)] == [FILE_NAME]


def test_a_model_whose_files_cannot_be_written_has_failed(
    client: MlflowClient, trial: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(model.mlflow.pyfunc, "save_model", full)
    with pytest.raises(OSError, match="no space left"):
        log_model(client, trial.info.run_id, saved(tmp_path).verdict(), step=7)
    outputs = client.get_run(trial.info.run_id).outputs.model_outputs
    assert [str(client.get_logged_model(output.model_id).status) for output in outputs] == ["FAILED"]


def test_what_a_file_of_anybody_says_of_its_training_is_checked(tmp_path: Path) -> None:
    stated = {"stage": "../x", "configuration": {"lr": "<script>"}, "seed": 1}
    made = save(tmp_path / FILE_NAME, exact_model(), trained=COMPONENTS, training=stated, metrics={})
    assert model_settings(made).keys() == Architecture().to_dict().keys()
