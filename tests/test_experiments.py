"""Where runs start, and how defaults, presets and wishes combine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tvae.checkpoint import Checkpoint, read, save
from tvae.config.architecture import Architecture
from tvae.config.presets import PRESET_SETTINGS, PRESETS, resolve, resolve_foundation
from tvae.config.training import FOUNDATION, Configuration
from tvae.errors import ArchitectureError, ConfigurationError
from tvae.model import COMPONENTS, TernaryVAE
from tvae.training import Result
from tvae.training.start import from_checkpoint, from_foundation, from_scratch

SMALL = Architecture(n_trits=3, latent_dim=4, encoder_hidden=(8,), decoder_hidden=(8,), hidden_dim=8)

# The presets of the reference sweep of 2025-12-29, as its record has them.
REFERENCE = {
    "max_hierarchy": {"patience": 5, "epochs": 10, "hierarchy_weight": 5.0, "richness_weight": 2.0},
    "stable": {"scheduler": "cosine", "epochs": 60},
}

AUTO = dict.fromkeys(PRESET_SETTINGS, "auto")


def foundation(architecture: Architecture = SMALL) -> Result:
    """A finished first stage, all of whose weights are drawn."""
    model = TernaryVAE(architecture)
    model.initialise(torch.Generator().manual_seed(100))
    return Result(FOUNDATION, model.eval())


def weights(model: TernaryVAE, *components: str) -> list[torch.Tensor]:
    return [tensor for name, tensor in model.state_dict().items() if name.split(".")[0] in components]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) > 0 and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# Presets


def test_without_a_wish_the_default_preset_is_the_default_and_auto_is_no_wish() -> None:
    assert resolve("default", {}) == resolve("default", AUTO) == (Architecture(), Configuration())


@pytest.mark.parametrize("preset", list(REFERENCE))
def test_preset_has_the_values_of_the_reference(preset: str) -> None:
    architecture, configuration = resolve(preset, AUTO)
    values = architecture.to_dict() | configuration.to_dict()
    assert values.items() >= ({"curvature": 2.0, "lr": 3e-4} | REFERENCE[preset]).items()


@pytest.mark.parametrize("preset", list(PRESETS))
def test_preset_is_what_it_sets_and_all_epochs_unless_it_says_otherwise(preset: str) -> None:
    architecture, configuration = resolve(preset, {})
    values = architecture.to_dict() | configuration.to_dict()
    defaults = Architecture().to_dict() | Configuration().to_dict()
    assert values == defaults | {"patience": configuration.epochs} | PRESETS[preset]
    assert PRESETS[preset].keys() <= set(PRESET_SETTINGS)


def test_presets_learn_what_they_are_named_for() -> None:
    found = {name: resolve(name, {})[1] for name in PRESETS}
    learned = {name: (c.learns_distances, c.parts_level_0, c.orders_radii) for name, c in found.items()}
    radii = dict.fromkeys(("radii", "max_hierarchy", "stable"), (False, False, True))
    assert learned == {"default": (True, False, False), "rich": (True, True, True), **radii}


def test_a_wish_goes_before_the_preset() -> None:
    _, configuration = resolve("max_hierarchy", {**AUTO, "lr": 0.1, "epochs": 3})
    assert (configuration.lr, configuration.epochs, configuration.patience) == (0.1, 3, 5)
    assert resolve("max_hierarchy", {"lr": Configuration().lr})[1].lr == Configuration().lr


# Budgets

EPOCHS = Configuration().epochs


@pytest.mark.parametrize(
    ("preset", "asked", "epochs"),
    [
        # An epoch of 20 steps, with two subtrees of 512 in a step, and 32 of 32 where there are 5 trits.
        ("default", {}, EPOCHS),
        ("default", {"batch_size": 512}, EPOCHS),
        ("default", {"batch_size": 4096}, EPOCHS * 20 // 5),
        ("default", {"n_trits": 5}, EPOCHS * 20),
        ("default", {"n_trits": 5, "batch_size": 64}, EPOCHS * 20 // 4),
        ("radii", {"batch_size": 1024}, -(-25 * 39 // 20)),
        ("radii", {"batch_size": 256}, 25),
        ("default", {"n_trits": 5, "epochs": 3}, 3),
    ],
)
def test_epochs_follow_from_the_steps_that_a_preset_was_tuned_for(
    preset: str, asked: dict[str, int], epochs: int
) -> None:
    architecture, configuration = resolve(preset, AUTO | asked)
    assert (configuration.epochs, configuration.patience) == (epochs, epochs)
    steps = [resolve(preset, a)[1].steps_per_epoch(resolve(preset, a)[0].n_trits) for a in (asked, {})]
    assert "epochs" in asked or epochs * steps[0] >= resolve(preset, {})[1].epochs * steps[1]
    assert architecture.n_trits == asked.get("n_trits", 9)


def test_a_patience_that_is_asked_for_holds() -> None:
    assert resolve("default", {"patience": 2, "n_trits": 5})[1].patience == 2


def test_a_foundation_has_the_recipe_and_what_is_asked_for() -> None:
    assert resolve_foundation(Architecture(), {"seed": 3, "lr": "auto"}) == FOUNDATION.replace(seed=3)
    asked = resolve_foundation(Architecture(), {"epochs": 2, "lr": 0.1})
    assert (asked.epochs, asked.patience, asked.lr) == (2, 2, 0.1)
    with pytest.raises(ConfigurationError, match="did you mean `epochs`"):
        resolve_foundation(Architecture(), {"epoch": 2})


def test_a_narrow_latent_and_few_trits_train_their_foundation_for_longer() -> None:
    wide, narrow = (resolve_foundation(Architecture(latent_dim=d), {}) for d in (9, 8))
    assert (wide.epochs, narrow.epochs, narrow.beta < wide.beta) == (6, 30, True)
    few = resolve_foundation(Architecture(n_trits=5), {})
    assert few.epochs == few.patience == 6 * 39


def test_settings_go_where_they_belong() -> None:
    architecture, configuration = resolve("default", {"curvature": 0.5, "hidden_dim": 32, "lr": 0.1, "seed": 4})
    assert architecture == Architecture(curvature=0.5, hidden_dim=32)
    assert configuration == Configuration(lr=0.1, seed=4)


def test_unknown_preset_is_refused_with_the_nearest_known_one_or_all_of_them() -> None:
    with pytest.raises(ConfigurationError, match=r"^`max_hierachy` is no preset; did you mean `max_hierarchy`\?$"):
        resolve("max_hierachy", {})
    with pytest.raises(ConfigurationError, match=r"^`zzz` is no preset; there are default, rich, radii"):
        resolve("zzz", {})


@pytest.mark.parametrize(("name", "near", "value"), [("curvatur", "curvature", 1), ("epoch", "epochs", "auto")])
def test_unknown_setting_is_refused_with_the_nearest_known_one(name: str, near: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^`{name}` is no setting; did you mean `{near}`\?$"):
        resolve("default", {name: value})


@pytest.mark.parametrize(("name", "error"), [("curvature", ArchitectureError), ("lr", ConfigurationError)])
def test_setting_out_of_range_is_refused(name: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"^`{name}` must be a number .+, got "):
        resolve("stable", {name: 0})


# Starts


def starts(seed: int) -> list[Any]:
    return [from_scratch(SMALL, Configuration(seed=seed)), from_foundation(foundation(), Configuration(seed=seed))]


each_start = pytest.mark.parametrize("start", [0, 1], ids=["scratch", "foundation"])


@each_start
def test_the_same_seed_starts_from_the_same_weights_and_draws_on_alike(start: int) -> None:
    one, two = starts(3)[start], starts(3)[start]
    assert equal(weights(one.model, *COMPONENTS), weights(two.model, *COMPONENTS))
    assert torch.equal(torch.rand(9, generator=one.generator), torch.rand(9, generator=two.generator))


@each_start
def test_another_seed_starts_from_another_projection(start: int) -> None:
    one, two = starts(3)[start], starts(4)[start]
    assert not torch.equal(one.model.projection.radius_net[0].weight, two.model.projection.radius_net[0].weight)


def test_a_start_from_scratch_may_draw_everything_again() -> None:
    assert from_scratch(SMALL, Configuration()).reinitialised == COMPONENTS


def test_a_foundation_gives_its_encoder_and_decoder_and_no_projection() -> None:
    base = foundation()
    start = from_foundation(base, Configuration())
    assert equal(weights(start.model, "encoder", "decoder"), weights(base.model, "encoder", "decoder"))
    assert start.reinitialised == ("projection", "controller")
    assert not torch.equal(start.model.projection.radius_net[0].weight, base.model.projection.radius_net[0].weight)


@pytest.mark.parametrize("start", [from_scratch, lambda a, c: from_foundation(foundation(a), c)])
def test_a_start_has_the_architecture_that_was_asked_for(start: Callable[..., Any]) -> None:
    architecture = Architecture(**(SMALL.to_dict() | {"curvature": 0.7, "use_controller": True}))
    assert start(architecture, Configuration()).model.architecture == architecture


def test_a_start_leaves_its_foundation_as_it_is() -> None:
    base = foundation()
    before = [tensor.clone() for tensor in weights(base.model, *COMPONENTS)]
    from_foundation(base, Configuration(seed=9))
    assert equal(weights(base.model, *COMPONENTS), before)


def checkpoint(folder: Path, *trained: str) -> Checkpoint:
    path = folder / "checkpoint.safetensors"
    save(path, foundation().model, trained=trained, training={}, metrics={})
    return read(path)


@pytest.mark.parametrize(("new_projection", "reinitialised"), [(False, ()), (True, ("projection",))])
def test_a_start_from_a_checkpoint_may_draw_again_what_was_drawn(
    tmp_path: Path, new_projection: bool, reinitialised: tuple[str, ...]
) -> None:
    source = checkpoint(tmp_path, "encoder", "decoder", "projection")
    member, statement = from_checkpoint(source, SMALL, Configuration(), new_projection=new_projection)
    assert (member.reinitialised, statement.reinitialised) == (reinitialised, reinitialised)


def test_a_start_from_a_foundation_is_the_same_in_memory_and_from_its_file(tmp_path: Path) -> None:
    configuration = Configuration(seed=5)
    in_memory = from_foundation(foundation(), configuration)
    from_file, _ = from_checkpoint(checkpoint(tmp_path, "encoder", "decoder"), SMALL, configuration)
    assert equal(weights(in_memory.model, *COMPONENTS), weights(from_file.model, *COMPONENTS))
    assert torch.equal(torch.rand(9, generator=in_memory.generator), torch.rand(9, generator=from_file.generator))
