"""docs/math.md: every claim on the page has a test, and displayed formulas and figures are read off the page itself.

A formula is evaluated by numpy in float64, with nothing of tvae in it, and compared with what tvae computes.
"""

import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from exact_model import architecture, random_model
from scipy.stats import rankdata
from torch import Tensor

from tvae import metrics, objectives, poincare, ternary
from tvae.config.architecture import Architecture
from tvae.config.presets import resolve
from tvae.config.training import Configuration
from tvae.metrics import Evaluation, Measurement, measure
from tvae.model import Embedding
from tvae.objectives import TERMS, Placed
from tvae.training import Result, train
from tvae.training.optimizer import Weights
from tvae.training.sampling import binary_subtrees
from tvae.training.selection import rank
from tvae.training.start import from_scratch

PAGE = Path(__file__).parents[1] / "docs" / "math.md"
TEXT = PAGE.read_text(encoding="utf-8")
PROSE = re.sub(r"\s+", " ", TEXT)

Floats = npt.NDArray[np.float64]
Test = TypeVar("Test", bound=Callable[..., None])

LEVELS = np.array([2 * 3**j for j in range(8, -1, -1)] + [1], dtype=float)
N = 19_683
CURVATURES = [0.3, 2.0, 7.0]

each_curvature = pytest.mark.parametrize("c", CURVATURES)


# Reading the page


def displayed() -> dict[int, tuple[str, list[str]]]:
    """Return the displayed formulas by number: the name on the left, and what it is equal to."""
    lines = re.findall(r"^\((\d+)\) +(\S.*?)(?:\s{3,}.*)?$", TEXT, re.MULTILINE)
    return {int(number): (line.split(" = ")[0], line.split(" = ")[1:]) for number, line in lines}


FORMULAS = displayed()


def claimed_on_the_page() -> list[int]:
    found = re.findall(r"^\((\d+)\)  |\*\*\((\d+)\)\*\*", TEXT, re.MULTILINE)
    return [int(a or b) for a, b in found]


def prose(number: int) -> str:
    """Return what the page says from one claim in prose to the next empty line."""
    return re.sub(r"\s+", " ", TEXT.split(f"**({number})**")[1].split("\n\n")[0])


def table(first: str, place: int = 0) -> dict[str, list[str]]:
    """Return the rows of a table whose header begins with `first`, its header among them, by their first cells."""
    lines = TEXT.split(f"\n\n| {first} |")[place + 1].split("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("| ---")]
    return {first: rows[0]} | {row[0]: row[1:] for row in rows[1:]}


def _norm(x: Any) -> Any:
    x = np.asarray(x, dtype=float)
    return np.sqrt((x * x).sum(-1)) if x.ndim else abs(x)


FUNCTIONS: dict[str, Any] = {
    "sqrt": np.sqrt, "artanh": np.arctanh, "arsinh": np.arcsinh, "tanh": np.tanh, "sinh": np.sinh, "floor": np.floor,
    "log": np.log, "abs": abs, "relu": lambda y: np.maximum(0, y), "mean": np.mean, "min": min, "norm": _norm,
    "total": np.sum, "cosh": np.cosh, "max": max,
}  # fmt: skip


@functools.cache
def code(number: int, part: int, names: tuple[str, ...]) -> CodeType:
    formula = FORMULAS[number][1][part]
    for old, new in {"·": "*", "²": "**2", "³": "**3", "^": "**", " mod ": " % ", "Σ": "total"}.items():
        formula = formula.replace(old, new)
    formula = re.sub(r"\|([^|]+)\|", r"norm(\1)", formula)
    for name in sorted(names, key=len, reverse=True):
        formula = re.sub(rf"\b{name.replace('_', '[ _]')}\b", name, formula)
    return compile(formula, f"({number})", "eval")


def evaluated(number: int, part: int = 0, **values: Any) -> Any:
    """Evaluate a formula of the page; `largest_radius=…` gives a value to the words `largest radius`."""
    return eval(code(number, part, tuple(values)), {"__builtins__": {}}, FUNCTIONS | values)


def all_distances(points: Floats, c: float) -> Floats:
    """Return the distances of all pairs of points, by (14)."""
    found: Floats = evaluated(14, z=points[:, None], w=points[None], c=c)
    return found


def stated(number: int) -> float:
    """Return the figure at the end of a formula."""
    return float(FORMULAS[number][1][-1])


def as_stated(number: int) -> Any:
    """Return what a value must be to round to the figure at the end of a formula."""
    digits = len(FORMULAS[number][1][-1].partition(".")[2])
    return pytest.approx(stated(number), abs=0.5 * 10.0**-digits, rel=0)


TESTED: Counter[int] = Counter()


def claim(*numbers: int) -> Callable[[Test], Test]:
    """Say which claims of the page a test holds."""

    def noted(test: Test) -> Test:
        TESTED.update(numbers)
        return test

    return noted


def test_claims_are_numbered_in_their_order() -> None:
    assert claimed_on_the_page() == list(range(1, len(claimed_on_the_page()) + 1))


def test_every_claim_has_a_test() -> None:
    assert sorted(TESTED) == sorted(claimed_on_the_page())


# What is measured


def directions(n: int, dimension: int = 6) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(n, dimension, dtype=torch.float64), dim=-1)


def embedding_of(unit_norms: npt.ArrayLike) -> Embedding:
    norms = torch.tensor(np.asarray(unit_norms, dtype=float))
    return Embedding(norms, directions(len(norms)))


def random_embedding(n_trits: int = 4) -> Embedding:
    return embedding_of(np.random.default_rng(0).uniform(0.05, 0.95, 3**n_trits))


def measured(unit_norms: npt.ArrayLike, n_trits: int = 4, curvature: float = 2.0) -> Measurement:
    return measure(embedding_of(unit_norms), n_trits=n_trits, curvature=curvature)


def naive_valuation(i: int) -> int:
    """The valuation of an index of 9 trits, or of a difference of two."""
    return next((k for k in range(9) if i % 3 ** (k + 1)), 9)


def in_order(n_trits: int, low: float = 0.05, high: float = 0.95) -> Floats:
    """Distinct unit norms, every level's below those of the level before."""
    norms = np.empty(3**n_trits)
    norms[np.argsort(-ternary.valuations(n_trits), kind="stable")] = np.linspace(low, high, 3**n_trits)
    return norms


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    return float(evaluated(23, R=rankdata(x), S=rankdata(y)))


# 1. Operations


