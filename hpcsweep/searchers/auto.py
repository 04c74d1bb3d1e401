"""The default searcher: chooses one of the others and says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from numpy.random import Generator

from hpcsweep.core.events import Config
from hpcsweep.core.history import History
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.space import Space

if TYPE_CHECKING:
    from hpcsweep.core.protocols import Searcher

#: A Gaussian process is chosen for so many dimensions at most: beyond these nothing was measured.
MOST_DIMENSIONS: Final = 50
#: Configurations, results and pending ones together, from which on `tpe` takes over from `gp`: an `ask` takes
#: `gp` half a second from there on, and `tpe` next to nothing.
MOST_CONFIGS: Final = 1000


class Auto:
    """Delegates to a searcher chosen from the space and the budget.

    | where | chosen |
    | --- | --- |
    | the budget covers a finite space | `random`, which goes through all of it |
    | at most 50 dimensions | `gp`; `tpe` from 1000 configurations on |
    | else | `tpe` |

    A sweep keeps its searcher: a resumed sweep passes it as `resolved`.

    Args:
        seed: Of the sweep.
        trials: How many configurations the sweep will start, None if unknown.
        resolved: What was chosen when the sweep began, None for a new one.
        objectives: What is optimised; the same rules hold for several.
    """

    uses_priors = True

    def __init__(
        self,
        *,
        seed: int = 0,
        trials: int | None = None,
        resolved: str | None = None,
        objectives: Objectives | None = None,
    ) -> None:
        self._seed = seed
        self._trials = trials
        self._given = resolved
        self._resolved = resolved
        self._delegates: dict[str, Searcher] = {}

    @property
    def adaptive(self) -> bool:
        """Whether the chosen searcher learns; True as long as none was chosen."""
        return self._resolved is None or self._delegate(self._resolved).adaptive

    def resolve(self, space: Space) -> tuple[str, str]:
        """Name of the searcher for this space, and why, in a few words."""
        name, reason = self._rule(space)
        self._resolved = name
        return name, reason

    def _rule(self, space: Space) -> tuple[str, str]:
        dimensions = len(space.columns)
        if self._given is not None:
            return self._given, "as when the sweep began"
        if space.size is not None and self._trials is not None and space.size <= self._trials:
            return "random", f"{self._trials} trials go through all {space.size} configurations"
        if dimensions > MOST_DIMENSIONS:
            return "tpe", f"{dimensions} dimensions are too many for a Gaussian process"
        return "gp", f"at most {MOST_DIMENSIONS} dimensions; switches to tpe at {MOST_CONFIGS} configurations"

    def problems(self, space: Space) -> list[str]:
        """Those of the chosen searcher, each line beginning with the key path at fault."""
        name, reason = self.resolve(space)
        return [
            line.replace("searcher.name: ", f"searcher.name: 'auto' is {name!r} here, {reason}: ", 1)
            for line in self._delegate(name).problems(space)
        ]

    def is_exhaustible(self, space: Space) -> bool:
        """Whether the chosen searcher runs out of proposals by itself."""
        return self._delegate(self.resolve(space)[0]).is_exhaustible(space)

    def ask(self, n: int, history: History, rng: Generator) -> list[Config]:
        """`n` configurations by the chosen searcher, see `core.protocols.Searcher`."""
        name, _ = self.resolve(history.space)
        if name == "gp" and int(history.newest.sum()) + len(history.pending) >= MOST_CONFIGS:
            name = "tpe"
        return self._delegate(name).ask(n, history, rng)

    def _delegate(self, name: str) -> Searcher:
        from hpcsweep.searchers import make_searcher

        if name not in self._delegates:
            self._delegates[name] = make_searcher(name, seed=self._seed, options={}, trials=self._trials)
        return self._delegates[name]
