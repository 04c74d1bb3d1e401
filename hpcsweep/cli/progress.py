"""What `launch` shows while it runs: a live table or plain lines, and when the sweep will end."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, pairwise
from typing import TYPE_CHECKING, NamedTuple, Protocol

import typer

from hpcsweep.cli.colours import BAD, WARNING
from hpcsweep.cli.terminal import raw, sanitize
from hpcsweep.core.cluster_protocol import Phase
from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    Outcome,
    RunFinished,
    RunRetried,
    SweepResumed,
    SweepStarted,
)
from hpcsweep.core.models import RunStatus
from hpcsweep.core.outcomes import FACTS
from hpcsweep.core.protocols import BracketPlan, SchedulerPlan
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import plural
from hpcsweep.session.algorithms import make_scheduler
from hpcsweep.spec import SweepSpec
from hpcsweep.views.format import (
    best_text,
    bracket_text,
    config_text,
    cost,
    duration,
    runs_text,
    tasks_text,
    timestamp,
    warning_lines,
)
from hpcsweep.views.progress import RungCount, RungCounts, SweepProgress, journal_counts
from hpcsweep.views.run_times import Rung, RunTimes
from hpcsweep.views.tasks import activity_counts, begun_runs, live_tasks, submitted_runs

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from hpcsweep.driver import Driver

#: Seconds between two plain lines at least, and where something has happened.
LOG_INTERVAL_S = 60.0
EVENT_INTERVAL_S = 2.0
#: Newest brackets that are shown although all their runs have ended.
NEWEST_SHOWN = 8


class Progress:
    """Receives every event, and the driver after each tick; shows nothing itself."""

    def event(self, event: AnyEvent) -> None:
        """Take note of an event."""

    def tick(self, driver: Driver) -> None:
        """Show how the sweep stands."""

    def restart(self) -> None:
        """All events will come again."""


class LogDisplay(Progress):
    """Dated lines for logs and pipes: one a minute at most, unless something happens.

    A failure, a new best value and the end are worth a line of their own; a new warning gets one at once.

    Args:
        plan: What the sweep is to do, for its share done and its end.
    """

    def __init__(self, plan: Plan | None = None) -> None:
        self._plan = plan
        self.rungs = RungCounts()
        self.state = SweepState()
        self._times = RunTimes()
        self._news: list[BatchPlanned | RunFinished | SweepStarted | SweepResumed] = []
        self._trained = 0
        self._changed = False
        self._failure: RunFinished | None = None
        self._best: object = None
        self._next = self._next_event = 0.0
        self._warnings: list[str] = []

    def restart(self) -> None:
        self.rungs, self._times, self._failure = RungCounts(), RunTimes(), None
        self._news, self._trained = [], 0

    def event(self, event: AnyEvent) -> None:
        self.rungs.apply(event)
        self._changed = True
        match event:
            case SweepStarted() | SweepResumed() | BatchPlanned():
                self._news.append(event)
            case RunFinished():
                self._news.append(event)
                self._failure = event if event.value is None else self._failure

    def tick(self, driver: Driver) -> None:
        self.state = driver.state
        self._take_news()
        known = self._warnings
        self._warnings = [*warning_lines(driver.state, now=time.time()), *driver.skipped_files]
        for warning in self._warnings:
            if warning not in known:
                _log(warning)
        now, ended = time.monotonic(), driver.state.ended is not None
        best = driver.state.best
        newest = None if best is None else (best.trial, best.value)
        happened = self._failure is not None or newest != self._best
        if not self._changed or not (ended or now >= (self._next_event if happened else self._next)):
            return
        self._changed, self._best = False, newest
        self._next, self._next_event = now + LOG_INTERVAL_S, now + EVENT_INTERVAL_S
        _log(" | ".join(part for part in self._parts(driver) if part))

    def _parts(self, driver: Driver) -> Iterator[str]:
        yield self._outlook()
        yield runs_text(journal_counts(driver.state))
        yield _tasks(driver)
        yield f"best {best_text(driver.state)}"
        yield cost(driver.state)
        current = self.rungs.current().items()
        yield "  ".join(f"bracket {bracket}: {bracket_text(counts)}" for bracket, counts in current)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            yield _failure(failure)

    def _take_news(self) -> None:
        """Take in the runs that have ended: by now the state has their trials."""
        news, self._news = self._news, []
        for event in news:
            if isinstance(event, BatchPlanned):
                self._times.plan(event)
                continue
            if not isinstance(event, RunFinished):
                self._times.resume(event.at)
                continue
            trial = self.state.trials[event.trial]
            rung = trial.below(event.rung), trial.runs[event.rung].resource
            self._trained += rung[1] - rung[0]
            at = time.time() if event.started is None else event.started + event.seconds
            completed = event.outcome is Outcome.COMPLETED
            self._times.add(at, rung, event.seconds, completed=completed, batch=event.batch)

    def _outlook(self) -> str:
        """The share of the training that is done, and when the rest will be."""
        left = remaining_runs(self._plan, self) if self._plan is not None else None
        if left is None or self.state.ended is not None:
            return ""
        units = sum(runs * (to - since) for (since, to), runs in left.items())
        done = f"{self._trained / max(1, self._trained + units):.0%}"
        now = time.time()
        seconds = _left_s(self._times, self.state, left, now=now)
        if seconds is None:
            return done
        return f"{done}, ends in about {duration(round(seconds))}, {_clock(now + seconds, now=now)}"


def _log(line: str) -> None:
    typer.echo(sanitize(f"[{timestamp(time.time())}] {line}"))


class LiveDisplay(Progress):
    """A table of brackets and rungs, refreshed after each tick."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._counts = RungCounts()
        self._failures: list[RunFinished] = []

    def restart(self) -> None:
        self._counts, self._failures = RungCounts(), []

    def event(self, event: AnyEvent) -> None:
        self._counts.apply(event)
        if isinstance(event, RunFinished) and event.value is None:
            self._failures = [*self._failures[-2:], event]
        elif isinstance(event, RunRetried):
            self._failures = [run for run in self._failures if run.trial != event.trial]

    def tick(self, driver: Driver) -> None:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        state = driver.state
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("bracket", justify="right")
        table.add_column("rungs (runs x resource)")
        for bracket, counts in self._counts.current(newest=NEWEST_SHOWN).items():
            table.add_row(str(bracket), bracket_text(counts))
        phases = driver.phases
        shown = f"{phases[Phase.RUNNING]} running, {phases[Phase.PENDING]} pending"
        under_way = _tasks(driver) or shown
        lines: list[RenderableType] = [
            table,
            Text(f"{plural(state.counts[RunStatus.COMPLETED], 'run')} completed, {under_way}, {cost(state)}"),
            Text(sanitize(f"best {best_text(state)}"), style="bold"),
        ]
        if state.best is not None:
            lines.append(Text(sanitize(config_text(state.best.config))))
        warnings = [*warning_lines(state, now=time.time()), *driver.skipped_files]
        lines += [Text(sanitize(warning), style=WARNING) for warning in warnings]
        lines += [Text(sanitize(_failure(run)), style=BAD) for run in self._failures]
        self._live.update(Group(*lines))


