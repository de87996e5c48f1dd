"""Operations that are held out: no loss sees them, every metric has its share of them, and the tree holds for them."""

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from exact_model import exact_model
from scipy.stats import spearmanr
from torch import Tensor

import tvae
from tvae import metrics, poincare, ternary
from tvae.checkpoint import Bounds, Verification, read, save
from tvae.checkpoint.verification import judge_model
from tvae.config.architecture import Architecture
from tvae.config.presets import resolve, resolve_foundation
from tvae.config.training import Configuration
from tvae.errors import CheckpointError
from tvae.metrics.subset import holdout_metrics
from tvae.model import COMPONENTS, TernaryVAE
from tvae.training import Result, train
from tvae.training.sampling import Sampler, seen_below, seen_subtrees
from tvae.training.start import from_checkpoint, from_foundation, from_scratch

FIVE = {"n_trits": 5, "latent_dim": 8, "encoder_hidden": (64,), "decoder_hidden": (32,), "hidden_dim": 32}
GENERATOR = torch.Generator()


def test_the_share_is_held_out_and_operation_0_never() -> None:
    shares = (0.0, 0.1, 0.5, 0.9, 0.999)
    held = [ternary.held_out(share) for share in shares]
    assert [some.sum() for some in held] == [round(share * 3**9) for share in shares]
    assert not any(some[0] for some in held)
    # Of a smaller share are some of those of a larger one.
    assert not any((small & ~large).any() for small, large in pairwise(held))


def test_something_is_always_seen_and_something_not() -> None:
    assert ternary.held_out(0.9999, 2).sum() == 7
    assert ternary.held_out(1e-9, 2).sum() == 1


@pytest.mark.parametrize("weight", [0.0, 5.0], ids=["radii", "distances"])
@pytest.mark.parametrize(("share", "n_trits", "epochs"), [(0.1, 5, 5), (0.98, 5, 5), (0.1, 12, 1)])
def test_no_draw_is_of_what_is_held_out(share: float, n_trits: int, epochs: int, weight: float) -> None:
    """Of five trits an epoch draws all that are seen, of twelve a third."""
    configuration = Configuration(distance_weight=weight, holdout=share)
    draws, held = Sampler(n_trits, configuration, GENERATOR.manual_seed(0)), ternary.held_out(share, n_trits)
    for sample in (draws.epoch() for _ in range(epochs)):
        assert not held[sample.population.numpy()].any()
        assert not held[sample.stratified.numpy()].any()
    if (n_trits, weight) == (5, 0.0):
        assert np.array_equal(np.unique(sample.population.numpy()), np.flatnonzero(~held))
        assert len(sample.population) == 3**5


def test_strata_are_the_levels_of_which_anything_is_seen() -> None:
    draws = Sampler(5, Configuration(batch_size=100, holdout=0.98), GENERATOR.manual_seed(0))
    strata = ternary.valuations(5)[draws.epoch().stratified.numpy()]
    there = np.unique(ternary.valuations(5)[~ternary.held_out(0.98, 5)])
    assert len(there) < 6
    assert (strata == there[:, None]).all()


@pytest.mark.parametrize("levels", [range(5), (1, 2, 4)], ids=["all", "some"])
@pytest.mark.parametrize("share", [0.3, 0.8, 0.95])
def test_where_a_node_has_two_branches_places_differ_first_at_the_bit_of_the_valuation(
    share: float, levels: Sequence[int]
) -> None:
    seen, b = torch.from_numpy(~ternary.held_out(share, 5)), len(levels)
    branches = torch.tensor([level in levels for level in range(5)])
    leaves, parted = seen_subtrees(4, seen_below(seen, 5), branches, GENERATOR.manual_seed(0))
    assert seen[leaves].all()
    of_trees = parted.view(b, 4, 2**b).transpose(0, 1).numpy()
    for tree, branched in zip(leaves.view(4, 2**b).numpy(), of_trees, strict=True):
        valuations = ternary.valuation(tree[:, None] - tree, 5)
        for i in range(2**b):
            for place, level in enumerate(levels):
                others = [j for j in range(2**b) if (i ^ j).bit_length() == b - place]
                if branched[place, i]:
                    assert (valuations[i, others] == level).all()
                else:
                    assert (valuations[i, others] > level).all()


