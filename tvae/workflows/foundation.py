"""Foundations as commands leave them: logged, described, and registered once they are verified."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from mlflow import MlflowClient

from tvae import registry
from tvae.checkpoint import Checkpoint
from tvae.config.architecture import Architecture
from tvae.config.presets import resolve
from tvae.config.training import Configuration
from tvae.fresh import FreshProcess
from tvae.tracking.description import describe_foundation
from tvae.tracking.outcome import Outcome, log_foundation, process_for_outcome
from tvae.tracking.run import Run, open_run
from tvae.training import Result
from tvae.workflows.messages import command_line

_logger = logging.getLogger(__name__)

_LOOK = {"curves": "plots/training_curves.png", "verification": "verification.json"}

__all__ = ["foundation_apart", "record_foundation", "training_record"]


def foundation_apart(
    client: MlflowClient,
    architecture: Architecture,
    configuration: Configuration,
    train: Callable[[Run], Result],
    tags: Mapping[str, str],
) -> tuple[str, Checkpoint]:
    """Make a foundation that another run starts from, in a run beside it.

    Args:
        client: of the tracking store.
        architecture: of the model.
        configuration: of its training.
        train: trains it, or has done so, and logs its epochs to the run that it is given.
        tags: of the run, besides its stage.

    Returns:
        Its address, and its checkpoint, which is used whether it was good enough to be registered or not.
    """
    name = f"foundation d={architecture.latent_dim} seed={configuration.seed}"
    with (
        process_for_outcome() as process,
        open_run(client, name=name, tags={"stage": "foundation", **tags}, apart=True) as run,
    ):
        run.log_parameters(architecture.to_dict() | configuration.to_dict())
        run.log_operations(architecture.n_trits)
        result = train(run)
        command = foundation_command(architecture, configuration)
        outcome = record_foundation(client, run, result, process, command=command, register=True)
    if not outcome.verification.passed:
        _logger.info(f"Not registered: {outcome.verification.failures}. It is started from all the same.")
    return f"runs:/{run.id}/checkpoint", outcome.checkpoint


def record_foundation(
    client: MlflowClient,
    run: Run,
    result: Result,
    process: FreshProcess,
    *,
    command: str,
    register: bool,
    settings: str = "",
) -> Outcome:
    """Log a foundation that was trained, and register it if it is verified.

    Args:
        client: of the tracking store.
        run: of the foundation.
        result: of its training.
        process: as `log_foundation` takes it.
        command: which repeats the run.
        register: whether to.
        settings: a table of what it was trained with, in Markdown, if anybody chose it.
    """
    training = training_record("foundation", result.configuration)
    outcome, model_id = log_foundation(client, run, result, training, process)
    coverage = outcome.verification.metrics["coverage"]
    look = {name: run.page(f"artifacts/{path}") for name, path in _LOOK.items()}
    run.describe(f"{describe_foundation(result, coverage, command=command, look=look)}\n\n{settings}".rstrip())
    epochs = len(result.history) - 1
    _logger.info(f"Foundation: coverage {coverage:.5f} after {epochs} epochs, {result.seconds:.1f} s.")
    if register and outcome.verification.passed:
        version = registry.register_foundation(client, outcome.verification, run.id, model_id)
        _logger.info(f"Registered as {registry.FOUNDATION_MODEL} version {version}, alias {registry.CHAMPION}.")
    return outcome


def foundation_command(architecture: Architecture, configuration: Configuration) -> str:
    """Return the command that trains a foundation as it is trained where nobody asks for one."""
    asked = {"n_trits": architecture.n_trits, "latent_dim": architecture.latent_dim, "seed": configuration.seed}
    left_out = resolve("default", {"n_trits": architecture.n_trits})[0].to_dict()
    left_out |= {"n_trits": Architecture().n_trits, "seed": Configuration().seed}
    return command_line("train", asked, left_out)


def training_record(stage: str, configuration: Configuration, **further: Any) -> dict[str, Any]:
    """Return what a checkpoint says of how it was made; nothing in it changes when the same run is repeated."""
    return {"stage": stage, "seed": configuration.seed, "configuration": configuration.to_dict(), **further}
