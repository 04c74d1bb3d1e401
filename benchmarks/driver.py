"""What the driver costs: `python -m benchmarks.driver`.

Sweeps of 100, 1,000 and 10,000 trials are driven from their start to their end in a temporary
folder, on a cluster that answers at once. Counted is all that the driver does: asking, deciding,
the journal with its fsyncs, manifests, reading results. Not counted: importing the package, and
the stand-in for the cluster and its workers. Each sweep has a process of its own, so that its peak
memory is its own; it drives a small sweep first, so that what is done once in a process is not
taken for the cost of the first trials.

The cost of the first and of the last thousand trials is what their runs cost to decide, plan and
submit, and what they cost to read and count once they have ended. An fsync takes CPU time too, more
or less of it as the disk is busy: where the ratio scatters, `--folder /dev/shm` shows the driver alone.

Files are what the driver and the workers' results leave; the batch script, logs, metrics and
checkpoints belong to the cluster and to the training code, and come on top.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.instant import PROGRAM, SHAPE, SPACE, STARTED, Clock, InstantCluster, peak_mib
from hpcsweep.core.events import AnyEvent, RunFinished, TrialCreated, TrialPromoted
from hpcsweep.core.protocols import Scheduler
from hpcsweep.driver import Driver, DriverConfig
from hpcsweep.schedulers.fifo import Fifo
from hpcsweep.schedulers.synchronous import Hyperband
from hpcsweep.searchers.random import Random
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout

SIZES = (100, 1_000, 10_000)
SLOTS = 64
#: Trials whose cost is compared at both ends of the longest sweep.
WINDOW = 1_000
#: To be reached at the largest size.
MOST_CPU_MS = 1.0
MOST_GROWTH = 1.3


def fifo_ahead(trials: int) -> Scheduler:
    """As the driver uses it with random search: arrays far larger than the free slots."""
    return Fifo(max_resource=9, trials=trials, ahead=True)


def fifo(trials: int) -> Scheduler:
    """As the driver uses it with a searcher that learns: never more trials than free slots."""
    return Fifo(max_resource=9, trials=trials, ahead=False)


def hyperband(trials: int) -> Scheduler:
    """As many iterations of Hyperband as come nearest to so many trials, at least one."""
    started = sum(ladder.sizes[0] for ladder in Hyperband(max_resource=81).plan().brackets)
    return Hyperband(max_resource=81, iterations=max(1, round(trials / started)))


class Shape(NamedTuple):
    """A kind of sweep; `per_poll` tasks end between two ticks, None for all that are submitted."""

    name: str
    scheduler: Callable[[int], Scheduler]
    per_poll: int | None


SHAPES = {
    "random": Shape("random search, fifo, arrays of 1,000, all end at once", fifo_ahead, None),
    "hyperband": Shape("Hyperband R=81 eta=3 repeated, all end at once", hyperband, None),
    "trickle": Shape(f"random search, fifo, {SLOTS} slots, 16 end between two ticks", fifo, 16),
    "trickle-arrays": Shape("random search, fifo, arrays of 1,000, 16 end between two ticks", fifo_ahead, 16),
    "trickle-hyperband": Shape(f"Hyperband repeated, {SLOTS} slots, 16 end between two ticks", hyperband, 16),
}


class Figures(msgspec.Struct, frozen=True):
    """What one sweep cost.

    Attributes:
        cpu_s: Of the driver, user and system; `wall_s` with the waits for the disk.
        peak_mib: Largest resident size of the process; `base_mib` before the sweep.
        files: Left in the results folder; of them `results` by the workers.
        growth: Cost of the last thousand trials to that of the first; None for a short sweep.
    """

    trials: int
    runs: int
    ticks: int
    cpu_s: float
    wall_s: float
    stand_in_s: float
    peak_mib: float
    base_mib: float
    files: int
    results: int
    growth: float | None

    @property
    def cpu_ms(self) -> float:
        """CPU time per trial."""
        return 1000 * self.cpu_s / self.trials

    @property
    def wall_ms(self) -> float:
        """Wall time per trial."""
        return 1000 * self.wall_s / self.trials


class Curve:
    """Cost spent until so many runs were through: points `(runs, seconds)`, straight between them."""

    def __init__(self) -> None:
        self._points = [(0, 0.0)]

    def add(self, runs: int, seconds: float) -> None:
        """`runs` more were through, for `seconds` more."""
        before = self._points[-1]
        self._points.append((before[0] + runs, before[1] + seconds))

    def at(self, runs: int) -> float:
        """Seconds spent until so many were through."""
        index = next(i for i, point in enumerate(self._points) if point[0] >= runs)
        if index == 0:
            return self._points[0][1]
        (x0, y0), (x1, y1) = self._points[index - 1], self._points[index]
        return y0 + (y1 - y0) * (runs - x0) / (x1 - x0)

    @property
    def end(self) -> tuple[int, float]:
        """All runs, and what all of it cost."""
        return self._points[-1]

    def first_and_last(self, window: int) -> tuple[float, float]:
        """Cost of the first and of the last `window` runs."""
        runs, seconds = self.end
        return self.at(window), seconds - self.at(runs - window)


class Recorder:
    """Watches a driver: splits each tick into what ended runs cost and what new runs cost."""

    def __init__(self, cluster: InstantCluster) -> None:
        self.decided = Curve()
        self.ended = Curve()
        self.ticks = 0
        self._cluster = cluster
        self._new = self._over = 0
        self._mark = self._now()
        self._split = self._mark

    def event(self, event: AnyEvent) -> None:
        """Take note of an event that has just been committed and applied."""
        match event:
            case RunFinished():
                self._over += 1
                self._split = self._now()
            case TrialCreated() | TrialPromoted():
                self._new += 1
            case _:
                pass

    def tick(self, _: Driver) -> None:
        """Take note of a tick: results come first in it, decisions after them."""
        self.ticks += 1
        now = self._now()
        split = self._split if self._new else now
        self.ended.add(self._over, split - self._mark)
        self.decided.add(self._new, now - split)
        self._new = self._over = 0
        self._mark = self._split = now

    def growth(self, runs: int) -> float:
        """Cost of the last so many runs to that of the first."""
        pairs = [curve.first_and_last(runs) for curve in (self.decided, self.ended)]
        return sum(last for _, last in pairs) / sum(first for first, _ in pairs)

    def _now(self) -> float:
        return time.process_time() - self._cluster.cpu_s


def drive(folder: Path, shape: Shape, trials: int) -> Figures:
    """Drive one sweep to its end."""
    cluster = InstantCluster(per_poll=shape.per_poll)
    base_mib = peak_mib()
    meter = Recorder(cluster)
    wall, cpu = time.perf_counter(), time.process_time()
    layout = Layout(folder)
    journal = Journal.open(layout)
    driver = Driver(
        layout=layout,
        journal=journal,
        space=SPACE,
        searcher=Random(),
        scheduler=shape.scheduler(trials),
        cluster=cluster,
        clock=Clock(),
        settings=DriverConfig(
            name="bench", cluster="instant", program=PROGRAM, shape=SHAPE, seed=1, max_tasks=SLOTS
        ),
        observers=[meter.event],
    )
    driver.start(STARTED)
    driver.run(meter.tick)
    journal.release()
    cpu_s = time.process_time() - cpu - cluster.cpu_s
    wall_s = time.perf_counter() - wall - cluster.wall_s
    created, runs = len(driver.state.trials), meter.ended.end[0]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return Figures(
        trials=created,
        runs=runs,
        ticks=meter.ticks,
        cpu_s=cpu_s,
        wall_s=wall_s,
        stand_in_s=cluster.wall_s,
        peak_mib=peak_mib(),
        base_mib=base_mib,
        files=len(files),
        results=sum(path.parent.name == "results" for path in files),
        growth=meter.growth(WINDOW * runs // created) if created >= 2 * WINDOW else None,
    )


def drive_alone(name: str, trials: int, folder: str | None) -> Figures:
    """Drive it in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.driver", "--alone", name, "--sizes", str(trials)]
    if folder is not None:
        command += ["--folder", folder]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return msgspec.json.decode(done.stdout, type=Figures)


