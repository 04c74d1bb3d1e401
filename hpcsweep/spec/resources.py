"""The section `resources`: what one run needs, and whether that can be computed for all runs of a sweep."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.random import default_rng
from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.core.events import Config
from hpcsweep.core.expressions import Expression
from hpcsweep.core.protocols import Scheduler, SchedulerPlan
from hpcsweep.core.run_resources import (
    MOST_CPUS,
    MOST_GPUS,
    RUN_NAMES,
    RunContext,
    RunResources,
    UnitTime,
)
from hpcsweep.core.space import Space
from hpcsweep.core.text import format_value, suggest_name
from hpcsweep.core.units import format_duration, format_memory, parse_duration, parse_memory
from hpcsweep.errors import SpecError
from hpcsweep.options import Section, TimeLimit, read_time_limit

if TYPE_CHECKING:
    from hpcsweep.spec.checks import Problems

#: Random configurations on which expressions are tried, beside the ends of each domain.
PROBES: Final = 64
#: Of a long ladder so many rungs are tried at each end.
RUNGS: Final = 6
#: Parameters with so many values at most are tried with each.
VALUES: Final = 50
#: Attempts that are tried.
ATTEMPTS: Final = (0, 1, 3)
#: A number, or a number with something like a unit: nobody means an expression by it.
_NUMBER: Final = re.compile(r"[+-]?[\d.:\s-]*\d[\d.:\s]*[A-Za-z]*|")


def _expression(text: str, expected: str) -> str:
    """The text of an expression; ValueError if it is none."""
    text = " ".join(text.split())
    problem = ""
    if not _NUMBER.fullmatch(text):
        try:
            Expression(text)
            return text
        except ValueError as error:
            problem = f": {error}"
    raise ValueError(
        f"must be {expected} or an expression over parameters, got {format_value(text)}{problem}"
    )


def _counts(least: int, most: int) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if isinstance(value, str):
            return _expression(value, "an integer")
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(
                f"must be an integer or an expression over parameters, got {format_value(value)}"
            )
        if value < least:
            raise ValueError(f"must be >= {least}, got {value}")
        if value > most:
            raise ValueError(f"must be at most {most}, got {value}")
        return value

    return read


def _memory(value: Any) -> Any:
    if value is None:
        return None
    try:
        return parse_memory(value)
    except ValueError:
        if not isinstance(value, str) or _NUMBER.fullmatch(value.strip()):
            raise
    return _expression(value, "a size with its unit such as 16G")


def _time(value: Any) -> Any:
    if value is None or isinstance(value, RunTime):
        return value
    try:
        return read_time_limit(value)
    except ValueError:
        if not isinstance(value, str) or _NUMBER.fullmatch(value.strip()) or _is_duration(value):
            raise
    return _expression(value, "a time with its unit such as 30m")


def _is_duration(text: str) -> bool:
    try:
        parse_duration(text)
    except ValueError:
        return bool(re.fullmatch(r"[\d.]+\s*[dhms].*", text.strip(), re.IGNORECASE))
    return True


def _seconds(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    try:
        return parse_duration(value)
    except ValueError:
        if not isinstance(value, str) or _NUMBER.fullmatch(value.strip()) or _is_duration(value):
            raise
    return _expression(value, "a time with its unit such as 90s")


def _written(format_number: Callable[[Any], str]) -> PlainSerializer:
    """Expressions as they are."""
    return PlainSerializer(
        lambda value: value if isinstance(value, str) else format_number(value),
        when_used="json-unless-none",
    )


_EXPRESSION: Final = {"type": "string", "description": "An expression over parameters."}


def _count_schema(least: int, most: int) -> WithJsonSchema:
    return WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": least, "maximum": most}, {"type": "string"}]}
    )


Gpus: TypeAlias = Annotated[Any, BeforeValidator(_counts(0, MOST_GPUS)), _count_schema(0, MOST_GPUS)]
Cpus: TypeAlias = Annotated[Any, BeforeValidator(_counts(1, MOST_CPUS)), _count_schema(1, MOST_CPUS)]
UnitSeconds: TypeAlias = Annotated[
    Any,
    BeforeValidator(_seconds),
    _written(format_duration),
    WithJsonSchema({"type": ["string", "number"], "minimum": 0, "examples": ["90s", "2 * layers"]}),
]


class RunTime(Section):
    """A time limit that grows with what a run has to train."""

    base: UnitSeconds = 0.0
    """Time for starting up, such as `2m`, or an expression in seconds."""
    per_unit: UnitSeconds
    """Time of one unit of resource, such as `90s`, or an expression in seconds."""
    max: TimeLimit = None
    """The longest time limit."""


Mem: TypeAlias = Annotated[
    Any,
    BeforeValidator(_memory),
    _written(format_memory),
    WithJsonSchema({"type": ["string", "null"], "examples": ["500M", "16G", "'8G' if wide else '4G'"]}),
]


def _time_schema() -> dict[str, Any]:
    schema = RunTime.model_json_schema()
    for about in (schema, *schema["properties"].values()):
        about.pop("title", None)
    examples = ["90s", "30m", "1d12h", "01:30:00", "1-12:00:00"]
    return {"anyOf": [{"type": ["string", "null"], "examples": examples}, schema]}


def _time_text(value: Any) -> Any:
    if isinstance(value, RunTime):
        return value.plain()
    return value if isinstance(value, str) else format_duration(value)


Time: TypeAlias = Annotated[
    Any,
    BeforeValidator(_time),
    PlainSerializer(_time_text, when_used="json-unless-none"),
    WithJsonSchema(_time_schema()),
]


class Resources(Section):
    """Resources of one run."""

    gpus: Gpus = 0
    """Number of GPUs, or an expression over parameters such as `1 if width <= 1024 else 4`. See
    resources.md."""
    cpus: Cpus = 1
    """Number of CPU cores, or an expression such as `4 * gpus`."""
    mem: Mem = None
    """Memory with its unit, such as `16G`, or an expression in MiB. Default: the cluster's."""
    time: Time = None
    """Time limit, such as `30m` or `01:30:00`, an expression in seconds, or base, per_unit and max of a time
    that grows with the resource. Default: the cluster's."""

    def of_runs(self) -> RunResources:
        """The same as what answers for each run."""
        return RunResources(
            gpus=_parsed(self.gpus),
            cpus=_parsed(self.cpus),
            mem_mib=_parsed(self.mem),
            time_s=_parsed(self.time),
        )


