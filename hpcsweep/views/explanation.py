"""What `explain` says of a trial, JSON throughout, and how trials at a rung compare. Pure."""

from __future__ import annotations

import enum
import math
from typing import Any, Final

import msgspec

from hpcsweep.core.events import Config, FailureKind, Interruption, Outcome, RunFinished, RunInterrupted
from hpcsweep.core.models import RunStatus
from hpcsweep.core.objectives import Key, Objectives
from hpcsweep.core.rank_correlation import RankCorrelation
from hpcsweep.schedulers.ranking import best_first
from hpcsweep.views.task_times import HandOver

#: So many of the best are named in a comparison.
BEST_NAMED: Final = 5


class RankedTrial(msgspec.Struct, frozen=True, gc=False):
    """A configuration in a comparison."""

    trial: int  # the first one
    place: int  # by value, from 1
    value: float
    went_on: bool  # it had been promoted from there by then
    values: tuple[float, ...] = ()  # with several objectives, all of them


class RankComparison(msgspec.Struct, frozen=True):
    """A configuration among those that were at the same resource, at one moment."""

    resource: int
    members: int  # brought there by then
    ended: int  # of the members
    without_value: int  # of those that ended: failed, stopped or lost
    place: int | None  # by value, from 1; None for a configuration without one
    went_on: int  # promoted from there by then, itself included
    worse: int  # promoted although their value is worse
    others: tuple[int, ...]  # promoted ones other than itself, best first
    cut: RankedTrial | None  # the worst that went on
    first_out: RankedTrial | None  # the best that did not
    named: tuple[RankedTrial, ...]  # the best ones, itself, the cut and the first out, best first


class RungRanking:
    """Who came to one resource, ended there and went on from there, and when.

    Configurations go by their first trial. A moment is the number of runs that had ended in the
    whole sweep: between two endings nothing is learned, so decisions have no other order.
    """

    def __init__(self, resource: int, objectives: Objectives) -> None:
        self.resource = resource
        self.joined: dict[int, int] = {}
        self.ended: dict[int, int] = {}
        self.went_on: dict[int, int] = {}
        #: Those that had ended without being promoted, and were tried again: from and until when.
        self._before: list[tuple[int, int, int]] = []
        self._keys: dict[int, Key] = {}
        self._objectives = objectives

    def end(self, trial: int, moment: int, key: Key | None) -> None:
        """Its run ended with this key; None takes no place."""
        self.ended[trial] = moment
        if key is not None:
            self._keys[trial] = key

    def retry(self, trial: int, moment: int) -> None:
        """Its run has not ended after all; until this moment it had."""
        self._before.append((trial, self.ended.pop(trial), moment))
        self._keys.pop(trial, None)

    def ended_by(self, moment: float) -> set[int]:
        """Whose run had ended at this moment, as far as anybody knew."""
        ended = {trial for trial, when in self.ended.items() if when <= moment}
        return ended | {trial for trial, since, until in self._before if since <= moment <= until}

    @property
    def at_once(self) -> bool:
        """Whether all promotions so far were one decision, made when everybody had ended."""
        if not self.went_on:
            return True
        decided = min(self.went_on.values())
        return max(self.went_on.values()) == decided and len(self.ended_by(decided)) == len(self.joined)

    def compare(self, trial: int, moment: float = math.inf) -> RankComparison:
        """Its place among those that had ended by then."""
        ended = self.ended_by(moment)
        valued = [other for other in ended & self._keys.keys() if self.ended[other] <= moment]
        ranked = best_first({other: self._keys[other] for other in valued})
        on = {other for other, when in self.went_on.items() if when <= moment}
        points = {other: self._objectives.point(self._keys[other]) for other in ranked}
        several = self._objectives.several
        peers = [
            RankedTrial(other, place, points[other][0], other in on, points[other] if several else ())
            for place, other in enumerate(ranked, start=1)
        ]
        own = next((peer for peer in peers if peer.trial == trial), None)
        promoted = [peer for peer in peers if peer.went_on]
        cut = promoted[-1] if promoted else None
        first_out = next((peer for peer in peers if not peer.went_on), None)
        named = {peer.place: peer for peer in (*peers[:BEST_NAMED], own, cut, first_out) if peer is not None}
        return RankComparison(
            self.resource,
            members=sum(when <= moment for when in self.joined.values()),
            ended=len(ended),
            without_value=len(ended) - len(ranked),
            place=own.place if own else None,
            went_on=len(promoted),
            worse=0 if own is None else sum(peer.place > own.place for peer in promoted),
            others=tuple(peer.trial for peer in promoted if peer.trial != trial),
            cut=cut,
            first_out=first_out,
            named=tuple(named[place] for place in sorted(named)),
        )


