"""Foundations as commands leave them: logged, described, and registered once they are verified."""

from typing import Any, NamedTuple

from mlflow import MlflowClient

from entry_points.console import command_line, say
from tvae import registry
from tvae.aides import Aides
from tvae.architecture import Architecture
from tvae.checkpoint import Checkpoint, Verification, read
from tvae.configuration import Configuration
from tvae.tracking.description import describe_foundation
from tvae.tracking.outcome import log_foundation
from tvae.tracking.run import Run
from tvae.training import Result

_LOOK = {"curves": "plots/training_curves.png", "verification": "verification.json"}

__all__ = ["Foundation", "foundation_command", "record_foundation", "training_record"]


class Foundation(NamedTuple):
    """A foundation in its run.

    Attributes:
        checkpoint: as read back from the file that was logged.
        verification: of the checkpoint.
    """

    checkpoint: Checkpoint
    verification: Verification


def record_foundation(
    client: MlflowClient, run: Run, result: Result, aides: Aides, *, command: str, register: bool
) -> Foundation:
    """Log a foundation that was trained, and register it if it is verified.

    Args:
        client: of the tracking store.
        run: of the foundation.
        result: of its training.
        aides: of its training.
        command: which repeats the run.
        register: whether to.
    """
    outcome = log_foundation(run, result, training_record("foundation", result.configuration), aides)
    look = {name: run.page(f"artifacts/{path}") for name, path in _LOOK.items()}
    run.describe(describe_foundation(result, outcome.coverage, command=command, look=look))
    epochs = len(result.history) - 1
    say(f"Foundation: coverage {outcome.coverage:.5f} after {epochs} epochs, {result.seconds:.1f} s.")
    checkpoint = read(outcome.path)
    if register and outcome.verification.passed:
        version = registry.register_foundation(client, checkpoint, run.id)
        say(f"Registered as {registry.FOUNDATION} version {version}, alias {registry.CHAMPION}.")
    return Foundation(checkpoint, outcome.verification)


def foundation_command(architecture: Architecture, configuration: Configuration) -> str:
    """Return the command that trains a foundation as it is trained where nobody asks for one."""
    asked = {"latent_dim": architecture.latent_dim, "seed": configuration.seed}
    return command_line("train", asked, {"latent_dim": Architecture().latent_dim, "seed": Configuration().seed})


def training_record(stage: str, configuration: Configuration, **further: Any) -> dict[str, Any]:
    """Return what a checkpoint says of how it was made; nothing in it changes when the same run is repeated."""
    return {"stage": stage, "seed": configuration.seed, "configuration": configuration.to_dict(), **further}
