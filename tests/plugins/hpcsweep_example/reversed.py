"""A searcher: random configurations, each batch in reverse order."""

from __future__ import annotations

from numpy.random import Generator

from hpcsweep.core.events import Config
from hpcsweep.core.history import History
from hpcsweep.core.space import Space
from hpcsweep.searchers.random import Random


class Reversed:
    """Proposes random configurations.

    Args:
        backwards: Whether a batch comes in reverse order.
    """

    adaptive = False

    def __init__(self, *, backwards: bool = True) -> None:
        self._backwards = backwards
        self._random = Random()

    def ask(self, n: int, history: History, rng: Generator) -> list[Config]:
        batch = self._random.ask(n, history, rng)
        return batch[::-1] if self._backwards else batch

    def problems(self, space: Space) -> list[str]:
        return self._random.problems(space)

    def is_exhaustible(self, space: Space) -> bool:
        return self._random.is_exhaustible(space)
