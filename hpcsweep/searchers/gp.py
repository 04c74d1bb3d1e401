"""Bayesian optimization with a Gaussian process."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from hpcsweep.core.events import Config
from hpcsweep.core.history import Floats, History
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.space import Space
from hpcsweep.core.text import format_value
from hpcsweep.searchers.gp_model import align_resources, fit_model, transform_values
from hpcsweep.searchers.gp_pool import CandidatePool, Features
from hpcsweep.searchers.gp_samples import PosteriorSamples
from hpcsweep.searchers.random import RandomFallback
from hpcsweep.searchers.ranks import scalarisations

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

#: Observations that the model is fitted to at most: a third of them the best ones, a third the newest, and a
#: third from all the time before, which keeps the space covered.
MOST_ROWS: Final = 600
#: Pending configurations that are looked at, at most: the newest.
MOST_PENDING: Final = 500
#: Configurations seen at lower resources that an improvement must be over at the largest one, at most.
MOST_LIFTED: Final = 64
#: Configurations of a batch that are refined by a local search; further ones come from the pool as it is.
MOST_REFINED: Final = 32
#: Scalarisations of several objectives in a batch at most; each is a model of its own.
MOST_SCALARISATIONS: Final = 8
#: Size of a batch up to which so many local searches, of so many steps, are made for each configuration.
EFFORTS: Final = {4: (4, 40), 16: (2, 20), None: (2, 10)}


class GP(RandomFallback):
    """Noisy expected improvement under a Gaussian process, a whole batch in one call.

    The kernel is Matern-5/2 with a lengthscale for each parameter: choices are one-hot, inactive parameters
    rest in the middle of their domain, values are transformed to be close to normal, failures are as bad as
    the worst value. A batch is built one by one: each configuration has the greatest expected improvement
    over what was observed, what is pending and those chosen before it, all of them integrated out. It is
    found among random configurations and neighbours of the best ones, then refined by gradient and
    by single changes; what is rounded is judged after rounding.

    Where configurations were trained to several resources, the logarithm of the resource is one more input,
    every observation counts at its own, moved by what training usually changes from there on, and the
    improvement is that at the largest one.

    With several objectives each proposal is for another augmented Tchebycheff scalarisation of them, scaled
    to the front, for a trade-off drawn at random (Knowles 2006, ParEGO); a large batch has eight of them.

    The first `startup` configurations are a scrambled Sobol sequence, and more only while there are no
    two different values yet. Configurations of earlier sweeps and enqueued ones count.

    Where parameters have priors, every fourth of the first configurations is drawn from these: the others
    show whether they are right. Then the improvement is multiplied by the prior to a power that falls with
    the number of results (Hvarfner et al. 2022, piBO), and the less these agree with it.

    All computations run on one thread in double precision: the number of cores makes no difference to the
    answer, another version or build of the numerical libraries may.

    Args:
        seed: For the Sobol sequence.
        startup: Proposals before the model is used; two more than there are parameters by default.
        objectives: What is optimised; the history knows.

    Raises:
        ValueError: An option is wrong; the message begins with its name.
    """

    adaptive = True
    uses_priors = True

    def __init__(
        self, *, seed: int = 0, startup: int | None = None, objectives: Objectives | None = None
    ) -> None:
        super().__init__()
        if startup is not None and startup < 2:
            raise ValueError(f"startup: must be at least 2, got {format_value(startup)}")
        self._seed = seed
        self._startup = startup

    def ask(self, n: int, history: History, rng: Generator) -> list[Config]:
        """`n` configurations of great expected improvement together, see `core.protocols.Searcher`."""
        columns = len(history.space.columns)
        found = history.points[np.isfinite(history.points).all(axis=1)]
        startup = columns + 2 if self._startup is None else self._startup
        first = max(0, startup - history.known)
        if n <= 0 or columns == 0:
            given = []
        elif n <= first or len(found) < 2 or not np.ptp(found, axis=0).any():
            given = self._first(n, history, rng)
        else:
            given = self._first(first, history, rng) if first else []
            if history.objectives.several:
                given += self._propose_for_front(n - len(given), history, rng, besides=given)
            else:
                given += self.propose(n - len(given), history, rng, besides=given)
        return self.complete(given, n, history, rng)

    def _first(self, n: int, history: History, rng: Generator) -> list[Config]:
        """Configurations before there is a model."""
        done = history.proposed
        if not history.space.priors:
            return self._sobol(n, history.space, skip=done)
        skip, end = (3 * count // 4 for count in (done, done + n))
        evenly = self._sobol(end - skip, history.space, skip=skip)
        return [*self.complete([], n - len(evenly), history, rng), *evenly]

    def _sobol(self, n: int, space: Space, *, skip: int) -> list[Config]:
        """`n` of one sequence for the whole sweep, behind those that were taken already."""
        from scipy.stats.qmc import Sobol

        # Newer versions call it `rng` and still take `seed`; older ones know only `seed`.
        engine = Sobol(len(space.columns), seed=default_rng(self._seed))
        if skip:
            engine.fast_forward(skip)
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # n is no power of 2
            return space.from_unit(engine.random(n))

    def _propose_for_front(
        self, n: int, history: History, rng: Generator, *, besides: Sequence[Config]
    ) -> list[Config]:
        """Each configuration, or few of a large batch, for a scalarisation with weights of its own."""
        groups = min(n, MOST_SCALARISATIONS)
        chosen: list[Config] = []
        for group, values in enumerate(scalarisations(history, groups, rng)):
            count = (group + 1) * n // groups - group * n // groups
            if np.ptp(values[np.isfinite(values)]) > 0:
                given = [*besides, *chosen]
                chosen += self.propose(count, history, rng, values=values, besides=given)
        return chosen

    def propose(
        self,
        n: int,
        history: History,
        rng: Generator,
        *,
        values: Floats | None = None,
        besides: Sequence[Config] = (),
    ) -> list[Config]:
        """At most `n` new configurations, the one of greatest expected improvement first.

        Args:
            n: How many.
            history: What was proposed and observed.
            rng: Of all draws.
            values: What is to be minimised, in place of the history's: one for each observation, `(m,)`,
                NaN for a failure. Two of them differ.
            besides: Configurations that are chosen already: they are pending.
        """
        with _one_thread().limit(limits=1):
            starts, steps = next(effort for most, effort in EFFORTS.items() if most is None or n <= most)
            values = history.values if values is None else values
            data = TrainingData(history, values)
            pending = history.pending[-MOST_PENDING:]
            others = np.concatenate([data.lifted, pending, history.space.to_unit(besides)])
            samples = PosteriorSamples(
                fit_model(data.points, data.targets),
                data.points,
                data.targets,
                others=data.features.of(others),
                counts=np.concatenate([data.largest, np.ones(len(others), dtype=bool)]),
                rng=rng,
            )
            best = np.concatenate([data.units[data.largest], others])[samples.order]
            pool = CandidatePool(
                history,
                data.features,
                samples,
                values=values,
                fallback=self,
                best=best,
                steps=steps,
                rng=rng,
            )
            chosen: list[Config] = []
            while len(chosen) < n:
                config = pool.take(starts=starts if len(chosen) < MOST_REFINED else 0)
                if config is None:
                    break
                chosen.append(config)
            return chosen


class TrainingData:
    """The observations that the model is fitted to.

    Args:
        history: Of the sweep.
        values: To be minimised, one for each of its observations, `(m,)`; NaN for a failure.

    Attributes:
        units: Their configurations in the unit cube, `(n, d)`.
        largest: Which were made at the largest resource, `(n,)`.
        lifted: The best of the others, `(k, d)`, whose values at the largest resource are not known.
        features: Of the model.
        points: Their features, `(n, f)`.
        targets: Their values as the model sees them, `(n,)`.
    """

    def __init__(self, history: History, values: Floats) -> None:
        rows = _rows(values)
        self.units, resources = history.X[rows], history.resources[rows]
        aligned = align_resources(values[rows], resources, history.trials[rows])
        levels = np.log(np.maximum(resources, 1))
        self.largest = levels == levels.max()
        self.features = Features(history.space, fidelity=bool(np.ptp(levels) > 0))
        share = (levels - levels.min()) / max(np.ptp(levels), 1e-300)
        self.points = self.features.of(self.units, fidelity=share)
        self.targets = transform_values(aligned)
        best = np.argsort(aligned[~self.largest])  # failures are last
        self.lifted = self.units[~self.largest][best[:MOST_LIFTED]]


def _rows(values: Floats) -> NDArray[np.int64]:
    """The observations for the model, ascending: the best, the newest, and some from all the time before."""
    if len(values) <= MOST_ROWS:
        return np.arange(len(values))
    third = MOST_ROWS // 3
    best = np.argsort(values, kind="stable")[:third]  # failures are last
    others = np.setdiff1d(np.arange(len(values)), best)
    newest, earlier = others[-third:], others[:-third]
    spread = earlier[np.linspace(0, len(earlier) - 1, MOST_ROWS - 2 * third).astype(int)]
    return np.sort(np.concatenate([best, newest, spread]))


@functools.cache
def _one_thread() -> ThreadpoolController:
    """Limits linear algebra to one thread: the number of cores must make no difference to the answer."""
    import scipy.linalg  # noqa: F401  (brings a library of its own)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
