"""The losses, against loops over single operations and known embeddings. Their formulas are in test_docs_math.py."""

import itertools
import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tvae import poincare, ternary
from tvae.objectives import TERMS, Placed, distance_term, elbo_terms, level_mean_terms, parting_term, ranking_terms

# The targets of the level means are held in single precision.
SINGLE = 1e-6

N_TRITS = 4
LEVELS = N_TRITS + 1
PER_LEVEL = 4
MAX_RADIUS = 0.95
CURVATURES = (0.5, 2.0, 7.0)

Floats = list[float]


def largest_radius(curvature: float) -> float:
    return 2 / math.sqrt(curvature) * math.atanh(MAX_RADIUS)


def place(
    unit_norm: Tensor,
    population: Tensor,
    *,
    curvatures: tuple[float, ...] = (2.0,),
    n_levels: int = LEVELS,
    per_level: int = PER_LEVEL,
) -> Placed:
    """Place operations with unit norms `(M, R)`; `population` holds the valuations `(M, n)` of the first n of them."""
    stratified = torch.arange(n_levels).repeat_interleave(per_level).expand(len(unit_norm), -1)
    c = torch.tensor(curvatures, dtype=unit_norm.dtype)[:, None]
    return Placed(
        valuations=torch.cat([population, stratified], 1),
        n_population=population.shape[1],
        unit_norm=unit_norm,
        radius=poincare.radius(unit_norm, curvature=c),
        largest_radius=poincare.radius(torch.full_like(c, MAX_RADIUS), curvature=c),
        max_radius=MAX_RADIUS,
        n_levels=n_levels,
        n_strata=n_levels,
    )


def random_batch(curvatures: tuple[float, ...] = CURVATURES, n: int = 60) -> Placed:
    members = len(curvatures)
    drawn = torch.randint(3**N_TRITS, (members, n))
    population = torch.from_numpy(ternary.valuations(N_TRITS)[drawn.numpy()])
    unit_norm = torch.rand(members, n + LEVELS * PER_LEVEL, dtype=torch.float64) * MAX_RADIUS
    return place(unit_norm, population, curvatures=curvatures)


def by_level(low: float = 0.05, high: float = 0.95, *, reverse: bool = False) -> Tensor:
    """Unit norms `(1, R)` of a batch that has every level once in its population, evenly spaced from level to level."""
    means = torch.linspace(high, low, LEVELS, dtype=torch.float64)
    means = means.flip(0) if reverse else means
    return torch.cat([means, means.repeat_interleave(PER_LEVEL)])[None]


def one_of_each_level() -> Tensor:
    return torch.arange(LEVELS)[None]


# Ranking


@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("term", ["hierarchy", "separation"])
def test_perfect_order_with_its_margins_costs_nothing_and_reversed_order_most(term: str, curvature: float) -> None:
    norms = by_level(0.1, 0.9), torch.full_like(by_level(), 0.5), by_level(reverse=True)
    costs = [float(ranking_terms(place(x, one_of_each_level(), curvatures=(curvature,)))[term]) for x in norms]
    assert 0.0 == costs[0] < costs[1] < costs[2]


def test_richness_costs_nothing_where_levels_fill_the_ball() -> None:
    # Half of level 0 at the boundary and half below it, the other levels just wide enough.
    norms = by_level(0.05, 0.95)
    stratified = norms[:, LEVELS:].reshape(LEVELS, PER_LEVEL)
    stratified[0] = torch.tensor([0.05, 0.05, 0.95, 0.95])
    stratified[1:] = torch.linspace(0.0, 0.02, PER_LEVEL)
    assert float(ranking_terms(place(norms, one_of_each_level()))["richness"]) == 0.0


def test_levels_without_any_spread_cost_richness() -> None:
    placed = place(by_level(), one_of_each_level())
    assert float(ranking_terms(placed)["richness"]) == pytest.approx(0.004 * 0.54 + 0.3 * (0.003 - 1e-5), rel=1e-9)


# Richness where distances are learned: between the two halves of level 0


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


def gradient(term: str, unit_norm: Tensor, terms: Callable[[Placed], dict[str, Tensor]] = ranking_terms) -> Tensor:
    norms = unit_norm.clone().requires_grad_()
    (found,) = torch.autograd.grad(terms(place(norms, one_of_each_level()))[term].sum(), norms)
    return found[0]


def test_hierarchy_pushes_low_valuations_out_and_high_ones_in() -> None:
    found = gradient("hierarchy", by_level(0.4, 0.6, reverse=True))
    assert found[0] < 0 < found[LEVELS - 1]


def test_separation_pushes_neighbouring_levels_apart() -> None:
    found = gradient("separation", by_level(0.4, 0.6, reverse=True))[LEVELS:].reshape(LEVELS, PER_LEVEL)
    assert (found[0] < 0).all()
    assert (found[-1] > 0).all()


