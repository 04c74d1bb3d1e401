"""From a spec and a folder to a driver with its searcher, scheduler, cluster and store."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from hpcsweep import bootstrap
from hpcsweep.clock import SystemClock
from hpcsweep.cluster import CLUSTERS
from hpcsweep.cluster.local.cluster import LocalCluster, cpus_here, devices_here
from hpcsweep.core.counting import counted
from hpcsweep.core.events import AnyEvent, SweepExtended, SweepResumed, SweepStarted
from hpcsweep.core.protocols import (
    Batch,
    Clock,
    Cluster,
    Holding,
    Promote,
    Scheduler,
    Searcher,
    TaskResources,
)
from hpcsweep.core.retention import Retention
from hpcsweep.core.state import SweepState
from hpcsweep.driver import Compactor, Driver, DriverConfig, HostTask, SubprocessCompactor
from hpcsweep.driver.repeats import RepeatAdapter
from hpcsweep.errors import ClusterUnavailable, FolderError, SpecError, TrainerError
from hpcsweep.plugins import find_class
from hpcsweep.schedulers import SCHEDULERS
from hpcsweep.schedulers.stopping_rules import STOP_RULES, Stopping
from hpcsweep.schedulers.synchronous import PIECE
from hpcsweep.searchers import make_searcher
from hpcsweep.session.warm_start import first_events
from hpcsweep.spec import Change, SweepSpec, changes
from hpcsweep.spec.models import SCHEDULER_MODELS
from hpcsweep.spec.plugin_options import CLUSTER_PLUGINS, cluster_options
from hpcsweep.store.files import explained, file_mode, read_bytes, write_atomic
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.journal.writer import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.manifest import Program
from hpcsweep.store.provenance import record_launch
from hpcsweep.store.snapshot import copy_code, in_copy, list_code
from hpcsweep.worker.check import check_trainer

if TYPE_CHECKING:
    from collections.abc import Sequence


#: A clock may jump for some seconds: so long it has to say that `budget.time` is over.
CONFIRM_S = 90.0


class Target(msgspec.Struct, frozen=True):
    """Where a sweep runs.

    Attributes:
        name: Of the cluster.
        why: One sentence for the user.
        shape: What a task asks of it.
        max_tasks: The cap on tasks at a time, None if there is none.
    """

    name: str
    why: str
    cluster: Cluster
    shape: TaskResources
    max_tasks: int | None


def resolve_target(spec: SweepSpec, *, name: str | None = None, state: SweepState | None = None) -> Target:
    """The cluster that the spec (or `name`, which goes before it) asks for.

    `auto` is where the sweep's jobs are if it has any (see `state`), else Slurm where sbatch is on
    the PATH and a cluster is configured, else this machine.

    Raises:
        SpecError: There is no such cluster, it cannot run this sweep, or `auto` meets an outage of Slurm.
    """
    wanted = name or spec.cluster.name
    why = "as asked for"
    if wanted == "auto" and state is not None and state.live:
        wanted, why = next(iter(state.live.values())).cluster, "where its jobs are"
    if wanted == "auto":
        from hpcsweep.cluster.slurm.cluster import Presence, probe

        presence, why = probe()
        if presence is Presence.SILENT:
            raise SpecError(
                f"cluster.name: auto: {why}: launch again when it answers, have Slurm waited for with "
                "--cluster slurm, or train on this very machine with --cluster local"
            )
        wanted = "slurm" if presence is Presence.ANSWERS else "local"
    match wanted:
        case "local":
            return _local(spec, why)
        case "slurm":
            return _slurm(spec, why)
        case "simulated":
            raise SpecError(
                "cluster.name: simulated trains nothing; use `hpcsweep simulate`, "
                "or give another one, as with --cluster local"
            )
        case _:
            make = find_class(CLUSTERS, wanted, group=CLUSTER_PLUGINS, key="cluster.name")
            own = cluster_options(spec.cluster, make) if spec.cluster.name == wanted else {}
            cluster: Cluster = make(spec=spec, **own)
            shape = spec.task_shape()
            return Target(wanted, why, cluster, shape, max_tasks(spec, shape))


def _local(spec: SweepSpec, why: str) -> Target:
    devices = devices_here() if spec.resources.gpus else []
    wanted = spec.resources.gpus
    options = spec.cluster
    if devices:
        if wanted > len(devices):
            raise SpecError(f"resources.gpus: this machine has {counted(len(devices), 'GPU')}, got {wanted}")
        slots = len(devices) // wanted
        what = f"{counted(slots, 'run')} at a time on {counted(len(devices), 'GPU')}"
    else:
        wanted = 0
        slots = options.slots or max(1, cpus_here() // spec.resources.cpus)
        what = f"{counted(slots, 'run')} at a time on CPUs"
    poll = (options.poll, options.poll) if options.poll else (0.05, 0.5)
    cluster = LocalCluster(
        slots=slots,
        devices=devices,
        gpus=wanted,
        cpus=spec.resources.cpus,
        signal_s=options.signal,
        environment=set_variables(options.environment),
        poll_s=poll,
        **({"python": options.python} if options.python else {}),
    )
    shape = TaskResources(gpus=wanted, cpus=spec.resources.cpus, time_s=spec.resources.time)
    return Target("local", f"this machine, {what} ({why})", cluster, shape, max_tasks(spec, shape))


def _slurm(spec: SweepSpec, why: str) -> Target:
    from hpcsweep.cluster.slurm.cluster import SlurmCluster
    from hpcsweep.cluster.slurm.options import SlurmOptions

    options = spec.cluster
    given = {
        field: getattr(options, field)
        for field in (
            "partition",
            "account",
            "qos",
            "constraint",
            "nodelist",
            "exclude",
            "gpu_type",
            "template",
            "setup",
            "environment",
            "options",
            "tick_options",
            "python",
        )
        if getattr(options, field) is not None
    }
    given["environment"] = set_variables(options.environment)
    given["inherited"] = tuple(name for name, value in options.environment.items() if value is None)
    times = {"settle_s": options.settle, "grace_s": options.grace}
    given |= {key: value for key, value in times.items() if value is not None}
    if options.poll is not None:
        given["poll_s"] = (options.poll, options.poll)
    cluster = SlurmCluster(SlurmOptions(**given, signal_s=options.signal, workdir=spec.train.workdir))
    shape = spec.task_shape()
    return Target("slurm", f"Slurm ({why})", cluster, shape, max_tasks(spec, shape))


@contextlib.contextmanager
def tell_slow_programs(tell: Callable[[str], None]) -> Iterator[None]:
    """Until the block ends, say which of the cluster's programs has not answered for a while."""
    from hpcsweep.cluster.slurm import programs

    before = programs.on_slow
    programs.on_slow = lambda name, seconds: tell(f"waits for {name}: no answer for {seconds:g} s")
    try:
        yield
    finally:
        programs.on_slow = before


