"""The two kinds of ASHA: runs that end at each rung, and runs that are stopped there."""

from __future__ import annotations

from bisect import bisect_right

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
from hpcsweep.core.objectives import Key, Objectives
from hpcsweep.core.outcomes import FACTS
from hpcsweep.core.protocols import Promote, Stop
from hpcsweep.schedulers.ranking import Candidates, FrontCandidates, FrontOrder, Ranked, ValueOrder
from hpcsweep.schedulers.rungs import PromotionCandidates


class PromotionBracket:
    """Algorithm 2: the top floor(n / eta) of the n runs that have ended at a rung go on.

    Those that were promoted already stay in the count, and so do failed and stopped runs, as the
    worst ones: they are never promoted themselves.
    """

    def __init__(self, resources: tuple[int, ...], *, eta: int, objectives: Objectives) -> None:
        self.first = resources[0]
        self._eta = eta
        self._objectives = objectives
        self._resources: tuple[int, ...] = ()
        # Of the last rung too: another one may come above it.
        self._rungs: list[Rung] = []
        self._running: list[int] = []
        #: How many trials start in it at most; None while that is open.
        self._most: int | None = None
        #: Trials that will never be promoted, however others do; `trained`: those at the last rung.
        self.dropped: list[int] = []
        self.trained: list[int] = []
        self.extend(resources)

    def extend(self, resources: tuple[int, ...]) -> None:
        """Go on with further rungs above those that there are."""
        self._resources = resources
        for _ in range(len(resources) - len(self._rungs)):
            self._rungs.append(Rung(self._eta, several=self._objectives.several))
            self._running.append(0)

    @property
    def open(self) -> bool:
        """Whether a run below the last rung goes on: its ending may admit one more to the next."""
        return any(self._running[:-1])

    def apply(self, event: AnyEvent) -> None:
        match event:
            case TrialCreated():
                self._running[0] += 1
            case TrialPromoted():
                self._rungs[event.rung - 1].promote(event.trial)
                self._drop()
                self._running[event.rung] += 1
            case RunFinished():
                self._running[event.rung] -= 1
                value = None if event.outcome is Outcome.STOPPED else event.value
                key = self._objectives.key(value, event.values)
                self.dropped += self._rungs[event.rung].end(event.trial, key)
                self._drop()
                if event.rung == len(self._rungs) - 1 and event.outcome is Outcome.COMPLETED:
                    # Where there is but one rung, those are not survivors of any, but all trials.
                    (self.trained if event.rung else self.dropped).append(event.trial)
            case TrialStopped():
                for rung in self._rungs:
                    rung.stop(event.trial)
            case RunRetried():
                self._running[event.rung] += 1
                self._rungs[event.rung].retry(event.trial)
            case _:
                pass

    def limit(self, trials: int) -> None:
        """No more than so many trials start in it, those that have started included."""
        self._most = trials if self._most is None else min(self._most, trials)
        self._drop()

    def reset_dropped(self) -> None:
        """More trials may start than was known: nobody is dropped who may be promoted."""
        self._most = None
        self.dropped = self._rungs[0].unpromoted if len(self._rungs) == 1 else []
        for rung in self._rungs:
            rung.reset_dropped()

    def _drop(self) -> None:
        """Drop those that are too far behind, however the runs end that are still to come."""
        most = self._most
        for rung in self._rungs[:-1]:
            if most is None:
                return
            contenders = rung.contenders
            self.dropped += contenders.limit(most // self._eta)
            most = contenders.promoted + len(contenders) + max(0, most - contenders.with_value)

    def promotions(self, limit: int) -> list[Promote]:
        """At most `limit` promotions that can be made now, the most advanced rung first."""
        found: list[Promote] = []
        for rung in range(len(self._rungs) - 2, -1, -1):
            best = self._rungs[rung].promotable(limit - len(found))
            found += [Promote(trial, rung + 1, self._resources[rung + 1]) for trial in best]
        return found

    def stops(self) -> list[Stop]:
        return []


class Rung:
    """The runs that have ended at one rung; of n of them the best floor(n / eta) go on."""

    def __init__(self, eta: int, *, several: bool) -> None:
        self._eta = eta
        self._ended = 0
        self._keys: dict[int, Key] = {}
        self._promoted: set[int] = set()
        self._order = FrontOrder() if several else ValueOrder()
        self._candidates: type[Candidates] = FrontCandidates if several else PromotionCandidates
        #: Those that may be promoted some day.
        self.contenders: Candidates = self._candidates()

    def end(self, trial: int, key: Key | None) -> list[int]:
        """A run ended with this key; None is worse than any. Who is dropped by that."""
        self._ended += 1
        if key is None:
            return []
        self._keys[trial] = key
        self._order.add(trial, key)
        return self.contenders.add(trial, key)

    def stop(self, trial: int) -> None:
        """The trial goes no further: if its run here was its newest, that counts as one without a value."""
        if trial in self._keys and trial not in self._promoted:
            self.retry(trial)
            self.end(trial, None)

    def retry(self, trial: int) -> None:
        """A run that ended, and was not promoted, has not ended after all."""
        self._ended -= 1
        key = self._keys.pop(trial, None)
        if key is not None:
            self._order.remove(trial, key)
        self.contenders.remove(trial)

    def promote(self, trial: int) -> None:
        """The trial has gone on to the next rung; its value still counts."""
        self._promoted.add(trial)
        self._order.promote(trial, self._keys[trial])
        self.contenders.promote(trial)

    def promotable(self, limit: int) -> list[int]:
        """At most `limit` trials among the best floor(n / eta) that are not promoted yet, best first."""
        return self._order.best(self._ended // self._eta, limit)

    @property
    def unpromoted(self) -> list[int]:
        """The trials with a value that were not promoted."""
        return [trial for trial in self._keys if trial not in self._promoted]

    def reset_dropped(self) -> None:
        """More runs may come than was known: whoever has a value may be promoted some day."""
        self.contenders = self._candidates()
        for trial, key in self._keys.items():
            self.contenders.add(trial, key)
            if trial in self._promoted:
                self.contenders.promote(trial)


class StoppingBracket:
    """Trials of one run each to the last resource; the rungs below are milestones on its way.

    The value of a milestone is that of the first report at or after it; a report that passes
    several counts for the last of them, as it says nothing fair of those before. With n values at
    the milestone so far, its own included, the trial goes on if it is among the best
    max(1, floor(n / eta)), ties to the older trial. A run that fails counts as the worst value of
    the milestone that it did not reach, until it is retried.
    """

    def __init__(self, resources: tuple[int, ...], *, eta: int, objectives: Objectives) -> None:
        self.first = resources[-1]
        self._milestones = resources[:-1]
        self._eta = eta
        self._objectives = objectives
        self._ranked = [Ranked() for _ in self._milestones]
        self._failed: list[set[int]] = [set() for _ in self._milestones]
        #: The next milestone of each trial that runs.
        self._next: dict[int, int] = {}
        self._stops: dict[int, Stop] = {}
        #: None is ever promoted: a trial is dropped as soon as it is trained to its end.
        self.dropped: list[int] = []
        self.trained: list[int] = []
        self._completed: list[int] = []

    def limit(self, trials: int) -> None:
        """Nothing depends on how many trials there are."""

    def reset_dropped(self) -> None:
        """However many trials start, those that are trained to their end go no further."""
        self.dropped = list(self._completed)

    def extend(self, resources: tuple[int, ...]) -> None:
        """Nothing: its trials are runs to the resource that they began with."""

    @property
    def open(self) -> bool:
        """Whether anything goes on that may be stopped."""
        return bool(self._next)

    def apply(self, event: AnyEvent) -> None:
        match event:
            case TrialCreated():
                self._next[event.trial] = 0
            case RunReported() if event.trial in self._next:
                for step, key in self._objectives.report_keys(event.reports, event.values):
                    self._report(event.trial, step, key)
            case TrialStopped():
                self._leave(event.trial)
            case RunFinished():
                if event.outcome is Outcome.COMPLETED:
                    self._completed.append(event.trial)
                    self.dropped.append(event.trial)
                milestone = self._next.get(event.trial, len(self._milestones))
                failed = not FACTS[event.outcome].ended_well
                if failed and event.trial not in self._stops and milestone < len(self._milestones):
                    self._failed[milestone].add(event.trial)
                self._leave(event.trial)
            case RunRetried():
                for milestone, trials in enumerate(self._failed):
                    if event.trial in trials:
                        trials.remove(event.trial)
                        self._next[event.trial] = milestone
            case _:
                pass

    def promotions(self, limit: int) -> list[Promote]:
        return []

    def stops(self) -> list[Stop]:
        return list(self._stops.values())

    def _leave(self, trial: int) -> None:
        self._next.pop(trial, None)
        self._stops.pop(trial, None)

    def _report(self, trial: int, step: int, key: Key) -> None:
        milestone = bisect_right(self._milestones, step) - 1
        if trial in self._stops or milestone < self._next[trial] or step >= self.first:
            return
        self._next[trial] = milestone + 1
        ranked = self._ranked[milestone]
        ranked.add(trial, key)
        rank = ranked.place(trial) + 1
        count = len(ranked) + len(self._failed[milestone])
        best = max(1, count // self._eta)
        if rank > best:
            numbers = ", ".join(f"{value:.6g}" for value in self._objectives.point(key))
            values = f"its values {numbers} are" if isinstance(key, tuple) else f"its value {numbers} is"
            self._stops[trial] = Stop(
                trial,
                f"asha: at the rung of resource {self._milestones[milestone]} {values} "
                f"number {rank} of {count}, and the best {best} of them go on",
            )