def test_richness_pushes_the_members_of_a_level_apart() -> None:
    norms = by_level(0.1, 0.9)
    norms[:, LEVELS:] += torch.tensor([-0.01, -0.005, 0.005, 0.01], dtype=torch.float64).repeat(LEVELS)
    found = gradient("richness", norms)[LEVELS:].reshape(LEVELS, PER_LEVEL)
    assert (found[:-1, :2] > 0).all()
    assert (found[:-1, 2:] < 0).all()


def test_wall_pushes_a_saturated_radius_in() -> None:
    norms = by_level(0.1, 0.9)
    norms[0, 0] = 0.9499
    assert gradient("hierarchy", norms)[0] > 0


def test_order_among_equals_is_not_asked_for() -> None:
    norms = torch.rand(1, LEVELS * (1 + PER_LEVEL), dtype=torch.float64) * 0.9
    same_level = torch.full((1, LEVELS), 2)
    assert float(ranking_terms(place(norms, same_level))["hierarchy"]) == 0.0


# The reference sweep's loss, naively


def naive_level_mean(placed: Placed, initial_variance: Floats, member: int) -> dict[str, float]:
    n = placed.n_population
    norm, v = placed.unit_norm[member, :n].tolist(), placed.valuations[member, :n].tolist()
    groups = {level: [x for x, u in zip(norm, v, strict=True) if u == level] for level in set(v)}
    top = placed.n_levels - 1
    means = {level: sum(xs) / len(xs) for level, xs in groups.items()}
    hierarchy = sum((mean - (0.9 - 0.8 * level / top)) ** 2 for level, mean in means.items()) / len(groups)
    separation = sum(max(0.0, means[level + 1] - means[level] + 0.01) for level in sorted(means) if level + 1 in means)
    richness = 0.0
    for level, xs in groups.items():
        ratio = sum((x - means[level]) ** 2 for x in xs) / len(xs) / initial_variance[level]
        # One operation has no variance, now as at the start: nothing is lost.
        if len(xs) > 1 and ratio < 0.5:
            richness += (0.5 - ratio) ** 2 / len(groups)
    return {"hierarchy": hierarchy, "separation": separation, "richness": richness}


@pytest.mark.parametrize("levels", [[0, 1, 2, 3, 4], [0, 2, 3], [0, 4], [1], [0, 0, 0, 1]])
def test_level_mean_terms_are_what_a_loop_over_the_levels_present_gives(levels: list[int]) -> None:
    population = torch.tensor(np.random.default_rng(0).choice(levels, (3, 30)))
    norms = torch.rand(3, 30 + LEVELS * PER_LEVEL, dtype=torch.float64) * MAX_RADIUS
    placed = place(norms, population, curvatures=CURVATURES)
    initial = torch.rand(3, LEVELS, dtype=torch.float64) * 0.4 + 0.01
    found = level_mean_terms(placed, initial)
    for member in range(3):
        expected = naive_level_mean(placed, initial[member].tolist(), member)
        assert {name: float(term[member]) for name, term in found.items()} == pytest.approx(
            expected, rel=SINGLE, abs=1e-12
        )


def test_level_mean_of_a_single_operation_is_finite() -> None:
    placed = place(torch.rand(1, 1 + LEVELS * PER_LEVEL) * 0.9, torch.tensor([[4]]))
    assert all(bool(term.isfinite()) for term in level_mean_terms(placed, torch.zeros(1, LEVELS)).values())


def test_level_means_at_their_targets_cost_nothing() -> None:
    placed = place(by_level(0.1, 0.9), one_of_each_level())
    found = level_mean_terms(placed, torch.zeros(1, LEVELS, dtype=torch.float64))
    assert [float(term) for term in found.values()] == pytest.approx([0.0, 0.0, 0.0], abs=SINGLE**2)


def test_level_means_say_nothing_of_the_overlap_of_levels() -> None:
    # Two operations of each level, far from each other on both sides of the level's target.
    population = torch.arange(LEVELS).repeat(2)[None]
    targets = torch.linspace(0.9, 0.1, LEVELS, dtype=torch.float64)
    norms = torch.cat([targets + 0.04, targets - 0.04, torch.zeros(LEVELS * PER_LEVEL, dtype=torch.float64)])[None]
    wide = level_mean_terms(place(norms, population), torch.full((1, LEVELS), 1e-3, dtype=torch.float64))
    assert [float(term) for term in wide.values()] == pytest.approx([0.0, 0.0, 0.0], abs=SINGLE**2)


def test_level_means_do_not_know_the_curvature() -> None:
    norms, population = torch.rand(1, LEVELS * (1 + PER_LEVEL), dtype=torch.float64) * 0.9, one_of_each_level()
    initial = torch.ones(1, LEVELS, dtype=torch.float64)
    terms = [level_mean_terms(place(norms, population, curvatures=(c,)), initial) for c in (0.5, 5.0)]
    assert terms[0] == terms[1]


