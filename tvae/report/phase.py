"""What the report says of one phase: its table, its figures, its comparisons."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tvae.experiments import reference
from tvae.experiments.statistics import Comparison, correlation
from tvae.report.blocks import Block, Bullets, Figure, Folded, Heading, Paragraph, Table
from tvae.report.figures import MOST_COLOURS, Curves, Dots, Interval, Intervals, Mark, Panel, Point, Row, Scatter
from tvae.report.findings import front, verdicts
from tvae.report.tables import COMPARED, HIERARCHY, RICHNESS, Cell, Measure, Phase
from tvae.report.wording import assignments, count, ends, figure, mean, number

__all__ = ["on_the_front", "phase_blocks"]

# Rows that a figure shows.
MOST_ROWS = 60
# From so many seeds on a correlation over them says something.
MANY_SEEDS = 5


def phase_blocks(phase: Phase) -> list[Block]:
    """Return all that is said of a phase."""
    blocks: list[Block] = [Heading(2, f"Phase {phase.title}")]
    if phase.is_search:
        return [*blocks, *_search(phase)]
    known = [cell for cell in phase.cells if cell.by_seed(HIERARCHY.metric)]
    said = [sentence] if (sentence := verdicts(phase)) else []
    if phase.comparisons and not phase.concludes:
        said = [f"With {count(phase.pairs, 'paired seed')} nothing can be concluded."]
    if phase.apart:
        said.append(f"No seed in common with another cell, and so compared with none: {', '.join(phase.apart)}.")
    for cell, many in reference.SPREADS.get(phase.name, {}).items():
        said.append(
            f"{reference.NAME[0].upper()}{reference.NAME[1:]} had, for {cell}, a best hierarchy of {many.mean:.3f} ± "
            f"{many.std:.3f} over {many.n} runs, from {many.best:.3f} to {many.worst:.3f}."
        )
    if said:
        blocks.append(Paragraph(" ".join(said)))
    if known:
        blocks.append(_dots(phase, known))
    blocks.append(_cells(phase))
    blocks += _curves(phase)
    for measure in COMPARED:
        blocks += _comparisons(phase, measure)
    return [*blocks, *_from_start_to_best(phase)]


def _cells(phase: Phase) -> Table:
    """Return the table of a phase, beside each measure what the reference sweep reported of it."""
    known = reference.TABLES.get(phase.name, {}).keys() | reference.SPREADS.get(phase.name, {}).keys()
    reported = [cell.name for cell in phase.cells if cell.name in known]
    columns: list[tuple[str, Callable[[Cell], str]]] = [
        ("cell", lambda cell: cell.name),
        ("seeds", lambda cell: f"{len(cell.by_seed(HIERARCHY.metric))} of {len(cell.trials)}"),
        ("best hierarchy", lambda cell: figure(cell.spread(HIERARCHY.metric))),
        ("best epoch", lambda cell: mean(cell.spread("best_epoch"), 1)),
        ("final hierarchy", lambda cell: mean(cell.spread("final_hierarchy"))),
        ("richness", lambda cell: figure(cell.spread(RICHNESS.metric))),
        ("least coverage", lambda cell: number(found.minimum) if (found := cell.spread("best_coverage")) else "–"),
        ("best … worst", lambda cell: ends(cell.spread(HIERARCHY.metric))),
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

    few = f" The first {MOST_ROWS} of {len(cells)} cells." if len(cells) > MOST_ROWS else ""
    cells = cells[:MOST_ROWS]
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
        nothing = "none distinguishable" if phase.concludes else "nothing can be concluded"
        return [Folded(f"{title}: {nothing}", (*figures, table))]
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


def on_the_front(phase: Phase) -> str:
    """Say how many trials of a search no other beats."""
    n = len(front(phase.cells))
    is_are = "trial is" if n == 1 else "trials are"
    return f"{n} of {len(phase.cells)} {is_are} on the front: no other is better in both hierarchy and richness."


def _search(phase: Phase) -> list[Block]:
    best = front(phase.cells)
    known = [cell for cell in phase.cells if cell.spread(HIERARCHY.metric) and cell.spread(RICHNESS.metric)]
    said = (
        f"{on_the_front(phase)} Each was chosen in view of those before, so nothing is compared here; to know which "
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
            assignments(cell.changed()) or "–",
            cell.best_trial().id,
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
