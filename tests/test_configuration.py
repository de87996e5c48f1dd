"""What architectures and trainings accept, refuse, and say of themselves."""

import dataclasses
import json
import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from tvae.config.architecture import Architecture, Difference, differences
from tvae.config.training import FOUNDATION, OBJECTIVES, OPTIMIZERS, SCHEDULERS, UNFREEZE, Configuration
from tvae.errors import ArchitectureError, ConfigurationError, TVAEError

Kind = type[Architecture] | type[Configuration]

NAN, INF = math.nan, math.inf
WORDS = ["", "Ranking", "cosine ", "auto", None, 1, True, NAN, ("ranking",), ["none"]]
COUNTS = [0, -1, 100_001, True, False, 25.0, "25", None, NAN, INF, 10**400]
RATES = [0, 0.0, -1.0, 10.1, 11, True, False, "0.1", None, NAN, INF, -INF, 10**400, -(10**400), 1 + 0j]
WEIGHTS = [-1e-9, -1, 1_000_001, 1.1e6, True, False, "5", None, NAN, INF, -INF, 10**400, -(10**400), 1 + 0j]
WEIGHED = ("hierarchy_weight", "coverage_weight", "richness_weight", "separation_weight", "beta")

REFUSAL: dict[Kind, type[TVAEError]] = {Architecture: ArchitectureError, Configuration: ConfigurationError}
REFUSED: dict[Kind, dict[str, list[Any]]] = {
    Architecture: {
        "n_trits": [1, 34, -9, True, 9.0, "9", None, NAN],
        "latent_dim": [1, 0, 4097, True, 16.0, "16", None, INF],
        "encoder_hidden": [(), 64, "64", None, (0,), (4097,), (True,), (64.0,), (64, None), (1,) * 17, {64: 64}, {64}],
        "decoder_hidden": [(), 64, "64", None, (-1,), (4097,), (False,), ("64",), [[64]], (1,) * 17],
        "hidden_dim": [0, -1, 4097, True, 128.0, "128", None],
        "n_projection_layers": [0, 17, True, 2.0, "2", None],
        "curvature": [0, 0.0, -1.0, 1e-6, 1e6, 10**400, -(10**400), True, "2", None, NAN, INF, -INF, 1 + 0j],
        "max_radius": [0, 1, 0.0, 1.0, -0.5, 1.5, 1 - 1e-7, True, "0.95", None, NAN, INF],
        "centred": [0, 1, "yes", None, 1.0],
        "use_controller": [0, 1, "yes", None, 1.0],
    },
    Configuration: {
        "objective": [*WORDS, "hierarchy"],
        "optimizer": [*WORDS, "Muon"],
        "lr": RATES,
        **dict.fromkeys(("epochs", "batch_size", "patience"), COUNTS),
        "scheduler": WORDS,
        "seed": [-1, 2**32, True, False, 0.0, "0", None, NAN, 10**400],
        "distance_weight": WEIGHTS,
        "distance_margin": [0, 0.0, -0.04, 0.1000001, 1, True, False, "0.04", None, NAN, INF, 10**400],
        **dict.fromkeys(WEIGHED, WEIGHTS),
        "unfreeze": [*WORDS, "decoder"],
        **dict.fromkeys(("encoder_lr_scale", "decoder_lr_scale"), RATES),
        "holdout": [-0.1, 1, 1.0, 1.1, True, False, "0.1", None, NAN, INF, 10**400],
        "initial_hierarchy": [*WORDS, "zero"],
    },
}
ACCEPTED: dict[Kind, dict[str, list[Any]]] = {
    Architecture: {
        "n_trits": [2, 33],
        "latent_dim": [2, 4096],
        "encoder_hidden": [(1,), (4096,), (8,) * 16],
        "decoder_hidden": [(1,), (4096,), (8,) * 16],
        "hidden_dim": [1, 4096],
        "n_projection_layers": [1, 16],
        "curvature": [1.1e-6, 9.9e5],
        "max_radius": [1e-9, 1 - 1e-6],
        "centred": [True, False],
        "use_controller": [False, True],
    },
    Configuration: {
        "objective": list(OBJECTIVES),
        "optimizer": list(OPTIMIZERS),
        "lr": [5e-324, 10, 10.0],
        **{name: [1, 100_000] for name in ("epochs", "batch_size", "patience")},
        "scheduler": list(SCHEDULERS)[::-1],
        "seed": [0, 2**32 - 1],
        "distance_weight": [0, 0.0, 1e6],
        "distance_margin": [5e-324, 0.1],
        **{name: [0, 0.0, 1e6] for name in WEIGHED},
        "unfreeze": list(UNFREEZE),
        **{name: [5e-324, 10] for name in ("encoder_lr_scale", "decoder_lr_scale")},
        "holdout": [0, 0.0, 0.999],
        "initial_hierarchy": ["negative", "any", "positive"],
    },
}
# Every field differs from its default.
OTHER: dict[Kind, Any] = {
    kind: kind(**{name: values[-1] for name, values in accepted.items()})  # type: ignore[arg-type]
    for kind, accepted in ACCEPTED.items()
}
each_kind = pytest.mark.parametrize("kind", [Architecture, Configuration])


