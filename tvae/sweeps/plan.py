"""What a sweep is to train: stored with its run, so that it goes on as it was begun, whatever is typed then."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvae.sweeps.search import Search
from tvae.sweeps.trial import Trial
from tvae.ternary import N_TRITS

__all__ = ["Plan"]

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be trained, and where it starts.

    Attributes:
        trials: what to train, or the search that asks for them.
        checkpoint: where all trials start; `auto` is the foundation of each architecture.
        new_projection: whether to take encoder and decoder only from that checkpoint.
    """

    trials: tuple[Trial, ...] | Search
    checkpoint: str = AUTO
    new_projection: bool = False

    def settings(self) -> dict[str, Any]:
        """Return all but the trials as plain JSON values."""
        search = {"search": self.trials.to_dict()} if isinstance(self.trials, Search) else {}
        return {**search, "checkpoint": self.checkpoint, "new_projection": self.new_projection}

    def listed(self) -> list[dict[str, Any]]:
        """Return the trials as plain JSON values: none of a search, which does not know them yet."""
        return [] if isinstance(self.trials, Search) else [trial.to_dict() for trial in self.trials]

    def n_trits(self) -> list[int]:
        """Return of how many trits the operations are that it trains on; of a search what all its trials share."""
        if isinstance(self.trials, Search):
            return [int(self.trials.base.get("n_trits", N_TRITS))]
        return sorted({trial.architecture.n_trits for trial in self.trials})

    @classmethod
    def read(cls, settings: Mapping[str, Any], listed: Sequence[dict[str, Any]]) -> "Plan | None":
        """Build a plan from what `settings` and `listed` returned.

        Returns:
            None for what holds no trials: earlier versions stored nothing of a search.
        """
        further = {name: value for name, value in settings.items() if name != "search"}
        if "search" in settings:
            return cls(Search(**settings["search"]), **further)
        trials = tuple(map(Trial.from_dict, listed))
        return cls(trials, **further) if trials else None

    def identity(self, entry_point: str) -> str:
        """Return what tells whether an unfinished run is the same sweep, whatever the order of its trials."""
        if isinstance(self.trials, Search):
            content = [json.dumps(self.trials.to_dict(), sort_keys=True)]
        else:
            content = sorted(trial.key for trial in self.trials)
        if self.checkpoint != AUTO:
            content += [self.checkpoint, str(self.new_projection)]
        return hashlib.sha256(" ".join([entry_point, *content]).encode()).hexdigest()[:16]
