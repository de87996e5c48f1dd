"""What a run's page says first, in Markdown: what was run, what came of it, how to repeat it."""

from collections.abc import Mapping
from typing import Any

from tvae.architecture import Architecture
from tvae.experiments import reference
from tvae.metrics import Evaluation, hierarchy_ceiling, richness_ceiling
from tvae.training import Result

__all__ = ["REFERENCE", "describe_embedding", "describe_foundation"]

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
    start: str,
    command: str,
    look: Mapping[str, str],
) -> str:
    """Describe a run whose model has a projection.

    Args:
        title: what was run, in a few words.
        architecture: of the model.
        result: of the training.
        evaluation: of the model.
        start: where its weights come from, a sentence.
        command: the exact command that repeats the run.
        look: links by name.
    """
    summary, levels = result.summary(), architecture.n_trits
    ceiling = richness_ceiling(architecture.max_radius, architecture.n_trits)
    rows = [
        ("coverage", f"{evaluation.coverage:.5f}", "1", REFERENCE["coverage"] + " from scratch"),
        (
            "hierarchy",
            f"{evaluation.hierarchy:.5f}",
            f"{hierarchy_ceiling(levels):.5f}",
            f"{REFERENCE['hierarchy']} at best",
        ),
        ("ordered levels", f"{evaluation.ordered_levels} of {levels}", f"{levels}", "not measured"),
        ("richness", f"{evaluation.richness:.5f}", f"{ceiling:.5f}", f"{REFERENCE['richness']} at best"),
        ("degradation", f"{summary['degradation']:+.5f}", "0", f"{REFERENCE['degradation']} after its best epoch"),
        ("distance fidelity", f"{evaluation.distance_fidelity:.4f}", "0.8320", "not measured"),
        ("tree precision", f"{evaluation.tree_precision:.4f}", "1", "not measured"),
        ("sibling recall", f"{evaluation.sibling_recall:.4f}", "1", "not measured"),
        ("ball coverage", f"{evaluation.ball_coverage:.5f}", "1", "not measured"),
    ]
    best = f"best epoch {result.best_epoch} of {len(result.history) - 1}"
    return "\n".join(
        [
            f"**Hierarchy {evaluation.hierarchy:.5f}** (limit {hierarchy_ceiling(levels):.5f}), coverage "
            f"{evaluation.coverage:.5f}, {evaluation.ordered_levels} of {levels} levels ordered, richness "
            f"{evaluation.richness:.5f}.",
            "",
            f"{title}, curvature {architecture.curvature:g}, largest unit norm {architecture.max_radius:g}, seed "
            f"{result.configuration.seed}, objective `{result.configuration.objective}`. {start}",
            "",
            "| on all operations, at the posterior mean | this run | limit | reference sweep |",
            "| --- | --- | --- | --- |",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            f"Initial hierarchy {summary['init_hierarchy']:+.4f}; {best}; trained in {result.seconds:.1f} s.",
            "",
            *(f"- {event}" for event in result.events),
            *_footer(command, look),
        ]
    )


def describe_foundation(result: Result, coverage: float, *, command: str, look: Mapping[str, str]) -> str:
    """Describe a run that trained encoder and decoder.

    Args:
        result: of the training.
        coverage: of the model.
        command: the exact command that repeats the run.
        look: links by name.
    """
    first = next((int(r["epoch"]) for r in result.history if r["coverage"] >= 1.0), None)
    reached = f"Full coverage from epoch {first} on." if first is not None else "Full coverage was not reached."
    return "\n".join(
        [
            f"**Coverage {coverage:.5f}** of all operations. {reached}",
            "",
            f"Foundation: encoder and decoder, seed {result.configuration.seed}, best epoch "
            f"{result.best_epoch} of {len(result.history) - 1}, trained in {result.seconds:.1f} s.",
            "",
            "The projection was drawn at random and not trained: its radii mean nothing, so none is reported. "
            "`finetune` draws a new one and trains it.",
            "",
            *_footer(command, look),
        ]
    )


def _footer(command: str, look: Mapping[str, Any]) -> list[str]:
    links = " · ".join(f"[{name}]({address})" for name, address in look.items())
    return ["", "Repeat it:", "", "```sh", command, "```", "", links]
