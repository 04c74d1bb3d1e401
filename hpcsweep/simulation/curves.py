"""Stand-in objectives: learning curves as Python functions."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from hpcsweep.cluster.simulated.training import Curve
from hpcsweep.core.events import Config
from hpcsweep.core.space import Space
from hpcsweep.errors import SpecError

#: Where in the unit cube the built-in curve has its best point, in each dimension.
_BEST = 0.3


def load_curve(target: str) -> Curve:
    """The learning curve `FILE.py:NAME` or `package.module:NAME`; see `curve_of`.

    Raises:
        SpecError: It cannot be imported, or called with a configuration and a step.
    """
    source, colon, name = target.rpartition(":")
    if not (colon and source and name):
        raise SpecError(f"objective: must be FILE.py:NAME or package.module:NAME, got {target!r}")
    try:
        module = _import_file(Path(source)) if source.endswith(".py") else _import_module(source)
    except Exception as error:
        raise SpecError(
            f"objective: {source}: cannot be imported: {type(error).__name__}: {error}"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        what = "has no" if function is None else f"of type {type(function).__name__} is"
        raise SpecError(f"objective: {source}: {what} {name!r}; expected a function of config and step")
    return curve_of(function, name=target)


def curve_of(function: Callable[..., float], *, name: str = "objective") -> Curve:
    """`function(config, step)`, the value after `step` units, as a curve.

    If it has a parameter named `seed`, it is given the trial's seed by that name. A run of which
    the value is NaN, or an exception, fails.

    Raises:
        SpecError: It cannot be called so.
    """
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a built-in that does not tell
        parameters = inspect.signature(lambda config, step: None).parameters
    seeded = "seed" in parameters
    try:
        inspect.Signature(list(parameters.values())).bind({}, 1, **({"seed": 0} if seeded else {}))
    except TypeError as error:
        raise SpecError(f"objective: {name}: must be callable with a config and a step ({error})") from error

    def curve(config: Config, step: int, seed: int) -> float:
        return float(function(config, step, seed=seed) if seeded else function(config, step))

    return curve


def stand_in(space: Space, *, minimise: bool) -> Curve:
    """A curve for those who only want to know times: its values have a meaning of their own.

    `a + (1 - a) / sqrt(step)`, where `a` is the mean squared distance of the active parameters in
    the unit cube to 0.3; one minus that where values are maximised.
    """

    def curve(config: Config, step: int, seed: int) -> float:
        unit = space.to_unit([config])[0]
        active = unit[~np.isnan(unit)]
        limit = float(np.mean((active - _BEST) ** 2)) if len(active) else 0.0
        value = limit + (1 - limit) / math.sqrt(step)
        return value if minimise else 1 - value

    return curve


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError("there is no such file")
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(f"hpcsweep_objective_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module  # type: ignore[no-any-return]


def _import_module(name: str) -> ModuleType:
    sys.path.insert(0, os.getcwd())
    return importlib.import_module(name)
