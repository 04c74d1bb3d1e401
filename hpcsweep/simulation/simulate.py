"""Runs one sweep on a simulated cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcsweep.cluster.simulated.cluster import EPOCH_S
from hpcsweep.cluster.simulated.training import Curve
from hpcsweep.core.events import AnyEvent, RunFinished
from hpcsweep.core.state import SweepState
from hpcsweep.session.session import Session, make_compactor
from hpcsweep.session.validation import check_folder
from hpcsweep.simulation.recorder import Recorder, SimulationResult
from hpcsweep.simulation.target import simulated_target
from hpcsweep.spec import SweepSpec
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.results import new_results

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
