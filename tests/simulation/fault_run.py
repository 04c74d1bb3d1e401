"""Runs one fault schedule, with everything that must hold on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from numpy.random import default_rng

from hpcsweep.cluster.simulated.site import Site
from hpcsweep.cluster.simulated.task import Curve, Task, Training, TrainingModel
from hpcsweep.core.cluster_protocol import Batch
from hpcsweep.core.events import (
    AnyEvent,
    BatchAbandoned,
    Config,
    Interruption,
    RunFinished,
    RunId,
    RunInterrupted,
    SweepOutcome,
)
from hpcsweep.core.models import RunStatus
from hpcsweep.core.protocols import Clock
from hpcsweep.core.state import SweepState
from hpcsweep.driver import Compactor, Driver
from hpcsweep.errors import FolderUnavailable
from hpcsweep.session.algorithms import make_scheduler
from hpcsweep.session.session import Session
from hpcsweep.simulation.simulate import simulated_target
from hpcsweep.store.batch import ManifestRun, Result
from hpcsweep.store.compaction.tracker import CompactionState
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.run_files import MetricsWriter
from tests.simulation.file_faults import FileFaults
from tests.simulation.killable import (
    KillableCluster,
    KillableCompactor,
    KillableJournal,
    Killed,
    KillSchedule,
    ask,
)
from tests.simulation.schedules import Schedule
from tests.simulation.specs import curve_of

#: No small sweep takes longer, in ticks, launches and virtual seconds, whatever goes wrong.
MOST_TICKS = 20_000
MOST_LAUNCHES = 60
MOST_S = 30 * 86_400
#: Ends of which no worker told, and that the user did not ask for.
_SILENT = (Interruption.LOST, Interruption.WORKER_DIED)


class Oracle:
    """Sees what the site really does, behind the cluster's answers.

    Attributes:
        accepted: Names of the arrays that it took, in order.
        training: What goes on now, by trial.
        reported: What was written into each metrics file, by trial and the name of the file.
        results: What the tasks of each batch told, late results included.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.accepted: list[str] = []
        self.training: dict[int, Training] = {}
        self.reported: dict[tuple[int, str], list[tuple[int, dict[str, float]]]] = {}
        self.results: dict[str, list[Result]] = {}
        self._completed: dict[int, int] = {}
        write, tell = MetricsWriter.write, Task._write
        accept, begin, leave = Site.accept, TrainingModel.begin, TrainingModel.leave

        def accepting(site: Site, number: int, batch: Batch, *, reports: bool) -> None:
            self.accepted.append(batch.name)
            accept(site, number, batch, reports=reports)

        def beginning(trainings: TrainingModel, run: ManifestRun, now: float) -> Training:
            training = begin(trainings, run, now)
            assert run.trial not in self.training, f"trial {run.trial} is trained twice at the same time"
            done = self._completed.get(run.trial, run.parent_step)
            assert training.start >= done, f"trial {run.trial}: units of a completed rung are trained again"
            self.training[run.trial] = training
            return training

        def leaving(trainings: TrainingModel, training: Training, now: float) -> int:
            step, run = leave(trainings, training, now), training.run
            assert self.training.pop(run.trial) is training
            if step == run.resource:
                self._completed[run.trial] = step
            return step

        def writing(writer: MetricsWriter, step: int, metrics: Mapping[str, float]) -> None:
            write(writer, step, metrics)
            key = int(writer.path.parent.name), writer.path.name
            self.reported.setdefault(key, []).append((step, dict(metrics)))

        def telling(task: Task, n: int, result: Result) -> None:
            tell(task, n, result)
            self.results.setdefault(task._shared.header.batch, []).append(result)

        patch.setattr(MetricsWriter, "write", writing)
        patch.setattr(Task, "_write", telling)
        patch.setattr(Site, "accept", accepting)
        patch.setattr(TrainingModel, "begin", beginning)
        patch.setattr(TrainingModel, "leave", leaving)


class _SiteClock:
    """The site's time: what goes on there while the driver sleeps is not the driver's."""

    def __init__(self, clock: Clock, faults: FileFaults) -> None:
        self._clock = clock
        self._faults = faults

    def time(self) -> float:
        return self._clock.time()

    def sleep(self, seconds: float) -> None:
        with self._faults.elsewhere():
            self._clock.sleep(seconds)


