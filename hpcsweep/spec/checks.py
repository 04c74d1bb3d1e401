"""Collects the problems of a spec, and checks that its parts fit together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hpcsweep import schedulers
from hpcsweep.core.arrays import np
from hpcsweep.core.events import Config
from hpcsweep.core.protocols import Scheduler, Searcher
from hpcsweep.core.space import Choice, Ordinal, Space
from hpcsweep.core.text import format_value, suggest_name, truncate
from hpcsweep.core.units import LONGEST_S
from hpcsweep.errors import SpecError
from hpcsweep.options import describe_type, descriptions, is_union
from hpcsweep.spec.models import Budget, Cluster, NamedOptions, Store, Train
from hpcsweep.spec.resources import RunNeeds
from hpcsweep.worker.resuming import placeholders

#: Placeholders that differ from trial to trial and stay the same in all its runs.
_OWN: Final = ("output_dir", "trial")
#: Random configurations that constraints are tried on.
PROBES: Final = 32


def prior_problems(name: str, searcher: Searcher, space: Space) -> list[str]:
    """One for each prior that the searcher would not look at, beginning with its key path."""
    if getattr(searcher, "uses_priors", False):
        return []
    advice = f"the searcher {name} makes no use of priors: remove it, or take tpe, gp, random or evolution"
    return [f"space.{p.name}.prior: {advice}" for p in space.parameters if p.prior is not None]


def check_train(train: Train, problems: Problems) -> None:
    """Check that there is one of function and command, and that it is well-formed."""
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
    elif train.call != "trial":
        problems.add(
            "train.call", f"must be left out for a command, it is about a function, got {train.call}"
        )
    if train.command is None:
        for key in ("flags", "dashes", "config", "checkpoint", "resume"):
            if getattr(train, key):
                problems.add(f"train.{key}", "must be left out for a function, it is about a command")
    if train.checkpoint is not None:
        used = placeholders(train.checkpoint.path)
        for name in sorted(used - {*_OWN}):
            known = " and ".join(f"{{{each}}}" for each in _OWN)
            problems.add("train.checkpoint.path", f"may have the placeholders {known}, got {{{name}}}")
        if not used:
            problems.add(
                "train.checkpoint.path",
                f"{train.checkpoint.path!r} is the same for all trials: have the program write into "
                "{output_dir}, and begin the path with it",
            )


def check_clones(train: Train, scheduler: NamedOptions, problems: Problems) -> None:
    """Members of a population go on from one another's checkpoints, not from their own folders."""
    if train.command is None or not schedulers.scheduler_traits(scheduler.name).population:
        return
    used = placeholders(train.command)
    if "output_dir" in used and "resume_from" not in used and train.checkpoint is None:
        problems.add(
            "train.command",
            f"with the scheduler {scheduler.name} a member goes on from another's checkpoint, which is not "
            "in its own {output_dir}: give train.checkpoint, the files that the program keeps there, or "
            "{resume_from}",
        )


def check_early_stopping(
    scheduler: NamedOptions,
    instance: Scheduler | None,
    *,
    stop: bool,
    repeats: int,
    problems: Problems,
) -> None:
    """Repeats are compared by their mean, so that none of them can end early."""
    early = "stop" if stop else ""
    traits = schedulers.scheduler_traits(scheduler.name)
    if instance is not None and instance.needs_reports:
        option = traits.reports_option
        early = early or (f"scheduler.{option}" if option else f"scheduler: {scheduler.name}")
    if traits.population:
        early = f"scheduler: {scheduler.name}"
    if repeats > 1 and early:
        problems.add("repeats", f"must be 1 with {early}, got {repeats}")
    if traits.population and stop:
        problems.add("stop", f"cannot be combined with {early}, which replaces its bad members itself")


def check_end(
    instance: Scheduler, *, ends: bool, budget: Budget, needs: Sequence[RunNeeds], problems: Problems
) -> None:
    """Check that the sweep ends: by its scheduler, its searcher (`ends`) or its budget."""
    endless = instance.plan().open_ended
    spends = budget.gpu_hours is not None and (not needs or any(run.needs.gpus for run in needs))
    if not endless or ends or spends or budget.trials is not None or budget.time is not None:
        return
    never = " (gpu_hours are not spent as resources.gpus is 0)" if budget.gpu_hours is not None else ""
    problems.add("budget", f"must have trials, gpu_hours or time, {endless}{never}")


