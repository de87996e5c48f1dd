"""What is read back from points in the ball, and which points are refused."""

import math
import re
import resource
import time
from typing import Any

import numpy as np
import pytest
import torch
from exact_model import exact_model, random_model

import tvae
from tvae import metrics, poincare, ternary
from tvae.config.architecture import Architecture
from tvae.embedding.export import embeddings
from tvae.errors import EvaluationError, PointError
from tvae.model import TernaryVAE


@pytest.fixture(scope="module")
def model() -> TernaryVAE:
    return random_model(Architecture())


@pytest.fixture(scope="module")
def book(model: TernaryVAE) -> tvae.Codebook:
    return tvae.codebook(model)


def test_an_operation_comes_back_from_the_point_of_the_model(model: TernaryVAE, book: tvae.Codebook) -> None:
    with torch.no_grad():
        points = model(metrics.trit_table(9)[::20]).numpy()
    read = tvae.decode(points, book)
    assert np.array_equal(read.index, np.arange(0, 19_683, 20))
    # A point of the network differs in its last bits from that of another batch.
    assert read.distance.max() < 1e-5


def test_every_operation_comes_back_from_the_table_of_embeddings_in_little_memory_and_time(
    model: TernaryVAE, book: tvae.Codebook
) -> None:
    points = embeddings(model)["z"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    read = tvae.decode(points, book)
    # Measured: 1.1 s, and 50 MB.
    assert time.process_time() - started < 8
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
    assert np.array_equal(read.index, np.arange(19_683))


def test_an_embedding_is_at_distance_0_from_itself(book: tvae.Codebook) -> None:
    assert not tvae.decode(book.points[:500].numpy(), book).distance.any()


def test_an_operation_is_described_by_index_trits_and_valuation(book: tvae.Codebook) -> None:
    read = tvae.decode(book.points[[0, 5, 18]].numpy(), book)
    assert read.index.tolist() == [0, 5, 18]
    assert read.trits.tolist() == ternary.to_trits([0, 5, 18]).tolist()
    assert read.valuation.tolist() == [9, 0, 2]
    assert len(read) == 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_perturbed_point_gives_the_nearest_of_all_operations(book: tvae.Codebook, dtype: type) -> None:
    rng = np.random.default_rng(0)
    points = (book.points[::1000].numpy() + rng.normal(size=(20, 16)) * 0.1).astype(dtype)
    points = points[np.linalg.norm(points, axis=1) * math.sqrt(2) < 1]
    read = tvae.decode(points, book)
    for point, index, distance in zip(torch.tensor(points).double(), read.index, read.distance, strict=True):
        distances = poincare.distance_between_points(point, book.points.double(), curvature=2.0)
        assert index == int(distances.argmin())
        assert distance == float(distances.min())
    assert len(points) > 10


def test_the_origin_is_read_as_the_operation_of_the_smallest_radius(book: tvae.Codebook) -> None:
    read = tvae.decode(np.zeros((1, 16)), book)
    norms = math.sqrt(2) * book.points.double().norm(dim=1)
    assert read.index[0] == int(norms.argmin())
    assert read.distance[0] == pytest.approx(math.sqrt(2) * math.atanh(float(norms.min())), rel=1e-12)


def test_a_model_and_its_codebook_read_the_same(model: TernaryVAE, book: tvae.Codebook) -> None:
    points = np.full((3, 16), 0.05)
    one, other = tvae.decode(points, model), tvae.decode(points, book)
    assert one.index.tolist() == other.index.tolist()
    assert one.distance.tolist() == other.distance.tolist()


def test_no_points_are_no_operations(book: tvae.Codebook) -> None:
    read = tvae.decode(np.zeros((0, 16)), book)
    assert len(read) == 0
    assert read.trits.shape == (0, 9)


def test_a_codebook_of_a_codebook_is_itself(book: tvae.Codebook) -> None:
    assert tvae.codebook(book) is book


@pytest.mark.parametrize("curvature", [0.5, 2.0])
def test_the_ball_is_that_of_the_models_curvature(curvature: float) -> None:
    model = exact_model(3, curvature=curvature)
    point = np.array([[0.99 / math.sqrt(curvature), 0.0, 0.0]])
    assert len(tvae.decode(point, model)) == 1
    with pytest.raises(PointError, match=r"unit norm 1\.01"):
        tvae.decode(point / 0.99 * 1.01, model)


def with_value(value: float, row: int = 3, position: int = 2) -> np.ndarray:
    points = np.zeros((5, 16))
    points[row, position] = value
    return points


REFUSED: list[tuple[Any, str]] = [
    (with_value(math.nan), "Row 3, position 2 of `points` must be finite, got nan."),
    (with_value(-math.inf), "Row 3, position 2 of `points` must be finite, got -inf."),
    (
        with_value(0.75),
        "Row 3 of `points` must lie inside the ball, of unit norm sqrt(c)·|z| < 1 at curvature c = 2, got",
    ),
    (with_value(1 / math.sqrt(2)), "Row 3 of `points` must lie inside the ball, "),
    (np.array([[0.0] * 16, [3.0] * 16, [4.0] * 16]), "Row 1 of `points` must lie inside the ball, "),
    (np.zeros((5, 15)), "`points` must have shape (n, 16), a row a point of this ball, got (5, 15)."),
    (np.zeros(16), "`points` must have shape (n, 16), a row a point of this ball, got (16,)."),
    (np.zeros((1, 5, 16)), "`points` must have shape (n, 16), a row a point of this ball, got (1, 5, 16)."),
    (np.full((1, 16), "0"), "`points` must be numbers, got an array of type <U1."),
    (np.full((1, 16), None), "`points` must be numbers, got an array of type object."),
    (np.zeros((1, 16), bool), "`points` must be numbers, got an array of type bool."),
    (np.zeros((1, 16), complex), "`points` must be numbers, got an array of type complex128."),
]


def test_what_is_no_point_of_the_ball_is_refused_with_its_place_and_value(book: tvae.Codebook) -> None:
    for points, sentence in REFUSED:
        with pytest.raises(PointError, match=f"^{re.escape(sentence)}"):
            tvae.decode(points, book)


def test_a_model_whose_points_are_not_inside_the_ball_reads_nothing() -> None:
    model = exact_model(3)
    with torch.no_grad():
        model.encoder.mean.bias.fill_(math.nan)
    with pytest.raises(EvaluationError, match="that of operation 0 is not, nor are those of 27 of 27 operations"):
        tvae.codebook(model)
