"""Population based training (Jaderberg et al., 2017): the worst go on as altered copies of the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Any, Final

import numpy as np
from annotated_types import Interval
from numpy.random import Generator, default_rng

from hpcsweep.core.events import (
    AnyEvent,
    Config,
    ConfigsEnqueued,
    Outcome,
    ParametersSuggested,
    RunFinished,
    RunRetried,
    SweepResumed,
    TrialCreated,
    TrialPromoted,
    TrialsExhausted,
    TrialStopped,
)
from hpcsweep.core.objectives import Key, Objectives
from hpcsweep.core.protocols import BracketPlan, Clone, Decision, Positive, Promote, SchedulerPlan, Start
from hpcsweep.core.space import Choice, Constant, Domain, Float, Int, Ordinal, Space
from hpcsweep.schedulers.ranking import Ranked, best_first

#: A member is given up when so many of its trials in a row ended without completing a run.
MAX_FAILURES_IN_A_ROW: Final = 3
#: A number that is not drawn anew is multiplied by one of these.
FACTORS: Final = (1.2, 0.8)
#: Intervals that a member is trained for at most; each is a run.
MAX_INTERVALS: Final = 100_000


class Member:
    """One member of the population, and the trial that stands for it now.

    Attributes:
        intervals: How many intervals are trained, those of the trial that it was cloned from included.
        runs: How many runs the trial was given.
        values: At the end of each interval that this trial has trained: the value as it is compared.
        failures_in_a_row: Trials in a row that ended without completing a run.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.trial: int | None = None
        self.config: Config = {}
        self.intervals = 0
        self.runs = 0
        self.running = False
        self.failed = False
        self.failures_in_a_row = 0
        self.values: dict[int, Key] = {}

    def take(self, event: TrialCreated, *, intervals: int) -> None:
        """A new trial stands for it."""
        self.trial, self.config, self.intervals = event.trial, event.config, intervals
        self.runs, self.running, self.failed, self.values = 1, True, False, {}

    def end(self, value: Key | None) -> None:
        """The run has ended; None: the trial goes no further."""
        self.running = False
        if value is None:
            self.failed = True
            self.failures_in_a_row += 1
        else:
            self.intervals += 1
            self.values[self.intervals] = value
            self.failures_in_a_row = 0

    def stop(self) -> None:
        """The trial goes no further, though its newest run may have ended well."""
        if not self.running:
            self.failed = True

    def retry(self) -> None:
        """The run that failed has not ended after all."""
        self.running, self.failed = True, False
        self.failures_in_a_row -= 1


