"""SweepState: what is true now, as the fold over all events. No file, no clock, no decision."""

from __future__ import annotations

import heapq

import msgspec

from hpcsweep.core.batch_fold import BatchFold
from hpcsweep.core.events import (
    AnyEvent,
    CheckpointQuotaReached,
    CheckpointsDropped,
    CheckpointsRemoved,
    ClusterMessage,
    ConfigsEnqueued,
    FilesCompacted,
    Interruption,
    NodeExcluded,
    Outcome,
    ParametersSuggested,
    PauseEnded,
    PauseRequested,
    RunFinished,
    RunId,
    RunInterrupted,
    RunReported,
    RunRetried,
    StopRequested,
    SweepDetached,
    SweepEnded,
    SweepExtended,
    SweepResumed,
    SweepStarted,
    TimeUp,
    TrialCreated,
    TrialPromoted,
    TrialsExhausted,
    TrialStopped,
    WarmStartLoaded,
)
from hpcsweep.core.models import (
    INSTANT_S,
    Run,
    RunStatus,
    RunWarning,
    SubmitRefusals,
    Trial,
)
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.outcomes import FACTS, Fault, FirstErrors, failed_at_once, without_numbers
from hpcsweep.core.standing import Standing
from hpcsweep.core.suggestions import amended, with_suggested

#: Others fail.
_STATUS = {Outcome.COMPLETED: RunStatus.COMPLETED, Outcome.STOPPED: RunStatus.STOPPED}


