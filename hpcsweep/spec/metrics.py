"""Checks where the metrics of a sweep come from, before anything runs."""

from __future__ import annotations

import re

from hpcsweep.core.text import format_value
from hpcsweep.spec.checks import Problems
from hpcsweep.spec.models import Objective, Train
from hpcsweep.worker.outcome import near_name


def check_metrics(train: Train, objective: Objective | None, problems: Problems) -> None:
    """Check that patterns are well-formed, and that the objective is among what they find."""
    names: dict[str, None] = {}
    before = problems.count
    for index, pattern in enumerate(train.metrics):
        path = f"train.metrics[{index}]" if len(train.metrics) > 1 else "train.metrics"
        names |= dict.fromkeys(_pattern_names(pattern, path, problems))
    if not names or problems.count > before or objective is None or train.command is None:
        return
    if objective.metric not in names:
        known = ", ".join(map(repr, names))
        near = near_name(objective.metric, names)
        hint = f"did you mean {near!r}?" if near else "name one of these, or a group like the objective"
        problems.add(
            "objective.metric",
            f"{objective.metric!r} is not among the metrics of train.metrics, {known}; {hint}",
        )


def _pattern_names(pattern: str, path: str, problems: Problems) -> list[str]:
    """The metrics of a regular expression; none after adding a problem."""
    try:
        groups = re.compile(pattern).groupindex
    except (re.error, OverflowError, RecursionError) as error:
        problems.add(path, f"must be a regular expression, got {format_value(pattern)}: {error}")
        return []
    names = [name for name in groups if name != "step"]
    if not names:
        expected = "must have a group named like its metric, as in 'loss=(?P<loss>\\S+)'"
        problems.add(path, f"{expected}, got {format_value(pattern)}")
    return names
