"""One trial of a sweep: a configuration with its seed, in the cell of a table that it helps to fill."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tvae.config.architecture import Architecture
from tvae.config.training import SHARED_SETTINGS, Configuration
from tvae.errors import ConfigurationError

__all__ = ["LOADS", "Trial", "merged"]

LOADS = ("matched", "mismatched")


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a sweep, before it is trained.

    Attributes:
        phase: the table that it belongs to.
        cell: the row of that table: the configuration without its seed, as a reader would call it.
        architecture: of the model.
        configuration: of the training, the seed included.
        load: `matched` starts as `finetune` does; `mismatched` is the demonstration of a silent partial load.
    """

    phase: str
    cell: str
    architecture: Architecture
    configuration: Configuration
    load: str = "matched"

    @property
    def key(self) -> str:
        """Identity: 16 hexadecimal digits of what is trained, whatever the trial is called and wherever it stands."""
        content = json.dumps(self.settings(), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """What tells the trial from the others of its sweep: `curvature=2 seed=1`."""
        return f"{self.cell} seed={self.configuration.seed}"

    def settings(self) -> dict[str, Any]:
        """Return all that is trained with, as plain JSON values."""
        return {**self.architecture.to_dict(), **self.configuration.to_dict(), "load": self.load}

    def to_dict(self) -> dict[str, Any]:
        """Return the trial as plain JSON values, which `from_dict` reads."""
        return {"phase": self.phase, "cell": self.cell, "settings": self.settings()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Trial":
        """Build a trial from what `to_dict` returned.

        Raises:
            ConfigurationError: if it does not state every setting: another version of tvae planned it.
        """
        settings, names = dict(values["settings"]), Architecture().to_dict()
        if missing := sorted({*names, *Configuration().to_dict(), "load"} - settings.keys()):
            raise ConfigurationError(
                f"A stored trial must state every setting; `{values['cell']}` says nothing of {', '.join(missing)}. "
                "Another version of tvae planned it, which trained in another way. Start the sweep again, without "
                "`resume`."
            )
        load = settings.pop("load")
        architecture = Architecture.from_dict({k: v for k, v in settings.items() if k in names})
        configuration = Configuration.from_dict({k: v for k, v in settings.items() if k not in names})
        return cls(values["phase"], values["cell"], architecture, configuration, load)

    def shape(self) -> tuple[Any, ...]:
        """Return what must be equal in trials that train as one cohort."""
        architecture = {name: value for name, value in self.architecture.to_dict().items() if name != "curvature"}
        settings = [getattr(self.configuration, name) for name in SHARED_SETTINGS]
        return (json.dumps(architecture), *settings)


def merged(trials: Iterable[Trial]) -> tuple[tuple[Trial, ...], tuple[str, ...]]:
    """Return trials without those that would train the same thing twice, and a sentence for each cell that has some."""
    known: dict[str, Trial] = {}
    notes = [
        f"`{trial.cell}` is the same as `{other.cell}`, and is not trained twice."
        for trial in trials
        if (other := known.setdefault(trial.key, trial)) is not trial
    ]
    return tuple(known.values()), tuple(dict.fromkeys(notes))
