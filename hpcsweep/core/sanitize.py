"""Text of others without what a terminal or a page would obey. Pure."""

from __future__ import annotations


def sanitize(text: str) -> str:
    """One line without escapes, line breaks and changes of direction."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in text)


def sanitize_lines(text: str) -> str:
    """The same for a text of several lines, in which tabs stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else sanitize(char) for char in text)
