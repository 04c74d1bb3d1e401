"""`python -m hpcsweep.tick FOLDER`: drive a detached sweep on, from inside one of its jobs.

A task that has written its results (`--batch`) holds GPUs: it takes in what has come, and leaves
at once where another driver is at work. A job that only ticks, behind an array or after a while,
has time: it waits for its turn, and stays while something is to be done of which no job will tell.

Who meets a driver at work relies on it. So whoever ticks looks once more after it has let go: a
result that was written meanwhile may have nobody else. As little as possible is imported before
that is clear.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import socket
import sys
import time
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcsweep.bootstrap import use_utf8
from hpcsweep.core.events import AnyEvent, SweepDetached
from hpcsweep.core.state import SweepState
from hpcsweep.errors import ClusterUnavailable, FolderError, HeldError, HpcsweepError, SupersededError
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.journal.writer import Journal, holder
from hpcsweep.store.layout import Layout
from hpcsweep.worker.tick_process import MARK

if TYPE_CHECKING:
    from hpcsweep.driver import Driver
    from hpcsweep.session.target import Target
    from hpcsweep.spec import SweepSpec

#: A task goes on for so long while more and more results come; the others leave it to this one.
CATCH_UP_S: Final = 60.0
#: A job of its own stays for so long at most: less than its time limit.
STAY_S: Final = 600.0
#: After a failed tick of a task, where no tick job waits, one looks again so much later.
LATER_S: Final = 60.0
#: It looks so often whether another driver is done.
LOOK_S: Final = 3.0
_log = logging.getLogger(__name__)


def main(arguments: list[str], environ: MutableMapping[str, str] = os.environ) -> int:
    """Tick; 0 if it did or somebody else does, 1 if it could not, 2 if it was asked wrongly."""
    parser = argparse.ArgumentParser(prog="python -m hpcsweep.tick", description="Drive a detached sweep on.")
    parser.add_argument("folder", type=Path, help="the results folder")
    parser.add_argument("--batch", default="", help="the batch whose task this is, if it is one")
    parser.add_argument("--task", type=int, default=0, help="its array index")
    parser.add_argument("--job", default=environ.get("SLURM_JOB_ID", ""), help="its job id")
    request = parser.parse_args(arguments)
    layout = Layout(request.folder.resolve())
    who = f"{socket.gethostname()} {request.batch or 'tick'} {request.job}"
    logging.basicConfig(format=f"%(asctime)s {who}: %(message)s", level=logging.WARNING)
    environ.pop(MARK, None)  # jobs inherit the environment of those that submit them
    try:
        if request.batch:
            catch_up(layout, batch=request.batch, task=request.task, job=request.job)
        else:
            look_after(layout, job=request.job)
    except SupersededError:
        return 0
    except Exception as error:
        if isinstance(error, HpcsweepError | OSError):
            _log.error("%s", error)
        else:
            _log.exception("a fault in hpcsweep: %s: %s", type(error).__name__, error)
        # A tick job that fails is followed by another one (see cluster.slurm_guard), a task is not.
        if request.batch:
            _ensure_tick_job(layout, request.batch)
        return 1
    return 0


def catch_up(layout: Layout, *, batch: str = "", task: int = 0, job: str = "") -> None:
    """Take in what has come until nothing new does; leave at once where another driver is at work.

    Args:
        layout: The results folder.
        batch: Where this is a task: its batch, with its index there and its job id.
        task: See `batch`.
        job: See `batch`.
    """
    end = time.monotonic() + CATCH_UP_S
    while time.monotonic() < end:
        try:
            journal = _begin(layout)
        except HeldError:
            if holder(read_journal(layout)) is not None:
                return
            # Two that began at the same moment may both have had to give up.
            time.sleep(random.uniform(0.05, 0.5))
            continue
        if journal is None:
            return
        with _driver(layout, journal, batch=batch, task=task, job=job) as driver:
            while driver.tick() and driver.has_unread and time.monotonic() < end:
                pass
            driver.schedule_successor()
            driver.compact()
        _check_attended(driver)
        if driver.state.ended is not None or not driver.has_unread:
            return


def look_after(layout: Layout, *, job: str) -> None:
    """Drive as long as something is to be done of which no job will tell; wait for a driver at work.

    Args:
        layout: The results folder.
        job: This job.
    """
    end = time.monotonic() + STAY_S

    def leave_if_enough(driver: Driver) -> None:
        if not driver.needs_attention or time.monotonic() > end:
            raise _Enough

    while True:
        try:
            journal = _begin(layout)
            if journal is None:
                return
            with _driver(layout, journal, job=job) as driver:
                with contextlib.suppress(_Enough):
                    driver.run(leave_if_enough)
                driver.schedule_successor()
                driver.compact()
            _check_attended(driver)
            if driver.state.ended is not None or not driver.has_unread:
                return
        except HeldError:  # by one that may not live to see to it
            events = read_journal(layout).events
            if _seen_to(SweepState.replay(events), job):
                return
            if time.monotonic() > end:
                _look_again(layout, events)
                return
            time.sleep(LOOK_S)
        except ClusterUnavailable:
            if time.monotonic() > end:
                raise
            time.sleep(LOOK_S)


class UnattendedError(HpcsweepError):
    """The sweep would be left with no job that looks again."""


class _Enough(Exception):
    """A job has stayed for as long as it is needed, or may."""


def _begin(layout: Layout) -> Journal | None:
    """The journal, with this process as its driver; None if there is nothing to drive any more.

    Raises:
        HeldError: Another driver is at work.
        FolderError: It is no detached sweep.
    """
    journal = Journal.open(layout)
    state = SweepState.replay(journal.events)
    if state.detached is None:
        raise FolderError(f"{layout.root}: expected a detached sweep; see `hpcsweep launch --detach`")
    if state.ended is not None:
        return None
    journal.acquire()
    return journal


@contextlib.contextmanager
def _driver(
    layout: Layout, journal: Journal, *, batch: str = "", task: int = 0, job: str
) -> Iterator[Driver]:
    """The driver, once this process holds the journal; lets go of it at the end."""
    try:
        from hpcsweep.driver import HostTask
        from hpcsweep.session.session import open_sweep

        spec, place = _known(layout, journal.events)
        leaving = HostTask(batch, task, job)
        with open_sweep(spec, layout.root, place, journal=journal, leaving=leaving) as driver:
            yield driver
    finally:
        journal.release()


def _check_attended(driver: Driver) -> None:
    """Fail where no job could be submitted that looks again: what follows a failed tick then does.

    Raises:
        UnattendedError: None could.
    """
    if driver.unattended:
        raise UnattendedError(f"no job that looks again could be submitted: {driver.unattended}")


def _known(layout: Layout, events: Sequence[AnyEvent]) -> tuple[SweepSpec, Target]:
    """The spec as it was resolved, and the cluster that was chosen: on this node `auto` means another."""
    from hpcsweep.session.target import resolve_target
    from hpcsweep.spec import load_spec

    cluster = next(event.cluster for event in reversed(events) if isinstance(event, SweepDetached))
    spec = load_spec(layout.spec)
    return spec, resolve_target(spec, name=cluster)


def _look_again(layout: Layout, events: Sequence[AnyEvent]) -> None:
    """Have another job take this one's place; only who holds the journal could note it there."""
    from hpcsweep.driver.executor import submit_tick
    from hpcsweep.driver.tick_scheduler import TickScheduler

    cluster = _known(layout, events)[1].cluster
    submit_tick(cluster, layout, TickScheduler(SweepState.replay(events)).first(now=time.time()))


