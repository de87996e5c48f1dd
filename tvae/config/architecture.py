"""What a model is made of: the part that a checkpoint must agree on before it may be loaded."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from tvae.config.setting import Rule, boolean, check, documented, integer, number, setting
from tvae.errors import ArchitectureError

__all__ = ["MOST_LISTED", "Architecture", "Difference", "differences"]

MOST_LISTED = 13
"""Up to as many trits all operations are listed; of more they are drawn."""


_WIDTHS = Rule(
    "1 to 16 integers in 1 … 4096",
    lambda value: isinstance(value, tuple) and 1 <= len(value) <= 16 and all(map(integer(1, 4096).holds, value)),
)


@documented
@dataclass(frozen=True, slots=True)
class Architecture:
    """An immutable, validated description of a model.

    Raises:
        ArchitectureError: names every field that is of the wrong type or out of range.
    """

    # Of more than 33 an index would not be exact as a float64, which requests and draws go through.
    n_trits: int = setting(
        9, "Trits of an operation: 3, 9 or 27 are the table of a gate with one input, two or three.", integer(2, 33)
    )
    latent_dim: int = setting(16, "Dimension of the latent and of the ball.", integer(2, 4096))
    encoder_hidden: tuple[int, ...] = setting((256, 128, 64), "Widths of the encoder's hidden layers.", _WIDTHS)
    decoder_hidden: tuple[int, ...] = setting((32, 64), "Widths of the decoder's hidden layers.", _WIDTHS)
    hidden_dim: int = setting(
        128,
        "Width of the projection's direction net; its radius net has half of it, at least 32.",
        integer(1, 4096),
    )
    n_projection_layers: int = setting(2, "Hidden layers of each of the projection's nets.", integer(1, 16))
    curvature: float = setting(
        2.0,
        "c > 0: the ball has sectional curvature -c and Euclidean radius 1/sqrt(c).",
        # Where float32 lengths keep their digits.
        number("between 1e-6 and 1e6", lambda value: 1e-6 < value < 1e6),
    )
    max_radius: float = setting(
        0.9995,
        "Largest unit norm sqrt(c)·|z| of an embedding.",
        # Rounding to float32 moves the norm of a point by up to 3e-7: this leaves room for it inside the ball.
        number("in (0, 1), at most 0.999999", lambda value: 0 < value <= 1 - 1e-6),
    )
    centred: bool = setting(True, "Move the ball so that operation 0 lies at its centre.", boolean())
    use_controller: bool = setting(False, "Let a small net shift weight between the terms of the loss.", boolean())

    def __post_init__(self) -> None:
        for name in ("encoder_hidden", "decoder_hidden"):
            value = getattr(self, name)
            if isinstance(value, list | tuple):
                object.__setattr__(self, name, tuple(value))
        check(self, ArchitectureError)

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
