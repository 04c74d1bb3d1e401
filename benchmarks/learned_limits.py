"""What learned time limits bring where short jobs are backfilled: `python -m benchmarks.learned_limits`.

A Hyperband sweep in virtual time on a site whose queue waits grow with the time limit of a job. Runs take
up to four times as long as others, and nothing explains which. Once every run asks for the same limit of
a day, as people do; once with `time: {max: 1d}`, which is learned from the runs that have ended; once
without `time`, on a site that gives such jobs a day (or `--default`) and learns below that. Printed are
hours to the last result, GPU-hours, time limits reached, and what runs asked for against what they used:
the median over all of them that came after ten runs of their rung.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    Interruption,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    RunsAssigned,
    TrialCreated,
    TrialPromoted,
)
from hpcsweep.core.learned import LEAST
from hpcsweep.simulation import simulate
from hpcsweep.simulation.curves import synthetic_curve
from hpcsweep.spec import SweepSpec, load_spec
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout

SPEC: Final = Path(__file__).parents[1] / "sweeps" / "simulated.yaml"
#: Waits by time limit, each with quantiles: a job of minutes fits into a gap, one of hours waits its turn.
WAITS: Final = (
    "{20m: [[0, 10s], [0.5, 2m], [1, 10m]], 1h: [[0, 1m], [0.5, 10m], [1, 40m]], "
    "4h: [[0, 5m], [0.5, 40m], [1, 3h]], 1d: [[0, 10m], [0.5, 90m], [1, 6h]]}"
)
LIMITS: Final = {"1d": "1d", "learned": "{max: 1d}", "not given": "null"}
#: What is asked for at most, in the median, in multiples of what is used.
MOST_ASKED: Final = 2.0


class Figures(NamedTuple):
    """Of one sweep."""

    makespan_h: float
    gpu_h: float
    timeouts: float
    failed: float
    asked_by_used: float


def spec_of(limit: str, *, reuse: bool, epoch_s: float, default: str = "1d") -> SweepSpec:
    site = f"gpus: 8, startup: 30, spread: 4, seconds_per_unit: {epoch_s}, time_limit: {default}"
    site = f"{{{site}, wait: {WAITS}}}"
    return load_spec(
        SPEC,
        [
            "scheduler.name=hyperband",
            f"resources.time={limit}",
            f"cluster.simulated={site}",
            f"cluster.reuse={'true' if reuse else 'false'}",
        ],
    )


def ratios(events: Sequence[AnyEvent]) -> list[float]:
    """Time asked for by time used, of each completed run after the tenth of its rung."""
    limits: dict[RunId, int] = {}
    batches: dict[str, int] = {}
    resources: dict[RunId, int] = {}
    ended: Counter[int] = Counter()
    known: set[RunId] = set()
    found = []
    for event in events:
        match event:
            case TrialCreated():
                resources[RunId(event.trial, 0)] = event.resource
            case TrialPromoted():
                resources[RunId(event.trial, event.rung)] = event.resource
            case BatchPlanned():
                batches[event.batch] = event.time_s
                for run in (run for task in event.tasks for run in task):
                    limits[run] = event.time_s
                    known |= {run} if ended[resources[run]] >= LEAST else set()
            case RunsAssigned():
                for run in event.runs:
                    limits[run] = event.time_s or batches[event.batch]
                    known |= {run} if ended[resources[run]] >= LEAST else set()
            case RunFinished(outcome=Outcome.COMPLETED):
                ended[resources[event.run]] += 1
                if event.run in known and event.attempt == 0 and limits[event.run]:
                    found.append(limits[event.run] / event.seconds)
            case _:
                pass
    return found


def measure(spec: SweepSpec, *, seeds: int) -> Figures:
    """Means over sweeps with so many seeds; what was asked for is of all their runs together."""
    sweeps = [_run(spec, seed) for seed in range(seeds)]
    every = [ratio for _, found in sweeps for ratio in found]
    ratio = statistics.median(every) if every else math.nan
    columns = zip(*(figures for figures, _ in sweeps), strict=True)
    makespan_h, gpu_h, timeouts, failed = map(statistics.mean, columns)
    return Figures(makespan_h, gpu_h, timeouts, failed, ratio)


def _run(spec: SweepSpec, seed: int) -> tuple[tuple[float, ...], list[float]]:
    """The other figures of one sweep, and its ratios."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "results"
        curve = synthetic_curve(spec.space, minimise=True)
        result = simulate(spec, curve, seed=seed, folder=root, compact=False)
        events = read_journal(Layout(root)).events
    timeouts = sum(
        isinstance(event, RunInterrupted) and event.interruption is Interruption.TIMEOUT for event in events
    )
    ends = [event for event in events if isinstance(event, RunFinished)]
    gpu_s = sum(event.gpu_seconds for event in events if isinstance(event, RunFinished | RunInterrupted))
    failed = sum(event.outcome is not Outcome.COMPLETED for event in ends)
    return (result.makespan_s / 3600, gpu_s / 3600, float(timeouts), float(failed)), ratios(events)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epoch", type=float, default=120.0, help="seconds of one unit of resource")
    parser.add_argument("--seeds", type=int, default=5, help="sweeps of each kind")
    parser.add_argument("--default", default="1d", help="what the site gives jobs that ask for no time")
    request = parser.parse_args(arguments)
    print(f"{'tasks':12}{'limit':>10}" + "".join(f"{name:>15}" for name in Figures._fields))
    for reuse in (False, True):
        for name, limit in LIMITS.items():
            figures = measure(
                spec_of(limit, reuse=reuse, epoch_s=request.epoch, default=request.default),
                seeds=request.seeds,
            )
            numbers = "".join(f"{figure:15.2f}" for figure in figures)
            print(f"{'reused' if reuse else 'one run each':12}{name:>10}{numbers}", flush=True)
            if name != "1d" and not math.isnan(figures.asked_by_used):
                held = "holds" if figures.asked_by_used <= MOST_ASKED else "missed"
                print(f"{held}: {figures.asked_by_used:.2f} times of what is used, at most {MOST_ASKED}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
