"""Budgets: what tasks cost, what may still be spent, whether and how a sweep ends or resumes. Pure."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Final

import msgspec

from hpcsweep.core.cluster_protocol import Phase, TaskState
from hpcsweep.core.events import RunFinished, RunInterrupted, SweepEnded, SweepOutcome, SweepResumed, TimeUp
from hpcsweep.core.models import BatchState
from hpcsweep.core.protocols import Scheduler
from hpcsweep.core.state import SweepState
from hpcsweep.driver.config import DriverConfig
from hpcsweep.errors import SpecError
from hpcsweep.store.batch import Result

#: Elapsed time that drops by more than the clock skew means a restart.
CLOCK_SKEW_S: Final = 5.0
#: Tolerance for the cluster's rounding to whole seconds.
ROUNDING_S: Final = 1.0
#: How much longer than its time limit a task may run: sites let tasks finish, and clean-up takes time.
OVERRUN_S: Final = 600.0
#: Clock skew between the hosts of two drivers.
HOST_SKEW_S: Final = 600.0


class GpuBudget:
    """`budget.gpu_hours` as a hard cap: what was submitted counts with its whole time limit.

    Each new task counts with `task_gpus`. `default_time_s` is the cluster's time limit of a task that
    asks for none, None where unknown.

    Raises:
        SpecError: There is a cap, and nothing limits the time of a task.
    """

    def __init__(self, settings: DriverConfig, *, default_time_s: int | None) -> None:
        self._max_gpu_s = settings.max_gpu_s
        self.task_gpus = settings.shape.gpus
        time_s = settings.shape.time_s or default_time_s
        if self.cap_s is not None and time_s is None:
            raise SpecError(
                "budget.gpu_hours: needs resources.time: without a time limit nothing can be held to it"
            )
        # Slurm counts in minutes.
        self.time_s = 60 * math.ceil(time_s / 60) if time_s else 0

    @property
    def _task_gpu_s(self) -> int:
        return self.time_s * self.task_gpus

    @property
    def cap_s(self) -> float | None:
        """GPU-seconds of the cap; None without one."""
        return self._max_gpu_s if self.task_gpus else None

    def tasks_left(
        self,
        state: SweepState,
        *,
        open_tasks: Callable[[BatchState], int],
        unbooked_gpu_s: Callable[[BatchState], float],
    ) -> int | None:
        """How many more tasks may be submitted now; None: any number.

        Of a live batch, `open_tasks` may still run, and the others took `unbooked_gpu_s` beyond
        `state.spent_gpu_s`.
        """
        if self.cap_s is None:
            return None  # without a cap nothing has to be counted
        reserved = sum(
            open_tasks(batch) * batch.task_gpus * (batch.time_s or self.time_s) + unbooked_gpu_s(batch)
            for batch in state.live.values()
        )
        return self._tasks_within(self.cap_s, state.spent_gpu_s + reserved)

    def _tasks_within(self, cap_s: float, gpu_s: float) -> int:
        """How many tasks fit below the cap beside what is spent and reserved."""
        return max(0, int((cap_s - gpu_s) // self._task_gpu_s))

    def exhausted(self, state: SweepState) -> str | None:
        """Message if no further task fits once the submitted ones have ended; else None."""
        if self.cap_s is None or self._tasks_within(self.cap_s, state.spent_gpu_s):
            return None
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
    """Whether an ended sweep can resume: a budget was raised, or a waiting request has one of these verbs."""
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

    It must agree for `confirm_s`; a session that began (`since`) that long ago has seen the time pass.
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
        failure = state.last_failure
        if failure is not None:
            reason = f"no run gave a value; the last failure: {failure.message}"
        else:
            reason = f"no run gave a value; {reason}"
    return SweepEnded(now, outcome, reason)


def at_most(limit_s: float) -> float:
    """Seconds that one start of a task may count at most; a limit of 0 is unknown."""
    return limit_s + OVERRUN_S if limit_s > 0 else math.inf


def clip_duration(seconds: float, *, at_most_s: float) -> float:
    """A duration as it may enter the tables: no NaN, none below 0, none above what is possible."""
    return min(seconds, at_most_s) if seconds > 0 else 0.0


class UsageAccounting:
    """Compares what the runs of a task reported with how long the cluster says it ran, over all its starts.

    Each result counts as soon as it is there; what the cluster counts beyond (starting up, ticks,
    idle lanes, starts that left no result) is added when the batch is closed.

    No clock is trusted: a count grows by no more than the time that has passed here, and no start
    counts for more than its time limit `limit_s` (0: unknown) allows, or began before `since`.
    """

    def __init__(
        self,
        gpus: int,
        gpus_of: Callable[[int], int] | None = None,
        *,
        limit_s: float = 0.0,
        since: float | None = None,
    ) -> None:
        self._gpus_of = gpus_of or (lambda _: gpus)
        self._at_most_s = at_most(limit_s)
        self._since = since
        #: When each task was seen last.
        self._seen_at: dict[int, float] = {}
        #: By task and restart, of all its runs; seconds with several lanes more than wall time.
        self._seconds: dict[int, dict[int, float]] = defaultdict(dict)
        self._gpu_s: dict[int, dict[int, float]] = defaultdict(dict)
        #: Elapsed time of each start of a task that was seen; the present one last, 0 after a requeue.
        self._starts: dict[int, list[float]] = defaultdict(list)
        #: Tasks whose end was seen: the elapsed time of their last start is final.
        self._ended: set[int] = set()

    def add_reported(self, ending: RunFinished | RunInterrupted) -> None:
        """Add what the journal says a run took."""
        for of, amount in ((self._seconds, ending.seconds), (self._gpu_s, ending.gpu_seconds)):
            restarts = of[ending.task]
            restarts[ending.restart] = restarts.get(ending.restart, 0.0) + amount

    def _possible(self, task: int, seconds: float, now: float | None) -> float:
        """The cluster's count of the present start, as far as it can be true."""
        seconds = clip_duration(seconds, at_most_s=self._at_most_s)
        if now is None:
            return seconds
        starts, before = self._starts[task], self._seen_at.get(task)
        if before is not None and starts:
            return min(seconds, starts[-1] + max(0.0, now - before) + CLOCK_SKEW_S)
        if self._since is not None:
            return min(seconds, max(0.0, now - self._since) + HOST_SKEW_S)
        return seconds

    def observe(self, task: int, state: TaskState, *, now: float | None = None) -> None:
        """Add what the cluster showed of the task; `now` is Unix time here."""
        if state.seconds is not None:
            possible = self._possible(task, state.seconds, now)
            state = msgspec.structs.replace(state, seconds=possible)
        if now is not None:
            self._seen_at[task] = now
        starts = self._starts[task]
        if not state.phase.active and state.seconds is not None:
            self._ended.add(task)
        if state.phase is Phase.PENDING:
            if starts and starts[-1]:  # it was put back
                starts.append(0.0)
        elif state.seconds is not None:
            if starts and state.seconds >= starts[-1] - CLOCK_SKEW_S:
                starts[-1] = state.seconds or starts[-1]  # one that is being put back shows 0
            else:
                starts.append(state.seconds)

    def assume(self, task: int, unseen_s: float, *, at_most_s: float) -> None:
        """Charge a task that is gone for the time since it was last seen, up to `at_most_s`."""
        starts = self._starts[task] or [0.0]
        self._starts[task] = [*starts[:-1], max(starts[-1], min(starts[-1] + unseen_s, at_most_s))]

    def finished_starts(self, task: int) -> int:
        """How many starts of the task are over, as far as we saw them."""
        return max(0, len(self._starts[task]) - 1)

    def last_finished_s(self, task: int) -> float:
        """How long the last of those ran."""
        return self._starts[task][-2]

    def unreported_s(self, task: int) -> float:
        """Seconds of the present start of the task that no run has reported."""
        reported = self._seconds[task]
        present = self._starts[task][-1:]
        return max(0.0, sum(present) - (reported[max(reported)] if reported else 0.0))

    def unaccounted(self, tasks: Iterable[int]) -> tuple[float, float]:
        """Seconds and GPU-seconds of these tasks beyond what their runs reported; they have ended.

        The cluster's count is the one that accounts go by, so it may be a little less as well.
        """
        seconds = gpu_s = 0.0
        for task in tasks:
            starts = [start for start in self._starts[task] if start]
            slack = ROUNDING_S if len(starts) == 1 and task in self._ended else 0.0
            seconds += _unaccounted(starts, self._seconds[task], slack=slack)
            gpu_s += _unaccounted(
                [start * self._gpus_of(task) for start in starts],
                self._gpu_s[task],
                slack=slack * self._gpus_of(task),
            )
        return round(seconds, 3), round(gpu_s, 3)


