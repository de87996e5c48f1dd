"""The report as Markdown, and as one page of HTML that needs nothing else: no script, font or picture from anywhere."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tvae.markdown import escaped
from tvae.metrics import hierarchy_ceiling
from tvae.report.answer import Answer, answer, choice, effects
from tvae.report.contrasts import contrasts
from tvae.report.figures import Panel, Scatter, front, panels, scatter
from tvae.report.gather import Runs
from tvae.report.layout import HIERARCHY, MEASURES, RICHNESS, Cell, Measure, Phase
from tvae.report.wording import assignments, count, listed, mean_std
from tvae.sweeps import reference
from tvae.sweeps.statistics import Comparison

__all__ = ["headline", "to_markdown", "to_page"]

# Rows that a table of configurations, of a front or of failures shows.
MOST_ROWS = 12
# More pairs than this nobody reads: then those with the first cell are shown.
MOST_PAIRS = 100


class Table(NamedTuple):
    """A table: its columns, and rows with a text for each; of a row marked `strong` the first stands out."""

    columns: list[str]
    rows: list[list[str]]
    strong: frozenset[int] = frozenset()
    caption: str = ""


class Section(NamedTuple):
    """A phase: what is said of it, its cells, its figures, and a table of every pair for each measure."""

    title: str
    said: str
    table: Table | None
    panels: Sequence[Panel] = ()
    scatter: Scatter | None = None
    pairs: Sequence[Table] = ()


def to_markdown(runs: Runs) -> str:
    """Return the report as Markdown; figures and all pairs are on the page only."""
    text = _environment("md").get_template("report.md.j2").render(_content(runs))
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def to_page(runs: Runs) -> str:
    """Return the report as a page that can be opened from anywhere, MLflow's view of artifacts included."""
    return _environment("html").get_template("report.html.j2").render(_content(runs))


def headline(runs: Runs, *, markdown: bool = True) -> str:
    """Return what to know first, in Markdown for the description of a run, or as plain text for the terminal."""
    found = answer(runs)
    facts = [*found.facts, ("Next:", f"{found.advice.action} {found.advice.why}")]
    lines = [f"- **{escaped(head)}** {escaped(text)}" if markdown else f"- {head} {text}" for head, text in facts]
    if found.advice.command:
        lines.append(f"\n```sh\n{found.advice.command}\n```" if markdown else f"\n  {found.advice.command}")
    return "\n".join(lines)


@lru_cache
def _environment(kind: str) -> Environment:
    """Return the templates; what is text is escaped, whoever wrote it."""
    return Environment(
        loader=PackageLoader("tvae.report"),
        autoescape=kind == "html",
        finalize=None if kind == "html" else lambda value: value if isinstance(value, Markup) else escaped(str(value)),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )


def _content(runs: Runs) -> dict[str, object]:
    found = answer(runs)
    return {
        "name": runs.name,
        "intro": _intro(runs, found),
        "facts": found.facts,
        "advice": found.advice,
        "command": Markup(found.advice.command),
        "effects": _effects(found.phases),
        "ranked": _ranked(found) if runs.kind == "experiment" and found.ranked else None,
        "phases": [_section(phase) for phase in found.phases],
        "contrasts": _contrasts(runs, found.phases) if runs.trials else None,
        "failed": _failed(runs),
        "notes": found.notes,
        "reading": _reading(found),
    }


def _intro(runs: Runs, found: Answer) -> str:
    began = [run.started for run in (*runs.parents, *runs.singles)]
    if not began:
        return f"The {runs.kind} {runs.name} holds no sweep, no stability run and no training of tvae."
    what = f"{count(len(runs.trials), 'trial')} in {count(len(found.phases), 'phase')}" if runs.trials else ""
    parts = [what, count(len(runs.singles), "single run") if runs.singles and runs.kind == "experiment" else ""]
    trained = sum(parent.value("train_seconds") or 0.0 for parent in runs.parents)
    took = f", {trained:,.0f} s of training" if trained else ""
    since = f"{datetime.fromtimestamp(min(began), UTC):%Y-%m-%d %H:%M} UTC"
    return f"{' and '.join(filter(None, parts))}{took}, begun {since}."


def _effects(phases: Sequence[Phase]) -> Table | None:
    found = effects(phases)
    labels = [m.label for m in MEASURES if any(m.label in told for _, told in found)]
    rows = [[setting, *(told.get(label, "–") for label in labels)] for setting, told in found]
    strong = frozenset(i for i, (_, told) in enumerate(found) if any(t not in ("no", "open") for t in told.values()))
    matters = listed([f"{m.matters:g} in {m.label}" for m in MEASURES if m.label in labels]) if labels else ""
    caption = (
        "The largest difference that is shown, from the better to the worse. No: no difference as large as matters "
        f"({matters}). Open: these seeds cannot tell."
    )
    return Table(["setting", *labels], rows, strong, caption) if rows else None


def _ranked(found: Answer) -> Table:
    rows = [
        [f"{cell.name} ({title})", str(len(cell.by_seed(HIERARCHY.metric))), *_figures(cell), cell.best_trial.id]
        for title, cell in found.ranked[:MOST_ROWS]
    ]
    caption = "By mean coverage, hierarchy, Q and richness, in this order; neighbours may differ by chance."
    if len(found.ranked) > MOST_ROWS:
        caption = f"The first {MOST_ROWS} of {len(found.ranked):,}. {caption}"
    return Table(["configuration", "seeds", "hierarchy", "Q", "richness", "best run"], rows, frozenset({0}), caption)


def _figures(cell: Cell) -> list[str]:
    return [mean_std(cell.spread(metric)) for metric in (HIERARCHY.metric, "best_q", RICHNESS.metric)]


