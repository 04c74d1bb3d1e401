"""What a simulated sweep took: makespan, GPU-hours, idle share, the best value over time."""

from __future__ import annotations

from typing import Any

import msgspec

from hpcsweep.cluster.simulated.cluster import SimulatedCluster
from hpcsweep.core.models import RunStatus
from hpcsweep.driver import Driver
from hpcsweep.views.folder import best_of


class SimulationResult(msgspec.Struct, frozen=True, kw_only=True):
    """One simulated sweep. Times count from its start, in seconds.

    A place is what one task takes: `gpus` GPUs, or one CPU slot if that is 0. `idle` is the share
    of all places and of the whole makespan in which no task ran. Towards its end a sweep has less
    to do than places: nothing is left to start but what waits for results. So the share is told
    for two parts of it too.

    Attributes:
        seed: Of the searcher and of the site.
        ending: The sweep's state at its end, with the `reason`.
        places: Tasks that may run at a time: what the site has and the spec allows.
        gpus: GPUs of one task.
        makespan_s: From the start to the end of the sweep, waits and polls included.
        bound_s: No packing is quicker: the busy time divided by the places, or the longest chain.
        chain_s: The longest chain of runs that must follow each other: those of one trial.
        busy_s: Seconds that tasks ran, all together.
        filled_s: When the last trial began: from then on only runs that wait for the results of
            others, or go on after an interruption, are left to fill places.
        started_s: When the last task began: from then on nothing is left to start.
        idle_filled: The idle share until `filled_s`; `idle_started` until `started_s`.
        interruptions: Of tasks, by what: preempted, timeout, node_fail.
        best: Trial, value, resource and config; None without a value.
        values: The best value so far as `(seconds, value)`, at each time that it changed.
    """

    seed: int
    ending: str
    reason: str
    places: int
    gpus: int
    makespan_s: float
    bound_s: float
    chain_s: float
    busy_s: float
    filled_s: float
    started_s: float
    idle: float
    idle_filled: float
    idle_started: float
    trials: int
    runs: int
    failures: int
    interruptions: dict[str, int]
    best: dict[str, Any] | None
    values: tuple[tuple[float, float], ...]

    @property
    def hours(self) -> float:
        """GPU-hours, or slot-hours where no GPU is used."""
        return self.busy_s * max(1, self.gpus) / 3600

    @property
    def value(self) -> float | None:
        """The best value at the end."""
        return self.values[-1][1] if self.values else None

    def value_at(self, seconds: float) -> float | None:
        """The best value at that time, None before the first one."""
        known = [value for when, value in self.values if when <= seconds]
        return known[-1] if known else None

    def time_to(self, target: float, *, minimise: bool) -> float | None:
        """When it had first a value as good as the target; None if never."""
        good = (when for when, value in self.values if (value <= target if minimise else value >= target))
        return next(good, None)

    def plain(self) -> dict[str, Any]:
        """JSON-able, with what is computed."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found | {"hours": self.hours, "value": self.value}


class Recorder:
    """Watches a driver on a simulated site, from its start."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._start = cluster.clock.time()
        self._values: list[tuple[float, float]] = []

    def tick(self, driver: Driver) -> None:
        """Take note of the best value."""
        best = driver.state.best
        if best is not None and (not self._values or self._values[-1][1] != best.value):
            self._values.append((self._cluster.clock.time() - self._start, best.value))

    def measured(self, driver: Driver) -> SimulationResult:
        """What it took, now that the sweep has ended."""
        state, usage = driver.state, self._cluster.usage
        assert state.ended is not None
        caps = (self._cluster.slots, driver.settings.max_tasks)
        places = min(cap for cap in caps if cap is not None)
        makespan_s = self._cluster.clock.time() - self._start
        busy_s = usage.task_seconds(self._start + makespan_s)
        chain_s = max((sum(run.seconds for run in trial.runs) for trial in state.trials), default=0.0)
        filled_s, started_s = usage.last_first - self._start, usage.last_start - self._start

        def idle(until_s: float) -> float:
            return 1 - usage.task_seconds(self._start + until_s) / (places * until_s) if until_s else 0.0

        return SimulationResult(
            seed=driver.settings.seed,
            ending=state.ended.ending.value,
            reason=state.ended.reason,
            places=places,
            gpus=driver.settings.shape.gpus,
            makespan_s=makespan_s,
            bound_s=max(busy_s / places, chain_s),
            chain_s=chain_s,
            busy_s=busy_s,
            filled_s=filled_s,
            started_s=started_s,
            idle=idle(makespan_s),
            idle_filled=idle(filled_s),
            idle_started=idle(started_s),
            trials=len(state.trials),
            runs=sum(len(trial.runs) for trial in state.trials),
            failures=state.counts[RunStatus.FAILED],
            interruptions={phase.value: count for phase, count in self._cluster.ends.items()},
            best=best_of(state),
            values=tuple(self._values),
        )
