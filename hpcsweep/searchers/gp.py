"""Bayesian optimization with a Gaussian process, by BoTorch, and the candidates of a batch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hpcsweep.core.domains import Choice
from hpcsweep.core.events import Config
from hpcsweep.core.history import Floats, History
from hpcsweep.core.space import Space
from hpcsweep.core.text import format_value
from hpcsweep.searchers.gp_model import (
    Candidates,
    PosteriorSamples,
    align_resources,
    fit_model,
    optimise_candidates,
    transform_values,
)
from hpcsweep.searchers.random import RandomFallback, config_key

if TYPE_CHECKING:
    from torch import Tensor

#: Observations that the model is fitted to at most: half of them the best ones, the others the newest.
MOST_ROWS: Final = 600
#: Configurations seen at lower resources that an improvement must be over at the largest one, at most.
MOST_LIFTED: Final = 64
#: Configurations of a batch that are refined by a local search; further ones come from the pool as it is.
MOST_REFINED: Final = 128
#: Beginnings of a local search, for each configuration of a small and of a large batch.
STARTS: Final = (4, 2)
SMALL_BATCH: Final = 4


class GP(RandomFallback):
    """Noisy expected improvement under a Gaussian process, a whole batch in one call.

    The model is BoTorch's `SingleTaskGP` with a Matern-5/2 kernel: choices are one-hot, inactive parameters
    rest in the middle of their domain, values are transformed to be close to normal, failures are as bad as
    the worst value. A batch is built one by one: each configuration has the greatest expected improvement
    over what was observed, what is pending and those chosen before it, all of them integrated out. It is
    found among random configurations and neighbours of the best ones, then refined by gradient and
    by single changes; what is rounded is judged after rounding.

    Where configurations were trained to several resources, the logarithm of the resource is one more input,
    every observation counts at its own, moved by what training usually changes from there on, and the
    improvement is that at the largest one.

    The first `startup` configurations are a scrambled Sobol sequence, and more only while there are no
    two different values yet. Configurations of earlier sweeps and enqueued ones count.
    All computations run on one thread in double precision: the number of cores makes no difference to the
    answer, another version or build of the numerical libraries may.

    Args:
        seed: For the Sobol sequence.
        startup: Proposals before the model is used; two more than there are parameters by default.

    Raises:
        ValueError: An option is wrong; the message begins with its name.
    """

    adaptive = True

    def __init__(self, *, seed: int = 0, startup: int | None = None) -> None:
        super().__init__()
        if startup is not None and startup < 2:
            raise ValueError(f"startup: must be at least 2, got {format_value(startup)}")
        self._seed = seed
        self._startup = startup

    def problems(self, space: Space) -> list[str]:
        """Why it cannot search this space, each line beginning with the key path at fault."""
        if find_spec("torch") is None or find_spec("botorch") is None:
            return ["searcher.name: 'gp' needs BoTorch, which is not installed; pip install 'hpcsweep[gp]'"]
        return super().problems(space)

    def ask(self, n: int, history: History, rng: Generator) -> list[Config]:
        """`n` configurations of great expected improvement together, see `core.protocols.Searcher`."""
        columns = len(history.space.columns)
        found = history.values[np.isfinite(history.values)]
        startup = columns + 2 if self._startup is None else self._startup
        first = max(0, startup - history.known)
        if n <= 0 or columns == 0:
            given = []
        elif n <= first or len(found) < 2 or np.ptp(found) == 0:
            given = self._sobol(n, history)
        else:
            given = self._sobol(first, history) if first else []
            with _quiet_single_thread(seed=int(rng.integers(2**62))):
                given += _propose(n - len(given), history, rng, besides=given)
        return self.complete(given, n, history, rng)

    def _sobol(self, n: int, history: History) -> list[Config]:
        """The next `n` of one sequence for the whole sweep."""
        with _quiet_single_thread(seed=0):
            import torch
            from torch.quasirandom import SobolEngine

            engine = SobolEngine(len(history.space.columns), scramble=True, seed=self._seed)  # type: ignore[no-untyped-call]
            if history.proposed:
                engine.fast_forward(history.proposed)  # type: ignore[no-untyped-call]
            return history.space.from_unit(engine.draw(n, dtype=torch.double).numpy())


def _propose(n: int, history: History, rng: Generator, *, besides: list[Config]) -> list[Config]:
    """At most `n` new configurations, the one of greatest expected improvement first.

    Those of `besides` are chosen already: they are pending.
    """
    import torch

    rows = _rows(history)
    units, resources = history.X[rows], history.resources[rows]
    values = align_resources(history.values[rows], resources, history.trials[rows])
    levels = np.log(np.maximum(resources, 1))
    features = Features(history.space, fidelity=bool(np.ptp(levels) > 0))
    target = levels == levels.max()
    share = (levels - levels.min()) / max(np.ptp(levels), 1e-300)

    points = torch.from_numpy(features.of(units, fidelity=share))
    targets = torch.from_numpy(transform_values(values))
    model = fit_model(points, targets)
    lifted = units[~target][np.argsort(values[~target])[:MOST_LIFTED]]  # failures are last
    others = np.concatenate([lifted, history.pending, history.space.to_unit(besides)])
    samples = PosteriorSamples(
        model,
        points,
        targets,
        others=torch.from_numpy(features.of(others)),
        counts=torch.from_numpy(np.concatenate([target, np.ones(len(others), dtype=bool)])),
        generator=torch.Generator().manual_seed(int(rng.integers(2**62))),
    )
    best = np.concatenate([units[target], others])
    pool = CandidatePool(history, features, samples, best=best[samples.order], rng=rng)
    starts = STARTS[0] if n <= SMALL_BATCH else STARTS[1]
    chosen: list[Config] = []
    while len(chosen) < n:
        config = pool.take(starts=starts if len(chosen) < MOST_REFINED else 0)
        if config is None:
            break
        chosen.append(config)
    return chosen


def _rows(history: History) -> NDArray[np.int64]:
    """The observations for the model, ascending."""
    values = history.values
    if len(values) <= MOST_ROWS:
        return np.arange(len(values))
    best = np.argsort(values, kind="stable")[: MOST_ROWS // 2]  # failures are last
    rest = np.setdiff1d(np.arange(len(values)), best)
    return np.sort(np.concatenate([best, rest[-(MOST_ROWS - len(best)) :]]))


@contextmanager
def _quiet_single_thread(seed: int) -> Iterator[None]:
    """Torch on one thread, with its own random state, and no warnings; all as before at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                yield
        finally:
            torch.set_num_threads(threads)


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
        configs = RandomFallback().complete([], WHOLE if self._whole else RANDOM, history, rng)
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
            ends = optimise_candidates(self._samples, starts, free=free, steps=STEPS).numpy()
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
