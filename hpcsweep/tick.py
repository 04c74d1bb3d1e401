"""`python -m hpcsweep.tick FOLDER`: drive a detached sweep from inside one of its jobs.

A task that has written its results (`--batch`) holds GPUs: it takes in what has come, and leaves at
once if another driver is at work. A task that goes on (`--goes-on`) trains meanwhile: its tick stays for
some seconds, hands over runs as others end, and asks the cluster no oftener than all such ticks together
may. A job that only ticks, behind an array or after a while, waits for its turn, and stays while something
is to be done that no other job will report.

A task that meets a driver at work relies on it. So a driver looks once more after it has let go: a result
that was written meanwhile may have nobody else. Little is imported before that is clear.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcsweep.bootstrap import collect_seldom, use_utf8
from hpcsweep.core.events import AnyEvent
from hpcsweep.core.state import SweepState
from hpcsweep.errors import ClusterUnavailable, FolderError, HeldError, HpcsweepError, SupersededError
from hpcsweep.store.files import write_atomic
from hpcsweep.store.journal import Journal, current_driver, driver_at_work
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.worker.tick_process import LONGEST_S, TICK_VARIABLE

if TYPE_CHECKING:
    from hpcsweep.core.cluster_protocol import Cluster
    from hpcsweep.driver import Driver

#: A task ticks at most this long while results keep coming; the other tasks leave them to it.
TASK_S: Final = 60.0
#: A tick job stays at most this long: less than its time limit.
JOB_S: Final = 600.0
#: Delay of the job that follows the failed tick of a task, where no tick job waits.
RETRY_S: Final = 60.0
#: How often a tick job checks whether another driver is done.
CHECK_S: Final = 3.0
#: Time between two polls of the cluster by tasks that go on, over all of them.
POLL_S: Final = 5.0
#: A tick of a task that goes on stays so long at least while runs keep ending. With one poll more, it fits
#: into `TICK_NOTICE_S`, which a task that is told to stop leaves it.
STAY_S: Final = 4.0
#: Such a tick has nothing to wait for when nothing has come for so long.
QUIET_S: Final = 2.0
#: For how long ticks of such tasks let others take over after each of them: commands wait for their turn.
STAND_BACK_S: Final = 1.0
#: Time between two looks of it.
LOOK_S: Final = 0.5
_log = logging.getLogger(__name__)


def main(arguments: list[str], environ: MutableMapping[str, str] = os.environ) -> int:
    """Tick; 0 if it did or another driver does, 1 if it could not, 2 if the arguments are wrong."""
    parser = argparse.ArgumentParser(prog="python -m hpcsweep.tick", description="Drive a detached sweep.")
    parser.add_argument("folder", type=Path, help="the results folder")
    parser.add_argument("--batch", default="", help="the batch whose task this is, if it is one")
    parser.add_argument("--task", type=int, default=0, help="its array index")
    parser.add_argument("--goes-on", action="store_true", help="this task takes more runs afterwards")
    # Tick jobs that version 0.1 queued do not pass --job.
    parser.add_argument("--job", default=environ.get("SLURM_JOB_ID", ""), help="its job id")
    request = parser.parse_args(arguments)
    layout = Layout(request.folder.resolve())
    who = f"{socket.gethostname()} {request.batch or 'tick'} {request.job}"
    logging.basicConfig(format=f"%(asctime)s {who}: %(message)s", level=logging.WARNING)
    environ.pop(TICK_VARIABLE, None)  # jobs inherit the environment of those that submit them
    try:
        if request.batch:
            host = "" if request.goes_on else request.batch
            goes_on = request.goes_on
            tick_task(layout, batch=host, task=request.task, job=request.job, goes_on=goes_on)
        else:
            tick_job(layout, job=request.job)
    except Exception as error:
        if isinstance(error, HpcsweepError | OSError):
            _log.error("%s", error)
        else:
            _log.exception("a fault in hpcsweep: %s: %s", type(error).__name__, error)
        # A failed tick job is followed by another one (see cluster.slurm.tick_resubmission), a task is not.
        if request.batch:
            _ensure_tick_job(layout, request.batch)
        return 1
    return 0


def tick_task(
    layout: Layout, *, batch: str = "", task: int = 0, job: str = "", goes_on: bool = False
) -> None:
    """Tick until no more results come, in this task if any; leave at once if another driver is at work.

    With `goes_on` it costs no GPU: the tick may stay for some seconds.
    """
    deadline = time.monotonic() + TASK_S
    while time.monotonic() < deadline:
        if driver_at_work(layout) is not None:
            return
        if goes_on:
            _stand_back(layout)
        try:
            journal = _acquire(layout)
        except HeldError:
            if current_driver(read_journal(layout)) is not None:
                return
            # Two that began at the same moment may both have had to give up.
            time.sleep(random.uniform(0.05, 0.5))
            continue
        if journal is None:
            return
        try:
            with _open(layout, journal, batch=batch, task=task, job=job) as driver:
                if goes_on:
                    _stay(driver)
                elif not _look_is_enough(driver):
                    note_poll(layout)
                    while driver.tick() and driver.has_unread and time.monotonic() < deadline:
                        pass
                driver.schedule_successor()
                driver.compact()
        except SupersededError:  # by a driver that may not live to do it
            continue
        _check_attended(driver)
        if driver.state.ended is not None or not driver.has_unread:
            return


def leave_at_once(*_: object) -> None:
    """As a handler of SIGTERM: end as by a kill, but let go of the journal, so that another driver can go on.

    Nothing is submitted any more: whoever cancels all jobs of a sweep means it.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit


