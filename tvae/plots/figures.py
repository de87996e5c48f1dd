"""Figures of one run: how its training went, where the levels lie, and the ball itself.

Each function takes plain data and returns a `matplotlib.figure.Figure` of its own, without pyplot. The style is
matplotlib's default and what stands here, whatever a user's matplotlibrc, style or notebook says; their settings are as
before afterwards. `save` writes a figure as a PNG whose bytes depend on the figure alone.

A title says what was found, with its number; the line under it says what is needed to judge the number.
"""

import io
import math
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from tvae import metrics, poincare, ternary
from tvae.metrics import Evaluation
from tvae.model import Embedding
from tvae.plots.disk import learned_angle, polar
from tvae.training import Record

__all__ = [
    "Angle",
    "distance_by_valuation",
    "poincare_disk",
    "radius_by_valuation",
    "save",
    "training_curves",
    "tree",
]

Angle = Literal["learned", "3-adic"]
"""What the angle in `poincare_disk` shows."""

Floats = npt.NDArray[np.float64]

# 9 inches are 900 pixels at 100 dpi, the width of MLflow's image preview; 150 dpi keep a larger view and a print sharp.
SIZE = (9.0, 6.4)
DPI = 150

INK, MUTED, GRID = "#1b1b1b", "#5f6368", "#e6e8eb"
# Blue and vermilion of Okabe and Ito's palette, which stay apart under every form of colour blindness.
CURVE, ALARM = "#0072b2", "#d55e00"
# The metric that a record has if it has the radii of all levels.
_RADII = "radius_v0"

# The picture of the tree is for a wall: paper, a serif face, and a colour for each first trit -1, 0, 1.
PAPER, SERIF = "#fbfaf6", "DejaVu Serif"
BRANCHES = ("#1f4e79", "#b0472a", "#2c6e5a")

# Of more levels the tree is drawn to this one: a picture has no room for more leaves.
MOST_BRANCHES = 10

# A distance to the ceiling below this is rounding, not a difference; the logarithmic scale ends here.
FLOOR = 1e-6
# Successive multiples of it, modulo 1, fill an interval evenly: jitter that needs no random numbers.
GOLDEN = (math.sqrt(5) - 1) / 2

# The settings belong to the whole process: two threads that exchange them at once would leave those of the other.
_SETTINGS = threading.RLock()


@contextmanager
def _own_style() -> Iterator[None]:
    with _SETTINGS, matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


@_own_style()
def training_curves(
    history: Sequence[Record], *, n_trits: int = ternary.N_TRITS, best_epoch: int | None = None
) -> Figure:
    """Draw how a training went, epoch by epoch.

    With hierarchies in the history: hierarchy and its ceiling, what is left to the ceiling on a logarithmic scale,
    coverage, level gap (from -1 up), the mean radius of each level, richness, loss and learning rate. What was lost
    after the best epoch is shaded.
    Without (a foundation): coverage, how many operations do not come back, loss and learning rate. A metric that no
    record has gets no panel.

    Args:
        history: a record an epoch, in order. Each has `epoch` and `coverage`, all or none have `hierarchy`; any other
            metric may be missing, as `loss` and `lr` are at epoch 0.
        n_trits: number of trits, on which the ceiling depends.
        best_epoch: the epoch whose weights were kept, `Result.best_epoch`. By default the epoch of highest coverage,
            among equals that of lowest hierarchy, or for a foundation of lowest loss.

    Raises:
        ValueError: if the history is empty, or has no record of `best_epoch`.
    """
    best = _best(history, best_epoch)
    epochs = _column(history, "epoch")
    projects = _has(history, "hierarchy")
    title, subtitle = (_hierarchy_finding if projects else _coverage_finding)(history, best, n_trits)
    figure = _figure(title, subtitle)
    names = [
        n
        for n in (("coverage", "level_gap", _RADII, "richness") if projects else ()) + ("loss", "lr")
        if _has(history, n)
    ]
    upper = figure.add_gridspec(1, 2, left=0.07, right=0.985, bottom=0.455, top=0.835, wspace=0.17)
    gap = {2: 0.17, 3: 0.29, 4: 0.38, 5: 0.5}.get(len(names), 0.55)
    lower = figure.add_gridspec(1, max(1, len(names)), left=0.07, right=0.985, bottom=0.085, top=0.31, wspace=gap)
    large = [figure.add_subplot(upper[i]) for i in range(2)]
    small = [figure.add_subplot(lower[i]) for i in range(len(names))]
    margin = 0.03 * max(1.0, epochs[-1] - epochs[0])
    for axes in large + small:
        _style(axes)
        axes.set_xlabel("epoch", fontsize=9, color=MUTED, labelpad=2)
        axes.set_xlim(epochs[0] - margin, epochs[-1] + margin)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
        axes.axvline(best["epoch"], color=MUTED, lw=1, ls=(0, (1, 2)), zorder=1, gid="best epoch")
    if projects:
        _draw_hierarchy(large[0], history, best, n_trits)
        _draw_distance(large[1], history, best, n_trits)
    else:
        _draw_coverage(large[0], history, best)
        _draw_missing(large[1], history, best, n_trits)
    for axes, name in zip(small, names, strict=True):
        _draw_small(axes, history, name)
    _name_best(large[0], best)
    return figure


