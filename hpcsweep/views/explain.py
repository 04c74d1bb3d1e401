"""Why a trial was started, promoted or dropped, and against whom: from events and the scheduler's traits.

`TrialReplay` gathers in one pass what was known when; `explain` tells what followed. Nothing is decided
again, so that sweeps are explained whose scheduler is not installed here. Places are those of the moment
of the decision.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    Config,
    ConfigsEnqueued,
    RunFinished,
    RunId,
    RunInterrupted,
    RunReported,
    RunRetried,
    RunsAssigned,
    SweepOutcome,
    TrialCreated,
    TrialPromoted,
    TrialStopped,
    WarmStartLoaded,
)
from hpcsweep.core.models import Run, RunStatus, Trial
from hpcsweep.core.rank_correlation import RankCorrelation
from hpcsweep.core.state import SweepState
from hpcsweep.views.brackets import is_population, scheduler_options, traits_of
from hpcsweep.views.explanation import (
    Attempt,
    BestSoFar,
    Change,
    Creation,
    Explanation,
    RankComparison,
    Repeat,
    Rung,
    RungRanking,
    Standing,
    Verdict,
)
from hpcsweep.views.folder import check_trial
from hpcsweep.views.rank_correlations import rank_correlations
from hpcsweep.views.task_times import HandOver, TaskTimes


def explain(events: Iterable[AnyEvent], state: SweepState, trial: int) -> Explanation:
    """Explain one trial in one pass.

    Raises:
        SpecError: There is no such trial.
    """
    check_trial(state, trial)
    replay = TrialReplay(events, state, trial)
    own = state.trials[trial]
    known = rank_correlations(state)
    rungs = tuple(
        _rung(replay, state, run, tuple(each for each in known if each.lower == run.resource))
        for run in own.runs
    )
    newest = next((rung for rung in reversed(rungs) if rung.mean is not None), None)
    return Explanation(
        trial,
        replay.first,
        own.repeat,
        state.repeats,
        own.config,
        metric=state.metric,
        mode="min" if state.minimise else "max",
        pooled=replay.pooled,
        creation=_creation(replay, state, own),
        rungs=rungs,
        value=newest.mean if newest else None,
        resource=own.runs[newest.rung].achieved_resource if newest else None,
        best=_best(state, newest.mean if newest else None),
        checkpoint_removed=trial in state.without_checkpoint,
        metrics=state.objectives.metrics if state.objectives.several else (),
        feasible=state.best is None or state.objectives.violation(state.best.values) <= 0
        if state.objectives.several
        else True,
        standing=_standing(state, replay.first),
    )


def _best(state: SweepState, value: float | None) -> BestSoFar | None:
    best = state.best
    if best is None:
        return None
    behind = None if value is None else (value - best.value if state.minimise else best.value - value)
    if state.objectives.has_front:
        behind = None
    return BestSoFar(best.trial, best.value, best.resource, behind, best.values)


def _standing(state: SweepState, first: int) -> Standing | None:
    """Which front it is on, and against whom; None with one objective, and without values."""
    newest = state.newest(first)
    if newest is None or not state.objectives.several:
        return None
    from hpcsweep.views.fronts import dominators_of, front_numbers, front_of, values_by_metric, violated

    numbers, front = front_numbers(state), front_of(state)
    assert front is not None
    return Standing(
        values_by_metric(state, newest),
        violated(state.objectives, newest.values),
        numbers[first],
        max(numbers.values()),
        tuple(best.trial for best in dominators_of(state, newest)),
        sum(state.beats(first, other) for other in numbers if other != first),
        tuple(front.picks.get(first, ())) if state.objectives.has_front else (),
    )


def _creation(replay: TrialReplay, state: SweepState, own: Trial) -> Creation:
    identity = state.started.identity if state.started else {}
    creation = Creation(own.bracket, own.runs[0].resource, replay.submitted.get(0), own.origin)
    if own.parent is not None:
        return msgspec.structs.replace(
            creation,
            parent=own.parent,
            start=own.start,
            changes=_changes(state.trials[own.parent].config, own.config),
            replaces=replay.replaces,
        )
    if replay.ask is None:
        return msgspec.structs.replace(creation, request=replay.request)
    return msgspec.structs.replace(
        creation,
        searcher=identity.get("searcher", {}).get("name", ""),
        resolved_searcher=state.started.resolved_searcher if state.started else "",
        asked=replay.ask.asked,
        observations=replay.ask.observations,
        pending=replay.ask.pending,
    )


def _changes(before: Config, after: Config) -> tuple[Change, ...]:
    changed = (
        Change(name, before.get(name, msgspec.UNSET), after.get(name, msgspec.UNSET))
        for name in before | after
    )
    return tuple(change for change in changed if change.before != change.after)


def _rung(
    replay: TrialReplay, state: SweepState, run: Run, correlations: tuple[RankCorrelation, ...]
) -> Rung:
    repeats = state.trials[replay.first : replay.first + state.repeats]
    runs = [trial.runs[run.rung] for trial in repeats]
    verdict, reason, comparison = _verdict(replay, state, runs)
    batch = state.live.get(run.batch)
    return Rung(
        run.rung,
        run.resource,
        replay.submitted.get(run.rung),
        run.status,
        run.outcome,
        run.value,
        run.step,
        run.node,
        run.message,
        run.submissions,
        tuple(replay.attempts.get(run.rung, ())),
        tuple(Repeat(r.trial, r.status, r.value, r.values) for r in runs) if len(runs) > 1 else (),
        state.value_of(replay.first, run.rung),
        verdict,
        reason,
        comparison,
        batch.blocked_reason if batch is not None and run.status is RunStatus.SUBMITTED else "",
        run.failure_kind,
        run.id in state.from_scratch,
        run.id in state.retrained,
        run.warning,
        correlations,
        run.values,
        state.values_of(replay.first, run.rung) if state.value_of(replay.first, run.rung) is not None else (),
        run.attempts,
    )


def _verdict(
    replay: TrialReplay, state: SweepState, runs: list[Run]
) -> tuple[Verdict, str, RankComparison | None]:
    """What followed from the configuration's runs at one rung, why, and against whom."""
    first = replay.first
    level = replay.levels[runs[0].resource]
    if first in level.went_on:
        return Verdict.PROMOTED, "", level.compare(first, level.went_on[first])
    replaced = []
    if replay.replaced is not None:
        clone, _ = replay.replaced
        replaced = [f"trial {clone}, a clone of trial {state.trials[clone].parent}, took its place"]
    stopped = next((trial.stopped for trial in state.trials[first : first + len(runs)] if trial.stopped), "")
    if stopped:
        return Verdict.STOPPED, "; ".join([stopped, *replaced]), _reported(replay, state)
    ended = sum(run.status.ended for run in runs)
    if ended < len(runs):
        return Verdict.UNDER_WAY, f"{ended} of {len(runs)} repeats have ended" if len(runs) > 1 else "", None
    if state.value_of(first, runs[0].rung) is None:
        failed = [f"trial {run.trial} failed" for run in runs if len(runs) > 1 and run.value is None]
        return Verdict.NO_VALUE, "; ".join([*failed, *replaced]), None
    if replay.replaced is not None:
        return Verdict.DROPPED, replaced[0], level.compare(first, replay.replaced[1])
    return _unpromoted(state, level, first, rung=runs[0].rung)


