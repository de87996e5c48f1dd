"""Training: schedules, draws, Adam, the loop and its guards, cohorts against single runs, and the project's claim."""

import functools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from exact_model import exact_model
from torch import Tensor

from tvae import metrics, objectives, ternary
from tvae.config.architecture import Architecture
from tvae.config.presets import PRESETS, resolve, resolve_foundation
from tvae.config.training import FOUNDATION, OPTIMIZERS, SCHEDULERS, Configuration
from tvae.errors import ConfigurationError, TrainingError
from tvae.metrics import Measurement, evaluate
from tvae.model import TernaryVAE
from tvae.objectives import TERMS
from tvae.training import Member, Record, Result, optimizer, train, train_cohort
from tvae.training.cohort import MAX_REDRAWS
from tvae.training.controller import controlled_weights, controller_loss
from tvae.training.optimizer import Weights, orthogonalised
from tvae.training.sampling import Sampler, binary_subtrees
from tvae.training.schedule import Schedule
from tvae.training.selection import rank
from tvae.training.start import from_foundation, from_scratch

# Before the move to the centre, and with it.
SMALL = Architecture(
    n_trits=4,
    latent_dim=6,
    encoder_hidden=(32,),
    decoder_hidden=(24,),
    hidden_dim=16,
    n_projection_layers=1,
    max_radius=0.95,
    centred=False,
)
CENTRED = replace(SMALL, max_radius=0.9995, centred=True)
TINY = replace(SMALL, n_trits=2, latent_dim=2, encoder_hidden=(4,), decoder_hidden=(4,), hidden_dim=4)


def of_preset(name: str) -> dict[str, Any]:
    """Return what a preset sets of a training, other than its length."""
    settings = Configuration().to_dict() | PRESETS[name]
    return {k: v for k, v in settings.items() if k in Configuration().to_dict() and k not in LENGTH}


LENGTH = ("epochs", "patience", "batch_size", "seed")
QUICK = Configuration(batch_size=32, epochs=3, patience=25).replace(**of_preset("radii"))
# Every way of training: the settings that make it, which parts learn, and which terms are logged.
WAYS: dict[str, dict[str, Any]] = {
    "default": of_preset("default"),
    "rich": of_preset("rich"),
    "radii": {},
    "level_mean": {"objective": "level_mean", "lr": 3e-3},
    "elbo": {"objective": "elbo", "lr": 2e-2, "unfreeze": "all"},
    "encoder": {"unfreeze": "encoder"},
    "projection": of_preset("default") | {"unfreeze": "none"},
    "parted_all": of_preset("default") | {"unfreeze": "all", "richness_weight": 2.0, "decoder_lr_scale": 0.1},
}
LEARNS = {
    "default": {"projection.radius_net", "projection.direction_net", "encoder"},
    "rich": {"projection.radius_net", "projection.direction_net", "encoder"},
    "radii": {"projection.radius_net"},
    "level_mean": {"projection.radius_net"},
    "elbo": {"encoder", "decoder"},
    "encoder": {"projection.radius_net", "encoder"},
    "projection": {"projection.radius_net", "projection.direction_net"},
    "parted_all": {"projection.radius_net", "projection.direction_net", "encoder", "decoder"},
}
LOGS = {
    "default": {"coverage", "kl", "distance"},
    "rich": set(TERMS),
    "radii": {"hierarchy", "richness", "separation"},
    "level_mean": {"hierarchy", "richness", "separation"},
    "elbo": {"coverage", "kl"},
    "encoder": {"hierarchy", "richness", "separation", "coverage", "kl"},
    "projection": {"distance"},
    "parted_all": {"richness", "coverage", "kl", "distance"},
}
AT_THE_CENTRE = ("default", "rich", "projection", "parted_all")
each_way = pytest.mark.parametrize("way", list(WAYS))
each_way_half_of_them_with_a_controller = pytest.mark.parametrize(
    ("way", "use_controller"), [(way, way in ("default", "rich", "radii", "elbo")) for way in WAYS]
)


def member(architecture: Architecture = SMALL, **settings: Any) -> Member:
    return from_scratch(architecture, QUICK.replace(**settings))


def by(way: str, use_controller: bool = False, **settings: Any) -> Member:
    """Return a member that trains in one of the ways."""
    return member(architecture_of(way, use_controller), **WAYS[way] | settings)


@functools.cache
def trained(way: str, use_controller: bool = False) -> tuple[Member, Result]:
    """Return a run and what became of it: from a poor start without a redraw, which any way of training betters."""
    run = by(way, use_controller, seed=7)
    return run, train(run)


def architecture_of(way: str, use_controller: bool = False) -> Architecture:
    return replace(CENTRED if way in AT_THE_CENTRE else SMALL, use_controller=use_controller)


def started_from(model: TernaryVAE, drawn: tuple[str, ...] = (), **settings: Any) -> Member:
    configuration = QUICK.replace(**settings)
    return Member(configuration, model, drawn, torch.Generator().manual_seed(configuration.seed))


def same_weights(a: TernaryVAE, b: TernaryVAE) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def moved(before: TernaryVAE, after: TernaryVAE) -> set[str]:
    """Return which parts of the network are not what they were, down to the projection's two nets."""
    names = [k for k, v in before.state_dict().items() if not torch.equal(v, after.state_dict()[k])]
    return {".".join(name.split(".")[: 2 if name.startswith("projection") else 1]) for name in names}


