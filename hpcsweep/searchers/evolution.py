"""Evolutionary searchers: regularised evolution and CMA-ES."""

from __future__ import annotations

import math
from collections.abc import Hashable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.random import Generator, default_rng

from hpcsweep.core import pareto
from hpcsweep.core.events import Config
from hpcsweep.core.history import Floats, History
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.priors import Priors
from hpcsweep.core.space import Choice, Int, Space
from hpcsweep.core.text import format_value
from hpcsweep.searchers.random import RandomFallback, config_key

if TYPE_CHECKING:
    from cmaes import CMA

#: Share of children that move along the difference of two members in place of a mutation.
DIFFERENTIAL: Final = 0.3
#: Range of the weight of that difference.
WEIGHT: Final = (0.2, 1.0)
#: Members at most with several objectives, of which all on the front are as good.
SURVIVORS: Final = 32
#: Range of a mutation's standard deviation in the unit cube, drawn from it on a log scale.
SPREAD: Final = (0.01, 0.3)


class Evolution(RandomFallback):
    """Aging evolution (Real et al. 2019, Algorithm 1), steady state: no child waits for a generation.

    The population are the newest observations that have a value, so a failure is no parent and
    nobody waits for it. A parent is the best of a random part of the population. A child takes about
    half of its parameters from a second parent, in `crossover` of the cases; then one parameter or a
    few are mutated: numbers by a normal step whose size is drawn anew for each child, those in equal
    steps by at least one, choices to another value. Three children in ten move instead along the
    difference of two members, as in differential evolution (Storn and Price 1997). Parameters that
    become active are drawn at random.

    Where trials are trained to several resources, the population is taken from the largest one that
    enough of them have reached (`startup`, or as many as have reached any).

    With several objectives it is steady-state NSGA-II (Deb et al. 2002): the population are the best 32 of
    all observations, whatever their age, by non-dominated sorting and crowding, and a parent is the better
    one of two.

    Random configurations are drawn from the priors of parameters that have one, at first.

    Args:
        population: Observations that may be parents; older ones have died.
        tournament: Share of the population that a parent is the best of.
        crossover: Share of children with two parents.
        startup: Random configurations before the first child.
        objectives: What is optimised; the history knows.

    Raises:
        ValueError: An option is wrong; the message begins with its name.
    """

    adaptive = True
    uses_priors = True

    def __init__(
        self,
        *,
        population: int = 100,
        tournament: float = 0.5,
        crossover: float = 0.5,
        startup: int = 16,
        objectives: Objectives | None = None,
    ) -> None:
        super().__init__()
        if population < 2:
            raise ValueError(f"population: must be at least 2, got {format_value(population)}")
        if not 0 < tournament <= 1:
            raise ValueError(f"tournament: must be a share > 0 and <= 1, got {format_value(tournament)}")
        if not 0 <= crossover <= 1:
            raise ValueError(f"crossover: must be a share between 0 and 1, got {format_value(crossover)}")
        if startup < 1:
            raise ValueError(f"startup: must be at least 1, got {format_value(startup)}")
        self._population = population
        self._tournament = tournament
        self._crossover = crossover
        self._startup = startup

    def ask(self, n: int, history: History, rng: Generator) -> list[Config]:
        """`n` children, see `core.protocols.Searcher`; random ones while there is no population.

        Raises:
            SpecError: Next to nothing of an infinite space satisfies the constraints.
        """
        first = max(0, self._startup - history.known)
        members = self._members(history)
        if n <= first or len(members) < 2 or not history.space.columns:
            return self.complete([], n, history, rng)
        founders = self.complete([], first, history, rng)
        # As many again, for those that break a constraint or are known.
        several = len(history.objectives) > 1
        units = self._children(2 * (n - first), members, history.space, rng, several=several)
        children = history.space.from_unit(units)
        return self.complete([*founders, *children], n, history, rng)

    def _members(self, history: History) -> Floats:
        """The population in the unit cube `(p, d)`, best first; NaN where inactive."""
        valid = np.flatnonzero(~np.isnan(history.values))
        if not len(valid):
            return np.empty((0, len(history.space.columns)))
        resources, counts = np.unique(history.resources[valid], return_counts=True)
        enough = counts >= min(self._startup, counts.max())
        rows = valid[history.resources[valid] == resources[enough][-1]]
        if history.objectives.several:
            most = min(self._population, SURVIVORS)
            order = pareto.ranked(
                history.points[rows], history.violations[rows], count=most, within=pareto.by_crowding
            )
        else:
            rows = rows[-self._population :]
            order = np.argsort(history.values[rows], kind="stable")
        members: Floats = history.X[rows[order]]
        return members

    def _children(
        self, n: int, members: Floats, space: Space, rng: Generator, *, several: bool = False
    ) -> Floats:
        """Positions `(n, d)` in the unit cube."""
        d = members.shape[1]
        entrants = 2 if several else max(1, round(self._tournament * len(members)))

        def parents() -> Floats:
            # The least rank of so many draws with replacement, without drawing them all.
            rank = np.floor(len(members) * (1 - rng.random(n) ** (1 / entrants)))
            best: Floats = members[np.minimum(rank, len(members) - 1).astype(int)]
            return best

        child = parents()
        crossed = (rng.random((n, 1)) < self._crossover) & (rng.random((n, d)) < 0.5)
        child = np.where(crossed, parents(), child)

        mutated = rng.random((n, d)) < 1 / d
        mutated[np.arange(n), (rng.random((n, d)) * ~np.isnan(child)).argmax(axis=1)] = True
        low, high = np.log(SPREAD)
        spread = np.exp(rng.uniform(low, high, (n, 1)))
        moved = child + spread * rng.standard_normal((n, d))
        for column, parameter in enumerate(space.columns):
            domain, size = parameter.domain, parameter.domain.size
            if size is None or size == 1 or (isinstance(domain, Int) and domain.log):
                continue
            cell = np.floor(child[:, column] * size)
            if isinstance(domain, Choice):
                cell = (cell + rng.integers(1, size, n)) % size
                moved[:, column] = (cell + 0.5) / size
            else:
                stays = np.floor(moved[:, column] * size) == cell
                neighbour = child[:, column] + rng.choice([-1, 1], n) / size
                moved[:, column] = np.where(stays, neighbour, moved[:, column])
        mutants = np.where(mutated, moved, child)

        towards, away = parents(), members[rng.integers(0, len(members), n)]
        drifted = child + rng.uniform(*WEIGHT, (n, 1)) * (towards - away)
        choices = np.array([isinstance(parameter.domain, Choice) for parameter in space.columns])
        drifted[:, choices] = child[:, choices]
        apart = (np.abs(drifted - child) > 0).any(axis=1, keepdims=True)  # else it is its parent again
        found = np.where(apart & (rng.random((n, 1)) < DIFFERENTIAL), drifted, mutants)
        return _within(np.where(np.isnan(found), rng.random((n, d)), found))


