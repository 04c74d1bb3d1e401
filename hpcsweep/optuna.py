"""`create_study` for an `objective(trial)` that was written for Optuna: the sweep is its study.

    study = hs.optuna.create_study(direction="minimize", pruner=optuna.pruners.MedianPruner())
    study.optimize(objective, n_trials=100)
    study.best_params

The objective stays as it is. Its space is found by calls that record what it suggests; each call ends at the
first report. Jobs run it; Optuna itself is only needed where the objective imports it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from hpcsweep import bootstrap
from hpcsweep.api.function import default_name, function_name
from hpcsweep.api.objects import (
    ASHA,
    CMAES,
    GP,
    TPE,
    Budget,
    Cluster,
    Fifo,
    Median,
    Objective,
    OptunaSampler,
    Random,
    Sobol,
    Train,
)
from hpcsweep.api.parts import Part, Scheduler, Searcher, StoppingRule
from hpcsweep.api.sweep import Sweep
from hpcsweep.errors import SpecError
from hpcsweep.training.optuna import TrialPruned

if TYPE_CHECKING:
    import pandas as pd
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial

    from hpcsweep.views.results import Results

__all__ = ["Study", "TrialPruned", "create_study"]

Mode: TypeAlias = Literal["min", "max"]
#: An objective that ends by itself, after how many steps nobody knows.
OPEN_END: Final = 1_000_000
#: For all calls that look for the space.
SEARCH_S: Final = 60
_SAMPLERS: Final[Mapping[str, type[Searcher]]] = {
    "TPESampler": TPE,
    "RandomSampler": Random,
    "CmaEsSampler": CMAES,
    "GPSampler": GP,
    "QMCSampler": Sobol,
}


def create_study(
    *,
    direction: object = None,
    directions: Iterable[object] | None = None,
    sampler: object = None,
    pruner: object = None,
    study_name: str | None = None,
    storage: object = None,
    load_if_exists: bool = True,
    max_resource: int | None = None,
    scheduler: Scheduler | None = None,
    **sweep: Any,
) -> Study:
    """A study whose trials are runs of a sweep.

    Args:
        direction: `minimize` (as without) or `maximize`.
        directions: Of several objectives; the objective returns a value for each.
        sampler: A sampler of Optuna, or a searcher such as `hs.TPE(seed=1)`. Default: `auto`.
        pruner: A pruner of Optuna (median, successive halving, Hyperband, none), or a stopping rule such as
            `hs.Median()`. Default: the median rule, where the objective reports.
        study_name: Name of the sweep. Default: that of the objective.
        storage: Not used: the results folder is the storage.
        load_if_exists: Not used: a study with the same name and folder is carried on.
        max_resource: How many steps the objective reports at most. Default: counted, where that is quick.
        scheduler: In place of the pruner, such as `hs.Hyperband(max_resource=27)`.
        **sweep: Further arguments of `Sweep`, such as `cluster`, `resources` and `folder`.

    Raises:
        ValueError: Both `direction` and `directions`, or none of these.
        SpecError: A direction is none, or a pruner has no counterpart here.
    """
    modes = _modes(direction, directions)
    if scheduler is None:
        _stopping(pruner, max_resource or OPEN_END)  # which refuses what it does not know
    arguments = {"searcher": _searcher(sampler), "name": study_name, **sweep}
    if scheduler is not None:
        arguments["scheduler"] = scheduler
    return Study(modes=modes, pruner=pruner, max_resource=max_resource, arguments=arguments)


def _modes(direction: object, directions: Iterable[object] | None) -> list[Mode]:
    """`min` or `max` for each objective; messages of a `ValueError` are Optuna's own."""
    if direction is not None and directions is not None:
        raise ValueError("Specify only one of `direction` and `directions`.")
    given = ["minimize" if direction is None else direction] if directions is None else list(directions)
    if not given:
        raise ValueError("The number of objectives must be greater than 0.")
    key = "direction" if directions is None else "directions"
    modes: list[Mode] = []
    for each in given:
        text = str(getattr(each, "name", each)).lower()
        if text not in ("minimize", "maximize"):
            raise SpecError(f"{key}: must be minimize or maximize, got {each!r}")
        modes.append("max" if text == "maximize" else "min")
    return modes