class Watch:
    """An observer that keeps everything that it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[int, str | float]] = []

    def epoch(self, member: int, record: Record) -> None:
        self.told.append((member, record["epoch"]))

    def event(self, member: int, text: str) -> None:
        self.told.append((member, text))


# Schedules

STEPS = np.linspace(0, 1, 1000)


def rates(scheduler: str, epochs: int = 50, steps: int = 20, lr: float = 0.1) -> list[float]:
    schedule = Schedule(Configuration(scheduler=scheduler, epochs=epochs, lr=lr), steps)
    return [schedule.lr(step) for step in range(epochs * steps)]


def test_constant_rate_stays() -> None:
    assert set(rates("constant")) == {0.1}


def test_cosine_falls_from_the_peak_to_0_along_half_a_cosine() -> None:
    assert rates("cosine") == pytest.approx(0.1 * (1 + np.cos(np.pi * STEPS)) / 2, abs=1e-12)


def test_step_halves_the_rate_in_five_stages_of_equal_length() -> None:
    stages = Counter(rates("step"))
    assert list(stages) == pytest.approx([0.1, 0.05, 0.025, 0.0125, 0.00625])
    assert list(stages.values()) == pytest.approx([200] * 5, abs=1)


def test_one_cycle_rises_from_a_25th_to_the_peak_and_falls_to_a_10_000th_along_half_cosines() -> None:
    rise, fall = (1 - np.cos(np.pi * STEPS / 0.3)) / 2, (1 + np.cos(np.pi * (STEPS - 0.3) / 0.7)) / 2
    expected = np.where(STEPS < 0.3, 0.1 / 25 + (0.1 - 0.1 / 25) * rise, 1e-5 + (0.1 - 1e-5) * fall)
    assert rates("one_cycle") == pytest.approx(expected, abs=1e-12)


def test_linear_warms_up_over_a_twentieth_and_falls_to_0_along_a_line() -> None:
    found, rising = np.array(rates("linear")), STEPS < 0.049
    assert found[rising] == pytest.approx(0.1 * (STEPS[rising] + 1e-3) / 0.05, rel=1e-12)
    assert found[~rising] == pytest.approx(0.1 * (1 - STEPS[~rising]) / 0.95, rel=0.02)
    assert (0 < found[0] < 0.003, found[-1], found.argmax()) == (True, 0.0, pytest.approx(50, abs=1))


@pytest.mark.parametrize(
    ("better", "expected"),
    [(None, [1.0] * 5 + [0.5] * 5 + [0.25] * 2), (3, [1.0] * 9 + [0.5] * 3)],
)
def test_plateau_halves_the_rate_after_5_epochs_without_a_better_one(better: int | None, expected: list[float]) -> None:
    schedule, found = Schedule(Configuration(scheduler="plateau", lr=1.0), 10), []
    for epoch in range(12):
        found.append(schedule.lr(10 * epoch))
        schedule.observe(improved=epoch == better)
    assert found == expected


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_training_of_one_step_has_a_rate_and_only_plateau_depends_on_how_training_goes(scheduler: str) -> None:
    (rate,) = rates(scheduler, epochs=1, steps=1)
    assert 0 < rate <= 0.1
    schedule = Schedule(Configuration(scheduler=scheduler, epochs=50, lr=0.1), 20)
    for _ in range(50):
        schedule.observe(improved=False)
    assert (schedule.lr(400) == rates(scheduler)[400]) == (scheduler != "plateau")


# Draws


def sampler(n_trits: int = 5, batch_size: int = 100, subtrees: bool = False, seed: int = 0) -> Sampler:
    configuration = Configuration(batch_size=batch_size, distance_weight=float(subtrees))
    return Sampler(n_trits, configuration, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n_trits", [2, 5, 9])
def test_an_epoch_has_every_operation_once(n_trits: int) -> None:
    assert torch.equal(sampler(n_trits).epoch().population.sort().values, torch.arange(3**n_trits))


@pytest.mark.parametrize(("batch_size", "per_level"), [(1, 4), (100, 4), (256, 8), (512, 16)])
def test_stratified_part_has_as_many_of_each_level(batch_size: int, per_level: int) -> None:
    steps = -(-243 // batch_size)
    assert sampler(batch_size=batch_size).epoch().stratified.shape == (steps, 6, per_level)


def test_stratified_operations_are_drawn_evenly_within_their_level() -> None:
    draws = sampler(3, 1)
    seen = torch.cat([draws.epoch().stratified for _ in range(40)]).permute(1, 0, 2).flatten(1)
    for level, size in enumerate(ternary.level_sizes(3)):
        _, counts = seen[level].unique(return_counts=True)
        assert len(counts) == size
        assert counts.double().numpy() * size / seen.shape[1] == pytest.approx(np.ones(size), abs=0.25)


@pytest.mark.parametrize("way", ["encoder", "rich", "parted_all"])
def test_coverage_is_asked_of_the_rare_operations_in_every_step(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_operation_0: list[bool] = []
    original = objectives.elbo_terms

    def watched(logits: Tensor, target: Tensor, *posterior: Tensor) -> dict[str, Tensor]:
        with_operation_0.append(bool((target == 0).all(-1).any()))
        return original(logits, target, *posterior)

    monkeypatch.setattr(objectives, "elbo_terms", watched)
    train(by(way))
    assert len(with_operation_0) > 3
    assert all(with_operation_0)


def test_operations_are_in_subtrees_as_often_as_each_other_but_for_0_and_its_neighbours() -> None:
    trees = binary_subtrees(60_000, torch.ones(3, dtype=torch.bool), torch.Generator().manual_seed(0))
    share = np.bincount(trees.flatten().numpy(), minlength=27) / len(trees)
    chance = 8 / 27
    assert share[0] == pytest.approx(chance + 0.3 * (1 - chance), abs=0.01)
    # Below a node that is always kept on the way to 0, the one of two siblings that is kept is as likely as the other.
    far_from_0 = share[np.arange(27) % 3 != 0]
    assert far_from_0 == pytest.approx(np.full(18, 0.7 * chance + 0.3 * 2 / 9), abs=0.01)


def test_draws_follow_from_the_seed_and_differ_by_epoch() -> None:
    draws, again, others = (sampler(subtrees=True, seed=seed) for seed in (3, 3, 4))
    first, same, other, second = draws.epoch(), again.epoch(), others.epoch(), draws.epoch()
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not any(torch.equal(a, b) for found in (other, second) for a, b in zip(first[:2], found[:2], strict=True))


# Optimizers


def models(n: int) -> list[TernaryVAE]:
    return [from_scratch(SMALL, Configuration(seed=seed)).model for seed in range(n)]


def any_loss(model: TernaryVAE) -> Tensor:
    """A loss that reaches encoder, decoder and radius net; its sum over a cohort keeps the members apart."""
    mean, log_variance = model.encode(metrics.trit_table(4))
    return model.decode(mean).square().sum() + log_variance.exp().sum() + model.projection.unit_norm(mean).sum()


LEARNING = {"encoder.": 0.1, "projection.radius_net.": 1.0, "decoder.": 0.3}
LR = [0.03, 0.001, 0.2]


def by_torch(model: TernaryVAE, lr: float, optimizer: str, steps: int) -> None:
    learn = {name: prefix for prefix in LEARNING for name, _ in model.named_parameters() if name.startswith(prefix)}
    groups: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for name, prefix in learn.items():
        parameter = model.get_parameter(name)
        orthogonal = optimizer == "muon" and parameter.dim() == 2 and min(parameter.shape) > 1
        groups[orthogonal].append({"params": [parameter], "lr": lr * LEARNING[prefix]})
    both: list[torch.optim.Optimizer] = [torch.optim.Adam(groups[False], betas=(0.9, 0.99), eps=1e-8)]
    if groups[True]:
        both.append(torch.optim.Muon(groups[True], momentum=0.9, weight_decay=0, adjust_lr_fn="match_rms_adamw"))
    for _ in range(steps):
        model.zero_grad()
        any_loss(model).backward()
        torch.nn.utils.clip_grad_norm_([model.get_parameter(name) for name in learn], max_norm=1.0)
        for one in both:
            one.step()


def by_cohort(
    singles: Sequence[TernaryVAE], steps: int, optimizer: str = "adam", keep: Sequence[int] = (), after: int = 0
) -> Weights:
    """Step as a cohort, from some step on with the kept members alone."""
    weights, lr = Weights(singles, LEARNING, optimizer, torch.device("cpu")), torch.tensor(LR)
    for step in range(steps):
        if keep and step == after:
            weights.keep(keep)
            lr = lr[list(keep)]
        weights.step(weights.gradient(any_loss(weights.model)), lr)
    return weights


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("alone", [False, True])
def test_20_steps_are_those_of_torch_for_each_member_at_its_own_rate(
    optimizer: str, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone: from the eighth step on. Torch's Muon iterates in bfloat16; here, as tvae does, in float32."""
    monkeypatch.setattr(Tensor, "bfloat16", Tensor.float)
    together = by_cohort(models(3), 20, optimizer, [2] if alone else (), 8)
    for row, member in enumerate([2] if alone else range(3)):
        single = models(3)[member]
        by_torch(single, LR[member], optimizer, 20)
        # What does not learn is among them, and has not moved.
        found = {name: values[row] for name, values in together.model.state_dict().items()}
        torch.testing.assert_close(found, dict(single.state_dict()), rtol=1e-3, atol=1e-4)


