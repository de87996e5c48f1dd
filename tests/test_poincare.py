"""The geometry, against closed forms in float64, against geoopt, and against the laws of hyperbolic space."""

import itertools
import math
from collections.abc import Callable

import geoopt
import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from tvae import poincare

CURVATURES = [0.01, 2.0, 100.0]
DIMENSIONS = [2, 16]
DTYPES = [torch.float32, torch.float64]
# Largest relative error that a formula may make over what the rounding of its arguments forces on it.
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-9}

each_curvature = pytest.mark.parametrize("curvature", CURVATURES)
each_dimension = pytest.mark.parametrize("dimension", DIMENSIONS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)

Distance = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


def unit_norms(dtype: torch.dtype) -> Tensor:
    """Log-spaced towards the origin and towards the boundary: 1e-15 … 1/2 … 1 - 1e-7."""
    return torch.from_numpy(np.concatenate([np.geomspace(1e-15, 0.5, 60), 1 - np.geomspace(0.5, 1e-7, 60)])).to(dtype)


def exact_radius(unit_norm: Tensor, curvature: float) -> Tensor:
    x = unit_norm.double()
    return torch.log1p(2 * x / (1 - x)) / math.sqrt(curvature)


def unit(u: Tensor) -> Tensor:
    return u / u.norm(dim=-1, keepdim=True)


def directions(n: int, dimension: int) -> Tensor:
    return unit(torch.randn(n, dimension, dtype=torch.float64))


