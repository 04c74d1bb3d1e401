"""What single values cannot show: whether the parts of a spec fit together."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

from numpy.random import default_rng

from hpcsweep.core.domains import format_value
from hpcsweep.core.events import Config
from hpcsweep.core.space import Choice, Ordinal, Space
from hpcsweep.errors import TrainerError
from hpcsweep.schedulers.rungs import floor_log, halving_bracket
from hpcsweep.spec.models import (
    Asha,
    Budget,
    Cluster,
    Fifo,
    Halving,
    Hyperband,
    Pbt,
    Resources,
    SchedulerChoice,
    Train,
)
from hpcsweep.spec.problems import Problems
from hpcsweep.worker.command import check_template

#: Random configurations on which constraints are tried.
PROBES: Final = 32
#: Configurations in one rung at most. They start piece by piece, but in the end all are in memory.
MAX_RUNG: Final = 10_000_000
#: Intervals that a member of a population is trained for at most; each is a run.
MAX_INTERVALS: Final = 100_000


def check_train(train: Train, names: list[str] | None, problems: Problems) -> None:
    """Exactly one of function and command, and each is well-formed; `names` are the parameters."""
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


def check_scheduler(scheduler: SchedulerChoice, problems: Problems) -> None:
    """Its rungs exist."""
    if isinstance(scheduler, Pbt):
        _check_pbt(scheduler, problems)
    if not isinstance(scheduler, Halving | Hyperband | Asha):
        return
    if scheduler.min_resource > scheduler.max_resource:
        expected = f"must be <= max_resource ({scheduler.max_resource})"
        problems.add("scheduler.min_resource", f"{expected}, got {scheduler.min_resource}")
    elif isinstance(scheduler, Asha):
        rungs = halving_bracket(
            min_resource=scheduler.min_resource, max_resource=scheduler.max_resource, eta=scheduler.eta
        ).resources
        if scheduler.brackets > len(rungs):
            expected = f"must be at most {len(rungs)}, the number of rungs"
            problems.add("scheduler.brackets", f"{expected}, got {scheduler.brackets}")
    elif isinstance(scheduler, Hyperband):
        first, eta = scheduler.min_resource, scheduler.eta
        trials = eta ** floor_log(scheduler.max_resource // first, eta)
        if trials > MAX_RUNG:
            highest = first * eta ** (floor_log(MAX_RUNG, eta) + 1) - 1
            lowest = scheduler.max_resource // eta ** (floor_log(MAX_RUNG, eta) + 1) + 1
            expected = f"must be at most {highest} with min_resource {first} and eta {eta}"
            why = f"the first rung would have {trials} trials, and {MAX_RUNG} are the most"
            advice = f"lower it, or give a min_resource of at least {lowest}"
            problems.add(
                "scheduler.max_resource", f"{expected}, got {scheduler.max_resource}: {why}; {advice}"
            )
    elif isinstance(scheduler, Halving):
        top = 0  # rungs above the first one: integers, as logarithms of floats lose some
        while scheduler.min_resource * scheduler.eta**top < scheduler.max_resource:
            top += 1
        if scheduler.prefact * scheduler.eta**top < 1:
            expected = "must leave at least one trial in the first rung"
            problems.add("scheduler.prefact", f"{expected}, got {scheduler.prefact}")
        elif scheduler.prefact * scheduler.eta**top >= MAX_RUNG + 1:
            most = math.floor(MAX_RUNG / scheduler.eta**top * 1e6) / 1e6
            key = "prefact" if most else "max_resource"
            expected = f"must leave at most {MAX_RUNG} trials in the first rung"
            advice = f"give at most {most:g}" if most else "lower it, or raise min_resource"
            problems.add(f"scheduler.{key}", f"{expected}, got {getattr(scheduler, key):g}; {advice}")


def _check_pbt(scheduler: Pbt, problems: Problems) -> None:
    if scheduler.interval > scheduler.max_resource:
        expected = f"must be <= max_resource ({scheduler.max_resource})"
        problems.add("scheduler.interval", f"{expected}, got {scheduler.interval}")
    elif scheduler.max_resource // scheduler.interval > MAX_INTERVALS:
        least = -(-scheduler.max_resource // MAX_INTERVALS)
        expected = f"must be at least {least}: max_resource ({scheduler.max_resource}) has"
        problems.add(
            "scheduler.interval", f"{expected} {MAX_INTERVALS} intervals at most, got {scheduler.interval}"
        )
    if scheduler.population * Fraction(str(scheduler.quantile)) < 1:
        least = math.ceil(1 / Fraction(str(scheduler.quantile)))
        expected = f"must be at least {least}, so that the quantile {scheduler.quantile:g} holds a member"
        problems.add("scheduler.population", f"{expected}, got {scheduler.population}")


def check_watching(
    scheduler: SchedulerChoice, *, stop: bool, repeats: int, cluster: Cluster | None, problems: Problems
) -> None:
    """What ends single runs needs them to be tasks of their own; repeats are compared by their mean."""
    early = "stop" if stop else ""
    if isinstance(scheduler, Asha) and scheduler.stopping:
        early = early or "scheduler.stopping"
    if early and cluster is not None and cluster.runs_per_task > 1:
        expected = f"must be 1 with {early}, which cancels the tasks of single runs"
        problems.add("cluster.runs_per_task", f"{expected}, got {cluster.runs_per_task}")
    if isinstance(scheduler, Pbt):
        early = "scheduler: pbt"
    if repeats > 1 and early:
        problems.add("repeats", f"must be 1 with {early}, got {repeats}")
    if isinstance(scheduler, Pbt) and stop:
        problems.add("stop", "cannot go with scheduler: pbt, which replaces its bad members itself")


def check_end(
    scheduler: SchedulerChoice, *, ends: bool, budget: Budget, resources: Resources, problems: Problems
) -> None:
    """The sweep ends some time: by its scheduler, its searcher (`ends`) or its budget."""
    match scheduler:
        case Fifo():
            endless = "fifo goes on for ever in this space"
        case Asha():
            endless = "asha goes on for ever in this space"
        case Halving(rounds=None):
            endless = "rounds: null goes on for ever"
        case Hyperband(iterations=None):
            endless = "iterations: null goes on for ever"
        case _:
            return
    spends = budget.gpu_hours is not None and resources.gpus > 0
    if ends or spends or budget.trials is not None or budget.time is not None:
        return
    never = " (gpu_hours are not spent as resources.gpus is 0)" if budget.gpu_hours is not None else ""
    problems.add("budget", f"must have trials, gpu_hours or time, {endless}{never}")


def check_cluster(cluster: Cluster, resources: Resources, problems: Problems) -> None:
    """A task fits into the caps."""
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


def constraints_compute(space: Space, problems: Problems) -> bool:
    """Whether all constraints go with the values of the space, tried on some of them."""
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
    """Random configurations, and the first few with each listed value: a null may be a rare one."""
    configs = Space(space.parameters).sample(PROBES, default_rng(0))
    yield from configs
    for config in configs[:4]:
        for parameter in space.parameters:
            if parameter.name in config and isinstance(parameter.domain, Choice | Ordinal):
                for value in parameter.domain.values:
                    yield {**config, parameter.name: value}