def _unpromoted(
    state: SweepState, level: RungRanking, first: int, *, rung: int
) -> tuple[Verdict, str, RankComparison]:
    """Whether a configuration with a value that was not promoted so far may still be, and if not, why."""
    now = level.compare(first)
    scheduler = scheduler_options(state)
    if level.resource == scheduler.get("max_resource"):
        return Verdict.LAST, "", now
    if level.went_on and level.at_once and not traits_of(state).promotes_any_time:
        decided = min(level.went_on.values())
        late = "" if level.ended[first] <= decided else "tried again after that"
        return Verdict.DROPPED, late, level.compare(first, decided)
    if state.ended is not None:
        most = max(run.resource for trial in state.trials for run in trial.runs)
        if state.ended.outcome is SweepOutcome.FINISHED and level.resource == most:
            return Verdict.LAST, "", now
        return Verdict.DROPPED, f"the sweep ended ({state.ended.reason})", now
    if now.ended < now.members:
        return Verdict.OPEN, f"{now.ended} of {now.members} have ended", now
    # Where one in eta goes on, and nobody else can come, a place outside of that stays outside.
    eta, closed = scheduler.get("eta"), state.no_more_trials
    outside = isinstance(eta, int) and now.place is not None and now.place > max(1, now.ended // eta)
    if rung == 0 and closed is not None and outside:
        return Verdict.DROPPED, f"one in {eta} goes on, and no trial starts any more ({closed.reason})", now
    return Verdict.OPEN, f"all {now.ended} so far have ended", now


def _reported(replay: TrialReplay, state: SweepState) -> RankComparison | None:
    """What the trial and its peers had reported at its newest step when it was stopped."""
    steps = [event.reports[-1][0] for event in replay.reports if event.trial == replay.trial]
    if not steps:
        return None
    better = (min if state.minimise else max) if state.objectives[0].at == "best" else None
    level = RungRanking(steps[-1], state.objectives)
    newest: dict[int, float] = {}
    for event in replay.reports:
        for index, (step, value) in enumerate(event.reports):
            if step > level.resource:
                break
            if better is not None and not event.values:
                value = better(value, newest.get(event.trial, value))
            newest[event.trial] = value
            if step == level.resource:
                level.joined[event.trial] = 0
                values = event.values[index] if event.values else ()
                level.end(event.trial, 0, state.objectives.key(value, values))
    return level.compare(replay.trial)


class SearcherCall(msgspec.Struct):
    """How many configurations a searcher proposed together, and what it knew; see `Creation`."""

    asked: int
    observations: int
    pending: int


class TrialReplay:
    """One pass over the events for one trial, together with the repeats of its configuration.

    Attributes:
        pooled: Whether it is compared with the whole sweep and not with its bracket alone: in a population.
        levels: By resource, for each of the trial's runs.
        replaces: The trial whose line of a population it carries on as a clone.
        replaced: The clone that carries on its line, and the moment at which it was made.
        submitted: By rung, when its first batch was planned; `attempts`: those that have ended.
        reports: What its peers and itself had reported when it was stopped.
    """

    def __init__(self, events: Iterable[AnyEvent], state: SweepState, trial: int) -> None:
        self._state = state
        own = state.trials[trial]
        self.trial = trial
        self.first = trial - own.repeat
        self._bracket = own.bracket
        self.pooled = is_population(state)
        self.levels = {run.resource: RungRanking(run.resource, state.objectives) for run in own.runs}
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
        self._times = TaskTimes()
        self._requests: deque[str] = deque()
        self._observations = 0
        self._unobserved: set[int] = set()
        #: Bracket and resource, and the call under way for them.
        self._asking: tuple[tuple[int, int], SearcherCall] | None = None
        for event in events:
            self._apply(event)

    def _apply(self, event: AnyEvent) -> None:
        if self._asking is not None and not isinstance(event, TrialCreated):
            self._asking = None
        self._so_far.apply(event)
        known = self._times.apply(event)
        if isinstance(event, RunFinished | RunInterrupted) and event.trial == self.trial:
            hand_over = known if isinstance(known, HandOver) else None
            batch = self._so_far.live.get(event.batch)
            attempt = Attempt.of(
                event,
                hand_over,
                mem_mib=batch.run_mem_mib if batch else None,
                number=self._so_far.run(event.run).begun + (not event.begun),
            )
            self.attempts.setdefault(event.rung, []).append(attempt)
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
                self._submitted((run for task in event.tasks for run in task), event.at)
            case RunsAssigned():
                self._submitted(event.runs, event.at)
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
            self.levels[event.resource].joined[event.trial] = self._moment

    def _trial_promoted(self, event: TrialPromoted) -> None:
        trial = self._state.trials[event.trial]
        if trial.repeat or not self._is_peer(event.trial):
            return
        below = trial.runs[event.rung - 1].resource
        if below in self.levels:
            self.levels[below].went_on[event.trial] = self._moment
        if event.resource in self.levels:
            self.levels[event.resource].joined[event.trial] = self._moment

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
            values = self._so_far.values_of(first, event.rung)
            level.end(first, self._moment, None if stopped else self._state.objectives.key(value, values))

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

    def _submitted(self, runs: Iterable[RunId], at: float) -> None:
        own = self._state.trials[self.trial].runs
        if len(self.submitted) < len(own):
            for run in runs:
                if run.trial == self.trial:
                    self.submitted.setdefault(run.rung, at)
