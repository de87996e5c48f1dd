"""Named settings, and how they combine with what a user asks for."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tvae.architecture import Architecture
from tvae.configuration import Configuration, check_known

__all__ = ["PRESETS", "PRESET_SETTINGS", "resolve"]

# Distances want an encoder that learns; two subtrees a step, which cost less than two steps; and a ball that is no
# wider: at a max_radius of 0.9993 some seeds missed a few neighbourhoods of 157,464, at 0.97 none did.
_TREE = {
    "max_radius": 0.97,
    "lr": 1.5e-2,
    "batch_size": 1024,
    "epochs": 55,
    "patience": 55,
    "unfreeze": "encoder",
    "encoder_lr_scale": 0.3,
    "separation_weight": 5.0,
    "distance_weight": 5.0,
}
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # The whole 3-adic tree, to be read off hyperbolic distances; and the tree with as much richness as it bears.
    "exact_tree": _TREE | {"richness_weight": 0.0},
    "balanced": _TREE | {"richness_weight": 6.0},
    # The two presets of the reference sweep, in its own values; both ran at curvature 2, the default here.
    "max_hierarchy": {
        "lr": 3e-4,
        "epochs": 10,
        "patience": 5,
        "scheduler": "constant",
        "hierarchy_weight": 5.0,
        "richness_weight": 2.0,
    },
    "stable": {"lr": 3e-4, "epochs": 60, "patience": 60, "scheduler": "cosine"},
}

PRESET_SETTINGS = (
    "max_radius",
    "hidden_dim",
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
    "beta",
)
"""What a preset may set: commands give these the value `auto` unless the user asks for another."""


def resolve(
    preset: str,
    asked: Mapping[str, Any],
    *,
    base: Configuration = Configuration(),  # noqa: B008 - it is immutable
) -> tuple[Architecture, Configuration]:
    """Combine defaults, a preset and what a user asks for, the later before the earlier.

    Args:
        preset: a key of `PRESETS`.
        asked: fields of `Architecture` and `Configuration` by name; those that are `auto` are left to the preset.
        base: the defaults of the training.

    Returns:
        The architecture and the configuration.

    Raises:
        ArchitectureError: if an architecture is asked for that cannot be built.
        ConfigurationError: if the preset or a setting is unknown, or a setting is out of range.
    """
    of_architecture = [f.name for f in fields(Architecture)]
    check_known([preset], list(PRESETS), "preset")
    check_known(asked, [*of_architecture, *(f.name for f in fields(Configuration))], "setting")
    values = PRESETS[preset] | {name: value for name, value in asked.items() if value != "auto"}
    architecture = Architecture(**{k: v for k, v in values.items() if k in of_architecture})
    return architecture, base.replace(**{k: v for k, v in values.items() if k not in of_architecture})
