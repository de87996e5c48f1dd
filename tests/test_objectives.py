"""The losses: slopes, members, batches that lack something, extremes. Their formulas are in test_docs_math.py."""

import itertools
import math
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tvae import poincare, ternary
from tvae.objectives import TERMS, Placed, distance_term, elbo_terms, level_mean_terms, parting_term, ranking_terms

N_TRITS = 4
LEVELS = N_TRITS + 1
PER_LEVEL = 4
MAX_RADIUS = 0.95
CURVATURES = (0.5, 2.0, 7.0)
N_BITS = 3
MARGINS = (0.04, 0.01, 0.09)


def largest_radius(curvature: float) -> float:
    return 2 / math.sqrt(curvature) * math.atanh(MAX_RADIUS)


def place(unit_norm: Tensor, population: Tensor, curvatures: tuple[float, ...] = (2.0,)) -> Placed:
    """Place operations with unit norms `(M, R)`; `population` holds the valuations `(M, n)` of the first n of them."""
    stratified = torch.arange(LEVELS).repeat_interleave(PER_LEVEL).expand(len(unit_norm), -1)
    c = torch.tensor(curvatures, dtype=unit_norm.dtype)[:, None]
    return Placed(
        valuations=torch.cat([population, stratified], 1),
        n_population=population.shape[1],
        unit_norm=unit_norm,
        radius=poincare.radius(unit_norm, curvature=c),
        largest_radius=poincare.radius(torch.full_like(c, MAX_RADIUS), curvature=c),
        max_radius=MAX_RADIUS,
        n_levels=LEVELS,
        n_strata=LEVELS,
    )


def random_batch(n: int = 60) -> Placed:
    drawn = torch.randint(3**N_TRITS, (len(CURVATURES), n))
    population = torch.from_numpy(ternary.valuations(N_TRITS)[drawn.numpy()])
    unit_norm = torch.rand(len(CURVATURES), n + LEVELS * PER_LEVEL, dtype=torch.float64) * MAX_RADIUS
    return place(unit_norm, population, CURVATURES)


def one_of_each_level() -> Tensor:
    return torch.arange(LEVELS)[None]


# Batches that lack something


def parting(norms: list[float], index: list[int], max_radius: float = MAX_RADIUS) -> float:
    found = parting_term(torch.tensor([norms], dtype=torch.float64), torch.tensor([index]), max_radius=max_radius)
    return float(found)


def test_parting_costs_nothing_beyond_its_target_and_moves_a_half_as_one() -> None:
    assert parting([0.9, 0.1], [1, 2], 1.0) == 0.0
    norms = torch.tensor([[0.1, 0.5, 0.4, 0.3]], requires_grad=True)
    index = torch.tensor([[0, 1, 4, 2]])
    (slope,) = torch.autograd.grad(parting_term(norms, index, max_radius=1.0).sum(), norms)
    assert slope[0].tolist() == pytest.approx([0.0, -0.5, -0.5, 1.0])


def test_parting_of_a_batch_without_one_half_or_both_is_finite() -> None:
    assert parting([0.3, 0.2], [0, 3]) == pytest.approx(0.6)
    assert parting([0.3, 0.19], [3, 4]) == pytest.approx(0.6 - 0.19 / MAX_RADIUS)


def test_order_among_equals_is_not_asked_for() -> None:
    norms = torch.rand(1, LEVELS * (1 + PER_LEVEL), dtype=torch.float64) * 0.9
    same_level = torch.full((1, LEVELS), 2)
    assert float(ranking_terms(place(norms, same_level))["hierarchy"]) == 0.0


def test_a_level_mean_of_a_single_operation_has_no_variance_to_lose() -> None:
    placed = place(torch.rand(1, 1 + LEVELS * PER_LEVEL) * 0.9, torch.tensor([[4]]))
    found = level_mean_terms(placed, torch.zeros(1, LEVELS))
    assert (float(found["richness"]), float(found["separation"])) == (0.0, 0.0)
    assert bool(found["hierarchy"].isfinite())


# Slopes and members


def random_subtrees(curvatures: tuple[float, ...], trees: int = 2) -> tuple[Tensor, Tensor]:
    c = torch.tensor(curvatures, dtype=torch.float64)[:, None]
    largest = poincare.radius(torch.full_like(c, MAX_RADIUS), curvature=c)
    shape = (len(curvatures), trees, 2**N_BITS)
    radius = torch.rand(shape, dtype=torch.float64) * largest[..., None]
    return radius, functional.normalize(torch.randn(*shape, 5, dtype=torch.float64), dim=-1)


def cost(radius: Tensor, direction: Tensor, curvatures: tuple[float, ...], margins: tuple[float, ...]) -> Tensor:
    """The distance term, one for each member, where no two points are farther apart than two at the largest radius."""
    lengths = [2 * largest_radius(c) for c in curvatures]
    c, longest, margin = (torch.tensor(x, dtype=radius.dtype)[:, None] for x in (curvatures, lengths, margins))
    return distance_term(radius, direction, curvature=c, longest=longest, margin=margin.expand(-1, N_BITS))