@claim(1, 2)
def test_index_and_trits() -> None:
    i = np.arange(N)
    trits = np.stack([evaluated(2, i=i, k=k) for k in range(9)], 1)
    assert np.array_equal(trits, ternary.to_trits(i))
    drawn = np.random.default_rng(0).choice(N, 300)
    assert [evaluated(1, t=trits[j], k=np.arange(9)) for j in drawn] == ternary.to_index(trits[drawn]).tolist()


@claim(3)
def test_valuation() -> None:
    naive = [naive_valuation(i) for i in range(N)]
    assert ternary.valuations().tolist() == naive
    leading = [len(list(itertools.takewhile(lambda t: t == -1, row))) for row in ternary.operations().tolist()]
    assert leading == naive
    assert "largest k <= 9" in prose(3)
    assert "v(0) = 9" in prose(3)


@claim(4)
def test_level_sizes() -> None:
    sizes = [*evaluated(4, v=np.arange(9)), 1]
    assert ternary.level_sizes().tolist() == sizes == LEVELS.tolist()
    assert [int(size) for size in table("valuation")["operations"]] == sizes


@claim(5)
def test_3_adic_distance() -> None:
    i, j = np.random.default_rng(0).integers(N, size=(2, 2000))
    i, j = i[i != j], j[i != j]
    assert evaluated(5, i=i, j=j, v=lambda x: np.vectorize(naive_valuation)(x).astype(float)) == pytest.approx(
        ternary.distance(i, j), rel=1e-15
    )
    assert ternary.distance(5, 5) == 0


@claim(6)
def test_3_adic_distance_is_an_ultrametric() -> None:
    i, j, k = np.ogrid[:81, :81, :81]
    ij, jk, ik = (ternary.distance(*pair, n_trits=4) for pair in ((i, j), (j, k), (i, k)))
    assert (ik <= np.maximum(ij, jk)).all()
    assert np.array_equal(np.broadcast_to(ik, (81, 81, 81))[ij != jk], np.maximum(ij, jk)[ij != jk])


@claim(7)
def test_balls_form_a_tree() -> None:
    every = np.arange(243)
    for k in range(6):
        near = ternary.distance(every[:, None], every, 5) <= 3.0**-k
        assert all(np.array_equal(ternary.ball(i, k, 5), np.flatnonzero(near[i])) for i in range(243))
        balls = {tuple(ternary.ball(i, k, 5).tolist()) for i in range(243)}
        assert (len(balls), {len(ball) for ball in balls}) == (3**k, {3 ** (5 - k)})
        assert sum(map(len, balls)) == 243
        if k < 5:
            assert all(len({i % 3 ** (k + 1) for i in ball}) == 3 for ball in balls)


# 2. The ball


@each_curvature
@claim(8, 9)
def test_radius_and_unit_norm(c: float) -> None:
    x = np.concatenate([np.geomspace(1e-12, 0.5, 40), 1 - np.geomspace(0.5, 1e-9, 40)])
    radius = evaluated(8, x=x, c=c)
    assert poincare.radius(torch.tensor(x), curvature=c).numpy() == pytest.approx(radius, rel=1e-7)
    assert poincare.unit_norm(torch.tensor(radius), curvature=c).numpy() == pytest.approx(x, rel=1e-9)
    assert evaluated(9, radius=radius, c=c) == pytest.approx(x, rel=1e-9)


@each_curvature
@claim(8)
def test_radius_is_the_integral_of_the_metric(c: float) -> None:
    assert "ds = 2·|dz|/(1 - c·|z|²)" in PROSE
    nodes, weights = np.polynomial.legendre.leggauss(60)
    for x in (0.2, 0.7, 0.9):
        s = (nodes + 1) / 2 * x / math.sqrt(c)
        length = float((2 / (1 - c * s * s) * weights).sum() / 2 * x / math.sqrt(c))
        assert float(poincare.radius(torch.tensor(x, dtype=torch.float64), curvature=c)) == pytest.approx(
            length, rel=1e-7
        )


@claim(8)
def test_largest_radii_on_the_page() -> None:
    rows = table("max_radius")
    curvatures = [float(cell.removeprefix("c = ")) for cell in rows.pop("max_radius")]
    assert list(rows) == ["0.95", "0.98", "0.9995"]
    for x, cells in rows.items():
        found = [Architecture(curvature=c, max_radius=float(x)).largest_radius for c in curvatures]
        assert [f"{radius:.3f}" for radius in found] == cells
        assert found == pytest.approx([float(evaluated(8, x=float(x), c=c)) for c in curvatures])


@each_curvature
@claim(10)
def test_curvature_scales_lengths_and_leaves_the_metrics_alone(c: float) -> None:
    embedding = random_embedding()

    def everything(c: float) -> list[float]:
        space: dict[str, Any] = {"n_trits": 4, "curvature": c}
        found = measure(embedding, **space)
        return [
            *(found.hierarchy, found.richness, found.ordered_levels, found.distance_fidelity),
            *metrics.tree_precision_by_level(embedding, **space),
            metrics.sibling_recall(embedding, **space),
            metrics.ball_coverage(embedding.points(c), curvature=c),
        ]

    assert everything(c) == pytest.approx(everything(1.0), rel=1e-12)
    lengths, at_1 = (metrics.distances_by_valuation(embedding, n_trits=4, curvature=x) for x in (c, 1.0))
    assert lengths * math.sqrt(c) == pytest.approx(at_1, rel=1e-12)


@each_curvature
@claim(11, 12, 14)
def test_distance(c: float) -> None:
    x, y = np.random.default_rng(0).uniform(0.01, 0.99, (2, 50))
    u, w = (d.numpy() for d in directions(100, 5).split(50))
    r, s = (evaluated(8, x=norm, c=c) for norm in (x, y))
    q = ((u - w) ** 2).sum(1)
    a, b = math.sqrt(c) * r, math.sqrt(c) * s
    excess = evaluated(11, a=a, b=b, q=q)
    d = evaluated(12, excess=excess, c=c)
    polar = [torch.tensor(value) for value in (r, s, q)]
    assert poincare.excess(*polar, curvature=c).numpy() == pytest.approx(excess, rel=1e-12)
    assert poincare.distance_from_chord(*polar, curvature=c).numpy() == pytest.approx(d, rel=1e-12)
    z, v = x[:, None] * u / math.sqrt(c), y[:, None] * w / math.sqrt(c)
    assert evaluated(14, z=z, w=v, c=c) == pytest.approx(d, rel=1e-9)
    found = poincare.distance_between_points(torch.tensor(z), torch.tensor(v), curvature=c)
    assert found.numpy() == pytest.approx(d, rel=1e-9)
    law = np.cosh(a) * np.cosh(b) - np.sinh(a) * np.sinh(b) * (1 - q / 2)
    assert np.cosh(math.sqrt(c) * d) == pytest.approx(law, rel=1e-9)


