"""What becomes of tasks that keep their GPUs, and of the runs that were given to them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping

from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import Phase, TaskId, TaskState
from hpcsweep.core.events import AnyEvent, Interruption, RunId, TaskBegan, TaskLeft
from hpcsweep.core.state import SweepState
from hpcsweep.driver import failures
from hpcsweep.driver.endings import Endings
from hpcsweep.driver.live_batches import LEAVING_S, BatchWatch
from hpcsweep.store.assignments import StartId, TaskDeparture, TaskStart


class ReusedTasks:
    """Turns what such tasks tell, and what the cluster shows of them, into events."""

    def __init__(
        self,
        state: SweepState,
        *,
        grace_s: float,
        endings: Endings,
        capped: Callable[[str], bool],
    ) -> None:
        self._state = state
        #: Whether what the tasks of this pool cost is capped.
        self._capped = capped
        self._grace_s = grace_s
        self._endings = endings

    def announced(
        self,
        batch: BatchState,
        watch: BatchWatch,
        announcements: Iterable[tuple[StartId, TaskStart | TaskDeparture]],
        ended: set[RunId],
        now: float,
    ) -> Iterator[AnyEvent]:
        """What tasks told newly; of an earlier start than the newest one nothing counts any more."""
        newest = {task: start.restart for task, start in batch.starts.items()}
        started = {task: start.started for task, start in batch.starts.items()}
        # The start of a task comes before its departure, and that before a later start.
        for (task, restart), message in sorted(
            announcements, key=lambda each: (each[0].restart, isinstance(each[1], TaskDeparture))
        ):
            if isinstance(message, TaskStart):
                if restart > newest.get(task, -1):
                    left = watch.left.pop(task, None)
                    if left is not None and task not in watch.seen_at:
                        watch.usage.add_earlier(task, min(left - started[task], now - batch.planned_at))
                    newest[task], started[task] = restart, message.at
                    yield TaskBegan(
                        batch.name, now, task, restart, message.at, message.ends, message.node, message.job
                    )
            elif restart == newest.get(task) and batch.departure(task, restart) is None:
                watch.left[task] = message.at
                yield TaskLeft(
                    batch.name,
                    now,
                    task,
                    restart,
                    message.taken,
                    message.at,
                    message.reason,
                    message.failed,
                )
                for run_id, given in batch.assigned.items():
                    if given[:2] == (task, restart) and given.number >= message.taken:
                        ended.add(run_id)
                        result = self._endings.not_taken(self._state.run(run_id), given)
                        yield failures.interruption(batch, result, Interruption.NOT_STARTED)

    def look(
        self,
        batch: BatchState,
        watch: BatchWatch,
        task: int,
        state: TaskState | None,
        ended: set[RunId],
        now: float,
    ) -> Iterator[AnyEvent]:
        """One open task that is given run after run, as the cluster shows it now; None if it does not."""
        if state is not None:
            watch.usage.observe(task, state, now=now, left=watch.left.get(task))
            if state.node:
                watch.nodes[task] = state.node
        active = state is not None and state.phase.active
        newest = batch.restart_of(task)
        unknown = task not in watch.gone_at and (state is None or state.seconds is None)
        if active:
            watch.seen_at[task] = now
        elif unknown and self._capped(batch.pool):
            # A cap that is to hold counts what it may have taken.
            departure = batch.departure(task, newest)
            until = now if departure is None else min(now, departure.left + LEAVING_S)
            watch.charge_unseen(task, batch, until=until)
        # A start is over once the task is gone, waits again or has told of a later start.
        over = newest if not active or (state is not None and state.phase is Phase.PENDING) else newest - 1
        results = {RunId(each.trial, each.rung): each for each in watch.interrupted.get(task, ())}
        silent, before = False, 0
        for run_id, given in list(batch.assigned.items()):
            if given.task != task or run_id in ended:
                continue
            run, ahead = self._state.run(run_id), before >= batch.lanes
            before += 1
            if given.restart <= over or not active:
                result = results.get(run_id)
                since = watch.over_since.setdefault(given, now)
                grace = 0.0 if self._state.stopping else self._grace_s
                if result is None and (since == now or now - since < grace):
                    silent = True  # its result may just not be visible yet
                    continue
                ended.add(run_id)
                if result is not None:
                    yield self._endings.interrupted(batch, result, state, requeued=active)
                elif ahead and not self._endings.left_traces(run, given):
                    result = self._endings.not_taken(run, given)
                    yield failures.interruption(batch, result, Interruption.NOT_STARTED)
                elif not active:
                    yield self._endings.without_result(batch, watch, task, run, state)
                else:
                    result = self._endings.silent(run, given, watch)
                    end = self._endings.of_requeued_start(result.node)
                    yield self._endings.interrupted(batch, result, end, requeued=True)
        watch.interrupted[task] = [
            result for run_id, result in results.items() if run_id in batch.assigned and run_id not in ended
        ]
        if active:
            watch.gone_at.pop(task, None)
        elif not silent:
            first_seen = watch.gone_at.setdefault(task, now)
            if state is not None or now - first_seen >= self._grace_s or self._state.stopping:
                watch.open.discard(task)

    def silent_departures(
        self,
        batch: BatchState,
        watch: BatchWatch,
        states: Mapping[TaskId, TaskState],
        told: Container[TaskId],
        now: float,
    ) -> Iterator[TaskLeft]:
        """Starts that are over, as the cluster shows, and left no word: nobody gives them a run any more.

        Those that `told` something just now are not looked at.
        """
        for task, start in batch.starts.items():
            id_ = TaskId(batch.name, task)
            waits = (state := states.get(id_)) is not None and state.phase is Phase.PENDING
            if start.left is None and id_ not in told and (waits or task not in watch.open):
                taken = batch.given.get((task, start.restart), 0)
                yield TaskLeft(batch.name, now, task, start.restart, taken, now, "the cluster ended it")
