"""The space of ternary operations and its 3-adic structure.

Conventions, used everywhere: an operation is a row of trits `(t_0, …, t_8)`, each in {-1, 0, 1}, least significant
first; its index is `i = Σ (t_k + 1)·3^k`, in 0 … 3^9 - 1. The valuation v(i) is the largest k with 3^k dividing i, and
v(0) = `n_trits` stands for infinity. The 3-adic distance of i and j is 3^(-v(i - j)), and 0 for i = j.

Every function takes `n_trits`. Those that list all operations are for at most `MOST_LISTED`.
"""

from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tvae.arrays import Bools, Floats, Ints, Trits
from tvae.config.architecture import MOST_LISTED
from tvae.errors import OperationError

__all__ = [
    "MOST_LISTED",
    "N_OPERATIONS",
    "N_TRITS",
    "ball",
    "distance",
    "held_out",
    "level_sizes",
    "of_level",
    "operations",
    "require_listed",
    "to_index",
    "to_trits",
    "valuation",
    "valuations",
]

N_TRITS = 9
N_OPERATIONS = 3**N_TRITS
HOLDOUT_SEED = 20_251_229
"""Which operations are held out is part of what a run is told: another seed is another experiment."""

_T = TypeVar("_T", bound=np.generic)


def to_trits(index: npt.ArrayLike, n_trits: int = N_TRITS) -> Trits:
    """Return the trits of operations given by index.

    Args:
        index: integers in 0 … 3^n_trits - 1, any shape `(…)`.
        n_trits: number of trits.

    Returns:
        Shape `(…, n_trits)`, values in {-1, 0, 1}, least significant first.

    Raises:
        OperationError: if an index is not an integer or out of range.

    Example:
        >>> to_trits(5).tolist()
        [1, 0, -1, -1, -1, -1, -1, -1, -1]
    """
    i = _as_index(index, n_trits)
    trits = np.empty((*i.shape, n_trits), dtype=np.int8)
    for k in range(n_trits):
        trits[..., k] = i // 3**k % 3 - 1
    return trits


def to_index(trits: npt.ArrayLike) -> Ints:
    """Return the index `Σ (t_k + 1)·3^k` of operations given by trits.

    Args:
        trits: values in {-1, 0, 1}, shape `(…, n_trits)`, least significant first.

    Returns:
        Shape `(…)`, in 0 … 3^n_trits - 1.

    Raises:
        OperationError: if a value is not in {-1, 0, 1}.

    Example:
        >>> int(to_index([1, 0, -1, -1, -1, -1, -1, -1, -1]))
        5
    """
    t = np.asarray(trits)
    if not np.isin(t, (-1, 0, 1)).all():
        raise OperationError(f"`trits` must be -1, 0 or 1, got {t[~np.isin(t, (-1, 0, 1))].flat[0]}.")
    powers: Ints = 3 ** np.arange(t.shape[-1], dtype=np.int64)
    index: Ints = (t.astype(np.int64) + 1) @ powers
    return index


@lru_cache
def operations(n_trits: int = N_TRITS) -> Trits:
    """Return all operations in index order, shape `(3^n_trits, n_trits)`, read-only.

    Raises:
        OperationError: if there are more than can be listed.
    """
    require_listed(n_trits)
    return _frozen(to_trits(np.arange(3**n_trits), n_trits))


def valuation(i: npt.ArrayLike, n_trits: int = N_TRITS) -> Ints:
    """Return the 3-adic valuation of integers: the largest k with 3^k dividing i, and `n_trits` for 0.

    Args:
        i: integers of absolute value below 3^n_trits, any shape; differences of indices are allowed.
        n_trits: number of trits, and the valuation of 0.

    Returns:
        Same shape, in 0 … n_trits.

    Example:
        >>> valuation([1, 3, -18, 0]).tolist()
        [0, 1, 2, 9]
    """
    integers = np.asarray(i, dtype=np.int64)
    v = np.zeros(integers.shape, dtype=np.int64)
    for k in range(1, n_trits + 1):
        v += integers % 3**k == 0
    return v


@lru_cache
def valuations(n_trits: int = N_TRITS) -> Ints:
    """Return the valuation of every operation in index order, shape `(3^n_trits,)`, read-only.

    Raises:
        OperationError: if there are more than can be listed.
    """
    require_listed(n_trits)
    return _frozen(valuation(np.arange(3**n_trits), n_trits))


