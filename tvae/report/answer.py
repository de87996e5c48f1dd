"""What follows from runs: the best configuration, what matters, and one thing to do next."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from tvae import registry
from tvae.config.bounds import Bounds
from tvae.report.gather import Runs
from tvae.report.layout import HIERARCHY, MEASURES, Cell, Measure, Phase, at_best, phases_of, singles_of
from tvae.report.wording import assignments, count, listed, mean_std, places
from tvae.sweeps.statistics import MIN_PAIRS, MOST_SEEDS, Comparison, figure, seeds_needed

__all__ = ["Advice", "Answer", "answer", "choice", "effects"]

# The learning rate stays up to the end: a best epoch that is the last then means that there was more to gain.
STEADY = ("constant", "step", "plateau")
# More failures than this share come before every other advice.
MANY_FAILED = 0.1


class Advice(NamedTuple):
    """What to do next, why, and the command that does it, if there is one."""

    action: str
    why: str
    command: str = ""


@dataclass(frozen=True)
class Answer:
    """What a report says first.

    Attributes:
        facts: what is to be seen, each with its heading.
        advice: what to do; there is one.
        phases: what it is drawn from.
        ranked: every configuration with where it is from, single runs and trials alike, the best mean first.
        notes: what else is worth knowing.
    """

    facts: tuple[tuple[str, str], ...]
    advice: Advice
    phases: tuple[Phase, ...]
    ranked: tuple[tuple[str, Cell], ...]
    notes: tuple[str, ...]


@lru_cache(maxsize=4)  # asked for by the headline and by both forms of the report
def answer(runs: Runs) -> Answer:
    """Return what follows from runs."""
    phases = phases_of(runs)
    singles = [("single run", cell) for cell in singles_of(runs)]
    ranked = sorted(
        [*((phase.title, cell) for phase in phases for cell in phase.candidates), *singles],
        key=lambda item: item[1].rank,
        reverse=True,
    )
    # Of each phase what its seeds speak for, which is not always the best mean.
    chosen = [(phase.title, cell) for phase in phases if (cell := choice(phase))]
    best = max([*chosen, *singles], key=lambda item: item[1].rank, default=None)
    facts = [*_best(best, phases), *_tradeoffs(phases), *_open(phases)]
    if runs.failed:
        facts.append(("Failed:", f"{len(runs.failed):,} of {count(len(runs.trials), 'trial')} did not finish."))
    return Answer(tuple(facts), _advice(runs, phases, best), phases, tuple(ranked), tuple(_notes(runs, phases)))


def choice(phase: Phase) -> Cell | None:
    """Return the cell of a phase that its seeds speak for, None if none has come to its end.

    The first cell, unless another is better by as much as matters in one measure and not worse in any that comes
    before it; of several the best mean. Where nothing is compared, the best mean.
    """
    first, candidates = phase.first, phase.candidates
    if first not in candidates or first is None or not phase.concludes:
        return candidates[0] if candidates else None
    for place, measure in enumerate(MEASURES):
        better = [
            cell
            for cell in candidates
            if (found := phase.against_first(cell, measure))
            and measure.better(found)
            and not any(_worse(phase, cell, before) for before in MEASURES[:place])
        ]
        if better:
            return max(better, key=lambda cell: measure.sign * cell.spread(measure.metric).mean)  # type: ignore[union-attr]
    return first


def _worse(phase: Phase, cell: Cell, measure: Measure) -> bool:
    """Whether a cell is worse than the first, or looks so by as much as matters."""
    found = phase.against_first(cell, measure)
    return found is not None and (measure.better(found) is False or found.difference * measure.sign <= -measure.matters)


def effects(phases: Sequence[Phase]) -> list[tuple[str, dict[str, str]]]:
    """Return settings and what each does to each measure; those that matter first.

    A setting's effect is that of the pairs of cells that differ in nothing else; settings that change together only
    stand together.
    """
    by_setting: dict[tuple[str, ...], dict[str, list[Comparison]]] = {}
    for phase in phases:
        if not phase.concludes:
            continue
        cells = {cell.name: cell.settings.items() for cell in phase.cells}
        pairs = itertools.combinations(next(iter(phase.comparisons.values())).cells, 2)
        names = {(a, b): tuple(dict(cells[a] ^ cells[b])) for a, b in pairs}
        for pair, changed in names.items():
            if changed and not any(set(other) < set(changed) for other in names.values() if other):
                for measure in phase.measures:
                    found = phase.comparisons[measure.metric].between(*pair)
                    if found is not None:
                        setting = tuple(sorted(changed))
                        by_setting.setdefault(setting, {}).setdefault(measure.label, []).append(found)
    rows = []
    for setting, by_measure in by_setting.items():
        told = {m.label: _effect(m, by_measure[m.label]) for m in MEASURES if m.label in by_measure}
        weight = [text not in ("no", "open") for text in told.values()], ["open" in text for text in told.values()]
        rows.append((weight, ", ".join(setting), told))
    return [(setting, told) for _, setting, told in sorted(rows, key=lambda row: row[0], reverse=True)]


def _effect(measure: Measure, made: Sequence[Comparison]) -> str:
    shown = [found for found in made if measure.better(found) is not None]
    if not shown:
        return "open" if any(found.is_open for found in made) else "no"
    most = max(shown, key=lambda found: abs(found.difference))
    better = most if measure.better(most) else most.turned()
    return f"{abs(most.difference):.{places(most.difference)}f}: {better.cell} over {better.against}"


def _best(best: tuple[str, Cell] | None, phases: Sequence[Phase]) -> Iterator[tuple[str, str]]:
    if best is None:
        yield "No trials.", "Nothing can be said of configurations."
        return
    title, cell = best
    measures = [
        f"{m.label} {mean_std(found)}{f' (limit {limit:.5f})' if m is HIERARCHY and (limit := cell.limit(m)) else ''}"
        for m in MEASURES
        if (found := cell.spread(m.metric))
    ]
    yield (
        "Best:",
        f"{cell.name} ({title}), {count(len(cell.by_seed(HIERARCHY.metric)), 'seed')}: {', '.join(measures)}.",
    )
    if changed := cell.changed():
        yield "Its settings, where not the default:", assignments(changed)
    phase = next((phase for phase in phases if phase.title == title), None)
    if _too_few_seeds(phases):
        seeds = count(max(phase.seeds for phase in phases), "shared seed")
        yield (
            "Nothing can be concluded about which configurations differ:",
            f"{seeds}; at least {MIN_PAIRS} are needed.",
        )
    elif phase is not None and phase.first is not None and phase.concludes:
        yield "Why:", _why(phase, phase.first, cell)
    elif len(cell.by_seed(HIERARCHY.metric)) == 1:
        yield "Why:", "the best of all by its figures; one seed shows nothing of the noise between seeds."


def _too_few_seeds(phases: Sequence[Phase]) -> bool:
    """Whether cells are compared, but nowhere over seeds enough to conclude anything."""
    return any(phase.comparisons for phase in phases) and not any(phase.concludes for phase in phases)


def _why(phase: Phase, first: Cell, cell: Cell) -> str:
    if cell is first:
        others = [other for other in phase.candidates if other is not first]
        beside = [(m, phase.against_first(other, m)) for other in others for m in MEASURES]
        if not any(found and (found.is_open or m.better(found) is not None) for m, found in beside):
            return f"it is the first of {phase.title}, and no cell differs from it by as much as matters: any will do."
        return f"no other cell of {phase.title} is shown to be better by as much as matters without being worse."
    better, worse = _better_and_worse(phase, cell, _difference)
    text = f"against {first.name} better in {listed(better)}"
    return f"{text}; but worse in {listed(worse)}." if worse else f"{text}; worse in nothing that is shown."


def _better_and_worse(phase: Phase, cell: Cell, write: Callable[[Comparison], str]) -> tuple[list[str], list[str]]:
    """Return what a cell is better in than the first, and what it is worse in, each with its difference."""
    shown = [(m, c) for m in MEASURES if (c := phase.against_first(cell, m)) and m.better(c) is not None]
    better, worse = ([f"{m.label} {write(c)}" for m, c in shown if m.better(c) == wanted] for wanted in (True, False))
    return better, worse


def _difference(found: Comparison) -> str:
    width = found.high - found.low
    if not width > 0:
        return f"by {figure(found.difference, width)} on each seed"
    return f"by {figure(found.difference, width)} (95 % {figure(found.low, width)} to {figure(found.high, width)})"


def _tradeoffs(phases: Sequence[Phase]) -> Iterator[tuple[str, str]]:
    """Tell of cells that are better than the first in one measure and worse in another."""
    said = []
    for phase in phases:
        for cell in phase.candidates if phase.concludes else ():
            gains, costs = _better_and_worse(phase, cell, lambda c: f"{c.difference:+.{places(c.difference)}f}")
            if gains and costs and phase.first:
                said.append(f"{cell.name} against {phase.first.name}: {listed(gains)}, paid for with {listed(costs)}")
    if said:
        more = f"; and {len(said) - 3} more, in the tables" if len(said) > 3 else ""
        yield "Trade-offs:", f"{'; '.join(said[:3])}{more}."


def _open(phases: Sequence[Phase]) -> Iterator[tuple[str, str]]:
    """Tell what cannot be told, and how many seeds would tell it."""
    said = []
    for phase in phases:
        made = [phase.comparisons[m.metric] for m in phase.measures if phase.concludes]
        opened = [found for found in made if found.noise > 0 and any(pair.is_open for pair in found.pairs)]
        needed = [seeds_needed(found.noise, found.smallest_difference, len(found.cells)) for found in opened]
        most = max(needed, default=0)
        if most > phase.seeds:
            seeds = f"more than {MOST_SEEDS:,}" if most >= MOST_SEEDS else f"about {float(f'{most:.2g}'):,.0f}"
            said.append(f"{seeds} in {phase.title}")
    if said:
        yield "Open:", f"whether there is more that matters; seeds that would tell: {listed(said)}."


def _advice(runs: Runs, phases: Sequence[Phase], best: tuple[str, Cell] | None) -> Advice:
    failed = runs.failed
    if len(failed) > MANY_FAILED * len(runs.trials):
        parent = next((run for run in runs.parents if run.id == failed[0].parent), None)
        command = f"python -m entry_points.{parent.stage} --resume {parent.id}" if parent else ""
        why = f"{len(failed):,} of {len(runs.trials):,} did not finish; the first: {failed[0].failure}"
        return Advice("Find out why trials failed, then go on with them.", why, command)
    if best is None:
        why = "No run with a hierarchy has come to its end."
        return Advice("Train something.", why, "python -m entry_points.sweep")
    title, cell = best
    if any(phase.is_search and phase.title == title for phase in phases):
        why = "Trials of a search were chosen in view of those before, one seed each: the best of them is partly luck."
        command = "python -m entry_points.sweep --grid front.yaml --seeds 5"
        return Advice("Train the trials on the front again over seeds, as cells of a grid.", why, command)
    if _too_few_seeds(phases):
        why = "Fewer say nothing of their own noise; 5 also show whether one cell is noisier than the rest."
        return Advice(f"Repeat it with at least {MIN_PAIRS} seeds, better 5.", why)
    return _promotion(runs, cell)


def _promotion(runs: Runs, cell: Cell) -> Advice:
    run, bounds = cell.best_trial, Bounds()
    reached = at_best(run)
    hierarchy, coverage = reached.get("hierarchy", 0.0), reached.get("coverage", 0.0)
    measured = f"Its best run, seed {run.setting('seed')}, has coverage {coverage:.5f} and hierarchy {hierarchy:.5f}"
    if hierarchy > bounds.hierarchy or coverage < bounds.coverage:
        return Advice(
            f"Go on from {cell.name}, and promote nothing yet.",
            f"{measured}; verification asks for {bounds.coverage:g} and {bounds.hierarchy:g}.",
        )
    champion = next((v for v in runs.versions if v.model == registry.MODEL and registry.CHAMPION in v.aliases), None)
    command = f"mlflow run . -e promote -P checkpoint={run.id} --env-manager=local"
    if champion is None:
        return Advice(f"Use {cell.name}: promote its best run.", f"{measured}; there is no champion yet.", command)
    held = {c.name: float(champion.tags.get(c.name, "nan")) for c in registry.RANKING}
    found = registry.ModelComparison(held, reached, registry.CHAMPION, "this one")
    if found.decisive is None or not found.better:
        why = "its figures are equal" if found.decisive is None else f"its {found.decisive.label} is better"
        return Advice(f"Keep the champion, version {champion.number}.", f"{measured}; beside the best of these {why}.")
    old, new = (found.decisive.shown(metrics) for metrics in (found.old, found.new))
    beside = f"a {found.decisive.label} of {new}, where the champion, version {champion.number}, has {old}"
    why = f"{measured}; and {beside}."
    return Advice(f"Use {cell.name}: promote its best run.", why, command)


def _notes(runs: Runs, phases: Sequence[Phase]) -> Iterator[str]:
    for phase in phases:
        noisy = {m.label: phase.comparisons[m.metric].noisy for m in phase.measures if phase.concludes}
        said = [f"{listed(names)} in {label}" for label, names in noisy.items() if names]
        if said:
            yield f"Noisier than the rest of {phase.title}, and judged by their own seeds: {'; '.join(said)}."
        if phase.apart:
            yield f"No seed in common with another cell of {phase.title}, so compared with none: {listed(phase.apart)}."
        for cell in phase.cells:
            best = [t.value("best_epoch") for t in cell.finished]
            last = [float(t.history[-1][0]) for t in cell.finished if t.history]
            if len(best) < MIN_PAIRS:
                continue
            if max(best, key=lambda b: b or 0) == 0:
                yield f"{cell.name} of {phase.title} was best before training, with every seed."
            elif best == last and cell.trials[0].setting("scheduler") in STEADY:
                yield f"{cell.name} of {phase.title} was still improving at its last epoch, with every seed."
    few = [phase.title for phase in phases if phase.concludes and phase.seeds < 5]
    if few:
        assumed = f"as the comparisons of {listed(few)} assume"
        yield f"3 or 4 seeds hardly show whether cells are equally noisy, {assumed}; 5 do."
    for parent in runs.parents:
        writing, training = parent.value("logging_seconds"), parent.value("train_seconds")
        if writing and training and writing > training:
            yield f"Writing took longer than training in {parent.name}: {writing:.0f} s against {training:.0f} s."
