"""One sweep on a simulated site, from its spec to what it took."""

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
from hpcsweep.session.session import check_folder, compactor, open_sweep
from hpcsweep.simulation.recorder import Recorder, SimulationResult
from hpcsweep.simulation.target import simulated_place
from hpcsweep.spec import SweepSpec
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.results import new_results

#: Temporary folders are in memory where so much of it is free: a simulation syncs many small files.
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
    """Run the sweep in virtual time, with its own searcher, scheduler and caps.

    Args:
        spec: Of the sweep; its cluster is the simulated one, whatever it names.
        curve: What the trials give; see `curve_of`.
        seed: Of the searcher and of the site; the searcher's own if None.
        folder: The results folder, to be kept; a temporary one if None. A sweep that it holds
            already is carried on.
        compact: Whether what has ended in a folder that is kept is compacted.

    Raises:
        SpecError: The spec, or what it says of the simulated site, makes no sense.
        FolderError: The folder cannot be used.
        SubmitRefused: A limit of the simulated site stands in the way.
    """
    if seed is not None:
        spec = dataclasses.replace(spec, searcher=spec.searcher.model_copy(update={"seed": seed}))
    with _results(folder) as results:
        state, layout = check_folder(spec, results), Layout(results)
        start = _latest(read_journal(layout).events) if state else EPOCH_S
        place, cluster = simulated_place(spec, curve, start=start, reached=_reached(state, layout))
        meter = Recorder(cluster)
        compacts = compactor if compact and folder is not None else None
        with open_sweep(spec, results, place, clock=cluster.clock, compacts=compacts) as driver:
            cluster.reports = driver.scheduler.watches
            if driver.state.ended is None:
                driver.run(meter.tick)
            return meter.measured(driver)


@contextlib.contextmanager
def _results(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= MEMORY_BYTES
    with tempfile.TemporaryDirectory(prefix="hpcsweep-", dir=_MEMORY if memory else None) as temporary:
        yield Path(temporary)


def _latest(events: Sequence[AnyEvent]) -> float:
    """The last time that anything is known to have happened."""
    times = [at for event in events if isinstance(at := getattr(event, "at", None), float)]
    ends = [e.started + e.seconds for e in events if isinstance(e, RunFinished) and e.started is not None]
    return max([EPOCH_S, *times, *ends])


def _reached(state: SweepState | None, layout: Layout) -> dict[int, int]:
    """The newest checkpoint of each trial, as far as results tell, those that nobody has read included."""
    if state is None:
        return {}
    steps = [(run.trial, run.step) for trial in state.trials for run in trial.runs]
    for batch in state.live:
        steps += [(result.trial, result.step) for _, result in new_results(layout.batch(batch), ())]
    return {trial: step for trial, step in sorted(steps) if step}
