"""Searchers propose configurations. `SEARCHERS` names them; other packages add theirs.

A searcher is a class that fulfils `core.protocols.Searcher`. The keyword parameters of its
constructor are its options in the spec, but for those that it is given if it has them: `seed`, the
sweep's seed; `trials`, how many configurations the sweep will start (None if unknown); and
`resolved`, what `auto` stood for when the sweep began (None for a new one).

Nothing is imported before a searcher is asked for by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from hpcsweep.plugins import find_class

if TYPE_CHECKING:
    from hpcsweep.core.protocols import Searcher

#: Name -> `module:Class`.
SEARCHERS: Final[Mapping[str, str]] = {
    "auto": "hpcsweep.searchers.auto:Auto",
    "random": "hpcsweep.searchers.random:Random",
    "grid": "hpcsweep.searchers.sequences:Grid",
    "sobol": "hpcsweep.searchers.sequences:Sobol",
    "tpe": "hpcsweep.searchers.tpe:TPE",
    "gp": "hpcsweep.searchers.gp:GP",
    "cmaes": "hpcsweep.searchers.evolution:CMAES",
    "evolution": "hpcsweep.searchers.evolution:Evolution",
    "optuna": "hpcsweep.searchers.optuna:OptunaSampler",
}
ENTRY_POINTS: Final = "hpcsweep.searchers"
#: Constructor parameters that are no options of the spec.
SUPPLIED: Final = ("seed", "trials", "resolved")


def searcher_class(name: str) -> type[Searcher]:
    """The class of that name.

    Raises:
        SpecError: There is none.
    """
    return cast("type[Searcher]", find_class(SEARCHERS, name, group=ENTRY_POINTS, key="searcher.name"))


def make_searcher(
    name: str,
    *,
    seed: int,
    options: Mapping[str, Any],
    trials: int | None = None,
    resolved: str | None = None,
) -> Searcher:
    """The searcher with its options, and with what it has use for.

    Raises:
        SpecError: There is no such searcher.
        ValueError: An option is wrong; the message begins with its name.
    """
    from inspect import signature

    cls = searcher_class(name)
    wanted = signature(cls).parameters
    supplied = {"seed": seed, "trials": trials, "resolved": resolved}
    return cls(**{key: value for key, value in supplied.items() if key in wanted}, **options)