def _tasks(driver: Driver) -> str:
    """What the tasks do that keep their GPUs; empty where there are none."""
    tasks = tasks_text(
        activity_counts(live_tasks(driver.state, now=time.time(), shown=driver.monitor.states))
    )
    return f"tasks: {tasks}" if tasks else ""


def _failure(run: RunFinished) -> str:
    return f"trial {run.trial} {FACTS[run.failure_kind or run.outcome].label}: {run.message}"


@contextlib.contextmanager
def progress(spec: SweepSpec, *, quiet: bool) -> Iterator[Progress]:
    """The display that fits where standard output goes."""
    if quiet:
        yield Progress()
    elif sys.stdout.isatty():
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(file=raw(sys.stdout)), refresh_per_second=4) as live:
            yield LiveDisplay(live)
    else:
        yield LogDisplay(plan_of(spec))


class Plan(NamedTuple):
    """What a sweep is to do: as its scheduler plans it, within its budget."""

    scheduler: SchedulerPlan
    repeats: int = 1
    gpu_hours: float | None = None
    time_s: float | None = None


class Known(Protocol):
    """What must be known of a sweep to tell what is left of it."""

    @property
    def state(self) -> SweepState: ...
    @property
    def rungs(self) -> RungCounts: ...


class RemainingWork(NamedTuple):
    """Work that is left at most: runs, and units of resource."""

    runs: int
    units: int


def plan_of(spec: SweepSpec) -> Plan:
    """The plan of a spec."""
    budget = spec.budget
    return Plan(make_scheduler(spec).plan(budget.trials), spec.repeats, budget.gpu_hours, budget.time)


def remaining_work(plan: Plan, progress: Known) -> RemainingWork | None:
    """What is left at most; None if that is open-ended."""
    left = remaining_runs(plan, progress)
    if left is None:
        return None
    units = sum(runs * (to - since) for (since, to), runs in left.items())
    return RemainingWork(left.total(), units)


