"""The figures hold what they claim."""

import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from exact_model import exact_model
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tvae import metrics, poincare, ternary
from tvae.metrics import Evaluation
from tvae.plots import figures as plots
from tvae.training import Record

Floats = npt.NDArray[np.float64]

OF_POINTS: tuple[Callable[..., Figure], ...] = (plots.poincare_disk, plots.tree, plots.distance_by_valuation)


def finetuning(hierarchies: list[float]) -> list[Record]:
    names = ("epoch", "hierarchy", "coverage", "level_gap", "richness", "loss", "lr")
    records = [
        dict(zip(names, (float(epoch), h, 1.0, epoch - 9.0, 0.001 * epoch, 1.0, 1e-3), strict=True))
        for epoch, h in enumerate(hierarchies)
    ]
    del records[0]["loss"], records[0]["lr"]
    return records


def foundation(n_trits: int, back: list[int]) -> list[Record]:
    """A history by how many operations come back at each epoch."""
    records: list[Record] = [{"epoch": float(e), "coverage": n / 3**n_trits} for e, n in enumerate(back)]
    for record in records[1:]:
        record |= {"loss": 1 / record["epoch"], "lr": 4e-3, "term_coverage": 0.5, "term_kl": 20.0}
    return records


def curves(history: list[Record], *, n_trits: int = 9, best: int = -1) -> Figure:
    """The curves of a training whose last record is the best, unless another is."""
    return plots.training_curves(history, n_trits=n_trits, best_epoch=int(history[best]["epoch"]))


def evaluation(radii: npt.ArrayLike) -> Evaluation:
    """An evaluation with the radii of all operations given, at curvature 1; what does not follow from them is that of
    an exact model."""
    r = np.asarray(radii, dtype=np.float64)
    n_trits = round(math.log(len(r), 3))
    unit_norm = torch.from_numpy(np.tanh(r / 2))
    measured = metrics.measure_norms(unit_norm, torch.ones(metrics.N_PAIRS), n_trits=n_trits, curvature=1.0)
    of_radii = {name: getattr(measured, name) for name in measured.__slots__}
    return dataclasses.replace(metrics.evaluate(exact_model(3)), **of_radii, radii=r, norms=unit_norm.numpy())


def ball(n_trits: int, curvature: float, dimension: int = 3) -> Floats:
    """Random points of all operations, inside the ball."""
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(3**n_trits, dimension))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    points: Floats = direction * rng.uniform(0.05, 0.95, size=(3**n_trits, 1)) / math.sqrt(curvature)
    return points


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def text_of(figure: Figure, gid: str) -> str:
    return next(text.get_text() for text in figure.texts if text.get_gid() == gid)


def said(figure: Figure) -> str:
    return f"{text_of(figure, 'title')}\n{text_of(figure, 'subtitle')}"


def panel(figure: Figure, title: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_title(loc="left").startswith(title))


def line(axes: Axes, gid: str) -> Floats:
    """The data of a line, shape `(n, 2)`."""
    return np.asarray(next(line for line in axes.lines if line.get_gid() == gid).get_xydata())


def lines_of(figure: Figure, gid: str) -> Any:
    """A collection of lines in the first panel."""
    return next(lines for lines in figure.axes[0].collections if lines.get_gid() == gid)


def level(axes: Axes, v: int) -> Floats:
    return line(axes, f"v{v}")


def drawn(axes: Axes) -> int:
    return sum(len(line.get_xydata()) for line in axes.lines if (line.get_gid() or "").startswith("v"))


# Training curves


@pytest.fixture(scope="module")
def finetuned() -> Figure:
    return curves(finetuning([0.1, -0.7, -0.8, -0.75]), best=2)


@pytest.fixture(scope="module")
def founded() -> Figure:
    return curves(foundation(3, [0, 20, 27]), n_trits=3)


def test_what_a_finetuning_came_to_is_said(finetuned: Figure) -> None:
    assert said(finetuned) == (
        "Hierarchy −0.80000, 0.03205 from the ceiling\n"
        "best epoch 2 of 3 · degradation 0.05000, to −0.75000 at the end · coverage 100 %"
    )
    assert "no degradation" in said(curves(finetuning([0.0, -0.7, -0.8])))
    tied = curves(finetuning([0.0, -1.0]))
    assert said(tied).startswith("Hierarchy −1.00000, 0.16795 past the ceiling: radii are tied\n")
    history = finetuning([0.0, -0.8, -0.8])
    history[2]["coverage"] = 0.975
    assert said(curves(history, best=1)).endswith("coverage 100 %, 97.5 % at the end")


