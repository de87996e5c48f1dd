"""Many trials under one parent run: trained as cohorts, written down as they come, and resumed later."""

import itertools
import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException
from tqdm import tqdm

from tvae import registry
from tvae.checkpoint import Checkpoint, read
from tvae.config.presets import resolve_foundation
from tvae.config.training import NONE
from tvae.errors import CheckpointError, ConfigurationError
from tvae.markdown import escaped
from tvae.registry.foundation import codec_tags
from tvae.sweeps.cohorts import cohorts, duration
from tvae.sweeps.executors import TrainedCohort, Workers
from tvae.sweeps.plan import AUTO, Plan
from tvae.sweeps.search import Search
from tvae.sweeps.stability import means
from tvae.sweeps.trial import Trial
from tvae.tracking import links
from tvae.tracking.children import Children, Finished
from tvae.tracking.process import PROCESS, process_state
from tvae.tracking.run import Run, open_run, source_tags, write_json
from tvae.tracking.store import adopted_run_id, connect
from tvae.training import Member, Result
from tvae.training.device import resolve_device
from tvae.training.start import from_checkpoint, from_mismatched, from_scratch
from tvae.workflows.foundation import foundation_apart
from tvae.workflows.messages import command_line, next_command, say_where

__all__ = ["CohortProgress", "Sweep", "covered", "open_sweep", "run_to_resume"]

_logger = logging.getLogger(__name__)

# The trials, and what else the plan says: written first, so that where there are trials, the rest is there too.
PLAN, SETTINGS = "plan.json", "settings.json"
RESUME_NEVER, RESUME_AUTO = "none", "auto"
# A run of the parent's that is not a trial: foundations that could not be registered are found by this tag again.
SWEEP = "campaign"
# A parent's: the command that repeats it, as it was begun.
COMMAND = "command"


@dataclass(slots=True)
class Clock:
    """Seconds of a sweep, those of its earlier attempts included.

    Attributes:
        earlier: what the attempts before this one took, by name.
        logging: seconds in which results were written, while others may have trained.
    """

    earlier: Mapping[str, float]
    logging: float = 0.0
    _started: float = field(default_factory=time.perf_counter)
    _trainings: list[tuple[float, float]] = field(default_factory=list)

    @classmethod
    def of(cls, run: StoredRun) -> "Clock":
        """Start the clock of a run where it stood."""
        names = ("train_seconds", "logging_seconds", "total_seconds")
        return cls({name: run.data.metrics.get(name, 0.0) for name in names})

    def trained(self, ended: float, seconds: float) -> None:
        """Note when a cohort trained, on the clock of `time.perf_counter`."""
        self._trainings.append((ended - seconds, ended))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Count the time inside as writing."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.logging += time.perf_counter() - started

    def metrics(self) -> dict[str, float]:
        """Return the seconds of training (what trains side by side counts once), of logging, and of all."""
        seconds = {
            "train_seconds": covered(self._trainings),
            "logging_seconds": self.logging,
            "total_seconds": time.perf_counter() - self._started,
        }
        return {name: self.earlier[name] + value for name, value in seconds.items()}


def covered(intervals: Sequence[tuple[float, float]]) -> float:
    """Return the length of the union of intervals."""
    length, until = 0.0, -math.inf
    for start, end in sorted(intervals):
        length += max(0.0, end - max(start, until))
        until = max(until, end)
    return length


class CohortProgress:
    """How far a sweep is: a bar where somebody watches, and a line for each cohort that is done.

    Of `trials` in all, `finished` were finished before; `work` is that of the others, in any unit.
    """

    def __init__(self, trials: int, finished: int, work: float) -> None:
        self._trials, self._finished, self._failed, self._work = trials, finished, 0, work
        shape = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, about {remaining} left"
        self._bar = tqdm(total=work, bar_format=shape, smoothing=0, disable=not sys.stderr.isatty(), leave=False)
        self._started, self._done = time.perf_counter(), 0.0

    def cohort(self, work: float, finished: int, failed: int, text: str) -> None:
        """Tell of a cohort that is over, done or lost."""
        self._finished, self._failed, self._done = self._finished + finished, self._failed + failed, self._done + work
        state = f"{self._finished} of {self._trials} trials are done"
        state += f", {self._failed} failed" if self._failed else ""
        left = (time.perf_counter() - self._started) * max(0.0, self._work - self._done) / self._done
        ending = f", about {tqdm.format_interval(left)} left" if self._finished + self._failed < self._trials else ""
        self._bar.set_description_str(state, refresh=False)
        self._bar.update(work)
        self._bar.write(f"{text} {state}{ending}.", file=sys.stdout)
        sys.stdout.flush()

    def metrics(self) -> dict[str, float]:
        """Return how many trials there are, are finished, and have failed."""
        return {"trials": self._trials, "trials_finished": self._finished, "trials_failed": self._failed}

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()


