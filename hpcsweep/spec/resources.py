"""The section `resources`: what one run needs, and whether that can be computed for all runs of a sweep."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from hpcsweep.core.arrays import np
from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.core.events import Config
from hpcsweep.core.expressions import Expression
from hpcsweep.core.protocols import Scheduler, SchedulerPlan
from hpcsweep.core.run_resources import (
    MOST_CPUS,
    MOST_GPUS,
    RUN_NAMES,
    Learned,
    MemorySteps,
    RunContext,
    RunResources,
    UnitTime,
)
from hpcsweep.core.space import Space
from hpcsweep.core.text import format_value, suggest_name
from hpcsweep.core.units import LARGEST_MIB, format_duration, format_memory, parse_duration, parse_memory
from hpcsweep.errors import SpecError
from hpcsweep.options import Memory, OtherSchema, Section, TimeLimit, Whole, read_time_limit, section_schema

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
#: What is learned from other runs.
AUTO: Final = "auto"
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
    if value is None or value == AUTO or isinstance(value, RunMemory):
        return value
    try:
        return parse_memory(value)
    except ValueError:
        if not isinstance(value, str) or _NUMBER.fullmatch(value.strip()):
            raise
    return _expression(value, "a size with its unit such as 16G")


def _time(value: Any) -> Any:
    if value is None or value == AUTO or isinstance(value, RunTime):
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
    _refuse_auto(value, "base and per_unit", "time", "90s")
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    try:
        return parse_duration(value)
    except ValueError:
        if not isinstance(value, str) or _NUMBER.fullmatch(value.strip()) or _is_duration(value):
            raise
    return _expression(value, "a time with its unit such as 90s")


def _refuse_auto(value: Any, keys: str, what: str, example: str) -> None:
    if value == AUTO:
        raise ValueError(
            f"must be a {what} with its unit such as {example} or an expression over parameters, got 'auto'; "
            f"leave out {keys} to have it learned"
        )


def _start(value: Any) -> Any:
    _refuse_auto(value, "start", "size", "16G")
    return _memory(value)


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


class _Given(Section):
    """A section that is written with what was given."""

    @model_serializer(mode="wrap")
    def _dump(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


class RunTime(_Given):
    """A time limit that grows with what a run has to train, or that is learned from other runs."""

    base: UnitSeconds | None = None
    """Time for starting up, such as `2m`, or an expression in seconds."""
    per_unit: UnitSeconds | None = None
    """Time of one unit, such as `90s`, or an expression. Without it the time is learned."""
    max: TimeLimit = None
    """The longest limit: up to it a time-out without progress doubles the time, or that of first runs."""

    @model_validator(mode="after")
    def _check(self) -> RunTime:
        if self.per_unit is None and self.base is not None:
            raise ValueError("must have per_unit, the time of one unit of resource, beside base")
        if self.per_unit is None and self.max is None:
            raise ValueError("must have per_unit, or max for a time that is learned")
        return self

    def of_runs(self) -> UnitTime | Learned:
        """The same as what answers for each run."""
        if self.per_unit is None:
            return Learned(self.max)
        base = 0.0 if self.base is None else self.base
        return UnitTime(_parsed(base), _parsed(self.per_unit), self.max)


Start: TypeAlias = Annotated[
    Any,
    BeforeValidator(_start),
    _written(format_memory),
    WithJsonSchema({"type": ["string", "null"], "examples": ["16G", "'8G' if wide else '4G'"]}),
]


class RunMemory(_Given):
    """Memory that a run gets more of if it runs out of it, or that is learned from other runs."""

    start: Start = None
    """Memory of the first attempt, or an expression in MiB. Without it memory is learned."""
    factor: float | None = Field(default=None, gt=1, le=1000)
    """By which memory grows after an attempt that ran out of it; 2 if not given."""
    max: Memory = None
    """The most memory that a run gets, and that first runs get where memory is learned."""

    @model_validator(mode="after")
    def _check(self) -> RunMemory:
        if self.max is None:
            raise ValueError("must have max, the most memory that a run gets")
        if self.start is None and self.factor is not None:
            raise ValueError("must have start beside factor")
        if isinstance(self.start, int) and self.start > self.max:
            start, most = format_memory(self.start), format_memory(self.max)
            raise ValueError(f"start must be at most max ({most}), got {start}")
        return self

    def of_runs(self) -> MemorySteps | Learned:
        """The same as what answers for each run."""
        assert self.max is not None
        if self.start is None:
            return Learned(self.max)
        return MemorySteps(_parsed(self.start), self.max, self.factor or 2.0)


def _or_section(model: type[Section], examples: Sequence[str]) -> OtherSchema:
    alone = {"type": ["string", "null"], "examples": [*examples]}
    return OtherSchema(lambda: {"anyOf": [alone, section_schema(model)]})


def _text_or_section(format_number: Callable[[Any], str]) -> PlainSerializer:
    def written(value: Any) -> Any:
        if isinstance(value, Section):
            return value.plain()
        return value if isinstance(value, str) else format_number(value)

    return PlainSerializer(written, when_used="json-unless-none")


Mem: TypeAlias = Annotated[
    Any,
    BeforeValidator(_memory),
    _text_or_section(format_memory),
    _or_section(RunMemory, ["500M", "16G", "'8G' if wide else '4G'", AUTO]),
]
Time: TypeAlias = Annotated[
    Any,
    BeforeValidator(_time),
    _text_or_section(format_duration),
    _or_section(RunTime, ["90s", "30m", "1d12h", "01:30:00", "1-12:00:00", AUTO]),
]


class Resources(Section):
    """Resources of one run. With several nodes, `gpus`, `cpus` and `mem` are those of each node."""

    nodes: Whole = Field(default=1, ge=1, le=10_000)
    """Number of nodes, for training over several of them: see `train.launcher`."""
    gpus: Gpus = 0
    """Number of GPUs, or an expression over parameters such as `1 if width <= 1024 else 4`. See
    resources.md."""
    cpus: Cpus = 1
    """Number of CPU cores, or an expression such as `4 * gpus`."""
    mem: Mem = None
    """Memory such as `16G`, an expression in MiB, start and max, or `auto`: learned from other runs. Default:
    the cluster's, or less as other runs show."""
    time: Time = None
    """Time limit such as `30m`, an expression in seconds, base, per_unit and max, or `auto`: learned from
    other runs. Default: as for `mem`."""

    def of_runs(self) -> RunResources:
        """The same as what answers for each run."""
        return RunResources(
            gpus=_parsed(self.gpus),
            cpus=_parsed(self.cpus),
            mem_mib=_parsed(self.mem),
            time_s=_parsed(self.time),
            nodes=self.nodes,
        )