def test_the_ceiling_is_drawn_at_its_height_and_named() -> None:
    for n_trits in (3, 9):
        figure = curves(finetuning([0.0, -0.5]), n_trits=n_trits)
        ceiling = metrics.hierarchy_ceiling(n_trits)
        assert np.allclose(line(panel(figure, "hierarchy"), "ceiling")[:, 1], ceiling), n_trits
        assert f"ceiling −{-ceiling:.5f}" in texts(figure)


def test_the_curves_hold_every_epoch_and_what_is_left_to_the_ceiling(finetuned: Figure) -> None:
    curve = line(panel(finetuned, "hierarchy"), "curve")
    assert curve.tolist() == [[0, 0.1], [1, -0.7], [2, -0.8], [3, -0.75]]
    left = line(panel(finetuned, "distance"), "curve")
    assert np.allclose(left, curve - [0, metrics.hierarchy_ceiling()])


def test_a_reached_ceiling_stays_on_the_logarithmic_scale() -> None:
    axes = panel(curves(finetuning([0.0, metrics.hierarchy_ceiling()])), "distance")
    bottom, _ = axes.get_ylim()
    assert line(axes, "curve")[-1, 1] > bottom > 0


def test_degradation_is_shaded_and_the_best_epoch_marked_in_every_panel(finetuned: Figure) -> None:
    corners = panel(finetuned, "hierarchy").collections[0].get_paths()[0].vertices
    assert (corners[:, 1].min(), corners[:, 1].max()) == (-0.8, -0.75)
    assert {line(axes, "best epoch")[0, 0] for axes in finetuned.axes} == {2.0}


def test_a_training_has_a_panel_for_each_metric_of_its_own(finetuned: Figure, founded: Figure) -> None:
    of_a_finetuning, of_a_foundation = ([a.get_title(loc="left") for a in f.axes] for f in (finetuned, founded))
    assert of_a_finetuning[:2] == ["hierarchy", "distance to the ceiling (log scale)"]
    assert of_a_finetuning[2:] == ["coverage", "level gap", "richness", "loss", "learning rate"]
    assert of_a_foundation[:2] == ["coverage", "operations that do not come back (log scale, with 0)"]
    assert of_a_foundation[2:] == ["loss", "learning rate"]


def test_the_radii_of_all_levels_are_one_panel() -> None:
    history = finetuning([0.0, -0.8])
    for record in history:
        record |= {f"radius_v{v}": 4.0 - v + record["epoch"] for v in range(4)}
    axes = panel(curves(history, n_trits=3), "radius by valuation")
    for v in range(4):
        assert line(axes, f"v{v}").tolist() == [[0.0, 4.0 - v], [1.0, 5.0 - v]]
    assert axes.get_ylim()[1] > 5.0


def test_what_a_foundation_came_to_is_said(founded: Figure) -> None:
    assert said(founded).startswith(
        "Coverage 100 %: 27 of 27 operations come back\nbest epoch 2 of 2 · all of them first"
    )
    assert "2 lost again" in said(curves(foundation(3, [0, 27, 25]), n_trits=3, best=1))
    one_short = said(curves(foundation(9, [0, 19_682])))
    assert one_short.startswith("Coverage >99.99 %: 19,682 of 19,683 operations come back\n")
    assert "never all of them" in one_short


def test_a_foundation_shows_how_many_operations_do_not_come_back(founded: Figure) -> None:
    assert line(panel(founded, "operations"), "curve")[:, 1].tolist() == [27, 7, 0]


def test_a_loss_that_falls_far_is_on_a_logarithmic_scale() -> None:
    history = finetuning([0.0, -0.7, -0.8])
    history[1]["loss"], history[2]["loss"] = 3.0, 0.001
    assert panel(curves(history), "loss").get_yscale() == "log"


def test_a_history_of_one_epoch_is_drawn() -> None:
    for history in (finetuning([-0.3]), foundation(9, [1])):
        figure = curves(history)
        figure.draw_without_rendering()
        assert len(line(figure.axes[0], "curve")) == 1


def test_a_best_epoch_outside_the_history_is_refused() -> None:
    for history in ([], finetuning([0.0])):
        with pytest.raises(ValueError, match="`best_epoch` must be an epoch of the history, got 7"):
            plots.training_curves(history, n_trits=9, best_epoch=7)


