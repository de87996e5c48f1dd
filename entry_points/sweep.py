"""Sweep: the phases of the reference sweep, a grid of the user's, or a search."""

from pathlib import Path
from typing import Any

from entry_points.console import command, command_line, defaults_of
from entry_points.options import FLEET, NONE, options
from tvae.errors import ConfigurationError


@command
@options("phase", "grid", "objective", "seeds", "search", "trials", "seed", *FLEET)
def main(**asked: Any) -> None:
    """Train many configurations with several seeds each, and report which differences between them are real.

    The phases are the tables of the reference sweep of 2025-12-29, 55 experiments in all. Every training is a run under
    one parent, whose report.html says what came of it.
    """
    if asked["grid"] != NONE and asked["phase"] != "all":
        raise ConfigurationError("`grid` and `phase` exclude each other: a grid file has its own cells. Leave one out.")

    from entry_points.campaigns import opened
    from tvae.experiments.grid import grid_trials
    from tvae.experiments.phases import phase_trials

    how = {"objective": asked["objective"], "seeds": asked["seeds"], "first_seed": asked["seed"]}
    if asked["search"] != NONE:
        from entry_points.searching import search

        search(asked, command_line("sweep", asked, defaults_of(main)))
        return
    if asked["grid"] != NONE:
        path = Path(asked["grid"])
        trials, title = grid_trials(path, **how), f"sweep {path.name}"
    else:
        trials, title = phase_trials(asked["phase"], **how), f"sweep {asked['phase']} {asked['objective']}"
    with opened("sweep", f"{title}, {asked['seeds']} seeds", asked, trials) as (campaign, planned):
        campaign.train(planned)
        campaign.finish(command_line("sweep", asked, defaults_of(main)))


if __name__ == "__main__":
    main()
