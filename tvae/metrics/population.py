"""The operations that metrics are taken of, and the fixed samples of them.

Operations are all listed where there are at most 3^13; of more trits there is a fixed sample.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from tvae import ternary
from tvae.arrays import Bools, Floats, Ints
from tvae.torch_defaults import torch_defaults

__all__ = [
    "N_PAIRS",
    "SAMPLE_SEED",
    "Population",
    "in_pairs",
    "population",
    "sample_pairs",
    "sample_partners",
    "targets",
    "trit_table",
]

# The samples are part of the metrics' definition: another seed is another metric.
SAMPLE_SEED = 20_251_229
N_PAIRS = 40_960
# Of operations that are not listed: so many drawn evenly, and then so many of each level.
N_DRAWN = 3**10
N_DRAWN_OF_LEVEL = 3**5


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """Some operations, in the order in which everything that is measured of them comes.

    Attributes:
        index: of the operations, shape `(N,)`; in index order where they are all.
        valuations: of the operations, shape `(N,)`.
        n_even: how many of them, from the first on, stand for the whole space. Those after them are there so that each
            level has some.
        level_sizes: how many of them have valuation 0, …, n_trits.
    """

    index: Ints
    valuations: Ints
    n_even: int
    level_sizes: Ints

    def __len__(self) -> int:
        return len(self.index)

    def subset(self, chosen: Bools) -> "Population":
        """Return those of them that are chosen, a boolean each."""
        valuations, n_even = self.valuations[chosen], int(chosen[: self.n_even].sum())
        sizes = np.bincount(valuations, minlength=len(self.level_sizes))
        return Population(self.index[chosen], valuations, n_even, sizes)


@lru_cache
def population(n_trits: int) -> Population:
    """Return the operations of some trits that metrics are taken of."""
    sizes = ternary.level_sizes(n_trits)
    if n_trits <= ternary.MOST_LISTED:
        return Population(np.arange(3**n_trits), ternary.valuations(n_trits), 3**n_trits, sizes)
    rng = np.random.default_rng(SAMPLE_SEED)
    drawn = [rng.integers(3**n_trits, size=N_DRAWN)]
    for level, size in enumerate(sizes.tolist()):
        places = np.arange(size) if size <= N_DRAWN_OF_LEVEL else rng.integers(size, size=N_DRAWN_OF_LEVEL)
        drawn.append(ternary.of_level(level, places, n_trits))
    index = np.concatenate(drawn)
    valuations = ternary.valuation(index, n_trits)
    return Population(index, valuations, N_DRAWN, np.bincount(valuations, minlength=n_trits + 1))


@lru_cache
@torch_defaults()
def trit_table(n_trits: int) -> Tensor:
    """Return the population as the network's input, float32 of shape `(N, n_trits)`."""
    return torch.from_numpy(ternary.to_trits(population(n_trits).index, n_trits).astype(np.float32))


@lru_cache
@torch_defaults()
def targets(n_trits: int) -> Tensor:
    """Return the population as classes 0, 1, 2 for -1, 0, 1, uint8 of shape `(N, n_trits)`."""
    return torch.from_numpy((ternary.to_trits(population(n_trits).index, n_trits) + 1).astype(np.uint8))


@lru_cache
@torch_defaults()
def sample_pairs(n_trits: int) -> tuple[Tensor, Tensor, Floats]:
    """Return a fixed sample of pairs i != j of the population that stand for the whole space, each of shape `(40960,)`.

    Returns:
        Places in the population, twice, and the 3-adic distances of the pairs.
    """
    rng = np.random.default_rng(SAMPLE_SEED)
    n, index = population(n_trits).n_even, population(n_trits).index
    i = rng.integers(n, size=N_PAIRS)
    j = (i + rng.integers(1, n, size=N_PAIRS)) % n
    return torch.from_numpy(i), torch.from_numpy(j), ternary.distance(index[i], index[j], n_trits)


@lru_cache
@torch_defaults()
def in_pairs(n_trits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return which of the population are in `sample_pairs`, boolean `(N,)`, and the places of the pairs among these."""
    i, j, _ = sample_pairs(n_trits)
    there = torch.zeros(len(population(n_trits)), dtype=torch.bool)
    there[i] = there[j] = True
    place = there.cumsum(0) - 1
    return there, place[i], place[j]


@lru_cache
@torch_defaults()
def sample_partners(n_trits: int) -> tuple[Tensor, Tensor]:
    """Return operations, and for each valuation k and operation i a fixed operation j with v(i - j) = k.

    Returns:
        Indices, shapes `(n,)` and `(n_trits, n)`: of all operations in order, or of 3^10 of them if there are more,
        whose first ten trits are those of all operations of ten trits in order.
    """
    rng, n = np.random.default_rng(SAMPLE_SEED), min(3**n_trits, N_DRAWN)
    k = np.arange(n_trits)[:, None]
    # 3^k·u with u not divisible by 3: modulo N there are 2·3^(n_trits - 1 - k) of them.
    u = 3 * rng.integers(3 ** (n_trits - 1 - k), size=(n_trits, n)) + rng.integers(1, 3, size=(n_trits, n))
    # One of each 3-adic ball that has as many members as there are too many.
    i = np.arange(n) + n * rng.integers(3**n_trits // n, size=n)
    return torch.from_numpy(i), torch.from_numpy((i + 3**k * u) % 3**n_trits)
