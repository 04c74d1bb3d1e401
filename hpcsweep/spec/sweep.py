"""`SweepSpec`: a whole spec, valid and frozen, and what other rooms ask of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hpcsweep.core.events import Config
from hpcsweep.core.protocols import TaskResources
from hpcsweep.core.space import Space
from hpcsweep.schedulers.rungs import halving_bracket, hyperband_brackets
from hpcsweep.spec.models import (
    Budget,
    Cluster,
    Halving,
    Hyperband,
    NamedOptions,
    Objective,
    Pbt,
    Resources,
    Retries,
    SchedulerChoice,
    SearcherChoice,
    Train,
)
from hpcsweep.spec.parameters import plain_space
from hpcsweep.spec.yaml_io import dump_yaml
from hpcsweep.store.manifest import Program

#: Of the time between a signal and the end, what the worker keeps for itself.
RESULT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class SweepSpec:
    """A sweep as its user wants it; every value is there and fits the others."""

    name: str
    train: Train
    objective: Objective
    space: Space
    searcher: SearcherChoice
    scheduler: SchedulerChoice
    resources: Resources
    cluster: Cluster
    budget: Budget
    retries: Retries
    stop: tuple[NamedOptions, ...] = ()
    repeats: int = 1
    enqueue: tuple[Config, ...] = ()
    warm_start: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """What must not change between launches, JSON-able: see `difference`."""
        return self._searched() | ({"train.snapshot": True} if self.train.snapshot else {})

    def _searched(self) -> dict[str, Any]:
        """What is searched, and how."""
        return {
            "objective": self.objective.plain(),
            "space": plain_space(self.space),
            "constraints": [constraint.text for constraint in self.space.constraints],
            "searcher": self.searcher.plain(),
            "scheduler": self.scheduler.plain(),
            **self._beforehand(),
        }

    def _beforehand(self) -> dict[str, Any]:
        """Those of the keys that are given, so that a sweep of an earlier version stays what it was."""
        keys: dict[str, Any] = {
            "stop": [rule.plain() for rule in self.stop],
            "repeats": self.repeats if self.repeats > 1 else None,
            "enqueue": list(self.enqueue),
            "warm_start": list(self.warm_start),
        }
        return {key: value for key, value in keys.items() if value}

    @property
    def starts(self) -> int | None:
        """Configurations that it will start at most; None where that is open."""
        planned: int | None = None
        match self.scheduler:
            case Halving(rounds=int(rounds)) as one:
                ladder = halving_bracket(
                    min_resource=one.min_resource,
                    max_resource=one.max_resource,
                    eta=one.eta,
                    prefact=one.prefact,
                )
                planned = rounds * ladder.sizes[0]
            case Hyperband(iterations=int(iterations)) as one:
                ladders = hyperband_brackets(
                    min_resource=one.min_resource, max_resource=one.max_resource, eta=one.eta
                )
                planned = iterations * sum(ladder.sizes[0] for ladder in ladders)
            case Pbt(population=population):
                planned = population
            case _:
                pass
        known = [count for count in (planned, self.budget.trials) if count is not None]
        return min(known, default=None)

    def resolved(self) -> dict[str, Any]:
        """The whole spec with its defaults, JSON-able; wherever it is kept, it reads back the same."""
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
        """What one array task needs: one lane's resources times the lanes, and time for all its runs."""
        runs, lanes, one = self.cluster.runs_per_task, self.cluster.concurrent, self.resources
        return TaskResources(
            gpus=one.gpus * lanes,
            cpus=one.cpus * lanes,
            mem_mib=None if one.mem is None else one.mem * lanes,
            time_s=None if one.time is None else one.time * -(-runs // lanes),
            runs=runs,
            lanes=lanes,
        )
