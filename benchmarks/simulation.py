"""What simulation shows of the scheduling, and what it costs: `python -m benchmarks.simulation`.

`idle`: Hyperband with R = 81 and eta = 3 on 32 GPUs, the durations of the runs spread by a factor of
4, with one iteration and with more. Printed are the makespan against the perfect-packing bound (the
busy time divided by the GPUs, or the longest trial) and the share of idle GPUs: until the last
trial has begun, that is until the last bracket drains, for up to then later brackets fill the GPUs
that stragglers leave idle; until the last run has begun; and in all. After the last bracket's first
rung is handed out nothing can fill up: what is left waits for results.

`many`: a sweep of 100,000 trials with ASHA and random search on 64 GPUs. Counted is all that the
driver does but not the simulated site: the CPU time of the last thousand trials to that of the
thousand after the first thousand (in the first one most runs are still short ones, so that fewer of
them are under way for each new trial), and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.driver import format_verdict
from benchmarks.instant import PROGRAM, SHAPE, SPACE, STARTED, objective, peak_mib
from hpcsweep.cluster.simulated.backend import SimulatedOptions
from hpcsweep.cluster.simulated.cluster import SimulatedCluster
from hpcsweep.core.cluster_protocol import Batch, SubmittedBatch, TaskId, TaskState
from hpcsweep.core.events import AnyEvent, SweepStarted
from hpcsweep.core.protocols import Scheduler
from hpcsweep.driver import Driver, DriverConfig
from hpcsweep.schedulers.asha import ASHA
from hpcsweep.schedulers.synchronous import Hyperband
from hpcsweep.searchers.random import Random
from hpcsweep.simulation.simulate import Recorder, SimulationResult
from hpcsweep.store.journal import Journal
from hpcsweep.store.layout import Layout

#: To be reached.
MOST_IDLE = 0.10
MOST_GROWTH = 1.5
MOST_MIB = 1024
#: Trials whose cost is compared at both ends.
WINDOW = 1_000


class TimedCluster(SimulatedCluster):
    """A simulated site that knows how much CPU time of the process it took itself.

    Attributes:
        cpu_s: All of it.
    """

    cpu_s = 0.0

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """What happens in this block is the site's."""
        began = time.process_time()
        try:
            yield
        finally:
            self.cpu_s += time.process_time() - began

    def submit(self, batch: Batch) -> str:
        with self.timed():
            return super().submit(batch)

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        with self.timed():
            return super().poll(live)

    def throttle(self, batch: SubmittedBatch, tasks: int) -> None:
        with self.timed():
            super().throttle(batch, tasks)


class TimedClock:
    """The site's clock: what happens while the driver sleeps is the site's cost."""

    def __init__(self, cluster: TimedCluster) -> None:
        self._cluster = cluster

    def time(self) -> float:
        return self._cluster.clock.time()

    def sleep(self, seconds: float) -> None:
        with self._cluster.timed():
            self._cluster.clock.sleep(seconds)


def drive(
    folder: Path,
    scheduler: Scheduler,
    options: SimulatedOptions,
    *,
    seed: int = 0,
    on_tick: Callable[[Driver, TimedCluster], None] = lambda driver, cluster: None,
) -> SimulationResult:
    """Simulate one sweep that may use the whole site."""
    cluster = TimedCluster(
        options,
        shape=SHAPE,
        curve=lambda config, step, seed: objective(config, step),
        unit_seconds=lambda config: 10.0,
        seed=seed,
    )
    settings = DriverConfig(
        name="bench", cluster="simulated", program=PROGRAM, shape=SHAPE, seed=seed, max_tasks=cluster.slots
    )
    journal = Journal.open(Layout(folder))
    driver = Driver(
        layout=Layout(folder),
        journal=journal,
        space=SPACE,
        searcher=Random(),
        scheduler=scheduler,
        cluster=cluster,
        clock=TimedClock(cluster),
        settings=settings,
    )
    recorder = Recorder(cluster)

    def on_each_tick(driver: Driver) -> None:
        recorder.tick(driver)
        on_tick(driver, cluster)

    beginning: list[AnyEvent] = [SweepStarted("cafe01", "bench", cluster.clock.time(), STARTED.identity)]
    driver.start(*beginning)
    driver.run(on_each_tick)
    journal.release()
    return recorder.result(driver)