@_own_style()
def radius_by_valuation(evaluation: Evaluation) -> Figure:
    """Draw the hyperbolic radius of every operation, level by level.

    Every operation is one point; within a level the cloud is as wide as its radii are dense. Between two neighbouring
    levels a bar spans the radii that neither reaches, or a shade those that both do; the level gap, its height in
    shares of an even step, stands above it. The title has the smallest, which verification checks.

    Args:
        evaluation: of a model of any number of trits.
    """
    n_trits = len(evaluation.level_gaps)
    levels = _by_level(evaluation.radii, n_trits)
    figure = _figure(*_order_finding(evaluation))
    axes = figure.add_axes((0.07, 0.125, 0.915, 0.665) if n_trits <= ternary.MOST_LISTED else (0.07, 0.16, 0.915, 0.6))
    _style(axes)
    axes.grid(visible=False, axis="x")
    top = 1.04 * (float(evaluation.radii.max()) or 1.0)
    bins = np.linspace(0, top, 101)
    # Of more levels numbers side by side would run into one another.
    turned = 90 if n_trits > ternary.MOST_LISTED else 0
    for v, (level, colour) in enumerate(zip(levels, _colours(n_trits), strict=True)):
        _dots(axes, v + _spread(level, bins), level, colour, {"ms": 1.4 + 3.6 / math.sqrt(len(level))}, v)
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
    axes.text(0, 1.12 if turned else 1.07, key, transform=axes.transAxes, va="bottom", fontsize=9, color=MUTED)
    axes.set_xlim(-0.55, n_trits + 0.55)
    axes.set_ylim(-0.025 * top, top)
    axes.xaxis.set_major_locator(FixedLocator(list(range(n_trits + 1))))
    count = " · " if turned else "\n"
    axes.set_xticklabels([f"{v}{count}{len(level):,}" for v, level in enumerate(levels)], rotation=turned)
    whose = "have it" if n_trits <= ternary.MOST_LISTED else "of it were drawn"
    axes.set_xlabel(f"valuation, and how many operations {whose}", fontsize=10, color=INK)
    axes.set_ylabel("radius (hyperbolic length)", fontsize=10, color=INK)
    return figure