def check_cluster(cluster: Cluster, needs: Sequence[RunNeeds], problems: Problems) -> None:
    """Check that a task of each of these runs fits the caps."""
    if cluster.reuse is False and cluster.concurrent > 1:
        expected = "must be 1 with reuse: false, where a task does one run"
        problems.add("cluster.concurrent", f"{expected}, got {cluster.concurrent}")
    if not needs:
        return
    largest = max(needs, key=lambda run: run.needs.gpus)
    gpus = largest.needs.total_gpus * cluster.concurrent
    if cluster.max_gpus is not None and cluster.max_gpus < gpus:
        factors = "resources.gpus x " + ("nodes" if largest.needs.nodes > 1 else "concurrent")
        expected = f"must be at least the {gpus} of one task ({factors})"
        problems.add("cluster.max_gpus", f"{expected}{largest.whose('gpus')}, got {cluster.max_gpus}")
    shortest = min(needs, key=lambda run: run.needs.time_s or LONGEST_S)
    if shortest.needs.time_s is not None and cluster.signal >= shortest.needs.time_s:
        whose = f"{shortest.needs.time_s} seconds{shortest.whose('time')}"
        problems.add("cluster.signal", f"must be less than resources.time ({whose}), got {cluster.signal}")


def check_launcher(
    train: Train, nodes: int, needs: Sequence[RunNeeds], cluster: Cluster, problems: Problems
) -> None:
    """Check that something starts the processes of a run, and that they have a place."""
    launcher = train.launcher
    if launcher == "none":
        if train.processes is not None:
            problems.add("train.processes", "must be left out without train.launcher, which starts them")
        if nodes > 1 and train.function is not None:
            expected = "must be torchrun, srun or accelerate for a function on several nodes"
            problems.add("train.launcher", f"{expected} (resources.nodes is {nodes}), got none")
        return
    if train.call != "trial":
        problems.add("train.call", f"must be trial with train.launcher: {launcher}, got {train.call}")
    if cluster.concurrent > 1 and (nodes > 1 or launcher == "srun"):
        why = f"resources.nodes: {nodes}" if nodes > 1 else f"train.launcher: {launcher}"
        problems.add("cluster.concurrent", f"must be 1 with {why}, got {cluster.concurrent}")
    for run in needs:
        processes = train.processes or run.needs.gpus
        if run.needs.cpus < processes:
            expected = f"must be at least {processes}, one for each process of a node (train.processes)"
            problems.add("resources.cpus", f"{expected}, got {run.needs.cpus}{run.whose('cpus')}")
            break


def check_store(store: Store, train: Train, problems: Problems) -> None:
    """A quota can only be held where checkpoints are removed."""
    for key in ("checkpoint_quota", "checkpoint_files"):
        given = store.plain().get(key)
        if given is not None and train.keep == "all":
            expected = "must be left out with train.keep: all, which removes no checkpoint"
            problems.add(f"store.{key}", f"{expected}, got {given}")


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
    configs = Space(space.parameters).sample(PROBES, np.random.default_rng(0))
    yield from configs
    for config in configs[:4]:
        for parameter in space.parameters:
            if parameter.name in config and isinstance(parameter.domain, Choice | Ordinal):
                for value in parameter.domain.values:
                    yield {**config, parameter.name: value}


Model = TypeVar("Model", bound=BaseModel)

#: Problems reported at a time.
MAX_PROBLEMS: Final = 30


