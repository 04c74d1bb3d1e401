"""Tasks that keep their GPUs on a real Slurm cluster: `python -m benchmarks.slurm_reuse`.

A private cluster of 16 GPUs is started on this machine (as root, with Debian's slurmctld, slurmd,
slurm-client and munge), and real sweeps run there:

- `waits`: each job waits 20 s in the queue. Hyperband up to 81 with a free objective on 8 GPUs, with tasks
  that keep their GPUs and with one run a task.
- `short`: 1,000 trials of one second on 16 tasks: for how much of their time the tasks train, and what is
  asked of Slurm meanwhile.
- `detached`: 200 trials of one second on 8 tasks that drive the sweep themselves.

All processes share the cores of this machine. Where starting Python for each run takes all of them, that is
the limit, and the share of the machine's CPU time that was used tells so.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from hpcsweep.core.events import BatchSubmitted, RunFinished, SweepEnded, TaskBegan, TaskLeft
from hpcsweep.spec.models import Train
from tests.driver.sweeps import TABLE_81, rung_table
from tests.slurm.fixture import PrivateSlurm, missing
from tests.slurm.sweeps import Sweep, finish, wait_until

#: How long each job waits in the queue at least.
WAIT_S: Final = 20
#: A sweep may take so much longer than its runs.
MOST_BEYOND_RUNS_S: Final = 60.0
MOST_ARRAYS: Final = 3
#: Of trials of one second: share of the tasks' time, calls of sbatch, of squeue in any 5 s, files of a trial.
LEAST_BUSY: Final = 0.8
MOST_SBATCH: Final = 20
POLL_S: Final = 5.0
#: How often files are counted.
SAMPLE_S: Final = 10.0
#: From so many trials on: all tasks have begun.
FIRST_COUNT: Final = 100
MOST_FILES: Final = 2.0

TRAINER: Final = """\
import time

def train(trial):
    for step in trial.steps():
        time.sleep(trial.config["pause"])
        trial.report(step, loss=(trial.config["x"] - 0.3) ** 2 + 1 / step)
"""
Scene = Callable[[PrivateSlurm, Path], None]
#: Of the sweeps that the tests share only the time between polls is another one: the product's own.
COMMON: Final = ("cluster.poll=null",)


class Calls:
    """When a sweep called programs of Slurm, by wrappers on its PATH."""

    def __init__(self, sweep: Sweep, *programs: str) -> None:
        self._logs = {program: sweep.folder / f"{program}.calls" for program in programs}
        for program, log in self._logs.items():
            sweep.put_before(program, f'echo $EPOCHREALTIME >>{log}\nexec "$real" "$@"\n')

    def times(self, program: str) -> list[float]:
        """Unix times, in order."""
        log = self._logs[program]
        return sorted(float(line) for line in log.read_text().split()) if log.exists() else []

    def most_within(self, program: str, seconds: float) -> int:
        """The largest number of calls within so many seconds."""
        times = self.times(program)
        return max((sum(since <= at < since + seconds for at in times) for since in times), default=0)


class FileCount:
    """How many files each further trial left while nothing was compacted yet."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        #: Trials and files of some moments.
        self._counts: list[tuple[int, int]] = []

    @property
    def for_each_trial(self) -> float:
        """NaN if there were too few moments to tell."""
        if not self._counts:
            return math.nan
        (before, few), (trials, many) = self._counts[0], max(self._counts, key=lambda each: each[1])
        # Of fewer trials what is under way at these two moments would tell most.
        return (many - few) / (trials - before) if trials - before >= 2 * FIRST_COUNT else math.nan

    def __enter__(self) -> FileCount:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        folders = self._root / "trials", self._root / "batches"
        while not self._over.wait(SAMPLE_S):
            trials = sum(1 for _ in folders[0].glob("*/*"))
            if trials >= FIRST_COUNT:
                files = sum(len(names) for folder in folders for _, _, names in os.walk(folder))
                self._counts.append((trials, files))


