"""The blocks that a report is made of, before it is Markdown or a page."""

from dataclasses import dataclass
from typing import TypeAlias

from tvae.report.figures import Drawing

__all__ = ["Block", "Bullets", "Figure", "Folded", "Heading", "Paragraph", "Table"]


@dataclass(frozen=True, slots=True)
class Heading:
    """The title of what follows, at level 1 … 3."""

    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Text."""

    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list; each item begins with what is to be seen first."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        columns: their names.
        rows: a text for each column.
        words: the columns that hold words; the others hold figures, and are set so that their digits align.
        codes: the columns that hold what one copies into a command.
        strong: the rows that stand out.
        caption: what it shows, if its heading does not say it.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: frozenset[int] = frozenset({0})
    codes: frozenset[int] = frozenset()
    strong: frozenset[int] = frozenset()
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and what is to be known to read it; Markdown has none."""

    drawing: Drawing
    caption: str


@dataclass(frozen=True, slots=True)
class Folded:
    """What a page shows only when it is asked for."""

    title: str
    blocks: tuple["Block", ...]


Block: TypeAlias = Heading | Paragraph | Bullets | Table | Figure | Folded
