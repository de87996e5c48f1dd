"""The metrics, against embeddings whose worth is known. Their formulas are in test_docs_math.py."""

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from exact_model import exact_model
from torch import Tensor

import tvae
from tvae import metrics, ternary
from tvae.config.architecture import Architecture
from tvae.errors import EvaluationError
from tvae.metrics import Evaluation, Measurement, evaluate, measure
from tvae.model import Embedding, TernaryVAE

Floats = npt.NDArray[np.float64]


def directions(n: int, dimension: int = 8) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(n, dimension, dtype=torch.float64), dim=-1)


def random_embedding(n_trits: int) -> Embedding:
    n = 3**n_trits
    return Embedding(torch.rand(n, dtype=torch.float64) * 0.95, directions(n))


def embedding_of(unit_norms: npt.ArrayLike) -> Embedding:
    norms = torch.tensor(np.asarray(unit_norms, dtype=np.float64))
    return Embedding(norms, directions(len(norms)))


def tree_embedding(n_trits: int) -> Embedding:
    """One radius, and directions that agree the more, the longer the trits that two operations share.

    One axis for each string of first trits; an operation has the length 2^-k on that of its first k trits.
    """
    rows = []
    for i in range(3**n_trits):
        axes = [np.eye(3**k)[i % 3**k] * 2.0**-k for k in range(1, n_trits + 1)]
        rows.append(np.concatenate(axes))
    direction = torch.nn.functional.normalize(torch.tensor(np.array(rows)), dim=-1)
    return Embedding(torch.full((3**n_trits,), 0.9, dtype=torch.float64), direction)


def distances(embedding: Embedding, curvature: float) -> Floats:
    """Every hyperbolic distance, from the hyperbolic law of cosines."""
    a = 2 * np.arctanh(embedding.unit_norm.numpy())
    u = embedding.direction.numpy()
    cosh = np.cosh(a)[:, None] * np.cosh(a) - np.sinh(a)[:, None] * np.sinh(a) * (u @ u.T)
    matrix: Floats = np.arccosh(np.maximum(cosh, 1)) / math.sqrt(curvature)
    return matrix


def model_of(architecture: Architecture) -> TernaryVAE:
    model = TernaryVAE(architecture)
    model.initialise(torch.Generator().manual_seed(0))
    return model


SMALL = Architecture(n_trits=4, latent_dim=6, encoder_hidden=(20,), decoder_hidden=(12,), hidden_dim=16)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate(model_of(SMALL))


# Richness and levels


def test_richness_ceiling_counts_the_levels() -> None:
    assert metrics.richness_ceiling(0.8, n_trits=4) == pytest.approx(0.8**2 / 20)


def test_level_radii_are_means_of_hyperbolic_radii() -> None:
    norms, curvature = np.random.default_rng(0).uniform(0, 0.9, 81), 0.3
    radii = 2 * np.arctanh(norms) / math.sqrt(curvature)
    expected = [radii[ternary.valuations(4) == level].mean() for level in range(5)]
    assert measure(embedding_of(norms), n_trits=4, curvature=curvature).level_radii == pytest.approx(expected)


# Distances


def test_the_sample_holds_40960_pairs_of_different_operations_and_is_the_same_every_time() -> None:
    first = metrics.sample_pairs(9)
    i, j, distance = first
    assert len(i) == len(j) == 40_960
    assert (i != j).all()
    assert {int(t.min()) >= 0 and int(t.max()) < 19_683 for t in (i, j)} == {True}
    assert distance.tolist() == ternary.distance(i.numpy(), j.numpy(), 9).tolist()
    metrics.sample_pairs.cache_clear()
    again = metrics.sample_pairs(9)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_tree_precision_of_a_sample_is_the_mean_over_some_operations() -> None:
    embedding = random_embedding(4)
    sampled = metrics.tree_precision_by_level(embedding, n_trits=4, curvature=2.0, sample=20)
    anchors = np.random.default_rng(metrics.SAMPLE_SEED).choice(81, 20, replace=False)
    matrix = distances(embedding, 2.0)
    np.fill_diagonal(matrix, -1)
    nearest = np.argsort(matrix, axis=1)
    for k, found in zip(range(1, 4), sampled, strict=True):
        size = 3 ** (4 - k)
        shares = [np.mean(nearest[i, 1:size] % 3**k == i % 3**k) for i in anchors]
        assert found == pytest.approx(np.mean(shares), abs=1e-12)


# Sibling recall


@pytest.mark.parametrize("n_trits", [1, 4])
def test_sibling_recall_of_an_exact_tree_is_1(n_trits: int) -> None:
    assert metrics.sibling_recall(tree_embedding(n_trits), n_trits=n_trits, curvature=2.0) == 1.0


