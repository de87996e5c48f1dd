"""What a run's page says first, in Markdown: what was run, what came of it, how to repeat it."""

from collections.abc import Mapping, Sequence
from typing import Any

from tvae.checkpoint import Checkpoint, Verification
from tvae.config.architecture import MOST_LISTED, Architecture
from tvae.config.presets import PRESETS, nearest_preset, of_size
from tvae.config.training import Configuration
from tvae.errors import TVAEError
from tvae.markdown import escaped
from tvae.metrics import (
    Evaluation,
    distance_fidelity_ceiling,
    hierarchy_ceiling,
    population,
    q_ceiling,
    richness_ceiling,
)
from tvae.sweeps import reference
from tvae.sweeps.trial import Trial
from tvae.training import Result

__all__ = [
    "REFERENCE",
    "describe_embedding",
    "describe_foundation",
    "describe_model",
    "describe_trial",
    "estimated",
    "model_settings",
    "preformatted",
    "richness_shares",
    "settings_table",
]

_REPORTED = [row for table in reference.TABLES.values() for row in table.values()]
_BEST = min(_REPORTED, key=lambda row: row["best_hierarchy"])

# The best figures of the reference sweep for the same measures; the degradation is that of its best hierarchy.
REFERENCE = {
    "hierarchy": f"{_BEST['best_hierarchy']:.3f}",
    "degradation": f"{_BEST['final_hierarchy'] - _BEST['best_hierarchy']:+.3f}",
    "richness": f"{max(row.get('best_richness', 0.0) for row in _REPORTED):.4f}",
    "coverage": "{:.2f} to {:.2f}".format(*reference.SCRATCH_COVERAGE),
}


def describe_embedding(
    title: str,
    architecture: Architecture,
    result: Result,
    evaluation: Evaluation,
    *,
    verified: bool,
    start: str,
    command: str,
    look: Mapping[str, str],
) -> str:
    """Describe a run whose model has a projection.

    `title` says in a few words what was run, and `start` in a sentence where its weights come from. `look` holds pages
    within the UI by name, here and below.
    """
    summary, levels = result.summary(), architecture.n_trits
    rows = [
        ("", "this run", "limit", "reference sweep"),
        ("coverage", _value(evaluation, "coverage"), "1", f"{REFERENCE['coverage']} from scratch"),
        (
            "hierarchy",
            _value(evaluation, "hierarchy"),
            f"{hierarchy_ceiling(levels):.5f}",
            f"{REFERENCE['hierarchy']} at best",
        ),
        ("level gap", f"{evaluation.level_gap:.3f}", "1", "not measured"),
        (
            "richness",
            f"{evaluation.richness:.5f}",
            f"{richness_ceiling(architecture.max_radius, levels):.5f}",
            f"{REFERENCE['richness']} at best",
        ),
        ("degradation", f"{summary['degradation']:+z.5f}", "0", f"{REFERENCE['degradation']} after its best epoch"),
        (
            "distance fidelity",
            f"{evaluation.distance_fidelity:.5f}",
            f"{distance_fidelity_ceiling(levels):.5f}",
            "not measured",
        ),
        ("Q", f"{evaluation.q:.4f}", f"{q_ceiling(levels):.4f}", "not measured"),
        *(
            (name.replace("_", " "), _value(evaluation, name), "1", "not measured")
            for name in ("tree_precision", "sibling_recall", "ball_coverage")
        ),
    ]
    verdict = "Verified." if verified else "**Verification failed.**"
    return "\n".join(
        [
            f"**Hierarchy {evaluation.hierarchy:.5f}** (limit {hierarchy_ceiling(levels):.5f}), coverage "
            f"{evaluation.coverage:.5f}, {_level_gap(evaluation.level_gap)}, richness "
            f"{evaluation.richness:.5f}. {verdict}",
            _links(look),
            "",
            f"{title}, curvature {architecture.curvature:g}, largest unit norm {architecture.max_radius:g}, seed "
            f"{result.configuration.seed}, objective `{result.configuration.objective}`. {start}",
            "",
            f"On {_measured_on(levels)}, at the posterior mean, with the weights of the best epoch:",
            "",
            preformatted(rows),
            "",
            "The limits of hierarchy, distance fidelity and Q hold where no two radii or distances are equal, that of "
            "richness where levels do not overlap. A level gap of 1 means thin levels, evenly spaced, one below 0 that "
            f"two of them overlap. Richness by level, from valuation 0: {richness_shares(evaluation)}.",
            "",
            f"Initial hierarchy {summary['init_hierarchy']:+.4f}; {_best(result)}; trained in {result.seconds:.1f} s.",
            "",
            *(f"- {event}" for event in result.events),
            *_repeat(command),
        ]
    )


def _measured_on(n_trits: int) -> str:
    """Return what metrics were taken of: all operations, or how many of how many."""
    if n_trits <= MOST_LISTED:
        return "all operations"
    return f"a fixed sample of {population(n_trits).n_even:,} of 3^{n_trits} operations"


def estimated(evaluation: Evaluation, name: str) -> str:
    """Return the 95 % interval of a metric that is an estimate, in parentheses; nothing of others."""
    if name not in evaluation.intervals:
        return ""
    low, high = evaluation.intervals[name]
    return f" ({low:.5f} to {high:.5f})"


