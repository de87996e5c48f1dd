"""The life of a model, command by command: convert, verify, promote, finetune, embed, roll back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from exact_model import architecture, random_model
from legacy_file import exact_legacy_file
from mlflow import MlflowClient
from mlflow.entities import Run
from registry_store import aliases, tracking_in, versions

import tvae
from entry_points import convert, embed, finetune, promote, verify
from tvae import ternary
from tvae.checkpoint import read, save
from tvae.checkpoint.legacy import BRANCHES
from tvae.config.architecture import Architecture
from tvae.config.bounds import Bounds
from tvae.embedding.export import embeddings, to_npz, to_parquet
from tvae.model import COMPONENTS
from tvae.registry import CHAMPION, MODEL, MODES

ROOT = Path(__file__).parent.parent


class Said(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str
    run: Run | None


def look_at(version: str) -> list[str]:
    """What a command says at its end, of a version of the registered model."""
    page = f"http://127.0.0.1:5000/#/models/tvae/versions/{version}?workflowType=machine_learning"
    return ["", "Look at it: `make ui` (or `mlflow ui`), then open", f"  {page}"]


class Desk:
    """A folder with a store, where commands are typed in this process."""

    def __init__(self, folder: Path, client: MlflowClient) -> None:
        self.folder, self.client = folder, client

    def type(self, command: click.Command, *words: object) -> Said:
        before = {run.info.run_id for run in self.runs()}
        result = CliRunner().invoke(command, [str(word) for word in words])
        new = [run for run in self.runs() if run.info.run_id not in before]
        return Said(result.exit_code, result.stdout, result.stderr, new[0] if new else None)

    def runs(self) -> list[Run]:
        experiment = self.client.get_experiment_by_name("tvae")
        return list(self.client.search_runs([experiment.experiment_id])) if experiment else []

    def artifact(self, run: Run, path: str) -> Path:
        return Path(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/{path}"))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    with tracking_in(folder) as client:
        yield Desk(folder, client)


@pytest.fixture(scope="module")
def converted(desk: Desk) -> tuple[Path, Said]:
    """A good legacy file, brought in. Operations of five trits are logged, drawn and verified in an instant."""
    legacy, out = exact_legacy_file(desk.folder / "legacy.pt", 5), desk.folder / "converted.safetensors"
    return out, desk.type(convert.main, "--path", legacy, "--out", out)


@pytest.fixture(scope="module")
def promoted(desk: Desk, converted: tuple[Path, Said]) -> Said:
    """The converted file in the registry: the first champion."""
    return desk.type(promote.main, "--checkpoint", converted[0])


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """A checkpoint that loads, and is worth nothing."""
    path = tmp_path / "bad.safetensors"
    save(path, random_model(architecture(5)), trained=COMPONENTS, training={}, metrics={})
    return path


class TestConvert:
    def test_it_prints_the_metrics_and_leaves_a_checkpoint(self, desk: Desk, converted: tuple[Path, Said]) -> None:
        path, said = converted
        assert (said.code, said.err) == (0, "")
        assert "coverage            1.00000" in said.out
        assert "hierarchy          -0.83206" in said.out
        assert str(path) in said.out
        assert tvae.evaluate(tvae.load(path)).coverage == 1.0
        assert said.run.info.status == "FINISHED"
        held = desk.artifact(said.run, "checkpoint/checkpoint.safetensors")
        assert held.read_bytes() == path.read_bytes()

    def test_points_outside_the_ball_are_refused_with_what_reads_them(self, desk: Desk, tmp_path: Path) -> None:
        legacy = exact_legacy_file(tmp_path / "outside.pt", 5, curvature=2.0, max_radius=0.99)
        out = tmp_path / "out.safetensors"
        refused = desk.type(convert.main, "--path", legacy, "--out", out)
        assert refused.code == 1
        advice = (
            "Pass curvature=1 max_radius=0.99 override=true to read the same coordinates in the ball of curvature 1."
        )
        assert advice in refused.err
        assert len(refused.err.splitlines()) == 1
        assert refused.run.info.status == "FAILED"
        assert advice in refused.run.data.tags["failure"]
        assert not out.exists()
        options = ("--curvature", "1", "--max_radius", "0.99", "--override", "true")
        said = desk.type(convert.main, "--path", legacy, "--out", out, *options)
        assert said.code == 0
        note = "- The file states `curvature` 2 (`config.curvature`); 1 was given, and was to count."
        assert note in said.out.splitlines()
        checkpoint = read(out)
        assert checkpoint.architecture.curvature == 1.0
        assert checkpoint.training["legacy_given"] == {"curvature": 1.0, "max_radius": 0.99, "override": True}

    def test_a_file_that_cannot_be_written_fails_the_run(self, desk: Desk, tmp_path: Path) -> None:
        legacy = exact_legacy_file(tmp_path / "legacy.pt", 5)
        said = desk.type(convert.main, "--path", legacy, "--out", tmp_path / "none" / "out.safetensors")
        assert said.code == 1
        assert "was not written; found:" in said.err
        assert said.run.info.status == "FAILED"

    def test_the_legacy_file_is_never_overwritten(self, desk: Desk, tmp_path: Path) -> None:
        legacy = exact_legacy_file(tmp_path / "legacy.pt", 5)
        content = legacy.read_bytes()
        said = desk.type(convert.main, "--path", legacy, "--out", tmp_path / "." / "legacy.pt")
        assert (said.code, said.run) == (2, None)
        assert legacy.read_bytes() == content


class TestUsage:
    @pytest.mark.parametrize(
        ("command", "words", "text"),
        [
            (convert.main, [], "Name the legacy file as --path and the checkpoint to write as --out."),
            (convert.main, ["--path", "f", "--branch", "C"], "'C' is not one of 'A', 'B'"),
            (promote.main, [], "Pass one of the two: --checkpoint to promote it, or --rollback"),
            (promote.main, ["--checkpoint", "x", "--rollback"], "Pass one of the two: --checkpoint"),
            (promote.main, ["--checkpoint", "x", "--mode", "never"], "'never' is not one of 'auto', 'force'"),
            (promote.main, ["--rollback", "perhaps"], "'perhaps' is not a valid boolean"),
            (verify.main, ["--reloads", "0"], "--reloads must be at least 1, got 0"),
            (verify.main, ["--ordered_levels", "some"], "'some' is not a valid int"),
            (verify.main, ["--bogus", "7"], "No such option"),
        ],
    )
    def test_what_cannot_be_meant_exits_with_2(
        self, desk: Desk, command: click.Command, words: list[str], text: str
    ) -> None:
        said = desk.type(command, *words)
        assert (said.code, said.run) == (2, None)
        assert text in said.err

    def test_a_damaged_file_fails_verification(self, desk: Desk, bad: Path) -> None:
        bad.write_bytes(bad.read_bytes()[:-1])
        said = desk.type(verify.main, "--checkpoint", bad)
        assert (said.code, said.err) == (1, "Error: Verification failed: file refused (loads).\n")
        assert "it was cut short" in said.out
        assert said.run.info.status == "FAILED"

    @pytest.mark.parametrize("command", [verify.main, promote.main, embed.main])
    def test_a_checkpoint_that_is_not_there_exits_with_1_and_one_line(self, desk: Desk, command: click.Command) -> None:
        said = desk.type(command, "--checkpoint", "nowhere")
        assert said.code == 1
        assert said.err.startswith("Error: `checkpoint` must be the path of a checkpoint.safetensors")
        assert len(said.err.splitlines()) == 1
        assert said.run.info.status == "FAILED"

    def test_choices_and_defaults_are_those_of_the_rooms_below(self) -> None:
        choices = {option.name: option.type for option in (*convert.main.params, *promote.main.params)}
        assert tuple(choices["branch"].choices) == BRANCHES
        assert tuple(choices["mode"].choices) == MODES
        defaults = {option.name: option.default for option in verify.main.params}
        assert defaults["checkpoint"] == f"models:/{MODEL}@{CHAMPION}"
        assert Bounds(**{n: None if defaults[n] == "auto" else defaults[n] for n in Bounds.__slots__}) == Bounds()


SMALLER = Architecture(n_trits=6, curvature=0.5)


@pytest.fixture(scope="module")
def table() -> dict[str, np.ndarray]:
    return embeddings(random_model(SMALLER))


class TestEmbedding:
    def test_radii_and_norms_are_those_of_the_evaluation(self, table: dict[str, np.ndarray]) -> None:
        evaluation = tvae.evaluate(random_model(SMALLER))
        assert np.array_equal(table["radius"], evaluation.radii)
        assert np.array_equal(table["norm"], evaluation.norms)

    def test_points_have_their_norms(self, table: dict[str, np.ndarray]) -> None:
        np.testing.assert_allclose(np.linalg.norm(table["z"], axis=1), table["norm"], rtol=1e-6)

    def test_points_are_those_of_the_model(self, table: dict[str, np.ndarray]) -> None:
        some = [0, 500, 728]
        points = random_model(SMALLER)(tvae.metrics.trit_table(6)[some])
        np.testing.assert_allclose(table["z"][some], points.detach().numpy(), atol=1e-6)

    def test_every_operation_has_its_row(self, table: dict[str, np.ndarray]) -> None:
        assert np.array_equal(table["index"], np.arange(729))
        assert np.array_equal(table["trits"], ternary.operations(6))
        assert np.array_equal(table["valuation"], ternary.valuations(6))

    def test_both_files_hold_the_table(self, table: dict[str, np.ndarray], tmp_path: Path) -> None:
        (tmp_path / "e.npz").write_bytes(to_npz(table))
        (tmp_path / "e.parquet").write_bytes(to_parquet(table))
        same_table(table, tmp_path / "e.npz", tmp_path / "e.parquet")


def same_table(table: dict[str, np.ndarray], npz: Path, parquet: Path) -> None:
    with np.load(npz) as held:
        assert set(held) == set(table)
        assert all(np.array_equal(held[name], table[name]) for name in table)
    frame = pd.read_parquet(parquet)
    points = [f"z{k}" for k in range(table["z"].shape[1])]
    assert list(frame.columns) == ["index", "trits", "valuation", "radius", "norm", *points]
    assert all(np.array_equal(frame[name], table[name]) for name in ("index", "valuation", "radius", "norm"))
    assert np.array_equal(np.stack(frame["trits"]), table["trits"])
    assert np.array_equal(frame[points], table["z"])


@pytest.mark.integration
class TestLife:
    """In this order: each begins where the one before ended."""

    def test_verify_passes_a_good_model(self, desk: Desk, converted: tuple[Path, Said], tmp_path: Path) -> None:
        out = tmp_path / "verification.json"
        said = desk.type(verify.main, "--checkpoint", converted[0], "--reloads", 2, "--out", out)
        assert (said.code, said.err) == (0, "")
        assert ["hierarchy", "-0.832057", "<=", "-0.8", "passed"] in [line.split() for line in said.out.splitlines()]
        assert said.run.info.status == "FINISHED"
        assert said.run.data.tags["verified"] == "true"
        assert said.run.data.metrics["hierarchy"] == pytest.approx(-0.832057, abs=1e-6)
        content = json.loads(out.read_text())
        assert content["passed"]
        assert content["file"] == str(converted[0])
        assert json.loads(desk.artifact(said.run, "verification.json").read_text()) == content

    def test_verify_fails_a_bad_one_with_1(self, desk: Desk, bad: Path) -> None:
        said = desk.type(verify.main, "--checkpoint", bad, "--reloads", 2, "--coverage", 0)
        assert said.code == 1
        assert said.err.startswith("Error: Verification failed: hierarchy ")
        assert "(<= -0.8), ordered levels " in said.err
        assert said.run.info.status == "FAILED"
        assert said.run.data.tags["failure"].startswith("Verification failed: hierarchy ")
        assert said.run.data.tags["verified"] == "false"
        checks = json.loads(desk.artifact(said.run, "verification.json").read_text())["checks"]
        passed = {check["name"]: check["passed"] for check in checks}
        assert (passed["hierarchy"], passed["coverage"]) == (False, True)

    def test_promote_registers_a_path_through_a_run_of_its_own(self, desk: Desk, promoted: Said) -> None:
        assert (promoted.code, promoted.err) == (0, "")
        assert promoted.out.splitlines() == [
            "Verification passed: 11 checks.",
            "Registered as tvae version 1, the first champion.",
            *look_at("1"),
        ]
        assert aliases(desk.client) == {"champion": "1"}
        assert promoted.run.data.tags["registered"] == "tvae version 1"
        assert desk.client.get_model_version(MODEL, "1").run_id == promoted.run.info.run_id

    def test_promote_refuses_a_bad_one_with_the_whole_verdict(self, desk: Desk, promoted: Said, bad: Path) -> None:
        said = desk.type(promote.main, "--checkpoint", bad, "--mode", "force")
        assert said.code == 1
        lines = [line.split() for line in said.err.splitlines()]
        assert ["inside", "the", "ball", "0", "<=", "0", "passed"] in lines
        assert lines[-1] == ["verification", "failed"]
        assert said.run.info.status == "FAILED"
        assert (versions(desk.client), aliases(desk.client)) == ([1], {"champion": "1"})

    def test_the_champion_can_be_served(self, promoted: Said, converted: tuple[Path, Said]) -> None:
        served = mlflow.pyfunc.load_model(f"models:/{MODEL}@{CHAMPION}").predict(np.array([[0], [242]]))
        radii = tvae.evaluate(tvae.load(converted[0])).radii
        assert [record["radius"] for record in served] == pytest.approx(radii[[0, 242]], abs=1e-5)

    def test_finetune_starts_from_the_champion_and_promotes_its_result(self, desk: Desk, promoted: Said) -> None:
        words = "--n_trits 5 --preset radii --curvature 1 --hidden_dim 64 --n_projection_layers 1 --epochs 1 --lr 1e-6"
        said = desk.type(finetune.main, "--checkpoint", f"models:/{MODEL}@{CHAMPION}", *words.split())
        assert said.code == 0, said.err
        assert "Starting from models:/tvae@champion." in said.out
        assert "nothing reinitialised" in said.out
        assert "Registered as tvae version 2" in said.out
        assert said.run.info.status == "FINISHED"
        assert said.run.data.tags["registered"] == "tvae version 2"
        desk.client.set_registered_model_alias(MODEL, "champion", "1")

    def test_promote_takes_a_run_and_moves_the_champion_by_force(self, desk: Desk) -> None:
        run_id = desk.client.get_model_version(MODEL, "2").run_id
        said = desk.type(promote.main, "--checkpoint", run_id, "--mode", "force")
        assert said.code == 0, said.err
        header = ["champion,", "version", "1", "this", "one", "matters", "verdict"]
        assert header in [x.split() for x in said.out.splitlines()]
        assert "It is tvae version 2, champion now" in said.out
        assert aliases(desk.client) == {"champion": "2", "previous": "1"}
        assert versions(desk.client) == [1, 2]

    @pytest.mark.parametrize(
        ("words", "champion", "other"), [("--rollback", "1", "2"), ("--rollback true --mode auto", "2", "1")]
    )
    def test_rollback_swaps(self, desk: Desk, words: str, champion: str, other: str) -> None:
        said = desk.type(promote.main, *words.split())
        assert said.code == 0
        swapped = f"tvae version {champion} is champion again; version {other} is previous."
        assert said.out.splitlines() == [swapped, *look_at(champion)]
        assert aliases(desk.client) == {"champion": champion, "previous": other}

    def test_a_trial_that_is_promoted_holds_the_model(self, desk: Desk, converted: tuple[Path, Said]) -> None:
        trial = desk.client.create_run("1", run_name="low seed=1", tags={"stage": "trial"}).info.run_id
        desk.client.log_metric(trial, "best_epoch", 3.0)
        path = desk.folder / "checkpoint.safetensors"
        good = read(converted[0])
        save(path, good.model, trained=good.trained, training={"stage": "trial", "seed": 1}, metrics={})
        desk.client.log_artifact(trial, str(path), "checkpoint")
        desk.client.set_terminated(trial)
        said = desk.type(promote.main, "--checkpoint", trial)
        assert (said.code, said.err) == (0, "")
        assert desk.client.get_model_version(MODEL, "3").run_id == trial
        (output,) = desk.client.get_run(trial).outputs.model_outputs
        found = desk.client.get_logged_model(output.model_id)
        assert (found.name.startswith("trial c="), output.step) == (True, 3)
        verdict = json.loads(desk.artifact(said.run, "verification.json").read_text())
        assert {m.key: (m.value, m.step) for m in found.metrics} == {k: (v, 3) for k, v in verdict["metrics"].items()}
        again = desk.type(promote.main, "--checkpoint", trial)
        assert "It is tvae version 3." in again.out
        assert len(desk.client.get_run(trial).outputs.model_outputs) == 1

    def test_a_path_that_is_promoted_is_found_by_its_metrics(self, desk: Desk, promoted: Said) -> None:
        found = desk.client.search_logged_models(["1"], filter_string="metrics.hierarchy < -0.83")
        (model,) = [model for model in found if model.source_run_id == promoted.run.info.run_id]
        verdict = json.loads(desk.artifact(promoted.run, "verification.json").read_text())
        assert {m.key: m.value for m in model.metrics} == verdict["metrics"]
        assert {m.dataset_name for m in model.metrics} == {"ternary-operations-5"}
        assert [data.dataset.name for data in promoted.run.inputs.dataset_inputs] == ["ternary-operations-5"]

    def test_embed_writes_what_the_evaluation_says(self, desk: Desk, tmp_path: Path) -> None:
        said = desk.type(embed.main, "--out", tmp_path / "new" / "folder")
        assert (said.code, said.err) == (0, "")
        held = desk.artifact(said.run, "embeddings")
        path = desk.artifact(desk.client.get_run(desk.client.get_model_version(MODEL, "2").run_id), "checkpoint")
        model = read(path / "checkpoint.safetensors").model
        same_table(embeddings(model), held / "embeddings.npz", held / "embeddings.parquet")
        assert np.array_equal(np.load(held / "embeddings.npz")["radius"], tvae.evaluate(model).radii)
        for name in ("embeddings.npz", "embeddings.parquet", "disk.html"):
            assert (tmp_path / "new" / "folder" / name).read_bytes() == (held / name).read_bytes()
