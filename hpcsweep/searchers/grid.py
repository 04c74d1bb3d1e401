"""Grid search: the product of all value lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

from numpy.random import Generator, default_rng

from hpcsweep.core.events import Config
from hpcsweep.core.history import History
from hpcsweep.core.space import Space
from hpcsweep.searchers.random import SeenConfigs, config_key

#: Configurations that are looked at beforehand; a shuffled grid is held in memory whole.
LOOKED_AT: Final = 200_000


class Grid:
    """Proposes each configuration of the grid once, in order; gives fewer at its end.

    Configurations that are in the history already, because a user enqueued them, are passed over.

    Args:
        num_points: How many values of a float or int to take, for all of them or by name;
            a float without step needs it.
        shuffle: Go through the grid in an order that the seed decides.
        seed: For `shuffle`.
    """

    adaptive = False

    def __init__(
        self, *, num_points: int | Mapping[str, int] | None = None, shuffle: bool = False, seed: int = 0
    ) -> None:
        self._num_points = num_points
        self._shuffle = shuffle
        self._seed = seed
        self._seen = SeenConfigs()
        self._space: Space | None = None
        self._rest: Iterator[Config] = iter(())
        self._known: list[Config] = []
        self._next = 0  # everything before it is in the history
        self._generation = 0

    def problems(self, space: Space) -> list[str]:
        """Why the grid of this space cannot be made, each line beginning with the key path at fault."""
        try:
            configs = Space(space.parameters).grid(self._num_points)
        except ValueError as error:
            return [f"searcher.num_points: {error}"]
        if self._shuffle and sum(1 for _ in islice(configs, LOOKED_AT + 1)) > LOOKED_AT:
            return [f"searcher.shuffle: must not be true for a grid of more than {LOOKED_AT} configurations"]
        configs = Space(space.parameters).grid(self._num_points)
        if (
            any(map(space.satisfies_constraints, islice(configs, LOOKED_AT)))
            or next(configs, None) is not None
        ):
            return []
        return ["constraints: must leave something of the grid, got nothing"]

    def is_exhaustible(self, space: Space) -> bool:
        """Always: a grid is finite."""
        return True

    def ask(self, n: int, history: History, rng: Generator) -> list[Config]:
        """The next `n` of the grid, see `core.protocols.Searcher`."""
        self._open(history.space)
        seen = self._seen.keys(history.configs)
        if self._generation != self._seen.generation:
            self._generation, self._next = self._seen.generation, 0
        proposed: list[Config] = []
        index = self._next
        while len(proposed) < n and (config := self._at(index)) is not None:
            if config_key(config) not in seen:
                proposed.append(dict(config))
            elif index == self._next:
                self._next += 1
            index += 1
        return proposed

    def _open(self, space: Space) -> None:
        if self._space is space:
            return
        self._space, self._known, self._next = space, [], 0
        self._rest = space.grid(self._num_points)
        if self._shuffle:
            configs = list(self._rest)
            order = default_rng(self._seed).permutation(len(configs))
            self._rest = iter([configs[index] for index in order])

    def _at(self, index: int) -> Config | None:
        while len(self._known) <= index:
            config = next(self._rest, None)
            if config is None:
                return None
            self._known.append(config)
        return self._known[index]
