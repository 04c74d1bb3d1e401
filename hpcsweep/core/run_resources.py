"""What one run needs: numbers, expressions over its configuration, or time by units of resource. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from hpcsweep.core.cluster_protocol import DefaultLimits, TaskResources
from hpcsweep.core.events import Config
from hpcsweep.core.expressions import Expression
from hpcsweep.core.text import format_value
from hpcsweep.core.units import (
    LARGEST_MIB,
    LONGEST_S,
    format_duration,
    format_memory,
    parse_duration,
    parse_memory,
)

#: Names of the run's own in expressions, beside its parameters.
RUN_NAMES: Final = ("resource", "start", "rung", "attempt")
#: What a run needs, in the order in which it is computed: later ones may name `gpus` and `cpus`.
KEYS: Final = ("gpus", "cpus", "mem", "time")
MOST_GPUS: Final = 10_000
MOST_CPUS: Final = 1_000_000
#: So many guessed time limits a run may reach before it gets the first one again.
MOST_GUESSES: Final = 2
#: Time limit of a task that does run after run, where its runs need no more.
TASK_TIME_S: Final = 3600
#: What a task may take before its first run begins.
START_UP_S: Final = 300


class RunContext(NamedTuple):
    """What the needs of a run depend on.

    Attributes:
        resource: Up to which it trains. `start`: the step that it goes on from, as far as that is known.
        attempt: How often it was submitted before.
        lacked_mib: The most memory with which the trial ran out of it; 0 if it never did.
        idle_timeouts: How often it reached a time limit without progress.
        short_guesses: How often the run reached one that was guessed.
        expected_s: What a run like that takes, as learned from others; None while that is unknown.
        expected_mib: The same of its memory.
    """

    config: Config
    resource: int
    start: int = 0
    rung: int = 0
    attempt: int = 0
    lacked_mib: int = 0
    idle_timeouts: int = 0
    short_guesses: int = 0
    expected_s: int | None = None
    expected_mib: int | None = None

    @property
    def guess_s(self) -> int | None:
        """The time limit that is learned for it: twice as long after one that was too short."""
        if self.expected_s is None or self.short_guesses >= MOST_GUESSES:
            return None
        return self.expected_s << self.short_guesses


class MemorySteps(msgspec.Struct, frozen=True):
    """Memory that a run has at first, and `factor` times as much after each attempt that ran out of it."""

    start: int | Expression
    max_mib: int
    factor: float = 2.0

    def of(self, start_mib: int, lacked_mib: int) -> int:
        """The first step that is more than what was too little; the last one if none is."""
        amount = min(start_mib, self.max_mib)
        while amount <= lacked_mib and amount < self.max_mib:
            amount = min(max(math.ceil(amount * self.factor), amount + 1), self.max_mib)
        return amount


class Learned(msgspec.Struct, frozen=True):
    """As much as others used, once enough of them have ended; before that, and at last, `first`.

    That is None for the cluster's default.
    """

    first: int | None = None


class UnitTime(msgspec.Struct, frozen=True):
    """A time limit of `base + per_unit * (resource - start)` seconds, at most `max_s`; see `RunResources`.

    With a maximum it is twice as long after each attempt that reached it without progress.
    """

    base: float | Expression
    per_unit: float | Expression
    max_s: int | None = None


class RunResources(msgspec.Struct, frozen=True):
    """What the runs of a sweep need.

    Expressions give whole numbers of GPUs and CPUs; MiB, or a text such as `16G`; seconds, or a text such
    as `30m`. A parameter that is inactive is None in them. One with the name of something of the run's own
    takes its place.

    Attributes:
        nodes: Of each run; the others are those of each node.
        mem_mib: None leaves it to the cluster's default, as does `time_s`.
        defaults: What that default is: once enough runs have ended, others ask for what those used, if that
            is less. None: nothing is learned.
    """

    gpus: int | Expression = 0
    cpus: int | Expression = 1
    mem_mib: int | Expression | MemorySteps | Learned | None = None
    time_s: int | Expression | UnitTime | Learned | None = None
    nodes: int = 1
    defaults: DefaultLimits = DefaultLimits()

    @property
    def lowers_time(self) -> int | None:
        """The cluster's default time limit, where the spec gives none and shorter ones are learned."""
        return self.defaults.time_s if self.time_s is None else None

    @property
    def lowers_memory(self) -> int | None:
        """The same of memory."""
        return self.defaults.mem_mib if self.mem_mib is None else None

    @property
    def watches_memory(self) -> bool:
        """Whether a run that holds more than it was given is ended: then it is tried again with more."""
        return isinstance(self.mem_mib, MemorySteps | Learned) or self.lowers_memory is not None

    def allows_more_memory(self, had_mib: int) -> bool:
        """Whether a run that had so much may have more."""
        if isinstance(self.mem_mib, Learned):
            return self.mem_mib.first is None or had_mib < self.mem_mib.first
        if self.lowers_memory is not None:
            return had_mib < self.lowers_memory
        return isinstance(self.mem_mib, MemorySteps) and had_mib < self.mem_mib.max_mib

    def is_guess(self, time_s: int) -> bool:
        """Whether this time limit of a run was learned from others, and is less than the first one."""
        if not time_s:
            return False
        if self.lowers_time is not None:
            return time_s < self.lowers_time
        return isinstance(self.time_s, Learned) and (self.time_s.first is None or time_s < self.time_s.first)

    @property
    def changes(self) -> list[str]:
        """How memory and time of a run change as the sweep goes on, a line for each."""
        lines = []
        if isinstance(self.mem_mib, MemorySteps):
            start, most = self.mem_mib.start, format_memory(self.mem_mib.max_mib)
            first = start.text if isinstance(start, Expression) else format_memory(start)
            grows = f"{self.mem_mib.factor:g} times as much each time it runs out of it, up to {most}"
            lines.append(f"memory of a run: {first} at first, {grows}")
        elif isinstance(self.mem_mib, Learned):
            most_mib = self.mem_mib.first
            first = "the cluster's default" if most_mib is None else format_memory(most_mib)
            lines.append(f"memory of a run: {first} at first, then as much as others used")
        if isinstance(self.time_s, Learned):
            most_s = self.time_s.first
            first = "the cluster's default" if most_s is None else format_duration(most_s)
            lines.append(f"time limit of a run: {first} at first, then what others took")
        if self.lowers_memory is not None:
            first = f"the cluster's default of {format_memory(self.lowers_memory)}"
            lines.append(f"memory of a run: {first} at first, then as much as others used, never more")
        if self.lowers_time is not None:
            first = f"the cluster's default of {format_duration(self.lowers_time)}"
            lines.append(f"time limit of a run: {first} at first, then what others took, never more")
        return lines

    @property
    def learns(self) -> bool:
        """Whether needs depend on what other runs used."""
        given = isinstance(self.mem_mib, Learned) or isinstance(self.time_s, Learned)
        return given or self.lowers_memory is not None or self.lowers_time is not None

    @property
    def constant(self) -> TaskResources | None:
        """What every run needs, or the most where less is learned of the `defaults`; None if they differ."""
        match self.gpus, self.cpus, self.mem_mib, self.time_s:
            case int(), int(), int() | None, int() | None:
                return TaskResources(self.gpus, self.cpus, self.mem_mib, self.time_s, nodes=self.nodes)
        return None

    def expressions(self) -> list[tuple[str, Expression, tuple[str, ...]]]:
        """Key path, expression, and the names that it may have beside parameters."""
        found: list[tuple[str, Expression, tuple[str, ...]]] = []
        names: tuple[str, ...] = RUN_NAMES
        values = zip(KEYS, (self.gpus, self.cpus, self.mem_mib, self.time_s), strict=True)
        for key, value in values:
            parts: list[tuple[str, Any]] = [(key, value)]
            if isinstance(value, UnitTime):
                parts = [("time.base", value.base), ("time.per_unit", value.per_unit)]
            elif isinstance(value, MemorySteps):
                parts = [("mem.start", value.start)]
            found += [
                (f"resources.{path}", part, names) for path, part in parts if isinstance(part, Expression)
            ]
            names = (*names, key) if key in ("gpus", "cpus") else names
        return found

    def of(self, run: RunContext) -> TaskResources:
        """What this run needs.

        Raises:
            ValueError: It cannot be computed; the message begins with the key path at fault.
        """
        values: dict[str, Any] = {
            "resource": run.resource,
            "start": run.start,
            "rung": run.rung,
            "attempt": run.attempt,
            **run.config,
        }
        gpus = _count("resources.gpus", self.gpus, values, least=0, most=MOST_GPUS)
        values.setdefault("gpus", gpus)
        cpus = _count("resources.cpus", self.cpus, values, least=1, most=MOST_CPUS)
        values.setdefault("cpus", cpus)
        match self.mem_mib:
            case MemorySteps():
                first = _amount(
                    "resources.mem.start", self.mem_mib.start, values, parse=parse_memory, most=LARGEST_MIB
                )
                assert first is not None
                mem: int | None = self.mem_mib.of(first, run.lacked_mib)
            case Learned():
                mem = _learned(self.mem_mib.first, None if run.lacked_mib else run.expected_mib)
            case None if self.lowers_memory is not None:
                mem = _less(self.lowers_memory, None if run.lacked_mib else run.expected_mib)
            case _:
                mem = _amount("resources.mem", self.mem_mib, values, parse=parse_memory, most=LARGEST_MIB)
        if isinstance(self.time_s, UnitTime):
            time_s: int | None = _unit_time(self.time_s, run, values)
        elif isinstance(self.time_s, Learned):
            time_s = _learned(self.time_s.first, run.guess_s)
        elif self.lowers_time is not None:
            time_s = _less(self.lowers_time, run.guess_s)
        else:
            time_s = _amount("resources.time", self.time_s, values, parse=parse_duration, most=LONGEST_S)
        return TaskResources(gpus, cpus, mem, time_s, nodes=self.nodes)


