"""Domains of single parameters: what may be chosen, and where it lies in the unit interval.

Every domain maps to [0, 1] and back in whole columns. Domains with finitely many values are
`k` cells of equal width (of equal width in the logarithm for `Int(log=True)`): value `i` sits
in the middle of cell `i`, so that it comes back exactly.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any, Final, TypeAlias

import msgspec

from hpcsweep.core.arrays import Floats as Floats  # where others look for it
from hpcsweep.core.arrays import Ints, np
from hpcsweep.core.text import format_value, json_key, json_problem

#: Integers beyond this would not come back exactly from the unit interval.
MAX_INT: Final = 2**40
MAX_STEPS: Final = 10_000_000
#: Values of a domain that may be in memory all at once.
MAX_LISTED: Final = 100_000


class InvalidDomain(ValueError):
    """A domain makes no sense.

    Attributes:
        problems: Pairs of the argument at fault and what is wrong with it.
    """

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{key}: {problem}" for key, problem in problems))
        self.problems = tuple(problems)


class Float(msgspec.Struct, frozen=True, dict=True):
    """A number in [low, high], both ends included.

    Attributes:
        log: Uniform in the logarithm.
        step: Only low, low + step, ... up to high; exact in decimal, so 0.1 + 2 * 0.1 is 0.3.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        problems = _range_problems(self)
        if not problems and not math.isfinite(float(self.high) - float(self.low)):
            problems.append(("high", f"must be less than 1.8e308 above low ({self.low}), got {self.high}"))
        if not problems and self.step is not None and (self.high - self.low) / self.step > MAX_STEPS:
            problems.append(("step", f"must leave at most {MAX_STEPS} values, got {format_value(self.step)}"))
        if problems:
            raise InvalidDomain(problems)
        for name in ("low", "high") if self.step is None else ("low", "high", "step"):
            msgspec.structs.force_setattr(self, name, float(getattr(self, name)))

    @cached_property
    def size(self) -> int | None:
        """How many values it has, None where infinitely many."""
        if self.step is None:
            return None
        span = Decimal(repr(self.high)) - Decimal(repr(self.low))
        last = int(span / Decimal(repr(self.step)))
        return last + (self.at(last) <= self.high)  # the division may have rounded up

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value that a user gave, None if nothing is."""
        if not _is_number(value):
            return f"must be a number, got {format_value(value)}"
        if not self.low <= value <= self.high:
            return f"must be between {self.low} and {self.high}, got {format_value(value)}"
        if self.step is not None and abs(self.nearest(value) - value) > 1e-9 * max(self.step, abs(value)):
            return f"must be {self.low} plus a multiple of {self.step}, got {format_value(value)}"
        return None

    def nearest(self, value: float) -> float:
        """The value of the domain closest to `value`."""
        if self.size is None:
            return float(min(max(value, self.low), self.high))
        return self.at(int(_indices(self, [value])[0]))

    def at(self, index: int) -> float:
        """Value number `index`, where there is a step."""
        return float(Decimal(repr(self.low)) + index * Decimal(repr(self.step)))

    def to_unit(self, values: Sequence[Any]) -> Floats:
        """Positions `(n,)` in [0, 1]."""
        if self.size is not None:
            return _middle_of(_indices(self, values), self.size)
        column = np.array(values, dtype=float)
        if self.log:
            unit = (np.log(column) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            unit = (column - self.low) / (self.high - self.low)
        return _within(unit)

    def from_unit(self, unit: Floats) -> list[float]:
        """Values at positions `(n,)`, never outside of [low, high], whatever the rounding."""
        if self.size is not None:
            return [self.at(index) for index in _cell_of(unit, self.size)]
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            values = np.exp(low + unit * (high - low))
        else:
            values = self.low + unit * (self.high - self.low)
        values = np.where(unit <= 0.0, self.low, np.where(unit >= 1.0, self.high, values))
        return np.clip(values, self.low, self.high).tolist()  # type: ignore[no-any-return]

    def points(self, count: int | None) -> Sequence[float]:
        """At most `count` distinct values, ascending, evenly spread, the ends among them."""
        if self.size is None and count is None:
            raise ValueError("is continuous")
        if self.size is not None and count is None and self.size > MAX_LISTED:
            return _Steps(self, self.size)
        if self.size is not None:
            return [self.at(index) for index in _spread(self.size, count)]
        assert count is not None
        unit = np.linspace(0.0, 1.0, count) if count > 1 else np.array([0.5])
        return list(dict.fromkeys(self.from_unit(unit)))


class _Steps(Sequence[float]):
    """All values of a stepped domain, each made when it is asked for."""

    def __init__(self, domain: Float, size: int) -> None:
        self._domain = domain
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: Any) -> Any:
        found = range(self._size)[index]
        return [self._domain.at(i) for i in found] if isinstance(found, range) else self._domain.at(found)


class Int(msgspec.Struct, frozen=True, dict=True):
    """A whole number in [low, high], both ends included.

    Attributes:
        log: Uniform in the logarithm, before rounding.
        step: Only low, low + step, ... up to high.
    """

    low: int
    high: int
    log: bool = False
    step: int | None = None

    def __post_init__(self) -> None:
        problems: list[tuple[str, str]] = []
        for key in ("low", "high") if self.step is None else ("low", "high", "step"):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool):
                problems.append((key, f"must be an integer, got {format_value(value)}"))
            elif abs(value) > MAX_INT:
                problems.append((key, f"must be within -2**40 .. 2**40, got {value}"))
        problems = problems or _range_problems(self)
        if problems:
            raise InvalidDomain(problems)

    @cached_property
    def size(self) -> int:
        return (self.high - self.low) // (self.step or 1) + 1

    def problem(self, value: Any) -> str | None:
        if not isinstance(value, int) or isinstance(value, bool):
            return f"must be an integer, got {format_value(value)}"
        if not self.low <= value <= self.high:
            return f"must be between {self.low} and {self.high}, got {format_value(value)}"
        if (value - self.low) % (self.step or 1):
            return f"must be {self.low} plus a multiple of {self.step}, got {format_value(value)}"
        return None

    def nearest(self, value: float) -> int:
        return self.low + int(_indices(self, [value])[0]) * (self.step or 1)

    def _log_ends(self) -> tuple[float, float]:
        return math.log(self.low - 0.5), math.log(self.high + 0.5)

    def to_unit(self, values: Sequence[Any]) -> Floats:
        if self.log:
            low, high = self._log_ends()
            unit = (np.log(np.array(values, dtype=float)) - low) / (high - low)
            return _within(unit)
        return _middle_of(_indices(self, values), self.size)

    def from_unit(self, unit: Floats) -> list[int]:
        if self.log:
            low, high = self._log_ends()
            values = np.rint(np.exp(low + np.clip(unit, 0.0, 1.0) * (high - low)))
            return np.clip(values, self.low, self.high).astype(np.int64).tolist()  # type: ignore[no-any-return]
        return [self.low + index * (self.step or 1) for index in _cell_of(unit, self.size)]

    def points(self, count: int | None) -> Sequence[int]:
        """At most `count` distinct values, ascending, evenly spread; all of them for None."""
        if self.log and count is not None and count < self.size:
            unit = np.array([0.5]) if count == 1 else np.linspace(0.0, 1.0, count)
            low, high = math.log(self.low), math.log(self.high)
            values = np.clip(np.rint(np.exp(low + unit * (high - low))), self.low, self.high)
            return list(dict.fromkeys(values.astype(np.int64).tolist()))
        if count is None or count >= self.size:
            return range(self.low, self.high + 1, self.step or 1)
        return [self.low + index * (self.step or 1) for index in _spread(self.size, count)]


class _Listed(msgspec.Struct, frozen=True, dict=True):
    """One of the listed values, which come back as the very objects that were given."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.values, list | tuple):
            raise InvalidDomain([("values", f"must be a list, got {format_value(self.values)}")])
        msgspec.structs.force_setattr(self, "values", tuple(self.values))
        problems: list[tuple[str, str]] = []
        if not self.values:
            problems.append(("values", "must have at least one value, got an empty list"))
        seen: set[Hashable] = set()
        for value in self.values:
            problem = json_problem(value)
            if problem is not None:
                problems.append(("values", problem))
            elif json_key(value) in seen:
                problems.append(("values", f"must be distinct, got {format_value(value)} twice"))
            else:
                seen.add(json_key(value))
        if problems:
            raise InvalidDomain(problems)

    @property
    def size(self) -> int:
        return len(self.values)

    @cached_property
    def _index(self) -> dict[Hashable, int]:
        return {json_key(value): index for index, value in enumerate(self.values)}

    def problem(self, value: Any) -> str | None:
        try:
            known = json_key(value) in self._index
        except TypeError:  # not a JSON value
            known = False
        return (
            None if known else f"must be one of {format_value(list(self.values))}, got {format_value(value)}"
        )

    def nearest(self, value: Any) -> Any:
        return self.values[self._index[json_key(value)]]

    def to_unit(self, values: Sequence[Any]) -> Floats:
        """Positions `(n,)` in [0, 1]: the middle of each value's cell."""
        index = self._index
        return _middle_of(np.array([index[json_key(value)] for value in values], dtype=np.int64), self.size)

    def from_unit(self, unit: Floats) -> list[Any]:
        values = self.values
        return [values[index] for index in _cell_of(unit, self.size)]

    def points(self, count: int | None) -> list[Any]:
        return list(self.values)


