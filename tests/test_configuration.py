"""What a training's settings accept, refuse, and say of themselves."""

import dataclasses
import json
import math
import re
from typing import Any

import pytest

from tvae.config.training import FOUNDATION, OBJECTIVES, OPTIMIZERS, SCHEDULERS, UNFREEZE, Configuration
from tvae.errors import ConfigurationError, TVAEError

NAN, INF = math.nan, math.inf

OTHER = Configuration(
    objective="level_mean",
    optimizer="adam",
    lr=1e-3,
    epochs=7,
    batch_size=64,
    patience=3,
    scheduler="cosine",
    seed=11,
    distance_weight=5.5,
    distance_margin=0.02,
    hierarchy_weight=1.5,
    coverage_weight=2.5,
    richness_weight=3.5,
    separation_weight=4.5,
    beta=0.5,
    unfreeze="all",
    encoder_lr_scale=0.2,
    decoder_lr_scale=0.3,
    holdout=0.5,
    initial_hierarchy="positive",
)

WORDS = ["", "Ranking", "cosine ", "auto", None, 1, True, NAN, ("ranking",), ["none"]]
COUNTS = [0, -1, 100_001, True, False, 25.0, "25", None, NAN, INF, 10**400]
RATES = [0, 0.0, -1.0, 10.1, 11, True, False, "0.1", None, NAN, INF, -INF, 10**400, -(10**400), 1 + 0j]
WEIGHTS = [-1e-9, -1, 1_000_001, 1.1e6, True, False, "5", None, NAN, INF, -INF, 10**400, -(10**400), 1 + 0j]

REFUSED = {
    "objective": [*WORDS, "hierarchy"],
    "optimizer": [*WORDS, "Muon"],
    "lr": RATES,
    "epochs": COUNTS,
    "batch_size": COUNTS,
    "patience": COUNTS,
    "scheduler": WORDS,
    "seed": [-1, 2**32, True, False, 0.0, "0", None, NAN, 10**400],
    "distance_weight": WEIGHTS,
    "distance_margin": [0, 0.0, -0.04, 0.1000001, 1, True, False, "0.04", None, NAN, INF, 10**400],
    "hierarchy_weight": WEIGHTS,
    "coverage_weight": WEIGHTS,
    "richness_weight": WEIGHTS,
    "separation_weight": WEIGHTS,
    "beta": WEIGHTS,
    "unfreeze": [*WORDS, "decoder"],
    "encoder_lr_scale": RATES,
    "decoder_lr_scale": RATES,
    "holdout": [-0.1, 1, 1.0, 1.1, True, False, "0.1", None, NAN, INF, 10**400],
    "initial_hierarchy": [*WORDS, "zero"],
}

ACCEPTED: dict[str, list[Any]] = {
    "objective": list(OBJECTIVES),
    "optimizer": list(OPTIMIZERS),
    "lr": [5e-324, 10, 10.0],
    "epochs": [1, 100_000],
    "batch_size": [1, 100_000],
    "patience": [1, 100_000],
    "scheduler": list(SCHEDULERS),
    "seed": [0, 2**32 - 1],
    "distance_weight": [0, 0.0, 1e6],
    "distance_margin": [5e-324, 0.1],
    "hierarchy_weight": [0, 0.0, 1e6],
    "coverage_weight": [0, 0.0, 1e6],
    "richness_weight": [0, 0.0, 1e6],
    "separation_weight": [0, 0.0, 1e6],
    "beta": [0, 0.0, 1e6],
    "unfreeze": list(UNFREEZE),
    "encoder_lr_scale": [5e-324, 10],
    "decoder_lr_scale": [5e-324, 10],
    "holdout": [0, 0.0, 0.999],
    "initial_hierarchy": ["negative", "any", "positive"],
}


def test_the_words_are_those_of_the_design() -> None:
    assert OBJECTIVES == ("ranking", "level_mean", "elbo")
    assert SCHEDULERS == ("constant", "cosine", "step", "plateau", "one_cycle", "linear")
    assert OPTIMIZERS == ("muon", "adam")
    assert UNFREEZE == ("none", "encoder", "all")


def found(field: str, value: Any) -> str:
    """Return how a value is refused; nothing where it is accepted as it is."""
    try:
        return "" if getattr(Configuration(**{field: value}), field) == value else "changed"
    except ConfigurationError as refusal:
        return str(refusal)


def test_values_in_range_are_accepted_and_all_others_refused() -> None:
    refused = {(name, repr(value)): found(name, value) for name, values in REFUSED.items() for value in values}
    sentence = re.compile(r"^`(\w+)` must be .+, got .+\.$")
    assert [case for case, text in refused.items() if sentence.findall(text) != [case[0]]] == []
    accepted = [(name, value) for name, values in ACCEPTED.items() for value in values if found(name, value) != ""]
    assert accepted == []


