"""The scikit-learn transformer: scikit-learn's own checks, and what its points are."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from exact_model import exact_model, random_model
from sklearn.base import clone
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import tvae
from tvae import ternary
from tvae.checkpoint import read, save
from tvae.config.architecture import Architecture
from tvae.embedding import transformer
from tvae.embedding.transformer import TernaryEmbedding
from tvae.errors import CheckpointError, PointError
from tvae.model import COMPONENTS

NO_TRITS = "It fits on real numbers in any number of columns; an operation is a row of trits, as many as the model has."
NEEDS_NUMBERS = """
    check_dict_unchanged check_dont_overwrite_parameters check_dtype_object check_estimators_dtypes
    check_estimators_fit_returns_self check_estimators_nan_inf check_estimators_overwrite_params check_estimators_pickle
    check_f_contiguous_array_estimator check_fit2d_predict1d check_fit_check_is_fitted check_fit_idempotent
    check_fit_score_takes_y check_methods_sample_order_invariance check_methods_subset_invariance check_n_features_in
    check_n_features_in_after_fitting check_pipeline_consistency check_readonly_memmap_input
    check_transformer_data_not_an_array check_transformer_general
"""
# Every other check passes as it is, and these where numbers are folded to trits.
EXPECTED_TO_FAIL = dict.fromkeys(NEEDS_NUMBERS.split(), NO_TRITS) | {
    "check_fit2d_1sample": "It asks for a message on the number of samples; one is enough here, its values are wrong.",
    "check_positive_only_tag_during_fit": "It takes any refusal of negative numbers for one of their sign.",
}
ESTIMATOR = TernaryEmbedding("checkpoint.safetensors")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every path holds the perfect model of 3 trits."""
    monkeypatch.setattr(transformer, "load", lambda _: exact_model(3))


