"""Legacy files: what comes in is what the old programme computed, and nothing comes in that is not whole."""

import hashlib
import io
import itertools
import math
import pickle
import re
import struct
import sys
import tarfile
import time
import tracemalloc
import zipfile
from argparse import Namespace
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import legacy_file
import numpy as np
import numpy.typing as npt
import pytest
import torch
from checkpoint_bytes import Bomb
from torch import Tensor

from tvae import ternary
from tvae.checkpoint import Conversion, convert, read
from tvae.checkpoint.file import MAX_BYTES
from tvae.config.architecture import Architecture
from tvae.errors import CheckpointError
from tvae.metrics import evaluate, trit_table

N_TRITS = 3
LATENT = 4
CONFIG = legacy_file.CONFIG | {"latent_dim": LATENT, "hidden_dim": 6}


def legacy_state(*, hidden: int = 6, **options: Any) -> OrderedDict[str, Tensor]:
    """Return random weights for operations of 3 trits, with small widths."""
    return legacy_file.legacy_state(N_TRITS, LATENT, (8, 7, 5), (5, 6), hidden, **options)


def expected_points(state: Mapping[str, Tensor], branch: str, *, max_radius: float) -> npt.NDArray[np.float64]:
    """Return the old programme's embedding of all operations, in plain numpy, float64."""
    w = {name: tensor.double().numpy() for name, tensor in state.items()}
    dual = any(name.startswith("projection.proj_") for name in w)
    projection = f"projection.proj_{branch}." if dual else "projection."
    layers = sum(name.startswith(f"{projection}radius_net.") for name in w) // 2 - 1

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
        inner = linear(f"{projection}direction_net.{3 * i}", direction)
        direction = silu(layer_norm(f"{projection}direction_net.{3 * i + 1}", inner))
        radius = silu(linear(f"{projection}radius_net.{2 * i}", radius))
    direction = latent + linear(f"{projection}direction_net.{3 * layers}", direction)
    share = 1 / (1 + np.exp(-linear(f"{projection}radius_net.{2 * layers}", radius)))
    return direction / np.linalg.norm(direction, axis=-1, keepdims=True) * max_radius * share


def require_points(
    conversion: Conversion, state: Mapping[str, Tensor] | None = None, branch: str = "A", max_radius: float = 0.95
) -> None:
    """Require that every point is where the old programme put it."""
    with torch.no_grad():
        points = conversion.model(trit_table(N_TRITS)).double().numpy()
    expected = expected_points(legacy_state() if state is None else state, branch, max_radius=max_radius)
    np.testing.assert_allclose(points, expected, atol=2e-6 * max(1, max_radius))


def file(
    folder: Path, state: object = None, config: object = None, *, key: str = "model_state_dict", **more: Any
) -> Path:
    payload = {key: legacy_state() if state is None else state, "config": CONFIG if config is None else config, **more}
    return saved(folder, payload)


def saved(folder: Path, payload: object, *, old: bool = False, protocol: int = 2) -> Path:
    """Write a file as torch does, or in the form that it had before torch 1.6."""
    path = folder / "legacy.pt"
    torch.save(payload, path, _use_new_zipfile_serialization=not old, pickle_protocol=protocol)
    return path


def written(folder: Path, content: bytes) -> Path:
    path = folder / "legacy.pt"
    path.write_bytes(content)
    return path


def without(name: str) -> dict[str, object]:
    return {key: value for key, value in CONFIG.items() if key != name}


def adam() -> dict[str, Any]:
    """The state of an Adam that has made a step, by hand: to make one imports torch's compiler, which takes seconds."""
    moments = {"step": torch.tensor(1.0), "exp_avg": torch.full((3,), 0.1), "exp_avg_sq": torch.full((3,), 0.001)}
    return {"state": {0: moments}, "param_groups": [{"lr": 0.001, "betas": (0.9, 0.999), "params": [0]}]}


def refusal(path: Path, branch: str = "A", **options: Any) -> str:
    with pytest.raises(CheckpointError, match=r".") as caught:
        convert(path, branch, **options)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


class TestWhatComesIn:
    @pytest.mark.parametrize(("dual", "layers"), [(True, 1), (False, 1), (True, 2), (False, 3)])
    def test_every_point_is_where_the_old_programme_put_it(
        self, tmp_path: Path, subtests: pytest.Subtests, dual: bool, layers: int
    ) -> None:
        state = legacy_state(dual=dual, layers=layers)
        path = file(tmp_path, state)
        for branch in "AB":
            with subtests.test(branch):
                require_points(convert(path, branch), state, branch)

    @pytest.mark.parametrize("curvature", [0.25, 2.0])
    def test_points_keep_their_coordinates_at_any_curvature(self, tmp_path: Path, curvature: float) -> None:
        state = legacy_state(isp_c=curvature)
        config = CONFIG | {"curvature": curvature, "max_radius": 0.6}
        conversion = convert(file(tmp_path, state, config), "A")
        assert conversion.model.architecture.curvature == curvature
        assert conversion.model.architecture.max_radius == pytest.approx(math.sqrt(curvature) * 0.6)
        require_points(conversion, state, max_radius=0.6)

    def test_the_architecture_is_read_off_the_tensors_and_all_components_come(self, tmp_path: Path) -> None:
        state = legacy_state(layers=2, hidden=66, controller=True)
        conversion = convert(file(tmp_path, state), "A")
        assert conversion.model.architecture == Architecture(
            n_trits=3,
            latent_dim=4,
            encoder_hidden=(8, 7, 5),
            decoder_hidden=(5, 6),
            hidden_dim=66,
            n_projection_layers=2,
            curvature=1.0,
            max_radius=0.95,
            centred=False,
            use_controller=True,
        )
        assert conversion.trained == ("encoder", "decoder", "projection", "controller")
        require_points(conversion, state)
        decoder, controller = conversion.model.decoder.layers, conversion.model.controller.net
        assert all(torch.equal(decoder[i].weight, state[f"decoder_A.decoder.{i}.weight"]) for i in (0, 2, 4))
        assert all(torch.equal(controller[i].bias, state[f"controller.net.{i}.bias"]) for i in (0, 1, 3, 5))

    def test_metrics_are_computed_and_never_believed(self, tmp_path: Path) -> None:
        conversion = convert(file(tmp_path, metrics={"hierarchy": -0.99}), "A")
        assert conversion.metrics == evaluate(conversion.model).metrics()
        assert conversion.notes == ("The file's own metrics were not used; they were recomputed.",)

    def test_what_came_in_is_saved_with_what_was_stated_given_and_read_off(self, tmp_path: Path) -> None:
        path = file(tmp_path, legacy_state(layers=2, isp_c=2.0), without("max_radius"), key="model_state")
        conversion = convert(path, "B", max_radius=0.99)
        assert [path.name for path in tmp_path.iterdir()] == ["legacy.pt"]
        conversion.save(tmp_path / "c.safetensors")
        checkpoint = read(tmp_path / "c.safetensors")
        assert checkpoint.metrics == conversion.metrics
        assert torch.equal(checkpoint.model(trit_table(N_TRITS)), conversion.model(trit_table(N_TRITS)))
        widths = {"encoder_hidden": [8, 7, 5], "decoder_hidden": [5, 6], "hidden_dim": 6, "projection_layers": 2}
        parts = {"use_controller": False, "dual_projection": True, "isp_c": 2.0}
        assert checkpoint.training == {
            "start": "legacy",
            "legacy_file": "legacy.pt",
            "legacy_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "legacy_branch": "B",
            "legacy_weights": "model_state",
            "legacy_stated": {f"config.{name}": value for name, value in without("max_radius").items()},
            "legacy_given": {"curvature": "auto", "max_radius": 0.99, "override": False},
            "legacy_read_off_tensors": {"n_trits": 3, "latent_dim": 4} | widths | parts,
            "notes": list(conversion.notes),
        }


