"""The part of a tick that starts runs: decide, plan arrays within caps, budgets and limits, submit them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from hpcsweep.core.cluster_protocol import Cluster
from hpcsweep.core.events import BatchPlanned, PauseRequested, RunId, TrialPromoted, TrialStopped
from hpcsweep.core.protocols import Clock
from hpcsweep.core.state import SweepState
from hpcsweep.driver.budgets import GpuBudget, exhausted_budget
from hpcsweep.driver.cancellations import Cancellations
from hpcsweep.driver.committer import Committer
from hpcsweep.driver.config import DriverConfig
from hpcsweep.driver.effects import DiscardCheckpoints
from hpcsweep.driver.monitor import JobMonitor
from hpcsweep.driver.observer import Observer
from hpcsweep.driver.planner import Planner
from hpcsweep.driver.submitter import SubmitBackoff, Submitter
from hpcsweep.driver.throttle import ThrottleManager
from hpcsweep.errors import ClusterUnavailable, SpecError, SubmitLimited, SubmitRefused
from hpcsweep.store.journal.writer import Journal


class Submission:
    """Commits what planner and submitter decide, and submits it.

    Args:
        state: Of the sweep, with all events so far.
    """

    def __init__(
        self,
        state: SweepState,
        *,
        settings: DriverConfig,
        journal: Journal,
        cluster: Cluster,
        clock: Clock,
        committer: Committer,
        observer: Observer,
        monitor: JobMonitor,
        planner: Planner,
        cancellations: Cancellations,
        throttle: ThrottleManager,
        submitter: Submitter,
        budget: GpuBudget,
    ) -> None:
        self._state = state
        self._settings = settings
        self._journal = journal
        self._cluster = cluster
        self._clock = clock
        self._committer = committer
        self._observer = observer
        self._monitor = monitor
        self._planner = planner
        self._cancellations = cancellations
        self._throttle = throttle
        self._submitter = submitter
        self._budget = budget
        self._backoff = SubmitBackoff()
        if state.submit_limit:
            tasks, others, at = state.submit_limit_hit
            self._backoff.refused(tasks, open_tasks=others, now=at)

    def run(self) -> None:
        """Start what there is to start.

        Raises:
            SubmitRefused: The cluster refused a batch, with this message. The runs wait.
        """
        per_task = self._settings.shape.runs
        self._budget.hold(self._throttle.task_gpus)
        free, affordable = self._throttle.free, self._affordable
        new = max(0, free if affordable is None else min(free, affordable))
        waiting = -(-len(self._state.waiting) // per_task)
        events = self._planner.decide(max(0, new - waiting) * per_task)
        events += self._submitter.stopped_while_waiting(events)
        runs = self._submitter.queue(events)
        if runs and not self._fits_max_gpus():
            runs = []
        free, affordable = self._throttle.free, self._affordable
        most = self._allowed(-(-len(runs) // per_task), affordable)
        planned = self._plan(runs[: most * per_task], free)
        # A scheduler changed its mind: checkpoints that are half removed are of no use.
        for event in events:
            if isinstance(event, TrialPromoted) and event.trial in self._state.dropping:
                self._committer.carry_out(DiscardCheckpoints(event.trial))
        self._committer.commit([*events, *planned])
        if any(isinstance(event, TrialStopped) for event in events):
            self._committer.carry_out_all(self._cancellations.tasks_to_cancel())
        while refused := self._submit(planned):
            self._backoff.refused(refused, open_tasks=self._throttle.open_tasks, now=self._clock.time())
            planned = self._plan(self._submitter.queue()[: refused // 2 * per_task], free)
            self._committer.commit(planned)

    @property
    def _affordable(self) -> int | None:
        """How many tasks the budgets allow to be submitted now; None: any number."""
        affordable = self._budget.tasks_left(
            self._state, open_tasks=self._monitor.open_tasks, unbooked_gpu_s=self._monitor.unbooked_gpu_s
        )
        exhausted = exhausted_budget(self._state, self._settings, self._budget, now=self._clock.time())
        return affordable if exhausted is None else 0  # runs may still be stopped

    def _fits_max_gpus(self) -> bool:
        """Whether one task fits below `max_gpus`, by what the cluster says it will hold."""
        if not self._throttle.expected_gpus:
            with contextlib.suppress(ClusterUnavailable):
                self._throttle.expected_gpus = self._cluster.allocation_of(self._settings.shape).gpus
        self._budget.hold(self._throttle.task_gpus)
        most, each = self._settings.max_gpus, self._throttle.task_gpus
        if most is None or each <= most:
            return True
        reason = f"a task holds {each} GPUs, and cluster.max_gpus is {most}: raise it"
        self._committer.commit([PauseRequested(self._clock.time(), reason)])
        return False

    def _allowed(self, wanted: int, affordable: int | None) -> int:
        """How many tasks to submit now: what budget and submit limits allow."""
        if affordable is not None:
            wanted = min(wanted, affordable)
        limit = None
        if wanted:
            try:
                limit = self._observer.limits.queued_tasks
            except ClusterUnavailable as error:
                self._committer.note_query("limits", str(error))
                return 0
            self._committer.note_query("limits")
        allowed = self._backoff.allowed(
            wanted=wanted,
            open_tasks=self._throttle.open_tasks,
            queued=self._cluster.queued_tasks,
            limit=limit,
            now=self._clock.time(),
        )
        # The tick job behind the array counts for the limit as well.
        detached = self._state.is_detached(self._settings.cluster)
        return max(allowed - 1, min(allowed, 1)) if detached and allowed < wanted else allowed

    def _plan(self, runs: Sequence[RunId], free: int) -> list[BatchPlanned]:
        if not runs:
            return []
        array_tasks = self._observer.limits.array_tasks
        if free > 0:
            self._journal.acquire()  # from now on its number is this driver's alone
        return self._submitter.plan(
            runs,
            segment=self._journal.number,
            free=free,
            array_tasks=array_tasks,
            time_s=self._budget.time_s,
            task_gpus=self._throttle.task_gpus,
            now=self._clock.time(),
        )

    def _submit(self, planned: Sequence[BatchPlanned]) -> int:
        """Submit batches in order; the size of one that a submit limit refused, after which none is tried.

        Raises:
            SubmitRefused: For another reason. The runs wait.
        """
        for index, batch in enumerate(planned):
            after = self._throttle.to_wait_for
            submission = self._submitter.submission(batch, now=self._clock.time(), after=after)
            error = self._committer.carry_out(submission).error
            if error is None:
                self._backoff.accepted()
            elif isinstance(error, SubmitRefused | SpecError):
                limited = isinstance(error, SubmitLimited)
                self._committer.do(self._submitter.abandon(planned[index:], str(error), limited=limited))
                if not limited:
                    raise error
                return len(batch.tasks)
        return 0
