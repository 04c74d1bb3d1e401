"""The search space: domains, conditions, constraints; sampling, the grid and the unit cube."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import msgspec

from hpcsweep.core.arrays import Floats, Generator, np
from hpcsweep.core.configurations import count_configs, grid_points, walk_grid
from hpcsweep.core.domains import Choice, Constant, Domain, Float, Int, InvalidDomain, Ordinal
from hpcsweep.core.events import Config
from hpcsweep.core.expressions import Expression
from hpcsweep.core.priors import Prior, Priors, draw_probability
from hpcsweep.core.text import json_key, must_be_absent, suggest_name
from hpcsweep.errors import SpecError

__all__ = [
    "Choice",
    "Constant",
    "Domain",
    "Float",
    "Int",
    "InvalidDomain",
    "Ordinal",
    "Parameter",
    "Space",
    "json_key",
]

#: Draws after which fewer than one in as many that fit is an error.
MAX_REJECTIONS: Final = 10_000
_CHUNK: Final = 4096
_ABSENT: Final = object()


class Parameter(msgspec.Struct, frozen=True):
    """One named dimension, active where each parameter of `when` has one of the given values.

    A parameter whose condition names an inactive one is inactive too. `format` is how a command gets its
    values, empty for the usual text. One that was `added` while the sweep went on may be absent anywhere: it
    is inactive there. `prior` is where its best value is believed to be.
    """

    name: str
    domain: Domain
    when: Mapping[str, tuple[Any, ...]] = {}
    format: str = ""
    added: bool = False
    prior: Prior | None = None


class Space(msgspec.Struct, frozen=True, dict=True):
    """All configurations that a searcher may propose.

    A configuration maps the name of each active parameter to its value, in the order of
    `parameters`; inactive parameters are absent.

    Raises:
        ValueError: Names clash, or a condition or constraint speaks of what is not there.
    """

    parameters: tuple[Parameter, ...]
    constraints: tuple[Expression, ...] = ()

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "parameters", tuple(self.parameters))
        msgspec.structs.force_setattr(self, "constraints", tuple(self.constraints))
        repeated = [name for name, count in Counter(self.names).items() if count > 1]
        if repeated:
            raise ValueError(f"parameters must have distinct names, got {repeated[0]!r} twice")
        known = set(self.names)
        for parameter in self.parameters:
            for other in parameter.when:
                if other not in known or other == parameter.name:
                    raise ValueError(f"{parameter.name}.when: must name another parameter, got {other!r}")
        for constraint in self.constraints:
            for name in sorted(constraint.names - known):
                raise ValueError(f"constraint {constraint.text!r}: {name!r} is no parameter")
        _ = self.topological_order

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All parameters, constants included."""
        return tuple(parameter.name for parameter in self.parameters)

    @cached_property
    def original(self) -> Space:
        """Without the parameters that were added."""
        kept = tuple(parameter for parameter in self.parameters if not parameter.added)
        return self if len(kept) == len(self.parameters) else Space(kept, self.constraints)

    @cached_property
    def columns(self) -> tuple[Parameter, ...]:
        """The dimensions of the unit cube: the parameters that are not constants."""
        return tuple(parameter for parameter, _ in self._dimensions)

    @cached_property
    def _dimensions(self) -> list[tuple[Parameter, Float | Int | Ordinal | Choice]]:
        return [(p, p.domain) for p in self.parameters if not isinstance(p.domain, Constant)]

    @cached_property
    def priors(self) -> Priors:
        """What is believed beforehand."""
        return Priors([(parameter.prior, domain) for parameter, domain in self._dimensions])

    @cached_property
    def topological_order(self) -> tuple[Parameter, ...]:
        """In the spec's order, but for parameters that must wait for those they depend on."""
        waits_for = [len(parameter.when) for parameter in self.parameters]
        dependants: dict[str, list[int]] = {}
        for index, parameter in enumerate(self.parameters):
            for other in parameter.when:
                dependants.setdefault(other, []).append(index)
        ready = [index for index, count in enumerate(waits_for) if not count]  # ascending: a heap
        order: list[Parameter] = []
        while ready:
            parameter = self.parameters[heapq.heappop(ready)]
            order.append(parameter)
            for index in dependants.get(parameter.name, ()):
                waits_for[index] -= 1
                if not waits_for[index]:
                    heapq.heappush(ready, index)
        if len(order) < len(self.parameters):
            circle = ", ".join(p.name for p, count in zip(self.parameters, waits_for, strict=True) if count)
            raise ValueError(f"conditions must not go round in a circle, got one among {circle}")
        return tuple(order)

    @cached_property
    def conditions(self) -> dict[str, tuple[tuple[str, frozenset[Hashable]], ...]]:
        """For each conditional parameter: the other names, and keys of the values that they need."""
        return {
            parameter.name: tuple(
                (other, frozenset(map(json_key, values))) for other, values in parameter.when.items()
            )
            for parameter in self.parameters
            if parameter.when
        }

    def is_active(self, name: str, config: Mapping[str, Any]) -> bool:
        return all(
            other in config and json_key(config[other]) in keys
            for other, keys in self.conditions.get(name, ())
        )

    def satisfies_constraints(self, config: Config) -> bool:
        """Whether the configuration satisfies all constraints.

        Raises:
            SpecError: One cannot be computed with these values.
        """
        return self._broken(config) is None

    def _broken(self, config: Config) -> Expression | None:
        try:
            return next((c for c in self.constraints if not c.evaluate(config)), None)
        except ValueError as error:
            raise SpecError(f"constraints: {error}") from None

    # ------------------------------------------------------------------ the unit cube

    def to_unit(self, configs: Sequence[Config]) -> Floats:
        """Positions in the unit cube, `(n, d)`; NaN where a parameter is inactive.

        `d` is `len(columns)`. The configurations must be valid.
        """
        unit = np.full((len(configs), len(self.columns)), np.nan)
        for column, (parameter, domain) in enumerate(self._dimensions):
            values = [config.get(parameter.name, _ABSENT) for config in configs]
            if parameter.when or parameter.added:
                rows = [row for row, value in enumerate(values) if value is not _ABSENT]
                if rows:
                    unit[rows, column] = domain.to_unit([values[row] for row in rows])
            elif values:
                unit[:, column] = domain.to_unit(values)
        return unit

    def from_unit(self, unit: Floats) -> list[Config]:
        """Configurations at positions `(n, d)`, clipped to the domains; constraints are not checked.

        Columns of inactive parameters are ignored; NaN for an active one is its middle. What
        `to_unit` gave comes back exactly, continuous floats up to rounding.
        """
        configs = self.all_from_unit(unit)
        return [self.drop_inactive(config) for config in configs] if self.conditions else configs

    def all_from_unit(self, unit: Floats) -> list[Config]:
        """As `from_unit`, with values for inactive parameters as well."""
        unit = np.asarray(unit, dtype=float)
        unit = np.where(np.isnan(unit), 0.5, unit)
        values: list[Sequence[Any]] = []
        column = 0
        for parameter in self.parameters:
            if isinstance(parameter.domain, Constant):
                values.append([parameter.domain.value] * len(unit))
            else:
                values.append(parameter.domain.from_unit(unit[:, column]))
                column += 1
        return [dict(zip(self.names, row, strict=True)) for row in zip(*values, strict=True)]

    def drop_inactive(self, config: Config) -> Config:
        """Without the inactive parameters, in the order of the spec."""
        kept: Config = {}
        for parameter in self.topological_order:
            if parameter.added and parameter.name not in config:
                continue
            if self.is_active(parameter.name, kept):
                kept[parameter.name] = config[parameter.name]
        return self.in_order(kept)

    def in_order(self, config: Config) -> Config:
        return {name: config[name] for name in self.names if name in config}

    # ------------------------------------------------------------------ sampling

    def sample(self, n: int, rng: Generator, *, known: int | None = None) -> list[Config]:
        """`n` independent random configurations that respect conditions and constraints.

        Args:
            n: How many.
            rng: Of all draws.
            known: Configurations so far: the more, the fewer draws are from the priors. None: no priors.

        Raises:
            SpecError: Fewer than about one draw in 10,000 satisfies the constraints, or one of
                them cannot be computed.
        """
        if not self.constraints:
            return self._draw(n, rng, known)
        found: list[Config] = []
        rejected: Counter[str] = Counter()
        drawn = 0
        while len(found) < n:
            rate = (len(found) + 1) / (drawn + 1)
            count = min(_CHUNK, math.ceil((n - len(found)) / rate) + 8)
            chunk = self._draw(count, rng, None if known is None else known + len(found))
            drawn += len(chunk)
            for config in chunk:
                broken = self._broken(config)
                if broken is None:
                    found.append(config)
                else:
                    rejected[broken.text] += 1
            if drawn >= MAX_REJECTIONS and len(found) * MAX_REJECTIONS < drawn:
                hardest = rejected.most_common(1)[0][0]
                raise SpecError(
                    f"constraints: must leave at least 1 in {MAX_REJECTIONS} random draws, "
                    f"got {len(found)} of {drawn}; most fail {hardest!r}: narrow the domains to what fits"
                )
        return found[:n]

    def _draw(self, n: int, rng: Generator, known: int | None) -> list[Config]:
        unit = rng.random((n, len(self.columns)))
        if known is not None and self.priors:
            believed = rng.random(n) < draw_probability(known + np.arange(n))
            unit[believed] = self.priors.draw(int(believed.sum()), rng)
        return self.from_unit(unit)

    def sample_infinite(self, n: int, rng: Generator) -> list[Config]:
        """`n` random configurations in which a parameter of infinitely many values is active.

        One of those parameters is chosen for each; what it depends on gets values that make it
        active. Constraints are not checked. Empty where no such parameter can be active.
        """
        columns = {p.name: (column, domain) for column, (p, domain) in enumerate(self._dimensions)}
        reachable = [
            values
            for parameter in self.parameters
            if parameter.domain.size is None and (values := self._making_active(parameter)) is not None
        ]
        if not reachable:
            return []
        unit = rng.random((n, len(self.columns)))
        chosen = rng.integers(len(reachable), size=n)
        for index, values in enumerate(reachable):
            rows = np.flatnonzero(chosen == index)
            for name, allowed in values.items():
                column, domain = columns[name]
                unit[rows, column] = domain.to_unit(allowed)[rng.integers(len(allowed), size=len(rows))]
        return self.from_unit(unit)

    def _making_active(self, parameter: Parameter) -> dict[str, list[Any]] | None:
        """Values of other parameters with which this one is active, None if there are none."""
        domains = {p.name: p for p in self.parameters}
        allowed: dict[str, list[Any]] = {}
        waiting = [parameter]
        while waiting:
            for other, values in waiting.pop().when.items():
                if other not in allowed:
                    waiting.append(domains[other])
                    valid = [value for value in values if domains[other].domain.problem(value) is None]
                else:
                    keys = set(map(json_key, values))
                    valid = [value for value in allowed[other] if json_key(value) in keys]
                if not valid:
                    return None
                allowed[other] = valid
        return {n: values for n, values in allowed.items() if not isinstance(domains[n].domain, Constant)}

    # ------------------------------------------------------------------ counting and the grid

    @cached_property
    def size(self) -> int | None:
        """How many distinct configurations there are before constraints.

        None for infinitely many, and where conditions tie so many parameters together that they
        cannot be counted.
        """
        if any(parameter.domain.size is None for parameter in self.parameters):
            return None
        return count_configs(self)

    def grid(self, num_points: int | Mapping[str, int] | None = None) -> Iterator[Config]:
        """The product of all value lists in the spec's order, the last parameter fastest.

        Each configuration comes once: inactive parameters do not multiply it, and those that
        break a constraint are left out.

        Args:
            num_points: How many values of a float or int to take, evenly spread over its domain
                (in the logarithm where it is on a log scale), both ends included: for all of
                them, or by name. A float without step needs it.

        Raises:
            ValueError: A float without step has no number of points, or a name or number is
                wrong; the message begins with the parameter's name.
        """
        return walk_grid(self, grid_points(self, num_points))

    def enumerate_finite(self, most: int) -> Iterator[Config]:
        """Each configuration of parameters with at most `most` values that satisfies the constraints.

        Where another parameter is active there is none.
        """
        points: dict[str, Sequence[Any]] = {
            p.name: () if p.domain.size is None or p.domain.size > most else p.domain.points(None)
            for p in self.parameters
        }
        if not all(points[p.name] for p in self.parameters if not p.when):
            return iter(())
        return walk_grid(self, points)

    # ------------------------------------------------------------------ what users give

    def check(self, config: Mapping[str, Any]) -> list[str]:
        """Everything that is wrong with a configuration that a user gave; empty if it is valid."""
        problems = [
            f"{name}: {suggest_name(name, self.names, kind='parameter')}"
            for name in config
            if name not in self.names
        ]
        valid: Config = {}
        doubtful: set[str] = set()
        for parameter in self.topological_order:
            name = parameter.name
            if doubtful & parameter.when.keys():
                doubtful.add(name)
            elif not self.is_active(name, valid):
                if name in config:
                    problems.append(f"{name}: {must_be_absent(parameter.when)}")
            elif name not in config:
                if parameter.added:
                    continue
                problems.append(f"{name}: missing")
                doubtful.add(name)
            elif (problem := parameter.domain.problem(config[name])) is not None:
                problems.append(f"{name}: {problem}")
                doubtful.add(name)
            else:
                valid[name] = config[name]
        for constraint in self.constraints:
            try:
                if not constraint.names & doubtful and not constraint.evaluate(valid):
                    problems.append(f"breaks the constraint {constraint.text!r}")
            except ValueError as error:
                problems.append(f"constraint {error}")
        return problems

    def canonicalise(self, config: Mapping[str, Any]) -> Config:
        """A user's configuration in its canonical form, for `check`.

        Active constants that are missing are put in, the order is the spec's, and valid values
        become exactly those of the domain: 1 is 1.0 for a float.
        """
        filled = dict(config)
        for parameter in self.topological_order:
            if parameter.name not in filled and isinstance(parameter.domain, Constant):
                if self.is_active(parameter.name, filled):
                    filled[parameter.name] = parameter.domain.value
            elif parameter.name in filled and parameter.domain.problem(filled[parameter.name]) is None:
                filled[parameter.name] = parameter.domain.nearest(filled[parameter.name])
        return {**self.in_order(filled), **filled}
