"""Differences between two identities of a sweep, and which of them only extend it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from hpcsweep.core.text import format_value
from hpcsweep.schedulers import scheduler_class, scheduler_traits

#: Lists that may grow at their end.
EXTENDABLE_LISTS: Final = ("enqueue", "warm_start")
_REFUSALS: Final[Mapping[str, str]] = {
    "repeats": "the numbers of all trials follow from it",
    "objective": "values that were measured otherwise cannot be compared",
}


class Change(NamedTuple):
    """A difference between two identities.

    Attributes:
        line: Such as `scheduler.iterations: 1 -> 2`.
        refused: Why it makes another sweep; empty if the sweep can go on with it.
    """

    line: str
    refused: str = ""


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """All changes from the identity `old` to `new`; empty if they are equal."""
    return [Change(line, _refusal(line.partition(": ")[0], old, new)) for line in difference(old, new)]


def difference(old: Mapping[str, Any], new: Mapping[str, Any], *, path: str = "") -> list[str]:
    """One line per change from `old` to `new`, such as `space.lr.high: 0.1 -> 0.5`; empty if equal."""
    lines: list[str] = []
    for key in [*old, *(key for key in new if key not in old)]:
        where = f"{path}.{key}" if path else str(key)
        if key not in new:
            lines.append(f"{where}: removed")
        elif key not in old:
            lines.append(f"{where}: added")
        elif isinstance(old[key], Mapping) and isinstance(new[key], Mapping):
            lines += difference(old[key], new[key], path=where)
        elif isinstance(old[key], bool) != isinstance(new[key], bool) or old[key] != new[key]:
            lines.append(f"{where}: {format_value(old[key])} -> {format_value(new[key])}")
    return lines


def _refusal(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Why a sweep cannot go on with the change at `path`; empty if it can."""
    section, _, option = path.partition(".")
    if section in EXTENDABLE_LISTS:
        before, now = old.get(section, []), new.get(section, [])
        same = now[: len(before)] == before
        return "" if same else "more may be added at its end, and what is there stays"
    if section == "scheduler" and old["scheduler"].get("name") == new["scheduler"].get("name"):
        return _scheduler_refusal(option, old["scheduler"], new["scheduler"])
    return _REFUSALS.get(section, "") or "results before and after it would be of different searches"


def _scheduler_refusal(option: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    name = old["name"]
    extendable = scheduler_traits(name).extendable
    if option not in extendable:
        others = f"; of {name}, {' and '.join(extendable)} may be raised" if extendable else ""
        return f"its rungs and brackets follow from it{others}"
    if not _is_more(old.get(option), new.get(option)):
        return "it may be raised, and what was started stays"
    refusal = getattr(scheduler_class(name), "extension_refusal", None)
    return str(refusal(old, new)) if refusal is not None and option == "max_resource" else ""


def _is_more(before: Any, now: Any) -> bool:
    """Null is more than any number."""
    return before is not None and (now is None or now > before)
