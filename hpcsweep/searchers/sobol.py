"""Sobol: a sequence of points that fills the unit cube evenly."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Final

from numpy.random import Generator, default_rng

from hpcsweep.core.events import Config
from hpcsweep.core.history import History
from hpcsweep.core.space import Space
from hpcsweep.searchers.random import Random, SeenConfigs, config_key

if TYPE_CHECKING:
    from scipy.stats.qmc import Sobol as Engine

#: Points in a row without a new configuration, after which the sequence has no more sense.
FRUITLESS: Final = 10_000
#: Fewest and most points that are made at once; powers of 2, as the sequence is balanced over those.
_BLOCK: Final = (64, 4096)


class Sobol:
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
        self._seed = seed
        self._random = Random()
        self._seen = SeenConfigs()
        # What was computed of the sequence: a memory, as it depends on space and seed alone.
        self._space: Space | None = None
        self._engine: Engine | None = None
        self._known: list[Config] = []
        self._keys: set[Hashable] = set()
        self._points = 0
        self._fruitless = 0
        self._next = 0  # everything before it is in the history
        self._generation = 0

    def problems(self, space: Space) -> list[str]:
        """Why there is nothing to draw in this space, each line beginning with the key path at fault."""
        return self._random.problems(space)

    def is_exhaustible(self, space: Space) -> bool:
        """Whether the space is finite."""
        return self._random.is_exhaustible(space)

    def ask(self, n: int, history: History, rng: Generator) -> list[Config]:
        """The next `n` of the sequence, see `core.protocols.Searcher`.

        Raises:
            SpecError: Next to nothing of an infinite space satisfies the constraints.
        """
        if n <= 0:
            return []
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
        if len(proposed) < n:
            return self._random.complete(proposed, n, history, rng)
        return proposed

    def _open(self, space: Space) -> None:
        if self._space is space:
            return
        self._space, self._engine = space, None
        self._known, self._keys = [], set()
        self._points = self._fruitless = self._next = 0

    def _at(self, index: int) -> Config | None:
        """The configuration at that place of the sequence, None where it gives nothing new."""
        while len(self._known) <= index and self._fruitless < FRUITLESS:
            self._extend()
        return self._known[index] if index < len(self._known) else None

    def _extend(self) -> None:
        """Make the next points; each block doubles their number until blocks are large."""
        assert self._space is not None
        space = self._space
        if self._engine is None:
            from scipy.stats.qmc import Sobol as Engine  # slow to import

            # Newer versions call it `rng` and still take `seed`; older ones know only `seed`.
            self._engine = Engine(max(1, len(space.columns)), seed=default_rng(self._seed))
        block = min(max(self._points, _BLOCK[0]), _BLOCK[1])
        unit = self._engine.random(block)[:, : len(space.columns)]
        self._points += block
        for config in space.from_unit(unit):
            key = config_key(config)
            if key in self._keys or not space.satisfies_constraints(config):
                self._fruitless += 1
            else:
                self._keys.add(key)
                self._known.append(config)
                self._fruitless = 0