def _within(unit: Floats) -> Floats:
    """Reflected at the faces of the unit cube, once; clipped beyond that."""
    reflected = np.abs(unit)
    inside: Floats = np.clip(np.where(reflected > 1, 2 - reflected, reflected), 0, 1)
    return inside


#: Numbers with more values than this are as good as continuous.
MANY_VALUES: Final = 1000
#: A generation closer together than this, in the unit cube, has converged.
CONVERGED: Final = 1e-6
#: Share of a choice's probability that is spread evenly, so that no value is ever out of question.
EVEN: Final = 0.1
#: Draws for each configuration, before random ones take the place of those that are not valid or not new.
PATIENCE: Final = 10


class CMAES(RandomFallback):
    """CMA-ES in the unit cube, by the `cmaes` package, restarted when it has converged.

    The algorithm is that of Hansen 2016, arXiv:1604.00772; each restart doubles the generation, as in
    IPOP (Auger and Hansen 2005). The optimizer is rebuilt from the history: the observations, in the order
    in which they came, are its generations, and new configurations are drawn from the distribution of
    now, at any time and as many as wanted. A generation grows with the number of configurations that are
    out at the same time, since results of an older distribution tell little. Results that the
    distribution would not have given (enqueued ones, those of earlier sweeps) are drawn nearer before they
    are told (Hansen 2011, Injecting external solutions into CMA-ES, section 3).

    Whole numbers and ordered values are told with a random place within their cell, so that the
    distribution never gets narrower than one cell and the neighbours are still tried. Choices are no
    matter of a normal distribution: each has probabilities for its values, which move towards the
    frequencies among the better half of a generation (Baluja 1994, population-based incremental learning).
    An inactive parameter counts as a random draw: no evidence.

    Where parameters have priors, it begins at their centers, and with the probabilities of their weights; the
    restarts do not.

    Within a generation whoever was trained further comes first, since schedulers train the better ones
    further; then the lower value; failures come last.

    Args:
        seed: For the restarts.
        population: Size of a generation at least; 4 + 3 ln d by default.
        sigma: Standard deviation at the start, as a share of each domain.

    Raises:
        ValueError: An option is wrong; the message begins with its name.
    """

    adaptive = True
    uses_priors = True

    def __init__(self, *, seed: int = 0, population: int | None = None, sigma: float = 0.2) -> None:
        super().__init__()
        if population is not None and population < 4:
            raise ValueError(f"population: must be at least 4, got {format_value(population)}")
        if not 0 < sigma <= 1:
            raise ValueError(f"sigma: must be > 0 and <= 1, got {format_value(sigma)}")
        self._seed = seed
        self._population = population
        self._sigma = sigma
        self._observed: _Observations | None = None

    def problems(self, space: Space) -> list[str]:
        """Why it cannot search this space, each line beginning with the key path at fault."""
        if find_spec("cmaes") is None:
            return [
                "searcher.name: 'cmaes' needs cmaes, which is not installed; pip install 'hpcsweep[cmaes]'"
            ]
        if all(isinstance(parameter.domain, Choice) for parameter in space.columns):
            return ["searcher.name: 'cmaes' needs a float, int or ordinal parameter, got none; use 'tpe'"]
        return super().problems(space)

    def ask(self, n: int, history: History, rng: Generator) -> list[Config]:
        """`n` draws from the present distribution, see `core.protocols.Searcher`."""
        space = history.space
        if n <= 0:
            return []
        population = self._generation_size(space, n + len(history.pending))
        observations = self._observed
        if observations is None or not observations.continued_by(history, population):
            observations = _Observations(space, seed=self._seed, population=population, sigma=self._sigma)
            self._observed = observations
        observations.take(history)
        seen = self._seen.keys(history.configs)
        given: dict[Hashable, Config] = {}
        for _ in range(PATIENCE):
            for config in space.from_unit(observations.draw(n - len(given), rng)):
                key = config_key(config)
                if key not in seen and space.satisfies_constraints(config):
                    given.setdefault(key, config)
            if len(given) == n:
                break
        return self.complete(list(given.values()), n, history, rng)

    def _generation_size(self, space: Space, parallel: int) -> int:
        """The least size doubled, as long as it does not exceed what is out at the same time."""
        size = self._population or 4 + math.floor(3 * math.log(_dimensions(space)))
        while 2 * size <= parallel:
            size *= 2
        return size