def test_the_words_are_those_of_the_design() -> None:
    assert OBJECTIVES == ("ranking", "level_mean", "elbo")
    assert SCHEDULERS == ("constant", "cosine", "step", "plateau", "one_cycle", "linear")
    assert OPTIMIZERS == ("muon", "adam")
    assert UNFREEZE == ("none", "encoder", "all")


def test_the_default_architecture_is_that_of_the_design() -> None:
    assert Architecture().to_dict() == {
        "n_trits": 9,
        "latent_dim": 16,
        "encoder_hidden": [256, 128, 64],
        "decoder_hidden": [32, 64],
        "hidden_dim": 128,
        "n_projection_layers": 2,
        "curvature": 2.0,
        "max_radius": 0.9995,
        "centred": True,
        "use_controller": False,
    }


def found(kind: Kind, field: str, value: Any) -> str:
    """Return how a value is refused; nothing where it is accepted as it is."""
    try:
        return "" if getattr(kind(**{field: value}), field) == value else "changed"
    except REFUSAL[kind] as refusal:
        return str(refusal)


@each_kind
def test_values_in_range_are_accepted_and_all_others_refused(kind: Kind) -> None:
    names = [field.name for field in dataclasses.fields(kind)]
    assert list(REFUSED[kind]) == list(ACCEPTED[kind]) == names
    refused = {(k, repr(value)): found(kind, k, value) for k, values in REFUSED[kind].items() for value in values}
    sentence = re.compile(r"^`(\w+)` must be .+, got .+\.$")
    assert [case for case, text in refused.items() if sentence.findall(text) != [case[0]]] == []
    accepted = [(k, value) for k, values in ACCEPTED[kind].items() for value in values if found(kind, k, value) != ""]
    assert accepted == []


@pytest.mark.parametrize(
    ("kind", "field", "value", "message"),
    [
        (Architecture, "curvature", -1.0, "`curvature` must be a number between 1e-6 and 1e6, got -1.0."),
        (Configuration, "objective", "rank", "`objective` must be one of ranking, level_mean, elbo, got 'rank'."),
        (Configuration, "lr", -1.0, "`lr` must be a number in (0, 10], got -1.0."),
        (Configuration, "epochs", True, "`epochs` must be an integer in 1 … 100000, got True."),
        (Configuration, "beta", NAN, "`beta` must be a number in 0 … 1e6, got nan."),
        (Configuration, "seed", "0", "`seed` must be an integer in 0 … 4294967295, got '0'."),
    ],
)
def test_refusal_says_what_is_allowed_and_quotes_what_it_found(
    kind: Kind, field: str, value: Any, message: str
) -> None:
    assert found(kind, field, value) == message
    with pytest.raises(ValueError, match=f"`{field}` must be"):
        kind(**{field: value})


@each_kind
def test_all_problems_are_named_at_once(kind: Kind) -> None:
    with pytest.raises(REFUSAL[kind]) as refusal:
        kind(**{name: values[0] for name, values in REFUSED[kind].items()})
    assert [name for name in REFUSED[kind] if f"`{name}` must be" not in str(refusal.value)] == []


@each_kind
def test_integers_are_read_as_numbers(kind: Kind) -> None:
    below_1 = ("distance_margin", "holdout", "max_radius")
    numbers = [k for k, v in OTHER[kind].to_dict().items() if isinstance(v, float) and k not in below_1]
    assert {type(getattr(kind(**{field: 1}), field)) for field in numbers} == {float}


def test_lists_are_read_as_tuples() -> None:
    assert Architecture(encoder_hidden=[8, 4]).encoder_hidden == (8, 4)  # type: ignore[arg-type]


