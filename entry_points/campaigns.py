"""Many trials under one parent run: planned, trained as cohorts, written down as they come, and gone on with later."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import joblib
import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException

from entry_points.console import next_command, say, say_where
from entry_points.foundations import foundation_apart
from entry_points.options import FLEET
from tvae import registry
from tvae.architecture import Architecture
from tvae.checkpoint import Checkpoint, read
from tvae.errors import CheckpointError, ConfigurationError
from tvae.experiments.fanout import Trained, train_cohorts
from tvae.experiments.planning import cohorts
from tvae.experiments.presets import resolve_foundation
from tvae.experiments.start import from_checkpoint, from_mismatched, from_scratch
from tvae.experiments.trial import Trial
from tvae.markdown import escaped
from tvae.registry.foundation import codec_tags
from tvae.tracking import links
from tvae.tracking.children import Children
from tvae.tracking.process import PROCESS, process_state
from tvae.tracking.run import Run, open_run, source_tags
from tvae.tracking.store import adopted_run_id, connect
from tvae.training import Member, Result
from tvae.training.device import resolve_device

__all__ = ["Campaign", "Fleet", "covered", "opened", "run_to_resume"]

PLAN = "plan.json"
RESUME_NEVER, RESUME_AUTO = "none", "auto"
# A run of the parent's that is not a trial: foundations that could not be registered are found by this tag again.
CAMPAIGN = "campaign"


@dataclass(frozen=True, slots=True)
class Fleet:
    """Who trains.

    Attributes:
        backend: one of `configuration.BACKENDS`.
        address: of a running cluster, None for one of this machine's own.
        workers: how many cohorts at a time, None for as many as there are.
        device: a torch device.
    """

    backend: str
    address: str | None
    workers: int | None
    device: str

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> "Fleet":
        """Read the options of a command."""
        address = None if asked["address"] == "none" else asked["address"]
        workers = None if asked["workers"] == "auto" else asked["workers"]
        return cls(asked["backend"], address, workers, resolve_device(asked["device"]))

    @property
    def width(self) -> int:
        """How many cohorts a campaign should be divided for."""
        if self.backend == "local" and self.device != "cpu":
            return 1
        return self.workers or joblib.cpu_count()

    def train(self, tasks: Sequence[Sequence[Member]]) -> Iterator[Trained]:
        """Train cohorts, each given as it is done."""
        return train_cohorts(
            tasks, backend=self.backend, address=self.address, workers=self.workers, device=self.device
        )


@dataclass(slots=True)
class Clock:
    """Seconds of a campaign, those of its earlier attempts included.

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


