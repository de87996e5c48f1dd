"""HTML and SVG from Python: what is text is escaped, whoever wrote it."""

import html

__all__ = ["Markup", "element"]

# Elements that HTML closes by itself.
_VOID = frozenset({"meta"})


class Markup(str):
    """Text that is markup already, and is not escaped again."""

    __slots__ = ()


def element(tag: str, /, *content: str | Markup, **attributes: str | float) -> Markup:
    """Return an element with its content, all but `Markup` escaped.

    Args:
        tag: name of the element.
        content: texts and elements, in order.
        attributes: by name; `_` stands for `-`, and is left out at the end: `class_`. One that is empty is left out.

    Example:
        >>> element("td", "<script>", class_="number")
        '<td class="number">&lt;script&gt;</td>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_text(value))}"'
        for key, value in attributes.items()
        if value != ""
    )
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    inside = "".join(part if isinstance(part, Markup) else html.escape(part, quote=False) for part in content)
    return Markup(f"<{tag}{written}>{inside}</{tag}>")


def _text(value: str | float) -> str:
    """Write an attribute; lengths in a figure to a hundredth of a pixel."""
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