# Metrics


@pytest.fixture(scope="module")
def spread() -> tuple[Tensor, Tensor]:
    """Unit norms, and the chords of directions, of five trits at random."""
    generator = torch.Generator().manual_seed(1)
    unit_norm = 0.9 * torch.rand(243, generator=generator)
    direction = torch.nn.functional.normalize(torch.randn(243, 4, generator=generator), dim=-1)
    return unit_norm, metrics.pair_chords(direction, n_trits=5)


def test_a_subset_is_measured_as_its_definitions_say(spread: tuple[Tensor, Tensor]) -> None:
    unit_norm, chords = spread
    chosen = (np.random.default_rng(0).random(243) < 0.5) | (ternary.valuations(5) > 3)
    found = metrics.measure_norms(*spread, n_trits=5, curvature=2.0, chosen=chosen)
    i, j, apart = metrics.sample_pairs(5)
    norm, levels, first = unit_norm.double().numpy(), ternary.valuations(5), chosen[i.numpy()]
    radius = poincare.radius(unit_norm.double(), curvature=2.0)
    far = poincare.distance_from_chord(radius[i], radius[j], chords.double(), curvature=2.0).numpy()
    by_level = [(radius.numpy()[chosen & (levels == level)], norm[chosen & (levels == level)]) for level in range(6)]
    step = (by_level[0][0].mean() - by_level[-1][0].mean()) / 5
    gaps = [(low.min() - high.max()) / abs(step) for (low, _), (high, _) in pairwise(by_level)]
    assert found.hierarchy == pytest.approx(spearmanr(levels[chosen], norm[chosen]).statistic)
    assert found.distance_fidelity == pytest.approx(spearmanr(apart[first], far[first]).statistic, abs=1e-6)
    assert found.level_gaps == pytest.approx(gaps, rel=1e-5)
    assert found.level_richness == pytest.approx([norms.var() / 6 for _, norms in by_level], rel=1e-9)


def test_levels_of_which_nothing_is_chosen_are_left_out(spread: tuple[Tensor, Tensor]) -> None:
    chosen = np.isin(ternary.valuations(5), (0, 1, 3))
    found = metrics.measure_norms(*spread, n_trits=5, curvature=2.0, chosen=chosen)
    whole = metrics.measure_norms(*spread, n_trits=5, curvature=2.0)
    radii = whole.level_radii
    assert found.level_radii == pytest.approx([radii[level] for level in (0, 1, 3)], rel=1e-5)
    lengths = whole.level_gaps[0] * abs(radii[0] - radii[5]) / 5, found.level_gaps[0] * abs(radii[0] - radii[3]) / 3
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-5)
    assert (len(found.level_gaps), found.level_richness[2], len(found.level_richness)) == (2, 0.0, 6)


def test_operations_of_one_level_have_no_gap_and_levels_at_one_radius_are_not_apart() -> None:
    everywhere, one = (torch.full((243,), 0.5), torch.ones(metrics.N_PAIRS)), np.arange(243) == 1
    alone = metrics.measure_norms(*everywhere, n_trits=5, curvature=2.0, chosen=one)
    assert np.isnan(alone.level_gap)
    together = metrics.measure_norms(*everywhere, n_trits=5, curvature=2.0, chosen=~one)
    assert together.level_gaps == (-1.0,) * 5


def test_a_single_operation_can_be_held_out(tmp_path: Path) -> None:
    checkpoint = read(stored(tmp_path / "c.safetensors", 1e-9))
    found = judge_model(checkpoint, Bounds())
    assert found.metrics["unseen_coverage"] == 1.0
    assert "unseen_level_gap" not in found.metrics
    Verification(checkpoint.path, None, "", found.checks, found.metrics).write(tmp_path / "verdict.json")


