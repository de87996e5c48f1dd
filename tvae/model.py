"""The network: encoder, decoder, projection into the ball, and an optional controller.

A model is one network, or a cohort: `members` networks of one architecture whose weights carry a leading member axis
`M` and that run as one batched product. Shapes below write `(…, B, D)`: the `…` is empty for one network, `M` for a
cohort.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tvae import poincare
from tvae.config.architecture import Architecture

__all__ = ["COMPONENTS", "Embedding", "TernaryVAE", "require_model"]

N_CLASSES = 3
N_STATISTICS = 8
N_TERMS = 6
COMPONENTS = ("encoder", "decoder", "projection", "controller")


class Embedding(NamedTuple):
    """Where operations lie in the ball, in polar form."""

    unit_norm: Tensor
    direction: Tensor

    def points(self, curvature: float) -> Tensor:
        """Return the points in the ball, direction·unit norm/sqrt(c), shape `(…, B, D)`."""
        return self.direction * self.unit_norm.unsqueeze(-1) / math.sqrt(curvature)


class Linear(nn.Module):
    """The affine map x·Wᵀ + b, with one `W` and `b` for each member of a cohort."""

    def __init__(self, members: tuple[int, ...], n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*members, n_out, n_in, dtype=torch.float32))
        self.bias = nn.Parameter(torch.empty(*members, n_out, dtype=torch.float32))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw weight and bias from U(-1/sqrt(n_in), 1/sqrt(n_in)), torch's own default for a linear layer."""
        bound = 1 / math.sqrt(self.weight.shape[-1])
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 2:
            return nn.functional.linear(x, self.weight, self.bias)
        if self.weight.shape[-2] == 1:
            product: Tensor = _MatrixVector.apply(x, self.weight)  # type: ignore[no-untyped-call]
            return product + self.bias.unsqueeze(-2)
        x = x.expand(self.weight.shape[0], *x.shape[-2:])
        return torch.baddbmm(self.bias.unsqueeze(-2), x, self.weight.mT)


class _MatrixVector(torch.autograd.Function):
    """The product x·wᵀ, `(M, B, n)` and `(M, 1, n)` to `(M, B, 1)`.

    A batched matrix-vector product of torch sums in another order for another number of members, and its gradient, as
    that of a plain sum of products, takes ten times as long as this one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return (x * weight).sum(-1, keepdim=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return gradient * weight, (gradient * x).sum(1, keepdim=True)


class LayerNorm(nn.Module):
    """Layer normalisation, with one scale and shift for each member of a cohort."""

    def __init__(self, members: tuple[int, ...], n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(*members, n, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(*members, n, dtype=torch.float32))

    def initialise(self, generator: torch.Generator) -> None:
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        normal = nn.functional.layer_norm(x, x.shape[-1:])
        return normal * self.weight.unsqueeze(-2) + self.bias.unsqueeze(-2)


class Encoder(nn.Module):
    """Linear + ReLU stack, then a head for the posterior's mean and one for its log variance."""

    def __init__(self, architecture: Architecture, members: tuple[int, ...]) -> None:
        super().__init__()
        widths = (architecture.n_trits, *architecture.encoder_hidden)
        self.hidden = nn.Sequential(
            *(layer for pair in _pairs(widths) for layer in (Linear(members, *pair), nn.ReLU()))
        )
        self.mean = Linear(members, widths[-1], architecture.latent_dim)
        self.log_variance = Linear(members, widths[-1], architecture.latent_dim)

    def forward(self, trits: Tensor) -> tuple[Tensor, Tensor]:
        h = self.hidden(trits)
        return self.mean(h), self.log_variance(h)


class Decoder(nn.Module):
    """Linear + ReLU stack from the latent to 3 logits for each trit, read as classes -1, 0, 1."""

    def __init__(self, architecture: Architecture, members: tuple[int, ...]) -> None:
        super().__init__()
        widths = (architecture.latent_dim, *architecture.decoder_hidden, architecture.n_trits * N_CLASSES)
        layers = [layer for pair in _pairs(widths) for layer in (Linear(members, *pair), nn.ReLU())]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, latent: Tensor) -> Tensor:
        logits: Tensor = self.layers(latent)
        return logits.reshape(*logits.shape[:-1], -1, N_CLASSES)


class Projection(nn.Module):
    """From the latent into the ball: a direction of norm 1 and a unit norm in (0, raw_max_radius)."""

    def __init__(self, architecture: Architecture, members: tuple[int, ...]) -> None:
        super().__init__()
        self.max_radius = architecture.raw_max_radius
        latent, depth = architecture.latent_dim, architecture.n_projection_layers
        widths = (latent, *[architecture.hidden_dim] * depth)
        direction = [
            layer
            for pair in _pairs(widths)
            for layer in (Linear(members, *pair), LayerNorm(members, pair[1]), nn.SiLU())
        ]
        self.direction_net = nn.Sequential(*direction, Linear(members, widths[-1], latent))
        widths = (latent, *[architecture.radius_dim] * depth)
        radius = [layer for pair in _pairs(widths) for layer in (Linear(members, *pair), nn.SiLU())]
        self.radius_net = nn.Sequential(*radius, Linear(members, widths[-1], 1), nn.Sigmoid())

    def unit_norm(self, latent: Tensor) -> Tensor:
        """Return max_radius·radius_net(latent), shape `(…, B)`."""
        share: Tensor = self.radius_net(latent)
        return self.max_radius * share.squeeze(-1)

    def direction(self, latent: Tensor) -> Tensor:
        """Return normalise(latent + direction_net(latent)), shape `(…, B, D)`."""
        last = self.direction_net[-1].parameters()
        if not torch.is_grad_enabled() and not any(bool(parameter.any()) for parameter in last):
            return nn.functional.normalize(latent, dim=-1)  # not learned yet: the net adds nothing, at some cost
        return nn.functional.normalize(latent + self.direction_net(latent), dim=-1)

    def forward(self, latent: Tensor) -> Embedding:
        return Embedding(self.unit_norm(latent), self.direction(latent))


