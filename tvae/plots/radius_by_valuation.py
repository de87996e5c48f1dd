"""The hyperbolic radius of every operation, level by level."""

import math

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator

from tvae import metrics, ternary
from tvae.arrays import Floats
from tvae.metrics import Evaluation
from tvae.plots.style import ALARM, INK, MUTED, level_colours, own_style, plain_axes, plot_level, signed, titled

__all__ = ["radius_by_valuation"]

# Successive multiples of it, modulo 1, fill an interval evenly: jitter that needs no random numbers.
GOLDEN = (math.sqrt(5) - 1) / 2


@own_style()
def radius_by_valuation(evaluation: Evaluation) -> Figure:
    """Draw the radii of a model of any number of trits.

    Every operation is one point; within a level the cloud is as wide as its radii are dense. Between two neighbouring
    levels a bar spans the radii that neither reaches, or a shade those that both do; the level gap, its height in
    shares of an even step, stands above it. The title has the smallest, which verification checks.
    """
    n_trits = len(evaluation.level_gaps)
    valuations = metrics.population(n_trits).valuations
    levels = [np.sort(evaluation.radii[valuations == v]) for v in range(n_trits + 1)]
    listed = n_trits <= ternary.MOST_LISTED
    smallest, ceiling = evaluation.level_gap, metrics.hierarchy_ceiling(n_trits)
    figure = titled(
        f"Levels overlap: level gap {_gap(smallest)}" if smallest < 0 else f"Smallest level gap {_gap(smallest)}",
        "1: thin levels, evenly spaced; 0: two of them touch · "
        + signed(f"hierarchy {evaluation.hierarchy:.5f}, ceiling {ceiling:.5f}"),
    )
    axes = figure.add_axes((0.07, 0.125, 0.915, 0.665) if listed else (0.07, 0.16, 0.915, 0.6))
    plain_axes(axes)
    axes.grid(visible=False, axis="x")
    top = 1.04 * (float(evaluation.radii.max()) or 1.0)
    bins = np.linspace(0, top, 101)
    # Of more levels numbers side by side would run into one another.
    turned = 0 if listed else 90
    for v, (level, colour) in enumerate(zip(levels, level_colours(n_trits), strict=True)):
        plot_level(axes, v, v + _spread(level, bins), level, colour, mew=0.0, ms=1.4 + 3.6 / math.sqrt(len(level)))
    bars = [[(v - 0.47, mean), (v + 0.47, mean)] for v, mean in enumerate(evaluation.level_radii)]
    axes.add_collection(LineCollection(bars, colors=INK, linewidths=0.9, zorder=4, gid="means"), autolim=False)
    for v, gap in enumerate(evaluation.level_gaps):
        low, high = sorted((float(levels[v][0]), float(levels[v + 1][-1])))
        if gap < 0:
            axes.add_patch(Rectangle((v, low), 1, high - low, color=ALARM, alpha=0.2, lw=0, zorder=1.5, gid="overlap"))
        else:
            axes.plot([v + 0.5] * 2, [low, high], color=MUTED, lw=1.6, solid_capstyle="butt", gid="gap")
        colour = ALARM if gap < 0 else INK
        axes.text(v + 0.5, 1.02 * top, _gap(gap), ha="center", va="bottom", fontsize=9, color=colour, rotation=turned)
    key = "line: mean · bar and number: level gap, in shares of an even step · shaded, below 0: two levels overlap"
    axes.text(0, 1.07 if listed else 1.12, key, transform=axes.transAxes, va="bottom", fontsize=9, color=MUTED)
    axes.set_xlim(-0.55, n_trits + 0.55)
    axes.set_ylim(-0.025 * top, top)
    axes.xaxis.set_major_locator(FixedLocator(list(range(n_trits + 1))))
    count = "\n" if listed else " · "
    axes.set_xticklabels([f"{v}{count}{len(level):,}" for v, level in enumerate(levels)], rotation=turned)
    whose = "have it" if listed else "of it were drawn"
    axes.set_xlabel(f"valuation, and how many operations {whose}", fontsize=10, color=INK)
    axes.set_ylabel("radius (hyperbolic length)", fontsize=10, color=INK)
    return figure


def _gap(value: float) -> str:
    return signed(f"{value:.2f}" if abs(value) >= 0.01 else f"{value:.1g}")


def _spread(level: Floats, bins: Floats) -> Floats:
    """Return offsets in -0.4 … 0.4 that make the cloud of an ascending level as wide as its radii are dense."""
    if len(level) == 1:
        return np.zeros(1)
    counts = np.histogram(level, bins)[0].astype(np.float64)
    # Smoothed over neighbouring bins, so that the outline is not a staircase.
    counts = np.convolve(counts, [0.25, 0.5, 0.25], mode="same")
    centres = (bins[:-1] + bins[1:]) / 2
    width = np.interp(level, centres, counts / max(1.0, counts.max()))
    offsets: Floats = 0.8 * width * (np.arange(1, len(level) + 1) * GOLDEN % 1 - 0.5)
    return offsets
