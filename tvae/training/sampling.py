"""Which operations a step sees. Every draw comes from the run's own generator, whoever trains beside it."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tvae import ternary
from tvae.config.training import Configuration

__all__ = ["Sample", "Sampler", "binary_subtrees"]

# A random binary subtree holds the operation 0 in one case of (3/2)^n_trits: too seldom to place it and its neighbours.
SUBTREES_WITH_ZERO = 0.3


class Sample(NamedTuple):
    """The operations of one epoch, by index.

    Attributes:
        population: a random order of all operations, shape `(N,)`, of which step s sees the next `operations_per_step`;
            or, where distances are learned, the binary subtrees of all steps, one after another.
        stratified: operations drawn evenly within each level, shape `(steps, levels, S)`.
    """

    population: Tensor
    stratified: Tensor


class Sampler:
    """Draws the operations of each epoch.

    Args:
        n_trits: number of trits.
        configuration: of the training. Where distances are learned, the population part of a step consists of binary
            subtrees, in which there are pairs of every level.
        generator: of every draw.
    """

    def __init__(self, n_trits: int, configuration: Configuration, generator: torch.Generator) -> None:
        self.n_trits, self._generator = n_trits, generator
        self.subtrees = configuration.learns_distances
        self._size = configuration.operations_per_step(n_trits)
        self.steps = configuration.steps_per_epoch(n_trits)
        self.per_level = max(4, configuration.batch_size // 32)
        sizes = ternary.level_sizes(n_trits)
        self._by_level = torch.from_numpy(np.argsort(ternary.valuations(n_trits), kind="stable"))
        self._sizes = torch.from_numpy(sizes)[:, None]
        self._starts = torch.from_numpy(np.cumsum(sizes) - sizes)[:, None]

    def epoch(self) -> Sample:
        """Draw the operations of the next epoch."""
        if self.subtrees:
            count = self.steps * self._size // 2**self.n_trits
            population = binary_subtrees(count, self.n_trits, self._generator).flatten()
        else:
            population = torch.randperm(3**self.n_trits, generator=self._generator)
        share = torch.rand(self.steps, self.n_trits + 1, self.per_level, generator=self._generator)
        member = (share * self._sizes).long().clamp(max=self._sizes - 1)
        stratified = self._by_level[self._starts + member]
        return Sample(population, stratified)


def binary_subtrees(count: int, n_trits: int, generator: torch.Generator) -> Tensor:
    """Draw binary subtrees of the 3-adic tree: from the root on, every node keeps two of its three children.

    Every operation is as likely as every other, but for a share of subtrees that must hold the operation 0.

    Args:
        count: how many.
        n_trits: number of trits.
        generator: of every draw.

    Returns:
        Indices of operations, shape `(count, 2^n_trits)`, in the order of the tree: the places of two operations, in
        binary, differ first at the bit that is the valuation of their difference, counted from the most significant.
    """
    nodes = torch.zeros(count, 1, dtype=torch.int64)
    with_zero = torch.rand(count, 1, generator=generator) < SUBTREES_WITH_ZERO
    for level in range(n_trits):
        dropped = torch.randint(3, nodes.shape, generator=generator)
        other = torch.randint(1, 3, nodes.shape, generator=generator)
        dropped = torch.where(with_zero & (nodes == 0) & (dropped == 0), other, dropped)
        children = [nodes + (dropped + step) % 3 * 3**level for step in (1, 2)]
        nodes = torch.stack(children, 2).flatten(1)
    return nodes
