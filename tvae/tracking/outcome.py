"""What a training leaves in its run: metrics, checkpoint, verdict, plots and the model that can be served."""

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import torch
from matplotlib.figure import Figure

from tvae import plots
from tvae.checkpoint import FILE_NAME, Verification, read, save, verify
from tvae.checkpoint.verification import FILE_NAME as VERDICT
from tvae.metrics import Evaluation, evaluate, posterior_mean, reproduced, trit_table
from tvae.serving import pyfunc_arguments
from tvae.tracking.run import Run
from tvae.training import Result

# Two fresh processes show whether loading leaves anything to chance; `verify` by itself starts more.
RELOADS = 2

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
    with _saved(run, result, {"coverage": coverage}, ("encoder", "decoder"), training) as (path, verifying):
        run.log_metrics(result.summary())
        _log_figures(run, {"training_curves": plots.training_curves(result.history, best_epoch=result.best_epoch)})
        return Outcome(path, _log_verdict(run, verifying.result()), coverage)


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
    evaluation, architecture = evaluate(result.model), result.model.architecture
    with _saved(run, result, evaluation.metrics(), trained, training) as (path, verifying):
        finally_measured = ("tree_precision", "sibling_recall", "ball_coverage", "q")
        run.log_metrics(result.summary() | {name: evaluation.metrics()[name] for name in finally_measured})
        with torch.no_grad():
            points = result.model(trit_table(architecture.n_trits)).numpy()
        disk = partial(plots.poincare_disk, points, curvature=architecture.curvature)
        figures = {
            "training_curves": plots.training_curves(result.history, best_epoch=result.best_epoch),
            "radius_by_valuation": plots.radius_by_valuation(evaluation),
            "poincare_disk": disk(),
            "poincare_disk_3-adic": disk(angle="3-adic"),
            "tree": plots.tree(points, curvature=architecture.curvature),
            "distance_by_valuation": plots.distance_by_valuation(points, curvature=architecture.curvature),
        }
        _log_figures(run, figures)
        mlflow.pyfunc.log_model(name="model", **pyfunc_arguments(path))
        return Outcome(path, _log_verdict(run, verifying.result()), evaluation.coverage), evaluation


@contextmanager
def _saved(
    run: Run, result: Result, metrics: Mapping[str, float], trained: Collection[str], training: Mapping[str, Any]
) -> Iterator[tuple[Path, "Future[Verification]"]]:
    """Save and log the checkpoint; verify it, mostly in other processes, while the caller goes on."""
    path = run.folder / FILE_NAME
    save(path, result.model, trained=trained, training=training, metrics=metrics)
    with ThreadPoolExecutor(1) as pool:
        verifying = pool.submit(verify, path, reloads=RELOADS)
        run.log_checkpoint(path, result.history)
        run.log_json("architecture.json", result.model.architecture.to_dict())
        run.set_tags({"checkpoint": read(path).digest[:16]})
        yield path, verifying


def _log_verdict(run: Run, verification: Verification) -> Verification:
    # The file is named by where the run keeps it, not by where it was verified.
    run.log_json(VERDICT, replace(verification, path=Path("checkpoint", FILE_NAME)).to_json())
    run.set_tags({"verified": str(verification.passed).lower()})
    return verification


def _log_figures(run: Run, figures: Mapping[str, Figure]) -> None:
    for name, figure in figures.items():
        plots.save(figure, run.folder / f"{name}.png")
        run.log_file(run.folder / f"{name}.png", "plots")
