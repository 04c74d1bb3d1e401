"""How many tasks run and are submitted at a time: caps, throttles, submit limits. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from hpcsweep.core.events import BatchThrottled
from hpcsweep.core.models import BatchState
from hpcsweep.core.state import SweepState
from hpcsweep.driver.config import DriverConfig, HostTask
from hpcsweep.driver.effects import Effect, EffectResult, Step, Throttle
from hpcsweep.driver.monitor import JobMonitor

#: Tasks at a time where nothing caps them: an endless scheduler would fill any number of slots.
MOST_TASKS: Final = 1000
#: How long to respect a limit learned from a refusal; then more is tried, for it may have been raised.
FIRST_PAUSE_S: Final = 30.0
LONGEST_PAUSE_S: Final = 600.0
#: A piece of an array gets an array of its own if it fills at least this share of the limit.
SHARE: Final = 8


class ArrayUsage(NamedTuple):
    """One live array: tasks that may still run, and how many of them at a time.

    A task takes more than one of the `slots` where it asks for more GPUs than a task of now, because
    the resources were changed since it was submitted.
    """

    open: int
    throttle: int
    slots: int = 1

    @property
    def running(self) -> int:
        """Tasks that it may have running at this moment."""
        return min(self.open, self.throttle)

    @property
    def used(self) -> int:
        """Slots that it may take at this moment."""
        return self.running * self.slots


def free_slots(cap: int, usages: Sequence[ArrayUsage]) -> int:
    """Slots that could be taken beyond what may be taken now; negative where too many may be."""
    return cap - sum(usage.used for usage in usages)


def raise_throttles(cap: int, usages: Sequence[ArrayUsage]) -> list[int]:
    """New throttles that hand free slots to arrays with more open tasks, oldest first.

    Only what is free is handed out, so that at no moment more than `cap` slots may be taken.
    """
    free = free_slots(cap, usages)
    throttles = []
    for usage in usages:
        more = max(0, min(free // usage.slots, usage.open - usage.throttle))
        free -= more * usage.slots
        throttles.append(usage.throttle + more)
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
    """Counts the slots taken by the live arrays, and hands free ones from array to array.

    The throttle of `unconfirmed` batches on the cluster may differ from the one in the journal.

    Attributes:
        cluster_slots: Tasks that the cluster runs at a time; None where that is not fixed.
        expected_gpus: GPUs that a task will hold as the cluster says; 0 before it was asked.
    """

    def __init__(
        self,
        state: SweepState,
        *,
        settings: DriverConfig,
        monitor: JobMonitor,
        host: HostTask | None = None,
        unconfirmed: Iterable[str] = (),
    ) -> None:
        self._state = state
        self._settings = settings
        self._monitor = monitor
        self._host = host
        self._unconfirmed = set(unconfirmed)
        self.cluster_slots: int | None = None
        self.expected_gpus = 0

    @property
    def free(self) -> int:
        """Slots that a new array could take, that of the task which this driver runs in included."""
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
        requested = self._settings.shape.gpus
        return max(self.expected_gpus, self._state.held_gpus.get(requested, requested))

    def rethrottle(self) -> Step:
        """Hand the slots of arrays that run out to arrays that could use them.

        A higher throttle is in the journal before it holds on the cluster, a lower one after: so the
        journal never counts fewer tasks than may run.
        """
        usages = self._usages()
        over = free_slots(self._cap, usages) < 0
        throttles = lower_throttles(self._cap, usages) if over else raise_throttles(self._cap, usages)
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
    def _cap(self) -> int:
        caps = [cap for cap in (self._settings.max_tasks, self.cluster_slots) if cap is not None]
        if self._settings.max_gpus is not None and self.task_gpus:
            caps.append(self._settings.max_gpus // self.task_gpus)
        return min(caps, default=MOST_TASKS)

    def _usages(self, *, host: bool = True) -> list[ArrayUsage]:
        """What the live batches may take, with or without the task that this driver runs in."""
        gpus = self.task_gpus or 1
        return [
            ArrayUsage(
                self._monitor.open_tasks(batch) - (not host and self._is_host(batch)),
                batch.throttle,
                max(1, -(-batch.task_gpus // gpus)),
            )
            for batch in self._state.live.values()
        ]

    def _is_host(self, batch: BatchState) -> bool:
        host = self._host
        return host is not None and host.batch == batch.name and self._monitor.is_open(batch, host.task)


class SubmitBackoff:
    """Submit limits: how many tasks may be submitted now, and when to try again after a refusal.

    Remembers the refusals of this session; a new one simply tries.
    """

    def __init__(self) -> None:
        #: How many of ours fit, as far as refusals tell; None before any.
        self._most: int | None = None
        self._until = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._accepted = False

    def allowed(
        self, *, wanted: int, open_tasks: int, queued: int | None, limit: int | None, now: float
    ) -> int:
        """How many of the `wanted` tasks to submit now.

        `queued` tasks of the user waited or ran when we last looked, and the site allows `limit`; None
        where unknown. `open_tasks` of them are ours.
        """
        bounds = []
        if limit:  # a limit of 0 is reported by the refusal
            # Without tasks of ours there was no recent poll: the count of the others is stale.
            bounds.append((limit, queued if queued is not None and open_tasks else open_tasks))
        # A time further ahead comes from a clock that has been set back since.
        if self._most is not None and 0 < self._until - now <= LONGEST_PAUSE_S:
            bounds.append((self._most, open_tasks))
        allowed = wanted
        for most, taken in bounds:
            free = most - taken
            if open_tasks and free < min(wanted, most // SHARE):
                return 0
            allowed = min(allowed, free)
        return max(0, allowed)

    def refused(self, tasks: int, *, open_tasks: int, now: float) -> None:
        """An array of `tasks` tasks was refused while `open_tasks` of ours were there."""
        if now >= self._until:  # nothing was known, or it was tried again
            again = now < self._until + LONGEST_PAUSE_S and not self._accepted
            self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s) if again else FIRST_PAUSE_S
            self._accepted = False
        self._most, self._until = open_tasks + tasks - 1, now + self._pause_s

    def accepted(self) -> None:
        """An array was accepted: the pause after the next refusal is the first one again."""
        self._accepted = True