def test_a_matrix_of_zeros_has_no_direction() -> None:
    assert not orthogonalised(torch.zeros(2, 5, 9)).any()


def test_no_gradient_is_longer_than_1_and_a_shorter_one_is_as_it_is() -> None:
    weights = Weights(models(3), LEARNING, "adam", torch.device("cpu"))
    long, short = (weights.gradient(any_loss(weights.model) * scale).norm(dim=1) for scale in (1.0, 1e-6))
    torch.testing.assert_close(long, torch.ones(3))
    assert (short < 1e-2).all()
    assert (short > 0).all()


# The controller


def control(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what random controllers make of weights, with the progress that they saw."""
    model = TernaryVAE(replace(SMALL, use_controller=True), members=len(weights))
    model.initialise(torch.Generator().manual_seed(0))
    assert model.controller is not None
    progress = torch.rand(len(weights), len(TERMS)) * 10
    return controlled_weights(model.controller, progress, torch.rand(len(weights), 2), weights), progress, weights


def weights_of_five() -> Tensor:
    weights = torch.rand(5, len(TERMS)) * torch.tensor([[1e-3], [1.0], [1.0], [5.0], [1e4]])
    weights[1, 2:] = weights[2, ::2] = 0
    return weights


def test_controller_shifts_weight_but_keeps_the_sum_and_leaves_0_at_0() -> None:
    shifted, _, weights = control(weights_of_five())
    torch.testing.assert_close(shifted.sum(1), weights.sum(1))
    assert torch.equal(shifted == 0, weights == 0)
    assert (shifted >= 0).all()
    assert not torch.allclose(shifted, weights, rtol=0.01)


def test_controller_is_drawn_to_the_term_that_has_come_down_least() -> None:
    weights = torch.ones(1, 6)
    shifted = weights.clone().requires_grad_()
    progress = torch.tensor([[0.1, 0.2, 0.9, 0.3, 0.1, 0.2]])
    (slope,) = torch.autograd.grad(controller_loss(shifted, progress, weights).sum(), shifted)
    assert int(slope.argmin()) == 2


def test_controller_without_any_progress_is_drawn_to_the_weights_as_they_were() -> None:
    weights, nothing = torch.tensor([[1.0, 2.0, 3.0, 0.0, 0.0, 0.0]]), torch.zeros(1, 6)
    shifts = [torch.tensor([[2.0, 2.0, 2.0, 0, 0, 0]]), torch.tensor([[3.0, 2.0, 1.0, 0, 0, 0]]), weights]
    costs = [float(controller_loss(shifted, nothing, weights)) for shifted in shifts]
    assert min(costs) == costs[2] == pytest.approx(0.0, abs=1e-6)


def test_controller_of_terms_without_weight_is_finite() -> None:
    shifted, progress, weights = control(torch.zeros(2, 6))
    assert torch.equal(shifted, weights)
    assert bool(controller_loss(shifted, progress, weights).isfinite().all())


# Which epoch is the best: test_docs_math.py has the order


def test_radii_that_pass_the_ceiling_by_their_ties_are_no_merit() -> None:
    ceiling = metrics.hierarchy_ceiling(4)
    tied, rich = (Measurement(h, richness, 4, 0.0, 0.0, (), (), ()) for h, richness in ((-1.0, 0.01), (ceiling, 0.02)))
    assert rank({"coverage": 1.0}, rich, ceiling) > rank({"coverage": 1.0}, tied, ceiling)


# The loop


def test_history_begins_before_training() -> None:
    run = member(initial_hierarchy="any")
    before = evaluate(run.model)
    first = train(run).history[0]
    assert first["epoch"] == 0
    assert first["hierarchy"] == pytest.approx(before.hierarchy, abs=1e-6)
    assert first["coverage"] == before.coverage
    assert "loss" not in first


@pytest.mark.parametrize("use_controller", [False, True], ids=["plain", "controller"])
@each_way
def test_an_epoch_has_its_record(way: str, use_controller: bool) -> None:
    run, result = trained(way, use_controller)
    c, controls = run.configuration, use_controller and way != "elbo"
    weights = {name: c.beta if name == "kl" else getattr(c, f"{name}_weight") for name in LOGS[way]}
    expected = {"epoch", "coverage", "loss", "lr"} | {f"term_{name}" for name in weights}
    if way != "elbo":
        expected |= {"hierarchy", "richness", "ordered_levels", "level_gap", "distance_fidelity"}
        expected |= {f"radius_v{v}" for v in range(5)}
    if way in AT_THE_CENTRE:
        expected |= {"tree_loss"}
    if controls:
        expected |= {f"controller_{name}" for name in weights}
    assert [record["epoch"] for record in result.history] == [0, 1, 2, 3]
    for record in result.history[1:]:
        assert record.keys() == expected
        shares = {name: record[f"controller_{name}"] if controls else weight for name, weight in weights.items()}
        assert sum(shares.values()) == pytest.approx(sum(weights.values()), rel=1e-5)
        total = sum(share * record[f"term_{name}"] for name, share in shares.items())
        assert record["loss"] == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("use_controller", [False, True], ids=["plain", "controller"])
@each_way
def test_nothing_moves_but_what_learns(way: str, use_controller: bool) -> None:
    run, result = trained(way, use_controller)
    assert (result.best_epoch > 0, result.redraws) == (True, [])
    controls = {"controller"} if use_controller and way != "elbo" else set()
    assert moved(run.model, result.model) == LEARNS[way] | controls
    assert same_weights(run.model, by(way, use_controller, seed=7).model)


@each_way_half_of_them_with_a_controller
def test_the_same_seed_gives_the_same_history_and_weights(way: str, use_controller: bool) -> None:
    _, one = trained(way, use_controller)
    two = train(by(way, use_controller, seed=7))
    assert (one.history, one.redraws) == (two.history, two.redraws)
    assert same_weights(one.model, two.model)


def test_another_seed_gives_another_history() -> None:
    assert train(member(seed=6)).history != trained("radii")[1].history


def losses(way: str) -> list[float]:
    """Return what the first epoch costs at growing curvatures."""
    curvatures = [0.05, 1.0, 20.0]
    runs = [member(replace(architecture_of(way), curvature=c), **WAYS[way] | {"epochs": 1}) for c in curvatures]
    return [result.history[1]["loss"] for result in train_cohort(runs)]


def test_curvature_enters_the_loss_where_radii_are_ordered() -> None:
    found = np.array(losses("radii"))
    assert (np.abs(np.diff(found)) / found[1:] > 1e-3).all()


def test_curvature_does_not_enter_where_distances_alone_are_learned() -> None:
    found = losses("default")
    assert found == pytest.approx([found[0]] * len(found), rel=1e-3)


def test_the_weights_of_the_best_epoch_are_given_back() -> None:
    result = train(member(scheduler="constant", lr=1.0, epochs=12, patience=12))
    best, last = result.history[result.best_epoch], result.history[-1]
    found = evaluate(result.model)
    assert best["hierarchy"] < last["hierarchy"] - 0.01
    assert found.hierarchy == pytest.approx(best["hierarchy"], abs=1e-6)
    assert found.richness == pytest.approx(best["richness"], rel=1e-4)
    assert found.level_radii == pytest.approx([best[f"radius_v{v}"] for v in range(5)], rel=1e-4)


def test_the_best_epoch_is_the_one_that_stands_highest() -> None:
    result = train(by("elbo", epochs=8))
    best = max(result.history, key=lambda record: (record["coverage"], -record.get("loss", math.inf)))
    assert result.best_epoch == best["epoch"]


def test_of_equal_epochs_the_later_is_kept_and_patience_counts_from_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvae.training.cohort.rank", lambda *_, **__: (1.0,))
    architecture, configuration = resolve("default", {"n_trits": 2, "epochs": 9, "patience": 3, "hidden_dim": 8})
    result = train(from_scratch(architecture, configuration))
    assert len(result.history) == 1 + 3
    assert result.best_epoch == 3


def test_training_stops_when_its_patience_or_its_epochs_are_spent() -> None:
    result = train(started_from(exact_model(4), scheduler="constant", lr=1.0, epochs=30, patience=2))
    assert len(result.history) - 1 == result.best_epoch + 2
    assert len(train(member(epochs=2, patience=50)).history) == 3


@pytest.mark.parametrize("scheduler", ["linear", "plateau"])
def test_the_rate_of_the_last_step_is_logged(scheduler: str) -> None:
    history = train(member(scheduler=scheduler, epochs=4, patience=4, lr=0.02)).history
    expected = rates(scheduler, epochs=4, steps=3, lr=0.02)[2::3]
    assert [record["lr"] for record in history[1:]] == pytest.approx(expected)


def test_summary_compares_start_best_and_end() -> None:
    result = train(member(scheduler="constant", lr=1.0, epochs=6, patience=6))
    first, best, last = (result.history[epoch] for epoch in (0, result.best_epoch, -1))
    at_best = ("coverage", "hierarchy", "richness", "ordered_levels", "level_gap", "distance_fidelity")
    assert result.summary() == {
        "init_hierarchy": first["hierarchy"],
        "final_hierarchy": last["hierarchy"],
        "degradation": last["hierarchy"] - best["hierarchy"],
        "best_epoch": result.best_epoch,
        "train_seconds": result.seconds,
        "best_q": best["distance_fidelity"] + 1.5 * abs(best["hierarchy"]),
        **{f"best_{name}": best[name] for name in at_best},
    }


# Redraws

SEEDS = range(6)


@functools.cache
def redrawn(wanted: str) -> list[Result]:
    return train_cohort([member(seed=seed, epochs=1, initial_hierarchy=wanted) for seed in SEEDS])


@pytest.mark.parametrize(("wanted", "sign"), [("negative", 1), ("positive", -1)])
def test_a_start_of_the_other_sign_is_drawn_again_and_each_redraw_is_an_event(wanted: str, sign: int) -> None:
    assert any(result.redraws for result in redrawn(wanted))
    for result in redrawn(wanted):
        assert sign * result.history[0]["hierarchy"] < 0
        assert all(sign * hierarchy > 0 for hierarchy in result.redraws)
        assert [event for event in result.events if "redraw" in event] == [
            f"The new projection's hierarchy was {hierarchy:+.4f} before training; drawing another "
            f"(redraw {i} of at most {MAX_REDRAWS})."
            for i, hierarchy in enumerate(result.redraws, 1)
        ]


def test_any_start_is_kept() -> None:
    results = redrawn("any")
    assert [result.redraws for result in results] == [[]] * len(SEEDS)
    assert {result.history[0]["hierarchy"] > 0 for result in results} == {True, False}


def test_redraws_are_bounded() -> None:
    # An encoder that gives every operation one latent: whatever the projection, hierarchy is 0, and never negative.
    run = member()
    with torch.no_grad():
        run.model.encoder.mean.weight.zero_()
    result = train(run)
    assert result.redraws == [0.0] * MAX_REDRAWS
    assert len(result.history) == 4


def test_a_projection_that_was_not_drawn_is_not_drawn_again() -> None:
    run = member(seed=1)
    kept = replace(run, reinitialised=())
    assert train(kept).redraws == []
    assert train(member(seed=1)).redraws != []


# What goes wrong is said


def overflowing(part: str) -> Member:
    """A run that is not finite in one respect from its first step, by its weights alone."""
    if part == "kl":
        run = by("elbo")
        with torch.no_grad():
            run.model.encoder.log_variance.bias.fill_(100.0)
        return run
    run = member(initial_hierarchy="negative" if part.startswith("redrawn") else "any", hierarchy_weight=1e6)
    first, last = run.model.projection.radius_net[0], run.model.projection.radius_net[2]
    with torch.no_grad():
        if part == "gradient":
            # Large and small factors that cancel in the value, and not in the slope.
            first.weight.mul_(1e36)
            first.bias.mul_(1e36)
            last.weight.mul_(1e-36)
        elif part.endswith("encoder"):
            run.model.encoder.mean.bias.fill_(math.nan)
        else:
            last.weight.fill_(math.nan)
    return replace(run, reinitialised=()) if part in ("radius", "encoder") else run


FAILURES = {
    "kl": r"^Training stopped at epoch 1: the loss term `kl` is NaN or infinite\. Try a lower `lr`",
    "gradient": r"^Training stopped at epoch 1: the gradient is NaN or infinite\. Try a lower `lr`",
    "radius": r"^Training stopped at epoch 0: a radius is NaN or infinite\. .+ operation 0 has unit norm nan",
    "redrawn radius": r"^Training stopped at epoch 0: a radius is NaN or infinite\. .+ has unit norm nan",
    "encoder": r"^Training stopped at epoch 0: a radius is NaN or infinite\. Every direction must be finite",
    "redrawn encoder": r"^Training stopped at epoch 0: a radius is NaN or infinite\. Every direction must be finite",
}


@pytest.mark.parametrize("part", list(FAILURES))
def test_what_is_not_finite_stops_its_run_with_epoch_and_term_and_leaves_the_others_alone(part: str) -> None:
    failing = overflowing(part)
    with pytest.raises(TrainingError, match=FAILURES[part]):
        train(failing)
    architecture, settings = failing.model.architecture, {"hierarchy_weight": 5.0, "lr": 0.01, "epochs": 2}
    beside, alone = (
        [from_scratch(architecture, failing.configuration.replace(seed=s, **settings)) for s in (1, 2)] for _ in "12"
    )
    first, failed, last = train_cohort([beside[0], overflowing(part), beside[1]])
    with pytest.raises(TrainingError, match=FAILURES[part]):
        raise failed.error or AssertionError
    assert_alike([first, last], [train(run) for run in alone])


@pytest.mark.parametrize("part", ["radius", "redrawn radius"])
def test_a_run_that_cannot_start_is_not_trained(part: str) -> None:
    watch = Watch()
    (result,) = train_cohort([overflowing(part)], observer=watch)
    assert result.history == watch.told == []
    assert set(result.summary()) == {"best_epoch", "train_seconds"}


def test_too_large_a_learning_rate_stops_the_run_in_the_middle_and_gives_its_best_epoch_back() -> None:
    (result,) = train_cohort([by("elbo", lr=5.0, optimizer="adam", epochs=30, patience=30)])
    assert len(result.history) > 1
    with pytest.raises(TrainingError, match=rf"^Training stopped at epoch {len(result.history)}: the "):
        raise result.error or AssertionError
    assert evaluate(result.model).coverage == result.history[result.best_epoch]["coverage"]


def degrading(epochs: int = 6, **settings: Any) -> Member:
    """A run from a perfect start, whose learning rate destroys it."""
    return started_from(exact_model(4), scheduler="constant", lr=1.0, epochs=epochs, patience=epochs, **settings)


def events(watch: Watch, word: str) -> list[int]:
    return [place for place, (_, told) in enumerate(watch.told) if isinstance(told, str) and word in told]


def test_degradation_is_warned_of_while_it_happens_with_both_hierarchies() -> None:
    watch = Watch()
    result = train(degrading(), observer=watch)
    (warning,) = events(watch, "Hierarchy degrades")
    assert watch.told[:warning] == [(0, 0.0), (0, 1.0), (0, 2.0)]
    assert watch.told[warning + 1 :] == [(0, 3.0), (0, 4.0), (0, 5.0), (0, 6.0)]
    best, third = result.history[0]["hierarchy"], result.history[3]["hierarchy"]
    assert (
        [watch.told[warning][1]]
        == result.events
        == [
            f"Hierarchy degrades: {third:.4f} at epoch 3, from {best:.4f} at epoch 0. "
            "The weights of the best epoch are kept."
        ]
    )


def test_degradation_of_two_epochs_is_not_warned_of() -> None:
    result = train(degrading(epochs=2))
    assert all(record["hierarchy"] > result.history[0]["hierarchy"] + 0.01 for record in result.history[1:])
    assert result.events == []


def test_small_degradation_is_not_warned_of() -> None:
    result = train(started_from(exact_model(4), lr=1e-6, scheduler="constant", epochs=5, patience=5))
    assert result.events == []


def test_loss_of_coverage_is_warned_of_once_and_such_an_epoch_is_never_the_best() -> None:
    watch = Watch()
    result = train(degrading(unfreeze="all", encoder_lr_scale=1.0, decoder_lr_scale=1.0), observer=watch)
    (warning,) = events(watch, "Coverage fell")
    fallen = result.history[1]["coverage"]
    assert watch.told[:warning] == [(0, 0.0)]
    assert watch.told[warning][1] == (
        f"Coverage fell to {fallen:.4f} at epoch 1, from 1.0000 at the start. "
        "An epoch with less coverage never counts as the best."
    )
    assert result.history[-1]["coverage"] < 1
    assert evaluate(result.model).coverage == 1


def test_a_foundation_that_loses_coverage_is_not_warned_of() -> None:
    run = started_from(exact_model(4), **{**WAYS["elbo"], "lr": 1.0}, scheduler="constant")
    assert train(run).events == []


# Observers and threads


def test_observer_is_told_of_every_epoch_of_every_member() -> None:
    watch = Watch()
    train_cohort([member(epochs=2, patience=2), member(epochs=1)], observer=watch)
    assert watch.told == [(0, 0.0), (1, 0.0), (0, 1.0), (1, 1.0), (0, 2.0)]


def test_an_observer_does_not_change_the_training() -> None:
    assert train(member(seed=1), observer=Watch()).history == train(member(seed=1)).history


class Slow(Watch):
    """An observer that takes its time."""

    slept = 0.0

    def epoch(self, member: int, record: Record) -> None:
        started = time.perf_counter()
        time.sleep(0.05)
        self.slept += time.perf_counter() - started


def test_the_time_of_an_observer_is_not_training_time_which_a_cohort_shares_evenly() -> None:
    slow, started = Slow(), time.perf_counter()
    one, two = train_cohort([member(epochs=1), member(epochs=3)], observer=slow)
    assert slow.slept > 0.2
    assert 0 < 2 * one.seconds == 2 * two.seconds < time.perf_counter() - started - slow.slept


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Threads(Watch):
    """An observer that notes the threads in use, and ends the training."""

    threads = 0

    def epoch(self, member: int, record: Record) -> None:
        self.threads = torch.get_num_threads()
        raise OSError("the store is full")


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("members", "threads"), [(1, 1), (7, 1), (8, 2)])
def test_a_run_alone_trains_on_one_thread_a_cohort_on_more_and_an_error_gives_them_back(
    members: int, threads: int
) -> None:
    watch = Threads()
    with pytest.raises(OSError, match="the store is full"):
        train_cohort([member(TINY, seed=seed, initial_hierarchy="any") for seed in range(members)], observer=watch)
    assert (watch.threads, torch.get_num_threads()) == (threads, 2)


# Cohorts

# Everything that members of one cohort may differ in.
VARIANTS: list[dict[str, Any]] = [
    {"seed": 3, "curvature": 2.0, "lr": 0.02, "epochs": 2, "distance_margin": 0.01, "initial_hierarchy": "any"},
    {"seed": 4, "curvature": 0.5, "lr": 0.05, "epochs": 1, "hierarchy_weight": 1.0, "scheduler": "cosine"},
    {"seed": 5, "curvature": 5.0, "lr": 0.01, "epochs": 4, "patience": 2, "richness_weight": 0.5, "beta": 0.1},
    {"seed": 7, "curvature": 1.5, "lr": 0.03, "epochs": 3, "scheduler": "constant", "separation_weight": 0.0},
]


def four(
    architecture: Architecture, start: Callable[..., Member] = from_scratch, *, short: bool = False, **settings: Any
) -> list[Member]:
    """Return a member of each variant, or such as train for an epoch or two."""
    members, c = [], QUICK.replace(**settings)
    shared = {"hierarchy_weight": c.orders_radii, "separation_weight": c.orders_radii}
    shared |= {"richness_weight": c.parts_level_0 or c.orders_radii}
    for place, variant in enumerate(VARIANTS):
        values = settings | {k: v for k, v in variant.items() if k != "curvature" and shared.get(k, True)}
        values |= {"epochs": 2 if place == 1 else 1} if short else {}
        members.append(start(replace(architecture, curvature=variant["curvature"]), QUICK.replace(**values)))
    return members


def assert_alike(found: Sequence[Result], expected: Sequence[Result]) -> None:
    """Up to rounding: products of another size may sum in another order."""
    for one, other in zip(found, expected, strict=True):
        assert one.best_epoch == other.best_epoch
        assert one.redraws == pytest.approx(other.redraws, abs=1e-4)
        assert len(one.history) == len(other.history)
        for ours, theirs in zip(one.history, other.history, strict=True):
            assert ours.keys() == theirs.keys()
            for name in {"coverage", "hierarchy", "lr"} & ours.keys():
                assert ours[name] == pytest.approx(theirs[name], abs=1e-4)


@each_way_half_of_them_with_a_controller
def test_a_member_trains_in_a_cohort_as_it_trains_alone(way: str, use_controller: bool) -> None:
    architecture = replace(architecture_of(way, use_controller), n_trits=3)
    settings = WAYS[way] | {"batch_size": 16}
    runs = four(architecture, **settings)
    together = train_cohort(runs)
    assert [result.configuration for result in together] == [run.configuration for run in runs]
    assert_alike(together, [train(run) for run in four(architecture, **settings)])


@pytest.mark.integration
@pytest.mark.usefixtures("two_threads")
def test_a_member_trains_on_two_threads_as_it_trains_on_one() -> None:
    together = train_cohort([*four(SMALL, short=True), *four(SMALL, short=True)])
    assert_alike(together[4:], [train(run) for run in four(SMALL, short=True)])


def test_a_cohort_without_members_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^A cohort must have at least one member\.$"):
        train_cohort([])


@pytest.mark.parametrize("place", [1, 2])
def test_members_of_another_shape_are_refused_by_name(place: int) -> None:
    others: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"latent_dim": 4}, {}, "latent_dim"),
        ({"max_radius": 0.9}, {}, "max_radius"),
        ({"centred": True}, {}, "centred"),
        ({"use_controller": True}, {}, "use_controller"),
        ({}, {"objective": "level_mean"}, "objective"),
        ({}, {"optimizer": "muon"}, "optimizer"),
        ({}, {"batch_size": 16}, "batch_size"),
        ({}, {"unfreeze": "all"}, "unfreeze"),
        ({}, {"encoder_lr_scale": 0.2}, "encoder_lr_scale"),
        ({}, {"decoder_lr_scale": 0.2}, "decoder_lr_scale"),
        ({}, {"distance_weight": 1.0}, "learns_distances, parts_level_0"),
        ({}, {"hierarchy_weight": 0.0, "richness_weight": 0.0, "separation_weight": 0.0}, "orders_radii"),
        ({"hidden_dim": 8}, {"batch_size": 16, "objective": "elbo"}, "hidden_dim, objective, batch_size, orders_radii"),
    ]
    for changes, settings, named in others:
        runs = [member(), member(seed=1)]
        runs.insert(place, member(replace(SMALL, **changes), **settings))
        expected = rf"^Members of a cohort must agree in {named}; train them apart\.$"
        with pytest.raises(ConfigurationError, match=expected):
            train_cohort(runs)


def test_members_may_weigh_distances_differently() -> None:
    runs = [member(**WAYS["default"] | {"distance_weight": weight, "epochs": 1}) for weight in (0.5, 2.0)]
    assert [result.error for result in train_cohort(runs)] == [None, None]


# A small space


@pytest.mark.parametrize(
    ("preset", "asked"),
    [
        ("default", {"n_trits": 3, "batch_size": 32, "epochs": 60}),
        # The budget follows from its steps.
        pytest.param("rich", {"n_trits": 5, "batch_size": 64}, marks=pytest.mark.long),
    ],
)
def test_a_small_tree_is_learned_exactly(preset: str, asked: dict[str, Any]) -> None:
    shape = {"latent_dim": 8, "encoder_hidden": (64,), "decoder_hidden": (32,), "hidden_dim": 32}
    architecture, configuration = resolve(preset, shape | asked)
    recipe = resolve_foundation(architecture, {"batch_size": configuration.batch_size})
    result = train(from_foundation(train(from_scratch(architecture, recipe)), configuration))
    found, n = evaluate(result.model), architecture.n_trits
    assert (found.coverage, found.ball_coverage, found.sibling_recall, found.ordered_levels) == (1.0, 1.0, 1.0, n)
    assert found.hierarchy == pytest.approx(metrics.hierarchy_ceiling(n), abs=2e-4)
    assert found.radii[0] < 1e-4  # float32 rounds a raw radius by as much
    if preset == "default":
        assert (found.tree_precision, found.level_gap > 0.1) == (1.0, True)
        assert result.summary()["degradation"] < 1e-6
    else:
        assert found.tree_precision > 0.99
        assert found.richness > 0.01
        assert found.level_richness[0] > 0.9 * found.richness


# The project's claim, on all 19,683 operations


@pytest.fixture(scope="module")
def foundation() -> Result:
    return train(from_scratch(Architecture(), FOUNDATION))


@pytest.fixture(scope="module")
def start(foundation: Result) -> Callable[..., Member]:
    """Return what starts a run from the foundation, whatever the architecture of its projection."""

    def start(architecture: Architecture, configuration: Configuration) -> Member:
        model = TernaryVAE(architecture)
        model.initialise(torch.Generator().manual_seed(0))
        model.load_state_dict(foundation.model.state_dict(), strict=not architecture.use_controller)
        return from_foundation(Result(FOUNDATION, model), configuration)

    return start


@pytest.mark.long
def test_by_default_the_whole_tree_is_learned_exactly_with_operation_0_at_the_centre(
    foundation: Result, start: Callable[..., Member]
) -> None:
    assert evaluate(foundation.model).coverage == 1.0
    asked = [resolve("default", {"curvature": curvature, "seed": seed}) for seed, curvature in ((40, 0.5), (41, 5.0))]
    for result in train_cohort([start(*one) for one in asked]):
        found = evaluate(result.model)
        assert (found.coverage, found.ball_coverage, found.tree_precision, found.sibling_recall) == (1.0,) * 4
        assert (found.hierarchy, found.ordered_levels) == (pytest.approx(metrics.hierarchy_ceiling(), abs=1e-9), 9)
        assert (found.level_gap >= 0.1, found.distance_fidelity >= 0.8316, found.radii[0] < 1e-4) == (True,) * 3
        assert abs(result.summary()["degradation"]) < 1e-9


@pytest.mark.long
def test_radii_alone_reach_the_ceiling_with_their_levels_spread(start: Callable[..., Member]) -> None:
    asked = [resolve("radii", {"curvature": curvature, "seed": seed}) for seed, curvature in ((40, 0.5), (41, 5.0))]
    for result in train_cohort([start(*one) for one in asked]):
        found = evaluate(result.model)
        assert (found.coverage, found.hierarchy <= -0.8319, found.ordered_levels) == (1.0, True, 9)
        assert (found.richness >= 0.010, min(found.level_richness[:-1]) > 1e-7) == (True, True)
        assert result.summary()["degradation"] <= 0.0005
        assert [event for event in result.events if "redraw" not in event] == []


@pytest.mark.long
def test_radii_are_the_same_without_clipping(start: Callable[..., Member], monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    for largest in (optimizer.LARGEST_GRADIENT, math.inf):
        monkeypatch.setattr(optimizer, "LARGEST_GRADIENT", largest)
        runs.append(train(start(*resolve("radii", {"seed": 0, "epochs": 8}))).model)
    assert same_weights(*runs)


@pytest.mark.long
def test_the_loss_of_the_reference_sweep_stops_short_of_the_ceiling(start: Callable[..., Member]) -> None:
    asked = resolve("max_hierarchy", {"objective": "level_mean", "seed": 51})
    assert train(start(*asked)).summary()["best_hierarchy"] > -0.82


@pytest.mark.long
@pytest.mark.parametrize("way", ["default", "rich", "radii", "elbo"])
def test_a_member_of_the_default_shape_trains_as_alone(start: Callable[..., Member], way: str) -> None:
    # Muon brings up directions that are rounding alone: so its few steps are compared, not an epoch of many.
    settings = WAYS[way] | {"batch_size": 8192 if way in AT_THE_CENTRE else 512}
    architecture = replace(Architecture(), centred=way != "radii")
    begin = from_scratch if way == "elbo" else start
    runs, again = (four(architecture, begin, short=True, **settings)[:3] for _ in range(2))
    for found, run in zip(train_cohort(runs), again, strict=True):
        alone = train(run)
        assert found.best_epoch == alone.best_epoch
        for beside, by_itself in zip(found.history, alone.history, strict=True):
            assert beside == pytest.approx(by_itself, rel=1e-4, abs=1e-4)
