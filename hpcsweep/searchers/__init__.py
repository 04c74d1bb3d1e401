"""Searchers propose configurations. `SEARCHERS` names them; other packages add theirs.

A searcher is a class that fulfils `core.protocols.Searcher`. The keyword parameters of its
constructor are its options in the spec; one called `seed` is given the sweep's seed. Two methods
are optional:

* `problems(space) -> list[str]`: why it cannot search this space, each line beginning with the
  key path at fault, such as `searcher.num_points: `;
* `ends(space) -> bool`: whether it runs out of proposals by itself. Without it, it never does.

Nothing is imported before a searcher is asked for by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from hpcsweep.core.protocols import Searcher

#: Name -> `module:Class`.
SEARCHERS: Final[Mapping[str, str]] = {
    "random": "hpcsweep.searchers.random:Random",
    "grid": "hpcsweep.searchers.grid:Grid",
}
ENTRY_POINTS: Final = "hpcsweep.searchers"


def searcher_names() -> list[str]:
    """Every known name, those of other packages after our own."""
    from importlib.metadata import entry_points

    return list(dict.fromkeys([*SEARCHERS, *(point.name for point in entry_points(group=ENTRY_POINTS))]))


def searcher_class(name: str) -> type[Searcher]:
    """The class of that name; entry points are read only if it is none of ours.

    Raises:
        KeyError: There is no such searcher.
    """
    from importlib import import_module

    target = SEARCHERS.get(name)
    if target is not None:
        module, _, attribute = target.partition(":")
        return cast("type[Searcher]", getattr(import_module(module), attribute))

    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS, name=name):
        return cast("type[Searcher]", point.load())
    raise KeyError(name)


def make_searcher(name: str, *, seed: int, options: Mapping[str, Any]) -> Searcher:
    """The searcher with its options, and with the seed if it has use for one.

    Raises:
        KeyError: There is no such searcher.
        ValueError: An option is wrong; the message begins with its name.
    """
    from inspect import signature

    cls = searcher_class(name)
    if "seed" in signature(cls).parameters:
        options = {"seed": seed, **options}
    return cls(**options)
