"""The ball as a disk: the hyperbolic radius of every operation to scale, and an angle."""

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator

from tvae import poincare, ternary
from tvae.arrays import Floats
from tvae.plots.plane import adic_angle, learned_angle, polar
from tvae.plots.style import INK, MUTED, SIZE, level_colours, own_style, plot_level, titled

__all__ = ["poincare_disk"]


@own_style()
def poincare_disk(
    points: npt.ArrayLike, *, curvature: float, angle: Literal["learned", "3-adic"] = "learned"
) -> Figure:
    """Draw the ball as a disk, every operation a point coloured by its valuation.

    No picture in the plane keeps all of a ball of many dimensions. Here the distance from the centre is exact: it is
    the hyperbolic radius, to scale. In the Poincaré model's own coordinates most operations would lie within a line's
    width of the boundary, at unit norms of 0.99 and more. Of the angle the figure says what it is. Common valuations
    are drawn first and small, rare ones last and large.

    Args:
        points: embeddings of all operations in index order, shape `(3^n_trits, D)`, D >= 2, inside the ball.
        curvature: c > 0.
        angle: `learned`, `plane.learned_angle`, or `3-adic`, `plane.adic_angle`.

    Raises:
        ValueError: if the points are not those of all operations, one is not inside the ball, or `angle` is unknown.
    """
    embedding, n_trits = polar(points, curvature)
    if angle == "learned":
        theta, share = learned_angle(embedding)
        note = (
            "learned: as seen from the middle of all\npoints, in the plane that holds the most\n"
            f"({share:.0%} of the directions' squared length;\nthe ball has {embedding.direction.shape[1]} dimensions)"
        )
    elif angle == "3-adic":
        theta = adic_angle(n_trits)
        note = "not learned: the index with its base-3\ndigits reversed, so that 3-adic\nneighbours are adjacent"
    else:
        raise ValueError(f"`angle` must be learned or 3-adic, got {angle!r}.")
    radii = poincare.radius(embedding.unit_norm, curvature=curvature).numpy()
    valuations = ternary.valuations(n_trits)
    levels = [valuations == v for v in range(n_trits + 1)]
    most = float(radii.max())
    ends = (radii[levels[0]].mean(), radii[levels[-1]].mean(), radii.min(), most)
    first, last, low, high = (f"{x if x > 1e-4 * most else 0.0:.3g}" for x in ends)  # 0 but for rounding is 0
    figure = titled(
        f"Mean radius {first} at valuation 0, {last} at valuation {n_trits}",
        f"all {3**n_trits:,} operations · curvature −{curvature:g} · radii from {low} to {high} (hyperbolic length)",
    )
    axes = figure.add_axes((0.02, 0.015, 0.61, 0.61 * SIZE[0] / SIZE[1]))
    axes.set_axis_off()
    x, y = radii * np.cos(theta), radii * np.sin(theta)
    for v, (level, colour) in enumerate(zip(levels, level_colours(n_trits), strict=True)):
        plot_level(axes, v, x[level], y[level], colour, **_marker(v, n_trits))
    _draw_guides(axes, theta % (2 * math.pi), most or 1.0)
    _draw_key(figure, [int(level.sum()) for level in levels], note)
    return figure


def _draw_guides(axes: Axes, theta: Floats, largest: float) -> None:
    """Draw circles of round hyperbolic radius, as far as the points reach.

    Their labels stand in the direction where there are the fewest points to hide.
    """
    sectors = np.bincount((theta / (2 * math.pi) * 48 + 0.5).astype(np.int64) % 48, minlength=48)
    # Upwards where it is as good as any: sector 12 is a quarter turn.
    quiet = 2 * math.pi * min(range(48), key=lambda sector: (sectors[sector], abs(sector - 12))) / 48
    radii = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(0, largest)[1:]
    for radius in radii:
        axes.add_patch(Circle((0, 0), radius, fill=False, ec=MUTED, lw=0.8, ls=(0, (4, 3)), zorder=2, gid="guide"))
        axes.text(
            radius * math.cos(quiet), radius * math.sin(quiet), f"{radius:g}",
            ha="center", va="center", fontsize=8, color=INK, zorder=6,
            bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.85},
        )  # fmt: skip
    axes.set_xlim(-1.03 * radii[-1], 1.03 * radii[-1])
    axes.set_ylim(-1.03 * radii[-1], 1.03 * radii[-1])


def _draw_key(figure: Figure, sizes: list[int], note: str) -> None:
    """Draw the legend to the right of the disk: the levels with their sizes, then what radius and angle are."""
    axes = figure.add_axes((0.68, 0.02, 0.31, 0.84))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    n_trits = len(sizes) - 1
    axes.text(0.0, 0.985, "valuation", fontsize=9, color=MUTED, va="center")
    axes.text(0.62, 0.985, "operations", fontsize=9, color=MUTED, va="center", ha="right")
    for v, (size, colour) in enumerate(zip(sizes, level_colours(n_trits), strict=True)):
        height = 0.935 - 0.58 * v / max(10, len(sizes))
        style = _marker(v, n_trits)
        axes.plot([0.05], [height], ls="", marker="o", color=colour, **(style | {"ms": max(style["ms"], 4.0)}))
        axes.text(0.14, height, f"{v}", fontsize=10, color=INK, va="center")
        axes.text(0.62, height, f"{size:,}", fontsize=10, color=INK, va="center", ha="right")
    radius = "the hyperbolic radius, to scale.\nDashed: circles of equal radius"
    for height, head, text in ((0.27, "Distance from the centre", radius), (0.155, "Angle", note)):
        axes.text(0.0, height, head, fontsize=9, color=INK, va="bottom", weight="bold")
        axes.text(0.0, height - 0.008, text, fontsize=9, color=MUTED, va="top", linespacing=1.3)


def _marker(v: int, n_trits: int) -> dict[str, Any]:
    """Return size and edge of a level's markers in the disk: the rarer, the larger; the rarest with a white edge."""
    share = v / n_trits
    edge = 0.5 if share > 0.4 else 0.0
    return {"ms": 1.3 + 7.0 * share**1.3 + edge, "mec": "white", "mew": edge}
