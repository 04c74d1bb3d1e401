"""Submits what is to run, each run as a task of its own, within caps, budgets and submit limits."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    PauseRequested,
    RunId,
    RunRetried,
    TrialPromoted,
    TrialStopped,
)
from hpcsweep.driver.checkpoint_quota import CheckpointQuota
from hpcsweep.driver.compaction import CompactionManager
from hpcsweep.driver.config import SweepContext
from hpcsweep.driver.effects import (
    Committer,
    DiscardCheckpoints,
)
from hpcsweep.driver.job_control import Cancellations, ThrottleManager
from hpcsweep.driver.lifecycle import GpuBudget, exhausted_budget
from hpcsweep.driver.monitor import JobMonitor
from hpcsweep.driver.observer import Observer
from hpcsweep.driver.planner import Planner
from hpcsweep.driver.submitter import Submitter
from hpcsweep.errors import ClusterUnavailable, SpecError, SubmitLimited, SubmitRefused

#: How long to respect a limit learned from a refusal; then more is tried, for it may have been raised.
FIRST_PAUSE_S: Final = 30.0
LONGEST_PAUSE_S: Final = 600.0
#: A piece of an array gets an array of its own if it fills at least this share of the limit.
SHARE: Final = 8


@dataclass
class Submission:
    """Starts runs: has them decided, plans arrays, and submits these."""

    sweep: SweepContext
    committer: Committer
    observer: Observer
    monitor: JobMonitor
    planner: Planner
    cancellations: Cancellations
    throttle: ThrottleManager
    submitter: Submitter
    budget: GpuBudget
    quota: CheckpointQuota
    compaction: CompactionManager

    #: The driver leaves after this tick, and no other one comes at once.
    leaves: bool = False

    def __post_init__(self) -> None:
        self.backoff, state = SubmitBackoff(), self.sweep.state
        if state.submit_limit:
            tasks, others, at = state.submit_limit_hit
            self.backoff.refused(tasks, open_tasks=others, now=at)

    def hand_over(self) -> None:
        """Give runs to tasks that have begun; here each was submitted with its own."""

    def dismiss(self) -> None:
        """Have tasks leave that have no run: nothing will be given to them."""

    def run(self) -> None:
        """Start what there is to start; SubmitRefused if the cluster refused a batch: its runs wait."""
        self.committer.do(self.throttle.rethrottle())
        self.budget.task_gpus = self.throttle.task_gpus
        free, affordable = self.throttle.free, self._affordable
        new = max(0, free if affordable is None else min(free, affordable))
        events = self.decisions(new)
        events += self.submitter.stopped_while_waiting(events)
        if self.sweep.settings.resources.learns:  # what a run asks for depends on what it is
            self._commit_decisions(events)
            events = []
        runs = self.submitter.queue(events)
        if runs and not self.fits_max_gpus():
            runs = []
        planned = self._plan(runs[: self.allowed(len(runs), self._affordable)])
        self.before_decisions(events)
        self.committer.commit([*events, *planned])
        self.after_decisions(events)
        self.note_quota(new)
        while refused := self.submit(planned):
            self.backoff.refused(refused, open_tasks=self.throttle.open_tasks, now=self.sweep.now)
            planned = self._plan(self.submitter.queue()[: refused // 2])
            self.committer.commit(planned)

    def decisions(self, runs: int) -> list[AnyEvent]:
        """Decisions for so many runs that could begin, with those that wait and have room."""
        if not self.quota.limited:
            return self.planner.decide(max(0, runs - len(self.sweep.state.waiting)))
        waiting = len(self.submitter.queue())
        return self.planner.decide(max(0, runs - waiting), new=self.quota.room)

    def note_quota(self, runs: int) -> None:
        """Note what the quota of checkpoints holds back of so many runs that could have begun."""
        events = self.quota.events(
            free=runs,
            kept_back=self.planner.kept_back,
            removes=lambda: self.compaction.removes,
            now=self.sweep.now,
        )
        self.committer.commit(events)

    def _commit_decisions(self, events: Sequence[AnyEvent]) -> None:
        self.before_decisions(events)
        self.committer.commit(events)
        self.after_decisions(events)

    def before_decisions(self, events: Sequence[AnyEvent]) -> None:
        # A scheduler or the user changed their mind: checkpoints that are half removed are of no use.
        for event in events:
            if isinstance(event, TrialPromoted | RunRetried) and event.trial in self.sweep.state.dropping:
                self.committer.execute(DiscardCheckpoints(event.trial))

    def after_decisions(self, events: Sequence[AnyEvent]) -> None:
        if any(isinstance(event, TrialStopped) for event in events):
            self.committer.execute_all(self.cancellations.tasks_to_cancel())

    @property
    def _affordable(self) -> int | None:
        """How many tasks the budgets allow to be submitted now; None: any number."""
        affordable = self.budget.tasks_left(
            self.sweep.state, open_tasks=self.monitor.open_tasks, unbooked_gpu_s=self.monitor.unbooked_gpu_s
        )
        exhausted = exhausted_budget(self.sweep.state, self.sweep.settings, self.budget, now=self.sweep.now)
        return affordable if exhausted is None else 0  # runs may still be stopped

    def fits_max_gpus(self) -> bool:
        """Whether one task fits below `max_gpus`, by what the cluster says it will hold."""
        if not self.throttle.expected_gpus:
            with contextlib.suppress(ClusterUnavailable):
                self.throttle.expected_gpus = self.sweep.cluster.allocation_of(self.sweep.settings.shape).gpus
        self.budget.task_gpus = self.throttle.task_gpus
        most, each = self.sweep.settings.max_gpus, self.throttle.task_gpus
        if most is None or each <= most:
            return True
        reason = f"a task holds {each} GPUs, and cluster.max_gpus is {most}: raise it"
        self.committer.commit([PauseRequested(self.sweep.now, reason)])
        return False

    def allowed(self, wanted: int, affordable: int | None) -> int:
        """How many tasks to submit now: what budget and submit limits allow."""
        if affordable is not None:
            wanted = min(wanted, affordable)
        limit = None
        if wanted:
            try:
                limit = self.observer.limits.queued_tasks
            except ClusterUnavailable as error:
                self.committer.note_query("limits", str(error))
                return 0
            self.committer.note_query("limits")
        allowed = self.backoff.allowed(
            wanted=wanted,
            open_tasks=self.throttle.open_tasks,
            queued=self.sweep.cluster.queued_tasks,
            limit=limit,
            now=self.sweep.now,
        )
        # The tick job behind the array counts for the limit as well.
        detached = self.sweep.state.is_detached(self.sweep.settings.cluster)
        return max(allowed - 1, min(allowed, 1)) if detached and allowed < wanted else allowed

    def _plan(self, runs: Sequence[RunId]) -> list[BatchPlanned]:
        """Arrays of these runs for the slots that are free now: of arrays before, some may be accepted."""
        free = self.throttle.free
        if not runs or free <= 0:
            return []
        array_tasks = self.observer.limits.array_tasks
        self.sweep.journal.acquire()  # from now on its number is this driver's alone
        return self.submitter.plan(
            runs, segment=self.sweep.journal.number, free=free, array_tasks=array_tasks, now=self.sweep.now
        )

    def submit(self, planned: Sequence[BatchPlanned]) -> int:
        """Submit batches in order; the size of one that a submit limit refused, after which none is tried."""
        for index, batch in enumerate(planned):
            after = self.throttle.dependency
            submission = self.submitter.submission(batch, now=self.sweep.now, after=after)
            error = self.committer.execute(submission).error
            if error is None:
                self.backoff.accepted()
            elif isinstance(error, SubmitRefused | SpecError):
                limited = isinstance(error, SubmitLimited)
                self.committer.do(self.submitter.abandon(planned[index:], str(error), limited=limited))
                if not limited:
                    raise error
                return len(batch.tasks)
        return 0


class SubmitBackoff:
    """Submit limits: how many tasks may be submitted now, and when to try again after a refusal."""

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

        The user had `queued` tasks at the last poll, `open_tasks` of them ours, and may have `limit`.
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
