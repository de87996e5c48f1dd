"""A step cut into parts: computed one after another, which takes less memory, or by as many processes.

All processes draw the same operations and hold the same weights. Each computes the loss of its own part, gradients are
averaged, and all take the same step: the model is that of one process that computes the parts in turn. It is not quite
that of an uncut step: the order of distances is a mean over what is violated in the part, and gradients are clipped
part by part.

Each process measures every epoch and stops by what it finds: the machines must compute alike, to the last bit.
"""

from dataclasses import dataclass

import torch.distributed
from torch import Tensor

from tvae.errors import ConfigurationError

__all__ = ["Parts"]


@dataclass(frozen=True, slots=True)
class Parts:
    """How steps are cut, and which parts this process computes.

    Attributes:
        count: of the parts of a step.
        mine: those of this process.
    """

    count: int = 1
    mine: tuple[int, ...] = (0,)

    @classmethod
    def in_turn(cls, count: int) -> "Parts":
        """Return all parts, computed here one after another."""
        return cls(count, tuple(range(count)))

    @classmethod
    def of_process(cls) -> "Parts":
        """Return the part of this process: as many as there are processes in torch's default group.

        Raises:
            ConfigurationError: if there is no group.
        """
        if not torch.distributed.is_initialized():
            raise ConfigurationError(
                "A training on several processes needs a process group; found none. Call "
                "torch.distributed.init_process_group first, in each of the processes that torchrun starts."
            )
        return cls(torch.distributed.get_world_size(), (torch.distributed.get_rank(),))

    def mean(self, total: Tensor) -> Tensor:
        """Return the mean over all parts, of the sum over those of this process."""
        if len(self.mine) < self.count:
            total = total.clone()
            torch.distributed.all_reduce(total)
        return total / self.count if self.count > 1 else total