class Usage(NamedTuple):
    """CPU time of the machine: used, and all of it, in seconds of one core."""

    used: float
    total: float

    @classmethod
    def now(cls) -> Usage:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        return cls((sum(ticks) - ticks[3] - ticks[4]) / 100, sum(ticks) / 100)


@contextmanager
def cpu_share(shares: list[float]) -> Iterator[None]:
    """Appends the share of the machine's CPU time that was used during the block."""
    before = Usage.now()
    yield
    after = Usage.now()
    shares.append((after.used - before.used) / (after.total - before.total))


def verdict(holds: bool) -> str:
    return "reached" if holds else "NOT REACHED"


# --------------------------------------------------------------------------- waits in the queue


def waits(slurm: PrivateSlurm, folder: Path) -> None:
    """Both ways with jobs that wait; the one with one run a task waits anew for each rung."""
    print(f"Hyperband up to 81, a free objective, 8 GPUs; each job waits {WAIT_S} s")
    for reuse in (True, False):
        options = (f"cluster.options={{begin: now+{WAIT_S}}}", f"cluster.reuse={str(reuse).lower()}")
        with Sweep(slurm, folder / f"{reuse}", *COMMON, *options, max_resource=81, max_gpus=8) as sweep:
            began = time.monotonic()
            finish(sweep.launch(), timeout_s=3600)
            wall_s = time.monotonic() - began
            runs = sweep.runs
            exact = rung_table(runs) == TABLE_81 and len(sweep.of_kind(RunFinished)) == 206
            arrays = len(sweep.of_kind(BatchSubmitted))
            own_s = float(runs["seconds"].sum()) / 8
        print(
            f"  {'keeps its GPUs' if reuse else 'one run a task':<16}{wall_s:7.1f} s, of which the runs' own "
            f"{own_s:.1f} s; {len(runs)} runs, {'exact rungs' if exact else 'WRONG RUNGS'}, {arrays} arrays",
            flush=True,
        )
        if reuse:
            print(f"  at most {MOST_BEYOND_RUNS_S:g} s more: {verdict(wall_s - own_s <= MOST_BEYOND_RUNS_S)}")
            print(f"  at most {MOST_ARRAYS} arrays: {verdict(arrays <= MOST_ARRAYS)}")


# --------------------------------------------------------------------------- short runs


def report_short(sweep: Sweep, calls: Calls, *, train_s: float, cpu: float, wall_s: float) -> float:
    """Print what tasks and programs did; the share of their time for which tasks trained."""
    left = {(event.batch, event.task, event.restart): event.left for event in sweep.of_kind(TaskLeft)}
    (end,) = sweep.of_kind(SweepEnded)
    held_s = sum(
        left.get((event.batch, event.task, event.restart), end.at) - event.started
        for event in sweep.of_kind(TaskBegan)
    )
    finished = sweep.of_kind(RunFinished)
    runs_s = sum(event.seconds for event in finished)
    tasks = len({(event.batch, event.task) for event in sweep.of_kind(TaskBegan)})
    print(
        f"  {len(finished)} runs on {tasks} tasks in {wall_s:.0f} s: of the tasks' time "
        f"{100 * train_s / held_s:.0f} % in training, {100 * runs_s / held_s:.0f} % in runs and their start; "
        f"{100 * cpu:.0f} % of the machine's CPU time used"
    )
    print(f"  sbatch {len(calls.times('sbatch'))}, squeue {len(calls.times('squeue'))}", end="")
    print(f" (at most {calls.most_within('squeue', POLL_S)} within {POLL_S:g} s)", flush=True)
    return train_s / held_s


