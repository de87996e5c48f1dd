"""A search for good settings: hierarchy and richness as two objectives, by Optuna's TPE."""

from collections.abc import Mapping, Sequence
from typing import Any

from tvae.errors import ConfigurationError
from tvae.experiments.phases import cell_trials
from tvae.experiments.trial import Trial

__all__ = ["SEARCH", "Search"]

SEARCH = "search"
"""The phase of trials that a search asks for."""

# What is tried unless a grid says otherwise: the range of each setting, and whether it is searched by its logarithm.
RANGES = {
    "lr": (3e-3, 1e-1, True),
    "hierarchy_weight": (1.0, 20.0, True),
    "richness_weight": (0.2, 20.0, True),
    "separation_weight": (0.5, 20.0, True),
}
# Suggestions that train as one cohort. The sampler learns from a round before it makes the next.
ROUND = 16


class Search:
    """Asks for trials, and is told what came of them.

    Args:
        choices: settings with the values to choose from; empty for `RANGES`.
        base: settings that all trials share.
        seeds: of every suggestion; what is told to the sampler is their mean.
        first_seed: seeds count from here; the sampler's own seed.

    Raises:
        ConfigurationError: if Optuna is not installed.
    """

    def __init__(
        self, choices: Mapping[str, Sequence[Any]], base: Mapping[str, Any], seeds: int, first_seed: int
    ) -> None:
        try:
            import optuna
        except ImportError as error:
            raise ConfigurationError("`search` tpe is not installed; pip install 'tvae[search]'.") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._choices, self._base, self._seeds = choices, base, range(first_seed, first_seed + seeds)
        sampler = optuna.samplers.TPESampler(seed=first_seed, n_startup_trials=ROUND, constant_liar=True)
        self._study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)
        self._asked: list[Any] = []

    def ask(self, n: int) -> list[list[Trial]]:
        """Return the trials of the next `n` suggestions; those of one suggestion differ in their seed."""
        self._asked = [self._study.ask() for _ in range(n)]
        return [self._trials(self._suggest(suggestion)) for suggestion in self._asked]

    def tell(self, values: Sequence[tuple[float, float] | None]) -> None:
        """Say what came of each suggestion of the last `ask`: hierarchy and richness, None where every seed failed."""
        import optuna

        for suggestion, value in zip(self._asked, values, strict=True):
            if value is None:
                self._study.tell(suggestion, state=optuna.trial.TrialState.FAIL)
            else:
                self._study.tell(suggestion, value)

    def _trials(self, settings: Mapping[str, Any]) -> list[Trial]:
        shown = {name: f"{v:.4g}" if isinstance(v, float) else v for name, v in settings.items()}
        cell = " ".join(f"{name}={value}" for name, value in shown.items())
        return list(cell_trials(SEARCH, cell, {**self._base, **settings}, self._seeds))

    def _suggest(self, suggestion: Any) -> dict[str, Any]:
        if self._choices:
            return {name: suggestion.suggest_categorical(name, list(values)) for name, values in self._choices.items()}
        # Rounded to what the cell's name shows: a trial is what it is called.
        return {
            name: float(f"{suggestion.suggest_float(name, low, high, log=log):.4g}")
            for name, (low, high, log) in RANGES.items()
        }
