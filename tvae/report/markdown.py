"""The report in Markdown, and its first lines for a run's description."""

from tvae.markdown import escaped
from tvae.report.blocks import Block, Bullets, Figure, Folded, Heading, Paragraph, Table
from tvae.report.document import document, summary
from tvae.report.findings import study
from tvae.report.gather import Campaign

__all__ = ["headline", "to_markdown"]


def to_markdown(campaign: Campaign) -> str:
    """Return the report as Markdown; its figures are on the page only."""
    blocks = [text for block in document(study(campaign)) if (text := _block(block))]
    return "\n\n".join(blocks) + "\n"


def headline(campaign: Campaign) -> str:
    """Return what to know first, in Markdown: for the description of the run, and for the terminal."""
    return _bullets(tuple(summary(study(campaign))))


def _block(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {escaped(text)}"
        case Paragraph(text):
            return escaped(text)
        case Bullets(items):
            return _bullets(items)
        case Table():
            return _table(block)
        case Figure():
            return ""
        case Folded(title, blocks):
            return "\n\n".join([f"{escaped(title)}:", *filter(None, map(_block, blocks))])


def _bullets(items: tuple[tuple[str, str], ...]) -> str:
    return "\n".join(
        "- " + " ".join(filter(None, (f"**{escaped(first)}**" if first else "", escaped(rest))))
        for first, rest in items
    )


def _table(table: Table) -> str:
    rows = [table.columns, *table.rows]
    written = [[escaped(cell) for cell in row] for row in rows]
    for i in table.strong:
        written[i + 1][0] = f"**{written[i + 1][0]}**"
    lines = [f"| {' | '.join(row)} |" for row in written]
    rule = "|" + "|".join(" --- " if i in table.words else " ---: " for i in range(len(table.columns))) + "|"
    caption = [escaped(table.caption), ""] if table.caption else []
    return "\n".join([*caption, lines[0], rule, *lines[1:]])
