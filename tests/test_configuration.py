"""What a training's settings accept, refuse, and say of themselves."""

import dataclasses
import json
import math
from typing import Any

import pytest

from tvae.configuration import FINETUNE, FOUNDATION, OBJECTIVES, SCHEDULERS, UNFREEZE, Configuration
from tvae.errors import ConfigurationError, TVAEError

NAN, INF = math.nan, math.inf

OTHER = Configuration(
    objective="level_mean",
    lr=1e-3,
    epochs=7,
    batch_size=64,
    patience=3,
    scheduler="cosine",
    seed=11,
    hierarchy_weight=1.5,
    coverage_weight=2.5,
    richness_weight=3.5,
    separation_weight=4.5,
    distance_weight=5.5,
    beta=0.5,
    unfreeze="encoder",
    encoder_lr_scale=0.2,
    decoder_lr_scale=0.3,
    initial_hierarchy="positive",
)

WORDS = ["", "Ranking", "cosine ", "auto", None, 1, True, NAN, ("ranking",), ["none"]]
COUNTS = [0, -1, 100_001, True, False, 25.0, "25", None, NAN, INF, 10**400]
RATES = [0, 0.0, -1.0, 10.1, 11, True, False, "0.1", None, NAN, INF, -INF, 10**400, -(10**400), 1 + 0j]
WEIGHTS = [-1e-9, -1, 1_000_001, 1.1e6, True, False, "5", None, NAN, INF, -INF, 10**400, -(10**400), 1 + 0j]

REFUSED = {
    "objective": [*WORDS, "hierarchy"],
    "lr": RATES,
    "epochs": COUNTS,
    "batch_size": COUNTS,
    "patience": COUNTS,
    "scheduler": WORDS,
    "seed": [-1, 2**32, True, False, 0.0, "0", None, NAN, 10**400],
    "hierarchy_weight": WEIGHTS,
    "coverage_weight": WEIGHTS,
    "richness_weight": WEIGHTS,
    "separation_weight": WEIGHTS,
    "distance_weight": WEIGHTS,
    "beta": WEIGHTS,
    "unfreeze": [*WORDS, "decoder"],
    "encoder_lr_scale": RATES,
    "decoder_lr_scale": RATES,
    "initial_hierarchy": [*WORDS, "zero"],
}

ACCEPTED: dict[str, list[Any]] = {
    "objective": list(OBJECTIVES),
    "lr": [5e-324, 10, 10.0],
    "epochs": [1, 100_000],
    "batch_size": [1, 100_000],
    "patience": [1, 100_000],
    "scheduler": list(SCHEDULERS),
    "seed": [0, 2**32 - 1],
    "hierarchy_weight": [0, 0.0, 1e6],
    "coverage_weight": [0, 0.0, 1e6],
    "richness_weight": [0, 0.0, 1e6],
    "separation_weight": [0, 0.0, 1e6],
    "distance_weight": [0, 0.0, 1e6],
    "beta": [0, 0.0, 1e6],
    "unfreeze": list(UNFREEZE),
    "encoder_lr_scale": [5e-324, 10],
    "decoder_lr_scale": [5e-324, 10],
    "initial_hierarchy": ["negative", "any", "positive"],
}


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [pytest.param(name, value, id=f"{name}-{value!r:.20}") for name, values in table.items() for value in values]


def test_the_words_are_those_of_the_design() -> None:
    assert OBJECTIVES == ("ranking", "level_mean", "elbo")
    assert SCHEDULERS == ("constant", "cosine", "step", "plateau", "one_cycle")
    assert UNFREEZE == ("none", "encoder", "all")


@pytest.mark.parametrize(("field", "value"), cases(REFUSED))
def test_setting_out_of_range_or_of_another_type_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^`{field}` must be .+, got .+\.$"):
        Configuration(**{field: value})


@pytest.mark.parametrize(("field", "value"), cases(ACCEPTED))
def test_setting_at_the_end_of_its_range_is_accepted(field: str, value: Any) -> None:
    assert getattr(Configuration(**{field: value}), field) == value


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


@pytest.mark.parametrize("field", [name for name, value in OTHER.to_dict().items() if isinstance(value, float)])
def test_integers_are_read_as_numbers(field: str) -> None:
    assert type(getattr(Configuration(**{field: 1}), field)) is float


@pytest.mark.parametrize("field", list(REFUSED))
def test_settings_cannot_be_changed(field: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError, match=field):
        setattr(Configuration(), field, getattr(OTHER, field))


@pytest.mark.parametrize("field", list(REFUSED))
def test_replace_changes_the_named_setting_alone(field: str) -> None:
    changed = Configuration().replace(**{field: getattr(OTHER, field)})
    expected = Configuration().to_dict() | {field: OTHER.to_dict()[field]}
    assert changed.to_dict() == expected


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
        ConfigurationError, match=rf"^`{name}` is no setting .+ objective, lr, .+, initial_hierarchy\.$"
    ):
        Configuration.from_dict({name: 1})


def test_all_unknown_settings_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"`epoch` is no .+`epochs`\?.+`zzz` is no .+`seeed` is no .+`seed`\?"):
        Configuration().replace(epoch=1, zzz=2, lr=1.0, seeed=3)


@pytest.mark.parametrize("configuration", [FINETUNE, FOUNDATION, OTHER], ids=["finetune", "foundation", "other"])
def test_json_brings_back_the_same_configuration(configuration: Configuration) -> None:
    assert Configuration.from_dict(json.loads(json.dumps(configuration.to_dict()))) == configuration


def test_what_from_dict_is_not_told_has_its_default() -> None:
    assert Configuration.from_dict({"seed": 3}) == Configuration(seed=3)


def test_equal_configurations_have_equal_hashes() -> None:
    assert len({Configuration(), Configuration(beta=0.01), Configuration(hierarchy_weight=5), OTHER}) == 2


def test_finetuning_learns_the_projection_alone_by_default() -> None:
    assert Configuration() == FINETUNE
    assert (FINETUNE.objective, FINETUNE.unfreeze, FINETUNE.distance_weight) == ("ranking", "none", 0.0)


def test_a_foundation_learns_encoder_and_decoder_by_default() -> None:
    assert (FOUNDATION.objective, FOUNDATION.unfreeze) == ("elbo", "all")


@pytest.mark.parametrize("default", [FINETUNE, FOUNDATION], ids=["finetune", "foundation"])
def test_a_default_training_is_not_cut_short_by_its_patience(default: Configuration) -> None:
    assert default.patience >= default.epochs
