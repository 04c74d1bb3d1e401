"""Regularised evolution: children of the winners of tournaments among the newest results."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hpcsweep.core.events import Config
from hpcsweep.core.history import History
from hpcsweep.core.space import Choice, Int, Space
from hpcsweep.core.text import format_value
from hpcsweep.searchers.random import Random

Floats = NDArray[np.float64]

#: Share of children that move along the difference of two members in place of a mutation.
DIFFERENTIAL: Final = 0.3
#: Range of the weight of that difference.
WEIGHT: Final = (0.2, 1.0)
#: Range of a mutation's standard deviation in the unit cube, drawn from it on a log scale.
SPREAD: Final = (0.01, 0.3)


class Evolution:
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

    Args:
        population: Observations that may be parents; older ones have died.
        tournament: Share of the population that a parent is the best of.
        crossover: Share of children with two parents.
        startup: Random configurations before the first child.

    Raises:
        ValueError: An option is wrong; the message begins with its name.
    """

    adaptive = True

    def __init__(
        self,
        *,
        population: int = 100,
        tournament: float = 0.5,
        crossover: float = 0.5,
        startup: int = 16,
    ) -> None:
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
        self._random = Random()

    def problems(self, space: Space) -> list[str]:
        """Why there is nothing to draw in this space, each line beginning with the key path at fault."""
        return self._random.problems(space)

    def is_exhaustible(self, space: Space) -> bool:
        """Whether the space is finite."""
        return self._random.is_exhaustible(space)

    def ask(self, n: int, history: History, rng: Generator) -> list[Config]:
        """`n` children, see `core.protocols.Searcher`; random ones while there is no population.

        Raises:
            SpecError: Next to nothing of an infinite space satisfies the constraints.
        """
        first = max(0, self._startup - history.known)
        members = self._members(history)
        if n <= first or len(members) < 2 or not history.space.columns:
            return self._random.ask(n, history, rng)
        founders = self._random.ask(first, history, rng)
        # As many again, for those that break a constraint or are known.
        children = history.space.from_unit(self._children(2 * (n - first), members, history.space, rng))
        return self._random.complete([*founders, *children], n, history, rng)

    def _members(self, history: History) -> Floats:
        """The population in the unit cube `(p, d)`, best first; NaN where inactive."""
        valid = np.flatnonzero(~np.isnan(history.values))
        if not len(valid):
            return np.empty((0, len(history.space.columns)))
        resources, counts = np.unique(history.resources[valid], return_counts=True)
        enough = counts >= min(self._startup, counts.max())
        rows = valid[history.resources[valid] == resources[enough][-1]][-self._population :]
        members: Floats = history.X[rows[np.argsort(history.values[rows], kind="stable")]]
        return members

    def _children(self, n: int, members: Floats, space: Space, rng: Generator) -> Floats:
        """Positions `(n, d)` in the unit cube."""
        d = members.shape[1]
        entrants = max(1, round(self._tournament * len(members)))

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
