"""Classes by name: ours from a table, those of other packages from entry points."""

from __future__ import annotations

import difflib
import functools
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpcsweep.errors import SpecError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints


def find_class(table: Mapping[str, str], name: str, *, group: str, key: str) -> Any:
    """The class of that name in `table` (name -> `module:class`), else in the entry point `group`."""
    from importlib import import_module

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
    return list(dict.fromkeys([*table, *(point.name for point in entry_points(group=group))]))


def is_known(table: Mapping[str, str], name: str, group: str) -> bool:
    """Whether it is one of ours or of the entry points; these are looked for last, as that takes a while."""
    return name in table or name in plugin_names(table, group)


def entry_points(*, group: str) -> EntryPoints:
    """Those of the installed packages; read once, and again when the path or a folder on it changes."""
    return _entry_points(group, tuple((folder, _changed(folder)) for folder in sys.path))


@functools.lru_cache(maxsize=8)
def _entry_points(group: str, _path: tuple[tuple[str, int], ...]) -> EntryPoints:
    from importlib import metadata

    return metadata.entry_points(group=group)


def _changed(folder: str) -> int:
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0
