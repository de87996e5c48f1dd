"""Every option of every command: its type, its help, and its default from where that is stated once."""

import os
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from tvae.config.architecture import Architecture
from tvae.config.presets import PRESET_SETTINGS, PRESETS
from tvae.config.setting import choices, help_of
from tvae.config.training import BACKENDS, NONE, OBJECTIVES, Configuration
from tvae.sweeps.phases import ALL, PHASES
from tvae.sweeps.trial import LOADS

__all__ = [
    "ARCHITECTURE",
    "CHAMPION_ADDRESS",
    "EXECUTION",
    "NONE",
    "PLACE",
    "TRAINING",
    "OrAuto",
    "address",
    "options",
    "out",
    "renamed",
]

ARCHITECTURE = (
    "n_trits", "curvature", "max_radius", "hidden_dim", "n_projection_layers", "latent_dim", "use_controller",
)  # fmt: skip
TRAINING = ("objective", *(name for name in PRESET_SETTINGS if name not in ARCHITECTURE), "holdout")

EXECUTION = ("device", "backend", "address", "workers", "resume")

CHAMPION_ADDRESS = "models:/tvae@champion"

_HELP = {
    **help_of(Architecture),
    **help_of(Configuration),
    "preset": "Named settings, which count where neither the cell nor an option here says otherwise.",
}
_CHOICES = {
    **choices(Configuration),
    "objective": tuple(name for name in OBJECTIVES if name != "elbo"),  # that is what `train` does
}

Command = Callable[..., Any]


class OrAuto(click.ParamType[Any]):
    """A value of another type, or the word `auto`."""

    def __init__(self, of: click.ParamType[Any]) -> None:
        self.of, self.name = of, f"{of.name}|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "auto" else self.of.convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"{self.of.name.upper()}|auto"