class Problems:
    """Collects problems, so that all are reported at once.

    Args:
        source: The spec file as given.
        overrides: Key path -> the `--set` text that set it; its problems name that instead of the file.
    """

    def __init__(self, source: str, overrides: Mapping[str, str]) -> None:
        self._source = source
        self._overrides = overrides
        self._lines: dict[str, None] = {}

    def add(self, path: str, problem: str) -> None:
        """Add a problem at the key `path`, or with the whole spec if it is empty."""
        source = self._source
        within = [key for key in self._overrides if path == key or path.startswith((f"{key}.", f"{key}["))]
        if within:
            source = f"--set {truncate(self._overrides[max(within, key=len)])}"
        self._lines[": ".join(filter(None, (source, path, problem)))] = None
        if len(self._lines) >= MAX_PROBLEMS:
            raise SpecError(
                *self._lines, f"{self._source}: and perhaps more; these are the first {MAX_PROBLEMS}"
            )

    def add_line(self, line: str, *, section: str = "") -> None:
        """Add a problem whose text begins with its key path, within `section` if one is given."""
        path, _, problem = line.partition(": ")
        self.add(f"{section}.{path}" if section else path, problem)

    @property
    def count(self) -> int:
        return len(self._lines)

    def raise_if_any(self) -> None:
        """Raise all problems as one error, if there are any."""
        if self._lines:
            raise SpecError(*self._lines)

    def validated(
        self, model: type[Model], data: Any, *, path: str, also_known: Sequence[str] = ()
    ) -> Model | None:
        """`data` as the model, or None after adding its problems.

        Unknown keys are reported and dropped, so that the rest is checked too. `also_known` are keys of
        the section that are read elsewhere; messages about unknown keys list them.
        """
        try:
            return model.model_validate(data)
        except ValidationError as error:
            errors = error.errors(include_url=False)
        for found in errors:
            keys, problem = _describe_error(found, model, [*also_known, *model.model_fields])
            self.add(join_path(path, keys), problem)
        if any(found["type"] != "extra_forbidden" for found in errors):
            return None
        try:
            return model.model_validate({key: data[key] for key in data if key in model.model_fields})
        except ValidationError:  # a misspelt key is missing
            return None


def join_path(path: str, keys: Sequence[int | str]) -> str:
    """`a`, `("b", 0)` -> `a.b[0]`."""
    for key in keys:
        path += f"[{key}]" if isinstance(key, int) else f".{key}" if path else str(key)
    return path


def _describe_error(
    error: ErrorDetails, model: type[BaseModel], known: Sequence[str]
) -> tuple[Sequence[int | str], str]:
    """The key path within the section, and the problem."""
    keys = error["loc"]
    field = model.model_fields.get(str(keys[0])) if keys else None
    if field is not None and is_union(field.annotation):
        # Pydantic reports each member of the union; one line is clearer.
        return keys[:1], f"must be {describe_type(field.annotation)}, got {format_value(error['input'])}"
    return keys, _problem(error, model, known)


def _problem(error: ErrorDetails, model: type[BaseModel], known: Sequence[str]) -> str:
    found, context = format_value(error["input"]), error.get("ctx", {})
    match error["type"]:
        case "missing":
            description = descriptions(model).get(str(error["loc"][-1]), "")
            return f"missing; expected {_lower_first(description)}" if description else "missing"
        case "extra_forbidden":
            return suggest_name(str(error["loc"][-1]), known, kind="key")
        case "value_error":
            return str(context["error"])
        case "int_type" | "int_from_float":
            return f"must be an integer, got {found}"
        case "float_type" | "finite_number":
            return f"must be a finite number, got {found}"
        case "string_type":
            quote = "; quote it" if isinstance(error["input"], int | float) else ""
            return f"must be text, got {found}{quote}"
        case "string_too_short":
            return f"must not be empty, got {found}"
        case "bool_type":
            return f"must be true or false, got {found}"
        case "greater_than_equal":
            return f"must be >= {context['ge']:g}, got {found}"
        case "greater_than":
            return f"must be > {context['gt']:g}, got {found}"
        case "less_than_equal":
            most = context["le"]
            return f"must be at most {most if isinstance(most, int) else format(most, 'g')}, got {found}"
        case "literal_error":
            return f"must be {context['expected'].replace('False', 'false')}, got {found}"
        case "model_type" | "dict_type" | "mapping_type" | "model_attributes_type":
            return f"must be a mapping, got {found}"
        case "tuple_type" | "list_type":
            return f"must be a list, got {found}"
        case _:
            return f"{_lower_first(error['msg'])}, got {found}"


def _lower_first(text: str) -> str:
    return (text[:1].lower() + text[1:]).rstrip(".")
