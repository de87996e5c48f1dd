"""Whether a checkpoint is what it claims to be, and good enough: every check with its value, bound and verdict."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tvae import poincare
from tvae.checkpoint import atomic
from tvae.checkpoint.file import Checkpoint, read
from tvae.checkpoint.refusal import cut, os_reason
from tvae.config.architecture import MOST_LISTED
from tvae.config.bounds import RELOADS, Bounds
from tvae.errors import CheckpointError, EvaluationError
from tvae.fresh import FreshProcess, ProcessError
from tvae.markdown import escaped
from tvae.metrics import Evaluation, embed, evaluate, hierarchy_ceiling, population, posterior_mean, reproduced
from tvae.metrics.subset import holdout_metrics
from tvae.ternary import held_out
from tvae.torch_defaults import torch_defaults

__all__ = ["VERDICT_NAME", "Bounds", "Check", "Digests", "Verification", "load_afresh", "verify"]

VERDICT_NAME = "verification.json"
_RELOAD_SECONDS = 600
_COVERAGE = "Share of operations whose trits all come back from the decoder."
_CEILING = "No embedding with distinct radii passes the ceiling; beyond it radii are tied, as in a saturated model."
_GAP = "Smallest gap between neighbouring levels, in shares of an even step; below 0 two of them overlap."
_DISTINCT = "Share of distinct points among those of all operations; a collapsed model has few."

Number = float | int
Digests = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: short, the same in every verification.
        value: what was found; None if it could not be computed.
        bound: what it must be, as text.
        passed: the verdict.
        meaning: one sentence.
    """

    name: str
    value: Number | str | None
    bound: str
    passed: bool
    meaning: str


class Judgement(NamedTuple):
    """The checks of a model that was loaded, its recomputed metrics, and all that was measured of its projection."""

    checks: tuple[Check, ...]
    metrics: dict[str, float]
    evaluation: Evaluation | None = None


class Loaded(NamedTuple):
    """What one process found in a checkpoint, as SHA-256 digests.

    Attributes:
        file: the file's own.
        mean: of the posterior means of all operations.
        radii: of the radii of all operations.
    """

    file: str
    mean: str
    radii: str


