"""Named settings, and how they combine with what a user asks for."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tvae.config.architecture import MOST_LISTED, Architecture
from tvae.config.training import FOUNDATION, Configuration, check_known
from tvae.errors import ConfigurationError

__all__ = ["PRESETS", "PRESET_SETTINGS", "nearest_preset", "of_size", "resolve", "resolve_foundation"]

# The order of radii alone: the encoder stays as it is, and only the radius net learns.
_RADII: dict[str, Any] = {
    "max_radius": 0.95,
    "centred": False,
    "optimizer": "adam",
    "lr": 3e-2,
    "epochs": 25,
    "batch_size": 512,
    "scheduler": "one_cycle",
    "coverage_weight": 1.0,
    "distance_weight": 0.0,
    "hierarchy_weight": 5.0,
    "richness_weight": 2.0,
    "separation_weight": 3.0,
    "unfreeze": "none",
    "encoder_lr_scale": 0.1,
    "decoder_lr_scale": 0.1,
    "initial_hierarchy": "negative",
}
PRESETS: dict[str, dict[str, Any]] = {
    # The exact 3-adic tree, operation 0 at the centre.
    "default": {},
    # The tree with the halves of level 0 at different radii: the outer half is to lie at a unit norm near 1, and all
    # the rest within 0.4, which leaves less room for the margins.
    "rich": {
        "max_radius": 0.98,
        "epochs": 20,
        "distance_margin": 0.005,
        "hierarchy_weight": 5.0,
        "richness_weight": 2.0,
        "separation_weight": 5.0,
    },
    "radii": _RADII,
    # The two presets of the reference sweep, in its own values; both ran at curvature 2, the default here.
    "max_hierarchy": _RADII | {"lr": 3e-4, "epochs": 10, "patience": 5, "scheduler": "constant"},
    "stable": _RADII | {"lr": 3e-4, "epochs": 60, "scheduler": "cosine"},
}

PRESET_SETTINGS = (
    "max_radius",
    "centred",
    "hidden_dim",
    "latent_dim",
    "optimizer",
    "lr",
    "epochs",
    "batch_size",
    "patience",
    "scheduler",
    "unfreeze",
    "encoder_lr_scale",
    "decoder_lr_scale",
    "hierarchy_weight",
    "coverage_weight",
    "richness_weight",
    "separation_weight",
    "distance_weight",
    "distance_margin",
    "beta",
    "initial_hierarchy",
)
"""What a preset may set: commands give these the value `auto` unless the user asks for another."""


# A latent with fewer dimensions than an operation has trits must pack them: that takes a longer training, and a prior
# that presses less.
_NARROW = {"epochs": 30, "beta": 1e-4}
_LONG = {"epochs": 10, "beta": 1e-3}


def of_size(n_trits: object) -> dict[str, Any]:
    """Return what a longer operation needs than those that can be listed: a wider net, and room for more margins.

    What is no number of trits is for `Architecture` to refuse. Tuned at 27.
    """
    if not isinstance(n_trits, int) or n_trits <= MOST_LISTED:
        return {}
    return {
        "latent_dim": -(-n_trits // 8) * 8,
        "encoder_hidden": (256, 256),
        "decoder_hidden": (256, 256),
        "hidden_dim": 256,
        "lr": 1e-2,
        "epochs": 16,
        "hierarchy_weight": 5.0,
        "beta": 1e-3,
        "distance_margin": Configuration().distance_margin * Architecture().n_trits / n_trits,
    }


def resolve(preset: str, asked: Mapping[str, Any]) -> tuple[Architecture, Configuration]:
    """Combine defaults, a preset and what a user asks for, the later before the earlier.

    Args:
        preset: a key of `PRESETS`.
        asked: fields of `Architecture` and `Configuration` by name; those that are `auto` are left to the preset.

    Returns:
        The architecture and the configuration. Epochs that nobody asked for follow from the number of steps that the
        preset was tuned for: smaller spaces and larger batches take more of them.

    Raises:
        ArchitectureError: if an architecture is asked for that cannot be built.
        ConfigurationError: if the preset or a setting is unknown, or a setting is out of range.
    """
    of_architecture = [f.name for f in fields(Architecture)]
    check_known([preset], list(PRESETS), "preset")
    check_known(asked, [*of_architecture, *(f.name for f in fields(Configuration))], "setting")
    given = {name: value for name, value in asked.items() if value != "auto"}
    recipe = of_size(given.get("n_trits", Architecture().n_trits)) | PRESETS[preset]
    values = recipe | given
    architecture = Architecture(**{k: v for k, v in values.items() if k in of_architecture})
    tuned = {k: v for k, v in recipe.items() if k not in of_architecture}
    given = {k: v for k, v in given.items() if k not in of_architecture}
    return architecture, _with_epochs(Configuration(), tuned, given, architecture.n_trits)


def nearest_preset(settings: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the preset that is nearest to some settings, and those that differ from it.

    Args:
        settings: of architecture and training by name, as text.
    """
    found = {preset: _differences(preset, settings) for preset in PRESETS}
    preset = min(found, key=lambda name: len(found[name]))
    return preset, found[preset]


