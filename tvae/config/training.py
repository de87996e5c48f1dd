"""How a model is trained: every setting with its default, stated once and checked once.

Commands, MLproject and sweeps take their defaults from here; a test holds them together.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from tvae.errors import ConfigurationError

__all__ = [
    "BACKENDS",
    "FOUNDATION",
    "NONE",
    "OBJECTIVES",
    "OPTIMIZERS",
    "SCHEDULERS",
    "SHARED_SETTINGS",
    "UNFREEZE",
    "Configuration",
    "check_known",
]

NONE = "none"
"""What an option holds that nobody gave: MLproject has to pass something."""

OBJECTIVES = ("ranking", "level_mean", "elbo")
OPTIMIZERS = ("muon", "adam")
SCHEDULERS = ("constant", "cosine", "step", "plateau", "one_cycle", "linear")
UNFREEZE = ("none", "encoder", "all")
INITIAL_HIERARCHY = ("negative", "any", "positive")
BACKENDS = ("local", "loky", "dask", "ray")
"""Where cohorts train."""
SHARED_SETTINGS = (
    "objective",
    "optimizer",
    "batch_size",
    "unfreeze",
    "encoder_lr_scale",
    "decoder_lr_scale",
    "learns_distances",
    "parts_level_0",
    "orders_radii",
)
"""What shapes the batch, and so must be one for all runs that train as one cohort."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """An immutable, validated set of training settings.

    Attributes:
        objective: `ranking`, `level_mean` (the reference sweep's loss) or `elbo` (encoder and decoder alone).
        optimizer: `muon` (weight matrices by orthogonal updates, the rest by Adam), or `adam` for everything.
        lr: peak learning rate.
        epochs: passes over all operations.
        batch_size: operations in a step.
        patience: epochs without a better one before training stops.
        scheduler: how the learning rate moves from step to step.
        seed: of weights, redraws, batches and noise.
        distance_weight: weight of the order of hyperbolic distances.
        distance_margin: by how much distances of one level must pass those of the next, as a share of the longest that
            the ball has room for; in (0, 0.1].
        hierarchy_weight: weight of the order of radii by valuation.
        coverage_weight: weight of the cross-entropy of the trits.
        richness_weight: weight of the spread of unit norms within a level; where distances are learned, of that between
            the two halves of level 0.
        separation_weight: weight of the order of neighbouring levels.
        beta: weight of the Kullback-Leibler divergence of the posterior from the prior.
        unfreeze: what learns besides the projection: `none`, the `encoder`, or `all`.
        encoder_lr_scale: learning rate of an unfrozen encoder, as a share of `lr`.
        decoder_lr_scale: learning rate of an unfrozen decoder, as a share of `lr`.
        initial_hierarchy: `negative` draws a new projection again while its hierarchy is positive; `positive` does the
            opposite, to show that the start does not decide the end; `any` keeps the first.

    Raises:
        ConfigurationError: names every field that is of the wrong type or out of range.
    """

    objective: str = "ranking"
    optimizer: str = "muon"
    lr: float = 1.5e-2
    epochs: int = 16
    batch_size: int = 1024
    patience: int = 16
    scheduler: str = "linear"
    seed: int = 0
    distance_weight: float = 5.0
    distance_margin: float = 0.04
    hierarchy_weight: float = 0.0
    coverage_weight: float = 1.0
    richness_weight: float = 0.0
    separation_weight: float = 0.0
    beta: float = 0.01
    unfreeze: str = "encoder"
    encoder_lr_scale: float = 1.0
    decoder_lr_scale: float = 1.0
    initial_hierarchy: str = "any"

    def __post_init__(self) -> None:
        for name in _FLOATS:
            value = getattr(self, name)
            if _is_int(value) and abs(value) <= 2**53:  # a larger integer is out of range, and may pass the floats
                object.__setattr__(self, name, float(value))
        problems = [
            f"`{name}` must be {allowed}, got {getattr(self, name)!r}."
            for name, (allowed, holds) in _RULES.items()
            if not holds(getattr(self, name))
        ]
        if problems:
            raise ConfigurationError(" ".join(problems))

    @property
    def learns_distances(self) -> bool:
        """Whether the order of hyperbolic distances is part of the loss."""
        return self.objective == "ranking" and self.distance_weight > 0

    @property
    def parts_level_0(self) -> bool:
        """Whether the two halves of level 0 are moved apart: the richness that is asked for beside distances."""
        return self.learns_distances and self.richness_weight > 0

    @property
    def orders_radii(self) -> bool:
        """Whether the order of radii is part of the loss."""
        spread = self.richness_weight > 0 and not self.parts_level_0
        ordered = self.hierarchy_weight > 0 or self.separation_weight > 0 or spread
        return self.objective == "level_mean" or (self.objective == "ranking" and ordered)

    def operations_per_step(self, n_trits: int) -> int:
        """Return how many operations the population part of a step has: where distances are learned, whole subtrees."""
        subtree = 2**n_trits
        return max(1, self.batch_size // subtree) * subtree if self.learns_distances else self.batch_size

    def steps_per_epoch(self, n_trits: int) -> int:
        """Return how many steps take all operations once."""
        steps: int = -(-(3**n_trits) // self.operations_per_step(n_trits))
        return steps

    def replace(self, /, **changes: Any) -> "Configuration":
        """Return a copy with some settings changed.

        Raises:
            ConfigurationError: if names are unknown, with the nearest known ones, or a value is not allowed.
        """
        check_known(changes, [f.name for f in fields(self)])
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Configuration":
        """Build from settings by name; what is not named has its default.

        Raises:
            ConfigurationError: if a name is unknown or a value is not allowed.
        """
        return cls().replace(**values)


def check_known(names: Iterable[str], known: Sequence[str], what: str = "setting of a training") -> None:
    """Refuse names that are not known, all at once, each with the nearest known one.

    Raises:
        ConfigurationError: names them.
    """
    problems = []
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}."
            problems.append(f"`{name}` is no {what}; {hint}")
    if problems:
        raise ConfigurationError(" ".join(problems))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _one_of(*values: str) -> Any:
    return f"one of {', '.join(values)}", lambda value: value in values


def _int_in(low: int, high: int) -> Any:
    return f"an integer in {low} … {high}", lambda value: _is_int(value) and low <= value <= high


def _weight(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value) and 0 <= value <= 1e6


_WEIGHTS = [f"{term}_weight" for term in ("hierarchy", "coverage", "richness", "separation", "distance")]
_FLOATS = ["lr", *_WEIGHTS, "distance_margin", "beta", "encoder_lr_scale", "decoder_lr_scale"]
_SCALE = ("a number in (0, 10]", lambda value: isinstance(value, float) and 0 < value <= 10)
_RULES: dict[str, Any] = {
    "objective": _one_of(*OBJECTIVES),
    "optimizer": _one_of(*OPTIMIZERS),
    "lr": ("a number in (0, 10]", lambda value: isinstance(value, float) and 0 < value <= 10),
    "epochs": _int_in(1, 100_000),
    "batch_size": _int_in(1, 100_000),
    "patience": _int_in(1, 100_000),
    "scheduler": _one_of(*SCHEDULERS),
    "seed": _int_in(0, 2**32 - 1),
    **dict.fromkeys([*_WEIGHTS, "beta"], ("a number in 0 … 1e6", _weight)),
    "unfreeze": _one_of(*UNFREEZE),
    # Ten levels of more than a tenth each have no room.
    "distance_margin": ("a number in (0, 0.1]", lambda value: isinstance(value, float) and 0 < value <= 0.1),
    "encoder_lr_scale": _SCALE,
    "decoder_lr_scale": _SCALE,
    "initial_hierarchy": _one_of(*INITIAL_HIERARCHY),
}

FOUNDATION = Configuration(objective="elbo", epochs=6, patience=6, batch_size=512, unfreeze="all")
"""What `train` does by default: encoder and decoder, to full coverage."""
