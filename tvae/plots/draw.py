"""What draws a run's figures: called in a process of its own, beside what else a run leaves; see `tvae.fresh`."""

from pathlib import Path
from typing import Any

from tvae.plots import disk

__all__ = ["draw"]


def draw(path: Path, name: str, *arguments: Any, **options: Any) -> None:
    """Draw a figure and save it.

    Args:
        path: of the file: a PNG, or `disk.html`.
        name: of a figure in `tvae.plots.figures`; `disk` for the page that `tvae.plots.disk` makes.
        arguments: of its function.
        options: of its function.
    """
    if name == "disk":
        path.write_text(disk.page(*arguments, **options), encoding="utf-8")
        return
    # Whoever has figures drawn does not load matplotlib.
    from tvae.plots import figures

    figures.save(getattr(figures, name)(*arguments, **options), path)
