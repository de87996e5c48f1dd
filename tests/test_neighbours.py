"""What is asked of an embedding, against all distances."""

import pickle
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from exact_model import exact_model, random_model, tree_model
from sklearn.neighbors import NearestNeighbors

import tvae
from tvae import poincare, ternary
from tvae.config.architecture import Architecture
from tvae.embedding import queries as neighbours
from tvae.model import TernaryVAE


@pytest.fixture(scope="module")
def book() -> tvae.Codebook:
    return tvae.codebook(random_model(Architecture(n_trits=5, latent_dim=6)))


def in_one_point(n_trits: int) -> TernaryVAE:
    """Return a model that gives every operation the same point."""
    model = exact_model(n_trits)
    with torch.no_grad():
        model.encoder.hidden[0].weight.zero_()
    return model


def from_all(book: tvae.Codebook, i: int) -> np.ndarray:
    z = book.points.double()
    return poincare.distance_between_points(z[i], z, curvature=book.curvature).numpy()


@pytest.mark.parametrize(("i", "count"), [(0, 1), (121, 7), (242, 242)])
def test_the_nearest_operations_are_those_of_all_distances(book: tvae.Codebook, i: int, count: int) -> None:
    distances = from_all(book, i)
    order = [j for j in np.argsort(distances, kind="stable") if j != i][:count]
    found = tvae.nearest_operations(i, book, count=count)
    assert found.index.tolist() == order
    assert found.distance.tolist() == distances[order].tolist()


def test_a_model_may_be_given_for_its_codebook() -> None:
    model = tree_model(4)
    assert tvae.nearest_operations(5, model, count=2).index.tolist() == [5 + 27, 5 + 54]


MANY = [3, 200, 3, 0, 242, 100]


@pytest.mark.parametrize(
    "many",
    [MANY, np.array(MANY, np.uint8), [[i] for i in MANY], ternary.to_trits(MANY, 5)],
    ids=["list", "uint8", "column", "trits"],
)
def test_many_operations_are_asked_at_once(book: tvae.Codebook, many: object) -> None:
    found = tvae.nearest_operations(many, book, count=4)
    one_by_one = [tvae.nearest_operations(i, book, count=4) for i in MANY]
    for name in ("index", "trits", "valuation", "distance"):
        assert np.array_equal(getattr(found, name), [getattr(one, name) for one in one_by_one])


def test_an_operation_is_not_its_own_neighbour_even_where_many_share_its_point() -> None:
    found = tvae.nearest_operations([80, 1, 0], in_one_point(4), count=3)
    assert found.index.tolist() == [[0, 1, 2], [0, 2, 3], [1, 2, 3]]
    assert not found.distance.any()


def test_as_many_indices_as_an_operation_has_trits_are_given_as_a_column(book: tvae.Codebook) -> None:
    assert tvae.nearest_operations([[i] for i in range(5)], book, count=2).index.shape == (5, 2)
    with pytest.raises(ValueError, match="must be -1, 0 or 1, got 2"):
        tvae.nearest_operations(range(5), book)


def test_the_distance_of_pairs_is_that_of_their_points(book: tvae.Codebook) -> None:
    assert tvae.distance(3, 200, book) == from_all(book, 3)[200]
    assert tvae.distance([3, 4], [200, 4], book).tolist() == [from_all(book, 3)[200], 0.0]
    assert tvae.distance(3, np.arange(243), book).tolist() == from_all(book, 3).tolist()
    assert tvae.distance(ternary.to_trits([3, 4], 5), 200, book).tolist() == from_all(book, 200)[[3, 4]].tolist()


def test_a_matrix_has_all_pairs(book: tvae.Codebook) -> None:
    everyone = np.arange(243)
    matrix = tvae.distance(everyone[:7], everyone, book, matrix=True)
    assert matrix == pytest.approx(np.array([from_all(book, i) for i in range(7)]), rel=1e-12)
    assert not np.diag(matrix).any()


def test_a_matrix_is_measured_in_parts(book: tvae.Codebook, monkeypatch: pytest.MonkeyPatch) -> None:
    everyone = np.arange(243)
    whole = tvae.distance(everyone, everyone, book, matrix=True)
    monkeypatch.setattr(neighbours, "BLOCK", 1000)
    assert np.array_equal(tvae.distance(everyone, everyone, book, matrix=True), whole)


def test_points_may_be_given_for_operations(book: tvae.Codebook) -> None:
    z = book.points.double().numpy()
    assert tvae.distance(z[3], z[200], book) == from_all(book, 3)[200]
    assert tvae.distance(z[:4], 200, book).tolist() == from_all(book, 200)[:4].tolist()


