"""Which operations a step sees. Every draw comes from the run's own generator, whoever trains beside it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tvae import ternary
from tvae.config.training import Configuration

__all__ = ["Sample", "Sampler", "binary_subtrees"]

# A random binary subtree of nine trits holds the operation 0 in one case of (3/2)^9: too seldom to place it and its
# neighbours.
SUBTREES_WITH_ZERO = 0.3


class Sample(NamedTuple):
    """The operations of one epoch, by index; never one that is held out.

    Attributes:
        population: operations drawn evenly, shape `(draws,)`, of which step s sees the next `operations_per_step`;
            or, where distances are learned, the binary subtrees of all steps, one after another.
        stratified: operations drawn evenly within each level that has any, shape `(steps, levels, S)`.
        steps_down: by how many levels each level at which the subtrees of a step branch lies above the next, or above
            the leaves, shape `(steps, branchings)`: 1 where they branch at all.
        parted: whether the node of each operation at each of these levels has two branches in its subtree, shape
            `(branchings, N)` beside `population`; empty where nothing is held out, or no distances are learned.
    """

    population: Tensor
    stratified: Tensor
    steps_down: Tensor
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
        self._draws = configuration.operations_per_epoch(n_trits)
        self.steps = configuration.steps_per_epoch(n_trits)
        self.per_level = configuration.operations_of_level_per_step
        self.branchings = configuration.branchings(n_trits)
        self._held_out = bool(configuration.holdout)
        if self._held_out:
            self._seen = torch.from_numpy(~ternary.held_out(configuration.holdout, n_trits))
            self._below = seen_below(self._seen, n_trits)
            seen = np.flatnonzero(self._seen.numpy())
            valuations = ternary.valuations(n_trits)[seen]
            sizes = np.bincount(valuations, minlength=n_trits + 1)
            self._by_level = torch.from_numpy(seen[np.argsort(valuations, kind="stable")])
        else:
            sizes = ternary.level_sizes(n_trits)
        starts = np.cumsum(sizes) - sizes
        self._levels = torch.from_numpy(np.flatnonzero(sizes))[:, None]
        self._sizes = torch.from_numpy(sizes[sizes > 0])[:, None]
        self._starts = torch.from_numpy(starts[sizes > 0])[:, None]

    def epoch(self) -> Sample:
        """Draw the operations of the next epoch."""
        if self.subtrees:
            population, down, parted = self._subtrees()
        else:
            population, down, parted = self._evenly(), torch.empty(self.steps, 0), torch.empty(0, 0, dtype=torch.bool)
        # A float32 has too few digits for as many operations as cannot be listed.
        digits = torch.float32 if self.n_trits <= ternary.MOST_LISTED else torch.float64
        share = torch.rand(self.steps, len(self._sizes), self.per_level, generator=self._generator, dtype=digits)
        member = (share * self._sizes).long().clamp(max=self._sizes - 1)
        stratified = self._by_level[self._starts + member] if self._held_out else self._of_level(member)
        return Sample(population, stratified, down, parted)

    def _evenly(self) -> Tensor:
        """Draw operations evenly: each as often as every other, unless there are more than an epoch draws."""
        seen = torch.nonzero(self._seen).flatten() if self._held_out else None
        there = 3**self.n_trits if seen is None else len(seen)
        if there > self._draws:
            drawn = torch.randint(there, (self._draws,), generator=self._generator)
        else:
            orders = [torch.randperm(there, generator=self._generator) for _ in range(-(-self._draws // there))]
            drawn = torch.cat(orders)[: self._draws]
        return drawn if seen is None else seen[drawn]

    def _subtrees(self) -> tuple[Tensor, Tensor, Tensor]:
        """Draw the subtrees of all steps, how far apart the levels are at which they branch, and what branches."""
        levels, count = self.branchings, self._size // 2**self.branchings
        nodes, parted = [], []
        thinned = levels < self.n_trits
        # Where all levels branch, one call draws the subtrees of all steps.
        calls, count = (self.steps, count) if thinned else (1, self.steps * count)
        down = torch.ones(self.steps, levels)
        for step in range(calls):
            branches = torch.ones(self.n_trits, dtype=torch.bool)
            if thinned:
                chosen = torch.randperm(self.n_trits, generator=self._generator)[:levels].sort().values
                branches = torch.zeros_like(branches).index_fill(0, chosen, True)
                down[step] = torch.diff(chosen, append=torch.tensor([self.n_trits]))
            if self._held_out:
                drawn, there = seen_subtrees(count, self._below, branches, self._generator)
                parted.append(there)
            else:
                drawn = binary_subtrees(count, branches, self._generator).flatten()
            nodes.append(drawn)
        return torch.cat(nodes), down, torch.cat(parted, 1) if parted else torch.empty(levels, 0, dtype=torch.bool)

    def _of_level(self, place: Tensor) -> Tensor:
        return torch.from_numpy(ternary.of_level(self._levels.numpy(), place.numpy(), self.n_trits))


def binary_subtrees(count: int, branches: Tensor, generator: torch.Generator) -> Tensor:
    """Draw binary subtrees of the 3-adic tree: from the root on, a node keeps two of its three children, or one.

    Every operation is as likely as every other, but for a share of subtrees that must hold the operation 0.

    Args:
        count: how many.
        branches: at which levels two are kept, boolean, shape `(n_trits,)`; at the others each node keeps one.
        generator: of every draw.

    Returns:
        Indices of operations, shape `(count, 2^b)` for b branchings, in the order of the tree: the places of two
        operations, in binary, differ first at the bit that is the level of their last common node, among those that
        branch, counted from the most significant. The level is the valuation of their difference.
    """
    nodes = torch.zeros(count, 1, dtype=torch.int64)
    with_zero = torch.rand(count, 1, generator=generator) < SUBTREES_WITH_ZERO
    for level, two in enumerate(branches.tolist()):
        dropped = torch.randint(3, nodes.shape, generator=generator)
        if not two:
            nodes = nodes + torch.where(with_zero & (nodes == 0), 0, dropped) * 3**level
            continue
        other = torch.randint(1, 3, nodes.shape, generator=generator)
        dropped = torch.where(with_zero & (nodes == 0) & (dropped == 0), other, dropped)
        children = [nodes + (dropped + step) % 3 * 3**level for step in (1, 2)]
        nodes = torch.stack(children, 2).flatten(1)
    return nodes


def seen_below(seen: Tensor, n_trits: int) -> list[Tensor]:
    """Return for each level which of its nodes' children have anything seen below them, shapes `(3^(level + 1),)`."""
    return [seen.view(-1, 3 ** (level + 1)).any(0) for level in range(n_trits)]