@dataclass(frozen=True, slots=True)
class Campaign:
    """One parent run at work.

    Attributes:
        client: of the tracking store.
        run: the parent.
        children: the runs under it.
        fleet: who trains.
        clock: how long it takes.
    """

    client: MlflowClient
    run: Run
    children: Children
    fleet: Fleet
    clock: Clock

    def train(self, trials: Sequence[Trial]) -> None:
        """Train what is not finished yet, and write each trial down as soon as its cohort is trained."""
        finished = self.children.finished()
        missing = [trial for trial in trials if trial.key not in finished]
        self.run.log_metrics({"trials": len(finished.keys() | {trial.key for trial in trials})})
        if len(missing) < len(trials):
            say(f"{len(trials) - len(missing)} of {len(trials)} trials are finished already.")
        if not missing:
            return
        foundations = self._foundations([trial.architecture for trial in missing], min(_seeds(missing)))
        tasks = cohorts(missing, self.fleet.width)
        started = [[self._start(trial, foundations) for trial in cohort] for cohort in tasks]
        longest = max(trial.configuration.epochs for trial in missing)
        parts = "as one batch" if len(tasks) == 1 else f"in {len(tasks)} batches"
        say(f"Training {len(missing)} trials {parts}, each of at most {longest} epochs.")
        done = failed = 0
        for trained in self.fleet.train([[member for member, _ in cohort] for cohort in started]):
            cohort = tasks[trained.task]
            self.clock.trained(trained.ended, trained.seconds)
            with self.clock.writing():
                for place, trial in enumerate(cohort):
                    if trained.error is not None:
                        failed += 1
                        self.children.log_lost(trial, trained.error)
                        continue
                    result = trained.results[place]
                    failed += result.error is not None
                    self.children.log_result(trial, result, started[trained.task][place][1])
                done += len(cohort)
            counts = {"trials_finished": len(finished) + done - failed, "trials_failed": failed}
            self.run.log_metrics({**counts, **self.clock.metrics()})
            if trained.error is not None:
                say(f"Lost: {len(cohort)} trials. {trained.error}")
            else:
                of_all = f"{len(trials) - len(missing) + done} of {len(trials)} trials"
                say(f"{len(cohort)} trained in {trained.seconds:.1f} s; {of_all} are done.")

    def finish(self, command: str, metrics: Callable[[list[dict[str, float]]], dict[str, float]] | None = None) -> None:
        """Write the report, what the trials come to, and the description; say where to look.

        Args:
            command: which repeats the campaign.
            metrics: of the parent, from those of its trials.
        """
        from tvae.report import gather, headline, to_markdown, to_page  # draws, and so imports matplotlib

        self.run.log_metrics(self.clock.metrics())
        found = gather(self.client, self.run.id)
        if metrics is not None:
            self.run.log_metrics(metrics([dict(trial.metrics) for trial in found.trials if trial.finished]))
        with self.clock.writing():
            for name, text in (("report.md", to_markdown(found)), ("report.html", to_page(found))):
                (self.run.folder / name).write_text(text, encoding="utf-8")
                self.run.log_file(self.run.folder / name)
        self.run.log_metrics(self.clock.metrics())
        look = f"[report]({self.run.page('artifacts/report.html')})"
        self.run.describe(f"{look}\n\n{headline(found)}\n\nRepeat it:\n\n```sh\n{command}\n```")
        say("")
        say(headline(found).replace("**", ""))

    def _foundations(self, architectures: Sequence[Architecture], seed: int) -> dict[str, tuple[str, Checkpoint]]:
        """Return the foundation of each architecture and its address, by encoder and decoder; train what is missing."""
        found: dict[str, tuple[str, Checkpoint]] = {}
        missing: dict[str, Architecture] = {}
        for architecture in architectures:
            codec = _codec(architecture)
            if codec in found or codec in missing:
                continue
            start = registry.find_foundation(self.client, architecture, self.run.folder, tell=say)
            start = start or self._unregistered(architecture)
            if start is None:
                missing[codec] = architecture
            else:
                found[codec] = start
                say(f"Starting from {start[0]} where latent_dim is {architecture.latent_dim}.")
        members = [[from_scratch(a, resolve_foundation(a, {"seed": seed}))] for a in missing.values()]
        # All first: a verification starts processes, and would take the cores from those that still train.
        for trained in list(self.fleet.train(members)):
            codec, architecture = list(missing.items())[trained.task]
            self.clock.trained(trained.ended, trained.seconds)
            if trained.error is not None:
                raise ConfigurationError(f"The foundation for latent_dim={architecture.latent_dim}: {trained.error}")
            with self.clock.writing():
                found[codec] = self._record(architecture, trained.results[0])
        return found

    def _record(self, architecture: Architecture, result: Result) -> tuple[str, Checkpoint]:
        if result.error is not None:
            raise result.error

        def train(run: Run) -> Result:
            run.log_epochs(result.history)
            return result

        tags = {CAMPAIGN: self.run.id, **codec_tags(architecture)}
        return foundation_apart(self.client, architecture, result.configuration, train, tags)

    def _unregistered(self, architecture: Architecture) -> tuple[str, Checkpoint] | None:
        """Return the foundation that an earlier attempt of this campaign trained and its address, if it is there."""
        wanted = {CAMPAIGN: self.run.id, "stage": "foundation", **codec_tags(architecture)}
        conditions = [f"tags.`{name}` = '{value}'" for name, value in wanted.items()]
        query = " and ".join([*conditions, "attributes.status = 'FINISHED'"])
        runs = self.client.search_runs([self.run.experiment_id], query, max_results=1)
        if not runs:
            return None
        address = f"runs:/{runs[0].info.run_id}/checkpoint"
        try:
            return address, read(registry.fetch(address, self.run.folder))
        except CheckpointError as error:
            say(f"The foundation of an earlier attempt is gone, or cannot be read: {error}")
            return None

    def _start(
        self, trial: Trial, foundations: Mapping[str, tuple[str, Checkpoint]]
    ) -> tuple[Member, Mapping[str, Any]]:
        """Return a trial's member, and what its checkpoint says of where it started."""
        address, checkpoint = foundations[_codec(trial.architecture)]
        start = {"address": address, "digest": checkpoint.digest, "load": trial.load}
        if trial.load == "mismatched":
            member, missing = from_mismatched(checkpoint, trial.architecture, trial.configuration)
            return member, {**start, "silently random": list(missing)}
        member, transfer = from_checkpoint(checkpoint, trial.architecture, trial.configuration)
        return member, {**start, "taken": list(transfer.taken), "drawn": list(transfer.drawn)}