def test_a_point_outside_is_refused_by_its_row(book: tvae.Codebook) -> None:
    with pytest.raises(ValueError, match=r"^Row 1 of `b` must lie inside the ball"):
        tvae.distance(3, [[0.0] * 6, [0.9] * 6], book)
    with pytest.raises(ValueError, match=r"`a` must be operations, or points of shape \(…, 6\), got shape \(2,\)"):
        tvae.distance([0.1, 0.2], 3, book)


def test_the_metric_is_the_distance(book: tvae.Codebook) -> None:
    metric, z = tvae.PoincareDistance(book.curvature), book.points.double().numpy()
    assert [metric(z[3], w) for w in z] == pytest.approx(from_all(book, 3).tolist(), rel=1e-9)
    assert pickle.loads(pickle.dumps(metric)) == metric


def test_scikit_learn_finds_the_same_neighbours_by_it(book: tvae.Codebook) -> None:
    embedded, metric = book.points.double().numpy(), tvae.PoincareDistance(book.curvature)
    by_tree = NearestNeighbors(n_neighbors=3, metric=metric, algorithm="ball_tree").fit(embedded)
    matrix = tvae.distance(range(243), range(243), book, matrix=True)
    by_matrix = NearestNeighbors(n_neighbors=3, metric="precomputed").fit(matrix)
    expected = tvae.nearest_operations(range(243), book, count=3)
    for found in (by_tree.kneighbors(), by_matrix.kneighbors()):
        assert np.array_equal(found[1], expected.index)
        assert found[0] == pytest.approx(expected.distance, rel=1e-9)


@pytest.mark.parametrize("level", range(6))
def test_the_members_of_a_3_adic_ball_come_by_their_distance(book: tvae.Codebook, level: int) -> None:
    found = tvae.adic_ball(100, level, book)
    assert sorted(found.index) == ternary.ball(100, level, 5).tolist()
    assert found.index[0] == 100
    assert found.distance.tolist() == sorted(from_all(book, 100)[found.index])
    assert np.array_equal(found.trits[:, :level], np.broadcast_to(found.trits[0, :level], (len(found), level)))


def test_in_a_ball_of_one_point_the_operation_comes_first() -> None:
    assert tvae.adic_ball(14, 1, in_one_point(3)).index.tolist() == [14, 2, 5, 8, 11, 17, 20, 23, 26]


def test_a_geodesic_ends_at_the_points_of_its_operations(book: tvae.Codebook) -> None:
    way = tvae.geodesic(3, 200, book, count=5)
    assert np.array_equal(way.points[[0, -1]], book.points[[3, 200]].double().numpy())
    assert way.operations.index[[0, -1]].tolist() == [3, 200]
    assert not way.operations.distance[[0, -1]].any()


def test_a_geodesic_is_walked_in_even_steps(book: tvae.Codebook) -> None:
    way = tvae.geodesic(3, 200, book, count=5)
    z = torch.tensor(way.points)
    steps = poincare.distance_between_points(z[:-1], z[1:], curvature=book.curvature).numpy()
    assert steps == pytest.approx([from_all(book, 3)[200] / 4] * 4, rel=1e-9)
    assert way.t.tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_the_operations_on_the_way_are_those_that_are_decoded(book: tvae.Codebook) -> None:
    way = tvae.geodesic(3, 200, book)
    assert way.operations.index.tolist() == tvae.decode(way.points, book).index.tolist()
    assert len(way.operations) == 9


def test_what_is_not_there_is_refused(book: tvae.Codebook) -> None:
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: tvae.nearest_operations(243, book), r"must be in 0 … 242, got 243\."),
        (lambda: tvae.nearest_operations(-1, book), r"must be in 0 … 242, got -1\."),
        (lambda: tvae.nearest_operations(0, book, count=0), "must be in 1 … 242, got 0"),
        (lambda: tvae.nearest_operations(0, book, count=243), "must be in 1 … 242, got 243"),
        (lambda: tvae.adic_ball([0] * 9, 1, book), r"must be an index or 5 trits, got an array of shape \(9,\)"),
        (lambda: tvae.adic_ball(0, 6, book), "must be in 0 … 5, got 6"),
        (lambda: tvae.geodesic(0, [0, 0, 2, 0, 0], book), "must be -1, 0 or 1, got 2"),
        (lambda: tvae.geodesic(0, 1, book, count=1), "at least 2, both ends, got 1"),
    ]
    for ask, message in refused:
        with pytest.raises(ValueError, match=message):
            ask()


@pytest.mark.parametrize(
    "ask", [tvae.evaluate, tvae.codebook, partial(tvae.nearest_operations, 5), partial(tvae.decode, [])]
)
def test_a_path_in_place_of_a_model_is_named(ask: Callable[[str], object]) -> None:
    with pytest.raises(TypeError, match=r"`tvae\.load\(path\)` returns it, got 'checkpoint\.safetensors'"):
        ask("checkpoint.safetensors")
