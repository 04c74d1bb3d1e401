"""Searchers that go through a fixed sequence: grid and Sobol."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from itertools import islice
from typing import Final

from numpy.random import Generator, default_rng

from hpcsweep.core.events import Config
from hpcsweep.core.history import History
from hpcsweep.core.space import Space
from hpcsweep.searchers.random import RandomFallback, config_key

#: Configurations that are looked at beforehand; a shuffled grid is held in memory whole.
LOOKED_AT: Final = 200_000


class _Sequence(RandomFallback):
    """Goes through the sequence of a space, and passes over what is in the history already."""

    def __init__(self) -> None:
        super().__init__()
        self._space: Space | None = None
        self._rest: Iterator[Config] = iter(())
        self._known: list[Config] = []
        self._next = 0  # everything before it is in the history
        self._generation = 0

    def _sequence(self, space: Space) -> Iterator[Config]:
        """Distinct configurations that satisfy the constraints, always the same ones."""
        raise NotImplementedError

    def _following(self, n: int, history: History) -> list[Config]:
        """The next `n` of the sequence, fewer at its end."""
        if self._space is not history.space:
            self._space, self._known, self._next = history.space, [], 0
            self._rest = self._sequence(history.space)
        seen = self._seen.keys(history.configs)
        if self._generation != self._seen.generation:
            self._generation, self._next = self._seen.generation, 0
        proposed: list[Config] = []
        index = self._next
        while len(proposed) < n:
            if index == len(self._known):
                self._known += islice(self._rest, 1)
            if index == len(self._known):
                break
            config = self._known[index]
            if config_key(config) not in seen:
                proposed.append(dict(config))
            elif index == self._next:
                self._next += 1
            index += 1
        return proposed


class Grid(_Sequence):
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
        super().__init__()
        self._num_points = num_points
        self._shuffle = shuffle
        self._seed = seed

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
        return self._following(n, history)

    def _sequence(self, space: Space) -> Iterator[Config]:
        configs = space.grid(self._num_points)
        if not self._shuffle:
            return configs
        listed = list(configs)
        return (listed[index] for index in default_rng(self._seed).permutation(len(listed)))


#: Points in a row without a new configuration, after which the sequence has no more sense.
FRUITLESS: Final = 10_000
#: Fewest and most points that are made at once; powers of 2, as the sequence is balanced over those.
_BLOCK: Final = (64, 4096)


class Sobol(_Sequence):
    """Proposes the points of one scrambled Sobol sequence in order (Sobol 1967, Owen 1998).

    Points that break a constraint, that give a configuration which an earlier point gave, or that are
    in the history already are passed over. So the proposals are the same, one at a time or all at once.
    Once the sequence gives nothing new, in a finite space or where next to nothing fits, the rest is
    random; a finite space is never searched twice.

    Args:
        seed: Scrambles the sequence.
    """

    adaptive = False

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        self._seed = seed

    def ask(self, n: int, history: History, rng: Generator) -> list[Config]:
        """The next `n` of the sequence, see `core.protocols.Searcher`.

        Raises:
            SpecError: Next to nothing of an infinite space satisfies the constraints.
        """
        proposed = self._following(n, history)
        return self.complete(proposed, n, history, rng) if len(proposed) < n else proposed

    def _sequence(self, space: Space) -> Iterator[Config]:
        from scipy.stats.qmc import Sobol as Engine  # slow to import

        # Newer versions call it `rng` and still take `seed`; older ones know only `seed`.
        engine = Engine(max(1, len(space.columns)), seed=default_rng(self._seed))
        keys: set[Hashable] = set()
        points = fruitless = 0
        while fruitless < FRUITLESS:
            # Each block doubles the number of points until blocks are large.
            block = min(max(points, _BLOCK[0]), _BLOCK[1])
            unit = engine.random(block)[:, : len(space.columns)]
            points += block
            for config in space.from_unit(unit):
                key = config_key(config)
                if key in keys or not space.satisfies_constraints(config):
                    fruitless += 1
                else:
                    keys.add(key)
                    fruitless = 0
                    yield config
