"""The tracking store and the experiment that a command chooses."""

import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.client import TrackingServiceClient
from registry_store import tracking_in

from tvae.errors import TrackingError
from tvae.tracking.run import open_run
from tvae.tracking.store import EXPERIMENT, connect


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