class TestNotes:
    def test_a_config_that_disagrees_with_the_tensors_is_reported(self, tmp_path: Path) -> None:
        others = {"latent_dim": 16, "hidden_dim": "6", "projection_layers": 2, "use_controller": True}
        conversion = convert(file(tmp_path, config=CONFIG | others | {"dual_projection": False}), "A")
        assert conversion.notes == (
            "`config.latent_dim` is 16 in the file, 4 in the tensors; the tensors hold.",
            "`config.hidden_dim` is '6' in the file, 6 in the tensors; the tensors hold.",
            "`config.projection_layers` is 2 in the file, 1 in the tensors; the tensors hold.",
            "`config.use_controller` is True in the file, False in the tensors; the tensors hold.",
            "`config.dual_projection` is False in the file, True in the tensors; the tensors hold.",
        )

    def test_a_tensor_that_stores_another_curvature_is_reported(self, tmp_path: Path) -> None:
        conversion = convert(file(tmp_path, legacy_state(isp_c=0.5)), "A")
        assert conversion.model.architecture.curvature == 1.0
        assert conversion.notes == (
            "The tensor `isp_c` stores the curvature 0.5, which takes no part in the embedding; 1 was taken.",
        )

    def test_branch_b_says_whose_decoder_it_has(self, tmp_path: Path) -> None:
        assert convert(file(tmp_path), "B").notes == (
            "The file has no decoder for branch B; decoder A was taken, as the legacy programme did.",
        )


