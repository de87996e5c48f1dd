"""The training loop: runs of one shape train as one batch, each by its own seed, settings and best epoch."""

import copy
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tvae import metrics, ternary
from tvae.config.architecture import differences
from tvae.config.training import SHARED_SETTINGS, Configuration
from tvae.errors import ConfigurationError, EvaluationError, TrainingError
from tvae.metrics import Measurement
from tvae.objectives import TERMS
from tvae.torch_defaults import torch_defaults
from tvae.training.controller import controlled_weights, controller_loss
from tvae.training.member import Member, Observer, Record, Result
from tvae.training.optimizer import Weights
from tvae.training.parallel import Parts
from tvae.training.sampling import Sample, Sampler
from tvae.training.schedule import Schedule
from tvae.training.selection import Rank, rank
from tvae.training.step import Step

__all__ = ["MAX_REDRAWS", "train", "train_cohort"]

# A random projection's hierarchy is as often positive as negative: nine in a row of one sign is one case in 500.
MAX_REDRAWS = 8
# Fewer members than this do not keep a further thread busy. A run alone has one thread, so that the same seed gives the
# same weights on any number of cores; on a busy machine it is also the quickest.
MEMBERS_PER_THREAD = 4
# A larger cohort trains as several batches, one after another: beyond this the processor's cache no longer helps.
LARGEST_BATCH = 32
# Operations of all members that go through a network at a time where all are measured: the cache again.
ROWS_AT_A_TIME = 16_384
# A run is warned of once when its hierarchy stays this far above its best for some epochs (a single one can be the
# warm-up's), or its coverage falls this far below the start's.
DEGRADATION_WARNING, DEGRADATION_EPOCHS = 0.01, 3
COVERAGE_WARNING = 0.001
CONTROLLER_LR_SHARE = 0.1
_ADVICE = "Try a lower `lr`; smaller weights of the terms help too."


def train(
    member: Member, *, device: str = "cpu", observer: Observer | None = None, parts: Parts | None = None
) -> Result:
    """Train one run: a cohort of one.

    Args:
        member: the run.
        device: a torch device.
        observer: is told of every epoch and event.
        parts: into which each step is cut, for several processes or in turn; None leaves steps whole.

    Returns:
        The trained run, with the weights of its best epoch.

    Raises:
        ConfigurationError: if steps cannot be cut into as many parts.
        TrainingError: on NaN or infinity in a loss, a gradient or a radius, with the epoch and the term.
    """
    (result,) = train_cohort([member], device=device, observer=observer, parts=parts)
    if result.error is not None:
        raise result.error
    return result


