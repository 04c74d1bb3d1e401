"""Classes by name: ours from a table, those of other packages from entry points."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from hpcsweep.errors import SpecError


def find_class(table: Mapping[str, str], name: str, *, group: str, key: str) -> Any:
    """The class of that name; entry points are read only if it is none of the table.

    Args:
        table: Name -> `module:class`.
        name: What the spec says.
        group: Entry point group of other packages' classes.
        key: Key path in the spec, for the message.

    Raises:
        SpecError: There is none of that name.
    """
    from importlib import import_module
    from importlib.metadata import entry_points

    if name in table:
        module, _, attribute = table[name].partition(":")
        return getattr(import_module(module), attribute)
    points = {point.name: point for point in entry_points(group=group)}
    if name in points:
        return points[name].load()
    known = plugin_names(table, group)
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
    raise SpecError(f"{key}: unknown name {name!r}; {hint}")


def plugin_names(table: Mapping[str, str], group: str) -> list[str]:
    """All known names: ours, then those of the entry points."""
    from importlib.metadata import entry_points

    return list(dict.fromkeys([*table, *(point.name for point in entry_points(group=group))]))
