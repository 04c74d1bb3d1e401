"""Searchers.

Made by `python -m tests.docs.reference`: change the code that it is made from, not this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from hpcsweep.api.parts import Searcher

__all__ = ["CMAES", "GP", "TPE", "Auto", "Evolution", "Grid", "OptunaSampler", "Random", "Sobol"]


@dataclass(frozen=True, repr=False)
class Auto(Searcher):
    """Delegates to a searcher chosen from the space and the budget.

    Attributes:
        seed: The same seed, spec and results give the same sweep.
    """

    name: ClassVar[str] = "auto"

    _: KW_ONLY
    seed: int = 0


@dataclass(frozen=True, repr=False)
class Random(Searcher):
    """Never proposes a configuration twice; gives fewer once the space is exhausted.

    Attributes:
        seed: The same seed, spec and results give the same sweep.
    """

    name: ClassVar[str] = "random"

    _: KW_ONLY
    seed: int = 0


@dataclass(frozen=True, repr=False)
class Grid(Searcher):
    """Proposes each configuration of the grid once, in order; gives fewer at its end.

    Attributes:
        num_points: How many values of a float or int to take, for all of them or by name; a float without
            step needs it.
        shuffle: Go through the grid in an order that the seed decides.
        seed: The same seed, spec and results give the same sweep.
    """

    name: ClassVar[str] = "grid"

    _: KW_ONLY
    num_points: int | Mapping[str, Any] | None = None
    shuffle: bool = False
    seed: int = 0


@dataclass(frozen=True, repr=False)
class Sobol(Searcher):
    """Proposes the points of one scrambled Sobol sequence in order (Sobol 1967, Owen 1998).

    Attributes:
        seed: The same seed, spec and results give the same sweep.
    """

    name: ClassVar[str] = "sobol"

    _: KW_ONLY
    seed: int = 0


@dataclass(frozen=True, repr=False)
class TPE(Searcher):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), multivariate as in BOHB (Falkner et al. 2018).

    Attributes:
        startup: Random proposals before the first one that is not; more only while there are fewer than 2
            results. Configurations of earlier sweeps and enqueued ones count.
        good: Share of the observations that are good; at most 25 are.
        candidates: Drawn for each proposal; fewer where thousands are asked for at once.
        random: Share of random proposals where trials are trained to several resources.
        seed: The same seed, spec and results give the same sweep.
    """

    name: ClassVar[str] = "tpe"

    _: KW_ONLY
    startup: int = 10
    good: float = 0.15
    candidates: int = 24
    random: float = 0.3333333333333333
    seed: int = 0


@dataclass(frozen=True, repr=False)
class GP(Searcher):
    """Noisy expected improvement under a Gaussian process, a whole batch in one call.

    Attributes:
        startup: Proposals before the model is used; two more than there are parameters by default.
        seed: The same seed, spec and results give the same sweep.
    """

    name: ClassVar[str] = "gp"

    _: KW_ONLY
    startup: int | None = None
    seed: int = 0


@dataclass(frozen=True, repr=False)
class CMAES(Searcher):
    """CMA-ES in the unit cube, by the `cmaes` package, restarted when it has converged.

    Attributes:
        population: Size of a generation at least; 4 + 3 ln d by default.
        sigma: Standard deviation at the start, as a share of each domain.
        seed: The same seed, spec and results give the same sweep.
    """

    name: ClassVar[str] = "cmaes"

    _: KW_ONLY
    population: int | None = None
    sigma: float = 0.2
    seed: int = 0


@dataclass(frozen=True, repr=False)
class Evolution(Searcher):
    """Aging evolution (Real et al. 2019, Algorithm 1), steady state: no child waits for a generation.

    Attributes:
        population: Observations that may be parents; older ones have died.
        tournament: Share of the population that a parent is the best of.
        crossover: Share of children with two parents.
        startup: Random configurations before the first child.
        seed: The same seed, spec and results give the same sweep.
    """

    name: ClassVar[str] = "evolution"

    _: KW_ONLY
    population: int = 100
    tournament: float = 0.5
    crossover: float = 0.5
    startup: int = 16
    seed: int = 0


@dataclass(frozen=True, repr=False, init=False)
class OptunaSampler(Searcher):
    """Asks a sampler of Optuna, one configuration after the other, of a study rebuilt from the history.

    Args:
        sampler: Name of a class in `optuna.samplers`.
        seed: The same seed, spec and results give the same sweep.
        **arguments: Its further options.
    """

    name: ClassVar[str] = "optuna"

    sampler: str = "TPESampler"
    seed: int = 0
    arguments: Mapping[str, Any] | None = None

    def __init__(self, *, sampler: str = "TPESampler", seed: int = 0, **arguments: object) -> None:
        self._set(sampler=sampler, seed=seed, arguments=arguments or None)
