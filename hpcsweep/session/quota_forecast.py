"""Whether `store.checkpoint_quota` has room for what a sweep must keep at the least, foretold.

While a rung is trained, all trials that may go on to the next one keep their checkpoints, and so does the one
that is trained; of a population each member keeps two, one of them for its clones. Sizes are those that
workers measured: in this sweep, or in those that it starts from.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hpcsweep.core.checkpoint_usage import DiskAmount
from hpcsweep.core.protocols import SchedulerPlan
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import plural
from hpcsweep.core.units import format_size
from hpcsweep.errors import FolderError
from hpcsweep.schedulers import scheduler_traits
from hpcsweep.session.algorithms import make_scheduler
from hpcsweep.spec import SweepSpec
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout


class QuotaForecast(NamedTuple):
    """What a quota leaves to each trial, or what they need; in one line."""

    text: str
    too_small: bool = False


def least_kept(spec: SweepSpec, plan: SchedulerPlan) -> int:
    """How many trials keep what a trial keeps, at the same time, whatever the order of the results."""
    traits, repeats = scheduler_traits(spec.scheduler.name), spec.repeats
    sizes = [bracket.sizes for bracket in plan.brackets if bracket.sizes]
    if traits.population:
        return sum(each[0] for each in sizes) * repeats
    if traits.promotes_any_time:  # the least promising give way
        return repeats
    return max((max(each[1:], default=0) for each in sizes), default=0) * repeats + 1


def forecast_quota(spec: SweepSpec, layout: Layout, state: SweepState | None) -> QuotaForecast | None:
    """What is to be said of the quota; None without one."""
    store = spec.store
    quota = DiskAmount(store.checkpoint_quota or 0, store.checkpoint_files or 0)
    if not any(quota):
        return None
    trials = least_kept(spec, make_scheduler(spec).plan(spec.budget.trials))
    keep = f"at least {plural(trials, 'trial')} keep{'s' * (trials == 1)} checkpoints at a time"
    found = _measured(spec, layout, state)
    name = "store.checkpoint_quota" if quota.bytes else "store.checkpoint_files"
    limit = _text(quota, quota)
    if found is None:
        each = DiskAmount(quota.bytes // trials, quota.files // trials)
        return QuotaForecast(f"{name} {limit}: {keep}, each {_text(each, quota)} at most")
    where, kept = found
    needed = kept.times(trials)
    lacks = 0 < quota.bytes < needed.bytes or 0 < quota.files < needed.files
    advice = ": raise it, or the sweep will pause" if lacks else ""
    amounts = f"{_text(kept, quota)} each (measured in {where}), {_text(needed, quota)} together"
    return QuotaForecast(f"{name} {limit}: {keep}, {amounts}{advice}", lacks)


def _text(amount: DiskAmount, quota: DiskAmount) -> str:
    """In the figures that the quota limits."""
    parts = [format_size(amount.bytes)] if quota.bytes else []
    return " in ".join([*parts, plural(amount.files, "file")] if quota.files else parts)


def _measured(spec: SweepSpec, layout: Layout, state: SweepState | None) -> tuple[Path, DiskAmount] | None:
    """What a trial keeps, and in which folder that was measured; None where it is not known."""
    for folder, found in _states(spec, layout, state):
        if found.checkpoints.known:
            return folder, found.checkpoints.expected_kept
    return None


def _states(spec: SweepSpec, layout: Layout, state: SweepState | None) -> Iterator[tuple[Path, SweepState]]:
    if state is not None:
        yield layout.root, state
    folders = [layout.root] if state is None else []
    for folder in [*folders, *(Path(each).resolve() for each in spec.warm_start)]:
        try:
            yield folder, SweepState.replay(read_journal(Layout(folder)).events)
        except FolderError:
            continue