def _parsed(value: Any) -> Any:
    if isinstance(value, RunTime):
        return UnitTime(_parsed(value.base), _parsed(value.per_unit), value.max)
    return Expression(value) if isinstance(value, str) else value


def read_resources(data: Mapping[str, Any], problems: Problems) -> Resources | None:
    """The section; None after adding problems."""
    raw = data.get("resources")
    if not isinstance(raw, Mapping) or not isinstance(raw.get("time"), Mapping):
        return problems.validated(Resources, {} if raw is None else raw, path="resources")
    time = problems.validated(RunTime, raw["time"], path="resources.time")
    others = {key: value for key, value in raw.items() if key != "time"}
    return problems.validated(Resources, others | ({} if time is None else {"time": time}), path="resources")


# --------------------------------------------------------------------------- the runs of a sweep


class RunNeeds(NamedTuple):
    """What a run needs.

    Attributes:
        names: By key, what its expression depends on; none for a number.
    """

    context: RunContext
    needs: TaskResources
    names: Mapping[str, Sequence[str]] = {}

    def whose(self, key: str) -> str:
        """Which runs need that of `gpus` or another key, such as ` for width=2048`; empty if all do."""
        run = self.context
        own = {"resource": run.resource, "start": run.start, "rung": run.rung, "attempt": run.attempt}
        values = own | run.config
        shown = [f"{name}={format_value(values[name])}" for name in self.names.get(key, ()) if name in values]
        return f" for {', '.join(shown)}" if shown else ""


