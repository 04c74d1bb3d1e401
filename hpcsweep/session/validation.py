"""What a spec asks of the world around it: checked alike by every verb that would run it.

`load_spec` has seen all that the file itself can show.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hpcsweep.core.counting import plural
from hpcsweep.core.events import AnyEvent, WarmStartLoaded
from hpcsweep.core.state import SweepState
from hpcsweep.errors import SpecError
from hpcsweep.session.algorithms import make_scheduler
from hpcsweep.session.warm_start import first_events
from hpcsweep.spec import SweepSpec
from hpcsweep.store.layout import Layout
from hpcsweep.store.snapshot import list_code


def validate(spec: SweepSpec, *, state: SweepState | None = None) -> list[WarmStartLoaded]:
    """Make sure that the sweep could run by this spec; gives the earlier results that it would learn from.

    Args:
        spec: As it was read.
        state: Of the sweep that is to be carried on, None for a new one.

    Raises:
        SpecError: It could not; all problems at once.
    """
    problems: list[str] = []
    found: Sequence[AnyEvent] = ()
    for check in (_workdir, _scheduler, _code):
        try:
            check(spec, state)
        except SpecError as error:
            problems += error.problems
    try:
        before = state.started.identity if state is not None and state.started is not None else None
        found = first_events(spec, after=before)
    except SpecError as error:
        problems += error.problems
    if problems:
        raise SpecError(*problems)
    return [event for event in found if isinstance(event, WarmStartLoaded)]


def known_lines(known: Sequence[WarmStartLoaded]) -> list[str]:
    """What is taken over of earlier sweeps, in words."""
    lines: list[str] = []
    for one in known:
        taken, left_out = len(one.results), sum(one.skipped.values())
        nothing = "" if taken else ": nothing to learn from"
        lines.append(
            f"warm start: {taken} of {plural(taken + left_out, 'configuration')} of {one.source}{nothing}"
        )
        lines += [f"  {count} left out: {problem}" for problem, count in one.skipped.items()]
    return lines


def _workdir(spec: SweepSpec, state: SweepState | None) -> None:
    """The folder where training code runs; a sweep that has its own copy of the code needs it no more."""
    if state is not None and spec.train.snapshot:
        return
    folder = Path(spec.train.workdir or ".")
    if not os.path.isdir(folder):  # False also for a name that is too long
        what = "is a file" if os.path.exists(folder) else "is no folder here"
        raise SpecError(f"train.workdir: must be a folder in which training code can run, {folder} {what}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise SpecError(f"train.workdir: must be a folder that you may enter and read, got {folder}")


def _scheduler(spec: SweepSpec, state: SweepState | None) -> None:
    """One of another package checks its options only when it is made."""
    try:
        make_scheduler(spec)
    except ValueError as error:
        raise SpecError(f"scheduler.{error}") from error


def _code(spec: SweepSpec, state: SweepState | None) -> None:
    """The code that is to be copied, as far as it can be seen without copying it."""
    if spec.train.snapshot and state is None and os.path.isdir(spec.train.workdir or "."):
        list_code(spec.program(), Layout(Path("results") / spec.name).root.resolve())
