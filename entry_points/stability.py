"""Stability: the same configuration over many seeds, with statistics."""

from typing import Any

from entry_points.console import command, command_line, defaults_of
from entry_points.options import ARCHITECTURE, FLEET, TRAINING, options
from tvae.experiments.presets import resolve

_OWN = ("preset", "runs", "load", *FLEET)


@command
@options("preset", *ARCHITECTURE, *TRAINING, "runs", "load", "seed", *FLEET)
def main(**asked: Any) -> None:
    """Train the same configuration with many seeds, as one batch, and say how much the result depends on the seed.

    Every seed is a run under one parent, which has mean, standard deviation, best and worst of all.
    """
    architecture, configuration = resolve(
        asked["preset"], {name: value for name, value in asked.items() if name not in _OWN}
    )

    from entry_points.campaigns import opened
    from tvae.experiments.stability import stability_metrics
    from tvae.experiments.trial import Trial

    cell = f"c={architecture.curvature:g} {configuration.objective}"
    if asked["load"] == "mismatched":
        cell = f"DEMONSTRATION of a silent partial load, {cell}"
        configuration = configuration.replace(initial_hierarchy="any")
    seeds = range(configuration.seed, configuration.seed + asked["runs"])
    trials = [Trial("stability", cell, architecture, configuration.replace(seed=seed), asked["load"]) for seed in seeds]
    with opened("stability", f"stability {cell}, {asked['runs']} seeds", asked, trials) as (campaign, planned):
        campaign.train(planned)
        campaign.finish(command_line("stability", asked, defaults_of(main)), stability_metrics)


if __name__ == "__main__":
    main()
