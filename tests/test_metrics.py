"""The metrics, against scipy, naive loops, and embeddings whose worth is known."""

import dataclasses
import itertools
import math
import statistics

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

import tvae
from tvae import metrics, ternary
from tvae.config.architecture import Architecture
from tvae.errors import EvaluationError
from tvae.metrics import Evaluation, Measurement, evaluate, measure
from tvae.model import Embedding, TernaryVAE

Floats = npt.NDArray[np.float64]


def directions(n: int, dimension: int = 8) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(n, dimension, dtype=torch.float64), dim=-1)


def random_embedding(n_trits: int) -> Embedding:
    n = 3**n_trits
    return Embedding(torch.rand(n, dtype=torch.float64) * 0.95, directions(n))


def embedding_of(unit_norms: npt.ArrayLike) -> Embedding:
    norms = torch.tensor(np.asarray(unit_norms, dtype=np.float64))
    return Embedding(norms, directions(len(norms)))


def level_norms(by_level: npt.ArrayLike, n_trits: int) -> Floats:
    """Every operation at the unit norm of its level, given from valuation 0 up."""
    norms: Floats = np.asarray(by_level, dtype=np.float64)[ternary.valuations(n_trits)]
    return norms


def perfect_norms(n_trits: int) -> Floats:
    """Distinct unit norms, every level's below those of the level before."""
    norms = np.empty(3**n_trits)
    norms[np.argsort(-ternary.valuations(n_trits), kind="stable")] = np.linspace(0.05, 0.95, 3**n_trits)
    return norms


def tree_embedding(n_trits: int) -> Embedding:
    """One radius, and directions that agree the more, the longer the trits that two operations share.

    One axis for each string of first trits; an operation has the length 2^-k on that of its first k trits.
    """
    rows = []
    for i in range(3**n_trits):
        axes = [np.eye(3**k)[i % 3**k] * 2.0**-k for k in range(1, n_trits + 1)]
        rows.append(np.concatenate(axes))
    direction = torch.nn.functional.normalize(torch.tensor(np.array(rows)), dim=-1)
    return Embedding(torch.full((3**n_trits,), 0.9, dtype=torch.float64), direction)


def distances(embedding: Embedding, curvature: float) -> Floats:
    """Every hyperbolic distance, from the hyperbolic law of cosines."""
    a = 2 * np.arctanh(embedding.unit_norm.numpy())
    u = embedding.direction.numpy()
    cosh = np.cosh(a)[:, None] * np.cosh(a) - np.sinh(a)[:, None] * np.sinh(a) * (u @ u.T)
    matrix: Floats = np.arccosh(np.maximum(cosh, 1)) / math.sqrt(curvature)
    return matrix


def naive_tree_precision(matrix: Floats, n_trits: int) -> list[float]:
    """Tree precision for each k; of operations at the farthest distance, each counts with its chance to be drawn."""
    n = 3**n_trits
    by_level = []
    for k in range(1, n_trits):
        shares = []
        for i in range(n):
            others = [j for j in range(n) if j != i]
            wanted = 3 ** (n_trits - k) - 1
            share = 0.0
            for j in others:
                if j % 3**k == i % 3**k:
                    nearer = sum(matrix[i, m] < matrix[i, j] for m in others)
                    equal = sum(matrix[i, m] == matrix[i, j] for m in others)
                    share += min(1.0, max(0.0, (wanted - nearer) / equal))
            shares.append(share / wanted)
        by_level.append(float(np.mean(shares)))
    return by_level


def model_of(architecture: Architecture) -> TernaryVAE:
    model = TernaryVAE(architecture)
    model.initialise(torch.Generator().manual_seed(0))
    return model


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate(model_of(Architecture()))


SMALL = Architecture(n_trits=4, latent_dim=6, encoder_hidden=(20,), decoder_hidden=(12,), hidden_dim=16)


# Hierarchy


