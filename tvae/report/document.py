"""What the report says, block by block, before it is Markdown or a page."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeAlias

from tvae import registry
from tvae.architecture import Architecture
from tvae.configuration import Configuration
from tvae.experiments import reference
from tvae.experiments.statistics import MIN_PAIRS, Comparison, Spread, correlation
from tvae.metrics import hierarchy_ceiling
from tvae.report.figures import (
    MOST_COLOURS,
    Curves,
    Dots,
    Drawing,
    Interval,
    Intervals,
    Mark,
    Panel,
    Point,
    Row,
    Scatter,
)
from tvae.report.findings import Study, cost_of, figure, front, number, seeds_text, verdicts
from tvae.report.gather import Campaign, RunRecord, Version
from tvae.report.tables import COMPARED, HIERARCHY, RICHNESS, Cell, Measure, Phase

__all__ = ["Block", "Bullets", "Figure", "Folded", "Heading", "Paragraph", "Table", "document", "summary"]

# Rows that a figure shows, and cells that the table of the best shows.
MOST_ROWS = 60
MOST_BEST = 8
# From so many seeds on a correlation over them says something.
MANY_SEEDS = 5


@dataclass(frozen=True, slots=True)
class Heading:
    """The title of what follows, at level 1 … 3."""

    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Text."""

    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list; each item begins with what is to be seen first."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        columns: their names.
        rows: a text for each column.
        words: the columns that hold words; the others hold figures, and are set so that their digits align.
        codes: the columns that hold what one copies into a command.
        strong: the rows that stand out.
        caption: what it shows, if its heading does not say it.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: frozenset[int] = frozenset({0})
    codes: frozenset[int] = frozenset()
    strong: frozenset[int] = frozenset()
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and what is to be known to read it; Markdown has none."""

    drawing: Drawing
    caption: str


@dataclass(frozen=True, slots=True)
class Folded:
    """What a page shows only when it is asked for."""

    title: str
    blocks: tuple["Block", ...]


Block: TypeAlias = Heading | Paragraph | Bullets | Table | Figure | Folded


def document(study: Study) -> list[Block]:
    """Return the whole report."""
    campaign = study.campaign
    blocks: list[Block] = [Heading(1, campaign.name), Paragraph(_what(study)), Bullets(tuple(summary(study)))]
    if study.recommendations:
        blocks += [Heading(2, "What follows"), Bullets(tuple(study.recommendations))]
    blocks += [*_sweeps(campaign), *_best(study)]
    for phase in study.phases:
        blocks += _phase(phase)
    blocks += [*_contrasts(study), *_checkpoints(campaign), *_singles(campaign)]
    return [*blocks, *_time(study), *_failed(study), *_powers(study), *_reading(study)]


def summary(study: Study) -> Iterator[tuple[str, str]]:
    """Yield what to know first: the best cell, what is distinguishable, what failed, how long it took."""
    campaign = study.campaign
    if not campaign.trials:
        yield "No trials.", "Nothing can be said of differences between configurations."
    best = study.best()
    if best:
        phase, cell = best[0]
        yield (
            f"{'Best: ' if len(best) > 1 else ''}{cell.name} ({phase.title}), {_measured(cell)}.",
            f"The limit is {cell.hierarchy_limit:.5f}; richness {figure(cell.spread(RICHNESS.metric))}.",
        )
    for phase in study.phases:
        for cell in phase.cells:
            if cell.is_demonstration and cell.by_seed(HIERARCHY.metric):
                start = _ends(cell.spread("init_hierarchy"))
                yield (
                    f"{cell.name} ({phase.title}), {_measured(cell)}.",
                    f"It shows what a silent partial load does; initial hierarchy {start}.",
                )
    compared = [phase for phase in study.phases if phase.comparisons]
    if compared and not any(phase.concludes for phase in compared):
        most = max(phase.pairs for phase in compared)
        yield (
            "Nothing can be concluded about which configurations differ.",
            f"{most} paired {'seed' if most == 1 else 'seeds'}; at least {MIN_PAIRS} are needed.",
        )
        compared = []
    elif best and not compared and all(len(cell.by_seed(HIERARCHY.metric)) == 1 for _, cell in best):
        yield "Nothing can be concluded about differences.", "One seed shows nothing of the noise between seeds."
    for phase in study.phases:
        if phase.is_search:
            yield f"{phase.title}:", _on_the_front(phase)
    for phase in compared:
        yield f"{phase.title}:", " ".join(filter(None, (verdicts(phase, measure) for measure in COMPARED)))
    if campaign.trials:
        done = len(campaign.trials) - len(study.failed)
        failed = f"{len(study.failed):,} did not finish." if study.failed else "None failed."
        yield f"{done:,} of {len(campaign.trials):,} trials finished.", failed
    took = _seconds_of(campaign)
    if took:
        yield "Time:", took


def _measured(cell: Cell) -> str:
    found = cell.spread(HIERARCHY.metric)
    assert found is not None
    return f"hierarchy {figure(found)} {f'over {found.n} seeds' if found.n > 1 else 'with one seed'}"


def _what(study: Study) -> str:
    campaign = study.campaign
    runs = [*campaign.parents, *campaign.singles]
    if not runs:
        return f"The {campaign.kind} {campaign.name} holds no sweep, no stability run and no training of tvae."
    begun = datetime.fromtimestamp(min(run.started for run in runs), UTC)
    objectives = sorted({trial.setting("objective") or "unknown" for trial in campaign.trials})
    phases = f"{len(study.phases)} phase{'' if len(study.phases) == 1 else 's'}"
    trials = (
        f"{len(campaign.trials):,} trials in {phases}, objective {' and '.join(objectives)}. " if objectives else ""
    )
    return f"{trials}Made from what MLflow holds of this {campaign.kind}, begun {begun:%Y-%m-%d %H:%M} UTC."


# Configurations -------------------------------------------------------------------------------------------------------


def _best(study: Study) -> list[Block]:
    best = study.best()[:MOST_BEST]
    if not best:
        return []
    changed = [_changed(cell) for _, cell in best]
    shared = dict(set.intersection(*(set(settings.items()) for settings in changed)))
    rows = tuple(
        (
            f"{cell.name} ({phase.title})",
            str(len(cell.by_seed(HIERARCHY.metric))),
            figure(cell.spread(HIERARCHY.metric)),
            figure(cell.spread(RICHNESS.metric)),
            _mean(cell.spread("best_q"), 4),
            _mean(cell.spread("best_coverage")),
            _written({name: value for name, value in settings.items() if name not in shared}) or "–",
            _best_trial(cell).id,
        )
        for (phase, cell), settings in zip(best, changed, strict=True)
    )
    columns = ("configuration", "seeds", "hierarchy", "richness", "Q", "coverage", "not as by default", "best trial")
    order = ", ".join(criterion.label for criterion in registry.RANKING)
    alike = [name for name in changed[0] if name in shared]
    all_have = f" All have {_written({name: shared[name] for name in alike})}." if shared and len(best) > 1 else ""
    return [
        Heading(2, "Best configurations"),
        Paragraph(
            f"By their means, as the registry compares: {order}. The order of two rows alone says nothing; the phases "
            f"below say which differences are more than noise.{all_have}"
        ),
        Table(columns, rows, words=frozenset({0, 6, 7}), codes=frozenset({7}), strong=frozenset({0})),
    ]


def _best_trial(cell: Cell) -> RunRecord:
    return min(
        (trial for trial in cell.finished if trial.value(HIERARCHY.metric) is not None),
        key=lambda trial: (trial.value(HIERARCHY.metric), -(trial.value(RICHNESS.metric) or 0.0)),
    )


def _changed(cell: Cell) -> dict[str, str]:
    """Return the settings of a cell that are not as by default."""
    defaults = {name: str(value) for name, value in (Architecture().to_dict() | Configuration().to_dict()).items()}
    return {k: value for k, value in cell.settings().items() if k in defaults and value != defaults[k]}


def _written(settings: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items())


# Phases ---------------------------------------------------------------------------------------------------------------


def _phase(phase: Phase) -> list[Block]:
    blocks: list[Block] = [Heading(2, f"Phase {phase.title}")]
    if phase.is_search:
        return [*blocks, *_search(phase)]
    known = [cell for cell in phase.cells if cell.by_seed(HIERARCHY.metric)]
    said = [sentence for measure in COMPARED if (sentence := verdicts(phase, measure))]
    if phase.comparisons and not phase.concludes:
        said.insert(0, f"With {phase.pairs} paired {'seed' if phase.pairs == 1 else 'seeds'} nothing can be concluded.")
    if phase.apart:
        said.append(f"No seed in common with another cell, and so compared with none: {', '.join(phase.apart)}.")
    if said:
        blocks.append(Paragraph(" ".join(said)))
    if known:
        blocks.append(_dots(phase, known[:MOST_ROWS]))
    blocks.append(_cells(phase))
    blocks += _curves(phase)
    for measure in COMPARED:
        blocks += _comparisons(phase, measure)
    return [*blocks, *_from_start_to_best(phase)]


def _cells(phase: Phase) -> Table:
    """Return the table of a phase, beside each measure what the reference sweep reported of it."""
    reported = reference.TABLES.get(phase.name, {}) | reference.SPREADS.get(phase.name, {})
    columns: list[tuple[str, Callable[[Cell], str]]] = [
        ("cell", lambda cell: cell.name),
        ("seeds", lambda cell: f"{len(cell.by_seed(HIERARCHY.metric))} of {len(cell.trials)}"),
        ("best hierarchy", lambda cell: figure(cell.spread(HIERARCHY.metric))),
        ("best epoch", lambda cell: _mean(cell.spread("best_epoch"), 1)),
        ("final hierarchy", lambda cell: _mean(cell.spread("final_hierarchy"))),
        ("richness", lambda cell: figure(cell.spread(RICHNESS.metric))),
        ("least coverage", lambda cell: number(found.minimum) if (found := cell.spread("best_coverage")) else "–"),
        ("best … worst", lambda cell: _ends(cell.spread(HIERARCHY.metric))),
    ]
    for after, metric, decimals in (
        ("best hierarchy", "best_hierarchy", 3),
        ("best epoch", "best_epoch", 0),
        ("final hierarchy", "final_hierarchy", 3),
        ("richness", "best_richness", 5),
    ):
        theirs = {cell: _reported(phase.name, cell, metric, decimals) for cell in reported}
        if any(text != "–" for text in theirs.values()):
            place = [name for name, _ in columns].index(after) + 1
            columns.insert(place, ("reference", partial(_told, theirs)))
    candidates = phase.candidates()
    return Table(
        tuple(name for name, _ in columns),
        tuple(tuple(text(cell) for _, text in columns) for cell in phase.cells),
        strong=frozenset(i for i, cell in enumerate(phase.cells) if len(candidates) > 1 and cell is candidates[0]),
        caption="Mean ± standard deviation over seeds; best epoch and final hierarchy: means."
        + (f" Reference: what {reference.NAME} reported of the column before." if reported else ""),
    )


def _told(theirs: Mapping[str, str], cell: Cell) -> str:
    return theirs.get(cell.name, "–")


def _ends(found: Spread | None) -> str:
    return f"{found.minimum:.5f} … {found.maximum:.5f}" if found and found.n > 1 else "–"


def _mean(found: Spread | None, decimals: int = 5) -> str:
    return number(found.mean if found else None, decimals)


def _reported(phase: str, cell: str, metric: str, decimals: int) -> str:
    many = reference.SPREADS.get(phase, {}).get(cell)
    if many is not None:
        return f"{many.mean:.3f} ± {many.std:.3f} ({many.n})" if metric == "best_hierarchy" else "–"
    return number(reference.TABLES.get(phase, {}).get(cell, {}).get(metric), decimals)


def _dots(phase: Phase, cells: Sequence[Cell]) -> Figure:
    def row(cell: Cell, measure: Measure) -> Row:
        found = cell.spread(measure.metric)
        marks = tuple(
            Mark(value, f"{cell.name}, seed {seed}: {value:.5f}")
            for seed, value in sorted(cell.by_seed(measure.metric).items())
        )
        many = reference.SPREADS.get(phase.name, {}).get(cell.name) if measure is HIERARCHY else None
        reported = many.mean if many else reference.TABLES.get(phase.name, {}).get(cell.name, {}).get(measure.metric)
        return Row(marks, found.mean if found else math.nan, found.std if found else math.nan, reported)

    panels = (
        Panel(
            "hierarchy (Spearman; left is better)",
            tuple(row(cell, HIERARCHY) for cell in cells),
            min(cell.hierarchy_limit for cell in cells),
        ),
        Panel(
            "richness (variance of unit norm; right is better)",
            tuple(row(cell, RICHNESS) for cell in cells),
            max(cell.richness_limit for cell in cells),
        ),
    )
    few = f" The first {len(cells)} of {len(phase.cells)} cells." if len(cells) < len(phase.cells) else ""
    shown = any(row.reported is not None for panel in panels for row in panel.rows)
    return Figure(
        Dots(f"Hierarchy and richness of each cell of {phase.name}", tuple(cell.name for cell in cells), panels),
        "A dot is a seed, at its best epoch; the stroke is the mean, the line one standard deviation to each side."
        + (f" Diamond: {reference.NAME}." if shown else "")
        + few,
    )


def _curves(phase: Phase) -> list[Block]:
    cells = [(cell, tuple(t.history for t in cell.finished if len(t.history) > 1)) for cell in phase.cells]
    drawn = [(cell, curves) for cell, curves in cells if curves]
    if not 0 < len(drawn) <= MOST_COLOURS:
        return []
    curves = Curves(
        f"Hierarchy by epoch in {phase.name}",
        tuple((cell.name, curves) for cell, curves in drawn),
        min(cell.hierarchy_limit for cell, _ in drawn),
        "hierarchy (Spearman; down is better)",
    )
    return [Figure(curves, "Hierarchy by epoch, a curve a seed. Epoch 0 is before training.")]


def _from_start_to_best(phase: Phase) -> list[Block]:
    """Show, where many seeds of one configuration are there, whether the start decides the end."""
    if len(phase.cells) > 1 or len(phase.cells[0].by_seed("init_hierarchy")) < MANY_SEEDS:
        return []
    starts, bests = phase.cells[0].by_seed("init_hierarchy"), phase.cells[0].by_seed(HIERARCHY.metric)
    seeds = sorted(starts.keys() & bests.keys())
    found = correlation([starts[seed] for seed in seeds], [bests[seed] for seed in seeds])
    said = (
        "no correlation is defined, since one of the two is constant."
        if found is None
        else f"correlation {found.r:+.2f}, 95 % interval {found.low:+.2f} to {found.high:+.2f}, {found.n} seeds."
    )
    points = tuple(
        Point(starts[seed], bests[seed], f"seed {seed}: from {starts[seed]:+.5f} to {bests[seed]:+.5f}")
        for seed in seeds
    )
    return [
        Paragraph(f"Initial and best hierarchy: {said}"),
        Figure(
            Scatter(
                f"Initial and best hierarchy of the seeds of {phase.title}",
                points,
                "initial hierarchy",
                "best hierarchy (down is better)",
            ),
            "A dot is a seed. A rising cloud would mean that the start decides the end; in the reference sweep the "
            f"correlation was {reference.INIT_TO_BEST:+.2f}.",
        ),
    ]


def _comparisons(phase: Phase, measure: Measure) -> list[Block]:
    made = phase.comparisons.get(measure.metric, ())
    judged = [comparison for comparison in made if comparison.n]
    if not judged:
        return []
    found = [comparison for comparison in judged if comparison.verdict in ("distinguishable", "smaller than matters")]
    rows = tuple(
        (
            f"{comparison.cell} less {comparison.against}",
            str(comparison.n),
            f"{comparison.difference:+.5f}",
            f"{comparison.low:+.5f} … {comparison.high:+.5f}" if math.isfinite(comparison.low) else "–",
            _p(comparison),
            comparison.verdict,
        )
        for comparison in judged
    )
    table = Table(
        ("difference", "seeds", "mean", "interval", "adjusted p", "verdict"),
        rows,
        words=frozenset({0, 5}),
        strong=frozenset(i for i, comparison in enumerate(judged) if comparison in found),
    )
    figures = [_intervals(phase, measure, judged[:MOST_ROWS])] if phase.concludes else []
    title = (
        f"All {len(judged)} differences in {measure.label}" if len(judged) > 1 else f"The difference in {measure.label}"
    )
    if not found:
        return [Folded(f"{title}: none distinguishable", (*figures, table))]
    sentences = Bullets(tuple(("", comparison.sentence()) for comparison in found[:MOST_ROWS]))
    return [Heading(3, f"Differences in {measure.label}"), *figures, sentences, Folded(title, (table,))]


def _p(comparison: Comparison) -> str:
    if math.isnan(comparison.adjusted_p):
        return "–"
    return "< 0.0001" if comparison.adjusted_p < 1e-4 else f"{comparison.adjusted_p:.4f}"


def _intervals(phase: Phase, measure: Measure, made: Sequence[Comparison]) -> Figure:
    rows = tuple(
        Interval(
            f"{comparison.cell} less {comparison.against}",
            comparison.difference,
            comparison.low,
            comparison.high,
            comparison.verdict in ("distinguishable", "smaller than matters"),
        )
        for comparison in made
    )
    side = "left of 0, the first is better" if measure is HIERARCHY else "right of 0, the first is better"
    return Figure(
        Intervals(
            f"Differences in {measure.label} in {phase.name}",
            rows,
            measure.matters,
            f"difference in {measure.label}, with its interval: {side}",
        ),
        f"Filled: distinguishable from seed noise. Hollow: not. Grey band: differences below {measure.matters:g}, "
        "which do not matter. All intervals hold their differences at once with 95 %.",
    )


def _on_the_front(phase: Phase) -> str:
    n = len(front(phase.cells))
    is_are = "trial is" if n == 1 else "trials are"
    return f"{n} of {len(phase.cells)} {is_are} on the front: no other is better in both hierarchy and richness."


def _search(phase: Phase) -> list[Block]:
    best = front(phase.cells)
    known = [cell for cell in phase.cells if cell.spread(HIERARCHY.metric) and cell.spread(RICHNESS.metric)]
    said = (
        f"{_on_the_front(phase)} Each was chosen in view of those before, so nothing is compared here; to know which "
        "differ, train the front over seeds as a grid."
    )
    if not known:
        return [Paragraph(said)]
    points = tuple(
        Point(cell.means()["hierarchy"], cell.means()["richness"], _name(cell), cell in best) for cell in known
    )
    scatter = Scatter(
        f"Hierarchy and richness of the trials of {phase.name}",
        points,
        "hierarchy (Spearman; left is better)",
        "richness (variance of unit norm; up is better)",
        min(cell.hierarchy_limit for cell in known),
        max(cell.richness_limit for cell in known),
    )
    rows = tuple(
        (
            cell.name,
            figure(cell.spread(HIERARCHY.metric)),
            figure(cell.spread(RICHNESS.metric)),
            figure(cell.spread("best_q"), 4),
            _written(_changed(cell)) or "–",
            _best_trial(cell).id,
        )
        for cell in best
    )
    columns = ("trial", "hierarchy", "richness", "Q", "not as by default", "run")
    return [
        Paragraph(said),
        Figure(scatter, "Filled and joined: the front. Hollow: trials that another beats in both."),
        Table(
            columns, rows, words=frozenset({0, 4, 5}), codes=frozenset({5}), caption="The front, best hierarchy first."
        ),
    ]


def _name(cell: Cell) -> str:
    return f"{cell.name}: hierarchy {cell.means()['hierarchy']:.5f}, richness {cell.means()['richness']:.5f}"


# The rest -------------------------------------------------------------------------------------------------------------


def _contrasts(study: Study) -> list[Block]:
    if not study.campaign.trials:
        return []
    rows = tuple((f.claim, f.cause, here or "Nothing in these runs bears on it.") for f, here in study.contrasts)
    said = (
        f"This project grew from {reference.NAME}: 55 trainings on one GPU, in {sum(reference.MINUTES.values()):.0f} "
        "minutes. Each of its findings was an artefact."
    )
    columns = ("it reported", "it turned out to be", "measured here")
    return [
        Heading(2, "The reference sweep's findings"),
        Paragraph(said),
        Table(columns, rows, words=frozenset({0, 1, 2})),
    ]


def _sweeps(campaign: Campaign) -> list[Block]:
    if len(campaign.parents) < 2:
        return []
    rows = tuple(
        (
            run.name,
            run.stage,
            run.status,
            str(sum(trial.finished for trial in campaign.trials if trial.parent == run.id)),
            str(sum(not trial.finished for trial in campaign.trials if trial.parent == run.id)),
            number(run.value("train_seconds"), 1),
            number(run.value("total_seconds"), 1),
            run.id,
        )
        for run in campaign.parents
    )
    columns = ("sweep", "stage", "status", "finished", "not finished", "training, s", "in all, s", "run")
    return [Heading(2, "Sweeps"), Table(columns, rows, words=frozenset({0, 1, 2, 7}), codes=frozenset({7}))]


def _checkpoints(campaign: Campaign) -> list[Block]:
    if not campaign.versions:
        return []
    ours = {run.id for run in (*campaign.parents, *campaign.trials, *campaign.singles)}

    def row(version: Version) -> tuple[str, ...]:
        verdict = version.tags.get("verified")
        measured = (
            _tag(version, name, digits)
            for name, digits in (("coverage", 5), ("hierarchy", 5), ("richness", 5), ("q", 4))
        )
        where = "here" if version.run_id in ours else "another run"
        return (
            f"{version.model} version {version.number}",
            ", ".join(version.aliases) or "–",
            {"true": "verified", None: "–"}.get(verdict, "not verified"),
            *measured,
            where if version.run_id else "–",
            f"models:/{version.model}/{version.number}",
        )

    columns = ("version", "aliases", "verdict", "coverage", "hierarchy", "richness", "Q", "from", "address")
    strong = frozenset(i for i, version in enumerate(campaign.versions) if registry.CHAMPION in version.aliases)
    return [
        Heading(2, "Checkpoints in the registry"),
        Table(
            columns,
            tuple(map(row, campaign.versions)),
            words=frozenset({0, 1, 2, 7, 8}),
            codes=frozenset({8}),
            strong=strong,
        ),
    ]


def _tag(version: Version, name: str, decimals: int) -> str:
    try:
        return number(float(version.tags.get(name, "nan")), decimals)
    except ValueError:
        return "–"


def _singles(campaign: Campaign) -> list[Block]:
    if not campaign.singles:
        return []
    rows = tuple(
        (
            run.name,
            run.stage,
            run.status,
            run.setting("seed") or "–",
            number(run.value("coverage")),
            number(run.value(HIERARCHY.metric)),
            number(run.value("best_richness") if run.value("best_richness") is not None else run.value("richness")),
            number(run.value("tree_precision"), 4),
            number(run.value("train_seconds"), 1),
            run.id,
        )
        for run in campaign.singles
    )
    columns = ("run", "stage", "status", "seed", "coverage", "hierarchy", "richness", "tree precision", "s", "id")
    return [Heading(2, "Single runs"), Table(columns, rows, words=frozenset({0, 1, 2, 9}), codes=frozenset({9}))]


def _seconds_of(campaign: Campaign) -> str:
    said = []
    for name, what in (
        ("train_seconds", "of training"),
        ("total_seconds", "in all"),
        ("logging_seconds", "of it writing"),
    ):
        values = [value for parent in campaign.parents if (value := parent.value(name)) is not None]
        if values:
            said.append(f"{math.fsum(values):.1f} s {what}")
    cost = cost_of(campaign.trials)
    if cost.epochs and cost.seconds:
        said.append(f"{1000 * cost.per_epoch:.1f} ms an epoch of one training")
    return f"{', '.join(said)}." if said else ""


def _time(study: Study) -> list[Block]:
    rows = []
    for phase in study.phases:
        cost = cost_of(phase.trials)
        if cost.trainings:
            minutes = reference.MINUTES.get(phase.name)
            rows.append(
                (
                    phase.title,
                    str(cost.trainings),
                    f"{cost.epochs:,}",
                    number(cost.seconds, 1),
                    number(1000 * cost.per_epoch, 1),
                    number(60 * minutes if minutes else None, 0),
                )
            )
    if not rows:
        return []
    columns = ("phase", "trainings", "epochs", "seconds", "ms an epoch of one", "reference: seconds")
    caption = (
        "Seconds are each training's share of its batch; what trains side by side in several processes took less time "
        f"by the clock. The reference sweep's programme took {1000 * reference.MEMBER_EPOCH_SECONDS:.0f} ms an epoch "
        "on two CPU cores; its seconds by phase are those of its GPU."
    )
    said = _seconds_of(study.campaign)
    return [
        Heading(2, "Time"),
        *([Paragraph(said[0].upper() + said[1:])] if said else []),
        Table(columns, tuple(rows), caption=caption),
    ]


def _failed(study: Study) -> list[Block]:
    if not study.failed:
        return []
    rows = tuple((trial.phase, trial.name, trial.status, trial.failure) for trial in study.failed)
    return [
        Heading(2, "Trials that did not finish"),
        Table(("phase", "trial", "status", "reason"), rows, words=frozenset({0, 1, 2, 3})),
    ]


def _powers(study: Study) -> list[Block]:
    if not study.powers:
        return []
    rows = tuple(
        (
            power.phase,
            power.measure.label,
            str(power.n),
            str(power.comparisons),
            str(power.open),
            f"{power.noise:.5f}",
            f"{power.seen:.5f}",
            f"{power.measure.matters:g}",
            seeds_text(power.needed),
        )
        for power in study.powers
    )
    columns = ("phase", "measure", "seeds", "comparisons", "open", "noise", "seen", "matters", "seeds needed")
    caption = (
        "Noise: standard deviation, from seed to seed, of the difference of two cells, pooled over the comparisons. "
        "Seen: the difference that so many seeds find 4 times in 5 among so many comparisons. Needed: to see the "
        "smallest that matters as often."
    )
    return [Heading(2, "What so many seeds can tell"), Table(columns, rows, words=frozenset({0, 1}), caption=caption)]


def _reading(study: Study) -> list[Block]:
    matters = ", ".join(f"{measure.matters:g} in {measure.label}" for measure in COMPARED)
    items = (
        (
            "Hierarchy",
            "is the Spearman correlation of valuation and radius over all 19,683 operations at the posterior mean. "
            f"Negative is right; with distinct radii it cannot pass {hierarchy_ceiling():.5f}, since two thirds of the "
            "valuations are tied.",
        ),
        ("Richness", "is the variance of the unit norm within a level, averaged over levels; more is better."),
        ("Best", "is the epoch whose weights are kept: by coverage, then hierarchy, ordered levels and richness."),
        (
            "A difference",
            "is taken on the seeds that both cells have. It is called distinguishable if its interval (the hull of "
            "Student's and the bootstrap's) leaves out 0 and its p, adjusted by Holm's method, is below 0.05: of all "
            "comparisons of a phase in one measure none is then false with 95 %. "
            f"With fewer than {MIN_PAIRS} seeds nothing can be concluded. Smaller than matters: below {matters}.",
        ),
        (
            "Q",
            "is distance fidelity + 1.5·|hierarchy|; fidelity is the Spearman correlation of hyperbolic and 3-adic "
            "distance.",
        ),
    )
    return [Heading(2, "How to read this"), Bullets(items)] if study.campaign.trials else []
