"""Who ticks next where no process stays: small jobs behind each array, or after a time."""

from __future__ import annotations

import logging
from collections.abc import Container
from typing import Final

from hpcsweep.core.events import TickSubmitted
from hpcsweep.core.protocols import Cluster
from hpcsweep.core.state import SweepState
from hpcsweep.errors import ClusterError
from hpcsweep.store.layout import Layout

#: When to look again after what no job of ours will tell.
LOOK_AGAIN_S: Final = 60.0
#: And when to look where every job should tell.
WATCH_S: Final = 3600.0
_log = logging.getLogger(__name__)


class TickScheduler:
    """Sees to it that somebody ticks a detached sweep once this driver has left."""

    def __init__(self, state: SweepState, *, cluster: Cluster, layout: Layout) -> None:
        self._state = state
        self._cluster = cluster
        self._layout = layout
        #: When this session submitted a job behind a batch.
        self._replaced: dict[str, float] = {}
        #: Why the last job that was to tick was not taken, empty if it was.
        self.refused = ""

    def behind_arrays(self, *, now: float, active: Container[str] = ()) -> list[TickSubmitted]:
        """A job behind each array that has none, or whose job is gone from the queue before its time.

        Args:
            now: Unix time.
            active: Batches with tasks that wait or run: the jobs behind them cannot have started.
        """
        found: list[TickSubmitted] = []
        for batch in self._state.live.values():
            name = f"{batch.name}-tick"
            gone = batch.tick and batch.name in active and self._is_gone(batch.tick, name)
            if gone and now - self._replaced.get(batch.name, -LOOK_AGAIN_S) < LOOK_AGAIN_S:
                continue
            if batch.job is not None and (gone or not batch.tick):
                self._replaced[batch.name] = now
                found += self._call(name, now=now, batch=batch.name, after=batch.job)
        return found

    def _is_gone(self, job: str, name: str) -> bool:
        """Whether the queue was asked and shows neither this job nor one with its name."""
        jobs = self._cluster.jobs
        return jobs is not None and job not in jobs and name not in jobs.values()

    def later(self, *, soon: bool, now: float) -> list[TickSubmitted]:
        """A job that looks again, unless one does by then.

        Args:
            soon: Something is to be done that no job will tell of. If not, it only makes sure that
                somebody looks at all, whatever became of the jobs that were to tell.
            now: Unix time.
        """
        delay_s = LOOK_AGAIN_S if soon else WATCH_S
        due = self._state.tick_due
        if now < due <= now + delay_s:
            waiting = [job for job, at in self._state.tick_jobs.items() if at == due]
            if not waiting or not all(self._is_gone(job, self._name) for job in waiting):
                self.refused = ""
                return []
        return self._call(self._name, delay_s=delay_s, now=now)

    def first(self, *, now: float) -> TickSubmitted:
        """A job that looks in a while: it shows that the cluster takes such jobs.

        Raises:
            ClusterError: It does not.
        """
        job = self._cluster.call(self._name, self._layout.root, delay_s=LOOK_AGAIN_S)
        return TickSubmitted(job, now + LOOK_AGAIN_S)

    @property
    def _name(self) -> str:
        assert self._state.started is not None
        return f"{self._state.started.name}-{self._state.started.sweep}-tick"

    def _call(
        self, name: str, *, now: float, batch: str = "", after: str = "", delay_s: float = 0.0
    ) -> list[TickSubmitted]:
        try:
            job = self._cluster.call(name, self._layout.root, after=after, delay_s=delay_s)
        except ClusterError as error:  # finishing tasks tick as well, and the next tick tries again
            _log.warning("no job that ticks could be submitted: %s", error)
            self.refused = str(error)
            return []
        self.refused = ""
        return [TickSubmitted(job, now + delay_s, batch)]
