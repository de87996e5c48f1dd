"""What follows from a campaign, in sentences made of its figures: where nothing follows, nothing is said."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from tvae import registry
from tvae.bounds import Bounds
from tvae.experiments.reference import Finding
from tvae.experiments.statistics import MIN_PAIRS, Comparison, Verdict
from tvae.report.contrasts import contrasts
from tvae.report.gather import Campaign, RunRecord
from tvae.report.tables import (
    COMPARED,
    HIERARCHY,
    RICHNESS,
    Cell,
    Measure,
    Phase,
    at_best,
    detectable,
    noise_between,
    phases_of,
    rank,
    seeds_to_see,
)
from tvae.report.wording import MOST_SEEDS, average, count, figure, listed, seeds_text

__all__ = ["Cost", "Power", "Recommendation", "Study", "cost_of", "front", "study", "verdicts"]

# Nearer to the limit than this the registry tells nothing apart.
AT_LIMIT = 1e-4
# The learning rate stays up to the end: a best epoch that is the last then means that there was more to gain.
STEADY = ("constant", "step", "plateau")


class Recommendation(NamedTuple):
    """What to do, and the figures that it follows from."""

    advice: str
    figures: str


class Power(NamedTuple):
    """What the seeds of a phase can tell in one measure.

    Attributes:
        phase: its name.
        measure: what is compared.
        n: paired seeds.
        comparisons: that are corrected for.
        open: how many of them leave it open whether there is a difference that matters.
        noise: standard deviation, from seed to seed, of the difference of two cells, pooled over those, or over all.
        seen: the difference that is found 4 times in 5.
        needed: how many seeds find the smallest difference that matters as often.
    """

    phase: str
    measure: Measure
    n: int
    comparisons: int
    open: int
    noise: float
    seen: float
    needed: int


class Cost(NamedTuple):
    """What trials cost.

    Attributes:
        trainings: that finished.
        epochs: of all of them together.
        seconds: of their training.
    """

    trainings: int
    epochs: int
    seconds: float

    @property
    def per_epoch(self) -> float:
        """Seconds of an epoch of one training; NaN if there was none."""
        return self.seconds / self.epochs if self.epochs else math.nan


@dataclass(frozen=True, slots=True)
class Study:
    """A campaign with what follows from it.

    Attributes:
        campaign: what MLflow holds.
        phases: its tables.
        failed: trials that did not finish.
        powers: what its seeds can tell.
        recommendations: what to do next.
        contrasts: the reference sweep's findings, each with what this campaign shows of it, empty if nothing.
    """

    campaign: Campaign
    phases: tuple[Phase, ...]
    failed: tuple[RunRecord, ...]
    powers: tuple[Power, ...]
    recommendations: tuple[Recommendation, ...]
    contrasts: tuple[tuple[Finding, str], ...]

    def best(self) -> list[tuple[Phase, Cell]]:
        """Return every cell that one could choose, the best by the registry's measures first."""
        found = [(phase, cell) for phase in self.phases for cell in phase.candidates()]
        return sorted(found, key=lambda pair: rank(pair[1].means()), reverse=True)


@lru_cache(maxsize=4)
def study(campaign: Campaign) -> Study:
    """Return what follows from a campaign; asked again, the same."""
    phases = phases_of(campaign)
    failed = tuple(trial for trial in campaign.trials if not trial.finished)
    rules: tuple[Callable[[Phase], Iterator[Recommendation]], ...] = (
        _choice,
        _early_stopping,
        _never_better_than_the_start,
        _still_learning,
        _lost_again,
    )
    powers = tuple(power for phase in phases for power in _powers(phase))
    found = [item for rule in rules for phase in phases for item in rule(phase)]
    return Study(
        campaign=campaign,
        phases=phases,
        failed=failed,
        powers=powers,
        recommendations=(
            *found,
            *_more_seeds(phases, powers),
            *_failures(campaign, failed),
            *_registration(campaign),
            *_logging(campaign),
        ),
        contrasts=contrasts(campaign, phases),
    )


# Figures --------------------------------------------------------------------------------------------------------------


def _trained_epochs(trial: RunRecord) -> int:
    """Return how many epochs a trial was trained for; as many as were asked for, if its epochs are not known."""
    return trial.history[-1][0] if trial.history else int(trial.number("epochs") or 0)


def cost_of(trials: Iterable[RunRecord]) -> Cost:
    """Return what the finished of some trials cost."""
    done = [trial for trial in trials if trial.finished]
    seconds = math.fsum(trial.value("train_seconds") or 0.0 for trial in done)
    return Cost(len(done), sum(map(_trained_epochs, done)), seconds)


