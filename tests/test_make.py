"""What `make` refuses before anything starts."""

import importlib
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TARGETS = ("train", "finetune", "scratch", "stability", "sweep", "report", "verify", "promote", "embed")
OPTIONS = sorted(
    (name, str(option.name))
    for name in TARGETS
    for option in importlib.import_module(f"entry_points.{name}").main.params
)


def make(*words: str) -> subprocess.CompletedProcess[str]:
    """Run make as if the environment were there."""
    return subprocess.run(
        ["make", "--old-file", ".venv/ready", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("target", "option"), OPTIONS)
def test_an_option_that_is_not_in_ARGS_is_refused(target: str, option: str) -> None:
    done = make("--dry-run", target, f"{option}=8")
    assert done.returncode == 2
    assert f"Options go into ARGS, as in: make finetune ARGS='--{option} 8'" in done.stderr


@pytest.mark.parametrize("word", ["PORT=5050", "ARGS=--seed 1", "MLFLOW_EXPERIMENT_NAME=x", "PYTHON=python3.12"])
def test_what_is_no_option_is_taken(word: str) -> None:
    assert make("--dry-run", "finetune", word).returncode == 0


@pytest.mark.parametrize(("target", "variable"), [("ui", "PORT"), ("serve", "SERVE_PORT")])
@pytest.mark.parametrize("port", [5060, 5061, 6000])
def test_a_port_that_browsers_refuse_is_named(target: str, variable: str, port: int) -> None:
    done = make(target, f"{variable}={port}")
    assert done.returncode == 2
    assert done.stderr.startswith(f"Browsers refuse to open port {port}: pass {variable}=another.")
