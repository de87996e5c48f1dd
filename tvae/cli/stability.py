"""Stability: the same configuration over many seeds, with statistics."""

from typing import Any

from tvae.cli.command import command, defaults_of
from tvae.cli.options import ARCHITECTURE, EXECUTION, TRAINING, options, renamed
from tvae.config.presets import resolve

_SETTINGS = ("seed", *ARCHITECTURE, *TRAINING)


@command
@options("preset", *ARCHITECTURE, *TRAINING, "many_seeds", "load", "seed", *EXECUTION)
@renamed("runs", "seeds")
def main(**asked: Any) -> None:
    """Train the same configuration with many seeds, as one batch, and say how much the result depends on the seed.

    Every seed is a run under one parent, which has mean, standard deviation, best and worst of all.
    """
    architecture, configuration = resolve(asked["preset"], {name: asked[name] for name in _SETTINGS})

    from tvae.sweeps.plan import Plan
    from tvae.sweeps.stability import stability_metrics
    from tvae.sweeps.trial import Trial
    from tvae.workflows.sweep import open_sweep

    cell = f"c={architecture.curvature:g} {configuration.objective}"
    if asked["load"] == "mismatched":
        cell = f"DEMONSTRATION of a silent partial load, {cell}"
        configuration = configuration.replace(initial_hierarchy="any")
    seeds = range(configuration.seed, configuration.seed + asked["seeds"])
    plan = Plan(
        tuple(Trial("stability", cell, architecture, configuration.replace(seed=seed), asked["load"]) for seed in seeds)
    )
    values = architecture.to_dict() | configuration.to_dict()
    used = {name: values[name] for name in asked if name in values}
    name = f"stability {cell}, {asked['seeds']} seeds"
    with open_sweep("stability", name, asked, defaults_of(main), plan, used) as sweep:
        sweep.train()
        sweep.finish(stability_metrics)
