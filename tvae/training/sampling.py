"""Which operations a step sees. Every draw comes from the run's own generator, whoever trains beside it."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tvae import ternary

__all__ = ["Sample", "Sampler"]


class Sample(NamedTuple):
    """The operations of one epoch, by index.

    Attributes:
        population: a random order of all operations; step s sees the next `batch_size`. Shape `(N,)`.
        stratified: operations drawn evenly within each level, shape `(steps, levels, S)`.
        nearer: for each operation of `population` one that is nearer to it, 3-adically, than …
        farther: … this one, by one level. Shapes `(N,)`, empty unless asked for.
    """

    population: Tensor
    stratified: Tensor
    nearer: Tensor
    farther: Tensor


class Sampler:
    """Draws the operations of each epoch.

    Args:
        n_trits: number of trits.
        batch_size: operations of the population part of a step.
        triplets: whether to draw nearer and farther operations.
        generator: of every draw.
    """

    def __init__(self, n_trits: int, batch_size: int, triplets: bool, generator: torch.Generator) -> None:
        self.n_trits, self.batch_size, self.triplets, self._generator = n_trits, batch_size, triplets, generator
        self.steps = -(-(3**n_trits) // batch_size)
        self.per_level = max(4, batch_size // 32)
        sizes = ternary.level_sizes(n_trits)
        self._by_level = torch.from_numpy(np.argsort(ternary.valuations(n_trits), kind="stable"))
        self._sizes = torch.from_numpy(sizes)[:, None]
        self._starts = torch.from_numpy(np.cumsum(sizes) - sizes)[:, None]

    def epoch(self) -> Sample:
        """Draw the operations of the next epoch."""
        population = torch.randperm(3**self.n_trits, generator=self._generator)
        share = torch.rand(self.steps, self.n_trits + 1, self.per_level, generator=self._generator)
        member = (share * self._sizes).long().clamp(max=self._sizes - 1)
        stratified = self._by_level[self._starts + member]
        nearer, farther = self._triplets(population) if self.triplets else (population[:0], population[:0])
        return Sample(population, stratified, nearer, farther)

    def _triplets(self, anchor: Tensor) -> tuple[Tensor, Tensor]:
        """Draw p = i + 3^k·u and n = i + 3^(k-1)·w, u and w not divisible by 3, k even over 1 … n_trits - 1."""
        n, total = len(anchor), 3**self.n_trits
        k = torch.randint(1, self.n_trits, (n,), generator=self._generator)
        u, w = (
            3 * torch.randint(total // 3, (n,), generator=self._generator)
            + torch.randint(1, 3, (n,), generator=self._generator)
            for _ in range(2)
        )
        return (anchor + 3**k * u) % total, (anchor + 3 ** (k - 1) * w) % total
