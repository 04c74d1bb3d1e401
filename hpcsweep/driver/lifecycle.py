"""How a sweep goes on: budgets, requests from other commands, whether and how it ends or resumes.

Pure but for a warning.
"""

from __future__ import annotations

import copy
import logging
import math
import zlib
from collections.abc import Callable, Container, Sequence

from hpcsweep.core.arrays import np
from hpcsweep.core.batches import BatchState
from hpcsweep.core.cluster_protocol import Pool
from hpcsweep.core.configurations import complete_config
from hpcsweep.core.events import (
    AnyEvent,
    ConfigsEnqueued,
    RunRetried,
    StopRequested,
    SweepEnded,
    SweepOutcome,
    SweepResumed,
    TimeUp,
    TrialStopped,
)
from hpcsweep.core.models import RunStatus
from hpcsweep.core.outcomes import needs_name
from hpcsweep.core.protocols import Scheduler
from hpcsweep.core.space import Space
from hpcsweep.core.state import SweepState
from hpcsweep.driver.config import DriverConfig
from hpcsweep.driver.live_batches import LEAVING_S
from hpcsweep.driver.pool_budget import NextTask, PoolBudget
from hpcsweep.errors import SpecError
from hpcsweep.store.requests import Request

_log = logging.getLogger(__name__)


def minutes(time_s: float) -> int:
    """Seconds of the time limit that Slurm makes of this one: it counts in minutes."""
    return 60 * math.ceil(time_s / 60)