def front(cells: Iterable[Cell]) -> list[Cell]:
    """Return the cells that no other beats in both hierarchy and richness, the best hierarchy first."""
    known = [
        (h.mean, -r.mean, cell)
        for cell in cells
        if (h := cell.spread(HIERARCHY.metric)) and (r := cell.spread(RICHNESS.metric))
    ]
    kept: list[Cell] = []
    richest = math.inf
    for _, poverty, cell in sorted(known, key=lambda item: item[:2]):
        if poverty < richest:
            richest = poverty
            kept.append(cell)
    return kept


def _powers(phase: Phase) -> Iterator[Power]:
    for measure in COMPARED if phase.concludes else ():
        made = phase.comparisons[measure.metric]
        open_ones = [comparison for comparison in made if _is_open(comparison)]
        noise = noise_between(phase, measure, open_ones or made)
        if noise:
            yield Power(
                phase=phase.title,
                measure=measure,
                n=phase.pairs,
                comparisons=len(made),
                open=len(open_ones),
                noise=noise,
                seen=detectable(noise, phase.pairs, len(made)),
                needed=seeds_to_see(noise, measure.matters, len(made)),
            )


def _is_open(comparison: Comparison) -> bool:
    """Whether a difference that matters may be there, and is not shown."""
    if comparison.verdict == "not distinguishable from seed noise":
        return max(abs(comparison.low), abs(comparison.high)) >= comparison.smallest_difference
    return comparison.verdict == "nothing can be concluded"


def verdicts(phase: Phase) -> str:
    """Say in a sentence what the comparisons of a phase come to; empty if there are none."""
    said: dict[str, list[str]] = {}
    for measure in COMPARED:
        made = phase.comparisons.get(measure.metric, ())
        counted = Counter(comparison.verdict for comparison in made)
        parts = [f"{_which(n, len(made))} {_said(verdict, measure)}" for verdict, n in sorted(counted.items())]
        corrected = f", corrected for {len(made):,}" if len(made) > 1 else ""
        if made:
            said.setdefault(", ".join(parts), []).append(
                f"{count(len(made), 'comparison')} in {measure.label}{corrected}"
            )
    return " ".join(f"{', and '.join(made)}: {verdict}." for verdict, made in said.items())


def _which(n: int, of: int) -> str:
    return "it is" if of == 1 else "each" if n == of else str(n)


def _said(verdict: Verdict, measure: Measure) -> str:
    if verdict == "distinguishable":
        return "distinguishable from seed noise"
    if verdict == "smaller than matters":
        return f"smaller than matters ({measure.matters:g})"
    return "with too few seeds to conclude anything" if verdict == "nothing can be concluded" else verdict


# Recommendations ------------------------------------------------------------------------------------------------------


def _choice(phase: Phase) -> Iterator[Recommendation]:
    """Whether a cell is really better than the baseline."""
    base = phase.cell(phase.baseline or "")
    candidates = [cell for cell in phase.candidates() if base and _coverage(cell) >= _coverage(base)]
    if base is None or not phase.concludes or base not in candidates or len(candidates) < 2:
        return
    measure, said = HIERARCHY, ""
    at_limit = [cell for cell in candidates if _at_limit(cell)]
    if base in at_limit and len(at_limit) > 1:
        worst = max(max(cell.by_seed(HIERARCHY.metric).values()) for cell in at_limit)
        said = (
            f"{len(at_limit)} of {len(candidates)} cells reach the limit of hierarchy with every seed (worst "
            f"{worst:.5f}, limit {base.hierarchy_limit:.5f}), so richness decides. "
        )
        measure, candidates = RICHNESS, at_limit
    best, second = sorted(candidates, key=lambda cell: _gain(cell, measure), reverse=True)[:2]
    comparison = phase.comparison(measure, base.name, second.name if best is base else best.name)
    if comparison is None or comparison.n < MIN_PAIRS:
        return
    if best is base:
        advice = f"Stay with {base.name} in {phase.title}: no other has a better mean {measure.label}."
        said += "The next best: "
    elif comparison.verdict == "distinguishable":
        if not _is_better(comparison, best.name, measure):
            return  # on the seeds that both have, which are not all
        advice = f"Take {best.name} rather than {base.name} in {phase.title}."
    else:
        why = "less than matters" if comparison.verdict == "smaller than matters" else "no more than seed noise"
        advice = f"Stay with {base.name} in {phase.title}: {best.name} has the better mean {measure.label}, by {why}."
    yield Recommendation(advice, said + comparison.sentence())


def _coverage(cell: Cell) -> float:
    """Return what comes before every other measure, as the registry rounds it."""
    return rank(cell.means())[0]


def _gain(cell: Cell, measure: Measure) -> float:
    """Return what is larger for the better cell."""
    found = cell.spread(measure.metric)
    return -math.inf if found is None else -found.mean if measure is HIERARCHY else found.mean