@claim(13)
def test_distance_keeps_the_digits_that_the_law_of_cosines_loses() -> None:
    radius, power, right, wrong = re.search(  # type: ignore[union-attr]
        r"at radius (\d+) and q = 10\^(-\d+) \(c = 1\), \(12\) is right to one part in 10\^(\d+), "
        r"and the law of cosines is wrong by more than (\d+) %",
        prose(13),
    ).groups()
    a, q = float(radius), 10.0 ** int(power)
    exact = 2 * math.asinh(math.sinh(a) * math.sqrt(q) / 2)
    single = torch.tensor([a, a, q])
    found = float(poincare.distance_from_chord(*single, curvature=1.0))
    assert found == pytest.approx(exact, rel=10.0 ** -int(right))
    law = single[0].cosh() ** 2 - single[0].sinh() ** 2 * (1 - single[2] / 2)
    assert abs(float(law.acosh()) / exact - 1) > int(wrong) / 100


def move(z: Floats, o: Floats) -> Floats:
    """The Möbius translation by -o at c = 1, in coordinates: Ganea et al. 2018, definition of ⊕."""
    zo, zz, oo = -(z * o).sum(-1, keepdims=True), (z * z).sum(-1, keepdims=True), (o * o).sum()
    moved: Floats = ((1 + 2 * zo + zz) * -o + (1 - oo) * z) / (1 + 2 * zo + oo * zz)
    return moved


@claim(15, 16)
def test_the_move_to_the_centre() -> None:
    points = random_embedding()
    u, w = points.direction.numpy()[:2]
    x, y = points.unit_norm.numpy()[:2]
    a, b, q = 2 * math.atanh(x), 2 * math.atanh(y), float(((u - w) ** 2).sum())
    norm = evaluated(15, excess=evaluated(11, a=a, b=b, q=q))
    moved = evaluated(16, a=a, b=b, q=q, u=u, w=w)
    point = move(x * u, y * w)
    assert norm * moved / np.linalg.norm(moved) == pytest.approx(point, rel=1e-12)
    one = (points.unit_norm[:1], points.direction[:1], points.unit_norm[1:2], points.direction[1:2])
    found, direction = poincare.translate(*one)
    assert (found[:, None] * direction)[0].numpy() == pytest.approx(point, rel=1e-12)
    assert not evaluated(16, a=b, b=b, q=0.0, u=w, w=w).any()


@claim(17)
def test_the_move_to_the_centre_is_an_isometry() -> None:
    before = random_embedding()
    after = Embedding(*poincare.translate(*before, before.unit_norm[:1], before.direction[:1]))
    z, moved = (e.points(1.0).numpy() for e in (before, after))
    assert all_distances(moved, 1.0) == pytest.approx(all_distances(z, 1.0), rel=1e-9)
    found = [
        (measure(e, n_trits=4, curvature=1.0).distance_fidelity, metrics.sibling_recall(e, n_trits=4, curvature=1.0),
         *metrics.tree_precision_by_level(e, n_trits=4, curvature=1.0))
        for e in (before, after)
    ]  # fmt: skip
    assert found[1] == pytest.approx(found[0], abs=1e-12)


