"""What MLflow holds of a sweep or an experiment, as plain data: the only part of the report that asks MLflow."""

import json
import math
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from sqlalchemy.exc import SQLAlchemyError

from tvae import registry
from tvae.errors import TrackingError
from tvae.registry.store import versions_of
from tvae.sweeps.search import SEARCH
from tvae.tracking.search import all_runs
from tvae.tracking.store import reason

__all__ = ["RunRecord", "Runs", "Version", "gather"]


# What the tag `stage` says of a run.
_PARENTS = ("sweep", "stability")
_TRIAL = "trial"
_SINGLES = ("foundation", "train", "finetune", "scratch")
# The artifact of a parent that lists its trials in their order.
_PLAN = "plan.json"
# MLflow stores an infinity as the largest float64.
_INFINITE = 1e300


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run.

    Attributes:
        status: FINISHED, FAILED, KILLED or RUNNING.
        stage: what it is: a trial, a sweep, a finetuning, …
        metrics: the last value of each.
        tags: only those of tvae.
        parent: the run that it is a part of.
        started: seconds since 1970.
        history: epoch and hierarchy, of trials.
    """

    id: str
    name: str
    status: str
    stage: str
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    started: float = 0.0
    history: tuple[tuple[int, float], ...] = ()

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return self.status == "FINISHED"

    @property
    def phase(self) -> str:
        """The table that a trial belongs to."""
        return self.tags.get("phase", "")

    @property
    def cell(self) -> str:
        """The row of that table."""
        return self.tags.get("cell", "")

    @property
    def failure(self) -> str:
        """Why it did not come to its end, empty if it did."""
        return "" if self.finished else self.tags.get("failure") or f"it ended as {self.status}, without a reason"

    def setting(self, name: str) -> str | None:
        """Return a setting as it was in force; what `auto` came to stands under another name."""
        return self.params.get(f"resolved.{name}", self.params.get(name))

    def number(self, name: str) -> float | None:
        """Return a setting that is a finite number, None if it is none."""
        try:
            number = float(self.setting(name) or "")
        except ValueError:
            return None
        return number if math.isfinite(number) else None

    def value(self, metric: str) -> float | None:
        """Return a metric, None if it was not logged or is not finite."""
        value = self.metrics.get(metric, math.nan)
        return value if abs(value) < _INFINITE else None


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a registered model.

    Attributes:
        model: name of the registered model.
        run_id: of the run that logged it.
        tags: of a version of `tvae` the verdict and the metrics.
    """

    model: str
    number: int
    aliases: tuple[str, ...] = ()
    run_id: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)  # equal only to itself, so that what follows from it is kept with it
class Runs:
    """Everything that a report is made from.

    Attributes:
        name: of the run or the experiment.
        kind: `run` or `experiment`.
        parents: sweeps and stability runs, in the order in which they began.
        trials: of the parents, each once.
        singles: foundations, finetunings and trainings from scratch.
        versions: of the registered models: all that carry an alias or come from one of the runs.
    """

    name: str
    kind: str = "run"
    parents: tuple[RunRecord, ...] = ()
    trials: tuple[RunRecord, ...] = ()
    singles: tuple[RunRecord, ...] = ()
    versions: tuple[Version, ...] = ()

    @property
    def failed(self) -> list[RunRecord]:
        """The trials that did not come to their end."""
        return [trial for trial in self.trials if not trial.finished]


