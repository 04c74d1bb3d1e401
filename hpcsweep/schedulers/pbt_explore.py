"""The configuration of a clone: that of its donor, each parameter moved or drawn anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.random import Generator

from hpcsweep.core.events import Config
from hpcsweep.core.space import Choice, Constant, Domain, Float, Int, Ordinal, Space

#: Altered configurations that are tried for one that satisfies the constraints.
TRIES: Final = 100


def perturb(
    space: Space, config: Config, rng: Generator, *, resample: float, factors: Sequence[float]
) -> Config:
    """A valid configuration near `config` (the explore step of Jaderberg et al., 2017).

    Each parameter is drawn anew with probability `resample`, else moved by a random one of the
    factors and clipped to its domain, see `moved`. What becomes active is drawn, what becomes
    inactive goes. If nothing satisfies the constraints after `TRIES`, it is `config` itself.
    """
    for _ in range(TRIES):
        altered: Config = {}
        for parameter in space.parameters:
            domain = parameter.domain
            if isinstance(domain, Constant):
                altered[parameter.name] = domain.value
            elif parameter.name not in config or rng.random() < resample:
                altered[parameter.name] = domain.from_unit(np.array([rng.random()]))[0]
            else:
                factor = factors[int(rng.integers(len(factors)))]
                altered[parameter.name] = perturb_value(domain, config[parameter.name], factor)
        altered = space.drop_inactive(altered)
        if space.satisfies_constraints(altered):
            return altered
    return dict(config)


def perturb_value(domain: Domain, value: Any, factor: float) -> Any:
    """The value times `factor`, as near as the domain allows and never outside of it.

    Whole and stepped numbers move by a step at least, unless they are at the end. In an ordered
    list it is the next value for a factor above 1, else the one before. A choice stays, and so
    does the zero of a continuous number.
    """
    match domain:
        case Float(step=None):
            return domain.nearest(value * factor)
        case Float() | Int():
            target = value * factor
            nearest = domain.nearest(target)
            if nearest != value:
                return nearest
            up = target > value if target != value else factor > 1
            step = domain.step or 1
            return domain.nearest(value + step if up else value - step)
        case Ordinal():
            index = int(domain.to_unit([value])[0] * domain.size) + (1 if factor > 1 else -1)
            return domain.values[min(max(index, 0), domain.size - 1)]
        case Choice() | Constant():
            return value