@pytest.mark.parametrize("n_trits", [2, 5, 9])
@pytest.mark.parametrize("digits", [15, 2, 1])
def test_hierarchy_is_the_spearman_correlation_of_valuation_and_radius(n_trits: int, digits: int) -> None:
    norms = np.round(np.random.default_rng(0).uniform(0, 0.9, 3**n_trits), digits)
    expected = spearmanr(ternary.valuations(n_trits), 2 * np.arctanh(norms)).statistic
    found = measure(embedding_of(norms), n_trits=n_trits, curvature=2.0).hierarchy
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n_trits", [2, 5, 9])
def test_perfect_embedding_reaches_the_hierarchy_ceiling(n_trits: int) -> None:
    found = measure(embedding_of(perfect_norms(n_trits)), n_trits=n_trits, curvature=2.0)
    assert found.hierarchy == pytest.approx(metrics.hierarchy_ceiling(n_trits), abs=1e-12)


def test_hierarchy_ceiling_of_9_trits() -> None:
    assert metrics.hierarchy_ceiling() == pytest.approx(-0.83205, abs=5e-6)


@pytest.mark.parametrize("shift", range(5))
def test_distinct_radii_do_not_pass_the_hierarchy_ceiling(shift: int) -> None:
    norms = np.sort(np.random.default_rng(shift).uniform(0, 0.9, 81))[::-1]
    noisy = ternary.valuations(4) + np.random.default_rng(shift).uniform(0, 0.7 + shift / 10, 81)
    ranked = np.empty(81)
    ranked[np.argsort(noisy)] = norms
    assert metrics.hierarchy_ceiling(4) <= measure(embedding_of(ranked), n_trits=4, curvature=1.0).hierarchy < 0


def test_tied_radii_pass_the_hierarchy_ceiling() -> None:
    tied = measure(embedding_of(level_norms(np.linspace(0.9, 0, 10), 9)), n_trits=9, curvature=2.0)
    assert tied.hierarchy == pytest.approx(-1.0, abs=1e-12)


def test_upside_down_embedding_has_the_hierarchy_of_the_other_sign() -> None:
    found = measure(embedding_of(1 - perfect_norms(5)), n_trits=5, curvature=2.0)
    assert found.hierarchy == pytest.approx(-metrics.hierarchy_ceiling(5), abs=1e-12)


# Distance fidelity


def values_of_pairs(n_trits: int, by_pair: Floats) -> Floats:
    """What the sample's pairs have, given for every unordered pair (i, j) at min(i, j)·N + max(i, j)."""
    i, j = (side.numpy() for side in metrics.sample_pairs(n_trits)[:2])
    return by_pair[np.minimum(i, j) * 3**n_trits + np.maximum(i, j)]


@pytest.mark.parametrize("n_trits", [2, 3, 5])
def test_pairs_in_order_reach_the_ceiling_of_distance_fidelity(n_trits: int) -> None:
    n, apart = 3**n_trits, metrics.sample_pairs(n_trits)[2]
    pair = np.arange(n * n, dtype=np.float64)
    in_order = values_of_pairs(n_trits, pair / n**2) + apart * n**2
    assert spearmanr(apart, in_order).statistic == pytest.approx(metrics.distance_fidelity_ceiling(n_trits), abs=1e-12)


@pytest.mark.parametrize("noise", [0.01, 0.1, 1.0, 10.0])
def test_distinct_distances_do_not_pass_the_ceiling_of_distance_fidelity(noise: float) -> None:
    drawn = np.random.default_rng(0).uniform(0, noise, 3**6)
    apart = metrics.sample_pairs(3)[2]
    found = spearmanr(apart, apart + values_of_pairs(3, drawn)).statistic
    assert found <= metrics.distance_fidelity_ceiling(3) + 1e-12


# Richness and levels


def test_richness_is_the_mean_of_the_variances_within_levels() -> None:
    norms = np.random.default_rng(0).uniform(0, 0.9, 19_683)
    by_level: list[list[float]] = [[] for _ in range(10)]
    for x, level in zip(norms.tolist(), ternary.valuations().tolist(), strict=True):
        by_level[level].append(x)
    variances = [statistics.pvariance(xs) for xs in by_level]
    found = measure(embedding_of(norms), n_trits=9, curvature=2.0)
    assert found.richness == pytest.approx(sum(variances) / 10, rel=1e-12)
    assert found.level_richness == pytest.approx([variance / 10 for variance in variances], rel=1e-9)
    assert sum(found.level_richness) == pytest.approx(found.richness, rel=1e-12)


