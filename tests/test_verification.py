"""Verification: a good model passes, and each way of not being good fails its check."""

import json
import math
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from exact_model import architecture, exact_model, random_model

from tvae.checkpoint import Bounds, Check, Checkpoint, Verification, read, save, verify
from tvae.checkpoint.verification import Loaded, _found, _reload_check, judge_foundation, judge_model, load_afresh
from tvae.config.training import Configuration
from tvae.errors import CheckpointError
from tvae.fresh import FreshProcess
from tvae.metrics import evaluate
from tvae.model import COMPONENTS, TernaryVAE

FOUNDATION = ("encoder", "decoder")
BOUNDED = ["coverage", "hierarchy", "hierarchy ceiling", "ordered levels", "level gap", "distinct points"]
OF_A_MODEL = ["finite", "inside the ball", "claimed metrics", *BOUNDED]


def checkpoint(
    folder: Path,
    model: TernaryVAE,
    metrics: dict | None = None,
    trained: tuple = COMPONENTS,
    configuration: Configuration | None = None,
) -> Checkpoint:
    path = folder / "checkpoint.safetensors"
    training = {"configuration": configuration.to_dict()} if configuration else {}
    save(path, model, trained=trained, training=training, metrics=metrics or {})
    return read(path)


def checks(source: Checkpoint, bounds: Bounds | None = None) -> dict[str, Check]:
    return {check.name: check for check in judge_model(source, bounds or Bounds()).checks}


def failed(source: Checkpoint, bounds: Bounds | None = None) -> list[str]:
    return [name for name, check in checks(source, bounds).items() if not check.passed]


def judged(source: Checkpoint, bounds: Bounds | None = None) -> Verification:
    checks = judge_model(source, bounds or Bounds()).checks
    return Verification(source.path, source.digest, "A model.", checks)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    model = exact_model()
    return checkpoint(tmp_path_factory.mktemp("good"), model, evaluate(model).metrics())


