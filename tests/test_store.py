"""The tracking store and the experiment that a command chooses."""

import errno
import fcntl
import time
from pathlib import Path
from threading import Event, Thread
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.tracking._tracking_service.client import TrackingServiceClient
from registry_store import tracking_in

from tvae.errors import TrackingError
from tvae.tracking import store
from tvae.tracking.run import open_run
from tvae.tracking.store import EXPERIMENT, connect, using_store


def test_the_later_of_two_that_make_the_experiment_logs_to_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracking_in(tmp_path):
        made = MlflowClient().create_experiment(EXPERIMENT)
        looks: list[str] = []

        found = TrackingServiceClient.get_experiment_by_name

        def too_early(client: TrackingServiceClient, name: str) -> Experiment | None:
            looks.append(name)
            return found(client, name) if len(looks) > 1 else None

        monkeypatch.setattr(TrackingServiceClient, "get_experiment_by_name", too_early)
        connect()
        with mlflow.start_run() as run:
            assert run.info.experiment_id == made


@pytest.mark.parametrize("code", ["ENOSYS", "ENOTSUP", "ENOLCK", "EINVAL"])
def test_a_new_store_needs_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(getattr(errno, code), "no locks here")

    monkeypatch.setattr(fcntl, "flock", flock)
    with store._first_use(f"sqlite:///{tmp_path}/mlflow.db"):
        pass


def test_who_makes_a_new_store_is_waited_for(tmp_path: Path) -> None:
    entered = Event()

    def enter() -> None:
        with store._first_use(f"sqlite:///{tmp_path}/mlflow.db"):
            entered.set()

    other = Thread(target=enter)
    with store._first_use(f"sqlite:///{tmp_path}/./mlflow.db"):
        other.start()
        assert not entered.wait(0.2)
    other.join()
    assert entered.is_set()


@pytest.mark.parametrize(
    "error", [BrokenPipeError("by the reader"), OSError("No space left"), ModuleNotFoundError("No module named 'x'")]
)
def test_what_goes_wrong_beside_the_store_is_not_blamed_on_it(tmp_path: Path, error: Exception) -> None:
    with tracking_in(tmp_path):
        client = connect()
        with pytest.raises(type(error), match=str(error)), open_run(client, name="fails", tags={}):
            raise error
        (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
        assert (run.info.status, run.data.tags["failure"]) == ("FAILED", str(error))


def test_a_store_whose_artifacts_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    artifacts = LocalArtifactRepository(str(tmp_path / "file" / "artifacts"))
    with pytest.raises(TrackingError, match=r"^The tracking store .* must be usable; found: .*file"), using_store():
        artifacts.log_artifact(__file__)


def test_epochs_whose_answer_was_lost_are_logged_again_and_stand_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracking_in(tmp_path):
        client = connect()
        with open_run(client, name="interrupted", tags={}) as run:
            taken = MlflowClient.log_batch

            def without_an_answer(self: MlflowClient, *arguments: Any, **named: Any) -> None:
                taken(self, *arguments, **named)
                raise MlflowException("Read timed out")

            with monkeypatch.context() as patch:
                patch.setattr(MlflowClient, "log_batch", without_an_answer)
                with pytest.raises(TrackingError):
                    run.log_epochs([{"epoch": 1.0, "loss": 0.5}])
            time.sleep(0.01)  # another millisecond than the first time
            run.log_epochs([{"epoch": 2.0, "loss": 0.25}])
            checkpoint = run.folder / "checkpoint.safetensors"
            checkpoint.write_bytes(b"x")
            run.log_checkpoint(checkpoint, [{"epoch": 1.0, "loss": 0.5}, {"epoch": 2.0, "loss": 0.25}])
            logged = client.get_metric_history(run.id, "loss")
        assert [(metric.step, metric.value) for metric in logged] == [(1, 0.5), (2, 0.25)]