def set_variables(environment: Mapping[str, str | None]) -> dict[str, str]:
    """The variables that the spec gives a value; the others are inherited."""
    return {name: value for name, value in environment.items() if value is not None}


def check_inherited(spec: SweepSpec, environ: Mapping[str, str]) -> None:
    """Variables that a launch is to pass on to the jobs must be there.

    Raises:
        SpecError: One line for each that is not.
    """
    missing = [
        name for name, value in spec.cluster.environment.items() if value is None and name not in environ
    ]
    if missing:
        raise SpecError(
            *(
                f"cluster.environment.{name}: null takes it from the environment of `launch`, where it is "
                f"not set; export {name} first"
                for name in missing
            )
        )


def check_fits(place: Target, *, max_gpus: int | None, folder: Path | None = None) -> None:
    """What can never run there is refused before anything is submitted.

    Args:
        place: Where the sweep runs.
        max_gpus: The cap that a task must fit below.
        folder: The results folder, where it is to be one of which scripts can tell.

    Raises:
        SpecError: One line for each way in which the resources do not fit.
    """
    problems = place.cluster.problems(place.shape) or holding_problems(place, max_gpus=max_gpus)
    if problems:
        raise SpecError(*problems)
    script = getattr(place.cluster, "script", None)
    if script is not None and folder is not None:
        script(Batch("x", Layout(folder.resolve()).batch("x").root, 1, 1, place.shape))


def holding_of(place: Target) -> Holding:
    """What a task will hold there; what it asks for where the cluster does not answer."""
    try:
        return place.cluster.holds(place.shape)
    except ClusterUnavailable:
        return Holding(place.shape.gpus, place.shape.cpus)


