"""Learning curves for simulated trials: Python functions, or those of an earlier sweep."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hpcsweep.cluster.simulated.task import Curve
from hpcsweep.core.events import Config
from hpcsweep.core.history import Floats
from hpcsweep.core.models import Trial
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.outcomes import FACTS, Fault
from hpcsweep.core.space import Space
from hpcsweep.errors import SpecError
from hpcsweep.views.folder import ResultsFolder
from hpcsweep.views.tables import metrics_table

if TYPE_CHECKING:
    import pyarrow as pa

#: The optimum of the synthetic curve in the unit cube, in each dimension.
_BEST = 0.3


def load_curve(target: str) -> Curve:
    """The learning curve `FILE.py:NAME` or `package.module:NAME`; see `curve_of`.

    Raises:
        SpecError: It cannot be imported, or called with a configuration and a step.
    """
    source, colon, name = target.rpartition(":")
    if not (colon and source and name):
        raise SpecError(f"objective: must be FILE.py:NAME or package.module:NAME, got {target!r}")
    try:
        module = _import_file(Path(source)) if source.endswith(".py") else _import_module(source)
    except Exception as error:
        raise SpecError(
            f"objective: {source}: cannot be imported: {type(error).__name__}: {error}"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        what = "has no" if function is None else f"of type {type(function).__name__} is"
        raise SpecError(f"objective: {source}: {what} {name!r}; expected a function of config and step")
    return curve_of(function, name=target)


def curve_of(function: Callable[..., Any], *, name: str = "objective") -> Curve:
    """`function(config, step)`, the value after `step` units, as a curve.

    With several objectives it returns one number for each, or a dict of them by metric.

    A parameter named `seed` receives the trial's seed. A run fails if the function raises or returns NaN.

    Raises:
        SpecError: It cannot be called like this.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a built-in without a signature
        parameters = inspect.signature(lambda config, step: None).parameters
    seeded = "seed" in parameters
    try:
        inspect.Signature(list(parameters.values())).bind({}, 1, **({"seed": 0} if seeded else {}))
    except TypeError as error:
        raise SpecError(f"objective: {name}: must be callable with a config and a step ({error})") from error

    def curve(config: Config, step: int, seed: int) -> Any:
        return function(config, step, seed=seed) if seeded else function(config, step)

    return curve


def synthetic_curve(
    space: Space, *, minimise: bool, best: float = _BEST
) -> Callable[[Config, int, int], float]:
    """A curve for simulations that ask only for times; its values mean nothing.

    `a + (1 - a) / sqrt(step)`, where `a` is the mean squared distance of the active parameters to
    `best` in the unit cube; one minus that if values are maximised.
    """

    def curve(config: Config, step: int, seed: int) -> float:
        unit = space.to_unit([config])[0]
        active = unit[~np.isnan(unit)]
        limit = float(np.mean((active - best) ** 2)) if len(active) else 0.0
        value = limit + (1 - limit) / math.sqrt(step)
        return value if minimise else 1 - value

    return curve


def synthetic_curves(space: Space, objectives: Objectives) -> Curve:
    """The same for all objectives: that of each further one has its optimum on the other side of the cube."""
    curves = [
        synthetic_curve(space, minimise=objective.mode != "max", best=_BEST if index % 2 == 0 else 1 - _BEST)
        for index, objective in enumerate(objectives)
    ]
    return curves[0] if not objectives.several else lambda *given: [curve(*given) for curve in curves]


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError("there is no such file")
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(f"hpcsweep_objective_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module  # type: ignore[no-any-return]


def _import_module(name: str) -> ModuleType:
    sys.path.insert(0, os.getcwd())
    return importlib.import_module(name)


class _TrialCurve(NamedTuple):
    """What a trial reported of each objective.

    Attributes:
        points: Of each objective the steps, ascending, and the values there, NaN where it failed.
        unit_s: Seconds per unit of resource, None if unknown.
    """

    config: Config
    points: list[tuple[list[int], list[float]]]
    unit_s: float | None


class RecordedCurves:
    """Values and times of the nearest configuration in an earlier results folder.

    The nearest is searched among the trials trained to the step (or the longest ones, if there are
    none), by Euclidean distance in the unit cube; a parameter that is active in only one of the two
    counts as 1. Values are interpolated linearly between steps and constant outside of them.

    Args:
        folder: A results folder.
        space: The space of the simulated sweep.

    Raises:
        FolderError: It is no results folder.
        SpecError: Nothing in it fits the space.
    """

    def __init__(self, folder: Path, space: Space) -> None:
        earlier = ResultsFolder(folder)
        started = earlier.state.started
        metrics = earlier.state.objectives.metrics if started else ()
        table = metrics_table(earlier.layout, earlier.events)
        curves = [_reported_values(table, metric) for metric in metrics]
        recordings = [
            recording
            for trial in earlier.state.trials
            if not space.check(trial.config)
            and (recording := _trial_curve(trial, [of.get(trial.trial, {}) for of in curves])) is not None
        ]
        if not recordings:
            raise SpecError(f"curves: {folder}: must hold a trial of this space with a value, got none")
        self.count = len(recordings)
        self._space = space
        self._recordings = recordings
        self._units = space.to_unit([recording.config for recording in recordings])
        self._last = np.array([recording.points[0][0][-1] for recording in recordings])
        self._timed = np.array([recording.unit_s is not None for recording in recordings])

    def __call__(self, config: Config, step: int, seed: int) -> Any:
        """The value after `step` units; of several objectives all."""
        trained_to_step = self._last >= min(step, int(self._last.max()))
        recording = self._recordings[self._nearest(config, trained_to_step)]
        values = [float(np.interp(step, steps, values)) for steps, values in recording.points]
        return values if len(values) > 1 else values[0]

    def unit_seconds(self, config: Config) -> float | None:
        """Seconds per unit of resource, None if the folder has no times."""
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


def _reported_values(table: pa.Table, metric: str) -> dict[int, dict[int, float]]:
    """Trial -> step -> value of the metric; of two reports for a step that of the higher rung counts."""
    curves: dict[int, dict[int, float]] = {}
    if metric in table.column_names:
        columns = (table[name].to_pylist() for name in ("trial", "step", metric))
        for trial, step, value in zip(*columns, strict=True):
            if value is not None:
                curves.setdefault(trial, {})[step] = value
    return curves


def _trial_curve(trial: Trial, points: list[dict[int, float]]) -> _TrialCurve | None:
    """The trial's curves: reports of each objective, overridden by the values of its runs; None if empty."""
    seconds, units = 0.0, 0
    for run in trial.runs:
        for index, of in enumerate(points):
            if run.value is not None:
                of[run.step or run.resource] = run.values[index] if run.values else run.value
            elif run.outcome is not None and FACTS[run.outcome].fault is Fault.CONFIGURATION:
                of[run.resource] = math.nan
        if run.value is not None and run.start is not None and run.step > run.start:
            seconds += run.seconds
            units += run.step - run.start
    if not points or not all(points):
        return None
    unit_s = seconds / units if units and seconds else None
    curves = [(sorted(of), [of[step] for step in sorted(of)]) for of in points]
    return _TrialCurve(trial.config, curves, unit_s)