def _parsed(value: Any) -> Any:
    if isinstance(value, RunTime | RunMemory):
        return value.of_runs()
    if value == AUTO:
        return Learned()
    return Expression(value) if isinstance(value, str) else value


def read_resources(data: Mapping[str, Any], problems: Problems) -> Resources | None:
    """The section; None after adding problems."""
    raw = data.get("resources")
    if not isinstance(raw, Mapping):
        return problems.validated(Resources, {} if raw is None else raw, path="resources")
    given = dict(raw)
    for key, model in (("mem", RunMemory), ("time", RunTime)):
        if isinstance(given.get(key), Mapping):
            section = problems.validated(model, given.pop(key), path=f"resources.{key}")
            given |= {} if section is None else {key: section}
    return problems.validated(Resources, given, path="resources")


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
    """What runs of random and extreme configurations need, at the rungs of the plan, and where retried.

    Of memory that grows it is the most: what a site does not have is found before the sweep begins.
    """
    if (constant := resources.constant) is not None:
        return [RunNeeds(RunContext({}, 1), constant)]
    if space is None:
        return []
    names: dict[str, list[str]] = {}
    for path, expression, _ in resources.expressions():
        names.setdefault(path.split(".")[1], []).extend(sorted(expression.names))
    contexts = [context for context in _contexts(resources, space, plan) if context.attempt <= 1]
    most = [context._replace(lacked_mib=LARGEST_MIB) for context in contexts]
    return [RunNeeds(run, resources.of(run), names) for run in most]


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


def rungs_of(scheduler: Scheduler, plan: SchedulerPlan | None = None) -> SchedulerPlan:
    """Its plan (or this one) with the rungs that a trial goes through, however many there will be."""
    plan = scheduler.plan() if plan is None else plan
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
    unit = np.random.default_rng(0).random((PROBES, columns))
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