@contextmanager
def opened(
    entry_point: str, name: str, asked: Mapping[str, Any], trials: Sequence[Trial] | None
) -> Iterator[tuple[Campaign, list[Trial]]]:
    """Open the parent run of a command: a new one, or one that goes on.

    Args:
        entry_point: as in MLproject.
        name: of the run, unless the user gave one.
        asked: every option as it was given; `resume` is `none`, `auto` (the newest unfinished run of the same trials)
            or the id of a run, whose own trials then count.
        trials: what to train; None where each depends on those before it.

    Yields:
        The campaign, and its trials.

    Raises:
        ConfigurationError: if the run to go on with is not there, is of another kind, or is still at work.
    """
    fleet = Fleet.of(asked)
    client = connect()
    plan = [trial.to_dict() for trial in trials or []]
    tags = {"stage": entry_point, "device": fleet.device}
    identity = _identity(entry_point, trials, asked)
    resumed = run_to_resume(client, entry_point, identity, asked["resume"])
    with (
        _pointer(client, entry_point, resumed),
        open_run(
            client, name=name, tags={**tags, "plan": identity}, resume=resumed.info.run_id if resumed else None
        ) as run,
    ):
        stored = client.get_run(run.id)
        children = Children(client, run.experiment_id, run.id, run.folder, source_tags(stored))
        campaign = Campaign(client, run, children, fleet, Clock.of(stored))
        try:
            if resumed is None:
                run.log_parameters(asked)
                run.log_operations()
                run.log_json(PLAN, plan)
            else:
                plan = json.loads(mlflow.artifacts.load_text(f"runs:/{run.id}/{PLAN}"))
                _close_what_was_open(client, children)
                say(f"Going on with run {run.id}: its own trials and settings count.")
            yield campaign, [Trial.from_dict(values) for values in plan]
        except BaseException as error:  # whatever ends it, a signal too: what is finished can be gone on with
            error.add_note(f"Go on with it: {next_command(entry_point, resume=run.id)}")
            raise
        say_where(run.page("artifacts/report.html"))


@contextmanager
def _pointer(client: MlflowClient, entry_point: str, resumed: StoredRun | None) -> Iterator[None]:
    """Where `mlflow run` has made a run for a command that goes on with another: let it lead there."""
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
            say(f"Left alone: run {run.info.run_id}, RUNNING on {host}. If it is dead, pass resume={run.info.run_id}.")
        free = [run for run in idle if not _elsewhere(run)]
        if not free:
            done = client.search_runs(
                experiments,
                f"tags.plan = '{identity}' and attributes.status = 'FINISHED'",
                max_results=1,
                order_by=["attributes.start_time DESC"],
            )
            found = f"run {done[0].info.run_id} has finished all of them" if done else "the options say which they are"
            say(f"No unfinished run of the same trials is there: {found}. Starting a new one.")
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
        say(f"Cut off while they were written, and tried again: {repeated}.")
    query = f"tags.{CAMPAIGN} = '{children.parent_id}' and attributes.status = 'RUNNING'"
    for run in client.search_runs([children.experiment_id], query):
        client.set_terminated(run.info.run_id, "KILLED")


def _identity(entry_point: str, trials: Sequence[Trial] | None, asked: Mapping[str, Any]) -> str:
    """Return what tells whether an unfinished run is the same campaign, whatever the order of its trials."""
    if trials is not None:
        content = sorted(trial.key for trial in trials)
    else:
        content = sorted(f"{name}={value}" for name, value in asked.items() if name not in FLEET)
    return hashlib.sha256(" ".join([entry_point, *content]).encode()).hexdigest()[:16]


def _codec(architecture: Architecture) -> str:
    return str(sorted(codec_tags(architecture).items()))


def _seeds(trials: Sequence[Trial]) -> list[int]:
    return [trial.configuration.seed for trial in trials]