@claim(18)
def test_an_exact_tree_about_operation_0_has_no_level_that_overlaps() -> None:
    """Exact trees of distinct distances, whose raw radii say nothing of valuation: random ones, and not one sphere."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        axes = np.eye(3)[ternary.operations(5).astype(int) + 1] * 0.2 ** np.arange(5)[:, None]
        direction = axes.reshape(243, 15) + 1e-5 * rng.normal(size=(243, 15))
        direction = torch.nn.functional.normalize(torch.tensor(direction), dim=-1)
        raw = Embedding(torch.tensor(0.9 + 1e-4 * rng.normal(size=243)), direction)
        moved = Embedding(*poincare.translate(*raw, raw.unit_norm[:1], raw.direction[:1]))
        assert set(metrics.tree_precision_by_level(moved, n_trits=5, curvature=2.0)) == {1.0}
        ceiling = metrics.hierarchy_ceiling(5)
        assert measure(raw, n_trits=5, curvature=2.0).hierarchy > -0.5
        found = measure(moved, n_trits=5, curvature=2.0)
        assert (found.hierarchy, found.level_gap > 0) == (pytest.approx(ceiling, abs=1e-12), True)


@claim(19)
def test_no_unit_norm_passes_max_radius_after_the_move() -> None:
    for max_radius in (0.5, 0.98, 0.9995, 1 - 1e-6):
        farthest = float(evaluated(19, max_radius=max_radius))
        assert Architecture(max_radius=max_radius).raw_max_radius == pytest.approx(farthest, rel=1e-12)
        z = np.array([farthest, 0.0])
        assert float(np.linalg.norm(move(z, -z))) == pytest.approx(max_radius, rel=1e-9)


# 3. Metrics


@claim(20)
def test_coverage() -> None:
    model = random_model(architecture(3))
    with torch.no_grad():
        logits = model.decode(model.encode(metrics.trit_table(3))[0])
    back = [
        [max((-1, 0, 1), key=lambda t, k=k: logit[k][t + 1]) for k in range(3)] == row  # type: ignore[misc]
        for logit, row in zip(logits.tolist(), ternary.operations(3).tolist(), strict=True)
    ]
    assert 0 < sum(back) < 27
    assert metrics.evaluate(model).coverage == pytest.approx(sum(back) / 27)


@claim(21)
def test_ordered_levels() -> None:
    for seed in range(5):
        norms = np.random.default_rng(seed).uniform(0, 0.9, 81)
        radii = evaluated(8, x=norms, c=2.0)
        means = [radii[ternary.valuations(4) == v].mean() for v in range(5)]
        assert measured(norms).ordered_levels == sum(b - a < 0 for a, b in itertools.pairwise(means))


@claim(22)
def test_level_gap() -> None:
    assert "Without any step it is -1." in PROSE
    assert measured(np.full(81, 0.5)).level_gap == -1
    for norms in (in_order(9), np.random.default_rng(0).uniform(0, 0.9, N)):
        radii = [evaluated(8, x=norms[ternary.valuations() == v], c=2.0) for v in range(10)]
        ends = {"first": radii[0].mean(), "last": radii[-1].mean()}
        gaps = [evaluated(22, smallest=a.min(), largest=b.max(), **ends) for a, b in itertools.pairwise(radii)]
        assert measured(norms, 9).level_gap == pytest.approx(min(gaps), rel=1e-9)


@pytest.mark.parametrize("digits", [15, 1])
@claim(23)
def test_hierarchy(digits: int) -> None:
    norms = np.round(np.random.default_rng(0).uniform(0, 0.9, 243), digits)
    assert measured(norms, 5).hierarchy == pytest.approx(spearman(ternary.valuations(5), norms), abs=1e-12)
    assert measured(np.full(81, 0.5)).hierarchy == 0


@claim(24, 25)
def test_hierarchy_ceiling() -> None:
    for n_trits in range(1, 10):
        n, total = ternary.level_sizes(n_trits).astype(float), 3.0**n_trits
        found = metrics.hierarchy_ceiling(n_trits)
        assert found == pytest.approx(evaluated(24, n=n, N=total), rel=1e-12)
        assert found == pytest.approx(evaluated(25, N=total), rel=1e-12)
        assert found == pytest.approx(measured(in_order(n_trits), n_trits).hierarchy, abs=1e-12)
    assert evaluated(24, n=LEVELS, N=float(N)) == as_stated(24)
    assert evaluated(25, N=float(N)) == as_stated(25)


@claim(24)
def test_hierarchy_ceiling_is_reached_by_one_order_of_the_levels_alone() -> None:
    """Two trits: six operations of valuation 0, two of valuation 1, one of valuation 2, in all 252 orders."""
    found = []
    for last in range(9):
        for middle in itertools.combinations(set(range(9)) - {last}, 2):
            valuations = np.zeros(9)
            valuations[last], valuations[list(middle)] = 2, 1
            found.append(spearman(valuations, np.arange(9)))
    least = metrics.hierarchy_ceiling(2)
    assert len(found) == 252
    assert min(found) == pytest.approx(least, abs=1e-12)
    assert sum(value < least + 1e-9 for value in found) == 1


@claim(26)
def test_equal_radii_pass_the_ceiling() -> None:
    one_radius_a_level = np.linspace(0.9, 0.1, 10)[ternary.valuations()]
    assert measured(one_radius_a_level, 9).hierarchy == pytest.approx(-1, abs=1e-12)


@claim(27)
def test_richness() -> None:
    norms = np.random.default_rng(0).uniform(0, 0.9, N)
    variances = np.array([norms[ternary.valuations() == v].var() for v in range(10)])
    found = measured(norms, 9)
    assert found.richness == pytest.approx(evaluated(27, variance=variances), rel=1e-12)
    assert "*Richness by level* is the summands, variance/10" in PROSE
    assert found.level_richness == pytest.approx(variances / 10, rel=1e-9, abs=1e-15)


@claim(28)
def test_richness_ceiling_of_levels_in_order() -> None:
    max_radius = 0.95
    ceiling = evaluated(28, max_radius=max_radius)
    assert metrics.richness_ceiling(max_radius) == pytest.approx(ceiling, rel=1e-15)
    for seed in range(5):
        norms = np.empty(N)
        # Draws that crowd at both ends, with a level or two stretched between them.
        rng = np.random.default_rng(seed)
        draws = np.sort(rng.beta(*rng.uniform(0.02, 1, 2), N))
        norms[np.argsort(-ternary.valuations(), kind="stable")] = max_radius * draws
        assert measured(norms.clip(0, max_radius), 9).richness <= ceiling
    outer = in_order(9, 1e-9, 1e-4)
    outer[np.argsort(outer)[-6561:]] += max_radius - 1e-4
    assert 0.999 * ceiling < measured(outer, 9).richness < ceiling


@claim(29)
def test_richness_ceiling_of_any_embedding() -> None:
    ceiling = evaluated(29, max_radius=0.95)
    norms = np.empty(N)
    for v in range(10):
        level = np.flatnonzero(ternary.valuations() == v)
        norms[level] = 0.95 * (np.arange(len(level)) % 2)
    assert measured(norms, 9).richness == pytest.approx(ceiling, rel=1e-12)


@claim(30)
def test_what_overlap_may_add_to_richness() -> None:
    norms = in_order(9, 1e-9, 1e-4)
    norms[np.argsort(norms)[-6561:]] += 0.9
    before = measured(norms, 9)
    norms[6561] = 0.95
    after = measured(norms, 9)
    said = re.search(r"hierarchy loses ([\d.]+), and richness may gain a whole max_radius²/40", prose(30))
    assert said is not None
    assert f"{after.hierarchy - before.hierarchy:.5f}" == said[1]
    assert after.richness - before.richness == pytest.approx(0.95**2 / 40, rel=1e-3)


@claim(31)
def test_richness_and_even_levels_exclude_each_other() -> None:
    even, filled, asked, share, one, widest = map(
        float,
        re.search(
            r"equal width hold ([\d.]+) at most, and ([\d.]+) if filled evenly\. A richness of ([\d.]+), .* as 1/120 = "
            r"([\d.]+) is less\. .* spans ([\d.]+) of the ball if .* spans at least ([\d.]+) of it in any case",
            prose(31),
        ).groups(),  # type: ignore[union-attr]
    )

    def richness(widths: Floats, filled: bool = False) -> float:
        """Measured on levels side by side, the last at the origin, with members at both ends or evenly between."""
        norms, start = np.empty(N), 0.0
        for v, width in reversed(list(enumerate(widths))):
            level = np.flatnonzero(ternary.valuations() == v)
            within = np.linspace(0, 1, len(level)) if filled else np.arange(len(level)) % 2
            norms[level] = start + width * 0.999999 * within
            start += width
        return measured(norms, 9).richness

    why = re.sub(r"\s+", " ", (PAGE.parent / "why.md").read_text(encoding="utf-8"))
    for words in (
        f"equal width hold {even:.5f} at most, and {filled:.5f} if filled evenly",
        f"A richness of {asked:.4f}, the most",
        f"one level of {one:.2f} of the ball if the others are of equal width",
        f"no choice of widths does without one of {widest:.3f}",
    ):
        assert words in why
    # The last level has one member; small levels, evenly filled, have more than a long one: not so the larger ones.
    tenths = np.full(10, 0.1)
    assert richness(tenths) == pytest.approx(even, rel=1e-5)
    assert float((tenths**2).sum()) / 40 == pytest.approx(even / 0.9, rel=1e-9)
    assert filled == pytest.approx(9 * 0.1**2 / 120)
    assert richness(np.array([1.0, *[0.0] * 9]), filled=True) == pytest.approx(1 / 120, rel=1e-3)
    assert f"{1 / 120:.4f}" == f"{share:.4f}"
    assert share < asked

    def with_one_of(s: float) -> float:
        return richness(np.array([s, *[(1 - s) / 9] * 8, (1 - s) / 9]))

    def bound(s: float) -> float:
        return (math.floor(1 / s) * s**2 + (1 - math.floor(1 / s) * s) ** 2) / 40

    assert with_one_of(one - 0.01) < asked <= with_one_of(one + 0.01)
    assert bound(widest) <= asked <= bound(widest + 0.001)
    # No draw of widths has more with the same widest: the bound of the page.
    for widths in np.random.default_rng(0).dirichlet(np.full(10, 0.2), 2000):
        assert float((widths**2).sum()) / 40 <= bound(widths.max()) + 1e-12


@claim(32)
def test_distance_fidelity() -> None:
    embedding = random_embedding()
    i, j, _ = metrics.sample_pairs(4)
    z = embedding.points(2.0).numpy()
    apart = all_distances(z, 2.0)[i, j]
    excess = np.cosh(math.sqrt(2) * apart) - 1
    chords = metrics.pair_chords(embedding.direction, n_trits=4)
    radius = poincare.radius(embedding.unit_norm, curvature=2.0)
    assert poincare.excess(radius[i], radius[j], chords, curvature=2.0).numpy() == pytest.approx(excess)
    # To 12 digits, so that a pair and its reverse are equal.
    expected = spearman(ternary.distance(i.numpy(), j.numpy(), 4), np.round(apart, 12))
    assert measure(embedding, n_trits=4, curvature=2.0).distance_fidelity == pytest.approx(expected, abs=1e-7)


@claim(32)
def test_distance_fidelity_ceiling() -> None:
    i, j, _ = metrics.sample_pairs(9)
    pairs = np.sort(np.stack([i.numpy(), j.numpy()]), 0)
    v = np.array([naive_valuation(int(difference)) for difference in pairs[1] - pairs[0]])
    m = np.bincount(v, minlength=9)
    assert [int(cell) for cell in table("valuation", 1)["pairs"]] == m.tolist()
    assert f"M = {len(v):,} pairs" in PROSE
    ceiling = evaluated(32, m=m.astype(float), M=float(len(v)))
    assert ceiling == as_stated(32)
    assert metrics.distance_fidelity_ceiling() == pytest.approx(ceiling, abs=1e-12)
    assert spearman(-v, np.argsort(np.argsort(-v, kind="stable"))) == pytest.approx(ceiling, abs=1e-12)
    # Pairs that occur twice.
    _, place, times = np.unique(pairs, axis=1, return_inverse=True, return_counts=True)
    assert Counter(times.tolist())[2] == 4
    assert "Four pairs occur twice" in PROSE
    first = np.unique(place, return_index=True)[1][place]
    tied = spearman(-v, -v * 1e6 + first)
    assert ceiling < tied < ceiling + 1e-12


@claim(32)
def test_an_exact_tree_reaches_the_fidelity_ceiling() -> None:
    """A trit is one of three axes, 0.4 times as long as those before; a little noise parts distances that are equal."""
    axes = np.eye(3)[ternary.operations().astype(int) + 1] * 0.4 ** np.arange(9)[:, None]
    direction = torch.nn.functional.normalize(torch.tensor(axes.reshape(N, 27)), dim=-1)
    embedding = Embedding(0.9 + 1e-6 * torch.rand(N, dtype=torch.float64), direction)
    found = measure(embedding, n_trits=9, curvature=2.0).distance_fidelity
    assert found == as_stated(32)


def naive_share(distance: list[float], i: int, k: int, n_trits: int) -> float:
    """The share of the nearest in a ball, with every operation counted by its chance to be among them."""
    others, wanted = [j for j in range(len(distance)) if j != i], 3 ** (n_trits - k) - 1
    share = 0.0
    for j in others:
        if j % 3**k == i % 3**k:
            nearer = sum(distance[m] < distance[j] for m in others)
            equal = sum(distance[m] == distance[j] for m in others)
            share += min(1.0, max(0.0, (wanted - nearer) / equal)) / wanted
    return share


@pytest.mark.parametrize("places", [27, 5])
@claim(33)
def test_tree_precision(places: int) -> None:
    drawn = random_embedding(3)
    place = np.random.default_rng(0).permutation(27) % places
    embedding = Embedding(drawn.unit_norm[place], drawn.direction[place])
    z = embedding.points(2.0).numpy()
    distance = all_distances(z, 2.0).tolist()
    if places < 27:  # float32, in which alone two operations of one place may be told apart by rounding
        r, u = poincare.radius(embedding.unit_norm, curvature=2.0).float(), embedding.direction.float()
        chord = torch.cdist(u, u, compute_mode="donot_use_mm_for_euclid_dist").square()
        rounded = poincare.distance_from_chord(r[:, None], r, chord, curvature=2.0)
        assert rounded.numpy() == pytest.approx(np.array(distance), abs=1e-5)
        distance = rounded.tolist()
    expected = [np.mean([naive_share(distance[i], i, k, 3) for i in range(27)]) for k in (1, 2)]
    found = metrics.tree_precision_by_level(embedding, n_trits=3, curvature=2.0)
    assert found == pytest.approx(expected, abs=1e-12)
    assert "1,024 operations" in prose(33)
    assert metrics.N_TREE_SAMPLE == 1024


def collapsed(n_trits: int) -> Embedding:
    n = 3**n_trits
    return Embedding(torch.full((n,), 0.5), torch.eye(4)[:1].expand(n, 4))


@claim(34)
def test_tree_precision_by_chance() -> None:
    by_level = metrics.tree_precision_by_level(collapsed(9), n_trits=9, curvature=2.0, sample=2)
    assert np.mean(by_level) == pytest.approx(evaluated(34, k=np.arange(1.0, 9), N=N), rel=1e-6)
    assert evaluated(34, k=np.arange(1.0, 9), N=N) == as_stated(34)


@claim(35)
def test_sibling_recall() -> None:
    embedding = random_embedding()
    by_level = metrics.tree_precision_by_level(embedding, n_trits=4, curvature=2.0)
    assert metrics.sibling_recall(embedding, n_trits=4, curvature=2.0) == pytest.approx(by_level[-1], rel=1e-12)
    nearest = np.argsort(all_distances(embedding.points(2.0).numpy(), 2.0), axis=1)
    hits = sum(j in ((i + 27) % 81, (i - 27) % 81) for i in range(81) for j in nearest[i, 1:3])
    assert metrics.sibling_recall(embedding, n_trits=4, curvature=2.0) == pytest.approx(hits / 162)
    assert metrics.sibling_recall(collapsed(6), n_trits=6, curvature=2.0) == pytest.approx(2 / 728)
    assert f"2/(N - 1) = {2 / (N - 1):.4f}" in prose(35)


@claim(36)
def test_ball_coverage() -> None:
    points = random_embedding(3).points(2.0).float()
    points[5] = points[20]
    points[7] *= 1.001 / float(points[7].norm() * math.sqrt(2))
    inside = [i for i in range(27) if float(points[i].double().norm()) * math.sqrt(2) < 1]
    z = points.double().numpy()[inside]
    nearest = all_distances(z, 2.0).tolist()
    alone = [row.count(0.0) == 1 and row[k] == 0 for k, row in enumerate(nearest)]
    assert metrics.ball_coverage(points, curvature=2.0) == pytest.approx(sum(alone) / 27) == pytest.approx(24 / 27)


def evaluation(**values: Any) -> Evaluation:
    return Evaluation(**dict.fromkeys(Evaluation.__dataclass_fields__, 0.0) | values)  # type: ignore[arg-type]


@claim(37)
def test_q() -> None:
    values = {"distance_fidelity": 0.4, "hierarchy": -0.7}
    expected = evaluated(37, **values)
    found = measured(in_order(4))
    assert found.q == pytest.approx(evaluated(37, distance_fidelity=found.distance_fidelity, hierarchy=found.hierarchy))
    assert evaluation(**values).q == pytest.approx(expected)
    assert trained(values).summary()["best_q"] == pytest.approx(expected)
    most = re.search(r"Q is at most ([\d.]+) where", PROSE)
    assert most is not None
    assert f"{evaluated(37, distance_fidelity=0.8316507266, hierarchy=evaluated(25, N=float(N))):.4f}" == most[1]
    assert f"{metrics.q_ceiling():.4f}" == most[1]


def trained(*records: dict[str, float], best_epoch: int = 0) -> Result:
    blank = {"coverage": 1.0, "richness": 0.0, "ordered_levels": 0.0, "level_gap": 0.0, "distance_fidelity": 0.0}
    return Result(Configuration(), random_model(architecture(2)), [blank | r for r in records], best_epoch)


@claim(38)
def test_degradation() -> None:
    result = trained({"hierarchy": -0.1}, {"hierarchy": -0.8}, {"hierarchy": -0.65}, best_epoch=1)
    assert result.summary()["degradation"] == evaluated(38, final_hierarchy=-0.65, best_hierarchy=-0.8)


# 4. Objectives


def test_weights_of_presets_on_the_page() -> None:
    rows = table("preset")
    assert tuple(rows.pop("preset")) == TERMS
    for preset, cells in rows.items():
        settings = resolve(preset, {})[1]
        weights = [settings.beta if name == "kl" else getattr(settings, f"{name}_weight") for name in TERMS]
        assert [float(cell) for cell in cells] == weights
    assert list(rows) == ["default", "rich", "radii"]


def batch(max_radius: float = 0.95, c: float = 2.0, *, n: int = 30, spread: float = 1.0) -> Placed:
    """One member, three trits: a population part of `n`, and four operations of each level."""
    valuations = torch.cat([torch.randint(4, (1, n)), torch.arange(4).repeat_interleave(4)[None]], 1)
    share = (1 - valuations / 4 - 0.2 * torch.rand(valuations.shape, dtype=torch.float64) * spread).clamp(0, 1)
    curvature = torch.tensor([[c]], dtype=torch.float64)
    return Placed(
        valuations=valuations,
        n_population=n,
        unit_norm=max_radius * share,
        radius=poincare.radius(max_radius * share, curvature=curvature),
        largest_radius=poincare.radius(torch.full_like(curvature, max_radius), curvature=curvature),
        max_radius=max_radius,
        n_levels=4,
        n_strata=4,
    )


def naive_hierarchy(placed: Placed) -> float:
    rho, v = (placed.radius / placed.largest_radius)[0].tolist(), placed.valuations[0].tolist()
    margin, n, gaps = naive_margin(placed), placed.n_population, []
    for a, b in ((a, (a + step) % n) for a in range(n) for step in range(1, 9)):
        if v[a] != v[b]:
            gaps.append(rho[a] - rho[b] if v[a] < v[b] else rho[b] - rho[a])
    x = placed.unit_norm.numpy() / placed.max_radius
    wall = evaluated(41, x=x, room=evaluated(42, max_radius=placed.max_radius))
    assert wall > 0
    assert min(gaps) < margin
    return float(evaluated(40, margin=margin, gap=np.array(gaps), wall=wall))


def naive_margin(placed: Placed) -> float:
    return float(evaluated(39, y=0.03 / float(placed.largest_radius)))


@claim(39)
def test_margin() -> None:
    assert "y = 0.03/largest radius" in PROSE
    for largest in (1e-3, 0.5, 2.59, 10.0, 1e4):
        found = float(objectives.level_margin(torch.tensor(largest, dtype=torch.float64)))
        assert found == pytest.approx(evaluated(39, y=0.03 / largest), rel=1e-12)
        assert 1 / 130 < found < 1 / 90
        assert 9 * found <= 0.1


@pytest.mark.parametrize("max_radius", [0.5, 0.95, 0.9993])
@claim(40, 41, 42)
def test_ranking_hierarchy(max_radius: float) -> None:
    placed = batch(max_radius, spread=2.0)
    placed.unit_norm[0, :3] = max_radius * (1 - 1e-6)
    assert float(objectives.ranking_terms(placed)["hierarchy"]) == pytest.approx(naive_hierarchy(placed), rel=1e-9)


@claim(43)
def test_ranking_separation() -> None:
    placed = batch(spread=2.0)
    levels = (placed.radius / placed.largest_radius)[0, 30:].reshape(4, 4).tolist()
    gaps = [a - b for outer, inner in itertools.pairwise(levels) for a in outer for b in inner]
    expected = evaluated(43, margin=naive_margin(placed), gap=np.array(gaps))
    assert expected > 0
    assert float(objectives.ranking_terms(placed)["separation"]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("spread", [20.0, 1.0, 0.01])
@claim(44)
def test_ranking_richness(spread: float) -> None:
    placed = batch(spread=spread)
    if spread > 1:
        placed.unit_norm[0, 30:34] = torch.tensor([0.0, 0.0, 0.95, 0.95])
    variance = np.array([np.var(level) for level in placed.unit_norm[0, 30:].numpy().reshape(4, 4)[:-1] / 0.95])
    expected = float(evaluated(44, variance=variance))
    assert float(objectives.ranking_terms(placed)["richness"]) == pytest.approx(expected, rel=1e-12)


@claim(45)
def test_parting_term() -> None:
    norms, index = 0.9 * torch.rand(1, 60, dtype=torch.float64), torch.randint(N, (1, 60))
    first, second = (norms[0][index[0] % 3 == half].numpy().mean() for half in (1, 2))
    expected = float(evaluated(45, first=first, second=second, max_radius=0.95))
    assert 0 < expected < 0.6
    assert float(objectives.parting_term(norms, index, max_radius=0.95)) == pytest.approx(expected, rel=1e-12)
    # At the target, two halves of one unit norm each.
    said = re.search(r"max_radius of `rich`, ([\d.]+), .* level 0 alone a richness of ([\d.]+)\.", PROSE)
    assert said is not None
    assert float(said[1]) == resolve("rich", {})[0].max_radius
    apart = 0.6 * float(said[1])
    assert evaluated(45, first=apart, second=0.0, max_radius=float(said[1])) == pytest.approx(0.0, abs=1e-12)
    assert f"{measured(np.where(np.arange(81) % 3 == 1, apart, 0.0)).level_richness[0] * 5 / 10:.5f}" == said[2]


@claim(46)
def test_binary_subtrees() -> None:
    tree = binary_subtrees(3, torch.ones(4, dtype=torch.bool), torch.Generator().manual_seed(0))
    assert tree.shape == (3, 2**4)
    for leaves in tree.tolist():
        for k in range(4):
            children: dict[int, set[int]] = {}
            for i in leaves:
                children.setdefault(i % 3**k, set()).add(i % 3 ** (k + 1))
            assert {len(kept) for kept in children.values()} == {2}
        for a, b in itertools.combinations(range(16), 2):
            assert 4 - (a ^ b).bit_length() == naive_valuation(leaves[a] - leaves[b])


@pytest.mark.parametrize("whole", [True, False])
@each_curvature
@claim(47, 48)
def test_distance_term(c: float, whole: bool) -> None:
    """Where every node of a subtree has two branches, and where some have one, with steps of several levels."""
    bits, trees, margin = 3, 2, 0.04
    assert f"`distance_margin`, {margin} by default" in PROSE
    assert Configuration().distance_margin == margin > resolve("rich", {})[1].distance_margin
    space = Architecture(curvature=c)
    longest = 2 * float(evaluated(8, x=evaluated(19, max_radius=space.max_radius), c=c))
    assert longest == pytest.approx(space.largest_radius, rel=1e-9)
    radius, direction = torch.rand(1, trees, 8, dtype=torch.float64) * longest / 2, directions(trees * 8)
    direction = direction.reshape(1, trees, 8, -1)
    z = torch.tanh(math.sqrt(c) * radius / 2)[..., None] * direction / math.sqrt(c)
    of_nodes = [[[1], [1]], [[1, 0], [1, 1]], [[1, 0, 1, 1], [0, 1, 1, 0]]]
    nodes = [torch.tensor([of_level], dtype=torch.bool) | whole for of_level in of_nodes]
    parted = torch.stack([one.repeat_interleave(8 // one.shape[-1], -1) for one in nodes], 2)
    margins = margin * np.array([1.0, 1.0, 1.0] if whole else [2.0, 1.0, 4.0])
    choices: dict[tuple[str, bool], list[tuple[float, float, float]]] = {}
    for tree, branches in zip(z[0].numpy(), parted[0], strict=True):
        d = all_distances(tree, c)

        def of_level(i: int, k: int) -> list[int]:
            return [j for j in range(8) if j != i and bits - (i ^ j).bit_length() == k] or [i]

        for i, k, across in itertools.product(range(8), range(bits), (False, True)):
            whose = 7 - i if across else i
            if not branches[k, whose]:
                continue
            far, near = of_level(whose, k), of_level(i, k + 1)
            mirrored = [d[a][max(places, key=lambda j, a=a: a ^ j)] for a, places in ((i, near), (whose, far))]  # type: ignore[misc]
            choices.setdefault(("mirrored", across), []).append((mirrored[0], mirrored[1], margins[k]))
            if k < bits - 1:
                extreme = max(d[i][j] for j in near), min(d[whose][j] for j in far), margins[k]
                choices.setdefault(("extreme", across), []).append(extreme)
    expected = 0.0
    for pairs in choices.values():
        near_, far_, asked = np.array(pairs).T
        values = {"margin": asked, "near": near_, "far": far_, "longest": longest}
        violated = int((asked + (near_ - far_) / longest > 0).sum())
        expected += evaluated(47, **values, violated=violated, all=len(pairs)) / 4
    assert len(choices) == 4
    asked_of: dict[str, Any] = {"margin": torch.tensor(margins)[None], "parted": None if whole else parted}
    for curvature in (c, 1.0):
        scale = math.sqrt(c / curvature)
        one, length = (torch.tensor([[x]], dtype=torch.float64) for x in (curvature, longest * scale))
        found = objectives.distance_term(radius * scale, direction, curvature=one, longest=length, **asked_of)
        assert float(found) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("levels", [[0, 1, 2, 3], [0, 2, 3], [0, 3], [3]])
@claim(49, 50, 51)
def test_level_mean_terms(levels: list[int]) -> None:
    placed = batch(n=40)
    placed.unit_norm[:] = 0.95 * torch.rand(placed.unit_norm.shape, dtype=torch.float64)
    placed.valuations[0, :40] = torch.tensor(levels).repeat(40)[:40]
    norms, v = placed.unit_norm[0, :40].numpy(), placed.valuations[0, :40].numpy()
    initial = np.array([0.01, 1e-4, 0.02, 0.5])
    means = {level: norms[v == level].mean() for level in levels}
    ratio = np.array([norms[v == level].var() / initial[level] for level in levels])
    found = objectives.level_mean_terms(placed, torch.tensor(initial)[None])
    below, above = np.array([(means[v], means[v + 1]) for v in levels if v + 1 in means]).reshape(-1, 2).T
    # Three levels above 0 in place of nine: the page's `v/9` is the share of the last level.
    expected = {
        "hierarchy": evaluated(49, mean_of_level=np.array(list(means.values())), v=9 * np.array(levels) / 3),
        "separation": evaluated(50, mean_of_next_level=above, mean_of_level=below),
        "richness": evaluated(51, ratio=ratio),
    }
    assert (ratio < 0.5).any()
    assert (expected["separation"] > 0) == (len(below) > 0)
    assert {name: float(term) for name, term in found.items()} == pytest.approx(expected, rel=1e-6, abs=1e-12)


@claim(52, 53)
def test_elbo_terms() -> None:
    logits, target = torch.randn(1, 7, 3, 3, dtype=torch.float64), torch.randint(3, (1, 7, 3))
    mean, log_variance = torch.randn(2, 1, 7, 4, dtype=torch.float64)
    found = objectives.elbo_terms(logits, target, mean, log_variance)
    odds = np.exp(logits[0].numpy())
    p = np.take_along_axis(odds / odds.sum(-1, keepdims=True), target[0].numpy()[..., None], -1)
    assert float(found["coverage"]) == pytest.approx(evaluated(52, p=p), rel=1e-12)
    posterior = zip(mean[0].numpy(), np.exp(log_variance[0].numpy() / 2), strict=True)
    expected = np.mean([evaluated(53, μ=mu, σ=sigma) for mu, sigma in posterior])
    assert float(found["kl"]) == pytest.approx(expected, rel=1e-12)


# 5. The optimizer, and the best epoch


@claim(54, 55, 56)
def test_an_update_of_muon() -> None:
    """Two steps of one network by known gradients, against the page's formulas on singular values."""
    model = random_model(architecture(3))
    weights = Weights([model], {"encoder.": 1.0}, "muon", torch.device("cpu"))
    name, m, before = "encoder.mean.weight", 0.0, model.get_parameter("encoder.mean.weight").detach().double().numpy()
    for _ in range(2):
        gradients = [torch.randn(p.shape) for p in weights.model.parameters() if p.requires_grad]
        learning = [p for p in weights.model.parameters() if p.requires_grad]
        loss = sum((p * g).sum() for p, g in zip(learning, gradients, strict=True))
        gradient = weights.gradient(loss)  # type: ignore[arg-type]
        assert float(gradient.norm()) == pytest.approx(1.0, rel=1e-5)
        place = [n for n, p in weights.model.named_parameters() if p.requires_grad].index(name)
        g = gradients[place][0].double().numpy() / math.sqrt(sum(float(x.square().sum()) for x in gradients))
        m = 0.9 * m + 0.1 * g
        ahead = evaluated(54, G=g, M=m)
        u, s, vt = np.linalg.svd(ahead / np.linalg.norm(ahead), full_matrices=False)
        for _ in range(5):
            s = evaluated(55, s=s)
        rows, columns = before.shape
        before = before - 0.03 * evaluated(56, rows=rows, columns=columns, X=u * s @ vt)
        weights.step(gradient, torch.tensor([0.03]))
        assert weights.snapshot(0)[name].double().numpy() == pytest.approx(before, abs=1e-5)


