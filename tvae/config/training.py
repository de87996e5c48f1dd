"""How a model is trained: every setting with its default, stated once and checked once.

Commands, MLproject and sweeps take their defaults from here; a test holds them together.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from tvae.config.setting import check, documented, integer, number, one_of, setting
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
    "holdout",
    "learns_distances",
    "parts_level_0",
    "orders_radii",
)
"""What shapes the batch, and so must be one for all runs that train as one cohort."""


LARGEST_EPOCH = 3**11
"""An epoch draws all operations once, or as many as these if there are more."""
MOST_BRANCHINGS = 10
"""Of more trits a subtree of a batch branches at as many levels only, which are drawn for each step."""

_WEIGHT = number("in 0 … 1e6", lambda value: 0 <= value <= 1e6)
_SCALE = number("in (0, 10]", lambda value: 0 < value <= 10)


@documented
@dataclass(frozen=True, slots=True)
class Configuration:
    """An immutable, validated set of training settings.

    Raises:
        ConfigurationError: names every field that is of the wrong type or out of range.
    """

    objective: str = setting(
        "ranking",
        "ranking orders distances and radii pair by pair; level_mean is the reference sweep's loss; elbo is that of "
        "encoder and decoder.",
        one_of(*OBJECTIVES),
    )
    optimizer: str = setting(
        "muon",
        "muon moves weight matrices by orthogonal updates, the rest by Adam; adam is what the reference sweep used.",
        one_of(*OPTIMIZERS),
    )
    lr: float = setting(1.5e-2, "Peak learning rate.", _SCALE)
    epochs: int = setting(16, "Passes over all operations, or over 3^11 of more.", integer(1, 100_000))
    batch_size: int = setting(1024, "Operations in a step.", integer(1, 100_000))
    patience: int = setting(16, "Epochs without a better one before training stops.", integer(1, 100_000))
    scheduler: str = setting("linear", "How the learning rate moves from step to step.", one_of(*SCHEDULERS))
    seed: int = setting(0, "Of weights, batches and noise.", integer(0, 2**32 - 1))
    distance_weight: float = setting(5.0, "Weight of the order of hyperbolic distances.", _WEIGHT)
    distance_margin: float = setting(
        0.04,
        "By how much distances of one level must pass those of the next, as a share of the longest.",
        # Ten levels of more than a tenth each have no room.
        number("in (0, 0.1]", lambda value: 0 < value <= 0.1),
    )
    hierarchy_weight: float = setting(0.0, "Weight of the order of radii by valuation.", _WEIGHT)
    # With 1, one run in 25 lost an operation to the frozen decoder, and so kept an epoch before its tree was exact.
    coverage_weight: float = setting(3.0, "Weight of the cross-entropy of the trits.", _WEIGHT)
    richness_weight: float = setting(
        0.0,
        "Weight of the spread of unit norms in a level; with distances, of that between the halves of level 0.",
        _WEIGHT,
    )
    separation_weight: float = setting(0.0, "Weight of the order of neighbouring levels.", _WEIGHT)
    beta: float = setting(0.01, "Weight of the Kullback-Leibler divergence of the posterior from the prior.", _WEIGHT)
    unfreeze: str = setting("encoder", "What learns besides the projection.", one_of(*UNFREEZE))
    encoder_lr_scale: float = setting(1.0, "Learning rate of an unfrozen encoder, as a share of lr.", _SCALE)
    decoder_lr_scale: float = setting(1.0, "Learning rate of an unfrozen decoder, as a share of lr.", _SCALE)
    holdout: float = setting(
        0.0,
        "Share of operations that no loss ever sees, the same ones for every seed.",
        number("in [0, 1)", lambda value: 0 <= value < 1),
    )
    initial_hierarchy: str = setting(
        "any",
        "Sign that a new projection's hierarchy must have; it is drawn again until it has.",
        one_of(*INITIAL_HIERARCHY),
    )

    def __post_init__(self) -> None:
        check(self, ConfigurationError)

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

    def branchings(self, n_trits: int) -> int:
        """Return at how many levels a subtree of a batch branches, where distances are learned."""
        return min(n_trits, MOST_BRANCHINGS)

    def operations_per_step(self, n_trits: int) -> int:
        """Return how many operations the population part of a step has: where distances are learned, whole subtrees."""
        subtree = 2 ** self.branchings(n_trits)
        return max(1, self.batch_size // subtree) * subtree if self.learns_distances else self.batch_size

    @property
    def operations_of_level_per_step(self) -> int:
        """How many operations of each level the stratified part of a step has."""
        return max(4, self.batch_size // 32)

    def operations_per_epoch(self, n_trits: int) -> int:
        """Return how many operations an epoch draws: as many as there are, but at most 3^11."""
        draws: int = min(3**n_trits, LARGEST_EPOCH)
        return draws

    def steps_per_epoch(self, n_trits: int) -> int:
        """Return how many steps take the operations of an epoch."""
        return -(-self.operations_per_epoch(n_trits) // self.operations_per_step(n_trits))

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


FOUNDATION = Configuration(objective="elbo", epochs=6, patience=6, batch_size=512, coverage_weight=1.0, unfreeze="all")
"""What `train` does by default: encoder and decoder, to full coverage."""
