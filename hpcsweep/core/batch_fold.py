"""What events change of batches, their tasks and which runs they have; the part of `SweepState` for them."""

from __future__ import annotations

from hpcsweep.core.batches import AssignedRun, BatchState, StartedTask
from hpcsweep.core.events import (
    BatchAbandoned,
    BatchBlocked,
    BatchClosed,
    BatchPlanned,
    BatchSubmitted,
    BatchThrottled,
    PoolSkipped,
    RunId,
    RunsAssigned,
    TaskBegan,
    TaskLeft,
    TasksAllocated,
    TasksReleased,
    TickSubmitted,
)
from hpcsweep.core.models import (
    RECENT_WAITS,
    SIMULATED,
    Run,
    RunStatus,
    SubmitLimitHit,
    SubmitRefusals,
    SweepFacts,
)

#: A small job may wait so long in the queue beyond its time.
_LATE_S = 6 * 3600.0


class BatchFold(SweepFacts):
    """Takes in the events of batches."""

    def _batch_planned(self, event: BatchPlanned) -> None:
        runs = {run for task in event.tasks for run in task}
        self.gpus = event.gpus
        self.simulated = self.simulated or event.cluster == SIMULATED
        self.live[event.batch] = BatchState(
            event.batch,
            event.at,
            [list(task) for task in event.tasks],
            event.gpus,
            event.throttle,
            event.cluster,
            runs,
            event.time_s,
            gpus_held=event.gpus_held,
            reuse=event.reuse,
            lanes=event.lanes,
            cpus=event.cpus,
            mem_mib=event.mem_mib,
            nodes=event.nodes,
            pool=event.pool,
        )
        if event.gpus_held:
            self._note_gpus_held(event.gpus, event.gpus_held)
        for index, task in enumerate(event.tasks):
            for run_id in task:
                self._submitted(run_id, event.batch, index)

    def _submitted(self, run_id: RunId, batch: str, task: int) -> None:
        run = self.run(run_id)
        run.batch, run.task = batch, task
        run.submissions += 1
        del self.waiting[run_id]
        self._move(run, RunStatus.SUBMITTED)

    def _task_began(self, event: TaskBegan) -> None:
        batch = self.live[event.batch]
        before = batch.starts.get(event.task)
        if before is not None and before.left is not None and before.left.announced:
            lasted = min(before.left.left - before.started, event.at - batch.planned_at)
            batch.earlier_starts.setdefault(event.task, []).append(lasted)
        start = StartedTask(event.restart, event.at, event.started, event.ends, event.node, job=event.job)
        batch.starts[event.task] = start
        if not event.restart:  # since when one that is started again has waited is not known
            wait_s = event.at - batch.planned_at
            self.queue_waits = [*self.queue_waits[1 - RECENT_WAITS :], wait_s]

    def _task_left(self, event: TaskLeft) -> None:
        starts = self.live[event.batch].starts
        starts[event.task] = start = starts[event.task]._replace(left=event)
        if event.failed and start.node:
            faults = self.node_faults.setdefault(start.node, {})
            faults[-1 - len(faults)] = event.reason

    def _runs_assigned(self, event: RunsAssigned) -> None:
        batch = self.live[event.batch]
        for number, run_id in enumerate(event.runs, start=event.number):
            self._submitted(run_id, event.batch, event.task)
            batch.unfinished.add(run_id)
            batch.assigned[run_id] = AssignedRun(event.task, event.restart, number, event.at, event.time_s)
            batch.tasks[event.task].append(run_id)
        batch.given[event.task, event.restart] = event.number + len(event.runs)

    def _batch_submitted(self, event: BatchSubmitted) -> None:
        self.live[event.batch].job = event.job
        self.submit_limit = ""
        self.cluster_messages.pop("submit", None)
        self.refusals = SubmitRefusals("", 0, 0)

    def _tasks_allocated(self, event: TasksAllocated) -> None:
        batch = self.live[event.batch]
        batch.allocated.update(dict.fromkeys(event.tasks, event.gpus))
        self._note_gpus_held(batch.gpus, event.gpus)

    def _note_gpus_held(self, asked: int, held: int) -> None:
        """A task that asks for so many GPUs may hold so many."""
        self.held_gpus[asked] = max(self.held_gpus.get(asked, 0), held)

    def _batch_throttled(self, event: BatchThrottled) -> None:
        self.live[event.batch].throttle = event.throttle

    def _batch_abandoned(self, event: BatchAbandoned) -> None:
        batch = self.live.pop(event.batch)
        if event.over_limit:
            others = sum(other.open_tasks for other in self.live.values())
            self.submit_limit = event.reason
            self.submit_limit_hit = SubmitLimitHit(len(batch.tasks), others, batch.planned_at)
        for task in batch.tasks:
            for run_id in task:
                run = self.run(run_id)
                run.submissions -= 1
                run.batch, run.task = "", 0
                self._wait(run)

    def _batch_blocked(self, event: BatchBlocked) -> None:
        batch = self.live[event.batch]
        if not event.reason or not batch.blocked_reason:
            batch.blocked_since = event.at if event.reason else 0.0
        batch.blocked_reason = event.reason

    def _tasks_released(self, event: TasksReleased) -> None:
        self.live[event.batch].released.update(event.tasks)

    def _tick_submitted(self, event: TickSubmitted) -> None:
        if event.batch:
            self.live[event.batch].tick_job = event.job
        else:
            self.tick_due = event.at
            recent = {job: at for job, at in self.tick_jobs.items() if at > event.at - _LATE_S}
            self.tick_jobs = {**recent, event.job: event.at}

    def _batch_closed(self, event: BatchClosed) -> None:
        batch = self.live.pop(event.batch)
        self.spent_s += event.seconds
        self.spent_gpu_s += event.gpu_seconds
        self._charge_pool(batch, event.gpu_seconds)
        if batch.made_progress:
            self.failed_batches_in_a_row = 0
        elif batch.pool in self.skipped_pools or any(other.made_progress for other in self.live.values()):
            pass  # none began, or others do well with the same
        elif event.message or batch.endings or not batch.reuse:
            if batch.name not in self._failed_beside:  # those submitted together fail together
                self.failed_batches_in_a_row += 1
                self._failed_beside = set(self.live)
            self.last_batch_failure = event.message or batch.last_message

    def _pool_skipped(self, event: PoolSkipped) -> None:
        pools = self.spent_pools if event.spent else self.skipped_pools
        pools.pop(event.pool, None)
        if event.reason:
            pools[event.pool] = event

    def _charge_pool(self, batch: BatchState | None, gpu_s: float) -> None:
        if batch is not None and batch.pool:
            self.pool_gpu_s[batch.pool] = self.pool_gpu_s.get(batch.pool, 0.0) + gpu_s

    def _wait(self, run: Run) -> None:
        self.waiting[run.id] = None
        self._move(run, RunStatus.WAITING)

    def _move(self, run: Run, status: RunStatus) -> None:
        self.counts[run.status] -= 1
        self.counts[status] += 1
        run.status = status