def idle(folder: Path, *, repeat: int) -> bool:
    """Print the table of idle shares, medians over the seeds; whether all that counts is reached."""
    print("Hyperband R=81 eta=3 on 32 GPUs, durations spread by 4")
    print(
        f"{'iterations':>10} {'seeds':>5} {'makespan s':>10} {'bound s':>8} {'ratio':>6} "
        f"{'idle until last trial':>21} {'until last run':>14} {'in all':>7}"
    )
    worst = 0.0
    for iterations in (1, 2, 4, 8):
        found = [
            drive(
                folder / f"idle-{iterations}-{seed}",
                Hyperband(max_resource=81, iterations=iterations),
                SimulatedOptions(nodes=4, gpus=8, spread=4.0),
                seed=seed,
            )
            for seed in range(repeat)
        ]
        worst = max(worst, *(one.idle_filled for one in found))
        ratio = statistics.median(one.makespan_s / one.bound_s for one in found)
        print(
            f"{iterations:>10} {repeat:>5} {median(found, 'makespan_s'):>10.0f} "
            f"{median(found, 'bound_s'):>8.0f} {ratio:>6.2f} "
            f"{median(found, 'idle_filled'):>21.1%} {median(found, 'idle_started'):>14.1%} "
            f"{median(found, 'idle'):>7.1%}",
            flush=True,
        )
    print(
        f"  worst idle share until the last trial has begun: {worst:.1%}, {format_verdict(worst, MOST_IDLE)}"
    )
    return worst <= MOST_IDLE


def median(found: Sequence[SimulationResult], field: str) -> float:
    """Of this field."""
    return float(statistics.median(getattr(one, field) for one in found))


def many(folder: Path, *, trials: int) -> bool:
    """Print what the driver costs in a long sweep; whether all that counts is reached."""
    points = [(0, 0.0)]
    began = time.process_time()

    def record(driver: Driver, cluster: TimedCluster) -> None:
        points.append((len(driver.state.trials), time.process_time() - began - cluster.cpu_s))

    wall = time.perf_counter()
    scheduler = ASHA(max_resource=81, trials=trials)
    found = drive(folder / "many", scheduler, SimulatedOptions(nodes=8, gpus=8, spread=4.0), on_tick=record)
    wall = time.perf_counter() - wall

    def cost(first: int, last: int) -> float:
        """Seconds for the trials in between."""
        return interpolate(points, last) - interpolate(points, first)

    first, last = cost(WINDOW, 2 * WINDOW), cost(trials - WINDOW, trials)
    print(
        f"\nASHA R=81 eta=3, {found.trials:,} trials, {found.runs:,} runs on {found.places} GPUs: "
        f"{len(points) - 1:,} ticks, {found.makespan_s / 3600:.0f} hours of virtual time, {wall:.0f} s"
    )
    print(f"  driver CPU per trial: second thousand {first:.3f} ms, last thousand {last:.3f} ms")
    print(f"  last thousand to second: {last / first:.2f}, {format_verdict(last / first, MOST_GROWTH)}")
    print(f"  peak memory: {peak_mib():.0f} MiB, {format_verdict(peak_mib(), MOST_MIB)}")
    return last / first <= MOST_GROWTH and peak_mib() <= MOST_MIB


def interpolate(points: Sequence[tuple[int, float]], trials: int) -> float:
    """Seconds spent until so many trials were created, straight between the points."""
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 <= trials <= x1 and x0 < x1:
            return y0 + (y1 - y0) * (trials - x0) / (x1 - x0)
    raise ValueError(f"there are only {points[-1][0]} trials")


def main() -> int:
    """Print what was asked for; 1 if something is not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("parts", nargs="*", help="idle, many; default: both")
    parser.add_argument("--repeat", type=int, default=5, help="take medians over so many seeds")
    parser.add_argument("--trials", type=int, default=100_000, help="of the long sweep")
    parser.add_argument("--folder", help="make the temporary results folders here")
    options = parser.parse_args()
    parts = options.parts or ["idle", "many"]
    if unknown := sorted(set(parts) - {"idle", "many"}):
        parser.error(f"unknown part {unknown[0]!r}; there are idle and many")
    reached = True
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if "idle" in parts:
            reached = idle(Path(folder), repeat=options.repeat) and reached
        if "many" in parts:
            reached = many(Path(folder), trials=options.trials) and reached
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