class Verdict(enum.Enum):
    """What followed from a run."""

    PROMOTED = "promoted"
    DROPPED = "dropped"  # it had a value, and others went on
    LAST = "last"  # it is trained in full
    OPEN = "open"  # it may still be promoted
    UNDER_WAY = "under_way"  # it has not ended, or a repeat of it has not
    NO_VALUE = "no_value"  # failed or lost: never compared
    STOPPED = "stopped"  # by a stopping rule


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """One parameter of a clone; a side on which it is not active is left out."""

    name: str
    before: Any = msgspec.UNSET
    after: Any = msgspec.UNSET


class Creation(msgspec.Struct, frozen=True):
    """How a trial came to be."""

    bracket: int
    resource: int  # of its first run
    submitted: float | None  # when the first batch that carried it was planned, in Unix seconds
    origin: str  # `searcher`, `enqueued` or `clone`
    searcher: str = ""  # name in the spec
    resolved_searcher: str = msgspec.field(default="", name="picked")  # that `auto` stands for
    asked: int = 0  # configurations proposed together with it, itself included
    observations: int = 0  # values that the searcher knew then, failures and earlier sweeps' included
    pending: int = 0  # configurations whose first value it did not know then
    request: str = ""  # control request that enqueued it; empty for the sweep file
    parent: int | None = None  # of a clone, which starts from its checkpoint of step `start`
    start: int = 0
    changes: tuple[Change, ...] = ()  # of a clone against its parent
    replaces: int | None = None  # trial whose place in the population a clone took


class Attempt(msgspec.Struct, frozen=True):
    """One try at a run, and how it ended: by an outcome or an interruption."""

    attempt: int  # which submission of the run it is of, from 0
    restart: int  # the cluster's own requeues of it
    outcome: Outcome | None
    interruption: Interruption | None
    step: int  # that the trial had reached, 0 where unknown
    node: str
    job: str
    seconds: float
    message: str
    retried: bool = False  # somebody asked for another try after it
    request: str = ""  # by this control request
    failure: FailureKind | None = None
    assigned: float | None = None  # when a task that keeps its GPUs was given it, in Unix seconds
    idle_s: float | None = None  # how long that task had held its GPUs without a run before
    first_of_task: bool = False  # since it began, else since its run before
    mem_mib: int | None = None  # memory that it might use, None where the cluster's default or unknown
    peak_mib: int = 0  # and that its processes held at most, 0 where unknown
    number: int = 1  # among those that began, from 1
    begun: bool = True  # else it is numbered as the next one that did

    @classmethod
    def of(
        cls,
        event: RunFinished | RunInterrupted,
        hand_over: HandOver | None = None,
        *,
        mem_mib: int | None = None,
        number: int = 1,
    ) -> Attempt:
        """The attempt of this number that ended with this event; it might use so much memory."""
        names = ("attempt", "restart", "step", "node", "job", "seconds", "message", "peak_mib", "begun")
        shared = {name: getattr(event, name) for name in names}
        shared |= {"mem_mib": mem_mib, "number": number}
        if hand_over is not None:
            assigned, idle_s, first = hand_over
            shared |= {"assigned": assigned, "idle_s": idle_s, "first_of_task": first}
        if isinstance(event, RunFinished):
            return cls(outcome=event.outcome, interruption=None, failure=event.failure_kind, **shared)
        return cls(outcome=None, interruption=event.interruption, **shared)


