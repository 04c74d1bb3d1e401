"""Searchers propose configurations. `SEARCHERS` names them; other packages add theirs.

A searcher is a class that fulfils `core.protocols.Searcher`. The keyword parameters of its
constructor are its options in the spec, but for those that it is given if it has them: `seed`, the
sweep's seed; `trials`, how many configurations the sweep will start (None if unknown);
`resolved`, what `auto` stood for when the sweep began (None for a new one); and `objectives`, which one
that learns must have to be used with several of them.

Nothing is imported before a searcher is asked for by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from hpcsweep.errors import SpecError
from hpcsweep.plugins import find_class

if TYPE_CHECKING:
    from hpcsweep.core.events import SweepStarted
    from hpcsweep.core.objectives import Objectives
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
#: Which version of a searcher this is, where that is not 1: each change after which the same history gives
#: other proposals raises it. Those of other packages have it as the attribute `version` of their class.
VERSIONS: Final[Mapping[str, int]] = {"auto": 2, "gp": 3, "tpe": 2}
#: How often it has changed what they make of priors: that much higher is the version where a space has some.
PRIORS: Final = 1
#: What `auto` may hand over to, by the searcher that it chose.
HANDS_OVER: Final[Mapping[str, str]] = {"gp": "tpe"}
ENTRY_POINTS: Final = "hpcsweep.searchers"
#: Constructor parameters that are no options of the spec.
SUPPLIED: Final = ("seed", "trials", "resolved", "objectives")


def searcher_class(name: str) -> type[Searcher]:
    """The class of that name.

    Raises:
        SpecError: There is none.
    """
    return cast("type[Searcher]", find_class(SEARCHERS, name, group=ENTRY_POINTS, key="searcher.name"))


def searcher_version(name: str, *, priors: bool = False) -> int:
    """Which version of the searcher this is; equal ones give the same proposals for the same history.

    Args:
        name: Of the searcher.
        priors: Whether parameters have some.

    Raises:
        SpecError: There is no such searcher.
    """
    if name in SEARCHERS:
        return VERSIONS.get(name, 1) + (PRIORS if priors else 0)
    return int(getattr(searcher_class(name), "version", 1))


def searcher_versions(identity: Mapping[str, Any], resolved: str = "") -> dict[str, int]:
    """Versions of a sweep's searcher, and of those that it stands for, where they are not 1.

    Args:
        identity: Of its spec, see `SweepSpec.identity`.
        resolved: What `auto` chose, empty for others.

    Raises:
        SpecError: There is no such searcher.
    """
    names = [identity.get("searcher", {}).get("name", ""), resolved, HANDS_OVER.get(resolved, "")]
    priors = any("prior" in parameter for parameter in identity.get("space", {}).values())
    versions = {used: searcher_version(used, priors=priors) for used in names if used}
    return {used: version for used, version in versions.items() if version != 1}


def changed_searchers(started: SweepStarted) -> list[str]:
    """How the searchers of a sweep differ from those that it began with, one line for each.

    A sweep of a searcher that is not installed here has none.
    """
    before = started.searcher_versions
    try:
        now = searcher_versions(started.identity, started.resolved_searcher)
    except SpecError:
        return []
    changed = {used: (before.get(used, 1), now.get(used, 1)) for used in sorted({*before, *now})}
    return [
        f"the searcher {used} has changed since the sweep began (version {old}, now {new}): new proposals "
        "come from the present version; to keep the old one, continue with the hpcsweep that started "
        "the sweep"
        for used, (old, new) in changed.items()
        if old != new
    ]


def make_searcher(
    name: str,
    *,
    seed: int,
    options: Mapping[str, Any],
    trials: int | None = None,
    resolved: str | None = None,
    objectives: Objectives | None = None,
) -> Searcher:
    """The searcher with its options, and with what it has use for.

    Raises:
        SpecError: There is no such searcher.
        ValueError: An option is wrong; the message begins with its name.
    """
    from inspect import signature

    cls = searcher_class(name)
    wanted = signature(cls).parameters
    supplied = {"seed": seed, "trials": trials, "resolved": resolved, "objectives": objectives}
    return cls(**{key: value for key, value in supplied.items() if key in wanted}, **options)
