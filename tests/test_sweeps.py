"""What a sweep trains: phases, a user's grid, cohorts, a search; before anything is trained."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tvae.config.architecture import Architecture
from tvae.config.training import SHARED_SETTINGS, Configuration
from tvae.errors import ConfigurationError
from tvae.sweeps.cohorts import LEAST_WORTH_DIVIDING, cohorts, duration
from tvae.sweeps.grid import grid_axes, grid_trials
from tvae.sweeps.phases import ALL, PHASES, phase_trials
from tvae.sweeps.plan import Plan
from tvae.sweeps.search import ROUND, Search
from tvae.sweeps.stability import stability_metrics
from tvae.sweeps.trial import Trial, merged
from tvae.training.cohort import LARGEST_BATCH


def write(folder: Path, content: Any) -> Path:
    path = folder / "grid.yaml"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def trial(**settings: Any) -> Trial:
    return Trial("grid", "cell", Architecture(), Configuration().replace(**settings))


# Phases


def test_the_reference_ran_55_experiments_in_its_phases() -> None:
    parts = [trial for phase in PHASES for trial in phase_trials(phase, seeds=1)]
    assert list(phase_trials(ALL, seeds=1)) == parts
    assert len(parts) == 55


def test_phases_that_are_seeds_already_do_not_grow_with_seeds() -> None:
    counts = {seeds: Counter(trial.phase for trial in phase_trials(ALL, seeds=seeds)) for seeds in (1, 3)}
    grows = {phase for phase in PHASES if counts[3][phase] > counts[1][phase]}
    assert grows == {"curvature", "loss_weights", "schedule", "learning_rate"}
    assert counts[3]["curvature"] == 3 * counts[1]["curvature"]
    assert (counts[1]["stability"], counts[1]["extended"], counts[1]["loads"]) == (10, 15, 5)


def test_the_two_stability_phases_are_25_different_seeds_of_one_configuration() -> None:
    trials = [*phase_trials("stability"), *phase_trials("extended")]
    assert len({t.configuration.replace(seed=0) for t in trials}) == 1
    assert sorted(t.configuration.seed for t in trials) == list(range(25))


def test_cells_of_a_phase_share_their_seeds_so_that_differences_are_paired() -> None:
    trials = phase_trials("loss_weights", seeds=4, first_seed=7)
    by_cell = {cell: [t.configuration.seed for t in trials if t.cell == cell] for cell in PHASES["loss_weights"]}
    assert set(map(tuple, by_cell.values())) == {(7, 8, 9, 10)}


def test_what_is_asked_for_holds_for_every_trial() -> None:
    found = phase_trials(ALL, asked={"objective": "level_mean", "n_trits": 5, "hidden_dim": 8})
    assert {(t.configuration.objective, t.architecture.n_trits, t.architecture.hidden_dim) for t in found} == {
        ("level_mean", 5, 8)
    }


@pytest.mark.parametrize(("phase", "seeds", "word"), [("nosuch", 1, "nosuch"), ("all", 0, "seeds")])
def test_what_is_no_phase_is_refused(phase: str, seeds: int, word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        phase_trials(phase, seeds=seeds)


# A trial


def test_identity_is_what_is_trained_not_what_it_is_called() -> None:
    one = trial(lr=1e-3)
    assert one.key == Trial("curvature", "other", one.architecture, one.configuration).key
    assert len({one.key, trial(lr=2e-3).key, trial(lr=1e-3, seed=1).key}) == 3
    assert Trial("grid", "cell", Architecture(curvature=1.0), one.configuration).key != one.key
    assert Trial("grid", "cell", one.architecture, one.configuration, "mismatched").key != one.key


def test_trial_survives_json() -> None:
    for one in phase_trials(ALL, seeds=1):
        assert Trial.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_a_trial_that_an_older_version_planned_is_refused_with_the_reason() -> None:
    new = ("centred", "optimizer", "distance_margin")
    stored = trial().to_dict()
    old = stored | {"settings": {k: v for k, v in stored["settings"].items() if k not in new}}
    message = r"`cell` says nothing of centred, distance_margin, optimizer\. Another version of tvae planned it"
    with pytest.raises(ConfigurationError, match=message):
        Trial.from_dict(old)


def test_the_phases_of_the_reference_order_radii_alone_and_by_adam() -> None:
    for one in phase_trials(ALL, seeds=1):
        assert (one.configuration.learns_distances, one.configuration.optimizer) == (False, "adam")
        assert not one.architecture.centred


def test_the_same_configuration_twice_is_trained_once_with_a_note_that_has_both_names() -> None:
    one, two = trial(), Trial("grid", "other cell", Architecture(), Configuration())
    assert merged([one, two]) == ((one,), ("`other cell` is the same as `cell`, and is not trained twice.",))


def test_every_cell_of_the_reference_is_a_configuration_of_its_own() -> None:
    assert merged(phase_trials(ALL)) == (phase_trials(ALL), ())


def test_trials_of_one_shape_may_train_as_one_cohort() -> None:
    base = trial()
    apart = {
        "objective": {"objective": "level_mean"},
        "optimizer": {"optimizer": "adam"},
        "batch_size": {"batch_size": 256},
        "unfreeze": {"unfreeze": "all"},
        "encoder_lr_scale": {"encoder_lr_scale": 0.2},
        "decoder_lr_scale": {"decoder_lr_scale": 0.3},
        "holdout": {"holdout": 0.5},
        "learns_distances": {"distance_weight": 0.0},
        "parts_level_0": {"richness_weight": 1.0},
        "orders_radii": {"hierarchy_weight": 1.0},
    }
    assert list(apart) == list(SHARED_SETTINGS)
    assert [name for name, settings in apart.items() if trial(**settings).shape() == base.shape()] == []
    assert Trial("grid", "c", Architecture(max_radius=0.9), base.configuration).shape() != base.shape()
    like = base.configuration.replace(distance_weight=2.0, distance_margin=0.01)
    assert Trial("grid", "c", Architecture(), like).shape() == base.shape()
    assert Trial("grid", "c", Architecture(latent_dim=8), Configuration()).shape() != base.shape()
    assert Trial("grid", "c", Architecture(curvature=9.0), Configuration(seed=5, lr=1e-4)).shape() == base.shape()


# Cohorts


@pytest.mark.parametrize(("workers", "seeds"), [(1, 1), (3, 3), (8, 5)])
def test_cohorts_hold_every_trial_once_and_one_shape_each(workers: int, seeds: int) -> None:
    trials = phase_trials(ALL, seeds=seeds)
    grouped = cohorts(trials, workers)
    assert sorted(t.key for cohort in grouped for t in cohort) == sorted(t.key for t in trials)
    assert all(len({t.shape() for t in cohort}) == 1 for cohort in grouped)
    assert max(map(len, grouped)) <= LARGEST_BATCH


@pytest.mark.parametrize(("workers", "seeds"), [(2, 1), (4, 3)])
def test_workers_that_take_cohorts_in_their_order_end_together(workers: int, seeds: int) -> None:
    ends = [0] * workers
    for cohort in cohorts(phase_trials(ALL, seeds=seeds), workers):
        ends[ends.index(min(ends))] += duration(cohort)
    assert min(ends) >= 0.9 * max(ends)


def test_a_few_trials_are_not_divided() -> None:
    few = [trial(seed=seed) for seed in range(2 * LEAST_WORTH_DIVIDING - 1)]
    assert len(cohorts(few, 4)) == 1
    assert len(cohorts([*few, trial(seed=99)], 4)) == 2


def test_members_of_like_length_train_together() -> None:
    trials = [trial(seed=seed, epochs=epochs) for seed in range(16) for epochs in (10, 100)]
    assert all(len({t.configuration.epochs for t in cohort}) == 1 for cohort in cohorts(trials, 1)[1:])


def test_no_trials_make_no_cohorts() -> None:
    assert cohorts([], 2) == []


# A grid of the user's


def test_grid_is_the_product_of_its_values(tmp_path: Path) -> None:
    path = write(tmp_path, "base: {epochs: 5}\ngrid:\n  curvature: [0.5, 2]\n  lr: [1e-3, 3e-3]\n")
    trials = grid_trials(path, seeds=2)
    assert len(trials) == 8
    assert [t.cell for t in trials[::2]] == [
        f"curvature={c} lr={lr}" for c in ("0.5", "2") for lr in ("0.001", "0.003")
    ]
    assert {t.configuration.epochs for t in trials} == {5}
    assert {t.configuration.lr for t in trials} == {1e-3, 3e-3}


def test_json_and_named_cells_are_read_too(tmp_path: Path) -> None:
    path = write(tmp_path, {"cells": {"slow": {"lr": 1e-4}, "wide": {"latent_dim": 32, "objective": "level_mean"}}})
    slow, wide = grid_trials(path, seeds=1)
    assert (slow.cell, slow.configuration.lr, slow.configuration.objective) == ("slow", 1e-4, "ranking")
    assert (wide.architecture.latent_dim, wide.configuration.objective) == (32, "level_mean")


MISTAKES = {
    "unknown setting": ({"cells": {"a": {"curvatur": 1}}}, "cell `a`.*did you mean `curvature`"),
    "out of range": ({"grid": {"lr": [1e-3, -1]}}, "cell `lr=-1`.*`lr` must be"),
    "wrong type": ({"cells": {"a": {"epochs": "two"}}}, "cell `a`.*`epochs`"),
    "architecture": ({"cells": {"a": {"max_radius": 2}}}, "cell `a`.*max_radius"),
    "load": ({"cells": {"a": {"load": "half"}}}, "`load` must be one of matched, mismatched"),
    "seed": ({"cells": {"a": {"seed": 3}}}, "`seed` is not a setting of a cell"),
    "elbo": ({"cells": {"a": {"objective": "elbo"}}}, "a sweep learns projections"),
    "no cell": ({"base": {"lr": 1e-3}}, "has no cell"),
    "unknown key": ({"gird": {"lr": [1]}}, "`gird`"),
    "no list": ({"grid": {"lr": 1e-3}}, "`lr` in `grid` must be a list"),
    "empty list": ({"grid": {"lr": []}}, "`lr` in `grid` must be a list"),
    "no mapping": ([1, 2], "holds"),
    "cells no mapping": ({"cells": ["a"]}, "must be names with values"),
    "broken": ("grid: [", "must be YAML or JSON"),
    "key twice": ("grid: {lr: [1e-3]}\ngrid: {lr: [1e-2]}", "twice"),
    "name twice": ({"cells": {"lr=0.001": {"lr": 1}}, "grid": {"lr": [1e-3]}}, "two cells are called `lr=0.001`"),
    "preset": ({"cells": {"a": {"preset": "defalt"}}}, "cell `a`.*did you mean `default`"),
    "too many": ({"grid": {"lr": [i / 1e5 for i in range(1, 5000)]}}, "at most 10000"),
    "too many to list": ({"grid": {f"x{i}": list(range(10)) for i in range(40)}}, "more than 10000 combinations"),
    "aliases": ("base: &a {lr: 1e-3}\ncells: {x: *a}", r"the alias \*a; write out"),
    "python object": ("grid: !!python/object/apply:os.system [echo]", "must be YAML or JSON"),
}


def test_mistake_in_a_grid_is_named(tmp_path: Path) -> None:
    for content, words in MISTAKES.values():
        with pytest.raises(ConfigurationError, match=words):
            grid_trials(write(tmp_path, content))


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cell `a`.*cell `b`") as error:
        grid_trials(write(tmp_path, {"cells": {"a": {"lr": -1}, "b": {"nosuch": 1}, "c": {}}}))
    assert "`c`" not in str(error.value)


def test_a_mistake_that_all_cells_share_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="every cell: `lr` must be") as error:
        grid_trials(write(tmp_path, {"base": {"lr": -1}, "grid": {"epochs": [2, 3, 4]}}))
    assert str(error.value).count("`lr` must be") == 1


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nosuch\.yaml"):
        grid_trials(tmp_path / "nosuch.yaml")


def test_a_grid_takes_presets_and_what_is_asked_for_counts_for_every_cell(tmp_path: Path) -> None:
    path = write(tmp_path, {"base": {"lr": 0.1}, "cells": {"a": {"preset": "stable", "lr": 0.2}, "b": {"n_trits": 4}}})
    asked = {"epochs": 7, "preset": "max_hierarchy"}
    a, b = grid_trials(path, seeds=1, asked=asked)
    assert (a.configuration.scheduler, a.configuration.epochs, a.configuration.lr) == ("cosine", 7, 0.2)
    assert (b.configuration.patience, b.configuration.epochs, b.architecture.n_trits) == (5, 7, 4)
    assert (a.configuration.patience, b.configuration.lr) == (7, 0.1)


def test_cells_that_coincide_are_merged_whatever_they_are_called(tmp_path: Path) -> None:
    path = write(tmp_path, {"cells": {"a": {"lr": 1e-3}, "b": {"lr": 1e-3}}, "grid": {"lr": [1e-3, 1e-3, 2e-3]}})
    trials, notes = merged(grid_trials(path, seeds=2))
    assert [t.cell for t in trials] == ["a", "a", "lr=0.002", "lr=0.002"]
    assert notes == (
        "`b` is the same as `a`, and is not trained twice.",
        "`lr=0.001` is the same as `a`, and is not trained twice.",
    )


def test_different_values_have_different_names(tmp_path: Path) -> None:
    trials = grid_trials(write(tmp_path, {"grid": {"lr": [0.01, 0.0100000001]}}), seeds=1)
    assert [t.cell for t in trials] == ["lr=0.01", "lr=0.0100000001"]


def test_a_number_in_a_grid_is_read_as_yaml_1_2(tmp_path: Path) -> None:
    integers = {"010": 10, "0o17": 15, "0x10": 16, "+7": 7}
    (*found,) = grid_trials(write(tmp_path, f"grid: {{epochs: [{', '.join(integers)}]}}"), seeds=1)
    assert [one.configuration.epochs for one in found] == list(integers.values())
    for written in ("1e-3", "1E-3", ".001", "0.1e-2", "+1.e-3"):
        (one,) = grid_trials(write(tmp_path, f"base: {{lr: {written}}}\ncells: {{one: {{}}}}"), seeds=1)
        assert one.configuration.lr == 1e-3


def test_a_value_that_looks_like_no_number_is_refused_with_its_key(tmp_path: Path) -> None:
    refused = {
        "epochs": ["1:30", "1_000", "0b11", "0o18", "2025-01-01", "'10'", "~"],
        "lr": ["'1e-3'", "1_000.5", ".nan", "infinity"],
        "use_controller": ["yes", "No", "on", "OFF", "y"],
    }
    shown = {"~": "None", ".nan": "nan"}
    for key, values in refused.items():
        for written in values:
            found = shown.get(written, repr(written.strip("'")))
            with pytest.raises(ConfigurationError, match=f"`{key}` must be .*, got {re.escape(found)}"):
                grid_trials(write(tmp_path, f"grid: {{{key}: [{written}]}}"))


def test_what_yaml_1_2_or_a_grid_has_not_is_named(tmp_path: Path) -> None:
    for content, text in (
        ("grid: {epochs: [!!int '010']}", "the tag tag:yaml.org,2002:int, line 1; write the value alone"),
        ("grid: {<<: {epochs: [1]}}", "`<<` in `grid` must be a list of values"),
        ("cells: {one: {lr: 1, lr: 1}}", "lr stands there twice"),
        (f"grid: {{epochs: [{'9' * 5000}]}}", "must be YAML or JSON"),
        ("grid: " + "[" * 1000, "must be YAML or JSON"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            grid_trials(write(tmp_path, content))


def test_a_grid_in_the_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, {"cells": {"one": {"epochs": 3}}})
    assert len(grid_trials(Path("~/grid.yaml"), seeds=2)) == 2


def test_axes_of_a_search_are_checked_like_a_grid(tmp_path: Path) -> None:
    assert grid_axes(write(tmp_path, {"base": {"epochs": 5}, "grid": {"lr": [0.001, 0.01]}}), {"beta": 0.1}) == (
        {"epochs": 5, "beta": 0.1},
        {"lr": [0.001, 0.01]},
    )
    for content, words in (
        ({"base": {"lr": 1e-3}}, "has no `grid`"),
        ({"cells": {"a": {"lr": 1e-3}}}, "has `cells`"),
        ({"grid": {"lr": [1e-3, -1]}}, "cell `lr=-1`: `lr` must be"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            grid_axes(write(tmp_path, content), {})


def test_a_search_may_choose_among_more_than_10_000_combinations(tmp_path: Path) -> None:
    weights = ("hierarchy_weight", "richness_weight", "separation_weight", "beta", "coverage_weight")
    base, axes = grid_axes(write(tmp_path, {"grid": {name: list(range(10)) for name in weights}}), {})
    search = Search(base, axes, trials=40, seeds=1, first_seed=0)
    assert len(search.ask()) == ROUND


# A search


def search(choices: dict[str, list[Any]], **further: Any) -> Search:
    return Search(**({"base": {}, "choices": choices, "trials": 40, "seeds": 1, "first_seed": 3} | further))


def value(cell: str) -> tuple[float, float]:
    return -float(len(cell)), float(sum(map(ord, cell)) % 7)


def finished(searching: Search) -> Search:
    """The search, told of every cell until it asks for no more."""
    while cells := searching.ask():
        searching.told |= {cell: value(cell) for cell in cells}
    return searching


CHOICES: list[dict[str, list[Any]]] = [{}, {"lr": [1e-3, 0.012345678], "epochs": [1, 2], "preset": ["stable"]}]


@pytest.fixture(scope="module", params=CHOICES, ids=["free", "small space"])
def whole(request: pytest.FixtureRequest) -> Search:
    return finished(search(request.param))


def test_a_search_asks_for_as_many_cells_as_it_was_told_to_or_as_there_are_each_once(whole: Search) -> None:
    assert len(whole.told) == whole.size == (4 if whole.choices else 40)


@pytest.mark.parametrize("stopped", [0, 16, 21, 39])
def test_a_search_goes_on_from_what_it_was_told_and_ends_with_as_many(whole: Search, stopped: int) -> None:
    stored = json.loads(json.dumps(Plan(whole).settings()))
    plan = Plan.read(stored, Plan(whole).listed())
    assert plan is not None
    assert isinstance(plan.trials, Search)
    plan.trials.told = dict(list(whole.told.items())[:stopped])
    resumed = finished(plan.trials)
    assert len(resumed.told) == len(whole.told)
    if stopped % ROUND == 0:  # stopped between rounds, it is the same search
        assert list(resumed.told) == list(whole.told)


def test_a_cell_of_a_search_is_what_it_is_called() -> None:
    searching = search({"lr": [0.1, 0.012345678], "preset": ["stable"]}, base={"epochs": 7}, seeds=2)
    one, two = searching.cell_trials("lr=0.012345678 preset=stable")
    assert (one.configuration.lr, one.configuration.epochs, one.configuration.scheduler) == (0.012345678, 7, "cosine")
    assert (one.configuration.seed, two.configuration.seed) == (3, 4)
    (free,) = search({}).cell_trials("lr=0.01234 richness_weight=2")
    assert (free.configuration.lr, free.configuration.richness_weight) == (0.01234, 2.0)


def test_what_is_asked_for_is_not_searched() -> None:
    assert not any("lr=" in cell for cell in search({}, base={"lr": 0.01}).ask())
    with pytest.raises(ConfigurationError, match="must have something to choose"):
        search({}, base={"lr": 1, "hierarchy_weight": 1, "richness_weight": 1, "separation_weight": 1})


def test_search_learns_what_it_is_told() -> None:
    searching = search({"lr": [1e-3, 1e-2, 1e-1], "seed_of_nothing": list(range(100))}, trials=64)
    while cells := searching.ask():
        searching.told |= {cell: (-1.0, 1.0) if "lr=0.01 " in cell else (0.0, 0.0) for cell in cells}
        last = cells
    assert Counter(cell.split()[0] for cell in last)["lr=0.01"] > ROUND // 2


def test_a_search_bears_cells_that_failed() -> None:
    searching = search({}, trials=20)
    searching.told = dict.fromkeys(searching.ask())
    assert len(searching.ask()) == 4


# What seeds come to


def run(best: float, init: float, **further: float) -> dict[str, float]:
    values = {"best_hierarchy": best, "init_hierarchy": init, "best_coverage": 1.0, "best_richness": 0.01}
    return {**values, "best_q": 2.0, "best_epoch": 10.0, **further}


def test_stability_names_mean_spread_best_and_worst() -> None:
    found = stability_metrics(
        [run(-0.8, -0.5), run(-0.83, 0.5, best_richness=0.02), run(-0.82, 0.1, best_coverage=0.9)]
    )
    assert found["best_hierarchy_mean"] == pytest.approx(-2.45 / 3)
    assert found["best_hierarchy_std"] == pytest.approx(0.0152753, rel=1e-4)
    assert (found["best_hierarchy_best"], found["best_hierarchy_worst"]) == (-0.83, -0.8)
    assert (found["coverage_min"], found["coverage_best"]) == (0.9, 1.0)
    assert (found["richness_best"], found["richness_worst"]) == (0.02, 0.01)
    assert found["init_best_correlation_low"] <= found["init_best_correlation"] <= found["init_best_correlation_high"]


def test_one_run_has_no_spread_and_no_correlation_and_none_has_no_metrics() -> None:
    found = stability_metrics([run(-0.8, -0.5)])
    assert found
    assert not [name for name in found if name.endswith("_std") or "correlation" in name]
    assert stability_metrics([]) == {}
