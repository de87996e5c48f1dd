"""A whole training in one call, and where a model is loaded from."""

import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import torch
from exact_model import exact_model
from registry_store import log_entry, tracking_in

import tvae
from tvae.checkpoint import read, save, verify
from tvae.config.presets import resolve, resolve_foundation
from tvae.errors import ArchitectureError, CheckpointError, ConfigurationError
from tvae.model import COMPONENTS
from tvae.training import train
from tvae.training.start import from_foundation, from_scratch

ROOT = Path(__file__).parent.parent
SMALL = {"n_trits": 3, "epochs": 2, "foundation_epochs": 2}


def same(a: tvae.TernaryVAE, b: tvae.TernaryVAE) -> bool:
    other = b.state_dict()
    return all(torch.equal(value, other[name]) for name, value in a.state_dict().items())


@pytest.fixture(scope="module")
def trained() -> tvae.Trained:
    return tvae.train(seed=3, **SMALL)


def test_it_trains_what_the_two_stages_train(trained: tvae.Trained) -> None:
    architecture, configuration = resolve("default", {"n_trits": 3, "epochs": 2, "seed": 3})
    first = train(from_scratch(architecture, resolve_foundation(architecture, {"epochs": 2, "seed": 3})))
    second = train(from_foundation(first, configuration))
    assert same(trained.model, second.model)
    assert [record["coverage"] for record in trained.result.history] == [
        record["coverage"] for record in (*first.history, *second.history)
    ]
    assert [record["epoch"] for record in trained.result.history] == [0, 1, 2, 3, 4, 5]


def test_the_model_is_that_of_the_best_epoch(trained: tvae.Trained) -> None:
    model, result = trained
    at_best = result.history[result.best_epoch]
    assert at_best["epoch"] == result.best_epoch
    assert tvae.evaluate(model).hierarchy == pytest.approx(at_best["hierarchy"], abs=1e-6)


def test_another_seed_gives_another_model(trained: tvae.Trained) -> None:
    assert not same(trained.model, tvae.train(seed=4, **SMALL).model)


def test_settings_change_the_preset() -> None:
    model, result = tvae.train("radii", curvature=0.5, lr=1e-3, **SMALL)
    assert (model.architecture.curvature, model.architecture.max_radius) == (0.5, 0.95)
    assert (result.configuration.lr, result.configuration.seed) == (1e-3, 0)


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"preset": "defualt"}, ConfigurationError, "default"),
        ({"curvatur": 1.0}, ConfigurationError, "curvature"),
        ({"curvature": -1.0}, ArchitectureError, "curvature"),
        ({"device": "abacus"}, ConfigurationError, "abacus"),
    ],
)
def test_what_cannot_be_trained_is_refused(asked: dict, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        tvae.train(**asked)


def test_it_is_saved_as_a_checkpoint_that_is_what_it_claims(trained: tvae.Trained, tmp_path: Path) -> None:
    trained.save(tmp_path / "a.safetensors")
    found = read(tmp_path / "a.safetensors")
    assert same(found.model, trained.model)
    assert found.metrics["hierarchy"] == trained.result.history[trained.result.best_epoch]["hierarchy"]
    checks = {check.name: check.passed for check in verify(tmp_path / "a.safetensors").checks}
    assert checks["claimed metrics"]


@pytest.mark.long
@pytest.mark.integration
def test_neither_training_nor_a_file_needs_mlflow(tmp_path: Path) -> None:
    code = f"""
import sys, tvae
sys.modules["mlflow"] = None
tvae.train(**{SMALL}).save("a.safetensors")
model = tvae.load("a.safetensors")
tvae.nearest_operations([[1], [2]], model), tvae.distance(1, 2, model), tvae.TernaryEmbedding("a.safetensors")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=False,
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr


# Where a model is loaded from


def test_a_model_is_loaded_from_every_address(tmp_path: Path) -> None:
    with tracking_in(tmp_path):
        entry = log_entry(tmp_path, 1)
        mlflow.register_model(f"models:/{entry.model_id}", "tvae")
        mlflow.MlflowClient().set_registered_model_alias("tvae", "champion", "1")
        with mlflow.start_run(run_id=entry.run_id):
            mlflow.log_artifact(str(entry.checkpoint.path), "checkpoint")
        addresses = (
            entry.checkpoint.path, str(entry.checkpoint.path), f"runs:/{entry.run_id}/checkpoint",
            f"models:/{entry.model_id}", "models:/tvae/1", "models:/tvae@champion",
        )  # fmt: skip
        for address in addresses:
            assert same(tvae.load(address), entry.checkpoint.model), address
        embedding = tvae.TernaryEmbedding("models:/tvae@champion").fit([[0, 0, 0]])
        assert embedding.transform([[0, 0, 0]]).shape == (1, 3)


def test_an_address_of_nothing_is_named(tmp_path: Path) -> None:
    with tracking_in(tmp_path), pytest.raises(CheckpointError, match="models:/tvae@champion"):
        tvae.load("models:/tvae@champion")


def test_a_file_whose_name_looks_like_an_address_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "runs:"
    path.mkdir()
    save(path / "a", exact_model(3), trained=COMPONENTS, training={}, metrics={})
    assert tvae.load(path / "a").architecture.n_trits == 3


def test_dir_shows_what_there_is() -> None:
    assert dir(tvae) == sorted([*tvae.__all__, "__version__"])
