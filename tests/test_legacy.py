"""Legacy files: what comes in is what the old programme computed, and nothing comes in that is not whole."""

import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from tvae import ternary
from tvae.architecture import Architecture
from tvae.checkpoint import Conversion, convert, read
from tvae.checkpoint.file import MAX_BYTES
from tvae.errors import CheckpointError
from tvae.metrics import evaluate, trit_table

N_TRITS = 3
LATENT = 4
CONFIG = {
    "latent_dim": LATENT,
    "hidden_dim": 6,
    "curvature": 1.0,
    "max_radius": 0.95,
    "use_controller": False,
    "dual_projection": True,
    "projection_layers": 1,
}


def legacy_state(
    *, dual: bool = True, layers: int = 1, hidden: int = 6, controller: bool = False, isp_c: float | None = 1.0
) -> OrderedDict[str, Tensor]:
    """Return random weights in the v5.11 layout, for operations of 3 trits and small widths."""
    rng = np.random.default_rng(5)
    state: OrderedDict[str, Tensor] = OrderedDict()

    def put(name: str, *shape: int, around: float = 0.0) -> None:
        state[name] = torch.from_numpy(rng.normal(around, 0.7, shape).astype(np.float32))

    def linear(name: str, n_in: int, n_out: int) -> None:
        put(f"{name}.weight", n_out, n_in)
        put(f"{name}.bias", n_out)

    def norm(name: str, n: int) -> None:
        put(f"{name}.weight", n, around=1.0)
        put(f"{name}.bias", n)

    for branch in "AB":
        for i, pair in enumerate([(N_TRITS, 8), (8, 7), (7, 5)]):
            linear(f"encoder_{branch}.encoder.{2 * i}", *pair)
        linear(f"encoder_{branch}.fc_mu", 5, LATENT)
        linear(f"encoder_{branch}.fc_logvar", 5, LATENT)
    for i, pair in enumerate([(LATENT, 5), (5, 6), (6, 3 * N_TRITS)]):
        linear(f"decoder_A.decoder.{2 * i}", *pair)
    for prefix in ("projection.proj_A.", "projection.proj_B.") if dual else ("projection.",):
        if isp_c is not None:
            state[f"{prefix}manifold.isp_c"] = torch.tensor(math.log(math.expm1(isp_c)))
        for layer in range(layers):
            linear(f"{prefix}direction_net.{3 * layer}", hidden if layer else LATENT, hidden)
            norm(f"{prefix}direction_net.{3 * layer + 1}", hidden)
            linear(f"{prefix}radius_net.{2 * layer}", 32 if layer else LATENT, 32)
        linear(f"{prefix}direction_net.{3 * layers}", hidden, LATENT)
        linear(f"{prefix}radius_net.{2 * layers}", 32, 1)
    if controller:
        linear("controller.net.0", 8, 32)
        norm("controller.net.1", 32)
        linear("controller.net.3", 32, 32)
        linear("controller.net.5", 32, 6)
    return state


