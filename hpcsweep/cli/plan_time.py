"""What `plan` says of the time that a sweep takes, and of what that is known from."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from hpcsweep.core.text import plural
from hpcsweep.core.units import format_duration
from hpcsweep.errors import FolderError
from hpcsweep.session.makespan import MOST_RUNS, RunSeconds, is_open_ended, makespan
from hpcsweep.session.session import Session
from hpcsweep.spec import SweepSpec
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.views.format import duration, hours_text
from hpcsweep.views.progress import SweepProgress
from hpcsweep.views.run_times import RunTimes

#: What gives an estimate where nothing is known.
_UNKNOWN = "wall time: unknown; --seconds-per-step gives an estimate"


class Pace(NamedTuple):
    """What runs take.

    Attributes:
        why: What it is known from, as a clause.
    """

    run_seconds: RunSeconds
    why: str


class StatedPace(NamedTuple):
    """What the options of `plan` say.

    Attributes:
        step_s: Seconds of a step of training.
        startup_s: Seconds that each run takes beside its steps.
    """

    step_s: float
    startup_s: float = 0.0

    def known(self, *, resumes: bool) -> Pace:
        """As a pace; without `resumes` each run trains from scratch."""
        step_s, startup_s = self
        start = f" and the start of a run {duration(startup_s)}" if startup_s else ""
        why = f"if a step takes {duration(step_s)}{start}"
        return Pace(lambda below, to: startup_s + step_s * (to - below if resumes else to), why)


class WallTime(NamedTuple):
    """How long a sweep takes.

    Attributes:
        seconds: None while unknown.
        text: The line that `plan` prints.
    """

    seconds: float | None
    text: str


def wall_time(session: Session, stated: StatedPace | None, *, places: int | None, gpus: int) -> WallTime:
    """How long the sweep takes from its first run to its last.

    Args:
        session: Of the sweep.
        stated: What the options of `plan` say; else what is measured or asked for counts.
        places: Runs at a time at most, None: any number.
        gpus: That a run holds.
    """
    spec = session.spec
    if is_open_ended(spec):
        return _until_budget(spec, places=places, gpus=gpus)
    pace = stated.known(resumes=spec.resumes) if stated else _measured(session) or _limits(spec)
    if pace is None:
        return WallTime(None, _UNKNOWN)
    found = makespan(spec, pace.run_seconds, places=places)
    if found is None:
        return WallTime(None, f"wall time: unknown, as there are more than {MOST_RUNS:,} runs")
    text = f"about {duration(found.seconds)} with {_where(found.parallel, gpus)}, {pace.why}"
    earlier = "".join(_earlier(spec, found.seconds, found.busy_s * gpus))
    return WallTime(found.seconds, f"wall time: {text}; waits in the queue come on top{earlier}")


def _where(runs: int, gpus: int) -> str:
    on = f" on {plural(runs * gpus, 'GPU')}" if gpus else ""
    return f"{plural(runs, 'run')} at a time{on}"


def _until_budget(spec: SweepSpec, *, places: int | None, gpus: int) -> WallTime:
    """Of a sweep that only a budget ends."""
    budget = spec.budget
    ends: list[tuple[float, str]] = (
        [] if budget.time is None else [(budget.time, ", when budget.time ends it")]
    )
    if budget.gpu_hours is not None and gpus and places is not None:
        why = f" with {_where(places, gpus)}, until budget.gpu_hours is spent"
        ends.append((budget.gpu_hours * 3600 / (places * gpus), why))
    if not ends:
        return WallTime(None, "wall time: unknown, as only a budget ends the sweep")
    seconds, why = min(ends)
    return WallTime(seconds, f"wall time: about {duration(seconds)}{why}")


def _earlier(spec: SweepSpec, seconds: float, gpu_s: float) -> Iterator[str]:
    """What ends it earlier."""
    budget = spec.budget
    if budget.time is not None and budget.time < seconds:
        yield f"; budget.time {format_duration(budget.time)} ends it earlier"
    if budget.gpu_hours is not None and budget.gpu_hours * 3600 < gpu_s:
        yield f"; of its {hours_text(gpu_s)} GPU-hours budget.gpu_hours allows {budget.gpu_hours:g}"
    if spec.stop:
        yield "; stopping rules may end runs earlier"


def _measured(session: Session) -> Pace | None:
    """What runs took in this sweep, else in those that it starts from; None where none is known."""
    for folder in (session.layout.root, *map(Path, session.spec.warm_start)):
        try:
            progress = SweepProgress.replay(read_journal(Layout(folder)).events)
        except FolderError:
            continue
        times = progress.times
        if times.completed and not progress.state.simulated:
            own = folder == session.layout.root
            runs = "its completed runs" if own else f"the {plural(times.completed, 'run')} in {folder}"
            return Pace(functools.partial(_mean_seconds, times), f"if runs take as long as {runs}")
    return None


def _mean_seconds(times: RunTimes, below: int, to: int) -> float:
    return times.seconds((below, to)) or 0.0


def _limits(spec: SweepSpec) -> Pace | None:
    """Time limits: each run takes the whole of its own, of different ones the mean; None without limits."""
    if any(run.needs.time_s is None for run in spec.needs):
        return None

    @functools.cache
    def seconds(below: int, to: int) -> float:
        at = [run.needs.time_s or 0 for run in spec.needs if run.context[1:3] == (to, below)]
        return fmean(at or [run.needs.time_s or 0 for run in spec.needs])

    return Pace(seconds, "if each run takes its whole time limit")
