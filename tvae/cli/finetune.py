"""Finetune: the main job."""

from typing import Any

from tvae.cli.command import command, defaults_of
from tvae.cli.options import ARCHITECTURE, TRAINING, options
from tvae.config.presets import resolve
from tvae.workflows.messages import run_name

_OWN = ("preset", "checkpoint", "new_projection", "device", "promote")


@command
@options("preset", *ARCHITECTURE, *TRAINING, "checkpoint", "new_projection", "seed", "device", "promote")
def main(**asked: Any) -> None:
    """Learn the projection into the Poincaré ball, starting from a foundation or a checkpoint: the main job.

    By default the encoder learns too, and the decoder stays as it is. Where no foundation is registered, one is
    trained first, in a run of its own.
    """
    architecture, configuration = resolve(
        asked["preset"], {name: value for name, value in asked.items() if name not in _OWN}
    )

    from tvae.workflows.session import open_session

    defaults = defaults_of(main)
    name = run_name("finetune", asked, defaults)
    with open_session("finetune", name, asked, defaults, architecture, configuration) as session:
        checkpoint = session.starting_checkpoint(asked["checkpoint"])
        session.finetune(checkpoint, new_projection=asked["new_projection"])