@dataclass(slots=True)
class Sweep:
    """One parent run at work; `repeat` is the command that repeats it, `finished` its finished trials by their keys."""

    client: MlflowClient
    run: Run
    children: Children
    workers: Workers
    clock: Clock
    plan: Plan
    repeat: str
    finished: dict[str, Finished]
    _progress: CohortProgress | None = None
    _foundations: dict[str, tuple[str, Checkpoint]] = field(default_factory=dict)
    _starts: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def train(self) -> None:
        """Train what is not finished yet."""
        trials = self.plan.trials
        if isinstance(trials, Search):
            self._search(trials)
        else:
            self._train(trials, len(trials))
        if self._progress is not None:
            self._progress.close()

    def finish(self, metrics: Callable[[list[dict[str, float]]], dict[str, float]] | None = None) -> None:
        """Write the report, what the trials come to, and the description; `metrics` adds to the means of the trials."""
        from tvae.report import gather, headline, to_markdown, to_page  # imports SciPy, which takes a second

        self.run.log_metrics(self.clock.metrics())
        found = gather(self.client, self.run.id)
        finished = [dict(trial.metrics) for trial in found.trials if trial.finished]
        self.run.log_metrics(means(finished) | (metrics(finished) if metrics is not None else {}))
        with self.clock.writing():
            for name, text in (("report.md", to_markdown(found)), ("report.html", to_page(found))):
                (self.run.folder / name).write_text(text, encoding="utf-8")
                self.run.log_file(self.run.folder / name)
        self.run.log_metrics(self.clock.metrics())
        look = f"[report]({self.run.page('artifacts/report.html')})"
        self.run.describe(f"{look}\n\n{headline(found)}\n\nRepeat it:\n\n```sh\n{self.repeat}\n```")
        _logger.info("")
        _logger.info(headline(found, markdown=False))

    def _search(self, search: Search) -> None:
        """Let a search ask for trials until it has enough. Cells that an earlier attempt began come first."""
        begun = list(dict.fromkeys(trial.cell for trial in self.finished.values()))
        for cells in itertools.chain([begun] if begun else [], iter(search.ask, [])):
            asked = {cell: search.cell_trials(cell) for cell in cells}
            self._train([trial for trials in asked.values() for trial in trials], search.size * search.seeds)
            for cell, trials in asked.items():
                found = [self.finished[trial.key] for trial in trials if trial.key in self.finished]
                values = (fmean(f.hierarchy for f in found), fmean(f.richness for f in found)) if found else None
                search.told[cell] = values

    def _train(self, trials: Sequence[Trial], in_all: int) -> None:
        """Train what is missing of some trials, and write each down as soon as its cohort is trained."""
        missing = list({trial.key: trial for trial in trials if trial.key not in self.finished}.values())
        if self._progress is None:
            if self.finished:
                _logger.info(f"{len(self.finished)} of {in_all} trials are finished already.")
            rest = max(in_all - len(self.finished), len(missing))
            work = duration(missing) / len(missing) * rest if missing else 0
            self._progress = CohortProgress(in_all, len(self.finished), work)
            self.run.log_metrics(self._progress.metrics())
        if not missing:
            return
        self._find_foundations(missing, min(t.configuration.seed for t in missing))
        tasks = cohorts(missing, self.workers.width)
        longest = max(trial.configuration.epochs for trial in missing)
        parts = "as one batch" if len(tasks) == 1 else f"in {len(tasks)} batches"
        _logger.info(f"Training {len(missing)} trials {parts}, each of at most {longest} epochs.")
        for trained in self.workers.train([partial(self._members, cohort) for cohort in tasks]):
            self.clock.trained(trained.ended, trained.seconds)
            with self.clock.writing():
                self._record(tasks[trained.task], trained, self._progress)
            self.run.log_metrics({**self._progress.metrics(), **self.clock.metrics()})

    def _record(self, cohort: Sequence[Trial], trained: TrainedCohort, progress: CohortProgress) -> None:
        """Write the runs of a cohort."""
        failed = 0
        if trained.error is not None:
            for trial in cohort:
                self._starts.pop(trial.key, None)
                self.children.log_lost(trial, trained.error)
            progress.cohort(duration(cohort), 0, len(cohort), f"Lost: {len(cohort)} trials. {trained.error}")
            return
        for trial, result in zip(cohort, trained.results, strict=True):
            self.children.log_result(trial, result, self._starts.pop(trial.key))
            failed += result.error is not None
            if result.error is None:
                self.finished[trial.key] = Finished.of(trial.cell, result.summary())
        text = f"{len(cohort)} trained in {trained.seconds:.1f} s;"
        progress.cohort(duration(cohort), len(cohort) - failed, failed, text)

    def _members(self, cohort: Sequence[Trial]) -> list[Member]:
        started = {trial.key: self._start(trial) for trial in cohort}
        self._starts.update((key, start) for key, (_, start) in started.items())
        return [member for member, _ in started.values()]

    def _find_foundations(self, trials: Iterable[Trial], seed: int) -> None:
        """Have the foundation of each encoder and decoder at hand; train what is missing."""
        missing: dict[str, Trial] = {}
        for trial in trials:
            codec, architecture = _codec(trial), trial.architecture
            if codec in self._foundations or codec in missing:
                continue
            if self.plan.checkpoint == AUTO:
                holdout = trial.configuration.holdout
                start = registry.find_foundation(self.client, architecture, self.run.folder, holdout)
                start = start or self._unregistered(trial)
            else:
                fetched = registry.fetch(self.plan.checkpoint, self.run.folder)
                start = self.plan.checkpoint, read(fetched)
            if start is None:
                missing[codec] = trial
            else:
                self._foundations[codec] = start
                _logger.info(f"Starting from {start[0]} where latent_dim is {architecture.latent_dim}.")
        members = [partial(_foundation_members, trial, seed) for trial in missing.values()]
        # All first: a verification starts processes, and would take the cores from those that still train.
        for trained in list(self.workers.train(members)):
            codec, trial = list(missing.items())[trained.task]
            self.clock.trained(trained.ended, trained.seconds)
            if trained.error is not None:
                latent_dim = trial.architecture.latent_dim
                raise ConfigurationError(f"The foundation for latent_dim={latent_dim}: {trained.error}")
            with self.clock.writing():
                self._foundations[codec] = self._record_foundation(trial, trained.results[0])

    def _record_foundation(self, trial: Trial, result: Result) -> tuple[str, Checkpoint]:
        if result.error is not None:
            raise result.error

        def train(run: Run) -> Result:
            run.log_epochs(result.history)
            return result

        tags = {SWEEP: self.run.id, **_codec_tags(trial)}
        return foundation_apart(self.client, trial.architecture, result.configuration, train, tags)

    def _unregistered(self, trial: Trial) -> tuple[str, Checkpoint] | None:
        """Return the foundation that an earlier attempt of this sweep trained and its address, if it is there."""
        wanted = {SWEEP: self.run.id, "stage": "foundation", **_codec_tags(trial)}
        conditions = [f"tags.`{name}` = '{value}'" for name, value in wanted.items()]
        query = " and ".join([*conditions, "attributes.status = 'FINISHED'"])
        runs = self.client.search_runs([self.run.experiment_id], query, max_results=1)
        if not runs:
            return None
        address = f"runs:/{runs[0].info.run_id}/checkpoint"
        try:
            return address, read(registry.fetch(address, self.run.folder))
        except CheckpointError as error:
            _logger.info(f"The foundation of an earlier attempt is gone, or cannot be read: {error}")
            return None

    def _start(self, trial: Trial) -> tuple[Member, Mapping[str, Any]]:
        """Return a trial's member, and what its checkpoint says of where it started."""
        address, checkpoint = self._foundations[_codec(trial)]
        start = {"address": address, "digest": checkpoint.digest, "load": trial.load}
        if trial.load == "mismatched":
            member, missing = from_mismatched(checkpoint, trial.architecture, trial.configuration)
            return member, {**start, "silently random": list(missing)}
        member, transfer = from_checkpoint(
            checkpoint, trial.architecture, trial.configuration, new_projection=self.plan.new_projection
        )
        return member, {**start, "loaded": list(transfer.loaded), "reinitialised": list(transfer.reinitialised)}


