"""The search gives what measuring every distance gives: near the boundary, between near points, in collapsed balls."""

import math

import pytest
import torch
from torch import Tensor

from tvae import poincare
from tvae.metrics import nearest as search
from tvae.metrics.nearest import nearest

DIMENSION = 16


def points(unit_norm: Tensor, curvature: float, dtype: torch.dtype = torch.float32) -> Tensor:
    direction = torch.nn.functional.normalize(torch.randn(len(unit_norm), DIMENSION, dtype=torch.float64), dim=-1)
    return (direction * unit_norm.double()[:, None] / math.sqrt(curvature)).to(dtype)


def assert_as_measured(z: Tensor, w: Tensor, curvature: float, count: int) -> None:
    """Against all distances; of equal ones the lower index first."""
    distances = poincare.distance_between_points(z.double()[:, None], w.double(), curvature=curvature)
    expected = torch.argsort(distances, stable=True)[:, :count]
    index, distance = nearest(z, w, curvature=curvature, count=count)
    assert torch.equal(index, expected)
    assert torch.equal(distance, distances.gather(1, expected))


def clusters(scale: float, curvature: float, depth: float) -> Tensor:
    """81 places near the boundary, each with 9 points that are `scale` apart in Euclidean distance."""
    centres = points(torch.full((81,), depth), curvature, torch.float64).repeat_interleave(9, 0)
    return centres + scale * torch.randn_like(centres)


CASES = {
    "spread": lambda c: points(torch.rand(729) * 0.95, c),
    "near the boundary": lambda c: points(1 - 10 ** -(1 + 4 * torch.rand(729).double()), c, torch.float64),
    "at the boundary in float32": lambda c: points(1 - 2e-6 * (1 + torch.rand(729)), c),
    "as near as float64 tells": lambda c: points(1 - 10 ** -(8 + 5 * torch.rand(729).double()), c, torch.float64),
    "near points": lambda c: clusters(1e-5, c, 0.9),
    "near points at the boundary": lambda c: clusters(1e-9, c, 1 - 1e-6),
    "nearer than the bounds tell": lambda c: clusters(1e-12, c, 0.5),
    "around the origin": lambda c: points(1e-20 * torch.rand(729), c),
    "one sphere": lambda c: points(torch.full((729,), 0.9), c),
    "few places": lambda c: points(torch.rand(9) * 0.9, c).repeat(81, 1),
    "one place": lambda c: points(torch.tensor([0.7]), c).expand(729, -1),
    "the origin": lambda c: torch.zeros(729, DIMENSION),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("curvature", [0.1, 2.0])
def test_the_nearest_are_those_of_all_distances(case: str, curvature: float) -> None:
    z = CASES[case](curvature)
    assert_as_measured(z[:40], z, curvature, 4)


@pytest.mark.parametrize("case", CASES)
def test_points_that_are_none_of_the_others_find_the_nearest(case: str) -> None:
    z = CASES[case](1.0)
    away = torch.cat([points(torch.rand(20), 1.0, torch.float64), z[:20].double() * (1 - 1e-9)])
    assert_as_measured(away, z, 1.0, 1)


def test_the_nearest_in_the_ball_is_not_the_nearest_in_the_picture() -> None:
    # From 0.9, the point 0.95 is nearer in the picture and farther in the ball than 0.84.
    z = torch.zeros(100, 2, dtype=torch.float64)
    z[:, 1] = torch.linspace(-0.9, -0.5, 100)
    z[3], z[7] = torch.tensor([0.95, 0.0]), torch.tensor([0.84, 0.0])
    index, distance = nearest(torch.tensor([[0.9, 0.0]]), z, curvature=1.0, count=2)
    assert index.tolist() == [[7, 3]]
    assert distance.tolist()[0] == pytest.approx(
        [2 * (math.atanh(x) - math.atanh(y)) for x, y in ((0.9, 0.84), (0.95, 0.9))], rel=1e-6
    )


@pytest.mark.parametrize("n", [1, 2, 53, 54, 55, 80, 81, 82, 500])
def test_any_number_of_points_can_be_searched(n: int) -> None:
    assert_as_measured(points(torch.rand(5) * 0.9, 1.0), points(torch.rand(n) * 0.9, 1.0), 1.0, 1)


@pytest.mark.parametrize("n", [0, 1, 127, 128, 129, 300])
def test_any_number_of_points_can_be_asked_about(n: int) -> None:
    assert_as_measured(points(torch.rand(n) * 0.9, 1.0), points(torch.rand(200) * 0.9, 1.0), 1.0, 2)


def test_the_bounds_settle_a_tree_at_the_boundary_without_measuring_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("all distances were measured")

    z = clusters(1e-5, 2.0, 1 - 1e-4).float()
    monkeypatch.setattr(search, "_measure_all", refuse)
    nearest(z, z, curvature=2.0, count=4)


@pytest.mark.parametrize("count", [0, 6])
def test_a_count_that_cannot_be_had_is_refused(count: int) -> None:
    z = points(torch.rand(5), 1.0)
    with pytest.raises(ValueError, match=rf"^`count` must be in 1 … 5, got {count}\.$"):
        nearest(z, z, curvature=1.0, count=count)