def test_richness_of_an_isometry_is_0() -> None:
    found = measure(embedding_of(level_norms(np.linspace(0.9, 0, 10), 9)), n_trits=9, curvature=2.0)
    assert found.richness == pytest.approx(0, abs=1e-20)


def extremal_norms(max_radius: float) -> Floats:
    """Level 0 half at max_radius and half just above the other levels, which crowd at the origin in order."""
    norms = perfect_norms(9) * 1e-4
    norms[np.argsort(norms)[-6561:]] += max_radius - 1e-4
    return norms


@pytest.mark.parametrize("max_radius", [0.5, 0.95])
def test_extremal_embedding_reaches_the_richness_ceiling(max_radius: float) -> None:
    found = measure(embedding_of(extremal_norms(max_radius)), n_trits=9, curvature=2.0)
    assert found.hierarchy == pytest.approx(metrics.hierarchy_ceiling(), abs=1e-12)
    assert found.richness == pytest.approx(metrics.richness_ceiling(max_radius), rel=1e-3)
    assert found.richness < metrics.richness_ceiling(max_radius)


def test_richness_ceiling_counts_the_levels() -> None:
    assert metrics.richness_ceiling(0.8, n_trits=4) == pytest.approx(0.8**2 / 20)


@pytest.mark.parametrize(
    ("by_level", "expected"),
    [
        ([0.9, 0.7, 0.5, 0.3, 0.1], 4),
        ([0.9, 0.7, 0.8, 0.3, 0.1], 3),
        ([0.9, 0.7, 0.7, 0.3, 0.1], 3),
        ([0.1, 0.3, 0.5, 0.7, 0.9], 0),
        ([0.5, 0.5, 0.5, 0.5, 0.5], 0),
    ],
)
def test_ordered_levels_count_the_strict_falls_of_the_mean_radius(by_level: list[float], expected: int) -> None:
    # Radii in eighths, so that equal levels have equal means to the last bit.
    radii = np.round(np.asarray(by_level) * 80) / 8
    norms = level_norms(np.tanh(radii / 2), 4)
    assert measure(embedding_of(norms), n_trits=4, curvature=1.0).ordered_levels == expected


@pytest.mark.parametrize("n_trits", [2, 5, 9])
@pytest.mark.parametrize("overlap", [0.0, 1.0, 30.0])
def test_level_gaps_are_those_of_a_loop_over_levels(n_trits: int, overlap: float) -> None:
    rng, valuations = np.random.default_rng(0), ternary.valuations(n_trits)
    norms = level_norms(np.linspace(0.9, 0.05, n_trits + 1), n_trits) * rng.uniform(
        1 - overlap / 40, 1, len(valuations)
    )
    radii: list[list[float]] = [[] for _ in range(n_trits + 1)]
    for x, level in zip(norms.tolist(), valuations.tolist(), strict=True):
        radii[level].append(2 * math.atanh(x) / math.sqrt(2))
    means = [sum(rs) / len(rs) for rs in radii]
    step = abs(means[0] - means[-1]) / n_trits
    expected = [(min(outer) - max(inner)) / step for outer, inner in itertools.pairwise(radii)]
    found = measure(embedding_of(norms), n_trits=n_trits, curvature=2.0)
    assert found.level_gaps == pytest.approx(expected, rel=1e-9)
    assert found.level_gap == min(found.level_gaps)
    assert (found.level_gap > 0) == (overlap < 30)


def test_level_gap_is_1_for_even_shells_and_below_0_where_levels_are_reversed() -> None:
    even = np.tanh(np.linspace(2, 0, 5) / 2)
    found = [
        measure(embedding_of(level_norms(by, 4)), n_trits=4, curvature=1.0).level_gaps for by in (even, even[::-1])
    ]
    assert found == [pytest.approx([1.0] * 4), pytest.approx([-1.0] * 4)]


def test_perfect_embedding_has_every_level_in_order() -> None:
    assert measure(embedding_of(perfect_norms(9)), n_trits=9, curvature=2.0).ordered_levels == 9


