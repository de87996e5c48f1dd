"""What a training leaves in its run: metrics, checkpoint, verdict, figures and the model that can be served."""

import logging
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from tvae.checkpoint import FILE_NAME, Checkpoint, Verification, save, verify
from tvae.checkpoint.verification import VERDICT_NAME, Digests, load_afresh
from tvae.config.architecture import MOST_LISTED
from tvae.errors import CheckpointError
from tvae.fresh import FreshProcess, ProcessError
from tvae.metrics import Evaluation, embed
from tvae.model import TernaryVAE
from tvae.plots import disk
from tvae.plots.draw import draw
from tvae.torch_defaults import torch_defaults
from tvae.tracking.model import log_foundation_model, log_model
from tvae.tracking.run import Run
from tvae.training import Result

__all__ = ["MEASURED", "Outcome", "log_embedding", "log_foundation", "process_for_outcome", "save_result"]

MEASURED = ("coverage", "hierarchy", "richness", "ordered_levels", "distance_fidelity")
"""What a training with a projection measures at every epoch, and its checkpoint claims."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trained model in its run.

    Attributes:
        verification: of the checkpoint.
        checkpoint: as it was read back for the verification.
        figures: the names of those that were drawn.
    """

    verification: Verification
    checkpoint: Checkpoint
    figures: tuple[str, ...]


def process_for_outcome() -> FreshProcess:
    """Start the process that will load a training's checkpoint afresh and draw its figures; it imports ahead.

    Raises:
        OSError: if it cannot be started.
    """
    return FreshProcess("tvae.checkpoint", "tvae.plots.figures")


# The other process has the other core.
@torch_defaults(threads=1)
def log_foundation(
    client: MlflowClient, run: Run, result: Result, training: Mapping[str, Any], process: FreshProcess
) -> tuple[Outcome, str]:
    """Log a trained encoder and decoder; return what became of them, and the id of the logged model.

    `training` and `process` are as for `log_embedding`.

    Raises:
        CheckpointError: if the checkpoint cannot be written, or read back.
    """
    saved = save_result(run.folder / FILE_NAME, result, ("coverage",), ("encoder", "decoder"), training)
    loaded = process.submit(load_afresh, str(saved.path))
    figures = _Figures(run, process)
    figures.draw("training_curves", result.history, n_trits=saved.architecture.n_trits, best_epoch=result.best_epoch)
    _log_checkpoint(run, saved, result)
    run.log_metrics(result.summary())
    verification = _verify(run, saved, loaded)
    checkpoint = _read_back(verification)
    model_id = log_foundation_model(client, run.id, verification, step=result.best_epoch)
    return Outcome(verification, checkpoint, figures.log()), model_id


# The other process has the other core.
@torch_defaults(threads=1)
def log_embedding(
    client: MlflowClient,
    run: Run,
    result: Result,
    trained: Collection[str],
    training: Mapping[str, Any],
    process: FreshProcess,
) -> tuple[Outcome, Evaluation, str]:
    """Log a model whose projection was trained, figures and served model included.

    It is measured as it was read back from its file; what the file claims are the measures of the training, so that the
    two are compared.

    Args:
        client: of the store.
        run: where to log.
        result: of the training.
        trained: the components whose weights were learned, here or before.
        training: what the checkpoint says of how it was made, JSON values without times.
        process: loads the checkpoint, and draws.

    Returns:
        What became of it, its evaluation, and the id of the logged model.

    Raises:
        CheckpointError: if the checkpoint cannot be written, or read back, or what it embeds is not finite.
    """
    saved = save_result(run.folder / FILE_NAME, result, MEASURED, trained, training)
    loaded = process.submit(load_afresh, str(saved.path))
    figures, n_trits = _Figures(run, process), saved.architecture.n_trits
    figures.draw("training_curves", result.history, n_trits=n_trits, best_epoch=result.best_epoch)
    if n_trits <= MOST_LISTED:
        _draw_points(figures, result.model)
    _log_checkpoint(run, saved, result)
    verification = _verify(run, saved, loaded)
    checkpoint, evaluation = _read_back(verification), verification.evaluation
    if evaluation is None:
        raise CheckpointError(f"What the model embeds must be finite and inside the ball: {verification.failures}.")
    figures.draw("radius_by_valuation", evaluation)
    run.log_metrics(result.summary())
    model_id = log_model(client, run.id, verification, step=result.best_epoch)
    return Outcome(verification, checkpoint, figures.log()), evaluation, model_id


def _draw_points(figures: "_Figures", model: TernaryVAE) -> None:
    """Draw the figures that show every operation."""
    curvature = model.architecture.curvature
    points = embed(model).points(curvature).numpy()
    figures.draw("poincare_disk", points, curvature=curvature)
    figures.draw("poincare_disk", points, curvature=curvature, angle="3-adic", file="poincare_disk_3-adic.png")
    if model.architecture.n_trits <= disk.MOST_TRITS:
        figures.draw("disk", points, curvature=curvature, file=disk.PAGE_NAME)
    figures.draw("tree", points, curvature=curvature)
    figures.draw("distance_by_valuation", points, curvature=curvature)


def save_result(
    path: Path, result: Result, claimed: Collection[str], trained: Collection[str], training: Mapping[str, Any]
) -> Checkpoint:
    """Save what a training came to; it claims what was measured of the epoch that was kept, by the names in `claimed`.

    `trained` and `training` are as for `log_embedding`.

    Raises:
        CheckpointError: if it cannot be written.
    """
    at_best = result.history[result.best_epoch]
    metrics = {name: at_best[name] for name in claimed}
    return save(path, result.model, trained=trained, training=training, metrics=metrics)


def _log_checkpoint(run: Run, saved: Checkpoint, result: Result) -> None:
    run.log_checkpoint(saved.path, result.history)
    run.log_json("architecture.json", saved.architecture.to_dict())
    run.set_tags({"checkpoint": saved.digest[:16]})


def _verify(run: Run, saved: Checkpoint, loaded: Future[Digests]) -> Verification:
    """Read the file back, here and in the other process, and log the verdict."""
    verification = verify(saved.path, loaded=loaded)
    # The file is named by where the run keeps it, not by where it was verified.
    run.log_json(VERDICT_NAME, replace(verification, path=Path("checkpoint", FILE_NAME)).to_json())
    run.set_tags({"verified": str(verification.passed).lower()})
    return verification


def _read_back(verification: Verification) -> Checkpoint:
    if verification.checkpoint is None:
        raise CheckpointError(f"The checkpoint that was written must load: {verification.failures}.")
    return verification.checkpoint


class _Figures:
    """The figures of a run, drawn in another process while this one goes on."""

    def __init__(self, run: Run, process: FreshProcess) -> None:
        self._run, self._process, self._folder = run, process, run.folder / "plots"
        self._drawn: dict[Path, Future[None]] = {}
        self._folder.mkdir()

    def draw(self, name: str, *arguments: Any, file: str = "", **options: Any) -> None:
        """Have a figure drawn, by `tvae.plots.draw`, into a PNG of its name unless another file is given."""
        path = self._folder / (file or f"{name}.png")
        self._drawn[path] = self._process.submit(draw, path, name, *arguments, **options)

    def log(self) -> tuple[str, ...]:
        """Log the figures, and return the names of those that there are: a run is as good without one."""
        there = []
        for path, drawn in self._drawn.items():
            try:
                drawn.result()
            except ProcessError as error:
                _logger.warning("The figure %s was not drawn: %s", path.stem, error)
            else:
                self._run.log_file(path, "plots")
                there.append(path.stem)
        return tuple(there)
