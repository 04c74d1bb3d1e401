"""Follow what is on the cluster: result files and the cluster's answers become events.

Here alone is decided what an ending means. Result files come first: a run is given up only when
a *successful* query does not show its task as active, the grace for late files is over, and no
result has come. A query that fails says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from hpcsweep.core.events import (
    AnyEvent,
    BatchBlocked,
    BatchClosed,
    Interruption,
    Outcome,
    PauseRequested,
    RunFinished,
    RunId,
    RunInterrupted,
    TasksAllocated,
)
from hpcsweep.core.models import INSTANT_S, BatchState, Run
from hpcsweep.core.protocols import BlockKind, Cluster, Phase, SubmittedBatch, TaskId, TaskState
from hpcsweep.core.state import SweepState
from hpcsweep.driver import interruptions
from hpcsweep.driver.accounting import UsageAccounting, at_most, bounded
from hpcsweep.driver.config import DriverConfig
from hpcsweep.driver.effects import Cancel, Effect, EffectResult, Release, StopRun
from hpcsweep.errors import ClusterUnavailable
from hpcsweep.store import checkpoints
from hpcsweep.store.layout import BatchLayout, Layout
from hpcsweep.store.log_excerpt import introduced, last_words_of
from hpcsweep.store.results import Result, new_results
from hpcsweep.store.skipped import Skipped

#: What Slurm says of a task that does not start is told when it has said so for this long.
TOLD_S: Final = 30.0
#: And it is believed that the task can never start after this.
NEVER_S: Final = 300.0


class _Watch:
    """What this session has seen of one live batch.

    Attributes:
        files: The batch's folder.
        seen: Names of result files already read.
        open: Tasks not yet seen gone from the cluster.
        gone_at: When a task with unended runs was first seen gone.
        held: Results of interrupted runs by task, until it shows whether the cluster requeues it.
        nodes: Where tasks were last seen running.
        seen_at: When tasks were last seen waiting or running.
        ends: When runs of each task ended, in order.
        looked: Whether a poll has shown what there is of it.
        stuck_since: Since when each look has shown that a task may wait in vain.
        suspected: Tasks of which that will be told, or concluded, if it goes on.
        silent: Tasks with a start that the cluster ended and put back and of which no word has come:
            since when, and how it ended.
        dismissed: Tasks that this session cancelled before they began.
        charges: What its tasks cost.
    """

    def __init__(self, files: BatchLayout, batch: BatchState) -> None:
        self.files = files
        self.seen: set[str] = set()
        self.open: set[int] = set(range(len(batch.tasks)))
        self.gone_at: dict[int, float] = {}
        self.held: dict[int, list[Result]] = {}
        self.nodes: dict[int, str] = {}
        self.seen_at: dict[int, float] = {}
        self.looked = False
        self.stuck_since: dict[int, float] = {}
        self.suspected: set[int] = set()
        self.silent: dict[int, tuple[float, TaskState]] = {}
        self.ends: dict[int, list[float]] = {}
        self.dismissed: set[int] = set()
        self.charges = UsageAccounting(
            batch.gpus, batch.gpus_of, limit_s=batch.time_s, since=batch.planned_at
        )

    def note(self, ending: RunFinished | RunInterrupted, *, at: float) -> None:
        """A run of it ended, at this Unix time."""
        self.charges.told(ending)
        if isinstance(ending, RunFinished) or not ending.requeued:
            self.ends.setdefault(ending.task, []).append(at)


def _ended_at(ending: RunFinished | RunInterrupted) -> float | None:
    """By the clock of its node, None where unknown."""
    started = ending.started if isinstance(ending, RunFinished) else None
    return None if started is None else started + ending.seconds


def _possible(result: Result, batch: BatchState) -> Result:
    """The result with what it costs as far as that can be true: no more than the task's time limit."""
    most = at_most(batch.time_s)
    started = result.started
    return msgspec.structs.replace(
        result,
        seconds=bounded(result.seconds, at_most_s=most),
        gpu_seconds=bounded(result.gpu_seconds, at_most_s=most * max(1, batch.gpus)),
        started=started if started is not None and 0 < started < math.inf else None,
    )


