"""Parts of the search space in which every trial failed while others succeed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator
from typing import Any, Final

from hpcsweep.core.models import RunStatus, Trial
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import format_value, json_key, truncate

#: So many failed trials are no accident.
LEAST: Final = 3


def failed_branches(state: SweepState) -> list[str]:
    """A sentence for each value of a listed parameter, or parameter that is active, with which all fail.

    Branches within one that is named are left out; none is named where no trial of the sweep has a value.
    """
    if state.started is None or state.counts[RunStatus.FAILED] < LEAST or state.best is None:
        return []
    ended = [trial for trial in state.trials if _failed(trial) or _has_value(trial)]
    members: dict[tuple[str, Hashable], list[Trial]] = defaultdict(list)
    values: dict[tuple[str, Hashable], str] = {}
    space = state.started.identity.get("space", {})
    for trial in ended:
        for key, words in _branches(space, trial):
            members[key].append(trial)
            values[key] = words
    found = [(key, trials) for key, trials in members.items() if len(trials) >= LEAST and _all_failed(trials)]
    found.sort(key=lambda branch: -len(branch[1]))
    lines: list[str] = []
    named: list[set[int]] = []
    for key, trials in found:
        numbers = {trial.trial for trial in trials}
        if not any(numbers <= others for others in named):
            named.append(numbers)
            count = f"{len(trials)} of {len(trials)}"
            lines.append(f"every trial with {values[key]} failed ({count}): {_message(trials)}")
    return lines


def _branches(space: dict[str, Any], trial: Trial) -> Iterator[tuple[tuple[str, Hashable], str]]:
    """What the trial belongs to, with words for it: values of listed parameters before active ones."""
    for name, value in trial.config.items():
        if space.get(name, {}).get("type") in ("choice", "ordinal"):
            yield (name, json_key(value)), f"{name}={_shown(value)}"
    for name in trial.config:
        if space.get(name, {}).get("when"):
            yield (name, ("active",)), f"an active {name}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else format_value(value)


def _failed(trial: Trial) -> bool:
    return any(run.status is RunStatus.FAILED for run in trial.runs)


def _has_value(trial: Trial) -> bool:
    return any(run.value is not None for run in trial.runs)


def _all_failed(trials: list[Trial]) -> bool:
    return all(_failed(trial) and not _has_value(trial) for trial in trials)


def _message(trials: list[Trial]) -> str:
    """The message that most of them ended with."""
    messages = Counter(run.message for trial in trials for run in trial.runs if run.message)
    return truncate(messages.most_common(1)[0][0]) if messages else "no message"
