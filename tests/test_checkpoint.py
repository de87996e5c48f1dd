"""The checkpoint file: what is written comes back, and nothing else is accepted."""

import dataclasses
import io
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from checkpoint_bytes import Bomb, Edit, forged, join, split
from exact_model import architecture, exact_model, random_model

import tvae
from tvae.checkpoint import FORMAT_VERSION, Checkpoint, load, provenance, read, require_storable, save
from tvae.checkpoint.file import MAX_BYTES, MAX_HEADER_BYTES
from tvae.checkpoint.provenance import commit, git_trouble
from tvae.checkpoint.verification import verify
from tvae.config.architecture import Architecture
from tvae.errors import CheckpointError
from tvae.metrics import evaluate
from tvae.model import COMPONENTS, TernaryVAE

TRAINING = {
    "seed": 3,
    "start": "random",
    "configuration": {"lr": 0.004, "widths": [1, 2], "note": 'é"\\\n', "none": None},
}
METRICS = {"coverage": 1.0, "hierarchy": -0.83}
EXACT = "The header must have the exact bytes that tvae writes"
VERSION_1 = Path(__file__).parent / "data" / "format-version-1.safetensors"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("valid") / "c"
    save(path, random_model(architecture()), trained=COMPONENTS, training=TRAINING, metrics=METRICS)
    return path.read_bytes()


@pytest.fixture
def file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(content)
    return path


def save_again(path: str | Path, checkpoint: Checkpoint) -> None:
    stated = {"trained": checkpoint.trained, "training": checkpoint.training, "metrics": checkpoint.metrics}
    save(path, checkpoint.model, **stated)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError, match=r".") as caught:
        read(path)
    return str(caught.value)


def forge(path: Path, edit: Edit) -> str:
    """Refusal of the file with an edit under a right digest."""
    path.write_bytes(forged(path.read_bytes(), edit))
    return refusal(path)


class TestRoundTrip:
    @pytest.mark.parametrize("other", [{}, {"use_controller": True}, {"centred": False}])
    def test_every_weight_comes_back_bit_for_bit(self, tmp_path: Path, other: dict[str, bool]) -> None:
        model = random_model(Architecture(**other))
        save(tmp_path / "c", model, trained=("encoder", "decoder"), training={}, metrics={})
        loaded = load(tmp_path / "c").state_dict()
        assert list(loaded) == list(model.state_dict())
        assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())

    def test_what_was_said_of_the_model_comes_back(self, file: Path) -> None:
        checkpoint = read(file)
        assert checkpoint.path == file
        assert checkpoint.architecture == checkpoint.model.architecture == architecture()
        assert checkpoint.trained == COMPONENTS
        assert checkpoint.training == TRAINING
        assert checkpoint.metrics == METRICS

    def test_the_model_is_ready_for_use_and_for_further_training(self, file: Path) -> None:
        model = tvae.load(file)
        assert not model.training
        assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())

    def test_trained_components_are_stated_in_their_own_order(self, file: Path) -> None:
        save(file, random_model(architecture()), trained=["decoder", "encoder"], training={}, metrics={})
        assert read(file).trained == ("encoder", "decoder")

    def test_a_checkpoint_cannot_be_changed(self, file: Path) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError, match="digest"):
            read(file).digest = "0"

    def test_loading_draws_no_random_numbers(self, file: Path) -> None:
        before = torch.get_rng_state()
        load(file)
        assert torch.equal(torch.get_rng_state(), before)

    def test_a_symbolic_link_is_followed_and_stays(self, file: Path) -> None:
        link = file.with_name("link")
        link.symlink_to(file.name)
        save(link, random_model(architecture(), seed=1), trained=(), training={}, metrics={})
        assert link.is_symlink()
        assert read(file).trained == read(link).trained == ()


