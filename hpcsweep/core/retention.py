"""Retention: whose checkpoints nothing can need any more; a fold over events. Pure.

A checkpoint may be needed by a trial that runs, waits or may still be promoted, by one that failed and
may be retried, by a clone that has none of its own yet, and by the best. Which trial will be the
best is open while others go on; of those that have come to their end only the best one can be.
"""

from __future__ import annotations

from collections import Counter

from hpcsweep.core.events import (
    AnyEvent,
    BatchAbandoned,
    BatchClosed,
    BatchPlanned,
    CheckpointsDropped,
    ParametersSuggested,
    RunFinished,
    RunId,
    RunInterrupted,
    RunRetried,
    RunsAssigned,
    SweepExtended,
    SweepResumed,
    TrialCreated,
    TrialPromoted,
    TrialStopped,
)
from hpcsweep.core.models import RunStatus
from hpcsweep.core.outcomes import FACTS
from hpcsweep.core.protocols import Scheduler
from hpcsweep.core.state import SweepState


class Retention:
    """Keeps track of what may be removed. An event costs no more the more trials have ended.

    Where the scheduler does not tell which trials it has dropped, those alone are at their end that were
    stopped.

    Args:
        state: Of the sweep; it has taken in each event before this does.
        scheduler: So has this.
        keep_trained: Whether trials that were trained to the last resource keep their checkpoints, for
            the sweep to go on with them if that is raised.

    Attributes:
        removable: Trials whose checkpoints may be removed and were not so far.
    """

    def __init__(self, state: SweepState, scheduler: Scheduler, *, keep_trained: bool = True) -> None:
        self.removable: dict[int, None] = {}
        self._state = state
        self._scheduler = scheduler
        self._keep_trained = keep_trained
        self._seen = {"dropped": 0, "trained": 0}
        #: Configurations that the scheduler is done with, and those of them that it trained to the end.
        self._done: set[int] = set()
        self._trained: set[int] = set()
        #: Configurations of which a run failed: what they have serves a retry.
        self._failed: set[int] = set()
        #: The best configuration of those at their end; with several objectives the ones that none dominates.
        self._best: set[int] = set()
        #: Runs that a live batch carries and that have no ending in it, and how many by trial.
        self._open: dict[str, set[RunId]] = {}
        self._busy: Counter[int] = Counter()
        #: Clones that have no checkpoint of their own yet, by the trial that they start from.
        self._clones: dict[int, set[int]] = {}

    def apply(self, event: AnyEvent) -> None:
        """Take one event in."""
        match event:
            case TrialCreated(parent=int(parent)):
                self._clones.setdefault(parent, set()).add(event.trial)
            case BatchPlanned():
                runs = {run for task in event.tasks for run in task}
                self._open[event.batch] = runs
                self._busy.update(run.trial for run in runs)
            case RunsAssigned():
                self._open[event.batch].update(event.runs)
                self._busy.update(run.trial for run in event.runs)
            case BatchAbandoned() | BatchClosed():
                for run in self._open.pop(event.batch, ()):
                    self._leave(run.trial)
            case RunInterrupted() if not event.requeued:
                self._end_in_batch(event)
            case RunFinished():
                self._end_in_batch(event)
                self._finished(event)
            case TrialStopped():
                self._update(event.trial)
            case TrialPromoted() | RunRetried():
                self._keep_again(event.trial)
            case CheckpointsDropped():
                for trial in event.trials:
                    self.removable.pop(trial, None)
                    self._trained.discard(trial // self._state.repeats)
                    self._failed.discard(trial // self._state.repeats)
            case SweepResumed() | SweepExtended() | ParametersSuggested(more_trials=True):
                self._seen = {"dropped": 0, "trained": 0}
                self._done.clear()
                self._trained.clear()
                before = list(self.removable)
                self.removable.clear()
                self._ask_scheduler()
                for trial in before:  # those that were stopped are at their end whatever the scheduler says
                    self._update(trial)
            case _:
                pass
        self._ask_scheduler()

    def _ask_scheduler(self) -> None:
        for name, known in (("trained", self._trained), ("dropped", self._done)):
            trials = getattr(self._scheduler, name, None) or ()
            for position in range(self._seen[name], len(trials)):
                config = trials[position]
                self._done.add(config)
                known.add(config)
                self._update(config * self._state.repeats)
            self._seen[name] = len(trials)

    def _end_in_batch(self, event: RunFinished | RunInterrupted) -> None:
        runs = self._open.get(event.batch, set())
        if event.run in runs:
            runs.remove(event.run)
            self._leave(event.trial)

    def _leave(self, trial: int) -> None:
        self._busy[trial] -= 1
        if not self._busy[trial]:
            del self._busy[trial]
            self._update(trial)

    def _finished(self, event: RunFinished) -> None:
        parent = self._state.trials[event.trial].parent
        if parent is not None and event.rung == 0 and FACTS[event.outcome].ended_well:
            clones = self._clones.get(parent, set())
            clones.discard(event.trial)
            if not clones:
                self._clones.pop(parent, None)
                self._update(parent)
        if self._state.run(event.run).status is RunStatus.FAILED:
            self._failed.add(event.trial // self._state.repeats)
        self._update(event.trial)

    def _keep_again(self, trial: int) -> None:
        config = trial // self._state.repeats
        self._done.discard(config)
        self._trained.discard(config)
        self._failed.discard(config)
        self._best.discard(config)
        for one in self._trials(config):
            self.removable.pop(one, None)

    def _trials(self, config: int) -> range:
        repeats = self._state.repeats
        return range(config * repeats, config * repeats + repeats)

    def _update(self, trial: int) -> None:
        """The trial's configuration may have become of no use, or better than the best so far."""
        config = trial // self._state.repeats
        if not self.is_final(trial):
            return
        if self._is_among_best(config):
            outdone = {one for one in self._best if one != config and self._beats(config, one)}
            self._best = self._best - outdone | {config}
            for one in sorted(outdone):
                self._update(one * self._state.repeats)
        trials = self._trials(config)
        kept = config in self._best or (self._keep_trained and config in self._trained)
        used = any(one in self._busy or one in self._clones for one in trials)
        for one in trials:
            if kept or used:
                self.removable.pop(one, None)
            elif one not in self._state.dropped:
                self.removable[one] = None

    def is_final(self, trial: int) -> bool:
        """Whether neither the trial nor another of its configuration can go on, be cloned or retried."""
        config = trial // self._state.repeats
        trials = [self._state.trials[one] for one in self._trials(config)]
        if not all(one.runs[-1].status.ended for one in trials):
            return False
        if any(one.runs[-1].status is RunStatus.FAILED and not one.stopped for one in trials):
            return False  # it may be retried
        return config in self._done or any(one.stopped for one in trials)

    def spare(self) -> list[int]:
        """Trials that only a higher largest resource, or a retry, could go on with; those to go first first.

        What was trained to the last resource, the worst first; then what has failed. The best of them stays.
        """
        trained = [config for config in self._trained if config not in self._best]
        failed = [config for config in self._failed if self._serves_only_a_retry(config)]
        keys = {config: self._state.value_key(config * self._state.repeats) for config in (*trained, *failed)}
        valued = {config: key for config, key in keys.items() if key is not None}
        ranked = sorted(valued, key=valued.__getitem__, reverse=True)
        if self._state.objectives.several:
            front = {best.trial // self._state.repeats for best in self._state.front}
            ranked = [config for config in ranked if config not in front]
        elif ranked and self._is_among_best(ranked[-1]):
            del ranked[-1]
        order = [config for config in ranked if config in self._trained]
        order += [config for config in failed if config not in valued]
        order += [config for config in ranked if config not in self._trained]
        return [
            trial for config in order for trial in self._trials(config) if trial not in self._state.dropped
        ]

    def _serves_only_a_retry(self, config: int) -> bool:
        """Whether a configuration of which a run failed is never promoted, unless that is retried."""
        trials = self._trials(config)
        runs = [self._state.trials[trial].runs[-1] for trial in trials]
        return (
            all(run.status.ended for run in runs)
            and any(run.status is RunStatus.FAILED for run in runs)
            and not any(trial in self._busy or trial in self._clones for trial in trials)
            and (config in self._done or self._state.value_of(trials[0], runs[0].rung) is None)
        )

    def _is_among_best(self, config: int) -> bool:
        """Whether it has a value, and none of the best so far is better."""
        valued = self._state.newest(config * self._state.repeats) is not None
        return valued and not any(self._beats(one, config) for one in self._best)

    def _beats(self, config: int, other: int) -> bool:
        return self._state.beats(config * self._state.repeats, other * self._state.repeats)
