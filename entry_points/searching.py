"""A sweep that chooses its own trials."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entry_points.campaigns import opened
from entry_points.options import NONE
from tvae.experiments.grid import grid_axes
from tvae.experiments.search import ROUND, Search

__all__ = ["search"]


def search(asked: Mapping[str, Any], command: str) -> None:
    """Ask for trials in rounds, train each round, and learn from it.

    A search that goes on asks again for what it had asked for, and gets the answers that are there.

    Args:
        asked: every option of the command as it was given.
        command: which repeats the search.
    """
    base, choices = ({}, {}) if asked["grid"] == NONE else grid_axes(Path(asked["grid"]))
    searching = Search(choices, {"objective": asked["objective"], **base}, asked["seeds"], asked["seed"])
    with opened("sweep", f"search {asked['search']} {asked['objective']}, {asked['trials']} trials", asked, None) as (
        campaign,
        _,
    ):
        for first in range(0, asked["trials"], ROUND):
            suggestions = searching.ask(min(ROUND, asked["trials"] - first))
            campaign.train(list({trial.key: trial for trials in suggestions for trial in trials}.values()))
            finished = campaign.children.finished()
            values: list[tuple[float, float] | None] = []
            for trials in suggestions:
                found = [finished[trial.key] for trial in trials if trial.key in finished]
                hierarchies = [metrics["best_hierarchy"] for metrics in found]
                richness = [metrics["best_richness"] for metrics in found]
                values.append((sum(hierarchies) / len(found), sum(richness) / len(found)) if found else None)
            searching.tell(values)
        campaign.finish(command)