def _unaccounted(starts: Sequence[float], reported: Mapping[int, float], *, slack: float) -> float:
    """Time of the observed starts beyond what as many of them reported.

    Which start reported what need not be known: none reports more than it took. If more starts
    reported than were observed, the oldest ones were before this session.
    """
    newest = [reported[restart] for restart in sorted(reported, reverse=True)[: len(starts)]]
    pairs = zip_longest(sorted(starts, reverse=True), sorted(newest, reverse=True), fillvalue=0.0)
    return sum(start - amount for start, amount in pairs if start > amount - slack)


def charge(result: Result, batch: BatchState, *, lanes: int) -> Result:
    """The result with what it costs as far as that can be true, by the GPUs that its task holds.

    Its worker knows only how many were asked for.
    """
    most = at_most(batch.time_s)
    started = result.started
    seconds = clip_duration(result.seconds, at_most_s=most)
    gpu_s = clip_duration(result.gpu_seconds, at_most_s=most * max(1, batch.gpus))
    held = batch.gpus_of(result.task)
    if held != batch.gpus:
        gpu_s = round(gpu_s * held / batch.gpus if batch.gpus else seconds * held / max(1, lanes), 3)
    return msgspec.structs.replace(
        result,
        seconds=seconds,
        gpu_seconds=gpu_s,
        started=started if started is not None and 0 < started < math.inf else None,
    )
