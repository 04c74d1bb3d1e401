"""Random search: independent draws from the domains."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final

from numpy.random import Generator, default_rng

from hpcsweep.core.events import Config
from hpcsweep.core.history import History
from hpcsweep.core.space import Space
from hpcsweep.errors import SpecError
from hpcsweep.searchers.seen import Seen, config_key

#: Finite spaces up to this size are searched to the very last configuration.
ENUMERABLE: Final = 1_000_000
#: Enumerations up to this size are kept between calls.
KEPT: Final = 50_000
#: Draws in a row without anything new, after which drawing has no more sense.
FRUITLESS: Final = 200


class Random:
    """Never proposes a configuration of a finite space twice; gives fewer once it is exhausted.

    On an infinite space each call costs the same, however long the history.
    """

    adaptive = False

    def __init__(self) -> None:
        self._seen = Seen()
        self._kept: tuple[Space, list[tuple[Hashable, Config]]] | None = None

    def problems(self, space: Space) -> list[str]:
        """Why there is nothing to draw in this space, each line beginning with the key path at fault."""
        try:
            space.sample(1, default_rng(0))
        except SpecError as error:
            if space.size is None or space.size > ENUMERABLE:
                return list(error.problems)
            if next(space.grid(), None) is None:
                return ["constraints: must leave something of the space, got nothing"]
        return []

    def ends(self, space: Space) -> bool:
        """Whether the space is finite."""
        return space.size is not None

    def ask(self, n: int, history: History, rng: Generator) -> list[Config]:
        """`n` random configurations, see `core.protocols.Searcher`.

        Raises:
            SpecError: Next to nothing of an infinite space satisfies the constraints.
        """
        return self.complete([], n, history, rng)

    def complete(self, given: Sequence[Config], n: int, history: History, rng: Generator) -> list[Config]:
        """Those of `given` that are valid and new, and random ones up to `n` in all.

        New means: distinct, and not in the history; of an infinite space random ones always are.

        Raises:
            SpecError: Next to nothing of an infinite space satisfies the constraints.
        """
        space = history.space
        if n <= 0:
            return []
        if space.size is None and not given:
            return space.sample(n, rng)
        seen = self._seen.keys(history.configs)
        proposed: dict[Hashable, Config] = {}
        for config in given:
            key = config_key(config)
            if len(proposed) < n and key not in seen and key not in proposed and space.fits(config):
                proposed[key] = config
        if space.size is None:
            return [*proposed.values(), *space.sample(n - len(proposed), rng)]
        self._draw(n, space, rng, seen=seen, proposed=proposed)
        if len(proposed) < n and space.size <= ENUMERABLE:
            self._enumerate(n, space, rng, seen=seen, proposed=proposed)
        return list(proposed.values())

    def _draw(
        self, n: int, space: Space, rng: Generator, *, seen: set[Hashable], proposed: dict[Hashable, Config]
    ) -> None:
        """Draw until there are `n`, or until new ones have become rare."""
        assert space.size is not None
        patience = FRUITLESS if space.size <= ENUMERABLE else 50 * FRUITLESS
        fruitless = 0
        while len(proposed) < n and fruitless < patience:
            try:
                configs = space.sample(min(max(n - len(proposed), 4), 4096), rng)
            except SpecError:
                if space.size > ENUMERABLE:
                    raise
                return  # the few that fit are found one by one
            for config in configs:
                key = config_key(config)
                if key in seen or key in proposed:
                    fruitless += 1
                elif len(proposed) < n:
                    proposed[key] = config
                    fruitless = 0

    def _enumerate(
        self, n: int, space: Space, rng: Generator, *, seen: set[Hashable], proposed: dict[Hashable, Config]
    ) -> None:
        """Choose the missing ones among all that are left."""
        left = [item for item in self._all(space) if item[0] not in seen and item[0] not in proposed]
        for index in rng.permutation(len(left))[: n - len(proposed)]:
            key, config = left[index]
            proposed[key] = dict(config)

    def _all(self, space: Space) -> list[tuple[Hashable, Config]]:
        assert space.size is not None
        if self._kept is not None and self._kept[0] is space:
            return self._kept[1]
        configs = [(config_key(config), config) for config in space.grid()]
        if space.size <= KEPT:
            self._kept = (space, configs)
        return configs
