"""A preset over many seeds, each run from random weights and on its own: what holds of every one of them.

Both stages are trained as `scratch` trains them. Tree precision counts all neighbourhoods of all operations, not the
sample of the runs. Prints a Markdown table; `python benchmarks/seeds.py --help` lists the options.
"""

import argparse
from typing import NamedTuple

import joblib
import torch

from tvae.config.architecture import Architecture
from tvae.config.presets import PRESETS, resolve, resolve_foundation
from tvae.metrics import Evaluation, evaluate, posterior_mean, tree_precision_by_level
from tvae.training import train
from tvae.training.start import from_foundation, from_scratch


class Row(NamedTuple):
    """One seed."""

    seed: int
    found: Evaluation
    tree_precision: float
    degradation: float
    foundation_seconds: float
    seconds: float


def run(preset: str, seed: int, curvature: float, threads: int) -> Row:
    """Train one seed of a preset from random weights, and measure it on all operations."""
    torch.set_num_threads(threads)
    architecture, configuration = resolve(preset, {"seed": seed, "curvature": curvature})
    foundation = train(from_scratch(architecture, resolve_foundation(architecture, {"seed": seed})))
    result = train(from_foundation(foundation, configuration))
    with torch.no_grad():
        embedding = result.model.project(posterior_mean(result.model))
    by_level = tree_precision_by_level(embedding, n_trits=9, curvature=curvature, sample=3**9)
    precision = sum(by_level) / len(by_level)
    return Row(
        seed, evaluate(result.model), precision, result.summary()["degradation"], foundation.seconds, result.seconds
    )


def line(row: Row) -> str:
    """Return a row of the table."""
    found = row.found
    cells = (
        f"{row.seed}",
        f"{row.tree_precision:.7f}",
        f"{found.sibling_recall:.7f}",
        f"{found.distance_fidelity:.5f}",
        f"{found.q:.5f}",
        f"{found.hierarchy:.6f}",
        f"{found.level_gap:.3f}",
        f"{found.richness:.6f}",
        f"{sum(found.level_richness[:4]) / found.richness:.2f}",
        f"{found.radii[0]:.0e}",
        f"{found.coverage:.7f}",
        f"{found.ball_coverage:.7f}",
        f"{row.degradation:+.6f}",
        f"{row.foundation_seconds:.1f} + {row.seconds:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="default")
    parser.add_argument("--seeds", type=int, default=30, help="how many (default 30)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--curvature", type=float, default=Architecture().curvature)
    parser.add_argument(
        "--side-by-side", type=int, default=1, help="runs at a time; the cores are shared out among them (default 1)"
    )
    asked = parser.parse_args()
    threads = max(1, joblib.cpu_count() // asked.side_by_side)
    heads = (
        "seed", "tree precision", "sibling recall", "fidelity", "Q", "hierarchy", "level gap", "richness",
        "from levels 0 to 3", "radius of 0", "coverage",
        "ball coverage", "degradation", "s of training",
    )  # fmt: skip
    print(f"`{asked.preset}` at curvature {asked.curvature:g}, {threads} threads a run.\n")
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}", flush=True)
    seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
    parallel = joblib.Parallel(n_jobs=asked.side_by_side, return_as="generator")
    for row in parallel(joblib.delayed(run)(asked.preset, seed, asked.curvature, threads) for seed in seeds):
        print(line(row), flush=True)


if __name__ == "__main__":
    main()
