"""Runs one sweep on a simulated cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcsweep.cluster.backend import options_of
from hpcsweep.cluster.simulated.backend import SimulatedOptions, SimulatedSection
from hpcsweep.cluster.simulated.cluster import EPOCH_S, SimulatedCluster
from hpcsweep.cluster.simulated.task import Curve, UnitSeconds
from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.core.events import AnyEvent, Config, RunFinished
from hpcsweep.core.expressions import Expression
from hpcsweep.core.state import SweepState
from hpcsweep.errors import SpecError
from hpcsweep.session.preparation import check_folder
from hpcsweep.session.session import Session, make_compactor
from hpcsweep.session.target import Target, max_tasks
from hpcsweep.simulation.curves import RecordedCurves
from hpcsweep.simulation.recorder import Recorder, SimulationResult
from hpcsweep.spec import SweepSpec
from hpcsweep.store.batch import new_results
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout

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
        place, cluster = simulated_target(
            spec, curve, start=start, reached=_newest_checkpoints(state, layout)
        )
        recorder = Recorder(cluster)
        compactor = make_compactor if compact and folder is not None else None
        session = Session(spec, results, state=state, target=place)
        with session.open(clock=cluster.clock, compactor=compactor) as driver:
            cluster.reports = driver.scheduler.needs_reports
            if driver.state.ended is None:
                driver.run(recorder.tick)
            return recorder.result(driver)


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

    Args:
        spec: The sweep; its seed is also that of the site.
        curve: The values of the trials.
        start: Unix seconds at which virtual time begins.
        reached: Trial -> step of its newest checkpoint, of an earlier session.

    Raises:
        SpecError: `cluster.simulated` is not valid, or no task fits a node.
    """
    section, shape = spec.cluster, spec.task_shape()
    cap = max_tasks(spec, shape)
    options = _options(spec, shape, cap)
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
        **{key: value for key, value in times.items() if value is not None},
    )
    kind = f"{options.gpus} GPUs" if shape.gpus else f"{options.places(shape)} CPU slots"
    why = f"{options.nodes} simulated nodes with {kind} each"
    return Target("simulated", why, cluster, shape, cap, simulated=True), cluster


def _options(spec: SweepSpec, shape: TaskResources, cap: int | None) -> SimulatedOptions:
    options = options_of(SimulatedSection, spec.cluster).site()
    places = options.places(shape)
    if places == 0:
        raise SpecError(
            f"cluster.simulated.gpus: must be at least the {shape.gpus} of one task, got {options.gpus}"
        )
    if cap is None or "nodes" in options.model_fields_set:
        return options
    return options.model_copy(update={"nodes": -(-cap // places)})


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