@each_kind
def test_what_is_set_cannot_be_changed(kind: Kind) -> None:
    for field in REFUSED[kind]:
        with pytest.raises(dataclasses.FrozenInstanceError, match=field):
            setattr(kind(), field, getattr(OTHER[kind], field))


@pytest.mark.parametrize("replace", [Configuration.replace, dataclasses.replace])
def test_a_copy_has_the_named_setting_changed_alone(replace: Callable[..., Configuration]) -> None:
    default, other, fields = Configuration(), OTHER[Configuration].to_dict(), REFUSED[Configuration]
    before = default.to_dict()
    found = {field: replace(default, **{field: other[field]}).to_dict() for field in fields}
    assert found == {field: before | {field: other[field]} for field in fields}
    assert [field for field in fields if before[field] == other[field]] == []
    assert default == Configuration()


@each_kind
def test_a_changed_copy_is_validated_too(kind: Kind) -> None:
    for name, values in REFUSED[kind].items():
        with pytest.raises(REFUSAL[kind], match=f"^`{name}` must be"):
            dataclasses.replace(kind(), **{name: values[0]})
    with pytest.raises(ConfigurationError, match=r"^`lr` must be a number in \(0, 10\], got 0\.0\.$"):
        Configuration().replace(lr=0)


@pytest.mark.parametrize(("name", "near"), [("encoder_rl_scale", "encoder_lr_scale"), ("batchsize", "batch_size")])
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


@pytest.mark.parametrize(
    "given", [Architecture(), OTHER[Architecture], Configuration(), FOUNDATION, OTHER[Configuration]]
)
def test_json_brings_back_the_same(given: Architecture | Configuration) -> None:
    assert type(given).from_dict(json.loads(json.dumps(given.to_dict()))) == given


def test_what_from_dict_is_not_told_has_its_default() -> None:
    assert Configuration.from_dict({"seed": 3}) == Configuration(seed=3)


def test_equals_have_equal_hashes() -> None:
    assert len({Configuration(), Configuration(beta=0.01), Configuration(distance_weight=5), OTHER[Configuration]}) == 2
    same = [Architecture(), Architecture(curvature=2), Architecture(encoder_hidden=(256, 128, 64))]
    assert len({*same, OTHER[Architecture]}) == 2


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


# An architecture alone


def test_missing_and_unknown_fields_are_named() -> None:
    values = Architecture().to_dict()
    del values["curvature"], values["n_trits"]
    values["curvatrue"] = 1.0
    with pytest.raises(ArchitectureError, match=r"missing: curvature, n_trits; unknown: curvatrue\.$"):
        Architecture.from_dict(values)


def test_nothing_missing_is_said_in_a_word() -> None:
    with pytest.raises(ArchitectureError, match=r"missing: none; unknown: depth\.$"):
        Architecture.from_dict({**Architecture().to_dict(), "depth": 3})


def test_differences_name_both_sides_in_declaration_order() -> None:
    other = Architecture(max_radius=0.5, latent_dim=8)
    expected = [Difference("latent_dim", 16, 8), Difference("max_radius", 0.9995, 0.5)]
    assert differences(Architecture(), other) == expected
    assert differences(other, other) == []
    found = differences(Architecture(), OTHER[Architecture])
    assert [difference.field for difference in found] == list(REFUSED[Architecture])


@pytest.mark.parametrize(("hidden_dim", "radius_dim"), [(1, 32), (48, 32), (64, 32), (66, 33), (128, 64), (257, 128)])
def test_radius_net_is_half_as_wide_but_no_narrower_than_32(hidden_dim: int, radius_dim: int) -> None:
    assert Architecture(hidden_dim=hidden_dim).radius_dim == radius_dim


@pytest.mark.parametrize("curvature", [0.01, 1.0, 4.0, 100.0])
def test_largest_radius_is_that_of_the_largest_unit_norm(curvature: float) -> None:
    expected = math.log((1 + 0.9) / (1 - 0.9)) / math.sqrt(curvature)
    assert Architecture(curvature=curvature, max_radius=0.9).largest_radius == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("max_radius", [0.5, 0.9995, 1 - 1e-6])
def test_before_the_move_a_radius_is_half_as_long_so_that_none_is_longer_after_it(max_radius: float) -> None:
    centred, raw = (Architecture(max_radius=max_radius, centred=c) for c in (True, False))
    assert math.atanh(centred.raw_max_radius) == pytest.approx(math.atanh(max_radius) / 2, rel=1e-12)
    assert raw.raw_max_radius == max_radius
