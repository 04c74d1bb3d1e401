"""Searchers propose configurations. `SEARCHERS` names them; other packages add theirs.

A searcher is a class that fulfils `core.protocols.Searcher`. The keyword parameters of its
constructor are its options in the spec, but for those that it is given if it has them: `seed`, the
sweep's seed; `trials`, how many configurations the sweep will start (None if unknown); and
`picked`, what `auto` stood for when the sweep began (None for a new one).

Nothing is imported before a searcher is asked for by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from hpcsweep.core.protocols import Searcher

#: Name -> `module:Class`.
SEARCHERS: Final[Mapping[str, str]] = {
    "auto": "hpcsweep.searchers.auto:Auto",
    "random": "hpcsweep.searchers.random:Random",
    "grid": "hpcsweep.searchers.grid:Grid",
    "sobol": "hpcsweep.searchers.sobol:Sobol",
    "tpe": "hpcsweep.searchers.tpe:TPE",
    "gp": "hpcsweep.searchers.gp:GP",
    "cmaes": "hpcsweep.searchers.cmaes:CMAES",
    "evolution": "hpcsweep.searchers.evolution:Evolution",
    "optuna": "hpcsweep.searchers.optuna:OptunaSampler",
}
ENTRY_POINTS: Final = "hpcsweep.searchers"
#: Constructor parameters that are no options of the spec.
SUPPLIED: Final = ("seed", "trials", "picked")


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


def make_searcher(
    name: str,
    *,
    seed: int,
    options: Mapping[str, Any],
    trials: int | None = None,
    picked: str | None = None,
) -> Searcher:
    """The searcher with its options, and with what it has use for.

    Raises:
        KeyError: There is no such searcher.
        ValueError: An option is wrong; the message begins with its name.
    """
    from inspect import signature

    cls = searcher_class(name)
    wanted = signature(cls).parameters
    supplied = {"seed": seed, "trials": trials, "picked": picked}
    return cls(**{key: value for key, value in supplied.items() if key in wanted}, **options)
