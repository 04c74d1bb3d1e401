"""How fast results become tables: `python -m benchmarks.load`.

A results folder as a sweep of so many trials leaves it, 9 reports, a result and a log each, is written
by the store's own functions; nothing is trained. Then it is loaded into the three frames, in a process
of its own: from its raw files, and once more after it was compacted. Beside that stands how long pandas
takes for Parquet files of the same rows: one of the reports, and one of each of the other two frames.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from numpy.random import default_rng

from benchmarks.instant import PROGRAM, SPACE, STARTED, objective, peak_mib, result_of
from hpcsweep.core.events import (
    AnyEvent,
    BatchClosed,
    BatchPlanned,
    BatchSubmitted,
    Config,
    FilesCompacted,
    Outcome,
    RunFinished,
    RunId,
    SweepEnded,
    SweepOutcome,
    TrialCreated,
)
from hpcsweep.store.batch import Header, ManifestRun, Result, write_manifest, write_result
from hpcsweep.store.compaction import CleanUpPart, CompactableRun, WritePart, WriteTables
from hpcsweep.store.compaction.tracker import CompactionState
from hpcsweep.store.compaction.worker import run_compaction_task
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.run_files import MetricsWriter

if TYPE_CHECKING:
    import pandas as pd

REPORTS = 9
#: Tasks of one array.
TASKS = 1000
#: For 10,000 trials, to be reached.
MOST_RAW_S = 1.0
MOST_COMPACTED_S = 0.1


class Figures(msgspec.Struct, frozen=True):
    """What loading cost.

    Attributes:
        load_s: Of each repetition.
        parquet_s: Of Parquet files of the same rows, as pandas reads them: reports, and all three.
        peak_mib: Largest resident size of the process; `base_mib` before the first one.
    """

    load_s: list[float]
    parquet_s: tuple[float, float]
    peak_mib: float
    base_mib: float


# --------------------------------------------------------------------------- the folder


@contextmanager
def without_fsync() -> Iterator[None]:
    """What survives a power cut is not the matter here."""
    before = os.fsync
    os.fsync = lambda fd: None
    try:
        yield
    finally:
        os.fsync = before


def write_folder(layout: Layout, trials: int) -> None:
    """A sweep of so many trials that has ended, none of it compacted."""
    configs = SPACE.sample(trials, default_rng(0))
    journal = Journal.open(layout)
    journal.commit([STARTED])
    for first in range(0, trials, TASKS):
        name = f"bench-cafe01-1-{first // TASKS + 1}"
        journal.commit(_batch(layout, name, first, configs[first : first + TASKS]))
    journal.commit([SweepEnded(2_000_000.0, SweepOutcome.FINISHED, "all trials are done")])
    journal.release()


def _batch(layout: Layout, name: str, first: int, configs: Sequence[Config]) -> list[AnyEvent]:
    """One array: its files, and what the journal tells of it."""
    files = layout.batch(name)
    files.logs.mkdir(parents=True)
    runs = [
        ManifestRun(first + task, 0, 0, REPORTS, 0, seed=7, config=config)
        for task, config in enumerate(configs)
    ]
    write_manifest(files, Header(name, "cafe01", PROGRAM, gpus=1), ([run] for run in runs))
    files.script.write_text("#!/bin/bash\n")
    endings: list[AnyEvent] = []
    for task, run in enumerate(runs):
        writer = MetricsWriter(layout.trial(run.trial).metrics(0, 0, 0))
        for step in range(1, REPORTS + 1):
            writer.write(step, {"loss": objective(run.config, step), "seconds": 60.25})
        writer.close()
        result = result_of(run, task, f"4711_{task}")
        write_result(files, result, n=0)
        files.log(task).write_text(f"[hpcsweep] trial {run.trial}: from scratch to step {REPORTS}\n")
        endings.append(_run_finished(result, name))
    tasks = tuple((RunId(run.trial, 0),) for run in runs)
    return [
        *(TrialCreated(run.trial, run.config, 0, REPORTS) for run in runs),
        BatchPlanned(name, 1_000_000.0, tasks, gpus=1, throttle=64, cluster="slurm", time_s=1800),
        BatchSubmitted(name, "4711", 1_000_000.0),
        *endings,
        BatchClosed(name),
    ]


def _run_finished(result: Result, batch: str) -> RunFinished:
    return RunFinished(
        result.trial,
        result.rung,
        Outcome.COMPLETED,
        value=result.value,
        step=result.step,
        batch=batch,
        task=result.task,
        seconds=result.seconds,
        gpu_seconds=result.gpu_seconds,
        started=result.started,
        node=result.node,
        job=result.job,
    )


def compact(layout: Layout) -> float:
    """All of it, as a driver has it done at the end of a sweep; seconds."""
    began = time.perf_counter()
    journal = Journal.open(layout)
    journal.acquire()
    packing = CompactionState.replay(journal.events)
    runs = tuple(CompactableRun(run.trial, run.rung, 0, 0) for run in packing.ready)
    order = WritePart(f"{journal.number:06d}-1", runs, tuple(packing.batches))
    answer = run_compaction_task(layout, order, now=time.time())
    journal.commit([FilesCompacted(order.part, answer.runs, order.batches)])
    run_compaction_task(layout, CleanUpPart(order.part), now=time.time())
    run_compaction_task(layout, WriteTables(), now=time.time())
    journal.release()
    return time.perf_counter() - began


def count_files(root: Path) -> int:
    """Files below the folder."""
    return sum(len(names) for _, _, names in os.walk(root))


# --------------------------------------------------------------------------- loading


def measure(root: Path, repeats: int) -> Figures:
    """Load the folder in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.load", "--load", str(root), "--repeats", str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return msgspec.json.decode(done.stdout, type=Figures)