def format_verdict(value: float, most: float) -> str:
    """Whether a figure that must not be above `most` is reached."""
    return f"at most {most:g}: {'reached' if value <= most else 'NOT REACHED'}"


def format_median(values: Sequence[float]) -> str:
    """The median, with the range where there are several."""
    spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"{statistics.median(values):.2f}{spread}"


def print_figures(name: str, sizes: Sequence[int], repeat: int, folder: str | None) -> bool:
    """Measure and print one shape; whether everything is reached at the largest size."""
    print(f"\n{SHAPES[name].name}")
    print(
        f"{'trials':>8} {'runs':>7} {'ticks':>6} {'CPU ms':>8} {'wall ms':>8} {'peak MiB':>9} "
        f"{'above start':>11} {'files':>7} {'driver’s':>8}   (ms and files per trial)"
    )
    reached = True
    for size in sizes:
        found = [drive_alone(name, size, folder) for _ in range(repeat)]
        found.sort(key=lambda figures: figures.cpu_s)
        one = found[len(found) // 2]
        print(
            f"{one.trials:>8,} {one.runs:>7,} {one.ticks:>6,} {one.cpu_ms:>8.3f} {one.wall_ms:>8.3f} "
            f"{one.peak_mib:>9.1f} {one.peak_mib - one.base_mib:>11.1f} {one.files / one.trials:>7.2f} "
            f"{(one.files - one.results) / one.trials:>8.2f}",
            flush=True,
        )
        if size == max(SIZES):
            cpu = [figures.cpu_ms for figures in found]
            growth = [figures.growth for figures in found if figures.growth is not None]
            median_cpu, median_growth = statistics.median(cpu), statistics.median(growth)
            reached = median_cpu <= MOST_CPU_MS and median_growth <= MOST_GROWTH
            print(f"  CPU ms per trial: {format_median(cpu)}, {format_verdict(median_cpu, MOST_CPU_MS)}")
            ratio = f"{format_median(growth)}, {format_verdict(median_growth, MOST_GROWTH)}"
            print(f"  last thousand to first: {ratio}")
    return reached


def main() -> int:
    """Print the table; 1 if something is not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.driver", description=__doc__)
    parser.add_argument("shapes", nargs="*", help=f"some of: {', '.join(SHAPES)}; default: all")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of trials")
    parser.add_argument("--repeat", type=int, default=3, help="take the median of so many sweeps")
    parser.add_argument("--folder", help="make the temporary results folders here")
    parser.add_argument("--alone", metavar="SHAPE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := [name for name in options.shapes if name not in SHAPES]:
        parser.error(f"unknown shape {unknown[0]!r}; there are {', '.join(SHAPES)}")
    if options.alone:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            shape = SHAPES[options.alone]
            drive(Path(folder, "warm-up"), shape, 100)
            figures = drive(Path(folder, "sweep"), shape, options.sizes[0])
        os.write(1, msgspec.json.encode(figures))
        return 0
    print(f"Results folders in {options.folder or tempfile.gettempdir()}; Python {sys.version.split()[0]}")
    names = options.shapes or list(SHAPES)
    reached = [print_figures(name, options.sizes, options.repeat, options.folder) for name in names]
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
