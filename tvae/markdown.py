"""Texts that somebody else wrote, as Markdown shows them: a name is a name, and never markup."""

import re

__all__ = ["escaped"]

# What could begin a link, code or emphasis, or end a cell of a table.
_SPECIAL = re.compile(r"([\\`*\[\]|~])")
_SPECIAL_BUT_CODE = re.compile(r"([\\*\[\]|~])")
# A bound such as <= 0 is no tag, and the text is read as it is, too.
_TAG = re.compile("<(?![ =])")


def escaped(text: str, *, code: bool = False) -> str:
    r"""Return text that Markdown shows as it is, on one line.

    Args:
        text: of any origin.
        code: let backticks set code, as messages use them.

    Example:
        >>> escaped("[a](b) <script>")
        '\\[a\\](b) &lt;script>'
    """
    plain = _TAG.sub("&lt;", " ".join(text.split()).replace("&", "&amp;"))
    return (_SPECIAL_BUT_CODE if code else _SPECIAL).sub(r"\\\1", plain)