@_own_style()
def poincare_disk(points: npt.ArrayLike, *, curvature: float, angle: Angle = "learned") -> Figure:
    """Draw the ball as a disk, every operation a point coloured by its valuation.

    No picture in the plane keeps all of a ball of many dimensions. Here the distance from the centre is exact: it is
    the hyperbolic radius, to scale. In the Poincaré model's own coordinates most operations would lie within a line's
    width of the boundary, at unit norms of 0.99 and more. The angle is one of

    - `learned`: the direction in which an operation is seen from the middle of all (their mean on the hyperboloid,
      scaled back onto it), in the plane through the middle that holds the most of these directions (their first two
      principal axes, not centred). From the origin it would say little where operation 0 lies there: seen from a leaf,
      all of a tree lies the same way. The figure says how much of the directions the plane holds; what lies across it
      is lost.
    - `3-adic`: 2π·Σ (t_k + 1)·3^-(k+1), the index with its base-3 digits reversed: the 3-adic ball i + 3^k·Z fills one
      arc of 2π/3^k, and nearer operations are nearer neighbours. Nothing of it is learned, and the figure says so.

    Common valuations are drawn first and small, rare ones last and large. Every operation is drawn.

    Args:
        points: embeddings of all operations in index order, shape `(3^n_trits, D)`, D >= 2, inside the ball.
        curvature: c > 0.
        angle: what the angle shows.

    Raises:
        ValueError: if the points are not those of all operations, one is not inside the ball, or `angle` is unknown.

    Source:
        Ungar, Analytic Hyperbolic Geometry (2008), section 6.20, for the mean.
    """
    if angle not in get_args(Angle):
        raise ValueError(f"`angle` must be one of {', '.join(get_args(Angle))}, got {angle!r}.")
    embedding, n_trits = polar(points, curvature)
    if angle == "learned":
        theta, share = learned_angle(embedding)
        note = (
            "learned: as seen from the middle of all\npoints, in the plane that holds the most\n"
            f"({share:.0%} of the directions' squared length;\nthe ball has {embedding.direction.shape[1]} dimensions)"
        )
    else:
        theta = _tree_angle(n_trits)
        note = "not learned: the index with its base-3\ndigits reversed, so that 3-adic\nneighbours are adjacent"
    radii = poincare.radius(embedding.unit_norm, curvature=curvature).numpy()
    figure = _figure(*_disk_finding(radii, n_trits, curvature))
    axes = figure.add_axes((0.02, 0.015, 0.61, 0.61 * SIZE[0] / SIZE[1]))
    axes.set_axis_off()
    x, y = radii * np.cos(theta), radii * np.sin(theta)
    valuations, sizes = ternary.valuations(n_trits), ternary.level_sizes(n_trits).tolist()
    for v, colour in enumerate(_colours(n_trits)):
        level = valuations == v
        _dots(axes, x[level], y[level], colour, _marker(v, n_trits), v)
    _draw_guides(axes, theta % (2 * math.pi), float(radii.max()) or 1.0)
    _draw_key(figure, sizes, note)
    return figure


@_own_style()
def distance_by_valuation(points: npt.ArrayLike, *, curvature: float) -> Figure:
    """Draw how far apart operations are in the ball, by the valuation of their difference.

    A row a valuation, from 0 at the top: the histogram of hyperbolic distances, scaled to its own height, and its mean.
    At each valuation every operation is paired with one other, `metrics.sample_partners`. In an exact tree each row is
    one line, left of the row above it.

    Args:
        points: embeddings of all operations in index order, shape `(3^n_trits, D)`, D >= 2, inside the ball.
        curvature: c > 0.

    Raises:
        ValueError: if the points are not those of all operations, or one is not inside the ball.
    """
    embedding, n_trits = polar(points, curvature)
    distances = metrics.distances_by_valuation(embedding, n_trits=n_trits, curvature=curvature)
    means = distances.mean(1)
    falls, steps = int((np.diff(means) < 0).sum()), n_trits - 1
    figure = _figure(
        f"Mean distance {means[0]:.3g} at valuation 0, {means[-1]:.3g} at valuation {steps}",
        f"the mean falls at {falls} of {steps} steps · {distances.shape[1]:,} pairs a valuation · "
        f"curvature −{curvature:g}",
    )
    axes = figure.add_axes((0.07, 0.09, 0.87, 0.77))
    _style(axes)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    top = float(distances.max()) or 1.0
    bins = np.linspace(0, 1.02 * top, 181)
    # The palest of the palette would not show as a filled shape on white.
    for k, colour in enumerate(_colours(n_trits + 2)[2:-1]):
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