def _count(path: str, given: int | Expression, values: Mapping[str, Any], *, least: int, most: int) -> int:
    if isinstance(given, int):
        return given
    found = _value(path, given, values)
    whole = isinstance(found, int | float) and not isinstance(found, bool) and found == found // 1
    if not whole or not least <= found <= most:
        expected = f"must give a whole number from {least} to {most}"
        raise ValueError(f"{path}: {expected}, {_got(given, found, values)}{_hint(found)}")
    return int(found)


def _hint(found: Any) -> str:
    """How to make a whole number of this one."""
    return "; round it with ceil(...)" if isinstance(found, float) and math.isfinite(found) else ""


def _amount(
    path: str, given: int | Expression | None, values: Mapping[str, Any], *, parse: Any, most: int
) -> int | None:
    """MiB or seconds, rounded up."""
    if not isinstance(given, Expression):
        return given
    found = _seconds_or_size(path, given, values, parse=parse)
    if not 0 < found <= most:
        largest = format_memory(most) if parse is parse_memory else format_duration(most)
        expected = "must give more than 0" if found <= 0 else f"must give at most {largest}"
        raise ValueError(f"{path}: {expected}, {_got(given, found, values)}")
    return math.ceil(found)


def _seconds_or_size(
    path: str, given: float | Expression, values: Mapping[str, Any], *, parse: Any = parse_duration
) -> float:
    if not isinstance(given, Expression):
        return given
    found = _value(path, given, values)
    if isinstance(found, str):
        try:
            return float(parse(found))
        except ValueError as error:
            raise ValueError(f"{path}: {given.text!r}: {error}") from None
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        unit = "MiB, or a text such as '16G'" if parse is parse_memory else "seconds, or a text such as '30m'"
        raise ValueError(f"{path}: must give {unit}, {_got(given, found, values)}")
    return found