def test_seen_and_unseen_make_up_the_metric_of_all() -> None:
    architecture = Architecture(n_trits=3, latent_dim=3, encoder_hidden=(6,), decoder_hidden=(6,), hidden_dim=4)
    model = TernaryVAE(architecture)
    model.initialise(torch.Generator().manual_seed(0))
    whole, found = tvae.evaluate(model), holdout_metrics(model, 0.5)
    unseen = ternary.held_out(0.5, 3).mean()
    for name in ("coverage", "tree_precision", "sibling_recall", "ball_coverage"):
        both = (1 - unseen) * found[f"seen_{name}"] + unseen * found[f"unseen_{name}"]
        assert both == pytest.approx(whole.metrics()[name], abs=1e-6), name
    assert {name.partition("_")[2] for name in found} == whole.metrics().keys()


# Training


def trained(**epochs: int) -> tuple[Result, Result]:
    """Foundation and `default` of five trits, half of the operations held out."""
    asked = {"batch_size": 64, "holdout": 0.5, **epochs}
    architecture, configuration = resolve("default", {**FIVE, **asked})
    foundation = train(from_scratch(architecture, resolve_foundation(architecture, asked)))
    return foundation, train(from_foundation(foundation, configuration))


@pytest.mark.long
def test_what_half_of_the_operations_teach_holds_for_the_other_half() -> None:
    found = holdout_metrics(trained()[1].model, 0.5)
    assert (found["seen_coverage"], found["unseen_coverage"]) == (1.0, 1.0)
    assert found["unseen_tree_precision"] > 0.97
    assert found["unseen_hierarchy"] < -0.8


@pytest.fixture(scope="module")
def half() -> tuple[Result, Result]:
    return trained(epochs=3)


def test_every_epoch_has_coverage_and_hierarchy_of_both(half: tuple[Result, Result]) -> None:
    foundation, result = half
    assert {"seen_coverage", "unseen_coverage"} <= foundation.history[-1].keys()
    last = result.history[-1]
    n_unseen = ternary.held_out(0.5, 5).sum()
    both = (last["unseen_coverage"] * n_unseen + last["seen_coverage"] * (243 - n_unseen)) / 243
    assert last["coverage"] == pytest.approx(both)
    assert {"seen_hierarchy", "unseen_hierarchy"} <= last.keys()


@pytest.mark.parametrize("preset", ["rich", "radii"])
def test_other_presets_train_with_a_holdout(preset: str, half: tuple[Result, Result]) -> None:
    _, configuration = resolve(preset, {**FIVE, "batch_size": 64, "holdout": 0.5, "epochs": 3})
    architecture = resolve(preset, FIVE)[0]
    model = TernaryVAE(architecture)
    model.load_state_dict(half[0].model.state_dict())
    result = train(from_foundation(dataclasses.replace(half[0], model=model), configuration))
    assert result.history[-1]["loss"] < 2 * result.history[1]["loss"]


def test_fewer_operations_are_drawn_more_often() -> None:
    epochs = {share: resolve("default", {"holdout": share})[1].epochs for share in (0.0, 0.5, 0.9)}
    assert epochs == {0.0: 16, 0.5: 24, 0.9: 31}
    assert resolve("default", {"holdout": 0.5, "epochs": 3})[1].epochs == 3


def stored(path: Path, holdout: float) -> Path:
    configuration = {"holdout": holdout} if holdout else {}
    save(path, exact_model(3), trained=COMPONENTS, training={"configuration": configuration}, metrics={})
    return path


def test_verification_tells_seen_and_unseen_apart(tmp_path: Path) -> None:
    held, whole = (read(stored(tmp_path / f"{share}.safetensors", share)) for share in (0.5, 0.0))
    assert held.holdout == 0.5
    assert judge_model(held, Bounds()).metrics["unseen_coverage"] == 1.0
    assert "unseen_coverage" not in judge_model(whole, Bounds()).metrics


def test_a_checkpoint_that_has_seen_what_is_held_out_is_refused(tmp_path: Path) -> None:
    checkpoint = read(stored(tmp_path / "c.safetensors", 0.0))
    with pytest.raises(CheckpointError, match=r"`holdout` is 0 in the file, 0\.5 here; set it to 0, or start"):
        from_checkpoint(checkpoint, checkpoint.architecture, Configuration(holdout=0.5))
    held = read(stored(tmp_path / "d.safetensors", 0.5))
    from_checkpoint(held, held.architecture, Configuration(holdout=0.5))
    from_checkpoint(held, held.architecture, Configuration())
