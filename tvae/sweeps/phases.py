"""The phases of the reference sweep of 2025-12-29, with its own grids: 55 experiments in all."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tvae.config.presets import resolve
from tvae.errors import ConfigurationError
from tvae.sweeps.trial import LOADS, Trial

__all__ = ["ALL", "PHASES", "REFERENCE_PRESET", "cell_trials", "phase_trials"]

ALL = "all"

REFERENCE_PRESET = "radii"
"""What trains as the reference sweep did: the order of radii, on an encoder that stays as it is."""

# A cell's settings by its name. What a cell does not name is as in `_COMMON`, and beyond that as in its preset. The
# reference trained at a constant learning rate unless it says otherwise, and stopped early only where it says so.
_COMMON: dict[str, Any] = {
    "preset": REFERENCE_PRESET,
    "curvature": 2.0,
    "lr": 5e-4,
    "scheduler": "constant",
    "initial_hierarchy": "any",
}
_STABILITY = {"lr": 3e-4, "epochs": 50, "patience": 5}
_RATES = {"epochs": 30, "patience": 5}


def _weights(hierarchy: float, richness: float, separation: float) -> dict[str, Any]:
    weights = {"hierarchy_weight": hierarchy, "richness_weight": richness, "separation_weight": separation}
    return {**weights, "epochs": 100, "patience": 100}


def _schedule(scheduler: str, patience: int = 60) -> dict[str, Any]:
    return {"scheduler": scheduler, "patience": patience, "epochs": 60}


PHASES: dict[str, dict[str, dict[str, Any]]] = {
    "curvature": {
        **{f"curvature={c:g}": {"curvature": c, "epochs": 40, "patience": 40} for c in (0.5, 1.0, 2.0)},
        # The third of these, latent_dim=16, is `curvature=1`.
        **{f"latent_dim={d}": {"latent_dim": d, "curvature": 1.0, "epochs": 40, "patience": 40} for d in (8, 32)},
    },
    "loss_weights": {
        "baseline 5/2/3": _weights(5, 2, 3),
        "high_hier 8/1/4": _weights(8, 1, 4),
        "high_rich 3/4/2": _weights(3, 4, 2),
        "balanced 5/5/3": _weights(5, 5, 3),
        "extreme_hier 10/0.5/5": _weights(10, 0.5, 5),
    },
    "schedule": {
        "constant": _schedule("constant"),
        "early_stop_p10": _schedule("constant", 10),
        "cosine": _schedule("cosine"),
        "step": _schedule("step"),
        "plateau_early_stop_p8": _schedule("plateau", 8),
        "early_stop_p5": _schedule("constant", 5),
    },
    "learning_rate": {
        **{f"lr={lr:g}": {"lr": lr, **_RATES} for lr in (1e-4, 3e-4, 5e-4, 1e-3)},
        "lr=0.0005 again": _RATES,
        "lr=0.0005 hierarchy_weight=8": {"hierarchy_weight": 8.0, **_RATES},
        "lr=0.0005 slower encoder": {"unfreeze": "encoder", "encoder_lr_scale": 0.01, **_RATES},
    },
    "stability": {"lr=0.0003": _STABILITY},
    "extended": {"lr=0.0003, further seeds": _STABILITY},
    "loads": {"mismatched load": {"load": "mismatched", **_STABILITY}},
}
"""Settings by phase and cell. `loads` is the reference's investigation of five loads of one checkpoint."""

# Runs of the cells that are seeds already, and the first seed of each beyond the user's own.
_RUNS = {
    ("learning_rate", "lr=0.0005 again"): (3, 1000),
    ("stability", "lr=0.0003"): (10, 0),
    ("extended", "lr=0.0003, further seeds"): (15, 10),
    ("loads", "mismatched load"): (5, 0),
}


def phase_trials(
    phase: str, *, asked: Mapping[str, Any] | None = None, seeds: int = 3, first_seed: int = 0
) -> tuple[Trial, ...]:
    """Return the trials of a phase.

    Args:
        phase: a key of `PHASES`, or `all`.
        asked: settings that count for every cell, as for `cell_trials`; cells that differ in nothing else coincide.
        seeds: for each cell, save those that are seeds already.
        first_seed: the seeds of a cell count from here.

    Raises:
        ConfigurationError: if the phase is unknown or a setting is out of range.
    """
    if phase not in (*PHASES, ALL):
        raise ConfigurationError(f"`phase` must be one of {', '.join([*PHASES, ALL])}, got {phase!r}.")
    if seeds < 1:
        raise ConfigurationError(f"`seeds` must be at least 1, got {seeds}.")
    return tuple(
        trial
        for name in (PHASES if phase == ALL else [phase])
        for cell, settings in PHASES[name].items()
        for trial in cell_trials(
            name, cell, {**_COMMON, **settings, **(asked or {})}, _seeds(name, cell, seeds, first_seed)
        )
    )


def _seeds(phase: str, cell: str, seeds: int, first_seed: int) -> range:
    runs, beyond = _RUNS.get((phase, cell), (seeds, 0))
    return range(first_seed + beyond, first_seed + beyond + runs)


def cell_trials(phase: str, cell: str, settings: Mapping[str, Any], seeds: Sequence[int]) -> Iterator[Trial]:
    """Yield the trials of one cell.

    Args:
        phase: of the trials.
        cell: its name.
        settings: fields of `Architecture` and `Configuration`, `preset` and `load`, by name; the rest is as the preset
            has it.
        seeds: one trial for each.

    Raises:
        ArchitectureError: if the architecture cannot be built.
        ConfigurationError: if a name is unknown or a setting out of range.
    """
    further = {"preset": "default", "load": LOADS[0]} | {k: v for k, v in settings.items() if k in ("preset", "load")}
    architecture, configuration = resolve(
        further["preset"], {name: value for name, value in settings.items() if name not in further}
    )
    for seed in seeds:
        yield Trial(phase, cell, architecture, configuration.replace(seed=seed), further["load"])