@pytest.fixture
def folded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any numbers are folded to 3 trits a row: then the checks that fit on real numbers can be run too."""

    def fold(X: npt.NDArray[Any], n_trits: int) -> npt.NDArray[np.int64]:
        columns = [X[:, k % X.shape[1]] for k in range(n_trits)]
        return ternary.to_index(np.clip(np.rint(np.column_stack(columns).astype(float)), -1, 1))

    monkeypatch.setattr(transformer, "_indices", fold)


@parametrize_with_checks([ESTIMATOR], expected_failed_checks=lambda _: EXPECTED_TO_FAIL, xfail_strict=True)
@pytest.mark.usefixtures("loaded")
def test_scikit_learns_checks(estimator: TernaryEmbedding, check: Callable[[Any], None]) -> None:
    check(estimator)


@parametrize_with_checks([ESTIMATOR])
@pytest.mark.usefixtures("loaded", "folded")
def test_scikit_learns_checks_where_any_number_is_a_trit(
    estimator: TernaryEmbedding, check: Callable[[Any], None]
) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "checkpoint.safetensors"
    save(path, exact_model(4), trained=COMPONENTS, training={}, metrics={})
    return path


TRITS = ternary.operations(4)


@pytest.mark.parametrize("form", [str, Path, read, tvae.load], ids=["str", "Path", "Checkpoint", "TernaryVAE"])
def test_a_model_can_be_given_in_every_form(checkpoint: Path, form: Callable[[Any], Any]) -> None:
    found = TernaryEmbedding(form(checkpoint)).fit(TRITS).transform(TRITS)
    assert np.array_equal(found, tvae.codebook(tvae.load(checkpoint)).points.numpy())


def test_an_operation_is_transformed_to_its_point_and_back(checkpoint: Path) -> None:
    embedding = TernaryEmbedding(checkpoint).fit(TRITS)
    rows = TRITS[[7, 3, 7]]
    assert np.array_equal(embedding.inverse_transform(embedding.transform(rows)), rows)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32, np.float64])
def test_trits_may_be_of_any_number_type(checkpoint: Path, dtype: type) -> None:
    embedding = TernaryEmbedding(checkpoint).fit(TRITS)
    assert np.array_equal(embedding.transform(TRITS.astype(dtype)), embedding.transform(TRITS))


def test_it_stands_in_a_pipeline(checkpoint: Path) -> None:
    pipeline = make_pipeline(TernaryEmbedding(str(checkpoint)), KNeighborsClassifier(1))
    labels = ternary.valuations(4)
    assert pipeline.fit(TRITS, labels).score(TRITS, labels) == 1.0


def test_a_fitted_pipeline_is_pickled_with_its_points(checkpoint: Path) -> None:
    embedding = TernaryEmbedding(str(checkpoint)).fit(TRITS)
    again = pickle.loads(pickle.dumps(embedding))
    assert np.array_equal(again.transform(TRITS), embedding.transform(TRITS))


def test_a_clone_has_the_parameter_and_is_not_fitted(checkpoint: Path) -> None:
    copy = clone(TernaryEmbedding(str(checkpoint)).fit(TRITS))
    assert copy.get_params() == {"model": str(checkpoint), "space": "ball"}
    assert not hasattr(copy, "codebook_")


MODEL = random_model(Architecture(n_trits=4, latent_dim=5))


def test_tangent_vectors_are_as_long_as_the_radius() -> None:
    embedding = TernaryEmbedding(MODEL, space="tangent").fit(TRITS)
    radii = tvae.evaluate(MODEL).radii
    vectors, points = embedding.transform(TRITS), tvae.codebook(MODEL).points.double().numpy()
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(radii, rel=1e-5)
    cosines = (vectors * points).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(points, axis=1)
    assert cosines == pytest.approx(np.ones(81))
    assert np.array_equal(embedding.inverse_transform(vectors), TRITS)


def test_the_origin_is_the_zero_of_its_tangent_space() -> None:
    model = exact_model(3, centred=True)
    row = ternary.operations(3)[:1]
    for space in ("tangent", "radius", "ball"):
        assert not TernaryEmbedding(model, space=space).fit_transform(row).any()
    tangent = TernaryEmbedding(model, space="tangent").fit(row)
    assert tangent.inverse_transform(np.zeros((1, 3))).tolist() == row.tolist()


def test_radii_are_a_column() -> None:
    embedding = TernaryEmbedding(MODEL, space="radius").fit(TRITS)
    assert embedding.transform(TRITS).shape == (81, 1)
    assert embedding.transform(TRITS)[:, 0] == pytest.approx(tvae.evaluate(MODEL).radii, rel=1e-5)
    assert embedding.get_feature_names_out().tolist() == ["ternaryembedding0"]
    with pytest.raises(ValueError, match="many operations share one radius"):
        embedding.inverse_transform([[1.0]])


def test_a_space_that_is_none_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"`space` must be one of ball, tangent, radius, got 'hyperboloid'"):
        TernaryEmbedding(checkpoint, space="hyperboloid").fit(TRITS)


def test_features_out_are_the_coordinates(checkpoint: Path) -> None:
    names = TernaryEmbedding(checkpoint).fit(TRITS).get_feature_names_out()
    assert names.tolist() == [f"ternaryembedding{k}" for k in range(4)]


def test_a_value_that_is_no_trit_is_named(checkpoint: Path) -> None:
    wrong = TRITS.astype(float)
    wrong[5, 2] = 0.5
    with pytest.raises(ValueError, match=r"^`X` must hold trits, -1, 0 or 1; row 5, column 2 is 0\.5\.$"):
        TernaryEmbedding(checkpoint).fit(wrong)


def test_operations_of_another_width_are_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"a column for each of 4 trits, got 3 feature\(s\)"):
        TernaryEmbedding(checkpoint).fit(TRITS[:, :3])


def test_a_point_outside_the_ball_is_not_read_back(checkpoint: Path) -> None:
    with pytest.raises(PointError, match=r"^Row 1 of `points` must lie inside the ball"):
        TernaryEmbedding(checkpoint).fit(TRITS).inverse_transform([[0.0] * 4, [0.9] * 4])


def test_without_a_model_it_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match="`model` must be the path of a checkpoint"):
        TernaryEmbedding().fit(TRITS)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing"):
        TernaryEmbedding(tmp_path / "nothing").fit(TRITS)
