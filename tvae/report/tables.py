"""Trials sorted into phases and cells, with what their seeds say: spreads, and comparisons on paired seeds."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tvae.architecture import Architecture
from tvae.configuration import Configuration
from tvae.experiments import reference
from tvae.experiments.phases import PHASES
from tvae.experiments.statistics import MIN_PAIRS, Comparison, Spread, compare, spread
from tvae.metrics import hierarchy_ceiling, richness_ceiling
from tvae.registry import RANKING
from tvae.report.gather import SEARCH, Campaign, RunRecord

__all__ = ["COMPARED", "HIERARCHY", "RICHNESS", "Cell", "Measure", "Phase", "at_best", "phases_of", "rank"]

MOST_CELLS_IN_PAIRS = 7
"""With so many cells all pairs are compared, 21 at most; with more, each with the baseline."""


class Measure(NamedTuple):
    """What cells are compared in.

    Attributes:
        metric: its name in a run.
        label: its name in a text.
        matters: the smallest difference that matters.
    """

    metric: str
    label: str
    matters: float


# The reference sweep took differences of 0.014 for findings; a third of that is worth a word. A richness of 0.0005 is a
# tenth of what it had, and a fortieth of the limit.
HIERARCHY = Measure("best_hierarchy", "hierarchy", 0.005)
RICHNESS = Measure("best_richness", "richness", 0.0005)
COMPARED = (HIERARCHY, RICHNESS)


@dataclass(frozen=True, slots=True)
class Cell:
    """Trials that differ in nothing but their seed.

    Attributes:
        name: as a reader would call the configuration.
        trials: one for each seed, at least one.
    """

    name: str
    trials: tuple[RunRecord, ...]

    @property
    def finished(self) -> tuple[RunRecord, ...]:
        """The trials that came to their end."""
        return tuple(trial for trial in self.trials if trial.finished)

    @property
    def seeds(self) -> set[int]:
        """The seeds that were asked for."""
        return {_seed(trial) for trial in self.trials}

    @property
    def is_demonstration(self) -> bool:
        """Whether it shows what a silent partial load does, and is no configuration to choose."""
        return self.setting("load") == "mismatched"

    def setting(self, name: str) -> str | None:
        """Return a setting of all its trials."""
        return self.trials[0].setting(name)

    def settings(self) -> dict[str, str]:
        """Return everything that its trials were trained with, save the seed."""
        return {name: value for name, value in self.trials[0].params.items() if name != "seed"}

    def by_seed(self, metric: str) -> dict[int, float]:
        """Return a metric by seed, of the finished trials that have it."""
        values = {_seed(trial): trial.value(metric) for trial in self.finished}
        return {seed: value for seed, value in values.items() if value is not None}

    def spread(self, metric: str) -> Spread | None:
        """Return the spread of a metric over the seeds, None if no trial has it."""
        values = self.by_seed(metric).values()
        return spread(values) if values else None

    def means(self) -> dict[str, float]:
        """Return the means of what the registry ranks by, under the registry's names."""
        spreads = {criterion.name: self.spread(f"best_{criterion.name}") for criterion in RANKING}
        return {name: found.mean for name, found in spreads.items() if found is not None}

    def changed(self) -> dict[str, str]:
        """Return the settings that are not as by default."""
        defaults = {name: str(value) for name, value in (Architecture().to_dict() | Configuration().to_dict()).items()}
        return {k: value for k, value in self.settings().items() if k in defaults and value != defaults[k]}

    def best_trial(self) -> RunRecord:
        """Return the best of the finished trials, by the registry's measures; one must have a hierarchy."""
        return max(self.finished, key=lambda trial: rank(at_best(trial)))

    @property
    def hierarchy_limit(self) -> float:
        """What the hierarchy of its trials cannot pass."""
        return hierarchy_ceiling(int(self.trials[0].number("n_trits") or 9))

    @property
    def richness_limit(self) -> float:
        """What the richness of its trials cannot pass while levels do not overlap."""
        trial = self.trials[0]
        return richness_ceiling(trial.number("max_radius") or 0.95, int(trial.number("n_trits") or 9))


@dataclass(frozen=True, slots=True)
class Phase:
    """One table of a sweep.

    Attributes:
        parent: the sweep.
        name: of the phase.
        title: the name, with that of the sweep where there are several.
        cells: its rows.
        baseline: the cell that the others vary; None where there is but one.
        apart: cells that share no seed with any other, and so are compared with none.
        comparisons: by metric, each set corrected for its own number; empty where nothing is compared.
    """

    parent: RunRecord
    name: str
    title: str
    cells: tuple[Cell, ...]
    baseline: str | None
    apart: tuple[str, ...]
    comparisons: Mapping[str, tuple[Comparison, ...]]

    @property
    def trials(self) -> tuple[RunRecord, ...]:
        """The trials of all its cells."""
        return tuple(trial for cell in self.cells for trial in cell.trials)

    @property
    def is_search(self) -> bool:
        """Whether its trials were chosen one after the other, in view of those before."""
        return self.name == SEARCH

    @property
    def pairs(self) -> int:
        """Most seeds that two of its cells share with a figure for each."""
        return max((found.n for found in self.comparisons.get(HIERARCHY.metric, ())), default=0)

    @property
    def concludes(self) -> bool:
        """Whether there are seeds enough to conclude anything."""
        return self.pairs >= MIN_PAIRS

    def cell(self, name: str) -> Cell | None:
        """Return a cell by name."""
        return next((cell for cell in self.cells if cell.name == name), None)

    def comparison(self, measure: Measure, first: str, second: str) -> Comparison | None:
        """Return the comparison of two cells, in the order in which it was made."""
        asked = {first, second}
        made = self.comparisons.get(measure.metric, ())
        return next((found for found in made if {found.cell, found.against} == asked), None)

    def candidates(self) -> list[Cell]:
        """Return the cells that one could choose, the best by the registry's measures first."""
        known = [cell for cell in self.cells if not cell.is_demonstration and cell.spread(HIERARCHY.metric)]
        return sorted(known, key=lambda cell: rank(cell.means()), reverse=True)