@_own_style()
def tree(points: npt.ArrayLike, *, curvature: float) -> Figure:
    """Draw the 3-adic tree as the embedding holds it, in the Poincaré disk.

    A vertex is a 3-adic ball i + 3^k·Z, a leaf an operation. Its angle is the middle of the ball's arc, digit after
    digit. Its depth, the distance from the root at the centre, is measured: half of what the mean distance of two
    operations that differ in their first trit exceeds that of two members whose difference has valuation k; for a
    leaf, half of the former. In an ultrametric tree these are the depths of the vertices. They follow from distances
    alone, and so do not depend on which point of the ball is its origin. Edges are geodesics of the disk. Where an
    embedding holds the tree, every branch grows outwards; where it does not, all vertices but the leaves crowd at the
    centre.

    Args:
        points: embeddings of all operations in index order, shape `(3^n_trits, D)`, D >= 2, inside the ball; of more
            than ten trits the first ten levels are drawn.
        curvature: c > 0.

    Raises:
        ValueError: if the points are not those of all operations, or one is not inside the ball.

    Source:
        Semple & Steel, Phylogenetics (2003), section 7.2: an ultrametric as a tree with leaves of one depth.
    """
    embedding, n_trits = polar(points, curvature)
    depths = _depths(embedding, n_trits, curvature)[: MOST_BRANCHES + 1]
    vertices = [_vertices(k, depth, curvature) for k, depth in enumerate(depths)]
    figure = Figure(figsize=(9.0, 9.9), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.03, 0.03 + 0.9 / 9.9, 0.94, 0.94 * 9.0 / 9.9))
    axes.set_axis_off()
    axes.set_xlim(-1.01, 1.01)
    axes.set_ylim(-1.01, 1.01)
    for k in range(len(depths) - 1, 0, -1):
        child = np.arange(3**k)
        edges = _arcs(vertices[k - 1][child % 3 ** (k - 1)], vertices[k], 24 if k <= 5 else 6)
        axes.add_collection(
            LineCollection(
                list(edges), colors=_branch_colours(k), linewidths=max(0.12, 2.6 * 0.68 ** (k - 1)),
                alpha=0.95 if k < n_trits - 1 else 0.5, capstyle="round", zorder=20 - k, rasterized=True,
                gid=f"edges {k}",
            ),
            autolim=False,
        )  # fmt: skip
    axes.add_patch(Circle((0, 0), 1.0, fill=False, ec=INK, lw=0.7, gid="boundary"))
    axes.plot(*vertices[0][0], marker="o", ms=5, color=INK, zorder=30, gid="root")
    lines = (
        "A vertex is a 3-adic ball; its angle is the ball's trits, its colour the first of them. Edges are geodesics.",
        "Its depth is measured: by how much its members are nearer to each other than operations are at valuation 0.",
        "Mean depth, level by level: " + " · ".join(f"{depth.mean():.2f}" for depth in depths),
    )
    title = {"fontsize": 15, "style": "italic", "color": INK, "gid": "title"}
    key: dict[str, Any] = {"fontsize": 8, "color": MUTED, "linespacing": 1.6}
    for y, text, style in (
        (0.083, f"The 3-adic tree of {3**n_trits:,} ternary operations", title),
        (0.04, "\n".join(lines), key),
    ):
        figure.text(0.5, y, text, family=SERIF, ha="center", va="center", **style)
    return figure


