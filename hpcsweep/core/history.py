"""What a searcher may know: every configuration proposed so far, and what became of it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpcsweep.core.events import Config
    from hpcsweep.core.space import Space

Floats = NDArray[np.float64]


class History:
    """A snapshot for one `ask`. Arrays are made when first read, so random search pays nothing.

    Attributes:
        space: The search space.
        configs: All configurations in trial order, those still running and failed included.
        values: For each of them the newest objective value, to be *minimised* whatever the
            sweep's mode; NaN for a run that failed, None while nothing has finished.
        resources: For each of them the resource of that value, 0 where there is none.
    """

    def __init__(
        self,
        space: Space,
        *,
        configs: Sequence[Config],
        values: Sequence[float | None],
        resources: Sequence[int],
    ) -> None:
        self.space = space
        self.configs = configs
        self._values = values
        self._resources = resources

    @property
    def proposed(self) -> int:
        """How many configurations were proposed so far; the next one has this index."""
        return len(self.configs)

    @cached_property
    def _observed(self) -> NDArray[np.bool_]:
        return np.array([value is not None for value in self._values], dtype=bool)

    @cached_property
    def _unit(self) -> Floats:
        return self.space.to_unit(self.configs)

    @property
    def X(self) -> Floats:  # noqa: N802 (the field's name)
        """Observed configurations in the unit cube, `(m, d)`; NaN where a parameter is inactive."""
        return self._unit[self._observed]

    @property
    def pending(self) -> Floats:
        """Configurations without any result yet, `(p, d)`."""
        return self._unit[~self._observed]

    @cached_property
    def values(self) -> Floats:
        """Objective of each row of `X`, `(m,)`, to be minimised; NaN for a failure."""
        return np.array([value for value in self._values if value is not None], dtype=float)

    @cached_property
    def resources(self) -> NDArray[np.int64]:
        """Resource at which each row of `X` was observed, `(m,)`."""
        return np.array(self._resources, dtype=np.int64)[self._observed]