class Repeat(msgspec.Struct, frozen=True):
    """One training of a configuration at one rung."""

    trial: int
    status: RunStatus
    value: float | None
    values: tuple[float, ...] = ()  # with several objectives


class Rung(msgspec.Struct, frozen=True):
    """One run of the trial and what followed from it.

    Attributes:
        repeats: All trainings of its configuration at this rung; empty where there is one.
        mean: Of the repeats, by which they are compared; None until all have ended, and if one failed.
        reason: Why the verdict, as far as places do not tell.
        comparison: With its peers: at the moment of the promotion or drop, else by now. For a stopped
            trial by what had been reported at its newest step when it was stopped.
        blocked_reason: Why tasks of its array cannot start; empty if nothing but their turn is awaited.
        from_scratch: The trial's checkpoint had been removed before it went on.
        retrained: It began from scratch although the trial had been trained before.
        warning: What its user should change in training code; empty for nothing.
        values: With several objectives those of the run; `means` those of the repeats.
        correlations: Of the ranks at this resource with those at a higher one, over the whole sweep, one for
            each objective; empty while there are too few trials.
    """

    rung: int
    resource: int
    submitted: float | None  # when its first batch was planned, in Unix seconds
    status: RunStatus
    outcome: Outcome | None
    value: float | None
    step: int
    node: str
    message: str
    batches: int  # in how many it has been submitted
    attempts: tuple[Attempt, ...]  # those that have ended, the newest last
    repeats: tuple[Repeat, ...]
    mean: float | None
    verdict: Verdict
    reason: str
    comparison: RankComparison | None
    blocked_reason: str = msgspec.field(default="", name="hindered")
    failure: FailureKind | None = None
    from_scratch: bool = False
    retrained: bool = False
    warning: str = ""
    correlations: tuple[RankCorrelation, ...] = ()
    values: tuple[float, ...] = ()
    means: tuple[float, ...] = ()
    begun: int = 0  # how often its run was begun; once more where that is submitted


class BestSoFar(msgspec.Struct, frozen=True):
    """The sweep's best configuration, by its first trial, and how far this one is behind it."""

    trial: int
    value: float
    resource: int
    behind: float | None  # 0 for the best itself; None without a value, and where there is a front
    values: tuple[float, ...] = ()  # with several objectives, of the knee of the front


class Standing(msgspec.Struct, frozen=True):
    """Where a configuration with several objectives stands in the sweep by its newest values.

    Attributes:
        values: By metric. `violated`: by metric, how these are beyond its bounds, such as `above 50`.
        front: Which one it is on, from 1, of so many `fronts`.
        dominated_by: First trials of the configurations that dominate it.
        dominates: How many it dominates.
        picks: What it is picked for, such as `knee`, where it is on the first front.
    """

    values: dict[str, float]
    violated: dict[str, str]
    front: int
    fronts: int
    dominated_by: tuple[int, ...]
    dominates: int
    picks: tuple[str, ...]


class Explanation(msgspec.Struct, frozen=True):
    """A trial from its creation to now."""

    trial: int
    first: int  # first trial of its configuration; by this number peers are named
    repeat: int  # which training of its configuration it is, from 0
    repeats: int
    config: Config
    metric: str
    mode: str
    pooled: bool  # its peers are all of the sweep at the same resource, a population, not of one bracket
    creation: Creation
    rungs: tuple[Rung, ...]
    value: float | None  # newest of its configuration, the mean where it is trained several times
    resource: int | None  # of this value
    best: BestSoFar | None
    checkpoint_removed: bool = False  # nothing could need its checkpoints any more
    metrics: tuple[str, ...] = ()  # of several objectives
    feasible: bool = True  # whether any configuration keeps the bounds
    standing: Standing | None = None  # with several objectives; None for a trial without values