def _stay(driver: Driver) -> None:
    """Hand over runs as others end, without asking the cluster; after a change tick in full, in its time."""
    began = heard_at = time.monotonic()
    changed = owes = False
    first = True
    while driver.state.ended is None:
        if (first or owes) and _poll_is_due(driver.layout):
            note_poll(driver.layout)
            changed, owes = driver.tick(), False
        elif first or driver.has_unread:
            changed = driver.look()
            owes = owes or changed or driver.has_unread
        first, now = False, time.monotonic()
        if changed:
            heard_at, changed = now, False
        over = now - began > STAY_S or now - heard_at > QUIET_S
        if (over and not owes) or now - began > STAY_S + POLL_S:
            return
        time.sleep(LOOK_S)


def _look_is_enough(driver: Driver) -> bool:
    """Whether a task that leaves has only looked, as the cluster was asked just now: others do the rest.

    They are the tasks that go on and, where nothing is left to start, the tick job behind the array.
    """
    batches = driver.state.live.values()
    if _poll_is_due(driver.layout) or not any(batch.starts for batch in batches):
        return False
    driver.look()
    others = any(start.left is None for batch in batches for start in batch.starts.values())
    return others or (driver.scheduler.done and not driver.state.waiting)


def _poll_is_due(layout: Layout) -> bool:
    """Whether no tick has asked the cluster for a while."""
    try:
        return not 0.0 <= time.time() - layout.last_poll.stat().st_mtime < POLL_S
    except OSError:
        return True


def note_poll(layout: Layout) -> None:
    """The cluster is asked now: ticks beside training need not ask it for a while."""
    now = time.time()
    with contextlib.suppress(OSError):
        write_atomic(layout.last_poll, b"")
        os.utime(layout.last_poll, (now, now))


def _stand_back(layout: Layout) -> None:
    """Wait while the journal was written a moment ago, so that commands get their turn."""
    with contextlib.suppress(OSError):
        newest = max(entry.stat().st_mtime for entry in os.scandir(layout.journal))
        left_s = newest + STAND_BACK_S - time.time()
        time.sleep(min(max(0.0, left_s), STAND_BACK_S))


def tick_job(layout: Layout, *, job: str) -> None:
    """Drive while something is to be done that no other job will report; wait for a driver at work."""
    began = time.monotonic()
    deadline = began + JOB_S
    #: When to leave what is to be done to another job. The tick of a task may count on this one.
    leave_at = began + LONGEST_S

    def leave_when_done(driver: Driver) -> None:
        note_poll(layout)
        if not driver.needs_attention or time.monotonic() > deadline:
            raise _Done

    if not _poll_is_due(layout):
        time.sleep(POLL_S)
    while True:
        try:
            if driver_at_work(layout) is not None:
                raise HeldError(f"{layout.root}: another driver is at work")
            journal = _acquire(layout)
            if journal is None:
                return
            with _open(layout, journal, job=job) as driver:
                with contextlib.suppress(_Done):
                    driver.run(leave_when_done)
                driver.schedule_successor()
                driver.compact()
            _check_attended(driver)
            if driver.state.ended is not None or not driver.has_unread:
                return
        except (HeldError, SupersededError):
            # That driver may not live to do what is to be done.
            if time.monotonic() > leave_at:
                events = read_journal(layout).events
                if _has_successor(layout, events, job):
                    return
                if time.monotonic() > deadline:
                    _submit_successor(layout, events)
                    return
                leave_at = deadline
            time.sleep(CHECK_S)
        except ClusterUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(CHECK_S)


