"""The tiny sweep that `try` runs in the place of a spec: one trial, to the first rung and to the next one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.random import default_rng

from hpcsweep.core.configurations import complete_config
from hpcsweep.core.domains import Choice
from hpcsweep.core.events import Config
from hpcsweep.core.space import Space
from hpcsweep.session.algorithms import make_scheduler
from hpcsweep.spec import SweepSpec

_TELLS: Final = re.compile(r"\{(resource|epochs_left)[}?]|HPCSWEEP_RESOURCE")


def middle_config(space: Space, given: Mapping[str, Any]) -> Config:
    """The configuration with the middle of each range, the first of each choice, for what is not given.

    Raises:
        SpecError: What is given is wrong, or nothing fits it.
    """
    complete = complete_config(space, given, default_rng(0))
    unit = [[0.0 if isinstance(each.domain, Choice) else 0.5 for each in space.columns]]
    middle = space.all_from_unit(np.array(unit))[0]
    config = space.canonicalise(space.drop_inactive({**middle, **_with_parents(space, complete, given)}))
    fits = given.keys() <= config.keys() and space.satisfies_constraints(config)
    return config if fits else complete


def _with_parents(space: Space, complete: Config, given: Mapping[str, Any]) -> Config:
    """What is given, with the values that make it active as they are in a complete configuration."""
    needed = set(given)
    parents = {parameter.name: set(parameter.when) for parameter in space.parameters}
    while more := {parent for name in needed for parent in parents[name]} - needed:
        needed |= more
    return {name: value for name, value in complete.items() if name in needed} | dict(given)


def is_told(spec: SweepSpec) -> bool:
    """Whether the program is told how far to train: a function is, a command by its placeholders."""
    return spec.train.command is None or bool(_TELLS.search(spec.train.command))


def resources_to_try(spec: SweepSpec, *, told: bool) -> tuple[int, ...]:
    """The first two rungs; without rungs one step and two of them if the program is told how many.

    Args:
        spec: As written.
        told: Whether the program is told its resource.
    """
    brackets = make_scheduler(spec).plan().brackets
    rungs = sorted({resource for bracket in brackets for resource in bracket.resources})
    if len(rungs) > 1:
        return rungs[0], rungs[1]
    most = rungs[0] if rungs else 1
    return (1, 2) if told and most > 1 else (most,)


def overrides_to_try(config: Config, *, resource: int, overrides: Sequence[str] = ()) -> list[str]:
    """What `--set` changes of the spec: one trial of this configuration to this resource, without retries."""
    values: dict[str, Any] = {
        "scheduler": {"name": "fifo", "max_resource": resource},
        "searcher": "random",
        "budget": {"trials": 1},
        "enqueue": [config],
        "repeats": 1,
        "stop": None,
        "warm_start": None,
        "retries": {"training": 0, "infrastructure": 0, "timeouts": 0},
        "train.keep": "all",  # the second run goes on from the checkpoint of the first
        "train.snapshot": False,
        "train.check": False,  # what is wrong with the command is told with the rest
    }
    return [*overrides, *(f"{key}={json.dumps(value)}" for key, value in values.items())]
