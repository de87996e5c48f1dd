"""Which trials train together: cohorts of one shape, of like length, enough of them for all workers."""

from collections.abc import Sequence

from tvae.experiments.trial import Trial
from tvae.training.cohort import LARGEST_BATCH

__all__ = ["cohorts"]

# Fewer members than this are no faster in two cohorts than in one.
LEAST_WORTH_DIVIDING = 8
# What an epoch costs where the encoder learns too, against one of the projection alone.
ENCODER_COST = 8


def cohorts(trials: Sequence[Trial], workers: int) -> list[list[Trial]]:
    """Group trials into cohorts that may train together, the longest first.

    A cohort shrinks as its members end, and a small one costs more for each member: so members of like length train
    together. No cohort is larger than one batch: what is done is written down sooner, and less is lost with a worker.

    Args:
        trials: in any order.
        workers: how many cohorts train at a time; each shape is divided for them.
    """
    shapes: dict[tuple[object, ...], list[Trial]] = {}
    for trial in trials:
        shapes.setdefault(trial.shape(), []).append(trial)
    grouped = [
        part for members in shapes.values() for part in _divided(sorted(members, key=_length, reverse=True), workers)
    ]
    return sorted(grouped, key=lambda cohort: sum(map(_length, cohort)), reverse=True)


def _divided(trials: list[Trial], workers: int) -> list[list[Trial]]:
    """Cut trials, longest first, into consecutive parts of about equal work, as many for each worker as for another."""
    rounds = -(-len(trials) // (LARGEST_BATCH * workers))
    wanted = min(rounds * workers, max(rounds, len(trials) // LEAST_WORTH_DIVIDING))
    parts: list[list[Trial]] = []
    left = sum(map(_length, trials))
    start = 0
    for remaining in range(wanted, 0, -1):
        share, end, work = left / remaining, start, 0
        most = min(start + LARGEST_BATCH, len(trials) - (remaining - 1))
        while end < most and (end == start or work + _length(trials[end]) / 2 <= share):
            work += _length(trials[end])
            end += 1
        parts.append(trials[start:end])
        left, start = left - work, end
    if start < len(trials):  # the longest went in parts too small for all
        parts += _divided(trials[start:], workers)
    return parts


def _length(trial: Trial) -> int:
    """Return how long a trial may take, in epochs of the projection alone."""
    c = trial.configuration
    return c.epochs * (1 if c.unfreeze == "none" else ENCODER_COST)
