"""How many configurations a space has, and its grid: every configuration of finitely many values. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from hpcsweep.core.domains import Choice, Constant, Float, Int, Ordinal
from hpcsweep.core.events import Config
from hpcsweep.core.text import suggest_name
from hpcsweep.core.values import json_key

if TYPE_CHECKING:
    from hpcsweep.core.space import Parameter, Space

#: Combinations of values that conditions ask for, beyond which a space is not counted any more.
MAX_STATES: Final = 10_000
_ABSENT: Final = object()


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
    """Configurations of parameters that conditions tie together; None if they cannot be counted.

    Parameter by parameter: how many ways there are to come to each state, which is what the
    parameters that follow need to know of those before.
    """
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
        if count is not None and isinstance(num_points, Mapping):
            _check_countable(parameter)
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


def _check_countable(parameter: Parameter) -> None:
    match parameter.domain:
        case Float() | Int():
            return
        case Ordinal() | Choice() | Constant():
            raise ValueError(f"{parameter.name}: its values are listed, all of them are taken")