def turned(u: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Directions, and the same turned by an angle each within a plane of its own."""
    aside = torch.randn_like(u)
    aside = unit(aside - (aside * u).sum(-1, keepdim=True) * u)
    return u, u * math.cos(angle) + aside * math.sin(angle)


def points(n: int, dimension: int, largest: float = 0.99) -> tuple[Tensor, Tensor]:
    """Unit norms and directions, everywhere in the ball up to `largest`."""
    return torch.rand(n, dtype=torch.float64) * largest, directions(n, dimension)


def polar(x: Tensor, u: Tensor, y: Tensor, v: Tensor, curvature: float) -> Tensor:
    """`distance` as a function of unit norms."""
    a, b = poincare.radius(x, curvature=curvature), poincare.radius(y, curvature=curvature)
    return poincare.distance(a, u, b, v, curvature=curvature)


def cartesian(x: Tensor, u: Tensor, y: Tensor, v: Tensor, curvature: float) -> Tensor:
    """`distance_between_points` as a function of unit norms and directions."""
    z, w = place(x, u, curvature), place(y, v, curvature)
    return poincare.distance_between_points(z, w, curvature=curvature)


def place(unit_norm: Tensor, direction: Tensor, curvature: float) -> Tensor:
    return direction * unit_norm.unsqueeze(-1) / math.sqrt(curvature)


def arcosh_form(z: Tensor, w: Tensor, curvature: float) -> Tensor:
    """Nickel & Kiela 2017, eq. 1."""
    outside = (1 - curvature * z.square().sum(-1)) * (1 - curvature * w.square().sum(-1))
    return torch.acosh(1 + 2 * curvature * (z - w).square().sum(-1) / outside) / math.sqrt(curvature)


def artanh_form(z: Tensor, w: Tensor, curvature: float) -> Tensor:
    """Ganea et al. 2018, eq. 6, (2/sqrt(c))·artanh(sqrt(c)·|-z ⊕ w|), the norm of the Möbius sum in closed form."""
    squares = z.square().sum(-1) * w.square().sum(-1)
    sum_norm = ((z - w).square().sum(-1) / (1 - 2 * curvature * (z * w).sum(-1) + curvature**2 * squares)).sqrt()
    return 2 / math.sqrt(curvature) * torch.atanh(math.sqrt(curvature) * sum_norm)


def relative_error(found: Tensor, exact: Tensor) -> float:
    found, exact = found.detach().double(), exact.detach()
    return float(((found - exact) / exact).abs().max())


each_form = pytest.mark.parametrize("distance", [polar, cartesian])


@each_dtype
@each_curvature
def test_radius_is_twice_the_artanh_over_the_root_of_the_curvature(dtype: torch.dtype, curvature: float) -> None:
    x = unit_norms(dtype)
    assert relative_error(poincare.radius(x, curvature=curvature), exact_radius(x, curvature)) < TOLERANCE[dtype]


@each_dtype
@each_curvature
def test_radius_has_the_gradient_of_the_conformal_factor(dtype: torch.dtype, curvature: float) -> None:
    x = unit_norms(dtype).requires_grad_()
    (gradient,) = torch.autograd.grad(poincare.radius(x, curvature=curvature).sum(), x)
    exact = 2 / ((1 - x.double()) * (1 + x.double())) / math.sqrt(curvature)
    assert relative_error(gradient, exact) < TOLERANCE[dtype]


@each_dtype
def test_radius_is_monotone_in_unit_norm(dtype: torch.dtype) -> None:
    assert (poincare.radius(unit_norms(dtype).unique(), curvature=1.0).diff() > 0).all()


@each_dtype
@each_curvature
def test_unit_norm_inverts_radius(dtype: torch.dtype, curvature: float) -> None:
    x = unit_norms(dtype)
    back = poincare.unit_norm(poincare.radius(x, curvature=curvature), curvature=curvature)
    assert relative_error(back, x.double()) < TOLERANCE[dtype]


@each_form
@each_dimension
@each_curvature
def test_distance_is_that_of_the_closed_forms_and_of_geoopt(
    distance: Distance, dimension: int, curvature: float
) -> None:
    (x, u), (y, v) = points(200, dimension), points(200, dimension)
    z, w, found = place(x, u, curvature), place(y, v, curvature), distance(x, u, y, v, curvature)
    ball = geoopt.PoincareBall(c=torch.tensor(curvature, dtype=torch.float64))
    for expected in (arcosh_form(z, w, curvature), artanh_form(z, w, curvature), ball.dist(z, w)):
        assert relative_error(found, expected) < TOLERANCE[torch.float64]


@each_dtype
def test_distance_keeps_its_digits_between_near_points_at_every_depth(dtype: torch.dtype) -> None:
    for angle, depth in itertools.product([1.0, 1e-2, 1e-4], [1e-3, 0.5, 1 - 1e-6]):
        u, v = (t.to(dtype) for t in turned(directions(50, 16), angle))
        a = torch.full((50,), 2 * math.atanh(depth), dtype=dtype)
        half_angle = torch.asin((unit(u.double()) - unit(v.double())).norm(dim=-1) / 2)
        expected = 2 * torch.asinh(a.double().sinh() * half_angle.sin())  # the isosceles triangle, halved at its apex
        assert relative_error(poincare.distance(a, u, a, v, curvature=1.0), expected) < TOLERANCE[dtype], (angle, depth)


@each_dimension
@each_curvature
def test_distance_between_points_keeps_its_digits_in_float32(dimension: int, curvature: float) -> None:
    z, w = (place(*points(200, dimension, 0.95), curvature).float() for _ in range(2))
    found = poincare.distance_between_points(z, w, curvature=curvature)
    assert relative_error(found, artanh_form(z.double(), w.double(), curvature)) < TOLERANCE[torch.float32]


@each_curvature
def test_distance_of_near_coordinates_is_that_of_the_closed_form(curvature: float) -> None:
    for step in (1e-4, 1e-6, 1e-8):
        z = place(*points(200, 16), curvature)
        w = z + step / math.sqrt(curvature) * torch.randn_like(z)
        found = poincare.distance_between_points(z, w, curvature=curvature)
        assert relative_error(found, artanh_form(z, w, curvature)) < TOLERANCE[torch.float64], step


@each_dtype
@each_curvature
@pytest.mark.parametrize("side", [1, -1])
def test_distance_along_a_ray_is_the_difference_of_radii_and_through_the_origin_their_sum(
    dtype: torch.dtype, curvature: float, side: int
) -> None:
    a, u = poincare.radius(unit_norms(dtype), curvature=curvature), torch.eye(16, dtype=dtype)[3]
    b = a.roll(7)
    found = poincare.distance(a, u, b, side * u, curvature=curvature)
    assert relative_error(found, (a.double() - side * b.double()).abs()) < TOLERANCE[dtype]


@each_dtype
@each_curvature
def test_distance_from_the_origin_is_the_radius_with_gradient_1(dtype: torch.dtype, curvature: float) -> None:
    a = poincare.radius(unit_norms(dtype), curvature=curvature).requires_grad_()
    (u, v), origin = (directions(len(a), 16).to(dtype) for _ in range(2)), torch.zeros((), dtype=dtype)
    found = poincare.distance(origin, u, a, v, curvature=curvature)
    (gradient,) = torch.autograd.grad(found.sum(), a)
    assert relative_error(found, a.double()) < TOLERANCE[dtype]
    assert relative_error(gradient, torch.ones_like(a).double()) < TOLERANCE[dtype]


@each_dtype
@each_curvature
def test_distance_of_equal_points_is_0_with_gradient_0(dtype: torch.dtype, curvature: float) -> None:
    a = poincare.radius(torch.cat([torch.zeros(1), unit_norms(dtype)]), curvature=curvature).to(dtype)
    u = directions(len(a), 16).to(dtype)
    arguments = [t.clone().requires_grad_() for t in (a, u, a, u)]
    found = poincare.distance(*arguments, curvature=curvature)
    gradients = torch.autograd.grad(found.sum(), arguments)
    assert not found.any()
    assert not any(gradient.any() for gradient in gradients)


@each_dtype
@each_curvature
def test_distance_of_equal_coordinates_is_0_with_gradient_0(dtype: torch.dtype, curvature: float) -> None:
    x = torch.linspace(0, 0.999, 50)
    z = place(x, directions(50, 16), curvature).to(dtype).requires_grad_()
    w = z.detach().clone().requires_grad_()
    found = poincare.distance_between_points(z, w, curvature=curvature)
    gradients = torch.autograd.grad(found.sum(), (z, w))
    assert not found.any()
    assert not any(gradient.any() for gradient in gradients)


@each_dtype
@each_curvature
def test_distance_has_a_finite_gradient_between_any_two_depths(dtype: torch.dtype, curvature: float) -> None:
    x = unit_norms(dtype)
    n = len(x)
    a = poincare.radius(x, curvature=curvature).unsqueeze(1).requires_grad_()
    b = poincare.radius(x, curvature=curvature).requires_grad_()
    u, v = (directions(n, 3).to(dtype).requires_grad_() for _ in range(2))
    found = poincare.distance(a, u.unsqueeze(1), b, v, curvature=curvature)
    gradients = torch.autograd.grad(found.sum(), (a, u, b, v))
    assert found.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


@each_form
@each_curvature
def test_gradient_of_distance_is_that_of_the_closed_form(distance: Distance, curvature: float) -> None:
    arguments = [t.requires_grad_() for t in (*points(200, 16), *points(200, 16))]
    x, u, y, v = arguments
    expected = artanh_form(place(x, unit(u), curvature), place(y, unit(v), curvature), curvature)
    found = distance(x, unit(u), y, unit(v), curvature)
    for gradient, exact in zip(
        torch.autograd.grad(found.sum(), arguments), torch.autograd.grad(expected.sum(), arguments), strict=True
    ):
        torch.testing.assert_close(gradient, exact)


@each_form
def test_distance_is_symmetric_to_the_bit(distance: Distance) -> None:
    (x, u), (y, v) = points(200, 16), points(200, 16)
    assert torch.equal(distance(x, u, y, v, 2.0), distance(y, v, x, u, 2.0))


@pytest.mark.parametrize("formula", [poincare.radius, poincare.unit_norm])
def test_a_curvature_for_each_member_gives_each_member_its_own(formula: Callable[..., Tensor]) -> None:
    x = torch.rand(len(CURVATURES), 20, dtype=torch.float64)
    found = formula(x, curvature=torch.tensor(CURVATURES, dtype=torch.float64).unsqueeze(-1))
    expected = torch.stack([formula(row, curvature=c) for row, c in zip(x, CURVATURES, strict=True)])
    torch.testing.assert_close(found, expected)


@each_form
def test_distances_of_a_cohort_use_the_curvature_of_each_member(distance: Callable[..., Tensor]) -> None:
    (x, u), (y, v) = points(20, 16), points(20, 16)
    one_each = torch.tensor(CURVATURES, dtype=torch.float64).unsqueeze(-1)
    if distance is polar:
        found = polar(x, u, y, v, one_each)
    else:
        z, w = ((d * n.unsqueeze(-1)) / one_each.sqrt().unsqueeze(-1) for d, n in ((u, x), (v, y)))
        found = poincare.distance_between_points(z, w, curvature=one_each)
    torch.testing.assert_close(found, torch.stack([distance(x, u, y, v, c) for c in CURVATURES]))


# Geodesics


@each_curvature
@pytest.mark.parametrize("depth", [0.0, 1e-9, 0.5, 1 - 1e-9])
def test_a_geodesic_is_walked_at_constant_speed(curvature: float, depth: float) -> None:
    (x, u), (y, v) = points(1, 16), points(1, 16)
    z, w = place(x, u, curvature)[0], place(torch.full_like(y, depth), v, curvature)[0]
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    walked = poincare.geodesic(z, w, t, curvature=curvature)
    whole = poincare.distance_between_points(z, w, curvature=curvature)
    for end, share in ((z, t), (w, 1 - t)):
        found = poincare.distance_between_points(end, walked, curvature=curvature)
        # A coordinate is known to 2^-53, which at unit norm 1 - e is a hyperbolic length of 2^-53/e.
        torch.testing.assert_close(found, share * whole, rtol=1e-9, atol=1e-6 / math.sqrt(curvature))


def test_the_geodesic_of_a_point_to_itself_stays_there() -> None:
    z = torch.tensor([0.3, -0.2], dtype=torch.float64)
    found = poincare.geodesic(z, z, torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64), curvature=2.0)
    torch.testing.assert_close(found, z.expand(3, 2))


@each_curvature
def test_inside_is_a_unit_norm_below_1_and_no_nan(curvature: float) -> None:
    norms = torch.tensor([0.0, 0.9999999, 1 + 1e-12, 2.0, math.nan], dtype=torch.float64) / math.sqrt(curvature)
    z = torch.stack([norms, torch.zeros(5)], 1)
    assert poincare.inside(z, curvature=curvature).tolist() == [True, True, False, False, False]


def test_nan_stays_nan() -> None:
    nan, u = torch.tensor([math.nan]), torch.eye(2)[:1]
    assert poincare.distance(nan, u, torch.ones(1), u, curvature=1.0).isnan().all()
    assert poincare.distance_between_points(nan.expand(1, 2), u / 2, curvature=1.0).isnan().all()
    assert all(bool(x.isnan().all()) for x in poincare.translate(nan, u, torch.full((1,), 0.5), u))


# The move to the centre. Before it no point is farther out than half of what the architecture's widest ball has.

FARTHEST = math.tanh(math.atanh(1 - 1e-6) / 2)


@pytest.mark.parametrize("depth", [1e-9, 0.5, FARTHEST])
@pytest.mark.parametrize("angle", [0.0, 1e-4, 1.0, 3.0])
@pytest.mark.parametrize("step", [1e-5, 0.1])
def test_the_move_to_the_centre_keeps_its_digits(depth: float, angle: float, step: float) -> None:
    """In the plane it is the map z -> (z - o)/(1 - ō·z): here in 50 digits, from the same numbers."""
    x, y = depth * (1 - step), depth
    with mpmath.workdps(50):
        z, o = x * mpmath.expj(0.7 + angle), y * mpmath.expj(mpmath.mpf(0.7))
        exact = (z - o) / (1 - mpmath.conj(o) * z)
        norm = abs(exact)
        there = torch.tensor([float(exact.real / norm), float(exact.imag / norm)], dtype=torch.float64)
    u, w = (torch.tensor([[math.cos(t), math.sin(t)]], dtype=torch.float64) for t in (0.7 + angle, 0.7))
    norms = (torch.tensor([value], dtype=torch.float64) for value in (x, y))
    found, direction = poincare.translate(next(norms), u, next(norms), w)
    assert float(found) == pytest.approx(float(norm), rel=TOLERANCE[torch.float64])
    # How far aside the point lies, as a hyperbolic length.
    assert math.sinh(2 * math.atanh(float(norm))) * float((direction[0] - there).norm()) < TOLERANCE[torch.float64]


@each_dtype
@each_dimension
def test_the_move_to_the_centre_changes_no_distance(dimension: int, dtype: torch.dtype) -> None:
    drawn = [points(n, dimension, FARTHEST) for n in (200, 200, 1)]
    (x, u), (y, v), (o, w) = ((norm.to(dtype), direction.to(dtype)) for norm, direction in drawn)
    before = polar(x.double(), unit(u.double()), y.double(), unit(v.double()), 1.0)
    after = polar(*poincare.translate(x, u, o, w), *poincare.translate(y, v, o, w), 1.0)
    assert relative_error(after, before) < TOLERANCE[torch.float64]


@each_dtype
@pytest.mark.parametrize("depth", [0.0, 1e-9, 0.5, FARTHEST])
def test_the_new_centre_lies_at_0_and_all_gradients_are_finite(depth: float, dtype: torch.dtype) -> None:
    x, u = torch.tensor([depth, 0.3, depth], dtype=dtype), directions(3, 5).to(dtype)
    u[2] = u[0]
    arguments = [t.clone().requires_grad_() for t in (x, u, x[:1], u[:1])]
    norm, direction = poincare.translate(*arguments)
    assert (norm[[0, 2]].tolist(), direction[[0, 2]].norm(dim=1).tolist()) == ([0.0, 0.0], [0.0, 0.0])
    assert float(direction[1].detach().norm()) == pytest.approx(1.0, abs=1e-14)
    gradients = torch.autograd.grad(norm.sum() + direction.sum(), arguments)
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
