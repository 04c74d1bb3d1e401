"""Checks that the parts of a spec fit together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from numpy.random import default_rng

from hpcsweep import schedulers
from hpcsweep.core.events import Config
from hpcsweep.core.protocols import Scheduler
from hpcsweep.core.space import Choice, Ordinal, Space
from hpcsweep.core.text import format_value
from hpcsweep.errors import TrainerError
from hpcsweep.spec.models import Budget, Cluster, Resources, Train
from hpcsweep.spec.named_options import NamedOptions
from hpcsweep.spec.problems import Problems
from hpcsweep.worker.command import check_template

#: Random configurations that constraints are tried on.
PROBES: Final = 32


def check_train(train: Train, names: list[str] | None, problems: Problems) -> None:
    """Check that there is one of function and command, and that it is well-formed.

    Args:
        train: The section.
        names: The parameters, None if they are not known.
        problems: Collects what is wrong.
    """
    if (train.function is None) == (train.command is None):
        got = "neither" if train.function is None else "both"
        problems.add("train", f"must have either function or command, got {got}")
    if train.function is not None:
        module, _, name = train.function.rpartition(":")
        file = module.endswith(".py")
        if not name.isidentifier() or not (file or all(p.isidentifier() for p in module.split("."))):
            expected = "must be FILE.py:NAME or package.module:NAME"
            problems.add("train.function", f"{expected}, got {format_value(train.function)}")
        if train.shell:
            problems.add("train.shell", "must not be true for a function, only a command can have a shell")
    if train.command is not None and names is not None:
        try:
            check_template(train.command, shell=train.shell, parameters=names)
        except TrainerError as error:
            problems.add("train.command", str(error).removeprefix("train.command: "))
    for index, pattern in enumerate(train.metrics):
        path = f"train.metrics[{index}]" if len(train.metrics) > 1 else "train.metrics"
        try:
            groups = re.compile(pattern).groupindex
        except (re.error, OverflowError, RecursionError) as error:
            problems.add(path, f"must be a regular expression, got {format_value(pattern)}: {error}")
        else:
            if not set(groups) - {"step"}:
                expected = "must have a group named like its metric, as in 'loss=(?P<loss>\\S+)'"
                problems.add(path, f"{expected}, got {format_value(pattern)}")


def check_early_stopping(
    scheduler: NamedOptions,
    instance: Scheduler | None,
    *,
    stop: bool,
    repeats: int,
    cluster: Cluster | None,
    problems: Problems,
) -> None:
    """Stopping a run cancels its task, so that it must be alone there; repeats are compared by their mean."""
    early = "stop" if stop else ""
    traits = schedulers.scheduler_traits(scheduler.name)
    if instance is not None and instance.needs_reports:
        option = traits.reports_option
        early = early or (f"scheduler.{option}" if option else f"scheduler: {scheduler.name}")
    if early and cluster is not None and cluster.runs_per_task > 1:
        expected = f"must be 1 with {early}, which cancels the tasks of single runs"
        problems.add("cluster.runs_per_task", f"{expected}, got {cluster.runs_per_task}")
    if traits.population:
        early = f"scheduler: {scheduler.name}"
    if repeats > 1 and early:
        problems.add("repeats", f"must be 1 with {early}, got {repeats}")
    if traits.population and stop:
        problems.add("stop", f"cannot be combined with {early}, which replaces its bad members itself")


def check_end(
    instance: Scheduler, *, ends: bool, budget: Budget, resources: Resources, problems: Problems
) -> None:
    """Check that the sweep ends: by its scheduler, its searcher (`ends`) or its budget."""
    endless = instance.plan().open_ended
    spends = budget.gpu_hours is not None and resources.gpus > 0
    if not endless or ends or spends or budget.trials is not None or budget.time is not None:
        return
    never = " (gpu_hours are not spent as resources.gpus is 0)" if budget.gpu_hours is not None else ""
    problems.add("budget", f"must have trials, gpu_hours or time, {endless}{never}")


def check_cluster(cluster: Cluster, resources: Resources, problems: Problems) -> None:
    """Check that a task fits the caps."""
    if cluster.concurrent > cluster.runs_per_task:
        expected = f"must be <= runs_per_task ({cluster.runs_per_task})"
        problems.add("cluster.concurrent", f"{expected}, got {cluster.concurrent}")
    gpus = resources.gpus * cluster.concurrent
    if cluster.max_gpus is not None and cluster.max_gpus < gpus:
        expected = f"must be at least the {gpus} of one task (resources.gpus x concurrent)"
        problems.add("cluster.max_gpus", f"{expected}, got {cluster.max_gpus}")
    if resources.time is not None and cluster.signal >= resources.time:
        expected = f"must be less than resources.time ({resources.time} seconds)"
        problems.add("cluster.signal", f"{expected}, got {cluster.signal}")


def check_constraints(space: Space, problems: Problems) -> bool:
    """Whether all constraints can be evaluated, tried on some configurations."""
    if not space.constraints:
        return True
    before = problems.count
    for config in _probes(space):
        for index, constraint in enumerate(space.constraints):
            try:
                constraint.evaluate(config)
            except ValueError as error:
                problems.add(f"constraints[{index}]", str(error))
        if problems.count > before:
            return False
    return True


def _probes(space: Space) -> Iterator[Config]:
    """Random configurations, and the first few of them with each listed value, which may be a rare null."""
    configs = Space(space.parameters).sample(PROBES, default_rng(0))
    yield from configs
    for config in configs[:4]:
        for parameter in space.parameters:
            if parameter.name in config and isinstance(parameter.domain, Choice | Ordinal):
                for value in parameter.domain.values:
                    yield {**config, parameter.name: value}
