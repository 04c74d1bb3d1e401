"""What happens to jobs on the cluster: throttles of arrays, cancellations, releases, tick jobs. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import Cluster, Phase, TaskId
from hpcsweep.core.events import BatchThrottled, PauseRequested, RunId
from hpcsweep.core.state import SweepState
from hpcsweep.driver.config import DriverConfig, HostTask
from hpcsweep.driver.effects import Cancel, Effect, EffectResult, Release, Step, StopRun, SubmitTick, Throttle
from hpcsweep.driver.monitor import JobMonitor

#: Tasks at a time where nothing caps them: an endless scheduler would fill any number of slots.
MOST_TASKS: Final = 1000
#: Delay of a tick job where no other job will trigger a tick.
LOOK_AGAIN_S: Final = 60.0
#: And where other jobs should.
WATCH_S: Final = 3600.0


class ArrayUsage(NamedTuple):
    """One live array.

    Attributes:
        open: Tasks that may still run. `throttle`: how many of them at a time.
        slots: That each of them takes; more than one where the resources were lowered since.
        held: Tasks that hold GPUs, which may be more than the throttle after that was lowered.
    """

    open: int
    throttle: int
    slots: int = 1
    held: int = 0

    @property
    def running(self) -> int:
        """Tasks that it may have running at this moment."""
        return max(self.held, min(self.open, self.throttle))

    @property
    def used(self) -> int:
        """Slots that it may take at this moment."""
        return self.running * self.slots


def free_slots(cap: int, usages: Sequence[ArrayUsage]) -> int:
    """Slots that no task may take now; negative where too many may be taken."""
    return cap - sum(usage.used for usage in usages)


def raise_throttles(cap: int, usages: Sequence[ArrayUsage]) -> list[int]:
    """New throttles that hand free slots, and no more, to arrays with more open tasks, oldest first."""
    free = free_slots(cap, usages)
    throttles = []
    for usage in usages:
        more = max(0, min(free // usage.slots, usage.open - usage.running))
        free -= more * usage.slots
        throttles.append(max(usage.throttle, usage.running + more))
    return throttles


def lower_throttles(cap: int, usages: Sequence[ArrayUsage]) -> list[int]:
    """New throttles after the cap was lowered: cut from the newest arrays, none below 1."""
    over = -free_slots(cap, usages)
    throttles = []
    for usage in reversed(usages):
        cut = max(0, min(-(-over // usage.slots), usage.running - 1))
        over -= cut * usage.slots
        throttles.append(usage.running - cut if cut else usage.throttle)
    return throttles[::-1]


class ThrottleManager:
    """Counts the slots taken by the live arrays, and hands free ones from array to array."""

    def __init__(
        self,
        state: SweepState,
        *,
        settings: DriverConfig,
        monitor: JobMonitor,
        host: HostTask | None = None,
        unconfirmed: Iterable[str] = (),
        cluster: Cluster | None = None,
    ) -> None:
        self._state = state
        self._settings = settings
        self._monitor = monitor
        self._host = host
        self._cluster = cluster
        #: GPUs that tasks of the cluster share; None where that is not fixed.
        self.cluster_gpus: int | None = None
        #: Batches whose throttle on the cluster may differ from the one in the journal.
        self._unconfirmed = set(unconfirmed)
        #: Tasks that the cluster runs at a time; None where that is not fixed.
        self.cluster_slots: int | None = None
        #: GPUs that a task will hold as the cluster says; 0 before it was asked.
        self.expected_gpus = 0

    @property
    def free(self) -> int:
        """Slots that a new array could take, with that of the task which this driver runs in."""
        return free_slots(self._cap, self._usages(host=False))

    @property
    def open_tasks(self) -> int:
        """Tasks that may hold or take slots."""
        return sum(self._monitor.open_tasks(batch) for batch in self._state.live.values())

    @property
    def dependency(self) -> str:
        """The task that this driver runs in, where the cap holds only once that has ended; else empty."""
        if self._host is None or not self._host.batch or free_slots(self._cap, self._usages()) >= 0:
            return ""
        return self._host.job

    @property
    def task_gpus(self) -> int:
        """GPUs that a new task holds at most, as far as is known."""
        requested = self._settings.shape.total_gpus
        return max(self.expected_gpus, self._state.held_gpus.get(requested, requested))

    def rethrottle(self, wanted: int | None = None) -> Step:
        """Hand the slots of arrays that run out to arrays that could use them.

        Only so many tasks are `wanted`, None: all that there are. Of an array that has more, none begins then
        in the place of one that leaves.

        A higher throttle is in the journal before it holds on the cluster, a lower one after: so the
        journal never counts fewer tasks than may run.
        """
        usages = self._usages()
        over = free_slots(self._cap, usages) < 0
        most = self._cap if wanted is None else min(self._cap, max(1, wanted))
        if over:
            throttles = lower_throttles(self._cap, usages)
        elif free_slots(most, usages) >= 0:
            throttles = raise_throttles(most, usages)
        else:
            lowered = zip(usages, lower_throttles(most, usages), strict=True)
            throttles = [each if usage.open > usage.running else usage.throttle for usage, each in lowered]
        return self._set_throttles(throttles)

    def _set_throttles(self, throttles: Sequence[int]) -> Step:
        """New throttles of the live batches, in their order."""
        raised: list[BatchThrottled] = []
        effects: list[Throttle] = []
        for batch, throttle in zip(self._state.live.values(), throttles, strict=True):
            if batch.job is None:
                continue
            if throttle > batch.throttle:
                raised.append(BatchThrottled(batch.name, throttle))
                self._unconfirmed.add(batch.name)
            if throttle != batch.throttle or batch.name in self._unconfirmed:
                effects.append(Throttle(batch.name, throttle))
        return Step(tuple(raised), tuple(effects))

    def note(self, effect: Effect, result: EffectResult) -> None:
        if isinstance(effect, Throttle) and result.error is None:
            self._unconfirmed.discard(effect.batch)

    @property
    def surplus(self) -> int:
        """Tasks that hold GPUs beyond the cap."""
        return max(0, sum(usage.held * usage.slots for usage in self._usages()) - self._cap)

    @property
    def cap(self) -> int | None:
        """Tasks that may hold GPUs at a time; None if nothing caps them."""
        return self._cap if self._caps else None

    @property
    def _cap(self) -> int:
        return min(self._caps, default=MOST_TASKS)

    @property
    def _caps(self) -> list[int]:
        caps = [cap for cap in (self._settings.max_tasks, self.cluster_slots) if cap is not None]
        if self._settings.max_gpus is not None and self.task_gpus:
            caps.append(self._settings.max_gpus // self.task_gpus)
        return caps

    def _usages(self, *, host: bool = True) -> list[ArrayUsage]:
        """What the live batches may take, with or without the task that this driver runs in."""
        gpus = self.task_gpus or 1  # of a slot
        return [
            ArrayUsage(
                self._monitor.open_tasks(batch) - (not host and self._is_host(batch)),
                batch.throttle,
                max(1, -(-batch.task_gpus // gpus)),
                self._monitor.held_tasks(batch) - (not host and self._is_host(batch)) if batch.reuse else 0,
            )
            for batch in self._state.live.values()
        ]

    def _is_host(self, batch: BatchState) -> bool:
        host = self._host
        return host is not None and host.batch == batch.name and self._monitor.is_open(batch, host.task)


class Cancellations:
    """Decides what the cluster is to cancel, by what the monitor has seen last."""

    def __init__(self, state: SweepState, monitor: JobMonitor) -> None:
        self._state = state
        self._monitor = monitor
        #: Tasks that this session cancelled, and runs that it told their workers to end, by batch.
        self._cancelled: set[TaskId] = set()
        self._stopped: set[tuple[str, RunId]] = set()

    def tasks_to_cancel(self) -> list[Cancel | StopRun]:
        """Cancel, once, tasks whose trials were all stopped; stop single runs of the other tasks.

        A task that runs although all its runs have ended is about to leave by itself.
        """
        effects: list[Cancel | StopRun] = []
        for (name, task), state in self._monitor.states.items():
            batch = self._state.live.get(name)
            if batch is None or not state.phase.active:
                continue
            runs = [run for run in batch.tasks[task] if run in batch.unfinished]
            stopped = [run for run in runs if self._state.trials[run.trial].stopped]
            if batch.reuse or len(stopped) < len(runs):
                effects += [StopRun(name, run) for run in stopped if (name, run) not in self._stopped]
            elif (runs or state.phase is Phase.PENDING) and TaskId(name, task) not in self._cancelled:
                effects.append(Cancel(name, (task,)))
        return effects

    def pending_to_cancel(self, tasks: Iterable[TaskId] | None = None) -> list[Cancel]:
        """Cancel, once, those of these tasks (None: of all) that have not started.

        Their runs wait until the sweep is resumed.
        """
        live = self._state.live
        if tasks is None:
            tasks = (TaskId(name, task) for name, batch in live.items() for task in range(len(batch.tasks)))
        pending: dict[str, list[int]] = {}
        for id_ in tasks:
            state = self._monitor.states.get(id_)
            shown = state is not None and state.phase is Phase.PENDING
            if shown and id_ not in self._cancelled and live[id_.batch].job is not None:
                pending.setdefault(id_.batch, []).append(id_.task)
        return [Cancel(name, tuple(indices), pending=True) for name, indices in pending.items()]

    def impossible_to_cancel(self) -> list[Cancel]:
        return [
            Cancel(name, tuple(tasks))
            for name, tasks in self._monitor.blocked.impossible.items()
            if name in self._state.live
        ]

    def all_to_cancel(self) -> list[Cancel]:
        names = [batch.name for batch in self._state.live.values() if batch.job is not None]
        batches = [self._monitor.submitted(name) for name in names]
        return [Cancel(batch.name, tuple(batch.open_tasks)) for batch in batches if batch.open_tasks]

    def tasks_to_release(self) -> list[Release]:
        """Release, once, the tasks that the cluster requeued and holds."""
        return [Release(name, tuple(tasks)) for name, tasks in self._monitor.blocked.held.items()]

    def pause(self, *, now: float) -> list[PauseRequested]:
        """Pause the sweep where tasks can never start."""
        impossible = self._monitor.blocked.impossible
        if not impossible or self._state.pausing is not None or self._state.stopping is not None:
            return []
        reason = self._state.live[next(iter(impossible))].blocked_reason
        return [PauseRequested(now, f"its jobs can never start ({reason}): fix the spec, then launch again")]

    def note(self, effect: Effect, result: EffectResult) -> None:
        if result.error is not None:
            return
        if isinstance(effect, StopRun):
            self._stopped.add((effect.batch, effect.run))
        elif isinstance(effect, Cancel):
            self._cancelled.update(TaskId(effect.batch, task) for task in effect.tasks)


class TickScheduler:
    """Makes sure that a detached sweep gets another tick once this driver, in its host's job, has left."""

    def __init__(self, state: SweepState, *, host_job: str = "") -> None:
        self._state = state
        self._host_job = host_job
        #: Ids and names of the user's jobs at the last poll; None: unknown.
        self.jobs: Mapping[str, str] | None = None
        #: Why the last tick job was not accepted, empty if it was.
        self.error = ""
        #: When this session submitted a job behind a batch.
        self._submitted_at: dict[str, float] = {}

    def behind_arrays(self, *, now: float, active: Container[str] = ()) -> Step:
        """A job behind each array that has none, or whose job is gone although the batch is `active`."""
        effects: list[SubmitTick] = []
        for batch in self._state.live.values():
            name = f"{batch.name}-tick"
            gone = batch.tick_job and batch.name in active and self._is_gone(batch.tick_job, name)
            if gone and now - self._submitted_at.get(batch.name, -LOOK_AGAIN_S) < LOOK_AGAIN_S:
                continue
            if batch.job is not None and (gone or not batch.tick_job):
                self._submitted_at[batch.name] = now
                effects.append(SubmitTick(name, now, batch=batch.name, after=batch.job))
        return Step(effects=tuple(effects))

    def later(self, *, soon: bool, now: float) -> Step:
        """A tick job after a while, unless another one runs by then; not `soon`: only as a safeguard."""
        delay_s = LOOK_AGAIN_S if soon else WATCH_S
        due = self._state.tick_due
        if now < due <= now + delay_s:
            waiting = [job for job, at in self._state.tick_jobs.items() if at == due]
            # The driver's own job may have begun before its time, by this machine's clock.
            over = [job == self._host_job or self._is_gone(job, self._name) for job in waiting]
            if not waiting or not all(over):
                self.error = ""
                return Step()
        return Step(effects=(SubmitTick(self._name, now + delay_s, delay_s),))

    def needs_attention(self, *, undecided: bool) -> bool:
        """Whether something is to be done soon that no job will trigger.

        A tick job behind an array runs once: the driver's own job may be it, or have followed it.
        """
        state = self._state
        if state.ended is not None:
            return False
        if undecided or state.stopping is not None or not state.live:
            return True
        return any(
            batch.job is None
            or batch.tick_job in ("", self._host_job)
            or self._is_gone(batch.tick_job, f"{batch.name}-tick")
            for batch in state.live.values()
        )

    def first(self, *, now: float) -> SubmitTick:
        """The first tick job: it shows that the cluster accepts such jobs."""
        return SubmitTick(self._name, now + LOOK_AGAIN_S, LOOK_AGAIN_S)

    def note(self, effect: Effect, result: EffectResult) -> None:
        if isinstance(effect, SubmitTick):
            self.error = "" if result.error is None else str(result.error)

    def _is_gone(self, job: str, name: str) -> bool:
        """Whether the queue was asked and shows neither this job nor one that followed it, as it failed.

        Those have its name, and nobody has recorded them. The driver's own job may be one.
        """
        if self.jobs is None or job in self.jobs:
            return False
        others = {self._host_job, *self._state.tick_ids}
        return all(other in others for other, known in self.jobs.items() if known == name)

    @property
    def _name(self) -> str:
        assert self._state.started is not None
        return f"{self._state.started.name}-{self._state.started.sweep}-tick"
