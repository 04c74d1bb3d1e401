"""What waits in the queue cost a sweep: `python -m benchmarks.queue_waits`.

32 GPUs, 572 trials, `sweeps/simulated.yaml` without failures: hours from the first submission to the last
result, by the project's own simulator, with tasks that keep their GPUs (`cluster.reuse: true`) and with one
run a task. Beside it, computed here with the same scheduler, durations and draws of waits:

- workers that pull: 32 array tasks of 4 hours, each waits for itself, takes one decision of the scheduler
  after another and is submitted again when its time is over, as Optuna's workers on Slurm are;
- one allocation: all 32 GPUs come together, when the last of them is free, as a Ray cluster in one job.

Each start of a run takes 30 s before its first epoch. A wait is drawn between a sixth of its median and four
times its median, half of them below the median.
"""

from __future__ import annotations

import argparse
import heapq
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from hpcsweep.cluster.simulated.task import Curve
from hpcsweep.core.events import AnyEvent, Config, Outcome, RunFinished, TrialCreated, TrialPromoted
from hpcsweep.core.protocols import Promote, Scheduler, Start
from hpcsweep.core.space import Space
from hpcsweep.session.algorithms import make_scheduler
from hpcsweep.simulation import simulate
from hpcsweep.simulation.curves import synthetic_curve
from hpcsweep.spec import SweepSpec, load_spec

SPEC: Final = Path(__file__).parents[1] / "sweeps" / "simulated.yaml"
GPUS: Final = 32
TRIALS: Final = 572
STARTUP_S: Final = 30.0
SPREAD: Final = 1.2
#: How long a pulling worker may run.
WORKER_S: Final = 4 * 3600.0
#: Runs are as many epochs as their resource; seconds of an epoch.
EPOCHS: Final = {"10s": 10, "1m": 60, "10m": 600, "1h": 3600}
WAITS: Final = {"0": 0, "5m": 300, "30m": 1800, "2h": 7200}
SCHEDULERS: Final = {
    "asha": ("scheduler.name=asha",),
    "hyperband": ("scheduler.name=hyperband", "scheduler.iterations=4"),
}
#: What was asked for at 30 minutes and epochs of one minute: by ASHA of what pulling workers take, by
#: Hyperband in hours; and nowhere more than so many times the better of the two.
ASHA_RATIO: Final = 1.15
HYPERBAND_H: Final = 6.5
WORST_RATIO: Final = 1.25


class Row(NamedTuple):
    """Hours to the end of one sweep."""

    scheduler: str
    epoch: str
    wait: str
    reuse: float
    single: float
    pulling: float
    allocation: float


def quantiles(median_s: float) -> list[list[float]]:
    return [[0, median_s / 6], [0.5, median_s], [1, 4 * median_s]]


def spec_of(scheduler: str, *, epoch_s: float, median_s: float, reuse: bool) -> SweepSpec:
    """The sweep on a site without failures."""
    site = (
        f"{{gpus: 8, startup: {STARTUP_S}, spread: {SPREAD}, seconds_per_unit: {epoch_s}, "
        f"wait: {quantiles(median_s)}}}"
    )
    return load_spec(
        SPEC,
        [
            *SCHEDULERS[scheduler],
            f"cluster.simulated={site}",
            f"cluster.reuse={'true' if reuse else 'false'}",
            f"budget.trials={TRIALS}",
        ],
    )


def simulated_hours(spec: SweepSpec, curve: Curve) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return simulate(spec, curve, folder=Path(folder) / "results", compact=False).makespan_s / 3600


class Site:
    """Durations and waits, drawn as the simulator draws them."""

    def __init__(self, space: Space, curve: Curve, *, epoch_s: float, median_s: float) -> None:
        self._curve = curve
        self._epoch_s = epoch_s
        self._median_s = median_s
        self._rng = np.random.default_rng(0)
        self._space = space
        self.configs: list[Config] = []
        self.reached: dict[int, int] = {}

    def wait(self) -> float:
        shares, seconds = zip(*quantiles(self._median_s), strict=True)
        return float(np.interp(self._rng.random(), shares, seconds))

    def config(self) -> Config:
        self.configs.append(self._space.sample(1, self._rng)[0])
        return self.configs[-1]

    def train(self, trial: int, resource: int) -> tuple[float, float]:
        """Seconds that it takes from the trial's checkpoint to this resource, and the value there."""
        units = resource - self.reached.get(trial, 0)
        self.reached[trial] = resource
        seconds = STARTUP_S + units * self._epoch_s * SPREAD ** float(self._rng.random())
        value: float = self._curve(self.configs[trial], resource, trial)  # type: ignore[assignment]  # one
        return seconds, value


