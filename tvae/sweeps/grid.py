"""A user's own grid: a YAML or JSON file of named cells, of a product of values, or of both."""

import itertools
import math
import os
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from tvae.config.architecture import Architecture
from tvae.config.presets import PRESETS
from tvae.config.training import Configuration, check_known
from tvae.errors import ConfigurationError, TVAEError
from tvae.sweeps.phases import cell_trials
from tvae.sweeps.trial import LOADS, Trial

__all__ = ["GRID", "grid_axes", "grid_trials", "shown"]

GRID = "grid"
"""The phase of trials that come from a file."""

MOST_TRIALS = 10_000
_KEYS = ("base", "cells", "grid")
_FORM = (
    "A grid file has `grid` (names of settings, each with a list of values: all combinations are trained), or `cells` "
    "(names, each with its settings), or both, and perhaps `base` (settings that all share)."
)


def grid_trials(
    path: Path, *, asked: Mapping[str, Any] | None = None, seeds: int = 3, first_seed: int = 0
) -> tuple[Trial, ...]:
    """Return the trials of a grid file; cells that differ in nothing have trials that do not differ either.

    Args:
        path: of a YAML file; JSON is YAML, too.
        asked: settings that count for every cell; but a cell's own `preset` goes before one that is asked for.
        seeds: of every cell.
        first_seed: seeds count from here.

    Raises:
        ConfigurationError: if there is no such file, it cannot be read, or says what is not allowed; all mistakes at
            once, each with the cell that it is in.
    """
    if seeds < 1:
        raise ConfigurationError(f"`seeds` must be at least 1, got {seeds}.")
    content = _read(path)
    cells = _cells(path, content)
    if not cells:
        raise ConfigurationError(f"{path} has no cell. {_FORM}")
    if len(cells) * seeds > MOST_TRIALS:
        raise ConfigurationError(
            f"{path} has {len(cells)} cells, with {seeds} seeds {len(cells) * seeds} trials; a sweep has at most "
            f"{MOST_TRIALS}. Take fewer values."
        )
    return _trials(path, _base(path, content), cells, asked or {}, range(first_seed, first_seed + seeds))


