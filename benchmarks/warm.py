"""What a run costs with and without a warm process: `python -m benchmarks.warm`.

One worker that keeps its GPUs is given runs that train nothing, of a module that imports `--module`. CPU
time is that of the worker and all its processes, from one worker each way.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from hpcsweep.core.outcomes import Outcome
from hpcsweep.store.assignments import Assignment, StartId, request_leave, write_assignment
from hpcsweep.store.batch import Header, ManifestRun, Program, Reuse, new_results, write_manifest
from hpcsweep.store.layout import BatchLayout, Layout

START = StartId(0, 0)


class Cost(NamedTuple):
    """Seconds for each run."""

    cpu_s: float
    wall_s: float


def measure(folder: Path, module: str, *, runs: int, warm: bool) -> Cost:
    """Give so many runs to one worker."""
    folder.mkdir()
    code = folder / "train.py"
    code.write_text(f"import {module}\n\n\ndef train(trial):\n    return trial.id\n")
    batch = BatchLayout(Layout(folder / "results").batch("b").root)
    batch.root.mkdir(parents=True)
    program = Program(workdir=str(folder), metric="loss", function=f"{code}:train", warm=warm)
    write_manifest(batch, Header("b", "s", program, gpus=0, reuse=Reuse(60.0)), [()])
    for number in range(runs):
        run = ManifestRun(number, rung=0, bracket=0, resource=1, attempt=0, seed=0, config={})
        write_assignment(batch, START, number, Assignment(run))
    request_leave(batch, START)
    began = time.perf_counter()
    worker = subprocess.Popen(
        [sys.executable, "-m", "hpcsweep.worker", str(batch.root), "--task", "0"], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(worker.pid, 0)
    worker.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - began
    results = [result for _, result in new_results(batch, ())]
    assert worker.returncode == 0
    assert [result.outcome for result in results] == [Outcome.COMPLETED] * runs
    if warm:  # which it was
        print(batch.assigned_log(0, 0, runs - 1).read_text().splitlines()[1])
    return Cost((usage.ru_utime + usage.ru_stime) / runs, wall / runs)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.warm", description=__doc__)
    parser.add_argument("--module", default="torch", help="what training code imports")
    parser.add_argument("--runs", type=int, default=20, help="runs each way")
    options = parser.parse_args()
    print(f"import {options.module}, {options.runs} runs one after another")
    with tempfile.TemporaryDirectory(prefix="hpcsweep-warm-") as folder:
        measure(Path(folder) / "caches", options.module, runs=1, warm=False)  # byte code, page cache
        fresh = measure(Path(folder) / "fresh", options.module, runs=options.runs, warm=False)
        warm = measure(Path(folder) / "warm", options.module, runs=options.runs, warm=True)
    for name, cost in (("fresh", fresh), ("warm", warm)):
        print(f"{name}: {cost.cpu_s:.3f} CPU seconds and {cost.wall_s:.3f} seconds for each run")
    print(
        f"fresh / warm: {fresh.cpu_s / warm.cpu_s:.1f} in CPU time, {fresh.wall_s / warm.wall_s:.1f} in time"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