class TestNothingIsGuessed:
    def test_a_file_that_states_no_max_radius_is_refused_with_the_usual_values(self, tmp_path: Path) -> None:
        text = refusal(file(tmp_path, config=without("max_radius")))
        assert text.startswith("The file does not state `max_radius`. Pass max_radius=0.95 (")
        assert " or max_radius=0.99 (" in text
        assert "curvature" not in text

    def test_a_file_that_states_neither_is_refused_once_for_both(
        self, tmp_path: Path, subtests: pytest.Subtests
    ) -> None:
        for config in ({}, "a text", Colour.RED, {"model": None, "curvature": None, "max_radius": None}):
            with subtests.test(str(config)):
                text = refusal(file(tmp_path, legacy_state(isp_c=2.0), config))
                assert "does not state `curvature`. Pass curvature=1 or curvature=2" in text
                assert "The tensor `isp_c` stores 2." in text
                assert "does not state `max_radius`. Pass max_radius=0.95" in text

    @pytest.mark.parametrize("max_radius", [0.95, 0.99])
    def test_what_is_given_counts_where_the_file_is_silent(self, tmp_path: Path, max_radius: float) -> None:
        path = saved(tmp_path, {"model": legacy_state()})
        conversion = convert(path, "A", curvature=1.0, max_radius=max_radius)
        require_points(conversion, max_radius=max_radius)
        assert conversion.notes == (
            "The file does not state `curvature`; 1 was given.",
            f"The file does not state `max_radius`; {max_radius} was given.",
        )

    def test_settings_are_found_where_scripts_put_them(self, tmp_path: Path, subtests: pytest.Subtests) -> None:
        state = legacy_state(isp_c=0.5)
        for place in ("", "config", "config.model", "args", "hyper_parameters.model", "config.model.projection"):
            settings: dict[str, Any] = {"curvature": 0.5, "max_radius": 0.8}
            for name in reversed(place.split(".") if place else []):
                settings = {name: settings}
            with subtests.test(place):
                conversion = convert(saved(tmp_path, {"model_state_dict": state} | settings), "A")
                require_points(conversion, max_radius=0.8)
                assert conversion.model.architecture.curvature == 0.5
                within = f"{place}." if place else ""
                stated = {f"{within}curvature": 0.5, f"{within}max_radius": 0.8}
                assert conversion.training["legacy_stated"] == stated

    def test_a_setting_of_something_else_is_no_statement(self, tmp_path: Path) -> None:
        config = without("curvature") | {"loss": {"geodesic": {"curvature": 1.0}}}
        assert refusal(file(tmp_path, config=config)).startswith("The file does not state `curvature`.")

    def test_numbers_in_other_dress_are_numbers(self, tmp_path: Path, subtests: pytest.Subtests) -> None:
        for value in (np.float32(0.95), np.float64(0.95), torch.tensor(0.95), torch.tensor([0.95])):
            with subtests.test(repr(value)):
                path = file(tmp_path, config=CONFIG | {"max_radius": value, "curvature": np.int64(1)})
                for options in ({}, {"curvature": 1, "max_radius": 0.95}, {"override": True}):
                    conversion = convert(path, "A", **options)
                    assert conversion.model.architecture.max_radius == pytest.approx(0.95, rel=1e-7)
                    assert conversion.model.architecture.curvature == 1.0
                    assert conversion.notes == ()

    @pytest.mark.parametrize(("name", "given"), [("max_radius", 0.99), ("curvature", 0.5)])
    def test_an_option_that_contradicts_the_file_is_refused_unless_it_is_to_count(
        self, tmp_path: Path, name: str, given: float
    ) -> None:
        path = file(tmp_path)
        stated = f"{CONFIG[name]:g}"
        text = refusal(path, **{name: given})
        assert text.startswith(f"`{name}` was given as {given}, and the file states {stated} (`config.{name}`).")
        assert "pass override=true to make yours count" in text
        conversion = convert(path, "A", override=True, **{name: given})  # type: ignore[arg-type]
        require_points(conversion, max_radius=given if name == "max_radius" else 0.95)
        note = f"The file states `{name}` {stated} (`config.{name}`); {given} was given, and was to count."
        assert note in conversion.notes

    def test_a_file_that_contradicts_itself_is_refused(self, tmp_path: Path) -> None:
        path = file(tmp_path, config=CONFIG | {"model": {"max_radius": 0.99}})
        text = refusal(path)
        assert "must state one `max_radius`, found 0.95 (`config.max_radius`) and 0.99 (`config.model.max_rad" in text
        assert "Pass max_radius=0.95, or the other, with override=true." in text
        assert "override=true" in refusal(path, max_radius=0.99)
        assert convert(path, "A", max_radius=0.99, override=True).model.architecture.max_radius == 0.99

    @pytest.mark.parametrize("name", ["curvature", "max_radius"])
    def test_settings_and_options_that_are_no_positive_numbers(
        self, tmp_path: Path, subtests: pytest.Subtests, name: str
    ) -> None:
        numbers = [0.0, -1.0, math.nan, math.inf, True]
        for value in (*numbers, "1", [0.95], Path("x"), 10**5000):
            with subtests.test(f"the file's {type(value).__name__}"):
                path = file(tmp_path, config=CONFIG | {name: value})
                text = refusal(path)
                assert f"The file's `{name}` must be a positive number, found " in text
                assert f"(`config.{name}`)" in text
                assert f"Pass {name}=" in text
                assert convert(path, "A", override=True, **{name: 0.9})  # type: ignore[arg-type]
        path = file(tmp_path)
        for value in numbers:
            with subtests.test(f"the option {value}"):
                assert f"`{name}` must be a positive number, got {value}" in refusal(path, **{name: value})


class TestPointsOutsideTheBall:
    def test_they_are_refused_with_the_reason_and_what_reads_them(self, tmp_path: Path) -> None:
        state = legacy_state(isp_c=2.0)
        path = file(tmp_path, state, CONFIG | {"curvature": 2.0, "max_radius": 0.99})
        text = refusal(path)
        assert "inside the ball, which at curvature 2 has the radius 0.7071" in text
        assert "the `max_radius` of 0.99 puts points outside" in text
        assert "Pass curvature=1 max_radius=0.99 override=true to read the same coordinates in the ball of" in text
        conversion = convert(path, "A", curvature=1, max_radius=0.99, override=True)
        assert conversion.model.architecture.curvature == 1.0
        assert conversion.model.architecture.max_radius == 0.99
        require_points(conversion, state, max_radius=0.99)

    def test_where_even_curvature_one_leaves_them_outside_a_smaller_one_helps(self, tmp_path: Path) -> None:
        path = file(tmp_path, config=CONFIG | {"max_radius": 2.0})
        assert "Pass curvature=0.23 max_radius=2 override=true" in refusal(path)
        require_points(convert(path, "A", curvature=0.23, max_radius=2, override=True), max_radius=2)

    @pytest.mark.parametrize("max_radius", [0.5, 0.5 - 1e-7])
    def test_a_boundary_that_touches_the_ball_is_refused(self, tmp_path: Path, max_radius: float) -> None:
        config = CONFIG | {"curvature": 4.0, "max_radius": max_radius}
        assert "has the radius 0.5000" in refusal(file(tmp_path, legacy_state(isp_c=4.0), config))


class Colour(Enum):
    RED = 1


@dataclass
class Settings:
    """As a script of that time had them."""

    curvature: float = 1.0
    max_radius: float = 0.95


@dataclass(slots=True)
class SlottedSettings:
    curvature: float = 1.0
    max_radius: float = 0.95


class DictConfig:
    """Pickled as OmegaConf's is: values in nodes, within `_content`."""

    def __init__(self, **values: object) -> None:
        self._metadata = None
        self._content = {name: Node(value) for name, value in values.items()}


class Node:
    def __init__(self, value: object) -> None:
        self._val = value


class AttributeDict(dict[str, object]):
    """A dict in another dress, such as EasyDict."""


def cooperative_loss() -> None:
    """A function beside the weights."""