def train_cohort(
    members: Sequence[Member],
    *,
    device: str = "cpu",
    observer: Observer | None = None,
    parts: Parts | None = None,
) -> list[Result]:
    """Train runs of one shape as one batch.

    A member's result does not depend on who trains beside it: it has draws, learning rate, schedule, patience and best
    epoch of its own, and batched products compute each member as they would compute it alone, up to rounding. A member
    that fails keeps its error, and the others go on.

    Args:
        members: runs whose architectures differ at most in curvature, and whose settings agree in `SHARED_SETTINGS`.
        device: a torch device.
        observer: is told of every epoch and event.
        parts: as in `train`.

    Returns:
        A result for each member, in their order.

    Raises:
        ConfigurationError: if the members do not fit into one cohort.
    """
    if not members:
        raise ConfigurationError("A cohort must have at least one member.")
    for member in members[1:]:
        _check_one_shape(members[0], member)
    batches = -(-len(members) // LARGEST_BATCH)
    size = -(-len(members) // batches)
    threads = min(torch.get_num_threads(), max(1, len(members) // MEMBERS_PER_THREAD))
    with torch_defaults(gradients=True, threads=threads):
        return [
            result
            for first in range(0, len(members), size)
            for result in _Cohort(
                members[first : first + size], torch.device(device), observer, first, parts or Parts()
            ).run()
        ]


def _check_one_shape(first: Member, other: Member) -> None:
    fields = [d.field for d in differences(first.model.architecture, other.model.architecture)]
    fields = [name for name in fields if name != "curvature"]
    fields += [s for s in SHARED_SETTINGS if getattr(first.configuration, s) != getattr(other.configuration, s)]
    if fields:
        raise ConfigurationError(f"Members of a cohort must agree in {', '.join(fields)}; train them apart.")


class _Epoch(NamedTuple):
    """What an epoch of training leaves: mean terms and their weights, `(M, terms)`, and the last learning rates."""

    terms: Tensor
    weights: Tensor
    lr: list[float]


class _Run:
    """What the loop keeps of one member."""

    def __init__(self, place: int, member: Member, sampler: Sampler, parts: int) -> None:
        self.place, self.generator, self.sampler = place, member.generator, sampler
        # Each part of a step has a source of noise of its own, so that it matters not which process computes it.
        seeds = torch.randint(2**62, (parts,), generator=self.generator).tolist() if parts > 1 else []
        self.noise = [torch.Generator().manual_seed(seed) for seed in seeds] or [self.generator]
        self.schedule = Schedule(member.configuration, sampler.steps)
        self.result = Result(member.configuration, copy.deepcopy(member.model))
        self.best: Rank | None = None
        self.improved_at = 0
        self.best_weights: dict[str, Tensor] = {}
        self.warned: set[str] = set()

    @property
    def configuration(self) -> Configuration:
        return self.result.configuration

    @property
    def curvature(self) -> float:
        return self.result.model.architecture.curvature

    def term_weights(self, terms: Sequence[str]) -> list[float]:
        c = self.configuration
        weights = {name: c.beta if name == "kl" else getattr(c, f"{name}_weight") for name in TERMS}
        return [weights[name] if name in terms else 0.0 for name in TERMS]


class _Cohort:
    """One cohort in training. The rows of every tensor are the members that still train, in the order of `active`."""

    def __init__(
        self,
        members: Sequence[Member],
        device: torch.device,
        observer: Observer | None,
        first: int,
        parts: Parts,
    ) -> None:
        self.parts = parts
        self.device, self.observer, self.watched = device, observer, 0.0
        settings, architecture = members[0].configuration, members[0].model.architecture
        self.n_trits = architecture.n_trits
        self.unseen = ternary.held_out(settings.holdout, self.n_trits) if settings.holdout else None
        seen = None if self.unseen is None else np.bincount(ternary.valuations(self.n_trits)[~self.unseen])
        self.ceiling = metrics.hierarchy_ceiling(self.n_trits, seen)
        self.even = metrics.population(self.n_trits).n_even
        self.step = Step(architecture, settings, device, parts.count)
        self.controls = architecture.use_controller and self.step.projects
        self.runs = [
            _Run(place, member, Sampler(self.n_trits, settings, member.generator), parts.count)
            for place, member in enumerate(members)
        ]
        self.first = first
        self.active = list(self.runs)
        self.started = time.perf_counter()
        with torch.no_grad():
            self.latents, self.latent_rows = self._distinct_latents()
            for run, member in zip(self.runs, members, strict=True):
                if self.step.projects and "projection" in member.reinitialised:
                    self._redraw(run)
            models = [run.result.model for run in self.runs]
            self.weights = Weights(models, self._learning(settings), settings.optimizer, device)
            self.initial_variance = torch.ones(len(members), self.n_trits + 1)
            self.first_terms = torch.ones(len(members), len(TERMS), device=device)
            self.covered: dict[int, Tensor] = {}
            self.chords: dict[int, Tensor] = {}
            self._end_epoch(0, None)
        self._seat()
        self._keep([run for run in self.runs if run.result.error is None])

    def run(self) -> list[Result]:
        """Train all members to their end."""
        epoch = 0
        while self.active:
            epoch += 1
            self._train_epoch(epoch)
        seconds = (time.perf_counter() - self.started - self.watched) / len(self.runs)
        for run in self.runs:
            run.result.seconds = seconds
            run.result.model.load_state_dict(run.result.model.state_dict() | run.best_weights)
            run.result.model.cpu().eval()
        return [run.result for run in self.runs]

    # Before training

    def _learning(self, settings: Configuration) -> dict[str, float]:
        """Return which parameters learn, by prefix, with their share of the learning rate."""
        if not self.step.projects:
            return {"encoder.": 1.0, "decoder.": 1.0}
        learning = {"projection.radius_net.": 1.0}
        if self.step.distances:
            learning["projection.direction_net."] = 1.0
        if settings.unfreeze in ("encoder", "all"):
            learning["encoder."] = settings.encoder_lr_scale
        if settings.unfreeze == "all":
            learning["decoder."] = settings.decoder_lr_scale
        if self.controls:
            learning["controller."] = CONTROLLER_LR_SHARE
        return learning

    def _distinct_latents(self) -> tuple[Tensor, list[int]]:
        """Return the posterior means of the distinct encoders, `(U, N, D)`, and which one each member has."""
        latents: dict[bytes, Tensor] = {}
        rows = []
        for run in self.runs:
            weights = b"".join(p.numpy(force=True).tobytes() for p in run.result.model.encoder.parameters())
            key = hashlib.sha256(weights).digest()
            if key not in latents:
                latents[key] = metrics.posterior_mean(run.result.model).to(self.device)
            rows.append(list(latents).index(key))
        return torch.stack(list(latents.values())), rows

    def _redraw(self, run: _Run) -> None:
        """Draw a new projection again while its hierarchy has the sign that was not asked for."""
        wanted, model = run.configuration.initial_hierarchy, run.result.model
        if wanted == "any":
            return
        latent = self.latents[self.latent_rows[run.place]].cpu()
        for attempt in range(1, MAX_REDRAWS + 1):
            try:
                unit_norm, direction = metrics.embed(model, latent)
                chords = metrics.pair_chords(direction, n_trits=self.n_trits)
                measured = metrics.measure_norms(unit_norm, chords, n_trits=self.n_trits, curvature=run.curvature)
            except EvaluationError as error:
                self._fail(run, 0, "a radius", str(error))
                return
            if (measured.hierarchy < 0) == (wanted == "negative"):
                return
            run.result.redraws.append(measured.hierarchy)
            self._event(
                run,
                f"The new projection's hierarchy was {measured.hierarchy:+.4f} before training; "
                f"drawing another (redraw {attempt} of at most {MAX_REDRAWS}).",
            )
            model.initialise(run.generator, ("projection",))

    def _seat(self) -> None:
        """Tell the step who trains."""
        places = [run.place for run in self.active]
        self.term_weights = torch.tensor([r.term_weights(self.step.terms) for r in self.active], device=self.device)
        self.step.set_members(
            [run.curvature for run in self.active],
            [run.configuration.distance_margin for run in self.active],
            [[run.noise[part] for run in self.active] for part in range(self.parts.count)],
            self.latents,
            [self.latent_rows[place] for place in places],
            self.initial_variance[places],
        )

    # One epoch

    def _train_epoch(self, epoch: int) -> None:
        samples = zip(*[run.sampler.epoch() for run in self.active], strict=True)
        sample = Sample(*(torch.stack(parts).to(self.device) for parts in samples))
        steps = self.active[0].sampler.steps
        totals = torch.zeros(len(self.active), len(TERMS), device=self.device)
        shares = torch.zeros_like(totals)
        for step in range(steps):
            lr = [run.schedule.lr((epoch - 1) * steps + step) for run in self.active]
            terms, share, gradient = self._step(sample, step, first=epoch == 1 and step == 0)
            self._check(epoch, terms, gradient)
            self.weights.step(gradient, torch.tensor(lr, device=self.device))
            totals += terms
            shares += share
        with torch.no_grad():
            self._end_epoch(epoch, _Epoch(totals / steps, shares / steps, lr))
        self._keep([run for run in self.active if not self._is_over(run, epoch)])

    def _step(self, sample: Sample, step: int, *, first: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return the terms of a step, without gradient, their weights, and the gradient: means over its parts."""
        sums: list[Tensor] = []
        for part in self.parts.mine:
            terms, statistics = self.step(self.weights.model, sample, step, part)
            share, loss = self._weigh(terms, statistics, first)
            found = [terms.detach(), share, self.weights.gradient(loss)]
            sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
        terms, share, gradient = map(self.parts.mean, sums)
        return terms, share, gradient

    def _weigh(self, terms: Tensor, statistics: Tensor, first: bool) -> tuple[Tensor, Tensor]:
        """Return the weights of the terms, `(M, terms)`, and the loss of all members, the controllers' own included."""
        controller, weights = self.weights.model.controller, self.term_weights
        if controller is None or not self.controls:
            return weights, (terms * weights).sum()
        known = terms.detach()
        if first:
            self.first_terms = known.clamp(min=1e-8)
        progress = (known / self.first_terms).clamp(max=10.0)
        shifted = controlled_weights(controller, progress, statistics, weights)
        fixed = shifted.detach()
        return fixed, (terms * fixed).sum() + controller_loss(shifted, progress, weights).sum()

    def _check(self, epoch: int, terms: Tensor, gradient: Tensor) -> None:
        """Note the first epoch and term at which a member was no longer finite."""
        finite = terms.isfinite()
        sound = finite.all(1) & gradient.sum(1).isfinite()  # a sum shows what is not finite, at a third of the cost
        if bool(sound.all()):
            return
        for row in torch.nonzero(~sound).flatten().tolist():
            lost = [name for name, ok in zip(TERMS, finite[row].tolist(), strict=True) if not ok]
            self._fail(self.active[row], epoch, f"the loss term `{lost[0]}`" if lost else "the gradient")

    def _end_epoch(self, epoch: int, trained: "_Epoch | None") -> None:
        """Measure every member, keep the weights of its best epoch, and tell the observer."""
        latent = self._posterior_mean()
        covered = self._covered(latent)
        unit_norms, finite = self._embedded(latent) if self.step.projects else (None, [])
        for row, run in enumerate(self.active):
            if run.result.error is not None:
                continue
            record: Record = {"epoch": float(epoch), "coverage": float(covered[row][: self.even].double().mean())}
            known, measured = dict(record), None
            if unit_norms is not None:
                try:
                    measured = self._measure(run, unit_norms[row], finite[row])
                except EvaluationError as error:
                    self._fail(run, epoch, "a radius", str(error))
                    continue
                record |= _record(measured)
            if self.unseen is not None:
                apart = self._measure_apart(run, covered[row], unit_norms[row] if unit_norms is not None else None)
                for name, (share, of_these) in apart.items():
                    record[f"{name}_coverage"] = share
                    if of_these is not None:
                        record[f"{name}_hierarchy"] = of_these.hierarchy
                # What is held out must not choose the epoch either.
                known["coverage"], measured = apart["seen"]
            if trained is not None:
                record |= self._trained_record(row, trained)
            elif measured is not None:
                self.initial_variance[row] = torch.tensor(measured.level_richness) * (self.n_trits + 1)
            reached = rank(record | known, measured, self.ceiling, distances=self.step.distances)
            self._select(run, row, record, reached)

    def _trained_record(self, row: int, trained: "_Epoch") -> Record:
        terms, shares = trained.terms[row].tolist(), trained.weights[row].tolist()
        record = {"loss": sum(t * w for t, w in zip(terms, shares, strict=True)), "lr": trained.lr[row]}
        for name, term, share in zip(TERMS, terms, shares, strict=True):
            if name in self.step.terms:
                record[f"term_{name}"] = term
                if self.controls:
                    record[f"controller_{name}"] = share
        if self.step.distances:
            asked = self.active[row].configuration
            share = asked.richness_weight / asked.distance_weight
            record["tree_loss"] = record["term_distance"] + share * record.get("term_richness", 0.0)
        return record

    def _select(self, run: _Run, row: int, record: Record, reached: Rank) -> None:
        epoch = int(record["epoch"])
        improved = run.best is None or reached > run.best
        run.result.history.append(record)
        if improved:
            run.improved_at = epoch
        # Of equals the later one: where an epoch is one step, a tree loss of 0 may be luck, and less so at the end.
        if improved or reached == run.best:
            run.best, run.result.best_epoch = reached, epoch
            run.best_weights = self.weights.snapshot(row)
        if epoch > 0:
            run.schedule.observe(improved)
            self._warn(run, record)
        self._tell(lambda observer: observer.epoch(self.first + run.place, record))

    def _warn(self, run: _Run, record: Record) -> None:
        """Say, once a run, that hierarchy degrades or that coverage is being lost."""
        first, best = run.result.history[0], run.result.history[run.result.best_epoch]
        at = f"at epoch {record['epoch']:.0f}"
        warnings = {}
        last = run.result.history[-DEGRADATION_EPOCHS:]
        lost = [r["hierarchy"] - best["hierarchy"] > DEGRADATION_WARNING for r in last if "hierarchy" in r]
        if len(lost) == DEGRADATION_EPOCHS and all(lost):
            warnings["hierarchy"] = (
                f"Hierarchy degrades: {record['hierarchy']:.4f} {at}, from {best['hierarchy']:.4f} at epoch "
                f"{best['epoch']:.0f}. The weights of the best epoch are kept."
            )
        if self.step.projects and record["coverage"] < first["coverage"] - COVERAGE_WARNING:
            warnings["coverage"] = (
                f"Coverage fell to {record['coverage']:.4f} {at}, from {first['coverage']:.4f} at the start. "
                "An epoch with less coverage never counts as the best."
            )
        for name in warnings.keys() - run.warned:
            run.warned.add(name)
            self._event(run, warnings[name])

    def _is_over(self, run: _Run, epoch: int) -> bool:
        stale = epoch - run.improved_at >= run.configuration.patience
        return stale or epoch >= run.configuration.epochs or run.result.error is not None

    def _keep(self, going_on: list[_Run]) -> None:
        if len(going_on) == len(self.active):
            return
        rows = [row for row, run in enumerate(self.active) if run in going_on]
        self.active = going_on
        if going_on:
            self.weights.keep(rows)
            self.first_terms = self.first_terms[rows]
            self._seat()

    # Measuring

    def _posterior_mean(self) -> Tensor:
        """Return the posterior means of every active member, shape `(M, N, D)`."""
        if self.step.encodes:
            return metrics.posterior_mean(self.weights.model)
        if len(self.latents) == 1:
            return self.latents.expand(len(self.active), -1, -1)
        return self.latents[[self.latent_rows[run.place] for run in self.active]]

    def _covered(self, latent: Tensor) -> list[Tensor]:
        """Return which operations each active member reproduces, found once where encoder and decoder do not learn."""
        if self.step.encodes or not self.covered:
            covered = metrics.reproduced(self.weights.model, latent).cpu()
            self.covered = dict(zip((run.place for run in self.active), covered, strict=True))
        return [self.covered[run.place] for run in self.active]

    def _measure_apart(
        self, run: _Run, covered: Tensor, unit_norm: Tensor | None
    ) -> dict[str, tuple[float, Measurement | None]]:
        """Return coverage, and what is measured of radii, of the operations that are seen and of those held out."""
        found: dict[str, tuple[float, Measurement | None]] = {}
        assert self.unseen is not None
        for name, chosen in (("seen", ~self.unseen), ("unseen", self.unseen)):
            measured = None
            if unit_norm is not None:
                measured = metrics.measure_norms(
                    unit_norm, self.chords[run.place], n_trits=self.n_trits, curvature=run.curvature, chosen=chosen
                )
            found[name] = float(covered.numpy()[chosen].mean()), measured
        return found

    def _embedded(self, latent: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """Return unit norms `(M, N)` of every active member, and which directions of each are finite, on the CPU.

        The latter, of shape `(N,)`, is None where directions are what they were. Of new ones the chords of the sampled
        pairs are put into `self.chords`, and no more is kept: all would take D times the memory of unit norms.
        """
        model = self.weights.model
        # A multiple of 16, as in `metrics`.
        size = max(256, min(metrics.CHUNK, ROWS_AT_A_TIME // len(latent) // 16 * 16))
        chunks = torch.split(latent, size, dim=1)
        if self.chords and not (self.step.encodes or self.step.distances or model.architecture.centred):
            return torch.cat([model.projection.unit_norm(chunk) for chunk in chunks], 1).cpu(), [None] * len(latent)
        in_pairs, found = metrics.in_pairs(self.n_trits)[0].to(self.device), []
        for chunk, chosen in zip(chunks, torch.split(in_pairs, size), strict=True):
            unit_norm, direction = model.project(chunk)
            found.append((unit_norm, direction.isfinite().all(-1), direction[:, chosen]))
        unit_norms, finite, directions = (torch.cat(column, 1).cpu() for column in zip(*found, strict=True))
        for run, direction in zip(self.active, directions, strict=True):
            self.chords[run.place] = metrics.chords_in_pairs(direction, n_trits=self.n_trits)
        return unit_norms, list(finite)

    def _measure(self, run: _Run, unit_norm: Tensor, finite: Tensor | None) -> Measurement:
        if finite is not None:
            metrics.require_finite_directions(finite, self.n_trits)
        return metrics.measure_norms(unit_norm, self.chords[run.place], n_trits=self.n_trits, curvature=run.curvature)

    # Telling

    def _fail(self, run: _Run, epoch: int, what: str, why: str = "") -> None:
        if run.result.error is None:
            run.result.error = TrainingError(
                f"Training stopped at epoch {epoch}: {what} is NaN or infinite. {why or _ADVICE}"
            )

    def _event(self, run: _Run, text: str) -> None:
        run.result.events.append(text)
        self._tell(lambda observer: observer.event(self.first + run.place, text))

    def _tell(self, call: Callable[[Observer], None]) -> None:
        if self.observer is not None:
            started = time.perf_counter()
            call(self.observer)
            self.watched += time.perf_counter() - started


def _record(measured: Measurement) -> Record:
    return {
        "hierarchy": measured.hierarchy,
        "richness": measured.richness,
        "ordered_levels": float(measured.ordered_levels),
        "level_gap": measured.level_gap,
        "distance_fidelity": measured.distance_fidelity,
        **{f"radius_v{level}": radius for level, radius in enumerate(measured.level_radii)},
    }
