"""A setting of a model or a training: its default, what it may be, and its help, stated once.

Docstrings, the checks of values, and the options of the commands follow from it; a test holds MLproject to them.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import field, fields
from typing import Any, NamedTuple, TypeVar, cast

from tvae.errors import TVAEError

__all__ = ["Rule", "boolean", "check", "choices", "documented", "help_of", "integer", "number", "one_of", "setting"]

T = TypeVar("T")


class Rule(NamedTuple):
    """What a setting may be.

    Attributes:
        text: completes "must be".
        holds: of a value.
        choices: all values, where they are few.
    """

    text: str
    holds: Callable[[Any], bool]
    choices: tuple[str, ...] = ()


def setting(default: Any, help: str, rule: Rule) -> Any:
    """Return a field of a dataclass with its default, its help text, and its rule."""
    return field(default=default, metadata={"help": help, "rule": rule})


def one_of(*values: str) -> Rule:
    """One of some words."""
    return Rule(f"one of {', '.join(values)}", lambda value: value in values, values)


def integer(low: int, high: int) -> Rule:
    """An integer from `low` to `high`; True is none."""
    return Rule(f"an integer in {low} … {high}", lambda value: _is_int(value) and low <= value <= high)


def number(text: str, holds: Callable[[float], bool]) -> Rule:
    """A finite float of which something holds."""
    return Rule(
        f"a number {text}", lambda value: isinstance(value, float) and math.isfinite(value) and bool(holds(value))
    )


def boolean() -> Rule:
    """True or False."""
    return Rule("True or False", lambda value: isinstance(value, bool))


def documented(settings: type[T]) -> type[T]:
    """Give a dataclass of settings a docstring that lists them, with help and rule."""
    lines = [
        f"    {f.name}: {f.metadata['help']} Must be {f.metadata['rule'].text}." for f in fields(cast(Any, settings))
    ]
    settings.__doc__ = "\n".join([inspect.cleandoc(settings.__doc__ or ""), "", "Attributes:", *lines])
    return settings


def check(settings: Any, error: type[TVAEError]) -> None:
    """Refuse values that are not allowed, all at once; whole numbers become floats where these are meant.

    Raises:
        error: names every setting that is of the wrong type or out of range.
    """
    problems = []
    for f in fields(settings):
        value, rule = getattr(settings, f.name), f.metadata["rule"]
        if f.type is float and _is_int(value) and abs(value) <= 2**53:  # a larger one is out of range
            value = float(value)
            object.__setattr__(settings, f.name, value)
        if not rule.holds(value):
            problems.append(f"`{f.name}` must be {rule.text}, got {value!r}.")
    if problems:
        raise error(" ".join(problems))


def help_of(settings: type[Any]) -> dict[str, str]:
    """Return the help of each setting by name."""
    return {f.name: f.metadata["help"] for f in fields(settings)}


def choices(settings: type[Any]) -> dict[str, tuple[str, ...]]:
    """Return what can be chosen from, for each setting that has a choice."""
    return {f.name: f.metadata["rule"].choices for f in fields(settings) if f.metadata["rule"].choices}


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
