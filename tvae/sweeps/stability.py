"""What many seeds of one configuration say of it."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from tvae.sweeps.statistics import correlation, spread

__all__ = ["AVERAGED", "means", "stability_metrics"]

AVERAGED = ("best_coverage", "best_hierarchy", "best_level_gap", "best_richness", "best_q")
"""The measures of a run's model that stand beside those of other runs."""

# Where the smaller value is the better one. Coverage, richness and Q are better when they are larger.
_LESS_IS_BETTER = {"best_hierarchy", "best_epoch"}
_NAMES = {
    "best_hierarchy": "best_hierarchy",
    "coverage": "best_coverage",
    "richness": "best_richness",
    "q": "best_q",
    "best_epoch": "best_epoch",
}


def means(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the means of the results of runs, under the names of their own metrics, to be read in the same column.

    Args:
        runs: the summary of each, by the names of `Result.summary`; runs that failed left out.
    """
    return {name: fmean(run[name] for run in runs) for name in AVERAGED if runs and all(name in run for run in runs)}


def stability_metrics(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Summarise runs that differ in their seed.

    Args:
        runs: the summary of each, by the names of `Result.summary`; runs that failed left out.

    Returns:
        For hierarchy, coverage, richness, Q and best epoch `NAME_mean`, `_std` (of the sample, from two runs on),
        `_best` and `_worst`; `coverage_min`; and the Pearson correlation of initial and best hierarchy with its
        95 % interval, where it is defined.
    """
    if not runs:
        return {}
    metrics: dict[str, float] = {}
    for name, of_run in _NAMES.items():
        values = spread([run[of_run] for run in runs])
        ends = (values.minimum, values.maximum)
        best, worst = ends if name in _LESS_IS_BETTER else ends[::-1]
        metrics |= {f"{name}_mean": values.mean, f"{name}_best": best, f"{name}_worst": worst}
        if values.n > 1:
            metrics[f"{name}_std"] = values.std
    metrics["coverage_min"] = metrics["coverage_worst"]
    related = correlation([run["init_hierarchy"] for run in runs], [run["best_hierarchy"] for run in runs])
    if related is not None:
        metrics |= {
            "init_best_correlation": related.r,
            "init_best_correlation_low": related.low,
            "init_best_correlation_high": related.high,
        }
    return metrics