def _load(root: Path, repeats: int) -> Figures:
    """Imports are done before the clock starts."""
    import pandas as pd
    import pyarrow.compute
    import pyarrow.parquet

    pyarrow.compute.add(1, 1)
    with tempfile.TemporaryDirectory() as folder:
        tiny = Path(folder) / "tiny.parquet"
        pd.DataFrame({"a": [1.0], "b": ["x"]}).to_parquet(tiny)
        pd.read_parquet(tiny)
        base = peak_mib()
        load_s = [_seconds(lambda: _frames(root)) for _ in range(repeats)]
        peak = peak_mib()
        files = []
        for number, frame in enumerate(_frames(root)):
            files.append(Path(folder) / f"{number}.parquet")
            frame.to_parquet(files[-1], index=False)
        reports_s, *rest_s = [
            statistics.median(_seconds(lambda: pd.read_parquet(file)) for _ in range(5))  # noqa: B023
            for file in files
        ]
    return Figures(load_s, (reports_s, reports_s + sum(rest_s)), peak, base)


def _frames(root: Path) -> tuple[pd.DataFrame, ...]:
    from hpcsweep import load

    results = load(root)
    return results.metrics, results.trials, results.runs


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def format_line(what: str, figures: Figures, target_s: float | None) -> str:
    """One line of the report."""
    aim = "" if target_s is None else f" (at most {target_s:g} s)"
    return (
        f"  {what:<17}{statistics.median(figures.load_s):7.3f} s{aim:<18}"
        f"{figures.peak_mib - figures.base_mib:8.0f} MiB beyond the imports"
    )


def report(trials: int, folder: Path, *, repeats: int) -> None:
    """Write, load, compact and load again; print."""
    layout = Layout(folder)
    with without_fsync():
        write_folder(layout, trials)
    small = trials <= 10_000
    files = count_files(folder)
    raw = measure(folder, repeats if small else 1)
    with without_fsync():
        took = compact(layout)
    compacted = measure(folder, repeats)
    left = count_files(folder)
    one, three = compacted.parquet_s
    print(f"{trials:,} trials x {REPORTS} reports")
    print(format_line("from raw files", raw, MOST_RAW_S if small else None) + f", {files:,} files")
    print(format_line("compacted", compacted, MOST_COMPACTED_S if small else None) + f", {left} files")
    print(f"  {'Parquet by pandas':<17}{one:7.3f} s  reports alone, {three:.3f} s with trials and runs")
    print(f"  {'compacting':<17}{took:7.1f} s", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--trials", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.load is not None:
        print(json.dumps(msgspec.to_builtins(_load(options.load, options.repeats))))
        return
    for trials in options.trials:
        with tempfile.TemporaryDirectory(prefix="hpcsweep-load-") as folder:
            report(trials, Path(folder), repeats=options.repeats)


if __name__ == "__main__":
    main(sys.argv[1:])