@_own_style()
def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as a PNG, whole or not at all; the same figure gives the same bytes.

    Args:
        figure: of this module.
        path: file to write, in a directory that exists; what stands there is replaced.
    """
    buffer = io.BytesIO()
    # Not `savefig`, which reads the user's settings; and no `Software`, which would name matplotlib's version.
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})  # type: ignore[no-untyped-call]
    target = Path(os.path.expanduser(path))
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


# What the figures say -------------------------------------------------------------------------------------------------


def _hierarchy_finding(history: Sequence[Record], best: Record, n_trits: int) -> tuple[str, str]:
    hierarchy, final = best["hierarchy"], history[-1].get("hierarchy", math.nan)
    left = hierarchy - metrics.hierarchy_ceiling(n_trits)
    if left > -FLOOR:
        title = f"Hierarchy {_signed(hierarchy)}, {abs(left):.5f} from the ceiling"
    else:  # the ceiling holds where radii are distinct; levels of one radius each pass it
        title = f"Hierarchy {_signed(hierarchy)}, {-left:.5f} past the ceiling: radii are tied"
    lost = final - hierarchy
    after = f"degradation {_signed(lost)}, to {_signed(final)} at the end" if lost > 5e-6 else "no degradation"
    at = f"best epoch {best['epoch']:.0f} of {history[-1]['epoch']:.0f}"
    coverage = f"coverage {_percent(best['coverage'])}"
    if history[-1]["coverage"] != best["coverage"]:
        coverage += f", {_percent(history[-1]['coverage'])} at the end"
    return title, f"{at} · {after} · {coverage}"


def _coverage_finding(history: Sequence[Record], best: Record, n_trits: int) -> tuple[str, str]:
    n = metrics.population(n_trits).n_even
    back = round(best["coverage"] * n)
    full = next((r["epoch"] for r in history if round(r["coverage"] * n) == n), None)
    reached = "never all of them" if full is None else f"all of them first at epoch {full:.0f}"
    lost = back - round(history[-1]["coverage"] * n)
    after = f"{lost:,} lost again by the end" if lost else "none lost again"
    title = f"Coverage {_percent(best['coverage'])}: {back:,} of {n:,} {_operations(n_trits)} come back"
    return title, f"best epoch {best['epoch']:.0f} of {history[-1]['epoch']:.0f} · {reached} · {after}"


def _order_finding(evaluation: Evaluation) -> tuple[str, str]:
    gap, ceiling = evaluation.level_gap, metrics.hierarchy_ceiling(len(evaluation.level_gaps))
    return (
        f"Levels overlap: level gap {_gap(gap)}" if gap < 0 else f"Smallest level gap {_gap(gap)}",
        "1: thin levels, evenly spaced; 0: two of them touch · "
        f"hierarchy {_signed(evaluation.hierarchy)}, ceiling {_signed(ceiling)}",
    )


def _disk_finding(radii: Floats, n_trits: int, curvature: float) -> tuple[str, str]:
    means, least, most = [level.mean() for level in _by_level(radii, n_trits)], radii.min(), radii.max()
    first, last, low, high = (_length(x, most) for x in (means[0], means[-1], least, most))
    return (
        f"Mean radius {first} at valuation 0, {last} at valuation {n_trits}",
        f"all {3**n_trits:,} operations · curvature −{curvature:g} · radii from {low} to {high} (hyperbolic length)",
    )


# Parts of the figures -------------------------------------------------------------------------------------------------


def _draw_hierarchy(axes: Axes, history: Sequence[Record], best: Record, n_trits: int) -> None:
    epochs, values, ceiling = (*_series(history, "hierarchy"), metrics.hierarchy_ceiling(n_trits))
    _title(axes, "hierarchy")
    axes.axhline(ceiling, color=ALARM, lw=1.4, zorder=2, gid="ceiling")
    _curve(axes, epochs, values)
    after = epochs >= best["epoch"]
    axes.fill_between(
        epochs[after], best["hierarchy"], np.maximum(values[after], best["hierarchy"]), color=ALARM, alpha=0.22, lw=0
    )
    low, high = min(ceiling, values.min()), max(values.max(), ceiling + 0.1)
    axes.set_ylim(low - 0.14 * (high - low), high + 0.05 * (high - low))
    _name_line(axes, best, ceiling, f"ceiling {_signed(ceiling)}", below=True)
    _mark_best(axes, best, best["hierarchy"])


def _draw_distance(axes: Axes, history: Sequence[Record], best: Record, n_trits: int) -> None:
    epochs, values = _series(history, "hierarchy")
    ceiling = metrics.hierarchy_ceiling(n_trits)
    distance = np.maximum(values - ceiling, FLOOR)
    _title(axes, "distance to the ceiling (log scale)")
    axes.set_yscale("log")
    axes.set_ylim(0.6 * FLOOR, 2.0)
    axes.yaxis.set_major_locator(FixedLocator([10.0**-k for k in range(7)]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: ("≤" if y <= FLOOR else "") + _power(y, 0)))
    _curve(axes, epochs, distance)
    after, best_distance = epochs >= best["epoch"], max(best["hierarchy"] - ceiling, FLOOR)
    axes.fill_between(
        epochs[after], best_distance, np.maximum(distance[after], best_distance), color=ALARM, alpha=0.22, lw=0
    )
    _mark_best(axes, best, best_distance)


def _operations(n_trits: int) -> str:
    return "operations" if n_trits <= ternary.MOST_LISTED else f"operations drawn of 3^{n_trits}"


def _draw_coverage(axes: Axes, history: Sequence[Record], best: Record) -> None:
    _title(axes, "coverage")
    axes.axhline(1.0, color=ALARM, lw=1.4, zorder=2, gid="ceiling")
    _curve(axes, *_series(history, "coverage"))
    axes.set_ylim(-0.03, 1.12)
    _name_line(axes, best, 1.0, "all operations", below=False)
    _mark_best(axes, best, best["coverage"])


def _draw_missing(axes: Axes, history: Sequence[Record], best: Record, n_trits: int) -> None:
    n = metrics.population(n_trits).n_even
    epochs, coverage = _series(history, "coverage")
    _title(axes, "operations that do not come back (log scale, with 0)")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(-0.25, 3 * n)
    axes.yaxis.set_major_locator(FixedLocator([0.0, *(10.0**k for k in range(math.ceil(math.log10(n)) + 1))]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.axhline(0.0, color=ALARM, lw=1.4, zorder=2)
    _curve(axes, epochs, np.rint((1 - coverage) * n))
    _mark_best(axes, best, round((1 - best["coverage"]) * n))


def _draw_small(axes: Axes, history: Sequence[Record], name: str) -> None:
    if name == _RADII:
        name, values = "radius by valuation", _draw_radii(axes, history)
    else:
        epochs, values = _series(history, name)
        _curve(axes, epochs, values)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.6g}".replace("-", "−")))
    if name == "coverage":
        axes.set_ylim(-0.03, 1.06)
    elif name == "level_gap":
        # Levels that overlap much say no more than that; what counts is from where on they do not.
        axes.set_ylim(max(-1.0, float(values.min())) - 0.05, max(0.2, float(values.max())) + 0.05)
        axes.axhline(0.0, color=ALARM, lw=1.4, zorder=2, gid="touching")
    elif name == "loss" and values.min() > 0 and values.max() > 20 * values.min():
        name = "loss (log scale)"
        axes.set_yscale("log")
        first, last = math.floor(math.log10(values.min())), math.ceil(math.log10(values.max()))
        axes.set_ylim(10.0**first, 10.0**last)
        axes.yaxis.set_major_locator(FixedLocator([10.0**k for k in range(first, last + 1)]))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(_power))
    else:
        low, high = min(0.0, float(values.min())), max(0.0, float(values.max())) or 1.0
        axes.set_ylim(low - 0.03 * (high - low), high + 0.08 * (high - low))
    _title(axes, {"lr": "learning rate", "level_gap": "level gap"}.get(name, name))


def _draw_radii(axes: Axes, history: Sequence[Record]) -> Floats:
    """Draw a line for each level, and return all radii."""
    names = [name for name in history[-1] if name.startswith("radius_v")]
    for v, (name, colour) in enumerate(zip(names, _colours(len(names) - 1), strict=True)):
        axes.plot(*_series(history, name), color=colour, lw=1.2, zorder=3, gid=f"v{v}")
    return np.concatenate([_series(history, name)[1] for name in names])


def _mark_best(axes: Axes, best: Record, value: float) -> None:
    axes.plot([best["epoch"]], [value], marker="o", ms=9, mfc="none", mec=INK, mew=1.3, zorder=5, clip_on=False)


def _name_best(axes: Axes, best: Record) -> None:
    """Name the best epoch at the top of its line, on the side where there is more room."""
    side = _side(axes, best)
    axes.annotate(
        f"best epoch {best['epoch']:.0f}", (best["epoch"], 1.0), (4 * side, 0), xycoords=("data", "axes fraction"),
        textcoords="offset points", ha="left" if side > 0 else "right", va="top", fontsize=9, color=INK,
    )  # fmt: skip


def _name_line(axes: Axes, best: Record, y: float, text: str, *, below: bool) -> None:
    """Name a horizontal line at the end of it that is farther from the best epoch."""
    right = _side(axes, best) > 0
    axes.annotate(
        text, (0.99 if right else 0.01, y), (0, -5 if below else 4), xycoords=("axes fraction", "data"),
        textcoords="offset points", ha="right" if right else "left", va="top" if below else "bottom", fontsize=9,
        color=ALARM,
    )  # fmt: skip


def _side(axes: Axes, best: Record) -> int:
    """Return on which side of the best epoch there is more room: 1 for later epochs, -1 for earlier ones."""
    left, right = axes.get_xlim()
    return 1 if best["epoch"] < (left + right) / 2 else -1


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
    for v, (size, colour) in enumerate(zip(sizes, _colours(n_trits), strict=True)):
        height = 0.935 - 0.58 * v / max(10, len(sizes))
        style = _marker(v, n_trits)
        axes.plot([0.05], [height], ls="", marker="o", color=colour, **(style | {"ms": max(style["ms"], 4.0)}))
        axes.text(0.14, height, f"{v}", fontsize=10, color=INK, va="center")
        axes.text(0.62, height, f"{size:,}", fontsize=10, color=INK, va="center", ha="right")
    radius = "the hyperbolic radius, to scale.\nDashed: circles of equal radius"
    for height, head, text in ((0.27, "Distance from the centre", radius), (0.155, "Angle", note)):
        axes.text(0.0, height, head, fontsize=9, color=INK, va="bottom", weight="bold")
        axes.text(0.0, height - 0.008, text, fontsize=9, color=MUTED, va="top", linespacing=1.3)


def _dots(axes: Axes, x: Floats, y: Floats, colour: Any, style: dict[str, Any], v: int) -> None:
    """Draw one level as one artist; rasterised, so that a vector file of the figure stays small."""
    style = {"mew": 0.0} | style
    axes.plot(x, y, ls="", marker="o", color=colour, zorder=3 + 0.01 * v, rasterized=True, gid=f"v{v}", **style)


def _marker(v: int, n_trits: int) -> dict[str, Any]:
    """Return size and edge of a level's markers in the disk: the rarer, the larger; the rarest with a white edge."""
    share = v / n_trits
    edge = 0.5 if share > 0.4 else 0.0
    return {"ms": 1.3 + 7.0 * share**1.3 + edge, "mec": "white", "mew": edge}