class TestWhatPeopleHave:
    def test_weights_come_in_from_wherever_they_are(self, tmp_path: Path, subtests: pytest.Subtests) -> None:
        prefixes = ("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.")
        keys = ("model_state_dict", "model_state", "model", "state_dict")
        # Where they are and how they are named are read apart from one another.
        cases = [*((key, "") for key in keys), *(("model", prefix) for prefix in prefixes)]
        for (key, prefix), old in itertools.product(cases, (False, True)):
            with subtests.test(f"{key} {prefix} {old}"):
                state = {f"{prefix}{name}": tensor for name, tensor in legacy_state().items()}
                payload = {key: state, "config": CONFIG, "epoch": 3, "optimizer_state": adam()}
                conversion = convert(saved(tmp_path, payload, old=old), "A")
                require_points(conversion)
                assert conversion.training["legacy_weights"] == key

    def test_bare_weights_come_in_with_both_options(self, tmp_path: Path) -> None:
        path = saved(tmp_path, legacy_state())
        assert "Pass max_radius=0.95" in refusal(path)
        require_points(convert(path, "B", curvature=1, max_radius=0.99), branch="B", max_radius=0.99)

    def test_bare_weights_come_in_with_the_settings_beside_them(self, tmp_path: Path) -> None:
        require_points(convert(saved(tmp_path, legacy_state() | {"config": CONFIG, "epoch": 3}), "A"))

    @pytest.mark.parametrize("protocol", [3, 4, 5])
    def test_other_protocols_of_pickle_come_in(self, tmp_path: Path, protocol: int) -> None:
        beside = {"at": Path("/x"), "array": np.arange(9.0), "max_radius": np.float64(0.95)}
        payload = {"model": legacy_state(), "config": CONFIG | beside}
        assert convert(saved(tmp_path, payload, protocol=protocol), "A").notes == ()

    def test_what_is_called_model_may_be_something_else(self, tmp_path: Path, subtests: pytest.Subtests) -> None:
        for model in (Settings, torch.nn.Linear(2, 2), "TernaryVAE", {"name": "TernaryVAE"}):
            with subtests.test(str(model)):
                conversion = convert(file(tmp_path, model=model), "A")
                assert conversion.training["legacy_weights"] == "model_state_dict"

    def test_one_set_of_weights_may_have_two_names(self, tmp_path: Path) -> None:
        state = legacy_state()
        assert convert(file(tmp_path, state, state_dict=state), "A").notes == ()

    def test_weights_and_settings_within_the_model_come_in(self, tmp_path: Path) -> None:
        path = saved(tmp_path, {"model": {"state_dict": legacy_state(), "config": CONFIG}})
        assert convert(path, "A").training["legacy_weights"] == "model.state_dict"

    def test_submodules_that_were_wrapped_come_in(self, tmp_path: Path) -> None:
        state = {name.replace(".proj_A.", ".module.proj_A._orig_mod."): x for name, x in legacy_state().items()}
        require_points(convert(file(tmp_path, state), "A"))

    def test_parameters_views_and_transposed_tensors_come_in(self, tmp_path: Path) -> None:
        state = {name: torch.nn.Parameter(tensor) for name, tensor in legacy_state().items()}
        name = "encoder_A.encoder.2.weight"
        wide = torch.zeros(20, 20)
        wide[5:13, 3:10] = state[name].detach().T
        conversion = convert(file(tmp_path, state | {name: wide[5:13, 3:10].T}), "A")
        require_points(conversion)

    def test_tensors_that_share_their_bytes_come_in_as_tensors_of_their_own(self, tmp_path: Path) -> None:
        state = legacy_state()
        state["encoder_A.fc_mu.bias"] = state["encoder_A.fc_logvar.bias"]
        encoder = convert(file(tmp_path, state), "A").model.encoder
        with torch.no_grad():
            encoder.mean.bias.zero_()
        assert torch.equal(encoder.log_variance.bias, state["encoder_A.fc_logvar.bias"])

    @pytest.mark.parametrize("layers", [1, 2, 3])
    def test_dropout_layers_shift_the_numbers(self, tmp_path: Path, layers: int) -> None:
        """A dropout follows every activation: of two layers, or of three with a normalisation."""
        state = legacy_state(layers=layers, controller=True)

        def shifted(found: re.Match[str]) -> str:
            net, at = found[1], int(found[2])
            if net == "controller.net":
                return f"{net}.{ {0: 0, 1: 1, 3: 4, 5: 7}[at] }."
            return f"{net}.{at + at // (3 if net == 'direction_net' else 2)}."

        nets = r"(direction_net|radius_net|encoder(?=\.\d)|decoder(?=\.\d)|controller\.net)\.(\d+)\."
        renamed = {re.sub(nets, shifted, name): x for name, x in state.items()}
        assert {"encoder_A.encoder.6.bias", "decoder_A.decoder.6.bias", "controller.net.7.bias"} < set(renamed)
        config = CONFIG | {"projection_dropout": 0.1, "projection_layers": layers}
        path = file(tmp_path, renamed, config)
        for branch in "AB":
            conversion = convert(path, branch)
            require_points(conversion, state, branch)
            assert torch.equal(conversion.model.decoder.layers[4].weight, state["decoder_A.decoder.4.weight"])
            assert torch.equal(conversion.model.controller.net[5].bias, state["controller.net.5.bias"])

    def test_other_precisions_come_in_and_are_said(self, tmp_path: Path, subtests: pytest.Subtests) -> None:
        double = {name: tensor.double() / 3 for name, tensor in legacy_state().items()}
        cases: list[tuple[str, Mapping[str, Tensor], str]] = [
            (str(dtype).removeprefix("torch."), {n: x.to(dtype) for n, x in legacy_state().items()}, "exact in float32")
            for dtype in (torch.float16, torch.bfloat16, torch.float64)
        ]
        for dtype, state, how in [*cases, ("float64", double, "rounded to float32, by at most ")]:
            for old in (False, True):
                with subtests.test(f"{dtype}, {how}, {old}"):
                    conversion = convert(saved(tmp_path, {"model_state": state, "config": CONFIG}, old=old), "A")
                    require_points(conversion, state)
                    assert torch.equal(conversion.model.encoder.mean.weight, state["encoder_A.fc_mu.weight"].float())
                    (note,) = [note for note in conversion.notes if "Weights are stored" in note]
                    assert note.startswith(f"Weights are stored as {dtype}; they were {how}")

    @pytest.mark.parametrize("old", [False, True])
    def test_whatever_lies_beside_the_weights_is_read_past(self, tmp_path: Path, old: bool) -> None:
        itself: list[object] = []
        itself.append((itself,))
        beside = {
            "path": Path("/x/y"),
            "namespace": Namespace(lr=1e-3),
            "simple": SimpleNamespace(lr=1e-3),
            "dataclass": Settings(2.0, 0.5),
            "omegaconf": DictConfig(lr=1e-3),
            "defaultdict": defaultdict(list, {"a": [1]}),
            "scalar": np.float64(1.0),
            "array": np.arange(6, dtype=np.float32).reshape(2, 3),
            "enum": Colour.RED,
            "datetime": datetime(2025, 12, 29, tzinfo=UTC),
            "size": torch.Size([1, 2]),
            "dtype": torch.float32,
            "device": torch.device("cpu"),
            "function": cooperative_loss,
            "set": {1, 2},
            "complex": 1j,
            "bytes": b"\x00",
            "tuple as key": {(1, 2): 3},
            "a tuple in itself": itself[0],
            "generator": np.random.default_rng(0),
            "sparse": torch.eye(2).to_sparse(),
            "integers": torch.arange(3),
        }
        config = CONFIG | {"device": torch.device("cuda"), "save_dir": Path("/x")}
        payload = {**beside, "model_state_dict": legacy_state(), "config": config, "optimizer_state": adam()}
        conversion = convert(saved(tmp_path, payload, old=old), "A")
        require_points(conversion)
        assert conversion.notes == ()

    def test_settings_are_read_in_any_dress(self, tmp_path: Path, subtests: pytest.Subtests) -> None:
        settings: dict[str, Any] = {"curvature": 1.0, "max_radius": 0.95}
        for config in (
            Namespace(**settings),
            SimpleNamespace(**settings),
            Settings(),
            SlottedSettings(),
            DictConfig(**settings),
            AttributeDict(**settings),
            defaultdict(dict, {"model": OrderedDict(curvature=1.0, max_radius=np.float32(0.95))}),
            {"model": DictConfig(curvature=np.float64(1.0), max_radius=0.95)},
        ):
            with subtests.test(type(config).__name__):
                require_points(convert(file(tmp_path, config=config), "A"))

    def test_branch_b_with_the_direction_net_of_a_comes_in(self, tmp_path: Path) -> None:
        state = legacy_state()
        shared = {
            name.replace("proj_B.radius_net", "proj_B_radius"): x
            for name, x in state.items()
            if not name.startswith(("projection.proj_B.direction_net", "projection.proj_B.manifold"))
        }
        path = file(tmp_path, shared)
        for name in [name for name in state if name.startswith("projection.proj_A.direction_net.")]:
            state[name.replace("proj_A", "proj_B")] = state[name]
        for branch in "AB":
            require_points(convert(path, branch), state, branch)


