"""Measures a simulated sweep: makespan, GPU-hours, idle share, best value over time."""

from __future__ import annotations

from typing import Any

import msgspec

from hpcsweep.cluster.simulated.cluster import SimulatedCluster
from hpcsweep.core.models import RunStatus
from hpcsweep.driver import Driver
from hpcsweep.views.folder import best_of


class SimulationResult(msgspec.Struct, frozen=True, kw_only=True):
    """One simulated sweep. Times are seconds since its start.

    A place is what one task takes: `gpus` GPUs, or one CPU slot. `idle` is the share of all places
    over the whole makespan in which no task ran. As the last rungs have fewer runs than there are
    places, `idle_filled` and `idle_started` give the share for the time before.

    Attributes:
        seed: The seed of the searcher and of the simulated site.
        ending: The outcome of the sweep, with its `reason`.
        places: Tasks that may run at a time, within the site's size and the spec's caps.
        gpus: GPUs of one task.
        makespan_s: From start to end, queue waits included.
        bound_s: Lower bound of the makespan: `busy_s / places`, or `chain_s` if that is longer.
        chain_s: The time of the longest trial; its runs must follow each other.
        busy_s: Total time of all tasks.
        filled_s: When the last trial started. After it only promotions and resumed runs fill places.
        started_s: When the last task started.
        idle_filled: The idle share before `filled_s`.
        idle_started: The idle share before `started_s`.
        interruptions: Interrupted tasks by cause: preempted, timeout, node_fail.
        best: Trial, value, resource and config; None without a value.
        values: The best value so far as `(seconds, value)`, one entry per improvement.
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
        """GPU-hours, or slot-hours if no GPU is used."""
        return self.busy_s * max(1, self.gpus) / 3600

    @property
    def value(self) -> float | None:
        """The best value at the end."""
        return self.values[-1][1] if self.values else None

    def value_at(self, seconds: float) -> float | None:
        """The best value at that time, None before the first result."""
        known = [value for when, value in self.values if when <= seconds]
        return known[-1] if known else None

    def time_to(self, target: float, *, minimise: bool) -> float | None:
        """When the best value first reached the target; None if never."""
        good = (when for when, value in self.values if (value <= target if minimise else value >= target))
        return next(good, None)

    def plain(self) -> dict[str, Any]:
        """All attributes with `hours` and `value`, JSON-able."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found | {"hours": self.hours, "value": self.value}


class Recorder:
    """Records the best value of a sweep over time, and measures the sweep at its end."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._start = cluster.clock.time()
        self._values: list[tuple[float, float]] = []

    def tick(self, driver: Driver) -> None:
        """Record the best value after a tick of the driver."""
        best = driver.state.best
        if best is not None and (not self._values or self._values[-1][1] != best.value):
            self._values.append((self._cluster.clock.time() - self._start, best.value))

    def result(self, driver: Driver) -> SimulationResult:
        """The measurements of the finished sweep."""
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
            ending=state.ended.outcome.value,
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