def test_slopes_are_those_of_the_values() -> None:
    placed, initial = random_batch(), torch.full((3, LEVELS), 0.2, dtype=torch.float64)
    population = placed.valuations[:, : placed.n_population]
    radius, direction = random_subtrees(CURVATURES)
    norms, radius, direction = (x.requires_grad_() for x in (placed.unit_norm, radius, direction))

    def ordered(norms: Tensor) -> tuple[Tensor, ...]:
        again = place(norms, population, CURVATURES)
        return *ranking_terms(again).values(), *level_mean_terms(again, initial).values()

    assert torch.autograd.gradcheck(ordered, norms)
    assert torch.autograd.gradcheck(lambda r, u: cost(r, u, CURVATURES, MARGINS), (radius, direction))


def test_a_member_costs_what_it_costs_alone() -> None:
    placed, initial = random_batch(), torch.rand(3, LEVELS, dtype=torch.float64)
    radius, direction = random_subtrees(CURVATURES)
    logits, target = torch.randn(3, 7, 5, 3, dtype=torch.float64), torch.randint(3, (3, 7, 5))
    posterior = torch.randn(2, 3, 7, 4, dtype=torch.float64)

    def every(members: list[int]) -> list[Tensor]:
        c, margins = (tuple(values[member] for member in members) for values in (CURVATURES, MARGINS))
        some = place(placed.unit_norm[members], placed.valuations[members, : placed.n_population], c)
        terms = [ranking_terms(some), level_mean_terms(some, initial[members])]
        terms += [elbo_terms(logits[members], target[members], *posterior[:, members])]
        return [*itertools.chain(*(t.values() for t in terms)), cost(radius[members], direction[members], c, margins)]

    together = every([0, 1, 2])
    for member in range(3):
        alone = every([member])
        torch.testing.assert_close([term[[member]] for term in together], alone, rtol=1e-12, atol=0)


# Extremes

EXTREMES = [1e-12, 1e-6, 0.5, 0.9, 1 - 1e-6]
DTYPES = [torch.float32, torch.float64]


def not_finite(terms: Iterable[Tensor], inputs: list[Tensor]) -> bool:
    total = torch.stack([term.sum() for term in terms]).sum()
    return not all(bool(x.isfinite().all()) for x in [total, *torch.autograd.grad(total, inputs)])


@pytest.mark.parametrize("objective", ["ranking", "level_mean"])
def test_terms_and_gradients_are_finite_at_extreme_unit_norms(objective: str) -> None:
    bad = []
    for first, other, dtype in itertools.product(EXTREMES, EXTREMES, DTYPES):
        norms = torch.tensor([first, other], dtype=dtype).repeat(LEVELS * (1 + PER_LEVEL) // 2 + 1)[None]
        norms = norms[:, : LEVELS * (1 + PER_LEVEL)].clone().requires_grad_()
        placed, initial = place(norms, one_of_each_level()), torch.zeros(1, LEVELS, dtype=dtype)
        terms = ranking_terms(placed) if objective == "ranking" else level_mean_terms(placed, initial)
        if not_finite(terms.values(), [norms]):
            bad.append((first, other, dtype))
    assert bad == []


def test_distance_term_and_gradients_are_finite_at_extreme_unit_norms() -> None:
    bad = []
    for first, other, dtype, curvature in itertools.product(EXTREMES, EXTREMES, DTYPES, [1e-3, 1e3]):
        norms = torch.tensor([first, other, first, first], dtype=dtype)[None, None].requires_grad_()
        direction = torch.eye(3, dtype=dtype)[[0, 1, 0, 2]][None, None].requires_grad_()
        c = torch.tensor([[curvature]], dtype=dtype)
        radius = poincare.radius(norms, curvature=c[..., None])
        longest = 2 * poincare.radius(torch.full_like(c, 1 - 1e-6), curvature=c)
        term = distance_term(radius, direction, curvature=c, longest=longest, margin=torch.full_like(c, 0.04))
        if not_finite([term], [norms, direction]):
            bad.append((first, other, dtype, curvature))
    assert bad == []


@pytest.mark.parametrize("log_variance", [-80.0, 0.0, 80.0])
@pytest.mark.parametrize("logit", [0.0, 1e4, 1e30])
def test_bound_and_its_gradients_are_finite_for_extreme_posteriors(log_variance: float, logit: float) -> None:
    inputs = torch.full((1, 2, 3), 1.0), torch.full((1, 2, 3), log_variance), torch.zeros(1, 2, 4, 3)
    mean, log, logits = (x.requires_grad_() for x in inputs)
    terms = elbo_terms(logits + logit * torch.eye(3)[:1], torch.ones(1, 2, 4, dtype=torch.int64), mean, log)
    slopes = torch.autograd.grad(terms["coverage"].sum() + terms["kl"].sum(), [mean, log, logits])
    assert all(bool(x.isfinite().all()) for x in [*terms.values(), *slopes])


def test_every_term_has_a_place_in_the_loss() -> None:
    assert set(TERMS) == {"hierarchy", "separation", "richness", "coverage", "kl", "distance"}