class StateBomb:
    """Leaves a trace when its state is set."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __getstate__(self) -> Path:
        return self.trace

    def __setstate__(self, trace: Path) -> None:
        trace.touch()


class NestedBomb(Bomb):
    """Leaves a trace through functions that are named at run time."""

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (Bomb(self.trace), "touch")


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def zipped(pickled: bytes, compression: int = zipfile.ZIP_STORED, **entries: bytes) -> bytes:
    """Return an archive as torch.save writes it, with the given data.pkl and other entries."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("f/data.pkl", pickled)
        for name, raw in entries.items():
            archive.writestr(f"f/{name}", raw)
    return stream.getvalue()


def streamed(pickled: bytes, **system: object) -> bytes:
    """Return a file in the form before torch 1.6, with the given pickle and no storages."""
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True} | system)]
    return b"".join([*parts, pickled, pickle.dumps([], 2)])


SYSTEM = b"cos\nsystem\n"
COMMAND = "touch executed"
# Every way in which a pickle can ask for a call, without what comes before and after.
CALLS = {
    "reduce": SYSTEM + text(COMMAND) + b"\x85R",
    "stack global": text("os") + text("system") + b"\x93" + text(COMMAND) + b"\x85R",
    "inst": b"(" + text(COMMAND) + b"ios\nsystem\n",
    "obj": b"(" + SYSTEM + text(COMMAND) + b"o",
    "newobj": SYSTEM + text(COMMAND) + b"\x85\x81",
    "newobj_ex": SYSTEM + text(COMMAND) + b"\x85}\x92",
    "build": SYSTEM + b")R}" + text("a") + text(COMMAND) + b"sb",
    "extension": b"\x82\x01" + text(COMMAND) + b"\x85R",
    "nested": b"cbuiltins\ngetattr\ncos\n_wrap_close\n" + text("x") + b"\x86R" + text(COMMAND) + b"\x85R",
}


