"""Results and the cluster's answers become events. Pure.

Result files come first: a run is given up only when a *successful* poll does not show its task as
active, the grace for late files is over, and no result has come. A failed poll says nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import Phase, SubmittedBatch, TaskId, TaskState
from hpcsweep.core.events import (
    AnyEvent,
    BatchClosed,
    Interruption,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    TaskBegan,
    TaskLeft,
    TasksAllocated,
)
from hpcsweep.core.models import INSTANT_S
from hpcsweep.core.state import SweepState
from hpcsweep.driver import failures
from hpcsweep.driver.config import DriverConfig
from hpcsweep.driver.effects import Cancel, Effect, EffectResult
from hpcsweep.driver.endings import Endings
from hpcsweep.driver.live_batches import LEAVING_S, BatchWatch, BlockedTasks, charge
from hpcsweep.driver.observer import Evidence, Observation, next_restart
from hpcsweep.driver.reused_tasks import ReusedTasks
from hpcsweep.store.batch import Result
from hpcsweep.store.layout import Layout


class JobMonitor:
    """Turns observations into events. Holds nothing that a new session could not see again."""

    def __init__(
        self,
        state: SweepState,
        *,
        layout: Layout,
        settings: DriverConfig,
        grace_s: float,
        evidence: Evidence,
        capped: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._state = state
        self._layout = layout
        self._settings = settings
        #: How long a result may stay invisible after its task has ended.
        self._grace_s = grace_s
        self._evidence = evidence
        self._endings = Endings(state, settings=settings, evidence=evidence)
        #: Whether what the tasks of this pool cost is capped; see `GpuBudget.caps`.
        self._capped = capped
        self._reused = ReusedTasks(state, grace_s=grace_s, endings=self._endings, capped=capped)
        self._watches: dict[str, BatchWatch] = {}
        #: What the last successful poll showed of the open tasks.
        self.states: Mapping[TaskId, TaskState] = {}
        #: When that was; Unix time.
        self.polled_at = 0.0
        self.blocked = BlockedTasks()
        #: Since when each running task has run, as far as this session knows.
        self._running_since: dict[TaskId, float] = {}

    # ------------------------------------------------------------------ what is known of batches

    @property
    def undecided(self) -> bool:
        """Whether the next poll decides something: of a task that is gone, or that can never start."""
        watched = [(batch, self._watch(batch)) for batch in self._state.live.values()]
        gone = any(
            watch.gone_at.keys() & watch.open
            or not watch.over_since.keys().isdisjoint(batch.assigned.values())
            for batch, watch in watched
        )
        return gone or self.blocked.undecided

    @property
    def awaits_poll(self) -> bool:
        """Whether runs were interrupted with tasks that keep their GPUs, and a poll is to tell why."""
        return any(
            batch.reuse and any(self._watch(batch).interrupted.values())
            for batch in self._state.live.values()
        )

    @property
    def all_have_left(self) -> bool:
        """Whether all tasks of a batch that keep their GPUs have told that they leave: a poll may end it."""
        return any(
            batch.reuse
            and not batch.unfinished
            and all(
                task in self._watch(batch).cancelled_pending
                or (task in batch.starts and batch.starts[task].left is not None)
                for task in self._watch(batch).open
            )
            for batch in self._state.live.values()
        )

    def submitted(self, name: str) -> SubmittedBatch:
        """The live batch of this name as the cluster knows it."""
        batch = self._state.live[name]
        return SubmittedBatch(
            name,
            batch.job or "",
            self._layout.batch(name).root,
            len(batch.tasks),
            batch.throttle,
            batch.shape if batch.cpus else self._settings.shape,  # of an earlier version
            sorted(self._watch(batch).open),
            batch.planned_at,
        )

    def open_tasks(self, batch: BatchState) -> int:
        """How many of its tasks may still hold or take GPUs."""
        return len(self._watch(batch).open)

    def unbooked_gpu_s(self, batch: BatchState) -> float:
        """GPU-seconds that its ended tasks took beyond what the journal holds."""
        watch = self._watch(batch)
        return watch.usage.unaccounted(set(range(len(batch.tasks))) - watch.open)[1]

    def reserved_gpu_s(self, batch: BatchState, *, now: float, run_s: float, idle_s: float) -> float:
        """GPU-seconds that the tasks of a batch may take beyond what the journal holds, if given no more.

        A run without a limit of its own takes at most `run_s`, a task without any is gone after `idle_s`.
        """
        watch, reserved = self._watch(batch), self.unbooked_gpu_s(batch)
        #: Of each task when its lanes are free at the latest: one takes the next run once another has ended.
        lanes: dict[int, list[float]] = {}
        for given in batch.assigned.values():
            free = lanes.setdefault(given.task, [0.0] * batch.lanes)
            limit_s = given.time_s + LEAVING_S if given.time_s else run_s
            heapq.heapreplace(free, max(free[0], given.at) + limit_s)
        for task in watch.open:
            left_s = idle_s + max(0.0, max(lanes[task]) - now if task in lanes else 0.0)
            if batch.time_s:
                left_s = min(left_s, batch.time_s)
            reserved += watch.usage.unreported_gpu_s(task, now=now) + left_s * batch.gpus_of(task)
        return reserved

    def held_tasks(self, batch: BatchState) -> int:
        """How many of its tasks that keep their GPUs hold some, as far as that was seen."""
        return sum(self.holds(batch, task) for task in self._watch(batch).open)

    def holds(self, batch: BatchState, task: int) -> bool:
        """Whether such a task holds GPUs: it was seen to run, or has begun since the last poll."""
        state = self.states.get(TaskId(batch.name, task))
        if task in batch.starts and batch.starts[task].began >= self.polled_at:
            return True
        return state is not None and state.phase.active and state.phase is not Phase.PENDING

    def is_open(self, batch: BatchState, task: int) -> bool:
        """Whether the task may still hold or take GPUs."""
        return task in self._watch(batch).open

    def has_run(self, batch: BatchState) -> bool:
        """Whether a task of it has run for longer than those do that fail at once."""
        states = (self.states.get(TaskId(batch.name, task)) for task in range(len(batch.tasks)))
        return any((state.seconds or 0.0) > INSTANT_S for state in states if state is not None)

    def longest_s(self, now: float) -> float:
        """How long the oldest running run has lasted."""
        begun = [
            given.at
            for batch in self._state.live.values()
            for given in (batch.assigned[run] for run in batch.begun)
            if (batch.name, given.task) in self._running_since
        ]
        for (name, task), since in self._running_since.items():
            if (batch := self._state.live.get(name)) is None or batch.reuse:
                continue
            unfinished = [n for n, run in enumerate(batch.tasks[task]) if run in batch.unfinished]
            if unfinished:
                watch = self._watch(batch)
                begun.append(watch.begun_at(task, unfinished[0], since=since, lanes=batch.lanes))
        return now - min(begun, default=now)

    def note(self, effect: Effect, result: EffectResult) -> None:
        if isinstance(effect, Cancel) and effect.pending and result.error is None:
            self._watch(self._state.live[effect.batch]).cancelled_pending.update(effect.tasks)

    def _watch(self, batch: BatchState) -> BatchWatch:
        if batch.name not in self._watches:
            self._watches[batch.name] = BatchWatch(batch)
        return self._watches[batch.name]

    # ------------------------------------------------------------------ observe

    def observe(self, observation: Observation) -> list[AnyEvent]:
        """The events that follow from an observation; apply them before the next call."""
        now, states = observation.at, observation.tasks
        batches = [batch for batch in self._state.live.values() if batch.job is not None]
        events: list[AnyEvent] = []
        ended: set[RunId] = set()
        for name, announcements in observation.announcements.items():
            batch = self._state.live[name]
            events += self._note_endings(
                batch, self._reused.announced(batch, self._watch(batch), announcements, ended, now), now
            )
        for batch in batches:
            results = observation.results.get(batch.name, ())
            events += self._note_endings(batch, self._results(batch, results, ended), now)
        if states is None:
            return events
        told = {
            TaskId(event.batch, event.task) for event in events if isinstance(event, TaskBegan | TaskLeft)
        }
        self.states, self.polled_at = states, now
        self._running_since = {
            task: self._running_since.get(task, now - (state.seconds or 0.0))
            for task, state in states.items()
            if state.phase is Phase.RUNNING
        }
        self.blocked.begin(self._state.live)
        running = bool(self._running_since)
        for batch in batches:
            watch = self._watch(batch)
            events += self.blocked.observe(batch, watch.open, states, running=running, now=now)
            events += self._allocations(batch)
            for task in sorted(watch.open):
                state = states.get(TaskId(batch.name, task))
                look = self._reused.look if batch.reuse else self._task
                events += self._note_endings(batch, look(batch, watch, task, state, ended, now), now)
            events += self._reused.silent_departures(batch, watch, states, told, now)
            if not watch.open and batch.unfinished <= ended:
                usage = watch.usage.unaccounted(range(len(batch.tasks)))
                events.append(BatchClosed(batch.name, *usage, message=self._why_nothing_began(batch)))
                del self._watches[batch.name]
        return events

    def _note_endings(self, batch: BatchState, events: Iterable[AnyEvent], now: float) -> Iterator[AnyEvent]:
        """The same events; their cost, and when runs ended, is noted."""
        for event in events:
            if isinstance(event, RunFinished | RunInterrupted):
                self._watch(batch).note(event, at=now)
            yield event

    def _allocations(self, batch: BatchState) -> Iterator[TasksAllocated]:
        """Tasks that hold another number of GPUs than was known."""
        changed: dict[int, list[int]] = {}
        for task in sorted(self._watch(batch).open):
            state = self.states.get(TaskId(batch.name, task))
            if state is not None and state.gpus is not None and state.gpus != batch.gpus_of(task):
                changed.setdefault(state.gpus, []).append(task)
        for gpus, tasks in changed.items():
            yield TasksAllocated(batch.name, tuple(tasks), gpus)

    # ------------------------------------------------------------------ results

    def _results(self, batch: BatchState, results: Iterable[Result], ended: set[RunId]) -> Iterator[AnyEvent]:
        watch = self._watch(batch)
        for result in results:
            run_id = RunId(result.trial, result.rung)
            if run_id not in batch.unfinished or run_id in ended:
                continue
            result = self._endings.as_lost_peer(charge(result, batch))
            if not batch.reuse and result.task in watch.silent:
                if result.restart == next_restart(self._state.run(run_id)):
                    del watch.silent[result.task]  # it was only late
                else:
                    yield from self._silent_start(batch, result.task, ended)
            # An ending counts even if it comes after its start was recorded as over.
            counted = (result.attempt, result.restart) <= self._state.run(run_id).last_counted
            if counted and result.outcome is None:
                continue
            # A later start of the same run shows that the cluster took it back after the one before.
            for earlier in watch.take_interrupted(run_id, result.task):
                yield self._endings.interrupted(batch, earlier, None, requeued=True)
            if batch.reuse and self._run_alone_ended(batch, result):
                ended.add(run_id)
                yield self._endings.interrupted(batch, result, None, requeued=False)
                continue
            if result.outcome is None:
                watch.interrupted.setdefault(result.task, []).append(result)
                continue
            ended.add(run_id)
            stopped = self._state.trials[run_id.trial].stopped
            if stopped and result.outcome is Outcome.COMPLETED:  # it was quicker than its end
                result = msgspec.structs.replace(result, outcome=Outcome.STOPPED, message=stopped)
            elif stopped and result.outcome is Outcome.STOPPED:  # by its worker, which trains the other runs
                result = self._endings.as_stopped(result, stopped)
            elif result.outcome is Outcome.STOPPED:
                # Ordered by a driver that had been superseded: the journal does not know of it.
                yield failures.interruption(batch, result, Interruption.NOT_STARTED)
                continue
            elif self._endings.may_have_more_memory(batch, result):
                yield failures.interruption(batch, result, Interruption.OUT_OF_MEMORY)
                continue
            elif self._endings.is_tried_again(result):
                yield failures.interruption(batch, result, Interruption.TRAINING_ERROR)
                continue
            yield from self._endings.suggested(result)
            yield failures.finished(batch, result)

    def _all_interrupted(self, batch: BatchState, task: int, ended: set[RunId]) -> Iterator[Result]:
        """The results that waited for what becomes of the task, without those of runs that have ended."""
        for result in self._watch(batch).interrupted.pop(task, []):
            run_id = RunId(result.trial, result.rung)
            if run_id in batch.unfinished and run_id not in ended:
                yield result

    # ------------------------------------------------------------------ tasks

    def _task(
        self,
        batch: BatchState,
        watch: BatchWatch,
        task: int,
        state: TaskState | None,
        ended: set[RunId],
        now: float,
    ) -> Iterator[AnyEvent]:
        """One open task, as the cluster shows it now; None if it does not."""
        if state is not None:
            before = watch.usage.finished_starts(task)
            watch.usage.observe(task, state, now=now)
            if watch.usage.finished_starts(task) > before and not watch.interrupted.get(task):
                watch.silent[task] = (
                    now,
                    self._endings.of_requeued_start(
                        watch.nodes.get(task, ""), seconds=watch.usage.last_finished_s(task)
                    ),
                )
            if state.node:
                watch.nodes[task] = state.node
        if state is not None and state.phase.active:
            watch.seen_at[task] = now
            watch.gone_at.pop(task, None)
            if state.phase is Phase.PENDING:  # the cluster took it back to run it again
                for result in self._all_interrupted(batch, task, ended):
                    event = self._endings.interrupted(batch, result, state, requeued=True, waits=True)
                    if isinstance(event, RunFinished):
                        ended.add(event.run)
                    yield event
            if task in watch.silent and now - watch.silent[task][0] >= self._grace_s:
                yield from self._silent_start(batch, task, ended)
            return
        for result in self._all_interrupted(batch, task, ended):
            ended.add(RunId(result.trial, result.rung))
            yield self._endings.interrupted(batch, result, state, requeued=False)
        silent = [run for run in batch.tasks[task] if run in batch.unfinished and run not in ended]
        unknown = task not in watch.gone_at and (state is None or state.seconds is None)
        if unknown and (silent or batch.lanes > 1) and self._capped(batch.pool):
            # A cap that is to hold counts what a task, or its idle lanes, may have taken.
            watch.charge_unseen(task, batch, until=now)
        if silent:
            first_seen = watch.gone_at.setdefault(task, now)
            # A task that the user's stop cancelled need not be waited for; its checkpoint stays.
            grace = 0.0 if self._state.stopping else self._grace_s
            # Of one that the cluster calls cancelled without a node no result can come.
            unbegun = state is not None and self._endings.never_began(batch, watch, task, state)
            if not unbegun and (first_seen == now or now - first_seen < grace):
                return  # its result file may just not be visible yet
            for run_id in silent:
                ended.add(run_id)
                yield self._endings.without_result(batch, watch, task, self._state.run(run_id), state)
        watch.open.discard(task)

    def _run_alone_ended(self, batch: BatchState, result: Result) -> bool:
        """Whether only the run was interrupted, and not its task as well.

        A worker that is told to stop writes its departure after the results of its runs.
        """
        told_to_stop = result.interrupted is Interruption.PREEMPTED
        departed = result.task in self._watch(batch).left and result.restart == batch.restart_of(result.task)
        return result.interrupted is not None and not told_to_stop and not departed

    def _why_nothing_began(self, batch: BatchState) -> str:
        """Of a batch whose tasks all ended before they could take a run: what the last one printed."""
        if not batch.reuse or any(
            start.left is None or not start.left.failed for start in batch.starts.values()
        ):
            return ""
        return self._evidence.last_lines(batch.name, len(batch.tasks) - 1) or "no log output"

    def _silent_start(self, batch: BatchState, task: int, ended: set[RunId]) -> Iterator[AnyEvent]:
        """A start that is over and left no result; the cluster runs the task again."""
        _, state = self._watch(batch).silent.pop(task)
        current = self.states.get(TaskId(batch.name, task))
        waits = current is not None and current.phase is Phase.PENDING
        # Preempted while it was starting up, it did not begin the run: nobody's fault.
        young = state.phase is Phase.PREEMPTED and (state.seconds or 0.0) < INSTANT_S
        for run_id in batch.tasks[task]:
            if run_id not in batch.unfinished or run_id in ended:
                continue
            run = self._state.run(run_id)
            result = Result(
                *run_id, attempt=run.submissions - 1, restart=next_restart(run), task=task, node=state.node
            )
            result = self._endings.with_progress(run, result)
            reported = young and self._evidence.reported(
                run_id, attempt=result.attempt, restart=result.restart
            )
            if young and not result.progressed and not reported:
                result = msgspec.structs.replace(result, interrupted=Interruption.NOT_STARTED)
            event = self._endings.interrupted(batch, result, state, requeued=True, waits=waits)
            if isinstance(event, RunFinished):
                ended.add(run_id)
            yield event
