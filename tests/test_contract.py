"""MLproject, the commands, the dataclasses, conda.yaml and pyproject.toml say the same thing."""

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from packaging.requirements import Requirement

from tvae.config.architecture import Architecture
from tvae.config.presets import PRESET_SETTINGS, resolve, resolve_foundation
from tvae.config.training import FOUNDATION, Configuration

ROOT = Path(__file__).parent.parent
PROJECT = yaml.safe_load((ROOT / "MLproject").read_text())
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONDA = yaml.safe_load((ROOT / "conda.yaml").read_text())
ENTRY_POINTS = sorted(PROJECT["entry_points"])


def module_of(entry_point: str) -> str:
    return "finetune" if entry_point == "main" else entry_point


def command_of(entry_point: str) -> click.Command:
    main = importlib.import_module(f"entry_points.{module_of(entry_point)}").main
    assert isinstance(main, click.Command)
    return main


def offered(entry_point: str) -> list[click.Parameter]:
    """The options of a command without those that only answer an old name with the new one."""
    return [option for option in command_of(entry_point).params if not getattr(option, "hidden", False)]


def declared(entry_point: str) -> dict[str, dict[str, Any]]:
    parameters: dict[str, dict[str, Any]] = PROJECT["entry_points"][entry_point]["parameters"]
    assert parameters
    return parameters


def test_the_project_has_the_entry_points_that_users_know() -> None:
    assert {"main", "train", "finetune", "scratch"} <= set(ENTRY_POINTS)


def test_every_command_is_an_entry_point() -> None:
    of_make_alone = {"store"}  # under `mlflow run` MLflow has made the store before any command starts
    modules = {path.stem for path in (ROOT / "entry_points").glob("*.py")} - {"__init__"} - of_make_alone
    assert modules == {module_of(name) for name in ENTRY_POINTS}


def test_main_is_finetune() -> None:
    assert PROJECT["entry_points"]["main"] == PROJECT["entry_points"]["finetune"]


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_mlproject_declares_the_options_of_the_command_with_their_defaults(entry_point: str) -> None:
    options = {str(option.name): str(option.default) for option in offered(entry_point)}
    assert {name: str(spec["default"]) for name, spec in declared(entry_point).items()} == options


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_every_declared_parameter_reaches_the_command_unquoted(entry_point: str) -> None:
    command = PROJECT["entry_points"][entry_point]["command"].split()
    expected = [word for name in declared(entry_point) for word in (f"--{name}", f"{{{name}}}")]
    assert command == ["python", "-m", f"entry_points.{module_of(entry_point)}", *expected]


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_mlproject_types_are_the_options_types(entry_point: str) -> None:
    kinds = {"integer": "int", "integer range": "int", "float": "float"}
    for option in offered(entry_point):
        assert declared(entry_point)[str(option.name)]["type"] == kinds.get(option.type.name, "string"), option.name


@pytest.mark.parametrize("entry_point", ["train", "finetune", "scratch"])
def test_defaults_of_the_commands_are_those_of_the_dataclasses(entry_point: str) -> None:
    stated = Architecture().to_dict() | Configuration().to_dict()
    asked = {str(o.name): o.default for o in command_of(entry_point).params if str(o.name) in stated}
    if entry_point == "train":
        of_training = {name: value for name, value in asked.items() if name in Configuration().to_dict()}
        assert resolve_foundation(Architecture(), of_training) == FOUNDATION
        asked = {name: value for name, value in asked.items() if name not in of_training}
    assert resolve("default", asked) == (Architecture(), Configuration())


def test_presets_can_set_exactly_what_finetune_leaves_to_auto() -> None:
    left = {str(o.name) for o in command_of("finetune").params if o.default == "auto"}
    assert left == {*PRESET_SETTINGS, "checkpoint", "device", "promote"}


CONSTRAINTS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]


def test_conda_pins_what_make_installs() -> None:
    (pip,) = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
    assert pip == CONSTRAINTS


def test_make_installs_one_version_of_each_dependency_out_of_its_range() -> None:
    pins = dict(pin.split("==") for pin in CONSTRAINTS)
    ranges = [Requirement(text) for text in PYPROJECT["project"]["dependencies"]]
    assert [r.name for r in ranges] == list(pins)
    assert all(r.specifier.contains(pins[r.name]) for r in ranges)


def test_every_range_has_both_ends() -> None:
    for text in PYPROJECT["project"]["dependencies"]:
        assert re.fullmatch(r"[\w-]+(>=[0-9.]+,<[0-9.]+|==[0-9.]+)", text), text


def test_the_tools_of_the_tests_are_pinned_exactly() -> None:
    pins = PYPROJECT["project"]["optional-dependencies"]["test"]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9.a-z]*", pin) for pin in pins)


def test_conda_pins_python_with_its_patch_and_pip() -> None:
    python, pip = CONDA["dependencies"][:2]
    assert re.fullmatch(r"python=3\.\d+\.\d+", python)
    assert re.fullmatch(r"pip=[0-9.]+", pip)


def test_conda_python_satisfies_pyproject() -> None:
    minimum = tuple(map(int, PYPROJECT["project"]["requires-python"].removeprefix(">=").split(".")))
    version = tuple(map(int, CONDA["dependencies"][0].removeprefix("python=").split(".")))
    assert version >= minimum


@pytest.mark.integration
@pytest.mark.parametrize("entry_point", sorted({module_of(name) for name in ENTRY_POINTS}))
def test_help_imports_neither_torch_nor_mlflow(entry_point: str) -> None:
    code = (
        f"import sys, entry_points.{entry_point} as e\n"
        "try: e.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print({'torch', 'mlflow', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