class Controller(nn.Module):
    """Weighs the terms of the loss from batch statistics: 8-32-32-6 with LayerNorm and SiLU."""

    def __init__(self, members: tuple[int, ...]) -> None:
        super().__init__()
        self.net = nn.Sequential(
            Linear(members, N_STATISTICS, 32),
            LayerNorm(members, 32),
            nn.SiLU(),
            Linear(members, 32, 32),
            nn.SiLU(),
            Linear(members, 32, N_TERMS),
        )

    def forward(self, statistics: Tensor) -> Tensor:
        """Return relative weights of the terms, shape `(…, 6)`, that average 1: weight shifts, its sum stays.

        Args:
            statistics: shape `(…, 8)`.
        """
        logits: Tensor = self.net(statistics.unsqueeze(-2)).squeeze(-2)
        return logits.softmax(-1) * N_TERMS


class TernaryVAE(nn.Module):
    """A variational autoencoder of ternary operations with a projection into a Poincaré ball.

    A new model has its weights undefined until `initialise` draws them or a checkpoint fills them.

    Args:
        architecture: what to build.
        members: None for one network, or the number of networks of a cohort.
    """

    def __init__(self, architecture: Architecture, members: int | None = None) -> None:
        super().__init__()
        axis = () if members is None else (members,)
        self.architecture = architecture
        self.encoder = Encoder(architecture, axis)
        self.decoder = Decoder(architecture, axis)
        self.projection = Projection(architecture, axis)
        self.controller = Controller(axis) if architecture.use_controller else None

    def initialise(self, generator: torch.Generator, components: Sequence[str] = COMPONENTS) -> None:
        """Draw new weights for the named components, in their order in `COMPONENTS`.

        Raises:
            ValueError: if a name is not in `COMPONENTS`.
        """
        if unknown := set(components) - set(COMPONENTS):
            raise ValueError(f"`components` must be among {', '.join(COMPONENTS)}, got {', '.join(sorted(unknown))}.")
        for name in COMPONENTS:
            component = getattr(self, name)
            if component is not None and name in components:
                for layer in component.modules():
                    if isinstance(layer, Linear | LayerNorm):
                        layer.initialise(generator)
        if "projection" in components:
            # Before it learns, the direction is the latent's own: nothing random is added to it.
            for parameter in self.projection.direction_net[-1].parameters():
                nn.init.zeros_(parameter)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def encode(self, trits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the posterior's mean and log variance.

        Args:
            trits: float values in {-1, 0, 1}, shape `(…, B, n_trits)`.

        Returns:
            Two tensors of shape `(…, B, D)`.
        """
        mean, log_variance = self.encoder(trits)
        return mean, log_variance

    def decode(self, latent: Tensor) -> Tensor:
        """Return logits over the classes -1, 0, 1, shape `(…, B, n_trits, 3)`, for latents `(…, B, D)`."""
        logits: Tensor = self.decoder(latent)
        return logits

    def project(self, latent: Tensor) -> Embedding:
        """Return unit norms `(…, B)` and directions `(…, B, D)` for latents `(…, B, D)`.

        Where the architecture is centred, the ball is moved so that operation 0 lies at the origin, and both are
        float64: a distance from the origin is then a distance from operation 0, and no other distance changes.
        """
        embedding: Embedding = self.projection(latent)
        if not self.architecture.centred:
            return embedding
        operation_0 = latent.new_full((1, self.architecture.n_trits), -1.0)
        origin: Embedding = self.projection(self.encode(operation_0)[0])
        return Embedding(*poincare.translate(*embedding, *origin))

    def forward(self, trits: Tensor) -> Tensor:
        """Return the points in the ball, direction·unit norm/sqrt(c), at the posterior mean.

        Args:
            trits: float values in {-1, 0, 1}, shape `(B, n_trits)`.

        Returns:
            Shape `(B, D)`, inside the ball: c·|z|² < 1.
        """
        return self.project(self.encode(trits)[0]).points(self.architecture.curvature)


def require_model(found: object) -> None:
    """Raise a TypeError unless `found` is a model: a path is what is given most often instead."""
    if not isinstance(found, TernaryVAE):
        raise TypeError(f"A model is needed here, as `tvae.load(path)` returns it, got {found!r}.")


def _pairs(widths: Sequence[int]) -> list[tuple[int, int]]:
    return list(itertools.pairwise(widths))
