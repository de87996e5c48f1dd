"""The space of operations, against naive loops. Levels, ultrametric and balls are in test_docs_math.py."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tvae import ternary


def naive_valuation(i: int, n_trits: int) -> int:
    if i == 0:
        return n_trits
    v = 0
    while i % 3 == 0:
        i, v = i // 3, v + 1
    return v


def test_there_are_19683_operations() -> None:
    assert (ternary.N_TRITS, ternary.N_OPERATIONS) == (9, 19_683)


def test_trits_are_the_digits_least_significant_first() -> None:
    rows = np.array(list(itertools.product((-1, 0, 1), repeat=9)))
    assert np.array_equal(ternary.operations(), rows[:, ::-1])


def test_to_index_inverts_to_trits_on_every_operation() -> None:
    assert np.array_equal(ternary.to_index(ternary.to_trits(np.arange(19_683))), np.arange(19_683))


def test_trits_keep_the_shape_of_the_index() -> None:
    assert ternary.to_trits(np.arange(6).reshape(2, 3), n_trits=4).shape == (2, 3, 4)


def test_index_keeps_the_shape_of_the_trits() -> None:
    assert ternary.to_index(np.zeros((2, 3, 4))).tolist() == [[40] * 3] * 2


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64])
def test_index_of_any_integer_type_is_read(dtype: type) -> None:
    assert ternary.to_trits(np.array([100], dtype=dtype)).tolist() == [[0, -1, 1, -1, 0, -1, -1, -1, -1]]


@pytest.mark.parametrize("n_trits", range(1, 8))
def test_level_sizes_count_the_naive_valuations(n_trits: int) -> None:
    naive = [naive_valuation(i, n_trits) for i in range(3**n_trits)]
    assert ternary.level_sizes(n_trits).tolist() == np.bincount(naive).tolist()


def test_valuation_is_that_of_a_naive_loop_on_every_difference() -> None:
    differences = np.arange(-19_682, 19_683)
    assert ternary.valuation(differences).tolist() == [naive_valuation(int(i), 9) for i in differences]


@pytest.mark.parametrize("n_trits", [1, 2, 3])
def test_distance_is_that_of_a_naive_loop(n_trits: int) -> None:
    n = 3**n_trits
    naive = [[0.0 if i == j else 3.0 ** -naive_valuation(i - j, n_trits) for j in range(n)] for i in range(n)]
    assert ternary.distance(np.arange(n)[:, None], np.arange(n), n_trits).tolist() == naive


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
