"""The trainings that commands have in common, from an open run to what they leave there."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from mlflow import MlflowClient

from tvae import registry
from tvae.checkpoint import Checkpoint, read
from tvae.config.architecture import Architecture
from tvae.config.presets import resolve_foundation
from tvae.config.training import Configuration
from tvae.errors import CheckpointError, RegistryError, TrackingError
from tvae.fresh import FreshProcess
from tvae.metrics import Evaluation, hierarchy_ceiling, richness_ceiling
from tvae.tracking import links
from tvae.tracking.description import describe_embedding, estimated, richness_shares, settings_table
from tvae.tracking.outcome import Outcome, log_embedding, process_for_outcome
from tvae.tracking.run import Run, open_run
from tvae.tracking.store import STORE_ERRORS, connect
from tvae.tracking.view import VIEW
from tvae.training import Member, Record, Result, train
from tvae.training.device import resolve_device
from tvae.training.start import from_checkpoint, from_foundation, from_scratch
from tvae.workflows.foundation import foundation_apart, record_foundation, training_record
from tvae.workflows.messages import Progress, command_line, next_command, say_where, show_table

__all__ = ["Session", "open_session"]

_logger = logging.getLogger(__name__)

# Epochs are logged together: a call to the store takes as long as a short epoch. Nobody watches a chart more closely.
_LOG_SECONDS = 1.0
# Figures that a run's description leads to, by what it calls them.
_SHOWN = {
    "disk": "disk.html",
    "ball": "poincare_disk.png",
    "levels": "radius_by_valuation.png",
    "curves": "training_curves.png",
}


class Start(NamedTuple):
    """Where a finetuning starts."""

    address: str
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Session:
    """One command at work in its open run.

    Attributes:
        promote: `auto`, `never` or `force`.
        process: loads the checkpoint afresh that the training comes to, and draws its figures.
        repeat: returns the command that repeats the run, with options changed as given.
        settings: a table of all settings that were used, and who chose them, in Markdown.
    """

    client: MlflowClient
    run: Run
    architecture: Architecture
    configuration: Configuration
    device: str
    promote: str
    process: FreshProcess
    repeat: Callable[..., str]
    settings: str

    def train_foundation(self) -> None:
        """Train encoder and decoder, and register them unless `promote` is `never`.

        Raises:
            CheckpointError: if it was to be registered and did not pass verification.
        """
        register = self.promote != "never"
        result = self._train(from_scratch(self.architecture, self.configuration), "foundation")
        outcome = record_foundation(
            self.client,
            self.run,
            result,
            self.process,
            command=self.repeat(),
            register=register,
            settings=self.settings,
        )
        if register and not outcome.verification.passed:
            raise CheckpointError(
                "Only a verified foundation can be registered, and this one failed: "
                f"{outcome.verification.failures}. Run `train` with more epochs (epochs=40, say), or with "
                "promote=never to keep it in its run only."
            )

    def starting_checkpoint(self, address: str) -> Start:
        """Return the checkpoint that a finetuning starts from, and its address.

        Args:
            address: a path, a `models:/` or `runs:/` address, or `auto`: the registered foundation, and where none fits
                one that is trained now, in a run of its own.

        Raises:
            CheckpointError: if there is none, or it cannot be read.
        """
        if address == "auto":
            registered = registry.find_foundation(
                self.client, self.architecture, self.run.folder, self.configuration.holdout
            )
            if registered is None:
                return self._foundation_apart()
            address, checkpoint = registered
        else:
            checkpoint = read(registry.fetch(address, self.run.folder))
        _logger.info(f"Starting from {address}.")
        return self._start(address, replace(checkpoint, path=Path(address)))  # not where it was downloaded to

    def finetune(self, origin: Start, *, new_projection: bool = False) -> None:
        """Train the projection on a checkpoint's encoder, and log all of it.

        Raises:
            CheckpointError: if the architecture differs from the checkpoint's in what is loaded from it.
            TrainingError: on NaN or infinity.
        """
        member, transfer = from_checkpoint(
            origin.checkpoint, self.architecture, self.configuration, new_projection=new_projection
        )
        _logger.info(transfer.describe())
        self.run.set_tags(
            {"loaded": ", ".join(transfer.loaded), "reinitialised": ", ".join(transfer.reinitialised) or "nothing"}
        )
        result = self._train(member, "finetune")
        start = {
            "digest": origin.checkpoint.digest,
            "loaded": list(transfer.loaded),
            "reinitialised": list(transfer.reinitialised),
        }
        trained = {*transfer.loaded, *_learned(self.architecture)}
        training = training_record("finetune", self.configuration, start=start)
        command = self.repeat(checkpoint=origin.address)
        self._finish("Finetuning", result, trained, training, transfer.describe(), command)

    def scratch(self, foundation: Configuration) -> None:
        """Train encoder and decoder, then the projection, in one run.

        Args:
            foundation: of the first stage.

        Raises:
            TrainingError: on NaN or infinity.
        """
        self.run.log_parameters({"foundation_epochs": foundation.epochs})
        first = self._train(from_scratch(self.architecture, foundation), "encoder and decoder")
        coverage = first.history[first.best_epoch]["coverage"]
        _logger.info(f"Encoder and decoder: coverage {coverage:.5f}, {first.seconds:.1f} s.")
        second = self._train(from_foundation(first, self.configuration), "projection", len(first.history))
        training = training_record("scratch", self.configuration, foundation=foundation.to_dict())
        start = f"All weights were drawn from seed {foundation.seed}; encoder and decoder trained first."
        trained = {"encoder", "decoder", *_learned(self.architecture)}
        self._finish("From scratch", second.after(first), trained, training, start, self.repeat())

    def _train(self, member: Member, what: str, offset: int = 0) -> Result:
        with Progress(what, member.configuration.epochs) as progress:
            watch = _Watch(self.run, progress, offset)
            try:
                return train(member, device=self.device, observer=watch)
            finally:
                watch.log()

    def _start(self, address: str, checkpoint: Checkpoint) -> Start:
        self.run.set_tags({"start": address, "start_digest": checkpoint.digest[:16]})
        self.run.log_parameters({"checkpoint": address})
        return Start(address, checkpoint)

    def _foundation_apart(self) -> Start:
        _logger.info("No foundation is registered for this architecture: training one first, in a run of its own.")
        configuration = resolve_foundation(
            self.architecture, {"seed": self.configuration.seed, "holdout": self.configuration.holdout}
        )

        def train(run: Run) -> Result:
            return replace(self, run=run)._train(from_scratch(self.architecture, configuration), "foundation")

        return self._start(*foundation_apart(self.client, self.architecture, configuration, train, {}))

    def _finish(
        self,
        title: str,
        result: Result,
        trained: set[str],
        training: Mapping[str, Any],
        start: str,
        command: str,
    ) -> None:
        outcome, evaluation, model_id = log_embedding(self.client, self.run, result, trained, training, self.process)
        shown = {name: file for name, file in _SHOWN.items() if Path(file).stem in outcome.figures}
        look = {
            **{name: self.run.page(f"artifacts/plots/{file}") for name, file in shown.items()},
            "verification": self.run.page("artifacts/verification.json"),
            "beside other runs": links.runs_page(self.run.experiment_id, VIEW),
        }
        description = describe_embedding(
            title,
            self.architecture,
            result,
            evaluation,
            verified=outcome.verification.passed,
            start=start,
            command=command,
            look=look,
        )
        self.run.describe(f"{description}\n\n{self.settings}")
        _logger.info("")
        show_table(_table(self.architecture, result, evaluation, outcome.verification.passed))
        if self.promote != "never":
            _logger.info("")
            self._promote(outcome, model_id)

    def _promote(self, outcome: Outcome, model_id: str) -> None:
        """Put the model into the registry; a model that may not get there, or is not better, is no failure."""
        if not outcome.verification.passed:
            _logger.info(f"Not registered, because verification failed: {outcome.verification.failures}.")
            return
        promotion = registry.promote(self.client, outcome.verification, model_id=model_id, mode=self.promote)
        if promotion.moved and promotion.comparison is not None:
            _logger.info(f"{promotion.comparison.table()}\n")
        _logger.info(promotion.sentence())
        self.run.set_tags({"registered": f"{registry.MODEL} version {promotion.version}"})


@contextmanager
def open_session(
    entry_point: str,
    name: str,
    asked: Mapping[str, Any],
    defaults: Mapping[str, Any],
    architecture: Architecture,
    configuration: Configuration,
) -> Iterator[Session]:
    """Open the run of a command, log its settings, and say at the end where to look.

    Args:
        entry_point: as in MLproject.
        name: of the run, unless the user gave one.
        asked: every option as it was given.
        defaults: of the options.
        architecture: what `asked` came to.
        configuration: what `asked` came to.
    """
    device = resolve_device(asked["device"])
    client = connect()
    # It imports while the model trains, which leaves a core idle.
    with (
        process_for_outcome() as process,
        open_run(client, name=name, tags={"stage": entry_point, "device": device}) as run,
    ):
        values = architecture.to_dict() | configuration.to_dict() | {"device": device}
        used = {name: values.get(name, value) for name, value in asked.items()}
        # `promote` is auto in earnest. What is auto besides is logged as soon as it is known.
        run.log_parameters({name: value for name, value in used.items() if value != "auto" or name == "promote"})
        settings = settings_table(asked, used, defaults)
        run.log_operations(architecture.n_trits)

        def repeat(**changed: Any) -> str:
            return command_line(entry_point, {**asked, **changed}, defaults)

        try:
            yield Session(client, run, architecture, configuration, device, asked["promote"], process, repeat, settings)
        except (*STORE_ERRORS, TrackingError, RegistryError, KeyboardInterrupt) as error:
            if kept := run.keep_checkpoint():
                use = "finetune" if entry_point == "train" else "promote"
                error.add_note(f"The trained model is not lost: {kept}")
                error.add_note(f"Continue with: {next_command(use, checkpoint=kept)}")
            raise
        say_where(run.page())


class _Watch:
    """Tells the run and the terminal of every epoch."""

    def __init__(self, run: Run, progress: Progress, offset: int) -> None:
        self._run, self._progress, self._offset = run, progress, offset
        self._waiting: list[Record] = []
        self._logged = time.monotonic()

    def epoch(self, member: int, record: Record) -> None:
        self._waiting.append(record)
        if time.monotonic() - self._logged >= _LOG_SECONDS:
            self.log()
        self._progress.epoch(record)

    def log(self) -> None:
        """Log the epochs that wait."""
        waiting, self._waiting, self._logged = self._waiting, [], time.monotonic()
        try:
            self._run.log_epochs(waiting, self._offset)
        except TrackingError as error:
            self._progress.event(f"{error}\nTraining goes on; what it comes to is logged at its end, or kept here.")

    def event(self, member: int, text: str) -> None:
        self._progress.event(text)


def _learned(architecture: Architecture) -> tuple[str, ...]:
    return ("projection", "controller") if architecture.use_controller else ("projection",)


def _table(architecture: Architecture, result: Result, evaluation: Evaluation, verified: bool) -> list[tuple[str, str]]:
    levels = architecture.n_trits
    limit = richness_ceiling(architecture.max_radius, levels)
    return [
        ("coverage", f"{evaluation.coverage:8.5f}   limit 1{estimated(evaluation, 'coverage')}"),
        (
            "hierarchy",
            f"{evaluation.hierarchy:8.5f}   limit {hierarchy_ceiling(levels):.5f}{estimated(evaluation, 'hierarchy')}",
        ),
        (
            "level gap",
            f"{evaluation.level_gap:8.5f}   {'two levels overlap' if evaluation.level_gap < 0 else 'limit 1'}",
        ),
        ("richness", f"{evaluation.richness:8.5f}   limit {limit:.5f}; by valuation {richness_shares(evaluation)}"),
        ("tree precision", f"{evaluation.tree_precision:8.5f}   limit 1{estimated(evaluation, 'tree_precision')}"),
        ("degradation", f"{result.summary()['degradation']:+z8.5f}   best epoch {result.best_epoch}"),
        ("training time", f"{result.seconds:.1f} s"),
        ("verification", "passed" if verified else "FAILED: see verification.json in the run"),
    ]
