"""Text of others on a terminal: what configurations and logs hold is shown, never obeyed."""

from __future__ import annotations


def neutral(text: str) -> str:
    """One line without what a terminal would obey: escapes, line breaks, changes of direction."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in text)