def _is_better(comparison: Comparison, name: str, measure: Measure) -> bool:
    """Whether a cell has the better mean of two that are compared."""
    gain = -comparison.difference if measure is HIERARCHY else comparison.difference
    return (gain > 0) == (comparison.cell == name)


def _early_stopping(phase: Phase) -> Iterator[Recommendation]:
    """What stopping early cost, against the same configuration with the most patience."""
    alike: dict[str, list[Cell]] = {}
    for cell in phase.cells:
        alike.setdefault(str(sorted({**cell.settings(), "patience": ""}.items())), []).append(cell)
    for cells in alike.values():
        *hasty_ones, patient = sorted(cells, key=_patience)
        for hasty in hasty_ones:
            comparison = phase.comparison(HIERARCHY, hasty.name, patient.name)
            epochs = [average(_trained_epochs(trial) for trial in cell.finished) for cell in (hasty, patient)]
            if comparison is None or comparison.n < MIN_PAIRS or not epochs[0] < epochs[1]:
                continue
            figures = f"{epochs[0]:.1f} epochs against {epochs[1]:.1f}, in the mean. {comparison.sentence()}"
            if comparison.verdict == "distinguishable" and not _is_better(comparison, hasty.name, HIERARCHY):
                cost = f"a patience of {_patience(hasty):.0f} cost hierarchy"
                yield Recommendation(f"Stop later than {hasty.name} in {phase.title}: {cost}.", figures)
            elif _most_lost(comparison, hasty.name) < HIERARCHY.matters:
                yield Recommendation(
                    f"Stop as early as {hasty.name} in {phase.title}: it cost less hierarchy than matters.", figures
                )


def _most_lost(comparison: Comparison, name: str) -> float:
    """Return how much worse in hierarchy a cell is at most, by the interval of the difference."""
    if math.isnan(comparison.low):  # the same difference on every seed
        return comparison.difference if comparison.cell == name else -comparison.difference
    return comparison.high if comparison.cell == name else -comparison.low


def _never_better_than_the_start(phase: Phase) -> Iterator[Recommendation]:
    for cell in _well_known(phase):
        if max(_best_epochs(cell), default=1) > 0 or _at_limit(cell):
            continue
        init = figure(cell.spread("init_hierarchy"))
        yield Recommendation(
            f"Lower the learning rate of {cell.name} in {phase.title}, or check its loss: training only made it worse.",
            f"The best epoch is 0, the start, with each of {count(len(_best_epochs(cell)), 'seed')}; lr "
            f"{cell.setting('lr')}, initial hierarchy {init}.",
        )


def _still_learning(phase: Phase) -> Iterator[Recommendation]:
    """A learning rate that is too low, or too few epochs."""
    for cell in _well_known(phase):
        best = _best_epochs(cell)
        last = [_trained_epochs(trial) for trial in cell.finished if trial.value("best_epoch") is not None]
        if not best or best != last or 0 in last or cell.setting("scheduler") not in STEADY or _at_limit(cell):
            continue
        yield Recommendation(
            f"Give {cell.name} of {phase.title} more epochs or a higher learning rate: it was still improving.",
            f"The best epoch is the last with each of {count(len(best), 'seed')} (epoch "
            f"{_range(best)}); lr {cell.setting('lr')}, best hierarchy {figure(cell.spread(HIERARCHY.metric))}.",
        )


def _lost_again(phase: Phase) -> Iterator[Recommendation]:
    """Epochs that made the hierarchy worse, where nothing stopped them."""
    falling = []
    for cell in _well_known(phase):
        lost = cell.by_seed("degradation").values()
        to_the_end = all(_trained_epochs(trial) == trial.number("epochs") for trial in cell.finished)
        if lost and to_the_end and min(lost) >= HIERARCHY.matters:
            falling.append((average(lost), cell))
    if not falling:
        return
    lost_most, cell = max(falling, key=lambda item: item[0])
    after = average(_trained_epochs(trial) - (trial.value("best_epoch") or 0) for trial in cell.finished)
    several = len(falling) > 1
    where, most = (
        (f"{len(falling)} of {len(phase.cells)} cells", f", most in {cell.name}") if several else (cell.name, "")
    )
    yield Recommendation(
        f"Train shorter, or lower the learning rate towards the end, in {where} of {phase.title}.",
        f"With every seed the hierarchy was worse at the end than at its best epoch{most}: by {lost_most:+.5f} in the "
        f"mean, {after:.1f} epochs later. The weights that are kept are those of the best epoch: what is lost is time.",
    )