def _unit_time(given: UnitTime, run: RunContext, values: Mapping[str, Any]) -> int:
    base = _seconds_or_size("resources.time.base", given.base, values)
    each = _seconds_or_size("resources.time.per_unit", given.per_unit, values)
    for path, part in (("base", base), ("per_unit", each)):
        if part < 0:
            raise ValueError(f"resources.time.{path}: must be >= 0, got {part:g}")
    seconds = math.ceil(base + each * max(0, run.resource - run.start))
    if given.max_s is None:
        return max(1, min(seconds, LONGEST_S))
    return max(1, min(seconds << min(run.idle_timeouts, 32), given.max_s))


def _learned(first: int | None, guess: int | None) -> int | None:
    """The guess, if there is one and it is less than what is asked for at first."""
    return first if guess is None or (first is not None and first <= guess) else guess


def _less(default: int, guess: int | None) -> int | None:
    """The guess, if it is at most half of what the cluster gives by default; else None, to be given that.

    A little less starts no sooner, and would end some runs for nothing.
    """
    return guess if guess is not None and 2 * guess <= default else None


def _value(path: str, given: Expression, values: Mapping[str, Any]) -> Any:
    inactive = sorted(given.names - values.keys())
    try:
        return given.value({**dict.fromkeys(inactive), **values})
    except ValueError as error:
        hint = ""
        if inactive:
            name = inactive[0]
            hint = f"; {name} is None where it is inactive: write '... if {name} is not None else ...'"
        raise ValueError(f"{path}: {error}{hint}") from None


def _got(given: Expression, found: Any, values: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{name}={format_value(values.get(name))}" for name in sorted(given.names))
    return f"got {format_value(found)} of {given.text!r} for {shown}"


def reused_task(
    run: TaskResources, *, lanes: int, task_time_s: int | None = None, runs: int | None = None
) -> TaskResources:
    """A task that does run after run of those that need that, `lanes` at a time.

    Args:
        run: What is enough for each of its runs.
        lanes: Runs at a time.
        task_time_s: Its time limit, where that is given.
        runs: How many there are for it to do one after another; None: as many as come.
    """
    long_s = None
    if run.time_s is not None:
        one_s = run.time_s + START_UP_S
        all_s = TASK_TIME_S if runs is None else min(TASK_TIME_S, run.time_s * runs + START_UP_S)
        long_s = max(one_s, all_s)
    return TaskResources(
        gpus=run.gpus * lanes,
        cpus=run.cpus * lanes,
        mem_mib=None if run.mem_mib is None else run.mem_mib * lanes,
        time_s=task_time_s or long_s,
        lanes=lanes,
        least_time_s=task_time_s or run.time_s,
        nodes=run.nodes,
    )


def largest_need(needs: Iterable[TaskResources]) -> TaskResources:
    """What is enough for each of these; there is at least one."""
    given = list(needs)
    mem = [each.mem_mib for each in given if each.mem_mib is not None]
    time = [each.time_s for each in given if each.time_s is not None]
    return TaskResources(
        gpus=max(each.gpus for each in given),
        cpus=max(each.cpus for each in given),
        mem_mib=max(mem, default=None),
        time_s=max(time, default=None),
        nodes=max(each.nodes for each in given),
    )
