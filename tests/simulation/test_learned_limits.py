"""Limits that are learned lose no trial, whatever else fails, and ask for little more than is used.

Runs take up to four times as long as others, and nothing explains which: so guesses are too short again and
again. 30 fault schedules, or with `--exhaustive` 1,000.
"""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from numpy.random import default_rng

from benchmarks.learned_limits import MOST_ASKED, ratios
from hpcsweep.core.cluster_protocol import DefaultLimits
from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    Interruption,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    RunRetried,
)
from hpcsweep.core.outcomes import FACTS
from hpcsweep.session.target import Target
from hpcsweep.simulation import simulate
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.views.folder import ResultsFolder
from tests.effort import by_effort
from tests.simulation.fault_run import FaultRun, Oracle
from tests.simulation.invariants import ALWAYS
from tests.simulation.schedules import Schedule, schedule_of
from tests.simulation.specs import falling, spec_of

CHUNKS = 10
SCHEDULES = by_effort(30, 1000, ci=50)
#: Of `retries.infrastructure`.
MOST_IDLE = 5
LEARNED = ("resources.time={max: 1h}", "cluster.signal=10")
#: On a site that gives an hour to those that ask for nothing.
BY_DEFAULT = ("resources.time=null", "cluster.signal=10")


def learned_schedule(seed: int) -> Schedule:
    """The faults of a random schedule, in a sweep whose time limits are learned."""
    rng = default_rng([seed, 20])
    faults = {
        "preemptions": round(float(rng.uniform(1, 20)), 1),
        "node_failures": round(float(rng.uniform(1, 10)), 1),
        "lost_replies": 0.3,
        "late_results": 0.3,
        "outages": 10,
        "forgets": 10,
        "checkpoint_every": int(rng.integers(1, 4)),
    }
    chosen = {key: value for key, value in faults.items() if rng.random() < 0.3}
    by_default = seed % 3 == 0
    site: dict[str, float | str] = {
        "gpus": 4,
        "nodes": 2,
        "seconds_per_unit": 60,
        "startup": 5,
        "spread": 4,
        **chosen,
    }
    site |= {"time_limit": "1h"} if by_default else {}
    scheduler = ("hyperband", "asha")[int(rng.integers(2))]
    return msgspec.structs.replace(
        schedule_of(seed),
        overrides=(
            f"searcher.seed={seed}",
            f"scheduler={{name: {scheduler}, max_resource: 9}}",
            "budget.trials=24",
            f"cluster.reuse={'true' if rng.random() < 0.5 and not by_default else 'false'}",
            f"cluster.simulated={msgspec.json.encode(site).decode()}",
            *(BY_DEFAULT if by_default else LEARNED),
        ),
        stop=None,
        flaky=0.0,
    )


def idle_faults(events: list[AnyEvent]) -> dict[RunId, int]:
    """Of each run that was given up: interruptions without progress since the last, guessed limits aside."""
    in_a_row: Counter[RunId] = Counter()
    lost = {}
    for event in events:
        if isinstance(event, RunInterrupted):
            if event.progressed:
                in_a_row[event.run] = 0
            elif FACTS[event.interruption].counts_without_progress and not event.guessed:
                in_a_row[event.run] += 1
        elif isinstance(event, RunRetried):
            in_a_row[event.run] = 0
        elif isinstance(event, RunFinished) and event.outcome is Outcome.LOST:
            lost[event.run] = in_a_row[event.run]
    return lost


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_trial_is_lost_to_a_learned_limit(tmp_path: Path, chunk: int) -> None:
    guessed = 0
    for seed in range(chunk, SCHEDULES, CHUNKS):
        (tmp_path / str(seed)).mkdir()
        with pytest.MonkeyPatch.context() as patch:
            run = FaultRun(learned_schedule(seed), tmp_path / str(seed), Oracle(patch), patch)
        for holds in ALWAYS:
            holds(run)
        assert all(count >= MOST_IDLE for count in idle_faults(run.events).values()), f"seed {seed}"
        guessed += sum(isinstance(event, RunInterrupted) and event.guessed for event in run.events)
    assert guessed, "no guess was ever too short"


def lowered_sweep(folder: Path, *, old: bool = False) -> list[BatchPlanned]:
    """Its arrays, in order, without a time limit where none is asked for. An `old` one does not learn."""
    folder.mkdir()
    spec = spec_of(folder, "scheduler={name: hyperband, max_resource: 27}", "cluster.simulated.time_limit=1d")
    root = folder / "results"
    with pytest.MonkeyPatch.context() as patch:
        if old:
            patch.setattr(Target, "default_limits", lambda _: DefaultLimits())
        simulate(spec, falling, folder=root, compact=False)
    events = read_journal(Layout(root)).events
    assert {each.outcome for each in events if isinstance(each, RunFinished)} == {Outcome.COMPLETED}
    assert bool(ResultsFolder(root).resource_use) is not old
    return [event for event in events if isinstance(event, BatchPlanned)]


def test_without_a_limit_runs_ask_for_less_than_the_site_gives_once_ten_have_ended(tmp_path: Path) -> None:
    arrays = lowered_sweep(tmp_path / "new")
    limits = [event.time_s for event in arrays]
    first = next(index for index, time_s in enumerate(limits) if time_s)
    assert limits[:first] == [0] * first
    assert first > 0
    assert all(0 < time_s <= 20 * 60 for time_s in limits[first:]), "of 18 units of 10 s each"
    without = lowered_sweep(tmp_path / "old", old=True)
    assert {event.time_s for event in without} == {0}, "one that an earlier version began"
    held, usual = ([(event.tasks, event.throttle) for event in each] for each in (arrays, without))
    assert held == usual, "the arrays are those of a sweep that learns nothing"
    assert any(len(event.tasks) > event.throttle for event in arrays)


def test_runs_ask_for_at_most_twice_of_what_they_use_once_ten_of_their_rung_have_ended(
    tmp_path: Path,
) -> None:
    site = "{gpus: 4, seconds_per_unit: 600, startup: 30, spread: 4}"
    spec = spec_of(
        tmp_path,
        "scheduler={name: hyperband, max_resource: 27}",
        "resources.time={max: 1d}",
        f"cluster.simulated={site}",
    )
    found = []
    for seed in range(5):
        folder = tmp_path / str(seed)
        simulate(spec, falling, seed=seed, folder=folder, compact=False)
        events = read_journal(Layout(folder)).events
        ends = [event for event in events if isinstance(event, RunFinished)]
        assert {event.outcome for event in ends} == {Outcome.COMPLETED}
        found += ratios(events)
        late = [e for e in events if isinstance(e, RunInterrupted)]
        assert {event.interruption for event in late} == {Interruption.TIMEOUT}
    assert len(found) > 80
    assert 1.0 < statistics.median(found) <= MOST_ASKED
