"""What a workflow says while it works, through the logger `tvae`, and how it names runs and commands.

The commands show what is logged at level INFO on standard output, and warnings on standard error. A program that uses
the workflows sees them as it sets up `logging`.
"""

import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

__all__ = ["Progress", "command_line", "next_command", "run_name", "say_where", "show_table"]

_logger = logging.getLogger(__name__)


def say_where(page: str) -> None:
    """Print where a page of the UI is: the last thing that a command says, so that nobody has to search for its run."""
    from tvae.tracking import links  # imports mlflow, for which `--help` does not wait

    _logger.info("\nLook at it: " + ("`make ui` (or `mlflow ui`), then open" if links.needs_ui() else "open"))
    _logger.info(f"  {links.address(page)}")


def show_table(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        _logger.info(f"  {name.ljust(width)}  {value}")


class Progress:
    """A progress bar over epochs, quiet where nobody watches."""

    def __init__(self, what: str, epochs: int) -> None:
        self._bar = tqdm(total=epochs, desc=what, unit="epoch", disable=not sys.stderr.isatty(), leave=False)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def epoch(self, record: dict[str, float]) -> None:
        """Advance to an epoch."""
        self._bar.update(int(record["epoch"]) - self._bar.n)
        shown = {name: record[name] for name in ("hierarchy", "coverage", "loss") if name in record}
        self._bar.set_postfix({name: f"{value:.4f}" for name, value in shown.items()})

    def event(self, text: str) -> None:
        """Print one sentence above the bar."""
        self._bar.write(text, file=sys.stdout)
        sys.stdout.flush()  # where it is not a terminal, what happened would be read only at the end


def command_line(name: str, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Return the `mlflow run` command that repeats a run: what differs from the defaults is named."""
    named = [f"-P {key}={shlex.quote(str(value))}" for key, value in values.items() if value != defaults.get(key)]
    return " ".join(["mlflow run .", f"-e {name}", *named, "--env-manager=local"])


def next_command(name: str, **options: object) -> str:
    """Return a command that a user may want next, in the way that this one was started: `mlflow run`, make, or itself.

    Args:
        name: of the entry point, which is also the target of make.
        options: other than the defaults.
    """
    if "MLFLOW_RUN_ID" in os.environ:
        return command_line(name, options, {})
    arguments = " ".join(f"--{key} {shlex.quote(str(value))}" for key, value in options.items())
    if "MAKELEVEL" in os.environ:
        return f"make {name} ARGS={shlex.quote(arguments.replace('$', '$$'))}"  # make expands $ once more
    return f"python -m entry_points.{name} {arguments}"


def run_name(kind: str, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Return what a run is called: its kind, curvature and seed, which a narrow table shows, then what else was asked.

    Args:
        kind: the command's name.
        values: every option as it was given.
        defaults: of the options.
    """
    of_the_desk = ("curvature", "seed", "checkpoint", "device", "promote")
    asked = [(k, v) for k, v in values.items() if k not in of_the_desk and v != defaults.get(k)]
    further = [str(value) if name in ("preset", "objective") else f"{name}={value}" for name, value in asked]
    return " ".join([kind, f"c={values['curvature']:g}", f"seed={values['seed']}", *further])
