"""The candidates of a batch: where they come from, how they are refined, and what the model sees of them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

import numpy as np
from numpy.random import Generator

from hpcsweep.core.domains import Choice
from hpcsweep.core.events import Config
from hpcsweep.core.history import Floats, History
from hpcsweep.core.space import Space
from hpcsweep.searchers.gp_samples import Candidates, PosteriorSamples, optimise_candidates
from hpcsweep.searchers.random import RandomFallback, config_key

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
#: Changes of the result of a local search that are tried.
CHANGES: Final = 64


class CandidatePool:
    """New configurations, each with its expected improvement, which falls as others are taken.

    Where parameters have priors, the improvement is multiplied by them (Hvarfner et al. 2022, piBO).

    Args:
        history: What was proposed already.
        values: What is minimised, one for each of its observations, `(m,)`.
        fallback: Draws configurations that are new, and knows which were proposed.
        features: Of the model.
        samples: What the improvement is over; those taken are added to it.
        best: The most promising rows of the unit cube so far, `(k, d)`.
        steps: Of a local search, at most.
        rng: Of all draws.
    """

    def __init__(
        self,
        history: History,
        features: Features,
        samples: PosteriorSamples,
        *,
        values: Floats,
        fallback: RandomFallback,
        best: Floats,
        steps: int,
        rng: Generator,
    ) -> None:
        self._space, self._features, self._samples, self._rng = history.space, features, samples, rng
        self._steps = steps
        priors = self._space.priors
        self._power = priors.exponent(history.X, values, history.resources) if priors else 0.0
        self._seen = set(fallback.seen(history))
        size = self._space.size
        self._whole = size is not None and size <= WHOLE
        configs = fallback.complete([], WHOLE if self._whole else RANDOM, history, rng)
        if not self._whole:
            configs += self._near(best[:PARENTS], RANDOM)
        self._rows: dict[Hashable, int] = {}
        self._configs = self._distinct(configs)
        self._units = self._space.to_unit(self._configs)
        self._candidates = Candidates(samples, self._points(self._units))
        self._factors = self._prior_factors(self._units)
        for _ in range(0 if self._whole else ROUNDS):
            promising = np.argsort(-(self._candidates.improvement() + self._factors), kind="stable")
            joining = self._distinct(self._near(self._units[promising[:PARENTS]], JOINING))
            if joining:
                units = self._space.to_unit(joining)
                self._configs += joining
                self._units = np.concatenate([self._units, units])
                self._candidates.extend(self._points(units))
                self._factors = np.concatenate([self._factors, self._prior_factors(units)])
        self._free = np.ones(len(self._configs), dtype=bool)

    def take(self, *, starts: int) -> Config | None:
        """The configuration of greatest expected improvement, None if there are no more.

        Args:
            starts: Beginnings of local searches; with 0 it is one of the pool as it was made.
        """
        if not self._free.any():
            return None
        improvement = np.where(self._free, self._candidates.improvement() + self._factors, -np.inf)
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
        if key in self._rows:
            self._free[self._rows[key]] = False
        self._candidates.add(self._points(self._space.to_unit([config]))[0])
        return dict(config)

    def _refined(self, units: Floats) -> list[Config]:
        """Ends of local searches from rows of the unit cube, and changes of the first, rounded and valid."""
        smooth = self._features.smooth
        if smooth:
            starts = self._points(units)
            free = np.zeros(starts.shape, dtype=bool)
            free[:, : len(smooth)] = ~np.isnan(units[:, smooth])
            ends = optimise_candidates(self._samples, starts, free=free, steps=self._steps)
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

    def _distinct(self, configs: list[Config]) -> list[Config]:
        """Those that are not in the pool yet, each once; their rows are next."""
        joining: list[Config] = []
        for config in configs:
            key = config_key(config)
            if key not in self._rows:
                self._rows[key] = len(self._rows)
                joining.append(config)
        return joining

    def _prior_factors(self, units: Floats) -> Floats:
        return self._space.priors.log_factor(units, power=self._power)

    def _improvement(self, configs: list[Config]) -> Floats:
        if not configs:
            return np.empty(0)
        units = self._space.to_unit(configs)
        return self._samples.at(self._points(units)) + self._prior_factors(units)

    def _points(self, units: Floats) -> Floats:
        return self._features.of(units)


#: Numbers with at least so many values are treated as continuous while a proposal is refined.
MANY_VALUES: Final = 8


class Features:
    """From the unit cube, `(n, d)` with NaN where inactive, to the inputs of the model, `(n, f)`.

    Numbers keep their position. A choice is one-hot, its values at distance 1 of each other. What is
    inactive sits in the middle, where it makes no difference between two configurations; that it is
    inactive shows in the features of the parameter that it depends on.

    Args:
        space: The search space.
        fidelity: Whether the last feature is the share of the largest resource.
    """

    def __init__(self, space: Space, *, fidelity: bool) -> None:
        domains = [parameter.domain for parameter in space.columns]
        self._fidelity = fidelity
        self._choices = {c: domain.size for c, domain in enumerate(domains) if isinstance(domain, Choice)}
        numbers = [column for column in range(len(domains)) if column not in self._choices]
        #: Columns that can be moved along a gradient. They are the first features, in this order.
        self.smooth = [c for c in numbers if (size := domains[c].size) is None or size >= MANY_VALUES]
        #: The other columns.
        self.rough = [column for column in range(len(domains)) if column not in self.smooth]
        #: Columns without order.
        self.choices = list(self._choices)
        self._numbers = [*self.smooth, *(column for column in numbers if column not in self.smooth)]

    def of(self, unit: Floats, *, fidelity: Floats | None = None) -> Floats:
        """Features `(n, f)` of rows of the unit cube `(n, d)`, at the largest resource by default.

        `fidelity` is the position of each row's resource between the least, 0, and the largest, 1, `(n,)`.
        """
        parts = [np.nan_to_num(unit[:, self._numbers], nan=0.5)]
        for column, size in self._choices.items():
            cells = np.minimum(np.floor(unit[:, column, None] * size), size - 1)
            hot = (cells == np.arange(size)).astype(float)
            hot[np.isnan(unit[:, column])] = 1 / size
            parts.append(hot * np.sqrt(0.5))
        if self._fidelity:
            parts.append(np.ones((len(unit), 1)) if fidelity is None else fidelity[:, None])
        return np.concatenate(parts, axis=1)


def neighbours(unit: Floats, features: Features, rng: Generator) -> Floats:
    """One changed copy of each row of `unit`, `(n, d)`, without NaN.

    Each column changes with a probability that is drawn for each row, one column at least: a number by a
    normal step whose scale is drawn too, a choice to any value. What is inactive is drawn at random, for
    where it becomes active.
    """
    n, d = unit.shape
    fresh = rng.random((n, d))
    changed = rng.random((n, d)) < rng.choice([0.0, 2 / d, 1.0], size=(n, 1))
    changed[np.arange(n), rng.integers(d, size=n)] = True
    scale = 10 ** rng.uniform(-3, -0.5, (n, 1))
    moved = np.clip(unit + scale * rng.standard_normal((n, d)), 0, 1)
    moved[:, features.choices] = fresh[:, features.choices]
    moved = np.where(changed, moved, unit)
    return np.where(np.isnan(moved), fresh, moved)
