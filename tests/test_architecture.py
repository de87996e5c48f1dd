"""What an architecture accepts, refuses, and says of itself."""

import dataclasses
import json
import math
import re
from typing import Any

import pytest

from tvae.config.architecture import Architecture, Difference, differences
from tvae.errors import ArchitectureError, TVAEError

NAN, INF = math.nan, math.inf

OTHER = Architecture(
    n_trits=5,
    latent_dim=6,
    encoder_hidden=(20,),
    decoder_hidden=(12, 24),
    hidden_dim=48,
    n_projection_layers=3,
    curvature=0.5,
    max_radius=0.9,
    centred=False,
    use_controller=True,
)

REFUSED = {
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
}

ACCEPTED = {
    "n_trits": [2, 33],
    "latent_dim": [2, 4096],
    "encoder_hidden": [(1,), (4096,), (8,) * 16],
    "decoder_hidden": [(1,), (4096,), (8,) * 16],
    "hidden_dim": [1, 4096],
    "n_projection_layers": [1, 16],
    "curvature": [1.1e-6, 9.9e5],
    "max_radius": [1e-9, 1 - 1e-6],
    "centred": [True, False],
    "use_controller": [True, False],
}


def test_defaults_are_those_of_the_design() -> None:
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


def found(field: str, value: Any) -> str:
    """Return how a value is refused; nothing where it is accepted as it is."""
    try:
        return "" if getattr(Architecture(**{field: value}), field) == value else "changed"
    except ArchitectureError as refusal:
        return str(refusal)


def test_values_in_range_are_accepted_and_all_others_refused() -> None:
    refused = {(name, repr(value)): found(name, value) for name, values in REFUSED.items() for value in values}
    sentence = re.compile(r"^`(\w+)` must be .+, got .+\.$")
    assert [case for case, text in refused.items() if sentence.findall(text) != [case[0]]] == []
    accepted = [(name, value) for name, values in ACCEPTED.items() for value in values if found(name, value) != ""]
    assert accepted == []


def test_every_field_is_put_to_the_test() -> None:
    names = [field.name for field in dataclasses.fields(Architecture)]
    assert list(REFUSED) == list(ACCEPTED) == names


def test_refusal_quotes_what_it_found() -> None:
    with pytest.raises(ArchitectureError, match=r"^`curvature` must be a number between 1e-6 and 1e6, got -1\.0\.$"):
        Architecture(curvature=-1.0)


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ArchitectureError) as refusal:
        Architecture(**{name: values[0] for name, values in REFUSED.items()})
    assert [f"`{name}` must be" in str(refusal.value) for name in REFUSED] == [True] * 10


@pytest.mark.parametrize("family", [TVAEError, ValueError])
def test_refusal_can_be_caught_as(family: type[Exception]) -> None:
    with pytest.raises(family, match="`hidden_dim` must be"):
        Architecture(hidden_dim=0)


def test_integers_are_read_as_numbers() -> None:
    assert type(Architecture(curvature=1).curvature) is float


def test_lists_are_read_as_tuples() -> None:
    assert Architecture(encoder_hidden=[8, 4]).encoder_hidden == (8, 4)  # type: ignore[arg-type]


def test_fields_cannot_be_changed() -> None:
    for field in REFUSED:
        with pytest.raises(dataclasses.FrozenInstanceError, match=field):
            setattr(Architecture(), field, getattr(OTHER, field))


def test_a_changed_copy_is_validated_too() -> None:
    with pytest.raises(ArchitectureError, match="`max_radius` must be"):
        dataclasses.replace(Architecture(), max_radius=1.0)


def test_equal_architectures_have_equal_hashes() -> None:
    assert len({Architecture(), Architecture(curvature=2), Architecture(encoder_hidden=(256, 128, 64)), OTHER}) == 2


@pytest.mark.parametrize("architecture", [Architecture(), OTHER])
def test_json_brings_back_the_same_architecture(architecture: Architecture) -> None:
    assert Architecture.from_dict(json.loads(json.dumps(architecture.to_dict()))) == architecture


def test_missing_and_unknown_fields_are_named() -> None:
    values = Architecture().to_dict()
    del values["curvature"], values["n_trits"]
    values["curvatrue"] = 1.0
    with pytest.raises(ArchitectureError, match=r"missing: curvature, n_trits; unknown: curvatrue\.$"):
        Architecture.from_dict(values)


def test_nothing_missing_is_said_in_a_word() -> None:
    with pytest.raises(ArchitectureError, match=r"missing: none; unknown: depth\.$"):
        Architecture.from_dict({**Architecture().to_dict(), "depth": 3})


def test_values_of_from_dict_are_validated() -> None:
    with pytest.raises(ArchitectureError, match=r"`latent_dim` must be .+, got '16'\.$"):
        Architecture.from_dict({**Architecture().to_dict(), "latent_dim": "16"})


def test_equal_architectures_do_not_differ() -> None:
    assert differences(Architecture(), Architecture()) == []


def test_differences_name_both_sides_in_declaration_order() -> None:
    other = Architecture(max_radius=0.5, latent_dim=8)
    expected = [Difference("latent_dim", 16, 8), Difference("max_radius", 0.9995, 0.5)]
    assert differences(Architecture(), other) == expected


def test_every_field_can_differ() -> None:
    assert [difference.field for difference in differences(Architecture(), OTHER)] == list(REFUSED)


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
