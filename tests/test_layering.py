"""Who may know whom: the arrows between rooms, read from the sources, and what an import really pulls in.

A room is a module or a package directly under `tvae/`. To add one, add a line to `ROOMS`.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import tvae

ROOT = Path(__file__).resolve().parent.parent

WATCHED = {"click", "joblib", "matplotlib", "mlflow", "numpy", "pandas", "scipy", "sklearn", "torch"}
NOTHING: set[str] = set()
NUMPY = {"numpy"}
TORCH = NUMPY | {"torch"}
STATISTICS = TORCH | {"joblib", "scipy", "sklearn"}
DRAWING = STATISTICS | {"matplotlib"}
EVERYTHING_ABOVE = "everything above"


class Room(NamedTuple):
    """What a room may import of tvae, and which of the watched packages its import may pull in (None: not probed)."""

    knows: str
    loads: set[str] | None


# From the bottom up: a room knows only rooms above its line, and loads no less than they do.
ROOMS = {
    "errors": Room("", NOTHING),
    "fresh": Room("", NOTHING),
    "locks": Room("", NOTHING),
    "markdown": Room("", NOTHING),
    "config": Room("errors", NOTHING),
    "arrays": Room("", NUMPY),
    "ternary": Room("errors config arrays", NUMPY),
    "torch_defaults": Room("", TORCH),
    "poincare": Room("errors", TORCH),
    "model": Room("errors config poincare", TORCH),
    "objectives": Room("errors config ternary poincare", TORCH),
    "metrics": Room("errors config arrays ternary poincare model torch_defaults", STATISTICS),
    "checkpoint": Room("errors fresh locks markdown config ternary poincare model metrics torch_defaults", STATISTICS),
    "training": Room("errors config ternary poincare model objectives metrics checkpoint torch_defaults", STATISTICS),
    "sweeps": Room("errors config arrays ternary model metrics training checkpoint torch_defaults", STATISTICS),
    # Facts about operations, whatever learns them.
    "gates": Room("arrays ternary", STATISTICS),
    "plots": Room("errors arrays ternary poincare model metrics training gates", DRAWING),
    # A logged model holds a copy of this file, and nothing else of tvae.
    "served": Room("", None),
    "serving": Room("errors config arrays ternary poincare model metrics checkpoint served torch_defaults", None),
    "tracking": Room(EVERYTHING_ABOVE, None),
    "registry": Room("errors config metrics checkpoint serving tracking", None),
    # What a user does with a model; nothing below needs it. Addresses of MLflow are the registry's, imported for them
    # alone. scikit-learn's estimators import pandas where it is.
    "embedding": Room(
        "errors config arrays ternary poincare model metrics checkpoint registry torch_defaults", DRAWING | {"pandas"}
    ),
    "report": Room("errors config markdown metrics sweeps tracking registry", None),
    "workflows": Room(EVERYTHING_ABOVE, None),
    "cli": Room(EVERYTHING_ABOVE, None),
}

# Imports the rooms in turn, all modules of each, and prints every foreign package that has come in since the start.
PROBE = """
import importlib, json, pkgutil, sys
own = {"tvae", "__mp_main__"} | set(sys.stdlib_module_names) | {name.partition(".")[0] for name in sys.modules}
for room in sys.argv[1:]:
    found = importlib.import_module(room)
    if room != "tvae":
        for module in pkgutil.walk_packages(getattr(found, "__path__", []), f"{room}."):
            importlib.import_module(module.name)
    print(json.dumps([room, sorted({name.partition(".")[0] for name in sys.modules} - own)]))
"""


def rooms_on_disk() -> list[str]:
    found = [path.stem for path in (ROOT / "tvae").glob("*.py")]
    found += [path.name for path in (ROOT / "tvae").iterdir() if any(path.glob("**/*.py"))]
    return sorted(set(found) - {"__init__"})


def sources() -> list[Path]:
    """Every source of a room in the table; `tvae/__init__.py` is the face of all rooms, and belongs to none."""
    return sorted(path for path in (ROOT / "tvae").rglob("*.py") if room_of(path) in ROOMS)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "tvae").parts[0].removesuffix(".py")


GETATTR = ["getattr", "tvae"]
# A module that a string names is imported by it, now or later. Tags such as `tvae.version` name none.
NAMED = re.compile(rf"tvae\.({'|'.join(ROOMS)})(\.\w+)*")


def modules_imported(source: str) -> Iterator[str]:
    """Every module or name that a source imports or names in a string, and every attribute it takes of `tvae`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name != "tvae")
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tvae":
            yield f"tvae.{node.attr}"
        elif isinstance(node, ast.Call) and [ast.unparse(part) for part in (node.func, *node.args[:1])] == GETATTR:
            yield f"tvae.{ast.literal_eval(node.args[1])}"
        elif isinstance(node, ast.Constant) and NAMED.fullmatch(str(node.value)):
            yield node.value