@dataclass(frozen=True, slots=True)
class Verification:
    """The verdict on one checkpoint.

    Attributes:
        path: the checkpoint.
        digest: SHA-256 of its content; None if it did not load.
        scope: what kind of model it is, and so which checks apply.
        checks: all that were made; at least one.
        metrics: recomputed from the weights, name -> number; empty if they could not be computed.
        checkpoint: as it was read; None if it did not load.
        evaluation: of a model with a learned projection; None if it could not be computed.
    """

    path: Path
    digest: str | None
    scope: str
    checks: tuple[Check, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)
    checkpoint: Checkpoint | None = field(default=None, repr=False, compare=False)
    evaluation: Evaluation | None = field(default=None, repr=False, compare=False)

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def failures(self) -> str:
        """The checks that failed, each with its value and bound, in one line."""
        return ", ".join(f"{c.name} {_shown(c.value)} ({c.bound})" for c in self.checks if not c.passed)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {
            "file": str(self.path),
            "digest": self.digest,
            "scope": self.scope,
            "passed": self.passed,
            "checks": [asdict(check) for check in self.checks],
            "metrics": dict(self.metrics),
        }

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write `to_json` to a file, atomically; tvae calls it `VERDICT_NAME`.

        Args:
            path: the file, in a folder that exists.

        Raises:
            CheckpointError: if it cannot be written.
        """
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            atomic.replace(Path(os.path.expanduser(path)), [text.encode()])
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{path} was not written: the folder must exist, be writable and have room; found: {os_reason(error)}."
            ) from error

    def table(self) -> str:
        """Return the checks as aligned plain text, with a verdict on the last line."""
        failed = [f"{c.name}: {c.meaning}" for c in self.checks if not c.passed]
        last = f"verification {_verdict(self.passed)}"
        return "\n".join([f"{self.path}", self.scope, "", *self._lines(), "", *failed, last])

    def markdown(self) -> str:
        """Return the checks in Markdown, verdict and scope first; its UI sets tables without gaps."""
        failed = [f"- {c.name}: {escaped(c.meaning, code=True)}" for c in self.checks if not c.passed]
        verdict = f"Verification **{_verdict(self.passed)}**. {self.scope}"
        return "\n".join([verdict, "", *failed, "", "```text", *self._lines(), "```", ""])

    def _lines(self) -> list[str]:
        rows = [("check", "value", "bound", "verdict")]
        rows += [(c.name, _shown(c.value), c.bound, _verdict(c.passed)) for c in self.checks]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def verify(
    path: str | os.PathLike[str],
    *,
    bounds: Bounds | None = None,
    reloads: int = RELOADS,
    loaded: Future[Digests] | None = None,
) -> Verification:
    """Check a checkpoint: that it loads, loads the same each time, is what it claims, and is good enough.

    A checkpoint whose projection was never learned (a foundation) has radii that mean nothing; for it only the file,
    reloading (of posterior means) and coverage are checked.

    Args:
        path: a checkpoint.
        bounds: what the model must reach; None means the defaults of `Bounds`.
        reloads: fresh processes to load the file in, besides this one; at least 1.
        loaded: what a fresh process that is there already finds, `load_afresh`; then no others are started.

    Returns:
        The verdict; a file that cannot be loaded gives a failed one.

    Raises:
        ValueError: if `reloads` is below 1.
    """
    if reloads < 1:
        raise ValueError(f"`reloads` must be at least 1, got {reloads}: loading here has nothing to be compared with.")
    bounds = bounds or Bounds()
    path = Path(os.path.expanduser(path))
    try:
        checkpoint = read(path)
    except CheckpointError as error:
        check = Check("file", "refused", "loads", False, str(error))
        return Verification(path, None, "The file did not load; nothing else could be checked.", (check,))
    file = Check("file", "loads", "loads", True, "Structure, architecture, digest and finite weights were checked.")
    if "projection" in checkpoint.trained:
        scope, key, judge = "A model with a learned projection: all checks apply.", "radii", judge_model
    else:
        scope = "A foundation, whose projection was never learned: only file, reloading and coverage are checked."
        key, judge = "mean", judge_foundation
    with ThreadPoolExecutor(min(reloads, os.cpu_count() or 1)) as pool:
        elsewhere = [pool.submit(_load_elsewhere, path) for _ in range(reloads)] if loaded is None else [loaded]
        judgement = judge(checkpoint, bounds)
        again = _reload_check([_loaded(checkpoint), *map(_found, elsewhere)], key)
    return Verification(
        path,
        checkpoint.digest,
        scope,
        (file, again, *judgement.checks),
        judgement.metrics,
        checkpoint,
        judgement.evaluation,
    )


def load_afresh(path: str) -> Digests:
    """Load a checkpoint in this process, a `FreshProcess`; the fields of `Loaded` are texts, which no pickle opens."""
    file, mean, radii = _loaded(read(path))
    return file, mean, radii


@torch_defaults(threads=1)
def judge_model(checkpoint: Checkpoint, bounds: Bounds) -> Judgement:
    """Check a model with a learned projection.

    Args:
        checkpoint: the model and its claims.
        bounds: what it must reach.
    """
    model, n_trits = checkpoint.model, checkpoint.architecture.n_trits
    unit_norm, direction = embed(model)
    not_finite = int((~(unit_norm.isfinite() & direction.isfinite().all(-1))).sum())
    outside = int((~((unit_norm >= 0) & (unit_norm < 1))).sum())
    ordered = n_trits if bounds.ordered_levels is None else bounds.ordered_levels
    ceiling = hierarchy_ceiling(n_trits) - bounds.ceiling_slack
    measured = _evaluation(checkpoint)
    metrics = measured.metrics() if measured else {}
    if measured and checkpoint.holdout:
        metrics |= holdout_metrics(model, checkpoint.holdout)
    coverage = measured.coverage if measured else None
    hierarchy = measured.hierarchy if measured else None
    falling = measured.ordered_levels if measured else None
    gap = measured.level_gap if measured else None
    apart = _promised_gap(checkpoint) if bounds.level_gap is None else bounds.level_gap
    distinct = _distinct((unit_norm[:, None] * direction).float()) if measured else None
    checks = (
        _at_most("finite", not_finite, 0, "Operations whose radius or direction is NaN or infinite."),
        _at_most("inside the ball", outside, 0, "Operations whose unit norm is not in [0, 1)."),
        _claims_check(checkpoint, metrics, bounds),
        _at_least("coverage", coverage, bounds.coverage, _COVERAGE),
        _at_most("hierarchy", hierarchy, bounds.hierarchy, "Spearman correlation of valuation and radius."),
        _at_least("hierarchy ceiling", hierarchy, ceiling, _CEILING),
        _at_least("ordered levels", falling, ordered, "Neighbouring pairs of levels whose mean radius falls."),
        _at_least("level gap", gap, apart, _GAP),
        _at_least("distinct points", distinct, bounds.distinct_points, _DISTINCT),
    )
    return Judgement(checks, metrics, measured)


@torch_defaults(threads=1)
def judge_foundation(checkpoint: Checkpoint, bounds: Bounds) -> Judgement:
    """Check a model whose projection was never learned.

    Args:
        checkpoint: the model and its claims.
        bounds: what it must reach; only coverage counts.
    """
    covered = reproduced(checkpoint.model, posterior_mean(checkpoint.model)).double()
    coverage = float(covered[: population(checkpoint.architecture.n_trits).n_even].mean())
    recomputed = {"coverage": coverage}
    if checkpoint.holdout:
        unseen = torch.tensor(held_out(checkpoint.holdout, checkpoint.architecture.n_trits))
        recomputed |= {
            "seen_coverage": float(covered[~unseen].mean()),
            "unseen_coverage": float(covered[unseen].mean()),
        }
    # What is claimed of a random projection means nothing, but must not be false either.
    if set(checkpoint.metrics) - set(recomputed) and (measured := _evaluation(checkpoint)):
        recomputed |= measured.metrics()
    checks = (
        _claims_check(checkpoint, recomputed, bounds),
        _at_least("coverage", coverage, bounds.coverage, _COVERAGE),
    )
    return Judgement(checks, recomputed)


def _promised_gap(checkpoint: Checkpoint) -> float | None:
    """Return 0 for a model that was trained to have no two levels overlap, and None for any other.

    Richness is had from levels that reach as far as the next, and so is not promised apart; nor is what was held out,
    nor all of more operations than can be listed.
    """
    settings = checkpoint.training.get("configuration")
    told = settings if isinstance(settings, Mapping) else {}
    distances = told.get("distance_weight") not in (None, 0) and told.get("richness_weight") == 0
    listed = checkpoint.architecture.n_trits <= MOST_LISTED
    return 0.0 if checkpoint.architecture.centred and distances and listed and not checkpoint.holdout else None


def _distinct(points: Tensor) -> float:
    """Share of distinct rows. Radii say less: in an exact tree those of a level are about equal, and may be tied."""
    rows = np.ascontiguousarray(points.numpy(force=True))
    return len(np.unique(rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))))) / len(rows)


def _evaluation(checkpoint: Checkpoint) -> Evaluation | None:
    """Return what the model is worth, None if that cannot be computed."""
    try:
        return evaluate(checkpoint.model)
    except EvaluationError:
        return None


def _claims_check(checkpoint: Checkpoint, recomputed: Mapping[str, float], bounds: Bounds) -> Check:
    name, bound = "claimed metrics", f"differ by <= {bounds.metric_tolerance:g}"
    claimed = checkpoint.metrics
    if unknown := sorted(set(claimed) - set(recomputed)):
        listed = ", ".join(unknown)
        return Check(name, None, bound, False, cut(f"These metrics are claimed and could not be recomputed: {listed}."))
    differences = {metric: abs(claimed[metric] - recomputed[metric]) for metric in claimed}
    if not differences:
        return Check(name, 0.0, bound, True, "The file claims no metrics.")
    worst = max(differences, key=lambda metric: differences[metric])
    return _at_most(
        name,
        differences[worst],
        bounds.metric_tolerance,
        f"Largest difference of {len(claimed)} claimed metrics from the recomputed ones: `{worst}` is claimed as "
        f"{claimed[worst]:.9g}, recomputed as {recomputed[worst]:.9g}.",
        bound,
    )


@torch_defaults(threads=1)
def _loaded(checkpoint: Checkpoint) -> Loaded:
    model = checkpoint.model
    mean = posterior_mean(model)
    radii = poincare.radius(embed(model, mean).unit_norm, curvature=model.architecture.curvature)
    return Loaded(checkpoint.digest, *(hashlib.sha256(x.numpy().tobytes()).hexdigest() for x in (mean, radii)))


def _load_elsewhere(path: Path) -> Digests:
    with FreshProcess() as process:
        return process.submit(load_afresh, str(path.absolute())).result(_RELOAD_SECONDS)


def _found(loaded: Future[Digests]) -> Loaded | str:
    """Return what a process found, or why it found nothing."""
    try:
        return Loaded(*loaded.result(_RELOAD_SECONDS))
    except TimeoutError:
        return f"no answer within {_RELOAD_SECONDS} s"
    except (OSError, ProcessError) as error:
        return str(error)


def _reload_check(found: Sequence[Loaded | str], key: str) -> Check:
    what = {"radii": "radii", "mean": "posterior means"}[key]
    bound = f"1 result in {len(found)} processes"
    if failures := [result for result in found if isinstance(result, str)]:
        return Check("reloads", None, bound, False, f"A fresh process could not load the file: {cut(failures[0])}")
    loaded = [result for result in found if isinstance(result, Loaded)]
    if len({result.file for result in loaded}) > 1:
        return Check("reloads", None, bound, False, "The file was replaced while it was being verified.")
    digests = {getattr(result, key) for result in loaded}
    meaning = (
        f"SHA-256 of the {what} of all operations, computed here and in fresh processes: equal means equal bit for bit."
    )
    return Check("reloads", len(digests), bound, len(digests) == 1, meaning)


def _at_least(name: str, value: Number | None, bound: Number | None, meaning: str) -> Check:
    if bound is None:
        return Check(name, _finite(value), "reported", value is not None, meaning)
    # Written so that a NaN on either side fails.
    return Check(name, _finite(value), f">= {bound:.6g}", value is not None and value >= bound, meaning)


def _at_most(name: str, value: Number | None, bound: Number, meaning: str, text: str | None = None) -> Check:
    return Check(name, _finite(value), text or f"<= {bound:.6g}", value is not None and value <= bound, meaning)


def _finite(value: Number | None) -> Number | None:
    """JSON has no NaN."""
    return value if value is not None and math.isfinite(value) else None


def _shown(value: Number | str | None) -> str:
    if value is None:
        return "not computed"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _verdict(passed: bool) -> str:
    return "passed" if passed else "failed"