class FaultRun:
    """Drives the schedule's sweep until it has ended, however often its driver dies.

    Args:
        schedule: What goes wrong.
        folder: Where the spec and the results folder go.
        oracle: Sees what the site does.
        patch: By which file operations fail, until it is undone.

    Attributes:
        driver: The last one; its sweep has ended.
        cluster: What it spoke to; `site` is behind it.
        abandoned: When each batch was that was.
        given_up: When an attempt was taken for lost, by its batch and run.
    """

    def __init__(self, schedule: Schedule, folder: Path, oracle: Oracle, patch: pytest.MonkeyPatch) -> None:
        self.schedule = schedule
        self.spec = schedule.spec(folder)
        self.layout = Layout(folder / "results")
        self.oracle = oracle
        self.rng = default_rng([schedule.seed, 5])
        self.kills = KillSchedule(default_rng([schedule.seed, 6]), kills=schedule.kills, gap=schedule.gap)
        self.faults = FileFaults(
            default_rng([schedule.seed, 7]),
            self.layout.root,
            faults=schedule.faults,
            gap=schedule.fault_gap,
        )
        self.faults.install(patch)
        place, self.site = simulated_target(self.spec, _flaky(schedule, curve_of(self.spec)))
        self.cluster = KillableCluster(self.site, self.kills, self.faults)
        self.place = msgspec.structs.replace(place, cluster=self.cluster)
        self.abandoned: dict[str, float] = {}
        self.given_up: dict[tuple[str, RunId, int], float] = {}
        self.launches = 0
        #: Sessions that ended because a file operation failed.
        self.failures = 0
        self._ticks = 0
        self._retried = False
        self._begin = self.site.clock.time()
        self.driver = self._drive()
        while (again := self._launched_again()) is not None:
            self.driver = again

    @property
    def events(self) -> list[AnyEvent]:
        """The whole journal."""
        return read_journal(self.layout).events

    # ------------------------------------------------------------------ drivers

    def _drive(self) -> Driver:
        """One driver after another, until the sweep has ended."""
        while True:
            driver = self._session()
            if driver is not None:
                return driver
            self.kills.dead = False
            down_s = float(self.rng.choice([0.0, 1.0, 20.0, 150.0, 4000.0]))
            if down_s:
                self.site.clock.sleep(down_s)

    def _session(self) -> Driver | None:
        """One driver's life; None if it was killed."""
        self.launches += 1
        assert self.launches <= MOST_LAUNCHES, "it is launched again and again and never ends"
        seen: list[AnyEvent] = []
        driver: Driver | None = None
        failed = False
        try:
            with (
                self.faults.driving(),
                Session(self.spec, self.layout.root, target=self.place).open(
                    observers=[seen.append],
                    clock=_SiteClock(self.site.clock, self.faults),
                    journal=KillableJournal(self.layout, self.kills, self.faults, committed=self._committed),
                    compactor=self._compactor if self.schedule.compact_at is not None else None,
                ) as driver,
            ):
                self.site.reports = driver.scheduler.needs_reports
                if driver.state.ended is None:
                    driver.run(self._ticked)
                else:
                    driver.compact()
        except Killed:
            pass
        except (FolderUnavailable, OSError):
            # As `launch` and tick jobs do: whoever comes next reads all again.
            failed = True
            self.failures += 1
            if not self.faults.happened:
                raise
        if driver is not None:
            self._check_replay(driver, seen, whole=not (failed or self.kills.dead))
        return None if self.kills.dead or failed else driver

    def _compactor(self, layout: Layout) -> Compactor:
        return KillableCompactor(layout, self.kills, self.faults)

    def _launched_again(self) -> Driver | None:
        """The driver after the next launch, if there is a reason for one."""
        ended = self.driver.state.ended
        assert ended is not None
        if self.schedule.retry and not self._retried and self.driver.state.counts[RunStatus.FAILED]:
            self._retried = True
            ask(self.layout, "retry")
            return self._drive()
        if ended.outcome in (SweepOutcome.PAUSED, SweepOutcome.STOPPED):
            return self._drive()
        return None

    def _ticked(self, driver: Driver) -> None:
        self._ticks += 1
        assert self._ticks <= MOST_TICKS, "it ticks and ticks and never ends"
        assert self.site.clock.time() - self._begin < MOST_S, "it goes on for ever"
        if self._ticks == self.schedule.stop:
            with self.faults.elsewhere():
                ask(self.layout, "stop")

    # ------------------------------------------------------------------ what holds at every commit

    def _committed(self, events: Sequence[AnyEvent]) -> None:
        """Nobody trains a run of which the journal says that it has ended, or waits for another batch."""
        for event in events:
            if isinstance(event, BatchAbandoned):
                self.abandoned[event.batch] = self.site.clock.time()
            if isinstance(event, RunInterrupted) and not event.requeued and event.interruption in _SILENT:
                self.given_up[event.batch, event.run, event.attempt] = self.site.clock.time()
            if isinstance(event, RunFinished) or (isinstance(event, RunInterrupted) and not event.requeued):
                assert event.trial not in self.oracle.training, f"is trained at this moment: {event}"

    def _check_replay(self, driver: Driver, seen: Sequence[AnyEvent], *, whole: bool) -> None:
        """The journal gives the state that the driver had, but for a commit in which it died or failed."""
        written = self.events
        assert written[: len(seen)] == list(seen)
        if whole:
            assert len(written) == len(seen)
        for mine, again in (
            (contents(driver.state), contents(SweepState.replay(written[: len(seen)]))),
            (contents(driver.compaction_state), contents(CompactionState.replay(written[: len(seen)]))),
        ):
            for key, value in mine.items():
                assert again[key] == value, f"{key} of the journal is not the driver's"
        if self.spec.repeats == 1:
            scheduler = make_scheduler(self.spec, adaptive=self.spec.searcher.name == "tpe")
            for event in seen:
                scheduler.apply(event)
            for slots in (0, 1, 7):
                assert scheduler.decide(slots) == driver.scheduler.decide(slots)


def contents(fold: SweepState | CompactionState) -> dict[str, object]:
    """All that a fold knows; candidates for the best are looked through only when it is asked for."""
    found = {key: value for key, value in vars(fold).items() if key not in ("_handlers", "_best")}
    return found | ({"best": fold.best} if isinstance(fold, SweepState) else {})


def _flaky(schedule: Schedule, sound: Curve) -> Curve:
    """A curve of which some steps raise an error the first time."""
    asked: set[tuple[int, int]] = set()

    def curve(config: Config, step: int, seed: int) -> Any:
        first = (seed, step) not in asked
        asked.add((seed, step))
        if first and default_rng([schedule.seed, seed, step]).random() < schedule.flaky:
            raise RuntimeError("a library could not be loaded")
        return sound(config, step, seed)

    return curve