def _differences(preset: str, settings: Mapping[str, str]) -> dict[str, str]:
    # Epochs follow from these unless they are asked for.
    sizes: dict[str, int] = {name: int(settings[name]) for name in ("n_trits", "batch_size") if name in settings}
    plain, sized = ({**a.to_dict(), **c.to_dict()} for a, c in (resolve(preset, {}), resolve(preset, sizes)))
    expected = {name: str((plain if name in sizes else sized)[name]) for name in sized}
    if plain["patience"] == plain["epochs"]:
        expected["patience"] = settings.get("epochs", "")
    return {name: value for name, value in settings.items() if name != "seed" and value != expected.get(name, value)}


def resolve_foundation(architecture: Architecture, asked: Mapping[str, Any]) -> Configuration:
    """Return how the encoder and decoder of an architecture are trained: the recipe, and what a user asks for.

    Args:
        architecture: what to train.
        asked: fields of `Configuration` by name; those that are `auto` are left to the recipe.

    Raises:
        ConfigurationError: if a setting is unknown or out of range.
    """
    given = {name: value for name, value in asked.items() if value != "auto"}
    tuned = {}
    if architecture.latent_dim < architecture.n_trits:
        tuned = _NARROW
    elif architecture.n_trits > MOST_LISTED:
        tuned = _LONG
    return _with_epochs(FOUNDATION, tuned, given, architecture.n_trits)


def _with_epochs(
    base: Configuration, tuned: Mapping[str, Any], given: Mapping[str, Any], n_trits: int
) -> Configuration:
    """Combine settings; epochs give as many steps as the training was tuned for, and patience all epochs."""
    recipe = base.replace(**tuned)
    configuration = recipe.replace(**given)
    if configuration.holdout and n_trits > MOST_LISTED:
        raise ConfigurationError(
            f"`holdout` must be 0 where operations are drawn, above n_trits = {MOST_LISTED}, got "
            f"{configuration.holdout:g} at n_trits = {n_trits}: nearly all of them are never seen as it is."
        )
    if "epochs" not in given:
        # The fewer operations are seen, the more draws it takes until pairs of every kind have met.
        tuned_at = n_trits if n_trits > MOST_LISTED else Architecture().n_trits
        steps = round((1 + configuration.holdout) * recipe.epochs * recipe.steps_per_epoch(tuned_at))
        epochs = max(recipe.epochs, -(-steps // configuration.steps_per_epoch(n_trits)))
        configuration = configuration.replace(epochs=epochs)
    stops_early = "patience" in {**tuned, **given}
    return configuration if stops_early else configuration.replace(patience=configuration.epochs)