def finish_unread(driver: Driver) -> None:
    """Take in what came for a detached sweep while its driver let go: nobody else may."""
    if driver.state.detached is not None and driver.state.ended is None and driver.has_unread:
        tick_task(driver.layout)


def _has_successor(layout: Layout, events: Sequence[AnyEvent], job: str) -> bool:
    """Whether another job than this will tick after the driver at work, should that die from now on.

    The queue has to show it: this job may be the one that follows it, as it failed, or it may be cancelled.
    """
    state = SweepState.replay(events)
    if state.ended is not None:
        return True
    ids = {batch.tick_job for batch in state.live.values() if batch.job is not None}
    if state.stopping is not None or not ids or len(ids) < len(state.live) or ids & {"", job}:
        return False
    cluster = _cluster(layout, events)
    cluster.poll([])
    return ids <= (cluster.known_jobs or {}).keys()


class UnattendedError(HpcsweepError):
    """The sweep would be left without a job that ticks again."""


class _Done(Exception):
    """A tick job has stayed as long as it is needed, or may."""


def _acquire(layout: Layout) -> Journal | None:
    """The journal, held by this process; None if there is nothing left to drive."""
    journal = Journal.open(layout)
    state = SweepState.replay(journal.events)
    if state.detached is None:
        raise FolderError(f"{layout.root}: expected a detached sweep; see `hpcsweep launch --detach`")
    if state.ended is not None:
        return None
    journal.acquire()
    return journal


@contextlib.contextmanager
def _open(layout: Layout, journal: Journal, *, batch: str = "", task: int = 0, job: str) -> Iterator[Driver]:
    """A driver on this journal, which is released at the end."""
    try:
        from hpcsweep.driver import HostTask
        from hpcsweep.session.session import Session

        session = Session.for_tick(layout, journal.events)
        with session.open(journal=journal, host_task=HostTask(batch, task, job)) as driver:
            yield driver
    finally:
        journal.release()


def _check_attended(driver: Driver) -> None:
    """UnattendedError if no job could be submitted that ticks again: then what follows a failed tick does."""
    if driver.unattended:
        raise UnattendedError(f"no job that looks again could be submitted: {driver.unattended}")


def _cluster(layout: Layout, events: Sequence[AnyEvent]) -> Cluster:
    from hpcsweep.session.session import Session

    return Session.for_tick(layout, events).target.cluster


def _submit_successor(layout: Layout, events: Sequence[AnyEvent]) -> None:
    """Submit a job in place of this one; only the holder of the journal could record it."""
    from hpcsweep.driver.effects import submit_tick
    from hpcsweep.driver.job_control import TickScheduler

    call = TickScheduler(SweepState.replay(events)).first(now=time.time())
    submit_tick(_cluster(layout, events), layout, call)


def _ensure_tick_job(layout: Layout, batch: str) -> None:
    """Submit a job that ticks again, unless the queue shows one that does soon; errors are only logged."""
    try:
        events = read_journal(layout).events
        cluster = _cluster(layout, events)
        cluster.poll([])
        name = f"{batch.rsplit('-', 2)[0]}-tick"
        if _ticks_soon(SweepState.replay(events), cluster.known_jobs or {}, name):
            return
        job = cluster.submit_tick(name, layout.root, delay_s=RETRY_S)
        _log.warning("job %s looks again in %g s", job, RETRY_S)
    except Exception as error:
        _log.error("no job that looks again could be submitted: %s", error)


def _ticks_soon(state: SweepState, jobs: Mapping[str, str], name: str) -> bool:
    """Whether one of these jobs of the user ticks soon, and not only when an array ends or in an hour."""
    recorded = state.tick_ids & jobs.keys()
    if not all(jobs[job].endswith("-tick") for job in recorded):
        return True  # the site renames jobs: what this function submitted before cannot be told
    soon = time.time() + RETRY_S
    if any(state.tick_jobs.get(job, math.inf) <= soon for job in recorded):
        return True
    # Nobody records what it submits, nor what follows a job that failed.
    return any(known == name and job not in recorded for job, known in jobs.items())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave_at_once)
    use_utf8()
    collect_seldom()
    sys.exit(main(sys.argv[1:]))