# The evidence lower bound


def test_sure_reproduction_at_the_prior_costs_nothing() -> None:
    target = torch.randint(3, (2, 7, 5))
    logits = functional.one_hot(target, 3) * 1e3
    nothing = torch.zeros(2, 7, 4)
    terms = elbo_terms(logits, target, nothing, nothing)
    assert [term.tolist() for term in terms.values()] == [[0.0, 0.0], [0.0, 0.0]]


# Distances


N_BITS = 3


MARGIN = 0.04


def random_subtrees(curvatures: tuple[float, ...], trees: int = 2) -> tuple[Tensor, Tensor]:
    c = torch.tensor(curvatures, dtype=torch.float64)[:, None]
    largest = poincare.radius(torch.full_like(c, MAX_RADIUS), curvature=c)
    shape = (len(curvatures), trees, 2**N_BITS)
    radius = torch.rand(shape, dtype=torch.float64) * largest[..., None]
    return radius, functional.normalize(torch.randn(*shape, 5, dtype=torch.float64), dim=-1)


def cost(
    radius: Tensor,
    direction: Tensor,
    curvatures: tuple[float, ...],
    margins: tuple[float, ...] = (MARGIN,),
    parted: Tensor | None = None,
    down: tuple[float, ...] = (1.0,) * N_BITS,
) -> Tensor:
    """The distance term, one for each member, where no two points are farther apart than two at the largest radius."""
    c, longest, margin = (
        torch.tensor(values, dtype=radius.dtype)[:, None]
        for values in (curvatures, [2 * largest_radius(c) for c in curvatures], margins * len(curvatures))
    )
    margin = margin[: len(curvatures)] * torch.tensor(down)
    return distance_term(radius, direction, curvature=c, longest=longest, margin=margin, parted=parted)


def naive_distance(r: float, u: Floats, s: float, w: Floats, curvature: float) -> float:
    """Hyperbolic distance by its definition from coordinates in the ball."""
    root = math.sqrt(curvature)
    z = [math.tanh(root * r / 2) * x for x in u]
    y = [math.tanh(root * s / 2) * x for x in w]
    gap = sum((a - b) ** 2 for a, b in zip(z, y, strict=True))
    inside = (1 - sum(a * a for a in z)) * (1 - sum(b * b for b in y))
    return math.acosh(1 + 2 * gap / inside) / root


def valuation_of_difference(a: int, b: int) -> int:
    """Of two places in a subtree: the first bit that differs, counted from the most significant."""
    return N_BITS - (a ^ b).bit_length()


def all_distances(radius: Tensor, direction: Tensor, curvature: float) -> list[Floats]:
    """Distances of all pairs of one subtree, radii `(P,)` and directions `(P, D)`."""
    polar = [(float(r), u.tolist()) for r, u in zip(radius, direction, strict=True)]
    return [[naive_distance(*a, *b, curvature) if a is not b else 0.0 for b in polar] for a in polar]


def partners(place: int, level: int) -> list[int]:
    return [other for other in range(2**N_BITS) if valuation_of_difference(place, other) == level and other != place]


def mean_of_violated(costs: Floats) -> float:
    return sum(costs) / (sum(x > 0 for x in costs) + 0.05 * max(1, len(costs)))