def check_resources(
    resources: RunResources, space: Space, plan: SchedulerPlan | None, problems: Problems
) -> bool:
    """Whether the needs of all runs can be computed, as far as tried; adds the problems."""
    before = problems.count
    for path, expression, names in resources.expressions():
        known = [*space.names, *names]
        for name in sorted(expression.names - {*known}):
            problems.add(path, f"{suggest_name(name, known, kind=f'name {name!r}')}")
    if problems.count > before:
        return False
    wrong: set[str] = set()
    for context in [] if resources.constant else _contexts(resources, space, plan):
        try:
            resources.of(context)
        except ValueError as error:
            path = str(error).partition(": ")[0]
            if path not in wrong:
                wrong.add(path)
                problems.add_line(str(error))
    return not wrong


def sample_needs(resources: RunResources, space: Space | None, plan: SchedulerPlan | None) -> list[RunNeeds]:
    """What runs of random and extreme configurations need, at the rungs of the plan."""
    if (constant := resources.constant) is not None:
        return [RunNeeds(RunContext({}, 1), constant)]
    if space is None:
        return []
    names: dict[str, list[str]] = {}
    for path, expression, _ in resources.expressions():
        names.setdefault(path.split(".")[1], []).extend(sorted(expression.names))
    contexts = [context for context in _contexts(resources, space, plan) if not context.attempt]
    return [RunNeeds(context, resources.of(context), names) for context in contexts]


def largest_need(needs: Sequence[TaskResources]) -> TaskResources:
    """What is enough for each of these."""
    mem = [each.mem_mib for each in needs if each.mem_mib is not None]
    time = [each.time_s for each in needs if each.time_s is not None]
    return TaskResources(
        gpus=max(each.gpus for each in needs),
        cpus=max(each.cpus for each in needs),
        mem_mib=max(mem, default=None),
        time_s=max(time, default=None),
    )


def _contexts(resources: RunResources, space: Space, plan: SchedulerPlan | None) -> Iterator[RunContext]:
    """Runs that differ in what their needs depend on."""
    names = {name for _, expression, _ in resources.expressions() for name in expression.names}
    by_rung = isinstance(resources.time_s, UnitTime) or not names.isdisjoint(RUN_NAMES)
    rungs = list(_rungs(plan)) if by_rung else [(1, 0, 0)]
    attempts = ATTEMPTS if "attempt" in names else (0,)
    for config in probe_configs(space, names):
        for resource, start, rung in rungs:
            for attempt in attempts:
                yield RunContext(config, resource, start, rung, attempt)


def rungs_of(scheduler: Scheduler) -> SchedulerPlan:
    """Its plan with the rungs that a trial goes through, however many there will be."""
    plan = scheduler.plan()
    return plan if plan.brackets else scheduler.plan(1)


def _rungs(plan: SchedulerPlan | None) -> Iterator[tuple[int, int, int]]:
    """Resource, start and number of the rungs of all brackets, each once."""
    seen = set()
    for bracket in plan.brackets if plan is not None else ():
        rungs = list(
            zip(bracket.resources, (0, *bracket.resources), range(len(bracket.resources)), strict=False)
        )
        seen.update(rungs if len(rungs) <= 2 * RUNGS else [*rungs[:RUNGS], *rungs[-RUNGS:]])
    yield from sorted(seen, key=lambda each: (each[2], each[0])) or [(1, 0, 0)]


def probe_configs(space: Space, names: Container[str]) -> list[Config]:
    """Random configurations, and some of these with each parameter of `names` at the ends of its domain."""
    columns = len(space.columns)
    unit = default_rng(0).random((PROBES, columns))
    rows = [*unit, np.zeros(columns), np.ones(columns)]
    for column, parameter in enumerate(space.columns):
        if parameter.name not in names:
            continue
        size = parameter.domain.size
        few = size is not None and size <= VALUES
        for end in (np.arange(size) + 0.5) / size if few and size else (0.0, 1.0):
            for base in unit[:2]:
                rows.append(base.copy())
                rows[-1][column] = end
    configs = space.from_unit(np.array(rows))
    try:
        return [config for config in configs if space.satisfies_constraints(config)]
    except SpecError:  # reported where constraints are checked
        return []
