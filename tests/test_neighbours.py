"""What is asked of an embedding, against all distances."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from exact_model import exact_model, random_model, tree_model

import tvae
from tvae import poincare, ternary
from tvae.architecture import Architecture


@pytest.fixture(scope="module")
def book() -> tvae.Codebook:
    return tvae.codebook(random_model(Architecture(n_trits=5, latent_dim=6)))


def from_all(book: tvae.Codebook, i: int) -> np.ndarray:
    z = book.points.double()
    return poincare.distance_between_points(z[i], z, curvature=book.curvature).numpy()


@pytest.mark.parametrize("i", [0, 1, 121, 242])
@pytest.mark.parametrize("count", [1, 7, 242])
def test_the_nearest_operations_are_those_of_all_distances(book: tvae.Codebook, i: int, count: int) -> None:
    distances = from_all(book, i)
    order = [j for j in np.argsort(distances, kind="stable") if j != i][:count]
    found = tvae.nearest_operations(i, book, count=count)
    assert found.index.tolist() == order
    assert found.distance.tolist() == distances[order].tolist()


def test_an_operation_may_be_given_by_its_trits(book: tvae.Codebook) -> None:
    by_index = tvae.nearest_operations(77, book)
    by_trits = tvae.nearest_operations(ternary.to_trits(77, 5), book)
    assert by_index.index.tolist() == by_trits.index.tolist()
    assert len(by_index) == 10


def test_an_operation_is_not_its_own_neighbour_even_where_many_share_its_point() -> None:
    model = exact_model(4)
    with torch.no_grad():
        model.encoder.hidden[0].weight.zero_()
    found = tvae.nearest_operations(80, model, count=3)
    assert found.index.tolist() == [0, 1, 2]
    assert not found.distance.any()


def test_a_model_may_be_given_for_its_codebook() -> None:
    model = tree_model(4)
    assert tvae.nearest_operations(5, model, count=2).index.tolist() == [5 + 27, 5 + 54]


@pytest.mark.parametrize("level", range(6))
def test_the_members_of_a_3_adic_ball_come_by_their_distance(book: tvae.Codebook, level: int) -> None:
    found = tvae.adic_ball(100, level, book)
    assert sorted(found.index) == ternary.ball(100, level, 5).tolist()
    assert found.index[0] == 100
    assert found.distance.tolist() == sorted(from_all(book, 100)[found.index])
    assert np.array_equal(found.trits[:, :level], np.broadcast_to(found.trits[0, :level], (len(found), level)))


def test_in_a_ball_of_one_point_the_operation_comes_first() -> None:
    model = exact_model(3)
    with torch.no_grad():
        model.encoder.hidden[0].weight.zero_()
    assert tvae.adic_ball(14, 1, model).index.tolist() == [14, 2, 5, 8, 11, 17, 20, 23, 26]


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


@pytest.mark.parametrize("operation", [243, -1])
def test_an_index_that_is_not_there_is_refused(book: tvae.Codebook, operation: int) -> None:
    with pytest.raises(ValueError, match=rf"must be in 0 … 242, got {operation}\."):
        tvae.nearest_operations(operation, book)


def test_trits_of_another_width_are_refused(book: tvae.Codebook) -> None:
    with pytest.raises(ValueError, match=r"must be an index or 5 trits, got an array of shape \(9,\)"):
        tvae.adic_ball([0] * 9, 1, book)


def test_a_trit_that_is_none_is_refused(book: tvae.Codebook) -> None:
    with pytest.raises(ValueError, match="must be -1, 0 or 1, got 2"):
        tvae.geodesic(0, [0, 0, 2, 0, 0], book)


@pytest.mark.parametrize("count", [0, 243])
def test_more_neighbours_than_there_are_are_refused(book: tvae.Codebook, count: int) -> None:
    with pytest.raises(ValueError, match=rf"must be in 1 … 242, got {count}"):
        tvae.nearest_operations(0, book, count=count)


def test_a_level_that_is_not_there_is_refused(book: tvae.Codebook) -> None:
    with pytest.raises(ValueError, match=r"must be in 0 … 5, got 6"):
        tvae.adic_ball(0, 6, book)


def test_a_geodesic_needs_both_ends(book: tvae.Codebook) -> None:
    with pytest.raises(ValueError, match="at least 2, both ends, got 1"):
        tvae.geodesic(0, 1, book, count=1)


ASKED = (
    tvae.evaluate,
    tvae.codebook,
    lambda path: tvae.nearest_operations(5, path),
    lambda path: tvae.decode([], path),
)


@pytest.mark.parametrize("ask", ASKED)
def test_a_path_in_place_of_a_model_is_named(ask: Callable[[str], object]) -> None:
    with pytest.raises(TypeError, match=r"`tvae\.load\(path\)` returns it, got 'checkpoint\.safetensors'"):
        ask("checkpoint.safetensors")
