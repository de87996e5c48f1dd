"""The space of operations, against naive loops and exhaustive checks."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tvae import ternary

LEVEL_SIZES = [13122, 4374, 1458, 486, 162, 54, 18, 6, 2, 1]


def naive_valuation(i: int, n_trits: int) -> int:
    if i == 0:
        return n_trits
    v = 0
    while i % 3 == 0:
        i, v = i // 3, v + 1
    return v


def naive_ball(i: int, k: int, n_trits: int) -> list[int]:
    """Every index that shares the first k trits with i, found by comparing trits written out one by one."""
    trits = list(itertools.product((-1, 0, 1), repeat=n_trits))  # the last trit varies fastest: reversed digits
    rows = [row[::-1] for row in trits]
    return [j for j, row in enumerate(rows) if row[:k] == rows[i][:k]]


def triples(n_trits: int) -> tuple[npt.NDArray[Any], ...]:
    """All triples where there are few, a seeded sample of them where there are many."""
    n = 3**n_trits
    if n <= 81:
        return tuple(np.meshgrid(*[np.arange(n)] * 3, sparse=True))
    return tuple(np.random.default_rng(0).integers(n, size=(3, 200_000)))


def test_there_are_19683_operations() -> None:
    assert (ternary.N_TRITS, ternary.N_OPERATIONS) == (9, 19_683)


def test_trits_are_the_digits_least_significant_first() -> None:
    rows = np.array(list(itertools.product((-1, 0, 1), repeat=9)))
    assert np.array_equal(ternary.operations(), rows[:, ::-1])


def test_to_index_inverts_to_trits_on_every_operation() -> None:
    assert np.array_equal(ternary.to_index(ternary.to_trits(np.arange(19_683))), np.arange(19_683))


def test_all_rows_of_trits_differ() -> None:
    assert len(np.unique(ternary.operations(), axis=0)) == 19_683


def test_trits_keep_the_shape_of_the_index() -> None:
    assert ternary.to_trits(np.arange(6).reshape(2, 3), n_trits=4).shape == (2, 3, 4)


def test_index_keeps_the_shape_of_the_trits() -> None:
    assert ternary.to_index(np.zeros((2, 3, 4))).tolist() == [[40] * 3] * 2


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64])
def test_index_of_any_integer_type_is_read(dtype: type) -> None:
    assert ternary.to_trits(np.array([100], dtype=dtype)).tolist() == [[0, -1, 1, -1, 0, -1, -1, -1, -1]]


def test_valuation_counts_are_the_level_sizes() -> None:
    assert np.bincount(ternary.valuations()).tolist() == LEVEL_SIZES


@pytest.mark.parametrize("n_trits", range(1, 8))
def test_level_sizes_count_the_naive_valuations(n_trits: int) -> None:
    naive = [naive_valuation(i, n_trits) for i in range(3**n_trits)]
    assert ternary.level_sizes(n_trits).tolist() == np.bincount(naive).tolist()


def test_valuation_is_that_of_a_naive_loop_on_every_difference() -> None:
    differences = np.arange(-19_682, 19_683)
    assert ternary.valuation(differences).tolist() == [naive_valuation(int(i), 9) for i in differences]


def test_valuations_are_those_of_the_indices_in_order() -> None:
    assert np.array_equal(ternary.valuations(), ternary.valuation(np.arange(19_683)))


def test_valuation_of_a_product_is_the_sum_of_valuations() -> None:
    a, b = np.meshgrid(np.arange(1, 141), np.arange(1, 141))  # 140² is the largest square below 3^9
    assert np.array_equal(ternary.valuation(a * b), ternary.valuation(a) + ternary.valuation(b))


def test_valuation_of_a_sum_is_at_least_the_smaller_valuation() -> None:
    a, b = np.meshgrid(np.arange(-121, 122), np.arange(-121, 122))
    assert (ternary.valuation(a + b) >= np.minimum(ternary.valuation(a), ternary.valuation(b))).all()


@pytest.mark.parametrize("n_trits", [1, 2, 3])
def test_distance_is_that_of_a_naive_loop(n_trits: int) -> None:
    n = 3**n_trits
    naive = [[0.0 if i == j else 3.0 ** -naive_valuation(i - j, n_trits) for j in range(n)] for i in range(n)]
    assert ternary.distance(np.arange(n)[:, None], np.arange(n), n_trits).tolist() == naive


@pytest.mark.parametrize("n_trits", [2, 3, 4, 9])
def test_distance_obeys_the_strong_triangle_inequality(n_trits: int) -> None:
    i, j, k = triples(n_trits)
    d = ternary.distance
    assert (d(i, k, n_trits) <= np.maximum(d(i, j, n_trits), d(j, k, n_trits))).all()


@pytest.mark.parametrize("n_trits", [2, 3, 4, 9])
def test_every_triangle_is_isosceles_in_its_longest_sides(n_trits: int) -> None:
    i, j, k = triples(n_trits)
    d = ternary.distance
    sides = np.sort(np.stack(np.broadcast_arrays(d(i, j, n_trits), d(j, k, n_trits), d(i, k, n_trits))), axis=0)
    assert np.array_equal(sides[1], sides[2])


@pytest.mark.parametrize("n_trits", [4, 9])
def test_distance_is_symmetric_and_0_only_between_equals(n_trits: int) -> None:
    i, j, _ = triples(n_trits)
    forth, back = ternary.distance(i, j, n_trits), ternary.distance(j, i, n_trits)
    assert np.array_equal(forth, back)
    assert np.array_equal(forth == 0, np.broadcast_to(i == j, forth.shape))


@pytest.mark.parametrize("k", range(4))
@pytest.mark.parametrize("i", range(27))
def test_ball_is_what_shares_the_first_k_trits(i: int, k: int) -> None:
    assert ternary.ball(i, k, n_trits=3).tolist() == naive_ball(i, k, n_trits=3)


@pytest.mark.parametrize("k", range(10))
@pytest.mark.parametrize("i", [0, 1, 6561, 12_345, 19_682])
def test_ball_is_what_lies_within_3_to_the_minus_k(i: int, k: int) -> None:
    near = np.flatnonzero(ternary.distance(i, np.arange(19_683)) <= 3.0**-k)
    assert np.array_equal(ternary.ball(i, k), near)


@pytest.mark.parametrize("table", [ternary.operations, ternary.valuations])
def test_shared_tables_are_read_only(table: Callable[[], npt.NDArray[Any]]) -> None:
    with pytest.raises(ValueError, match="read-only"):
        table()[0] = 1


@pytest.mark.parametrize(("index", "found"), [(-1, -1), (19_683, 19_683), ([0, 19_683, -5], 19_683), ([[-7]], -7)])
def test_index_out_of_range_is_refused(index: npt.ArrayLike, found: int) -> None:
    with pytest.raises(ValueError, match=rf"^`index` must be in 0 … 19682, got {found}\.$"):
        ternary.to_trits(index)


@pytest.mark.parametrize(("index", "dtype"), [(1.0, "float64"), ([True], "bool"), ("5", "<U1"), ([None], "object")])
def test_index_that_is_no_integer_is_refused(index: Any, dtype: str) -> None:
    with pytest.raises(ValueError, match=rf"^`index` must be integers, got {dtype}\.$"):
        ternary.to_trits(index)


@pytest.mark.parametrize("value", [2, -2, 0.5, float("nan"), float("inf")])
def test_trit_of_another_value_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=rf"^`trits` must be -1, 0 or 1, got {value}\.$"):
        ternary.to_index([0, 1, value])


@pytest.mark.parametrize("k", [-1, 10])
def test_ball_of_a_level_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=rf"^`level` must be in 0 … 9, got {k}\.$"):
        ternary.ball(0, k)


def test_ball_around_an_index_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^`index` must be in 0 … 26, got 27\.$"):
        ternary.ball(27, 1, n_trits=3)
