"""What runs show of each finding of the reference sweep."""

from collections.abc import Callable, Iterable, Sequence

from tvae import registry
from tvae.config.bounds import Bounds
from tvae.report.gather import RunRecord, Runs
from tvae.report.layout import HIERARCHY, Phase
from tvae.report.wording import count
from tvae.sweeps import reference
from tvae.sweeps.reference import Finding
from tvae.sweeps.statistics import correlation, spread

__all__ = ["contrasts"]


def contrasts(runs: Runs, phases: Sequence[Phase]) -> tuple[tuple[Finding, str], ...]:
    """Return every finding with what is shown of it here, empty if nothing."""
    return tuple((finding, _CONTRASTS[finding.key](runs, phases)) for finding in reference.FINDINGS)


def _by_objective(phases: Iterable[Phase]) -> dict[str, list[RunRecord]]:
    """Return the finished trials that have a hierarchy, each once however many sweeps have it; no demonstrations."""
    cells = [cell for phase in phases for cell in phase.cells if not cell.is_demonstration]
    once = {t.tags.get("trial", t.id): t for c in cells for t in c.finished if t.value(HIERARCHY.metric) is not None}
    found: dict[str, list[RunRecord]] = {}
    for trial in once.values():
        found.setdefault(trial.setting("objective") or "unknown", []).append(trial)
    return found


def _scratch(runs: Runs, phases: Sequence[Phase]) -> str:
    learned = [run for run in runs.singles if run.finished and run.stage in ("foundation", "train", "scratch")]
    coverages = [coverage for run in learned if (coverage := run.value("coverage")) is not None]
    if not coverages:
        return ""
    return f"Coverage {min(coverages):.5f} at least, in {count(len(coverages), 'training')} from random weights."


def _loads(runs: Runs, phases: Sequence[Phase]) -> str:
    parts = []
    mismatched = [t for phase in phases for c in phase.cells if c.is_demonstration for t in c.finished]
    for what, metric in (("initial", "init_hierarchy"), ("best", "best_hierarchy")):
        values = [value for trial in mismatched if (value := trial.value(metric)) is not None]
        if values:
            parts.append(f"{what} hierarchy {min(values):+.3f} to {max(values):+.3f}")
    said = [f"Such a load, done on purpose {count(len(mismatched), 'time')}: {', '.join(parts)}."] if parts else []
    for objective, trials in _by_objective(p for p in phases if p.name in ("stability", "extended")).items():
        pairs = [
            (i, b)
            for t in trials
            if (i := t.value("init_hierarchy")) is not None and (b := t.value("best_hierarchy")) is not None
        ]
        found = correlation([i for i, _ in pairs], [b for _, b in pairs]) if pairs else None
        if found is not None:
            said.append(
                f"Loaded whole (objective={objective}), initial and best hierarchy correlate by {found.r:+.2f} "
                f"(95 % interval {found.low:+.2f} to {found.high:+.2f}, {found.n} runs)."
            )
    return " ".join(said)


def _curvature(runs: Runs, phases: Sequence[Phase]) -> str:
    said = []
    for phase in phases:
        made = phase.comparisons.get(HIERARCHY.metric)
        found = made.between("curvature=2", "curvature=1") if made else None
        if found is not None:
            said.append(found.sentence())
    return " ".join(said)


def _sampling(runs: Runs, phases: Sequence[Phase]) -> str:
    verified = [v for v in runs.versions if v.model == registry.MODEL and v.tags.get("verified") == "true"]
    if not verified:
        return ""
    tolerance = Bounds().metric_tolerance
    return (
        f"{count(len(verified), 'registered version')}: measured again, each metric came out as claimed, within "
        f"{tolerance:g}."
    )


def _degradation(runs: Runs, phases: Sequence[Phase]) -> str:
    said = []
    for objective, trials in _by_objective(phases).items():
        best = spread([trial.value("best_hierarchy") or 0.0 for trial in trials])
        lost = [value for trial in trials if (value := trial.value("degradation")) is not None]
        fallen = f", fallen by {sum(lost) / len(lost):.5f} in the mean at the end" if lost else ""
        ends = f"{best.minimum:.5f} at best, {best.maximum:.5f} at worst{fallen}"
        said.append(f"objective={objective}: {ends} ({count(best.n, 'run')}).")
    return " ".join(said)


def _richness(runs: Runs, phases: Sequence[Phase]) -> str:
    said = []
    for objective, trials in _by_objective(phases).items():
        measured = [t for t in trials if t.value("best_richness") is not None]
        if measured:
            rich = max(measured, key=lambda trial: trial.value("best_richness") or 0.0)
            said.append(
                f"objective={objective}: the richest run ({rich.name}) has richness {rich.value('best_richness'):.5f} "
                f"with hierarchy {rich.value('best_hierarchy'):.5f}; the best hierarchy of all is "
                f"{min(t.value('best_hierarchy') or 0.0 for t in trials):.5f}."
            )
    return " ".join(said)


_CONTRASTS: dict[str, Callable[[Runs, Sequence[Phase]], str]] = {
    "scratch": _scratch,
    "loads": _loads,
    "curvature": _curvature,
    "sampling": _sampling,
    "degradation": _degradation,
    "richness": _richness,
}