@claim(55)
def test_singular_values_after_the_iterations() -> None:
    said = re.search(r"bring values from 1/(\d+) on into ([\d.]+) … ([\d.]+)\.", PROSE)
    assert said is not None
    s = np.linspace(1 / float(said[1]), 1, 100_000)
    for _ in range(5):
        s = evaluated(55, s=s)
    assert float(said[2]) < s.min() < s.max() < float(said[3])


def epoch(**changes: float) -> tuple[float, ...]:
    """What an epoch is compared by, under the names of the page; without a tree_loss where that is NaN."""
    at = {"coverage": 0.9, "tree_loss": 0.5, "hierarchy": -0.5, "ordered_levels": 5, "richness": 0.01} | changes
    embedding = Measurement(at["hierarchy"], at["richness"], int(at["ordered_levels"]), 0.0, 0.0, (), (), ())
    learned = not math.isnan(at["tree_loss"])
    record = {"coverage": at["coverage"], "tree_loss": at["tree_loss"]}
    return rank(record, embedding, metrics.hierarchy_ceiling(), distances=learned)


@claim(58)
def test_tree_loss() -> None:
    asked = Configuration(seed=0, epochs=2, unfreeze="encoder", richness_weight=6.0, distance_weight=4.0)
    last = train(from_scratch(Architecture(n_trits=4), asked)).history[-1]
    distance, richness = last["term_distance"], last["term_richness"]
    assert min(distance, richness) > 0
    expected = evaluated(58, distance=distance, richness=richness, richness_weight=6.0, distance_weight=4.0)
    assert last["tree_loss"] == pytest.approx(expected, rel=1e-12)


