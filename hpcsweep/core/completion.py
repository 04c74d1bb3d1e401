"""Configurations that users give in part: what is wrong with them, and what is missing put in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from numpy.random import Generator

from hpcsweep.core.events import Config
from hpcsweep.core.space import Parameter, Space, format_condition
from hpcsweep.core.text import suggest_name
from hpcsweep.core.values import format_value
from hpcsweep.errors import SpecError

#: Draws after which nothing that fits what was given is expected any more.
TRIES: Final = 10_000
_CHUNK: Final = 100


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
    unconditional = Space(tuple(Parameter(p.name, p.domain) for p in space.parameters))
    # Mostly the first one fits.
    for chunk in (1, *[_CHUNK] * (TRIES // _CHUNK)):
        for drawn in unconditional.from_unit(rng.random((chunk, len(space.columns)))):
            config = space.drop_inactive({**drawn, **_with_parents(parameters, partial, rng)})
            inactive = [name for name in partial if name not in config]
            if inactive:
                needed = {name: format_condition(parameters[name].when) for name in inactive}
                raise SpecError(
                    *(
                        f"{name}: must be absent, it is active only when {when}"
                        for name, when in needed.items()
                    )
                )
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
