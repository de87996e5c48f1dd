"""The frontier between an exact tree and richness: trains along it, and writes a plot and a table.

`python benchmarks/frontier.py --help` lists the options. Everything is trained here, from one foundation for each seed.
Between the presets, and beyond `balanced`, only the target of richness between the coarse balls changes.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tvae import objectives
from tvae.architecture import Architecture
from tvae.configuration import FOUNDATION
from tvae.experiments.presets import resolve
from tvae.experiments.start import from_foundation, from_scratch
from tvae.metrics import Evaluation, evaluate
from tvae.model import TernaryVAE
from tvae.training import Result, train, train_cohort

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- frontier: written by `make frontier` -->", "<!-- frontier ends -->"
# What is asked for, in the form of `objectives.BETWEEN_TARGET`, beside the value that `balanced` has.
TARGETS = (0.17, 0.28, 0.45, 0.55, 0.63, 0.73)


class Point(NamedTuple):
    """One setting, measured."""

    name: str
    found: list[Evaluation]
    seconds: float

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over seeds."""
        return statistics.fmean(float(getattr(evaluation, metric)) for evaluation in self.found)


def main() -> None:
    """Train, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="runs of each point (default 2)")
    parser.add_argument("--epochs", type=int, help="of every point instead of the presets' own: for a quick look")
    options = parser.parse_args()

    foundations = [train(from_scratch(Architecture(), FOUNDATION.replace(seed=seed))) for seed in range(options.seeds)]
    points = [measure(name, name, foundations, options.epochs) for name in ("exact_tree", "balanced", "default")]
    max_radius = resolve("balanced", {})[0].max_radius
    for target in TARGETS:
        objectives.BETWEEN_TARGET = target
        name = f"asked for {(target * max_radius) ** 2 / 40:.4f}"
        points.append(measure(name, "balanced", foundations, options.epochs))
    points.sort(key=lambda point: point.mean("richness"))
    text = table(points)
    print(text)
    page = ROOT / "docs" / "why.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
    plot(points).savefig(ROOT / "docs" / "images" / "frontier.png", dpi=150)


def measure(name: str, preset: str, foundations: Sequence[Result], epochs: int | None) -> Point:
    """Train one setting with every seed, as a cohort, and measure it."""
    length = {"epochs": epochs, "patience": epochs} if epochs else {}
    architecture, configuration = resolve(preset, length)
    members = []
    for seed, foundation in enumerate(foundations):
        model = TernaryVAE(architecture)
        model.load_state_dict(foundation.model.state_dict())
        members.append(from_foundation(Result(FOUNDATION, model), configuration.replace(seed=seed)))
    results = train_cohort(members)
    return Point(name, [evaluate(result.model) for result in results], statistics.fmean(r.seconds for r in results))


def table(points: Sequence[Point]) -> str:
    """Return a Markdown table, a row a point."""
    lines = [
        "| point | richness | tree precision | sibling recall | distance fidelity | hierarchy | coverage | s a run |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for point in points:
        cells = [
            f"{point.mean('richness'):.5f}",
            f"{point.mean('tree_precision'):.5f}",
            f"{point.mean('sibling_recall'):.5f}",
            f"{point.mean('distance_fidelity'):.4f}",
            f"{point.mean('hierarchy'):.5f}",
            f"{point.mean('coverage'):.5f}",
            f"{point.seconds:.0f}",
        ]
        name = point.name if point.name.startswith("asked") else f"`{point.name}`"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(points: Sequence[Point]) -> Figure:
    """Draw what the tree loses against richness, every run a dot and every point a line's corner."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 5.6), sharex=True, layout="constrained")
    misplaced = [Point(p.name, [replace(f, tree_precision=1 - f.tree_precision) for f in p.found], 0) for p in points]
    _draw(above, misplaced, "tree_precision", "share of neighbours out of place:\n1 - tree precision", 8)
    # Runs without one are on the axis.
    above.set_yscale("symlog", linthresh=1e-6, linscale=0.5)
    above.set_ylim(0, 3)
    _draw(below, points, "distance_fidelity", "distance fidelity", -16)
    below.set_xlabel("richness: mean variance of the unit norm within a level")
    return figure


def _draw(axes: Axes, points: Sequence[Point], metric: str, label: str, raised: int) -> None:
    learned = [point for point in points if point.name != "default"]  # which learns no distances
    axes.plot(*zip(*((p.mean("richness"), p.mean(metric)) for p in learned), strict=True), color="0.7", zorder=1)
    for point in points:
        named = not point.name.startswith("asked")
        axes.scatter(
            [found.richness for found in point.found],
            [getattr(found, metric) for found in point.found],
            s=36 if named else 14,
            color="tab:red" if named else "tab:blue",
            clip_on=False,
            zorder=3,
        )
        if named:
            left = point.name == "default"
            where, offset = (point.mean("richness"), point.mean(metric)), (-8, -3) if left else (8, raised)
            axes.annotate(
                point.name, where, offset, textcoords="offset points", color="tab:red", ha="right" if left else "left"
            )
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    main()
