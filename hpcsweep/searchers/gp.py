"""Bayesian optimization with a Gaussian process, by BoTorch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hpcsweep.core.events import Config
from hpcsweep.core.history import History
from hpcsweep.core.space import Space
from hpcsweep.core.text import format_value
from hpcsweep.searchers.gp_batch import PosteriorSamples
from hpcsweep.searchers.gp_model import align_resources, fit_model, transform_values
from hpcsweep.searchers.gp_pool import CandidatePool, Features
from hpcsweep.searchers.random import Random

Floats = NDArray[np.float64]

#: Observations that the model is fitted to at most: half of them the best ones, the others the newest.
MOST_ROWS: Final = 600
#: Configurations seen at lower resources that an improvement must be over at the largest one, at most.
MOST_LIFTED: Final = 64
#: Configurations of a batch that are refined by a local search; further ones come from the pool as it is.
MOST_REFINED: Final = 128
#: Beginnings of a local search, for each configuration of a small and of a large batch.
STARTS: Final = (4, 2)
SMALL_BATCH: Final = 4


class GP:
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
        if startup is not None and startup < 2:
            raise ValueError(f"startup: must be at least 2, got {format_value(startup)}")
        self._seed = seed
        self._startup = startup
        self._random = Random()

    def problems(self, space: Space) -> list[str]:
        """Why it cannot search this space, each line beginning with the key path at fault."""
        if find_spec("torch") is None or find_spec("botorch") is None:
            return ["searcher.name: 'gp' needs BoTorch, which is not installed; pip install 'hpcsweep[gp]'"]
        return self._random.problems(space)

    def is_exhaustible(self, space: Space) -> bool:
        """Whether the space is finite."""
        return self._random.is_exhaustible(space)

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
        return self._random.complete(given, n, history, rng)

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