def seen_subtrees(
    count: int, below: Sequence[Tensor], branches: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw binary subtrees of which every leaf is an operation that is seen.

    Every node keeps two, or one, of those of its children below which there is anything seen. Where it is to keep two
    and there is but one, both halves of the node's places go on in it: operations repeat, and pairs of that level are
    not there.

    Args:
        count: how many.
        below: as `seen_below` returns it.
        branches: as in `binary_subtrees`.
        generator: of every draw.

    Returns:
        Indices of operations, shape `(count·2^b,)`, in the order of `binary_subtrees`; and whether the node of each at
        each level that branches has two branches, shape `(b, count·2^b)`.
    """
    nodes = torch.zeros(count, 1, dtype=torch.int64)
    parted: list[Tensor] = []
    for level, two in enumerate(branches.tolist()):
        children = nodes[..., None] + torch.arange(3) * 3**level
        there = below[level][children]
        order = (torch.rand(children.shape, generator=generator) + ~there).argsort(-1)
        if not two:
            nodes = children.gather(-1, order[..., :1]).flatten(1)
            continue
        both = there.sum(-1) > 1
        chosen = torch.stack([order[..., 0], torch.where(both, order[..., 1], order[..., 0])], -1)
        parted.append(both)
        nodes = children.gather(-1, chosen).flatten(1)
    size = nodes.shape[1]
    return nodes.flatten(), torch.stack([both.repeat_interleave(size // both.shape[1], 1) for both in parted]).flatten(
        1
    )
