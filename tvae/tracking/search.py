"""Searches whose answer is whole, however many pages of MLflow's it fills."""

from mlflow import MlflowClient
from mlflow.entities import Run

__all__ = ["all_runs"]

_PAGE = 1000


def all_runs(client: MlflowClient, experiments: list[str], query: str = "") -> list[Run]:
    """Return all runs that match, read before the caller changes any of them: a change would move the pages.

    Args:
        client: of the tracking store.
        experiments: the ids of those to search.
        query: MLflow's filter; none finds all.
    """
    found: list[Run] = []
    token = None
    while True:
        page = client.search_runs(experiments, query, max_results=_PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found
