"""The opening of a sweep: from a spec and a results folder to an open driver."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec

from hpcsweep import bootstrap
from hpcsweep.clock import SystemClock
from hpcsweep.cluster.asked import ASK, AskCluster
from hpcsweep.core.cluster_protocol import DefaultLimits
from hpcsweep.core.events import (
    AnyEvent,
    SweepDetached,
    SweepExtended,
    SweepResumed,
    SweepStarted,
    WarmStartLoaded,
)
from hpcsweep.core.protocols import Clock, Promote
from hpcsweep.core.run_resources import RunResources
from hpcsweep.core.state import SweepState
from hpcsweep.core.suggestions import added_parameters
from hpcsweep.driver import Compactor, Driver, DriverConfig, HostTask, SubprocessCompactor
from hpcsweep.errors import FolderError, HeldError
from hpcsweep.schedulers import scheduler_traits
from hpcsweep.searchers import changed_searchers, searcher_versions
from hpcsweep.session.algorithms import (
    make_scheduler,
    make_searcher,
    replay_sweep,
    resolve_searcher,
    space_growth,
    with_original_scheduler,
)
from hpcsweep.session.preparation import (
    check_folder,
    check_training_code,
    create_snapshot,
    current_start,
    find_changes,
    initial_events,
    running_program,
    validate,
)
from hpcsweep.session.program import Found, check_program
from hpcsweep.session.quota_forecast import QuotaForecast, forecast_quota
from hpcsweep.session.target import Target, asked_target, resolve_target
from hpcsweep.spec import Change, SweepSpec, changes, load_spec
from hpcsweep.store.files import file_mode, read_bytes, wrap_oserror, write_atomic
from hpcsweep.store.journal import Journal
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.provenance import record_launch

#: The wall clock must say for so long that `budget.time` is over: it may jump by some seconds.
CONFIRM_S: Final = 90.0
#: How long a command waits for the jobs that drive a detached sweep: they hold it for moments only.
PATIENCE_S: Final = 20.0


def make_compactor(layout: Layout) -> Compactor:
    """A compactor that works in a process of its own."""
    command = bootstrap.command(sys.executable, "hpcsweep.store.compaction.worker", str(layout.root))
    return SubprocessCompactor(command, dict(os.environ))


class Session:
    """One opening of a sweep: by `launch`, a request (`retry`, `stop`), a tick or a simulation.

    State, target and earlier results are read once. Nothing is written before `acquire` and `open`.

    Args:
        folder: The results folder, as the user gave it.
        state: The state before; None for a new sweep.
        cluster: A name that overrides `cluster.name`.
        target: Where the sweep runs, where the caller knows.
    """

    def __init__(
        self,
        spec: SweepSpec,
        folder: Path,
        *,
        state: SweepState | None = None,
        cluster: str | None = None,
        target: Target | None = None,
    ) -> None:
        self.spec = spec.with_added(added_parameters(state.started if state else None))
        self.folder = folder
        self.layout = Layout(folder.resolve())
        self.state = state
        self._cluster = cluster
        self._target = target
        #: An identity (None: a new sweep) and the events that the spec adds to a sweep of it.
        self._initial: tuple[Mapping[str, Any] | None, list[AnyEvent]] | None = None

    # ------------------------------------------------------------------ by purpose

    @classmethod
    def for_launch(cls, spec: SweepSpec, folder: Path, *, cluster: str | None = None) -> Session:
        """To start the sweep in this folder, or to resume it there; see `check_folder`."""
        return cls(spec, folder, state=check_folder(spec, folder), cluster=cluster)

    @classmethod
    def for_request(cls, layout: Layout, state: SweepState, *, overrides: Sequence[str] = ()) -> Session:
        """To carry out a request (`retry`, `stop`) by the spec that the results folder keeps."""
        spec = load_spec(layout.spec, overrides, stored=True)
        asked = any(batch.cluster == ASK for batch in state.live.values())
        target = asked_target(spec, AskCluster()) if asked else None
        return cls(spec, layout.root, state=state, target=target)

    @classmethod
    def for_tick(cls, layout: Layout, events: Sequence[AnyEvent]) -> Session:
        """To tick a detached sweep from one of its jobs, where `auto` may mean another cluster."""
        cluster = next(event.cluster for event in reversed(events) if isinstance(event, SweepDetached))
        return cls(load_spec(layout.spec, stored=True), layout.root, cluster=cluster)

    # ------------------------------------------------------------------ what is known before

    @cached_property
    def target(self) -> Target:
        """Where batches run; see `resolve_target`."""
        return self._target or resolve_target(self.spec, name=self._cluster, state=self.state)

    @property
    def searcher(self) -> tuple[str, str]:
        """The searcher's name, and why `auto` chose it; no reason where the spec names it."""
        started = self.state.started if self.state else None
        return resolve_searcher(self.spec, resolved=started.resolved_searcher if started else "")

    @property
    def searcher_changes(self) -> list[str]:
        """How the searcher differs from the one that the sweep began with; see `changed_searchers`."""
        started = self.state.started if self.state else None
        return changed_searchers(started) if started else []

    @property
    def warm_start(self) -> list[WarmStartLoaded]:
        """The earlier results that the spec adds."""
        events = self._initial_events(self._identity)
        return [event for event in events if isinstance(event, WarmStartLoaded)]

    @cached_property
    def _program(self) -> Found:
        """What the command of a new sweep shows; one that has begun goes on with the command that it has."""
        return check_program(self.spec) if self.state is None else Found([], [])

    @property
    def warnings(self) -> list[str]:
        """What may be wrong with the command, one line each."""
        return self._program.warnings

    @cached_property
    def quota_forecast(self) -> QuotaForecast | None:
        """Whether `store.checkpoint_quota` has room for what must be kept; see `forecast_quota`."""
        return forecast_quota(self.spec, self.layout, self.state)

    @property
    def extensions(self) -> list[str]:
        """How the spec goes beyond what the sweep was started for, one line for each change."""
        started = self.state.started if self.state else None
        return [change.line for change in changes(started.identity, self.spec.identity())] if started else []

    def restarted_from_scratch(self) -> list[int]:
        """Trials that this launch resumes at once although their checkpoints were removed."""
        if self.state is None or not self.state.without_checkpoint.union(self.state.dropping):
            return []
        state, scheduler, _ = replay_sweep(self.spec, read_journal(self.layout).events)
        changed = find_changes(self.spec, self.folder, state.started)
        for event in self._extension(changed, state.started, at=0.0):
            scheduler.apply(event)
        if state.ended is not None:
            scheduler.apply(SweepResumed(0.0))
        decisions = scheduler.decide(1 + len(state.trials))
        promoted = [decision.trial for decision in decisions if isinstance(decision, Promote)]
        trials = (config * state.repeats + repeat for config in promoted for repeat in range(state.repeats))
        return [trial for trial in trials if trial in state.without_checkpoint or trial in state.dropping]

    # ------------------------------------------------------------------ checks; they write nothing

    def validate(self) -> None:
        """Check what the spec asks of the world around it, then resolve the target.

        Raises:
            SpecError: The sweep cannot run by this spec; all problems at once.
        """
        found = self._program.problems
        self._initial = self._identity, validate(self.spec, state=self.state, found=found)
        _ = self.target

    def check_target(self) -> None:
        """Check that a task can run on the target; see `Target.check`."""
        self.target.check(max_gpus=self.spec.cluster.max_gpus, folder=self.folder)

    def check_training_code(self) -> None:
        """Check the code that the sweep runs, unless it has ended; see `check_training_code`."""
        if self.state is None or self.state.ended is None:
            check_training_code(self.spec, self.layout if self.state else None)

    @property
    def copies_code(self) -> bool:
        """Whether `acquire` copies the training code, and checks the copy."""
        return self.state is None and self.spec.train.snapshot

    # ------------------------------------------------------------------ the driver

    @contextlib.contextmanager
    def acquire(self, clock: Clock) -> Iterator[Journal | None]:
        """Hold the journal until the block ends, where that must be before `open`; else None.

        Held early are new sweeps whose training code is copied, and detached ones: their jobs hold
        the journal for moments, so a command waits for its turn.

        Raises:
            HeldError: Another driver holds it, also after a while.
        """
        if self.copies_code:
            with create_snapshot(self.spec, self.layout) as journal:
                yield journal
        elif self.state is None or self.state.detached is None or self.state.ended is not None:
            yield None
        else:
            journal = wait_for_journal(self.layout, clock)
            try:
                yield journal
            finally:
                journal.release()

    @contextlib.contextmanager
    def open(
        self,
        *,
        observers: Sequence[Callable[[AnyEvent], None]] = (),
        clock: Clock | None = None,
        journal: Journal | None = None,
        host_task: HostTask | None = None,
        compactor: Callable[[Layout], Compactor] | None = make_compactor,
    ) -> Iterator[Driver]:
        """A driver until the block ends; starts the sweep if it is new.

        Nothing is written to an old sweep before its driver has something to record.

        Args:
            observers: Called with every event, the past ones first.
            clock: By default this machine's.
            journal: The folder's, where the caller has opened it.
            host_task: The job that the driver runs in.
            compactor: Makes what compacts ended runs; None: nothing does.

        Raises:
            FolderError: See `check_folder`; or the folder cannot be written.
            HeldError: Another driver is at work.
        """
        layout, target = self.layout, self.target
        journal = journal or Journal.open(layout)
        now = current_start(journal.events)
        spec = self.spec = self.spec.with_added(added_parameters(now))
        changed = find_changes(spec, layout.root, now)
        compacting = compactor(layout) if compactor else None
        try:
            clock = clock or SystemClock()
            started = next((event for event in journal.events if isinstance(event, SweepStarted)), None)
            first = started or self._new_start(at=round(clock.time(), 3))
            beginning = [] if started else [first, *self._initial_events(None)]
            searcher = make_searcher(spec, resolved=first.resolved_searcher)
            driver = Driver(
                layout=layout,
                journal=journal,
                space=spec.space,
                searcher=searcher,
                scheduler=make_scheduler(with_original_scheduler(spec, started), adaptive=searcher.adaptive),
                cluster=target.cluster,
                clock=clock,
                settings=self._driver_config(first),
                host=host_task,
                observers=observers,
                compactor=compacting,
            )
            self._check_cluster(driver.state)
            text = spec.yaml.encode()
            if _content(layout.spec) != text:
                journal.acquire()
                with wrap_oserror(layout.root):
                    write_atomic(layout.spec, text, mode=file_mode(spec.cluster.environment))
            driver.start(*beginning, extension=self._extension(changed, now, at=clock.time()))
            yield driver
        finally:
            if compacting is not None:
                compacting.close()
            journal.release()

    def record_launch(self) -> None:
        """Record who launched the sweep, where and with which code; see `store.provenance`."""
        spec, layout = self.spec, self.layout
        program = running_program(spec, layout)
        python, cluster = spec.cluster.python, self.target.name
        with wrap_oserror(layout.provenance):
            record_launch(layout, program, spec.resolved(), cluster=cluster, python=python)

    # ------------------------------------------------------------------ its parts

    @property
    def _identity(self) -> Mapping[str, Any] | None:
        return self.state.started.identity if self.state and self.state.started else None

    def _initial_events(self, identity: Mapping[str, Any] | None) -> list[AnyEvent]:
        """What the spec adds to a sweep of this identity (None: a new one); read once."""
        if self._initial is None or self._initial[0] != identity:
            self._initial = identity, initial_events(self.spec, identity=identity)
        return self._initial[1]

    def _new_start(self, *, at: float) -> SweepStarted:
        name, reason = resolve_searcher(self.spec)
        identity, resolved = self.spec.identity(), name if reason else ""
        default_time_s, default_mem_mib = self.target.default_limits()
        return SweepStarted(
            secrets.token_hex(3),
            self.spec.name,
            at,
            identity,
            resolved_searcher=resolved,
            searcher_versions=searcher_versions(identity, resolved),
            default_time_s=default_time_s or 0,
            default_mem_mib=default_mem_mib or 0,
        )

    def run_resources(self, started: SweepStarted | None) -> RunResources:
        """What each run of the sweep needs, a new one's where it has not started.

        Where each run is a task of its own, limits that the spec does not give are learned. A task that does
        run after run waits for its own time, and shorter ones would wait anew.
        """
        resources, target = self.spec.run_resources, self.target
        if target.reuse:
            return resources
        known = target.default_limits() if started is None else _defaults(started)
        return msgspec.structs.replace(resources, defaults=known)

    def _extension(
        self, changed: Sequence[Change], started: SweepStarted | None, *, at: float
    ) -> list[AnyEvent]:
        """The events that extend the sweep; none where the spec does not."""
        if not changed or started is None:
            return []
        lines = tuple(change.line for change in changed)
        extended = SweepExtended(round(at, 3), self.spec.identity(), lines)
        return [extended, *self._initial_events(started.identity)]

    def _check_cluster(self, state: SweepState) -> None:
        """Refuse to drive from here a sweep whose jobs are on another cluster."""
        others = {batch.cluster for batch in state.live.values()} - {self.target.name}
        if others:
            other = min(others)
            raise FolderError(
                f"{self.layout.root}: has jobs on cluster {other!r}, and this launch is on "
                f"{self.target.why}; resume with --cluster {other}, or stop it there first"
            )

    def _driver_config(self, started: SweepStarted) -> DriverConfig:
        spec, target = self.spec, self.target
        budget, retries = spec.budget, spec.retries
        traits = scheduler_traits(spec.scheduler.name)
        return DriverConfig(
            name=spec.name,
            cluster=target.name,
            program=spec.program() if target.simulated else running_program(spec, self.layout),
            shape=target.shape,
            seed=spec.searcher.seed,
            max_tasks=target.max_tasks,
            max_gpus=spec.cluster.max_gpus,
            max_trials=budget.trials,
            max_gpu_s=None if budget.gpu_hours is None else budget.gpu_hours * 3600,
            max_time_s=budget.time,
            confirm_s=0.0 if target.simulated else CONFIRM_S,
            max_idle_faults=retries.infrastructure,
            max_errors=retries.training,
            max_timeouts=retries.timeouts,
            fail_fast=retries.fail_fast,
            minimise=spec.objective.mode == "min",
            checkpoint_bytes=spec.store.checkpoint_quota,
            checkpoint_files=spec.store.checkpoint_files,
            least_promising_give_way=traits.promotes_any_time and not traits.population,
            keep_all=spec.train.keep == "all",
            growth=space_growth(spec, resolved=started.resolved_searcher),
            idle_s=spec.cluster.idle if target.reuse else None,
            run=spec.largest_run,
            resources=self.run_resources(started),
            smallest=msgspec.structs.replace(target.shapes[0], time_s=spec.least_run.time_s),
            task_time_s=spec.cluster.task_time,
        )


def _defaults(started: SweepStarted) -> DefaultLimits:
    """What the cluster gave by default when the sweep began."""
    return DefaultLimits(started.default_time_s or None, started.default_mem_mib or None)


def _content(path: Path) -> bytes | None:
    """What the file holds; None where it cannot be read, so that it is written anew."""
    try:
        return read_bytes(path)
    except OSError:
        return None


def wait_for_journal(layout: Layout, clock: Clock) -> Journal:
    """The journal, held; HeldError if another driver holds it also after a while."""
    deadline = clock.time() + PATIENCE_S
    while True:
        try:
            journal = Journal.open(layout)
            journal.acquire()
            return journal
        except HeldError:
            if clock.time() > deadline:
                raise
        clock.sleep(random.uniform(0.2, 0.6))
