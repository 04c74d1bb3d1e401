"""Budgets: what is spent, and whether a sweep that has ended could go on. Pure."""

from __future__ import annotations

import copy

from hpcsweep.core.events import Ending, SweepResumed
from hpcsweep.core.protocols import Scheduler
from hpcsweep.core.state import SweepState
from hpcsweep.driver.settings import Settings


def spent_budget(state: SweepState, settings: Settings, *, now: float) -> str | None:
    """The budget that is used up, in words; None while nothing is."""
    if settings.max_gpu_s is not None and state.spent_gpu_s >= settings.max_gpu_s:
        return f"budget.gpu_hours {settings.max_gpu_s / 3600:g} is used up"
    started = state.started.at if state.started else now
    if settings.max_time_s is not None and now - started >= settings.max_time_s:
        return f"budget.time {settings.max_time_s:g} s is used up"
    return None


def work_left(state: SweepState, scheduler: Scheduler, settings: Settings, *, now: float) -> bool:
    """Whether a sweep that has ended could go on, for example because a budget was raised."""
    if state.ended is None:
        return False
    if state.ended.ending in (Ending.STOPPED, Ending.PAUSED):
        return True
    if spent_budget(state, settings, now=now) is not None:
        return False
    stop = state.no_more_trials
    if stop is not None and stop.cause == "budget":
        if settings.max_trials is not None and state.chosen >= settings.max_trials:
            return bool(state.waiting)
        scheduler = copy.deepcopy(scheduler)
        scheduler.apply(SweepResumed(now))
    return bool(state.waiting) or not scheduler.done
