"""How far apart operations are in the ball, by the valuation of their difference."""

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from tvae import metrics
from tvae.plots.plane import polar
from tvae.plots.style import GRID, INK, MUTED, level_colours, own_style, plain_axes, titled

__all__ = ["distance_by_valuation"]


@own_style()
def distance_by_valuation(points: npt.ArrayLike, *, curvature: float) -> Figure:
    """Draw a row a valuation, from 0 at the top: the histogram of distances, scaled to its own height, and their mean.

    At each valuation every operation is paired with one other, `metrics.sample_partners`. In an exact tree each row is
    one line, left of the row above it. Points and curvature are as in `poincare_disk`.
    """
    embedding, n_trits = polar(points, curvature)
    distances = metrics.distances_by_valuation(embedding, n_trits=n_trits, curvature=curvature)
    means = distances.mean(1)
    falls, steps = int((np.diff(means) < 0).sum()), n_trits - 1
    figure = titled(
        f"Mean distance {means[0]:.3g} at valuation 0, {means[-1]:.3g} at valuation {steps}",
        f"the mean falls at {falls} of {steps} steps · {distances.shape[1]:,} pairs a valuation · "
        f"curvature −{curvature:g}",
    )
    axes = figure.add_axes((0.07, 0.09, 0.87, 0.77))
    plain_axes(axes)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    top = float(distances.max()) or 1.0
    bins = np.linspace(0, 1.02 * top, 181)
    # The palest of the palette would not show as a filled shape on white.
    for k, colour in enumerate(level_colours(n_trits + 2)[2:-1]):
        counts = np.histogram(distances[k], bins)[0]
        height = 0.86 * counts / max(1, counts.max())
        floor = float(steps - k)
        axes.stairs(floor + height, bins, baseline=floor, fill=True, color=colour, lw=0, zorder=3, gid=f"k{k}")
        axes.axhline(floor, color=GRID, lw=0.8, zorder=2)
        axes.plot([means[k]] * 2, [floor - 0.06, floor + 0.9], color=INK, lw=1.1, zorder=5, gid=f"mean {k}")
        axes.text(1.0, floor + 0.12, f"{means[k]:.3g}", transform=axes.get_yaxis_transform(), ha="right", fontsize=9,
                  color=MUTED)  # fmt: skip
    axes.text(1.0, 1.005, "mean", transform=axes.transAxes, ha="right", va="bottom", fontsize=9, color=MUTED)
    axes.set_xlim(0, 1.08 * top)
    axes.set_ylim(-0.1, n_trits)
    axes.yaxis.set_major_locator(FixedLocator([steps - k + 0.12 for k in range(n_trits)]))
    axes.set_yticklabels([str(k) for k in range(n_trits)])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("hyperbolic distance", fontsize=10, color=INK)
    axes.set_ylabel("valuation of the difference", fontsize=10, color=INK)
    return figure