class TestFormatVersion1:
    """A file that tvae wrote before there was `centred`: `exact_model(3, use_controller=False)`, with its metrics."""

    def test_it_loads_as_it_was_bit_for_bit(self) -> None:
        checkpoint, expected = read(VERSION_1), exact_model(3, use_controller=False)
        stated, _, data = split(VERSION_1.read_bytes())
        assert (stated["format_version"], "centred" in stated["architecture"]) == (1, False)
        assert checkpoint.architecture == architecture(use_controller=False, centred=False)
        assert checkpoint.digest == stated["digest"]
        state = checkpoint.model.state_dict()
        assert b"".join(state[name].numpy().tobytes() for name in sorted(state)) == data
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.state_dict().items())
        claimed = evaluate(checkpoint.model).metrics()
        assert {name: claimed[name] for name in checkpoint.metrics} == pytest.approx(stated["metrics"], abs=1e-9)
        assert len(checkpoint.metrics) == 9

    @pytest.mark.integration
    def test_it_passes_verification(self) -> None:
        assert verify(VERSION_1, reloads=2).failures == ""

    def test_what_it_says_of_centred_is_refused(self, tmp_path: Path) -> None:
        edits = {
            1: (lambda fields, table: fields["architecture"].update(centred=True), "which format version 1 does not"),
            2: (lambda fields, table: fields.update(format_version=2), "missing: centred"),
        }
        for number, (edit, reason) in edits.items():
            path = tmp_path / str(number)
            path.write_bytes(forged(VERSION_1.read_bytes(), edit))
            assert reason in refusal(path)


class TestFormat:
    def test_the_file_is_what_the_safetensors_library_writes(self, file: Path) -> None:
        with safetensors.safe_open(file, "pt") as opened:
            metadata = opened.metadata()
        tensors = {name: tensor.detach() for name, tensor in load(file).state_dict().items()}
        assert safetensors.torch.save(tensors, metadata=metadata) == file.read_bytes()

    def test_the_digest_is_computed_as_documented(self, file: Path) -> None:
        content = file.read_bytes()
        assert forged(content, lambda fields, table: None) == content

    def test_saving_again_what_was_read_gives_the_same_bytes(self, file: Path) -> None:
        again = file.with_name("again")
        save_again(again, read(file))
        assert again.read_bytes() == file.read_bytes()

    @pytest.mark.integration
    def test_another_process_writes_the_same_bytes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # Without git the provenance cannot change while somebody works on the tree.
        monkeypatch.setenv("PATH", str(tmp_path))
        provenance.provenance.cache_clear()
        script = (
            "from exact_model import architecture, exact_model, random_model; from tvae.checkpoint import save;"
            "save({!r}, random_model(architecture()), trained=('decoder', 'encoder'), training={{'b': 1, 'a': 2}}, "
            "metrics={{'y': 1, 'x': 2}})"
        )
        stated = {"trained": ("encoder", "decoder"), "training": {"a": 2, "b": 1}, "metrics": {"x": 2, "y": 1}}
        here, there = str(tmp_path / "here"), str(tmp_path / "there")
        path = os.pathsep.join([str(Path(__file__).parent), str(Path(tvae.__file__).parents[1])])
        environment = os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "7"}
        subprocess.run([sys.executable, "-c", script.format(there)], env=environment, check=True, timeout=300)
        save(here, random_model(architecture()), **stated)
        provenance.provenance.cache_clear()
        assert Path(here).read_bytes() == Path(there).read_bytes()