class TestNothingIsExecuted:
    @pytest.mark.parametrize("bomb", [Bomb, StateBomb, NestedBomb])
    @pytest.mark.parametrize("old", [False, True])
    def test_code_in_a_file_is_not_executed(
        self, tmp_path: Path, subtests: pytest.Subtests, bomb: type[Bomb | StateBomb], old: bool
    ) -> None:
        planted = bomb(tmp_path / "executed")
        weights, name = {"model_state_dict": legacy_state()}, "encoder_A.fc_mu.bias"
        named = r"an object of '(\w+\.getattr|pathlib\.Path\.touch|test_legacy\.StateBomb)"
        for payload, said in (
            ({"model_state_dict": planted, "config": CONFIG}, named),
            ({"model_state_dict": legacy_state() | {name: planted}, "config": CONFIG}, named),
            (weights | {"config": planted}, "does not state `curvature`"),
            (weights | {"config": CONFIG | {"curvature": planted}}, named),
            (weights | {"config": CONFIG, "metrics": planted}, None),
        ):
            with subtests.test(str(said)):
                path = saved(tmp_path, payload, old=old)
                if said is None:
                    require_points(convert(path, "A"))
                else:
                    assert re.search(said, refusal(path))
                assert not (tmp_path / "executed").exists()

    @pytest.mark.parametrize("bomb", [Bomb, StateBomb, NestedBomb])
    def test_code_in_a_plain_pickle_is_not_executed(self, tmp_path: Path, bomb: type[Bomb | StateBomb]) -> None:
        path = written(tmp_path, pickle.dumps(bomb(tmp_path / "executed")))
        assert "found a plain pickle that holds an object of " in refusal(path)
        assert not (tmp_path / "executed").exists()

    @pytest.mark.parametrize("form", ["archive", "stream", "tar", "in the config"])
    def test_no_opcode_calls_anything(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests, form: str
    ) -> None:
        monkeypatch.chdir(tmp_path)  # where a command that is executed leaves its trace
        for name, call in CALLS.items():
            attack = b"\x80\x02" + call + b"."
            if form == "archive":
                attack = zipped(attack)
            elif form == "in the config":
                attack = zipped(b"\x80\x02}" + text("config") + call + b"s" + text("model") + b"}s.")
            elif form == "stream":
                attack = streamed(attack)
            else:
                stream = io.BytesIO()
                with tarfile.open(fileobj=stream, mode="w") as archive:
                    for part in ("sys_info", "pickle", "storages", "tensors"):
                        entry = tarfile.TarInfo(part)
                        entry.size = len(attack)
                        archive.addfile(entry, io.BytesIO(attack))
                attack = stream.getvalue()
            with subtests.test(name):
                refusal(written(tmp_path, attack))
                assert [path.name for path in tmp_path.iterdir()] == ["legacy.pt"]

    def test_nothing_that_a_file_names_is_imported(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        module = ModuleType("of_the_old_programme")
        settings = type("Settings", (), {"__module__": module.__name__})
        monkeypatch.setattr(module, "Settings", settings, raising=False)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        path = file(tmp_path, trainer=settings())
        monkeypatch.delitem(sys.modules, module.__name__)
        (tmp_path / "of_the_old_programme.py").write_text("raise AssertionError('imported')")
        monkeypatch.syspath_prepend(tmp_path)
        assert convert(path, "A").notes == ()
        assert module.__name__ not in sys.modules

    @pytest.mark.parametrize("old", [False, True])
    def test_a_pickled_whole_module_is_named_with_the_lines_that_save_its_weights(
        self, tmp_path: Path, old: bool
    ) -> None:
        whole = torch.nn.Sequential(torch.nn.Linear(2, 3))
        whole.table = torch.zeros(3)  # makes no set of weights of what a module holds beside them
        resaved = tmp_path / "legacy.resaved.pt"
        for payload, place in ((whole, "file"), ({"model": whole, "config": CONFIG}, "file['model']")):
            path = saved(tmp_path, payload, old=old)
            said = refusal(path)
            assert f"`{place}` is a pickled whole module" in said
            first, second = re.findall("^  (.*)$", said, re.MULTILINE)
            assert first == f"import torch; file = torch.load({str(path)!r}, map_location='cpu', weights_only=False)"
            assert second == f"torch.save({{'model_state_dict': {place}.state_dict()}}, {str(resaved)!r})"
            exec(f"{first}\n{second}")
            assert torch.load(resaved)["model_state_dict"].keys() == {"0.weight", "0.bias"}


ATTACKS = {
    "lists in lists": b"]" * 200_000 + b"a" * 199_999,
    "tuples in tuples": b"(" * 100_000 + b"t" * 100_000,
    "calls in calls": SYSTEM + b"q\x00" + b"h\x00" * 100_000 + b")" + b"R\x85" * 100_000,
    "calls of results": SYSTEM + b")R" * 200_000,
    "tuples of twice the same": b"K\x01\x85" + b"q\x00h\x00\x86" * 100 + b"q\x00}h\x00K\x01s",
    "a list in itself": b"]q\x00" + b"h\x00a",
    "a dict in itself": b"}q\x00" + text("config") + b"h\x00s",
    "a huge memo": b"]r\xff\xff\xff\xff",
    "too many opcodes": b"K\x01" * 600_000,
    "a long integer": b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6,
    "a huge text": b"\x8e" + struct.pack("<Q", 2**62),
    "a huge array": b"\x96" + struct.pack("<Q", 2**40),
    "a long decimal": b"I" + b"9" * 10**6 + b"\n",
    "integers of one hash": b"}("
    + b"".join(b"\x8a\x0a" + (i * (2**61 - 1)).to_bytes(10, "little") + b"N" for i in range(50_000))
    + b"u",
}


class TestHostileSizes:
    @staticmethod
    def tensor(stored: int, shape: list[int], stride: list[int]) -> bytes:
        def number(n: int) -> bytes:
            return b"\x8a\x08" + struct.pack("<q", n)

        storage = text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(stored)
        sizes = b"(" + b"".join(map(number, shape)) + b"t(" + b"".join(map(number, stride)) + b"t"
        return b"ctorch._utils\n_rebuild_tensor_v2\n((" + storage + b"tQK\x00" + sizes + b"\x89)tR"

    def file(self, folder: Path, tensor: bytes, storage: bytes = bytes(16), **options: Any) -> Path:
        names = [name for name in legacy_state() if name != "encoder_A.encoder.0.weight"]
        rest = b"".join(text(name) + self.tensor(4, [1, 1], [1, 1]) + b"s" for name in names)
        pickled = b"\x80\x02}" + text("model") + b"}" + rest + text("encoder_A.encoder.0.weight") + tensor + b"ss."
        return written(folder, zipped(pickled, **{"data/0": storage}, **options))

    def test_a_tensor_outside_its_storage(self, tmp_path: Path, subtests: pytest.Subtests) -> None:
        for shape, stride in (
            ([2, 2], [-1, 1]),
            ([2, 2], [3, 1]),
            ([-2, 2], [2, 1]),
            ([2, 2], [2]),
            ([1] * 9, [1] * 9),
            ([2**20, 2**20], [0, 0]),
            ([2**40], [0]),
            ([2**47, 2**47, 0], [0, 0, 0]),
        ):
            with subtests.test(f"{shape} {stride}"):
                said = refusal(self.file(tmp_path, self.tensor(4, shape, stride)))
                assert "`encoder_A.encoder.0.weight` must lie within its storage of 4 values" in said
        assert "`encoder_A.encoder.0.weight` must " in refusal(self.file(tmp_path, self.tensor(-4, [2, 2], [2, 1])))

    @pytest.mark.parametrize("stored", [5, 2**40, 2**47])
    def test_a_huge_declared_storage_costs_nothing(self, tmp_path: Path, stored: int) -> None:
        path = self.file(tmp_path, self.tensor(stored, [8, stored // 8], [stored // 8, 1]))
        said = f"must hold the {4 * stored} bytes that it states for `encoder_A.encoder.0.weight`; it has 16"
        assert said in refusal(path)

    def test_layers_that_share_one_large_storage(self, tmp_path: Path) -> None:
        state = legacy_state()
        wide = torch.zeros(3000, 3000)
        for i in (2, 4, 6, 8):
            state |= {f"encoder_A.encoder.{i}.weight": wide, f"encoder_A.encoder.{i}.bias": torch.zeros(3000)}
        state["encoder_A.encoder.0.weight"] = torch.zeros(3000, 3)
        with pytest.raises(CheckpointError, match="must take at most"):
            convert(file(tmp_path, state), "A")

    def test_an_archive_that_unpacks_to_more_than_it_may(self, tmp_path: Path) -> None:
        path = self.file(tmp_path, self.tensor(4, [2, 2], [2, 1]), bytes(MAX_BYTES), compression=zipfile.ZIP_DEFLATED)
        assert path.stat().st_size < MAX_BYTES // 100
        assert f"must unpack to at most {MAX_BYTES} bytes" in refusal(path)

    def test_an_entry_that_unpacks_to_more_than_it_states(self, tmp_path: Path) -> None:
        n = 2**27 + 12_345
        path = self.file(tmp_path, self.tensor(4, [2, 2], [2, 1]), bytes(n), compression=zipfile.ZIP_DEFLATED)
        path.write_bytes(path.read_bytes().replace(struct.pack("<I", n), struct.pack("<I", 16)))
        tracemalloc.start()
        try:
            assert "The archive is damaged or cut short: " in refusal(path)
            assert tracemalloc.get_traced_memory()[1] < MAX_BYTES + 2**22  # a buffer for the file itself
        finally:
            tracemalloc.stop()

    def test_an_archive_of_too_many_entries(self, tmp_path: Path) -> None:
        names = {str(i): b"" for i in range(20_000)}
        assert "must have at most 20000 entries" in refusal(written(tmp_path, zipped(b"\x80\x02}.", **names)))

    def test_a_compression_that_takes_memory_of_its_own(self, tmp_path: Path) -> None:
        path = written(tmp_path, zipped(b"\x80\x02}.", zipfile.ZIP_LZMA))
        assert "must be stored or deflated" in refusal(path)

    @pytest.mark.parametrize("attack", ATTACKS)
    def test_a_pickle_made_to_cost_much_is_refused_in_seconds(self, tmp_path: Path, attack: str) -> None:
        path = written(tmp_path, zipped(b"\x80\x02" + ATTACKS[attack] + b"."))
        start = time.process_time()
        refusal(path)
        assert time.process_time() - start < 10


class TestOtherLayouts:
    def test_v5_5_to_v5_10_are_named(self, tmp_path: Path) -> None:
        state = {name: x for name, x in legacy_state().items() if not name.startswith("projection.")}
        state |= {"decoder_B.decoder.0.weight": torch.zeros(2, 2), "state_net.encoder.0.weight": torch.zeros(2, 2)}
        said = refusal(file(tmp_path, state, key="model"))
        assert "it is of v5.5 to v5.10, another layout that is not supported" in said
        assert "['decoder_A', 'decoder_B', 'encoder_A', 'encoder_B', 'state_net']" in said

    @pytest.mark.parametrize("stack", ["encoder_A.encoder", "decoder_A.decoder"])
    def test_an_encoder_or_decoder_with_normalisation_is_named(self, tmp_path: Path, stack: str) -> None:
        state = legacy_state() | {f"{stack}.1.weight": torch.ones(8), f"{stack}.1.bias": torch.zeros(8)}
        said = f"`{stack}.1.weight` is of a normalisation, as in the encoders with LayerNorm and SiLU of v5.12.4"
        assert said in refusal(file(tmp_path, state))

    def test_layers_that_are_numbered_otherwise(self, tmp_path: Path, subtests: pytest.Subtests) -> None:
        for net, old, new in (
            ("encoder_A.encoder", 2, 1),
            ("encoder_A.encoder", 2, 5),
            ("encoder_A.encoder", 2, 3),  # one dropout, of two that there would be
            ("encoder_A.encoder", 0, 1),
            ("proj_A.direction_net", 1, 2),  # the normalisation after the activation
        ):
            with subtests.test(f"{net} {old} {new}"):
                state = {name.replace(f"{net}.{old}.", f"{net}.{new}."): x for name, x in legacy_state().items()}
                said = refusal(file(tmp_path, state))
                assert re.search(rf"in the layout of v5\.11; missing: .*{net}.*; unknown: .*{net}\.{new}\.", said)

    def test_two_sets_of_weights_are_named(self, tmp_path: Path) -> None:
        said = refusal(file(tmp_path, model_state=legacy_state()))
        assert "found `model_state_dict` and `model_state`, and nothing says which counts" in said

    def test_names_that_are_the_same_without_prefix_are_named(self, tmp_path: Path) -> None:
        state = legacy_state()
        state["module.encoder_A.fc_mu.bias"] = state["encoder_A.fc_mu.bias"]
        assert "`encoder_A.fc_mu.bias` is there twice" in refusal(file(tmp_path, state))

    def test_a_checkpoint_of_ours_is_named(self, tmp_path: Path) -> None:
        convert(file(tmp_path), "A").save(tmp_path / "c.safetensors")
        assert "This is a safetensors file" in refusal(tmp_path / "c.safetensors")


class TestRefusals:
    def test_damaged_files(self, tmp_path: Path, subtests: pytest.Subtests) -> None:
        order = "must be stored in this machine's byte order, little-endian"
        for content, said in (
            (b"nonsense", "must be a file of torch.save; found neither a zip archive nor a pickle"),
            (b"PK\x03\x04 no archive", "The archive is damaged or cut short"),
            (b"\x80\x02.", "The pickle in the file is damaged or cut short"),
            (zipped(b"\x80\x02"), "The pickle in the file is damaged or cut short"),
            (zipped(b"\x80\x02}.").replace(b"data.pkl", b"data.pkX"), "must have one data.pkl; found 0"),
            (streamed(b"\x80\x02}.", little_endian=False), order),
            (zipped(b"\x80\x02}.", byteorder=b"big"), f"{order}; found big-endian"),
            (file(tmp_path).read_bytes()[:-100], "The archive is damaged or cut short"),
            (b"", "it is empty"),
        ):
            with subtests.test(repr(content[:20])):
                assert said in refusal(written(tmp_path, content))

    def test_a_file_of_the_old_form_that_was_cut_short(self, tmp_path: Path) -> None:
        whole = saved(tmp_path, {"model": legacy_state()}, old=True).read_bytes()
        for end in (len(whole) - 1, len(whole) // 2, 300, 20):
            assert "cut short" in refusal(written(tmp_path, whole[:end]))

    def test_a_bit_that_was_flipped_anywhere_in_the_weights(self, tmp_path: Path) -> None:
        whole = file(tmp_path).read_bytes()
        for name in ("encoder_A.fc_mu.bias", "encoder_B.fc_mu.bias"):
            raw = legacy_state()[name].numpy().tobytes()
            flipped = bytes([raw[0] ^ 1]) + raw[1:]
            assert "Bad CRC-32" in refusal(written(tmp_path, whole.replace(raw, flipped)))

    def test_what_is_no_file(self, tmp_path: Path) -> None:
        assert "No such file or directory" in refusal(tmp_path / "none")
        assert "found a folder" in refusal(tmp_path)

    def test_another_branch(self, tmp_path: Path) -> None:
        for branch in ("C", "a", ""):
            assert f"`branch` must be A or B, found {branch!r}" in refusal(tmp_path, branch)

    def test_something_without_weights(self, tmp_path: Path, subtests: pytest.Subtests) -> None:
        none = "`model_state_dict`, `model_state`, `model`, `state_dict`, or be a dict of weights itself; found"
        for payload, said in (
            ([1, 2], "must be a dict, found a list"),
            (torch.zeros(3), "must be a dict, found an object of 'torch._utils._rebuild_tensor_v2'"),
            ("text", "must be a dict, found 'text'"),
            ({"epoch": 3, "weights": legacy_state()}, f"{none} `epoch` (3), `weights` (an object of 'collections.Ord"),
            ({"model_state_dict": [1]}, f"{none} `model_state_dict` (a list)"),
            ({}, f"{none} nothing"),
        ):
            with subtests.test(said):
                assert said in refusal(saved(tmp_path, payload))

    def test_weights_that_are_not_those_of_the_layout(self, tmp_path: Path, subtests: pytest.Subtests) -> None:
        def none(prefix: str) -> dict[str, object]:
            return dict.fromkeys(name for name in legacy_state() if name.startswith(prefix))

        bias, projection = "encoder_A.fc_mu.bias", "projection.proj_A"
        norm, isp_c = f"{projection}.direction_net.1", f"{projection}.manifold.isp_c"
        unusual = [torch.ones(LATENT).to(t) for t in (torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn)]
        no_tensors = [torch.empty(4, device="meta"), torch.ones(1).to_sparse(), [1.0], np.zeros(4)]
        unknown = (f"{projection}.direction_net.2.weight", "decoder_A.decoder.9.bias", "projection.radius_net.0.bias")
        cases: list[tuple[dict[Any, Any], str]] = [
            *(
                ({name: torch.zeros(1)}, f"missing: none; unknown: ['{name}']")
                for name in (*unknown, "extra.weight", 7)
            ),
            *((none(name), f"missing: ['{name}']; unknown: none") for name in (bias, f"{norm}.weight")),
            (none(f"{projection}.radius_net."), f"missing: ['{projection}.radius_net.0.bias', "),
            *(
                (none(net), f"must have the linear layers `{net}*.weight`; found none")
                for net in ("encoder_A.encoder.", "decoder_A.decoder.", f"{projection}.direction_net.")
            ),
            ({"encoder_A.fc_mu.weight": torch.zeros(5, 5)}, "must have the shape [4, 5], found [5, 5]"),
            ({"encoder_A.encoder.2.weight": torch.zeros(7, 9)}, "must have the shape [7, 8], found [7, 9]"),
            ({"decoder_A.decoder.4.bias": torch.zeros(9, 1)}, "must have the shape [9], found [9, 1]"),
            ({f"{projection}.radius_net.0.bias": torch.zeros(31)}, "must have the shape [32], found [31]"),
            ({f"{norm}.bias": torch.tensor(0.0)}, "must have the shape [6], found []"),
            ({f"{norm}.bias": torch.zeros(0)}, "must have the shape [6], found [0]"),
            ({isp_c: torch.zeros(2)}, "`isp_c` must be one number, found shape [2]"),
            ({"encoder_A.encoder.0.weight": torch.zeros(2, 5000)}, "must give an architecture that can be built"),
            *(
                ({bias: torch.tensor([0, bad, 0, 0]).double()}, f"`{bias}` has 1 of 4 that are not")
                for bad in (math.nan, math.inf)
            ),
            ({bias: torch.full((4,), 1e300, dtype=torch.float64)}, f"`{bias}` has 4 of 4 that are not"),  # in float32
            ({"encoder_A.fc_mu.weight": torch.full((4, 5), 3e38)}, "The model is not usable"),
            *(
                ({bias: value}, f"`{bias}` must be a dense tensor of a floating-point type, found ")
                for value in (*unusual, *no_tensors)
            ),
        ]
        for change, said in cases:
            with subtests.test(f"{change} {said}"):
                state = {name: value for name, value in (legacy_state() | change).items() if value is not None}
                assert said in refusal(file(tmp_path, state))

    def test_the_other_branch_may_be_missing(self, tmp_path: Path) -> None:
        path = file(tmp_path, {name: tensor for name, tensor in legacy_state().items() if "_B." not in name})
        assert convert(path, "A").notes == ()
        assert "must have the linear layers `encoder_B.encoder.*.weight`" in refusal(path, "B")
