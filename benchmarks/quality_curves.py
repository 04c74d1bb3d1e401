"""How long scheduler and searcher take to find a good configuration, in virtual time with 32 workers.

The objective are learning curves. A run takes its units of resource beyond the rung below, from the
checkpoint, times the configuration's seconds for each unit. What is decided while all workers are
busy waits in order, as in `hpcsweep.driver`. Sought is a value that is within the best 0.1 % of the
values that random configurations end with: at whatever resource (the curves only fall, so it is no
better at a low resource than at the end), or at the full resource alone, which takes one full training
at least.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable
from functools import cache
from heapq import heappop, heappush, nsmallest
from typing import Final

import numpy as np
from numpy.random import default_rng

from benchmarks.problems import Curves, hartmann_curves, power_law
from hpcsweep.core.events import AnyEvent, Outcome, RunFinished, RunId, TrialCreated, TrialPromoted
from hpcsweep.core.history import History
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.protocols import Decision, Promote, Scheduler, Searcher, Start
from hpcsweep.schedulers.asha import ASHA
from hpcsweep.schedulers.fifo import Fifo
from hpcsweep.schedulers.synchronous import Hyperband
from hpcsweep.searchers import make_searcher

WORKERS: Final = 32
#: Random configurations whose final values tell what is good, and the share of them that is.
DRAWS: Final = 100_000
GOOD: Final = 0.001
#: Trials after which a sweep has failed to find it; random search starts 700 in the median.
MOST_TRIALS: Final = 20_000
#: Full trainings after which it has failed to find it at the full resource.
MOST_TRAININGS: Final = 20

#: Name of a problem -> its curves in the sweep with this seed. At the full resource all are searched.
CURVES: Final[dict[str, Callable[[int], Curves]]] = {
    "power-law": power_law,  # each seed is a task of its own
    "hartmann6-fidelity": lambda seed: hartmann_curves(),
    "hartmann3-fidelity": lambda seed: hartmann_curves(dimensions=3),
    "hartmann6-hard": lambda seed: hartmann_curves(lower=2.8),
    "crossing": lambda seed: power_law(seed, crossing=True),
    "hartmann6-misleading": lambda seed: hartmann_curves(lower=3.2),
}
SCHEDULERS: Final[dict[str, Callable[[int], Scheduler]]] = {
    "fifo": lambda max_resource: Fifo(max_resource=max_resource),
    "hyperband": lambda max_resource: Hyperband(max_resource=max_resource, iterations=None),
    "asha": lambda max_resource: ASHA(max_resource=max_resource),
    "asha-auto": lambda max_resource: ASHA(max_resource=max_resource, min_resource="auto"),
    "hyperband-auto": lambda max_resource: Hyperband(
        max_resource=max_resource, min_resource="auto", iterations=None
    ),
    "reference-asha": lambda max_resource: ReferenceASHA(max_resource=max_resource),
}
#: Those that are searched for a good value at whatever resource.
ANY_RESOURCE: Final = ("power-law", "hartmann6-fidelity")
#: Searcher and scheduler.
METHODS: Final = (
    "random+fifo",
    "random+hyperband",
    "tpe+hyperband",
    "random+reference-asha",
    "random+asha",
    "tpe+asha",
    "gp+hyperband",
    "gp+asha",
)
#: Those of which full trainings are counted.
TRAININGS: Final = (
    "random+asha",
    "random+asha-auto",
    "tpe+asha",
    "tpe+asha-auto",
    "random+hyperband",
    "random+hyperband-auto",
    "tpe+hyperband",
    "tpe+hyperband-auto",
    "gp+asha",
    "gp+hyperband",
)


class ReferenceASHA(Scheduler):
    """ASHA as its paper writes it down: `get_job` of Algorithm 2, for one free worker after the other."""

    needs_reports = False
    clones = False

    @property
    def done(self) -> bool:
        return False

    def __init__(self, *, max_resource: int, eta: int = 3) -> None:
        self._eta = eta
        self._resources = [1]
        while self._resources[-1] * eta <= max_resource:
            self._resources.append(self._resources[-1] * eta)
        self._rungs: list[list[tuple[float, int]]] = [[] for _ in self._resources]  # value, trial
        self._promoted: list[set[int]] = [set() for _ in self._resources]

    def apply(self, event: AnyEvent) -> None:
        """Take note of promotions and of values, which are minimised."""
        match event:
            case TrialPromoted():
                self._promoted[event.rung - 1].add(event.trial)
            case RunFinished(value=float(value)):
                self._rungs[event.rung].append((value, event.trial))
            case _:
                pass

    def decide(self, slots: int) -> list[Decision]:
        """One job for each free worker."""
        promoted = [set(trials) for trials in self._promoted]
        return [self._get_job(promoted) for _ in range(slots)]

    def _get_job(self, promoted: list[set[int]]) -> Promote | Start:
        for k in range(len(self._rungs) - 2, -1, -1):
            candidates = nsmallest(len(self._rungs[k]) // self._eta, self._rungs[k])
            promotable = [trial for _, trial in candidates if trial not in promoted[k]]
            if promotable:
                promoted[k].add(promotable[0])
                return Promote(promotable[0], k + 1, self._resources[k + 1])
        return Start(0, self._resources[0])


class Sweep:
    """A sweep over learning curves in virtual time.

    Attributes:
        now: Seconds since it began.
        best: Best value so far; `best_full`: at the full resource.
    """

    def __init__(
        self,
        curves: Curves,
        scheduler: Scheduler,
        searcher: Searcher,
        *,
        seed: int,
        workers: int = WORKERS,
        objectives: Objectives | None = None,
    ) -> None:
        self.now = 0.0
        self.best = math.inf
        self.best_full = math.inf
        self._curves = curves
        self._scheduler = scheduler
        self._searcher = searcher
        self._seed = seed
        self._workers = workers
        self._history = History(curves.space, objectives=objectives or Objectives.single())
        self._resources: list[list[int]] = []  # of each trial's runs
        self._waiting: deque[RunId] = deque()
        self._running: list[tuple[float, RunId]] = []

    @property
    def trials(self) -> int:
        """How many were started."""
        return len(self._resources)

    def step(self) -> None:
        """Decide, fill the free workers, and go on to when the next runs end."""
        self._decide()
        while self._waiting and len(self._running) < self._workers:
            run = self._waiting.popleft()
            heappush(self._running, (self.now + self._duration(run), run))
        self.now = self._running[0][0]
        while self._running and self._running[0][0] == self.now:
            self._end(heappop(self._running)[1])

    def _decide(self) -> None:
        slots = self._workers - len(self._running) - len(self._waiting)
        if slots <= 0:
            return
        decisions = self._scheduler.decide(slots)
        for decision in decisions:
            if isinstance(decision, Promote):
                self._resources[decision.trial].append(decision.resource)
                self._start_run(TrialPromoted(decision.trial, decision.rung, decision.resource))
        # One ask for each bracket, as the driver does.
        for start, group in itertools.groupby(d for d in decisions if isinstance(d, Start)):
            rng = default_rng([self._seed, self._history.proposed])
            for config in self._searcher.ask(len(list(group)), self._history, rng):
                self._resources.append([start.resource])
                trial = self._history.add(config)
                self._start_run(TrialCreated(trial, config, start.bracket, start.resource))

    def _start_run(self, event: TrialCreated | TrialPromoted) -> None:
        self._scheduler.apply(event)
        self._waiting.append(RunId(event.trial, event.rung if isinstance(event, TrialPromoted) else 0))

    def _duration(self, run: RunId) -> float:
        before, after = [0, *self._resources[run.trial]][run.rung : run.rung + 2]
        (unit_time,) = self._curves.unit_times([self._history.configs[run.trial]])
        return float((after - before) * unit_time)

    def _end(self, run: RunId) -> None:
        resource = self._resources[run.trial][run.rung]
        value = float(self._curves.values([self._history.configs[run.trial]], resource)[0])
        self.best = min(self.best, value)
        if resource == self._curves.max_resource:
            self.best_full = min(self.best_full, value)
        self._scheduler.apply(RunFinished(run.trial, run.rung, Outcome.COMPLETED, value, resource))
        self._history.observe(run.trial, value, resource)


def time_to_target(name: str, method: str, *, seed: int, full: bool = False) -> float:
    """Virtual seconds until the target is reached, infinite if it is not within `MOST_TRIALS`.

    With `full`, at the full resource, and within `MOST_TRAININGS`.
    """
    curves = CURVES[name](seed)
    searcher, _, scheduler = method.partition("+")
    sweep = Sweep(
        curves,
        SCHEDULERS[scheduler](curves.max_resource),
        make_searcher(searcher, seed=seed, options={}),
        seed=seed,
    )
    goal = target(name, seed)
    most = MOST_TRAININGS * full_training(name, seed) if full else math.inf
    while (sweep.best_full if full else sweep.best) > goal:
        if sweep.trials > MOST_TRIALS or sweep.now > most:
            return math.inf
        sweep.step()
    return sweep.now


def target(name: str, seed: int) -> float:
    """The value that one in a thousand random configurations reaches at the full resource."""
    return _quantile(name, 0 if name.startswith("hartmann") else seed)


@cache
def full_training(name: str, seed: int) -> float:
    """Seconds that a full training of the median configuration takes."""
    curves = CURVES[name](seed)
    times = curves.unit_times(curves.space.sample(1000, default_rng(0)))
    return curves.max_resource * float(np.median(times))


@cache
def _quantile(name: str, seed: int) -> float:
    curves = CURVES[name](seed)
    configs = curves.space.sample(DRAWS, default_rng(0))
    return float(np.quantile(curves.values(configs, curves.max_resource), GOOD))
