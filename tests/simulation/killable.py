"""A driver that dies at any commit and any call of the cluster, as if by `kill -9`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from numpy.random import Generator

from hpcsweep.cluster.simulated.cluster import SimulatedCluster
from hpcsweep.core.cluster_protocol import Batch, Cluster, Limits, SubmittedBatch, TaskId, TaskState
from hpcsweep.core.events import AnyEvent
from hpcsweep.store.compaction import CompactionTask
from hpcsweep.store.journal import Journal
from hpcsweep.store.journal.segments import Commit, encode_line, read_journal
from hpcsweep.store.layout import Layout
from tests.doubles import InlineCompactor
from tests.simulation.file_faults import FileFaults


class Killed(BaseException):
    """The driver is no more."""


class KillSchedule:
    """Lets the driver die at random points.

    Args:
        rng: Draws them.
        kills: How often.
        gap: Points between two of them, on average.

    Attributes:
        dead: Between a death and the next driver.
    """

    def __init__(self, rng: Generator, *, kills: int, gap: int) -> None:
        self.dead = False
        self._rng = rng
        self._left = kills
        self._gap = gap
        self._due = self._draw()

    def _draw(self) -> int:
        return int(self._rng.geometric(1 / self._gap))

    def is_killed(self) -> bool:
        """Whether the driver dies here."""
        self._due -= 1
        if self._due or not self._left:
            return False
        self._left -= 1
        self._due = self._draw()
        self.dead = True
        return True

    def point(self) -> None:
        """It may die here.

        Raises:
            Killed: It does.
        """
        if self.is_killed():
            raise Killed

    def share(self) -> float:
        """A number between 0 and 1."""
        return float(self._rng.random())


class KillableJournal(Journal):
    """Dies before, in and after a commit; and lets nobody know that it is dead.

    Args:
        layout: The results folder.
        kills: When it dies.
        faults: Which file operations fail.
        committed: Called with the events of each commit that holds.
    """

    def __init__(
        self,
        layout: Layout,
        kills: KillSchedule,
        faults: FileFaults,
        *,
        committed: Callable[[Sequence[AnyEvent]], None],
    ) -> None:
        # Not by `open`: the driver that died is this very process, and so seems to live.
        super().__init__(layout, read_journal(layout))
        self._kills = kills
        self._faults = faults
        self._committed = committed

    def commit(self, events: Sequence[AnyEvent]) -> None:
        if self._kills.is_killed():
            if self._kills.share() < 0.5:
                with self._faults.elsewhere():
                    self._tear(events)
            raise Killed
        super().commit(events)
        with self._faults.elsewhere():
            self._committed(events)
        self._kills.point()

    def _tear(self, events: Sequence[AnyEvent]) -> None:
        """Leave a part of the line, as a write that was cut off."""
        self.acquire()
        line = encode_line(Commit(0.0, list(events)))
        os.write(self._fd, line[: int(self._kills.share() * len(line))])

    def release(self) -> None:
        if not self._kills.dead:
            super().release()
        elif self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class KillableCluster(Cluster):
    """The same site for all drivers, each of which may die before and after each call.

    Attributes:
        submitted: Every batch that the site was asked to take.
    """

    def __init__(self, site: SimulatedCluster, kills: KillSchedule, faults: FileFaults) -> None:
        self._faults = faults
        self.settle_s, self.grace_s, self.poll_s = site.settle_s, site.grace_s, site.poll_s
        self.start_up_s = site.start_up_s
        self.submitted: list[Batch] = []
        self._site = site
        self._kills = kills

    def submit(self, batch: Batch) -> str:
        self._kills.point()
        self.submitted.append(batch)
        with self._faults.elsewhere():
            job = self._site.submit(batch)
        self._kills.point()
        return job

    def find(self, name: str) -> str | None:
        self._kills.point()
        with self._faults.elsewhere():
            return self._site.find(name)

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        self._kills.point()
        with self._faults.elsewhere():
            return self._site.poll(live)

    def throttle(self, batch: SubmittedBatch, tasks: int) -> None:
        self._kills.point()
        with self._faults.elsewhere():
            self._site.throttle(batch, tasks)
        self._kills.point()

    def cancel(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        self._kills.point()
        with self._faults.elsewhere():
            self._site.cancel(batch, tasks)
        self._kills.point()

    def limits(self) -> Limits:
        return self._site.limits()

    @property
    def queued_tasks(self) -> int | None:
        return self._site.queued_tasks


class KillableCompactor(InlineCompactor):
    """The driver may die before and after each order is carried out."""

    def __init__(self, layout: Layout, kills: KillSchedule, faults: FileFaults) -> None:
        super().__init__(layout)
        self._kills = kills
        self._faults = faults

    def begin(self, order: CompactionTask) -> None:
        self._kills.point()
        with self._faults.elsewhere():  # in a process of its own
            super().begin(order)
        self._kills.point()


def ask(layout: Layout, verb: str) -> None:
    """Leave a request as another command does, under a name that is the same in each repetition."""
    layout.control.mkdir(exist_ok=True)
    (layout.control / f"0-{verb}.json").write_text(f'{{"verb": "{verb}", "at": 0, "user": "somebody"}}')
