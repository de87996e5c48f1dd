"""Both stages in one run, from random weights."""

from typing import Any

from tvae.cli.command import command, defaults_of
from tvae.cli.options import ARCHITECTURE, TRAINING, options
from tvae.config.presets import resolve, resolve_foundation
from tvae.workflows.messages import run_name

_OWN = ("preset", "foundation_epochs", "device", "promote")


@command
@options("preset", *ARCHITECTURE, *TRAINING, "foundation_epochs", "seed", "device", "promote")
def main(**asked: Any) -> None:
    """Train encoder, decoder and projection in one run, from random weights."""
    architecture, configuration = resolve(
        asked["preset"], {name: value for name, value in asked.items() if name not in _OWN}
    )
    shared = {name: asked[name] for name in ("seed", "beta", "holdout")}
    foundation = resolve_foundation(architecture, {"epochs": asked["foundation_epochs"], **shared})

    from tvae.workflows.session import open_session

    defaults = defaults_of(main)
    name = run_name("scratch", asked, defaults)
    with open_session("scratch", name, asked, defaults, architecture, configuration) as session:
        session.scratch(foundation)
