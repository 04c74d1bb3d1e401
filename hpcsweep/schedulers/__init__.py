"""When trials start, go on and stop. One file each; `SCHEDULERS` names them, other packages add theirs.

A scheduler is a class that fulfils `core.protocols.Scheduler`. The keyword parameters of its constructor
are its options in the spec, but for those of `SUPPLIED`, which it is given if it has them: `minimise`;
`objectives`, which it must have to be used with several of them; `trials`, how many configurations the
budget allows (None if unknown); `ahead`, whether trials may start far ahead of the results; `space` and
`seed`; and `piece`, how many trials start together at most.

Nothing is imported before a scheduler is asked for by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from hpcsweep.plugins import find_class

if TYPE_CHECKING:
    from hpcsweep.core.protocols import Scheduler

#: Name in the spec -> `module:class`; the first one is the default.
SCHEDULERS: Final[Mapping[str, str]] = {
    "fifo": "hpcsweep.schedulers.fifo:Fifo",
    "halving": "hpcsweep.schedulers.synchronous:Halving",
    "hyperband": "hpcsweep.schedulers.synchronous:Hyperband",
    "asha": "hpcsweep.schedulers.asha:ASHA",
    "pbt": "hpcsweep.schedulers.pbt:PBT",
}
ENTRY_POINTS: Final = "hpcsweep.schedulers"
#: Constructor parameters that are no options of the spec.
SUPPLIED: Final = ("minimise", "objectives", "trials", "ahead", "space", "seed", "piece")


class SchedulerTraits(NamedTuple):
    """What a class of schedulers is like, whatever its options; see `core.protocols.Scheduler`."""

    extendable: tuple[str, ...] = ()
    promotes_any_time: bool = False
    population: bool = False
    reports_option: str = ""


def scheduler_class(name: str) -> type[Scheduler]:
    """The class of that name.

    Raises:
        SpecError: There is none.
    """
    found = find_class(SCHEDULERS, name, group=ENTRY_POINTS, key="scheduler.name")
    return cast("type[Scheduler]", found)


def scheduler_traits(name: str) -> SchedulerTraits:
    """What the class of that name is like; the defaults where it is not installed."""
    try:
        cls = scheduler_class(name)
    except Exception:  # another package's, which is not here any more or cannot be imported
        return SchedulerTraits()
    given = {key: getattr(cls, key) for key in SchedulerTraits._fields if hasattr(cls, key)}
    return SchedulerTraits(**given)


def make_scheduler(name: str, *, options: Mapping[str, Any], **supplied: Any) -> Scheduler:
    """The scheduler with its options, and with what it has use for of what is `supplied`.

    Raises:
        SpecError: There is no such scheduler.
        ValueError: An option makes no sense; the message begins with its name.
    """
    from inspect import signature

    cls = scheduler_class(name)
    wanted = signature(cls).parameters
    return cls(**options, **{key: value for key, value in supplied.items() if key in wanted})