class Study:
    """A sweep with the interface of `optuna.study.Study`, as far as it has a meaning here."""

    def __init__(
        self, *, modes: Sequence[Mode], pruner: object, max_resource: int | None, arguments: Mapping[str, Any]
    ) -> None:
        self._modes = tuple(modes)
        self._metrics = ("value",) if len(modes) == 1 else tuple(f"values_{at}" for at in range(len(modes)))
        self._pruner = pruner
        self._max_resource = max_resource
        self._arguments = dict(arguments)
        self._sweep: Sweep | None = None

    @property
    def metric_names(self) -> list[str]:
        """What the values are called in the sweep; several are `values_0`, `values_1` unless named."""
        return list(self._metrics)

    def set_metric_names(self, metric_names: Sequence[str]) -> None:
        """Name the values, one name for each objective; before `optimize`.

        Raises:
            ValueError: There are more names than objectives, or fewer.
        """
        if len(metric_names) != len(self._modes):
            raise ValueError("The number of objectives must match the length of the metric names.")
        self._metrics = tuple(metric_names)

    def sweep(
        self,
        objective: Callable[[Any], object],
        n_trials: int | None = None,
        timeout: float | None = None,
        n_jobs: int = -1,
        *,
        space: Mapping[str, Any] | None = None,
    ) -> Sweep:
        """The sweep that `optimize` launches; for `plan`, `to_yaml` and `launch(detach=True)`.

        Args:
            objective: A function of a module.
            n_trials: How many trials, all launches together.
            timeout: Seconds after which no run is started.
            n_jobs: How many runs at a time; -1: as many as the cluster allows.
            space: The parameters. Default: found by calling the objective, for up to a minute.

        Raises:
            SpecError: The objective cannot be found by a job, or its space not by calling it.
        """
        if bootstrap.importing:
            raise SpecError(
                "optimize() would run in each job of the sweep, as the job runs this file, too; put it "
                "below `if __name__ == '__main__':`"
            )
        function, arguments = function_name(objective), dict(self._arguments)
        name = arguments["name"] = arguments["name"] or default_name({"function": function})
        steps: int | None = OPEN_END
        if space is None:
            folder = Path(arguments.get("folder") or Path("results") / name)
            space, steps = _stored_space(folder) or _find_space(function)
        if steps is None:
            self._check_reports(arguments.get("scheduler"))
            arguments.setdefault("scheduler", Fifo())
        elif "scheduler" not in arguments:
            arguments |= _stopping(self._pruner, self._max_resource or steps)
        if n_jobs > 0:
            arguments.setdefault("cluster", Cluster(max_tasks=n_jobs))
        if n_trials is not None or timeout is not None:
            time = None if timeout is None else f"{math.ceil(timeout)}s"
            arguments.setdefault("budget", Budget(trials=n_trials, time=time))
        objectives = [
            Objective(metric, mode=mode) for metric, mode in zip(self._metrics, self._modes, strict=True)
        ]
        self._sweep = Sweep(
            Train(function=function, call="optuna"),
            space,
            objectives if len(objectives) > 1 else objectives[0],
            **arguments,
        )
        return self._sweep

    def _check_reports(self, scheduler: Part | None) -> None:
        """Refuse what compares trials by reports, where there are none."""
        if scheduler is None and not isinstance(self._pruner, StoppingRule | Scheduler):
            scheduler = Fifo()  # a pruner of Optuna prunes nothing then, either
        scheduler = scheduler or cast("Part", self._pruner)
        if not isinstance(scheduler, Fifo):
            raise SpecError(
                f"scheduler: {scheduler!r} compares trials by what they report, and the objective returned "
                "without a report: call trial.report(value, step) after each step, or leave the pruner out"
            )

    def optimize(
        self,
        objective: Callable[[Any], object],
        n_trials: int | None = None,
        timeout: float | None = None,
        n_jobs: int = -1,
        *,
        space: Mapping[str, Any] | None = None,
    ) -> None:
        """Launch the sweep, or carry it on, until it ends; see `sweep` and `Sweep.launch`."""
        sweep = self.sweep(objective, n_trials, timeout, n_jobs, space=space)
        self.__dict__.pop("results", None)
        self.__dict__.pop("trials", None)
        sweep.launch()

    @cached_property
    def results(self) -> Results:
        """The results of the sweep.

        Raises:
            SpecError: `optimize` was not called.
        """
        if self._sweep is None:
            raise SpecError("study: has no results before optimize()")
        return self._sweep.results()

    @property
    def _best(self) -> dict[str, Any]:
        if len(self._modes) > 1:
            raise RuntimeError(
                "A single best trial cannot be retrieved from a multi-objective study. Consider using "
                "Study.best_trials to retrieve a list containing the best trials."
            )
        best = self.results.best
        if best is None:
            raise ValueError("No trials are completed yet.")  # Optuna's own words
        return best

    @property
    def best_params(self) -> dict[str, Any]:
        """The configuration of the best trial; `RuntimeError` with several objectives."""
        return dict(self._best["config"])

    @property
    def best_value(self) -> float:
        """The value of the best trial; `RuntimeError` with several objectives."""
        return float(self._best["value"])

    @cached_property
    def trials(self) -> list[FrozenTrial]:
        """All trials, as Optuna has them. Needs the package optuna."""
        from optuna.storages import InMemoryStorage

        from hpcsweep.exports.optuna import study_of

        return study_of(self.results, InMemoryStorage()).trials

    @property
    def best_trial(self) -> FrozenTrial:
        """The best trial, as Optuna has it. Needs the package optuna.

        Raises:
            RuntimeError: There are several objectives: see `best_trials`.
        """
        best = int(self._best["trial"])
        return self.trials[best]

    @property
    def best_trials(self) -> list[FrozenTrial]:
        """Those on the front, which no other trial dominates, in their order. Needs the package optuna."""
        return [
            self.trials[trial] for trial in sorted(best.trial for best in self.results.folder.state.front)
        ]

    @property
    def directions(self) -> list[StudyDirection]:
        """Of each objective, as Optuna has it. Needs the package optuna."""
        from optuna.study import StudyDirection

        return [StudyDirection.MAXIMIZE if mode == "max" else StudyDirection.MINIMIZE for mode in self._modes]

    @property
    def direction(self) -> StudyDirection:
        """Of the only objective, as Optuna has it. Needs the package optuna.

        Raises:
            RuntimeError: There are several.
        """
        if len(self._modes) > 1:
            raise RuntimeError(
                "A single direction cannot be retrieved from a multi-objective study. Consider using "
                "Study.directions to retrieve a list containing all directions."
            )
        return self.directions[0]

    def trials_dataframe(self) -> pd.DataFrame:
        """One row for each trial; see `Results.trials`."""
        return self.results.trials