def remaining_runs(plan: Plan, progress: Known) -> Counter[Rung] | None:
    """Runs that are left at most, by rung; None if that is open-ended.

    A bracket that starts no more trials shrinks with those that it has, and a run without a value
    is not promoted to the next rung.
    """
    final = progress.state.no_more_trials is not None
    scheduler = plan.scheduler
    if not all(bracket.sizes for bracket in scheduler.brackets):
        return None
    if scheduler.population:
        return _remaining_of_members(scheduler.brackets[0], progress.state) if scheduler.brackets else None
    if not scheduler.brackets or (scheduler.iterations is None and scheduler.starts is None and not final):
        return None
    left: Counter[Rung] = Counter()
    brackets = progress.rungs.brackets()
    for index, bracket in enumerate(_planned(scheduler)):
        counts = brackets.pop(index, [])
        if final:
            bracket = bracket.shrunk(counts[0].runs // plan.repeats if counts else 0, eta=scheduler.eta)
        left += _remaining_in(
            bracket, counts, repeats=plan.repeats, eta=scheduler.eta if scheduler.estimated else None
        )
        if final and not brackets:
            break
    return left


def _remaining_of_members(plan: BracketPlan, state: SweepState) -> Counter[Rung]:
    """Of a population, whose members are brackets: each goes on from where its newest trial is."""
    newest = {trial.bracket: trial for trial in state.trials}
    at = [
        max([trial.start, *(run.resource for run in trial.runs if run.status is RunStatus.COMPLETED)])
        for trial in newest.values()
    ]
    at += [0] * (plan.sizes[0] - len(at))
    return Counter(
        {(below, to): sum(each <= below for each in at) for below, to in pairwise((0, *plan.resources))}
    )


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


def _remaining_in(
    bracket: BracketPlan, counts: Sequence[RungCount], *, repeats: int, eta: int | None
) -> Counter[Rung]:
    """Of one bracket.

    Args:
        bracket: As planned.
        counts: Of its rungs so far.
        repeats: Trainings of each configuration.
        eta: One in so many of the runs that are still to end goes on, whoever went on before; None: the sizes
            of the plan hold.
    """
    left: Counter[Rung] = Counter()
    below, before = 0, (0, 0)
    most_below: int | None = None
    for rung, (size, resource) in enumerate(zip(bracket.sizes, bracket.resources, strict=True)):
        now = counts[rung] if rung < len(counts) else RungCount(resource)
        most = size * repeats if most_below is None else min(size * repeats, most_below)
        if eta is not None and rung:
            most = now.runs + left[before] // eta
        most = max(most, now.runs)
        before = below, resource
        left[below, resource] += most - now.ended
        most_below, below = most - now.failed - now.stopped, resource
    return left


def format_throughput(progress: SweepProgress, *, now: float) -> str:
    """For example `3634 runs/h`; empty while unknown."""
    recent = progress.throughput(now=now)
    if recent is None:
        return ""
    hourly = recent.runs * 3600
    return f"{hourly:,.0f} runs/h" if hourly >= 100 else f"{hourly:.3g} runs/h"


def format_eta(plan: Plan | None, progress: SweepProgress, *, now: float) -> str:
    """What is left and when it will end, in words; empty once it has ended."""
    state = progress.state
    if state.ended is not None:
        return ""
    if state.stopping is not None or state.pausing is not None:
        return "when the runs under way have ended"
    if plan is None:
        return "unknown: the folder's sweep.yaml cannot be read"
    end = estimate_end(plan, progress, now=now)
    what = "open-ended"
    if end.runs is not None:
        what = f"{plural(end.runs, 'run')} left"
        about = plan.scheduler.estimated or plan.scheduler.population
        what = f"about {what}" if about else f"at most {what}"
    if end.seconds is None:
        return what
    why = f" by {end.by}" if end.by else ""
    return f"in about {duration(round(end.seconds))}, {_clock(now + end.seconds, now=now)}{why}; {what}"


class End(NamedTuple):
    """When a sweep will end.

    Attributes:
        seconds: From now; None while unknown.
        by: The budget that ends it first; empty where its runs do.
        runs: That are left at most, None where that is open-ended.
        done: The share of its training that is done, None where that is unknown.
    """

    seconds: float | None
    by: str
    runs: int | None
    done: float | None


def estimate_end(plan: Plan, progress: SweepProgress, *, now: float) -> End:
    """The first of what would end it."""
    recent = progress.throughput(now=now)
    left = remaining_runs(plan, progress)
    ends: list[tuple[float, str]] = []
    seconds_left = None if left is None else _left_s(progress.times, progress.state, left, now=now)
    if seconds_left is not None:
        ends.append((seconds_left, ""))
    if plan.time_s is not None and progress.state.started is not None:
        ends.append((max(0.0, progress.state.started.at + plan.time_s - now), "budget.time"))
    if plan.gpu_hours is not None and recent is not None and recent.gpu_s > 0:
        seconds = (plan.gpu_hours * 3600 - progress.state.spent_gpu_s) / recent.gpu_s
        ends.append((max(0.0, seconds), "budget.gpu_hours"))
    first = min(ends, default=(None, ""))
    runs = done = None
    if left is not None:
        trained = sum(run.units for run in progress.ended)
        units = sum(count * (to - since) for (since, to), count in left.items())
        runs, done = left.total(), trained / max(1, trained + units)
    return End(first[0], first[1], runs, done)


def _left_s(times: RunTimes, state: SweepState, left: Mapping[Rung, int], *, now: float) -> float | None:
    return times.left_s(left, now=now, begun=begun_runs(state, now=now), submitted=submitted_runs(state))


def _clock(at: float, *, now: float) -> str:
    """The time of the day, with the day if that is another one."""
    then, today = time.localtime(at), time.localtime(now)
    other = (then.tm_year, then.tm_yday) != (today.tm_year, today.tm_yday)
    return time.strftime("%a %d %b %H:%M" if other else "%H:%M", then)