# Radius by valuation


@pytest.fixture(scope="module")
def scattered() -> Evaluation:
    """Radii of 5 trits in which every level overlaps others."""
    return evaluation(np.random.default_rng(0).uniform(0.5, 1.5, size=3**5))


def test_every_operation_is_a_point_at_its_radius_beside_its_valuation(scattered: Evaluation) -> None:
    axes = plots.radius_by_valuation(scattered).axes[0]
    valuations = ternary.valuations(5)
    for v in range(6):
        assert np.array_equal(level(axes, v)[:, 1], np.sort(scattered.radii[valuations == v]))
        assert np.abs(level(axes, v)[:, 0] - v).max() <= 0.4
    assert not axes.child_axes


def test_the_levels_are_written_with_their_sizes() -> None:
    figure = plots.radius_by_valuation(evaluation(np.linspace(0.1, 1, 3**7)))
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["0\n1,458", "1\n486", "2\n162", "3\n54", "4\n18", "5\n6", "6\n2", "7\n1"]


def test_the_mean_of_each_level_is_marked(scattered: Evaluation) -> None:
    bars = lines_of(plots.radius_by_valuation(scattered), "means").get_segments()
    assert [bar[0][1] for bar in bars] == list(scattered.level_radii)


def test_the_gap_of_each_two_levels_stands_above_and_spans_what_is_between_them() -> None:
    found = evaluation([0.0, 0.9, 0.8, 0.3, 1.0, 0.9, 0.4, 0.8, 1.0])  # levels 0.8 … 1, 0.3 … 0.4, 0
    figure = plots.radius_by_valuation(found)
    step = (found.level_radii[0] - found.level_radii[2]) / 2
    assert found.level_gaps == pytest.approx((0.4 / step, 0.3 / step))
    assert [text.get_text() for text in figure.axes[0].texts[:2]] == [f"{gap:.2f}" for gap in found.level_gaps]
    bars = [line.get_ydata() for line in figure.axes[0].lines if line.get_gid() == "gap"]
    assert np.allclose(bars, [[0.4, 0.8], [0.0, 0.3]])
    assert text_of(figure, "title") == f"Smallest level gap {min(found.level_gaps):.2f}"
    assert f"hierarchy −{-found.hierarchy:.5f}" in text_of(figure, "subtitle")


def test_an_overlap_of_two_levels_is_shaded_where_it_is_and_said() -> None:
    found = evaluation([0.1, 0.5, 0.9, 0.3, 0.9, 0.9, 0.6, 0.9, 0.9])  # levels 0.5 … 0.9, 0.3 … 0.6, 0.1
    figure = plots.radius_by_valuation(found)
    (box,) = [p for p in figure.axes[0].patches if isinstance(p, Rectangle)]
    assert (box.get_x(), box.get_y(), box.get_y() + box.get_height()) == pytest.approx((0, 0.5, 0.6))
    assert text_of(figure, "title") == f"Levels overlap: level gap −{-found.level_gap:.2f}"


def test_a_gap_near_0_keeps_its_sign(scattered: Evaluation) -> None:
    gaps = {0.0: "Smallest level gap 0", 0.004: "Smallest level gap 0.004", -0.004: "Levels overlap: level gap −0.004"}
    figures = [plots.radius_by_valuation(dataclasses.replace(scattered, level_gap=gap)) for gap in gaps]
    assert [text_of(figure, "title") for figure in figures] == list(gaps.values())


def test_a_collapsed_model_is_drawn() -> None:
    for radius in (0.0, 0.7):
        figure = plots.radius_by_valuation(evaluation(np.full(3**4, radius)))
        figure.draw_without_rendering()
        assert drawn(figure.axes[0]) == 81, radius


# The disk


@pytest.fixture(scope="module")
def all_operations() -> Figure:
    return plots.poincare_disk(ball(9, 1.0), curvature=1.0)


def test_every_operation_lies_at_its_hyperbolic_radius() -> None:
    for curvature in (0.5, 5.0):
        points = ball(4, curvature)
        radii = 2 / math.sqrt(curvature) * np.arctanh(np.linalg.norm(points, axis=1) * math.sqrt(curvature))
        for angle in ("learned", "3-adic"):
            axes = plots.poincare_disk(points, curvature=curvature, angle=angle).axes[0]
            for v in range(5):
                drawn_at = np.linalg.norm(level(axes, v), axis=1)
                assert np.allclose(drawn_at, radii[ternary.valuations(4) == v]), (curvature, angle, v)