def _stored_space(folder: Path) -> tuple[Mapping[str, Any], int | None] | None:
    """The space of the sweep that the folder holds, which is carried on, and its steps; see `_find_space`."""
    from hpcsweep.spec.yaml_io import read_yaml

    if not (folder / "sweep.yaml").is_file():
        return None
    data = read_yaml(folder / "sweep.yaml")
    most = int(data["scheduler"].get("max_resource", OPEN_END))
    return data["space"], most if most > 1 or data.get("stop") else None


def _find_space(function: str) -> tuple[Mapping[str, Any], int | None]:
    """The space that the objective suggests from, and how many steps it reports; None: it reports none."""
    from hpcsweep.api.discovery import find_space

    found = find_space(function, folder=Path.cwd(), seconds=SEARCH_S)
    return found.space, (found.steps or OPEN_END) if found.reports else None


def _searcher(sampler: object) -> Searcher | str:
    if sampler is None:
        return "auto"
    if isinstance(sampler, Searcher | str):
        return sampler
    name = type(sampler).__name__
    return _SAMPLERS[name]() if name in _SAMPLERS else OptunaSampler(sampler=name)


def _stopping(pruner: object, steps: int) -> dict[str, Any]:
    """The scheduler and the stopping rule that do what the pruner does, for an objective of so many steps."""
    to_the_end = Fifo(max_resource=steps)
    options = vars(pruner) if hasattr(pruner, "__dict__") else {}
    match pruner:
        case Scheduler():
            return {"scheduler": pruner}
        case StoppingRule():
            return {"scheduler": to_the_end, "stop": pruner}
        case None:
            return {"scheduler": to_the_end, "stop": Median()}
    match name := type(pruner).__name__:
        case "NopPruner":
            return {"scheduler": to_the_end}
        case "MedianPruner":
            rule = Median(
                min_trials=max(1, options["_n_startup_trials"]),
                min_step=options["_n_warmup_steps"] + 1,
                interval=options["_interval_steps"],
            )
            return {"scheduler": to_the_end, "stop": rule}
        case "SuccessiveHalvingPruner" | "HyperbandPruner":
            return {"scheduler": _asha(name, options, steps)}
    raise SpecError(
        f"pruner: {name} has no counterpart here; give MedianPruner, SuccessiveHalvingPruner, "
        "HyperbandPruner or NopPruner, or hs.Median(...), or scheduler=hs.Hyperband(...)"
    )


def _asha(name: str, options: Mapping[str, Any], steps: int) -> ASHA:
    """Successive halving as Optuna has it: a trial goes on past a rung unless others are better there."""
    eta, least = options["_reduction_factor"], options["_min_resource"]
    least = least if isinstance(least, int) else 1
    most = options.get("_max_resource")
    most = most if isinstance(most, int) else steps
    rungs, step = 1, least
    while step * eta <= most:
        rungs, step = rungs + 1, step * eta
    brackets = rungs if name == "HyperbandPruner" else 1
    return ASHA(max_resource=most, min_resource=least, eta=eta, brackets=brackets, stopping=True)
