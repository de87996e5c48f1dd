"""The weights of a cohort: those that learn lie in one matrix with a row a member, and the optimizer moves it."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tvae.model import TernaryVAE

__all__ = ["Weights", "orthogonalised"]

BETAS, EPSILON = (0.9, 0.99), 1e-8
# Of a member. Where radii alone learn none is longer; distances have steeper steps, and a few of those would undo what
# was learned.
LARGEST_GRADIENT = 1.0
# Each parameter starts on a 64-byte boundary of every row: products then take the same path for every member.
ALIGNMENT = 16
# The quintic x -> a·x + b·x³ + c·x⁵ that brings singular values near 1 soonest, and how often it is applied.
NEWTON_SCHULZ, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
# The root mean square of an update's entries, as a share of the learning rate: about that of Adam's updates, so that
# one rate serves both.
UPDATE_RMS = 0.2


class Weights:
    """A cohort's model, its gradients, and the optimizer's moments.

    `adam` moves everything by Adam. `muon` moves weight matrices by their momentum with all singular values brought
    near 1, and the rest (biases, normalisation, single rows) by Adam.

    Args:
        models: the members, networks of one architecture; they are copied, not changed.
        learning: share of the learning rate by prefix of parameter name; parameters under no prefix stay as they are.
        optimizer: `muon` or `adam`.
        device: where to train.

    Source:
        Adam: Kingma & Ba 2015, arXiv:1412.6980, algorithm 1, with β₂ = 0.99 instead of 0.999: a training of some
        hundred steps is over before a mean over a thousand has formed. Muon: Jordan et al. 2024, "Muon: an optimizer
        for hidden layers in neural networks"; scale of the update: Liu et al. 2025, arXiv:2502.16982, eq. 4. Clipping
        of the norm: Pascanu et al. 2013, arXiv:1211.5063, algorithm 1.
    """

    def __init__(
        self, models: Sequence[TernaryVAE], learning: Mapping[str, float], optimizer: str, device: torch.device
    ) -> None:
        states = [model.state_dict() for model in models]
        self.model = TernaryVAE(models[0].architecture, members=len(models)).to(device)
        self.model.load_state_dict({name: torch.stack([state[name] for state in states]) for name in states[0]})
        self.model.requires_grad_(False)
        shares = {
            name: share
            for name, _ in self.model.named_parameters()
            for prefix, share in learning.items()
            if name.startswith(prefix)
        }
        sizes = {name: self.model.get_parameter(name)[0].numel() for name in shares}
        padded = {name: size + -size % ALIGNMENT for name, size in sizes.items()}
        self._share = torch.cat([torch.full((padded[name],), share) for name, share in shares.items()]).to(device)
        self._slots: dict[str, slice] = {}
        start = 0
        for name, size in sizes.items():
            self._slots[name] = slice(start, start + size)
            start += padded[name]
        values = torch.zeros(len(models), start, device=device)
        for name, slot in self._slots.items():
            values[:, slot] = self.model.get_parameter(name).flatten(1)
        dims = {name: self.model.get_parameter(name).shape[1:] for name in self._slots}
        matrices = [name for name, shape in dims.items() if len(shape) == 2 and min(shape) > 1]
        self._matrices = matrices if optimizer == "muon" else []
        self._steps = 0
        self._mean, self._square = torch.zeros_like(values), torch.zeros_like(values)
        self._bind(values)

    def gradient(self, loss: Tensor) -> Tensor:
        """Return the gradient of a loss, a row a member, none longer than `LARGEST_GRADIENT`.

        Members do not mix, so `loss` may be their sum.
        """
        parameters = [self.model.get_parameter(name) for name in self._slots]
        parts = torch.autograd.grad(loss, parameters)
        aligned = ((part.flatten(1), pad) for part, pad in zip(parts, self._pads, strict=True))
        gradient = torch.cat([piece for pair in aligned for piece in pair], 1)
        length: Tensor = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
        return gradient * (LARGEST_GRADIENT / length).clamp(max=1)

    @torch.no_grad()
    def step(self, gradient: Tensor, lr: Tensor) -> None:
        """Move every member against its gradient, by its own learning rate, shape `(M,)`."""
        self._steps += 1
        beta1, beta2 = BETAS
        self._mean.lerp_(gradient, 1 - beta1)
        self._square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        scale = (self._square / (1 - beta2**self._steps)).sqrt_().add_(EPSILON)
        move = self._mean.div(scale).mul_(1 / (1 - beta1**self._steps))
        for name in self._matrices:
            slot, shape = self._slots[name], self.model.get_parameter(name).shape
            ahead = gradient[:, slot].lerp(self._mean[:, slot], beta1)
            size = UPDATE_RMS * math.sqrt(max(shape[1:]))
            move[:, slot] = orthogonalised(ahead.view(shape)).mul_(size).flatten(1)
        self._values.sub_(move.mul_(lr[:, None] * self._share))

    def keep(self, rows: Sequence[int]) -> None:
        """Keep some of the members and drop the others."""
        chosen = torch.tensor(rows, device=self._values.device)
        state = {name: value[chosen] for name, value in self.model.state_dict().items()}
        values = self._values[chosen]
        self._mean, self._square = self._mean[chosen], self._square[chosen]
        self.model = TernaryVAE(self.model.architecture, members=len(rows)).to(values.device)
        self.model.load_state_dict(state)
        self.model.requires_grad_(False)
        self._bind(values)

    def snapshot(self, row: int) -> dict[str, Tensor]:
        """Return a copy, on the CPU, of one member's parameters that learn."""
        return {name: self.model.get_parameter(name)[row].detach().to("cpu", copy=True) for name in self._slots}

    def _bind(self, values: Tensor) -> None:
        """Make the model's parameters that learn views of one matrix."""
        self._values = values
        self._pads = [
            values.new_zeros(len(values), -(slot.stop - slot.start) % ALIGNMENT) for slot in self._slots.values()
        ]
        for name, slot in self._slots.items():
            parameter = self.model.get_parameter(name)
            parameter.data = values[:, slot].view(parameter.shape)
            parameter.requires_grad_(True)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Return matrices with their singular values brought into 0.7 … 1.2, `U·S·Vᵀ` to about `U·Vᵀ`.

    Args:
        matrices: shape `(M, n, m)`; one that is 0 stays so.

    Source:
        Jordan et al. 2024, "Muon": five Newton-Schulz iterations with a quintic of greatest slope at 0.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=1e-12)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
