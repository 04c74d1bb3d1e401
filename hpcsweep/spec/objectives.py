"""Reads the objectives of a spec, one or a list of several, and checks who can search for them."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

from hpcsweep.core.objectives import Objectives
from hpcsweep.schedulers import scheduler_class
from hpcsweep.schedulers.stopping_rules import STOP_RULES
from hpcsweep.searchers import make_searcher, searcher_class
from hpcsweep.spec.checks import Problems
from hpcsweep.spec.models import NamedOptions, Objective, SearcherChoice

#: Objectives at most: beyond it hardly any configuration is dominated, and hypervolumes take too long.
MOST = 8


def read_objectives(raw: Any, problems: Problems) -> tuple[Objective, ...]:
    """The objectives in the order of the spec; none where one is wrong, or nothing was given."""
    if raw is None:
        return ()
    if not isinstance(raw, list):
        found = [_read_one(raw, "objective", problems)]
    elif not raw:
        problems.add("objective", "must be a mapping with a metric, or a list of these, got an empty list")
        return ()
    else:
        found = [_read_one(each, f"objective[{index}]", problems) for index, each in enumerate(raw)]
    read = [each for each in found if each is not None]
    if len(read) < len(found):
        return ()
    metrics = [each.metric for each in read]
    for index, metric in enumerate(metrics):
        if metric in metrics[:index]:
            problems.add(f"objective[{index}].metric", f"{metric!r} is an objective already")
    lacking = [index for index, each in enumerate(read) if each.reference is None]
    if 0 < len(lacking) < len(read):
        problems.add(f"objective[{lacking[0]}].reference", "must be given, as another objective has one")
    elif len(read) == 1 and not lacking:
        where = "objective[0]" if isinstance(raw, list) else "objective"
        problems.add(f"{where}.reference", "needs several objectives: it is of their hypervolume")
    if len(read) > MOST:
        problems.add("objective", f"must be at most {MOST} objectives, got {len(read)}")
    return tuple(read)


def _read_one(raw: Any, path: str, problems: Problems) -> Objective | None:
    found = problems.validated(Objective, raw, path=path)
    if found is None or found.at_most is None or found.at_least is None or found.at_least <= found.at_most:
        return found
    problems.add(f"{path}.at_most", f"must be >= at_least ({found.at_least:g}), got {found.at_most:g}")
    return None


def check_algorithms(
    objectives: Objectives,
    *,
    searcher: SearcherChoice | None,
    scheduler: NamedOptions | None,
    stop: Sequence[NamedOptions],
    problems: Problems,
) -> None:
    """With several objectives, each of these must know what to make of them; it does if it takes them."""
    if not objectives.several:
        return
    what = "several objectives" if len(objectives) > 1 else "bounds"
    if searcher is not None and not _takes(searcher_class(searcher.name)) and _learns(searcher):
        hint = "expected one that does, such as tpe, gp, evolution or random"
        problems.add("searcher.name", f"{searcher.name!r} cannot search with {what}; {hint}")
    if scheduler is not None and not _takes(scheduler_class(scheduler.name)):
        hint = "expected one that can, such as fifo, asha or hyperband"
        problems.add("scheduler.name", f"{scheduler.name!r} cannot compare trials by {what}; {hint}")
    for index, rule in enumerate(stop):
        path = f"stop[{index}]" if len(stop) > 1 else "stop"
        if not _takes(STOP_RULES[rule.name]):
            problems.add(path, f"{rule.name!r} cannot compare trials by {what}; leave it out")
        elif rule.options.get("min_delta") and len(objectives) > 1:
            expected = "must be 0 with several objectives, whose units differ"
            problems.add(f"{path}.min_delta", f"{expected}, got {rule.options['min_delta']:g}")


def _takes(cls: Any) -> bool:
    return "objectives" in signature(cls).parameters


def _learns(searcher: SearcherChoice) -> bool:
    try:
        return make_searcher(searcher.name, seed=searcher.seed, options=searcher.options).adaptive
    except ValueError:  # which is reported anyway
        return False
