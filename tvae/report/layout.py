"""Trials sorted into phases and cells, and what their seeds say of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from statistics import fmean
from typing import NamedTuple

from tvae.config.architecture import Architecture
from tvae.config.presets import nearest_preset
from tvae.config.training import Configuration
from tvae.metrics import hierarchy_ceiling, richness_ceiling
from tvae.registry import RANKING
from tvae.report.gather import RunRecord, Runs
from tvae.sweeps import reference
from tvae.sweeps.phases import PHASES
from tvae.sweeps.search import SEARCH
from tvae.sweeps.statistics import MIN_PAIRS, Comparison, Comparisons, Spread, compare, spread

__all__ = [
    "HIERARCHY",
    "MEASURES",
    "RICHNESS",
    "Cell",
    "Measure",
    "Phase",
    "at_best",
    "phases_of",
    "rank",
    "singles_of",
]

MOST_IN_PAIRS = 60
"""With more cells than this, each is compared with the first and the best only."""


class Measure(NamedTuple):
    """What cells are compared in.

    Attributes:
        metric: its name in a run.
        label: its name in a text.
        matters: the smallest difference that matters.
        sign: 1 if more is better, -1 if less is.
    """

    metric: str
    label: str
    matters: float
    sign: int

    def better(self, found: Comparison) -> bool | None:
        """Return whether the first of two is better, or worse, by as much as matters; None if neither is shown."""
        return None if found.verdict != "distinguishable" else found.difference * self.sign > 0


# In the order in which they decide. Coverage: two operations. Hierarchy: the reference sweep took differences of 0.014
# for findings; a third of that is worth a word. Richness: a tenth of what it had, and a fortieth of the limit.
HIERARCHY = Measure("best_hierarchy", "hierarchy", 0.005, -1)
RICHNESS = Measure("best_richness", "richness", 0.0005, 1)
MEASURES = (
    Measure("best_coverage", "coverage", 0.0001, 1),
    HIERARCHY,
    Measure("best_distance_fidelity", "distance fidelity", 0.01, 1),
    RICHNESS,
)


@dataclass(frozen=True)
class Cell:
    """Runs that differ in nothing but their seed.

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
    def is_demonstration(self) -> bool:
        """Whether it shows what a silent partial load does, and is no configuration to choose."""
        return self.trials[0].setting("load") == "mismatched"

    def by_seed(self, metric: str) -> dict[int, float]:
        """Return a metric by seed, of the finished trials that have it."""
        values = {int(trial.number("seed") or 0): trial.value(metric) for trial in self.finished}
        return {seed: value for seed, value in values.items() if value is not None}

    def spread(self, metric: str) -> Spread | None:
        """Return the spread of a metric over the seeds, None if no trial has it."""
        values = self.by_seed(metric).values()
        return spread(values) if values else None

    @cached_property
    def rank(self) -> tuple[float, ...]:
        """What is larger for the better mean, by the measures that decide in the registry."""
        known = [at_best(trial) for trial in self.finished if HIERARCHY.metric in trial.metrics]
        names = {name for found in known for name in found}
        return rank({name: fmean(found[name] for found in known if name in found) for name in names})

    @cached_property
    def settings(self) -> dict[str, str]:
        """Settings of architecture and training that its runs share; not the seed."""
        names = Architecture().to_dict() | Configuration().to_dict() | {"load": ""}
        found = {name: self.trials[0].setting(name) for name in names if name != "seed"}
        return {name: value for name, value in found.items() if value is not None}

    def changed(self) -> dict[str, str]:
        """Return what one would type for its settings: the preset that is nearest, and what differs from it."""
        preset, differences = nearest_preset(self.settings)
        return ({} if preset == "default" else {"preset": preset}) | differences

    @property
    def best_trial(self) -> RunRecord:
        """The best of the finished trials; there must be one."""
        return max(self.finished, key=lambda trial: rank(at_best(trial)))

    def limit(self, measure: Measure) -> float | None:
        """Return what a measure of its trials cannot pass, as far as that is known."""
        n_trits = int(self.trials[0].number("n_trits") or 9)
        if measure is HIERARCHY:
            return hierarchy_ceiling(n_trits)
        return richness_ceiling(self.trials[0].number("max_radius") or 0.95, n_trits) if measure is RICHNESS else None


