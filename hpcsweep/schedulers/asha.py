"""ASHA, asynchronous successive halving (Li et al., MLSys 2020): no rung waits for its last run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from hpcsweep.core.events import (
    AnyEvent,
    ConfigsEnqueued,
    ParametersSuggested,
    RunFinished,
    RunReported,
    RunRetried,
    SweepEnded,
    SweepExtended,
    SweepOutcome,
    SweepResumed,
    TrialCreated,
    TrialPromoted,
    TrialsExhausted,
    TrialStopped,
)
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.protocols import (
    AtLeastTwo,
    BracketPlan,
    Decision,
    Positive,
    Promote,
    SchedulerPlan,
    Start,
    fewest,
)
from hpcsweep.schedulers.asha_brackets import PromotionBracket, StoppingBracket
from hpcsweep.schedulers.raising import AUTO_REFUSAL, MinResource, RankWatch
from hpcsweep.schedulers.rungs import (
    check_resources,
    halving_bracket,
    hyperband_brackets,
    lowest_resource,
    max_asha_runs,
    rungs_refusal,
)

#: Beyond so many trials nobody counts how many of them each bracket will have.
_COUNTED: Final = 100_000

Bracket: TypeAlias = PromotionBracket | StoppingBracket


class ASHA:
    """Promotes whoever is in the top 1/eta of a rung at the moment; else starts a new trial.

    Rungs are at min_resource eta^k, and at max_resource, which is the last one even where it is no
    such number. Bracket s starts its trials at rung s. New trials are spread over the brackets in
    proportion to Hyperband's numbers of trials for them: always to the bracket with the smallest
    (2 started + 1) / weight, which is Webster's method, ties to the lower one.

    The cost of an event or decision grows with the logarithm of the number of trials, but that
    `stopping` shifts a sorted list.

    With `min_resource: auto` there is a bracket for each rung but the last, and new trials start in the
    lowest one whose ranks hold: see `RankWatch`.

    Args:
        min_resource: The resource of the lowest rung, in epochs or steps; `auto` starts low and goes up
            where the ranks of the lowest rung do not hold in higher ones.
        max_resource: The resource of the highest rung, in epochs or steps.
        eta: One in eta goes on.
        brackets: How many brackets, as in Hyperband; each starts one rung higher than the one before.
        stopping: A run goes on past a rung unless it is outside of the best 1/eta, in place of one run for
            each rung; for long waits in the queue.
        trials: How many trials, None until the space or the budget is exhausted.
        minimise: Whether small values are good; `objectives`: what counts, where there are several.

    Raises:
        ValueError: An option makes no sense; the message begins with its name.
    """

    clones = False
    extendable: Final = ("brackets", "max_resource")
    promotes_any_time: Final = True
    #: The option with which it needs reports.
    reports_option: Final = "stopping"

    def __init__(
        self,
        *,
        min_resource: MinResource = 1,
        max_resource: Positive,
        eta: AtLeastTwo = 3,
        brackets: Positive = 1,
        stopping: bool = False,
        trials: int | None = None,
        minimise: bool = True,
        objectives: Objectives | None = None,
    ) -> None:
        auto = min_resource == "auto"
        if auto and (brackets > 1 or stopping):
            given = "brackets above 1" if brackets > 1 else "stopping"
            raise ValueError(f"min_resource: auto does not go with {given}: give a number")
        min_resource = lowest_resource(min_resource, max_resource=max_resource, eta=eta)
        check_resources(min_resource=min_resource, max_resource=max_resource, eta=eta)
        rungs = halving_bracket(min_resource=min_resource, max_resource=max_resource, eta=eta).resources
        if brackets < 1:
            raise ValueError(f"brackets: must be at least 1, got {brackets}")
        if brackets > len(rungs):
            raise ValueError(f"brackets: must be at most {len(rungs)}, the number of rungs, got {brackets}")
        self._watch = RankWatch(rungs) if auto and len(rungs) > 1 else None
        if self._watch is not None:
            brackets = len(rungs) - 1
        self.needs_reports = stopping
        self._min_resource = min_resource
        self._eta = eta
        self._objectives = objectives or Objectives.single(minimise=minimise)
        self._brackets: list[Bracket] = []
        self._started: list[int] = []
        self._extend(max_resource=max_resource, brackets=brackets)
        self._trials = trials
        self._enqueued = 0
        self._exhausted = ""  # by what
        self._of_trial: dict[int, Bracket] = {}
        self.dropped: list[int] = []
        self.trained: list[int] = []
        self._limit_brackets()

    @staticmethod
    def extension_refusal(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
        """Why `max_resource` cannot be raised; empty if it can."""
        if now["min_resource"] == "auto":
            return AUTO_REFUSAL
        return "with stopping, each trial is one run to it" if now["stopping"] else rungs_refusal(before, now)

    def plan(self, trials: int | None = None) -> SchedulerPlan:
        """With stopping one run a trial; else its rungs, whose sizes depend on the order of the results."""
        trials = fewest(trials, self._trials)
        open_ended = "asha goes on for ever in this space" if trials is None else ""
        if self.needs_reports:
            top = self.rungs[0][-1:]
            known = () if trials is None else (BracketPlan(top, (trials,)),)
            return SchedulerPlan(known, starts=trials, eta=self._eta, open_ended=open_ended)
        brackets = tuple(BracketPlan(resources) for resources in self.rungs)
        max_runs = None
        notes: tuple[str, ...] = (f"one in {self._eta} of a rung goes on, as results come",)
        if self._watch is not None:
            notes = (*notes, f"new trials start {self._watch.note}")
        if trials is not None and len(brackets) == 1:
            resources = self.rungs[0]
            sizes = tuple(trials // self._eta**rung for rung in range(len(resources)))
            brackets = (BracketPlan(resources, sizes),)
            max_runs = sum(max_asha_runs(trials, rungs=len(resources), eta=self._eta))
        return SchedulerPlan(
            brackets,
            starts=trials,
            eta=self._eta,
            estimated=True,
            max_runs=max_runs,
            open_ended=open_ended,
            notes=notes,
        )

    def _extend(self, *, max_resource: int, brackets: int) -> None:
        """Go on with rungs up to this, and so many brackets; none is taken away."""
        rungs = halving_bracket(
            min_resource=self._min_resource, max_resource=max_resource, eta=self._eta
        ).resources
        #: Of each bracket, the resources of its rungs.
        self.rungs = tuple(rungs[first:] for first in range(brackets))
        #: Of each bracket, its share of the new trials relative to the others.
        self.weights = _hyperband_weights(len(rungs) - 1, self._eta)[:brackets]
        common = math.lcm(*self.weights)
        self._inverse_weights = [common // weight for weight in self.weights]
        make = StoppingBracket if self.needs_reports else PromotionBracket
        for bracket, resources in zip(self._brackets, self.rungs, strict=False):
            bracket.extend(resources)
        for resources in self.rungs[len(self._brackets) :]:
            self._brackets.append(make(resources, eta=self._eta, objectives=self._objectives))
            self._started.append(0)

    def apply(self, event: AnyEvent) -> None:
        if self._watch is not None:
            self._watch.apply(event)
        match event:
            case TrialCreated():
                if self._watch is not None:
                    self._watch.raise_to(event.resource)
                self._started[event.bracket] += 1
                self._enqueued -= event.origin == "enqueued"
                self._of_trial[event.trial] = self._brackets[event.bracket]
                self._of_trial[event.trial].apply(event)
                self._collect_dropped()
            case TrialPromoted() | TrialStopped() | RunReported() | RunFinished() | RunRetried():
                self._of_trial[event.trial].apply(event)
                self._collect_dropped()
            case ConfigsEnqueued():
                self._enqueued += len(event.configs)
            case TrialsExhausted():
                self._exhausted = event.cause
                self._limit_brackets()
            case SweepEnded(outcome=SweepOutcome.FINISHED):  # what only more trials could promote is dropped
                self._limit_brackets(to_started=True)
            case SweepExtended(identity={"scheduler": {"max_resource": most, "brackets": brackets}}) if (
                self._watch is None
            ):
                self._extend(max_resource=most, brackets=brackets)
                self.trained = []
                self._reset_dropped()
            case SweepResumed() | ParametersSuggested(more_trials=True):
                self._exhausted = ""
                self._reset_dropped()
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

    def _reset_dropped(self) -> None:
        """Find out again who is dropped: there may be more trials, or more rungs, than was known."""
        self.dropped = []
        for bracket in self._brackets:
            bracket.reset_dropped()
        self._collect_dropped()
        self._limit_brackets()

    def _limit_brackets(self, *, to_started: bool = False) -> None:
        """Tell each bracket how many trials it may have in all, if that is known."""
        if self._exhausted or to_started:
            most = self._started
        elif self._watch is not None and self._trials is not None:  # in which of these they start is open
            left = self._left(self._trials)
            most = [n + left if rung >= self._watch.rung else n for rung, n in enumerate(self._started)]
        elif self._trials is not None and self._trials <= _COUNTED:
            most = self._started_after(self._left(self._trials))
        else:
            return
        for bracket, trials in zip(self._brackets, most, strict=True):
            bracket.limit(trials)
        self._collect_dropped()

    def _collect_dropped(self) -> None:
        for bracket in self._brackets:
            self.dropped += bracket.dropped
            self.trained += bracket.trained
            bracket.dropped, bracket.trained = [], []

    def _promotions(self, limit: int) -> list[Promote]:
        found = [promotion for bracket in self._brackets for promotion in bracket.promotions(limit)]
        return sorted(found, key=lambda promotion: -promotion.resource)[:limit]

    def _left(self, limit: int) -> int:
        """How many trials may still start, at most `limit`."""
        if self._exhausted:  # what was enqueued is tried though the searcher has nothing more to propose
            limit = min(limit, self._enqueued) if self._exhausted == "space" else 0
        return limit if self._trials is None else max(0, min(limit, self._trials - sum(self._started)))

    def _starts(self, limit: int) -> list[Start]:
        """New trials, those of one bracket together, so that they are one call of the searcher."""
        started = self._started_after(self._left(limit))
        return [
            Start(index, bracket.first)
            for index, bracket in enumerate(self._brackets)
            for _ in range(started[index] - self._started[index])
        ]

    def _started_after(self, more: int) -> list[int]:
        """How many trials each bracket has started once there are so many more."""
        started = list(self._started)
        if self._watch is not None:
            started[self._watch.rung] += more
            return started
        if len(started) == 1:
            return [started[0] + more]
        for _ in range(more):
            claims = [
                (2 * n + 1) * inverse for n, inverse in zip(started, self._inverse_weights, strict=True)
            ]
            started[claims.index(min(claims))] += 1
        return started


def _hyperband_weights(top: int, eta: int) -> list[int]:
    """For each rung, how many trials Hyperband starts there; `top` is the number of the last rung."""
    brackets = hyperband_brackets(min_resource=1, max_resource=eta**top, eta=eta)
    return [bracket.sizes[0] for bracket in brackets]
