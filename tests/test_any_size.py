"""Spaces of other sizes than 3^9: what is drawn where operations cannot be listed, and what is measured of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from exact_model import exact_model

import tvae
from tvae import metrics, served, serving, ternary
from tvae.checkpoint import Bounds, read, save, verify
from tvae.checkpoint.verification import judge_foundation
from tvae.config.architecture import MOST_LISTED, Architecture
from tvae.config.presets import resolve, resolve_foundation
from tvae.config.training import Configuration
from tvae.embedding.codebook import codebook
from tvae.embedding.export import embeddings
from tvae.errors import ConfigurationError, OperationError
from tvae.metrics import Evaluation
from tvae.metrics.drawn import drawn_tree
from tvae.metrics.evaluation import interval
from tvae.metrics.population import population, sample_partners
from tvae.metrics.tree import sibling_hits, tree_precisions, tree_sample
from tvae.model import TernaryVAE
from tvae.tracking.description import settings_table
from tvae.training.sampling import Sampler, binary_subtrees

# Three inputs.
MANY = 27
NARROW = {"encoder_hidden": (32,), "decoder_hidden": (32,), "hidden_dim": 16}


def drawn_model(n_trits: int, seed: int = 0) -> TernaryVAE:
    model = TernaryVAE(Architecture(n_trits=n_trits, latent_dim=max(16, n_trits), **NARROW))
    model.initialise(torch.Generator().manual_seed(seed))
    return model


def test_the_operations_of_a_level_are_those_of_that_valuation() -> None:
    for level, size in enumerate(ternary.level_sizes(6)):
        assert np.array_equal(
            ternary.of_level(level, np.arange(size), 6), np.flatnonzero(ternary.valuations(6) == level)
        )


@pytest.mark.parametrize("n_trits", [MOST_LISTED + 1, MANY, 33])
def test_what_stands_for_a_space_has_every_level(n_trits: int) -> None:
    some = population(n_trits)
    assert ((some.index >= 0) & (some.index < 3**n_trits)).all()
    assert np.array_equal(some.valuations, ternary.valuation(some.index, n_trits))
    assert (some.level_sizes == np.bincount(some.valuations, minlength=n_trits + 1)).all()
    assert (some.level_sizes >= np.minimum(ternary.level_sizes(n_trits), 243)).all()
    even = some.index[: some.n_even]
    digits = ternary.to_trits(even, n_trits)
    # Three standard errors of a share of a third, of each trit alike.
    assert np.abs((digits == 0).mean(0) - 1 / 3).max() < 3.5 * np.sqrt(2 / 9 / len(even))


def test_a_space_that_can_be_listed_is_measured_whole() -> None:
    assert np.array_equal(population(7).index, np.arange(3**7))
    assert population(7).n_even == 3**7


@pytest.mark.parametrize("n_trits", [1, 9, 12])
def test_partners_have_the_valuation_asked_for(n_trits: int) -> None:
    i, partners = sample_partners(n_trits)
    for k, j in enumerate(partners):
        assert (ternary.valuation((i - j).numpy(), n_trits) == k).all()
    assert np.array_equal(i.numpy() % 3 ** min(n_trits, 10), np.arange(len(i)))


@pytest.mark.parametrize("call", [ternary.operations, ternary.valuations, lambda n: ternary.held_out(0.1, n)])
def test_a_list_that_is_too_long_is_refused(call: Callable[[int], object]) -> None:
    with pytest.raises(OperationError, match=r"up to n_trits = 13 \(1,594,323\), got n_trits = 14"):
        call(14)


def places_apart(size: int) -> np.ndarray:
    """The first bit at which two places differ, counted from the most significant: shape `(size, size)`."""
    place = np.arange(size)
    return size.bit_length() - 1 - np.ceil(np.log2((place[:, None] ^ place) + 1)).astype(int)


def test_subtrees_branch_at_the_levels_asked_for() -> None:
    branches = torch.tensor([False, True, True, False, False, True, False])
    apart, levels = ~np.eye(8, dtype=bool), np.flatnonzero(branches.numpy())
    for subtree in binary_subtrees(50, branches, torch.Generator().manual_seed(1)).numpy():
        valuations = ternary.valuation(subtree[:, None] - subtree, 7)
        assert (valuations[apart] == levels[places_apart(8)[apart]]).all()


@pytest.mark.parametrize(("n_trits", "weight"), [(4, 0.0), (9, 5.0), (12, 0.0), (MANY, 5.0)])
def test_an_epoch_draws_as_many_operations_as_it_says(n_trits: int, weight: float) -> None:
    configuration = Configuration(distance_weight=weight)
    sampler = Sampler(n_trits, configuration, torch.Generator().manual_seed(0))
    sample = sampler.epoch()
    draws = configuration.operations_per_epoch(n_trits)
    assert draws == 3 ** min(n_trits, 11)
    assert abs(len(sample.population) - draws) < configuration.operations_per_step(n_trits)
    assert sample.stratified.shape == (sampler.steps, n_trits + 1, sampler.per_level)
    for level in range(n_trits + 1):
        assert (ternary.valuation(sample.stratified[:, level].numpy(), n_trits) == level).all()
    if weight:
        # The first subtree of each step tells at which levels it branches.
        size = 2 ** configuration.branchings(n_trits)
        for step, down in enumerate(sample.steps_down):
            subtree = sample.population[step * configuration.operations_per_step(n_trits) :][:size].numpy()
            levels = np.unique(ternary.valuation(subtree[1:] - subtree[0], n_trits))
            assert np.array_equal(down, np.diff(levels, append=n_trits))


def test_against_all_partners_tree_precision_is_that_of_the_list() -> None:
    """Of four trits no operation has more than 54 partners of any valuation."""
    model = drawn_model(4)
    found, embedding = drawn_tree(model, 81), metrics.embed(model)
    exact = tree_precisions(embedding, np.arange(81), n_trits=4, curvature=2.0, dtype=torch.float64)
    assert np.allclose(found.precisions, exact, atol=1e-9)
    assert found.sibling_hits.mean() == pytest.approx(metrics.sibling_recall(embedding, n_trits=4, curvature=2.0))


def test_from_eleven_trits_on_a_sample_is_looked_at() -> None:
    assert len(tree_sample(10)) == len(tree_sample(11)) == 1024
    assert len(tree_sample(13)) == 1024 // 9
    model = drawn_model(11)
    assert len(sibling_hits(metrics.embed(model), n_trits=11, curvature=2.0)) == 3**7


def test_an_interval_holds_the_share_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for share in (0.5, 0.99):
        ends = np.array([interval(float(rng.binomial(400, share)) / 400, 400) for _ in range(2000)])
        held = float(((ends[:, 0] <= share) & (share <= ends[:, 1])).mean())
        assert 0.935 < held < 0.985
    assert interval(1.0, 1000)[0] == pytest.approx(0.99617, abs=1e-5)


@pytest.fixture(scope="module")
def measured() -> tuple[TernaryVAE, Evaluation]:
    """A model whose decoder says operation 0 to everything, against a ninth of the anchors."""
    model = drawn_model(MANY)
    last = model.decoder.layers[-1]
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        last.weight.zero_()  # type: ignore[union-attr, operator]
        last.bias.copy_(torch.tensor([1.0, 0, 0]).repeat(MANY))  # type: ignore[union-attr, operator]
        patch.setattr("tvae.metrics.evaluation.drawn_tree", lambda model: drawn_tree(model, 81))
        return model, tvae.evaluate(model)


def test_metrics_of_an_estimate_have_their_interval(measured: tuple[TernaryVAE, Evaluation]) -> None:
    _, evaluation = measured
    assert set(evaluation.intervals) == {"coverage", "hierarchy", "tree_precision", "sibling_recall", "ball_coverage"}
    for name, (low, high) in evaluation.intervals.items():
        assert low <= evaluation.metrics()[name] <= high
        assert evaluation.metrics()[f"{name}_low"] == low
    assert len(evaluation.radii) == len(population(MANY))
    assert not tvae.evaluate(exact_model(6)).intervals


def test_the_network_answers_as_its_table_does() -> None:
    model, some = exact_model(6), np.array([0, 5, 728])
    network, table = serving.NetworkAnswers(model), serving.answers(model)
    assert network.records(some, embedding=True) == table.records(some, embedding=True)
    assert network.records(some, embedding=False) == table.records(some, embedding=False)


def test_an_evaluation_encodes_each_operation_once() -> None:
    model, encoded = TernaryVAE(Architecture(n_trits=5, centred=False, **NARROW)), []
    model.initialise(torch.Generator().manual_seed(0))
    model.encoder.register_forward_hook(lambda _, given, __: encoded.append(len(given[0])))
    tvae.evaluate(model)
    assert sum(encoded) == 3**5


@pytest.mark.long
def test_what_cannot_be_listed_is_saved_and_verified(tmp_path: Path) -> None:
    model = drawn_model(MANY)
    evaluation = tvae.evaluate(model)
    claims = {name: evaluation.metrics()[name] for name in ("coverage", "hierarchy", "richness", "distance_fidelity")}
    save(tmp_path / "m.safetensors", model, trained=("encoder", "decoder", "projection"), training={}, metrics=claims)
    verdict = {check.name: check.passed for check in verify(tmp_path / "m.safetensors", reloads=1).checks}
    assert verdict["claimed metrics"]
    assert verdict["reloads"]
    assert verdict["inside the ball"]
    assert not verdict["coverage"]


def test_what_cannot_be_listed_is_answered() -> None:
    (last,) = serving.NetworkAnswers(drawn_model(MANY)).records(np.array([3**MANY - 1]), embedding=True)
    assert last["valuation"] == 0
    assert len(last["embedding"]) == MANY


@pytest.mark.parametrize("n_trits", [MANY, 33])
def test_a_request_names_the_operation_that_is_answered(n_trits: int) -> None:
    index = np.random.default_rng(0).integers(3**n_trits, size=1000)
    assert np.array_equal(served.to_indices(index, n_trits), index)
    assert np.array_equal(served.to_indices(ternary.to_trits(index, n_trits), n_trits), index)
    assert np.array_equal(served.to_indices(ternary.to_trits(index, n_trits).tolist(), n_trits), index)


def test_a_foundation_of_what_is_drawn_is_what_it_claims(
    tmp_path: Path, measured: tuple[TernaryVAE, Evaluation]
) -> None:
    """Operation 0, which its decoder says, is there for its level alone, and counts for no other."""
    model, evaluation = measured
    assert evaluation.coverage == 0
    assert metrics.reproduced(model, metrics.posterior_mean(model)).any()
    save(tmp_path / "f.safetensors", model, trained=("encoder", "decoder"), training={}, metrics={"coverage": 0.0})
    checks = judge_foundation(read(tmp_path / "f.safetensors"), Bounds()).checks
    assert {check.name: check.passed for check in checks} == {"claimed metrics": True, "coverage": False}


@pytest.mark.parametrize("call", [codebook, embeddings])
def test_what_needs_a_list_says_so(call: Callable[[TernaryVAE], object]) -> None:
    with pytest.raises(OperationError, match="up to n_trits = 13"):
        call(drawn_model(14))


def test_a_long_operation_has_a_wider_net_unless_another_is_asked_for() -> None:
    architecture, configuration = resolve("default", {"n_trits": MANY, "lr": 0.02})
    assert architecture.latent_dim == 32
    assert configuration.lr == 0.02
    assert configuration.distance_margin * MANY == pytest.approx(Configuration().distance_margin * 9)
    assert resolve("default", {"n_trits": MANY, "latent_dim": 16})[0].latent_dim == 16
    assert resolve("default", {"n_trits": 13})[0] == Architecture(n_trits=13)


@pytest.mark.parametrize("n_trits", [MOST_LISTED + 1, MANY, 33])
@pytest.mark.parametrize(("preset", "epochs"), [("default", 16), ("rich", 20), ("radii", 25)])
def test_a_longer_operation_trains_for_the_epochs_it_was_tuned_for(preset: str, epochs: int, n_trits: int) -> None:
    architecture, configuration = resolve(preset, {"n_trits": n_trits})
    foundation = resolve_foundation(architecture, {})
    assert (configuration.epochs, configuration.patience) == (epochs, epochs)
    assert (foundation.epochs, foundation.patience) == (10, 10)
    assert configuration.operations_per_epoch(n_trits) == foundation.operations_per_epoch(n_trits) == 177_147
    _, larger = resolve(preset, {"n_trits": n_trits, "batch_size": 4 * configuration.batch_size})
    steps = epochs * configuration.steps_per_epoch(n_trits)
    assert 0 <= larger.epochs * larger.steps_per_epoch(n_trits) - steps < larger.steps_per_epoch(n_trits)


@pytest.mark.parametrize(("n_trits", "of_net"), [(9, "default"), (MANY, "n_trits")])
def test_a_run_says_who_chose_each_setting(n_trits: int, of_net: str) -> None:
    chosen = {
        "n_trits": "default" if n_trits == 9 else "the user",
        "batch_size": "the user",
        "epochs": "preset rich",
        "hidden_dim": of_net,
        "encoder_hidden": of_net,
        "lr": of_net,
        "scheduler": "default",
    }
    defaults = dict.fromkeys(chosen, "auto") | {"n_trits": 9, "promote": "auto"}
    asked = {"preset": "rich", **defaults, "n_trits": n_trits, "batch_size": 512}
    architecture, configuration = resolve("rich", {name: asked[name] for name in chosen})
    values = architecture.to_dict() | configuration.to_dict()
    rows = settings_table(asked, {name: values.get(name, "auto") for name in asked}, defaults).splitlines()[4:-1]
    found = {row.split()[0]: row for row in rows}
    assert found.keys() == chosen.keys()
    assert all(found[name].endswith(f" {origin}") for name, origin in chosen.items())
    assert all(str(values[name]) in row for name, row in found.items())
    by_user = [row.endswith("the user") for row in rows]
    assert by_user == sorted(by_user, reverse=True)


def test_a_foundation_has_its_rate_from_no_size() -> None:
    architecture = Architecture(n_trits=MANY)
    rate = resolve_foundation(architecture, {}).lr
    asked = {"n_trits": MANY, "lr": "auto"}
    rows = settings_table(asked, {"n_trits": MANY, "lr": rate}, {"n_trits": 9, "lr": "auto"}).splitlines()
    assert any(row.split() == ["lr", str(rate), "default"] for row in rows)


def test_nothing_is_held_out_of_what_is_drawn() -> None:
    with pytest.raises(ConfigurationError, match="nearly all of them are never seen"):
        resolve("default", {"n_trits": MANY, "holdout": 0.1})
    with pytest.raises(ConfigurationError, match="nearly all of them are never seen"):
        resolve_foundation(Architecture(n_trits=MANY), {"holdout": 0.1})