@pytest.mark.parametrize("curvature", [0.01, 1.0, 100.0])
def test_level_radii_are_means_of_hyperbolic_radii(curvature: float) -> None:
    norms = np.random.default_rng(0).uniform(0, 0.9, 81)
    radii = 2 * np.arctanh(norms) / math.sqrt(curvature)
    expected = [radii[ternary.valuations(4) == level].mean() for level in range(5)]
    assert measure(embedding_of(norms), n_trits=4, curvature=curvature).level_radii == pytest.approx(expected)


# Distances


def test_sample_holds_40960_pairs_of_different_operations() -> None:
    i, j, _ = metrics.sample_pairs(9)
    assert len(i) == len(j) == 40_960
    assert (i != j).all()
    assert {int(t.min()) >= 0 and int(t.max()) < 19_683 for t in (i, j)} == {True}


def test_sample_comes_with_its_3_adic_distances() -> None:
    i, j, distance = metrics.sample_pairs(4)
    assert distance.tolist() == ternary.distance(i.numpy(), j.numpy(), 4).tolist()


def test_sample_is_the_same_every_time() -> None:
    first = metrics.sample_pairs(9)
    metrics.sample_pairs.cache_clear()
    assert all(
        torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(first, metrics.sample_pairs(9), strict=True)
    )


@pytest.mark.parametrize("n_trits", [3, 5])
@pytest.mark.parametrize("curvature", [0.5, 2.0])
def test_distance_fidelity_is_the_spearman_correlation_of_both_distances(n_trits: int, curvature: float) -> None:
    embedding = random_embedding(n_trits)
    i, j, _ = metrics.sample_pairs(n_trits)
    i, j = i.numpy(), j.numpy()
    expected = spearmanr(distances(embedding, curvature)[i, j], ternary.distance(i, j, n_trits)).statistic
    found = measure(embedding, n_trits=n_trits, curvature=curvature).distance_fidelity
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n_trits", [2, 3])
@pytest.mark.parametrize("curvature", [0.5, 2.0])
def test_tree_precision_is_that_of_a_naive_count(n_trits: int, curvature: float) -> None:
    embedding = random_embedding(n_trits)
    expected = naive_tree_precision(distances(embedding, curvature), n_trits)
    found = metrics.tree_precision_by_level(embedding, n_trits=n_trits, curvature=curvature)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n_trits", [2, 4, 5])
def test_tree_precision_of_an_exact_tree_is_1(n_trits: int) -> None:
    found = metrics.tree_precision_by_level(tree_embedding(n_trits), n_trits=n_trits, curvature=2.0)
    assert found == (1.0,) * (n_trits - 1)


def test_tree_precision_of_a_broken_tree_is_below_1() -> None:
    tree = tree_embedding(4)
    order = torch.arange(81)
    order[[0, 1]] = order[[1, 0]]
    found = metrics.tree_precision_by_level(Embedding(*(t[order] for t in tree)), n_trits=4, curvature=2.0)
    assert all(0 < precision < 1 for precision in found)


@pytest.mark.parametrize("n_trits", [2, 4])
def test_tree_precision_of_a_collapsed_model_is_that_of_a_draw_by_lot(n_trits: int) -> None:
    n = 3**n_trits
    point = Embedding(torch.full((n,), 0.5), torch.eye(4)[:1].expand(n, 4))
    expected = [(3 ** (n_trits - k) - 1) / (n - 1) for k in range(1, n_trits)]
    found = metrics.tree_precision_by_level(point, n_trits=n_trits, curvature=2.0)
    assert found == pytest.approx(expected, rel=1e-12)


def test_tree_precision_counts_ties_with_their_chance_to_be_drawn() -> None:
    # Two points with 13 and 14 operations: of the 12 or 13 at distance 0, the nearest 8 and the nearest 2 are drawn.
    place = torch.tensor(np.random.default_rng(0).permutation(27) % 2)
    embedding = Embedding(torch.tensor([0.2, 0.6])[place], torch.eye(2)[place])
    expected = naive_tree_precision((place[:, None] != place).double().numpy(), 3)
    found = metrics.tree_precision_by_level(embedding, n_trits=3, curvature=1.0)
    assert found == pytest.approx(expected, abs=1e-12)