def _more_seeds(phases: Iterable[Phase], powers: Iterable[Power]) -> Iterator[Recommendation]:
    """How many seeds would tell what these do not."""
    mute = [phase for phase in phases if phase.comparisons and not phase.concludes]
    if mute:
        most = max(phase.pairs for phase in mute)
        yield Recommendation(
            f"Run {listed([phase.title for phase in mute])} with at least {MIN_PAIRS} seeds.",
            f"With {count(most, 'paired seed')} nothing can be concluded from a comparison.",
        )
    needed: dict[str, int] = {}
    for power in powers:
        if power.open and power.seen > power.measure.matters:
            needed[power.phase] = max(power.needed, needed.get(power.phase, 0))
    if needed:
        seeds = [f"{'' if n > MOST_SEEDS else 'about '}{seeds_text(n)} in {phase}" for phase, n in needed.items()]
        matters = " or ".join(f"{measure.matters:g} in {measure.label}" for measure in COMPARED)
        worst = max((p for p in powers if p.phase in needed), key=lambda p: p.seen / p.measure.matters)
        yield Recommendation(
            f"Add seeds to settle what is open: {listed(seeds)}.",
            f"A difference that matters ({matters}) is then found 4 times in 5. In {worst.phase}, {worst.n} seeds find "
            f"one in {worst.measure.label} only from {worst.seen:.4f} on: from seed to seed it varies by "
            f"{worst.noise:.5f} (standard deviation), and there are {worst.comparisons} comparisons.",
        )


def _failures(campaign: Campaign, failed: Sequence[RunRecord]) -> Iterator[Recommendation]:
    if failed:
        cells = Counter(f"{trial.cell} of {trial.phase}" for trial in failed)
        worst, n = cells.most_common(1)[0]
        reasons = Counter(trial.failure for trial in failed)
        reason, times = reasons.most_common(1)[0]
        yield Recommendation(
            f"Look at {count(len(failed), 'trial')} of {len(campaign.trials):,} that did not finish before you trust "
            "a comparison with their cells.",
            f"Most are in {worst} ({n}). The most frequent reason ({times}): {reason}",
        )


def _registration(campaign: Campaign) -> Iterator[Recommendation]:
    """Whether a trial should be promoted."""
    bounds = Bounds()
    candidates = [t for t in campaign.trials if t.finished and t.setting("load") != "mismatched"]
    best = max(candidates, key=lambda trial: rank(at_best(trial)), default=None)
    if best is None or best.value(HIERARCHY.metric) is None:
        return
    hierarchy, coverage = best.value("best_hierarchy") or 0.0, best.value("best_coverage") or 0.0
    measured = (
        f"{best.cell} of {best.phase}, seed {best.setting('seed')}: coverage {coverage:.5f}, hierarchy {hierarchy:.5f}"
    )
    if hierarchy > bounds.hierarchy or coverage < bounds.coverage:
        yield Recommendation(
            "Promote none of these trials: the best of them would not pass verification.",
            f"{measured}; bounds {bounds.coverage:g} and {bounds.hierarchy:g}.",
        )
        return
    champions = [v for v in campaign.versions if v.model == registry.MODEL and registry.CHAMPION in v.aliases]
    command = f"mlflow run . -e promote -P checkpoint={best.id} --env-manager=local"
    if not champions:
        yield Recommendation("Promote the best trial.", f"{measured}. No version is {registry.CHAMPION} yet: {command}")
        return
    held = {c.name: float(champions[0].tags.get(c.name, "nan")) for c in registry.RANKING}
    comparison = registry.Comparison(held, at_best(best), registry.CHAMPION, "this one")
    if comparison.better and comparison.decisive is not None:
        decisive = comparison.decisive
        yield Recommendation(
            "Promote the best trial.",
            f"{measured}. Its {decisive.label} is {decisive.shown(comparison.new)}, that of the {registry.CHAMPION} "
            f"(version {champions[0].number}) {decisive.shown(comparison.old)}: {command}",
        )


def _logging(campaign: Campaign) -> Iterator[Recommendation]:
    for parent in campaign.parents:
        logging, training = parent.value("logging_seconds"), parent.value("train_seconds")
        if logging and training and logging > training:
            yield Recommendation(
                f"Use a faster tracking store for {parent.name}: writing took longer than training.",
                f"{logging:.1f} s of writing, {training:.1f} s of training.",
            )


def _well_known(phase: Phase) -> list[Cell]:
    """Return the cells with seeds enough to say something of them all."""
    return [cell for cell in phase.cells if len(cell.by_seed(HIERARCHY.metric)) >= MIN_PAIRS]


def _at_limit(cell: Cell) -> bool:
    values = cell.by_seed(HIERARCHY.metric).values()
    return bool(values) and max(values) - cell.hierarchy_limit < AT_LIMIT


def _best_epochs(cell: Cell) -> list[int]:
    return [int(epoch) for trial in cell.finished if (epoch := trial.value("best_epoch")) is not None]


def _patience(cell: Cell) -> float:
    return cell.trials[0].number("patience") or math.inf


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