def test_sibling_recall_of_a_tree_with_two_operations_exchanged_counts_whom_it_parts() -> None:
    tree, order = tree_embedding(4), torch.arange(81)
    order[[0, 1]] = order[[1, 0]]
    # Both miss both siblings, and are missed by two operations each.
    found = metrics.sibling_recall(Embedding(*(t[order] for t in tree)), n_trits=4, curvature=2.0)
    assert found == pytest.approx(1 - (2 * 2 + 4) / (2 * 81), rel=1e-12)


@pytest.mark.parametrize("places", [2, 40, 200])
def test_sibling_recall_counts_ties_with_their_chance_to_be_drawn(places: int) -> None:
    place = torch.tensor(np.random.default_rng(0).permutation(243) % places)
    embedding = Embedding(torch.linspace(0.1, 0.8, places)[place], directions(places).float()[place])
    expected = metrics.tree_precision_by_level(embedding, n_trits=5, curvature=1.0)[-1]
    assert metrics.sibling_recall(embedding, n_trits=5, curvature=1.0) == pytest.approx(expected, rel=1e-12)


# Ball coverage


def test_points_that_differ_in_the_last_bit_are_read_back() -> None:
    points = random_embedding(3).points(2.0).float()
    points[1] = points[0]
    points[1, 2] = torch.nextafter(points[0, 2], torch.tensor(1.0))
    assert metrics.ball_coverage(points, curvature=2.0) == 1.0


def test_ball_coverage_is_the_share_that_decode_gives_back() -> None:
    # Moved to the centre, rounding would part operations of one point.
    model = model_of(dataclasses.replace(SMALL, centred=False))
    with torch.no_grad():
        # One trit is not looked at: operations come in threes of one point.
        model.encoder.hidden[0].weight[:, 2] = 0.0
    book = tvae.codebook(model)
    back = tvae.decode(book.points.numpy(), book)
    assert (back.distance == 0).all()
    assert len(set(back.index.tolist())) == 27
    assert evaluate(model).ball_coverage == 0.0
    assert evaluate(model_of(SMALL)).ball_coverage == 1.0


# Distances by valuation


def test_partners_are_drawn_from_all_that_there_are() -> None:
    partner, i = metrics.sample_partners(9)[1].numpy(), np.arange(19_683)
    for k in range(4, 9):
        assert len(np.unique((partner[k] - i) % 19_683)) == 2 * 3 ** (8 - k)


@pytest.mark.parametrize("curvature", [0.5, 2.0])
def test_distances_by_valuation_are_those_of_the_partners(curvature: float) -> None:
    embedding = random_embedding(4)
    expected = distances(embedding, curvature)[np.arange(81), metrics.sample_partners(4)[1].numpy()]
    found = metrics.distances_by_valuation(embedding, n_trits=4, curvature=curvature)
    assert found == pytest.approx(expected, rel=1e-6)


def test_level_distances_are_means_over_the_partners(evaluation: Evaluation) -> None:
    model = model_of(SMALL)
    with torch.no_grad():
        embedding = model.project(metrics.posterior_mean(model))
    found = metrics.distances_by_valuation(embedding, n_trits=4, curvature=2.0)
    assert evaluation.level_distances == pytest.approx([float(np.mean(row)) for row in found], rel=1e-12)


# What cannot be measured


