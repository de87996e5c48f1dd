"""One step: from the operations of a batch to the terms of the loss, for every member that still trains."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tvae import metrics, objectives, poincare, ternary
from tvae.architecture import Architecture
from tvae.configuration import Configuration
from tvae.model import TernaryVAE
from tvae.objectives import TERMS, Placed
from tvae.training.sampling import Sample, population_size

__all__ = ["Step"]


class Step:
    """Computes the loss terms of a step.

    Args:
        architecture: of the cohort.
        settings: those that the cohort shares.
        distances: whether distances are part of the loss.
        device: where to compute.
    """

    def __init__(
        self, architecture: Architecture, settings: Configuration, distances: bool, device: torch.device
    ) -> None:
        self.projects = settings.objective != "elbo"
        self.encodes = settings.unfreeze != "none" or not self.projects
        self.distances = distances
        self.terms = [
            *(["coverage", "kl"] if self.encodes else []),
            *(["hierarchy", "richness", "separation"] if self.projects else []),
            *(["distance"] if distances else []),
        ]
        self._level_mean = settings.objective == "level_mean"
        self._controls = architecture.use_controller
        self._size = population_size(architecture.n_trits, settings.batch_size, distances)
        self._device, self._max_radius = device, architecture.max_radius
        # Operations of a subtree are mixed, so that neighbours in a batch are random partners, and put back in order.
        self._mixed = torch.randperm(self._size, generator=torch.Generator().manual_seed(0)).to(device)
        self._in_order = torch.argsort(self._mixed)
        self._levels = architecture.n_trits + 1
        self._valuations = torch.from_numpy(ternary.valuations(architecture.n_trits).copy()).to(device)
        # Which of its two coarse balls an operation of the parted level lies in.
        self._parted = objectives.parted_level(self._levels)
        balls = np.arange(3**architecture.n_trits) // 3**self._parted % 3 == 2
        self._branches = torch.from_numpy(balls).to(device)
        self._trits = metrics.trit_table(architecture.n_trits).to(device)
        self._targets = metrics.targets(architecture.n_trits).to(device)

    def set_members(
        self,
        curvatures: Sequence[float],
        generators: Sequence[torch.Generator],
        latents: Tensor,
        latent_rows: Sequence[int],
        initial_variance: Tensor,
    ) -> None:
        """Say who trains.

        Args:
            curvatures: c > 0, a member each.
            generators: source of the latents' noise, a member each.
            latents: posterior means of the distinct encoders, shape `(U, N, D)`; used where encoders do not learn.
            latent_rows: which of them each member has.
            initial_variance: variance of the unit norm within levels before training, shape `(M, levels)`.
        """
        self._curvature = torch.tensor(curvatures, device=self._device)[:, None]
        at_most = torch.full_like(self._curvature, self._max_radius)
        self._largest_radius = poincare.radius(at_most, curvature=self._curvature)
        self._generators, self._latents = generators, latents.flatten(0, 1)
        self._first_latent = torch.tensor(latent_rows, device=self._device)[:, None] * latents.shape[1]
        self._initial_variance = initial_variance.to(self._device)

    def __call__(self, model: TernaryVAE, sample: Sample, step: int) -> tuple[Tensor, Tensor]:
        """Compute one step.

        Args:
            model: the cohort.
            sample: of the epoch, with a leading member axis.
            step: which part of the epoch.

        Returns:
            The terms in the order of `TERMS`, 0 where not in use, shape `(M, terms)`; and mean and standard deviation
            of the unit norms, without gradient, shape `(M, 2)`, 0 where no controller reads them.
        """
        part = slice(step * self._size, (step + 1) * self._size)
        population = sample.population[:, part]
        if self.distances:
            population = population[:, self._mixed]
        n = population.shape[1]
        index = torch.cat([population, sample.stratified[:, step].flatten(1)], 1) if self.projects else population

        terms: dict[str, Tensor] = {}
        if self.encodes:
            mean, log_variance = model.encode(_rows(self._trits, index))
            # Of the whole batch: in the population part alone the rare operations are too rare to stay covered.
            noise = torch.stack([torch.randn(mean.shape[-2:], generator=g) for g in self._generators])
            logits = model.decode(mean + torch.exp(log_variance / 2) * noise.to(self._device))
            terms |= objectives.elbo_terms(logits, _rows(self._targets, index), mean, log_variance)
        else:
            mean = _rows(self._latents, self._first_latent + index)

        statistics = torch.zeros(len(index), 2, device=self._device)
        if self.projects:
            unit_norm = model.projection.unit_norm(mean)
            radius = poincare.radius(unit_norm, curvature=self._curvature)
            placed = Placed(
                valuations=self._valuations[index],
                n_population=n,
                unit_norm=unit_norm,
                radius=radius,
                largest_radius=self._largest_radius,
                max_radius=self._max_radius,
                n_levels=self._levels,
                branches=self._branches[sample.stratified[:, step, self._parted]] if self.distances else None,
            )
            if self._level_mean:
                terms |= objectives.level_mean_terms(placed, self._initial_variance)
            else:
                terms |= objectives.ranking_terms(placed)
            if self._controls:
                statistics = torch.stack([unit_norm.mean(1), unit_norm.std(1)], 1).detach()
            if self.distances:
                subtrees = (len(index), -1, 2 ** (self._levels - 1))
                direction = model.projection.direction(mean.index_select(1, self._in_order))
                terms["distance"] = objectives.distance_term(
                    radius.index_select(1, self._in_order).view(subtrees),
                    direction.view(*subtrees, direction.shape[-1]),
                    curvature=self._curvature,
                    largest_radius=self._largest_radius,
                )
        unused = torch.zeros(len(index), device=self._device)
        return torch.stack([terms.get(name, unused) for name in TERMS], 1), statistics


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """Return rows of a table, `(N, D)` to `(…, D)`: as `table[index]`, at a fraction of the time."""
    return table.index_select(0, index.flatten()).view(*index.shape, -1)
