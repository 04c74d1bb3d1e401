"""Learning curves recorded in an earlier results folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hpcsweep.core.events import Config, Outcome
from hpcsweep.core.history import Floats
from hpcsweep.core.models import Trial
from hpcsweep.core.space import Space
from hpcsweep.errors import SpecError
from hpcsweep.views.folder import Folder
from hpcsweep.views.metrics import metrics_table

if TYPE_CHECKING:
    import pyarrow as pa


class _Recording(NamedTuple):
    """What one trial told: its values at these steps, NaN where it failed; `unit_s` None if unknown."""

    config: Config
    steps: list[int]
    values: list[float]
    unit_s: float | None

    @property
    def last(self) -> int:
        return self.steps[-1]


class RecordedCurves:
    """Values and times of the nearest recorded configuration.

    For a step it is the nearest of those that were trained so far (of the longest ones, if none
    was); its values are interpolated linearly between its steps and constant outside of them.
    A recorded configuration is its own nearest. Nearness is the Euclidean distance in the unit
    cube, where a parameter that is active in only one of the two counts as 1.

    Args:
        folder: A results folder.
        space: Of the sweep that is simulated.

    Raises:
        FolderError: It is no results folder.
        SpecError: Nothing in it fits the space.
    """

    def __init__(self, folder: Path, space: Space) -> None:
        found = Folder(folder)
        started = found.state.started
        metric = started.identity["objective"]["metric"] if started else ""
        curves = _curves(metrics_table(found.layout, found.reading.events), metric)
        recordings = [
            recording
            for trial in found.state.trials
            if not space.check(trial.config)
            and (recording := _recording(trial, curves.get(trial.trial, {}))) is not None
        ]
        if not recordings:
            raise SpecError(f"curves: {folder}: must hold a trial of this space with a value, got none")
        self.count = len(recordings)
        self._space = space
        self._recordings = recordings
        self._units = space.to_unit([recording.config for recording in recordings])
        self._last = np.array([recording.last for recording in recordings])
        self._timed = np.array([recording.unit_s is not None for recording in recordings])

    def __call__(self, config: Config, step: int, seed: int) -> float:
        """The value after `step` units."""
        far = self._last >= min(step, int(self._last.max()))
        recording = self._recordings[self._nearest(config, far)]
        return float(np.interp(step, recording.steps, recording.values))

    def unit_seconds(self, config: Config) -> float | None:
        """Seconds for each unit, None if the folder tells no times."""
        if not self._timed.any():
            return None
        return self._recordings[self._nearest(config, self._timed)].unit_s

    def _nearest(self, config: Config, among: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> int:
        distances = _distances(self._units, self._space.to_unit([config])[0])
        return int(np.argmin(np.where(among, distances, np.inf)))


def _distances(units: Floats, unit: Floats) -> Floats:
    """Squared distances `(n,)` of the rows `(n, d)`."""
    inactive = np.isnan(units)
    apart = np.where(inactive | np.isnan(unit), inactive != np.isnan(unit), units - unit)
    distances: Floats = np.sum(apart.astype(float) ** 2, axis=1)
    return distances


def _curves(table: pa.Table, metric: str) -> dict[int, dict[int, float]]:
    """What each trial has reported of the metric, by step; for the same step the higher rung counts."""
    curves: dict[int, dict[int, float]] = {}
    if metric in table.column_names:
        columns = (table[name].to_pylist() for name in ("trial", "step", metric))
        for trial, step, value in zip(*columns, strict=True):
            if value is not None:
                curves.setdefault(trial, {})[step] = value
    return curves


def _recording(trial: Trial, points: dict[int, float]) -> _Recording | None:
    """The trial's curve: its reports, and the values of its runs where they tell something else."""
    seconds, units = 0.0, 0
    for run in trial.runs:
        if run.value is not None:
            points[run.step or run.resource] = run.value
        elif run.outcome in (Outcome.FAILED, Outcome.OUT_OF_MEMORY):
            points[run.resource] = math.nan
        if run.value is not None and run.start is not None and run.step > run.start:
            seconds += run.seconds
            units += run.step - run.start
    if not points:
        return None
    steps = sorted(points)
    unit_s = seconds / units if units and seconds else None
    return _Recording(trial.config, steps, [points[step] for step in steps], unit_s)
