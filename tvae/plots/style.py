"""What figures share: matplotlib's default style and what stands here, whatever a user's matplotlibrc or notebook says.

A title says what was found, with its number; the line under it says what is needed to judge the number.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tvae.arrays import Floats

__all__ = [
    "ALARM",
    "CURVE",
    "DPI",
    "GRID",
    "INK",
    "MUTED",
    "SIZE",
    "level_colours",
    "own_style",
    "plain_axes",
    "plot_level",
    "save",
    "signed",
    "titled",
]


# 9 inches are 900 pixels at 100 dpi, the width of MLflow's image preview; 150 dpi keep a larger view and a print sharp.
SIZE = (9.0, 6.4)
DPI = 150

INK, MUTED, GRID = "#1b1b1b", "#5f6368", "#e6e8eb"
# Blue and vermilion of Okabe and Ito's palette, which stay apart under every form of colour blindness.
CURVE, ALARM = "#0072b2", "#d55e00"


@contextmanager
def own_style() -> Iterator[None]:
    """Set matplotlib's own defaults; the user's settings are as before afterwards.

    They are of the whole process: figures must not be drawn in two threads at once.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def titled(title: str, subtitle: str) -> Figure:
    """Return a figure with a title and the line under it, made without pyplot, which would look for a display."""
    figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white")
    figure.text(0.02, 0.975, title, fontsize=15, weight="bold", color=INK, va="top", gid="title")
    figure.text(0.02, 0.922, subtitle, fontsize=10, color=MUTED, va="top", gid="subtitle")
    return figure


def plain_axes(axes: Axes) -> None:
    """Leave of the frame what is left and below, before a pale grid."""
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=GRID, lw=0.8)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=MUTED, linewidth=0.8)
    axes.tick_params(labelsize=9, colors=MUTED, labelcolor=INK, length=3, pad=2)


def plot_level(axes: Axes, v: int, x: Floats, y: Floats, colour: Any, **marker: Any) -> None:
    """Draw the operations of valuation `v` as one artist; rasterised, so that a vector file stays small."""
    axes.plot(x, y, ls="", marker="o", color=colour, zorder=3 + 0.01 * v, rasterized=True, gid=f"v{v}", **marker)


def level_colours(n_trits: int) -> list[Any]:
    """Return a colour for each level, from pale for the common ones to dark for the rare; even in lightness."""
    return list(colormaps["viridis"](np.linspace(0.92, 0.0, n_trits + 1)))


def signed(number: str) -> str:
    """Write a number with a minus sign as wide as a digit."""
    return number.replace("-", "−")


@own_style()
def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG whose bytes depend on the figure alone."""
    # Not `savefig`, which reads the user's settings; and no `Software`, which would name matplotlib's version.
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})  # type: ignore[no-untyped-call]
