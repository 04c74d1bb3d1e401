"""What is checked and prepared before a sweep starts or resumes: folder, training code, earlier results.

`load_spec` has checked what the spec itself can show. Only `create_snapshot` writes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hpcsweep.core.arrays import np
from hpcsweep.core.configurations import complete_config
from hpcsweep.core.events import (
    AnyEvent,
    ConfigsEnqueued,
    ParametersSuggested,
    SweepExtended,
    SweepStarted,
)
from hpcsweep.core.state import SweepState
from hpcsweep.core.suggestions import added_parameters, with_suggested
from hpcsweep.errors import FolderError, SpecError, TrainerError
from hpcsweep.session.algorithms import make_scheduler
from hpcsweep.session.warm_start import load_results
from hpcsweep.spec import Change, SweepSpec, changes
from hpcsweep.spec.config_base import read_config_base
from hpcsweep.store.batch import Program
from hpcsweep.store.files import wrap_oserror
from hpcsweep.store.journal import Journal
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.snapshot import copy_code, list_code, use_snapshot
from hpcsweep.worker.training_function import check_trainer


def validate(
    spec: SweepSpec, *, state: SweepState | None = None, found: Sequence[str] = ()
) -> list[AnyEvent]:
    """Check that the sweep could run by this spec; returns the initial events that it adds.

    Raises:
        SpecError: It could not; all problems at once, those in `found` first.
    """
    problems = list(found)
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
    """The folder where training code runs; a sweep with a snapshot no longer needs it."""
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
    find_changes(spec.with_added(added_parameters(state.started)), folder, state.started)
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
    """The start of the sweep with the identity that it has grown to since; None: it has not begun."""
    started: SweepStarted | None = None
    for event in events:
        match event:
            case SweepStarted():
                started = event
            case SweepExtended() if started is not None:
                started = msgspec.structs.replace(started, identity=event.identity)
            case ParametersSuggested() if started is not None:
                started = with_suggested(started, event)
    return started


def find_changes(spec: SweepSpec, folder: Path, started: SweepStarted | None) -> Sequence[Change]:
    """How the spec extends the sweep that the folder holds; `started` has its present identity.

    Raises:
        FolderError: The folder holds something else, or a sweep that cannot go on by this spec.
    """
    if started is None:
        layout = Layout(folder)
        ours = layout.spec.exists() or layout.journal.exists()
        if not ours and folder.is_dir() and any(folder.iterdir()):
            raise FolderError(f"{folder}: is not empty and holds no sweep; give another with --results")
        return []
    changed = changes(started.identity, spec.identity())
    refused = [change for change in changed if change.refused]
    if refused:
        raise FolderError(
            f"{folder}: belongs to another sweep ({started.name!r}); since it was started "
            "this has changed:\n"
            + "".join(f"  {change.line} ({change.refused})\n" for change in refused)
            + "Take the change back, or give another folder with --results, where "
            f"`warm_start: [{folder}]` lets the searcher learn from the results of this one. "
            "budget, cluster, resources and store may change at any time."
        )
    return changed


def running_program(spec: SweepSpec, layout: Layout) -> Program:
    """How a trial is run: from the snapshot of the training code where `train.snapshot` asks for one.

    Raises:
        FolderError: There is no snapshot, or what is to be run is not in it.
        SpecError: `train.config` cannot be read.
    """
    program = use_snapshot(spec.program(), layout) if spec.train.snapshot else spec.program()
    if spec.train.config is None:
        return program
    base = Path(spec.train.config)
    copied = program.snapshot.path_in_copy(str(base.parent)) if program.snapshot else None
    config = read_config_base(Path(copied) / base.name if copied else base)
    return msgspec.structs.replace(program, config=config)


@contextlib.contextmanager
def create_snapshot(spec: SweepSpec, layout: Layout) -> Iterator[Journal]:
    """Copy the training code of a new sweep and check the copy; its journal, held until the block ends.

    If another launch has started the sweep meanwhile, its snapshot stays.

    Raises:
        SpecError: There is too much code, or it cannot be read; nothing was written.
        TrainerError: The copy cannot be imported or called; the sweep has not begun.
    """
    listing = list_code(spec.program(), layout.root)
    journal = Journal.open(layout)
    try:
        journal.acquire()
        if not any(isinstance(event, SweepStarted) for event in journal.events):
            with wrap_oserror(layout.root):
                copy_code(listing, layout, owner=journal.number, heartbeat=journal.heartbeat)
            check_training_code(spec, layout)
        yield journal
    finally:
        journal.release()


def check_training_code(spec: SweepSpec, layout: Layout | None = None) -> None:
    """Import the training function, from the snapshot if there is a results folder with one.

    Raises:
        TrainerError: It cannot be imported or called.
        FolderError: See `running_program`.
    """
    program = running_program(spec, layout) if layout else spec.program()
    if not spec.train.check:
        return
    try:
        check_trainer(program, spec.cluster.python or sys.executable)
    except TrainerError as error:
        raise TrainerError(f"train.function: {error}") from error


def initial_events(spec: SweepSpec, *, identity: Mapping[str, Any] | None = None) -> list[AnyEvent]:
    """Earlier results and enqueued configurations that a spec adds to the sweep; no identity: a new one.

    Raises:
        SpecError: A source of `warm_start` cannot be read, or measured something else.
    """
    known, enqueued = (len((identity or {}).get(key, ())) for key in ("warm_start", "enqueue"))
    events: list[AnyEvent] = [
        load_results(spec, source, key=f"warm_start[{index}]")
        for index, source in enumerate(spec.warm_start)
        if index >= known
    ]
    seed = spec.searcher.seed
    configs = [
        complete_config(spec.space, config, np.random.default_rng([seed, zlib.crc32(b"enqueue"), index]))
        for index, config in enumerate(spec.enqueue)
        if index >= enqueued
    ]
    return [*events, ConfigsEnqueued(tuple(configs))] if configs else events
