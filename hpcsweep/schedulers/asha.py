"""ASHA, asynchronous successive halving (Li et al., MLSys 2020): no rung waits for its last run."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from heapq import heappop, heappush, heappushpop
from typing import Protocol

from hpcsweep.core.events import (
    AnyEvent,
    NoMoreTrials,
    Outcome,
    RunFinished,
    RunReported,
    SweepResumed,
    TrialCreated,
    TrialPromoted,
    TrialStopped,
)
from hpcsweep.core.protocols import Decision, Promote, Start, Stop
from hpcsweep.schedulers.asha_stopping import StoppingBracket
from hpcsweep.schedulers.rungs import Ladder, halving_ladder, hyperband_ladder


class Bracket(Protocol):
    """How the trials of one bracket go on.

    Attributes:
        first: Resource of a trial's first run.
    """

    first: int

    def apply(self, event: AnyEvent) -> None:
        """Take note of what happened to one of its trials."""
        ...

    def promotions(self, limit: int) -> list[Promote]:
        """At most `limit` promotions that can be made now, the most advanced rung first."""
        ...

    def stops(self) -> list[Stop]:
        """Running trials that are to end now."""
        ...

    @property
    def open(self) -> bool:
        """Whether a run that goes on may lead to a promotion or a stop."""
        ...


class ASHA:
    """Promotes whoever is in the top 1/eta of a rung at the moment; else starts a new trial.

    Rungs are at min_resource eta^k, and at max_resource, which is the last one even where it is no
    such number. Bracket s starts its trials at rung s. New trials are spread over the brackets in
    proportion to Hyperband's numbers of trials for them: always to the bracket with the smallest
    (2 started + 1) / weight, which is Webster's method, ties to the lower one.

    The cost of an event or decision grows with the logarithm of the number of trials, but that
    `stopping` shifts a sorted list.

    Args:
        max_resource: Of the last rung.
        min_resource: Of the first rung.
        eta: One in eta goes on.
        brackets: How many of Hyperband's brackets, from the one with most trials on.
        trials: How many trials, None until the space or the budget is exhausted.
        stopping: Each trial is one run to `max_resource`, ended at a rung where it is not in the
            top 1/eta. It saves queueing again. If not, a run ends at each rung.
        minimise: Whether small values are good.

    Raises:
        ValueError: An option makes no sense; the message begins with its name.
    """

    clones = False

    def __init__(
        self,
        *,
        max_resource: int,
        min_resource: int = 1,
        eta: int = 3,
        brackets: int = 1,
        trials: int | None = None,
        stopping: bool = False,
        minimise: bool = True,
    ) -> None:
        if not 1 <= min_resource <= max_resource:
            raise ValueError(f"min_resource: must be 1 .. max_resource ({max_resource}), got {min_resource}")
        if eta < 2:
            raise ValueError(f"eta: must be at least 2, got {eta}")
        rungs = halving_ladder(min_resource=min_resource, max_resource=max_resource, eta=eta).resources
        if not 1 <= brackets <= len(rungs):
            raise ValueError(f"brackets: must be 1 .. {len(rungs)}, the number of rungs, got {brackets}")
        self.watches = stopping
        #: Of each bracket, the resources of its rungs.
        self.rungs = tuple(rungs[first:] for first in range(brackets))
        #: Of each bracket, its share of the new trials relative to the others.
        self.weights = _hyperband_weights(len(rungs) - 1, eta)[:brackets]
        #: What is known of rung sizes before it starts: only that stopping has one run a trial.
        self.ladders = (Ladder((max_resource,), (trials,)),) if stopping and trials is not None else ()
        make = StoppingBracket if stopping else PromotionBracket
        self._brackets: list[Bracket] = [
            make(resources, eta=eta, minimise=minimise) for resources in self.rungs
        ]
        common = math.lcm(*self.weights)
        self._inverse_weights = [common // weight for weight in self.weights]
        self._started = [0] * brackets
        self._trials = trials
        self._exhausted = False
        self._of_trial: dict[int, Bracket] = {}

    def apply(self, event: AnyEvent) -> None:
        match event:
            case TrialCreated():
                self._started[event.bracket] += 1
                self._of_trial[event.trial] = self._brackets[event.bracket]
                self._of_trial[event.trial].apply(event)
            case TrialPromoted() | TrialStopped() | RunReported() | RunFinished():
                self._of_trial[event.trial].apply(event)
            case NoMoreTrials():
                self._exhausted = True
            case SweepResumed():
                self._exhausted = False
            case _:
                pass

    def decide(self, slots: int) -> list[Decision]:
        decisions: list[Decision] = [stop for bracket in self._brackets for stop in bracket.stops()]
        if slots > 0:
            promotions = self._promotions(slots)
            decisions += promotions
            decisions += self._starts(slots - len(promotions))
        return decisions

    @property
    def done(self) -> bool:
        return (
            not self._left(1) and not any(bracket.open for bracket in self._brackets) and not self.decide(1)
        )

    def _promotions(self, limit: int) -> list[Promote]:
        found = [promotion for bracket in self._brackets for promotion in bracket.promotions(limit)]
        return sorted(found, key=lambda promotion: -promotion.resource)[:limit]

    def _left(self, limit: int) -> int:
        """How many trials may still start, at most `limit`."""
        if self._exhausted:
            return 0
        return limit if self._trials is None else max(0, min(limit, self._trials - sum(self._started)))

    def _starts(self, limit: int) -> list[Start]:
        """New trials, those of one bracket together, so that they are one call of the searcher."""
        started = list(self._started)
        for _ in range(self._left(limit)):
            claims = [
                (2 * n + 1) * inverse for n, inverse in zip(started, self._inverse_weights, strict=True)
            ]
            started[claims.index(min(claims))] += 1
        return [
            Start(index, bracket.first)
            for index, bracket in enumerate(self._brackets)
            for _ in range(started[index] - self._started[index])
        ]


def _hyperband_weights(top: int, eta: int) -> list[int]:
    """For each rung, how many trials Hyperband starts there; `top` is the number of the last rung."""
    return [
        hyperband_ladder(top - rung, min_resource=1, max_resource=eta**top, eta=eta).sizes[0]
        for rung in range(top + 1)
    ]


class PromotionBracket:
    """Algorithm 2: the top floor(n / eta) of the n runs that have ended at a rung go on.

    Those that were promoted already stay in the count, and so do failed and stopped runs, as the
    worst ones: they are never promoted themselves.
    """

    def __init__(self, resources: tuple[int, ...], *, eta: int, minimise: bool) -> None:
        self.first = resources[0]
        self._resources = resources
        self._sign = 1 if minimise else -1
        self._rungs = [Rung(eta) for _ in resources[:-1]]
        self._running = 0  # below the last rung

    @property
    def open(self) -> bool:
        """Whether a run below the last rung goes on: its ending may admit one more to the next."""
        return self._running > 0

    def apply(self, event: AnyEvent) -> None:
        match event:
            case TrialCreated():
                self._running += bool(self._rungs)
            case TrialPromoted():
                self._rungs[event.rung - 1].promote(event.trial)
                self._running += event.rung < len(self._rungs)
            case RunFinished() if event.rung < len(self._rungs):
                self._running -= 1
                value = None if event.outcome is Outcome.STOPPED else event.value
                self._rungs[event.rung].end(event.trial, None if value is None else self._sign * value)
            case _:
                pass

    def promotions(self, limit: int) -> list[Promote]:
        found: list[Promote] = []
        for rung in range(len(self._rungs) - 1, -1, -1):
            best = self._rungs[rung].promotable(limit - len(found))
            found += [Promote(trial, rung + 1, self._resources[rung + 1]) for trial in best]
        return found

    def stops(self) -> list[Stop]:
        return []


class Rung:
    """The runs that have ended at one rung; ranked by value, ties to the older trial."""

    def __init__(self, eta: int) -> None:
        self._eta = eta
        self._ended = 0
        # Two heaps: the top floor(n / eta), the worst of them first, and the others, best first.
        self._top: list[tuple[float, int]] = []  # negated
        self._others: list[tuple[float, int]] = []
        #: Values of the trials that were not promoted, and those of them in the top, best first.
        self._value: dict[int, float] = {}
        self._candidates: list[tuple[float, int]] = []

    def end(self, trial: int, value: float | None) -> None:
        """A run ended with this value, to be minimised; None is worse than any."""
        self._ended += 1
        if value is not None:
            self._value[trial] = value
            self._enter(value, trial)
            self._leave(*heappushpop(self._top, (-value, -trial)))
        while len(self._top) < self._ended // self._eta and self._others:
            value, trial = heappop(self._others)
            heappush(self._top, (-value, -trial))
            self._enter(value, trial)

    def promote(self, trial: int) -> None:
        """The trial has gone on to the next rung; its value still counts."""
        self._drop((self._value.pop(trial), trial))

    def promotable(self, limit: int) -> list[int]:
        """At most `limit` trials in the top floor(n / eta) that are not promoted yet, best first."""
        return [trial for _, trial in self._candidates[:limit]]

    def _enter(self, value: float, trial: int) -> None:
        if trial in self._value:
            insort(self._candidates, (value, trial))

    def _leave(self, negated_value: float, negated_trial: int) -> None:
        entry = (-negated_value, -negated_trial)
        heappush(self._others, entry)
        self._drop(entry)

    def _drop(self, entry: tuple[float, int]) -> None:
        index = bisect_left(self._candidates, entry)
        if self._candidates[index : index + 1] == [entry]:
            del self._candidates[index]
