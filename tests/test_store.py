"""The tracking store and the experiment that a command chooses."""

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.tracking._tracking_service.client import TrackingServiceClient
from registry_store import tracking_in

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