class Ordinal(_Listed, frozen=True):
    """One of the listed values, whose order means something."""


class Choice(_Listed, frozen=True):
    """One of the listed values, in no order."""


class Constant(msgspec.Struct, frozen=True):
    """Always this value; it is in each configuration but is no dimension of the search."""

    value: Any

    def __post_init__(self) -> None:
        problem = json_problem(self.value)
        if problem is not None:
            raise InvalidDomain([("value", problem)])

    @property
    def size(self) -> int:
        return 1

    def problem(self, value: Any) -> str | None:
        if json_key(value) == json_key(self.value):
            return None
        return f"must be {format_value(self.value)}, got {format_value(value)}"

    def nearest(self, value: Any) -> Any:
        return self.value

    def points(self, count: int | None) -> list[Any]:
        return [self.value]


Domain: TypeAlias = Float | Int | Ordinal | Choice | Constant


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond all doubles
        return False


def _range_problems(domain: Float | Int) -> list[tuple[str, str]]:
    low, high, step = domain.low, domain.high, domain.step
    problems = [
        (key, f"must be a finite number, got {format_value(value)}")
        for key, value in (("low", low), ("high", high))
        if not _is_number(value)
    ]
    if problems:
        return problems
    if domain.log and low <= 0:
        problems.append(("low", f"must be > 0 on a log scale, got {format_value(low)}"))
    if low >= high:
        hint = "; one value is a constant" if low == high else ""
        problems.append(("low", f"must be < high ({format_value(high)}), got {format_value(low)}{hint}"))
    if step is not None:
        if not _is_number(step) or step <= 0:
            problems.append(("step", f"must be a number > 0, got {format_value(step)}"))
        elif low < high and step > high - low:
            problems.append(
                ("step", f"must be at most high - low ({format_value(high - low)}), got {format_value(step)}")
            )
        if domain.log:
            problems.append(("step", "cannot go with log: give one of the two"))
    return problems


def _indices(domain: Float | Int, values: Sequence[Any]) -> Ints:
    size = domain.size
    assert size is not None
    steps = np.rint((np.array(values, dtype=float) - domain.low) / (domain.step or 1))
    return np.clip(steps, 0, size - 1).astype(np.int64)


def _within(unit: Floats) -> Floats:
    inside: Floats = np.clip(unit, 0.0, 1.0)
    return inside


def _middle_of(index: Ints, size: int) -> Floats:
    return (index + 0.5) / size


def _cell_of(unit: Floats, size: int) -> list[int]:
    cells = np.floor(np.clip(unit, 0.0, 1.0) * size)
    return np.minimum(cells, size - 1).astype(np.int64).tolist()  # type: ignore[no-any-return]


def _spread(size: int, count: int | None) -> list[int]:
    if count is None or count >= size:
        return list(range(size))
    if count == 1:
        return [(size - 1) // 2]
    return list(dict.fromkeys(np.rint(np.linspace(0, size - 1, count)).astype(np.int64).tolist()))
