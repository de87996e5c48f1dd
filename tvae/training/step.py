"""One step: from the operations of a batch to the terms of the loss, for every member that still trains."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tvae import objectives, poincare, ternary
from tvae.config.architecture import Architecture
from tvae.config.training import Configuration
from tvae.errors import ConfigurationError
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
        parts: into how many each step is cut.

    Raises:
        ConfigurationError: if a step cannot be cut into as many.
    """

    def __init__(
        self, architecture: Architecture, settings: Configuration, device: torch.device, parts: int = 1
    ) -> None:
        self.projects = settings.objective != "elbo"
        self.encodes = settings.unfreeze != "none" or not self.projects
        self.distances, self.orders = settings.learns_distances, settings.orders_radii
        self._halves = settings.parts_level_0
        self.terms = [
            *(["coverage", "kl"] if self.encodes else []),
            *(["hierarchy", "separation"] if self.orders else []),
            *(["richness"] if self._halves or (self.orders and not self.distances) else []),
            *(["distance"] if self.distances else []),
        ]
        self._level_mean = settings.objective == "level_mean"
        self._controls = architecture.use_controller
        # Where radii count, and are distances from operation 0, that is the last of every batch.
        self._about_0 = architecture.centred and (self.orders or self._halves or self._controls)
        self._size, self._parts = settings.operations_per_step(architecture.n_trits), parts
        self._branchings = settings.branchings(architecture.n_trits)
        per_level = settings.operations_of_level_per_step
        least = self._size // 2**self._branchings if self.distances else self._size
        last = self._size if self.distances else settings.operations_per_epoch(architecture.n_trits) % self._size
        if parts > 1 and architecture.use_controller:
            raise ConfigurationError("A training with a controller must have whole steps; set use_controller to false.")
        if parts > 1 and (least % parts or 0 < last < parts or (self.orders and per_level % parts)):
            raise ConfigurationError(
                f"`batch_size` must give steps that can be cut into {parts} equal parts; of {settings.batch_size} a "
                f"step has {least} {'binary subtrees' if self.distances else 'operations'}. Set it to a multiple."
            )
        self._device, self._architecture = device, architecture
        # Operations of a subtree are mixed, so that neighbours in a batch are random partners, and put back in order.
        self._mixed = torch.randperm(self._size // parts, generator=torch.Generator().manual_seed(0)).to(device)
        self._in_order = torch.argsort(self._mixed)
        self._levels = architecture.n_trits + 1
        self._powers = 3 ** torch.arange(architecture.n_trits, device=device)

    def set_members(
        self,
        curvatures: Sequence[float],
        margins: Sequence[float],
        generators: Sequence[Sequence[torch.Generator]],
        latents: Tensor,
        latent_rows: Sequence[int],
        initial_variance: Tensor,
    ) -> None:
        """Say who trains.

        Args:
            curvatures: c > 0, a member each.
            margins: `distance_margin`, a member each.
            generators: source of the latents' noise, for each part one a member.
            latents: posterior means of the distinct encoders, shape `(U, N, D)`; used where encoders do not learn and
                all operations are listed.
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

    def __call__(self, model: TernaryVAE, sample: Sample, step: int, part: int = 0) -> tuple[Tensor, Tensor]:
        """Compute a part of one step.

        Args:
            model: the cohort.
            sample: of the epoch, with a leading member axis.
            step: of the epoch.
            part: of the step.

        Returns:
            The terms in the order of `TERMS`, 0 where not in use, shape `(M, terms)`; and mean and standard deviation
            of the unit norms, without gradient, shape `(M, 2)`, 0 where no controller reads them.
        """
        here = slice(step * self._size, (step + 1) * self._size)
        population = sample.population[:, here].tensor_split(self._parts, 1)[part]
        if self.distances:
            population = population[:, self._mixed]
            parted = sample.parted[..., here].tensor_split(self._parts, -1)[part]
        rows = [population]
        if self.orders:
            stratified = sample.stratified[:, step].tensor_split(self._parts, -1)[part]
            rows.append(stratified.flatten(1))
        elif self._about_0:
            rows.append(torch.zeros_like(population[:, :1]))
        index = torch.cat(rows, 1)

        terms: dict[str, Tensor] = {}
        if self.encodes:
            classes = index[..., None] // self._powers % 3
            mean, log_variance = model.encode((classes - 1).float())
            # Of the whole batch: in the population part alone the rare operations are too rare to stay covered.
            noise = torch.stack([torch.randn(mean.shape[-2:], generator=g) for g in self._generators[part]])
            logits = model.decode(mean + torch.exp(log_variance / 2) * noise.to(self._device))
            terms |= objectives.elbo_terms(logits, classes, mean, log_variance)
        elif self._architecture.n_trits <= ternary.MOST_LISTED:
            mean = _rows(self._latents, self._first_latent + index)
        else:
            with torch.no_grad():
                mean = model.encode((index[..., None] // self._powers % 3 - 1).float())[0]

        statistics = torch.zeros(len(index), 2, device=self._device)
        if self.projects:
            unit_norm = model.projection.unit_norm(mean)
            radius = poincare.radius(unit_norm, curvature=self._curvature)
            if self.distances or self._about_0:
                direction = model.projection.direction(mean)
            if self.distances:
                subtrees = (len(index), -1, 2**self._branchings)
                terms["distance"] = objectives.distance_term(
                    radius.index_select(1, self._in_order).view(subtrees),
                    direction.index_select(1, self._in_order).view(*subtrees, direction.shape[-1]),
                    curvature=self._curvature,
                    longest=self._longest,
                    margin=self._margin * sample.steps_down[:, step],
                    parted=parted.view(*parted.shape[:2], *subtrees[1:]).transpose(1, 2) if parted.numel() else None,
                )
            if self._about_0:
                radius = poincare.distance(
                    radius, direction, radius[:, -1:], direction[:, -1:], curvature=self._curvature
                )
                unit_norm = poincare.unit_norm(radius, curvature=self._curvature)
            if self.orders:
                placed = Placed(
                    valuations=(index[..., None] % (3 * self._powers) == 0).sum(-1),
                    n_population=population.shape[1],
                    unit_norm=unit_norm,
                    radius=radius,
                    largest_radius=self._largest_radius,
                    max_radius=self._architecture.max_radius,
                    n_levels=self._levels,
                    n_strata=stratified.shape[1],
                )
                if self._level_mean:
                    terms |= objectives.level_mean_terms(placed, self._initial_variance)
                else:
                    terms |= objectives.ranking_terms(placed)
            if self._halves:
                terms["richness"] = objectives.parting_term(unit_norm, index, max_radius=self._architecture.max_radius)
            if self._controls:
                statistics = torch.stack([unit_norm.mean(1), unit_norm.std(1)], 1).detach()
        unused = torch.zeros(len(index), device=self._device)
        return torch.stack([terms.get(name, unused) for name in TERMS], 1), statistics


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """Return rows of a table, `(N, D)` to `(…, D)`: as `table[index]`, at a fraction of the time."""
    return table.index_select(0, index.flatten()).view(*index.shape, -1)
