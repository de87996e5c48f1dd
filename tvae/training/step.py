"""One step: from the operations of a batch to the terms of the loss, for every member that still trains."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tvae import metrics, objectives, poincare, ternary
from tvae.config.architecture import Architecture
from tvae.config.training import Configuration
from tvae.model import TernaryVAE
from tvae.objectives import TERMS, Placed
from tvae.training.sampling import Sample

__all__ = ["Step"]


class Step:
    """Computes the loss terms of a step.

    Args:
        architecture: of the cohort.
        settings: those that the cohort shares.
        device: where to compute.
    """

    def __init__(self, architecture: Architecture, settings: Configuration, device: torch.device) -> None:
        self.projects = settings.objective != "elbo"
        self.encodes = settings.unfreeze != "none" or not self.projects
        self.distances, self.orders = settings.learns_distances, settings.orders_radii
        self._parts = settings.parts_level_0
        self.terms = [
            *(["coverage", "kl"] if self.encodes else []),
            *(["hierarchy", "separation"] if self.orders else []),
            *(["richness"] if self._parts or (self.orders and not self.distances) else []),
            *(["distance"] if self.distances else []),
        ]
        self._level_mean = settings.objective == "level_mean"
        self._controls = architecture.use_controller
        # Where radii count, and are distances from operation 0, that is the last of every batch.
        self._about_0 = architecture.centred and (self.orders or self._parts or self._controls)
        self._size = settings.operations_per_step(architecture.n_trits)
        self._device, self._architecture = device, architecture
        # Operations of a subtree are mixed, so that neighbours in a batch are random partners, and put back in order.
        self._mixed = torch.randperm(self._size, generator=torch.Generator().manual_seed(0)).to(device)
        self._in_order = torch.argsort(self._mixed)
        self._levels = architecture.n_trits + 1
        self._valuations = torch.from_numpy(ternary.valuations(architecture.n_trits).copy()).to(device)
        self._trits = metrics.trit_table(architecture.n_trits).to(device)
        self._targets = metrics.targets(architecture.n_trits).to(device)

    def set_members(
        self,
        curvatures: Sequence[float],
        margins: Sequence[float],
        generators: Sequence[torch.Generator],
        latents: Tensor,
        latent_rows: Sequence[int],
        initial_variance: Tensor,
    ) -> None:
        """Say who trains.

        Args:
            curvatures: c > 0, a member each.
            margins: `distance_margin`, a member each.
            generators: source of the latents' noise, a member each.
            latents: posterior means of the distinct encoders, shape `(U, N, D)`; used where encoders do not learn.
            latent_rows: which of them each member has.
            initial_variance: variance of the unit norm within levels before training, shape `(M, levels)`.
        """
        self._curvature = torch.tensor(curvatures, device=self._device)[:, None]
        self._margin = torch.tensor(margins, device=self._device)[:, None]
        largest, raw = (
            poincare.radius(torch.full_like(self._curvature, norm), curvature=self._curvature)
            for norm in (self._architecture.max_radius, self._architecture.raw_max_radius)
        )
        self._largest_radius, self._longest = largest, 2 * raw
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
        population = sample.population[:, step * self._size : (step + 1) * self._size]
        if self.distances:
            population = population[:, self._mixed]
            parted = sample.parted[..., step * self._size : (step + 1) * self._size]
        rows = [population]
        if self.orders:
            rows.append(sample.stratified[:, step].flatten(1))
        elif self._about_0:
            rows.append(torch.zeros_like(population[:, :1]))
        index = torch.cat(rows, 1)

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
            if self.distances or self._about_0:
                direction = model.projection.direction(mean)
            if self.distances:
                subtrees = (len(index), -1, 2 ** (self._levels - 1))
                terms["distance"] = objectives.distance_term(
                    radius.index_select(1, self._in_order).view(subtrees),
                    direction.index_select(1, self._in_order).view(*subtrees, direction.shape[-1]),
                    curvature=self._curvature,
                    longest=self._longest,
                    margin=self._margin,
                    parted=parted.view(*parted.shape[:2], *subtrees[1:]).transpose(1, 2) if parted.numel() else None,
                )
            if self._about_0:
                radius = poincare.distance(
                    radius, direction, radius[:, -1:], direction[:, -1:], curvature=self._curvature
                )
                unit_norm = poincare.unit_norm(radius, curvature=self._curvature)
            if self.orders:
                placed = Placed(
                    valuations=self._valuations[index],
                    n_population=population.shape[1],
                    unit_norm=unit_norm,
                    radius=radius,
                    largest_radius=self._largest_radius,
                    max_radius=self._architecture.max_radius,
                    n_levels=self._levels,
                    n_strata=sample.stratified.shape[2],
                )
                if self._level_mean:
                    terms |= objectives.level_mean_terms(placed, self._initial_variance)
                else:
                    terms |= objectives.ranking_terms(placed)
            if self._parts:
                terms["richness"] = objectives.parting_term(unit_norm, index, max_radius=self._architecture.max_radius)
            if self._controls:
                statistics = torch.stack([unit_norm.mean(1), unit_norm.std(1)], 1).detach()
        unused = torch.zeros(len(index), device=self._device)
        return torch.stack([terms.get(name, unused) for name in TERMS], 1), statistics


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """Return rows of a table, `(N, D)` to `(…, D)`: as `table[index]`, at a fraction of the time."""
    return table.index_select(0, index.flatten()).view(*index.shape, -1)