# Common style ---------------------------------------------------------------------------------------------------------


def _figure(title: str, subtitle: str) -> Figure:
    figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.02, 0.975, title, fontsize=15, weight="bold", color=INK, va="top", gid="title")
    figure.text(0.02, 0.922, subtitle, fontsize=10, color=MUTED, va="top", gid="subtitle")
    return figure


def _style(axes: Axes) -> None:
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=GRID, lw=0.8)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=MUTED, linewidth=0.8)
    axes.tick_params(labelsize=9, colors=MUTED, labelcolor=INK, length=3, pad=2)


def _title(axes: Axes, text: str) -> None:
    # A given height: matplotlib would otherwise lay every tick out once more to find one.
    axes.set_title(text, loc="left", fontsize=10, color=INK, y=1.0, pad=5)


def _curve(axes: Axes, x: Floats, y: Floats) -> None:
    """Draw a curve, with a dot an epoch where dots would not run into each other: one epoch alone is a dot."""
    marker = {"marker": "o", "ms": 3.2} if len(x) <= 60 else {}
    axes.plot(x, y, color=CURVE, lw=1.6, zorder=3, gid="curve", **marker)  # type: ignore[arg-type]


def _colours(n_trits: int) -> list[Any]:
    """Return a colour for each level, from pale for the common ones to dark for the rare; even in lightness."""
    return list(colormaps["viridis"](np.linspace(0.92, 0.0, n_trits + 1)))


