"""How a training went, epoch by epoch."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from tvae import metrics, ternary
from tvae.arrays import Floats
from tvae.plots.style import ALARM, CURVE, INK, MUTED, level_colours, own_style, plain_axes, signed, titled
from tvae.training import Record

__all__ = ["training_curves"]

# The metric that a record has if it has the radii of all levels.
_RADII = "radius_v0"

# A distance to the ceiling below this is rounding, not a difference; the logarithmic scale ends here.
FLOOR = 1e-6


@own_style()
def training_curves(history: Sequence[Record], *, n_trits: int, best_epoch: int) -> Figure:
    """Draw how a training went.

    With hierarchies in the history: hierarchy and its ceiling, what is left to the ceiling on a logarithmic scale,
    coverage, level gap (from -1 up), the mean radius of each level, richness, loss and learning rate. What was lost
    after the best epoch is shaded.
    Without (a foundation): coverage, how many operations do not come back, loss and learning rate. A metric that no
    record has gets no panel.

    Args:
        history: a record an epoch, in order. Each has `epoch` and `coverage`, all or none have `hierarchy`; any other
            metric may be missing, as `loss` and `lr` are at epoch 0.
        n_trits: number of trits, on which the ceiling depends.
        best_epoch: the epoch whose weights were kept, `Result.best_epoch`.

    Raises:
        ValueError: if the history has no record of `best_epoch`.
    """
    best = next((record for record in history if record["epoch"] == best_epoch), None)
    if best is None:
        raise ValueError(f"`best_epoch` must be an epoch of the history, got {best_epoch}.")
    projects = _has(history, "hierarchy")
    figure = titled(*(_hierarchy_finding if projects else _coverage_finding)(history, best, n_trits))
    of_projection = ("coverage", "level_gap", _RADII, "richness") if projects else ()
    names = [name for name in (*of_projection, "loss", "lr") if _has(history, name)]
    upper = figure.add_gridspec(1, 2, left=0.07, right=0.985, bottom=0.455, top=0.835, wspace=0.17)
    gap = {2: 0.17, 3: 0.29, 4: 0.38, 5: 0.5}.get(len(names), 0.55)
    lower = figure.add_gridspec(1, max(1, len(names)), left=0.07, right=0.985, bottom=0.085, top=0.31, wspace=gap)
    large = [figure.add_subplot(upper[i]) for i in range(2)]
    small = [figure.add_subplot(lower[i]) for i in range(len(names))]
    first, last = history[0]["epoch"], history[-1]["epoch"]
    margin = 0.03 * max(1.0, last - first)
    for axes in large + small:
        plain_axes(axes)
        axes.set_xlabel("epoch", fontsize=9, color=MUTED, labelpad=2)
        axes.set_xlim(first - margin, last + margin)
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


def _hierarchy_finding(history: Sequence[Record], best: Record, n_trits: int) -> tuple[str, str]:
    hierarchy, final = best["hierarchy"], history[-1].get("hierarchy", math.nan)
    left = hierarchy - metrics.hierarchy_ceiling(n_trits)
    if left > -FLOOR:
        title = f"Hierarchy {_exact(hierarchy)}, {abs(left):.5f} from the ceiling"
    else:  # the ceiling holds where radii are distinct; levels of one radius each pass it
        title = f"Hierarchy {_exact(hierarchy)}, {-left:.5f} past the ceiling: radii are tied"
    lost = final - hierarchy
    after = f"degradation {_exact(lost)}, to {_exact(final)} at the end" if lost > 5e-6 else "no degradation"
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
    operations = "operations" if n_trits <= ternary.MOST_LISTED else f"operations drawn of 3^{n_trits}"
    title = f"Coverage {_percent(best['coverage'])}: {back:,} of {n:,} {operations} come back"
    return title, f"best epoch {best['epoch']:.0f} of {history[-1]['epoch']:.0f} · {reached} · {after}"


def _draw_hierarchy(axes: Axes, history: Sequence[Record], best: Record, n_trits: int) -> None:
    epochs, values = _series(history, "hierarchy")
    ceiling = metrics.hierarchy_ceiling(n_trits)
    _title(axes, "hierarchy")
    axes.axhline(ceiling, color=ALARM, lw=1.4, zorder=2, gid="ceiling")
    _curve(axes, epochs, values)
    low, high = min(ceiling, values.min()), max(values.max(), ceiling + 0.1)
    axes.set_ylim(low - 0.14 * (high - low), high + 0.05 * (high - low))
    _name_line(axes, best, ceiling, f"ceiling {_exact(ceiling)}", below=True)
    _shade_lost(axes, epochs, values, best, best["hierarchy"])


def _draw_distance(axes: Axes, history: Sequence[Record], best: Record, n_trits: int) -> None:
    epochs, values = _series(history, "hierarchy")
    ceiling = metrics.hierarchy_ceiling(n_trits)
    distance = np.maximum(values - ceiling, FLOOR)
    _title(axes, "distance to the ceiling (log scale)")
    axes.set_yscale("log")
    axes.set_ylim(0.6 * FLOOR, 2.0)
    _ticks(axes, [10.0**-k for k in range(7)], lambda value: ("≤" if value <= FLOOR else "") + _power(value))
    _curve(axes, epochs, distance)
    _shade_lost(axes, epochs, distance, best, max(best["hierarchy"] - ceiling, FLOOR))


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
    _ticks(axes, [0.0, *(10.0**k for k in range(math.ceil(math.log10(n)) + 1))], "{:,.0f}".format)
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
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: signed(f"{y:.6g}")))
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
        _ticks(axes, [10.0**k for k in range(first, last + 1)], _power)
    else:
        low, high = min(0.0, float(values.min())), max(0.0, float(values.max())) or 1.0
        axes.set_ylim(low - 0.03 * (high - low), high + 0.08 * (high - low))
    _title(axes, {"lr": "learning rate", "level_gap": "level gap"}.get(name, name))


def _draw_radii(axes: Axes, history: Sequence[Record]) -> Floats:
    """Draw a line for each level, and return all radii."""
    names = [name for name in history[-1] if name.startswith("radius_v")]
    for v, (name, colour) in enumerate(zip(names, level_colours(len(names) - 1), strict=True)):
        axes.plot(*_series(history, name), color=colour, lw=1.2, zorder=3, gid=f"v{v}")
    return np.concatenate([_series(history, name)[1] for name in names])


def _title(axes: Axes, text: str) -> None:
    # A given height: matplotlib would otherwise lay every tick out once more to find one.
    axes.set_title(text, loc="left", fontsize=10, color=INK, y=1.0, pad=5)


def _ticks(axes: Axes, values: Sequence[float], write: Callable[[float], str]) -> None:
    """Have values on the vertical axis, and no others, each as it is written."""
    axes.yaxis.set_major_locator(FixedLocator(values))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))


def _curve(axes: Axes, epochs: Floats, values: Floats) -> None:
    """Draw a curve, with a dot an epoch where dots would not run into each other: one epoch alone is a dot."""
    marker = "o" if len(epochs) <= 60 else ""
    axes.plot(epochs, values, color=CURVE, lw=1.6, zorder=3, gid="curve", marker=marker, ms=3.2)


def _shade_lost(axes: Axes, epochs: Floats, values: Floats, best: Record, best_value: float) -> None:
    """Mark the best epoch, and shade by how much it was missed later."""
    after = epochs >= best["epoch"]
    lost = np.maximum(values[after], best_value)
    axes.fill_between(epochs[after], best_value, lost, color=ALARM, alpha=0.22, lw=0)
    _mark_best(axes, best, best_value)


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


def _exact(value: float) -> str:
    return signed(f"{value:.5f}")


def _percent(share: float) -> str:
    """Write a share; "0 %" and "100 %" stand for exactly none and all, and for nothing else."""
    if share in (0.0, 1.0):
        return f"{100 * share:.0f} %"
    if share < 1e-4:
        return "<0.01 %"
    if share > 0.9999:
        return ">99.99 %"
    return f"{100 * share:.2f} %" if share < 0.01 or share > 0.99 else f"{100 * share:.1f} %"


def _power(value: float) -> str:
    """Write a power of ten; as plain text, since mathtext costs more than the rest of the figure."""
    exponent = round(math.log10(value))
    if -2 <= exponent <= 0:
        return f"{value:g}"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _has(history: Sequence[Record], name: str) -> bool:
    return any(math.isfinite(record.get(name, math.nan)) for record in history)


def _series(history: Sequence[Record], name: str) -> tuple[Floats, Floats]:
    """Return epochs and values of a metric, of the records that have it."""
    known = [(record["epoch"], record[name]) for record in history if _has([record], name)]
    epochs, values = np.array(known, dtype=np.float64).T
    return epochs, values