def holding_problems(place: Target, *, max_gpus: int | None) -> list[str]:
    """Why no task fits below the cap on GPUs, one line; empty if one does."""
    held = holding_of(place)
    if max_gpus is None or held.gpus <= max_gpus:
        return []
    return [f"cluster.max_gpus: must be at least {held.gpus}, got {max_gpus}: {holding_words(place, held)}"]


def holding_words(place: Target, held: Holding) -> str:
    """That a task holds more than it asks for, and what to do about it; empty if it does not."""
    shape = place.shape
    if not held.why:
        return ""
    if held.gpus > shape.gpus:
        got, asked, each = f"{held.gpus} GPUs", str(shape.gpus), held.gpus // (shape.gpus // shape.lanes or 1)
    else:
        got, asked, each = f"{held.cpus} CPUs", str(shape.cpus), held.cpus // (shape.cpus // shape.lanes or 1)
    words = f"a task asks for {asked} and holds {got}: {held.why}"
    if each > shape.lanes:
        words += (
            f"; cluster.concurrent: {each} (with cluster.runs_per_task: {each}) shares them among {each} runs"
        )
    return words


def tick_words(place: Target) -> str:
    """That jobs that tick a detached sweep hold GPUs there, and what to do; empty if that is not known."""
    told = getattr(place.cluster, "ticks_hold", None)
    if told is None:
        return ""
    try:
        return str(told())
    except ClusterUnavailable:
        return ""


