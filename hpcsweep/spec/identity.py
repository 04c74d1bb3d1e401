"""What must not change between two launches of a sweep, and how a change is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcsweep.core.domains import format_value


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each change from `old` to `new`, such as `space.lr.high: 0.1 -> 0.5`; empty if equal."""
    return _changes(old, new, path="")


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], *, path: str) -> list[str]:
    lines: list[str] = []
    for key in [*old, *(key for key in new if key not in old)]:
        where = f"{path}.{key}" if path else str(key)
        if key not in new:
            lines.append(f"{where}: removed")
        elif key not in old:
            lines.append(f"{where}: added")
        elif isinstance(old[key], Mapping) and isinstance(new[key], Mapping):
            lines += _changes(old[key], new[key], path=where)
        elif isinstance(old[key], bool) != isinstance(new[key], bool) or old[key] != new[key]:
            lines.append(f"{where}: {format_value(old[key])} -> {format_value(new[key])}")
    return lines
