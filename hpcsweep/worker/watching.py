"""What a run's program reports and keeps, without knowing of us or by our API."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from hpcsweep.store.batch import ManifestRun, Program
from hpcsweep.store.layout import TrialLayout
from hpcsweep.store.run_files import MetricsWriter, NewReports
from hpcsweep.worker.command import placeholder_values
from hpcsweep.worker.launch import Launch
from hpcsweep.worker.outcome import RunOutcome
from hpcsweep.worker.resuming import keeps_by_name
from hpcsweep.worker.sealing import Sealer

if TYPE_CHECKING:
    from hpcsweep.worker.metrics.program import ProgramMetrics

#: How long a program that has reported its last step may take to begin to save what it keeps.
SAVE_S: Final = 1.0
#: Seconds between looks at what it reports by our API.
_LOOK_S: Final = 1.0


class Watcher:
    """Of one process of a run.

    Args:
        run: What it is to do.
        program: The sweep's.
        launch: How it was started.
        trial: Its folder.
        start: Step that it goes on from.
        metrics: Where its reports go.
        processes: Its processes now.
        note: Writes a line into its log.
    """

    def __init__(
        self,
        run: ManifestRun,
        program: Program,
        launch: Launch,
        *,
        trial: TrialLayout,
        start: int,
        metrics: MetricsWriter,
        processes: Callable[[], Collection[int]],
        note: Callable[[str], None],
    ) -> None:
        self._run = run
        self._program = program
        self._write = metrics.write
        command = program.command or ""
        self._found: ProgramMetrics | None = None
        #: Its reports by our API, if they say when what it keeps is complete, or that it is to end.
        self._told: NewReports | None = None
        if program.metrics or program.metric_files:
            from hpcsweep.worker.metrics.program import ProgramMetrics

            values = placeholder_values(program, launch.file, python=sys.executable)
            resource = run.resource
            self._found = ProgramMetrics(program, values, self._report, start=start, resource=resource)
            self._found.begin()
        keeps = bool(program.checkpoint_path) or keeps_by_name(command)
        if self._found is None and command and (keeps or program.stop_at_resource):
            self._told = NewReports(metrics.path)
        reports = self._found is not None or (self._told is not None and keeps)
        #: Whether what it keeps counts as soon as it has reported.
        self._is_watched = bool(command) and program.resumes and not program.checkpoint_at_end and reports
        self._sealer = Sealer(
            trial,
            launch.kept,
            owner=launch.file.owner,
            start=start,
            resource=run.resource,
            keep=program.keep_checkpoints,
            steps=run.keep,
            processes=processes,
            note=note,
            watch=self._is_watched,
        )
        self._step: int | None = None  # the newest one that the sealer was not told of
        #: Objectives that were not reported at the run's resource, or beyond it; and when the last one was.
        self._missing = set(program.measured.metrics)
        self._has_value_at: float | None = None
        self._save_at: float | None = None  # when to look whether it has saved after that
        self._look_at = time.monotonic() + _LOOK_S if self._told is not None else None

    @property
    def wake_at(self) -> float | None:
        """When `advance` is to be called at the latest, on the monotonic clock; None: not at all."""
        files = self._found.poll_at if self._found is not None else None
        times = [at for at in (self._save_at, self._look_at, self._sealer.wake_at, files) if at is not None]
        return min(times, default=None)

    def feed(self, data: bytes) -> None:
        """It has printed something."""
        if self._found is not None:
            self._found.feed(data)

    def advance(self) -> None:
        """Look at what it has reported and keeps."""
        printed = self._step
        if self._found is not None:
            self._found.poll()
        if self._told is not None and self._look_at is not None and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_S
            for step, values in self._told.read():
                self._take(step, values)
        if self._step is not None and self._is_watched:
            # What is found in files is some seconds old.
            self._sealer.reported(self._step, late=self._step != printed)
        self._step = None
        self._sealer.advance()

    def should_end(self, within_s: float) -> bool:
        """Whether it is to be ended: it has its value at its resource, and saves nothing, or for too long."""
        if self._has_value_at is None or not self._program.stop_at_resource:
            return False
        if self._is_watched:
            waited = time.monotonic() - self._has_value_at
            rests = waited >= SAVE_S and self._sealer.rests
            if waited < within_s and not rests:
                self._save_at = time.monotonic() + SAVE_S / 2
                return False
            if rests:
                self._sealer.rested(self._run.resource)
        self._save_at = None
        return True

    def finish(self, *, whole: bool) -> None:
        """It has ended; `whole`: by itself, and well."""
        if self._found is not None:
            self._found.finish(whole=whole)

    def keep(self, outcome: RunOutcome, *, reached: int, exited_well: bool) -> bool:
        """Keep what is complete of what it left; whether there is anything new of it."""
        completed = outcome.value is not None
        told = completed or outcome.interrupted is not None
        step = self._run.resource if completed else reached
        self._sealer.finish(step=step, completed=completed, ended_well=exited_well and told)
        return self._sealer.step is not None

    def close(self) -> None:
        """Leave no process behind."""
        self._sealer.close()

    def seen(self) -> Sequence[str]:
        """What was found instead of a metric that never came."""
        return self._found.seen() if self._found is not None else ()

    def problem(self) -> str:
        """Why the objective has no value although it was found; empty if unknown."""
        return self._found.problem() if self._found is not None else ""

    def _report(self, step: int, values: Mapping[str, float]) -> None:
        """Record what was found."""
        self._write(step, values)
        self._take(step, values)

    def _take(self, step: int, values: Mapping[str, float]) -> None:
        if step <= self._run.resource:
            self._step = max(step, self._step or 0)
        if self._has_value_at is None and step >= self._run.resource:
            self._missing -= values.keys()
        if self._has_value_at is None and not self._missing:
            self._has_value_at = time.monotonic()
