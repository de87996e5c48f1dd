"""Learning rates, step by step."""

import math

from tvae.config.training import Configuration

__all__ = ["Schedule"]

# one_cycle: warm up from lr/25 over the first 30 % of all steps, then anneal to lr/10⁴, both along a half cosine.
WARM_UP, FIRST_SHARE, LAST_SHARE = 0.3, 1 / 25, 1e-4
# linear: warm up over the first 5 % of all steps, then fall to 0, both along a line.
LINEAR_WARM_UP = 0.05
# step: five stages of equal length, each at half the rate of the one before.
STAGES, STAGE_FACTOR = 5, 0.5
# plateau: half the rate after each 5 epochs without a better one.
PLATEAU_EPOCHS, PLATEAU_FACTOR = 5, 0.5


class Schedule:
    """The learning rate of one run.

    Args:
        configuration: gives the scheduler's name, the peak rate and the number of epochs.
        steps_per_epoch: optimiser steps in an epoch.

    Source:
        one_cycle: Smith & Topin 2018, arXiv:1708.07120; cosine: Loshchilov & Hutter 2017, arXiv:1608.03983.
    """

    def __init__(self, configuration: Configuration, steps_per_epoch: int) -> None:
        self._configuration = configuration
        self._steps = configuration.epochs * steps_per_epoch
        self._plateau = 1.0
        self._stale = 0

    def lr(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return self._configuration.lr * self._share(step / max(1, self._steps - 1))

    def observe(self, improved: bool) -> None:
        """Take note, once an epoch, of whether it was the best so far: `plateau` depends on it."""
        self._stale = 0 if improved else self._stale + 1
        if self._stale == PLATEAU_EPOCHS:
            self._plateau, self._stale = self._plateau * PLATEAU_FACTOR, 0

    def _share(self, progress: float) -> float:
        match self._configuration.scheduler:
            case "cosine":
                return _half_cosine(1.0, 0.0, progress)
            case "step":
                return STAGE_FACTOR ** min(STAGES - 1, int(progress * STAGES))
            case "plateau":
                return self._plateau
            case "linear":
                return min((progress + 1e-3) / LINEAR_WARM_UP, (1 - progress) / (1 - LINEAR_WARM_UP))
            case "one_cycle" if progress < WARM_UP:
                return _half_cosine(FIRST_SHARE, 1.0, progress / WARM_UP)
            case "one_cycle":
                return _half_cosine(1.0, LAST_SHARE, (progress - WARM_UP) / (1 - WARM_UP))
            case _:
                return 1.0


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
