"""The optional controller: it shifts weight between the terms of the loss, and never shrinks their sum."""

import torch
from torch import Tensor

from tvae.model import Controller

__all__ = ["controlled_weights", "controller_loss"]

# How strongly the controller is held to equal shares: without it, all weight ends on one term.
EVENNESS = 0.5
# Where every weight is 0 there is nothing to shift, and nothing to divide by.
LEAST_SUM = 1e-30


def controlled_weights(controller: Controller, progress: Tensor, statistics: Tensor, weights: Tensor) -> Tensor:
    """Return the weights of the terms as the controller shifts them.

    Args:
        controller: of the cohort.
        progress: terms as a share of what they were at the start, shape `(M, 6)`.
        statistics: mean and standard deviation of the unit norms, shape `(M, 2)`.
        weights: as configured, shape `(M, 6)`.

    Returns:
        Shape `(M, 6)`, >= 0, with the same sum over terms as `weights`; a weight of 0 stays 0.
    """
    shifted: Tensor = weights * controller(torch.cat([progress, statistics], 1))
    scale: Tensor = (weights.sum(1) / shifted.sum(1).clamp(min=LEAST_SUM))[:, None]
    return shifted * scale


def controller_loss(shifted: Tensor, progress: Tensor, weights: Tensor) -> Tensor:
    """Return what the controller minimises: it favours the terms that have come down least, evenly held.

    A controller that minimised the loss itself would put all weight on the term that is small already.

    Args:
        shifted: what `controlled_weights` returned, shape `(M, 6)`.
        progress: as there.
        weights: as there.

    Returns:
        Shape `(M,)`.
    """
    total = weights.sum(1, keepdim=True).clamp(min=LEAST_SUM)
    share, even = shifted / total, weights / total
    divergence = torch.where(even > 0, share * (share.clamp(min=1e-12) / even.clamp(min=1e-12)).log(), 0.0)
    return (EVENNESS * divergence - share * progress).sum(1)
