"""Names of metrics in files that other programs show."""

from __future__ import annotations

from collections.abc import Container, Iterable

NO_NAME = "(no name)"


def printable(text: str) -> str:
    r"""One line in which whatever is not printable is an escape, such as `\x1b` or `\u202e`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def labels(names: Iterable[str], *, taken: Container[str] = ()) -> dict[str, str]:
    """What each name is shown as: printable, and none twice.

    Args:
        names: Any text. What is printable and not taken stays as it is.
        taken: Labels that mean something else.
    """
    names = list(dict.fromkeys(names))
    found: dict[str, str] = {}
    used = {name for name in names if name and name.isprintable() and name not in taken}
    for name in names:
        if name in used:
            found[name] = name
            continue
        plain = label = printable(name) or NO_NAME
        number = 2
        while label in used or label in taken:
            label, number = f"{plain} ({number})", number + 1
        used.add(label)
        found[name] = label
    return found