class GpuBudget:
    """`budget.gpu_hours` as a hard cap: what was submitted counts with its whole time limit.

    `default_time_s` is the cluster's time limit of a task that asks for none, None where unknown. The `pools`
    of the cluster may have caps of their own.

    Raises:
        SpecError: There is a cap, and nothing limits the time of a task.
    """

    def __init__(
        self,
        settings: DriverConfig,
        *,
        default_time_s: int | None,
        start_up_s: float = 0.0,
        pools: Sequence[Pool] = (),
    ) -> None:
        self._max_gpu_s = settings.max_gpu_s
        self.task_gpus = settings.shape.total_gpus  # of a new task
        time_s = settings.shape.time_s or default_time_s
        #: `gpu_hours` of the cluster's pools.
        self.pools = PoolBudget(pools if self.task_gpus else ())
        capped = ["budget"] if self.cap_s is not None else self.pools.paths
        if capped and time_s is None:
            raise SpecError(
                f"{capped[0]}.gpu_hours: needs resources.time: without a time limit nothing can be held to it"
            )
        self.time_s = minutes(time_s) if time_s else 0
        self._reuse = settings.reuse
        #: What one run may take, and a task without any until it is gone; each at most its task's time.
        self.run_s = min(self.time_s, (settings.run.time_s or self.time_s) + LEAVING_S)
        self.idle_s = min(self.time_s, (settings.idle_s or 0.0) + start_up_s + LEAVING_S)
        #: What one more task may take where they differ; None: as all.
        self.next_gpu_s: float | None = None
        if settings.resources.constant is None:
            least = settings.smallest
            self.next_gpu_s = self.run_gpu_s(least.total_gpus, least.time_s, new=True)
        #: With reuse: a limit that a run may be given where its own does not fit any more; 0: unknown.
        self.short_s = 0
        gpus = self.task_gpus if self.next_gpu_s is None else settings.smallest.total_gpus
        self.pools.next_tasks = [NextTask(gpus, self._task_gpu_s)]

    @property
    def _shortest_s(self) -> float:
        """What one run may take where it is given the shorter limit, if there is one."""
        return min(self.run_s, self.short_s + LEAVING_S) if self.short_s else self.run_s

    @property
    def _task_gpu_s(self) -> float:
        """What one more task may take: its whole time limit, or with reuse until it has done one run."""
        if self.next_gpu_s is not None:
            return self.next_gpu_s
        return self.task_gpus * (self._shortest_s + self.idle_s if self._reuse else self.time_s)

    def run_gpu_s(self, gpus: int, time_s: int | None, *, new: bool = False) -> float:
        """What a run of this limit may take of a task with so many GPUs; a `new` task may be idle as well."""
        if not self._reuse:
            return gpus * (minutes(time_s) if time_s else self.time_s)
        run_s = time_s + LEAVING_S if time_s else self.run_s
        return gpus * (run_s + self.idle_s if new else run_s)

    @property
    def cap_s(self) -> float | None:
        """GPU-seconds of the cap; None without one."""
        return self._max_gpu_s if self.task_gpus else None

    def caps(self, pool: str) -> bool:
        """Whether what tasks of this pool cost is capped, for all tasks or for its own."""
        return self.cap_s is not None or self.pools.caps(pool)

    @property
    def capped(self) -> bool:
        """Whether what any tasks cost is capped."""
        return self.cap_s is not None or self.pools.capped

    def tasks_left(
        self,
        state: SweepState,
        *,
        open_tasks: Callable[[BatchState], int],
        unbooked_gpu_s: Callable[[BatchState], float],
    ) -> int | None:
        """How many more tasks may be submitted now; None: any number.

        Of a live batch `open_tasks` may still run; the others took more than the journal has.
        """
        if self.cap_s is None:
            return None  # without a cap nothing has to be counted

        def reserved_gpu_s(batch: BatchState) -> float:
            return self.array_gpu_s(batch, open_tasks=open_tasks(batch), unbooked_gpu_s=unbooked_gpu_s(batch))

        return max(0, int(self.unreserved_gpu_s(state, reserved_gpu_s) // self._task_gpu_s))

    def array_gpu_s(self, batch: BatchState, *, open_tasks: int, unbooked_gpu_s: float) -> float:
        """What tasks of one run each may take: the open ones their limit, and what others took since."""
        return open_tasks * batch.task_gpus * (batch.time_s or self.time_s) + unbooked_gpu_s

    def unspent_gpu_s(self, state: SweepState) -> float:
        """What is left of the cap once nothing runs; inf without a cap."""
        return math.inf if self.cap_s is None else self.cap_s - state.spent_gpu_s

    def unreserved_gpu_s(self, state: SweepState, reserved_gpu_s: Callable[[BatchState], float]) -> float:
        """What is left of the cap beside what is spent, and what live batches may take; inf without a cap."""
        if self.cap_s is None:
            return math.inf
        return self.cap_s - state.spent_gpu_s - sum(map(reserved_gpu_s, state.live.values()))

    def runs_left(
        self, state: SweepState, *, reserved_gpu_s: Callable[[BatchState], float]
    ) -> tuple[int | None, int]:
        """How many more runs may be given to tasks that have begun, and with which limit.

        None is any number, a limit of 0 that of all runs. `reserved_gpu_s` is what the tasks of a live batch
        may take beyond `state.spent_gpu_s`.
        """
        if self.cap_s is None:
            return None, 0
        left = self.unreserved_gpu_s(state, reserved_gpu_s)
        if (runs := int(left // (self.run_s * self.task_gpus))) > 0:
            return runs, 0
        return max(0, int(left // (self._shortest_s * self.task_gpus))), self.short_s

    def reused_tasks_left(
        self, state: SweepState, *, reserved_gpu_s: Callable[[BatchState], float], coming: int
    ) -> int | None:
        """How many more tasks may be submitted, each to do a run, as may those that are `coming`."""
        if self.cap_s is None:
            return None
        left = self.unreserved_gpu_s(state, reserved_gpu_s) - coming * self._shortest_s * self.task_gpus
        return max(0, int(left // self._task_gpu_s))

    def _tasks_within(self, cap_s: float, gpu_s: float) -> int:
        """How many tasks fit below the cap beside what is spent and reserved."""
        return max(0, int((cap_s - gpu_s) // self._task_gpu_s))

    def exhausted(self, state: SweepState) -> str | None:
        """Message if no further task fits once the submitted ones have ended; else None."""
        if self.cap_s is None or self._tasks_within(self.cap_s, state.spent_gpu_s):
            return self.pools.exhausted(state)
        return (
            f"budget.gpu_hours {self.cap_s / 3600:g} is used up: {state.spent_gpu_s / 3600:.4g} are spent, "
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
    """Whether an ended sweep can resume: a budget was raised, or a request with one of these verbs waits."""
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

    It must agree for `confirm_s`, or the session have begun (`since`) that long ago.
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
    """How the sweep ends, with nothing of it on the cluster; None if it continues."""
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
        if state.last_failure is not None:
            reason = f"the last failure: {state.last_failure.message}"
        reason = f"no run gave a value; {reason}"
    return SweepEnded(now, outcome, reason)


def handle_request(
    name: str,
    request: Request,
    *,
    state: SweepState,
    space: Space,
    seed: int,
    now: float,
    is_over: Callable[[int], bool],
) -> list[AnyEvent]:
    """What follows from a request; nothing from one that makes no sense.

    A trial that `is_over` cannot be stopped.
    """
    match request.verb:
        case "stop":
            return [StopRequested(now, f"stopped by {request.user}", name)]
        case "stop_trial":
            return _stop_trial(name, request, state=state, is_over=is_over)
        case "enqueue":
            rng = np.random.default_rng([seed, zlib.crc32(name.encode()), 1])
            try:
                config = complete_config(space, request.arguments.get("config", {}), rng)
            except (SpecError, AttributeError, TypeError, ValueError) as error:
                _log.warning("%s: the request is skipped: %s", name, error)
                return []
            return [ConfigsEnqueued((config,), name)]
        case "retry":
            return _retry(name, request, state=state, now=now)
        case _:
            return []


def _stop_trial(
    name: str, request: Request, *, state: SweepState, is_over: Callable[[int], bool]
) -> list[AnyEvent]:
    """The trial goes no further, nor do the other repeats of its configuration."""
    number = request.arguments.get("trial")
    if not isinstance(number, int) or not 0 <= number < len(state.trials):
        _log.warning("%s: the request is skipped: there is no trial %r", name, number)
        return []
    first = number - state.trials[number].repeat
    reason = f"stopped by {request.user}"
    return [
        TrialStopped(trial.trial, reason, name)
        for trial in state.trials[first : first + state.repeats]
        if not trial.stopped and not is_over(trial.trial)
    ]


def _retry(name: str, request: Request, *, state: SweepState, now: float) -> list[AnyEvent]:
    """Retry failed runs and end a pause; what its user cancelled for good is retried only by its number."""
    number = request.arguments.get("trial")
    runs = [
        trial.runs[-1]
        for trial in state.trials
        if trial.runs[-1].status is RunStatus.FAILED
        and not trial.stopped
        and (number == trial.trial or (number is None and not needs_name(trial.runs[-1].outcome)))
    ]
    resumed = [SweepResumed(now)] if state.pausing is not None and state.stopping is None else []
    return [*resumed, *(RunRetried(run.trial, run.rung, name) for run in runs)]
