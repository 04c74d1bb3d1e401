"""What is left of a sweep as far as that is known, and when it would end if it goes on as it does. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple

from hpcsweep.cli.format import duration
from hpcsweep.core.counting import plural
from hpcsweep.core.plans import BracketPlan, SchedulerPlan
from hpcsweep.session.algorithms import make_scheduler
from hpcsweep.spec import SweepSpec
from hpcsweep.views.progress import Course
from hpcsweep.views.rungs import RungCount


class Plan(NamedTuple):
    """What a sweep is to do: as its scheduler plans it, within its budget."""

    scheduler: SchedulerPlan
    repeats: int = 1
    gpu_hours: float | None = None
    time_s: float | None = None


class RemainingWork(NamedTuple):
    """Work that is left at most: runs, and units of resource."""

    runs: int
    units: int


def plan_of(spec: SweepSpec) -> Plan:
    """What the spec says of the way ahead."""
    budget = spec.budget
    return Plan(make_scheduler(spec).plan(budget.trials), spec.repeats, budget.gpu_hours, budget.time)


def left(plan: Plan, course: Course) -> RemainingWork | None:
    """What is left at most; None where that is open.

    A bracket that starts no more trials shrinks with those that it has, and a run without a value
    takes no place in the next rung.
    """
    final = course.state.no_more_trials is not None
    scheduler = plan.scheduler
    if scheduler.population or not all(bracket.sizes for bracket in scheduler.brackets):
        return None
    if not scheduler.brackets or (scheduler.iterations is None and scheduler.starts is None and not final):
        return None
    runs = units = 0
    brackets = course.rungs.brackets()
    for index, bracket in enumerate(_planned(scheduler)):
        counts = brackets.pop(index, [])
        if final:
            bracket = bracket.shrunk(counts[0].runs // plan.repeats if counts else 0, eta=scheduler.eta)
        of_bracket = _left_in(bracket, counts, repeats=plan.repeats)
        runs, units = runs + of_bracket.runs, units + of_bracket.units
        if final and not brackets:
            break
    return RemainingWork(runs, units)


def _planned(plan: SchedulerPlan) -> Iterator[BracketPlan]:
    """Each bracket, in order, until the last one."""
    starts = plan.starts
    for index in count():
        if plan.iterations is not None and index >= plan.iterations * len(plan.brackets):
            return
        bracket = plan.brackets[index % len(plan.brackets)]
        if starts is not None:
            bracket = bracket.shrunk(starts, eta=plan.eta)
            starts -= bracket.sizes[0]
        yield bracket
        if starts == 0:
            return


def _left_in(bracket: BracketPlan, counts: Sequence[RungCount], *, repeats: int) -> RemainingWork:
    runs = units = below = 0
    places: int | None = None
    for rung, (size, resource) in enumerate(zip(bracket.sizes, bracket.resources, strict=True)):
        now = counts[rung] if rung < len(counts) else RungCount(resource)
        most = size * repeats if places is None else min(size * repeats, places)
        most = max(most, now.runs)
        runs += most - now.ended
        units += (most - now.ended) * (resource - below)
        places, below = most - now.failed - now.stopped, resource
    return RemainingWork(runs, units)


def rate(course: Course, *, now: float) -> str:
    """How quickly runs end, in words; empty while nothing can be said."""
    pace = course.pace(now=now)
    if pace is None:
        return ""
    hourly = pace.runs * 3600
    return f"{hourly:.0f} runs an hour of late" if hourly >= 100 else f"{hourly:.3g} runs an hour of late"


def outlook(plan: Plan | None, course: Course, *, now: float) -> str:
    """What is left and when it would end, in words; empty once it has ended.

    Args:
        plan: What the spec says; None where it cannot be read.
        course: Of the sweep.
        now: Unix time.
    """
    state = course.state
    if state.ended is not None:
        return ""
    if state.stopping is not None or state.pausing is not None:
        return "when the runs under way have ended"
    if plan is None:
        return "not known: the folder's sweep.yaml cannot be read"
    pace = course.pace(now=now)
    open_work = left(plan, course)
    what = "open-ended"
    if open_work is not None:
        what = f"{plural(open_work.runs, 'run')} left"
        what = f"about {what}" if plan.scheduler.estimated else f"{what} at most"
    ends: list[tuple[float, str]] = []
    if open_work is not None and pace is not None and pace.units > 0:
        ends.append((open_work.units / pace.units, ""))
    if plan.time_s is not None and state.started is not None:
        ends.append((max(0.0, state.started.at + plan.time_s - now), " by budget.time"))
    if plan.gpu_hours is not None and pace is not None and pace.gpu_s > 0:
        seconds = (plan.gpu_hours * 3600 - state.spent_gpu_s) / pace.gpu_s
        ends.append((max(0.0, seconds), " by budget.gpu_hours"))
    if not ends:
        return what
    seconds, why = min(ends)
    return f"in about {duration(round(seconds))}, {_clock(now + seconds, now=now)}{why}; {what}"


def _clock(at: float, *, now: float) -> str:
    """The time of the day, with the day if that is another one."""
    then, today = time.localtime(at), time.localtime(now)
    other = (then.tm_year, then.tm_yday) != (today.tm_year, today.tm_yday)
    return time.strftime("%a %d %b %H:%M" if other else "%H:%M", then)
