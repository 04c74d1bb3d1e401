"""`SweepSpec`: a whole valid spec, frozen."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.core.events import Config
from hpcsweep.core.protocols import fewest
from hpcsweep.core.space import Space
from hpcsweep.schedulers import make_scheduler
from hpcsweep.spec.models import Budget, Cluster, Objective, Resources, Retries, Train
from hpcsweep.spec.named_options import NamedOptions, SearcherChoice
from hpcsweep.spec.parameters import space_to_yaml
from hpcsweep.spec.yaml_io import dump_yaml
from hpcsweep.store.batch import Program

#: Seconds between signal and time limit that the worker keeps for itself.
RESULT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class SweepSpec:
    """A valid spec with all defaults."""

    name: str
    train: Train
    objective: Objective
    space: Space
    searcher: SearcherChoice
    scheduler: NamedOptions
    resources: Resources
    cluster: Cluster
    budget: Budget
    retries: Retries
    stop: tuple[NamedOptions, ...] = ()
    repeats: int = 1
    enqueue: tuple[Config, ...] = ()
    warm_start: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """What must not change between launches, JSON-able; see `changes`."""
        return self._searched() | ({"train.snapshot": True} if self.train.snapshot else {})

    def _searched(self) -> dict[str, Any]:
        """The search: objective, space and algorithms."""
        return {
            "objective": self.objective.plain(),
            "space": space_to_yaml(self.space),
            "constraints": [constraint.text for constraint in self.space.constraints],
            "searcher": self.searcher.plain(),
            "scheduler": self.scheduler.plain(),
            **self._initial(),
        }

    def _initial(self) -> dict[str, Any]:
        """Optional keys, only if given, so that sweeps of earlier versions keep their identity."""
        keys: dict[str, Any] = {
            "stop": [rule.plain() for rule in self.stop],
            "repeats": self.repeats if self.repeats > 1 else None,
            "enqueue": list(self.enqueue),
            "warm_start": list(self.warm_start),
        }
        return {key: value for key, value in keys.items() if value}

    @functools.cached_property
    def starts(self) -> int | None:
        """Configurations that it will start at most; None if that is open."""
        scheduler = make_scheduler(
            self.scheduler.name,
            options=self.scheduler.options,
            minimise=self.objective.mode == "min",
            space=None,
            seed=self.searcher.seed,
        )
        return fewest(scheduler.plan().starts, self.budget.trials)

    def resolved(self) -> dict[str, Any]:
        """The whole spec with its defaults, JSON-able; it reads back to an equal one."""
        return {
            "name": self.name,
            "train": self.train.plain(),
            **self._searched(),
            "resources": self.resources.plain(),
            "cluster": self.cluster.plain(),
            "budget": self.budget.plain(),
            "retries": self.retries.plain(),
        }

    def dump_yaml(self) -> str:
        """YAML text that `load_spec` reads back to an equal spec."""
        return dump_yaml(self.resolved())

    def program(self) -> Program:
        """How to run a trial."""
        assert self.train.workdir is not None
        return Program(
            workdir=self.train.workdir,
            metric=self.objective.metric,
            mode=self.objective.mode,
            at=self.objective.at,
            function=self.train.function,
            command=self.train.command,
            shell=self.train.shell,
            metrics=self.train.metrics,
            log_limit_mib=self.train.log_limit,
            keep_checkpoints=self.train.keep_checkpoints,
            parameters=self.space.names,
            notice_s=max(1.0, self.cluster.signal - RESULT_S),
        )

    def task_shape(self) -> TaskResources:
        """Resources of one array task: those of a run times the lanes, and time for all its runs."""
        runs, lanes, one = self.cluster.runs_per_task, self.cluster.concurrent, self.resources
        return TaskResources(
            gpus=one.gpus * lanes,
            cpus=one.cpus * lanes,
            mem_mib=None if one.mem is None else one.mem * lanes,
            time_s=None if one.time is None else one.time * -(-runs // lanes),
            runs=runs,
            lanes=lanes,
        )
