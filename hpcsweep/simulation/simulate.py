"""Runs one sweep on a simulated cluster and measures it: makespan, GPU-hours, idle share, best value."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hpcsweep.cluster.backend import options_of
from hpcsweep.cluster.simulated.backend import SimulatedBackend, SimulatedOptions, SimulatedSection
from hpcsweep.cluster.simulated.cluster import EPOCH_S, SimulatedCluster
from hpcsweep.cluster.simulated.task import Curve, UnitSeconds
from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.core.events import AnyEvent, Config, RunFinished
from hpcsweep.core.expressions import Expression
from hpcsweep.core.models import RunStatus
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.state import SweepState
from hpcsweep.driver import Driver
from hpcsweep.driver.loop import LOOK_S
from hpcsweep.errors import SpecError
from hpcsweep.session.preparation import check_folder
from hpcsweep.session.session import Session, make_compactor
from hpcsweep.session.target import Target, keeps_gpus, max_tasks, task_kinds
from hpcsweep.simulation.curves import RecordedCurves
from hpcsweep.spec import SweepSpec
from hpcsweep.store.batch import new_results
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.views.folder import best_of
from hpcsweep.views.front_history import Reference, first_keys, measured, reference_of
from hpcsweep.views.progress import SweepProgress, ValuesChange

#: Seconds per unit of resource if neither the spec nor recorded curves say.
UNIT_S = 10.0
#: Temporary folders are in memory if this much is free, as a simulation syncs many small files.
MEMORY_BYTES = 2**30
_MEMORY = Path("/dev/shm")


def simulate(
    spec: SweepSpec,
    curve: Curve,
    *,
    seed: int | None = None,
    folder: Path | None = None,
    compact: bool = True,
) -> SimulationResult:
    """Run a sweep in virtual time with the real driver, searcher and scheduler.

    Args:
        spec: The sweep; it runs on the simulated cluster whatever `cluster.name` is.
        curve: The values of the trials; see `curve_of`.
        seed: Seed of the searcher and of the site; `searcher.seed` if None.
        folder: The results folder; a temporary one if None. An unfinished sweep in it is resumed.
        compact: Compact finished trials in `folder`, as a real sweep does.

    Raises:
        SpecError: `cluster.simulated` is not valid, or no task fits it.
        FolderError: The folder cannot be used.
        SubmitRefused: A limit of the simulated site forbids it.
    """
    if seed is not None:
        spec = dataclasses.replace(spec, searcher=spec.searcher.model_copy(update={"seed": seed}))
    with _results_folder(folder) as results:
        state, layout = check_folder(spec, results), Layout(results)
        start = _latest_time(read_journal(layout).events) if state else EPOCH_S
        target, cluster = simulated_target(
            spec, curve, start=start, reached=_newest_checkpoints(state, layout)
        )
        recorder = Recorder(cluster)
        compactor = make_compactor if compact and folder is not None else None
        session = Session(spec, results, state=state, target=target)
        with session.open(clock=cluster.clock, compactor=compactor) as driver:
            cluster.reports = driver.scheduler.needs_reports
            if driver.state.ended is None:
                driver.run(recorder.tick)
            result = recorder.result(driver)
        if not spec.objectives.has_front:
            return result
        changes = tuple(SweepProgress.replay(read_journal(layout).events).values_changes)
    return by_hypervolume([msgspec.structs.replace(result, changes=changes)], spec.objectives)[1][0]


@contextlib.contextmanager
def _results_folder(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= MEMORY_BYTES
    with tempfile.TemporaryDirectory(prefix="hpcsweep-", dir=_MEMORY if memory else None) as temporary:
        yield Path(temporary)


def _latest_time(events: Sequence[AnyEvent]) -> float:
    """The time of the last event, in Unix seconds."""
    times = [at for event in events if isinstance(at := getattr(event, "at", None), float)]
    ends = [e.started + e.seconds for e in events if isinstance(e, RunFinished) and e.started is not None]
    return max([EPOCH_S, *times, *ends])


def _newest_checkpoints(state: SweepState | None, layout: Layout) -> dict[int, int]:
    """Trial -> step of its newest checkpoint, by its results, unread ones included."""
    if state is None:
        return {}
    steps = [(run.trial, run.step) for trial in state.trials for run in trial.runs]
    for batch in state.live:
        steps += [(result.trial, result.step) for _, result in new_results(layout.batch(batch), ())]
    return {trial: step for trial, step in sorted(steps) if step}


def simulated_target(
    spec: SweepSpec,
    curve: Curve,
    *,
    start: float = EPOCH_S,
    reached: Mapping[int, int] | None = None,
) -> tuple[Target, SimulatedCluster]:
    """The site of `cluster.simulated`; without `nodes` it is large enough for the spec's caps.

    Raises:
        SpecError: `cluster.simulated` is not valid, or no task fits a node.
    """
    section = spec.cluster
    reuse = keeps_gpus(spec, SimulatedBackend)
    shape = spec.task_shape(reuse=reuse)
    by_gpu = len(spec.kinds) > 1 and shape.gpus > 0
    cap = max_tasks(spec, shape)
    options = _options(spec, shape, cap, by_gpu=by_gpu)
    times: dict[str, Any] = {"settle_s": section.settle, "grace_s": section.grace}
    if section.poll is not None:
        times["poll_s"] = (section.poll, section.poll)
    cluster = SimulatedCluster(
        options,
        shape=shape,
        curve=curve,
        unit_seconds=_unit_seconds(options, curve),
        seed=spec.searcher.seed,
        start=start,
        reached=reached,
        look_s=LOOK_S if reuse else None,
        by_gpu=by_gpu,
        **{key: value for key, value in times.items() if value is not None},
    )
    kind = f"{options.gpus} GPUs" if shape.gpus else f"{options.places(shape)} CPU slots"
    why = f"{options.nodes} simulated nodes with {kind} each"
    kinds = task_kinds(spec, cluster, reuse=reuse, lanes=shape.lanes)
    if kinds:
        cap = max_tasks(spec, kinds[0])
    return Target("simulated", why, cluster, shape, reuse, cap, kinds, simulated=True), cluster


def _options(spec: SweepSpec, shape: TaskResources, cap: int | None, *, by_gpu: bool) -> SimulatedOptions:
    options = options_of(SimulatedSection, spec.cluster).site()
    places = options.places(shape)
    if places == 0:
        raise SpecError(
            f"cluster.simulated.gpus: must be at least the {shape.gpus} of one task, got {options.gpus}"
        )
    if options.nodes < shape.nodes and "nodes" in options.model_fields_set:
        raise SpecError(
            f"cluster.simulated.nodes: must be at least the {shape.nodes} of one task, got {options.nodes}"
        )
    if cap is None or "nodes" in options.model_fields_set:
        return options.model_copy(update={"nodes": max(options.nodes, shape.nodes)})
    nodes = -(-cap // places) * shape.nodes
    if by_gpu and spec.cluster.max_gpus is not None:  # small tasks may stand in the way of large ones
        nodes = -(-spec.cluster.max_gpus // (places * shape.gpus)) + shape.nodes
    return options.model_copy(update={"nodes": nodes})


def _unit_seconds(options: SimulatedOptions, curve: Curve) -> UnitSeconds:
    seconds = options.seconds_per_unit
    if isinstance(seconds, str):
        return _evaluate(Expression(seconds))
    if seconds is None and isinstance(curve, RecordedCurves):
        return lambda config: curve.unit_seconds(config) or UNIT_S
    constant = UNIT_S if seconds is None else float(seconds)
    return lambda config: constant


def _evaluate(expression: Expression) -> UnitSeconds:
    key = "cluster.simulated.seconds_per_unit"

    def seconds(config: Config) -> float:
        try:
            found = expression.number(config)
        except ValueError as error:
            raise SpecError(f"{key}: {error}") from None
        if found < 0:
            raise SpecError(f"{key}: must be >= 0, got {found:g} for {config}")
        return found

    return seconds


class SimulationResult(msgspec.Struct, frozen=True, kw_only=True):
    """One simulated sweep. Times are seconds since its start.

    A place is what one task takes: `gpus` GPUs, or one CPU slot; one GPU where tasks
    differ in that. `idle` is the share of all places
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
        values: The best value so far as `(seconds, value)`, one entry per improvement. With several
            objectives the hypervolume of the front.
        changes: With several objectives, when configurations had which values.
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
    changes: tuple[ValuesChange, ...] = ()

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
        found: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(self, changes=()))
        del found["changes"]
        return found | {"hours": self.hours, "value": self.value}


def by_hypervolume(
    results: Sequence[SimulationResult], objectives: Objectives
) -> tuple[Reference | None, list[SimulationResult]]:
    """The results with hypervolumes as their values, all up to the same reference point.

    Args:
        results: Of sweeps with these several objectives.
        objectives: Theirs.

    Returns:
        The reference point, None where no run of any gave values; and the results in their order.
    """
    keys = [key for result in results for key in first_keys(objectives, result.changes)]
    if not keys:
        return None, [msgspec.structs.replace(result, values=()) for result in results]
    reference = reference_of(objectives, keys)
    found = []
    for result in results:
        steps = measured(objectives, result.changes, reference).steps
        values = [(step.active_s, step.value) for step in steps]
        if result.changes and (not steps or steps[0].active_s > result.changes[0].active_s):
            values.insert(0, (result.changes[0].active_s, 0.0))  # nobody kept the bounds
        found.append(msgspec.structs.replace(result, values=tuple(values)))
    return reference, found


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
        if self._cluster.by_gpu:
            gpus, caps = 1, (self._cluster.total_gpus, driver.settings.max_gpus)
        else:
            gpus, caps = driver.settings.shape.total_gpus, (self._cluster.slots, driver.settings.max_tasks)
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
            gpus=gpus,
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