@pytest.mark.parametrize(
    ("value", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf"), (1.0, "1.0"), (-0.125, "-0.125")]
)
def test_unit_norm_outside_the_ball_is_refused(value: float, text: str) -> None:
    embedding = random_embedding(4)
    embedding.unit_norm[[7, 30]] = value
    message = rf"^Every radius must be finite and inside the ball; operation 7 has unit norm {text}, and 2 of 81 "
    with pytest.raises(EvaluationError, match=message):
        measure(embedding, n_trits=4, curvature=2.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_direction_that_is_not_finite_is_refused_also_outside_the_sample(value: float) -> None:
    i, j, _ = metrics.sample_pairs(9)
    unsampled = min(set(range(19_683)) - set(i.tolist()) - set(j.tolist()))
    embedding = random_embedding(9)
    embedding.direction[unsampled, 2] = value
    with pytest.raises(
        EvaluationError, match=rf"^Every direction must be finite; that of operation {unsampled} is not"
    ):
        measure(embedding, n_trits=9, curvature=2.0)


def test_collapsed_model_has_hierarchy_0_and_no_order() -> None:
    n = 3**4
    collapsed = Embedding(torch.full((n,), 0.5), torch.eye(4)[:1].expand(n, 4))
    assert measure(collapsed, n_trits=4, curvature=2.0) == Measurement(
        hierarchy=0.0,
        richness=0.0,
        ordered_levels=0,
        level_gap=-1.0,
        distance_fidelity=0.0,
        level_gaps=(-1.0,) * 4,
        level_radii=(pytest.approx(2 * math.atanh(0.5) / math.sqrt(2), rel=1e-6),) * 5,  # type: ignore[arg-type]
        level_richness=(0.0,) * 5,
    )


# Coverage


@pytest.mark.parametrize("blind", [[], [0], [1, 2], [0, 1, 2]])
def test_coverage_counts_only_operations_that_come_back_whole(blind: list[int]) -> None:
    model = exact_model()
    with torch.no_grad():
        model.decoder.layers[2].bias.view(3, 3)[blind, 1] = 9.0  # always 0 there, right for one operation in 3
    assert evaluate(model).coverage == pytest.approx(3.0 ** -len(blind), rel=1e-12)


def test_reproduced_names_the_operations_that_come_back() -> None:
    model = exact_model()
    with torch.no_grad():
        model.decoder.layers[2].bias.view(3, 3)[0, 1] = 9.0
    found = metrics.reproduced(model, metrics.posterior_mean(model))
    assert found.tolist() == [row[0] == 0 for row in ternary.operations(3).tolist()]


def test_reproduced_of_a_cohort_is_that_of_each_member() -> None:
    good, bad = exact_model(), exact_model()
    torch.nn.init.zeros_(bad.decoder.layers[2].weight)
    cohort = TernaryVAE(good.architecture, members=2)
    states = good.state_dict(), bad.state_dict()
    cohort.load_state_dict({name: torch.stack([state[name] for state in states]) for name in states[0]})
    found = metrics.reproduced(cohort, metrics.posterior_mean(cohort))
    assert found.sum(-1).tolist() == [27, 1]


# Evaluation


def test_posterior_mean_is_the_encoders_mean_of_every_operation_in_order() -> None:
    # So many that they go through the network in parts.
    model = model_of(dataclasses.replace(SMALL, n_trits=8))
    expected = model.encode(torch.tensor(ternary.operations(8), dtype=torch.float32))[0]
    torch.testing.assert_close(metrics.posterior_mean(model), expected)


def test_norms_are_those_of_the_points_of_the_model_and_radii_their_hyperbolic_lengths(evaluation: Evaluation) -> None:
    points = model_of(SMALL)(metrics.trit_table(4))
    assert evaluation.norms == pytest.approx(points.detach().double().norm(dim=-1).numpy(), rel=1e-5, abs=1e-6)
    expected = 2 / math.sqrt(2) * np.arctanh(math.sqrt(2) * evaluation.norms)
    assert evaluation.radii == pytest.approx(expected, rel=1e-5)


def test_an_evaluation_cannot_be_changed(evaluation: Evaluation) -> None:
    for array in (evaluation.radii, evaluation.norms):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0
    for field in dataclasses.fields(Evaluation):
        with pytest.raises(dataclasses.FrozenInstanceError, match=field.name):
            setattr(evaluation, field.name, 0.0)


def test_evaluation_lists_its_metrics_under_the_names_they_are_logged_with(evaluation: Evaluation) -> None:
    assert evaluation.metrics() == {
        "coverage": evaluation.coverage,
        "hierarchy": evaluation.hierarchy,
        "richness": evaluation.richness,
        "ordered_levels": evaluation.ordered_levels,
        "level_gap": evaluation.level_gap,
        "distance_fidelity": evaluation.distance_fidelity,
        "tree_precision": evaluation.tree_precision,
        "sibling_recall": evaluation.sibling_recall,
        "ball_coverage": evaluation.ball_coverage,
        "q": evaluation.distance_fidelity + 1.5 * abs(evaluation.hierarchy),
    }


def test_tree_precision_is_the_mean_over_levels(evaluation: Evaluation) -> None:
    assert len(evaluation.tree_precision_by_level) == 3
    assert evaluation.tree_precision == pytest.approx(sum(evaluation.tree_precision_by_level) / 3, rel=1e-12)


def test_evaluation_agrees_with_the_measurement_of_its_embedding(evaluation: Evaluation) -> None:
    model = model_of(SMALL)
    with torch.no_grad():
        measured = measure(model.project(metrics.posterior_mean(model)), n_trits=4, curvature=2.0)
    found = dataclasses.asdict(measured)
    assert found == {name: getattr(evaluation, name) for name in found}
    assert measured.q == evaluation.q


def test_evaluating_twice_gives_the_same_to_the_last_bit(evaluation: Evaluation) -> None:
    again = evaluate(model_of(SMALL))
    assert again.metrics() == evaluation.metrics()
    assert np.array_equal(again.radii, evaluation.radii)
