"""What draws a run's figures: called in a process of its own, beside what else a run leaves; see `tvae.fresh`."""

from pathlib import Path
from typing import Any

__all__ = ["draw"]


def draw(path: Path, name: str, *arguments: Any, **options: Any) -> None:
    """Draw a figure and save it as a PNG.

    Args:
        path: of the PNG.
        name: of a function of `tvae.plots`.
        arguments: of the function.
        options: of the function.
    """
    from tvae import plots  # imports matplotlib, for which whoever asks for a figure does not wait

    plots.save(getattr(plots, name)(*arguments, **options), path)
