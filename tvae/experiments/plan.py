"""What a sweep is to train: stored with its run, so that it goes on as it was begun, whatever is typed then."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from tvae.experiments.search import Search
from tvae.experiments.trial import Trial

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

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values, which `from_dict` reads."""
        if isinstance(self.trials, Search):
            what: dict[str, Any] = {"search": self.trials.to_dict()}
        else:
            what = {"trials": [trial.to_dict() for trial in self.trials]}
        return {**what, "checkpoint": self.checkpoint, "new_projection": self.new_projection}

    @classmethod
    def from_dict(cls, values: Any) -> "Plan | None":
        """Build a plan from what `to_dict` returned.

        Returns:
            None for what holds no trials: earlier versions stored nothing of a search.
        """
        if isinstance(values, list):  # of earlier versions
            values = {"trials": values}
        further = {name: values[name] for name in ("checkpoint", "new_projection") if name in values}
        if "search" in values:
            return cls(Search(**values["search"]), **further)
        trials = tuple(Trial.from_dict(each) for each in values["trials"])
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
