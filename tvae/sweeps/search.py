"""A search for good settings: hierarchy and richness as two objectives, by Optuna's TPE."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tvae.errors import ConfigurationError
from tvae.sweeps.grid import shown
from tvae.sweeps.phases import cell_trials
from tvae.sweeps.trial import Trial

__all__ = ["SEARCH", "Search"]

SEARCH = "search"
"""The phase of trials that a search asks for."""

# What is tried unless a grid says otherwise: the range of each setting, searched by its logarithm.
RANGES = {
    "lr": (3e-3, 1e-1),
    "hierarchy_weight": (1.0, 20.0),
    "richness_weight": (0.2, 20.0),
    "separation_weight": (0.5, 20.0),
}
# Suggestions that train at a time. The sampler learns from a round before it makes the next.
ROUND = 16


@dataclass(slots=True)
class Search:
    """Asks for cells of settings, and is told what came of them.

    A cell is known by its name, which tells its settings. So a search that was stopped goes on from the names and
    values of the cells that have finished, whatever was asked for at that moment.

    Attributes:
        base: settings that all trials share.
        choices: settings with the values to choose from; empty for `RANGES` without what `base` names.
        trials: how many cells to try; a space with fewer of them is tried as a whole.
        seeds: of every cell; what the sampler learns from is their mean.
        first_seed: seeds count from here; the sampler's own seed.
        told: hierarchy and richness of each cell that was tried, by its name; None where every seed failed.

    Raises:
        ConfigurationError: if Optuna is not installed, or there is nothing to choose.
    """

    base: Mapping[str, Any]
    choices: Mapping[str, list[Any]]
    trials: int
    seeds: int
    first_seed: int
    told: dict[str, tuple[float, float] | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            import optuna
        except ImportError as error:
            raise ConfigurationError("`search` tpe is not installed; pip install 'tvae[search]'.") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if not (self.choices or RANGES.keys() - self.base.keys()):
            raise ConfigurationError(f"A search must have something to choose: leave out one of {', '.join(RANGES)}.")

    def to_dict(self) -> dict[str, Any]:
        """Return what the search was made with as plain JSON values: the arguments that make it again."""
        return {name: value for name, value in asdict(self).items() if name != "told"}

    @property
    def size(self) -> int:
        """How many cells are tried in all."""
        return min(self.trials, math.prod(map(len, self._names().values())) if self.choices else self.trials)

    def ask(self) -> list[str]:
        """Return the cells to try next, at most `ROUND`; none when all are tried."""
        import optuna

        # Made again for each round, so that it is the same search whether or not it was stopped before.
        sampler = optuna.samplers.TPESampler(
            seed=self.first_seed + len(self.told), n_startup_trials=ROUND, constant_liar=True
        )
        study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)
        space: dict[str, Any] = {
            name: optuna.distributions.CategoricalDistribution(list(values)) for name, values in self._names().items()
        } or {
            name: optuna.distributions.FloatDistribution(low, high, log=True)
            for name, (low, high) in RANGES.items()
            if name not in self.base
        }
        for cell, values in self.told.items():
            if values is not None:
                params = self._settings(cell) if not self.choices else dict(_pairs(cell))
                study.add_trial(optuna.trial.create_trial(params=params, distributions=space, values=values))
        cells: list[str] = []
        repeated = 0
        while len(cells) < min(ROUND, self.size - len(self.told)):
            cell = " ".join(f"{name}={_short(value)}" for name, value in study.ask(space).params.items())
            if cell not in self.told and cell not in cells:
                cells.append(cell)
            elif (repeated := repeated + 1) >= ROUND:  # a small space, nearly tried as a whole
                study.enqueue_trial(dict(_pairs(self._untried(cells))))
        return cells

    def cell_trials(self, cell: str) -> list[Trial]:
        """Return the trials of a cell: they differ in their seed."""
        seeds = range(self.first_seed, self.first_seed + self.seeds)
        return list(cell_trials(SEARCH, cell, {**self.base, **self._settings(cell)}, seeds))

    def _settings(self, cell: str) -> dict[str, Any]:
        names = self._names()
        return {name: names[name][word] if names else float(word) for name, word in _pairs(cell)}

    def _names(self) -> dict[str, dict[str, Any]]:
        """Return the values to choose from, by what they are called in the name of a cell."""
        return {name: {shown(value): value for value in values} for name, values in self.choices.items()}

    def _untried(self, cells: list[str]) -> str:
        names = [[f"{name}={word}" for word in words] for name, words in self._names().items()]
        return next(c for c in map(" ".join, itertools.product(*names)) if c not in self.told and c not in cells)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _pairs(cell: str) -> list[tuple[str, str]]:
    return [(name, word) for name, _, word in (pair.partition("=") for pair in cell.split(" "))]
