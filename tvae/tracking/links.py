"""Deep links into the MLflow UI: its landing page is another view, so that a link to the page itself is needed.

A page is an address within the UI, `#/…`. Descriptions hold pages, which open on whatever host and port the UI has;
what is printed is the whole address.
"""

import os

import mlflow

from tvae.errors import without_credentials

__all__ = ["address", "model_page", "needs_ui", "run_page", "runs_page"]

# The variable is MLflow's own, by which `mlflow ui` too chooses its port.
PORT, PORT_VARIABLE = "5000", "MLFLOW_PORT"
_VIEW = "workflowType=machine_learning"


def needs_ui() -> bool:
    """Whether the user has to start a UI (`make ui`) before a link opens: there is no tracking server."""
    return not mlflow.get_tracking_uri().startswith("http")


def address(page: str) -> str:
    """Return the whole address of a page: on the tracking server, or on the UI that `make ui` starts."""
    if needs_ui():
        return f"http://127.0.0.1:{os.environ.get(PORT_VARIABLE, PORT)}/{page}"
    return f"{without_credentials(mlflow.get_tracking_uri()).rstrip('/')}/{page}"


def run_page(experiment_id: str, run_id: str, within: str = "") -> str:
    """Return a run's page: its overview, or `model-metrics`, or `artifacts/PATH`."""
    return f"#/experiments/{experiment_id}/runs/{run_id}{'/' if within else ''}{within}?{_VIEW}"


def runs_page(experiment_id: str, view: str) -> str:
    """Return the page of an experiment's runs beside one another, in a saved view."""
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={view}&{_VIEW}"


def model_page(name: str, version: str) -> str:
    """Return the page of a version of a registered model."""
    return f"#/models/{name}/versions/{version}?{_VIEW}"
