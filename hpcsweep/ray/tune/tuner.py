"""`Tuner`: launches a trainable as a sweep, and gives its results as Ray Tune does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpcsweep.api.function import default_name, function_name
from hpcsweep.api.objects import Budget, Cluster, Fifo, Objective, Resources, Train
from hpcsweep.api.objects import Grid as GridSearcher
from hpcsweep.api.parts import AnyCluster, Scheduler, Searcher, StoppingRule
from hpcsweep.api.sweep import Sweep
from hpcsweep.errors import SpecError
from hpcsweep.ray.tune.schedulers import Translated
from hpcsweep.ray.tune.space import is_grid, parameters_of
from hpcsweep.training.ray import Checkpoint, nested

if TYPE_CHECKING:
    import pandas as pd

    from hpcsweep.views.results import Results

#: A trainable that ends by itself, after how many reports nobody knows.
OPEN_END: Final = 1_000_000


@dataclasses.dataclass
class TuneConfig:
    """How to search; see `ray.tune.TuneConfig`.

    Attributes:
        search_alg: A searcher such as `hs.TPE()`; a text is its name. Default: random search, as in Ray Tune.
        scheduler: One of `hpcsweep.ray.tune.schedulers`, or such as `hs.Hyperband(max_resource=27)`.
    """

    metric: str | None = None
    mode: str | None = None
    num_samples: int = 1
    max_concurrent_trials: int | None = None
    time_budget_s: float | None = None
    scheduler: Translated | Scheduler | StoppingRule | None = None
    search_alg: Searcher | str | None = None
    reuse_actors: bool = False


@dataclasses.dataclass
class RunConfig:
    """Where results go, and when a trial has ended; see `ray.tune.RunConfig`.

    Attributes:
        name: Of the sweep.
        storage_path: The results folder is `storage_path/name`.
        stop: `{"training_iteration": 27}`: trials are trained up to so many reports.
        cluster: Where it runs, such as `hs.Slurm(max_gpus=8)`.
    """

    name: str | None = None
    storage_path: str | Path | None = None
    stop: Mapping[str, Any] | None = None
    checkpoint_config: object = None
    failure_config: object = None
    verbose: int = 1
    cluster: AnyCluster | str | None = None


class _WithResources:
    """A trainable with the resources of a run."""

    def __init__(self, trainable: Callable[..., Any], resources: Mapping[str, float]) -> None:
        self.trainable = trainable
        self.resources = resources


def with_resources(trainable: Callable[..., Any], resources: Mapping[str, float]) -> Any:
    """The trainable with `{"cpu": 4, "gpu": 1}` for each trial."""
    return _WithResources(trainable, resources)


def with_parameters(trainable: Callable[..., Any], **parameters: Any) -> Any:
    """A trainable with large objects: a sweep has no store for them.

    Raises:
        SpecError: Always; says what to do instead.
    """
    raise SpecError(
        f"with_parameters: a job cannot have {', '.join(parameters)} of this process: load them in the "
        "trainable, or at the top of its file"
    )


class Tuner:
    """A sweep with the interface of `ray.tune.Tuner`.

    Args:
        trainable: A function of a module that takes a configuration, or a class derived from `Trainable`.
        param_space: The parameters, perhaps in dicts of dicts.
        tune_config: How to search.
        run_config: Where results go.
    """

    def __init__(
        self,
        trainable: Any,
        *,
        param_space: Mapping[str, Any] | None = None,
        tune_config: TuneConfig | None = None,
        run_config: RunConfig | None = None,
    ) -> None:
        self._trainable = trainable
        self._space = param_space or {}
        self._tune = tune_config or TuneConfig()
        self._run = run_config or RunConfig()

    @cached_property
    def sweep(self) -> Sweep:
        """The sweep that `fit` launches; for `plan`, `to_yaml` and `launch(detach=True)`.

        Raises:
            SpecError: It is not valid, or something has no counterpart.
        """
        trainable: Any = self._trainable
        resources = None
        if isinstance(trainable, _WithResources):
            resources = _resources(trainable.resources)
            trainable = trainable.trainable
        function = function_name(trainable)
        name = self._run.name or default_name({"function": function})
        folder = None if self._run.storage_path is None else Path(self._run.storage_path) / name
        space = parameters_of(self._space)
        searcher: Searcher | str = self._tune.search_alg or "random"
        grid = is_grid(space)
        if grid:
            searcher = GridSearcher()
        cluster = self._run.cluster
        if cluster is None and self._tune.max_concurrent_trials:
            cluster = Cluster(max_tasks=self._tune.max_concurrent_trials)
        time = self._tune.time_budget_s
        translated = _translated(self._tune.scheduler)
        metric, mode = self._tune.metric or translated.metric, self._tune.mode or translated.mode
        if not metric or mode not in ("min", "max"):
            raise SpecError(
                "tune_config: give TuneConfig(metric='val_error', mode='min'): what is searched for"
            )
        return Sweep(
            Train(function=function, call="ray"),
            space,
            Objective(metric, mode="min" if mode == "min" else "max"),
            searcher=searcher,
            scheduler=self._scheduler(translated),
            stop=translated.stop or (),
            resources=resources,
            cluster=cluster,
            budget=Budget(
                trials=None if grid or translated.population else self._tune.num_samples,
                time=None if time is None else f"{math.ceil(time)}s",
            ),
            repeats=self._tune.num_samples if grid else 1,
            name=name,
            folder=folder,
        )

    def _scheduler(self, translated: Translated) -> Scheduler:
        most = (self._run.stop or {}).get("training_iteration")
        others = sorted(set(self._run.stop or {}) - {"training_iteration"})
        if others:
            raise SpecError(
                f"run_config.stop: {others[0]} has no counterpart; end the trainable itself there"
            )
        if translated.population:
            if most is None:
                raise SpecError(
                    "run_config.stop: give {'training_iteration': n}: how far a member is trained"
                )
            changed = {"population": self._tune.num_samples, "max_resource": int(most)}
            return dataclasses.replace(translated.scheduler, **changed)  # type: ignore[type-var,return-value]
        return translated.scheduler or Fifo(max_resource=OPEN_END if most is None else int(most))

    def fit(self) -> ResultGrid:
        """Launch the sweep, or carry it on, until it ends; see `Sweep.launch`."""
        return ResultGrid(self.sweep.launch())


def _translated(scheduler: Translated | Scheduler | StoppingRule | None) -> Translated:
    match scheduler:
        case Translated():
            return scheduler
        case StoppingRule():
            return Translated(stop=scheduler)
        case Scheduler() | None:
            return Translated(scheduler)
    name = type(scheduler).__name__
    raise SpecError(
        f"scheduler: {name} is Ray's own: import it from hpcsweep.ray.tune.schedulers, or give one of "
        "hpcsweep, such as hs.Hyperband(max_resource=27)"
    )


def _resources(given: Mapping[str, float]) -> Resources:
    unknown = sorted(set(given) - {"cpu", "gpu", "CPU", "GPU", "memory"})
    if unknown:
        raise SpecError(f"with_resources: {unknown[0]} is unknown; expected cpu, gpu and memory")
    lower = {key.lower(): value for key, value in given.items()}
    if lower.get("gpu", 0) % 1:
        raise SpecError(
            f"with_resources: gpu must be a whole number, got {lower['gpu']}; cluster.concurrent shares GPUs"
        )
    memory = lower.get("memory")
    return Resources(
        gpus=int(lower.get("gpu", 0)),
        cpus=max(1, math.ceil(lower.get("cpu", 1))),
        mem=None if memory is None else f"{math.ceil(memory / 2**20)}M",
    )


@dataclasses.dataclass
class Result:
    """One trial.

    Attributes:
        config: As the trainable got it.
        metrics: Those of its last report, and `training_iteration`.
        checkpoint: Its newest one, where one is kept.
        error: Why it failed, empty if it did not.
    """

    config: dict[str, Any]
    metrics: dict[str, Any]
    path: str
    checkpoint: Checkpoint | None = None
    error: str = ""


class ResultGrid:
    """The trials of a sweep, as `ray.tune.ResultGrid`.

    Attributes:
        results: All of it, see `hpcsweep.load`.
    """

    def __init__(self, results: Results) -> None:
        self.results = results

    def __len__(self) -> int:
        return len(self.results.trials)

    def __getitem__(self, index: int) -> Result:
        return self._result(range(len(self))[index])

    def __iter__(self) -> Iterator[Result]:
        return map(self._result, range(len(self)))

    @property
    def errors(self) -> list[str]:
        """Messages of the trials that failed."""
        return [result.error for result in self if result.error]

    @property
    def num_errors(self) -> int:
        """How many trials failed."""
        return len(self.errors)

    def get_best_result(self, metric: str | None = None, mode: str | None = None) -> Result:
        """The best trial, by the metric of the sweep.

        Raises:
            SpecError: It is asked for by another metric.
            RuntimeError: No trial has a value.
        """
        if metric not in (None, self.results.metric) or mode not in (None, self._mode):
            raise SpecError(f"get_best_result: the sweep searched for {self.results.metric} ({self._mode})")
        if self.results.best is None:
            raise RuntimeError("No best trial found: no trial has a value")
        return self._result(int(self.results.best["trial"]))

    def get_dataframe(self) -> pd.DataFrame:
        """One row for each trial."""
        return self.results.trials

    @property
    def _mode(self) -> str:
        return "min" if self.results.minimise else "max"

    def _result(self, trial: int) -> Result:
        from hpcsweep.store.checkpoints import newest
        from hpcsweep.store.layout import Layout

        layout = Layout(self.results.path.resolve()).trial(trial)
        found = newest(layout)
        state = self.results.folder.state.trials[trial]
        reported = self.results.metrics
        own = reported[reported["trial"] == trial]
        metrics: dict[str, Any] = {}
        if len(own):
            last = own.sort_values("step").iloc[-1].dropna().to_dict()
            metrics = {
                str(name): value for name, value in last.items() if name not in ("trial", "rung", "step")
            }
            metrics["training_iteration"] = int(last["step"])
        message = state.runs[-1].message if state.runs[-1].value is None else ""
        checkpoint = None if found is None else Checkpoint(found.path)
        return Result(nested(state.config), metrics, str(layout.root), checkpoint, message)