def grid_axes(path: Path, asked: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Return what the trials of a search share, and the values of `grid` that it chooses from, however many there are.

    Args:
        path: of a grid file.
        asked: settings that count for every trial: they are not chosen.

    Raises:
        ConfigurationError: if the file cannot be read, has no `grid` or has `cells`, or a value in it is not allowed.
    """
    content = _read(path)
    if "cells" in content:
        raise ConfigurationError(f"{path} has `cells`, which a search cannot choose among; it takes `base` and `grid`.")
    axes = {name: values for name, values in _axes(path, content).items() if name not in asked}
    if not axes:
        raise ConfigurationError(f"{path} has no `grid` to choose from. {_FORM}")
    base = _base(path, content)
    first = {name: values[0] for name, values in axes.items()}
    each = {f"{name}={shown(v)}": {**first, name: v} for name, values in axes.items() for v in values}
    _trials(path, base, each, asked, [0])
    return {**base, **asked}, axes


def shown(value: Any) -> str:
    """Return a value as the name of a cell has it: short, and different for different values."""
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _trials(
    path: Path,
    base: Mapping[str, Any],
    cells: Mapping[str, Mapping[str, Any]],
    asked: Mapping[str, Any],
    seeds: Sequence[int],
) -> tuple[Trial, ...]:
    """Build the trials of all cells, or name every mistake with the cells that it is in."""
    trials: list[Trial] = []
    problems: dict[str, list[str]] = {}
    preset = {name: value for name, value in asked.items() if name == "preset"}
    others = {name: value for name, value in asked.items() if name != "preset"}
    for name, settings in cells.items():
        try:
            seen = {**base, **preset, **settings, **others}
            _check(seen)
            trials += cell_trials(GRID, name, seen, seeds)
        except TVAEError as error:
            problems.setdefault(str(error), []).append(f"`{name}`")
    if problems:
        found = (f"{_where(names, len(cells))}: {problem}" for problem, names in problems.items())
        raise ConfigurationError(f"{path}: nothing was trained. " + " ".join(found))
    return tuple(trials)


def _base(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    return _settings(path, "base", content.get("base", {}))


def _axes(path: Path, content: Mapping[str, Any]) -> dict[str, list[Any]]:
    axes = _settings(path, "grid", content.get("grid", {}))
    for name, values in axes.items():
        if not isinstance(values, list) or not values:
            raise ConfigurationError(f"{path}: `{name}` in `grid` must be a list of values, got {values!r}.")
    return axes


def _cells(path: Path, content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    cells = {
        str(name): _settings(path, f"cell `{name}`", settings)
        for name, settings in _settings(path, "cells", content.get("cells", {})).items()
    }
    axes = _axes(path, content)
    if math.prod(len(values) for values in axes.values()) > MOST_TRIALS:
        raise ConfigurationError(
            f"{path}: `grid` has more than {MOST_TRIALS} combinations, which is the most that a sweep has. "
            "Take fewer values, or let `search` choose among them."
        )
    for values in itertools.product(*axes.values()) if axes else ():
        settings = dict(zip(axes, values, strict=True))
        name = " ".join(f"{key}={shown(value)}" for key, value in settings.items())
        if cells.setdefault(name, settings) != settings:
            raise ConfigurationError(f"{path}: two cells are called `{name}`; give the one in `cells` another name.")
    return cells


def _settings(path: Path, what: str, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise ConfigurationError(f"{path}: {what} must be names with values, got {found!r}.")
    return dict(found)


def _check(settings: Mapping[str, Any]) -> None:
    known = [f.name for kind in (Architecture, Configuration) for f in fields(kind) if f.name != "seed"]
    if "seed" in settings:
        raise ConfigurationError("`seed` is not a setting of a cell: every cell gets the same `seeds`.")
    check_known(settings, [*known, "load", "preset"], "setting")
    check_known([settings.get("preset", "default")], list(PRESETS), "preset")
    load = settings.get("load", LOADS[0])
    if load not in LOADS:
        raise ConfigurationError(f"`load` must be one of {', '.join(LOADS)}, got {load!r}.")
    if settings.get("objective") == "elbo":
        raise ConfigurationError("`objective` must be ranking or level_mean, got 'elbo': a sweep learns projections.")


def _where(names: Sequence[str], cells: int) -> str:
    """Say in which cells a mistake is: one of `base` is in all of them."""
    if len(names) == cells > 1:
        return "every cell"
    return f"cell{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.load(Path(os.path.expanduser(path)).read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigurationError(f"`grid` must be a file, found: {error.strerror} ({path}).") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} must be YAML or JSON, found: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path} holds {content!r:.80}. {_FORM}")
    unknown = [str(key) for key in content if key not in _KEYS]
    if unknown:
        raise ConfigurationError(f"{path} has {', '.join(f'`{key}`' for key in unknown)}. {_FORM}")
    return content


class _Loader(yaml.SafeLoader):
    """YAML 1.2 (its core schema) without tags, aliases, and keys that stand there twice: the last would win in silence.

    PyYAML reads YAML 1.1, in which 010 is 8, 1:30 is 90, 1e-3 a word and `no` false; in 1.2, which JSON is part of, a
    plain value is what it looks like. A few lines of aliases of aliases stand for more values than any memory holds.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"the alias *{event.anchor}; write out what it stands for")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise yaml.YAMLError(f"the tag {tag}, line {event.start_mark.line + 1}; write the value alone")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        doubled = {str(key) for key in keys if keys.count(key) > 1}
        if doubled:
            raise yaml.YAMLError(f"{', '.join(sorted(doubled))} stands there twice, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


_NUMBER_STARTS = list("-+0123456789.")
_Loader.yaml_implicit_resolvers = {}
for _tag, _plain, _starts in (
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", "true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", _NUMBER_STARTS),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        _NUMBER_STARTS,
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_plain})\Z"), _starts)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