def test_all_19683_operations_are_drawn_and_counted(all_operations: Figure) -> None:
    assert drawn(all_operations.axes[0]) == 19_683
    assert "all 19,683 operations" in text_of(all_operations, "subtitle")
    sizes = {"13,122", "4,374", "1,458", "486", "162", "54", "18", "6", "2", "1"}
    assert sizes <= set(texts(all_operations).split("\n"))


def test_rarer_valuations_are_drawn_later_and_larger_each_in_its_own_colour(all_operations: Figure) -> None:
    lines = all_operations.axes[0].lines
    levels = [next(line for line in lines if line.get_gid() == f"v{v}") for v in range(10)]
    assert np.all(np.diff([line.get_zorder() for line in levels]) > 0)
    assert np.all(np.diff([line.get_markersize() for line in levels]) > 0)
    assert len({tuple(line.get_color()) for line in levels}) == 10


def test_guide_circles_stand_at_the_radius_they_name_and_hold_all_points() -> None:
    for curvature in (0.01, 2.0, 100.0):
        points = ball(4, curvature)
        points[0] = [(1 - 1e-12) / math.sqrt(curvature), 0, 0]
        axes = plots.poincare_disk(points, curvature=curvature).axes[0]
        circles = [p.get_radius() for p in axes.patches if p.get_gid() == "guide"]
        assert circles == pytest.approx([float(text.get_text()) for text in axes.texts]), curvature
        assert 3 <= len(circles) <= 7, curvature
        assert np.linalg.norm(level(axes, 4)) < circles[-1] < axes.get_xlim()[1], curvature


def test_about_their_own_middle_points_of_the_plane_are_drawn_where_they_are() -> None:
    points = ball(4, 1.0, dimension=2)
    points[1:] = np.concatenate([points[1:41], -points[1:41]])
    points[0] = 0.0
    axes = plots.poincare_disk(points, curvature=1.0).axes[0]
    picture = np.empty_like(points)
    for v in range(5):
        picture[ternary.valuations(4) == v] = level(axes, v)
    norms = np.linalg.norm(picture, axis=1, keepdims=True)
    in_the_ball = picture / np.where(norms > 0, norms, 1) * np.tanh(norms / 2)
    assert np.allclose(in_the_ball @ in_the_ball.T, points @ points.T)


def test_the_learned_angle_does_not_depend_on_the_origin() -> None:
    """Seen from operation 0, a leaf, all of a tree lies the same way."""
    points = a_tree(4, 1.0)
    written = [texts(plots.poincare_disk(z, curvature=1.0)) for z in (points, about_operation_0(points))]
    shares = [re.findall(r"\(\d+% of the directions", text) for text in written]
    assert shares[0] == shares[1] != []


def test_the_figure_says_what_the_learned_angle_is_and_how_much_the_plane_holds() -> None:
    points = ball(4, 1.0, dimension=3)
    points[:, 2] = 0.0
    written = texts(plots.poincare_disk(points, curvature=1.0))
    assert "\nlearned: " in written
    assert "(100% of the directions' squared length;\nthe ball has 3 dimensions)" in written


def test_a_3_adic_ball_fills_one_arc_of_the_3_adic_angle_which_is_not_learned() -> None:
    n_trits, points = 4, np.full((81, 2), 0.5)
    figure = plots.poincare_disk(points, curvature=1.0, angle="3-adic")
    valuations, theta = ternary.valuations(n_trits), np.empty(81)
    for v in range(n_trits + 1):
        x, y = level(figure.axes[0], v).T
        theta[valuations == v] = np.arctan2(y, x) % (2 * math.pi)
    theta[0] = 0.0
    for k in range(n_trits):
        for i in range(3**k):
            assert np.ptp(theta[ternary.ball(i, k, n_trits)]) < 2 * math.pi / 3**k
    assert len(np.unique(theta.round(9))) == 81
    assert "not learned" in texts(figure)


def test_the_title_says_where_the_first_and_the_last_level_lie() -> None:
    points = np.zeros((27, 2))
    points[:, 0] = math.tanh(0.75) * (ternary.valuations(3) < 3)
    title = text_of(plots.poincare_disk(points, curvature=1.0), "title")
    assert title == "Mean radius 1.5 at valuation 0, 0 at valuation 3"


def test_an_unknown_angle_is_refused() -> None:
    bad: Any = "pca"
    with pytest.raises(ValueError, match="must be learned or 3-adic, got 'pca'"):
        plots.poincare_disk(ball(3, 1.0), curvature=1.0, angle=bad)


