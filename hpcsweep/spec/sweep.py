"""`SweepSpec`, a whole valid spec, frozen; and which changes a sweep can go on with."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.core.events import Config
from hpcsweep.core.objectives import Objectives, without_reference
from hpcsweep.core.protocols import Scheduler, fewest
from hpcsweep.core.run_resources import RunResources, largest_need, reused_task
from hpcsweep.core.space import Space
from hpcsweep.core.suggestions import with_added
from hpcsweep.core.text import format_value
from hpcsweep.schedulers import make_scheduler, scheduler_class, scheduler_traits
from hpcsweep.spec.models import (
    Budget,
    Cluster,
    MetricsFile,
    NamedOptions,
    Objective,
    Retries,
    SearcherChoice,
    Store,
    Train,
)
from hpcsweep.spec.parameters import domains_to_yaml, space_to_yaml
from hpcsweep.spec.resources import Resources, RunNeeds, rungs_of, sample_needs
from hpcsweep.spec.yaml_io import dump_yaml
from hpcsweep.store.batch import MetricFile, Program
from hpcsweep.worker.metrics.files import guess_kind
from hpcsweep.worker.resuming import can_resume

#: Seconds between signal and time limit that the worker keeps for itself.
RESULT_S = 5.0


@dataclass(frozen=True, kw_only=True)
class SweepSpec:
    """A valid spec with all defaults."""

    name: str
    train: Train
    objective: Objective
    """The first one."""
    space: Space
    searcher: SearcherChoice
    scheduler: NamedOptions
    resources: Resources
    cluster: Cluster
    budget: Budget
    retries: Retries
    store: Store = field(default_factory=Store)
    stop: tuple[NamedOptions, ...] = ()
    repeats: int = 1
    enqueue: tuple[Config, ...] = ()
    warm_start: tuple[str, ...] = ()
    more_objectives: tuple[Objective, ...] = ()
    """Those after the first one."""

    @functools.cached_property
    def objectives(self) -> Objectives:
        """All of them."""
        return Objectives.read([each.plain() for each in (self.objective, *self.more_objectives)])

    def identity(self) -> dict[str, Any]:
        """What must not change between launches, JSON-able; see `changes`."""
        searched = self._searched() | {"space": domains_to_yaml(self.space)}
        return searched | ({"train.snapshot": True} if self.train.snapshot else {})

    def with_added(self, parameters: Mapping[str, Any]) -> SweepSpec:
        """With parameters by which the sweep has grown, in their long form; see `core.suggestions`."""
        return replace(self, space=with_added(self.space, parameters)) if parameters else self

    def _searched(self) -> dict[str, Any]:
        """The search: objective, space and algorithms."""
        return {
            "objective": [each.plain() for each in (self.objective, *self.more_objectives)]
            if self.more_objectives
            else self.objective.plain(),
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
        return fewest(self._make_scheduler().plan().starts, self.budget.trials)

    def _make_scheduler(self) -> Scheduler:
        return make_scheduler(
            self.scheduler.name,
            options=self.scheduler.options,
            minimise=self.objective.mode == "min",
            objectives=self.objectives,
            space=None,
            seed=self.searcher.seed,
        )

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
            **({} if self.store == Store() else {"store": self.store.plain()}),
        }

    @functools.cached_property
    def yaml(self) -> str:
        """YAML text that `load_spec` reads back to an equal spec."""
        return dump_yaml(self.resolved())

    def program(self) -> Program:
        """How to run a trial, but for the base of its config file, which is read when the sweep begins."""
        assert self.train.workdir is not None
        return Program(
            workdir=self.train.workdir,
            metric=self.objective.metric,
            mode=self.objective.mode,
            at=self.objective.at,
            objectives=tuple(self.objectives) if self.objectives.several else (),
            function=self.train.function,
            command=self.train.command,
            shell=self.train.shell,
            flags=self.train.flags or "",
            dashes=self.train.dashes,
            formats={each.name: each.format for each in self.space.parameters if each.format},
            metrics=self.train.patterns,
            metric_files=tuple(map(_metric_file, self.train.metric_files)),
            log_limit_mib=self.train.log_limit,
            keep_checkpoints=self.train.keep_checkpoints,
            parameters=self.space.names,
            warm=self.train.warm == "auto" and self.train.launcher == "none",
            launcher=self.train.launcher,
            processes=self.train.processes or 0,
            resumes=self.resumes,
            first_step=self.train.first_step,
            stop_at_resource=self.train.stop_at_resource,
            checkpoint_path=self.train.checkpoint.path if self.train.checkpoint else "",
            checkpoint_at_end=self.train.checkpoint is not None and self.train.checkpoint.when == "end",
            resume_args=self.train.resume.args if self.train.resume else "",
            call=self.train.call,
            max_resource=self._max_resource if self.train.call != "trial" else 0,
            notice_s=max(1.0, self.cluster.signal - RESULT_S),
        )

    @functools.cached_property
    def resumes(self) -> bool:
        """Whether training may go on from a checkpoint, as far as its command and files show."""
        train = self.train
        if train.command is None or not train.metrics or train.checkpoint or train.resume:
            return True
        return can_resume(train.command, workdir=train.workdir or "")

    @property
    def _max_resource(self) -> int:
        """The option of that name, which our schedulers have; 0 without one."""
        found = self.scheduler.options.get("max_resource")
        return found if isinstance(found, int) else 0

    @functools.cached_property
    def run_resources(self) -> RunResources:
        """What each run needs."""
        return self.resources.of_runs()

    @functools.cached_property
    def needs(self) -> list[RunNeeds]:
        """What runs of random and extreme configurations need, at the rungs of the scheduler."""
        return sample_needs(self.run_resources, self.space, rungs_of(self._make_scheduler()))

    @functools.cached_property
    def largest_run(self) -> TaskResources:
        """What is enough for any run, as far as tried."""
        return largest_need([run.needs for run in self.needs])

    @functools.cached_property
    def least_run(self) -> TaskResources:
        """The fewest GPUs and CPUs and the shortest time of any run, as far as tried."""
        needs = [run.needs for run in self.needs]
        times = [each.time_s for each in needs if each.time_s is not None]
        gpus, cpus = min(each.gpus for each in needs), min(each.cpus for each in needs)
        return TaskResources(gpus, cpus, time_s=min(times, default=None), nodes=self.resources.nodes)

    @functools.cached_property
    def kinds(self) -> tuple[TaskResources, ...]:
        """Of runs with the same number of GPUs what is enough for all, the fewest GPUs first."""
        by_gpus: dict[int, list[TaskResources]] = {}
        for run in self.needs:
            by_gpus.setdefault(run.needs.gpus, []).append(run.needs)
        return tuple(largest_need(by_gpus[gpus]) for gpus in sorted(by_gpus))

    def task_shape(
        self,
        *,
        reuse: bool,
        run: TaskResources | None = None,
        lanes: int | None = None,
        turns: int | None = None,
    ) -> TaskResources:
        """Resources of one array task: those of a run, or with `reuse` of as many as it does at a time.

        Of this `run`, else of one that is enough for any; with `reuse` it does `turns` of them, if given.
        """
        run = run or self.largest_run
        if not reuse:
            return run
        lanes = lanes or self.cluster.concurrent
        return reused_task(run, lanes=lanes, task_time_s=self.cluster.task_time, runs=turns)


def _metric_file(given: MetricsFile) -> MetricFile:
    kind = given.kind or guess_kind(given.file)
    assert kind is not None  # checked
    return MetricFile(given.file, kind, given.step or "", given.values)


#: Lists that may grow at their end.
EXTENDABLE_LISTS: Final = ("enqueue", "warm_start")
_REFUSALS: Final[Mapping[str, str]] = {
    "repeats": "the numbers of all trials follow from it",
    "objective": "values that were measured otherwise cannot be compared",
}


class Change(NamedTuple):
    """A difference between two identities.

    Attributes:
        line: Such as `scheduler.iterations: 1 -> 2`.
        refused: Why it makes another sweep; empty if the sweep can go on with it.
    """

    line: str
    refused: str = ""


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """All changes from the identity `old` to `new`; empty if they are equal."""
    return [Change(line, _refusal(line.partition(": ")[0], old, new)) for line in difference(old, new)]


def difference(old: Mapping[str, Any], new: Mapping[str, Any], *, path: str = "") -> list[str]:
    """One line per change from `old` to `new`, such as `space.lr.high: 0.1 -> 0.5`; empty if equal."""
    lines: list[str] = []
    for key in [*old, *(key for key in new if key not in old)]:
        where = f"{path}.{key}" if path else str(key)
        if key not in new:
            lines.append(f"{where}: removed")
        elif key not in old:
            lines.append(f"{where}: added")
        elif isinstance(old[key], Mapping) and isinstance(new[key], Mapping):
            lines += difference(old[key], new[key], path=where)
        elif isinstance(old[key], bool) != isinstance(new[key], bool) or old[key] != new[key]:
            lines.append(f"{where}: {format_value(old[key])} -> {format_value(new[key])}")
    return lines


def _refusal(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Why a sweep cannot go on with the change at `path`; empty if it can."""
    section, _, option = path.partition(".")
    if section in EXTENDABLE_LISTS:
        before, now = old.get(section, []), new.get(section, [])
        same = now[: len(before)] == before
        return "" if same else "more may be added at its end, and what is there stays"
    if section == "objective" and _measures_the_same(old.get(section), new.get(section)):
        return ""
    if section == "scheduler" and old["scheduler"].get("name") == new["scheduler"].get("name"):
        return _scheduler_refusal(option, old["scheduler"], new["scheduler"])
    return _REFUSALS.get(section, "") or "results before and after it would be of different searches"


def _measures_the_same(old: Any, new: Any) -> bool:
    """Whether two keys `objective` differ in their reference point alone."""
    return bool(without_reference(old) == without_reference(new))


def _scheduler_refusal(option: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    name = old["name"]
    extendable = scheduler_traits(name).extendable
    if option not in extendable:
        others = f"; of {name}, {' and '.join(extendable)} may be raised" if extendable else ""
        return f"its rungs and brackets follow from it{others}"
    if not _is_more(old.get(option), new.get(option)):
        return "it may be raised, and what was started stays"
    refusal = getattr(scheduler_class(name), "extension_refusal", None)
    return str(refusal(old, new)) if refusal is not None and option == "max_resource" else ""


def _is_more(before: Any, now: Any) -> bool:
    """Null is more than any number."""
    return before is not None and (now is None or now > before)
