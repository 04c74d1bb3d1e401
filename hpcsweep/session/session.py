"""From a spec and a folder to a driver with its searcher, scheduler, cluster and store."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcsweep import bootstrap
from hpcsweep.clock import SystemClock
from hpcsweep.core.events import AnyEvent, SweepExtended, SweepResumed, SweepStarted
from hpcsweep.core.protocols import (
    Clock,
    Promote,
)
from hpcsweep.core.state import SweepState
from hpcsweep.driver import Compactor, Driver, DriverConfig, HostTask, SubprocessCompactor
from hpcsweep.errors import FolderError
from hpcsweep.session.algorithms import (
    make_scheduler,
    make_sweep_searcher,
    replay_sweep,
    resolve_searcher,
    with_original_scheduler,
)
from hpcsweep.session.snapshot import running_program
from hpcsweep.session.target import Target
from hpcsweep.session.warm_start import first_events
from hpcsweep.spec import Change, SweepSpec, changes
from hpcsweep.store.files import explained, file_mode, read_bytes, write_atomic
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.journal.writer import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.provenance import record_launch

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A clock may jump for some seconds: so long it has to say that `budget.time` is over.
CONFIRM_S = 90.0


def check_folder(spec: SweepSpec, folder: Path) -> SweepState | None:
    """Whether the folder can hold this sweep; its state if it holds it already. Writes nothing.

    Raises:
        FolderError: It holds something else, or a sweep of which what must not change has changed.
    """
    check_name(folder)
    if folder.exists() and not folder.is_dir():
        raise FolderError(f"{folder}: is a file; give another folder with --results")
    reading = read_journal(Layout(folder))
    _changed(spec, folder, reading.events)
    state = SweepState.replay(reading.events)
    return None if state.started is None else state


def check_name(folder: Path) -> None:
    """Whether scripts, logs and messages can carry the folder's path.

    Raises:
        FolderError: They cannot.
    """
    path = str(folder.resolve())
    wrong = sorted({character for character in path if not character.isprintable()})
    if wrong:
        names = ", ".join(ascii(character) for character in wrong)
        raise FolderError(
            f"{path!r}: no Slurm script and no log can carry the {names} in its name; "
            "give another folder with --results"
        )


def _changed(spec: SweepSpec, folder: Path, events: Sequence[AnyEvent]) -> list[Change]:
    """How the spec goes further than the folder's sweep was started for.

    Raises:
        FolderError: The folder holds something else, or a sweep that cannot go on by this spec.
    """
    started = next((event for event in events if isinstance(event, SweepStarted)), None)
    if started is None:
        layout = Layout(folder)
        ours = layout.spec.exists() or layout.journal.exists()
        if not ours and folder.is_dir() and any(folder.iterdir()):
            raise FolderError(f"{folder}: is not empty and holds no sweep; give another with --results")
        return []
    found = changes(_identity(events), spec.identity())
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


def _identity(events: Sequence[AnyEvent]) -> dict[str, Any]:
    """What a launch must agree with, as it is after these events."""
    known = (event for event in reversed(events) if isinstance(event, SweepStarted | SweepExtended))
    return next(known).identity


def extensions(spec: SweepSpec, state: SweepState | None) -> list[str]:
    """How the spec goes further than its sweep was started for, one line for each change."""
    identity = state.started.identity if state is not None and state.started is not None else None
    return [] if identity is None else [change.line for change in changes(identity, spec.identity())]


def from_scratch(spec: SweepSpec, folder: Path, state: SweepState | None) -> list[int]:
    """Trials that this launch takes further at once, and whose checkpoints were removed. Writes nothing."""
    if state is None or not state.without_checkpoint.union(state.dropping):
        return []
    events = read_journal(Layout(folder)).events
    now, scheduler, _ = replay_sweep(spec, events)
    for event in _extension(spec, events, _changed(spec, folder, events), at=0.0):
        scheduler.apply(event)
    if now.ended is not None:
        scheduler.apply(SweepResumed(0.0))
    promoted = [one.trial for one in scheduler.decide(1 + len(now.trials)) if isinstance(one, Promote)]
    trials = (config * now.repeats + repeat for config in promoted for repeat in range(now.repeats))
    return [trial for trial in trials if trial in now.without_checkpoint or trial in now.dropping]


def _check_place(state: SweepState, folder: Path, place: Target) -> None:
    elsewhere = {batch.cluster for batch in state.live.values()} - {place.name}
    if elsewhere:
        other = min(elsewhere)
        raise FolderError(
            f"{folder}: has jobs on cluster {other!r}, and this launch is on {place.why}; "
            f"carry on with --cluster {other}, or stop it there first"
        )


def note_launch(spec: SweepSpec, layout: Layout, place: Target) -> None:
    """Record by whom, where and with which code the sweep is launched; see `store.provenance`.

    Raises:
        FolderError: The folder cannot be written.
    """
    program = running_program(spec, layout)
    with explained(layout.provenance):
        record_launch(layout, program, spec.resolved(), cluster=place.name, python=spec.cluster.python)


def compactor(layout: Layout) -> Compactor:
    """Compacts what has ended in a process of its own."""
    command = bootstrap.command(sys.executable, "hpcsweep.store.compaction.worker", str(layout.root))
    return SubprocessCompactor(command, dict(os.environ))


@contextlib.contextmanager
def open_sweep(
    spec: SweepSpec,
    folder: Path,
    place: Target,
    *,
    observers: Sequence[Callable[[AnyEvent], None]] = (),
    clock: Clock | None = None,
    journal: Journal | None = None,
    leaving: HostTask | None = None,
    compacts: Callable[[Layout], Compactor] | None = compactor,
) -> Iterator[Driver]:
    """A driver for this folder until the block ends; starts the sweep if it is new.

    Nothing is written to an old sweep before its driver has something to say.

    Args:
        spec: Of the sweep.
        folder: The results folder.
        place: Where the sweep runs.
        observers: Called with every event, those of the past first.
        clock: The time; by default this machine's.
        journal: The folder's, where the caller has opened it already.
        leaving: The job that the driver runs in.
        compacts: Makes the one who compacts what has ended; None: it stays as it is.

    Raises:
        FolderError: See `check_folder`; or it cannot be written.
        HeldError: Another driver is at work on it.
    """
    folder = folder.resolve()
    layout = Layout(folder)
    journal = journal or Journal.open(layout)
    changed = _changed(spec, folder, journal.events)
    compacting = compacts(layout) if compacts else None
    try:
        clock = clock or SystemClock()
        started = next((event for event in journal.events if isinstance(event, SweepStarted)), None)
        picked = started.resolved_searcher if started else _picked(spec)
        beginning = [] if started else _beginning(spec, at=round(clock.time(), 3), picked=picked)
        searcher = make_sweep_searcher(spec, picked=picked)
        driver = Driver(
            layout=layout,
            journal=journal,
            space=spec.space,
            searcher=searcher,
            scheduler=make_scheduler(with_original_scheduler(spec, started), adaptive=searcher.adaptive),
            cluster=place.cluster,
            clock=clock,
            settings=_settings(spec, place, layout),
            host=leaving,
            observers=observers,
            compactor=compacting,
        )
        _check_place(driver.state, folder, place)
        text = spec.dump_yaml().encode()
        if _content(layout.spec) != text:
            journal.acquire()
            with explained(layout.root):
                write_atomic(layout.spec, text, mode=file_mode(spec.cluster.environment))
        driver.start(*beginning, extension=_extension(spec, journal.events, changed, at=clock.time()))
        yield driver
    finally:
        if compacting is not None:
            compacting.close()
        journal.release()


def _content(path: Path) -> bytes | None:
    """What is in the file; None where it cannot be read, so that it is written anew."""
    try:
        return read_bytes(path)
    except OSError:
        return None


def _picked(spec: SweepSpec) -> str:
    """What `auto` stands for in a new sweep; empty where the spec names a searcher."""
    name, reason = resolve_searcher(spec)
    return name if reason else ""


def _beginning(spec: SweepSpec, *, at: float, picked: str) -> list[AnyEvent]:
    started = SweepStarted(secrets.token_hex(3), spec.name, at, spec.identity(), resolved_searcher=picked)
    return [started, *first_events(spec)]


def _extension(
    spec: SweepSpec, events: Sequence[AnyEvent], changed: Sequence[Change], *, at: float
) -> list[AnyEvent]:
    """What is to be recorded of a sweep that goes further, nothing where it does not."""
    if not changed:
        return []
    extended = SweepExtended(round(at, 3), spec.identity(), tuple(change.line for change in changed))
    return [extended, *first_events(spec, after=_identity(events))]


def _settings(spec: SweepSpec, place: Target, layout: Layout) -> DriverConfig:
    budget = spec.budget
    simulated = place.name == "simulated"  # runs nothing
    return DriverConfig(
        name=spec.name,
        cluster=place.name,
        program=spec.program() if simulated else running_program(spec, layout),
        shape=place.shape,
        seed=spec.searcher.seed,
        max_tasks=place.max_tasks,
        max_gpus=spec.cluster.max_gpus,
        max_trials=budget.trials,
        max_gpu_s=None if budget.gpu_hours is None else budget.gpu_hours * 3600,
        max_time_s=budget.time,
        confirm_s=0.0 if simulated else CONFIRM_S,
        max_idle_faults=spec.retries.infrastructure,
        max_errors=spec.retries.training,
        max_timeouts=spec.retries.timeouts,
        fail_fast=spec.retries.fail_fast,
        minimise=spec.objective.mode == "min",
        keep_all=spec.train.keep == "all",
    )
