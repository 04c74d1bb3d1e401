"""Budgets: what is spent, what may still be spent, and whether and how a sweep ends or resumes. Pure."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Container

from hpcsweep.core.events import SweepEnded, SweepOutcome, SweepResumed, TimeUp
from hpcsweep.core.models import BatchState
from hpcsweep.core.protocols import Scheduler
from hpcsweep.core.state import SweepState
from hpcsweep.driver.config import DriverConfig
from hpcsweep.errors import SpecError


class GpuBudget:
    """`budget.gpu_hours` as a hard cap: what was submitted counts with its whole time limit.

    Args:
        settings: Of the sweep.
        default_time_s: The cluster's time limit of a task that asks for none, None where unknown.

    Raises:
        SpecError: There is a cap, and nothing limits the time of a task.
    """

    def __init__(self, settings: DriverConfig, *, default_time_s: int | None) -> None:
        self._max_gpu_s = settings.max_gpu_s
        self._gpus = settings.shape.gpus
        time_s = settings.shape.time_s or default_time_s
        if self.capped and time_s is None:
            raise SpecError(
                "budget.gpu_hours: needs resources.time: without a time limit nothing can be held to it"
            )
        # Slurm counts in minutes.
        self.time_s = 60 * math.ceil(time_s / 60) if time_s else 0

    def hold(self, gpus: int) -> None:
        """Count each new task with this many GPUs."""
        self._gpus = gpus

    @property
    def _task_gpu_s(self) -> int:
        return self.time_s * self._gpus

    @property
    def _cap_s(self) -> float | None:
        return self._max_gpu_s if self._gpus else None

    @property
    def capped(self) -> bool:
        """Whether there is a cap at all."""
        return self._cap_s is not None

    def tasks_left(
        self,
        state: SweepState,
        *,
        open_tasks: Callable[[BatchState], int],
        unbooked_gpu_s: Callable[[BatchState], float],
    ) -> int | None:
        """How many more tasks may be submitted now; None: any number.

        Args:
            state: Of the sweep.
            open_tasks: How many tasks of a live batch may still run.
            unbooked_gpu_s: What the others of its tasks took beyond `state.spent_gpu_s`.
        """
        if self._cap_s is None:
            return None  # without a cap nothing has to be counted
        reserved = sum(
            open_tasks(batch) * batch.task_gpus * (batch.time_s or self.time_s) + unbooked_gpu_s(batch)
            for batch in state.live.values()
        )
        return self._tasks_within(self._cap_s, state.spent_gpu_s + reserved)

    def _tasks_within(self, cap_s: float, gpu_s: float) -> int:
        """How many tasks fit below the cap beside what is spent and reserved."""
        return max(0, int((cap_s - gpu_s) // self._task_gpu_s))

    def exhausted(self, state: SweepState) -> str | None:
        """Message if no further task fits once the submitted ones have ended; else None."""
        if self._cap_s is None or self._tasks_within(self._cap_s, state.spent_gpu_s):
            return None
        return (
            f"budget.gpu_hours {self._cap_s / 3600:g} is used up: {state.spent_gpu_s / 3600:.4g} are spent, "
            f"and one more task may take {self._task_gpu_s / 3600:.4g}"
        )


def exhausted_budget(state: SweepState, settings: DriverConfig, gpus: GpuBudget, *, now: float) -> str | None:
    """Message about the budget that is used up; None while none is."""
    if is_time_over(state, settings, now=now):
        return f"budget.time {settings.max_time_s:g} s is used up"
    return gpus.exhausted(state)


def is_time_over(state: SweepState, settings: DriverConfig, *, now: float) -> bool:
    """Whether `budget.time` is used up by the wall clock."""
    started = state.started.at if state.started else now
    return settings.max_time_s is not None and now - started >= settings.max_time_s


def can_resume(
    state: SweepState,
    scheduler: Scheduler,
    settings: DriverConfig,
    gpus: GpuBudget,
    *,
    verbs: Container[str] = (),
    now: float,
) -> bool:
    """Whether an ended sweep can resume: a budget was raised, or a request asks for more.

    Args:
        state: Of the sweep.
        scheduler: Up to date.
        settings: Its caps.
        gpus: The budget of GPU time.
        verbs: Of the requests that wait.
        now: Unix time.
    """
    if state.ended is None:
        return False
    if "retry" in verbs:
        return True
    if state.ended.outcome in (SweepOutcome.STOPPED, SweepOutcome.PAUSED):
        return True
    if exhausted_budget(state, settings, gpus, now=now) is not None:
        return False
    stop = state.no_more_trials
    raised = settings.max_trials is None or state.configurations < settings.max_trials
    if raised and "enqueue" in verbs:
        return True
    if stop is not None and stop.cause == "budget" and raised:
        scheduler = copy.deepcopy(scheduler)
        scheduler.apply(SweepResumed(now))
    return bool(state.waiting) or not scheduler.done


def confirm_time_over(
    state: SweepState, settings: DriverConfig, *, now: float, since: float
) -> tuple[bool, TimeUp | None]:
    """Whether the wall clock is to be trusted about `budget.time`, and an event if its verdict changed.

    Args:
        state: Of the sweep.
        settings: `confirm_s` is how long the clock must agree.
        now: Unix time.
        since: When this session began; one that is old enough has seen the time pass.
    """
    over = is_time_over(state, settings, now=now)
    if not settings.confirm_s or (over and now - since >= settings.confirm_s):
        return True, None
    if over is not (state.time_up is not None):
        changed = TimeUp(now, over)
        return not over, changed
    return not over or now - (state.time_up or now) >= settings.confirm_s, None


def sweep_end(
    state: SweepState, scheduler: Scheduler, *, exhausted: str | None, now: float
) -> SweepEnded | None:
    """How the sweep ends, with nothing of it on the cluster; None if it continues.

    Args:
        state: Of the sweep.
        scheduler: Up to date.
        exhausted: The budget that is used up, None while nothing is.
        now: Unix time.
    """
    if state.stopping is not None:
        outcome, reason = SweepOutcome.STOPPED, state.stopping.reason
    elif exhausted is not None:
        outcome, reason = SweepOutcome.FINISHED, exhausted
    elif scheduler.done and not state.waiting:
        stop = state.no_more_trials
        outcome, reason = SweepOutcome.FINISHED, stop.reason if stop else "all trials are done"
    elif state.pausing is not None:
        outcome, reason = SweepOutcome.PAUSED, state.pausing.reason
    else:
        return None
    if outcome is SweepOutcome.FINISHED and state.best is None:
        outcome = SweepOutcome.FAILED
        failure = state.last_failure
        if failure is not None:
            reason = f"no run gave a value; the last failure: {failure.message}"
        else:
            reason = f"no run gave a value; {reason}"
    return SweepEnded(now, outcome, reason)