def gather(client: MlflowClient, run_id: str | None = None, *, experiment_id: str | None = None) -> Runs:
    """Read what MLflow holds of a run with its trials, or of a whole experiment.

    Args:
        client: of the store.
        run_id: of a sweep, a stability run or any other; or
        experiment_id: of an experiment.

    Raises:
        TrackingError: if there is no such run or experiment, or the store does not answer.
    """
    if (run_id is None) == (experiment_id is None):
        raise ValueError("Either `run_id` or `experiment_id` must be given, and not both.")
    try:
        if run_id is not None:
            top = client.get_run(run_id)
            name, kind, where = str(top.info.run_name), "run", top.info.experiment_id
            # Foundations that a sweep has trained stand beside it, and name it.
            belonging = [f"tags.`{tag}` = '{top.info.run_id}'" for tag in (MLFLOW_PARENT_RUN_ID, "campaign")]
            runs = [top, *(run for query in belonging for run in all_runs(client, [where], query))]
        else:
            experiment = client.get_experiment(str(experiment_id))
            name, kind = str(experiment.name), "experiment"
            runs = all_runs(client, [experiment.experiment_id])
        records = sorted(map(_record, runs), key=lambda record: record.started)
        parents = [record for record in records if record.stage in _PARENTS]
        trials = [
            trial
            for parent in parents
            for trial in _in_order(
                (record for record in records if record.stage == _TRIAL and record.parent == parent.id),
                _plan(client, parent.id),
            )
        ]
        known = {record.id for record in records}
        return Runs(
            name=name,
            kind=kind,
            parents=tuple(parents),
            trials=tuple(_with_history(client, trial) for trial in trials),
            singles=tuple(record for record in records if record.stage in _SINGLES),
            versions=tuple(
                version
                for model in (registry.MODEL, registry.FOUNDATION_MODEL)
                for version in _versions(client, model)
                if version.aliases or version.run_id in known
            ),
        )
    except (MlflowException, SQLAlchemyError) as error:
        raise TrackingError(
            f"The report needs a run or an experiment that the store holds; found: {reason(error).rstrip('.')}. "
            "Pass the id of a run, or the name or id of an experiment."
        ) from error


def _record(run: Run) -> RunRecord:
    info, tags = run.info, run.data.tags
    return RunRecord(
        id=info.run_id,
        name=info.run_name or info.run_id,
        status=info.status,
        stage=tags.get("stage", ""),
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        tags={name: value for name, value in tags.items() if not name.startswith("mlflow.")},
        parent=tags.get(MLFLOW_PARENT_RUN_ID),
        started=info.start_time / 1000,
    )


def _plan(client: MlflowClient, parent_id: str) -> dict[tuple[str, str], int]:
    """Return the place of each phase's cell in its sweep; empty where there was no plan, as for a search."""
    if _PLAN not in {file.path for file in client.list_artifacts(parent_id)}:
        return {}
    with tempfile.TemporaryDirectory(prefix="tvae-") as folder:
        plan = json.loads(Path(client.download_artifacts(parent_id, _PLAN, folder)).read_text(encoding="utf-8"))
    places: dict[tuple[str, str], int] = {}
    for place, trial in enumerate(plan):
        places.setdefault((trial["phase"], trial["cell"]), place)
    return places


def _in_order(trials: Iterable[RunRecord], plan: Mapping[tuple[str, str], int]) -> list[RunRecord]:
    """Return each trial once, by the plan: runs are written as they come back, which is any order.

    A finished run of a trial comes before any other of it, and the latest before the earlier.
    """
    kept: dict[str, RunRecord] = {}
    for trial in trials:
        key = trial.tags.get("trial", trial.id)
        if key not in kept or trial.finished or not kept[key].finished:
            kept[key] = trial
    return sorted(kept.values(), key=lambda t: (plan.get((t.phase, t.cell), len(plan)), t.number("seed") or 0.0))


def _with_history(client: MlflowClient, trial: RunRecord) -> RunRecord:
    """Add the hierarchy by epoch; not of a search, whose many trials are looked at by their end."""
    if trial.phase == SEARCH or not trial.finished:
        return trial
    points = client.get_metric_history(trial.id, "hierarchy")
    history = sorted((int(point.step), float(point.value)) for point in points if abs(point.value) < _INFINITE)
    return replace(trial, history=tuple(history))


def _versions(client: MlflowClient, model: str) -> list[Version]:
    names = [found.name for found in client.search_registered_models(f"name = '{model}'")]
    if not names:
        return []
    aliases: dict[str, list[str]] = {}
    for alias, number in client.get_registered_model(model).aliases.items():
        aliases.setdefault(str(number), []).append(alias)
    return [
        Version(
            model=model,
            number=int(found.version),
            aliases=tuple(sorted(aliases.get(str(found.version), []))),
            run_id=found.run_id or None,
            tags=dict(found.tags),
        )
        for found in versions_of(client, model)
    ]