def _dimensions(space: Space) -> int:
    """Of the normal distribution: at least 2, since the package knows no distribution in one dimension."""
    return max(2, sum(not isinstance(parameter.domain, Choice) for parameter in space.columns))


class _Observations:
    """The optimizer after the generations of a history; goes on where that history grew.

    It depends on space, seed, sizes and the observations taken in, not on how often it was asked.
    """

    def __init__(self, space: Space, *, seed: int, population: int, sigma: float) -> None:
        domains = [parameter.domain for parameter in space.columns]
        self._space = space
        self._seed = seed
        self._population = population
        self._sigma = sigma
        self._choices = {c: domain.size for c, domain in enumerate(domains) if isinstance(domain, Choice)}
        self._numbers = [column for column in range(len(domains)) if column not in self._choices]
        self._taken: tuple[Floats, ...] = ()
        self._next = 0  # the first observation of the next generation
        self._runs = 0
        self._restart()

    def continued_by(self, history: History, population: int) -> bool:
        """Whether the observations that were taken in are the first ones of `history`."""
        if self._space is not history.space or self._population != population:
            return False
        return all(
            len(ours) <= len(theirs) and np.array_equal(ours, theirs[: len(ours)], equal_nan=True)
            for ours, theirs in zip(self._taken, _observations(history), strict=False)
        )

    def take(self, history: History) -> None:
        """Tell every generation that has become complete."""
        self._taken = _observations(history)
        units, values, resources = self._taken
        while self._next + (size := self._cma.population_size) <= len(values):
            generation = slice(self._next, self._next + size)
            self._next += size
            self._tell(units[generation], values[generation], resources[generation])

    def draw(self, n: int, rng: Generator) -> Floats:
        """`n` positions in the unit cube, `(n, d)`, of the present distribution."""
        rows = np.empty((n, len(self._space.columns)))
        rows[:, self._numbers] = self._draws(n, seed=int(rng.integers(2**32)))[:, : len(self._numbers)]
        for column, probabilities in self._probabilities.items():
            size = len(probabilities)
            even = (1 - EVEN) * probabilities + EVEN / size
            rows[:, column] = (rng.choice(size, size=n, p=even) + 0.5) / size
        return rows

    def _draws(self, n: int, *, seed: int) -> Floats:
        self._cma.reseed_rng(seed)
        return np.array([self._cma.ask() for _ in range(n)])

    def _restart(self) -> None:
        from cmaes import CMA

        rng = default_rng([self._seed, self._runs])
        dimensions = _dimensions(self._space)
        priors = Priors([]) if self._runs else self._space.priors
        mean = rng.random(dimensions) if self._runs else np.full(dimensions, 0.5)
        for row, column in enumerate(self._numbers):
            mean[row] = priors.center(column, otherwise=mean[row])
        self._cma: CMA = CMA(
            mean,
            self._sigma,
            bounds=np.tile([0.0, 1.0], (dimensions, 1)),
            population_size=self._population * 2 ** min(self._runs, 10),
            seed=0,  # it is given another one before each use
        )
        self._rng = rng
        self._probabilities = {
            column: priors.shares(column, size=size) for column, size in self._choices.items()
        }
        self._runs += 1

    def _tell(self, units: Floats, values: Floats, resources: Floats) -> None:
        """One generation: positions `(n, d)`, values `(n,)` and resources `(n,)`."""
        failed = np.isnan(values)
        order = np.lexsort((values, -resources, failed))
        units, values, resources = units[order], values[order], resources[order]
        points = self._points(units)
        flat = failed.all() or bool(((values == values[0]) & (resources == resources[0])).all())
        if flat or np.ptp(points, axis=0).max() < CONVERGED:
            self._restart()
            return
        self._learn_choices(units)
        self._cma.tell([(point, float(rank)) for rank, point in enumerate(points)])
        if self._cma.should_stop():
            self._restart()

    def _points(self, units: Floats) -> Floats:
        """The numbers in `units` as points for the optimizer, `(n, dimensions)`, inactive ones drawn."""
        n, d = len(units), self._cma.dim
        draws = self._draws(n + 4 * d + 20, seed=int(self._rng.integers(2**32)))
        points = draws[:n].copy()
        for index, column in enumerate(self._numbers):
            active = ~np.isnan(units[:, column])
            low, high = _cell(self._space.columns[column].domain, units[active, column])
            points[active, index] = self._rng.uniform(low, high)
        return _nearer(points, self._cma.mean, np.cov(draws[n:], rowvar=False))

    def _learn_choices(self, units: Floats) -> None:
        """Move the probabilities towards the values of the better half, ranks weighted as for the mean."""
        half = len(units) // 2
        weights = math.log(half + 0.5) - np.log(np.arange(1, half + 1))
        for column, probabilities in self._probabilities.items():
            size = len(probabilities)
            active = ~np.isnan(units[:half, column])
            if not active.any():
                continue
            share = weights[active] / weights[active].sum()
            cells = np.minimum(units[:half, column][active] * size, size - 1).astype(np.int64)
            effective = 1 / (share**2).sum()
            rate = effective / (effective + 10)
            best = np.bincount(cells, weights=share, minlength=size)
            self._probabilities[column] = (1 - rate) * probabilities + rate * best