class SweepState(BatchFold):
    """All that is known of a sweep. `apply` is its only way to change."""

    def apply(self, event: AnyEvent) -> None:
        """Take one event in."""
        self._handlers[type(event)](event)
        if request := getattr(event, "request", ""):
            self.requests.add(request)

    def _sweep_started(self, event: SweepStarted) -> None:
        self.started = event
        self.repeats = int(event.identity.get("repeats", 1))
        self.objectives = Objectives.read(event.identity.get("objective"))
        self._standing = Standing(self.objectives) if self.objectives.several else None

    def _sweep_extended(self, event: SweepExtended) -> None:
        assert self.started is not None, "what never began cannot go further"
        self.started = msgspec.structs.replace(self.started, identity=event.identity)
        self.objectives = Objectives.read(event.identity.get("objective"))  # with another reference point

    def _sweep_resumed(self, event: SweepResumed) -> None:
        self.first_errors = FirstErrors()
        self.ended = None
        self.time_up = None
        self.stopping = None
        self.pausing = None
        self.quota_reached = None
        self.failed_batches_in_a_row = 0
        self._failed_beside = set()
        self.cluster_messages.clear()
        self.refusals = SubmitRefusals("", 0, 0)
        self.no_more_trials = None
        for run in self.waiting:  # whoever resumes the sweep has mended what was broken
            self.run(run).faults_without_progress = 0
        self.node_faults.clear()
        self.excluded.clear()
        self.skipped_pools.clear()
        self.spent_pools.clear()
        # Where jobs run may have been changed.
        self.held_gpus.clear()
        for batch in (each for each in self.live.values() if each.task_gpus != each.gpus):
            self._note_gpus_held(batch.gpus, batch.task_gpus)

    def _sweep_ended(self, event: SweepEnded) -> None:
        self.ended = event

    def _time_up(self, event: TimeUp) -> None:
        self.time_up = event.at if event.up else None

    def _stop_requested(self, event: StopRequested) -> None:
        self.stopping = event

    def _pause_requested(self, event: PauseRequested) -> None:
        self.pausing = event

    def _pause_ended(self, event: PauseEnded) -> None:
        self.pausing = None
        if not self.first_errors.over:
            self.first_errors = FirstErrors()

    def _sweep_detached(self, event: SweepDetached) -> None:
        self.detached = event

    def _trials_exhausted(self, event: TrialsExhausted) -> None:
        self.no_more_trials = event

    def _configs_enqueued(self, event: ConfigsEnqueued) -> None:
        self.enqueued.extend(event.configs)

    def _warm_start_loaded(self, event: WarmStartLoaded) -> None:
        self.warm_starts.append(event)

    def _trial_created(self, event: TrialCreated) -> None:
        assert event.trial == len(self.trials), "trial numbers have no gaps"
        run = Run(event.trial, 0, event.resource)
        trial = Trial(event.trial, event.config, event.bracket, event.parent, event.origin, [run])
        trial.start, trial.repeat = event.start, event.repeat
        self.trials.append(trial)
        if not event.repeat:
            self.configurations += event.origin != "clone"
            if event.parent is not None:
                self._clones_in_first_run[event.trial] = None
            if event.origin == "enqueued":
                self.enqueued.popleft()
        self._add_waiting(run)

    def _parameters_suggested(self, event: ParametersSuggested) -> None:
        assert self.started is not None, "what never began suggests nothing"
        self.started = with_suggested(self.started, event)
        if event.more_trials:
            self.no_more_trials = None
        first = event.trial - self.trials[event.trial].repeat
        for trial in self.trials[first : first + self.repeats]:
            space = self.started.identity["space"]
            trial.config = amended(trial.config, space, event.values, event.unused)

    def _trial_promoted(self, event: TrialPromoted) -> None:
        trial = self.trials[event.trial]
        assert event.rung == len(trial.runs), "rungs have no gaps"
        self._continue_trial(RunId(event.trial, event.rung))
        run = Run(event.trial, event.rung, event.resource)
        trial.runs.append(run)
        self._add_waiting(run)

    def _add_waiting(self, run: Run) -> None:
        self.waiting[run.id] = None
        self.counts[RunStatus.WAITING] += 1

    def _trial_stopped(self, event: TrialStopped) -> None:
        self.trials[event.trial].stopped = event.reason

    def _run_reported(self, event: RunReported) -> None:
        run = self.run(event.run)
        run.last_report = event.reports[-1]
        run.last_values = event.values[-1] if event.values else ()

    def _cluster_message(self, event: ClusterMessage) -> None:
        if event.message:
            self.cluster_messages[event.operation] = event
        else:
            self.cluster_messages.pop(event.operation, None)
        if event.batch in self.live:
            self.live[event.batch].submit_message = event.message
        if event.refused:
            again = without_numbers(event.message) == without_numbers(self.refusals.message)
            times = self.refusals.in_a_row + 1 if again else 1
            self.refusals = SubmitRefusals(event.message, times, self.refusals.total + 1)

    def _node_excluded(self, event: NodeExcluded) -> None:
        self.excluded[event.node] = event
        self.node_faults.pop(event.node, None)

    def _run_finished(self, event: RunFinished) -> None:
        run = self.run(event.run)
        self._count_attempt(run, event)
        failed = failed_at_once(outcome=event.outcome, seconds=event.seconds, valued=event.value is not None)
        self.first_errors.add(event.trial, event.message, failed)
        if FACTS[event.outcome].fault in (Fault.NOBODY, Fault.CONFIGURATION):  # the worker wrote a result
            self._clear_node(event.node)
        if run.status is RunStatus.WAITING:  # an ending that came later than its interruption
            del self.waiting[run.id]
        run.outcome = event.outcome
        run.value, run.values = event.value, event.values
        run.start = event.start if run.start is None else run.start
        run.step = event.step
        run.message = event.message
        run.failure = event.failure
        self._note_warnings(event, run)
        self._move(run, _STATUS.get(event.outcome, RunStatus.FAILED))
        if run.status is RunStatus.FAILED:
            self.last_failure = run
        if event.rung == 0:
            self._clones_in_first_run.pop(event.trial, None)
        if run.value is not None or self.repeats > 1:
            self._rank_newest(event.trial)

    def _note_warnings(self, event: RunFinished, run: Run) -> None:
        """What its user should know of a run, however well it ended."""
        run.warning = event.warning
        if event.warning:
            key = without_numbers(event.warning)
            before = self.warnings[key].runs if key in self.warnings else 0
            self.warnings[key] = RunWarning(event.warning, event.run, before + 1)
        before = event.rung or self.trials[event.trial].start
        trained = event.started is not None and event.value is not None
        anew = trained and run.start == 0 and event.run not in self.from_scratch
        if before and anew:
            self.retrained[event.run] = None

    def _run_interrupted(self, event: RunInterrupted) -> None:
        run = self.run(event.run)
        self._count_attempt(run, event)
        failed = failed_at_once(why=event.interruption, seconds=event.seconds)
        self.first_errors.add(event.trial, event.message, failed)
        run.message = event.message
        run.start = event.start if run.start is None else run.start
        run.step = max(run.step, event.step)
        self.interrupted[event.interruption] += 1
        timed_out = event.interruption is Interruption.TIMEOUT and not event.guessed
        run.timeouts += timed_out
        run.idle_timeouts += timed_out and not event.progressed
        run.short_guesses += event.guessed
        run.lacked_mib = max(run.lacked_mib, event.mem_mib)
        run.cancels += event.interruption is Interruption.CANCELLED
        facts = FACTS[event.interruption]
        if event.interruption is Interruption.TRAINING_ERROR:
            run.errors += 1
        elif event.progressed:
            run.faults_without_progress = 0
        elif facts.counts_without_progress and not event.guessed:
            run.faults_without_progress += 1
        if facts.suspects_node and event.node:
            self.node_faults.setdefault(event.node, {})[event.trial] = event.message
        elif event.progressed or event.interruption is Interruption.TRAINING_ERROR:
            self._clear_node(event.node)
        if not event.requeued:
            self._wait(run)

    def _count_attempt(self, run: Run, event: RunFinished | RunInterrupted) -> None:
        run.seconds += event.seconds
        run.gpu_seconds += event.gpu_seconds
        run.peak_mib = max(run.peak_mib, event.peak_mib)
        run.unit_seconds = event.unit_seconds or run.unit_seconds
        number = (event.attempt, event.restart)
        run.last_counted = max(run.last_counted, number)
        if event.begun and number > run.last_begun:  # a late result may follow its interruption
            run.last_begun = number
            run.begun += 1
        run.node, run.job = event.node or run.node, event.job or run.job
        self.spent_s += event.seconds
        self.spent_gpu_s += event.gpu_seconds
        completed = isinstance(event, RunFinished) and event.outcome is Outcome.COMPLETED
        self.checkpoints.note(event.trial, event.checkpoints, trained=event.seconds > 0, completed=completed)
        batch = self.live.get(event.batch)
        self._charge_pool(batch, event.gpu_seconds)
        if batch is not None:
            batch.endings.append(event)
            batch.made_progress = batch.made_progress or self._made_progress(event)
            batch.last_message = event.message or batch.last_message
        if batch is not None and not (isinstance(event, RunInterrupted) and event.requeued):
            batch.unfinished.discard(run.id)
            if batch.assigned.pop(run.id, None) is not None:
                batch.tasks[event.task].remove(run.id)

    def _run_retried(self, event: RunRetried) -> None:
        run = self.run(event.run)
        self._continue_trial(run.id)
        run.outcome, run.faults_without_progress, run.errors, run.timeouts, run.cancels = None, 0, 0, 0, 0
        run.idle_timeouts = 0
        self._wait(run)
        trial = self.trials[event.trial]
        if event.rung == 0 and trial.parent is not None:
            self._clones_in_first_run[event.trial] = None
        if self.repeats > 1:  # without its repeat, its value at the rung below is the newest
            self._rank_newest(event.trial)

    def _continue_trial(self, run: RunId) -> None:
        """Its trial goes on after all, and makes checkpoints of its own again."""
        trial = run.trial
        if trial in self.without_checkpoint or trial in self.dropping:
            self.from_scratch[run] = None
        self.dropping.pop(trial, None)
        self.dropped.discard(trial)
        self.without_checkpoint.discard(trial)

    def _files_compacted(self, event: FilesCompacted) -> None:
        """Where files are changes nothing of the sweep."""

    def _checkpoints_dropped(self, event: CheckpointsDropped) -> None:
        self.dropping.update(dict.fromkeys(event.trials))
        self.dropped.update(event.trials)

    def _checkpoints_removed(self, event: CheckpointsRemoved) -> None:
        for trial in event.trials:
            self.dropping.pop(trial, None)
            self.checkpoints.remove(trial)
        self.without_checkpoint.update(event.had_files)
        self.checkpoint_bytes_removed += event.bytes

    def _checkpoint_quota_reached(self, event: CheckpointQuotaReached) -> None:
        self.quota_reached = event if event.message else None

    def _rank_newest(self, trial: int) -> None:
        """The newest value of its configuration may be the best."""
        first = trial - self.trials[trial].repeat
        newest = self.newest(first)
        if self._standing is not None:
            self._standing.put(first, newest)
        elif newest is not None:
            heapq.heappush(self._best, self._key(newest))

    def _clear_node(self, node: str) -> None:
        if node:
            self.good_nodes.add(node)
            self.node_faults.pop(node, None)

    def _made_progress(self, event: RunFinished | RunInterrupted) -> bool:
        """Whether the batch of this run did not simply die: see `failed_batches_in_a_row`."""
        if event.seconds > INSTANT_S:
            return True
        if isinstance(event, RunInterrupted):
            facts = FACTS[event.interruption]
            return event.progressed or not (facts.suspects_node or facts.broken_training)
        if event.outcome is Outcome.CANCELLED:
            return True
        # Where nothing has ever come to a value, training code that fails at once is broken.
        return event.value is not None or self.counts[RunStatus.COMPLETED] > 0
