"""The configurations that a batch is chosen from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hpcsweep.core.events import Config
from hpcsweep.core.history import History
from hpcsweep.searchers.gp_batch import Candidates, PosteriorSamples, climbed
from hpcsweep.searchers.gp_space import Features, neighbours
from hpcsweep.searchers.random import Random
from hpcsweep.searchers.seen import config_key

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]

#: Finite spaces up to this size are looked at whole.
WHOLE: Final = 2000
#: Random configurations in the pool, and as many neighbours of the best ones.
RANDOM: Final = 500
#: Rounds in which neighbours of the most promising ones join, and how many each time.
ROUNDS: Final = 2
JOINING: Final = 100
#: How many are the best, or the most promising.
PARENTS: Final = 8
#: Local searches begin at the best of the pool and at some of so many next ones.
NEXT: Final = 50
#: Steps of a local search, and changes of its result that are tried.
STEPS: Final = 40
CHANGES: Final = 64


class CandidatePool:
    """New configurations, each with its expected improvement, which falls as others are taken.

    Args:
        history: What was proposed already.
        features: Of the model.
        samples: What the improvement is over; those taken are added to it.
        best: The most promising rows of the unit cube so far, `(k, d)`.
        rng: Of all draws.
    """

    def __init__(
        self, history: History, features: Features, samples: PosteriorSamples, *, best: Floats, rng: Generator
    ) -> None:
        self._space, self._features, self._samples, self._rng = history.space, features, samples, rng
        self._seen = {config_key(config) for config in history.configs}
        size = self._space.size
        self._whole = size is not None and size <= WHOLE
        configs = Random().complete([], WHOLE if self._whole else RANDOM, history, rng)
        if not self._whole:
            configs += self._near(best[:PARENTS], RANDOM)
            for _ in range(ROUNDS):
                promising = np.argsort(-self._improvement(configs), kind="stable")[:PARENTS]
                configs += self._near(self._space.to_unit([configs[i] for i in promising]), JOINING)
        distinct = {config_key(config): config for config in configs}
        self._keys, self._configs = list(distinct), list(distinct.values())
        self._free = np.ones(len(self._configs), dtype=bool)
        self._units = self._space.to_unit(self._configs)
        self._candidates = Candidates(samples, self._points(self._units))

    def take(self, *, starts: int) -> Config | None:
        """The configuration of greatest expected improvement, None if there are no more.

        Args:
            starts: Beginnings of local searches; with 0 it is one of the pool as it was made.
        """
        if not self._free.any():
            return None
        improvement = np.where(self._free, self._candidates.improvement(), -np.inf)
        order = np.argsort(-improvement, kind="stable")
        best, config = improvement[order[0]], self._configs[order[0]]
        if starts and not self._whole:
            others = 1 + self._rng.choice(NEXT, size=starts - 1, replace=False)
            found = self._refined(self._units[[order[0], *order[others[others < len(order)]]]])
            if found:
                improved = self._improvement(found)
                if improved.max() > best:
                    config = found[int(improved.argmax())]
        key = config_key(config)
        self._seen.add(key)
        self._free &= [other != key for other in self._keys]
        self._candidates.add(self._points(self._space.to_unit([config]))[0])
        return dict(config)

    def _refined(self, units: Floats) -> list[Config]:
        """Ends of local searches from rows of the unit cube, and changes of the first, rounded and valid."""
        smooth = self._features.smooth
        if smooth:
            starts = self._points(units)
            free = np.zeros(starts.shape, dtype=bool)
            free[:, : len(smooth)] = ~np.isnan(units[:, smooth])
            ends = climbed(self._samples, starts, free=free, steps=STEPS).numpy()
            units = units.copy()
            units[:, smooth] = np.where(free[:, : len(smooth)], ends[:, : len(smooth)], np.nan)
        configs = self._valid(units)
        if self._features.rough:
            configs += self._near(units[:1], CHANGES)
        return configs

    def _near(self, units: Floats, count: int) -> list[Config]:
        """Up to `count` neighbours of these rows that are valid and new."""
        if not len(units):
            return []
        parents = units[np.arange(count) % len(units)]
        return self._valid(neighbours(parents, self._features, self._rng))

    def _valid(self, units: Floats) -> list[Config]:
        return [
            config
            for config in self._space.from_unit(units)
            if config_key(config) not in self._seen and self._space.satisfies_constraints(config)
        ]

    def _improvement(self, configs: list[Config]) -> Floats:
        if not configs:
            return np.empty(0)
        found: Floats = self._samples.at(self._points(self._space.to_unit(configs))).numpy()
        return found

    def _points(self, units: Floats) -> Tensor:
        import torch

        return torch.from_numpy(self._features.of(units))
