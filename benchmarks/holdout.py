"""How much of what a model does is generalisation: presets with growing shares of operations held out of every loss.

Both stages are trained from random weights, as `scratch` trains them. Prints the tables of docs/generalisation.md, and
draws its figure where `--figure` says.
"""

import argparse
from pathlib import Path

import joblib
import matplotlib
import torch
from matplotlib.figure import Figure

from tvae import ternary
from tvae.config.presets import PRESETS, resolve, resolve_foundation
from tvae.metrics import evaluate
from tvae.metrics.subset import holdout_metrics
from tvae.training import train
from tvae.training.start import from_foundation, from_scratch

SHARES = (0.1, 0.5, 0.9, 0.95, 0.97, 0.98, 0.99, 0.999)
SHOWN = ("coverage", "hierarchy", "level_gap", "distance_fidelity", "tree_precision", "sibling_recall", "richness")
DRAWN = ("coverage", "tree_precision", "sibling_recall", "hierarchy")

Found = dict[str, float]


def run(preset: str, share: float, seed: int) -> Found:
    """Train once, and return what is seen and unseen, and the smallest level gap of all operations."""
    torch.set_num_threads(1)
    asked = {"seed": seed, "holdout": share}
    architecture, configuration = resolve(preset, asked)
    foundation = train(from_scratch(architecture, resolve_foundation(architecture, asked)))
    result = train(from_foundation(foundation, configuration))
    seconds = foundation.seconds + result.seconds
    return holdout_metrics(result.model, share) | {"gap": evaluate(result.model).level_gap, "seconds": seconds}


def table(preset: str, found: dict[float, list[Found]]) -> str:
    """Return the table of one preset in Markdown, a row a share: the worst of its seeds."""
    lines = [
        f"`{preset}`, the worst of {len(next(iter(found.values())))} seeds, seen / unseen:",
        "",
        f"| held out | seen | {' | '.join(name.replace('_', ' ') for name in SHOWN)} | s of training |",
        f"| --- | --- |{' --- |' * (len(SHOWN) + 1)}",
    ]
    for share, runs in found.items():
        cells = []
        for name in SHOWN:
            worst = max if name == "hierarchy" else min
            seen, unseen = (worst(one[f"{kind}_{name}"] for one in runs) for kind in ("seen", "unseen"))
            cells.append(f"{seen:.4f} / {unseen:.4f}")
        n_seen = int((~ternary.held_out(share)).sum())
        seconds = sum(one["seconds"] for one in runs) / len(runs)
        lines.append(f"| {share:g} | {n_seen:,} | {' | '.join(cells)} | {seconds:.0f} |")
    return "\n".join(lines)


def figure(found: dict[str, dict[float, list[Found]]], path: Path) -> None:
    """Draw each metric of the unseen operations over the number of those that were seen."""
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        page = Figure(figsize=(9, 5.6), layout="constrained")
        for axes, name in zip(page.subplots(2, 2, sharex=True).flat, DRAWN, strict=True):
            for preset, shares in found.items():
                seen = [int((~ternary.held_out(share)).sum()) for share in shares]
                for place, runs in zip(seen, shares.values(), strict=True):
                    values = [one[f"unseen_{name}"] for one in runs]
                    axes.plot([place] * len(values), values, ".", color=COLOURS[preset], alpha=0.5)
                means = [sum(one[f"unseen_{name}"] for one in runs) / len(runs) for runs in shares.values()]
                axes.plot(seen, means, color=COLOURS[preset], label=preset)
            axes.set_xscale("log")
            axes.set_title(f"{name.replace('_', ' ')} of the unseen", loc="left")
        for axes in page.axes[2:]:
            axes.set_xlabel("operations seen, of 19,683")
        page.axes[0].legend(frameon=False)
        page.savefig(path, dpi=130)


COLOURS = {"default": "#1f5aa6", "rich": "#c2571a", "radii": "#4c8c4a"}


def main() -> None:
    """Train, print the tables, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(COLOURS))
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--side-by-side", type=int, default=2, help="runs at a time (default 2)")
    parser.add_argument("--figure", type=Path)
    asked = parser.parse_args()
    cells = [(preset, share, seed) for preset in asked.presets for share in asked.shares for seed in range(asked.seeds)]
    results = joblib.Parallel(n_jobs=asked.side_by_side)(joblib.delayed(run)(*cell) for cell in cells)
    found: dict[str, dict[float, list[Found]]] = {}
    for (preset, share, _), result in zip(cells, results, strict=True):
        found.setdefault(preset, {}).setdefault(share, []).append(result)
    print("\n\n".join(table(preset, shares) for preset, shares in found.items()))
    if asked.figure:
        figure(found, asked.figure)


if __name__ == "__main__":
    main()