@pytest.mark.parametrize(
    ("margin", "down", "branching"),
    [(0.04, (2.0, 1.0, 4.0), 0.6), (0.009, (1.0, 1.0, 1.0), 1.0)],
    ids=["some nodes branch at some levels", "all at all"],
)
def test_distance_term_is_what_a_loop_over_operations_and_levels_gives(
    margin: float, down: tuple[float, ...], branching: float
) -> None:
    radius, direction = random_subtrees(CURVATURES)
    nodes = [torch.rand(*radius.shape[:2], 2**level) < branching for level in range(N_BITS)]
    parted = torch.stack([one.repeat_interleave(2**N_BITS // one.shape[-1], -1) for one in nodes], 2)
    found = cost(radius, direction, CURVATURES, (margin,), None if branching == 1 else parted, down)
    every = range(2**N_BITS)
    for member, curvature in enumerate(CURVATURES):
        costs: list[Floats] = [[], [], [], []]
        for tree in range(radius.shape[1]):
            d = all_distances(radius[member, tree], direction[member, tree], curvature)
            d = [[length / (2 * largest_radius(curvature)) for length in row] for row in d]
            nearest = [[min(d[i][q] for q in partners(i, k)) for k in range(N_BITS)] for i in every]
            for i, k in itertools.product(every, range(N_BITS)):
                other = i ^ (2**N_BITS - 1)
                far, near = (i ^ (2 ** (N_BITS - level) - 1) for level in (k, k + 1))  # i itself is nearest to it
                asked = margin * down[k]
                here, there = (bool(parted[member, tree, k, place]) for place in (i, other))
                costs[0] += here * [max(0.0, asked + d[i][near] - d[i][far])]
                costs[1] += there * [max(0.0, asked + d[i][near] - d[other][other ^ i ^ far])]
                if k < N_BITS - 1:
                    farthest = max(d[i][p] for p in partners(i, k + 1))
                    costs[2] += here * [max(0.0, asked + farthest - nearest[i][k])]
                    costs[3] += there * [max(0.0, asked + farthest - nearest[other][k])]
        assert float(found[member]) == pytest.approx(sum(map(mean_of_violated, costs)) / 4, rel=1e-9)


def exact_subtree(curvature: float, *, reverse: bool = False) -> tuple[Tensor, Tensor]:
    """One subtree `(1, 1, P)` on a sphere, where each bit is an axis of its own and the first weighs most."""
    weights = torch.tensor([4.0**-bit for bit in range(N_BITS)], dtype=torch.float64)
    bits = torch.tensor([[place >> (N_BITS - 1 - bit) & 1 for bit in range(N_BITS)] for place in range(2**N_BITS)])
    direction = (2 * bits - 1) * (weights.flip(0) if reverse else weights)
    radius = torch.full((1, 1, 2**N_BITS), 0.99 * largest_radius(curvature), dtype=torch.float64)
    return radius, functional.normalize(direction, dim=-1)[None, None]


@pytest.mark.parametrize("curvature", CURVATURES)
def test_an_exact_tree_costs_nothing_and_one_from_the_leaves_to_the_root_does(curvature: float) -> None:
    assert float(cost(*exact_subtree(curvature), (curvature,))) == 0.0
    assert float(cost(*exact_subtree(curvature, reverse=True), (curvature,))) > 0.1


@pytest.mark.parametrize(("curvature", "margin"), [(0.5, 0.1), (7.0, 0.01)])
def test_where_all_operations_are_at_one_place_the_margin_is_missing(curvature: float, margin: float) -> None:
    radius, direction = exact_subtree(curvature)
    one_place = direction[:, :, :1].expand_as(direction)
    assert float(cost(radius, one_place, (curvature,), (margin,))) == pytest.approx(margin / 1.05, rel=1e-6)


def test_members_have_margins_of_their_own_and_curvature_changes_nothing_at_equal_unit_norms() -> None:
    radius, direction = random_subtrees((1.0,))
    both = torch.cat([radius, radius / 2]), torch.cat([direction, direction])
    wide, narrow = cost(*both, (1.0, 4.0), (0.09, 0.09)).tolist()
    assert wide == pytest.approx(narrow, rel=1e-12)
    wide, narrow = cost(torch.cat([radius, radius]), both[1], (1.0, 1.0), (0.09, 0.01)).tolist()
    assert wide > narrow + 0.01


def test_distance_draws_nearer_operations_in_and_pushes_farther_ones_out() -> None:
    radius, direction = exact_subtree(2.0, reverse=True)
    direction.requires_grad_()
    (slope,) = torch.autograd.grad(cost(radius, direction, (2.0,)).sum(), direction)
    moved = functional.normalize(direction - 1e-3 * slope, dim=-1).detach()
    before, after = (
        poincare.distance(radius[0, 0, 0], x[0, 0, 0], radius[0, 0], x[0, 0], curvature=2.0) for x in (direction, moved)
    )
    assert after[1] < before[1]
    assert after[4] > before[4]


# Members and extremes


def test_a_member_costs_what_it_costs_alone() -> None:
    placed, initial = random_batch(), torch.rand(3, LEVELS, dtype=torch.float64)
    radius, direction = random_subtrees(CURVATURES)
    logits, target = torch.randn(3, 7, 5, 3, dtype=torch.float64), torch.randint(3, (3, 7, 5))
    posterior = torch.randn(2, 3, 7, 4, dtype=torch.float64)

    def every(members: list[int]) -> list[Tensor]:
        c = tuple(CURVATURES[member] for member in members)
        some = place(placed.unit_norm[members], placed.valuations[members, : placed.n_population], curvatures=c)
        terms = [ranking_terms(some), level_mean_terms(some, initial[members])]
        terms += [elbo_terms(logits[members], target[members], *posterior[:, members])]
        return [*itertools.chain(*(t.values() for t in terms)), cost(radius[members], direction[members], c)]

    together = every([0, 1, 2])
    for member in range(3):
        alone = every([member])
        torch.testing.assert_close([term[[member]] for term in together], alone, rtol=1e-12, atol=0)


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
        term = distance_term(radius, direction, curvature=c, longest=longest, margin=torch.full_like(c, MARGIN))
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
