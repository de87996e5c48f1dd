"""What a training leaves in its run: metrics, checkpoint, verdict, plots and the model that can be served."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import torch
from matplotlib.figure import Figure

from tvae import plots
from tvae.checkpoint import FILE_NAME, Verification, read, save, verify
from tvae.checkpoint.verification import FILE_NAME as VERDICT
from tvae.metrics import Evaluation, evaluate, posterior_mean, reproduced
from tvae.serving import pyfunc_arguments
from tvae.tracking.run import Run
from tvae.training import Result

__all__ = ["Outcome", "log_embedding", "log_foundation"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was measured and saved of a trained model.

    Attributes:
        path: of the checkpoint, in the run's temporary folder.
        verification: of the checkpoint.
        coverage: in 0 … 1.
    """

    path: Path
    verification: Verification
    coverage: float


def log_foundation(run: Run, result: Result, training: Mapping[str, Any]) -> Outcome:
    """Log a trained encoder and decoder.

    Args:
        run: where to.
        result: of the training.
        training: what the checkpoint says of how it was made, JSON values without times.
    """
    with torch.no_grad():
        coverage = float(reproduced(result.model, posterior_mean(result.model)).double().mean())
    outcome = _log(run, result, None, coverage, ("encoder", "decoder"), training)
    _log_figures(run, {"training_curves": plots.training_curves(result.history, best_epoch=result.best_epoch)})
    return outcome


def log_embedding(
    run: Run, result: Result, trained: Collection[str], training: Mapping[str, Any]
) -> tuple[Outcome, Evaluation]:
    """Log a model whose projection was trained, plots and served model included.

    Args:
        run: where to.
        result: of the training.
        trained: the components whose weights were learned, here or before.
        training: what the checkpoint says of how it was made, JSON values without times.
    """
    evaluation = evaluate(result.model)
    outcome = _log(run, result, evaluation, evaluation.coverage, trained, training)
    architecture = result.model.architecture
    with torch.no_grad():
        unit_norm, direction = result.model.project(posterior_mean(result.model))
        points = (direction * unit_norm[:, None] / architecture.curvature**0.5).numpy()
    disk = partial(plots.poincare_disk, points, curvature=architecture.curvature)
    figures = {
        "training_curves": plots.training_curves(result.history, best_epoch=result.best_epoch),
        "radius_by_valuation": plots.radius_by_valuation(evaluation),
        "poincare_disk": disk(),
        "poincare_disk_3-adic": disk(angle="3-adic"),
    }
    _log_figures(run, figures)
    mlflow.pyfunc.log_model(name="model", **pyfunc_arguments(outcome.path))
    return outcome, evaluation


def _log_figures(run: Run, figures: Mapping[str, Figure]) -> None:
    for name, figure in figures.items():
        plots.save(figure, run.folder / f"{name}.png")
        run.log_file(run.folder / f"{name}.png", "plots")


def _log(
    run: Run,
    result: Result,
    evaluation: Evaluation | None,
    coverage: float,
    trained: Collection[str],
    training: Mapping[str, Any],
) -> Outcome:
    metrics = {"coverage": coverage} if evaluation is None else evaluation.metrics()
    path = run.folder / FILE_NAME
    save(path, result.model, trained=trained, training=training, metrics=metrics)
    verification = verify(path)
    run.log_json("architecture.json", result.model.architecture.to_dict())
    run.log_json(VERDICT, verification.to_json())
    run.log_history(result.history)
    run.log_file(path, "checkpoint")
    further = {} if evaluation is None else {"tree_precision": evaluation.tree_precision, "q": evaluation.q}
    run.log_metrics(result.summary() | further)
    run.set_tags({"verified": str(verification.passed).lower(), "checkpoint": read(path).digest[:16]})
    return Outcome(path, verification, coverage)