def short(slurm: PrivateSlurm, folder: Path, *, trials: int, tasks: int, warm: str = "") -> None:
    """Trials of one second, while `launch` stays."""
    print(f"{trials:,} trials of one second on {tasks} tasks" + (f", train.warm: {warm}" if warm else ""))
    fifo = ("scheduler={name: fifo, max_resource: 1}", f"budget.trials={trials}")
    options = (*COMMON, "cluster.reuse=true", *fifo, *([f"train.warm={warm}"] if warm else []))
    with Sweep(slurm, folder, *options, max_gpus=tasks, pause=1.0, trainer=TRAINER) as sweep:
        calls, cpu = Calls(sweep, "sbatch", "squeue"), list[float]()
        began = time.monotonic()
        with FileCount(sweep.root) as files, cpu_share(cpu):
            finish(sweep.launch(), timeout_s=3600)
        wall_s = time.monotonic() - began
        wait_until("its tasks have left", lambda: not slurm.squeue(states="pending,running,completing"))
        busy = report_short(sweep, calls, train_s=float(trials), cpu=cpu[0], wall_s=wall_s)
        left = files.for_each_trial
        if not math.isnan(left):
            aim = verdict(round(left, 1) <= MOST_FILES)
            print(f"  {left:.2f} files left by each trial before compaction, at most {MOST_FILES:g}: {aim}")
        print(f"  busy for {LEAST_BUSY:.0%}: {verdict(busy >= LEAST_BUSY)}")
        print(f"  at most {MOST_SBATCH} sbatch: {verdict(len(calls.times('sbatch')) <= MOST_SBATCH)}")
        one = calls.most_within("squeue", POLL_S) <= 1
        print(f"  at most one squeue in {POLL_S:g} s: {verdict(one)}", flush=True)


def detached(slurm: PrivateSlurm, folder: Path, *, trials: int = 200, tasks: int = 8) -> None:
    """Trials of one second, driven by their own tasks."""
    print(f"{trials} trials of one second on {tasks} tasks, detached")
    fifo = ("scheduler={name: fifo, max_resource: 1}", f"budget.trials={trials}")
    options = (*COMMON, "cluster.reuse=true", *fifo)
    with Sweep(slurm, folder, *options, max_gpus=tasks, pause=1.0, trainer=TRAINER) as sweep:
        calls, cpu = Calls(sweep, "sbatch", "squeue"), list[float]()
        began = time.monotonic()
        with cpu_share(cpu):
            sweep.launch("--detach").communicate(timeout=120)
            wait_until("it has ended", lambda: bool(sweep.of_kind(SweepEnded)), 3600)
        wall_s = time.monotonic() - began
        wait_until("its jobs are over", lambda: not slurm.squeue(states="pending,running,completing"))
        report_short(sweep, calls, train_s=float(trials), cpu=cpu[0], wall_s=wall_s)
        print(f"  at most one squeue in {POLL_S:g} s: {verdict(calls.most_within('squeue', POLL_S) <= 1)}")
        print((sweep.root / "ticks.log").read_text(), end="", flush=True)


def scenes(
    *, trials: int, tasks: Sequence[int]
) -> Iterator[tuple[str, Callable[[PrivateSlurm, Path], None]]]:
    """What can be played, by name."""
    yield "waits", waits
    for number in tasks:
        for warm in ("auto", "false") if "warm" in Train.model_fields else ("",):
            yield "short", partial(short, trials=trials, tasks=number, warm=warm)
    yield "detached", detached


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.slurm_reuse",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help="waits, short, detached; by default all")
    parser.add_argument("--trials", type=int, default=1000, help="of the scene short")
    parser.add_argument("--tasks", type=int, nargs="+", default=[16, 4], help="of the scene short")
    request = parser.parse_args(arguments)
    lack = missing()
    if lack is not None:
        sys.exit(lack)
    slurm = PrivateSlurm()
    slurm.start()
    try:
        for name, scene in scenes(trials=request.trials, tasks=request.tasks):
            if not request.scenes or name in request.scenes:
                with tempfile.TemporaryDirectory(prefix="hpcsweep-slurm-reuse-") as folder:
                    scene(slurm, Path(folder))
    finally:
        slurm.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