def arrows(source: str) -> set[str]:
    """The rooms that a source knows. What it takes of `tvae` itself, save `__version__`, stands under its own name."""
    parts = [name.split(".") for name in modules_imported(source)]
    known = {p[0] if p[0] == "entry_points" else p[1] for p in parts if p[0] in ("tvae", "entry_points")}
    return {name for name in known if not name.startswith("__")}


def allowed(room: str) -> list[str]:
    above = list(ROOMS)[: list(ROOMS).index(room)]
    return above if ROOMS[room].knows == EVERYTHING_ABOVE else ROOMS[room].knows.split()


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """What has come in after the import of each room that is probed, lightest room first."""
    names = [f"tvae.{name}" for name, room in ROOMS.items() if room.loads is not None and name in rooms_on_disk()]
    command = [sys.executable, "-c", PROBE, "tvae", *names]
    run = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return {room.removeprefix("tvae."): set(packages) for room, packages in map(json.loads, run.stdout.splitlines())}


def test_rooms_are_found_where_they_are_looked_for() -> None:
    assert set(rooms_on_disk()) >= {"errors", "config", "ternary", "poincare", "model", "metrics"}


def test_every_room_has_its_line_in_the_table() -> None:
    unknown = set(rooms_on_disk()) - set(ROOMS)
    assert not unknown, (
        f"{', '.join(sorted(unknown))} is in tvae/ but not in ROOMS of {Path(__file__).name}: "
        "add a line that says what it may know, and what its import may pull in."
    )


@pytest.mark.parametrize("room", ROOMS)
def test_arrows_of_the_table_point_upwards(room: str) -> None:
    names = list(ROOMS)
    assert set(allowed(room)) <= set(names[: names.index(room)])


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_source_knows_no_more_than_its_room_may(path: Path) -> None:
    room = room_of(path)
    beyond = arrows(path.read_text(encoding="utf-8")) - {room, *allowed(room)}
    assert not beyond, f"`{room}` must not know {', '.join(sorted(beyond))}; it may know: {', '.join(allowed(room))}."
    # A relative import would hide its room.
    assert not [name for name in modules_imported(path.read_text(encoding="utf-8")) if name.startswith(".")]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import numpy, math", set()),
        ("import tvae\nprint(tvae.__version__)", set()),
        ("from tvae import __version__", set()),
        ("from tvae import metrics, poincare as p", {"metrics", "poincare"}),
        ("from tvae.training.cohort import train", {"training"}),
        ("import tvae.registry as r", {"registry"}),
        ("import tvae\ntvae.serving.predict", {"serving"}),
        ("from tvae import Architecture", {"Architecture"}),
        ("from entry_points import train", {"entry_points"}),
        ("import entry_points.train", {"entry_points"}),
        ("def f():\n    from tvae.tracking import log", {"tracking"}),
        ("importlib.import_module('tvae.serving')", {"serving"}),
        ("HOME = {'report': 'tvae.report.page'}", {"report"}),
        ("getattr(tvae, 'sweeps')", {"sweeps"}),
        ("if TYPE_CHECKING:\n    from tvae.report import Page", {"report"}),
    ],
)
def test_arrow_is_seen_however_it_is_written(source: str, expected: set[str]) -> None:
    assert arrows(source) == expected


def test_code_that_travels_with_a_network_is_all_that_it_imports() -> None:
    from tvae.serving import CODE_OF_NETWORK

    travelling = {name.removesuffix(".py") for name in CODE_OF_NETWORK}
    known = set().union(*(arrows(path.read_text("utf-8")) for path in sources() if room_of(path) in travelling))
    assert known | {"serving"} == travelling - {"__init__"}


@pytest.mark.parametrize("room", ["tvae", "errors", "fresh", "locks", "markdown", "config"])
def test_light_room_loads_nothing_from_outside(loaded: dict[str, set[str]], room: str) -> None:
    assert loaded[room] == set()


@pytest.mark.parametrize("room", [name for name in rooms_on_disk() if name in ROOMS and ROOMS[name].loads is not None])
def test_import_of_a_room_pulls_in_no_more_than_it_may(loaded: dict[str, set[str]], room: str) -> None:
    assert (loaded[room] & WATCHED) <= (ROOMS[room].loads or set())


@pytest.mark.long
def test_whoever_has_figures_drawn_does_not_import_matplotlib() -> None:
    code = "import sys, tvae.workflows.session; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=120).returncode == 0


@pytest.mark.parametrize("name", tvae.__all__)
def test_public_name_is_found_on_first_use(name: str) -> None:
    assert getattr(tvae, name).__name__ == name


def test_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'tvae' has no attribute 'nonsense'"):
        tvae.nonsense  # noqa: B018
