"""How long a restart takes: `python -m benchmarks.replay`.

The journal of a sweep of 100,000 trials, Hyperband repeated, is written through the real journal
in a few segments, as drivers that took turns would have left it. Then, in a process of its own, it
is read and folded into the state and a scheduler, which is what a driver does before its first tick.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

import msgspec
from numpy.random import default_rng

from benchmarks.instant import SPACE, STARTED, objective, peak_mib
from hpcsweep.core.events import (
    AnyEvent,
    BatchClosed,
    BatchPlanned,
    BatchSubmitted,
    Config,
    Outcome,
    RunFinished,
    RunId,
    TrialCreated,
    TrialPromoted,
)
from hpcsweep.core.protocols import Promote, Start
from hpcsweep.core.state import SweepState
from hpcsweep.schedulers.synchronous import Hyperband
from hpcsweep.store.journal import Journal
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout

TRIALS = 100_000
SEGMENTS = 5
SLOTS = 64
#: Runs whose ends are found in one tick.
AT_A_TIME = 16
#: To be reached.
MOST_S = 3.0


class Figures(msgspec.Struct, frozen=True):
    """What one replay cost.

    Attributes:
        read_s: Reading, checking and decoding; `state_s` and `scheduler_s` folding.
        peak_mib: Largest resident size of the process; `base_mib` before the replay.
    """

    events: int
    trials: int
    runs: int
    read_s: float
    state_s: float
    scheduler_s: float
    cpu_s: float
    peak_mib: float
    base_mib: float

    @property
    def total_s(self) -> float:
        """All of it, wall time."""
        return self.read_s + self.state_s + self.scheduler_s


def hyperband(trials: int) -> Hyperband:
    """As many iterations of Hyperband as have at least so many trials."""
    started = sum(ladder.sizes[0] for ladder in Hyperband(max_resource=81).plan().brackets)
    return Hyperband(max_resource=81, iterations=-(-trials // started))


def run_events(scheduler: Hyperband) -> Iterator[list[AnyEvent]]:
    """What a driver would commit, commit by commit, to the end of the sweep."""
    configs: list[Config] = []
    resources: dict[RunId, int] = {}
    yield [STARTED]
    batches = 0
    while decisions := scheduler.decide(SLOTS):
        decided: list[AnyEvent] = []
        new: list[RunId] = []
        starts = sum(isinstance(decision, Start) for decision in decisions)
        drawn = iter(SPACE.sample(starts, default_rng([1, len(configs)])))
        for decision in decisions:
            if isinstance(decision, Start):
                run = RunId(len(configs), 0)
                configs.append(next(drawn))
                decided.append(TrialCreated(run.trial, configs[-1], decision.bracket, decision.resource))
            else:
                assert isinstance(decision, Promote)
                run = RunId(decision.trial, decision.rung)
                decided.append(TrialPromoted(decision.trial, decision.rung, decision.resource))
            new.append(run)
            resources[run] = decision.resource
        batches += 1
        name, job = f"bench-cafe01-1-{batches}", str(4000 + batches)
        tasks = tuple((run,) for run in new)
        yield [*decided, BatchPlanned(name, 1_000_000.25, tasks, 1, SLOTS)]
        yield [BatchSubmitted(name, job, 1_000_000.5)]
        runs = iter(enumerate(new))
        while some := list(islice(runs, AT_A_TIME)):
            yield [
                _finished(run, configs[run.trial], resources[run], batch=name, task=task, job=job)
                for task, run in some
            ]
        yield [BatchClosed(name)]


def _finished(run: RunId, config: Config, resource: int, *, batch: str, task: int, job: str) -> RunFinished:
    return RunFinished(
        run.trial,
        run.rung,
        Outcome.COMPLETED,
        value=objective(config, resource),
        step=resource,
        batch=batch,
        task=task,
        seconds=60.25 * resource,
        gpu_seconds=60.25 * resource,
        started=1_000_000.75,
        node=f"node{task:03d}",
        job=f"{job}_{task}",
    )


def write(layout: Layout, trials: int) -> None:
    """Write the journal, in segments of about the same number of trials."""
    scheduler = hyperband(trials)
    total = scheduler.plan().starts or 0
    created = 0
    segments = 1
    journal = Journal.open(layout)
    for events in run_events(scheduler):
        journal.commit(events)
        for event in events:
            scheduler.apply(event)
            created += isinstance(event, TrialCreated)
        if created > total * segments / SEGMENTS:
            journal.release()
            journal = Journal.open(layout)
            segments += 1
    journal.release()


def replay(layout: Layout, trials: int) -> Figures:
    """Read the journal and fold it."""
    base_mib = peak_mib()
    cpu = time.process_time()
    times = [time.perf_counter()]
    snapshot = read_journal(layout)
    times.append(time.perf_counter())
    state = SweepState()
    for event in snapshot.events:
        state.apply(event)
    times.append(time.perf_counter())
    scheduler = hyperband(trials)
    for event in snapshot.events:
        scheduler.apply(event)
    times.append(time.perf_counter())
    assert scheduler.done
    assert state.outstanding == 0
    read_s, state_s, scheduler_s = (after - before for before, after in pairwise(times))
    return Figures(
        events=len(snapshot.events),
        trials=len(state.trials),
        runs=sum(state.counts.values()),
        read_s=read_s,
        state_s=state_s,
        scheduler_s=scheduler_s,
        cpu_s=time.process_time() - cpu,
        peak_mib=peak_mib(),
        base_mib=base_mib,
    )


def replay_alone(root: Path, trials: int) -> Figures:
    """Replay it in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.replay", "--alone", str(root), "--trials", str(trials)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return msgspec.json.decode(done.stdout, type=Figures)


def print_figures(layout: Layout, found: Sequence[Figures]) -> bool:
    """Print the median replay; whether what is promised is reached."""
    one = sorted(found, key=lambda figures: figures.total_s)[len(found) // 2]
    segments = list(layout.journal.iterdir())
    size = sum(path.stat().st_size for path in segments) / 2**20
    print(f"journal: {one.trials:,} trials, {one.runs:,} runs, {one.events:,} events, {size:.1f} MiB")
    print(f"         in {len(segments)} segments")
    print(f"read {one.read_s:.2f} s, state {one.state_s:.2f} s, scheduler {one.scheduler_s:.2f} s")
    print(
        f"memory: {one.peak_mib:.0f} MiB at the peak, {one.peak_mib - one.base_mib:.0f} MiB above the start"
    )
    print(f"{one.events / one.total_s:,.0f} events a second; CPU {one.cpu_s:.2f} s")
    totals = [figures.total_s for figures in found]
    median = statistics.median(totals)
    verdict = "reached" if median <= MOST_S else "NOT REACHED"
    print(
        f"in all {median:.2f} s ({min(totals):.2f} to {max(totals):.2f} in {len(totals)} replays), "
        f"at most {MOST_S:g}: {verdict}"
    )
    return median <= MOST_S


def main() -> int:
    """Print the figures; 1 if something is not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=__doc__)
    parser.add_argument("--trials", type=int, default=TRIALS, help="length of the sweep")
    parser.add_argument("--times", type=int, default=5, help="number of replays")
    parser.add_argument("--folder", help="make the temporary results folder here")
    parser.add_argument("--alone", metavar="ROOT", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        os.write(1, msgspec.json.encode(replay(Layout(options.alone), options.trials)))
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        layout = Layout(Path(folder))
        write(layout, options.trials)
        reached = print_figures(
            layout, [replay_alone(layout.root, options.trials) for _ in range(options.times)]
        )
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