class TestChecks:
    def test_a_perfect_model_passes_all(self, good: Checkpoint) -> None:
        assert failed(good) == []

    @pytest.mark.parametrize(
        ("name", "direction"),
        [(name, -math.inf if name == "hierarchy" else math.inf) for name in BOUNDED if name != "hierarchy ceiling"],
    )
    def test_a_bound_is_passed_at_its_value_and_failed_beyond(
        self, good: Checkpoint, name: str, direction: float
    ) -> None:
        field = name.replace(" ", "_")
        value = checks(good)[name].value
        assert checks(good, Bounds(**{field: value}))[name].passed
        assert failed(good, Bounds(**{field: math.nextafter(value, direction)})) == [name]

    @pytest.mark.parametrize(
        "field", ["coverage", "hierarchy", "ordered_levels", "level_gap", "distinct_points", "ceiling_slack"]
    )
    def test_a_bound_that_is_nan_fails(self, good: Checkpoint, field: str) -> None:
        assert len(failed(good, Bounds(**{field: math.nan}))) == 1

    @pytest.mark.parametrize(
        ("centred", "changes", "bound"),
        [
            (True, {}, ">= 0"),
            (True, {"richness_weight": 2.0}, "reported"),
            (True, {"distance_weight": 0.0, "hierarchy_weight": 5.0}, "reported"),
            (False, {}, "reported"),
        ],
    )
    def test_levels_must_be_apart_where_the_training_promised_it(
        self, tmp_path: Path, centred: bool, changes: dict, bound: str
    ) -> None:
        # Random weights: levels overlap by far.
        model = random_model(architecture(3, centred=centred))
        check = checks(checkpoint(tmp_path, model, configuration=Configuration(**changes)))["level gap"]
        assert check.value == evaluate(model).level_gap < 0
        assert (check.bound, check.passed) == (bound, bound == "reported")

    @pytest.mark.parametrize("told", ["any", [], {"distance_weight": "5", "richness_weight": "0"}])
    def test_a_training_that_cannot_be_read_promises_nothing(self, tmp_path: Path, told: object) -> None:
        path = tmp_path / "checkpoint.safetensors"
        model = random_model(architecture(3, centred=True))
        save(path, model, trained=COMPONENTS, training={"configuration": told}, metrics={})
        assert checks(read(path))["level gap"].bound == "reported"

    def test_a_claim_is_passed_within_the_tolerance_and_failed_beyond(self, tmp_path: Path) -> None:
        model = exact_model()
        hierarchy = evaluate(model).hierarchy
        near, far = {"hierarchy": hierarchy + 9e-7}, {"hierarchy": hierarchy + 1.1e-6}
        assert failed(checkpoint(tmp_path, model, near)) == []
        assert failed(checkpoint(tmp_path, model, far)) == ["claimed metrics"]

    def test_a_false_claim_is_named_with_both_values(self, tmp_path: Path) -> None:
        source = checkpoint(tmp_path, exact_model(), {"coverage": 1.0, "hierarchy": -0.9})
        assert "`hierarchy` is claimed as -0.9, recomputed as -0.83260041" in checks(source)["claimed metrics"].meaning

    def test_a_checkpoint_from_before_a_metric_was_there_does_not_claim_it_and_passes(self, tmp_path: Path) -> None:
        model = exact_model()
        claims = {k: v for k, v in evaluate(model).metrics().items() if k not in ("sibling_recall", "ball_coverage")}
        assert failed(checkpoint(tmp_path, model, claims)) == []

    @pytest.mark.parametrize("metric", ["sibling_recall", "ball_coverage"])
    def test_a_false_claim_of_what_is_read_off_the_ball_fails(self, tmp_path: Path, metric: str) -> None:
        claims = evaluate(exact_model()).metrics()
        false = claims | {metric: claims[metric] - 1 / 54}
        assert failed(checkpoint(tmp_path, exact_model(), false)) == ["claimed metrics"]

    def test_a_claim_that_nobody_can_recompute_fails(self, tmp_path: Path) -> None:
        source = checkpoint(tmp_path, exact_model(), {"beauty": 1.0})
        assert failed(source) == ["claimed metrics"]
        assert "could not be recomputed: beauty" in checks(source)["claimed metrics"].meaning

    def test_a_collapsed_model_fails(self, tmp_path: Path) -> None:
        source = checkpoint(tmp_path, exact_model(steepness=0.0))
        assert failed(source) == ["hierarchy", "ordered levels"]

    def test_a_model_whose_directions_collapsed_too_fails_thrice(self, tmp_path: Path) -> None:
        model = exact_model(steepness=0.0)
        model.projection.direction_net[-1].bias.data.fill_(1e9)
        assert failed(checkpoint(tmp_path, model)) == ["hierarchy", "ordered levels", "distinct points"]

    def test_levels_as_narrow_as_those_of_an_exact_tree_pass(self, tmp_path: Path) -> None:
        # Radii are tied, and points are not.
        model = exact_model(7, steepness=1e-4)
        radii = evaluate(model).radii
        assert len(np.unique(radii)) < 0.6 * len(radii)
        assert failed(checkpoint(tmp_path, model)) == []

    def test_a_saturated_model_fails_though_its_hierarchy_is_beyond_the_ceiling(self, tmp_path: Path) -> None:
        source = checkpoint(tmp_path, exact_model(steepness=30.0, middle=0.4))
        assert failed(source) == ["hierarchy ceiling"]
        assert checks(source)["hierarchy"].value < -0.9

    def test_a_model_that_forgets_an_operation_fails(self, tmp_path: Path) -> None:
        model = exact_model()
        model.decoder.layers[2].bias.data[0] = 0.9
        assert failed(checkpoint(tmp_path, model)) == ["coverage"]

    def test_a_model_that_is_upside_down_fails(self, tmp_path: Path) -> None:
        assert failed(checkpoint(tmp_path, exact_model(steepness=-2.0))) == ["hierarchy", "ordered levels"]

    def test_radii_that_overflow_fail_and_nothing_passes_as_nan(self, tmp_path: Path) -> None:
        model = exact_model()
        model.encoder.mean.weight.data.fill_(3e38)
        names = failed(checkpoint(tmp_path, model, {"coverage": 1.0}))
        assert names == OF_A_MODEL


class TestFoundation:
    def test_only_coverage_and_claims_are_checked(self, tmp_path: Path) -> None:
        source = checkpoint(tmp_path, exact_model(steepness=0.0), {"coverage": 1.0}, FOUNDATION)
        made = judge_foundation(source, Bounds()).checks
        assert [(check.name, check.passed) for check in made] == [("claimed metrics", True), ("coverage", True)]

    def test_false_claims_of_its_random_projection_fail(self, tmp_path: Path) -> None:
        source = checkpoint(tmp_path, exact_model(steepness=0.0), {"hierarchy": -0.83}, FOUNDATION)
        assert [check.passed for check in judge_foundation(source, Bounds()).checks] == [False, True]

    def test_lost_coverage_fails(self, tmp_path: Path) -> None:
        model = exact_model()
        model.decoder.layers[2].bias.data[0] = 0.9
        assert not judge_foundation(checkpoint(tmp_path, model, trained=FOUNDATION), Bounds()).checks[-1].passed