def _ensure_tick_job(layout: Layout, batch: str) -> None:
    """Submit a job that looks again, unless the queue shows that one of the sweep's waits or runs.

    What can be read decides how much of that is possible: a task must not fail for it.
    """
    try:
        events = read_journal(layout).events
        cluster = _known(layout, events)[1].cluster
        cluster.poll([])
        sweep = batch.rsplit("-", 2)[0]
        jobs = cluster.known_jobs or {}
        # By id where the site renames jobs; by name those that followed a job which failed.
        named = any(name.startswith(f"{sweep}-") and name.endswith("-tick") for name in jobs.values())
        if named or not SweepState.replay(events).tick_ids.isdisjoint(jobs):
            return
        job = cluster.submit_tick(f"{sweep}-tick", layout.root, delay_s=LATER_S)
        _log.warning("job %s looks again in %g s", job, LATER_S)
    except Exception as error:
        _log.error("no job that looks again could be submitted: %s", error)


def _seen_to(state: SweepState, job: str) -> bool:
    """Whether the driver at work may die from now on: some other job than this will tick after it."""
    if state.ended is not None:
        return True
    if state.stopping is not None or not state.live:
        return False
    return all(batch.job is not None and batch.tick_job not in ("", job) for batch in state.live.values())


if __name__ == "__main__":
    use_utf8()
    sys.exit(main(sys.argv[1:]))
