"""What followed from each run, and brackets of the same rungs taken together."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

from hpcsweep.core.events import Outcome
from hpcsweep.core.models import Run, Trial
from hpcsweep.core.state import SweepState
from hpcsweep.views.rungs import is_population, scheduler_options


class RunFate(enum.Enum):
    """What followed from a run."""

    WENT_ON = "went on"  # or was trained in full
    DROPPED = "dropped"  # or stopped early
    FAILED = "failed"
    UNDER_WAY = "under way"


class Ladder(NamedTuple):
    """Brackets that go through the same resources.

    Attributes:
        brackets: Their numbers, ascending; none for a population.
        resources: Of the rungs, ascending.
        trials: All that started in them.
    """

    brackets: tuple[int, ...]
    resources: tuple[int, ...]
    trials: Sequence[Trial]

    @property
    def name(self) -> str:
        """`bracket 2`, `34 brackets from 3`, `population`."""
        if not self.brackets:
            return "population"
        if len(self.brackets) == 1:
            return f"bracket {self.brackets[0]}"
        return f"{len(self.brackets):,} brackets from {self.resources[0]:,}"


def brackets(state: SweepState) -> list[Ladder]:
    """Each bracket by itself, in the order of their numbers; all places of a population are one."""
    if is_population(state):
        return [_ladder((), state.trials)]
    by_bracket: dict[int, list[Trial]] = {}
    for trial in state.trials:
        by_bracket.setdefault(trial.bracket, []).append(trial)
    return [_ladder((bracket,), trials) for bracket, trials in sorted(by_bracket.items())]


def ladders(state: SweepState) -> list[Ladder]:
    """Brackets that start at the same resource taken together, lowest first."""
    kinds: dict[int, list[Ladder]] = {}
    for one in brackets(state):
        kinds.setdefault(one.resources[0], []).append(one)
    return [
        _ladder(
            [number for one in kind for number in one.brackets],
            [trial for one in kind for trial in one.trials],
        )
        for _, kind in sorted(kinds.items())
    ]


def _ladder(brackets: Sequence[int], trials: Sequence[Trial]) -> Ladder:
    resources = {run.resource for trial in trials for run in trial.runs}
    return Ladder(tuple(brackets), tuple(sorted(resources)), trials)


def fate(trial: Trial, run: Run, *, top: int) -> RunFate:
    """What followed from a run of the trial, where `top` is the resource of a training in full."""
    if run.rung + 1 < len(trial.runs):
        return RunFate.WENT_ON
    match run.outcome:
        case None:
            return RunFate.UNDER_WAY
        case Outcome.COMPLETED:
            return RunFate.WENT_ON if run.resource >= top else RunFate.DROPPED
        case Outcome.STOPPED:
            return RunFate.DROPPED
        case _:
            return RunFate.FAILED


def top_resource(state: SweepState) -> int:
    """Resource of a training in full: the spec's, else the largest so far."""
    given = scheduler_options(state).get("max_resource")
    largest = max((trial.runs[-1].resource for trial in state.trials), default=0)
    return int(given) if isinstance(given, int) else largest