# All figures of points


def test_points_that_are_not_all_operations_inside_the_ball_are_refused() -> None:
    for draw in OF_POINTS:
        for shape in ((80, 3), (81,), (81, 1), (0, 3), (1, 3)):
            with pytest.raises(ValueError, match="must have shape"):
                draw(np.zeros(shape), curvature=1.0)
        for bad in (1.0, math.nan, math.inf):
            points = ball(3, 1.0)
            points[5] = bad
            with pytest.raises(ValueError, match="inside the ball"):
                draw(points, curvature=1.0)


def test_a_ball_collapsed_to_its_origin_is_drawn() -> None:
    for n_trits in (1, 4):
        disk, *others = (draw(np.zeros((3**n_trits, 4)), curvature=2.0) for draw in OF_POINTS)
        for figure in (disk, *others):
            figure.draw_without_rendering()
        assert drawn(disk.axes[0]) == 3**n_trits


# The tree


def a_tree(n_trits: int, curvature: float) -> Floats:
    """Points that hold the tree: directions agree the more, the longer the trits that two operations share."""
    axes = [np.eye(3**k)[np.arange(3**n_trits) % 3**k] * 0.6**k for k in range(1, n_trits + 1)]
    direction = np.concatenate(axes, axis=1)
    points: Floats = direction / np.linalg.norm(direction, axis=1, keepdims=True) * 0.99 / math.sqrt(curvature)
    return points


def about_operation_0(points: Floats) -> Floats:
    """The same points at curvature 1, moved so that operation 0 is the origin."""
    norm = torch.from_numpy(points).norm(dim=1)
    direction = torch.from_numpy(points) / norm[:, None]
    moved = poincare.translate(norm, direction, norm[:1], direction[:1])
    assert float(moved[0][0]) < 1e-9 < float(moved[0][1:].min())
    return np.asarray(moved[1] * moved[0][:, None])


def edges(figure: Figure, k: int) -> Floats:
    """The polylines from level k - 1 to level k, shape `(3^k, n, 2)`."""
    return np.asarray(lines_of(figure, f"edges {k}").get_segments())


@pytest.fixture(scope="module")
def drawn_tree() -> Figure:
    return plots.tree(a_tree(4, 2.0), curvature=2.0)


def test_every_vertex_is_joined_to_the_ball_it_is_part_of_and_farther_out(drawn_tree: Figure) -> None:
    for k in range(1, 5):
        children = edges(drawn_tree, k)
        if k > 1:
            parents = edges(drawn_tree, k - 1)[:, -1]
            assert np.allclose(children[:, 0], parents[np.arange(3**k) % 3 ** (k - 1)])
        ends = np.linalg.norm(children[:, [0, -1]], axis=2)
        assert (ends[:, 1] > ends[:, 0]).all()


def test_the_angle_of_a_vertex_is_the_middle_of_its_arc(drawn_tree: Figure) -> None:
    digits = ternary.operations(4).astype(float) + 1
    for k in range(1, 5):
        x, y = edges(drawn_tree, k)[:, -1].T
        middle = digits[: 3**k, :k] @ 3.0 ** -np.arange(1, k + 1) + 3.0**-k / 2
        turn = np.arctan2(y, x) / (2 * math.pi) - 1 / 12 - middle
        assert np.allclose(turn, np.rint(turn))


def test_the_depth_of_a_vertex_is_by_how_much_its_members_are_nearer_than_operations_at_valuation_0() -> None:
    z = torch.from_numpy(a_tree(3, 1.0))
    apart = [poincare.distance_between_points(z, z[p], curvature=1.0) for p in metrics.sample_partners(3)[1]]
    top = float(apart[0].mean()) / 2
    figure = plots.tree(z.numpy(), curvature=1.0)
    for k in (1, 2):
        depths = 2 * np.arctanh(np.linalg.norm(edges(figure, k)[:, -1], axis=1))
        for b in range(3**k):
            nearer = float(apart[k][ternary.ball(b, k, 3)].mean()) / 2
            assert depths[b] == pytest.approx(top - nearer, rel=1e-9)
    leaves = 2 * np.arctanh(np.linalg.norm(edges(figure, 3)[:, -1], axis=1))
    assert np.allclose(leaves, top)
    said = r"The 3-adic tree of 27 ternary operations[^$]*Mean depth, level by level: 0.00 · \d\.\d\d · \d\.\d\d · "
    assert re.search(f"{said}{top:.2f}$", texts(figure), re.MULTILINE)


