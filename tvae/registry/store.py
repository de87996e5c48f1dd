"""What promotions and foundations have in common: names, and asking MLflow's registry."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS
from sqlalchemy.exc import SQLAlchemyError

from tvae.errors import RegistryError, without_credentials
from tvae.tracking.store import reason

__all__ = ["CHAMPION", "PREVIOUS", "answering", "ensure_model", "note_version", "versions_of"]

CHAMPION = "champion"
PREVIOUS = "previous"
_PAGE = 1000


@contextmanager
def answering(name: str) -> Iterator[None]:
    """Turn what goes wrong in the registry into one sentence.

    Raises:
        RegistryError: for an error of MLflow or of its store.
    """
    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        raise RegistryError(
            f"The registered model {name} in {without_credentials(mlflow.get_registry_uri())} must be usable; "
            f"found: {reason(error)}"
        ) from error


def ensure_model(client: MlflowClient, name: str, description: str) -> None:
    """Make a registered model unless it is there."""
    try:
        client.create_registered_model(name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def note_version(client: MlflowClient, model_id: str, name: str, version: str) -> None:
    """Note at a logged model which version it is: so its page, and that of its run, know of it."""
    listed = json.loads(client.get_logged_model(model_id).tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    listed.append({"name": name, "version": version})
    client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: json.dumps(listed)})


def versions_of(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Return all versions of a registered model, the oldest first."""
    versions: list[ModelVersion] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=_PAGE, page_token=token)
        versions += page
        token = page.token
        if not token:
            return sorted(versions, key=lambda version: int(version.version))
