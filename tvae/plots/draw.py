"""What draws a run's figures: called in a process of its own, beside what else a run leaves; see `tvae.fresh`."""

from pathlib import Path
from typing import Any

from tvae.plots import disk

__all__ = ["draw"]


def draw(path: Path, name: str, *arguments: Any, **options: Any) -> None:
    """Draw a figure and save it.

    Args:
        path: of the file: a PNG, or `disk.html`.
        name: of a function of `tvae.plots`; `disk` for the page that `tvae.plots.disk` makes.
        arguments: of the function.
        options: of the function.
    """
    if name == "disk":
        path.write_text(disk.page(*arguments, **options), encoding="utf-8")
        return
    from tvae.plots import figures as plots

    plots.save(getattr(plots, name)(*arguments, **options), path)
