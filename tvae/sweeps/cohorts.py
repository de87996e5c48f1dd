"""Which trials train together: cohorts of one shape, of like length, enough of them for all workers."""

from collections.abc import Iterator, Sequence

from tvae.sweeps.trial import Trial
from tvae.training.cohort import LARGEST_BATCH

__all__ = ["cohorts", "duration"]

# Fewer members than this are no faster in two cohorts than in one.
LEAST_WORTH_DIVIDING = 8
# In epochs of one member's projection: an epoch of a member whose encoder learns too; and what an epoch of a cohort
# costs beside its members.
ENCODER_COST = 7
COHORT_COST = 3


def cohorts(trials: Sequence[Trial], workers: int) -> list[list[Trial]]:
    """Group trials into cohorts that may train together, in the order in which workers should take them.

    A cohort shrinks as its members end, and a small one costs more for each member: so members of like length train
    together. No cohort is larger than one batch: what is done is written down sooner, and less is lost with a worker.

    Args:
        trials: in any order.
        workers: how many cohorts train at a time. Shapes of many trials are divided for them, so that all end together.
    """
    shapes: dict[tuple[object, ...], list[Trial]] = {}
    for trial in trials:
        shapes.setdefault(trial.shape(), []).append(trial)
    groups = [sorted(group, key=_length, reverse=True) for group in sorted(shapes.values(), key=len)]
    # What cannot be divided is given out first, the longest first; what can be divided then fills up what is left.
    whole = [group for group in groups if len(group) < 2 * LEAST_WORTH_DIVIDING]
    queues: list[list[list[Trial]]] = [[] for _ in range(workers)]
    for group in sorted(whole, key=duration, reverse=True):
        min(queues, key=_work).append(group)
    for group in groups[len(whole) :]:
        shares = _filled([_work(queue) for queue in queues], duration(group))
        for place, part in _divided(group, shares):
            queues[place].append(part)
    begun: list[tuple[int, list[Trial]]] = []
    for queue in queues:
        queue.sort(key=duration, reverse=True)
        begun += [(_work(queue[:place]), part) for place, part in enumerate(queue)]
    return [part for _, part in sorted(begun, key=lambda one: (one[0], -duration(one[1])))]


def duration(trials: Sequence[Trial]) -> int:
    """Return how long a cohort may take, in epochs of one member's projection."""
    return sum(map(_length, trials)) + COHORT_COST * max(trial.configuration.epochs for trial in trials)


def _filled(work: Sequence[float], more: float) -> list[float]:
    """Return how much of `more` each worker is given, so that all end together, or those with less to do do so."""
    for busy in range(len(work), 0, -1):
        taking = sorted(range(len(work)), key=work.__getitem__)[:busy]
        level = (more + sum(work[worker] for worker in taking)) / busy
        if level >= work[taking[-1]]:
            break
    return [max(0.0, level - before) for before in work]


def _divided(trials: list[Trial], shares: Sequence[float]) -> Iterator[tuple[int, list[Trial]]]:
    """Cut trials, longest first, into consecutive parts in proportion to the shares, each with the place of its share.

    A share that is too large for one batch is cut into several parts.
    """
    takers = sorted((place for place, share in enumerate(shares) if share > 0), key=lambda place: -shares[place])
    takers = takers[: max(1, len(trials) // LEAST_WORTH_DIVIDING)]
    rounds = -(-len(trials) // (LARGEST_BATCH * len(takers)))
    wanted = [(place, shares[place]) for place in takers] * rounds
    left, start = float(sum(map(_length, trials))), 0
    for part, (place, weight) in enumerate(wanted):
        share, end, work = left * weight / sum(weight for _, weight in wanted[part:]), start, 0
        after = len(wanted) - 1 - part
        least, most = len(trials) - after * LARGEST_BATCH, min(start + LARGEST_BATCH, len(trials) - after)
        while end < most and (end == start or end < least or work + _length(trials[end]) / 2 <= share):
            work += _length(trials[end])
            end += 1
        yield place, trials[start:end]
        left, start = left - work, end


def _work(parts: Sequence[Sequence[Trial]]) -> int:
    return sum(map(duration, parts))


def _length(trial: Trial) -> int:
    """Return how long a trial may take, in epochs of the projection alone."""
    c = trial.configuration
    return c.epochs * (1 if c.unfreeze == "none" else ENCODER_COST)