def test_every_setting_is_put_to_the_test() -> None:
    names = [field.name for field in dataclasses.fields(Configuration)]
    assert list(REFUSED) == list(ACCEPTED) == names


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("objective", "rank", "`objective` must be one of ranking, level_mean, elbo, got 'rank'."),
        ("lr", -1.0, "`lr` must be a number in (0, 10], got -1.0."),
        ("epochs", True, "`epochs` must be an integer in 1 … 100000, got True."),
        ("beta", NAN, "`beta` must be a number in 0 … 1e6, got nan."),
        ("seed", "0", "`seed` must be an integer in 0 … 4294967295, got '0'."),
    ],
)
def test_refusal_says_what_is_allowed_and_quotes_what_it_found(field: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        Configuration(**{field: value})
    assert str(refusal.value) == message


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        Configuration(**{name: values[0] for name, values in REFUSED.items()})
    assert [name for name in REFUSED if f"`{name}` must be" not in str(refusal.value)] == []


@pytest.mark.parametrize("family", [TVAEError, ValueError])
def test_refusal_can_be_caught_as(family: type[Exception]) -> None:
    with pytest.raises(family, match="`epochs` must be"):
        Configuration(epochs=0)


def test_integers_are_read_as_numbers() -> None:
    below_1 = ("distance_margin", "holdout")
    numbers = [k for k, v in OTHER.to_dict().items() if isinstance(v, float) and k not in below_1]
    assert {type(getattr(Configuration(**{field: 1}), field)) for field in numbers} == {float}


def test_settings_cannot_be_changed() -> None:
    for field in REFUSED:
        with pytest.raises(dataclasses.FrozenInstanceError, match=field):
            setattr(Configuration(), field, getattr(OTHER, field))


def test_replace_changes_the_named_setting_alone() -> None:
    before, other = Configuration().to_dict(), OTHER.to_dict()
    found = {field: Configuration().replace(**{field: other[field]}).to_dict() for field in REFUSED}
    assert found == {field: before | {field: other[field]} for field in REFUSED}
    assert [field for field in REFUSED if before[field] == other[field]] == []


def test_replace_leaves_the_original_as_it_is() -> None:
    before = Configuration()
    before.replace(lr=1.0)
    assert before == Configuration()


def test_a_changed_copy_is_validated_too() -> None:
    with pytest.raises(ConfigurationError, match=r"^`lr` must be a number in \(0, 10\], got 0\.0\.$"):
        Configuration().replace(lr=0)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("encoder_rl_scale", "encoder_lr_scale"),
        ("epoch", "epochs"),
        ("batchsize", "batch_size"),
        ("hierarchy_wieght", "hierarchy_weight"),
        ("inital_hierarchy", "initial_hierarchy"),
    ],
)
def test_unknown_setting_is_refused_with_the_nearest_known_one(name: str, near: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^`{name}` is no setting of a training; did you mean `{near}`\?$"):
        Configuration().replace(**{name: 1})


@pytest.mark.parametrize("name", ["zzz", "self", "curvature"])
def test_unknown_setting_that_is_near_to_none_is_refused_with_all_of_them(name: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"^`{name}` is no setting .+ objective, optimizer, lr, .+, initial_hierarchy\.$"
    ):
        Configuration.from_dict({name: 1})


def test_all_unknown_settings_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"`epoch` is no .+`epochs`\?.+`zzz` is no .+`seeed` is no .+`seed`\?"):
        Configuration().replace(epoch=1, zzz=2, lr=1.0, seeed=3)


@pytest.mark.parametrize("configuration", [Configuration(), FOUNDATION, OTHER], ids=["default", "foundation", "other"])
def test_json_brings_back_the_same_configuration(configuration: Configuration) -> None:
    assert Configuration.from_dict(json.loads(json.dumps(configuration.to_dict()))) == configuration


def test_what_from_dict_is_not_told_has_its_default() -> None:
    assert Configuration.from_dict({"seed": 3}) == Configuration(seed=3)


def test_equal_configurations_have_equal_hashes() -> None:
    assert len({Configuration(), Configuration(beta=0.01), Configuration(distance_weight=5), OTHER}) == 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (True, False, False)),
        ({"richness_weight": 1.0}, (True, True, False)),
        ({"richness_weight": 1.0, "separation_weight": 1.0}, (True, True, True)),
        ({"hierarchy_weight": 1.0}, (True, False, True)),
        ({"distance_weight": 0.0}, (False, False, False)),
        ({"distance_weight": 0.0, "richness_weight": 1.0}, (False, False, True)),
        ({"objective": "level_mean"}, (False, False, True)),
        ({"objective": "elbo", "hierarchy_weight": 1.0}, (False, False, False)),
    ],
)
def test_weights_and_objective_say_what_is_learned(settings: dict[str, Any], expected: tuple[bool, bool, bool]) -> None:
    c = Configuration(**settings)
    assert (c.learns_distances, c.parts_level_0, c.orders_radii) == expected


@pytest.mark.parametrize(
    ("n_trits", "batch_size", "distances", "operations", "steps"),
    [
        (9, 512, False, 512, 39),
        (5, 242, False, 242, 2),
        (5, 1000, False, 1000, 1),
        (9, 100, True, 512, 39),
        (9, 1500, True, 1024, 20),
        (4, 100, True, 96, 1),
        (4, 1, True, 16, 6),
    ],
)
def test_steps_take_all_operations_once_and_whole_subtrees_where_distances_are_learned(
    n_trits: int, batch_size: int, distances: bool, operations: int, steps: int
) -> None:
    c = Configuration(batch_size=batch_size, distance_weight=float(distances))
    assert (c.operations_per_step(n_trits), c.steps_per_epoch(n_trits)) == (operations, steps)


def test_by_default_distances_alone_are_learned_and_a_foundation_learns_encoder_and_decoder() -> None:
    default = Configuration()
    assert (default.objective, default.unfreeze, default.initial_hierarchy) == ("ranking", "encoder", "any")
    assert (default.hierarchy_weight, default.richness_weight, default.separation_weight) == (0.0, 0.0, 0.0)
    assert (FOUNDATION.objective, FOUNDATION.unfreeze) == ("elbo", "all")
    assert all(c.patience >= c.epochs for c in (default, FOUNDATION))
