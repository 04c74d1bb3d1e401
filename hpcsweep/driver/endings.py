"""What an ending of a run means: an event, by its result, its task's state and its checkpoints. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from hpcsweep.core.batches import AssignedRun, BatchState
from hpcsweep.core.cluster_protocol import Phase, TaskState
from hpcsweep.core.events import (
    FailureKind,
    Interruption,
    Outcome,
    ParametersSuggested,
    RunFinished,
    RunId,
    RunInterrupted,
)
from hpcsweep.core.models import Run
from hpcsweep.core.outcomes import FACTS, Fault
from hpcsweep.core.state import SweepState
from hpcsweep.core.suggestions import NAME, Form, added_parameters, grown
from hpcsweep.driver import failures
from hpcsweep.driver.config import DriverConfig
from hpcsweep.driver.live_batches import BatchWatch
from hpcsweep.driver.observer import Evidence, next_restart
from hpcsweep.store.batch import Result
from hpcsweep.store.excerpts import label_excerpt


class Endings:
    """Decides what becomes of a run that has ended, or whose start has."""

    def __init__(self, state: SweepState, *, settings: DriverConfig, evidence: Evidence) -> None:
        self._state = state
        self._settings = settings
        self._evidence = evidence

    def as_stopped(self, result: Result, reason: str) -> Result:
        """The result of a run that was stopped: its value is the last one that it reported."""
        run = self._state.run(RunId(result.trial, result.rung))
        step, value = run.last_report or (result.step, None)
        return msgspec.structs.replace(
            result, outcome=Outcome.STOPPED, step=step, value=value, values=run.last_values, message=reason
        )

    def suggested(self, result: Result) -> Iterator[ParametersSuggested]:
        """What its objective suggested otherwise than its configuration has it, where the space may grow."""
        told = result.suggestions
        if told is None or self._settings.growth is None:
            return
        config, added = self._state.trials[result.trial].config, added_parameters(self._state.started)
        names = [name for name in told.values if NAME.fullmatch(name) and name in told.parameters]
        unused = tuple(name for name in told.unused if name in config and name in added)
        if names or unused:
            parameters, values = (
                {name: each[name] for name in names} for each in (told.parameters, told.values)
            )
            yield ParametersSuggested(
                result.trial, result.rung, parameters, values, unused, self._more_trials(parameters)
            )

    def _more_trials(self, parameters: Mapping[str, Form]) -> bool:
        """Whether an exhausted space grows by these parameters, and the sweep ends in the grown one."""
        growth, started, exhausted = self._settings.growth, self._state.started, self._state.no_more_trials
        if growth is None or started is None or exhausted is None:
            return False
        space = started.identity.get("space", {})
        return growth.ends and exhausted.cause == "space" and grown(space, parameters) != space

    def is_tried_again(self, result: Result) -> bool:
        assert result.outcome is not None
        run = self._state.run(RunId(result.trial, result.rung))
        return (
            FACTS[result.outcome].fault is Fault.CONFIGURATION
            and run.errors < self._settings.max_errors
            and not self._state.trials[result.trial].stopped
            and self._state.stopping is None
        )

    def may_have_more_memory(self, batch: BatchState, result: Result) -> bool:
        """Whether a run that ran out of main memory is tried again with more.

        Each time with more than before: so that ends.
        """
        run, had_mib = self._state.run(RunId(result.trial, result.rung)), batch.run_mem_mib
        return (
            result.outcome is Outcome.OUT_OF_MEMORY
            and result.host_memory
            and had_mib is not None
            and had_mib > run.lacked_mib
            and self._settings.resources.allows_more_memory(had_mib)
            and not self._state.trials[result.trial].stopped
            and self._state.stopping is None
        )

    def with_progress(self, run: Run, result: Result) -> Result:
        """The result with the progress that the checkpoints show, and the reports of this attempt.

        A checkpoint beyond the first step that it reported is its own. Without any, steps beyond those of
        earlier attempts show that it keeps its state elsewhere.
        """
        newest = self._evidence.newest_step(run)
        trial = self._state.trials[run.trial]
        before = max(run.step, trial.below(run.rung))
        found = self._evidence.reported(run.id, attempt=result.attempt, restart=result.restart)
        first, last = found or (newest, 0)
        last = min(last, run.resource)
        progressed = newest > before or newest > first or last > run.step > 0
        return msgspec.structs.replace(result, step=max(newest, last), progressed=progressed)

    def not_taken(self, run: Run, given: AssignedRun) -> Result:
        return Result(
            run.trial,
            run.rung,
            attempt=run.submissions - 1,
            restart=given.restart,
            task=given.task,
            message="its task left before this run began",
        )

    def silent(self, run: Run, given: AssignedRun, watch: BatchWatch) -> Result:
        """Of a run whose start is over and left nothing, while the cluster runs the task again."""
        result = msgspec.structs.replace(
            self.not_taken(run, given), node=watch.nodes.get(given.task, ""), message=""
        )
        return self.with_progress(run, result)

    def of_requeued_start(self, node: str, *, seconds: float | None = None) -> TaskState:
        """How a start ended whose worker left no result, and whose task the cluster runs again."""
        failed = bool(node) and self._evidence.node_failed(node)
        return TaskState(Phase.NODE_FAIL if failed else Phase.PREEMPTED, node=node, seconds=seconds)

    def left_traces(self, run: Run, given: AssignedRun) -> bool:
        """Whether a run that was given ahead has begun after all: it has reported, or left a checkpoint."""
        result = self.with_progress(run, self.not_taken(run, given))
        found = self._evidence.reported(run.id, attempt=result.attempt, restart=result.restart)
        return result.progressed or found is not None

    def never_began(self, batch: BatchState, watch: BatchWatch, task: int, state: TaskState | None) -> bool:
        """Whether we cancelled it before it began: first runs all failed alike, or its pool starts none."""
        if watch.nodes.get(task) or (
            state is not None and (state.node or state.phase is not Phase.CANCELLED)
        ):
            return False
        # A session that did not cancel it itself goes by the journal. Slurm forgets such tasks at once.
        pausing = self._state.pausing
        if batch.pool in self._state.skipped_pools or (pausing is not None and pausing.is_fail_fast):
            return True
        return task in watch.cancelled_pending

    def without_result(
        self, batch: BatchState, watch: BatchWatch, task: int, run: Run, state: TaskState | None
    ) -> RunFinished | RunInterrupted:
        """A run whose task is gone and that left no result."""
        seconds = watch.usage.unreported_s(task) if len(batch.tasks[task]) == 1 else 0.0
        result = Result(
            run.trial,
            run.rung,
            attempt=run.submissions - 1,
            restart=batch.assigned[run.id].restart if batch.reuse else next_restart(run),
            task=task,
            seconds=seconds,
            gpu_seconds=seconds * batch.gpus_of(task),
            node=watch.nodes.get(task, ""),
            message=self._evidence.last_lines(batch.name, task),
            interrupted=Interruption.NOT_STARTED if self.never_began(batch, watch, task, state) else None,
        )
        result = self.with_progress(run, result)
        phase = state.phase if state is not None else None
        killed = failures.killed_for_memory(result.message)
        if phase is Phase.OUT_OF_MEMORY or killed:
            message = killed or result.message or "killed: out of memory"
            result = msgspec.structs.replace(
                result, outcome=Outcome.OUT_OF_MEMORY, message=message, host_memory=True
            )
            if self.may_have_more_memory(batch, result):
                return failures.interruption(batch, result, Interruption.OUT_OF_MEMORY)
            return failures.finished(batch, result)
        return self.interrupted(batch, result, state, requeued=False)

    def as_lost_peer(self, result: Result) -> Result:
        """The result as an interruption, where training failed as a node of its task did, with its peers."""
        if result.failure is not FailureKind.CRASHED or not self._a_node_failed(result):
            return result
        return msgspec.structs.replace(
            result, outcome=None, failure=None, interrupted=Interruption.WORKER_DIED
        )

    def _another_node_failed(self, result: Result, why: Interruption) -> bool:
        """Whether its task has several nodes of which one failed.

        Its worker, on the first one, is told to stop as if the task were preempted, or sees its ranks end
        before it is told anything.
        """
        return why in (Interruption.PREEMPTED, Interruption.WORKER_DIED) and self._a_node_failed(result)

    def _a_node_failed(self, result: Result) -> bool:
        """Whether the cluster says that one of several nodes of its task failed."""
        if not result.nodes:
            return False
        return failures.tells_of_failed_node(result.message) or self._evidence.node_failed(result.nodes)

    def interrupted(
        self,
        batch: BatchState,
        result: Result,
        state: TaskState | None,
        *,
        requeued: bool,
        waits: bool = False,
    ) -> RunFinished | RunInterrupted:
        """A run whose attempt ended while it could go on, or for good if it may not.

        Args:
            batch: Its batch.
            result: What its worker left, or what is known without that.
            state: How its task ended, or what the cluster shows of it; None where nothing is known.
            requeued: The cluster runs its task again.
            waits: That task still waits; one that runs again, or has left a later result, decides itself.
        """
        run = self._state.run(RunId(result.trial, result.rung))
        why = failures.classify_interruption(
            batch, result, state, requeued=requeued, stopping=self._state.stopping is not None
        )
        node = result.node or (state.node if state else "")
        message = result.message
        if self._another_node_failed(result, why):
            why, node = Interruption.NODE_FAIL, result.nodes
            message = f"a node of {result.nodes} failed: {message}"
        if result.interrupted is None or not message:  # at most the last lines of its log
            text = FACTS[why].message + (f" ({node})" if node else "")
            message = f"{text}; its {label_excerpt(message)}" if message else text
        result = msgspec.structs.replace(result, node=node, message=message)
        stopped = self._state.trials[run.trial].stopped
        decides = batch.reuse or not requeued or waits
        if stopped and decides:
            return failures.finished(batch, self.as_stopped(result, stopped))
        guessed = failures.limit_was_guessed(batch, run, result, why, settings=self._settings)
        exhausted = failures.retries_exhausted(run, result, why, settings=self._settings, guessed=guessed)
        if exhausted and decides:
            cancelled = why is Interruption.CANCELLED and run.cancels
            outcome = Outcome.CANCELLED if cancelled else Outcome.LOST
            message = f"{exhausted}; the last: {message}"
            return failures.finished(batch, msgspec.structs.replace(result, outcome=outcome, message=message))
        requeued = requeued and not batch.reuse
        return failures.interruption(batch, result, why, requeued=requeued, guessed=guessed)
