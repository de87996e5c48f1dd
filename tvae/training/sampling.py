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
    """The operations of one epoch, by index; never one that is held out.

    Attributes:
        population: a random order of all operations, shape `(N,)`, of which step s sees the next `operations_per_step`;
            or, where distances are learned, the binary subtrees of all steps, one after another.
        stratified: operations drawn evenly within each level that has any, shape `(steps, levels, S)`.
        parted: whether the node of each operation at each level has two branches in its subtree, shape
            `(n_trits, N)` beside `population`; empty where nothing is held out, or no distances are learned.
    """

    population: Tensor
    stratified: Tensor
    parted: Tensor


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
        self._seen = (
            torch.from_numpy(~ternary.held_out(configuration.holdout, n_trits)) if configuration.holdout else None
        )
        seen = np.arange(3**n_trits) if self._seen is None else np.flatnonzero(self._seen.numpy())
        valuations = ternary.valuations(n_trits)[seen]
        sizes = np.bincount(valuations, minlength=n_trits + 1)
        starts = np.cumsum(sizes) - sizes
        self._by_level = torch.from_numpy(seen[np.argsort(valuations, kind="stable")])
        self._sizes = torch.from_numpy(sizes[sizes > 0])[:, None]
        self._starts = torch.from_numpy(starts[sizes > 0])[:, None]

    def epoch(self) -> Sample:
        """Draw the operations of the next epoch."""
        parted = torch.empty(self.n_trits, 0, dtype=torch.bool)
        if self.subtrees:
            count = self.steps * self._size // 2**self.n_trits
            if self._seen is None:
                population = binary_subtrees(count, self.n_trits, self._generator).flatten()
            else:
                population, parted = seen_subtrees(count, self._seen, self.n_trits, self._generator)
        elif self._seen is None:
            population = torch.randperm(3**self.n_trits, generator=self._generator)
        else:
            seen = torch.nonzero(self._seen).flatten()
            orders = [
                torch.randperm(len(seen), generator=self._generator) for _ in range(-(-len(self._seen) // len(seen)))
            ]
            population = seen[torch.cat(orders)[: len(self._seen)]]
        share = torch.rand(self.steps, len(self._sizes), self.per_level, generator=self._generator)
        member = (share * self._sizes).long().clamp(max=self._sizes - 1)
        stratified = self._by_level[self._starts + member]
        return Sample(population, stratified, parted)


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


def seen_subtrees(count: int, seen: Tensor, n_trits: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw binary subtrees of which every leaf is an operation that is seen.

    Every node keeps two of those of its children below which there is anything seen. Where there is but one, both
    halves of the node's places go on in it: operations repeat, and pairs of that level are not there.

    Args:
        count: how many.
        seen: boolean, shape `(3^n_trits,)`.
        n_trits: number of trits.
        generator: of every draw.

    Returns:
        Indices of operations, shape `(count·2^n_trits,)`, in the order of `binary_subtrees`; and whether the node of
        each at each level has two branches, shape `(n_trits, count·2^n_trits)`.
    """
    size = 2**n_trits
    nodes = torch.zeros(count, 1, dtype=torch.int64)
    parted = torch.empty(n_trits, count, size, dtype=torch.bool)
    for level in range(n_trits):
        children = nodes[..., None] + torch.arange(3) * 3**level
        there = seen.view(-1, 3 ** (level + 1)).any(0)[children]
        order = (torch.rand(children.shape, generator=generator) + ~there).argsort(-1)
        both = there.sum(-1) > 1
        chosen = torch.stack([order[..., 0], torch.where(both, order[..., 1], order[..., 0])], -1)
        parted[level] = both.repeat_interleave(size >> level, 1)
        nodes = children.gather(-1, chosen).flatten(1)
    return nodes.flatten(), parted.flatten(1)