class PBT:
    """A population in which, after each interval, the bottom quarter copies the top quarter.

    Asynchronous, so that no GPU waits: a member that is to go on is compared with all n members that have
    ended the same interval by then. The worst floor(n quantile) are replaced by clones of a random one of
    the best max(1, floor(n quantile)) that have not ended and are not among the worst at their own newest
    interval. A clone continues the donor's newest completed run, with its weights and its configuration,
    altered by `perturb`. Members that are behind go first, so that with few slots the population keeps
    together.

    A member whose trial failed, was lost or was stopped is replaced as well, by a clone of one that is no
    less far; after `MAX_FAILURES_IN_A_ROW` such trials it is given up. A trial that is retried stands for its
    member again if no clone does so by then. A clone is a new trial, in the bracket with its member's number;
    clones go on when no other trial may start. Configurations that are enqueued while every member has a
    trial become further members.

    Args:
        population: How many members are trained side by side.
        interval: How far a member is trained before it is compared, in epochs or steps.
        max_resource: Each member is trained up to this; the last interval may be a short one.
        quantile: The share of members that is replaced, and of those that replace them.
        resample: How probable it is that a parameter is drawn anew and not changed a little.
        space: The search space.
        seed: Of the sweep.
        minimise: Whether small values are good; `objectives`: what counts, where there are several.

    Raises:
        ValueError: An option makes no sense; the message begins with its name.
    """

    needs_reports = False
    clones = True
    population: Final = True
    promotes_any_time: Final = True

    def __init__(
        self,
        *,
        population: Annotated[int, Interval(ge=2, le=10_000)],
        interval: Positive,
        max_resource: Positive,
        quantile: Annotated[float, Interval(gt=0, le=0.5)] = 0.25,
        resample: Annotated[float, Interval(ge=0, le=1)] = 0.25,
        space: Space,
        seed: int,
        minimise: bool = True,
        objectives: Objectives | None = None,
    ) -> None:
        if not 0 < quantile <= 0.5:
            raise ValueError(f"quantile: must be above 0 and at most 0.5, got {quantile}")
        self._quantile = Fraction(str(quantile))
        if interval < 1:
            raise ValueError(f"interval: must be at least 1, got {interval}")
        if interval > max_resource:
            raise ValueError(f"interval: must be <= max_resource ({max_resource}), got {interval}")
        if max_resource // interval > MAX_INTERVALS:
            least = -(-max_resource // MAX_INTERVALS)
            raise ValueError(
                f"interval: must be at least {least}: max_resource ({max_resource}) has {MAX_INTERVALS} "
                f"intervals at most, got {interval}"
            )
        if population * self._quantile < 1:
            least = math.ceil(1 / self._quantile)
            raise ValueError(
                f"population: must be at least {least}, so that the quantile {quantile:g} holds a member, "
                f"got {population}"
            )
        if not 0 <= resample <= 1:
            raise ValueError(f"resample: must be between 0 and 1, got {resample}")
        #: Resource at the end of each interval.
        self._ends = (*range(interval, max_resource, interval), max_resource)
        self._size = population
        self._resample = resample
        self._space = space
        self._seed = seed
        self._objectives = objectives or Objectives.single(minimise=minimise)
        self._exhausted = ""  # by what
        self._enqueued = 0
        self._members = [Member(index) for index in range(population)]
        self._member_of: dict[int, Member] = {}
        #: For each interval, all trials that have ended it.
        self._ranked: dict[int, Ranked] = {}
        self.dropped: list[int] = []
        self.trained: list[int] = []

    def plan(self, trials: int | None = None) -> SchedulerPlan:
        """The members, interval by interval; clones are not counted."""
        bracket = BracketPlan(self._ends, (self._size,) * len(self._ends))
        return SchedulerPlan((bracket,), starts=self._size, population=True)

    def apply(self, event: AnyEvent) -> None:
        match event:
            case TrialCreated():
                while event.bracket >= len(self._members):
                    self._members.append(Member(len(self._members)))
                self._enqueued -= event.origin == "enqueued"
                member = self._members[event.bracket]
                if member.trial is not None:
                    del self._member_of[member.trial]
                    self.dropped.append(member.trial)
                # It starts at the end of an interval, and never at the last end.
                intervals = self._ends.index(event.start) + 1 if event.parent is not None else 0
                member.take(event, intervals=intervals)
                self._member_of[event.trial] = member
            case TrialPromoted():
                member = self._member_of[event.trial]
                member.runs, member.running = event.rung + 1, True
            case RunFinished() if event.trial in self._member_of:
                self._finished(event)
            case RunFinished():  # retried after another trial had taken over
                self.dropped.append(event.trial)
            case TrialStopped() if event.trial in self._member_of:
                self._member_of[event.trial].stop()
            case RunRetried() if event.trial in self._member_of:
                self._member_of[event.trial].retry()
            case ConfigsEnqueued():
                self._enqueued += len(event.configs)
            case TrialsExhausted():
                self._exhausted = event.cause
            case SweepResumed() | ParametersSuggested(more_trials=True):
                self._exhausted = ""
            case _:
                pass

    def decide(self, slots: int) -> list[Decision]:
        decisions: list[Decision] = []
        for member in sorted(self._members, key=lambda member: (member.intervals, member.index)):
            if len(decisions) >= slots:
                break
            decision = self._next(member)
            if decision is not None:
                decisions.append(decision)
        decisions += self._more(slots - len(decisions))
        return sorted(decisions, key=lambda decision: isinstance(decision, Start))

    @property
    def done(self) -> bool:
        return not any(member.running for member in self._members) and not self.decide(1)

    def _finished(self, event: RunFinished) -> None:
        member = self._member_of[event.trial]
        if event.outcome is not Outcome.COMPLETED or event.value is None:
            member.end(None)
            return
        key = self._objectives.key(event.value, event.values)
        assert key is not None
        member.end(key)
        self._ranked.setdefault(member.intervals, Ranked()).add(event.trial, key)
        if member.intervals == len(self._ends):
            self.dropped.append(event.trial)

    def _next(self, member: Member) -> Decision | None:
        """What the member waits for; None if it runs, is at its end, or waits for a donor."""
        if member.running or member.intervals == len(self._ends):
            return None
        if member.trial is None:
            return None if self._exhausted else Start(member.index, self._ends[0])
        if member.failed:
            given_up = member.failures_in_a_row >= MAX_FAILURES_IN_A_ROW
            return None if given_up else self._clone(member, member.trial)
        promotion = Promote(member.trial, member.runs, self._ends[member.intervals])
        if self._is_among_worst(member):
            return self._clone(member, member.trial) or promotion
        return promotion

    def _more(self, slots: int) -> list[Start]:
        """Further places for what is enqueued and will find none free."""
        if self._exhausted == "budget":
            return []
        free = 0 if self._exhausted else sum(member.trial is None for member in self._members)
        count = max(0, min(slots, self._enqueued - free))
        return [Start(len(self._members) + index, self._ends[0]) for index in range(count)]

    def _count(self, interval: int) -> int:
        """floor(n quantile) of the n that have ended the interval."""
        return math.floor(len(self._ranked[interval]) * self._quantile)

    def _is_among_worst(self, member: Member) -> bool:
        """Whether its trial is among the worst at the newest interval that it has ended itself."""
        assert member.trial is not None
        ranked = self._ranked[member.intervals]
        return ranked.place(member.trial) >= len(ranked) - self._count(member.intervals)

    def _clone(self, member: Member, replaced: int) -> Clone | None:
        """A clone for the member, of a donor that is no less far; None while there is none."""
        donors = [
            other
            for other in self._members
            if other is not member
            and other.values
            and not other.failed
            and other.intervals < len(self._ends)
            and not self._is_among_worst(other)
        ]
        for interval in range(max(1, member.intervals), len(self._ends)):
            values = {donor.index: donor.values[interval] for donor in donors if interval in donor.values}
            if values:
                best = best_first(values, max(1, self._count(interval)))
                rng = default_rng([self._seed, replaced, member.intervals])
                donor = self._members[best[int(rng.integers(len(best)))]]
                assert donor.trial is not None
                return Clone(
                    member.index,
                    self._ends[donor.intervals],
                    donor.trial,
                    self._ends[donor.intervals - 1],
                    perturb(self._space, donor.config, rng, resample=self._resample, factors=FACTORS),
                )
        return None


#: Altered configurations that are tried for one that satisfies the constraints.
TRIES: Final = 100


def perturb(
    space: Space, config: Config, rng: Generator, *, resample: float, factors: Sequence[float]
) -> Config:
    """A valid configuration near `config` (the explore step of Jaderberg et al., 2017).

    Each parameter is drawn anew with probability `resample`, else moved by a random one of the
    factors and clipped to its domain, see `perturb_value`. What becomes active is drawn, what becomes
    inactive goes. If nothing satisfies the constraints after `TRIES`, it is `config` itself.
    """
    for _ in range(TRIES):
        altered: Config = {}
        for parameter in space.parameters:
            domain = parameter.domain
            if isinstance(domain, Constant):
                altered[parameter.name] = domain.value
            elif parameter.name not in config or rng.random() < resample:
                altered[parameter.name] = domain.from_unit(np.array([rng.random()]))[0]
            else:
                factor = factors[int(rng.integers(len(factors)))]
                altered[parameter.name] = perturb_value(domain, config[parameter.name], factor)
        altered = space.drop_inactive(altered)
        if space.satisfies_constraints(altered):
            return altered
    return dict(config)


def perturb_value(domain: Domain, value: Any, factor: float) -> Any:
    """The value times `factor`, as near as the domain allows and never outside of it.

    Whole and stepped numbers move by a step at least, unless they are at the end. In an ordered
    list it is the next value for a factor above 1, else the one before. A choice stays, and so
    does the zero of a continuous number.
    """
    match domain:
        case Float(step=None):
            return domain.nearest(value * factor)
        case Float() | Int():
            target = value * factor
            nearest = domain.nearest(target)
            if nearest != value:
                return nearest
            up = target > value if target != value else factor > 1
            step = domain.step or 1
            return domain.nearest(value + step if up else value - step)
        case Ordinal():
            index = int(domain.to_unit([value])[0] * domain.size) + (1 if factor > 1 else -1)
            return domain.values[min(max(index, 0), domain.size - 1)]
        case Choice() | Constant():
            return value
