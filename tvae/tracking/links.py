"""Deep links into the MLflow UI: its landing page is another view, so that a link to the page itself is needed."""

import mlflow

from tvae.errors import without_credentials

__all__ = ["needs_ui", "run_link"]

LOCAL_UI = "http://127.0.0.1:5000"
_VIEW = "workflowType=machine_learning"


def needs_ui() -> bool:
    """Whether the user has to start a UI (`make ui`) before a link opens: there is no tracking server."""
    return not mlflow.get_tracking_uri().startswith("http")


def run_link(experiment_id: str, run_id: str, page: str = "") -> str:
    """Return the address of a run's page: its overview, or `model-metrics`, or `artifacts/PATH`."""
    base = LOCAL_UI if needs_ui() else without_credentials(mlflow.get_tracking_uri()).rstrip("/")
    return f"{base}/#/experiments/{experiment_id}/runs/{run_id}{'/' if page else ''}{page}?{_VIEW}"
