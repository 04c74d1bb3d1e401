"""Classes by name: ours from a table, those of other packages from entry points."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from hpcsweep.errors import SpecError


def find_class(table: Mapping[str, str], name: str, *, group: str, key: str) -> Any:
    """The class of that name in `table` (name -> `module:class`), else in the entry point `group`."""
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
