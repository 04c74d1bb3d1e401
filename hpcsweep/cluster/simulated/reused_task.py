"""A task of a simulated site that keeps its GPUs and does the runs that it is given."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import msgspec

from hpcsweep.cluster.simulated.task import ArrayContext, Task, Training
from hpcsweep.core.events import Interruption
from hpcsweep.store.assignments import StartId, TaskDeparture, TaskStart, announce, read_assignment
from hpcsweep.store.batch import Reuse


class ReusedTask(Task):
    """Begins each run a moment after it was assigned; leaves after a while without one, or when told to."""

    def __init__(
        self,
        shared: ArrayContext,
        index: int,
        ended: Callable[[Task], None],
        *,
        reuse: Reuse,
        hand_over_s: float,
    ) -> None:
        super().__init__(shared, index, [], ended)
        self._idle_s = reuse.idle_s
        self._hand_over_s = hand_over_s
        self._ends = math.inf
        self._coming = False
        #: Whether it takes runs, and since when it has had none.
        self._announced = False
        self._idle_since: float | None = None

    @property
    def draws(self) -> tuple[int, ...]:
        return int(self._shared.job), self.index

    @property
    def _id(self) -> StartId:
        return StartId(self.index, self.restart)

    def start(self, node: int, name: str, *, ends: float = math.inf) -> None:
        self.node, self._name, self.began, self._ends = node, name, self._shared.clock.time(), ends
        self.runs.clear()
        self._coming = self._announced = False
        if not self._shared.files.manifest.exists() or self._shared.files.abandoned_marker.exists():
            self._shared.clock.at(self.began, self._leave)
            return
        # A worker takes a moment to begin.
        self._shared.clock.at(self.began + self._hand_over_s, functools.partial(self._announce, self.restart))

    def _announce(self, restart: int) -> bool:
        if self.node is None or self.restart != restart:
            return False
        job = f"{self._shared.job}_{self.index}"
        ends = self._ends if math.isfinite(self._ends) else None
        announce(self._shared.files, self._id, TaskStart(job, self._name, self.began, ends), durable=False)
        self._announced = True
        self._go_on()
        return True

    @property
    def waits(self) -> bool:
        """Whether it would begin a run."""
        return self._announced and not self._coming and len(self._going) < self._shared.header.lanes

    def look(self, names: frozenset[str]) -> None:
        """See whether the driver has given it a run, or told it to leave; `names` are the driver's files."""
        number = len(self.runs)
        if f"{self.index}.{self.restart}.{number}.json" in names:
            self._coming = True
            at = self._shared.clock.time() + self._hand_over_s
            self._shared.clock.at(at, functools.partial(self._take, self.restart))
        elif not self._going and not names.isdisjoint(self._leave_names):
            self._shared.clock.at(self._shared.clock.time(), functools.partial(self._depart, self.restart))

    @property
    def _leave_names(self) -> tuple[str, str]:
        name = f"{self.index}.{self.restart}.leave"
        return name, f"{name}-now"

    def _take(self, restart: int) -> bool:
        if self.node is None or self.restart != restart or not self._coming:
            return False
        self._coming, self._idle_since = False, None
        assignment = read_assignment(self._shared.files, self._id, len(self.runs))
        self.runs.append(assignment.run)
        n = len(self.runs) - 1
        training = self._begin(n)
        if assignment.time_s is not None and training.ends > training.began + assignment.time_s:
            stop = functools.partial(self._time_out, n, training)
            self._shared.clock.at(training.began + assignment.time_s, stop)
        return False

    def _time_out(self, n: int, training: Training) -> bool:
        if self._going.get(n) is not training:
            return False
        step = self._shared.trainings.leave(training, self._shared.clock.time())
        message = f"told to stop at step {step} of {training.run.resource}"
        result = self._result(n, training, step=step, message=message)
        self._write(n, msgspec.structs.replace(result, interrupted=Interruption.TIMEOUT))
        self._run_ended(n)
        return True

    def _go_on(self) -> None:
        """Wait for a run, for a while if it has none."""
        if self._going:
            return
        now = self._idle_since = self._shared.clock.time()
        expire = functools.partial(self._expire, self.restart, now)
        self._shared.clock.at(now + self._idle_s, expire)

    def _expire(self, restart: int, since: float) -> bool:
        if self._idle_since != since or self._coming:
            return False
        return self._depart(restart)

    def _depart(self, restart: int) -> bool:
        if (
            self.node is None
            or self.restart != restart
            or self._idle_since is None
            or self._coming
            or self._going
        ):
            return False
        self._tell_departure()
        return self._leave()

    def _tell_departure(self) -> None:
        departure = TaskDeparture(len(self.runs), at=self._shared.clock.time())
        announce(self._shared.files, self._id, departure, durable=False)

    def interrupt(self) -> None:
        if not self._shared.files.root.exists():
            return
        self._tell_departure()
        super().interrupt()

    def _clear(self) -> None:
        super()._clear()
        self._coming = self._announced = False
        self._idle_since = None
