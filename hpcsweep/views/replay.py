"""One trial's way through the events: what was known, and who was where, when it was decided. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import msgspec

from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    ConfigsEnqueued,
    RunFinished,
    RunInterrupted,
    RunReported,
    RunRetried,
    TrialCreated,
    TrialPromoted,
    TrialStopped,
    WarmStartLoaded,
)
from hpcsweep.core.models import Run, RunStatus
from hpcsweep.core.state import SweepState
from hpcsweep.views.brackets import is_population
from hpcsweep.views.explanation import BEST_NAMED, Attempt, RankComparison, RankedTrial


class RungRanking:
    """Who came to one resource, ended there and went on from there, and when.

    Configurations go by their first trial. A moment is the number of runs that had ended in the
    whole sweep: between two endings nothing is learned, so decisions have no other order.
    """

    def __init__(self, resource: int, *, minimise: bool) -> None:
        self.resource = resource
        self.joined: dict[int, int] = {}
        self.ended: dict[int, int] = {}
        self.went_on: dict[int, int] = {}
        #: Those that had ended without being promoted, and were tried again: from and until when.
        self._before: list[tuple[int, int, int]] = []
        self._values: dict[int, float] = {}
        self._sign = 1 if minimise else -1

    def join(self, trial: int, moment: int) -> None:
        """It was started there, or promoted to there."""
        self.joined[trial] = moment

    def end(self, trial: int, moment: int, value: float | None) -> None:
        """Its run ended; None takes no place."""
        self.ended[trial] = moment
        if value is not None:
            self._values[trial] = value

    def retry(self, trial: int, moment: int) -> None:
        """Its run has not ended after all; until this moment it had."""
        self._before.append((trial, self.ended.pop(trial), moment))
        self._values.pop(trial, None)

    def ended_by(self, moment: float) -> set[int]:
        """Whose run had ended at this moment, as far as anybody knew."""
        ended = {trial for trial, when in self.ended.items() if when <= moment}
        return ended | {trial for trial, since, until in self._before if since <= moment <= until}

    def promote(self, trial: int, moment: int) -> None:
        """It was promoted from there."""
        self.went_on[trial] = moment

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
        valued = [other for other in ended & self._values.keys() if self.ended[other] <= moment]
        ranked = sorted((self._sign * self._values[t], t) for t in valued)
        on = {other for other, when in self.went_on.items() if when <= moment}
        peers = [
            RankedTrial(other, place, self._values[other], other in on)
            for place, (_, other) in enumerate(ranked, start=1)
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


class SearcherCall(msgspec.Struct):
    """What a searcher was asked, and what it knew.

    Attributes:
        asked: How many configurations it proposed together.
        observations: Values of configurations, failures among them, earlier sweeps' included.
        pending: Configurations that had given none yet.
    """

    asked: int
    observations: int
    pending: int


class TrialReplay:
    """One pass over the events for one trial, together with the repeats of its configuration.

    Attributes:
        first: First trial of its configuration.
        pooled: Whether it is compared with the whole sweep and not with its bracket alone: in a population.
        levels: By resource, for each of the trial's runs.
        ask: Which proposed it; None where no searcher did.
        request: Of the request that enqueued it.
        replaces: The trial whose line of a population it carries on as a clone.
        replaced: The clone that carries on its line, and the moment at which it was made.
        submitted: By rung, when its first batch was planned.
        attempts: By rung, those that have ended.
        reports: What its peers and itself had reported when it was told to stop; otherwise empty.
    """

    def __init__(self, events: Iterable[AnyEvent], state: SweepState, trial: int) -> None:
        self._state = state
        own = state.trials[trial]
        self.trial = trial
        self.first = trial - own.repeat
        self._bracket = own.bracket
        self.pooled = is_population(state)
        self.levels = {run.resource: RungRanking(run.resource, minimise=state.minimise) for run in own.runs}
        self.ask: SearcherCall | None = None
        self.request = ""
        self.replaces: int | None = None
        self.replaced: tuple[int, int] | None = None
        self.submitted: dict[int, float] = {}
        self.attempts: dict[int, list[Attempt]] = {}
        self.reports: list[RunReported] = []
        self._gathered: list[RunReported] = []
        self._last_of_line: int | None = None
        self._moment = 0
        self._so_far = SweepState()
        self._requests: deque[str] = deque()
        self._observations = 0
        self._unobserved: set[int] = set()
        self._asking: tuple[tuple[int, int], SearcherCall] | None = (
            None  # bracket and resource, and the ask under way
        )
        for event in events:
            self._apply(event)

    def _apply(self, event: AnyEvent) -> None:
        if self._asking is not None and not isinstance(event, TrialCreated):
            self._asking = None
        self._so_far.apply(event)
        if isinstance(event, RunFinished | RunInterrupted) and event.trial == self.trial:
            self.attempts.setdefault(event.rung, []).append(Attempt.of(event))
        match event:
            case RunFinished():
                self._moment += 1
                self._run_ended(event)
            case RunRetried():
                self._run_retried(event)
            case RunReported():
                if self._is_peer(event.trial):
                    self._gathered.append(event)
            case TrialCreated():
                self._trial_created(event)
            case TrialPromoted():
                self._trial_promoted(event)
            case BatchPlanned():
                self._batch_planned(event)
            case TrialStopped():
                if self.first <= event.trial < self.first + self._state.repeats:
                    self.reports = list(self._gathered)
            case ConfigsEnqueued():
                self._requests.extend([event.request] * len(event.configs))
            case WarmStartLoaded():
                self._observations += sum(len(found) for _, found in event.results)
            case _:
                pass

    def _is_peer(self, trial: int) -> bool:
        return self.pooled or self._state.trials[trial].bracket == self._bracket

    def _trial_created(self, event: TrialCreated) -> None:
        if event.repeat:
            return
        if event.origin == "searcher":
            key = (event.bracket, event.resource)
            if self._asking is None or self._asking[0] != key:
                self._asking = (key, SearcherCall(0, self._observations, len(self._unobserved)))
            self._asking[1].asked += 1
        else:
            self._asking = None
        self._unobserved.add(event.trial)
        request = self._requests.popleft() if event.origin == "enqueued" else ""
        line = self.pooled and event.origin == "clone" and event.bracket == self._bracket
        if event.trial == self.first:
            self.ask = self._asking[1] if self._asking is not None else None
            self.request = request
            if line:
                self.replaces = self._last_of_line
        elif line and event.trial > self.first and self.replaced is None:
            self.replaced = (event.trial, self._moment)
        if event.bracket == self._bracket:
            self._last_of_line = event.trial
        if event.resource in self.levels and self._is_peer(event.trial):
            self.levels[event.resource].join(event.trial, self._moment)

    def _trial_promoted(self, event: TrialPromoted) -> None:
        trial = self._state.trials[event.trial]
        if trial.repeat or not self._is_peer(event.trial):
            return
        below = trial.runs[event.rung - 1].resource
        if below in self.levels:
            self.levels[below].promote(event.trial, self._moment)
        if event.resource in self.levels:
            self.levels[event.resource].join(event.trial, self._moment)

    def _run_ended(self, event: RunFinished) -> None:
        first, runs = self._repeats(event)
        if not all(run.status.ended for run in runs):
            return
        value = self._so_far.value_of(first, event.rung)
        if value is not None or any(run.status is not RunStatus.STOPPED for run in runs):
            self._observations += 1
            self._unobserved.discard(first)
        level = self.levels.get(runs[0].resource)
        if level is not None and self._is_peer(first):
            stopped = any(run.status is RunStatus.STOPPED for run in runs)
            level.end(first, self._moment, None if stopped else value)

    def _run_retried(self, event: RunRetried) -> None:
        if event.trial == self.trial:
            attempts = self.attempts[event.rung]
            attempts[-1] = msgspec.structs.replace(attempts[-1], retried=True, request=event.request)
        first, runs = self._repeats(event)
        level = self.levels.get(runs[0].resource)
        if level is not None and first in level.ended:
            level.retry(first, self._moment)

    def _repeats(self, event: RunFinished | RunRetried) -> tuple[int, list[Run]]:
        """The first trial of the run's configuration, and the run of each of its trials, as they are then."""
        first = event.trial - self._state.trials[event.trial].repeat
        trials = self._so_far.trials[first : first + self._state.repeats]
        return first, [trial.runs[event.rung] for trial in trials]

    def _batch_planned(self, event: BatchPlanned) -> None:
        own = self._state.trials[self.trial].runs
        if len(self.submitted) < len(own):
            for task in event.tasks:
                for run in task:
                    if run.trial == self.trial:
                        self.submitted.setdefault(run.rung, event.at)
