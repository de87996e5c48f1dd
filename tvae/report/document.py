"""What the report says, block by block, before it is Markdown or a page."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime

from tvae import registry
from tvae.experiments import reference
from tvae.experiments.statistics import MIN_PAIRS
from tvae.metrics import hierarchy_ceiling
from tvae.report.blocks import Block, Bullets, Heading, Paragraph, Table
from tvae.report.findings import Study, cost_of, verdicts
from tvae.report.gather import Campaign, Version
from tvae.report.phase import on_the_front, phase_blocks
from tvae.report.tables import COMPARED, HIERARCHY, RICHNESS, Cell
from tvae.report.wording import assignments, ends, figure, mean, number, seeds_text

__all__ = ["document", "summary"]

# Cells that the table of the best shows.
MOST_BEST = 8


def document(study: Study) -> list[Block]:
    """Return the whole report."""
    campaign = study.campaign
    blocks: list[Block] = [Heading(1, campaign.name), Paragraph(_what(study)), Bullets(tuple(summary(study)))]
    if study.recommendations:
        blocks += [Heading(2, "What follows"), Bullets(tuple(study.recommendations))]
    blocks += [*_sweeps(campaign), *_best(study)]
    for phase in study.phases:
        blocks += phase_blocks(phase)
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
            f"The limit is {cell.hierarchy_limit:.5f}; richness {figure(cell.spread(RICHNESS.metric))}, "
            f"Q {figure(cell.spread('best_q'), 4)}. Best is by coverage, hierarchy, Q and richness, in this order.",
        )
    for phase in study.phases:
        for cell in phase.cells:
            if cell.is_demonstration and cell.by_seed(HIERARCHY.metric):
                start = ends(cell.spread("init_hierarchy"))
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
            yield f"{phase.title}:", on_the_front(phase)
    for phase in compared:
        yield f"{phase.title}:", verdicts(phase)
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
    changed = [cell.changed() for _, cell in best]
    shared = dict(set.intersection(*(set(settings.items()) for settings in changed)))
    rows = tuple(
        (
            f"{cell.name} ({phase.title})",
            str(len(cell.by_seed(HIERARCHY.metric))),
            figure(cell.spread(HIERARCHY.metric)),
            figure(cell.spread(RICHNESS.metric)),
            mean(cell.spread("best_q"), 4),
            mean(cell.spread("best_coverage")),
            assignments({name: value for name, value in settings.items() if name not in shared}) or "–",
            cell.best_trial().id,
        )
        for (phase, cell), settings in zip(best, changed, strict=True)
    )
    columns = ("configuration", "seeds", "hierarchy", "richness", "Q", "coverage", "not as by default", "best trial")
    order = ", ".join(criterion.label for criterion in registry.RANKING)
    alike = [name for name in changed[0] if name in shared]
    all_have = f" All have {assignments({name: shared[name] for name in alike})}." if shared and len(best) > 1 else ""
    return [
        Heading(2, "Best configurations"),
        Paragraph(
            f"By their means, as the registry compares: {order}. The order of two rows alone says nothing; the phases "
            f"below say which differences are more than noise.{all_have}"
        ),
        Table(columns, rows, words=frozenset({0, 6, 7}), codes=frozenset({7}), strong=frozenset({0})),
    ]


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
        "Open: it cannot be told whether there is a difference that matters. Noise: standard deviation, from seed to "
        "seed, of the difference of two cells, pooled over what is open, or over all. Seen: the difference that so "
        "many seeds find 4 times in 5 among so many comparisons. Needed: to see the smallest that matters as often."
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
