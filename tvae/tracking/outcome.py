"""What a training leaves in its run: metrics, checkpoint, verdict, plots and the model that can be served."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import torch

from tvae.aides import RELOADS, Aides
from tvae.checkpoint import FILE_NAME, Verification, read, save, verify
from tvae.checkpoint.verification import FILE_NAME as VERDICT
from tvae.drawing import Drawing, draw
from tvae.metrics import Evaluation, evaluate, posterior_mean, reproduced, trit_table
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


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: the aides have the other cores, and threads that wait for one another are slower still.

    With as many other processes at work as there are cores, evaluating on two threads took five times as long.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@_one_thread()
def log_foundation(run: Run, result: Result, training: Mapping[str, Any], aides: Aides) -> Outcome:
    """Log a trained encoder and decoder.

    Args:
        run: where to.
        result: of the training.
        training: what the checkpoint says of how it was made, JSON values without times.
        aides: of this training.
    """
    with torch.no_grad():
        coverage = float(reproduced(result.model, posterior_mean(result.model)).double().mean())
    with _saved(run, result, {"coverage": coverage}, ("encoder", "decoder"), training, aides) as (path, verifying):
        with _drawn(run, [_curves(result)], aides):
            run.log_metrics(result.summary())
        return Outcome(path, _log_verdict(run, verifying.result()), coverage)


@_one_thread()
def log_embedding(
    run: Run, result: Result, trained: Collection[str], training: Mapping[str, Any], aides: Aides
) -> tuple[Outcome, Evaluation]:
    """Log a model whose projection was trained, plots and served model included.

    Args:
        run: where to.
        result: of the training.
        trained: the components whose weights were learned, here or before.
        training: what the checkpoint says of how it was made, JSON values without times.
        aides: of this training.
    """
    evaluation, architecture = evaluate(result.model), result.model.architecture
    with _saved(run, result, evaluation.metrics(), trained, training, aides) as (path, verifying):
        with torch.no_grad():
            points = result.model(trit_table(architecture.n_trits)).numpy()
        curvature = {"curvature": architecture.curvature}
        drawings = [
            _curves(result),
            Drawing("radius_by_valuation", (evaluation,), {}),
            Drawing("poincare_disk", (points,), curvature),
            Drawing("poincare_disk", (points,), curvature | {"angle": "3-adic"}, file="poincare_disk_3-adic"),
            Drawing("tree", (points,), curvature),
            Drawing("distance_by_valuation", (points,), curvature),
        ]
        with _drawn(run, drawings, aides):
            finally_measured = ("tree_precision", "sibling_recall", "ball_coverage", "q")
            run.log_metrics(result.summary() | {name: evaluation.metrics()[name] for name in finally_measured})
            mlflow.pyfunc.log_model(name="model", **pyfunc_arguments(path))
        return Outcome(path, _log_verdict(run, verifying.result()), evaluation.coverage), evaluation


@contextmanager
def _saved(
    run: Run,
    result: Result,
    metrics: Mapping[str, float],
    trained: Collection[str],
    training: Mapping[str, Any],
    aides: Aides,
) -> Iterator[tuple[Path, "Future[Verification]"]]:
    """Save and log the checkpoint; verify it, mostly in other processes, while the caller goes on."""
    path = run.folder / FILE_NAME
    save(path, result.model, trained=trained, training=training, metrics=metrics)
    with ThreadPoolExecutor(1) as pool:
        verifying = pool.submit(verify, path, reloads=RELOADS, aides=aides.reload)
        run.log_checkpoint(path, result.history)
        run.log_json("architecture.json", result.model.architecture.to_dict())
        run.set_tags({"checkpoint": read(path).digest[:16]})
        yield path, verifying


def _log_verdict(run: Run, verification: Verification) -> Verification:
    # The file is named by where the run keeps it, not by where it was verified.
    run.log_json(VERDICT, replace(verification, path=Path("checkpoint", FILE_NAME)).to_json())
    run.set_tags({"verified": str(verification.passed).lower()})
    return verification


def _curves(result: Result) -> Drawing:
    return Drawing("training_curves", (result.history,), {"best_epoch": result.best_epoch})


@contextmanager
def _drawn(run: Run, drawings: Sequence[Drawing], aides: Aides) -> Iterator[None]:
    """Draw figures in another process while the caller goes on, and log them."""
    folder = run.folder / "plots"
    folder.mkdir()
    with ThreadPoolExecutor(1) as pool:
        drawing = pool.submit(draw, drawings, folder, aides.draw)
        yield
        drawing.result()
    for each in drawings:
        run.log_file(each.path(folder), "plots")