class _Place(click.ParamType[str]):
    """A path in which `~` is the user's home: shells expand it in `--out ~/x` only, and `mlflow run` nowhere."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return os.path.expanduser(value)


PLACE = _Place()


def options(*names: str, left_open: bool = False) -> Callable[[Command], Command]:
    """Give a command options by name.

    Args:
        names: of fields of `Architecture` and `Configuration`, or keys of the table of further options.
        left_open: whether every setting may be left to each trial of a sweep, with `auto`.
    """

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            if left_open:
                option = _left_open(name)
            elif name in _FURTHER:
                option = _FURTHER[name]
            else:
                option = _setting(name)
            command = option(command)
        return command

    return decorate


def address(default: str) -> Callable[[Command], Command]:
    """Give a command the option `checkpoint`: a finished one, wherever it is."""
    return click.option(
        "--checkpoint",
        type=PLACE,
        default=default,
        help="A path, the id of a run, or a models:/ or runs:/ address.",
    )


def out(what: str) -> Callable[[Command], Command]:
    """Give a command the option `out`: where to write, besides the run."""
    return click.option("--out", type=PLACE, default=NONE, help=what)


def _setting(name: str) -> Callable[[Command], Command]:
    default = getattr(Configuration() if name in _SETTINGS else Architecture(), name)
    of: click.ParamType[Any] = click.Choice(_CHOICES[name]) if name in _CHOICES else _TYPES[type(default)]
    if name not in PRESET_SETTINGS:
        return click.option(f"--{name}", type=of, default=default, help=_HELP[name])
    of = click.Choice([*of.choices, "auto"]) if isinstance(of, click.Choice) else OrAuto(of)
    text = f"{_HELP[name]} auto: what the preset or the foundation's recipe says."
    return click.option(f"--{name}", type=of, default="auto", help=text)


def _left_open(name: str) -> Callable[[Command], Command]:
    named = {**_CHOICES, "preset": tuple(PRESETS)}
    of: click.ParamType[Any]
    if name in named:
        of = click.Choice([*named[name], "auto"])
    else:
        of = OrAuto(_TYPES[type(getattr(Configuration() if name in _SETTINGS else Architecture(), name))])
    text = f"{_HELP[name]} auto: what the cell says."
    return click.option(f"--{name}", type=of, default="auto", help=text)


def renamed(old: str, new: str) -> Callable[[Command], Command]:
    """Let a command answer an option by its old name with the new one."""

    def refuse(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError(f"`{old}` is called `{new}` now; pass --{new} {value}.", ctx)

    return click.option(f"--{old}", hidden=True, expose_value=False, callback=refuse)


_SETTINGS = {f.name for f in fields(Configuration)}
_TYPES: dict[type, click.ParamType[Any]] = {bool: click.BOOL, int: click.INT, float: click.FLOAT}
_FURTHER = {
    "preset": click.option(
        "--preset",
        type=click.Choice(list(PRESETS)),
        default="default",
        help="Named settings for everything that is auto. default: the exact 3-adic tree, operation 0 at the centre; "
        "rich: the tree with richness; radii: the order of radii alone, the quickest. max_hierarchy and stable are the "
        "reference sweep's, kept to compare.",
    ),
    "seed": click.option("--seed", type=click.INT, default=Configuration().seed, help="Of weights, batches and noise."),
    "device": click.option("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, …"),
    "checkpoint": click.option(
        "--checkpoint",
        type=PLACE,
        default="auto",
        help="Where to start: auto (the registered foundation; trains one where there is none), a path, or a models:/ "
        "or runs:/ address.",
    ),
    "new_projection": click.option(
        "--new_projection",
        type=click.BOOL,
        default=False,
        help="Take encoder and decoder only from the checkpoint, and learn a new projection.",
    ),
    "foundation_epochs": click.option(
        "--foundation_epochs",
        type=OrAuto(click.INT),
        default="auto",
        help="Epochs of the first stage, encoder and decoder; auto: as finetune trains a foundation.",
    ),
    "many_seeds": click.option(
        "--seeds", type=click.IntRange(1, 10_000), default=25, help="How many seeds, from seed on."
    ),
    "load": click.option(
        "--load",
        type=click.Choice(LOADS),
        default=LOADS[0],
        help="matched starts as finetune does; mismatched is a DEMONSTRATION of what a silent partial load does.",
    ),
    "phase": click.option(
        "--phase",
        type=click.Choice([ALL, *PHASES]),
        default=ALL,
        help="Which tables of the reference sweep to make again.",
    ),
    "grid": click.option(
        "--grid",
        type=PLACE,
        default=NONE,
        help="A YAML or JSON file with cells of your own, instead of a phase; see README.",
    ),
    "seeds": click.option(
        "--seeds",
        type=click.IntRange(1, 10_000),
        default=3,
        help="Runs of each cell; with fewer than 3 nothing can be concluded.",
    ),
    "search": click.option(
        "--search",
        type=click.Choice(["none", "tpe"]),
        default="none",
        help="tpe looks for good settings instead of making tables (needs tvae[search]); grid gives it other choices.",
    ),
    "trials": click.option("--trials", type=click.IntRange(1, 10_000), default=64, help="Cells that a search tries."),
    "backend": click.option(
        "--backend",
        type=click.Choice(BACKENDS),
        default=BACKENDS[0],
        help="Where cohorts train: this machine, processes of it, or a cluster (needs tvae[dask] or tvae[ray]).",
    ),
    "address": click.option(
        "--address",
        default=NONE,
        help="Of a running cluster, tcp://host:8786 or ray://host:10001; without one a cluster is started here.",
    ),
    "workers": click.option(
        "--workers",
        type=OrAuto(click.INT),
        default="auto",
        help="How many cohorts train at a time.",
    ),
    "resume": click.option(
        "--resume",
        default=NONE,
        help="Resume an unfinished run: its id, or auto for the newest one of the same trials.",
    ),
    "promote": click.option(
        "--promote",
        type=click.Choice(["auto", "never", "force"]),
        default="auto",
        help="auto registers a verified model and makes it champion if it is better; force makes it champion anyway.",
    ),
}
