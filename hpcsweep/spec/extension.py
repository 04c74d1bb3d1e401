"""Changes that only carry a sweep further, and why others make it another one. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from hpcsweep.schedulers.rungs import halving_bracket
from hpcsweep.spec.identity import difference

#: For each scheduler the options that may grow; null is more than any number.
GROWING: Final[Mapping[str, tuple[str, ...]]] = {
    "fifo": ("max_resource",),
    "halving": ("rounds", "max_resource"),
    "hyperband": ("iterations",),
    "asha": ("brackets", "max_resource"),
}
#: Lists at whose end something may be added.
LENGTHENING: Final = ("enqueue", "warm_start")
_WHY_NOT: Final[Mapping[str, str]] = {
    "repeats": "the numbers of all trials follow from it",
    "objective": "values that were measured otherwise cannot be compared",
}


class Change(NamedTuple):
    """A difference between two identities.

    Attributes:
        line: Such as `scheduler.iterations: 1 -> 2`.
        refused: Why it makes another sweep; empty where the sweep can go on with it.
    """

    line: str
    refused: str = ""


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """What has changed from the identity `old` to `new`; empty if nothing has."""
    return [Change(line, _refusal(line.partition(": ")[0], old, new)) for line in difference(old, new)]


def _refusal(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Why a sweep cannot go on with what has changed at `path`; empty if it can."""
    section, _, option = path.partition(".")
    if section in LENGTHENING:
        before, now = old.get(section, []), new.get(section, [])
        same = now[: len(before)] == before
        return "" if same else "more may be added at its end, and what is there stays"
    if section == "scheduler" and old["scheduler"].get("name") == new["scheduler"].get("name"):
        return _scheduler_refusal(option, old["scheduler"], new["scheduler"])
    return _WHY_NOT.get(section, "") or "results before and after it would be of different searches"


def _scheduler_refusal(option: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    name = old["name"]
    growing = GROWING.get(name, ())
    if option not in growing:
        others = f"; of {name}, {' and '.join(growing)} may be raised" if growing else ""
        return f"its rungs and brackets follow from it{others}"
    if not _is_more(old.get(option), new.get(option)):
        return "it may be raised, and what was started stays"
    if option != "max_resource" or name == "fifo":
        return ""
    if new.get("stopping"):
        return "with stopping, each trial is one run to it"
    before, now = (_rungs(options) for options in (old, new))
    if now[: len(before)] == before:
        return ""
    return f"{before[-1]} was a rung, and would be none of {' > '.join(map(str, now))}"


def _is_more(before: Any, now: Any) -> bool:
    return now is None or (before is not None and now > before)


def _rungs(options: Mapping[str, Any]) -> tuple[int, ...]:
    return halving_bracket(
        min_resource=options["min_resource"], max_resource=options["max_resource"], eta=options["eta"]
    ).resources
