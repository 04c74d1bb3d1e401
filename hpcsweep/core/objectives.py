"""What a sweep optimises: one metric or several, each with its direction and its bounds. No numpy here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Self, TypeAlias

import msgspec

#: What trials are compared by, to be minimised: a number with one objective; with several, or with bounds,
#: how far the bounds are violated in total, and each objective.
Key: TypeAlias = float | tuple[float, ...]


class Objective(msgspec.Struct, frozen=True, omit_defaults=True):
    """One metric.

    Attributes:
        mode: `min` or `max`.
        at: Its value is the `last` one of a run, or the `best` one of the trial so far.
        at_most, at_least: Bounds: a configuration beyond one is infeasible, and worse than any feasible one.
        reference: Hypervolumes are measured up to it; None: see `views.front_history`.
    """

    metric: str
    mode: str = "min"
    at: str = "last"
    at_most: float | None = None
    at_least: float | None = None
    reference: float | None = None

    @property
    def sign(self) -> int:
        """What its value is multiplied by to be minimised."""
        return -1 if self.mode == "max" else 1

    @property
    def minimise(self) -> bool:
        """Whether a smaller value is better."""
        return self.mode != "max"

    def better(self, one: float, other: float) -> float:
        return max(one, other) if self.mode == "max" else min(one, other)

    @property
    def bounded(self) -> bool:
        return self.at_most is not None or self.at_least is not None

    def violation(self, value: float) -> float:
        """How far a value is beyond its bounds, in parts of the bound (in its own units where that is 0)."""
        beyond = 0.0
        if self.at_most is not None and value > self.at_most:
            beyond += (value - self.at_most) / (abs(self.at_most) or 1.0)
        if self.at_least is not None and value < self.at_least:
            beyond += (self.at_least - value) / (abs(self.at_least) or 1.0)
        return beyond


class Objectives(tuple[Objective, ...]):
    """The objectives of a sweep, in the order of its spec; its events carry their values in this order."""

    __slots__ = ()

    @classmethod
    def read(cls, plain: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None) -> Self:
        """Those of the spec's key `objective`, as an identity has it: a mapping, or a list of them."""
        given = [plain or {}] if plain is None or isinstance(plain, Mapping) else plain
        return cls(msgspec.convert({"metric": "value", **each}, Objective) for each in given)

    @classmethod
    def single(cls, *, minimise: bool = True) -> Self:
        """One objective without bounds."""
        return cls([Objective("value", "min" if minimise else "max")])

    @property
    def several(self) -> bool:
        """Whether a trial has `values`: there is more than one objective, or one has bounds."""
        return len(self) > 1 or self[0].bounded

    @property
    def has_front(self) -> bool:
        """Whether there is more than one, so that some configurations are neither better nor worse."""
        return len(self) > 1

    @property
    def bounded(self) -> bool:
        """Whether one of them has a bound."""
        return any(each.bounded for each in self)

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(each.metric for each in self)

    @property
    def reference(self) -> tuple[float, ...] | None:
        """The reference point of the spec, as minimised; None where it gives none."""
        given = [each.sign * each.reference for each in self if each.reference is not None]
        return tuple(given) if len(given) == len(self) else None

    def violation(self, values: Sequence[float]) -> float:
        """The violations of all bounds together (Deb et al. 2002, VI); 0 where it is feasible."""
        return math.fsum(each.violation(value) for each, value in zip(self, values, strict=True))

    def key(self, value: float | None, values: Sequence[float] = ()) -> Key | None:
        """What a trial with these values is compared by; None for one without a value.

        Args:
            value: That of the first objective, None for a run that has none.
            values: Of all objectives, where there are several.
        """
        if value is None:
            return None
        if not self.several:
            return self[0].sign * value
        return (self.violation(values), *(each.sign * of for each, of in zip(self, values, strict=True)))

    def report_keys(
        self, reports: Sequence[tuple[int, float]], values: Sequence[tuple[float, ...]]
    ) -> Iterator[tuple[int, Key]]:
        """The step and the key of each report; `values` as `RunReported` has them."""
        for index, (step, value) in enumerate(reports):
            key = self.key(value, values[index] if values else ())
            assert key is not None
            yield step, key

    def point(self, key: Key) -> tuple[float, ...]:
        """The values that a key was made from."""
        minimised = key[1:] if isinstance(key, tuple) else (key,)
        return tuple(each.sign * of for each, of in zip(self, minimised, strict=True))


def without_reference(plain: Any) -> Any:
    """The key `objective` of a spec without what may change later: a mapping, or a list of them."""
    if isinstance(plain, Mapping):
        return {key: value for key, value in plain.items() if key != "reference"}
    return list(map(without_reference, plain)) if isinstance(plain, list | tuple) else plain


def dominates(one: Key | None, other: Key | None) -> bool:
    """Whether one is better than the other, by constrained domination (Deb et al. 2002, VI)."""
    if one is None or other is None:
        return one is not None
    if not isinstance(one, tuple) or not isinstance(other, tuple):
        assert not isinstance(one, tuple)
        assert not isinstance(other, tuple)
        return one < other
    if one[0] > 0 or other[0] > 0:
        return one[0] < other[0]
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


#: What is taken for the objective of a sweep that says nothing.
DEFAULT: Final = Objectives.single()
