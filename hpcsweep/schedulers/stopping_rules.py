"""Stopping rules for any scheduler: runs that promise nothing end before their resource."""

from __future__ import annotations

from array import array
from bisect import insort
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from hpcsweep.core.events import (
    AnyEvent,
    Outcome,
    RunFinished,
    RunReported,
    RunRetried,
    TrialCreated,
    TrialPromoted,
    TrialStopped,
)
from hpcsweep.core.objectives import Key, Objectives, dominates
from hpcsweep.core.protocols import Decision, Scheduler, SchedulerPlan, Stop


class StoppingRule(Protocol):
    """Judges trials by what they report. Steps count on over all runs of a trial.

    It hears of trials by these calls alone; a clone begins with its own reports.
    """

    def report(self, trial: int, step: int, *values: float) -> str | None:
        """Take in a report of each objective; why the trial should stop, None if it may go on."""
        ...

    def complete(self, trial: int) -> None:
        """A run of the trial was trained to its end; the trial may be promoted later."""
        ...

    def drop(self, trial: int) -> None:
        """The trial was stopped: it reports no more. One that failed may be retried, and is kept."""
        ...


class WithStoppingRules:
    """Any scheduler, with rules that stop running trials between its decisions.

    A run is stopped as soon as one rule says so, whatever is reported later, but not at its last
    step, where there is nothing to be saved.

    Args:
        inner: Decides everything else.
        rules: Each sees every report.
    """

    needs_reports = True

    def __init__(self, inner: Scheduler, *, rules: Sequence[StoppingRule]) -> None:
        self.clones = inner.clones
        self._inner = inner
        self._rules = tuple(rules)
        #: Trials with a run that goes on, and the resource of each one's newest run.
        self._running: set[int] = set()
        self._resources: dict[int, int] = {}
        self._stops: dict[int, Stop] = {}

    def plan(self, trials: int | None = None) -> SchedulerPlan:
        """That of the scheduler within: what is trained at most."""
        return self._inner.plan(trials)

    @property
    def dropped(self) -> Sequence[int] | None:
        """See `Scheduler`; those that a rule stopped need not be in it."""
        return getattr(self._inner, "dropped", None)

    @property
    def trained(self) -> Sequence[int]:
        """See `Scheduler`."""
        return getattr(self._inner, "trained", ())

    def apply(self, event: AnyEvent) -> None:
        self._inner.apply(event)
        match event:
            case TrialCreated() | TrialPromoted():
                self._running.add(event.trial)
                self._resources[event.trial] = event.resource
            case RunReported() if event.trial in self._running:
                for index, (step, value) in enumerate(event.reports):
                    self._report(event.trial, step, event.values[index] if event.values else (value,))
            case TrialStopped():
                self._end(event.trial)
            case RunFinished():
                for rule in self._rules:
                    if event.outcome is Outcome.COMPLETED:
                        rule.complete(event.trial)
                    elif event.outcome is Outcome.STOPPED:
                        rule.drop(event.trial)
                self._end(event.trial)
            case RunRetried():
                self._running.add(event.trial)
            case _:
                pass

    def decide(self, slots: int) -> list[Decision]:
        decisions = self._inner.decide(slots)
        known = {decision.trial for decision in decisions if isinstance(decision, Stop)}
        return [*(stop for trial, stop in self._stops.items() if trial not in known), *decisions]

    @property
    def done(self) -> bool:
        return self._inner.done and not self._running

    def _end(self, trial: int) -> None:
        self._running.discard(trial)
        self._stops.pop(trial, None)

    def _report(self, trial: int, step: int, values: tuple[float, ...]) -> None:
        for rule in self._rules:
            reason = rule.report(trial, step, *values)
            if reason is not None and step < self._resources[trial]:
                self._stops.setdefault(trial, Stop(trial, reason))


class _Curve(msgspec.Struct):
    """What a trial has reported, summed up: its runs that completed, and the one that goes on.

    Attributes:
        totals: The sums of each objective.
        best: The best value of each so far.
        averages: Steps of the run that goes on, and the key of the means of all values up to each.
    """

    totals: list[float]
    best: list[float]
    count: int = 0
    averages: list[tuple[int, Key]] = []