@pytest.mark.integration
class TestVerify:
    def test_a_good_file_passes_and_reloads_bit_for_bit(self, good: Checkpoint) -> None:
        verdict = verify(good.path, reloads=2)
        assert verdict.passed
        assert verdict.digest == good.digest
        assert verdict.metrics == good.metrics
        assert [check.name for check in verdict.checks] == ["file", "reloads", *OF_A_MODEL]
        assert verdict.checks[1].value == 1
        assert verdict.checks[1].bound == "1 result in 3 processes"
        assert verdict.checkpoint is not None
        assert verdict.evaluation is not None
        assert verdict.evaluation.metrics() == good.metrics

    def test_a_foundation_says_what_does_not_apply(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        checkpoint(tmp_path, exact_model(steepness=0.0), trained=FOUNDATION)
        monkeypatch.chdir(tmp_path)
        verdict = verify("checkpoint.safetensors", reloads=2)
        assert verdict.passed
        assert [check.name for check in verdict.checks] == ["file", "reloads", "claimed metrics", "coverage"]
        assert "projection was never learned" in verdict.scope
        assert "posterior means" in verdict.checks[1].meaning


class TestReloads:
    """What processes find, judged; `test_fresh` starts real ones."""

    SAME: ClassVar = Loaded("f", "m", "r")

    def test_equal_results_pass_and_one_other_fails(self) -> None:
        alike = _reload_check([self.SAME] * 3, "radii")
        other = _reload_check([self.SAME, self.SAME._replace(radii="s")], "radii")
        assert [(check.passed, check.value) for check in (alike, other)] == [(True, 1), (False, 2)]

    def test_a_process_that_could_not_load_fails_with_its_words(self) -> None:
        check = _reload_check([self.SAME, "CheckpointError: damaged"], "radii")
        assert not check.passed
        assert check.meaning == "A fresh process could not load the file: CheckpointError: damaged"

    def test_a_file_that_was_replaced_meanwhile_fails(self) -> None:
        check = _reload_check([self.SAME, self.SAME._replace(file="another")], "radii")
        assert not check.passed
        assert "replaced while it was being verified" in check.meaning

    @pytest.mark.integration
    def test_a_fresh_process_says_why_it_could_not_load(self, tmp_path: Path) -> None:
        with FreshProcess() as process:
            result = _found(process.submit(load_afresh, str(tmp_path / "none")))
        assert isinstance(result, str)
        assert "No such file or directory" in result


class TestResult:
    @pytest.fixture
    def refused(self, tmp_path: Path) -> Verification:
        (tmp_path / "damaged").write_bytes(b"no checkpoint")
        return verify(tmp_path / "damaged")

    def test_a_file_that_does_not_load_fails_with_the_reason(self, refused: Verification) -> None:
        assert not refused.passed
        assert refused.digest is None
        assert [check.name for check in refused.checks] == ["file"]
        assert "it is no safetensors file" in refused.checks[0].meaning

    def test_a_reload_that_has_nothing_to_be_compared_with_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="`reloads` must be at least 1, got 0"):
            verify(tmp_path / "any", reloads=0)

    def test_a_verification_without_checks_is_not_passed(self, tmp_path: Path) -> None:
        assert not Verification(tmp_path, None, "", ()).passed

    def test_it_is_written_as_json_with_each_check_value_bound_and_verdict(
        self, good: Checkpoint, tmp_path: Path
    ) -> None:
        verdict = judged(good)
        verdict.write(tmp_path / "verification.json")
        written = json.loads((tmp_path / "verification.json").read_text())
        assert written == verdict.to_json()
        assert written["passed"] is True
        assert written["checks"][3] == {
            "name": "coverage",
            "value": 1.0,
            "bound": ">= 1",
            "passed": True,
            "meaning": "Share of operations whose trits all come back from the decoder.",
        }

    def test_values_that_are_not_finite_are_written_as_json(self, tmp_path: Path) -> None:
        model = exact_model()
        model.encoder.mean.weight.data.fill_(3e38)
        judged(checkpoint(tmp_path, model)).write(tmp_path / "v.json")
        assert json.loads((tmp_path / "v.json").read_text())["checks"][4]["value"] is None

    def test_a_folder_that_does_not_exist_is_refused(self, refused: Verification, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="was not written: the folder must exist"):
            refused.write(tmp_path / "none" / "verification.json")

    def test_the_table_has_a_row_a_check_and_ends_with_the_verdict(self, good: Checkpoint) -> None:
        lines = judged(good).table().splitlines()
        assert ["coverage", "1", ">=", "1", "passed"] in [line.split() for line in lines]
        assert lines[-1] == "verification passed"

    def test_the_table_explains_what_failed(self, good: Checkpoint) -> None:
        lines = judged(good, Bounds(hierarchy=-0.9)).table().splitlines()
        assert lines[-2:] == ["hierarchy: Spearman correlation of valuation and radius.", "verification failed"]

    def test_markdown_has_verdict_and_reason_first_and_a_row_a_check(self, refused: Verification) -> None:
        lines = refused.markdown().splitlines()
        assert lines[0].startswith("Verification **failed**. The file did not load")
        assert lines[2].startswith("- file: ")
        assert ["file", "refused", "loads", "failed"] in [line.split() for line in lines]
