"""Several objectives of learning curves, `--part rungs`: what share of the best hypervolume is reached when.

Scheduler and searcher train with 32 workers in virtual time, as in `benchmarks.quality_curves`. The
objectives are the errors of two tasks that share a network (`power-law-pair`), which both fall with the
resource, or the error of one and the seconds for each unit of resource (`power-law-time`), which are known
at once.

Each objective is scaled so that 0 is the least value that random configurations end with and 1 their median,
the reference point. A share is that of the hypervolume of all these random configurations at the full
resource. Values at any resource count: the errors only fall, so that they are no better than at the end.

`random+asha-sum` is ASHA of one objective, the sum of the scaled ones; `random+asha` ranks by all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple

import numpy as np

from benchmarks.problems import Curves, Floats, power_law
from benchmarks.quality_curves import Sweep
from hpcsweep.core import pareto
from hpcsweep.core.events import Config, Outcome, RunFinished, RunId
from hpcsweep.core.objectives import Objective, Objectives
from hpcsweep.core.protocols import Scheduler
from hpcsweep.schedulers.asha import ASHA
from hpcsweep.schedulers.fifo import Fifo
from hpcsweep.schedulers.synchronous import Hyperband
from hpcsweep.searchers import make_searcher

#: Full trainings of the median configuration after which the hypervolume is looked at.
TRAININGS: Final = (0.5, 1, 2)
#: Random configurations that tell the scale and the best hypervolume.
DRAWS: Final = 20_000
OBJECTIVES: Final = Objectives([Objective("first"), Objective("second")])
SCHEDULERS: Final[dict[str, Callable[[int], Scheduler]]] = {
    "fifo": lambda max_resource: Fifo(max_resource=max_resource),
    "asha-sum": lambda max_resource: ASHA(max_resource=max_resource),
    "asha": lambda max_resource: ASHA(max_resource=max_resource, objectives=OBJECTIVES),
    "hyperband": lambda max_resource: Hyperband(
        max_resource=max_resource, iterations=None, objectives=OBJECTIVES
    ),
}
#: Searcher and scheduler.
METHODS: Final = ("random+fifo", "random+asha-sum", "random+asha", "random+hyperband", "evolution+asha")
JUDGED: Final = "random+asha"
JUDGED_BY: Final = ("random+fifo", "random+asha-sum")


class FrontCurves(NamedTuple):
    """Curves of several objectives.

    Attributes:
        curves: Their space, resource and seconds; the values are those of the sum.
        points: Scaled values of configurations at a resource, `(n, k)`.
        best: Hypervolume of random configurations up to 1.
        training: Seconds of a full training of the median configuration.
    """

    curves: Curves
    points: Callable[[Sequence[Config], int], Floats]
    best: float
    training: float


def _pair(seed: int) -> tuple[Curves, Callable[[Sequence[Config], int], Floats]]:
    first, second = power_law(2 * seed), power_law(2 * seed + 1)
    return first, lambda configs, resource: np.stack(
        [first.values(configs, resource), second.values(configs, resource)], axis=1
    )


def _time(seed: int) -> tuple[Curves, Callable[[Sequence[Config], int], Floats]]:
    curves = power_law(seed)
    return curves, lambda configs, resource: np.stack(
        [curves.values(configs, resource), curves.unit_times(configs)], axis=1
    )


#: Name -> curves of the sweep with this seed, and its objectives, `(n, k)`, at a resource.
FRONT_CURVES: Final = {"power-law-pair": _pair, "power-law-time": _time}


@cache
def front_curves(name: str, seed: int) -> FrontCurves:
    """The problem of this name in the sweep with this seed."""
    curves, raw = FRONT_CURVES[name](seed)
    configs = curves.space.sample(DRAWS, np.random.default_rng(0))
    ends = raw(configs, curves.max_resource)
    low, middle = ends.min(axis=0), np.median(ends, axis=0)

    def points(configs: Sequence[Config], resource: int) -> Floats:
        scaled: Floats = (raw(configs, resource) - low) / (middle - low)
        return scaled

    best = pareto.hypervolume((ends - low) / (middle - low), np.ones(ends.shape[1]))
    training = curves.max_resource * float(np.median(curves.unit_times(configs)))
    summed = curves._replace(values=lambda configs, resource: points(configs, resource).sum(axis=1))
    return FrontCurves(summed, points, best, training)


class FrontSweep(Sweep):
    """A sweep whose searcher sees all objectives, and whose scheduler all of them or their sum."""

    def __init__(self, problem: FrontCurves, scheduler: Scheduler, method: str, *, seed: int) -> None:
        searcher = make_searcher(method, seed=seed, options={}, objectives=OBJECTIVES)
        super().__init__(problem.curves, scheduler, searcher, seed=seed, objectives=OBJECTIVES)
        self._points = problem.points
        #: When each value was known, and the value.
        self.found: list[tuple[float, Floats]] = []

    def _end(self, run: RunId) -> None:
        resource = self._resources[run.trial][run.rung]
        point = self._points([self._history.configs[run.trial]], resource)[0]
        self.found.append((self.now, point))
        values = tuple(point.tolist())
        of_sum = float(point.sum())
        self._scheduler.apply(
            RunFinished(run.trial, run.rung, Outcome.COMPLETED, of_sum, resource, values=values)
        )
        self._history.observe(run.trial, values[0], resource, key=(0.0, *values))


def shares(name: str, method: str, *, seed: int) -> tuple[float, ...]:
    """The share of the best hypervolume after each of `TRAININGS`."""
    problem = front_curves(name, seed)
    searcher, _, scheduler = method.partition("+")
    sweep = FrontSweep(problem, SCHEDULERS[scheduler](problem.curves.max_resource), searcher, seed=seed)
    ends = [trainings * problem.training for trainings in TRAININGS]
    while sweep.now < ends[-1]:
        sweep.step()
    reference = np.ones(len(OBJECTIVES))
    known = [np.array([point for at, point in sweep.found if at <= end]) for end in ends]
    return tuple(pareto.hypervolume(points.reshape(-1, 2), reference) / problem.best for points in known)


def print_shares(found: Mapping[tuple[str, str], Sequence[Sequence[float]]]) -> bool:
    """Print the medians of each problem and method; whether ASHA of all objectives is ahead of both others.

    Ahead is at the last of `TRAININGS`. Nothing is judged that was not measured.
    """
    print("Median share of the best hypervolume after so many full trainings\n")
    print("| problem | method | seeds | " + " | ".join(map(str, TRAININGS)) + " |")
    print("| --- | --- | --- |" + " --- |" * len(TRAININGS))
    medians = {key: np.median(np.array(rows), axis=0) for key, rows in found.items() if len(rows)}
    for (problem, method), median in medians.items():
        cells = " | ".join(f"{share:.3f}" for share in median)
        print(f"| {problem} | {method} | {len(found[problem, method])} | {cells} |")
    reached = True
    for problem in dict.fromkeys(problem for problem, _ in medians):
        last = {method: median[-1] for (of, method), median in medians.items() if of == problem}
        if JUDGED in last and (others := [last[other] for other in JUDGED_BY if other in last]):
            ahead = bool(last[JUDGED] > max(others))
            word = "reached" if ahead else "NOT REACHED"
            print(f"\n{word}: {JUDGED} is ahead of {' and '.join(JUDGED_BY)} on {problem}")
            reached = reached and ahead
    return reached