def expected_points(
    state: dict[str, Tensor], branch: str, *, max_radius: float, dual: bool = True, layers: int = 1
) -> npt.NDArray[np.float64]:
    """Return the old programme's embedding of all operations, in plain numpy, float64."""
    w = {name: tensor.double().numpy() for name, tensor in state.items()}
    projection = f"projection.proj_{branch}." if dual else "projection."

    def linear(name: str, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def layer_norm(name: str, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def silu(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return x / (1 + np.exp(-x))

    h = ternary.operations(N_TRITS).astype(float)
    for i in (0, 2, 4):
        h = np.maximum(linear(f"encoder_{branch}.encoder.{i}", h), 0)
    latent = linear(f"encoder_{branch}.fc_mu", h)
    direction = radius = latent
    for i in range(layers):
        direction = silu(
            layer_norm(
                f"{projection}direction_net.{3 * i + 1}", linear(f"{projection}direction_net.{3 * i}", direction)
            )
        )
        radius = silu(linear(f"{projection}radius_net.{2 * i}", radius))
    direction = latent + linear(f"{projection}direction_net.{3 * layers}", direction)
    share = 1 / (1 + np.exp(-linear(f"{projection}radius_net.{2 * layers}", radius)))
    return direction / np.linalg.norm(direction, axis=-1, keepdims=True) * max_radius * share


def points(conversion: Conversion) -> npt.NDArray[np.float64]:
    with torch.no_grad():
        return conversion.model(trit_table(N_TRITS)).double().numpy()


def legacy_file(
    folder: Path, state: object = None, config: object = None, *, key: str = "model_state_dict", **more: Any
) -> Path:
    path = folder / "legacy.pt"
    payload = {key: legacy_state() if state is None else state, "config": CONFIG if config is None else config, **more}
    torch.save(payload, path)
    return path


def refusal(path: Path, branch: str = "A", **options: Any) -> str:
    with pytest.raises(CheckpointError, match=r".") as caught:
        convert(path, branch, **options)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


class TestWhatComesIn:
    @pytest.mark.parametrize("branch", ["A", "B"])
    @pytest.mark.parametrize(("dual", "layers"), [(True, 1), (False, 1), (True, 2), (False, 3)])
    def test_every_point_is_where_the_old_programme_put_it(
        self, tmp_path: Path, branch: str, dual: bool, layers: int
    ) -> None:
        state = legacy_state(dual=dual, layers=layers)
        conversion = convert(legacy_file(tmp_path, state), branch)
        expected = expected_points(state, branch, max_radius=0.95, dual=dual, layers=layers)
        np.testing.assert_allclose(points(conversion), expected, atol=2e-6)
        np.testing.assert_allclose(evaluate(conversion.model).norms, np.linalg.norm(expected, axis=-1), atol=2e-6)

    @pytest.mark.parametrize("curvature", [0.25, 2.0])
    def test_points_keep_their_coordinates_at_any_curvature(self, tmp_path: Path, curvature: float) -> None:
        state = legacy_state(isp_c=curvature)
        config = CONFIG | {"curvature": curvature, "max_radius": 0.6}
        conversion = convert(legacy_file(tmp_path, state, config), "A")
        assert conversion.model.architecture.curvature == curvature
        assert conversion.model.architecture.max_radius == pytest.approx(math.sqrt(curvature) * 0.6)
        np.testing.assert_allclose(points(conversion), expected_points(state, "A", max_radius=0.6), atol=2e-6)

    def test_the_architecture_is_read_off_the_tensors(self, tmp_path: Path) -> None:
        state = legacy_state(layers=2, hidden=66, controller=True)
        for name in [name for name in state if "radius_net" in name]:
            shape = tuple(33 if n == 32 else n for n in state[name].shape)
            state[name] = torch.zeros(shape)
        conversion = convert(legacy_file(tmp_path, state), "A")
        assert conversion.model.architecture == Architecture(
            n_trits=3,
            latent_dim=4,
            encoder_hidden=(8, 7, 5),
            decoder_hidden=(5, 6),
            hidden_dim=66,
            n_projection_layers=2,
            curvature=1.0,
            max_radius=0.95,
            use_controller=True,
        )

    def test_the_decoder_comes_too(self, tmp_path: Path) -> None:
        state = legacy_state()
        decoder = convert(legacy_file(tmp_path, state), "B").model.decoder.layers
        assert all(torch.equal(decoder[i].weight, state[f"decoder_A.decoder.{i}.weight"]) for i in (0, 2, 4))

    def test_the_controller_comes_too(self, tmp_path: Path) -> None:
        state = legacy_state(controller=True)
        conversion = convert(legacy_file(tmp_path, state), "A")
        assert conversion.trained == ("encoder", "decoder", "projection", "controller")
        assert torch.equal(conversion.model.controller.net[5].bias, state["controller.net.5.bias"])

    def test_older_files_keep_their_weights_under_model(self, tmp_path: Path) -> None:
        state = legacy_state()
        conversion = convert(legacy_file(tmp_path, state, key="model"), "A")
        np.testing.assert_allclose(points(conversion), expected_points(state, "A", max_radius=0.95), atol=2e-6)

    def test_files_of_the_format_before_torch_1_6_come_in(self, tmp_path: Path) -> None:
        path = tmp_path / "old.pt"
        torch.save({"model": legacy_state(), "config": CONFIG}, path, _use_new_zipfile_serialization=False)
        assert convert(path, "A").trained == ("encoder", "decoder", "projection")

    def test_metrics_are_computed_and_never_believed(self, tmp_path: Path) -> None:
        conversion = convert(legacy_file(tmp_path, metrics={"hierarchy": -0.99}), "A")
        assert conversion.metrics == evaluate(conversion.model).metrics()
        assert "The file's own metrics were not used; they were computed anew." in conversion.notes

    def test_what_came_in_can_be_saved_and_read(self, tmp_path: Path) -> None:
        conversion = convert(legacy_file(tmp_path), "B")
        conversion.save(tmp_path / "checkpoint.safetensors")
        checkpoint = read(tmp_path / "checkpoint.safetensors")
        assert checkpoint.metrics == conversion.metrics
        assert checkpoint.training["start"] == "legacy"
        assert checkpoint.training["legacy_file"] == "legacy.pt"
        assert checkpoint.training["legacy_branch"] == "B"
        assert checkpoint.training["notes"] == list(conversion.notes)
        assert torch.equal(checkpoint.model(trit_table(N_TRITS)), conversion.model(trit_table(N_TRITS)))

    def test_reading_writes_nothing(self, tmp_path: Path) -> None:
        convert(legacy_file(tmp_path), "A")
        assert [path.name for path in tmp_path.iterdir()] == ["legacy.pt"]


class TestNotes:
    def test_a_file_that_agrees_with_itself_has_none(self, tmp_path: Path) -> None:
        assert convert(legacy_file(tmp_path), "A").notes == ()

    @pytest.mark.parametrize(
        ("name", "value", "note"),
        [
            ("latent_dim", 16, "`latent_dim` is 16 in `config`, 4 in the tensors; the tensors hold."),
            ("hidden_dim", "6", "`hidden_dim` is '6' in `config`, 6 in the tensors; the tensors hold."),
            ("projection_layers", 2, "`projection_layers` is 2 in `config`, 1 in the tensors; the tensors hold."),
            ("use_controller", True, "`use_controller` is True in `config`, False in the tensors; the tensors hold."),
            (
                "dual_projection",
                False,
                "`dual_projection` is False in `config`, True in the tensors; the tensors hold.",
            ),
        ],
    )
    def test_a_config_that_disagrees_with_the_tensors_is_reported(
        self, tmp_path: Path, name: str, value: object, note: str
    ) -> None:
        assert convert(legacy_file(tmp_path, config=CONFIG | {name: value}), "A").notes == (note,)

    def test_a_tensor_that_stores_another_curvature_is_reported(self, tmp_path: Path) -> None:
        conversion = convert(legacy_file(tmp_path, legacy_state(isp_c=0.5)), "A")
        assert conversion.model.architecture.curvature == 1.0
        (note,) = conversion.notes
        assert "`curvature` is 1.0 in `config`, 0.5 in the tensor `isp_c`" in note
        assert "1.0 was taken" in note

    def test_a_missing_curvature_is_taken_from_the_tensor(self, tmp_path: Path) -> None:
        config = {k: v for k, v in CONFIG.items() if k != "curvature"}
        conversion = convert(legacy_file(tmp_path, legacy_state(isp_c=0.5), config), "A")
        assert conversion.model.architecture.curvature == 0.5
        assert conversion.notes == ("`config` states no curvature; 0.5 was taken from the tensor `isp_c`.",)

    @pytest.mark.parametrize("config", [{}, "a text"])
    def test_missing_settings_are_the_old_defaults_and_said_to_be(self, tmp_path: Path, config: object) -> None:
        conversion = convert(legacy_file(tmp_path, legacy_state(isp_c=None), config), "A")
        architecture = conversion.model.architecture
        assert (architecture.curvature, architecture.max_radius) == (1.0, 0.95)
        assert conversion.notes[-2:] == (
            "The file states no curvature; 1.0 was taken, the legacy programme's default.",
            "`config` states no `max_radius`; 0.95 was taken, the legacy programme's default.",
        )

    def test_a_file_without_config_says_so(self, tmp_path: Path) -> None:
        torch.save({"model": legacy_state()}, tmp_path / "f.pt")
        assert convert(tmp_path / "f.pt", "A").notes[0].startswith("The file has no `config`")

    def test_branch_b_says_whose_decoder_it_has(self, tmp_path: Path) -> None:
        assert convert(legacy_file(tmp_path), "B").notes == (
            "The file has no decoder for branch B; decoder A was taken, as the legacy programme did.",
        )


class TestPointsOutsideTheBall:
    CONFIG = CONFIG | {"curvature": 2.0, "max_radius": 0.99}

    def test_they_are_refused_with_the_reason_and_the_option(self, tmp_path: Path) -> None:
        text = refusal(legacy_file(tmp_path, legacy_state(isp_c=2.0), self.CONFIG))
        assert "inside the ball, which at curvature 2.0 has the radius 0.7071" in text
        assert "the file's `max_radius` of 0.99 puts points outside" in text
        assert "Pass curvature_from=one to read the same coordinates in the ball of curvature 1." in text

    def test_the_option_reads_the_same_coordinates_at_curvature_one(self, tmp_path: Path) -> None:
        state = legacy_state(isp_c=2.0)
        conversion = convert(legacy_file(tmp_path, state, self.CONFIG), "A", curvature_from="one")
        assert conversion.model.architecture.curvature == 1.0
        assert conversion.model.architecture.max_radius == 0.99
        np.testing.assert_allclose(points(conversion), expected_points(state, "A", max_radius=0.99), atol=2e-6)
        assert conversion.notes == ("Curvature 1 was asked for; the file's `curvature` is 2.0.",)

    def test_no_option_helps_where_even_curvature_one_leaves_them_outside(self, tmp_path: Path) -> None:
        path = legacy_file(tmp_path, config=CONFIG | {"max_radius": 1.0})
        assert "No curvature that the file states puts them inside" in refusal(path)
        assert "No curvature that the file states puts them inside" in refusal(path, curvature_from="one")

    def test_a_boundary_that_touches_the_ball_is_refused(self, tmp_path: Path) -> None:
        config = CONFIG | {"curvature": 4.0, "max_radius": 0.5}
        assert "has the radius 0.5000" in refusal(legacy_file(tmp_path, legacy_state(isp_c=4.0), config))


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


class TestRefusals:
    @pytest.mark.parametrize("where", ["model_state_dict", "config", "metrics"])
    def test_code_in_a_file_is_not_executed(self, tmp_path: Path, where: str) -> None:
        torch.save({"model_state_dict": legacy_state(), where: Bomb(tmp_path / "executed")}, tmp_path / "f.pt")
        assert "must be a file of torch.save that holds tensors and plain values only" in refusal(tmp_path / "f.pt")
        assert not (tmp_path / "executed").exists()

    def test_code_in_a_plain_pickle_is_not_executed(self, tmp_path: Path) -> None:
        (tmp_path / "f.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
        assert "must be a file of torch.save" in refusal(tmp_path / "f.pt")
        assert not (tmp_path / "executed").exists()

    @pytest.mark.parametrize("content", [b"nonsense", b"PK\x03\x04 no archive", b"\x80\x02."])
    def test_damaged_files(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "f.pt").write_bytes(content)
        assert "must be a file of torch.save" in refusal(tmp_path / "f.pt")

    def test_a_file_that_was_cut_short(self, tmp_path: Path) -> None:
        path = legacy_file(tmp_path)
        path.write_bytes(path.read_bytes()[:-100])
        assert "must be a file of torch.save" in refusal(path)

    def test_an_archive_that_unpacks_to_more_than_it_may(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "f.pt", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data/0", bytes(MAX_BYTES + 1))
        assert f"must unpack to at most {MAX_BYTES} bytes" in refusal(tmp_path / "f.pt")

    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert "No such file or directory" in refusal(tmp_path / "none")

    def test_an_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "f.pt").touch()
        assert "it is empty" in refusal(tmp_path / "f.pt")

    def test_a_folder(self, tmp_path: Path) -> None:
        assert "found a folder" in refusal(tmp_path)

    @pytest.mark.parametrize("branch", ["C", "a", ""])
    def test_another_branch(self, tmp_path: Path, branch: str) -> None:
        assert f"`branch` must be A or B, found {branch!r}" in refusal(legacy_file(tmp_path), branch)

    def test_another_source_of_the_curvature(self, tmp_path: Path) -> None:
        assert "`curvature_from` must be file or one, found 'two'" in refusal(
            legacy_file(tmp_path), curvature_from="two"
        )

    @pytest.mark.parametrize("payload", [[1, 2], torch.zeros(3), "text"])
    def test_something_that_is_not_a_dict(self, tmp_path: Path, payload: object) -> None:
        torch.save(payload, tmp_path / "f.pt")
        assert f"must be a dict, found {type(payload).__name__}" in refusal(tmp_path / "f.pt")

    def test_a_dict_without_weights(self, tmp_path: Path) -> None:
        torch.save({"weights": legacy_state(), "epoch": 3}, tmp_path / "f.pt")
        text = refusal(tmp_path / "f.pt")
        assert "under `model_state_dict` or `model`; found the keys ['epoch', 'weights']" in text

    def test_weights_that_are_no_mapping(self, tmp_path: Path) -> None:
        assert "under `model_state_dict` or `model`" in refusal(legacy_file(tmp_path, state=[1]))

    def test_unknown_tensors(self, tmp_path: Path) -> None:
        state = legacy_state() | {"extra.weight": torch.zeros(1), 7: torch.zeros(1)}
        assert "found also ['7', 'extra.weight']" in refusal(legacy_file(tmp_path, state))

    @pytest.mark.parametrize(
        "name", ["projection.proj_A.direction_net.2.weight", "decoder_A.decoder.9.bias", "projection.radius_net.0.bias"]
    )
    def test_tensors_in_a_place_that_the_branch_does_not_have(self, tmp_path: Path, name: str) -> None:
        assert f"unknown: ['{name}']" in refusal(legacy_file(tmp_path, legacy_state() | {name: torch.zeros(1)}))

    @pytest.mark.parametrize(
        "name",
        ["encoder_A.fc_mu.bias", "projection.proj_A.radius_net.0.bias", "projection.proj_A.direction_net.1.weight"],
    )
    def test_missing_tensors(self, tmp_path: Path, name: str) -> None:
        state = legacy_state()
        del state[name]
        assert f"missing: ['{name}']; unknown: none" in refusal(legacy_file(tmp_path, state))

    @pytest.mark.parametrize("part", ["encoder_A.encoder.", "decoder_A.decoder.", "projection.proj_A.radius_net."])
    def test_a_missing_part(self, tmp_path: Path, part: str) -> None:
        state = {name: tensor for name, tensor in legacy_state().items() if not name.startswith(part)}
        assert f"must have the linear layers `{part}*.weight`; found none" in refusal(legacy_file(tmp_path, state))

    def test_the_other_branch_may_be_missing(self, tmp_path: Path) -> None:
        state = {name: tensor for name, tensor in legacy_state().items() if "_B." not in name}
        path = legacy_file(tmp_path, state)
        assert convert(path, "A").notes == ()
        assert "must have the linear layers `encoder_B.encoder.*.weight`" in refusal(path, "B")

    @pytest.mark.parametrize(
        ("name", "shape", "expected"),
        [
            ("encoder_A.fc_mu.weight", (5, 5), [4, 5]),
            ("encoder_A.encoder.2.weight", (7, 9), [7, 8]),
            ("decoder_A.decoder.4.bias", (9, 1), [9]),
            ("projection.proj_A.radius_net.0.bias", (31,), [32]),
            ("projection.proj_A.direction_net.1.bias", (), [6]),
        ],
    )
    def test_wrong_shapes(self, tmp_path: Path, name: str, shape: tuple[int, ...], expected: list[int]) -> None:
        text = refusal(legacy_file(tmp_path, legacy_state() | {name: torch.zeros(shape)}))
        assert f"`{name}` must have the shape {expected}, found {list(shape)}" in text

    def test_widths_beyond_every_architecture(self, tmp_path: Path) -> None:
        # A stride of 0 makes a tensor of 10^12 values out of one.
        huge = torch.zeros(1).expand(10**6, 10**6)
        text = refusal(legacy_file(tmp_path, legacy_state() | {"encoder_A.encoder.0.weight": huge}))
        assert "must give an architecture that can be built" in text

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_weights_that_are_not_finite(self, tmp_path: Path, bad: float) -> None:
        state = legacy_state()
        state["encoder_A.fc_mu.bias"][1] = bad
        assert "`encoder_A.fc_mu.bias` has 1 of 4 that are not" in refusal(legacy_file(tmp_path, state))

    def test_weights_whose_radii_overflow(self, tmp_path: Path) -> None:
        state = legacy_state()
        state["encoder_A.fc_mu.weight"].fill_(3e38)
        assert "The model is not usable" in refusal(legacy_file(tmp_path, state))

    def test_another_precision(self, tmp_path: Path) -> None:
        state = legacy_state()
        state["encoder_A.fc_mu.bias"] = state["encoder_A.fc_mu.bias"].double()
        text = refusal(legacy_file(tmp_path, state))
        assert (
            "`encoder_A.fc_mu.bias` must be a dense float32 tensor with values, found torch.strided of torch.float64"
            in text
        )

    def test_a_sparse_tensor(self, tmp_path: Path) -> None:
        state = legacy_state()
        state["encoder_A.fc_mu.weight"] = state["encoder_A.fc_mu.weight"].to_sparse()
        assert "found torch.sparse_coo of torch.float32" in refusal(legacy_file(tmp_path, state))

    def test_a_tensor_without_values(self, tmp_path: Path) -> None:
        state = legacy_state() | {"encoder_A.fc_mu.bias": torch.empty(4, device="meta")}
        assert "on meta" in refusal(legacy_file(tmp_path, state))

    def test_something_else_than_a_tensor(self, tmp_path: Path) -> None:
        text = refusal(legacy_file(tmp_path, legacy_state() | {"encoder_A.fc_mu.bias": [1.0]}))
        assert "`encoder_A.fc_mu.bias` must be a tensor, found list" in text

    @pytest.mark.parametrize("name", ["curvature", "max_radius"])
    @pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, "1", None, True])
    def test_settings_that_are_no_positive_numbers(self, tmp_path: Path, name: str, value: object) -> None:
        text = refusal(legacy_file(tmp_path, config=CONFIG | {name: value}))
        assert f"The file's `{name}` must be a positive number, found {value!r}" in text

    def test_a_stored_curvature_that_is_no_single_number(self, tmp_path: Path) -> None:
        state = legacy_state() | {"projection.proj_A.manifold.isp_c": torch.zeros(2)}
        assert "`isp_c` must be one number, found shape [2]" in refusal(legacy_file(tmp_path, state))
