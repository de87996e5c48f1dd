"""Operations as two-input gates: 9 trits are the table of a function of two trits.

Trit 3·(x + 1) + (y + 1) is the gate's output for the inputs x and y, each in {-1, 0, 1}. Written in three lines of
three, the trits are the table itself: a line an x, a column a y.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tvae import ternary
from tvae.arrays import Bools, Trits

__all__ = ["NAMES", "associative", "commutative", "index", "monotone"]

_INPUTS = (-1, 0, 1)


def index(gate: Callable[[int, int], int]) -> int:
    """Return the index of a gate given as a function of two trits.

    Raises:
        OperationError: if it returns what is no trit.

    Example:
        >>> index(min)
        15633
    """
    return int(ternary.to_index([gate(x, y) for x in _INPUTS for y in _INPUTS]))


def _modulo(x: int) -> int:
    return (x + 1) % 3 - 1


def _sign(x: int) -> int:
    return (x > 0) - (x < 0)


_GATES: dict[str, Callable[[int, int], int]] = {
    "constant −": lambda x, y: -1,
    "constant 0": lambda x, y: 0,
    "constant +": lambda x, y: 1,
    "x": lambda x, y: x,
    "y": lambda x, y: y,
    "not x": lambda x, y: -x,
    "not y": lambda x, y: -y,
    "min (and)": min,
    "max (or)": max,
    "nand": lambda x, y: -min(x, y),
    "nor": lambda x, y: -max(x, y),
    "product (equivalence)": lambda x, y: x * y,
    "xor": lambda x, y: -x * y,
    "consensus (carry)": lambda x, y: x if x == y else 0,
    "any": lambda x, y: _sign(x + y),
    "sum modulo 3": lambda x, y: _modulo(x + y),
    "difference modulo 3": lambda x, y: _modulo(x - y),
    "comparison": lambda x, y: _sign(x - y),
    "equality": lambda x, y: 1 if x == y else -1,
    "implication (Kleene)": lambda x, y: max(-x, y),
    "implication (Łukasiewicz)": lambda x, y: min(1, 1 - x + y),
    "implication (Gödel)": lambda x, y: 1 if x <= y else y,
}

NAMES = {index(gate): name for name, gate in _GATES.items()}
"""Gates that have a name, by index, in the words of balanced ternary and of Kleene's logic; x and y are the inputs."""


def commutative(trits: npt.ArrayLike) -> Bools:
    """Return which gates give the same for (x, y) and (y, x), shape `(n,)` for trits `(n, 9)`: 729 of all 19,683."""
    table = _tables(trits)
    equal: Bools = (table == table.swapaxes(1, 2)).all((1, 2))
    return equal


def monotone(trits: npt.ArrayLike) -> Bools:
    """Return which gates never fall where an input rises, shape `(n,)` for trits `(n, 9)`: 175 of all 19,683."""
    table = _tables(trits)
    steps = np.concatenate([np.diff(table, axis=1).reshape(-1, 6), np.diff(table, axis=2).reshape(-1, 6)], axis=1)
    return np.asarray((steps >= 0).all(1))


def associative(trits: npt.ArrayLike) -> Bools:
    """Return which gates give g(g(x, y), z) = g(x, g(y, z)), shape `(n,)` for trits `(n, 9)`: 113 of all 19,683."""
    g = _tables(trits).astype(np.int64) + 1
    x, y, z = np.ogrid[:3, :3, :3]
    row = np.arange(len(g))[:, None, None, None]
    equal: Bools = (g[row, g[:, x, y], z] == g[row, x, g[:, y, z]]).all((1, 2, 3))
    return equal


def _tables(trits: npt.ArrayLike) -> Trits:
    """Return trits `(n, 9)` as tables `(n, 3, 3)`, x by y."""
    t = np.asarray(trits, dtype=np.int8)
    if t.ndim != 2 or t.shape[1] != 9:
        raise ValueError(f"`trits` must have shape (n, 9), the tables of two-input gates, got {t.shape}.")
    return t.reshape(-1, 3, 3)