def decide(scheduler: Scheduler, site: Site) -> Iterator[tuple[int, int, int]]:
    """What the scheduler would have done next in one slot: trial, rung and resource of each run."""
    for decision in scheduler.decide(1):
        event: AnyEvent
        if isinstance(decision, Start):
            if len(site.configs) >= TRIALS:
                continue
            trial = len(site.configs)
            event = TrialCreated(trial, site.config(), decision.bracket, decision.resource)
            yield trial, 0, decision.resource
        elif isinstance(decision, Promote):
            event = TrialPromoted(decision.trial, decision.rung, decision.resource)
            yield decision.trial, decision.rung, decision.resource
        else:
            continue
        scheduler.apply(event)


def pulling_hours(scheduler: Scheduler, site: Site, ready: Sequence[float], *, limit_s: float) -> float:
    """Hours to the last result where each GPU takes one decision after another from when it is ready.

    After `limit_s` a worker ends with its run, and waits in the queue again.
    """
    free = [(at, at, index) for index, at in enumerate(ready)]  # when free, since when it runs, which
    heapq.heapify(free)
    waiting: list[tuple[int, int, int]] = []
    under_way: list[tuple[float, int, int, int, float]] = []
    idle: list[tuple[float, int]] = []
    last = 0.0
    while free or under_way:
        if under_way and (not free or under_way[0][0] <= free[0][0]):
            last, trial, rung, resource, value = heapq.heappop(under_way)
            scheduler.apply(RunFinished(trial, rung, Outcome.COMPLETED, value=value, step=resource))
            for since, index in idle:  # whoever had nothing to do looks again
                heapq.heappush(free, (last, since, index))
            idle.clear()
            continue
        now, since, index = heapq.heappop(free)
        if now - since >= limit_s:
            again = now + site.wait()
            heapq.heappush(free, (again, again, index))
            continue
        if not waiting:
            waiting += decide(scheduler, site)
        if not waiting:
            if under_way:
                idle.append((since, index))
            continue
        trial, rung, resource = waiting.pop(0)
        seconds, value = site.train(trial, resource)
        heapq.heappush(under_way, (now + seconds, trial, rung, resource, value))
        heapq.heappush(free, (now + seconds, since, index))
    return last / 3600


def compare(scheduler: str, epoch: str, wait: str) -> Row:
    """One row of the table."""
    epoch_s, median_s = EPOCHS[epoch], WAITS[wait]
    spec = spec_of(scheduler, epoch_s=epoch_s, median_s=median_s, reuse=True)
    single = spec_of(scheduler, epoch_s=epoch_s, median_s=median_s, reuse=False)
    curve = synthetic_curve(spec.space, minimise=True)

    def site() -> Site:
        return Site(spec.space, curve, epoch_s=epoch_s, median_s=median_s)

    pulling, whole = site(), site()
    together = max(whole.wait() for _ in range(GPUS))
    return Row(
        scheduler,
        epoch,
        wait,
        simulated_hours(spec, curve),
        simulated_hours(single, curve),
        pulling_hours(make_scheduler(spec), pulling, [pulling.wait() for _ in range(GPUS)], limit_s=WORKER_S),
        pulling_hours(make_scheduler(spec), whole, [together] * GPUS, limit_s=float("inf")),
    )


def verdicts(rows: Sequence[Row]) -> list[str]:
    """What was asked for, and whether it holds."""
    lines = []
    for row in rows:
        name = f"{row.scheduler}, epochs of {row.epoch}, waits of {row.wait}"
        best = min(row.pulling, row.allocation)
        if row.reuse > WORST_RATIO * best:
            lines.append(
                f"missed: {name}: {row.reuse / best:.2f} times the better of the two, not {WORST_RATIO}"
            )
        if (row.epoch, row.wait) == ("1m", "30m"):
            if row.scheduler == "asha":
                ratio = row.reuse / row.pulling
                held = "holds" if ratio <= ASHA_RATIO else "missed"
                lines.append(f"{held}: {name}: {ratio:.2f} times the pulling workers, at most {ASHA_RATIO}")
            else:
                held = "holds" if row.reuse <= HYPERBAND_H else "missed"
                lines.append(f"{held}: {name}: {row.reuse:.1f} hours, at most {HYPERBAND_H}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scheduler", choices=SCHEDULERS, action="append")
    parser.add_argument("--epoch", choices=EPOCHS, action="append")
    parser.add_argument("--wait", choices=WAITS, action="append")
    request = parser.parse_args(arguments)
    rows: list[Row] = []
    print(f"{'scheduler':10}" + "".join(f"{name:>10}" for name in Row._fields[1:]))
    for scheduler in request.scheduler or SCHEDULERS:
        for epoch in request.epoch or EPOCHS:
            for wait in request.wait or WAITS:
                row = compare(scheduler, epoch, wait)
                rows.append(row)
                hours = "".join(f"{figure:10.2f}" for figure in row[3:])
                print(f"{scheduler:10}{epoch:>10}{wait:>10}{hours}", flush=True)
    print(*verdicts(rows), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