def _observations(history: History) -> tuple[Floats, ...]:
    return history.X, history.values, history.resources.astype(float)


def _cell(domain: Any, unit: Floats) -> tuple[Floats, Floats]:
    """Where the cells of these positions begin and end; continuous ones have no width."""
    if domain.size is None or domain.size > MANY_VALUES:
        return unit, unit
    if isinstance(domain, Int) and domain.log:
        start, end = math.log(domain.low - 0.5), math.log(domain.high + 0.5)
        values = np.rint(np.exp(start + unit * (end - start)))
        return (np.log(values - 0.5) - start) / (end - start), (np.log(values + 0.5) - start) / (end - start)
    return unit - 0.5 / domain.size, unit + 0.5 / domain.size


def _nearer(points: Floats, mean: Floats, covariance: Floats) -> Floats:
    """Points `(n, d)` moved towards the mean where they are too far off for this covariance, `(d, d)`."""
    d = len(mean)
    limit = 1.5 * (math.sqrt(d) + 2 * d / (d + 2))
    covariance = covariance + 1e-12 * np.trace(covariance) * np.eye(d)
    away = points - mean
    distances = np.sqrt(np.einsum("ij,ij->i", away, np.linalg.solve(covariance, away.T).T))
    near: Floats = mean + away * np.minimum(1, limit / np.maximum(distances, 1e-300))[:, None]
    return near
