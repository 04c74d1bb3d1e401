"""Asks the queue, once, whether the jobs of a sweep live."""

from __future__ import annotations

import contextlib
import time
from typing import Final

from hpcsweep.cluster.backend import Queue, cluster_names, find_backend
from hpcsweep.core.state import SweepState
from hpcsweep.errors import ClusterUnavailable
from hpcsweep.store.journal.segments import LastSegment
from hpcsweep.store.layout import Layout
from hpcsweep.store.process_id import ProcessId
from hpcsweep.views.liveness import Liveness, clusters_to_ask, liveness

#: So long the queue is waited for.
QUEUE_S: Final = 10.0


def queue_of(state: SweepState, driver: ProcessId | None) -> Queue | None:
    """The queue that may show jobs of the sweep, None where there is none to be asked."""
    names = clusters_to_ask(state, driver)
    queues = (find_backend(name).queue() for name in names if name in cluster_names())
    return next((queue for queue in queues if queue is not None), None)


def ask_liveness(
    layout: Layout, state: SweepState, *, driver: ProcessId | None, tail: LastSegment
) -> Liveness:
    """Who drives the sweep, which has not ended; by one look at the queue where its jobs are to be there.

    Args:
        layout: The results folder.
        state: Of the sweep.
        driver: Of the journal, while it lives.
        tail: The end of the journal: whose user the jobs are, and its last sign of life.
    """
    jobs, unknown, silent_s = None, "", 0.0
    if driver is not None:
        with contextlib.suppress(OSError):
            silent_s = time.time() - tail.path.stat().st_mtime
    if (queue := queue_of(state, driver)) is not None:
        try:
            found = queue.jobs(tail.header.owner.user, timeout_s=QUEUE_S)
            jobs = {job.job: job for job in found}
        except ClusterUnavailable as error:
            unknown = str(error)
    return liveness(layout, state, driver=driver, silent_s=silent_s, jobs=jobs, unknown=unknown)