def rank(metrics: Mapping[str, float]) -> tuple[float, ...]:
    """Return what is larger for the better, by the measures that decide in the registry, in their order."""
    return tuple(criterion.rank(metrics) for criterion in RANKING)


def at_best(trial: RunRecord) -> dict[str, float]:
    """Return what the registry ranks by, of a trial's best epoch."""
    found = {criterion.name: trial.value(f"best_{criterion.name}") for criterion in RANKING}
    return {name: value for name, value in found.items() if value is not None}


def phases_of(campaign: Campaign) -> tuple[Phase, ...]:
    """Sort the trials of a campaign into phases, in the order of the sweep."""
    return tuple(
        _phase(parent, name, f"{name} of {parent.name}" if len(campaign.parents) > 1 else name, trials)
        for parent in campaign.parents
        for name, trials in _grouped((t for t in campaign.trials if t.parent == parent.id), "phase", PHASES)
    )


def _phase(parent: RunRecord, name: str, title: str, trials: Iterable[RunRecord]) -> Phase:
    known = PHASES.get(name, {})
    cells = tuple(Cell(cell, tuple(found)) for cell, found in _grouped(trials, "cell", known))
    names = [cell.name for cell in cells]
    baseline = reference.BASELINES.get(name)
    if baseline not in names:
        baseline = names[0] if len(names) > 1 else None
    paired = [] if name == SEARCH else [cell for cell in cells if _shares_a_seed(cell, cells)]
    against = None if name in PHASES and len(paired) <= MOST_CELLS_IN_PAIRS else baseline
    if against not in {cell.name for cell in paired}:
        against = paired[0].name if against and paired else None
    comparisons = {
        measure.metric: compare(
            {cell.name: cell.by_seed(measure.metric) for cell in paired},
            metric=measure.label,
            smallest_difference=measure.matters,
            against=against,
        )
        for measure in (COMPARED if paired else ())
    }
    apart = tuple(cell.name for cell in cells if cell not in paired)
    return Phase(parent, name, title, cells, baseline, apart if paired else (), comparisons)


def _grouped(
    trials: Iterable[RunRecord], by: str, order: Mapping[str, object]
) -> Iterator[tuple[str, list[RunRecord]]]:
    """Group trials by phase or cell: first those whose order is known, then as they come."""
    groups: dict[str, list[RunRecord]] = {}
    for trial in trials:
        groups.setdefault(trial.phase if by == "phase" else trial.cell, []).append(trial)
    names = list(order)
    yield from sorted(groups.items(), key=lambda item: names.index(item[0]) if item[0] in names else len(names))


def _shares_a_seed(cell: Cell, cells: Iterable[Cell]) -> bool:
    return any(cell.seeds & other.seeds for other in cells if other is not cell)


def _seed(trial: RunRecord) -> int:
    return int(trial.number("seed") or 0)


def noise_between(phase: Phase, measure: Measure, pairs: Iterable[Comparison]) -> float | None:
    """Return how much the difference of two cells varies from seed to seed, pooled over pairs that are compared.

    Returns:
        A standard deviation; None if no pair shares two seeds.
    """
    variances = []
    for found in pairs:
        first, second = phase.cell(found.cell), phase.cell(found.against)
        assert first is not None
        assert second is not None
        a, b = first.by_seed(measure.metric), second.by_seed(measure.metric)
        differences = [a[seed] - b[seed] for seed in a.keys() & b.keys()]
        if len(differences) > 1:
            variances.append(spread(differences).std ** 2)
    return math.sqrt(sum(variances) / len(variances)) if variances else None


def detectable(noise: float, n: int, comparisons: int, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the difference that n paired seeds find with a probability of `power`, among so many comparisons.

    (t(1 - α/2m) + t(power))·s/sqrt(n) with quantiles of Student's t at n - 1 degrees of freedom, s the noise of a
    difference and m the comparisons: the usual approximation.

    Args:
        noise: standard deviation of the difference from seed to seed.
        n: paired seeds, at least 2.
        comparisons: that are corrected for.
        alpha: chance of a false finding among them.
        power: chance of a true one, for each.
    """
    from scipy.special import stdtrit

    quantiles = stdtrit(n - 1, 1 - alpha / (2 * comparisons)) + stdtrit(n - 1, power)
    return float(quantiles) * noise / math.sqrt(n)


def seeds_to_see(noise: float, difference: float, comparisons: int) -> int:
    """Return how many paired seeds find a difference 4 times in 5, among so many comparisons."""
    high = MIN_PAIRS
    while detectable(noise, high, comparisons) > difference:
        high *= 2
    low = max(high // 2, MIN_PAIRS - 1)
    while high - low > 1:  # the difference that is found falls as seeds are added
        middle = (low + high) // 2
        low, high = (middle, high) if detectable(noise, middle, comparisons) > difference else (low, middle)
    return high