class JobMonitor:
    """Turns results and polls into events. Holds nothing that a new session could not see again."""

    def __init__(
        self,
        state: SweepState,
        *,
        layout: Layout,
        cluster: Cluster,
        settings: DriverConfig,
        passed_over: Skipped | None = None,
    ) -> None:
        self._state = state
        self._passed_over = Skipped() if passed_over is None else passed_over
        self._layout = layout
        self._cluster = cluster
        self._settings = settings
        self._watches: dict[str, _Watch] = {}
        #: What the cluster said when the last poll gave no information, empty if it gave some; None:
        #: there was nothing to ask for.
        self.words: str | None = None
        #: What the last successful poll said of the open tasks.
        self.states: Mapping[TaskId, TaskState] = {}
        #: Since when each running task has run, as far as this session knows.
        self._running_since: dict[TaskId, float] = {}
        #: Pending tasks that the cluster put back and holds, and those that can never start, by batch.
        self.held: dict[str, list[int]] = {}
        self.never: dict[str, list[int]] = {}
        #: Tasks that this session cancelled, and runs that it told their workers to end, by batch.
        self._cancelled: set[TaskId] = set()
        self._stopped: set[tuple[str, RunId]] = set()

    @property
    def undecided(self) -> bool:
        """Whether the next look decides something: of a task that is gone, or that can never start."""
        return any(watch.gone_at.keys() & watch.open or watch.suspected for watch in self._watches.values())

    @property
    def unread(self) -> bool:
        """Whether results have come that `observe` has not read yet."""
        batches = [batch for batch in self._state.live.values() if batch.job is not None]
        watches = [self._watch(batch) for batch in batches]
        return any(True for watch in watches for _ in new_results(watch.files, watch.seen))

    def open_tasks(self, batch: BatchState) -> int:
        """How many of its tasks may still hold or take GPUs."""
        return len(self._watch(batch).open)

    def unbooked_gpu_s(self, batch: BatchState) -> float:
        """What those of its tasks that have ended took beyond what the journal holds."""
        watch = self._watch(batch)
        return watch.charges.beyond(set(range(len(batch.tasks))) - watch.open)[1]

    def is_open(self, batch: BatchState, task: int) -> bool:
        """Whether the task may still hold or take GPUs."""
        return task in self._watch(batch).open

    def has_run(self, batch: BatchState) -> bool:
        """Whether a task of it has run for longer than those do that fail at once."""
        states = (self.states.get(TaskId(batch.name, task)) for task in range(len(batch.tasks)))
        return any((state.seconds or 0.0) > INSTANT_S for state in states if state is not None)

    def longest_s(self, now: float) -> float:
        """How long the run has lasted that has been going on for longest."""
        begun = (self._begun_at(task) for task in self._running_since)
        return max((now - at for at in begun if at is not None), default=0.0)

    def _begun_at(self, task: TaskId) -> float | None:
        """When the oldest run of a running task began, None if it has none left.

        A task begins its runs in order, the next one whenever one has ended.
        """
        batch = self._state.live.get(task.batch)
        if batch is None:
            return None
        runs = batch.tasks[task.task]
        oldest = next((n for n, run in enumerate(runs) if run in batch.unfinished), None)
        if oldest is None:
            return None
        ends = self._watch(batch).ends.get(task.task, [])
        before = oldest - self._settings.shape.lanes
        since = self._running_since[task]
        return max(since, ends[before]) if 0 <= before < len(ends) else since

    # ------------------------------------------------------------------ what to do about it

    def tasks_to_cancel(self) -> list[Cancel | StopRun]:
        """Cancel, once, the tasks that run for nobody, or would: of trials that were stopped or given up.

        A task that runs although all its runs have ended is about to leave by itself. In one of which
        other runs are wanted, the unwanted runs are stopped one by one.
        """
        effects: list[Cancel | StopRun] = []
        for (name, task), state in self.states.items():
            batch = self._state.live.get(name)
            if batch is None or not state.phase.active:
                continue
            runs = [run for run in batch.tasks[task] if run in batch.unfinished]
            stopped = [run for run in runs if self._state.trials[run.trial].stopped]
            if len(stopped) < len(runs):
                effects += [StopRun(name, run) for run in stopped if (name, run) not in self._stopped]
            elif (runs or state.phase is Phase.PENDING) and TaskId(name, task) not in self._cancelled:
                effects.append(Cancel(name, (task,)))
        return effects

    def pending_to_cancel(self) -> list[Cancel]:
        """Cancel, once, all tasks that have not started; their runs wait until the sweep goes on."""
        effects = []
        for name, batch in self._state.live.items():
            ids = [TaskId(name, task) for task in range(len(batch.tasks))]
            pending = tuple(
                each.task
                for each in ids
                if (state := self.states.get(each)) is not None
                and state.phase is Phase.PENDING
                and each not in self._cancelled
            )
            if batch.job is not None and pending:
                effects.append(Cancel(name, pending, pending=True))
        return effects

    def impossible_to_cancel(self) -> list[Cancel]:
        """Cancel the tasks that can never start."""
        return [Cancel(name, tuple(tasks)) for name, tasks in self.never.items() if name in self._state.live]

    def all_to_cancel(self) -> list[Cancel]:
        """Cancel all open tasks."""
        batches = [batch for batch in self._state.live.values() if batch.job is not None]
        found = [Cancel(batch.name, tuple(sorted(self._watch(batch).open))) for batch in batches]
        return [effect for effect in found if effect.tasks]

    def to_release(self) -> list[Release]:
        """Release, once, the tasks that the cluster requeued and holds."""
        return [Release(name, tuple(tasks)) for name, tasks in self.held.items()]

    def pause(self, *, now: float) -> list[PauseRequested]:
        """Pause the sweep where tasks can never start."""
        if not self.never or self._state.pausing is not None or self._state.stopping is not None:
            return []
        reason = self._state.live[next(iter(self.never))].blocked_reason
        return [PauseRequested(now, f"its jobs can never start ({reason}): mend the spec, then launch again")]

    def note(self, effect: Effect, result: EffectResult) -> None:
        """Take note of what came of an effect."""
        if result.error is not None:
            return
        if isinstance(effect, StopRun):
            self._stopped.add((effect.batch, effect.run))
        elif isinstance(effect, Cancel):
            self._cancelled.update(TaskId(effect.batch, task) for task in effect.tasks)
            if effect.pending:
                self._watch(self._state.live[effect.batch]).dismissed.update(effect.tasks)

    def _note_running(self, now: float) -> None:
        self._running_since = {
            task: self._running_since.get(task, now - (state.seconds or 0.0))
            for task, state in self.states.items()
            if state.phase is Phase.RUNNING
        }

    def live(self, batch: BatchState) -> SubmittedBatch:
        """The batch as the cluster knows it."""
        watch = self._watch(batch)
        return SubmittedBatch(
            batch.name,
            batch.job or "",
            watch.files.root,
            len(batch.tasks),
            batch.throttle,
            self._settings.shape,
            sorted(watch.open),
            batch.planned_at,
        )

    def observe(self, now: float) -> list[AnyEvent]:
        """What has happened since the last call: one readdir for each live batch, one poll."""
        batches = [batch for batch in self._state.live.values() if batch.job is not None]
        events: list[AnyEvent] = []
        ended: set[RunId] = set()
        for batch in batches:
            events += self._noted(batch, self._results(batch, ended), now)
        states = self._poll(batches)
        if states is None:
            return events
        self.states = states
        self._note_running(now)
        self.held, self.never = {}, {}
        for batch in batches:
            watch = self._watch(batch)
            events += self._hindrances(batch, now)
            events += self._allocations(batch)
            for task in sorted(watch.open):
                state = states.get(TaskId(batch.name, task))
                events += self._noted(batch, self._task(batch, task, state, ended, now), now)
            if not watch.open and batch.unfinished <= ended:
                events.append(BatchClosed(batch.name, *watch.charges.beyond(range(len(batch.tasks)))))
                del self._watches[batch.name]
        return events

    def _noted(self, batch: BatchState, events: Iterable[AnyEvent], now: float) -> Iterator[AnyEvent]:
        """The same events; what they tell of the cost, and of when runs ended, is noted."""
        for event in events:
            if isinstance(event, RunFinished | RunInterrupted):
                self._watch(batch).note(event, at=now)
            yield event

    def _poll(self, batches: Sequence[BatchState]) -> Mapping[TaskId, TaskState] | None:
        self.words = None
        if not batches:
            return {}
        try:
            states = self._cluster.poll([self.live(batch) for batch in batches])
        except ClusterUnavailable as error:
            self.words = str(error)
            return None
        self.words = "" if states is not None else self._cluster.poll_error or "the cluster does not answer"
        return states

    def _watch(self, batch: BatchState) -> _Watch:
        if batch.name not in self._watches:
            files = self._layout.batch(batch.name)
            watch = self._watches[batch.name] = _Watch(files, batch)
            for ending in batch.endings:
                watch.note(ending, at=_ended_at(ending) or batch.planned_at)
        return self._watches[batch.name]

    def _is_active(self, batch: BatchState, task: int) -> bool:
        state = self.states.get(TaskId(batch.name, task))
        return state is not None and state.phase.active

    def _hindrances(self, batch: BatchState, now: float) -> Iterator[AnyEvent]:
        """What keeps tasks of the batch from starting, beside their turn; told when it changes.

        Slurm says some of it in passing. So what is not sure to stay is told after a while, and that a
        task can never start is concluded after minutes in which each look has shown it.
        """
        watch = self._watch(batch)
        reasons: dict[str, int] = {}
        never: list[int] = []
        watch.suspected = set()
        for task in sorted(watch.open):
            state = self.states.get(TaskId(batch.name, task))
            kind = None if state is None else self._hindrance(state)
            if state is None or kind is None:
                watch.stuck_since.pop(task, None)
                continue
            if kind is BlockKind.HELD and task not in batch.released:
                self.held.setdefault(batch.name, []).append(task)
                continue
            # Who looks for the first time at what was submitted long ago may be one that looks once.
            old = not watch.looked and now - batch.planned_at >= TOLD_S
            since = watch.stuck_since.setdefault(task, now - TOLD_S if old else now)
            reason = state.reason or "in a state that is not known"
            is_told = reason in batch.blocked_reason
            tells = kind in (BlockKind.BLOCKED, BlockKind.HELD) or is_told or now - since >= TOLD_S
            if kind is BlockKind.IMPOSSIBLE:
                told_at = batch.blocked_since if is_told and batch.blocked_since else now
                if now - min(since, told_at) >= NEVER_S:
                    never.append(task)
            if kind is BlockKind.IMPOSSIBLE or not tells:
                watch.suspected.add(task)
            if tells:
                reasons[reason] = reasons.get(reason, 0) + 1
        watch.looked = True
        if never:
            self.never[batch.name] = never
        if not any(self._is_active(batch, task) for task in watch.open):
            return  # what hindered them is how they ended
        words = "; ".join(
            f"{count} task{'s' if count > 1 else ''}: {reason}" for reason, count in reasons.items()
        )
        if words != batch.blocked_reason:
            yield BatchBlocked(batch.name, words, now)

    def _allocations(self, batch: BatchState) -> Iterator[TasksAllocated]:
        """Tasks that hold another number of GPUs than was known."""
        found: dict[int, list[int]] = {}
        for task in sorted(self._watch(batch).open):
            state = self.states.get(TaskId(batch.name, task))
            if state is not None and state.gpus is not None and state.gpus != batch.gpus_of(task):
                found.setdefault(state.gpus, []).append(task)
        for gpus, tasks in found.items():
            yield TasksAllocated(batch.name, tuple(tasks), gpus)

    def _charged_gpus(self, batch: BatchState, result: Result) -> Result:
        """The result with the cost of what its task held, of which its worker knows what was asked for."""
        held = batch.gpus_of(result.task)
        if held == batch.gpus:
            return result
        gpu_s = result.gpu_seconds * held / batch.gpus if batch.gpus else 0.0
        if not batch.gpus:
            gpu_s = result.seconds * held / max(1, self._settings.shape.lanes)
        return msgspec.structs.replace(result, gpu_seconds=round(gpu_s, 3))

    def _hindrance(self, state: TaskState) -> BlockKind | None:
        """Why the task may wait in vain, None if it runs or need only wait for its turn."""
        if state.phase is Phase.UNKNOWN:
            return BlockKind.UNKNOWN
        if state.phase is not Phase.PENDING:
            return None
        if state.block is BlockKind.LIMITED:
            ours = any(each.phase is Phase.RUNNING for each in self.states.values())
            return None if ours else BlockKind.LIMITED
        return state.block

    # ------------------------------------------------------------------ results

    def _results(self, batch: BatchState, ended: set[RunId]) -> Iterator[AnyEvent]:
        watch = self._watch(batch)
        for name, result in new_results(watch.files, watch.seen, self._passed_over):
            watch.seen.add(name)
            result = self._charged_gpus(batch, _possible(result, batch))
            run_id = RunId(result.trial, result.rung)
            if result.task >= len(batch.tasks) or run_id not in batch.tasks[result.task]:
                self._passed_over.note(watch.files.results / name, "is the result of a run of another batch")
                continue
            if run_id not in batch.unfinished or run_id in ended:
                continue
            if result.task in watch.silent:
                if result.restart == self._next_restart(self._state.run(run_id)):
                    del watch.silent[result.task]  # it was only late
                else:
                    yield from self._silent(batch, result.task, ended)
            # An ending counts even if it comes later than the word that its start was over.
            counted = (result.attempt, result.restart) <= self._state.run(run_id).last_counted
            if counted and result.outcome is None:
                continue
            # A later start of the same run shows that the cluster took it back after the one before.
            for held in self._take_held(watch, run_id, result.task):
                yield self._interrupted(batch, held, None, requeued=True)
            if result.outcome is None:
                watch.held.setdefault(result.task, []).append(result)
                continue
            ended.add(run_id)
            stopped = self._state.trials[run_id.trial].stopped
            if stopped and result.outcome is Outcome.COMPLETED:  # it was quicker than its end
                result = msgspec.structs.replace(result, outcome=Outcome.STOPPED, message=stopped)
            elif stopped and result.outcome is Outcome.STOPPED:  # by its worker, while others go on
                step, value = self._state.run(run_id).last_report or (result.step, None)
                result = msgspec.structs.replace(result, step=step, value=value, message=stopped)
            elif result.outcome is Outcome.STOPPED:
                # Ordered by a driver that was not the driver any more: nobody else knows of it.
                yield interruptions.interruption(batch, result, Interruption.NOT_STARTED)
                continue
            elif self._is_tried_again(result):
                yield interruptions.interruption(batch, result, Interruption.TRAINING_ERROR)
                continue
            yield interruptions.finished(batch, result)

    def _is_tried_again(self, result: Result) -> bool:
        failed = result.outcome in (Outcome.FAILED, Outcome.OUT_OF_MEMORY)
        run = self._state.run(RunId(result.trial, result.rung))
        return (
            failed
            and run.errors < self._settings.max_errors
            and not self._state.trials[result.trial].stopped
            and self._state.stopping is None
        )

    @staticmethod
    def _take_held(watch: _Watch, run_id: RunId, task: int) -> list[Result]:
        held = watch.held.get(task, [])
        taken = [result for result in held if (result.trial, result.rung) == run_id]
        watch.held[task] = [result for result in held if (result.trial, result.rung) != run_id]
        return taken

    def _all_held(self, batch: BatchState, task: int, ended: set[RunId]) -> Iterator[Result]:
        """The results of the task that were held, but for those of runs that have ended meanwhile."""
        for result in self._watch(batch).held.pop(task, []):
            run_id = RunId(result.trial, result.rung)
            if run_id in batch.unfinished and run_id not in ended:
                yield result

    # ------------------------------------------------------------------ the cluster's word

    def _task(
        self, batch: BatchState, task: int, state: TaskState | None, ended: set[RunId], now: float
    ) -> Iterator[AnyEvent]:
        """One open task, as the cluster shows it now; None if it does not."""
        watch = self._watch(batch)
        if state is not None:
            over = watch.charges.over(task)
            watch.charges.seen(task, state, now=now)
            if watch.charges.over(task) > over and not watch.held.get(task):
                watch.silent[task] = now, self._end_of_start(watch, task)
            if state.node:
                watch.nodes[task] = state.node
        if state is not None and state.phase.active:
            watch.seen_at[task] = now
            watch.gone_at.pop(task, None)
            if state.phase is Phase.PENDING:  # the cluster took it back to run it again
                for result in self._all_held(batch, task, ended):
                    event = self._interrupted(batch, result, state, requeued=True)
                    if isinstance(event, RunFinished):
                        ended.add(event.run)
                    yield event
            if task in watch.silent and now - watch.silent[task][0] >= self._cluster.grace_s:
                yield from self._silent(batch, task, ended)
            return
        for result in self._all_held(batch, task, ended):
            ended.add(RunId(result.trial, result.rung))
            yield self._interrupted(batch, result, state, requeued=False)
        silent = [run for run in batch.tasks[task] if run in batch.unfinished and run not in ended]
        unknown = task not in watch.gone_at and (state is None or state.seconds is None)
        if unknown and (silent or self._settings.shape.lanes > 1) and self._settings.max_gpu_s is not None:
            # A cap that is to hold counts what a task, or its idle lanes, may have taken.
            unseen_s = now - watch.seen_at.get(task, batch.planned_at)
            watch.charges.assume(task, unseen_s, at_most_s=batch.time_s)
        if silent:
            first_seen = watch.gone_at.setdefault(task, now)
            # A task that the user's stop cancelled need not be waited for; its checkpoint stays.
            grace = 0.0 if self._state.stopping else self._cluster.grace_s
            # Of one that the cluster calls cancelled without a node no result can come.
            unbegun = state is not None and self._unbegun(watch, task, state)
            if not unbegun and (first_seen == now or now - first_seen < grace):
                return  # its result file may just not be visible yet
            for run_id in silent:
                ended.add(run_id)
                yield self._vanished(batch, task, self._state.run(run_id), state)
        watch.open.discard(task)

    def _unbegun(self, watch: _Watch, task: int, state: TaskState | None) -> bool:
        """Whether it was cancelled before it began, because the first runs all failed alike."""
        if watch.nodes.get(task) or (
            state is not None and (state.node or state.phase is not Phase.CANCELLED)
        ):
            return False
        # A session that did not cancel it itself goes by the pause. Slurm forgets such tasks at once.
        pausing = self._state.pausing
        return task in watch.dismissed or (pausing is not None and pausing.is_fail_fast)

    def _end_of_start(self, watch: _Watch, task: int) -> TaskState:
        """How a start ended that the cluster put back, where its worker tells nothing."""
        node = watch.nodes.get(task, "")
        failed = bool(node) and self._cluster.has_failed(node)
        seconds = watch.charges.last_over_s(task)
        return TaskState(Phase.NODE_FAIL if failed else Phase.PREEMPTED, node=node, seconds=seconds)

    def _silent(self, batch: BatchState, task: int, ended: set[RunId]) -> Iterator[AnyEvent]:
        """A start that is over and of which no worker told; the cluster runs the task again."""
        _, state = self._watch(batch).silent.pop(task)
        # Who was preempted while it was starting had no turn, and it is nobody's fault.
        young = state.phase is Phase.PREEMPTED and (state.seconds or 0.0) < INSTANT_S
        for run_id in batch.tasks[task]:
            if run_id not in batch.unfinished or run_id in ended:
                continue
            run = self._state.run(run_id)
            result = Result(
                *run_id,
                attempt=run.attempts - 1,
                restart=self._next_restart(run),
                task=task,
                node=state.node,
            )
            result = self._with_progress(run, result)
            if young and not result.progressed and not self._has_reported(result):
                result = msgspec.structs.replace(result, interrupted=Interruption.NOT_STARTED)
            event = self._interrupted(batch, result, state, requeued=True)
            if isinstance(event, RunFinished):
                ended.add(run_id)
            yield event

    def _has_reported(self, result: Result) -> bool:
        """Whether the attempt has trained at all, by what it reported."""
        path = self._layout.trial(result.trial).metrics(result.rung, result.attempt, result.restart)
        try:
            return path.stat().st_size > 0
        except OSError:
            return False

    @staticmethod
    def _next_restart(run: Run) -> int:
        """Number of the first start of its present attempt that is not taken into account."""
        return run.last_counted[1] + 1 if run.last_counted[0] == run.attempts - 1 else 0

    def _with_progress(self, run: Run, result: Result) -> Result:
        """With what its checkpoints say, where no worker did."""
        trial_files = self._layout.trial(run.trial)
        try:
            newest = checkpoints.newest(trial_files, at_most=run.resource)
        except OSError as error:  # whether its next attempt can read them shows when it begins
            self._passed_over.note(trial_files.checkpoints, error)
            newest = None
        step = newest.step if newest else 0
        trial = self._state.trials[run.trial]
        before = max(run.step, trial.runs[run.rung - 1].resource if run.rung else trial.start)
        return msgspec.structs.replace(result, step=step, progressed=step > before)

    def _vanished(
        self, batch: BatchState, task: int, run: Run, state: TaskState | None
    ) -> RunFinished | RunInterrupted:
        """A run whose task is gone and that left no result."""
        watch = self._watch(batch)
        seconds = watch.charges.untold(task) if len(batch.tasks[task]) == 1 else 0.0
        result = Result(
            run.trial,
            run.rung,
            attempt=run.attempts - 1,
            restart=self._next_restart(run),
            task=task,
            seconds=seconds,
            gpu_seconds=seconds * batch.gpus_of(task),
            node=watch.nodes.get(task, ""),
            message=last_words_of(watch.files.log(task)),
            interrupted=Interruption.NOT_STARTED if self._unbegun(watch, task, state) else None,
        )
        result = self._with_progress(run, result)
        phase = state.phase if state is not None else None
        killed = interruptions.killed_for_memory(result.message)
        if phase is Phase.OUT_OF_MEMORY or killed:
            message = killed or result.message or "killed: out of memory"
            result = msgspec.structs.replace(result, outcome=Outcome.OUT_OF_MEMORY, message=message)
            return interruptions.finished(batch, result)
        return self._interrupted(batch, result, state, requeued=False)

    def _interrupted(
        self, batch: BatchState, result: Result, state: TaskState | None, *, requeued: bool
    ) -> RunFinished | RunInterrupted:
        run = self._state.run(RunId(result.trial, result.rung))
        why = interruptions.why(
            batch, result, state, requeued=requeued, stopping=self._state.stopping is not None
        )
        node = result.node or (state.node if state else "")
        message = result.message
        if result.interrupted is None or not message:  # no word of its worker, only the last line printed
            words = interruptions.WORDS[why] + (f" ({node})" if node else "")
            message = f"{words}; its {introduced(message)}" if message else words
        result = msgspec.structs.replace(result, node=node, message=message)
        stopped = self._state.trials[run.trial].stopped
        # Of a requeued task that runs again, or has already left a later result, that start decides.
        current = None if state is None else self.states.get(TaskId(batch.name, result.task))
        decides = not requeued or (current is not None and current.phase is Phase.PENDING)
        if stopped and decides:
            step, value = run.last_report or (result.step, None)
            result = msgspec.structs.replace(result, step=step, value=value, message=stopped)
            return interruptions.finished(batch, msgspec.structs.replace(result, outcome=Outcome.STOPPED))
        given_up = interruptions.given_up(run, result, why, settings=self._settings)
        if given_up and decides:
            message = f"{given_up}; the last: {message}"
            outcome = interruptions.outcome_of(run, why)
            return interruptions.finished(
                batch, msgspec.structs.replace(result, outcome=outcome, message=message)
            )
        return interruptions.interruption(batch, result, why, requeued=requeued)