class TestProvenance:
    def test_it_names_the_versions_and_the_commit(self, file: Path) -> None:
        stated = read(file).provenance
        assert sorted(stated) == ["git_commit", "git_dirty", "numpy", "python", "torch", "tvae"]
        assert (stated["tvae"], stated["torch"]) == (tvae.__version__, torch.__version__)

    @pytest.mark.integration
    def test_outside_git_and_in_a_foreign_repository_the_commit_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "__init__.py").touch()
        assert commit(tmp_path) == (None, None)
        self.git(tmp_path, "init")
        assert commit(tmp_path) == (None, None)

    @pytest.fixture
    def package(self, tmp_path: Path) -> Path:
        """A package in a repository of its own, committed, with a user's settings that change what git prints."""
        package = tmp_path / "my répo" / "package"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        settings = ["status.showUntrackedFiles=no", "core.quotePath=true", "status.relativePaths=true"]
        settings += ["diff.external=false", "color.ui=always", "status.branch=true", "diff.ignoreSubmodules=all"]
        self.git(package.parent, "init")
        for setting in [*settings, "user.name=a", "user.email=a@b"]:
            self.git(package, "config", *setting.split("="))
        self.git(package, "add", ".")
        self.git(package, "commit", "-m", "first")
        return package

    def git(self, package: Path, *words: str) -> None:
        subprocess.run(["git", *words], cwd=package, check=True, capture_output=True)

    @pytest.mark.integration
    def test_settings_and_variables_of_git_do_not_change_the_answer(
        self, package: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
            monkeypatch.setenv(name, "/nosuch")
        monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
        head, dirty = commit(package)
        assert (len(str(head)), dirty) == (40, False)
        (package.parent / "new.py").touch()
        assert commit(package) == (head, True)

    @pytest.mark.integration
    def test_a_module_that_an_ignore_file_hides_is_dirty(self, package: Path) -> None:
        (package.parent / ".git" / "info" / "exclude").write_text("*.py\n")
        (package / "new.py").touch()
        assert commit(package)[1] is True

    @pytest.mark.integration
    @pytest.mark.parametrize("mark", ["--assume-unchanged", "--skip-worktree"])
    def test_a_mark_in_the_index_hides_no_change(self, package: Path, mark: str) -> None:
        self.git(package, "update-index", mark, "__init__.py")
        assert commit(package)[1] is False
        (package / "__init__.py").write_text("changed = True\n")
        assert commit(package)[1] is True

    @pytest.mark.integration
    def test_a_submodule_that_has_changed_is_dirty(self, package: Path) -> None:
        (inner := package / "inner").mkdir()
        self.git(inner, "init")
        self.git(inner, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-m", "inner")
        self.git(package, "-c", "diff.ignoreSubmodules=none", "add", "inner")
        self.git(package, "-c", "diff.ignoreSubmodules=none", "commit", "-m", "submodule")
        assert commit(package)[1] is False
        (inner / "new.txt").touch()
        assert commit(package)[1] is True

    @pytest.mark.integration
    def test_that_git_refuses_is_said(self, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert git_trouble(package) is None
        monkeypatch.setattr(tvae, "__file__", str(package / "__init__.py"))
        (package.parent / ".git" / "HEAD").write_text("broken")
        provenance.provenance.cache_clear()
        stated = provenance.provenance()
        provenance.provenance.cache_clear()
        assert (stated["git_commit"], stated["git_dirty"]) == (None, "unknown")
        assert str(git_trouble(package)).startswith("fatal: ")

    @pytest.mark.fault
    def test_that_git_refuses_the_folder_of_another_user_is_said(self, package: Path) -> None:
        for path in (package.parent, package.parent / ".git"):
            os.chown(path, 65534, 65534)
        assert commit(package) == (None, None)
        assert "dubious ownership" in str(git_trouble(package))

    def test_where_there_is_no_git_that_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        (tmp_path / ".git").mkdir()
        assert "git did not run" in str(git_trouble(tmp_path / "package"))


class TestSavingRefuses:
    @staticmethod
    def refused(path: Path, match: str, model: TernaryVAE | None = None, **stated: object) -> None:
        old, nothing = path.read_bytes(), {"trained": (), "training": {}, "metrics": {}}
        with pytest.raises(CheckpointError, match=match):
            save(path, model or random_model(architecture()), **(nothing | stated))
        assert path.read_bytes() == old

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite(self, file: Path, bad: float) -> None:
        model = random_model(architecture())
        model.encoder.mean.bias.data[1] = bad
        self.refused(file, "must be finite; `encoder.mean.bias` has 1 of 3 that are not", model)

    @pytest.mark.parametrize("bad", [float("nan"), float("-inf"), 10**400, True, None, "1"])
    def test_metrics_that_are_not_finite_numbers(self, file: Path, bad: object) -> None:
        self.refused(file, "Metric 'coverage' must be a finite number", metrics={"coverage": bad})

    def test_a_cohort(self, file: Path) -> None:
        found = r"found float32 of shape \(2, 32\); a checkpoint holds one network"
        self.refused(file, found, TernaryVAE(architecture(), members=2))

    def test_another_precision(self, file: Path) -> None:
        self.refused(file, "must be float32 of shape .* found float64", random_model(architecture()).double())

    def test_a_model_with_something_added(self, file: Path) -> None:
        model = random_model(architecture())
        model.extra = torch.nn.Linear(1, 1)
        self.refused(file, "found also .*'extra.bias', 'extra.weight'", model)

    @pytest.mark.parametrize("trained", [["encodr"], ["encoder", "encoder"], "encoder"])
    def test_unknown_trained_components(self, file: Path, trained: object) -> None:
        self.refused(file, "`trained` must name components out of encoder, decoder, projection, ", trained=trained)

    def test_a_trained_controller_where_there_is_none(self, file: Path) -> None:
        model, found = random_model(architecture(use_controller=False)), "projection, each once; found .*controller"
        self.refused(file, found, model, trained=COMPONENTS)

    @pytest.mark.parametrize(
        ("training", "where"),
        [
            ({"lr": float("nan")}, "training.lr"),
            ({"paths": [Path("x")]}, r"training.paths\[0\]"),
            ({"seeds": {1: 2}}, "training.seeds"),
        ],
    )
    def test_training_that_json_cannot_hold(self, file: Path, training: dict, where: str) -> None:
        self.refused(file, f"`{where}` must ", training=training)

    def test_a_header_that_could_not_be_read_again(self, file: Path) -> None:
        found = f"at most {MAX_HEADER_BYTES} bytes, got .* put less into `training`"
        self.refused(file, found, training={"x": "y" * MAX_HEADER_BYTES})

    def test_an_architecture_that_is_too_large_before_it_is_trained(self) -> None:
        with pytest.raises(CheckpointError, match=r"must take at most .* choose smaller widths"):
            require_storable(Architecture(hidden_dim=4096, n_projection_layers=16))


class TestReadingRefuses:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert (
            refusal(tmp_path / "none")
            == f"{tmp_path / 'none'}: the file must be readable; found: No such file or directory."
        )

    @pytest.mark.parametrize("address", ["runs:/abc/checkpoint/checkpoint.safetensors", "models:/tvae@champion"])
    def test_an_address_of_mlflow(self, address: str) -> None:
        assert "the .safetensors that mlflow.artifacts.download_artifacts(address) brings" in refusal(Path(address))

    def test_a_folder(self, tmp_path: Path) -> None:
        assert "must be a regular file; found a folder" in refusal(tmp_path)

    def test_a_fifo_without_waiting_for_a_writer(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        assert "found a FIFO" in refusal(tmp_path / "fifo")

    def test_a_device(self) -> None:
        assert "found a device" in refusal(Path("/dev/zero"))

    def test_a_socket(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("s")
            assert "found a socket" in refusal(Path("s"))

    def test_a_path_with_nul(self) -> None:
        assert "embedded null" in refusal(Path("a\0b"))

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "it is empty"),
            ((2).to_bytes(8, "little") + b"{]", "The safetensors header must be JSON"),
            ((2).to_bytes(8, "little") + b"[]", "The safetensors header must be a JSON object; found list"),
        ],
    )
    def test_an_empty_file_and_a_header_that_is_no_object(self, file: Path, content: bytes, said: str) -> None:
        file.write_bytes(content)
        assert said in refusal(file)

    def test_a_file_above_the_limit_without_reading_it(self, file: Path) -> None:
        os.truncate(file, 2**40)
        assert f"at most {MAX_BYTES} bytes; it has {2**40}" in refusal(file)

    @pytest.mark.parametrize("size", [1, 7, 8, 100])
    def test_a_file_that_ends_within_its_header(self, file: Path, size: int) -> None:
        os.truncate(file, size)
        assert "it is no safetensors file, or was cut short" in refusal(file)

    def test_a_pickle_of_the_right_name_without_opening_it(self, file: Path) -> None:
        file.write_bytes(pickle.dumps(Bomb(file.with_name("executed"))))
        assert "found a pickle" in refusal(file)
        assert not file.with_name("executed").exists()

    def test_an_archive_of_torch_save(self, file: Path) -> None:
        torch.save({"model": {}}, file)
        assert "The entry point `convert` brings in legacy files" in refusal(file)

    def test_data_that_were_cut_short(self, file: Path) -> None:
        size = file.stat().st_size
        os.truncate(file, size - 4)
        assert f"must have {size} bytes for its header and architecture, found {size - 4}: it was cut short" in refusal(
            file
        )

    def test_appended_bytes(self, file: Path) -> None:
        size = file.stat().st_size
        file.write_bytes(file.read_bytes() + b"\0")
        assert f"found {size + 1}: something was appended" in refusal(file)

    def test_a_changed_weight(self, file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        stated, text = split(bytes(content))[0]["digest"], refusal(file)
        assert f"The digest must be the stated '{stated}', found " in text
        assert "weights or header were changed after saving. Take another copy of the file." in text

    def test_a_safetensors_file_of_another_programme(self, file: Path) -> None:
        safetensors.torch.save_file({"w": torch.zeros(2)}, file, metadata={"format": "pt"})
        assert "must have the one key `tvae`, a text; found ['format']: the file was not written by tvae" in refusal(
            file
        )

    def test_another_format_version(self, file: Path) -> None:
        for version in (FORMAT_VERSION + 1, 0, True, 1.0):
            text = forge(file, lambda fields, table, version=version: fields.update(format_version=version))
            assert f"format version must be in 1 … {FORMAT_VERSION}, found {version}" in text

    @pytest.mark.parametrize(
        ("edit", "said"),
        [
            (lambda fields, table: fields.update(extra=fields.pop("metrics")), "missing: metrics; unknown: ['extra']"),
            (
                lambda fields, table: fields["architecture"].update(curvature=-1.0),
                "`curvature` must be a number between",
            ),
            (lambda fields, table: fields["architecture"].update(colour="red"), "unknown: colour"),
            (
                lambda fields, table: fields["architecture"].update(hidden_dim=5),
                "direction_net.0.bias` must be F32 of shape [5] for the architecture, found 'F32' of shape [4]",
            ),
            (
                lambda fields, table: (fields["architecture"].update(use_controller=False), fields["trained"].pop()),
                "missing: none; unknown: ['controller.net.0.bias'",
            ),
            (lambda fields, table: table.pop("encoder.mean.bias"), "missing: ['encoder.mean.bias']; unknown: none"),
            (
                lambda fields, table: table["encoder.mean.bias"].update(dtype="I32"),
                "`encoder.mean.bias` must be F32 of shape [3] for the architecture, found 'I32' of shape [3]",
            ),
            (lambda fields, table: table["encoder.mean.bias"].update(data_offsets=[0, 12]), EXACT),
            (lambda fields, table: fields["trained"].reverse(), EXACT),
            (lambda fields, table: fields["metrics"].update(coverage=10**400), "Metric 'coverage' must be a finite"),
        ],
        ids=[
            *("fields", "curvature", "an unknown field of the architecture", "hidden_dim", "no controller"),
            *("a missing tensor", "dtype", "offsets", "order of the trained", "a metric beyond the floats"),
        ],
    )
    def test_what_a_header_states_under_a_right_digest(self, file: Path, edit: Edit, said: str) -> None:
        assert said in forge(file, edit)

    @pytest.mark.parametrize("names", [["nothing"], "encoder", None, [["encoder"]], 3])
    def test_trained_components_that_do_not_exist(self, file: Path, names: object) -> None:
        assert "`trained` must name components" in forge(file, lambda fields, table: fields.update(trained=names))

    @pytest.mark.parametrize("field", ["training", "provenance", "metrics", "architecture"])
    def test_a_field_that_is_no_mapping(self, file: Path, field: str) -> None:
        text = forge(file, lambda fields, table: fields.update({field: [1]}))
        assert f"`{field}` must be a mapping from names; found [1]" in text

    @pytest.mark.parametrize("value", [float("inf"), None, "1", True])
    def test_claimed_metrics_that_are_not_finite_numbers(self, file: Path, value: object) -> None:
        text = forge(file, lambda fields, table: fields["metrics"].update(coverage=value))
        assert "which JSON does not know" in text if value == float("inf") else "must be a finite number" in text

    def test_weights_that_are_not_finite_under_a_right_digest(self, file: Path) -> None:
        fields, table, data = split(file.read_bytes())
        nan = torch.full((len(data) // 4,), torch.nan).numpy().tobytes()
        file.write_bytes(forged(join(fields, table, nan), lambda fields, table: None))
        assert "Every weight must be finite; `controller.net.0.bias` has 32 of 32 that are not" in refusal(file)

    def test_a_key_that_is_stated_twice(self, file: Path) -> None:
        content = file.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = content[8 : 8 + length].rstrip()
        entry = header[header.rindex(b'"projection.radius_net.2.weight"') : -1]
        header = header[:-1] + b"," + entry + b"}"
        header += b" " * (-len(header) % 8)
        file.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
        assert EXACT in refusal(file)

    def test_what_it_quotes_is_cut_to_a_readable_length(self, file: Path) -> None:
        text = forge(file, lambda fields, table: fields.update(format_version="9" * 100_000))
        assert len(text) < 1000


def test_the_bomb_of_these_tests_is_live(tmp_path: Path) -> None:
    pickle.load(io.BytesIO(pickle.dumps(Bomb(tmp_path / "executed"))))
    assert (tmp_path / "executed").exists()


def test_home_in_a_path_is_expanded(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    checkpoint = read(file)
    save_again("~/home.safetensors", checkpoint)
    assert read("~/home.safetensors").digest == checkpoint.digest
    assert load(Path("~/home.safetensors")).architecture == checkpoint.architecture
    assert (tmp_path / "home.safetensors").is_file()
