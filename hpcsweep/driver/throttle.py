"""The cap on tasks at a time, over all live arrays: what is free, and who gets it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from hpcsweep.core.events import AnyEvent, BatchThrottled
from hpcsweep.core.models import BatchState
from hpcsweep.core.protocols import Cluster
from hpcsweep.core.state import SweepState
from hpcsweep.driver.cluster_messages import ClusterMessages
from hpcsweep.driver.config import DriverConfig, HostTask
from hpcsweep.driver.monitor import JobMonitor
from hpcsweep.driver.throttles import ArrayUsage, free_slots, lowered, raised
from hpcsweep.errors import ClusterUnavailable

#: Tasks at a time where nothing caps them: an endless scheduler would fill any number of slots.
MOST_TASKS: Final = 1000


class ThrottleManager:
    """Counts places by the throttles of the live arrays, and hands free ones from array to array.

    Args:
        state: Of the sweep.
        cluster: Where its batches run.
        settings: Its caps.
        following: Knows which tasks are open.
        leaving: The job that this driver runs in, if any.
        commit: Makes events true.
        words: Keeps what the cluster says.
        doubtful: Batches whose throttle on the cluster may differ from the one in the journal.
    """

    def __init__(
        self,
        state: SweepState,
        *,
        cluster: Cluster,
        settings: DriverConfig,
        following: JobMonitor,
        leaving: HostTask | None,
        commit: Callable[[Sequence[AnyEvent]], None],
        words: ClusterMessages,
        doubtful: set[str],
    ) -> None:
        self._state = state
        self._cluster = cluster
        self._settings = settings
        self._following = following
        self._leaving = leaving
        self._commit = commit
        self._words = words
        self._doubtful = doubtful
        #: What the cluster said that a task will hold; 0 while it was not asked.
        self.expected_gpus = 0

    @property
    def free(self) -> int:
        """Slots that a new array could take; that of the task which this driver runs in is one of them."""
        return free_slots(self._cap, self._shares(leaving=False))

    @property
    def open_tasks(self) -> int:
        """Tasks that may hold or take slots."""
        return sum(self._following.open_tasks(batch) for batch in self._state.live.values())

    @property
    def to_wait_for(self) -> str:
        """The task that this driver runs in, where the cap holds only once that has ended; else empty."""
        if self._leaving is None or not self._leaving.batch or free_slots(self._cap, self._shares()) >= 0:
            return ""
        return self._leaving.job

    def rethrottle(self) -> None:
        """Hand the slots of arrays that run out to arrays that could use them."""
        batches = list(self._state.live.values())
        shares = self._shares()
        over = free_slots(self._cap, shares) < 0
        throttles = lowered(self._cap, shares) if over else raised(self._cap, shares)
        for batch, throttle in zip(batches, throttles, strict=True):
            if batch.job is None:
                continue
            live = self._following.live(batch)
            try:
                if throttle > batch.throttle:  # counted before it holds, so that the cap always does
                    self._commit([BatchThrottled(batch.name, throttle)])
                    self._doubtful.add(batch.name)
                elif throttle < batch.throttle:
                    self._cluster.throttle(live, throttle)
                    self._words.answered("change")
                    self._commit([BatchThrottled(batch.name, throttle)])
                if batch.name in self._doubtful:
                    self._cluster.throttle(live, throttle)
                    self._words.answered("change")
                    self._doubtful.discard(batch.name)
            except ClusterUnavailable as error:
                self._words.failed("change", str(error))
                continue

    @property
    def task_gpus(self) -> int:
        """GPUs that a task of now holds at most, as far as is known."""
        asked = self._settings.shape.gpus
        return max(self.expected_gpus, self._state.held_gpus.get(asked, asked))

    @property
    def _cap(self) -> int:
        caps = [cap for cap in (self._settings.max_tasks, self._cluster.slots) if cap is not None]
        if self._settings.max_gpus is not None and self.task_gpus:
            caps.append(self._settings.max_gpus // self.task_gpus)
        return min(caps, default=MOST_TASKS)

    def _shares(self, *, leaving: bool = True) -> list[ArrayUsage]:
        """What the live batches may take, with or without the task that this driver runs in."""
        gpus = self.task_gpus or 1
        return [
            ArrayUsage(
                self._following.open_tasks(batch) - (not leaving and self._is_leaving(batch)),
                batch.throttle,
                max(1, -(-batch.task_gpus // gpus)),
            )
            for batch in self._state.live.values()
        ]

    def _is_leaving(self, batch: BatchState) -> bool:
        mine = self._leaving
        if mine is None or mine.batch != batch.name:
            return False
        return mine.task in self._following.live(batch).open_tasks
