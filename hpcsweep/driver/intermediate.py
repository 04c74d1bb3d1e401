"""What runs report before they end, for schedulers that watch: metrics files become events."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from hpcsweep.core.events import AnyEvent, RunFinished, RunId, RunReported
from hpcsweep.core.models import Run
from hpcsweep.core.state import SweepState
from hpcsweep.store.layout import Layout
from hpcsweep.store.manifest import Program
from hpcsweep.store.metrics import Report, metrics_files, read_reports
from hpcsweep.store.skipped import Skipped


class MetricsPoller:
    """Reads the reports of running runs, one file for each; nothing of what has ended.

    Args:
        state: Of the sweep.
        layout: The results folder.
        program: Names the metric, its mode and whether its last or best value counts.
        passed_over: Told which files cannot be read.
    """

    def __init__(
        self,
        state: SweepState,
        *,
        layout: Layout,
        program: Program,
        passed_over: Skipped | None = None,
    ) -> None:
        self._state = state
        self._passed_over = Skipped() if passed_over is None else passed_over
        self._layout = layout
        self._metric = program.metric
        self._better = {"min": min, "max": max}[program.mode] if program.at == "best" else None
        self._sizes: dict[RunId, int] = {}

    def running(self, runs: Iterable[RunId]) -> list[AnyEvent]:
        """What these runs have reported since the last call."""
        events = [self._new(self._state.run(run)) for run in runs]
        return [event for event in events if event is not None]

    def before_endings(self, events: Sequence[AnyEvent]) -> list[AnyEvent]:
        """The same events, before each ended run what it reported and nobody has seen yet."""
        found: list[AnyEvent] = []
        for event in events:
            if isinstance(event, RunFinished):
                run = self._state.run(event.run)
                files = metrics_files(self._layout.trial(run.trial), self._passed_over)
                reports = {
                    report.step: report.metrics
                    for file in files
                    if file.rung == run.rung
                    for report in self._read(file.path)
                }
                late = self._event(run, reports)
                if late is not None:
                    found.append(late)
                self._sizes.pop(event.run, None)
            found.append(event)
        return found

    def _new(self, run: Run) -> RunReported | None:
        attempt, restart = run.attempts - 1, 0
        if run.last_counted[0] == attempt:  # the cluster has requeued it
            restart = run.last_counted[1] + 1
        path = self._layout.trial(run.trial).metrics(run.rung, attempt, restart)
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            self._passed_over.note(path, error)
            return None
        if self._sizes.get(run.id) == size:
            return None
        self._sizes[run.id] = size
        return self._event(run, {report.step: report.metrics for report in self._read(path)})

    def _read(self, path: Path) -> list[Report]:
        """The reports in the file; none where it cannot be read."""
        try:
            return list(read_reports(path))
        except OSError as error:
            self._passed_over.note(path, error)
            return []

    def _event(self, run: Run, reports: dict[int, dict[str, float]]) -> RunReported | None:
        seen, best = run.last_report or (0, None)
        if best is None and run.rung:
            best = self._state.trials[run.trial].runs[run.rung - 1].value
        new: list[tuple[int, float]] = []
        for step, metrics in sorted(reports.items()):
            value = metrics.get(self._metric, math.nan)
            if seen < step <= run.resource and math.isfinite(value):
                if self._better is not None:
                    value = best = value if best is None else self._better(value, best)
                new.append((step, value))
        return RunReported(run.trial, run.rung, tuple(new)) if new else None