def _signed(value: float) -> str:
    return f"{value:.5f}".replace("-", "−")  # the minus sign is as wide as a digit


def _gap(value: float) -> str:
    return (f"{value:.2f}" if abs(value) >= 0.01 else f"{value:.1g}").replace("-", "−")


def _length(value: float, most: float) -> str:
    """Write a radius; what is 0 but for rounding as 0."""
    return f"{value if value > 1e-4 * most else 0.0:.3g}"


def _percent(share: float) -> str:
    """Write a share; "0 %" and "100 %" stand for exactly none and all, and for nothing else."""
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    if share < 1e-4:
        return "<0.01 %"
    if share > 0.9999:
        return ">99.99 %"
    return f"{100 * share:.2f} %" if share < 0.01 or share > 0.99 else f"{100 * share:.1f} %"


def _power(value: float, _: int) -> str:
    """Write a power of ten; as plain text, since mathtext costs more than the rest of the figure."""
    exponent = round(math.log10(value))
    if -2 <= exponent <= 0:
        return f"{value:g}"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


# Data -----------------------------------------------------------------------------------------------------------------


def _column(history: Sequence[Record], name: str) -> Floats:
    return np.array([record.get(name, math.nan) for record in history], dtype=np.float64)


def _has(history: Sequence[Record], name: str) -> bool:
    return bool(np.isfinite(_column(history, name)).any())