@claim(57)
def test_best_epoch() -> None:
    listed = re.findall(r"^\d\. `(\w+)`(.*)$", TEXT, re.MULTILINE)
    assert [name for name, _ in listed] == ["coverage", "tree_loss", "hierarchy", "ordered_levels", "richness"]
    better, worse = {}, {}
    for name, text in listed:
        gain = {"more": 1, "less": -1, "fewe": -1}[re.search(r", (more|less|fewe)", text)[1]]  # type: ignore[index]
        better[name], worse[name] = ({"ordered_levels": 5, "hierarchy": -0.5, "tree_loss": 0.5, "coverage": 0.9,
                                      "richness": 0.01}[name] + sign * gain * (1 if name == "ordered_levels" else 0.005)
                                     for sign in (1, -1))  # fmt: skip
    names, without = list(better), {"tree_loss": math.nan}
    step = float(re.search(r"whole steps of ([\d.]+) above", PROSE)[1])  # type: ignore[index]
    tree_step = float(re.search(r"in whole steps of ([\d.]+), fewer", PROSE)[1])  # type: ignore[index]
    better["tree_loss"], worse["tree_loss"] = 0.5 - tree_step, 0.5 + tree_step
    for place, name in enumerate(names):
        later = {other: worse[other] for other in names[place + 1 :]}
        if name != "richness":
            assert epoch(**{name: better[name]}, **later) > epoch()
        if name != "tree_loss":
            assert epoch(**{name: better[name]}, **later | without) > epoch(**without)
    ceiling = metrics.hierarchy_ceiling()
    near, limit, far = (epoch(hierarchy=ceiling + share * step, **without) for share in (0.9, 0, 1.1))
    assert near == limit > far
    # Where distances are learned the loss of the tree counts twice: in steps, and last as it is.
    assert "where distances are learned `tree_loss` instead" in PROSE
    near, limit, far = (epoch(tree_loss=share * tree_step, richness=-share) for share in (0.9, 0, 1.1))
    assert far < near < limit
    assert epoch(tree_loss=0.9 * tree_step, hierarchy=-0.6) > epoch(tree_loss=0.0)
    assert epoch(richness=1.0) == epoch()
    # Before training there is no tree_loss.
    embedding = Measurement(-0.5, 0.01, 5, 0.0, 0.0, (), (), ())
    assert epoch(tree_loss=9.0) > rank({"coverage": 0.9}, embedding, metrics.hierarchy_ceiling(), distances=True)
    # Without a projection.
    assert rank({"coverage": 1.0, "loss": 2.0}, None, -1) > rank({"coverage": 0.9, "loss": 1.0}, None, -1)
    assert rank({"coverage": 1.0, "loss": 1.0}, None, -1) > rank({"coverage": 1.0, "loss": 2.0}, None, -1)
