"""What a searcher may know: every configuration proposed so far, and what became of it."""

from __future__ import annotations

from itertools import zip_longest
from math import nan
from typing import TYPE_CHECKING

from hpcsweep.core.arrays import Bools, np
from hpcsweep.core.arrays import Floats as Floats  # where others look for them
from hpcsweep.core.arrays import Ints as Ints
from hpcsweep.core.objectives import DEFAULT, Objectives

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hpcsweep.core.events import Config
    from hpcsweep.core.space import Space


class History:
    """Configurations and observations. It only grows, so that an `ask` pays for what is new.

    An observation is one value of one configuration at one resource: a trial that was promoted
    twice has three. Those of earlier sweeps count too; they belong to no configuration of `configs`.
    A searcher only reads: `add`, `rebase`, `drop`, `observe` and `add_prior` are the driver's.

    Args:
        space: The search space.
        configs: Configurations proposed so far, in order.
        values: The newest value of each one, NaN for a failure, None while there is none.
        resources: The resource of that value.
        objectives: What is optimised; one without bounds by default.
    """

    def __init__(
        self,
        space: Space,
        *,
        configs: Sequence[Config] = (),
        values: Sequence[float | None] = (),
        resources: Sequence[int] = (),
        objectives: Objectives = DEFAULT,
    ) -> None:
        self.space = space
        self.objectives = objectives
        #: All configurations in the order of their proposal, those running and failed included.
        self.configs: list[Config] = []
        self._prior: list[Config] = []  # of earlier sweeps
        self._units = _UnitRows(len(space.columns))  # of `configs`, as far as anybody asked for them
        self._prior_units = _UnitRows(len(space.columns))
        # Of each observation; `_of` counts from -1 downwards in the configurations of earlier sweeps.
        self._of: list[int] = []
        self._values: list[float] = []
        self._resources: list[int] = []
        # With several objectives or bounds: violation and values of each, which are `(1 + k,)`.
        self._keys: list[tuple[float, ...]] = []
        # Of each configuration its newest observation, -1 if none.
        self._newest: list[int] = []
        self._prior_newest: list[int] = []
        for config in configs:
            self.add(config)
        for index, (value, resource) in enumerate(zip(values, resources, strict=True)):
            if value is not None:
                self.observe(index, value, resource)

    # ------------------------------------------------------------------ the driver's

    def add(self, config: Config) -> int:
        """A configuration was proposed; gives its index."""
        self.configs.append(config)
        self._newest.append(-1)
        return len(self.configs) - 1

    def rebase(self, space: Space, configs: Mapping[int, Config]) -> None:
        """From now on the space is this one, and configurations of these indices are others."""
        self.space = space
        for index, config in configs.items():
            self.configs[index] = config
        self._units = _UnitRows(len(space.columns))
        self._prior_units = _UnitRows(len(space.columns))

    def drop(self, count: int) -> None:
        """Take the last `count` configurations back; nothing was observed of them."""
        if count:
            del self.configs[-count:], self._newest[-count:]
            self._units.cut(len(self.configs))

    def observe(
        self, index: int, value: float, resource: int, *, key: tuple[float, ...] | None = None
    ) -> None:
        """Configuration `index` has a value, to be *minimised*, at `resource`; NaN for a failure.

        `key`: with several objectives or bounds what `Objectives.key` makes of them.
        """
        self._newest[index] = len(self._of)
        self._append(index, value, resource, key)

    def add_prior(
        self,
        config: Config,
        observations: Sequence[tuple[int, float]],
        *,
        keys: Sequence[tuple[float, ...] | None] = (),
    ) -> None:
        """An earlier sweep observed this: resource and value, the lowest resource first."""
        self._prior.append(config)
        for (resource, value), key in zip_longest(observations, keys):
            self._append(-len(self._prior), value, resource, key)
        self._prior_newest.append(len(self._of) - 1)

    def _append(self, of: int, value: float, resource: int, key: tuple[float, ...] | None) -> None:
        self._of.append(of)
        self._values.append(value)
        self._resources.append(resource)
        if self.objectives.several:
            self._keys.append(key or (0.0, *[nan] * len(self.objectives)))

    # ------------------------------------------------------------------ questions

    @property
    def proposed(self) -> int:
        """How many configurations were proposed so far; the next one has this index."""
        return len(self.configs)

    @property
    def known(self) -> int:
        """How many configurations there are, those of earlier sweeps included."""
        return len(self.configs) + len(self._prior)

    @property
    def observed(self) -> int:
        """How many observations there are, m below."""
        return len(self._of)

    @property
    def X(self) -> Floats:  # noqa: N802 (the field's name)
        """Configuration of each observation in the unit cube, `(m, d)`; NaN where inactive."""
        of = self.trials
        known = self._prior_units.of(self._prior, self.space)
        units = self.units
        if not len(known):
            return units[of]
        return np.concatenate([units, known[::-1]])[of]  # -1 is the first one known

    @property
    def units(self) -> Floats:
        """Each of `configs` in the unit cube, `(n, d)`; NaN where inactive. Not to be changed."""
        return self._units.of(self.configs, self.space)

    @property
    def trials(self) -> Ints:
        """Index in `configs` of each observation, `(m,)`; negative for those of earlier sweeps."""
        return np.array(self._of, dtype=np.int64)

    @property
    def values(self) -> Floats:
        """Objective of each observation, `(m,)`, to be minimised whatever the mode; NaN for a failure.

        The first one of several; see `points`.
        """
        return np.array(self._values, dtype=float)

    @property
    def points(self) -> Floats:
        """All objectives of each observation, `(m, k)`, to be minimised; a row of NaN for a failure."""
        if not self.objectives.several:
            return self.values[:, None]
        return np.array([key[1:] for key in self._keys], dtype=float).reshape(-1, len(self.objectives))

    @property
    def violations(self) -> Floats:
        """How far each observation is beyond its bounds, `(m,)`; 0 for a feasible or a failed one."""
        if not self.objectives.several:
            return np.zeros(len(self._values))
        return np.array([key[0] for key in self._keys], dtype=float)

    @property
    def resources(self) -> Ints:
        """Resource of each observation, `(m,)`: that at which it failed for a failure."""
        return np.array(self._resources, dtype=np.int64)

    @property
    def newest(self) -> Bools:
        """Which observations are the last ones of their configuration, `(m,)`."""
        newest = np.array([*self._newest, *self._prior_newest[::-1]], dtype=np.int64)
        last: Bools = newest[self.trials] == np.arange(len(self._of))
        return last

    @property
    def pending(self) -> Floats:
        """Configurations without any observation yet, `(p, d)`."""
        return self.units[np.array(self._newest, dtype=np.int64) < 0]


class _UnitRows:
    """Rows of the unit cube for a list that grows at its end; computed once each."""

    def __init__(self, columns: int) -> None:
        self._rows = np.empty((0, columns))
        self._count = 0

    def cut(self, count: int) -> None:
        self._count = min(self._count, count)

    def of(self, configs: Sequence[Config], space: Space) -> Floats:
        """The rows of all `configs`."""
        if len(configs) > len(self._rows):
            grown = np.empty((max(2 * len(self._rows), len(configs), 64), self._rows.shape[1]))
            grown[: self._count] = self._rows[: self._count]
            self._rows = grown
        if len(configs) > self._count:
            self._rows[self._count : len(configs)] = space.to_unit(configs[self._count :])
            self._count = len(configs)
        view = self._rows[: self._count]
        view.flags.writeable = False
        return view