class Median:
    """The median stopping rule of Vizier (Golovin et al., KDD 2017).

    A trial stops at a step if its best value so far is worse than the median of the running
    averages, up to that step, of the trials that have completed a run reaching it. Only trials
    that reported at that very step are counted, so that a report costs one look into a sorted
    array; a completed run costs one insertion for each of its reports.

    With several objectives it stops if the running averages of at least half of those trials dominate its
    best values so far, those of each objective by itself.

    Args:
        min_trials: With fewer completed trials at a step, nothing stops there.
        min_step: Nothing stops before this step.
        interval: Only steps that are multiples of it are judged, and kept.
        minimise: Whether small values are good; `objectives`: what counts, where there are several.

    Raises:
        ValueError: An option makes no sense; the message begins with its name.
    """

    def __init__(
        self,
        *,
        min_trials: int = 5,
        min_step: int = 1,
        interval: int = 1,
        minimise: bool = True,
        objectives: Objectives | None = None,
    ) -> None:
        _check_at_least(1, min_trials=min_trials, min_step=min_step, interval=interval)
        self._min_trials = min_trials
        self._min_step = min_step
        self._interval = interval
        self._objectives = objectives or Objectives.single(minimise=minimise)
        self._curves: dict[int, _Curve] = {}
        #: Step -> running averages of completed trials, ascending.
        self._averages: dict[int, array[float]] = {}
        #: The same of several objectives, in any order.
        self._fronts: dict[int, list[Key]] = {}

    def report(self, trial: int, step: int, *values: float) -> str | None:
        curve = self._curves.get(trial)
        if curve is None:
            curve = self._curves[trial] = _Curve([0.0] * len(values), list(values))
        curve.count += 1
        for index, (objective, value) in enumerate(zip(self._objectives, values, strict=True)):
            curve.totals[index] += value
            curve.best[index] = objective.better(curve.best[index], value)
        if step < self._min_step or step % self._interval:
            return None
        curve.averages.append((step, self._key([total / curve.count for total in curve.totals])))
        best = self._key(curve.best)
        if isinstance(best, tuple):
            return self._dominated(step, best)
        others = self._averages.get(step, ())
        count = len(others)
        if count < self._min_trials:
            return None
        median = (others[(count - 1) // 2] + others[count // 2]) / 2
        if best <= median:
            return None
        sign = self._objectives[0].sign
        return (
            f"median: at step {step} its best value {sign * best:.6g} is worse than "
            f"{sign * median:.6g}, the median of the averages of {count} completed trials"
        )

    def _key(self, values: Sequence[float]) -> Key:
        key = self._objectives.key(values[0], values)
        assert key is not None
        return key

    def _dominated(self, step: int, best: Key) -> str | None:
        others = self._fronts.get(step, ())
        better = sum(dominates(other, best) for other in others)
        if len(others) < self._min_trials or 2 * better < len(others):
            return None
        values = ", ".join(f"{value:.6g}" for value in self._objectives.point(best))
        return (
            f"median: at step {step} its best values {values} are dominated by the averages of {better} of "
            f"{len(others)} completed trials"
        )

    def complete(self, trial: int) -> None:
        curve = self._curves.get(trial)
        if curve is not None:
            for step, average in curve.averages:
                if isinstance(average, tuple):
                    self._fronts.setdefault(step, []).append(average)
                else:
                    insort(self._averages.setdefault(step, array("d")), average)
            curve.averages = []

    def drop(self, trial: int) -> None:
        self._curves.pop(trial, None)


class Plateau:
    """Stops a trial that has not improved by more than `min_delta` over `patience` reports.

    It must beat the value of its last improvement by more than `min_delta`; with several objectives, in any.

    Args:
        patience: Reports in a row without an improvement.
        min_delta: Improvements up to this do not count; in units of the objective. 0 with several.
        min_step: Nothing stops before this step.
        minimise: Whether small values are good; `objectives`: what counts, where there are several.

    Raises:
        ValueError: An option makes no sense; the message begins with its name.
    """

    def __init__(
        self,
        *,
        patience: int = 10,
        min_delta: float = 0.0,
        min_step: int = 1,
        minimise: bool = True,
        objectives: Objectives | None = None,
    ) -> None:
        _check_at_least(1, patience=patience, min_step=min_step)
        _check_at_least(0, min_delta=min_delta)
        self._patience = patience
        self._min_delta = min_delta
        self._min_step = min_step
        self._objectives = objectives or Objectives.single(minimise=minimise)
        #: Values and step of each trial's last improvement, and the reports since then.
        self._last: dict[int, tuple[tuple[float, ...], int, int]] = {}

    def report(self, trial: int, step: int, *values: float) -> str | None:
        signs = [objective.sign for objective in self._objectives]
        new = tuple(sign * value for sign, value in zip(signs, values, strict=True))
        best, at, reports = self._last.get(trial, ((float("inf"),) * len(new), step, 0))
        if any(value < before - self._min_delta for value, before in zip(new, best, strict=True)):
            best, at, reports = tuple(map(min, new, best)) if len(new) > 1 else new, step, 0
        else:
            reports += 1
        self._last[trial] = (best, at, reports)
        if reports < self._patience or step < self._min_step:
            return None
        numbers = ", ".join(f"{sign * value:.6g}" for sign, value in zip(signs, best, strict=True))
        return (
            f"plateau: at step {step} it has not improved by more than {self._min_delta:g} on the "
            f"{numbers} of step {at}, for {reports} reports"
        )

    def complete(self, trial: int) -> None:
        """Nothing: the reports of its next run count on."""

    def drop(self, trial: int) -> None:
        self._last.pop(trial, None)


#: Name in the spec -> rule; `minimise` and `objectives` are no options there.
STOP_RULES: Final[Mapping[str, type[Median | Plateau]]] = {"median": Median, "plateau": Plateau}


def _check_at_least(least: int, **options: float) -> None:
    for name, value in options.items():
        if not least <= value < float("inf"):
            raise ValueError(f"{name}: must be at least {least}, got {value}")
