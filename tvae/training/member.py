"""A run before and after it is trained, and who watches it."""

from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from tvae.config.training import Configuration
from tvae.errors import TrainingError
from tvae.metrics import q
from tvae.model import TernaryVAE

__all__ = ["AT_BEST", "Member", "Observer", "Record", "Result"]

AT_BEST = ("coverage", "hierarchy", "richness", "ordered_levels", "level_gap", "distance_fidelity")
"""What a training with a projection measures at every epoch, and is worth at its best."""

Record = dict[str, float]
"""The metrics of one epoch of one run, by the names they are logged with, and `epoch`, 0 before training."""


@dataclass(frozen=True, slots=True)
class Member:
    """One run, before it is trained.

    Attributes:
        configuration: how to train.
        model: where to start; it is copied, not changed.
        reinitialised: components with random weights, which may be drawn again.
        generator: the source of every further draw of this run.
    """

    configuration: Configuration
    model: TernaryVAE
    reinitialised: tuple[str, ...]
    generator: torch.Generator


@dataclass(slots=True)
class Result:
    """One run, after it was trained.

    Attributes:
        configuration: how it was trained.
        model: with the weights of the best epoch, on the CPU.
        history: a record an epoch, epoch 0 (before training) first.
        best_epoch: the epoch whose weights `model` has.
        redraws: the hierarchies of the projections that were drawn and thrown away.
        events: what was unusual, a sentence each.
        error: why the run had to stop, or None.
        seconds: training time, the metrics of each epoch included; in a cohort an equal share of the cohort's.
    """

    configuration: Configuration
    model: TernaryVAE
    history: list[Record] = field(default_factory=list)
    best_epoch: int = 0
    redraws: list[float] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    error: TrainingError | None = None
    seconds: float = 0.0

    def after(self, first: "Result") -> "Result":
        """Return both stages of a training as one: this one, with its epochs counted on from the first stage's."""
        offset = len(first.history)
        return replace(
            self,
            history=[*first.history, *({**record, "epoch": record["epoch"] + offset} for record in self.history)],
            best_epoch=self.best_epoch + offset,
            events=[*first.events, *self.events],
            seconds=first.seconds + self.seconds,
        )

    def summary(self) -> dict[str, float]:
        """Return init, best and final hierarchy, the best epoch and its metrics, degradation and training time.

        Degradation is final - best hierarchy; `best_coverage` and the like are those of the best epoch. Without a
        projection, and for a run that could not start, there is no hierarchy.
        """
        summary = {"best_epoch": float(self.best_epoch), "train_seconds": self.seconds}
        placed = [record["hierarchy"] for record in self.history if "hierarchy" in record]
        if placed:
            at_best = self.history[self.best_epoch]
            summary["init_hierarchy"], summary["final_hierarchy"] = placed[0], placed[-1]
            summary["degradation"] = placed[-1] - at_best["hierarchy"]
            summary |= {f"best_{name}": at_best[name] for name in AT_BEST}
            summary["best_q"] = q(at_best["distance_fidelity"], at_best["hierarchy"])
        return summary


class Observer(Protocol):
    """Who wants to know how a training goes. Its time does not count as training time."""

    def epoch(self, member: int, record: Record) -> None:
        """Take the record of one epoch of one member."""

    def event(self, member: int, text: str) -> None:
        """Take one sentence on something unusual: a redraw, a degradation."""
