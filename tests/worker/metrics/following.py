"""Follows a file with metrics in a test, step by step."""

from __future__ import annotations

from pathlib import Path

from hpcsweep.store.batch import MetricFile
from hpcsweep.worker.metrics.files import FileMetrics, guess_kind
from hpcsweep.worker.metrics.reports import Reports

#: Step and metrics of each report.
Found = list[tuple[int, dict[str, float]]]


class Following:
    """One entry of `train.metrics` in the working directory `folder`."""

    def __init__(
        self,
        folder: Path,
        file: str,
        *,
        step: str = "",
        kind: str = "",
        start: int = 0,
        resource: int = 9,
        values: dict[str, str] | None = None,
        placeholders: dict[str, object] | None = None,
    ) -> None:
        self.found: Found = []
        reports = Reports(
            lambda step, metrics: self.found.append((step, dict(metrics))), start=start, resource=resource
        )
        spec = MetricFile(file, kind or guess_kind(file) or "", step, values or {})
        self.metrics = FileMetrics(spec, placeholders or {}, workdir=str(folder), reports=reports)
        self.metrics.begin()

    def new(self) -> Found:
        """What a look finds."""
        self.metrics.poll()
        return self._taken()

    def rest(self, *, whole: bool = True) -> Found:
        """What the last look finds, after the program's end."""
        self.metrics.poll(last=True, whole=whole)
        return self._taken()

    def _taken(self) -> Found:
        taken, self.found[:] = list(self.found), []
        return taken
