"""A whole training in one call: what a person asks for in Python, without MLflow."""

import os
from typing import Any, NamedTuple

from tvae.checkpoint import Checkpoint, save
from tvae.config.presets import resolve, resolve_foundation
from tvae.model import COMPONENTS, TernaryVAE
from tvae.training import Observer, Result
from tvae.training import train as train_member
from tvae.training.device import resolve_device
from tvae.training.member import AT_BEST
from tvae.training.start import from_foundation, from_scratch

__all__ = ["Trained", "train"]


class Trained(NamedTuple):
    """A model, and how it was trained.

    Attributes:
        model: with the weights of its best epoch, on the CPU.
        result: its `history` has a record an epoch, the foundation's epochs first; its `summary()` holds the results.
    """

    model: TernaryVAE
    result: Result

    def save(self, path: str | os.PathLike[str]) -> Checkpoint:
        """Write the model as a checkpoint, which `tvae.load` and every command take.

        Args:
            path: the file, in a folder that exists.

        Raises:
            CheckpointError: if it cannot be written.
        """
        configuration, at_best = self.result.configuration, self.result.history[self.result.best_epoch]
        training = {"stage": "scratch", "seed": configuration.seed, "configuration": configuration.to_dict()}
        trained = [name for name in COMPONENTS if getattr(self.model, name) is not None]
        return save(path, self.model, trained=trained, training=training, metrics={k: at_best[k] for k in AT_BEST})


def train(
    preset: str = "default",
    seed: int = 0,
    *,
    foundation_epochs: int | str = "auto",
    device: str = "auto",
    observer: Observer | None = None,
    **settings: Any,
) -> Trained:
    """Train a model from random weights: encoder and decoder first, then the projection, as the command `scratch` does.

    The same seed and settings give the same weights as that command gives, on the same machine. Nothing is logged, and
    mlflow is not imported.

    Args:
        preset: a key of `tvae.config.presets.PRESETS`.
        seed: of every draw.
        foundation_epochs: epochs of the first stage; `auto` leaves them to its recipe.
        device: a torch device; `auto` is a GPU where there is one.
        observer: is told of every epoch and event.
        **settings: what to change of the preset, by the names that the commands use: `curvature=1.0`, `epochs=20`, ….

    Returns:
        The model and its result.

    Raises:
        ArchitectureError: if an architecture is asked for that cannot be built.
        ConfigurationError: if the preset or a setting is unknown, or a setting is out of range.
        TrainingError: on NaN or infinity in a loss, a gradient or a radius.

    Example:
        `model, result = tvae.train(seed=1, curvature=1.0)`
    """
    architecture, configuration = resolve(preset, {**settings, "seed": seed})
    shared = {name: settings.get(name, "auto") for name in ("beta", "holdout")}
    asked = {"epochs": foundation_epochs, "seed": seed, **shared}
    first_stage, device = resolve_foundation(architecture, asked), resolve_device(device)
    first = train_member(from_scratch(architecture, first_stage), device=device, observer=observer)
    second = train_member(from_foundation(first, configuration), device=device, observer=observer)
    return Trained(second.model, second.after(first))