@contextmanager
def open_sweep(
    entry_point: str,
    name: str,
    asked: Mapping[str, Any],
    defaults: Mapping[str, Any],
    plan: Plan | None,
    used: Mapping[str, Any] | None = None,
) -> Iterator[Sweep]:
    """Open the parent run of a command: a new one, or one that is resumed.

    Args:
        entry_point: as in MLproject.
        name: of the run, unless the user gave one.
        asked: every option as it was given; `resume` is `none`, `auto` (the newest unfinished run of the same plan)
            or the id of a run, whose own plan then counts.
        defaults: of the options.
        plan: what to train; None where the run that is resumed has it.
        used: the values of options that were `auto`, where they are one for all trials.

    Raises:
        ConfigurationError: if the run to resume is not there, is of another kind, has no plan, or is still at work.
    """
    device = resolve_device(asked["device"])
    workers = Workers(
        asked["backend"],
        address=None if asked["address"] == NONE else asked["address"],
        workers=None if asked["workers"] == AUTO else asked["workers"],
        device=device,
    )
    client = connect()
    identity = plan.identity(entry_point) if plan is not None else ""
    resumed = run_to_resume(client, entry_point, identity, asked["resume"])
    if resumed is not None:
        plan = _stored_plan(client, resumed, plan)
    assert plan is not None, "only a run that is resumed has a plan of its own"
    used = {**(used or {}), "device": device}
    tags = {"stage": entry_point, "device": device, "plan": plan.identity(entry_point)}
    with (
        _pointer(client, entry_point, resumed),
        workers,
        open_run(client, name=name, tags=tags, resume=resumed.info.run_id if resumed else None) as run,
    ):
        stored = client.get_run(run.id)
        children = Children(client, run.experiment_id, run.id, run.folder, source_tags(stored))
        repeat = command_line(entry_point, {**asked, "resume": RESUME_NEVER}, defaults)
        try:
            if resumed is None:
                run.set_tags({COMMAND: repeat})
                _store_plan(client, run.id, run.folder, plan)
                # What is auto here each trial settles for itself, and says so.
                run.log_parameters({name: value for name, value in {**asked, **used}.items() if value != AUTO})
                for n_trits in plan.n_trits():
                    run.log_operations(n_trits)
            else:
                _close_what_was_open(client, children)
                _logger.info(f"Resuming run {run.id}: its own trials and settings count.")
                repeat = stored.data.tags.get(COMMAND) or _repeat(entry_point, stored.data.params, defaults)
            finished = children.finished() if resumed else {}
            yield Sweep(client, run, children, workers, Clock.of(stored), plan, repeat, finished)
        except BaseException as error:  # whatever ends it, a signal too: what is finished can be resumed
            error.add_note(f"Continue with: {next_command(entry_point, resume=run.id)}")
            raise
        say_where(run.page("artifacts/report.html"))