def _section(phase: Phase) -> Section:
    if phase.is_search:
        best = front(phase.cells)
        rows = [[cell.name, *_figures(cell), assignments(cell.changed()) or "–"] for cell in best[:MOST_ROWS]]
        are = "trial is" if len(best) == 1 else "trials are"
        said = f"{len(best)} of {len(phase.cells)} {are} on the front: none is better in both hierarchy and richness."
        found = Table(["trial", "hierarchy", "Q", "richness", "not as by default"], rows)
        return Section(phase.title, said, found, scatter=scatter(phase.cells, best))
    rows = []
    for cell in phase.cells:
        missing = len(cell.trials) - len(cell.by_seed(HIERARCHY.metric))
        seeds = f" ({len(cell.trials) - missing} of {len(cell.trials)} seeds)" if missing else ""
        told = [f"{mean_std(cell.spread(m.metric))} {_mark(phase, cell, m)}".rstrip() for m in phase.measures]
        rows.append([f"{cell.name}{seeds}", *told])
    chosen = frozenset(i for i, cell in enumerate(phase.cells) if cell is choice(phase))
    table = Table(["cell", *(m.label for m in phase.measures)], rows, chosen) if len(rows) > 1 else None
    pairs = [_pairs(phase, measure) for measure in phase.measures if phase.concludes]
    return Section(phase.title, _said(phase), table, panels(phase), pairs=[found for found in pairs if found.rows])


def _said(phase: Phase) -> str:
    if phase.first is None:
        cell = phase.cells[0]
        found = cell.spread(HIERARCHY.metric)
        ends = f", from {found.minimum:.5f} to {found.maximum:.5f}" if found and found.n > 1 else ""
        told = [f"{m.label} {mean_std(cell.spread(m.metric))}{ends if m is HIERARCHY else ''}" for m in phase.measures]
        return (
            f"{count(len(cell.trials), 'run')} of {cell.name}, nothing to compare with: {listed(told) or 'no figures'}."
        )
    if not phase.concludes:
        return f"With {count(phase.seeds, 'shared seed')} nothing can be concluded."
    return f"Against {phase.first.name}, over {phase.seeds} shared seeds."


def _mark(phase: Phase, cell: Cell, measure: Measure) -> str:
    """Return what is found of a cell against the first, in a word."""
    found = phase.against_first(cell, measure)
    if found is None or not phase.concludes or found.n == 0:
        return ""
    better = measure.better(found)
    if better is not None:
        return "better" if better else "worse"
    if found.verdict == "smaller than matters":
        return f"slightly {'better' if found.difference * measure.sign > 0 else 'worse'}"
    return "open" if found.is_open else "same"


def _pairs(phase: Phase, measure: Measure) -> Table:
    made: tuple[Comparison, ...] = phase.comparisons[measure.metric].pairs
    if len(made) > MOST_PAIRS and phase.first is not None:
        made = tuple(found for found in made if phase.first.name in (found.cell, found.against))
    rows = []
    for found in made:
        interval = f"{found.low:+.5f} … {found.high:+.5f}" if found.high >= found.low else "–"
        p = "–" if found.p != found.p else "< 0.0001" if found.p < 1e-4 else f"{found.p:.4f}"
        verdict = f"{found.verdict}{', by its own spread' if found.own_spread else ''}"
        rows.append([f"{found.cell} less {found.against}", f"{found.difference:+.5f}", interval, p, verdict])
    strong = frozenset(i for i, found in enumerate(made) if found.verdict == "distinguishable")
    return Table([measure.label, "difference", "95 % interval", "adjusted p", "verdict"], rows, strong)


def _contrasts(runs: Runs, phases: tuple[Phase, ...]) -> Table:
    rows = [[f.claim, f.cause, here or "Nothing in these runs bears on it."] for f, here in contrasts(runs, phases)]
    minutes = sum(reference.MINUTES.values())
    caption = f"{reference.NAME[0].upper()}{reference.NAME[1:]}: 55 trainings on one GPU, in {minutes:.0f} minutes."
    return Table(["its finding", "what it was", "what is true"], rows, caption=caption)


def _failed(runs: Runs) -> Table | None:
    rows = [[trial.phase, trial.name, trial.status, trial.failure] for trial in runs.failed[:MOST_ROWS]]
    caption = f"The first {MOST_ROWS} of {len(runs.failed):,}." if len(runs.failed) > MOST_ROWS else ""
    return Table(["phase", "trial", "status", "reason"], rows, caption=caption) if rows else None


def _reading(found: Answer) -> list[tuple[str, str]]:
    limit = (found.ranked[0][1].limit(HIERARCHY) if found.ranked else None) or hierarchy_ceiling()
    return [
        ("Coverage", "share of operations that come back whole from the decoder; 1 is the limit."),
        ("Hierarchy", f"Spearman correlation of valuation and radius; negative is right, {limit:.5f} the limit."),
        ("Distance fidelity", "Spearman correlation of hyperbolic and 3-adic distance. Q adds 1.5·abs(hierarchy)."),
        ("Richness", "variance of the unit norm within a level, averaged over levels."),
        (
            "Best epoch",
            "figures are those of the epoch whose weights are kept; ± is one standard deviation over seeds.",
        ),
        (
            "Better, worse",
            "distinguishable from seed noise and as large as matters. Noise is estimated from all cells and seeds of a "
            "phase; of all its pairs none is called different by chance in 95 % of sweeps. Where a cell is noisier "
            "than the rest, it is judged by its own seeds.",
        ),
        (
            "Slightly",
            "distinguishable, but smaller than matters. Same: a difference, if any, is smaller than matters. Open: "
            "these seeds cannot tell.",
        ),
    ]
