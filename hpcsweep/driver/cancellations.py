"""Which tasks to cancel, release or stop, each once. Pure."""

from __future__ import annotations

from hpcsweep.core.cluster_protocol import Phase, TaskId
from hpcsweep.core.events import PauseRequested, RunId
from hpcsweep.core.state import SweepState
from hpcsweep.driver.effects import Cancel, Effect, EffectResult, Release, StopRun
from hpcsweep.driver.monitor import JobMonitor


class Cancellations:
    """Decides what the cluster is to cancel, by what the monitor has seen last."""

    def __init__(self, state: SweepState, monitor: JobMonitor) -> None:
        self._state = state
        self._monitor = monitor
        #: Tasks that this session cancelled, and runs that it told their workers to end, by batch.
        self._cancelled: set[TaskId] = set()
        self._stopped: set[tuple[str, RunId]] = set()

    def tasks_to_cancel(self) -> list[Cancel | StopRun]:
        """Cancel, once, tasks whose trials were all stopped or given up.

        A task that runs although all its runs have ended is about to leave by itself. In one of which
        other runs are wanted, the unwanted runs are stopped one by one.
        """
        effects: list[Cancel | StopRun] = []
        for (name, task), state in self._monitor.states.items():
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
        """Cancel, once, all tasks that have not started; their runs wait until the sweep is resumed."""
        effects = []
        for name, batch in self._state.live.items():
            ids = [TaskId(name, task) for task in range(len(batch.tasks))]
            pending = tuple(
                each.task
                for each in ids
                if (state := self._monitor.states.get(each)) is not None
                and state.phase is Phase.PENDING
                and each not in self._cancelled
            )
            if batch.job is not None and pending:
                effects.append(Cancel(name, pending, pending=True))
        return effects

    def impossible_to_cancel(self) -> list[Cancel]:
        return [
            Cancel(name, tuple(tasks))
            for name, tasks in self._monitor.blocked.impossible.items()
            if name in self._state.live
        ]

    def all_to_cancel(self) -> list[Cancel]:
        names = [batch.name for batch in self._state.live.values() if batch.job is not None]
        cancels = [Cancel(name, tuple(self._monitor.submitted(name).open_tasks)) for name in names]
        return [cancel for cancel in cancels if cancel.tasks]

    def tasks_to_release(self) -> list[Release]:
        """Release, once, the tasks that the cluster requeued and holds."""
        return [Release(name, tuple(tasks)) for name, tasks in self._monitor.blocked.held.items()]

    def pause(self, *, now: float) -> list[PauseRequested]:
        """Pause the sweep where tasks can never start."""
        if (
            not self._monitor.blocked.impossible
            or self._state.pausing is not None
            or self._state.stopping is not None
        ):
            return []
        reason = self._state.live[next(iter(self._monitor.blocked.impossible))].blocked_reason
        return [PauseRequested(now, f"its jobs can never start ({reason}): fix the spec, then launch again")]

    def note(self, effect: Effect, result: EffectResult) -> None:
        if result.error is not None:
            return
        if isinstance(effect, StopRun):
            self._stopped.add((effect.batch, effect.run))
        elif isinstance(effect, Cancel):
            self._cancelled.update(TaskId(effect.batch, task) for task in effect.tasks)