def _store_plan(client: MlflowClient, run_id: str, folder: Path, plan: Plan) -> None:
    for name, content in ((SETTINGS, plan.settings()), (PLAN, plan.listed())):
        client.log_artifact(run_id, str(write_json(folder / name, content)))


def _stored_plan(client: MlflowClient, resumed: StoredRun, plan: Plan | None) -> Plan:
    """Return the plan of a run that is resumed. One that was stopped before it had one gets that of the options."""
    run_id = resumed.info.run_id
    with tempfile.TemporaryDirectory(prefix="tvae-") as folder:
        try:
            known = {file.path for file in client.list_artifacts(run_id)}
            read = {
                name: json.loads(Path(client.download_artifacts(run_id, name, folder)).read_text("utf-8"))
                for name in (PLAN, SETTINGS)
                if name in known
            }
            stored = Plan.read(read.get(SETTINGS, {}), read.get(PLAN, []))
        except ValueError:  # it was stopped while it wrote the file
            stored = None
        if stored is None and plan is not None:
            _store_plan(client, run_id, Path(folder), plan)
            return plan
    if stored is None:
        raise ConfigurationError(
            f"Run {run_id} has no {PLAN} that says what to train: it was stopped before it was written, or it is a "
            "search of an earlier version. Start it again with its options, without `resume`."
        )
    return stored