def test_the_tree_does_not_depend_on_which_point_is_the_origin() -> None:
    points = a_tree(4, 1.0)
    pictures = [plots.tree(z, curvature=1.0) for z in (points, about_operation_0(points))]
    for k in range(1, 5):
        assert np.allclose(*(edges(picture, k) for picture in pictures), atol=1e-7)


def test_edges_are_geodesics_of_the_disk() -> None:
    for arc in edges(plots.tree(ball(3, 1.0), curvature=1.0), 2):
        # A diameter, or an arc of a circle with |centre|² = 1 + r²: all (z, 1 + |z|²) lie in one plane through 0.
        in_space = np.column_stack([arc, 1 + (arc**2).sum(1)])
        assert np.linalg.svd(in_space, compute_uv=False)[2] < 1e-12


def test_the_three_first_trits_have_three_colours_and_the_second_their_shades(drawn_tree: Figure) -> None:
    colours = [lines_of(drawn_tree, f"edges {k}").get_edgecolors() for k in (1, 2, 3)]
    assert [len(np.unique(found, axis=0)) for found in colours] == [3, 9, 9]


# Distances by valuation


def test_the_histogram_of_a_valuation_counts_the_distances_of_its_pairs() -> None:
    points = ball(4, 2.0)
    axes = plots.distance_by_valuation(points, curvature=2.0).axes[0]
    z, partner = torch.tensor(points), metrics.sample_partners(4)[1]
    for k in range(4):
        apart = poincare.distance_between_points(z, z[partner[k]], curvature=2.0).numpy()
        shape = next(p for p in axes.patches if p.get_gid() == f"k{k}")
        values, bins, floor = shape.get_data()
        counts = np.histogram(apart, bins)[0]
        assert np.allclose((values - floor) / 0.86, counts / counts.max())
        assert floor == 3 - k
        assert line(axes, f"mean {k}")[0, 0] == pytest.approx(apart.mean(), rel=1e-9)


def test_the_means_of_an_exact_tree_fall_at_every_step() -> None:
    figure = plots.distance_by_valuation(a_tree(4, 2.0), curvature=2.0)
    assert text_of(figure, "subtitle").startswith("the mean falls at 3 of 3 steps · 81 pairs a valuation")


# Files and state


def test_a_users_settings_change_no_pixel(tmp_path: Path, scattered: Evaluation) -> None:
    # No LaTeX is here: a figure that asks for it fails.
    theirs = {"text.usetex": True, "lines.linewidth": 9, "figure.facecolor": "red", "font.size": 30, "axes.grid": True}
    points, history = ball(3, 1.0), finetuning([0.0, -0.8])
    figures: dict[str, Callable[[], Figure]] = {
        "curves": lambda: curves(history),
        "radii": lambda: plots.radius_by_valuation(scattered),
        **{draw.__name__: lambda draw=draw: draw(points, curvature=1.0) for draw in OF_POINTS},  # type: ignore[misc]
    }
    for name, figure in figures.items():
        for settings in ({}, theirs):
            with matplotlib.rc_context(settings):
                before = dict(matplotlib.rcParams)
                plots.save(figure(), tmp_path / f"{name}-{len(settings)}.png")
                assert dict(matplotlib.rcParams) == before, name
        pngs = {path.read_bytes() for path in tmp_path.glob(f"{name}-*")}
        assert len(pngs) == 1, name
        # Neither time nor version.
        (png,) = pngs
        assert png.startswith(b"\x89PNG"), name
        assert not [chunk for chunk in (b"tEXt", b"iTXt", b"zTXt", b"tIME") if chunk in png], name


def test_pyplot_is_not_used() -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in Path(plots.__file__).parent.glob("*.py")}
    assert not [name for name, text in sources.items() if re.search(r"import pyplot|matplotlib\.pyplot", text)]


def test_what_is_drawn_is_not_changed(scattered: Evaluation) -> None:
    points, history, radii = ball(3, 1.0), finetuning([0.0, -0.8]), scattered.radii.copy()
    for draw in OF_POINTS:
        draw(points, curvature=1.0)
    curves(history)
    plots.radius_by_valuation(scattered)
    assert np.array_equal(points, ball(3, 1.0))
    assert history == finetuning([0.0, -0.8])
    assert np.array_equal(scattered.radii, radii)
