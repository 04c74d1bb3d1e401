"""What a spec asks of the world around it, checked alike by every verb that would run it.

`load_spec` has checked what the file itself can show. Nothing here writes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from hpcsweep.core.events import AnyEvent, SweepExtended, SweepStarted
from hpcsweep.core.state import SweepState
from hpcsweep.errors import FolderError, SpecError
from hpcsweep.session.algorithms import make_scheduler
from hpcsweep.session.warm_start import initial_events
from hpcsweep.spec import Change, SweepSpec, changes
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.snapshot import list_code


def validate(spec: SweepSpec, *, state: SweepState | None = None) -> list[AnyEvent]:
    """Check that the sweep could run by this spec; returns the initial events that it adds.

    Args:
        spec: As it was read.
        state: Of the sweep to be resumed; None for a new one.

    Raises:
        SpecError: It could not; all problems at once.
    """
    problems: list[str] = []
    events: list[AnyEvent] = []
    for check in (_check_workdir, _check_scheduler, _check_code):
        try:
            check(spec, state)
        except SpecError as error:
            problems += error.problems
    try:
        events = initial_events(spec, identity=state.started.identity if state and state.started else None)
    except SpecError as error:
        problems += error.problems
    if problems:
        raise SpecError(*problems)
    return events


def _check_workdir(spec: SweepSpec, state: SweepState | None) -> None:
    """The folder where training code runs; a sweep with its own copy of the code no longer needs it."""
    if state is not None and spec.train.snapshot:
        return
    folder = Path(spec.train.workdir or ".")
    if not os.path.isdir(folder):  # False also for a name that is too long
        problem = "is a file" if os.path.exists(folder) else "is no folder here"
        raise SpecError(f"train.workdir: must be a folder in which training code can run, {folder} {problem}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise SpecError(f"train.workdir: must be a folder that you may enter and read, got {folder}")


def _check_scheduler(spec: SweepSpec, state: SweepState | None) -> None:
    """A plug-in scheduler checks its options only when it is made."""
    try:
        make_scheduler(spec)
    except ValueError as error:
        raise SpecError(f"scheduler.{error}") from error


def _check_code(spec: SweepSpec, state: SweepState | None) -> None:
    """The code to be copied, as far as it can be checked without copying it."""
    if spec.train.snapshot and state is None and os.path.isdir(spec.train.workdir or "."):
        list_code(spec.program(), Layout(Path("results") / spec.name).root.resolve())


def check_folder(spec: SweepSpec, folder: Path) -> SweepState | None:
    """Check that the folder can hold this sweep; returns its state if it holds it already.

    Raises:
        FolderError: It holds something else, or a sweep that cannot go on by this spec.
    """
    _check_path(folder)
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"{folder}: is a file; give another folder with --results")
    state = SweepState.replay(read_journal(Layout(folder)).events)
    find_changes(spec, folder, state.started)
    return None if state.started is None else state


def _check_path(folder: Path) -> None:
    """Refuse a path that scripts, logs and messages cannot carry."""
    path = str(folder.resolve())
    wrong = sorted({character for character in path if not character.isprintable()})
    if wrong:
        names = ", ".join(ascii(character) for character in wrong)
        raise FolderError(
            f"{path!r}: no batch script and no log can carry the {names} in its name; "
            "give another folder with --results"
        )


def current_start(events: Sequence[AnyEvent]) -> SweepStarted | None:
    """The start of the sweep with the identity that its newest extension gave it; None: it has not begun."""
    started = next((event for event in events if isinstance(event, SweepStarted)), None)
    extended = next((event for event in reversed(events) if isinstance(event, SweepExtended)), None)
    if started is None or extended is None:
        return started
    return msgspec.structs.replace(started, identity=extended.identity)


def find_changes(spec: SweepSpec, folder: Path, started: SweepStarted | None) -> Sequence[Change]:
    """How the spec extends the sweep that the folder holds.

    Args:
        spec: As it was read.
        folder: The results folder.
        started: The sweep's start, with the identity that it has now.

    Raises:
        FolderError: The folder holds something else, or a sweep that cannot go on by this spec.
    """
    if started is None:
        layout = Layout(folder)
        ours = layout.spec.exists() or layout.journal.exists()
        if not ours and folder.is_dir() and any(folder.iterdir()):
            raise FolderError(f"{folder}: is not empty and holds no sweep; give another with --results")
        return []
    found = changes(started.identity, spec.identity())
    refused = [change for change in found if change.refused]
    if refused:
        raise FolderError(
            f"{folder}: belongs to another sweep ({started.name!r}); since it was started "
            "this has changed:\n"
            + "".join(f"  {change.line} ({change.refused})\n" for change in refused)
            + "Take the change back, or give another folder with --results, where "
            f"`warm_start: [{folder}]` lets the searcher learn from the results of this one. "
            "budget, cluster and resources may change at any time."
        )
    return found
