"""The space of `SearchCV`: lists of any objects, parameters, and distributions of SciPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hpcsweep.api.objects import Choice, Constant, Float, Int
from hpcsweep.api.parts import Parameter
from hpcsweep.errors import SpecError


class SearchSpace(NamedTuple):
    """A space of a sweep, and what its configurations stand for.

    Attributes:
        parameters: Of the sweep. A list is a choice of its indices where its values are no texts or numbers.
        values: The lists that stand behind indices.
        lists: All lists, with the very objects that were given.
    """

    parameters: dict[str, Parameter]
    values: dict[str, Sequence[Any]]
    lists: dict[str, Sequence[Any]]

    def indices(self, config: Mapping[str, Any]) -> dict[str, int]:
        """The position of each value in its list."""
        found = {}
        for name in self.lists:
            choices = list(getattr(self.parameters[name], "values", ()))
            if name in config:
                found[name] = next(n for n, each in enumerate(choices) if _same(each, config[name]))
        return found

    def original(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The estimator's parameters."""
        indices = self.indices(config)
        return {
            name: self.lists[name][indices[name]] if name in indices else value
            for name, value in sorted(config.items())
        }


def read_search_space(space: Mapping[str, Any]) -> SearchSpace:
    """The space as it was given.

    Raises:
        SpecError: A distribution has no counterpart.
    """
    parameters: dict[str, Parameter] = {}
    values: dict[str, Sequence[Any]] = {}
    lists: dict[str, Sequence[Any]] = {}
    for name, given in space.items():
        if isinstance(given, Parameter):
            parameters[name] = given
        elif hasattr(given, "rvs"):
            parameters[name] = _distribution(name, given)
        elif isinstance(given, list | tuple | np.ndarray | range):
            lists[name] = list(given)
            plain = [each.item() if isinstance(each, np.generic) else each for each in given]
            if all(each is None or isinstance(each, bool | int | float | str) for each in plain):
                parameters[name] = Choice(plain)
            else:
                values[name] = list(given)
                parameters[name] = Choice(list(range(len(plain))))
        else:
            parameters[name] = Constant(given)
    return SearchSpace(parameters, values, lists)


def _same(one: object, other: object) -> bool:
    return type(one) is type(other) and (one == other or (one != one and other != other))


def _distribution(name: str, given: Any) -> Parameter:
    """The parameter that a frozen distribution of SciPy draws from."""
    kind = given.dist.name
    low, high = (float(bound) for bound in given.support())
    match kind:
        case "uniform":
            return Float(low, high)
        case "loguniform" | "reciprocal":
            return Float(low, high, log=True)
        case "randint":
            return Int(int(low), int(high))
    raise SpecError(
        f"space.{name}: the distribution {kind} has no counterpart: give hs.Float, hs.Int, hs.Choice, or "
        "uniform, loguniform or randint of scipy.stats"
    )