def _repeat(entry_point: str, parameters: Mapping[str, str], defaults: Mapping[str, Any]) -> str:
    """Return the command that repeats a run of an earlier version, from its parameters."""
    named = {k: v for k, v in parameters.items() if k in defaults and k != "resume" and v != str(defaults[k])}
    return command_line(entry_point, named, {})


@contextmanager
def _pointer(client: MlflowClient, entry_point: str, resumed: StoredRun | None) -> Iterator[None]:
    """Where `mlflow run` has made a run for a command that resumes another: let it lead there."""
    if resumed is None or adopted_run_id() is None:
        yield
        return
    page = links.run_page(resumed.info.experiment_id, resumed.info.run_id)
    with open_run(client, name="resume", tags={"stage": "resume", "resumes": resumed.info.run_id}) as run:
        run.describe(f"This command went on with the {entry_point} [{escaped(str(resumed.info.run_name))}]({page}).")
        yield


def run_to_resume(client: MlflowClient, entry_point: str, identity: str, resume: str) -> StoredRun | None:
    """Return the run that the option `resume` means, None for a new one; `identity` tells which trials are asked for.

    Raises:
        ConfigurationError: if the run is not there, is of another command, or is still at work.
    """
    if resume == RESUME_NEVER:
        return None
    if resume == RESUME_AUTO:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        query = f"tags.plan = '{identity}' and attributes.status != 'FINISHED'"
        runs = client.search_runs(experiments, query, order_by=["attributes.start_time DESC"])
        idle = [run for run in runs if not _at_work(run) and run.info.run_id != adopted_run_id()]
        for run in filter(_elsewhere, idle):
            host, *_ = run.data.tags[PROCESS].split(" ")
            run_id = run.info.run_id
            _logger.info(f"Left alone: run {run_id}, RUNNING on {host}. If it is dead, pass resume={run_id}.")
        free = [run for run in idle if not _elsewhere(run)]
        if not free:
            done = client.search_runs(
                experiments,
                f"tags.plan = '{identity}' and attributes.status = 'FINISHED'",
                max_results=1,
                order_by=["attributes.start_time DESC"],
            )
            found = f"run {done[0].info.run_id} has finished all of them" if done else "the options say which they are"
            _logger.info(f"No unfinished run of the same trials is there: {found}. Starting a new one.")
        return free[0] if free else None
    try:
        run = client.get_run(resume)
    except MlflowException as error:
        raise ConfigurationError(f"`resume` must be none, auto or the id of a run, got {resume!r}.") from error
    stage = run.data.tags.get("stage")
    if stage != entry_point:
        raise ConfigurationError(
            f"`resume` must be a run of {entry_point}; {resume} is one of {stage or 'no command'}."
        )
    if _at_work(run):
        process = run.data.tags[PROCESS].split()[1]
        raise ConfigurationError(f"Run {resume} is still at work (process {process}); wait for it, or stop it first.")
    return run


def _elsewhere(run: StoredRun) -> bool:
    """Whether a run is open on another machine: of its process nothing is known here."""
    owner = run.data.tags.get(PROCESS, "")
    return bool(owner) and run.info.status == "RUNNING" and process_state(owner) == "unknown"


def _at_work(run: StoredRun) -> bool:
    """Whether the process of a run that is open is alive on this machine."""
    return run.info.status == "RUNNING" and process_state(run.data.tags.get(PROCESS, "")) == "alive"


def _close_what_was_open(client: MlflowClient, children: Children) -> None:
    repeated = children.clear_unfinished()
    if repeated:
        _logger.info(f"Cut off while they were written, and tried again: {repeated}.")
    query = f"tags.{SWEEP} = '{children.parent_id}' and attributes.status = 'RUNNING'"
    for run in client.search_runs([children.experiment_id], query):
        client.set_terminated(run.info.run_id, "KILLED")


def _foundation_members(trial: Trial, seed: int) -> list[Member]:
    asked = {"seed": seed, "holdout": trial.configuration.holdout}
    return [from_scratch(trial.architecture, resolve_foundation(trial.architecture, asked))]


def _codec_tags(trial: Trial) -> dict[str, str]:
    return codec_tags(trial.architecture, trial.configuration.holdout)


def _codec(trial: Trial) -> str:
    return str(_codec_tags(trial))
