"""Brackets and their rungs: who was compared, who was promoted, what followed from each run. Pure."""

from __future__ import annotations

import enum
import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from hpcsweep.core.events import Outcome
from hpcsweep.core.models import Run, RunStatus, Trial
from hpcsweep.core.objectives import Key
from hpcsweep.core.state import SweepState
from hpcsweep.schedulers import SchedulerTraits, scheduler_traits
from hpcsweep.schedulers.ranking import best_first
from hpcsweep.views.progress import RungCount


class RunFate(enum.Enum):
    """What followed from a run."""

    WENT_ON = "went on"  # or was trained in full
    DROPPED = "dropped"  # or stopped early
    FAILED = "failed"
    UNDER_WAY = "under way"


class RankedValue(NamedTuple):
    """A configuration at a rung, by its first trial, with its value of one objective."""

    value: float
    trial: int
    fate: RunFate


class RungResult(NamedTuple):
    """One rung of one or several brackets; configurations go by their first trial, best first."""

    resource: int
    runs: Sequence[tuple[Trial, Run]]
    ranked: Sequence[RankedValue]
    promoted: Sequence[int]
    cutoff: float | None  # the worst value that was promoted; None where several objectives decide
    best: float | None  # of the values

    @property
    def counts(self) -> RungCount:
        """How its runs have ended."""
        counts = RungCount(self.resource)
        counts.runs = len(self.runs)
        for _, run in self.runs:
            if run.outcome is not None:
                counts.add_outcome(run.outcome)
        return counts


class BracketGroup(NamedTuple):
    """Brackets that go through the same resources."""

    brackets: tuple[int, ...]  # their numbers, ascending; none for a population
    resources: tuple[int, ...]  # ascending
    trials: Sequence[Trial]

    @property
    def name(self) -> str:
        """`bracket 2`, `34 brackets from 3`, `population`."""
        if not self.brackets:
            return "population"
        if len(self.brackets) == 1:
            return f"bracket {self.brackets[0]}"
        return f"{len(self.brackets):,} brackets from {self.resources[0]:,}"

    def rungs(self, state: SweepState, objective: int = 0) -> list[RungResult]:
        """The rungs with the values of one objective as they stand now, lowest first."""
        top = top_resource(state)
        of = state.objectives[objective]
        runs_at: dict[int, list[tuple[Trial, Run]]] = {resource: [] for resource in self.resources}
        for trial in self.trials:
            for run in trial.runs:
                runs_at[run.resource].append((trial, run))
        results = []
        for resource, runs in runs_at.items():
            values: dict[int, RankedValue] = {}
            keys: dict[int, Key | None] = {}
            for trial, run in runs:
                value = None if trial.repeat else state.objective_value(trial.trial, run.rung, objective)
                if value is not None and run.status is RunStatus.COMPLETED:
                    values[trial.trial] = RankedValue(value, trial.trial, fate(trial, run, top=top))
                    first = state.value_of(trial.trial, run.rung)
                    keys[trial.trial] = state.objectives.key(first, state.values_of(trial.trial, run.rung))
            ranked = [values[trial] for trial in best_first(keys)]
            promoted = [each for each in ranked if state.trials[each.trial].runs[-1].resource > resource]
            front = state.objectives.has_front
            cutoff = promoted[-1].value if promoted and not front else None
            best = functools.reduce(of.better, (each.value for each in ranked)) if ranked else None
            best = best if front or best is None else ranked[0].value
            went_on = [each.trial for each in promoted]
            results.append(RungResult(resource, runs, ranked, went_on, cutoff, best))
        return results


def is_population(state: SweepState) -> bool:
    """Whether each bracket is one member of a population, in which clones replace each other.

    Where the scheduler does not say, it is so if there are clones and every bracket began with one trial.
    """
    if traits_of(state).population:
        return True
    roots = Counter(trial.bracket for trial in state.trials if trial.origin != "clone" and not trial.repeat)
    return max(roots.values(), default=0) == 1 and any(trial.origin == "clone" for trial in state.trials)


def each_bracket(state: SweepState) -> list[BracketGroup]:
    """Each bracket by itself, in the order of their numbers; all members of a population are one."""
    if is_population(state):
        return [_group((), state.trials)]
    by_bracket: dict[int, list[Trial]] = {}
    for trial in state.trials:
        by_bracket.setdefault(trial.bracket, []).append(trial)
    return [_group((bracket,), trials) for bracket, trials in sorted(by_bracket.items())]


def group_brackets(state: SweepState) -> list[BracketGroup]:
    """Brackets that start at the same resource taken together, lowest first."""
    by_start: dict[int, list[BracketGroup]] = {}
    for bracket in each_bracket(state):
        by_start.setdefault(bracket.resources[0], []).append(bracket)
    return [
        _group(
            [number for bracket in alike for number in bracket.brackets],
            [trial for bracket in alike for trial in bracket.trials],
        )
        for _, alike in sorted(by_start.items())
    ]


def _group(brackets: Sequence[int], trials: Sequence[Trial]) -> BracketGroup:
    resources = {run.resource for trial in trials for run in trial.runs}
    return BracketGroup(tuple(brackets), tuple(sorted(resources)), trials)


def fate(trial: Trial, run: Run, *, top: int) -> RunFate:
    """What followed from a run of the trial, where `top` is the resource of a full training."""
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
    """Resource of a full training: the spec's, else the largest so far."""
    given = scheduler_options(state).get("max_resource")
    largest = max((trial.runs[-1].resource for trial in state.trials), default=0)
    return int(given) if isinstance(given, int) else largest


def scheduler_options(state: SweepState) -> dict[str, Any]:
    """The scheduler's section of the spec, its name included; empty before the sweep has started."""
    return dict(state.started.identity.get("scheduler", {})) if state.started else {}


def traits_of(state: SweepState) -> SchedulerTraits:
    """What the sweep's scheduler says of itself; the defaults where it is not installed here."""
    return scheduler_traits(scheduler_options(state).get("name", ""))
