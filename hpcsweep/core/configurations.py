"""Configurations of a space: how many there are, the grid, and completing those that users give in part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from hpcsweep.core.domains import Choice, Constant, Ordinal
from hpcsweep.core.events import Config
from hpcsweep.core.text import format_value, json_key, must_be_absent, suggest_name
from hpcsweep.errors import SpecError

if TYPE_CHECKING:
    from numpy.random import Generator

    from hpcsweep.core.space import Parameter, Space

#: Combinations of values that conditions ask for, beyond which a space is not counted any more.
MAX_STATES: Final = 10_000
_ABSENT: Final = object()
#: Draws after which nothing that fits what was given is expected any more.
TRIES: Final = 10_000
_CHUNK: Final = 100


def count_configs(space: Space) -> int | None:
    """Distinct configurations of finitely many values, before constraints; None: too many to count."""
    total = 1
    for family in _families(space):
        count = _count_family(space, family)
        if count is None:
            return None
        total *= count
    return total


def _families(space: Space) -> list[list[Parameter]]:
    """Groups of parameters that conditions tie together, parents first in each."""
    leader = {name: name for name in space.names}

    def led_by(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    for parameter in space.parameters:
        for other in parameter.when:
            leader[led_by(other)] = led_by(parameter.name)
    groups: dict[str, list[Parameter]] = {}
    for parameter in space.topological_order:
        groups.setdefault(led_by(parameter.name), []).append(parameter)
    return list(groups.values())


def _count_family(space: Space, family: Sequence[Parameter]) -> int | None:
    """Configurations of parameters that conditions tie together; None if they cannot be counted."""
    asked_for: dict[str, dict[Hashable, Any]] = {}
    last_asked: dict[str, int] = {}
    for index, parameter in enumerate(family):
        for other, values in parameter.when.items():
            asked_for.setdefault(other, {}).update((json_key(value), value) for value in values)
            last_asked[other] = index
    states: dict[frozenset[tuple[str, Hashable]], int] = {frozenset(): 1}
    for index, parameter in enumerate(family):
        name, size = parameter.name, parameter.domain.size
        assert size is not None
        asked = [key for key, v in asked_for.get(name, {}).items() if parameter.domain.problem(v) is None]
        following: Counter[frozenset[tuple[str, Hashable]]] = Counter()
        for state, ways in states.items():
            known = dict(state)
            kept = frozenset(pair for pair in state if last_asked[pair[0]] > index)
            if not all(known.get(other) in keys for other, keys in space.conditions.get(name, ())):
                following[kept] += ways  # inactive, as whatever needs it is too
            elif name not in last_asked:
                following[kept] += ways * size
            else:
                for key in asked:
                    following[kept | {(name, key)}] += ways
                # Values that no condition asks for are alike.
                following[kept] += ways * (size - len(asked))
        if len(following) > MAX_STATES:
            return None
        states = {state: ways for state, ways in following.items() if ways}
    return sum(states.values())


def grid_points(space: Space, num_points: int | Mapping[str, int] | None) -> dict[str, Sequence[Any]]:
    counts: Mapping[str, int]
    if isinstance(num_points, Mapping):
        counts = num_points
        for name in num_points:
            if name not in space.names:
                raise ValueError(f"{name}: {suggest_name(name, space.names, kind='parameter')}")
    else:
        counts = {} if num_points is None else dict.fromkeys(space.names, num_points)
    points: dict[str, Sequence[Any]] = {}
    for parameter in space.parameters:
        count = counts.get(parameter.name)
        if count is not None and count < 1:
            raise ValueError(f"{parameter.name}: must be at least 1 point, got {count}")
        listed = isinstance(parameter.domain, Ordinal | Choice | Constant)
        if count is not None and listed and isinstance(num_points, Mapping):
            raise ValueError(f"{parameter.name}: its values are listed, all of them are taken")
        try:
            points[parameter.name] = parameter.domain.points(count)
        except ValueError:
            raise ValueError(f"{parameter.name}: is a float without step, needs a number of points") from None
    return points


def walk_grid(space: Space, points: Mapping[str, Sequence[Any]]) -> Iterator[Config]:
    """Depth first, without recursion: there may be thousands of parameters."""
    order = space.topological_order
    config: Config = {}
    #: For each parameter up to the current one the values that are left, None where it is inactive.
    trail: list[Iterator[Any] | None] = []
    while True:
        whole = True
        while whole and len(trail) < len(order):
            name = order[len(trail)].name
            values = iter(points[name]) if space.is_active(name, config) else None
            trail.append(values)
            if values is not None:
                config[name] = next(values, _ABSENT)
                whole = config[name] is not _ABSENT
        if whole and space.satisfies_constraints(config):
            yield space.in_order(config)
        while trail:
            name = order[len(trail) - 1].name
            values = trail[-1]
            value = _ABSENT if values is None else next(values, _ABSENT)
            if value is not _ABSENT:
                config[name] = value
                break
            config.pop(name, None)
            trail.pop()
        if not trail:
            return


def complete_config(space: Space, partial: Mapping[str, Any], rng: Generator) -> Config:
    """The configuration with random values for what is missing.

    Where a given parameter is active only for some values of a missing one, it gets one of those.

    Raises:
        SpecError: What is given is wrong, each problem beginning with a parameter's name; or
            nothing was found that fits it and the constraints.
    """
    parameters = {parameter.name: parameter for parameter in space.parameters}
    problems = []
    for name, value in partial.items():
        if name not in parameters:
            problems.append(f"{name}: {suggest_name(name, space.names, kind='parameter')}")
        elif (problem := parameters[name].domain.problem(value)) is not None:
            problems.append(f"{name}: {problem}")
    if problems:
        raise SpecError(*problems)
    # Mostly the first one fits.
    for chunk in (1, *[_CHUNK] * (TRIES // _CHUNK)):
        for drawn in space.all_from_unit(rng.random((chunk, len(space.columns)))):
            config = space.drop_inactive({**drawn, **_with_parents(parameters, partial, rng)})
            inactive = [name for name in partial if name not in config]
            if inactive:
                raise SpecError(*(f"{name}: {must_be_absent(parameters[name].when)}" for name in inactive))
            config = space.canonicalise(config)
            if space.satisfies_constraints(config):
                return config
    given = ", ".join(f"{name}={format_value(value)}" for name, value in partial.items())
    raise SpecError(f"constraints: must leave something with {given}, found nothing in {TRIES} draws")


def _with_parents(
    parameters: Mapping[str, Parameter], partial: Mapping[str, Any], rng: Generator
) -> dict[str, Any]:
    """What is given, and for missing parameters that it depends on values that make it active."""
    given = dict(partial)
    waiting = list(partial)
    while waiting:
        for other, values in parameters[waiting.pop()].when.items():
            if other not in given:
                allowed = [value for value in values if parameters[other].domain.problem(value) is None]
                given[other] = allowed[int(rng.integers(len(allowed)))]
                waiting.append(other)
    return given
