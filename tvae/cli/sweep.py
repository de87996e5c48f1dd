"""Sweep: the phases of the reference sweep, a grid of the user's, or a search."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvae.cli.command import command, defaults_of
from tvae.cli.options import ARCHITECTURE, EXECUTION, NONE, TRAINING, options
from tvae.errors import ConfigurationError

if TYPE_CHECKING:
    from tvae.sweeps.plan import Plan

_logger = logging.getLogger(__name__)

_SETTINGS = tuple(dict.fromkeys(("preset", *ARCHITECTURE, *TRAINING)))


@command
@options("phase", "grid", "search", "trials", "seeds", "seed")
@options(*_SETTINGS, left_open=True)
@options("checkpoint", "new_projection", *EXECUTION)
def main(**asked: Any) -> None:
    """Train many configurations with several seeds each, and report which differences between them are real.

    The phases are the tables of the reference sweep of 2025-12-29, 55 experiments in all. Every training is a run under
    one parent, whose report.html says what came of it. A setting that is given here counts for every training.
    """
    if asked["grid"] != NONE and asked["phase"] != "all":
        raise ConfigurationError("`grid` and `phase` exclude each other: a grid file has its own cells. Leave one out.")

    from tvae.workflows.sweep import open_sweep

    # A run that is resumed has its own plan: neither the options nor the grid file need be there any more.
    plan = _plan(asked) if asked["resume"] in ("none", "auto") else None
    with open_sweep("sweep", _title(asked), asked, defaults_of(main), plan) as sweep:
        sweep.train()
        sweep.finish()


def _plan(asked: Mapping[str, Any]) -> "Plan":
    from tvae.sweeps.grid import grid_axes, grid_trials
    from tvae.sweeps.phases import REFERENCE_PRESET, phase_trials
    from tvae.sweeps.plan import Plan
    from tvae.sweeps.search import Search
    from tvae.sweeps.trial import merged

    settings = {name: asked[name] for name in _SETTINGS if asked[name] != "auto"}
    path = None if asked["grid"] == NONE else Path(asked["grid"])
    start = {"checkpoint": asked["checkpoint"], "new_projection": asked["new_projection"]}
    seeds = {"seeds": asked["seeds"], "first_seed": asked["seed"]}
    if asked["search"] != NONE:
        base, choices = grid_axes(path, settings) if path else ({"preset": REFERENCE_PRESET, **settings}, {})
        return Plan(Search(base, choices, asked["trials"], **seeds), **start)
    if path:
        cells = grid_trials(path, asked=settings, **seeds)
    else:
        cells = phase_trials(asked["phase"], asked=settings, **seeds)
    trials, notes = merged(cells)
    for note in notes:
        _logger.info(note)
    return Plan(trials, **start)


def _title(asked: Mapping[str, Any]) -> str:
    what = Path(asked["grid"]).name if asked["grid"] != NONE else asked["phase"]
    if asked["search"] != NONE:
        return f"search {asked['search']}, {asked['trials']} trials"
    typed = [str(asked[name]) for name in ("preset", "objective") if asked[name] != "auto"]
    return f"sweep {' '.join([what, *typed])}, {asked['seeds']} seeds"
