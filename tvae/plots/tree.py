"""The 3-adic tree as the embedding holds it."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from tvae import metrics, poincare
from tvae.arrays import Floats
from tvae.model import Embedding
from tvae.plots.plane import adic_angle, polar
from tvae.plots.style import DPI, INK, MUTED, own_style

__all__ = ["tree"]

# For a wall: paper, a serif face, and a colour for each first trit -1, 0, 1.
PAPER, SERIF = "#fbfaf6", "DejaVu Serif"
HUES = ("#1f4e79", "#b0472a", "#2c6e5a")

# Of more levels the tree is drawn to this one: a picture has no room for more leaves.
MOST_BRANCHES = 10


@own_style()
def tree(points: npt.ArrayLike, *, curvature: float) -> Figure:
    """Draw the 3-adic tree as the embedding holds it, in the Poincaré disk.

    A vertex is a 3-adic ball i + 3^k·Z, a leaf an operation. Its angle is the middle of the ball's arc, digit after
    digit. Its depth, the distance from the root at the centre, is measured: half of what the mean distance of two
    operations that differ in their first trit exceeds that of two members whose difference has valuation k; for a
    leaf, half of the former. In an ultrametric tree these are the depths of the vertices. They follow from distances
    alone, and so do not depend on which point of the ball is its origin. Edges are geodesics of the disk. Where an
    embedding holds the tree, every branch grows outwards; where it does not, all vertices but the leaves crowd at the
    centre. Of more than ten trits the first ten levels are drawn. Points and curvature are as in `poincare_disk`.

    Source:
        Semple & Steel, Phylogenetics (2003), section 7.2: an ultrametric as a tree with leaves of one depth.
    """
    embedding, n_trits = polar(points, curvature)
    depths = _depths(embedding, n_trits, curvature)
    vertices = [_vertices(k, depth, curvature) for k, depth in enumerate(depths)]
    figure = Figure(figsize=(9.0, 9.9), dpi=DPI, facecolor=PAPER)
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
    centred: dict[str, Any] = {"family": SERIF, "ha": "center", "va": "center"}
    title = f"The 3-adic tree of {3**n_trits:,} ternary operations"
    figure.text(0.5, 0.083, title, fontsize=15, style="italic", color=INK, gid="title", **centred)
    figure.text(0.5, 0.04, "\n".join(lines), fontsize=8, color=MUTED, linespacing=1.6, **centred)
    return figure


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
    angle = adic_angle(k) + math.pi * 3.0**-k if k else np.full(1, math.pi / 3)
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
    hues = np.array([to_rgb(hue) for hue in HUES])[ball % 3]
    to_white, to_black = (0.22 * (shade > 0))[:, None], (0.25 * (shade < 0))[:, None]
    colours: Floats = hues + to_white * (1 - hues) - to_black * hues
    return colours
