"""Follow what is on the cluster: result files and the cluster's answers become events.

Here alone is decided what an ending means. Result files come first: a run is given up only when
a *successful* query does not show its task as active, the grace for late files is over, and no
result has come. A query that fails says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from hpcsweep.core.events import (
    AnyEvent,
    BatchClosed,
    Interruption,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
)
from hpcsweep.core.protocols import Cluster, LiveBatch, Phase, TaskId, TaskShape, TaskState
from hpcsweep.core.state import BatchState, Run, SweepState
from hpcsweep.errors import ClusterUnavailable
from hpcsweep.store.layout import BatchLayout, Layout
from hpcsweep.store.results import Result, new_results

_WHY = {
    Phase.TIMEOUT: Interruption.TIMEOUT,
    Phase.PREEMPTED: Interruption.PREEMPTED,
    Phase.NODE_FAIL: Interruption.NODE_FAIL,
    Phase.CANCELLED: Interruption.CANCELLED,
}
_WORDS = {
    Interruption.PREEMPTED: "preempted",
    Interruption.TIMEOUT: "reached its time limit",
    Interruption.NODE_FAIL: "its node failed",
    Interruption.CANCELLED: "cancelled on the cluster",
    Interruption.WORKER_DIED: "its task ended without a result",
    Interruption.LOST: "the cluster shows it no more and no result came",
    Interruption.NOT_STARTED: "its task ended before its turn came",
    Interruption.SWEEP_STOPPED: "the sweep was stopped",
}


class _Watch:
    """What this session has seen of one live batch.

    Attributes:
        files: The batch's folder.
        seen: Names of result files already read.
        open: Tasks not yet seen gone from the cluster.
        gone_at: When a task with unended runs was first seen gone.
        held: Results of interrupted runs by task, until it shows whether the cluster requeues it.
    """

    def __init__(self, files: BatchLayout, tasks: int) -> None:
        self.files = files
        self.seen: set[str] = set()
        self.open: set[int] = set(range(tasks))
        self.gone_at: dict[int, float] = {}
        self.held: dict[int, list[Result]] = {}


class Following:
    """Turns results and polls into events. Holds nothing that a new session could not see again."""

    def __init__(
        self,
        state: SweepState,
        *,
        layout: Layout,
        cluster: Cluster,
        shape: TaskShape,
        max_idle_faults: int,
    ) -> None:
        self._state = state
        self._layout = layout
        self._cluster = cluster
        self._shape = shape
        self._max_idle_faults = max_idle_faults
        self._watches: dict[str, _Watch] = {}
        #: What the last successful poll said of the open tasks.
        self.states: Mapping[TaskId, TaskState] = {}
        self._given_up: list[tuple[BatchState, int]] = []

    def open_tasks(self, batch: BatchState) -> int:
        """How many of its tasks may still hold or take GPUs."""
        return len(self._watch(batch).open)

    def live(self, batch: BatchState) -> LiveBatch:
        """The batch as the cluster knows it."""
        watch = self._watch(batch)
        return LiveBatch(
            batch.name,
            batch.job or "",
            watch.files.root,
            len(batch.tasks),
            batch.throttle,
            self._shape,
            sorted(watch.open),
        )

    def observe(self, now: float) -> list[AnyEvent]:
        """What has happened since the last call: one readdir for each live batch, one poll."""
        batches = [batch for batch in self._state.live.values() if batch.job is not None]
        events: list[AnyEvent] = []
        ended: set[RunId] = set()
        for batch in batches:
            events += self._results(batch, ended)
        states = self._poll(batches)
        if states is None:
            return events
        self.states = states
        for batch in batches:
            watch = self._watch(batch)
            for task in sorted(watch.open):
                events += self._task(batch, task, states.get(TaskId(batch.name, task)), ended, now)
            if not watch.open and batch.unended <= ended:
                events.append(BatchClosed(batch.name))
                del self._watches[batch.name]
        return events

    def given_up(self) -> list[tuple[BatchState, int]]:
        """Tasks that the cluster would run again although their run has ended: to be cancelled; once."""
        found, self._given_up = self._given_up, []
        return found

    def _poll(self, batches: Sequence[BatchState]) -> Mapping[TaskId, TaskState] | None:
        try:
            return self._cluster.poll([self.live(batch) for batch in batches]) if batches else {}
        except ClusterUnavailable:
            return None

    def _watch(self, batch: BatchState) -> _Watch:
        if batch.name not in self._watches:
            self._watches[batch.name] = _Watch(self._layout.batch(batch.name), len(batch.tasks))
        return self._watches[batch.name]

    # ------------------------------------------------------------------ results

    def _results(self, batch: BatchState, ended: set[RunId]) -> Iterator[AnyEvent]:
        watch = self._watch(batch)
        for name, result in new_results(watch.files, watch.seen):
            watch.seen.add(name)
            run_id = RunId(result.trial, result.rung)
            if run_id not in batch.unended or run_id in ended:
                continue
            if (result.attempt, result.restart) <= self._state.run(run_id).counted:
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
            yield _finished(batch, result)

    @staticmethod
    def _take_held(watch: _Watch, run_id: RunId, task: int) -> list[Result]:
        held = watch.held.get(task, [])
        taken = [result for result in held if (result.trial, result.rung) == run_id]
        watch.held[task] = [result for result in held if (result.trial, result.rung) != run_id]
        return taken

    # ------------------------------------------------------------------ the cluster's word

    def _task(
        self, batch: BatchState, task: int, state: TaskState | None, ended: set[RunId], now: float
    ) -> Iterator[AnyEvent]:
        """One open task, as the cluster shows it now; None if it does not."""
        watch = self._watch(batch)
        if state is not None and state.phase.active:
            watch.gone_at.pop(task, None)
            if state.phase is Phase.PENDING:  # the cluster took it back to run it again
                for result in watch.held.pop(task, []):
                    yield self._interrupted(batch, result, state, requeued=True)
            return
        for result in watch.held.pop(task, []):
            run_id = RunId(result.trial, result.rung)
            if run_id not in ended:
                ended.add(run_id)
                yield self._interrupted(batch, result, state, requeued=False)
        silent = [run for run in batch.tasks[task] if run in batch.unended and run not in ended]
        if silent:
            first_seen = watch.gone_at.setdefault(task, now)
            # A task that the user's stop cancelled need not be waited for; its checkpoint stays.
            grace = 0.0 if self._state.stopping else self._cluster.grace_s
            if first_seen == now or now - first_seen < grace:
                return  # its result file may just not be visible yet
            for run_id in silent:
                ended.add(run_id)
                yield self._vanished(batch, task, self._state.run(run_id), state)
        watch.open.discard(task)

    def _vanished(
        self, batch: BatchState, task: int, run: Run, state: TaskState | None
    ) -> RunFinished | RunInterrupted:
        """A run whose task is gone and that left no result."""
        result = Result(run.trial, run.rung, attempt=run.attempts - 1, restart=run.counted[1] + 1, task=task)
        if state is not None and state.phase is Phase.OUT_OF_MEMORY:
            message = state.reason or "killed: out of memory"
            result = msgspec.structs.replace(result, outcome=Outcome.OUT_OF_MEMORY, message=message)
            return _finished(batch, result)
        return self._interrupted(batch, result, state, requeued=False)

    def _interrupted(
        self, batch: BatchState, result: Result, state: TaskState | None, *, requeued: bool
    ) -> RunFinished | RunInterrupted:
        run = self._state.run(RunId(result.trial, result.rung))
        why = self._why(result, state)
        node = result.node or (state.node if state else "")
        message = result.message or _WORDS[why] + (f" ({node})" if node else "")
        stopped = self._state.trials[run.trial].stopped
        if stopped:
            step, value = run.reported or (result.step, None)
            result = msgspec.structs.replace(result, step=step, value=value, message=stopped, node=node)
            return _finished(batch, msgspec.structs.replace(result, outcome=Outcome.STOPPED))
        # With a requeued task and no state a later start has left a result too: that one decides.
        if (
            not (requeued and state is None)
            and not result.progressed
            and why not in (Interruption.SWEEP_STOPPED, Interruption.NOT_STARTED)
            and run.idle_faults >= self._max_idle_faults
        ):
            times = run.idle_faults + 1
            given_up = f"given up after {times} interruptions without progress; the last: {message}"
            lost = msgspec.structs.replace(result, outcome=Outcome.LOST, message=given_up, node=node)
            if requeued:
                self._given_up.append((batch, result.task))
            return _finished(batch, lost)
        return RunInterrupted(
            result.trial,
            result.rung,
            why,
            attempt=result.attempt,
            restart=result.restart,
            batch=batch.name,
            task=result.task,
            start=None if result.started is None else result.start,
            requeued=requeued,
            progressed=result.progressed,
            seconds=result.seconds,
            gpu_seconds=result.gpu_seconds,
            node=node,
            job=result.job,
            message=message,
        )

    def _why(self, result: Result, state: TaskState | None) -> Interruption:
        if self._state.stopping is not None:
            return Interruption.SWEEP_STOPPED
        if result.interrupted is not None and result.started is None:
            return Interruption.NOT_STARTED
        if state is not None and state.phase in _WHY:
            return _WHY[state.phase]
        if result.interrupted is not None:
            return result.interrupted
        return Interruption.LOST if state is None else Interruption.WORKER_DIED


def _finished(batch: BatchState, result: Result) -> RunFinished:
    assert result.outcome is not None
    return RunFinished(
        result.trial,
        result.rung,
        result.outcome,
        value=result.value,
        step=result.step,
        start=None if result.started is None and result.outcome is not Outcome.COMPLETED else result.start,
        attempt=result.attempt,
        restart=result.restart,
        batch=batch.name,
        task=result.task,
        seconds=result.seconds,
        gpu_seconds=result.gpu_seconds,
        started=result.started,
        node=result.node,
        job=result.job,
        message=result.message,
    )
