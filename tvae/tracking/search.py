"""Searches whose answer is whole, however many pages of MLflow's it fills."""

from collections.abc import Iterator

from mlflow import MlflowClient
from mlflow.entities import Run

__all__ = ["all_runs", "each_run"]

_PAGE = 1000


def all_runs(client: MlflowClient, experiments: list[str], query: str = "") -> list[Run]:
    """Return all runs that match, read before the caller changes any of them: a change would move the pages."""
    return list(each_run(client, experiments, query))


def each_run(client: MlflowClient, experiments: list[str], query: str = "") -> Iterator[Run]:
    """Yield all runs that match, oldest first, with a page of them in memory; the caller changes none meanwhile."""
    token = None
    while True:
        page = client.search_runs(
            experiments, query, max_results=_PAGE, order_by=["attributes.start_time ASC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return
