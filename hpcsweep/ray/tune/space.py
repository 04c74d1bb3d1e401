"""The search space of Ray Tune, as parameters of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hpcsweep.api.objects import Choice, Constant, Float, Int
from hpcsweep.api.parts import Parameter
from hpcsweep.errors import SpecError


class Grid(Choice):
    """Values of which each is tried, as `grid_search`."""


def uniform(lower: float, upper: float) -> Float:
    """A number in this range."""
    return Float(lower, upper)


def loguniform(lower: float, upper: float, base: float = 10) -> Float:
    """A number in this range, uniform in its logarithm."""
    return Float(lower, upper, log=True)


def quniform(lower: float, upper: float, q: float) -> Float:
    """A number in this range, in steps of `q`."""
    return Float(lower, upper, step=q)


def randint(lower: int, upper: int) -> Int:
    """A whole number from `lower` to `upper` - 1."""
    return Int(lower, upper - 1)


def lograndint(lower: int, upper: int, base: float = 10) -> Int:
    """A whole number from `lower` to `upper` - 1, uniform in its logarithm."""
    return Int(lower, upper - 1, log=True)


def qrandint(lower: int, upper: int, q: int = 1) -> Int:
    """A whole number from `lower` to `upper`, in steps of `q`."""
    return Int(lower, upper, step=None if q == 1 else q)


def choice(categories: Sequence[Any]) -> Choice:
    """One of these values."""
    return Choice(list(categories))


def grid_search(values: Sequence[Any]) -> Grid:
    """Each of these values."""
    return Grid(list(values))


def sample_from(function: Callable[..., Any]) -> Parameter:
    """A value that a function draws: a sweep cannot have it.

    Raises:
        SpecError: Always; says what to do instead.
    """
    raise SpecError(
        "param_space: sample_from has no counterpart: a searcher must know the domain of each parameter; "
        "compute the value in the trainable, or give tune.choice or tune.uniform"
    )


def parameters_of(param_space: Mapping[str, Any], prefix: str = "") -> dict[str, Parameter]:
    """The parameters by name; those of inner dicts have dotted names, other values are constants."""
    return dict(_named(param_space, prefix))


def _named(param_space: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Parameter]]:
    for key, value in param_space.items():
        name = f"{prefix}{key}"
        match value:
            case Parameter():
                yield name, value
            case {"grid_search": list(values), **rest} if not rest:
                yield name, grid_search(values)
            case Mapping():
                yield from _named(value, f"{name}.")
            case _:
                yield name, Constant(value)


def is_grid(parameters: Mapping[str, Parameter]) -> bool:
    """Whether each value is to be tried.

    Raises:
        SpecError: Only of some parameters.
    """
    searched = [each for each in parameters.values() if not isinstance(each, Constant)]
    grids = [each for each in searched if isinstance(each, Grid)]
    if grids and len(grids) < len(searched):
        raise SpecError(
            "param_space: grid_search beside other parameters has no counterpart: a grid tries each value of "
            "all parameters; give tune.choice in its place, or grid_search for all"
        )
    return bool(grids)
