"""Random search: independent draws from the domains."""

from __future__ import annotations

from collections.abc import Hashable, Sequence, Set
from itertools import islice
from typing import Final

from numpy.random import Generator, default_rng

from hpcsweep.core.events import Config
from hpcsweep.core.history import History
from hpcsweep.core.space import Space
from hpcsweep.core.text import json_key
from hpcsweep.errors import SpecError

#: Finite spaces up to this size are searched to the very last configuration.
ENUMERABLE: Final = 1_000_000
#: Enumerations up to this size are kept between calls.
KEPT: Final = 50_000
#: Draws in a row without anything new, after which drawing has no more sense.
FRUITLESS: Final = 200
#: Draws at a time at most.
_CHUNK: Final = 4096


class RandomFallback:
    """Base of searchers that fall back on random configurations where they have none of their own.

    No configuration is proposed twice. A space that is infinite only in some branches is gone through
    once in its finite ones. Where parameters have priors, random configurations are drawn from them at
    first, and ever more seldom.
    """

    def __init__(self) -> None:
        self._seen = SeenConfigs()
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

    def is_exhaustible(self, space: Space) -> bool:
        """Whether the space is finite."""
        return space.size is not None

    def seen(self, history: History) -> Set[Hashable]:
        """Keys of all configurations of the history."""
        return self._seen.keys(history.configs)

    def complete(self, given: Sequence[Config], n: int, history: History, rng: Generator) -> list[Config]:
        """Those of `given` that are valid and new, and random ones up to `n` in all.

        New means: distinct, and not in the history. Fewer than `n` where nothing new is left.

        Raises:
            SpecError: Next to nothing of an infinite space satisfies the constraints.
        """
        space = history.space
        if n <= 0:
            return []
        seen = self._seen.keys(history.configs)
        known = history.known
        proposed: dict[Hashable, Config] = {}
        for config in given:
            key = config_key(config)
            if (
                len(proposed) < n
                and key not in seen
                and key not in proposed
                and space.satisfies_constraints(config)
            ):
                proposed[key] = config
        if len(proposed) < n:
            self._draw(n, space, rng, known=known, seen=seen, proposed=proposed)
        if len(proposed) < n and space.size is None:
            self._search_branches(n, space, rng, seen=seen, proposed=proposed)
        elif len(proposed) < n and space.size is not None and space.size <= ENUMERABLE:
            self._enumerate(n, self._all(space), rng, seen=seen, proposed=proposed)
        return list(proposed.values())

    def _draw(
        self,
        n: int,
        space: Space,
        rng: Generator,
        *,
        known: int,
        seen: set[Hashable],
        proposed: dict[Hashable, Config],
    ) -> None:
        """Draw until there are `n`, or until new ones have become rare."""
        small = space.size is not None and space.size <= ENUMERABLE
        patience = FRUITLESS if small or space.size is None else 50 * FRUITLESS
        least = 1 if space.size is None else 4
        fruitless = 0
        while len(proposed) < n and fruitless < patience:
            try:
                # More at a time as new ones become rare.
                count = min(max(n - len(proposed), least, fruitless), _CHUNK)
                configs = space.sample(count, rng, known=known + len(proposed))
            except SpecError:
                if not small:
                    raise
                return  # the few that fit are found one by one
            fruitless = _take(configs, n, seen=seen, proposed=proposed, fruitless=fruitless)

    def _search_branches(
        self, n: int, space: Space, rng: Generator, *, seen: set[Hashable], proposed: dict[Hashable, Config]
    ) -> None:
        """Draw from the infinite branches, however improbable; then what the finite ones have left."""
        fruitless = 0
        while len(proposed) < n and fruitless < 50 * FRUITLESS:
            count = min(max(n - len(proposed), fruitless, FRUITLESS), _CHUNK)
            configs = space.sample_infinite(count, rng)
            if not configs:
                break
            fitting = [config for config in configs if space.satisfies_constraints(config)]
            before = len(proposed)
            _take(fitting, n, seen=seen, proposed=proposed, fruitless=0)
            fruitless = 0 if len(proposed) > before else fruitless + count
        if len(proposed) < n:
            finite = islice(space.enumerate_finite(ENUMERABLE), ENUMERABLE)
            self._enumerate(n, [(config_key(c), c) for c in finite], rng, seen=seen, proposed=proposed)

    def _enumerate(
        self,
        n: int,
        configs: Sequence[tuple[Hashable, Config]],
        rng: Generator,
        *,
        seen: set[Hashable],
        proposed: dict[Hashable, Config],
    ) -> None:
        """Choose the missing ones among all that are left of `configs`."""
        left = [item for item in configs if item[0] not in seen and item[0] not in proposed]
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


class Random(RandomFallback):
    """Never proposes a configuration twice; gives fewer once the space is exhausted."""

    adaptive = False
    uses_priors = True

    def ask(self, n: int, history: History, rng: Generator) -> list[Config]:
        """`n` random configurations, see `core.protocols.Searcher`.

        Raises:
            SpecError: Next to nothing of an infinite space satisfies the constraints.
        """
        return self.complete([], n, history, rng)


def _take(
    configs: Sequence[Config],
    n: int,
    *,
    seen: set[Hashable],
    proposed: dict[Hashable, Config],
    fruitless: int,
) -> int:
    """Add the new ones, up to `n` in all; gives how many in a row were not new, those before included."""
    for config in configs:
        key = config_key(config)
        if key in seen or key in proposed:
            fruitless += 1
        elif len(proposed) < n:
            proposed[key] = config
            fruitless = 0
    return fruitless


def config_key(config: Config) -> Hashable:
    """Equal for equal configurations, whatever the order of their names."""
    return json_key(config)


class SeenConfigs:
    """Keys of the proposed configurations, for a history that mostly grows at its end.

    A memory of what was computed and no state of the search: the answer depends on the argument
    alone. Configurations that were there at the last call are only compared.

    Attributes:
        generation: Counts the histories that were no continuation of the one before.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._configs: list[Config] = []
        self._keys: set[Hashable] = set()

    def keys(self, configs: Sequence[Config]) -> set[Hashable]:
        """Keys of all `configs`; not to be changed by the caller."""
        known = len(self._configs)
        if known > len(configs) or self._configs != list(configs[:known]):  # quick for the same objects
            self._configs, self._keys, known = [], set(), 0
            self.generation += 1
        for config in configs[known:]:
            self._configs.append(config)
            self._keys.add(config_key(config))
        return self._keys