def test_tree_precision_of_a_sample_is_the_mean_over_some_operations() -> None:
    embedding = random_embedding(4)
    sampled = metrics.tree_precision_by_level(embedding, n_trits=4, curvature=2.0, sample=20)
    anchors = np.random.default_rng(metrics.SAMPLE_SEED).choice(81, 20, replace=False)
    matrix = distances(embedding, 2.0)
    np.fill_diagonal(matrix, -1)
    nearest = np.argsort(matrix, axis=1)
    for k, found in zip(range(1, 4), sampled, strict=True):
        size = 3 ** (4 - k)
        shares = [np.mean(nearest[i, 1:size] % 3**k == i % 3**k) for i in anchors]
        assert found == pytest.approx(np.mean(shares), abs=1e-12)


# Sibling recall


@pytest.mark.parametrize("n_trits", [1, 2, 3, 4])
@pytest.mark.parametrize("curvature", [0.5, 2.0])
def test_sibling_recall_is_that_of_a_naive_count(n_trits: int, curvature: float) -> None:
    embedding = random_embedding(n_trits)
    matrix = distances(embedding, curvature)
    np.fill_diagonal(matrix, np.inf)
    n = 3**n_trits
    hits = sum(j in ((i + n // 3) % n, (i - n // 3) % n) for i in range(n) for j in np.argsort(matrix[i])[:2])
    found = metrics.sibling_recall(embedding, n_trits=n_trits, curvature=curvature)
    assert found == pytest.approx(hits / (2 * n), rel=1e-12)


@pytest.mark.parametrize("n_trits", [2, 4])
def test_sibling_recall_is_the_tree_precision_of_the_last_level(n_trits: int) -> None:
    embedding = random_embedding(n_trits)
    by_level = metrics.tree_precision_by_level(embedding, n_trits=n_trits, curvature=2.0)
    assert metrics.sibling_recall(embedding, n_trits=n_trits, curvature=2.0) == pytest.approx(by_level[-1], rel=1e-12)


@pytest.mark.parametrize("n_trits", [1, 3, 5])
def test_sibling_recall_of_an_exact_tree_is_1(n_trits: int) -> None:
    assert metrics.sibling_recall(tree_embedding(n_trits), n_trits=n_trits, curvature=2.0) == 1.0


def test_sibling_recall_of_a_tree_with_two_operations_exchanged_counts_whom_it_parts() -> None:
    tree, order = tree_embedding(5), torch.arange(243)
    order[[0, 1]] = order[[1, 0]]
    # Both miss both siblings, and are missed by two operations each.
    found = metrics.sibling_recall(Embedding(*(t[order] for t in tree)), n_trits=5, curvature=2.0)
    assert found == pytest.approx(1 - (2 * 2 + 4) / (2 * 243), rel=1e-12)


@pytest.mark.parametrize("n_trits", [1, 2, 6])
def test_sibling_recall_of_a_collapsed_model_is_that_of_a_draw_by_lot(n_trits: int) -> None:
    n = 3**n_trits
    point = Embedding(torch.full((n,), 0.5), torch.eye(4)[:1].expand(n, 4))
    assert metrics.sibling_recall(point, n_trits=n_trits, curvature=2.0) == pytest.approx(2 / (n - 1), rel=1e-12)


@pytest.mark.parametrize("places", [2, 40, 200])
def test_sibling_recall_counts_ties_with_their_chance_to_be_drawn(places: int) -> None:
    place = torch.tensor(np.random.default_rng(0).permutation(243) % places)
    embedding = Embedding(torch.linspace(0.1, 0.8, places)[place], directions(places).float()[place])
    expected = metrics.tree_precision_by_level(embedding, n_trits=5, curvature=1.0)[-1]
    assert metrics.sibling_recall(embedding, n_trits=5, curvature=1.0) == pytest.approx(expected, rel=1e-12)


# Ball coverage


def test_ball_coverage_of_points_that_all_differ_is_1() -> None:
    assert metrics.ball_coverage(random_embedding(5).points(2.0), curvature=2.0) == 1.0


@pytest.mark.parametrize("shared", [[5, 200], [5, 6, 7], [*range(243)]])
def test_operations_that_share_a_point_are_not_read_back(shared: list[int]) -> None:
    points = random_embedding(5).points(2.0)
    points[shared] = points[5].clone()
    assert metrics.ball_coverage(points, curvature=2.0) == pytest.approx(1 - len(shared) / 243, rel=1e-12)


def test_points_that_differ_in_the_last_bit_are_read_back() -> None:
    points = random_embedding(3).points(2.0).float()
    points[1] = points[0]
    points[1, 2] = torch.nextafter(points[0, 2], torch.tensor(1.0))
    assert metrics.ball_coverage(points, curvature=2.0) == 1.0


def test_a_point_that_rounding_has_moved_out_of_the_ball_is_not_read_back() -> None:
    points = random_embedding(3).points(2.0)
    points[4] *= 1 / (points[4].norm() * math.sqrt(2))
    assert metrics.ball_coverage(points, curvature=2.0) == pytest.approx(26 / 27, rel=1e-12)


def test_ball_coverage_is_the_share_that_decode_gives_back() -> None:
    # Moved to the centre, rounding would part operations of one point.
    model = model_of(dataclasses.replace(SMALL, centred=False))
    with torch.no_grad():
        # One trit is not looked at: operations come in threes of one point.
        model.encoder.hidden[0].weight[:, 2] = 0.0
    book = tvae.codebook(model)
    back = tvae.decode(book.points.numpy(), book)
    assert (back.distance == 0).all()
    assert len(set(back.index.tolist())) == 27
    assert evaluate(model).ball_coverage == 0.0
    assert evaluate(model_of(SMALL)).ball_coverage == 1.0


# Distances by valuation


@pytest.mark.parametrize("n_trits", [1, 3, 9])
def test_partners_differ_by_the_valuation_they_stand_for(n_trits: int) -> None:
    partner, i = metrics.sample_partners(n_trits)[1].numpy(), np.arange(3**n_trits)
    found = ternary.valuation(partner - i, n_trits)
    assert np.array_equal(found, np.broadcast_to(np.arange(n_trits)[:, None], found.shape))


def test_partners_are_drawn_from_all_that_there_are() -> None:
    partner, i = metrics.sample_partners(9)[1].numpy(), np.arange(19_683)
    for k in range(4, 9):
        assert len(np.unique((partner[k] - i) % 19_683)) == 2 * 3 ** (8 - k)


@pytest.mark.parametrize("curvature", [0.5, 2.0])
def test_distances_by_valuation_are_those_of_the_partners(curvature: float) -> None:
    embedding = random_embedding(4)
    expected = distances(embedding, curvature)[np.arange(81), metrics.sample_partners(4)[1].numpy()]
    found = metrics.distances_by_valuation(embedding, n_trits=4, curvature=curvature)
    assert found == pytest.approx(expected, rel=1e-6)


def test_level_distances_are_means_over_the_partners(evaluation: Evaluation) -> None:
    model = model_of(Architecture())
    with torch.no_grad():
        embedding = model.project(metrics.posterior_mean(model))
    found = metrics.distances_by_valuation(embedding, n_trits=9, curvature=2.0)
    assert evaluation.level_distances == pytest.approx([float(np.mean(row)) for row in found], rel=1e-12)


def test_distances_in_an_exact_tree_fall_with_the_valuation_and_are_all_equal_at_each() -> None:
    found = metrics.distances_by_valuation(tree_embedding(4), n_trits=4, curvature=2.0)
    assert np.allclose(found, found[:, :1])
    assert (np.diff(found[:, 0]) < 0).all()


# What cannot be measured


@pytest.mark.parametrize(
    ("value", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf"), (1.0, "1.0"), (-0.125, "-0.125")]
)
def test_unit_norm_outside_the_ball_is_refused(value: float, text: str) -> None:
    embedding = random_embedding(4)
    embedding.unit_norm[[7, 30]] = value
    message = rf"^Every radius must be finite and inside the ball; operation 7 has unit norm {text}, and 2 of 81 "
    with pytest.raises(EvaluationError, match=message):
        measure(embedding, n_trits=4, curvature=2.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_direction_that_is_not_finite_is_refused_also_outside_the_sample(value: float) -> None:
    i, j, _ = metrics.sample_pairs(9)
    unsampled = min(set(range(19_683)) - set(i.tolist()) - set(j.tolist()))
    embedding = random_embedding(9)
    embedding.direction[unsampled, 2] = value
    with pytest.raises(
        EvaluationError, match=rf"^Every direction must be finite; that of operation {unsampled} is not"
    ):
        measure(embedding, n_trits=9, curvature=2.0)


def test_model_of_nans_is_refused() -> None:
    model = model_of(SMALL)
    torch.nn.init.constant_(model.encoder.mean.bias, math.nan)
    with pytest.raises(EvaluationError, match="operation 0 has unit norm nan, and 81 of 81 operations"):
        evaluate(model)


def test_collapsed_model_has_hierarchy_0_and_no_order() -> None:
    n = 3**4
    collapsed = Embedding(torch.full((n,), 0.5), torch.eye(4)[:1].expand(n, 4))
    assert measure(collapsed, n_trits=4, curvature=2.0) == Measurement(
        hierarchy=0.0,
        richness=0.0,
        ordered_levels=0,
        level_gap=-1.0,
        distance_fidelity=0.0,
        level_gaps=(-1.0,) * 4,
        level_radii=(pytest.approx(2 * math.atanh(0.5) / math.sqrt(2), rel=1e-6),) * 5,  # type: ignore[arg-type]
        level_richness=(0.0,) * 5,
    )


# Coverage


def hand_made_model(n_trits: int = 3) -> TernaryVAE:
    """A model whose latent is the trits themselves, and whose decoder reads them off.

    Each hidden layer holds max(0, t) and max(0, -t) for every trit t: the logits of 1 and -1, beside 1/2 for 0.
    """
    width = 2 * n_trits
    architecture = Architecture(
        n_trits=n_trits, latent_dim=n_trits, encoder_hidden=(width,), decoder_hidden=(width,), hidden_dim=8
    )
    model = model_of(architecture)
    one = torch.eye(n_trits)
    split = torch.cat([one, -one])
    read = torch.zeros(n_trits, 3, width)
    for t in range(n_trits):
        read[t, 2, t] = read[t, 0, n_trits + t] = 1.0
    with torch.no_grad():
        for parameter in itertools.chain(model.encoder.parameters(), model.decoder.parameters()):
            parameter.zero_()
        model.encoder.hidden[0].weight.copy_(split)
        model.encoder.mean.weight.copy_(split.T)
        model.decoder.layers[0].weight.copy_(split)
        model.decoder.layers[2].weight.copy_(read.reshape(3 * n_trits, width))
        model.decoder.layers[2].bias[1::3] = 0.5
    return model


def test_coverage_of_a_decoder_that_reads_the_trits_off_is_1() -> None:
    assert evaluate(hand_made_model()).coverage == 1.0


@pytest.mark.parametrize(("blind", "expected"), [([0], 1 / 3), ([1, 2], 1 / 9), ([0, 1, 2], 1 / 27)])
def test_coverage_counts_only_operations_that_come_back_whole(blind: list[int], expected: float) -> None:
    model = hand_made_model()
    with torch.no_grad():
        model.decoder.layers[2].bias.view(3, 3)[blind, 1] = 9.0  # always 0 there, right for one operation in 3
    assert evaluate(model).coverage == pytest.approx(expected, rel=1e-12)


def test_reproduced_names_the_operations_that_come_back() -> None:
    model = hand_made_model()
    with torch.no_grad():
        model.decoder.layers[2].bias.view(3, 3)[0, 1] = 9.0
    found = metrics.reproduced(model, metrics.posterior_mean(model))
    assert found.tolist() == [row[0] == 0 for row in ternary.operations(3).tolist()]


def test_reproduced_of_a_cohort_is_that_of_each_member() -> None:
    good, bad = hand_made_model(), hand_made_model()
    torch.nn.init.zeros_(bad.decoder.layers[2].weight)
    cohort = TernaryVAE(good.architecture, members=2)
    states = good.state_dict(), bad.state_dict()
    cohort.load_state_dict({name: torch.stack([state[name] for state in states]) for name in states[0]})
    found = metrics.reproduced(cohort, metrics.posterior_mean(cohort))
    assert found.sum(-1).tolist() == [27, 1]


# Evaluation


def test_posterior_mean_is_the_encoders_mean_of_every_operation_in_order() -> None:
    model = model_of(Architecture())
    expected = model.encode(torch.tensor(ternary.operations(), dtype=torch.float32))[0]
    torch.testing.assert_close(metrics.posterior_mean(model), expected)


def test_targets_are_the_classes_of_the_trits() -> None:
    assert np.array_equal(metrics.targets(9).numpy(), ternary.operations() + 1)


def test_evaluation_holds_the_radius_and_the_norm_of_every_operation(evaluation: Evaluation) -> None:
    assert evaluation.radii.shape == evaluation.norms.shape == (19_683,)


def test_norms_are_those_of_the_points_of_the_model(evaluation: Evaluation) -> None:
    points = model_of(Architecture())(metrics.trit_table(9))
    assert evaluation.norms == pytest.approx(points.detach().double().norm(dim=-1).numpy(), rel=1e-5)


def test_radii_are_the_hyperbolic_lengths_of_the_norms(evaluation: Evaluation) -> None:
    expected = 2 / math.sqrt(2) * np.arctanh(math.sqrt(2) * evaluation.norms)
    assert evaluation.radii == pytest.approx(expected, rel=1e-5)


def test_hierarchy_can_be_computed_again_from_the_radii(evaluation: Evaluation) -> None:
    expected = spearmanr(ternary.valuations(), evaluation.radii).statistic
    assert evaluation.hierarchy == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("array", ["radii", "norms"])
def test_arrays_of_an_evaluation_are_read_only(evaluation: Evaluation, array: str) -> None:
    with pytest.raises(ValueError, match="read-only"):
        getattr(evaluation, array)[0] = 0.0


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Evaluation)])
def test_fields_of_an_evaluation_cannot_be_changed(evaluation: Evaluation, field: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match=field):
        setattr(evaluation, field, 0.0)


def test_evaluation_lists_its_metrics_under_the_names_they_are_logged_with(evaluation: Evaluation) -> None:
    assert evaluation.metrics() == {
        "coverage": evaluation.coverage,
        "hierarchy": evaluation.hierarchy,
        "richness": evaluation.richness,
        "ordered_levels": evaluation.ordered_levels,
        "level_gap": evaluation.level_gap,
        "distance_fidelity": evaluation.distance_fidelity,
        "tree_precision": evaluation.tree_precision,
        "sibling_recall": evaluation.sibling_recall,
        "ball_coverage": evaluation.ball_coverage,
        "q": evaluation.distance_fidelity + 1.5 * abs(evaluation.hierarchy),
    }


def test_tree_precision_is_the_mean_over_levels(evaluation: Evaluation) -> None:
    assert len(evaluation.tree_precision_by_level) == 8
    assert evaluation.tree_precision == pytest.approx(sum(evaluation.tree_precision_by_level) / 8, rel=1e-12)


def test_evaluation_agrees_with_the_measurement_of_its_embedding(evaluation: Evaluation) -> None:
    model = model_of(Architecture())
    with torch.no_grad():
        measured = measure(model.project(metrics.posterior_mean(model)), n_trits=9, curvature=2.0)
    found = dataclasses.asdict(measured)
    assert found == {name: getattr(evaluation, name) for name in found}
    assert measured.q == evaluation.q


def test_evaluating_twice_gives_the_same_to_the_last_bit() -> None:
    one, two = (evaluate(model_of(SMALL)) for _ in range(2))
    assert one.metrics() == two.metrics()
    assert np.array_equal(one.radii, two.radii)


@pytest.mark.parametrize("curvature", [0.25, 4.0])
def test_curvature_scales_radii_and_norms_by_its_inverse_root(curvature: float) -> None:
    flat, curved = (evaluate(model_of(dataclasses.replace(SMALL, curvature=c))) for c in (1.0, curvature))
    assert curved.norms == pytest.approx(flat.norms / math.sqrt(curvature), rel=1e-6)
    assert curved.radii == pytest.approx(flat.radii / math.sqrt(curvature), rel=1e-6)


@pytest.mark.parametrize("curvature", [0.25, 4.0])
def test_curvature_leaves_correlations_and_richness_alone(curvature: float) -> None:
    # A power of 4 scales every length by a power of 2, so not even a rounding differs.
    flat, curved = (evaluate(model_of(dataclasses.replace(SMALL, curvature=c))) for c in (1.0, curvature))
    assert curved.metrics() == flat.metrics()
