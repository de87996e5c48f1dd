"""What a sweep trains: phases, a user's grid, cohorts, a search; before anything is trained."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tvae.architecture import Architecture
from tvae.configuration import SHARED_SETTINGS, Configuration
from tvae.errors import ConfigurationError
from tvae.experiments.foundations import foundation_configuration
from tvae.experiments.grid import grid_axes, grid_trials
from tvae.experiments.phases import ALL, PHASES, phase_trials
from tvae.experiments.planning import LEAST_WORTH_DIVIDING, cohorts, duration
from tvae.experiments.search import Search
from tvae.experiments.stability import stability_metrics
from tvae.experiments.trial import Trial, require_distinct
from tvae.training.cohort import LARGEST_BATCH


def write(folder: Path, content: Any) -> Path:
    path = folder / "grid.yaml"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def trial(**settings: Any) -> Trial:
    return Trial("grid", "cell", Architecture(), Configuration().replace(**settings))


# Phases


def test_the_reference_ran_55_experiments() -> None:
    assert len(phase_trials(ALL, seeds=1)) == 55


def test_all_is_the_sum_of_the_phases() -> None:
    parts = [trial for phase in PHASES for trial in phase_trials(phase, seeds=2)]
    assert list(phase_trials(ALL, seeds=2)) == parts


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


def test_the_objective_holds_for_every_trial() -> None:
    assert {t.configuration.objective for t in phase_trials(ALL, objective="level_mean")} == {"level_mean"}


@pytest.mark.parametrize(
    ("settings", "word"), [({"phase": "nosuch"}, "nosuch"), ({"phase": "all", "seeds": 0}, "seeds")]
)
def test_what_is_no_phase_is_refused(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        phase_trials(settings.pop("phase"), **settings)


# A trial


def test_identity_is_what_is_trained_not_what_it_is_called() -> None:
    one = trial(lr=1e-3)
    assert one.key == Trial("curvature", "other", one.architecture, one.configuration).key
    assert len({one.key, trial(lr=2e-3).key, trial(lr=1e-3, seed=1).key}) == 3
    assert Trial("grid", "cell", Architecture(curvature=1.0), one.configuration).key != one.key
    assert Trial("grid", "cell", one.architecture, one.configuration, "mismatched").key != one.key


def test_identity_is_the_same_in_every_process() -> None:
    # A sweep that goes on finds its trials by these digits: a change of them makes it start again.
    assert trial().key == trial().key
    assert len(trial().key) == 16


def test_trial_survives_json() -> None:
    for one in phase_trials(ALL, seeds=1):
        assert Trial.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_the_same_configuration_twice_is_refused_with_both_names() -> None:
    one, two = trial(), Trial("grid", "other cell", Architecture(), Configuration())
    with pytest.raises(ConfigurationError, match=r"`cell`.*`other cell`"):
        require_distinct([one, two])


def test_trials_of_one_shape_may_train_as_one_cohort() -> None:
    base = trial()
    apart = dict(zip(SHARED_SETTINGS, ("level_mean", 256, "all", 0.2, 0.3), strict=True))
    for name, value in apart.items():
        assert trial(**{name: value}).shape() != base.shape()
    assert trial(distance_weight=1.0).shape() != base.shape()
    assert Trial("grid", "c", Architecture(latent_dim=8), Configuration()).shape() != base.shape()
    assert Trial("grid", "c", Architecture(curvature=9.0), Configuration(seed=5, lr=1e-4)).shape() == base.shape()


# Cohorts


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_cohorts_hold_every_trial_once_and_one_shape_each(workers: int, seeds: int) -> None:
    trials = phase_trials(ALL, seeds=seeds)
    grouped = cohorts(trials, workers)
    assert sorted(t.key for cohort in grouped for t in cohort) == sorted(t.key for t in trials)
    assert all(len({t.shape() for t in cohort}) == 1 for cohort in grouped)
    assert max(map(len, grouped)) <= LARGEST_BATCH


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("seeds", [1, 3])
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
    slow, wide = grid_trials(path, seeds=1, objective="ranking")
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
    "value twice": ({"grid": {"lr": [1e-3, 1e-3]}}, "two cells"),
    "same cell": ({"cells": {"a": {"lr": 1e-3}, "b": {"lr": 1e-3}}}, "`a`.*`b`"),
    "too many": ({"grid": {"lr": [i / 1e5 for i in range(1, 5000)]}}, "at most 10000"),
    "too many to list": ({"grid": {f"x{i}": list(range(10)) for i in range(40)}}, "more than 10000 combinations"),
    "aliases": ("base: &a {lr: 1e-3}\ncells: {x: *a}", r"the alias \*a; write out"),
    "python object": ("grid: !!python/object/apply:os.system [echo]", "must be YAML or JSON"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_a_grid_is_named(tmp_path: Path, mistake: str) -> None:
    content, words = MISTAKES[mistake]
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


@pytest.mark.parametrize(
    ("written", "read"),
    [("010", 10), ("0o17", 15), ("0x10", 16), ("+7", 7)],
)
def test_an_integer_in_a_grid_is_read_as_yaml_1_2(tmp_path: Path, written: str, read: int) -> None:
    (found,) = grid_trials(write(tmp_path, f"grid: {{epochs: [{written}]}}"), seeds=1)
    assert found.configuration.epochs == read


@pytest.mark.parametrize("written", ["1e-3", "1E-3", ".001", "0.1e-2", "+1.e-3"])
def test_a_number_in_a_grid_is_read_as_yaml_1_2(tmp_path: Path, written: str) -> None:
    (found,) = grid_trials(write(tmp_path, f"base: {{lr: {written}}}\ncells: {{one: {{}}}}"), seeds=1)
    assert found.configuration.lr == 1e-3


@pytest.mark.parametrize(
    ("key", "written", "found"),
    [
        ("epochs", "1:30", "'1:30'"),
        ("epochs", "1_000", "'1_000'"),
        ("epochs", "0b11", "'0b11'"),
        ("epochs", "0o18", "'0o18'"),
        ("epochs", "2025-01-01", "'2025-01-01'"),
        ("epochs", "'10'", "'10'"),
        ("epochs", "~", "None"),
        ("lr", "'1e-3'", "'1e-3'"),
        ("lr", "1_000.5", "'1_000.5'"),
        ("lr", ".nan", "nan"),
        ("lr", "infinity", "'infinity'"),
        *(("use_controller", word, repr(word)) for word in ("yes", "No", "on", "OFF", "y")),
    ],
)
def test_a_value_that_looks_like_no_number_is_refused_with_its_key(
    tmp_path: Path, key: str, written: str, found: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"`{key}` must be .*, got {re.escape(found)}"):
        grid_trials(write(tmp_path, f"grid: {{{key}: [{written}]}}"))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("grid: {epochs: [!!int '010']}", "the tag tag:yaml.org,2002:int, line 1; write the value alone"),
        ("grid: {<<: {epochs: [1]}}", "`<<` in `grid` must be a list of values"),
        ("base: &a {epochs: 1}\ncells: {one: *a}", r"the alias \*a; write out what it stands for"),
        ("cells: {one: {lr: 1, lr: 1}}", "lr stands there twice"),
        (f"grid: {{epochs: [{'9' * 5000}]}}", "must be YAML or JSON"),
        ("grid: " + "[" * 5000, "must be YAML or JSON"),
    ],
    ids=["tag", "merge", "alias", "twice", "huge", "deep"],
)
def test_what_yaml_1_2_or_a_grid_has_not_is_named(tmp_path: Path, content: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        grid_trials(write(tmp_path, content))


def test_a_grid_in_the_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, {"cells": {"one": {"epochs": 3}}})
    assert len(grid_trials(Path("~/grid.yaml"), seeds=2)) == 2


def test_axes_of_a_search_are_checked_like_a_grid(tmp_path: Path) -> None:
    assert grid_axes(write(tmp_path, {"base": {"epochs": 5}, "grid": {"lr": [0.001, 0.01]}})) == (
        {"epochs": 5},
        {"lr": [0.001, 0.01]},
    )
    with pytest.raises(ConfigurationError, match="has no `grid`"):
        grid_axes(write(tmp_path, {"cells": {"a": {"lr": 1e-3}}}))
    with pytest.raises(ConfigurationError, match="`lr` must be"):
        grid_axes(write(tmp_path, {"grid": {"lr": [-1]}}))


# A search


def test_search_repeats_itself_when_it_is_told_the_same() -> None:
    def played() -> list[str]:
        search = Search({}, {"objective": "ranking"}, seeds=1, first_seed=3)
        keys = []
        for _ in range(2):
            suggestions = search.ask(16)
            keys += [trial.key for trials in suggestions for trial in trials]
            search.tell([(-trials[0].configuration.lr, 0.01) for trials in suggestions])
        return keys

    assert played() == played()


def test_search_learns_what_it_is_told() -> None:
    search = Search({"lr": [1e-3, 1e-2, 1e-1]}, {}, seeds=1, first_seed=0)
    for _ in range(4):
        suggestions = search.ask(16)
        rates = [trials[0].configuration.lr for trials in suggestions]
        search.tell([(-1.0, 1.0) if lr == 1e-2 else (0.0, 0.0) for lr in rates])
    assert Counter(rates)[1e-2] > 8


def test_a_search_bears_suggestions_that_failed() -> None:
    search = Search({}, {}, seeds=2, first_seed=0)
    assert [len(trials) for trials in search.ask(3)] == [2, 2, 2]
    search.tell([None, (-0.8, 0.01), None])
    assert len(search.ask(2)) == 2


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
    assert (
        -1
        <= found["init_best_correlation_low"]
        <= found["init_best_correlation"]
        <= found["init_best_correlation_high"]
    )


def test_one_run_has_no_spread_and_no_correlation() -> None:
    found = stability_metrics([run(-0.8, -0.5)])
    assert not [name for name in found if name.endswith("_std") or "correlation" in name]


def test_no_run_has_no_metrics() -> None:
    assert stability_metrics([]) == {}


# Foundations


def test_narrow_latent_gets_a_training_of_its_own() -> None:
    narrow, wide = (foundation_configuration(Architecture(latent_dim=d), seed=3) for d in (8, 9))
    assert (narrow.seed, wide.seed) == (3, 3)
    assert narrow.epochs > wide.epochs