def _value(evaluation: Evaluation, name: str) -> str:
    return f"{getattr(evaluation, name):.5f}{estimated(evaluation, name)}"


def describe_foundation(result: Result, coverage: float, *, command: str, look: Mapping[str, str]) -> str:
    """Describe a run that trained encoder and decoder."""
    n_trits = result.model.architecture.n_trits
    first = next((int(r["epoch"]) for r in result.history if r["coverage"] >= 1.0), None)
    reached = f"Full coverage from epoch {first} on." if first is not None else "Full coverage was not reached."
    return "\n".join(
        [
            f"**Coverage {coverage:.5f}** of {_measured_on(n_trits)}. {reached}",
            _links(look),
            "",
            f"Foundation: encoder and decoder, seed {result.configuration.seed}, {_best(result)}, trained in "
            f"{result.seconds:.1f} s.",
            "",
            "The projection was drawn at random and not trained: its radii mean nothing, so none is reported. "
            "`finetune` draws a new one and trains it.",
            *_repeat(command),
        ]
    )


def describe_trial(trial: Trial, result: Result, *, look: Mapping[str, str]) -> str:
    """Describe a run of a sweep; what it came to only if it trained to its end."""
    lines = []
    if result.error is None:
        at_best, limit = result.history[result.best_epoch], hierarchy_ceiling(trial.architecture.n_trits)
        lines = [
            f"**Hierarchy {at_best['hierarchy']:.5f}** (limit {limit:.5f}), coverage {at_best['coverage']:.5f}, "
            f"{_level_gap(at_best['level_gap'])}, richness {at_best['richness']:.5f}; {_best(result)}.",
            "",
        ]
    return "\n".join(
        [
            *lines,
            f"{escaped(trial.cell)} ({escaped(trial.phase)}), seed {trial.configuration.seed}. {_links(look)}",
            "",
            *(f"- {event}" for event in result.events),
        ]
    ).rstrip()


def model_settings(checkpoint: Checkpoint) -> dict[str, str]:
    """Return what a model was made with, as its file says: architecture and training, and the preset that is nearest.

    The file may be anybody's: what is no setting of this version is left out.
    """
    stage, stated = checkpoint.training.get("stage"), checkpoint.training.get("configuration")
    try:
        training = Configuration.from_dict(stated).to_dict() if isinstance(stated, Mapping) else {}
    except TVAEError:
        training = {}
    of_stage = {"stage": stage} if isinstance(stage, str) and stage.isidentifier() else {}
    settings = {name: str(value) for name, value in (checkpoint.architecture.to_dict() | training).items()}
    # A foundation has a recipe of its own, and a legacy file says nothing of its training.
    preset = {"preset": nearest_preset(settings)[0]} if training and "projection" in checkpoint.trained else {}
    return of_stage | preset | settings


def describe_model(verification: Verification, *, page: str) -> str:
    """Describe a logged model: its verdict, its measures, and the page of the run that logged it."""
    shown = [f"{name.replace('_', ' ')} {value:.5g}" for name, value in verification.metrics.items()]
    verdict = "Verified" if verification.passed else f"Verification failed ({escaped(verification.failures)})"
    return f"{verdict}: {', '.join(shown)}. [The run that logged it]({page})."


def settings_table(asked: Mapping[str, Any], used: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Return every setting that was used and who chose it, the user first.

    Args:
        asked: every option as it was given.
        used: what they came to; those that are `auto` still are left out.
        defaults: of the options.
    """
    preset = str(asked.get("preset", "default"))
    sized = of_size(used.get("n_trits", 0))
    origin = {
        name: "the user" if asked[name] != defaults.get(name)
        else f"preset {preset}" if name in PRESETS[preset]
        else "n_trits" if sized.get(name) == (tuple(value) if isinstance(value, list) else value)
        else "default"
        for name, value in used.items()
        if value != "auto"
    }  # fmt: skip
    rows = sorted(((name, str(used[name]), origin[name]) for name in origin), key=lambda row: row[2] != "the user")
    return f"What it was trained with:\n\n{preformatted([('setting', 'value', 'from'), *rows])}"


def _level_gap(gap: float) -> str:
    return f"levels overlap: gap {gap:.3f}" if gap < 0 else f"smallest level gap {gap:.3f}"


def richness_shares(evaluation: Evaluation) -> str:
    """Return which share of the richness each level has, in percent, from valuation 0 up."""
    whole = evaluation.richness or 1.0
    return " ".join(f"{100 * part / whole:.0f}" for part in evaluation.level_richness) + " %"


def preformatted(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned text, the header first, in Markdown that keeps it: the UI sets tables without any gap.

    Args:
        rows: equally long; the first column and the last are words, and those between are numbers.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:-1]), row[-1]]).rstrip() for row in rows
    ]
    return "\n".join(["```text", *lines, "```"])


def _best(result: Result) -> str:
    return f"best epoch {result.best_epoch} of {len(result.history) - 1}"


def _links(look: Mapping[str, str]) -> str:
    """Return links, which stand right under the first line: the UI covers what comes later until one asks for more."""
    return " · ".join(f"[{name}]({page})" for name, page in look.items())


def _repeat(command: str) -> list[str]:
    return ["", "Repeat it:", "", "```sh", command, "```"]