def max_tasks(spec: SweepSpec, shape: TaskResources) -> int | None:
    """The cap on tasks at a time that the spec sets, None if it sets none."""
    caps = []
    if spec.cluster.max_tasks is not None:
        caps.append(spec.cluster.max_tasks)
    if spec.cluster.max_gpus is not None and shape.gpus:
        caps.append(max(1, spec.cluster.max_gpus // shape.gpus))
    return min(caps, default=None)


def make_scheduler(spec: SweepSpec, *, adaptive: bool = True) -> Scheduler:
    """A fresh scheduler as the spec asks for it, with its stopping rules.

    Args:
        spec: Of the sweep.
        adaptive: Whether the searcher learns from results; if not, trials may start far ahead.
    """
    options = dict(spec.scheduler.options)
    cls = find_class(SCHEDULERS, spec.scheduler.name, group="hpcsweep.schedulers", key="scheduler.name")
    minimise = spec.objective.mode == "min"
    supplied: dict[str, Any] = {
        "minimise": minimise,
        "trials": spec.budget.trials,
        "ahead": not adaptive,
        "space": spec.space,
        "seed": spec.searcher.seed,
        # Trials that start together at most, whatever the repeats: they are events of one commit.
        "piece": max(1, min(PIECE, 10 * PIECE // spec.repeats)),
    }
    wanted = inspect.signature(cls).parameters
    options |= {key: value for key, value in supplied.items() if key in wanted}
    scheduler: Scheduler = cls(**options)
    if spec.stop:
        rules = [STOP_RULES[rule.name](**rule.options, minimise=minimise) for rule in spec.stop]
        scheduler = Stopping(scheduler, rules=rules)
    return scheduler


def retention_of(
    spec: SweepSpec, events: Sequence[AnyEvent], *, keep_trained: bool = True
) -> tuple[SweepState, Retention]:
    """The state after these events, and who of its trials can go on; for commands that drive nothing."""
    state, _, retention = _replayed(spec, events, keep_trained=keep_trained)
    return state, retention


def _replayed(
    spec: SweepSpec, events: Sequence[AnyEvent], *, keep_trained: bool = True
) -> tuple[SweepState, Scheduler, Retention]:
    state = SweepState()
    repeats = RepeatAdapter(state)
    started = next((event for event in events if isinstance(event, SweepStarted)), None)
    searcher = make_sweep_searcher(spec, picked=started.picked if started else "")
    scheduler = make_scheduler(_as_started(spec, started), adaptive=searcher.adaptive)
    retention = Retention(state, scheduler, keep_trained=keep_trained)
    for event in events:
        state.apply(event)
        told = repeats.told(event)
        if told is not None:
            scheduler.apply(told)
        retention.apply(event)
    return state, scheduler, retention


def make_sweep_searcher(spec: SweepSpec, *, picked: str = "") -> Searcher:
    """The searcher of the spec.

    Args:
        spec: Of the sweep.
        picked: What `auto` stood for when the sweep began; empty for a new one.
    """
    one = spec.searcher
    return make_searcher(
        one.name, seed=one.seed, options=one.options, trials=spec.starts, picked=picked or None
    )


def pick(spec: SweepSpec, *, picked: str = "") -> tuple[str, str]:
    """The searcher that the spec stands for, and why in one sentence; empty where the spec names it."""
    if spec.searcher.name != "auto":
        return spec.searcher.name, ""
    searcher = make_sweep_searcher(spec, picked=picked)
    found: tuple[str, str] = cast("Any", searcher).pick(spec.space)
    return found


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
    now, scheduler, _ = _replayed(spec, events)
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


def running_program(spec: SweepSpec, layout: Layout) -> Program:
    """How a trial is run: by the copy of the training code where `train.snapshot` asks for one.

    Raises:
        FolderError: There is no copy, or what is to be run is not in it.
    """
    return in_copy(spec.program(), layout) if spec.train.snapshot else spec.program()


def note_launch(spec: SweepSpec, layout: Layout, place: Target) -> None:
    """Record by whom, where and with which code the sweep is launched; see `store.provenance`.

    Raises:
        FolderError: The folder cannot be written.
    """
    program = running_program(spec, layout)
    with explained(layout.provenance):
        record_launch(layout, program, spec.resolved(), cluster=place.name, python=spec.cluster.python)


@contextlib.contextmanager
def new_snapshot(spec: SweepSpec, folder: Path) -> Iterator[Journal]:
    """Copy the training code of a new sweep, and check the copy; its journal, held until the block ends.

    Where another launch has started the sweep meanwhile, its copy stays.

    Raises:
        SpecError: There is too much of it, or it cannot be read; nothing was written.
        TrainerError: The copy cannot be imported or called; the sweep has not begun.
        FolderError: The folder cannot be written.
        HeldError: Another driver is at work on it.
    """
    layout = Layout(folder.resolve())
    listing = list_code(spec.program(), layout.root)
    journal = Journal.open(layout)
    try:
        journal.acquire()
        if not any(isinstance(event, SweepStarted) for event in journal.events):
            with explained(layout.root):
                copy_code(listing, layout, owner=journal.number, beat=journal.beat)
            check_training_code(spec, layout)
        yield journal
    finally:
        journal.release()


def check_training_code(spec: SweepSpec, layout: Layout | None = None) -> None:
    """Import the trainer in a process of its own, so that no torch enters the driver.

    Args:
        spec: Of the sweep.
        layout: The results folder, which may have a copy of the code; None: there is none yet.

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
        key = "train.function" if spec.train.function else "train.command"
        raise TrainerError(f"{key}: {error}") from error


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
        picked = started.picked if started else _picked(spec)
        beginning = [] if started else _beginning(spec, at=round(clock.time(), 3), picked=picked)
        searcher = make_sweep_searcher(spec, picked=picked)
        driver = Driver(
            layout=layout,
            journal=journal,
            space=spec.space,
            searcher=searcher,
            scheduler=make_scheduler(_as_started(spec, started), adaptive=searcher.adaptive),
            cluster=place.cluster,
            clock=clock,
            settings=_settings(spec, place, layout),
            leaving=leaving,
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
    name, reason = pick(spec)
    return name if reason else ""


def _beginning(spec: SweepSpec, *, at: float, picked: str) -> list[AnyEvent]:
    started = SweepStarted(secrets.token_hex(3), spec.name, at, spec.identity(), picked=picked)
    return [started, *first_events(spec)]


def _as_started(spec: SweepSpec, started: SweepStarted | None) -> SweepSpec:
    """With the scheduler that the sweep began with: the journal tells it of each extension at its place."""
    plain = started.identity["scheduler"] if started else None
    model = SCHEDULER_MODELS.get(spec.scheduler.name)
    if plain is None or model is None or plain == spec.scheduler.plain():
        return spec
    return dataclasses.replace(spec, scheduler=model.model_validate(plain))


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