@dataclass(frozen=True)
class Phase:
    """One table of a sweep.

    Attributes:
        name: of the phase.
        title: the name, with that of the sweep where there are several.
        cells: its rows; the first that is compared is the one that the others vary.
        apart: names of cells that share no seed with any other, and so are compared with none.
        comparisons: by metric; empty where nothing is compared.
    """

    name: str
    title: str
    cells: tuple[Cell, ...]
    apart: tuple[str, ...]
    comparisons: Mapping[str, Comparisons]

    @property
    def is_search(self) -> bool:
        """Whether its trials were chosen one after the other, in view of those before."""
        return self.name == SEARCH

    @property
    def seeds(self) -> int:
        """Most seeds that two of its cells share, 0 where nothing is compared."""
        return max((found.n for found in self.comparisons.values()), default=0)

    @property
    def concludes(self) -> bool:
        """Whether there are seeds enough to conclude anything."""
        return self.seeds >= MIN_PAIRS

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What there is to show: coverage only where it is not full."""
        known = {m: [v for c in self.cells for v in c.by_seed(m.metric).values()] for m in MEASURES}
        return tuple(m for m, values in known.items() if values and (m.label != "coverage" or min(values) < 1))

    @property
    def candidates(self) -> list[Cell]:
        """Cells that one could choose, the best mean first."""
        return _best_first(self.cells)

    @property
    def first(self) -> Cell | None:
        """The cell that the others are compared with."""
        compared = next(iter(self.comparisons.values()), None)
        return next((cell for cell in self.cells if compared and cell.name == compared.cells[0]), None)

    def against_first(self, cell: Cell, measure: Measure) -> Comparison | None:
        """Return what is found of a cell less the first, None where nothing is."""
        found = self.comparisons.get(measure.metric)
        return found.between(cell.name, found.cells[0]) if found else None


def rank(metrics: Mapping[str, float]) -> tuple[float, ...]:
    """Return what is larger for the better, by the measures that decide in the registry, in their order."""
    return tuple(criterion.rank(metrics) for criterion in RANKING)


def at_best(trial: RunRecord) -> dict[str, float]:
    """Return what the registry ranks by, of a run's best epoch; where only one epoch is known, of that."""
    found = {c.name: trial.value(f"best_{c.name}") or trial.value(c.name) for c in RANKING}
    return {name: value for name, value in found.items() if value is not None}


def phases_of(runs: Runs) -> tuple[Phase, ...]:
    """Sort trials into phases, in the order of the sweep."""
    names = [parent.name for parent in runs.parents]

    def title(name: str, parent: RunRecord) -> str:
        if len(names) == 1:
            return name
        begun = f", begun {datetime.fromtimestamp(parent.started, UTC):%m-%d %H:%M:%S}"
        return f"{name} of {parent.name}{begun if names.count(parent.name) > 1 else ''}"

    return tuple(
        _phase(name, title(name, parent), trials)
        for parent in runs.parents
        for name, trials in _grouped((t for t in runs.trials if t.parent == parent.id), "phase", list(PHASES))
    )


def singles_of(runs: Runs) -> list[Cell]:
    """Return single runs as cells, those that differ in their seed only as one; best first."""
    groups: dict[str, list[RunRecord]] = {}
    for run in runs.singles:
        if run.stage not in ("foundation", "train"):
            groups.setdefault(str(Cell(run.name, (run,)).settings), []).append(run)
    return _best_first(Cell(found[0].name, tuple(found)) for found in groups.values())


def _best_first(cells: Iterable[Cell]) -> list[Cell]:
    known = [cell for cell in cells if not cell.is_demonstration and cell.by_seed(HIERARCHY.metric)]
    return sorted(known, key=lambda cell: cell.rank, reverse=True)


def _phase(name: str, title: str, trials: Iterable[RunRecord]) -> Phase:
    cells = tuple(Cell(cell, tuple(found)) for cell, found in _grouped(trials, "cell", list(PHASES.get(name, ()))))
    seeds = {cell.name: {trial.number("seed") for trial in cell.trials} for cell in cells}
    shares = {a: any(seeds[a] & seeds[b] for b in seeds if b != a) for a in seeds}
    compared = [] if name == SEARCH else [cell for cell in cells if shares[cell.name]]
    # The first has priority: the cell that the others vary, where that is known.
    compared.sort(key=lambda cell: cell.name != reference.BASELINES.get(name))
    best = [cell.name for cell in _best_first(compared)[:1]]
    comparisons = {
        measure.metric: compare(
            {cell.name: cell.by_seed(measure.metric) for cell in compared},
            metric=measure.label,
            smallest_difference=measure.matters,
            against=[compared[0].name, *best] if len(compared) > MOST_IN_PAIRS else None,
        )
        for measure in (MEASURES if compared else ())
        if any(cell.by_seed(measure.metric) for cell in compared)
    }
    apart = [cell.name for cell in cells if not shares[cell.name]] if compared else []
    return Phase(name, title, cells, tuple(apart), comparisons)


def _grouped(trials: Iterable[RunRecord], by: str, order: Sequence[str]) -> Iterator[tuple[str, list[RunRecord]]]:
    """Group trials by phase or cell: first those whose order is known, then as they come."""
    groups: dict[str, list[RunRecord]] = {}
    for trial in trials:
        groups.setdefault(trial.tags.get(by, ""), []).append(trial)
    yield from sorted(groups.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))
