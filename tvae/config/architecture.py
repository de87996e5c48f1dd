"""What a model is made of: the part that a checkpoint must agree on before it may be loaded."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from tvae.errors import ArchitectureError

__all__ = ["Architecture", "Difference", "differences"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """An immutable, validated description of a model.

    Attributes:
        n_trits: trits of an operation, 2 … 13.
        latent_dim: dimension of the latent and of the ball, 2 … 4096.
        encoder_hidden: widths of the encoder's hidden layers.
        decoder_hidden: widths of the decoder's hidden layers.
        hidden_dim: width of the projection's direction net; its radius net has `max(32, hidden_dim // 2)`.
        n_projection_layers: hidden layers of each of the projection's nets, 1 … 16.
        curvature: c > 0 for sectional curvature -c; the ball is {z : sqrt(c)·|z| < 1}.
        max_radius: largest unit norm sqrt(c)·|z| that an embedding can have, in (0, 1 - 1e-6].
        centred: whether the ball is moved so that operation 0 lies at its centre.
        use_controller: whether a small net weighs the terms of the loss during training.

    Raises:
        ArchitectureError: names every field that is of the wrong type or out of range.
    """

    n_trits: int = 9
    latent_dim: int = 16
    encoder_hidden: tuple[int, ...] = (256, 128, 64)
    decoder_hidden: tuple[int, ...] = (32, 64)
    hidden_dim: int = 128
    n_projection_layers: int = 2
    curvature: float = 2.0
    max_radius: float = 0.9995
    centred: bool = True
    use_controller: bool = False

    def __post_init__(self) -> None:
        for name in ("encoder_hidden", "decoder_hidden"):
            value = getattr(self, name)
            if isinstance(value, list | tuple):
                object.__setattr__(self, name, tuple(value))
        for name in ("curvature", "max_radius"):
            value = getattr(self, name)
            if _is_int(value) and abs(value) <= 2**53:  # a larger integer is out of range, and may pass the floats
                object.__setattr__(self, name, float(value))
        problems = [
            f"`{name}` must be {allowed}, got {getattr(self, name)!r}."
            for name, allowed, holds in _RULES
            if not holds(getattr(self, name))
        ]
        if problems:
            raise ArchitectureError(" ".join(problems))

    @property
    def radius_dim(self) -> int:
        """Width of the projection's radius net."""
        return max(32, self.hidden_dim // 2)

    @property
    def largest_radius(self) -> float:
        """Hyperbolic radius of the largest unit norm, (2/sqrt(c))·artanh(max_radius)."""
        return 2 / math.sqrt(self.curvature) * math.atanh(self.max_radius)

    @property
    def raw_max_radius(self) -> float:
        """Largest unit norm before the move to the centre: two points of half the radius are as far apart as it is."""
        return math.tanh(math.atanh(self.max_radius) / 2) if self.centred else self.max_radius

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Architecture":
        """Build from `to_dict`'s form; every field must be there, and no other.

        Raises:
            ArchitectureError: if a field is missing, unknown, of the wrong type or out of range.
        """
        names = {f.name for f in fields(cls)}
        missing, unknown = sorted(names - set(values)), sorted(set(values) - names)
        if missing or unknown:
            raise ArchitectureError(
                f"An architecture has the fields {', '.join(sorted(names))}; "
                f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}."
            )
        return cls(**values)


class Difference(NamedTuple):
    """One field in which two architectures differ."""

    field: str
    expected: Any
    found: Any


def differences(expected: Architecture, found: Architecture) -> list[Difference]:
    """Return every field in which two architectures differ, in declaration order."""
    return [
        Difference(f.name, getattr(expected, f.name), getattr(found, f.name))
        for f in fields(Architecture)
        if getattr(expected, f.name) != getattr(found, f.name)
    ]


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _int_in(low: int, high: int) -> Any:
    return lambda value: _is_int(value) and low <= value <= high


def _widths(value: object) -> bool:
    return isinstance(value, tuple) and 1 <= len(value) <= 16 and all(map(_int_in(1, 4096), value))


def _finite_in(low: float, high: float) -> Any:
    """Whether a float lies in the open interval."""
    return lambda value: isinstance(value, float) and low < value < high


_WIDTHS = "1 to 16 integers in 1 … 4096"
# Up to 13 trits all operations fit in memory; curvature is bounded where float32 lengths keep their digits.
# Rounding to float32 moves the norm of a point by up to 3e-7: max_radius leaves room for it inside the ball.
_RULES = (
    ("n_trits", "an integer in 2 … 13", _int_in(2, 13)),
    ("latent_dim", "an integer in 2 … 4096", _int_in(2, 4096)),
    ("encoder_hidden", _WIDTHS, _widths),
    ("decoder_hidden", _WIDTHS, _widths),
    ("hidden_dim", "an integer in 1 … 4096", _int_in(1, 4096)),
    ("n_projection_layers", "an integer in 1 … 16", _int_in(1, 16)),
    ("curvature", "a number between 1e-6 and 1e6", _finite_in(1e-6, 1e6)),
    (
        "max_radius",
        "a number in (0, 1), at most 0.999999",
        lambda value: isinstance(value, float) and 0 < value <= 1 - 1e-6,
    ),
    *((name, "True or False", lambda value: isinstance(value, bool)) for name in ("centred", "use_controller")),
)
