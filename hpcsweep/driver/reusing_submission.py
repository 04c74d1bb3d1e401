"""Submits tasks that keep their GPUs, as many as could be busy, and hands runs over to them."""

from __future__ import annotations

import math
import statistics
from typing import Any, Final

from hpcsweep.core.batches import BatchState
from hpcsweep.driver.assigner import Assigner
from hpcsweep.driver.job_control import MOST_TASKS
from hpcsweep.driver.lifecycle import exhausted_budget
from hpcsweep.driver.submission import Submission

#: An array has at most so many tasks for each that may run at a time: one after another takes its place.
GENERATIONS: Final = 4
#: Where tasks wait in the queue for less than that, nothing waits in advance; in seconds.
QUICK_S: Final = 30.0


class ReusingSubmission(Submission):
    """Gives runs to the tasks that are there, and submits as many tasks as could be busy."""

    def __init__(self, assigner: Assigner, *parts: Any) -> None:
        super().__init__(*parts)
        self.assigner = assigner
        self._first = True

    def run(self) -> None:
        self.hand_over(surplus=self.throttle.surplus)
        runs, lanes = self._startable, self.sweep.settings.shape.lanes
        held_back = self.quota.refuses or self.planner.kept_back
        # No task need ask for a trial that the budget does not allow.
        if not (runs or held_back or self.planner.done):
            self.committer.commit(self.planner.decide(1, new=self.quota.room))
        self.committer.do(self.throttle.rethrottle(-(-(self.assigner.busy + runs) // lanes)))
        if self.quota.limited:
            free = self.throttle.free * lanes + len(self.assigner.free_tasks(now=self.sweep.now))
            affordable = self._affordable_tasks
            self.note_quota(free if affordable is None else min(free, affordable * lanes))
        self._submit_tasks(runs, lanes=lanes)
        if self.leaves:
            self.hand_over()

    def hand_over(self, *, surplus: int = 0) -> None:
        """Give runs to tasks that are free, and tell those to leave that nothing is left for.

        So many tasks as `surplus` says hold GPUs beyond the cap.
        """
        now, state = self.sweep.now, self.sweep.state
        if self._first:  # the session before may have been killed between commit and file
            self._first = False
            self.committer.execute_all(self.assigner.all_assigned())
        self.budget.task_gpus = self.throttle.task_gpus
        self.budget.short_s = self._short_s
        affordable, time_s = self._affordable_runs
        free = self.assigner.free_tasks(now=now, leaves=self.leaves)
        free = free if affordable is None else free[:affordable]
        events = self.decisions(len(free))
        events += self.submitter.stopped_while_waiting(events)
        assigned = self.assigner.assign(self.submitter.queue(events), free, now=now, time_s=time_s)
        self.before_decisions(events)
        self.committer.commit([*events, *assigned])
        for event in assigned:
            self.committer.execute_all(self.assigner.hand_over(event))
        self.after_decisions(events)
        wanted = affordable != 0 and not (self.planner.done and not state.waiting)
        self._give_back(wanted=wanted, surplus=surplus)

    def dismiss(self) -> None:
        self._give_back(wanted=False)

    def _give_back(self, *, wanted: bool, surplus: int = 0) -> None:
        """Cancel tasks that wait for nothing, before those leave whose place they would take."""
        useless = self.assigner.useless(wanted=wanted)
        self.committer.execute_all(self.cancellations.pending_to_cancel(useless))
        leaving = self.assigner.to_leave(wanted=wanted, now=self.sweep.now, surplus=surplus)
        self.committer.execute_all(leaving)

    @property
    def _startable(self) -> int:
        """Runs that tasks could be given beside those that they have, as far as it matters."""
        cap = self.throttle.cap
        most = MOST_TASKS if cap is None else GENERATIONS * cap
        waiting = len(self.submitter.queue())
        most *= self.sweep.settings.shape.lanes
        return waiting + self.planner.count(most - waiting, new=self.quota.room)

    def _submit_tasks(self, runs: int, *, lanes: int) -> None:
        """Submit as many tasks more as could be busy with these runs, and some that take their place.

        Raises:
            SubmitRefused: The cluster refused a batch, with this message.
        """
        coming = self.assigner.coming
        tasks = min(self.throttle.free, -(-runs // lanes) - coming)
        if tasks <= 0 or not self.fits_max_gpus():
            return
        affordable = self._affordable_tasks
        most = self.allowed(tasks, affordable)
        if most == tasks and (spares := self._spares(runs, lanes=lanes) - coming - tasks) > 0:
            most = max(most, self.allowed(tasks + spares, affordable))
        while most > 0:
            self.sweep.journal.acquire()
            planned = self.submitter.plan_tasks(
                min(tasks, most),
                spares=max(0, most - tasks),
                segment=self.sweep.journal.number,
                limits=self.observer.limits,
                now=self.sweep.now,
            )
            self.committer.commit(planned)
            refused = self.submit(planned)
            if refused:
                self.backoff.refused(refused, open_tasks=self.throttle.open_tasks, now=self.sweep.now)
            most = refused // 2

    def _spares(self, runs: int, *, lanes: int) -> int:
        """How many tasks more the work takes, where the place of one that ends would wait in the queue anew.

        Those beyond the throttle wait in advance, and one begins whenever another has ended, within the cap.
        """
        limit_s, cap, settings = self.sweep.settings.shape.time_s, self.throttle.cap, self.sweep.settings
        waits = self.sweep.state.queue_waits
        quick = bool(waits) and statistics.median(waits) < QUICK_S
        # A hard budget counts what each task may take before it is told that there is nothing left.
        if limit_s is None or cap is None or quick or self.leaves or self.budget.cap_s is not None:
            return 0
        run_s = self.assigner.longest_run_s or settings.run.time_s or limit_s
        work_s = (runs + self.assigner.busy) * run_s - self.assigner.time_left_s(now=self.sweep.now)
        return min(math.ceil(work_s / (limit_s * lanes)), GENERATIONS * cap) - self.assigner.spares

    @property
    def _short_s(self) -> int:
        """A limit that runs are expected to keep, in seconds; 0 while none has ended."""
        return 0 if self.assigner.longest_run_s is None else math.ceil(self.assigner.expected_run_s)

    @property
    def _affordable_runs(self) -> tuple[int | None, int]:
        """How many runs the budgets allow to be given to tasks now, and with which limit; see `GpuBudget`."""
        runs, time_s = self.budget.runs_left(self.sweep.state, reserved_gpu_s=self._reserved)
        exhausted = exhausted_budget(self.sweep.state, self.sweep.settings, self.budget, now=self.sweep.now)
        return (runs, time_s) if exhausted is None else (0, 0)

    @property
    def _affordable_tasks(self) -> int | None:
        """How many tasks more the budgets allow, each with a run; None: any number."""
        exhausted = exhausted_budget(self.sweep.state, self.sweep.settings, self.budget, now=self.sweep.now)
        coming = self.assigner.coming
        tasks = self.budget.reused_tasks_left(self.sweep.state, reserved_gpu_s=self._reserved, coming=coming)
        return tasks if exhausted is None else 0

    def _reserved(self, batch: BatchState) -> float:
        return self.monitor.reserved_gpu_s(
            batch, now=self.sweep.now, run_s=self.budget.run_s, idle_s=self.budget.idle_s
        )
