"""Starting from a checkpoint: every component is loaded from it or reinitialised, and said to be."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from exact_model import random_model

from tvae.checkpoint import Checkpoint, Transfer, read, save, transfer
from tvae.config.architecture import Architecture
from tvae.errors import CheckpointError
from tvae.model import TernaryVAE

SMALL = Architecture(n_trits=2, latent_dim=2, encoder_hidden=(3,), decoder_hidden=(3,), hidden_dim=4)
CODEC = ("encoder", "decoder")
ALL = (*CODEC, "projection")
OF_PROJECTION = {"curvature": 0.5, "max_radius": 0.5, "hidden_dim": 9, "n_projection_layers": 3, "centred": False}


def checkpoint(folder: Path, architecture: Architecture = SMALL, trained: tuple[str, ...] = ALL) -> Checkpoint:
    path = folder / "checkpoint.safetensors"
    save(path, random_model(architecture), trained=trained, training={}, metrics={})
    return read(path)


def start(
    source: Checkpoint, requested: Architecture | None = None, *, new_projection: bool = False, seed: int = 9
) -> Transfer:
    generator = torch.Generator().manual_seed(seed)
    return transfer(source, requested or source.architecture, new_projection=new_projection, generator=generator)


def refusal(source: Checkpoint, *, new_projection: bool = False, **changes: object) -> str:
    with pytest.raises(CheckpointError, match=re.escape(str(source.path))) as caught:
        start(source, dataclasses.replace(source.architecture, **changes), new_projection=new_projection)
    return str(caught.value)


def equal(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(a.state_dict()[name], tensor) for name, tensor in b.state_dict().items())


class TestWhatIsTaken:
    def test_learned_components_come_from_the_file(self, tmp_path: Path) -> None:
        source = checkpoint(tmp_path)
        result = start(source)
        assert (result.loaded, result.reinitialised) == (ALL, ())
        assert equal(result.model, source.model)
        assert result.model.training

    def test_a_projection_that_was_never_learned_is_drawn_anew(self, tmp_path: Path) -> None:
        source = checkpoint(tmp_path, trained=CODEC)
        result = start(source)
        assert (result.loaded, result.reinitialised) == (CODEC, ("projection",))
        assert equal(result.model.encoder, source.model.encoder)
        assert not equal(result.model.projection, source.model.projection)

    def test_new_projection_draws_anew_what_was_learned(self, tmp_path: Path) -> None:
        source = checkpoint(tmp_path, dataclasses.replace(SMALL, use_controller=True), (*ALL, "controller"))
        result = start(source, new_projection=True)
        assert (result.loaded, result.reinitialised) == (CODEC, ("projection", "controller"))
        assert not equal(result.model.projection, source.model.projection)
        assert not equal(result.model.controller, source.model.controller)

    def test_what_is_drawn_comes_from_the_generator(self, tmp_path: Path) -> None:
        source = checkpoint(tmp_path, trained=CODEC)
        expected = TernaryVAE(SMALL)
        expected.initialise(torch.Generator().manual_seed(9), ["projection"])
        assert equal(start(source, seed=9).model.projection, expected.projection)
        assert not equal(start(source, seed=8).model.projection, expected.projection)

    def test_no_weight_is_left_undefined(self, tmp_path: Path) -> None:
        result = start(checkpoint(tmp_path, trained=CODEC), dataclasses.replace(SMALL, use_controller=True))
        assert (result.loaded, result.reinitialised) == (CODEC, ("projection", "controller"))
        assert {name.split(".")[0] for name in result.model.state_dict()} == {*result.loaded, *result.reinitialised}
        assert all(tensor.isfinite().all() for tensor in result.model.state_dict().values())

    def test_training_the_result_leaves_the_checkpoint_as_it_was(self, tmp_path: Path) -> None:
        source = checkpoint(tmp_path)
        result = start(source)
        result.model.encoder.mean.bias.data.zero_()
        assert not equal(result.model.encoder, source.model.encoder)

    def test_one_line_says_it_all(self, tmp_path: Path) -> None:
        source = checkpoint(tmp_path, trained=CODEC)
        line = f"From the checkpoint (digest {source.digest[:12]}…): encoder, decoder; reinitialised: projection."
        assert start(source).describe() == line
        assert start(checkpoint(tmp_path)).describe().endswith("projection; nothing reinitialised.")


class TestWhatMayDiffer:
    @pytest.mark.parametrize("foundation", [True, False])
    def test_a_projection_that_is_drawn_anew(self, tmp_path: Path, foundation: bool) -> None:
        source = checkpoint(tmp_path, trained=CODEC if foundation else ALL)
        for field, value in OF_PROJECTION.items():
            requested = dataclasses.replace(SMALL, **{field: value})
            result = start(source, requested, new_projection=not foundation)
            assert result.model.architecture == requested
            assert result.reinitialised == ("projection",)

    def test_a_controller_that_was_never_learned(self, tmp_path: Path) -> None:
        source = checkpoint(tmp_path, dataclasses.replace(SMALL, use_controller=True))
        assert start(source, SMALL).reinitialised == ()


class TestWhatMayNotDiffer:
    def test_the_old_bug_is_refused_with_all_three_fields_named(self, tmp_path: Path) -> None:
        file = Architecture(use_controller=True, curvature=1.0, max_radius=0.95)
        source = checkpoint(tmp_path, file, (*ALL, "controller"))
        text = refusal(source, use_controller=False, curvature=2.0, max_radius=0.99)
        assert "`curvature` is 1.0 in the file, 2.0 here" in text
        assert "`max_radius` is 0.95 in the file, 0.99 here" in text
        assert "`use_controller` is true in the file, false here" in text
        assert "set `curvature` to 1.0 and `max_radius` to 0.95 and `use_controller` to true; or `new_p" in text

    @pytest.mark.parametrize("new_projection", [False, True])
    def test_encoder_and_decoder(self, tmp_path: Path, new_projection: bool) -> None:
        source = checkpoint(tmp_path)
        for field, value, shown in (
            ("n_trits", 3, "`n_trits` is 2 in the file, 3 here"),
            ("latent_dim", 3, "`latent_dim` is 2 in the file, 3 here"),
            ("encoder_hidden", (3, 4), "`encoder_hidden` is 3 in the file, 3,4 here"),
            ("decoder_hidden", (5,), "`decoder_hidden` is 3 in the file, 5 here"),
        ):
            text = refusal(source, new_projection=new_projection, **{field: value})
            assert shown in text
            assert "new_projection" not in text

    def test_a_learned_projection(self, tmp_path: Path) -> None:
        source = checkpoint(tmp_path)
        for field, value in OF_PROJECTION.items():
            text, there = refusal(source, **{field: value}), str(getattr(SMALL, field)).lower()
            assert f"`{field}` is {there} in the file, {str(value).lower()} here" in text
            assert f"set `{field}` to {there}; or `new_projection` to true, to learn" in text

    def test_every_differing_field_is_named_with_what_helps(self, tmp_path: Path) -> None:
        text = refusal(checkpoint(tmp_path), latent_dim=3, curvature=1.0)
        assert "set `latent_dim` to 2 and `curvature` to 2.0; or `latent_dim` to 2 and `new_projection` to true" in text

    def test_a_controller_beside_a_projection_that_was_learned_without(self, tmp_path: Path) -> None:
        assert "`use_controller` is false in the file, true here" in refusal(checkpoint(tmp_path), use_controller=True)

    def test_a_file_in_which_nothing_was_learned(self, tmp_path: Path) -> None:
        assert "must have learned components; found: none" in refusal(checkpoint(tmp_path, trained=()))