def of_level(valuation: npt.ArrayLike, place: npt.ArrayLike, n_trits: int = N_TRITS) -> Ints:
    """Return the operations at given places among those of their valuation, in ascending order.

    Args:
        valuation: in 0 … n_trits.
        place: in 0 … `level_sizes` - 1, of a shape that broadcasts with `valuation`.
        n_trits: number of trits.

    Returns:
        The broadcast shape: 3^v·u with u = 1, 2, 4, 5, 7, …, and 0 for the valuation of 0.

    Example:
        >>> of_level(1, [0, 1, 2]).tolist()
        [3, 6, 12]
    """
    v, m = np.asarray(valuation, dtype=np.int64), np.asarray(place, dtype=np.int64)
    return np.where(v == n_trits, 0, 3**v * (m + m // 2 + 1))


def level_sizes(n_trits: int = N_TRITS) -> Ints:
    """Return how many operations have valuation 0, …, n_trits, shape `(n_trits + 1,)`.

    Example:
        >>> level_sizes().tolist()
        [13122, 4374, 1458, 486, 162, 54, 18, 6, 2, 1]
    """
    below_top = 2 * 3 ** np.arange(n_trits - 1, -1, -1, dtype=np.int64)
    return np.append(below_top, 1)


def distance(i: npt.ArrayLike, j: npt.ArrayLike, n_trits: int = N_TRITS) -> Floats:
    """Return the 3-adic distance 3^(-v(i - j)), 0 where i = j.

    Args:
        i: indices, any shape.
        j: indices, of a shape that broadcasts with `i`.
        n_trits: number of trits.

    Returns:
        The broadcast shape, values 0 or in 3^(-n_trits + 1) … 1.
    """
    difference = np.asarray(i, dtype=np.int64) - np.asarray(j, dtype=np.int64)
    return np.where(difference == 0, 0.0, 3.0 ** -valuation(difference, n_trits).astype(np.float64))


def ball(i: int, level: int, n_trits: int = N_TRITS) -> Ints:
    """Return the 3-adic ball i + 3^level·Z around an operation: all indices with its first `level` trits.

    Args:
        i: the centre, an index.
        level: in 0 … n_trits; the ball has 3^(n_trits - level) members, `i` among them.
        n_trits: number of trits.

    Returns:
        Shape `(3^(n_trits - level),)`, ascending.

    Raises:
        OperationError: if `i` or `level` is out of range.
    """
    _as_index(i, n_trits)
    if not 0 <= level <= n_trits:
        raise OperationError(f"`level` must be in 0 … {n_trits}, got {level}.")
    return np.arange(i % 3**level, 3**n_trits, 3**level, dtype=np.int64)


@lru_cache
def held_out(share: float, n_trits: int = N_TRITS) -> Bools:
    """Return which operations are kept from every loss where a share of them is held out, read-only.

    The same operations for every seed, and of a smaller share some of those of a larger one. Operation 0, about which
    the ball is centred, is never held out.

    Args:
        share: in [0, 1); of any above 0 at least one operation is held out.
        n_trits: number of trits.

    Returns:
        Boolean, shape `(3^n_trits,)`, in index order.

    Raises:
        OperationError: if there are more operations than can be listed.
    """
    require_listed(n_trits)
    n = 3**n_trits
    order = 1 + np.random.default_rng(HOLDOUT_SEED).permutation(n - 1)
    chosen = np.zeros(n, dtype=bool)
    if share:
        chosen[order[: min(n - 2, max(1, round(share * n)))]] = True
    return _frozen(chosen)


def require_listed(n_trits: int) -> None:
    """Refuse what needs all operations where there are too many.

    Raises:
        OperationError: if there are more than 3^13.
    """
    if n_trits > MOST_LISTED:
        raise OperationError(
            f"All operations are listed up to n_trits = {MOST_LISTED} ({3**MOST_LISTED:,}), got n_trits = {n_trits}."
        )


def _as_index(index: npt.ArrayLike, n_trits: int) -> Ints:
    i = np.asarray(index)
    if not np.issubdtype(i.dtype, np.integer):
        raise OperationError(f"`index` must be integers, got {i.dtype}.")
    outside = (i < 0) | (i >= 3**n_trits)
    if outside.any():
        raise OperationError(f"`index` must be in 0 … {3**n_trits - 1}, got {i[outside].flat[0]}.")
    return i.astype(np.int64)


def _frozen(array: npt.NDArray[_T]) -> npt.NDArray[_T]:
    array.flags.writeable = False
    return array
