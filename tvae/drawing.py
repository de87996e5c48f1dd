"""Figures drawn by a process of their own, beside what else a run leaves: `python -m tvae.drawing`.

The process imports matplotlib, and waits for a list of drawings on standard input; `draw` gives it one.
"""

import pickle
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tvae.aides import Aide

__all__ = ["Drawing", "draw"]


class Drawing(NamedTuple):
    """A figure that is to be drawn.

    Attributes:
        name: of a function of `tvae.plots`, and of the file unless `file` says otherwise.
        arguments: of the function.
        options: of the function.
        file: of the PNG, without its ending.
    """

    name: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    file: str = ""

    def path(self, folder: Path) -> Path:
        """Return the path of the PNG in a folder."""
        return folder / f"{self.file or self.name}.png"


def draw(drawings: Sequence[Drawing], folder: Path, aide: Aide) -> None:
    """Have figures drawn as PNGs.

    Args:
        drawings: what to draw.
        folder: where to; it exists.
        aide: who draws.

    Raises:
        AideError: if one cannot be drawn.
    """
    aide.ask(pickle.dumps((list(map(tuple, drawings)), folder)))


def main() -> None:
    """Draw what standard input asks for; nothing, if it ends without asking."""
    from tvae import plots

    if task := sys.stdin.buffer.read():
        drawings, folder = pickle.loads(task)
        for drawing in (Drawing(*fields) for fields in drawings):
            figure = getattr(plots, drawing.name)(*drawing.arguments, **drawing.options)
            plots.save(figure, drawing.path(folder))


if __name__ == "__main__":
    main()
