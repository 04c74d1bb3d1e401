"""Asks the queue, once, whether the jobs of a sweep live."""

from __future__ import annotations

import contextlib
import time
from typing import Final

from hpcsweep.cluster.slurm.queue import queued_jobs
from hpcsweep.core.state import SweepState
from hpcsweep.errors import ClusterUnavailable
from hpcsweep.store.journal.segments import LastSegment
from hpcsweep.store.layout import Layout
from hpcsweep.store.process_id import ProcessId
from hpcsweep.views.liveness import Liveness, QueuedJob, liveness, must_ask

#: So long squeue is waited for.
SQUEUE_S: Final = 10.0


def ask_liveness(
    layout: Layout, state: SweepState, *, driver: ProcessId | None, tail: LastSegment
) -> Liveness:
    """Who drives the sweep, which has not ended; by one squeue where its jobs are to be there.

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
    if must_ask(state, driver):
        try:
            found = queued_jobs(tail.header.owner.user, timeout_s=SQUEUE_S)
            jobs = {job[0]: QueuedJob(*job) for job in found}
        except ClusterUnavailable as error:
            unknown = str(error)
    return liveness(layout, state, driver=driver, silent_s=silent_s, jobs=jobs, unknown=unknown)