def _series(history: Sequence[Record], name: str) -> tuple[Floats, Floats]:
    """Return epochs and values of a metric, of the records that have it."""
    values = _column(history, name)
    known = np.isfinite(values)
    return _column(history, "epoch")[known], values[known]


def _best(history: Sequence[Record], best_epoch: int | None) -> Record:
    if not history:
        raise ValueError("`history` must have at least one record, got none.")
    if best_epoch is None:
        return min(history, key=lambda r: (-r["coverage"], r.get("hierarchy", r.get("loss", math.inf))))
    for record in history:
        if record["epoch"] == best_epoch:
            return record
    raise ValueError(f"`best_epoch` must be an epoch of the history, got {best_epoch}.")


def _by_level(radii: Floats, n_trits: int) -> list[Floats]:
    """Return the radii of each level, ascending, from valuation 0 up."""
    valuations = metrics.population(n_trits).valuations
    return [np.sort(radii[valuations == v]) for v in range(n_trits + 1)]


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


def _depths(embedding: Embedding, n_trits: int, curvature: float) -> list[Floats]:
    """Return the depth of every 3-adic ball at every level 0 … n_trits, shapes `(3^k,)`; up to 10 of more levels."""
    distances = metrics.distances_by_valuation(embedding, n_trits=n_trits, curvature=curvature) / 2
    top = float(distances[0].mean())
    # Row i of the table holds the ball's members where an index is read as (rest, first k trits).
    there = distances[: MOST_BRANCHES + 1]
    depths = [(top - d.reshape(-1, 3**k).mean(0)).clip(0) for k, d in enumerate(there)]
    return [*depths, np.full(3**n_trits, top)] if n_trits <= MOST_BRANCHES else depths


def _vertices(k: int, depth: Floats, curvature: float) -> Floats:
    """Return the place of every ball of level k in the unit disk, shape `(3^k, 2)`."""
    # The first trit's -1 has the third around the top. The ball of level 0, which has all of the circle, is put there.
    angle = _tree_angle(k) + math.pi * 3.0**-k if k else np.full(1, math.pi / 3)
    theta = angle + math.pi / 6
    norm = np.tanh(depth * math.sqrt(curvature) / 2)
    return np.column_stack([norm * np.cos(theta), norm * np.sin(theta)])


def _arcs(start: Floats, end: Floats, n: int) -> Floats:
    """Return `n` points of the geodesic of the unit disk between each pair of points, shape `(pairs, n, 2)`."""
    z, w = torch.from_numpy(start), torch.from_numpy(end)
    shares = torch.linspace(0, 1, n, dtype=torch.float64)
    arcs: Floats = torch.vmap(lambda a, b: poincare.geodesic(a, b, shares, curvature=1.0))(z, w).numpy()
    return arcs


def _branch_colours(k: int) -> Floats:
    """Return a colour for each ball of level k: the hue by its first trit, a little lighter or darker by its second."""
    ball = np.arange(3**k)
    shade = (ball // 3 % 3 - 1.0) * (k > 1)
    hues = np.array([to_rgb(hue) for hue in BRANCHES])[ball % 3]
    to_white, to_black = (0.22 * (shade > 0))[:, None], (0.25 * (shade < 0))[:, None]
    colours: Floats = hues + to_white * (1 - hues) - to_black * hues
    return colours


def _tree_angle(n_trits: int) -> Floats:
    digits = ternary.operations(n_trits).astype(np.float64) + 1
    return 2 * math.pi * digits @ 3.0 ** -np.arange(1, n_trits + 1)
