"""Sweeps that go further than they were started for: more of the same, without a new folder."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from hpcsweep.core.events import AnyEvent, SweepExtended, SweepResumed
from hpcsweep.core.state import SweepState
from hpcsweep.errors import FolderError
from hpcsweep.session.algorithms import make_scheduler
from hpcsweep.simulation import simulate
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.requests import Request, write_request
from hpcsweep.views.folder import count_enqueued
from tests.simulation.specs import falling, spec_of

Runs = dict[tuple[int, int], int]

HYPERBAND = "scheduler={name: hyperband, max_resource: 9, iterations: 1}"
HALVING = "scheduler={name: halving, max_resource: 8, eta: 2, rounds: 1}"
ASHA = "scheduler={name: asha, max_resource: 9, brackets: 1}"
FIFO = "scheduler={name: fifo, max_resource: 4}"


def events_of(folder: Path) -> list[AnyEvent]:
    return read_journal(Layout(folder)).events


def runs_of(folder: Path) -> Runs:
    """Rung and resource -> how many runs completed there."""
    state = SweepState.replay(events_of(folder))
    return dict(Counter((run.rung, run.resource) for trial in state.trials for run in trial.runs))


#: What a sweep begins with, what is changed once it has finished, and the runs before and after.
FURTHER: dict[str, tuple[list[str], str, Runs, Runs]] = {
    "more iterations": (
        [HYPERBAND],
        "scheduler.iterations=2",
        {(0, 1): 9, (1, 3): 3, (2, 9): 1, (0, 3): 5, (1, 9): 1, (0, 9): 3},
        {(0, 1): 18, (1, 3): 6, (2, 9): 2, (0, 3): 10, (1, 9): 2, (0, 9): 6},
    ),
    "more rounds": (
        [HALVING],
        "scheduler.rounds=3",
        {(0, 1): 8, (1, 2): 4, (2, 4): 2, (3, 8): 1},
        {(0, 1): 24, (1, 2): 12, (2, 4): 6, (3, 8): 3},
    ),
    "a rung above the last one of halving": (
        [HALVING],
        "scheduler.max_resource=16",
        {(0, 1): 8, (1, 2): 4, (2, 4): 2, (3, 8): 1},
        {(0, 1): 16, (1, 2): 8, (2, 4): 4, (3, 8): 2, (4, 16): 1},
    ),
    "a higher resource of fifo": (
        [FIFO, "budget.trials=3"],
        "scheduler.max_resource=10",
        {(0, 4): 3},
        {(0, 4): 3, (1, 10): 3},
    ),
    "more trials of fifo": ([FIFO, "budget.trials=3"], "budget.trials=5", {(0, 4): 3}, {(0, 4): 5}),
    "more trials of a bracket that the budget had cut": (
        [HALVING, "budget.trials=4"],
        "budget.trials=100",
        {(0, 1): 4, (1, 2): 2, (2, 4): 1, (3, 8): 1},
        {(0, 1): 8, (1, 2): 4, (2, 4): 2, (3, 8): 1},
    ),
    "a configuration more in the spec": (
        [HYPERBAND],
        "enqueue=[{x: 0.25}]",
        {(0, 1): 9, (1, 3): 3, (2, 9): 1, (0, 3): 5, (1, 9): 1, (0, 9): 3},
        {(0, 1): 9, (1, 3): 3, (2, 9): 1, (0, 3): 5, (1, 9): 1, (0, 9): 4},
    ),
}


@pytest.mark.parametrize("name", FURTHER)
def test_a_finished_sweep_goes_on_where_it_is_only_carried_further(tmp_path: Path, name: str) -> None:
    overrides, change, before, after = FURTHER[name]
    folder = tmp_path / "results"
    simulate(spec_of(tmp_path, *overrides), falling, folder=folder)
    assert runs_of(folder) == before
    first = SweepState.replay(events_of(folder)).trials
    configs = [trial.config for trial in first]

    further = spec_of(tmp_path, *overrides, change)
    found = simulate(further, falling, folder=folder)

    assert found.ending == "finished"
    assert runs_of(folder) == after
    state = SweepState.replay(events_of(folder))
    assert [trial.config for trial in state.trials][: len(configs)] == configs
    again = simulate(further, falling, folder=folder)  # finds nothing to do
    assert (again.runs, runs_of(folder)) == (found.runs, after)


def test_asha_goes_on_to_a_higher_rung_and_with_more_brackets(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    budget = "budget.trials=12"
    simulate(spec_of(tmp_path, ASHA, budget), falling, folder=folder)
    before = runs_of(folder)
    assert set(before) == {(0, 1), (1, 3), (2, 9)}
    more = ["scheduler.max_resource=27", "scheduler.brackets=2", "budget.trials=70"]
    simulate(spec_of(tmp_path, ASHA, *more), falling, folder=folder)
    after = runs_of(folder)
    assert {(0, 1), (1, 3), (2, 9), (0, 3), (1, 9)} <= set(after)
    assert any(resource == 27 for _, resource in after)
    assert sum(count for (rung, _), count in after.items() if rung == 0) == 70
    assert all(after[run] >= before[run] for run in before)


@pytest.mark.parametrize("name", FURTHER)
def test_replay_applies_the_extension_where_it_was_committed(tmp_path: Path, name: str) -> None:
    """The scheduler as it was started, told of everything, is done just where the driver was."""
    overrides, change, _, _ = FURTHER[name]
    folder = tmp_path / "results"
    spec = spec_of(tmp_path, *overrides)
    simulate(spec, falling, folder=folder)
    simulate(spec_of(tmp_path, *overrides, change), falling, folder=folder)
    events = events_of(folder)
    extended = [index for index, event in enumerate(events) if isinstance(event, SweepExtended)]
    resumed = [index for index, event in enumerate(events) if isinstance(event, SweepResumed)]
    assert len(resumed) == 1
    assert len(extended) == (0 if change.startswith("budget") else 1)
    if not extended:
        return
    lines = [event.changes for event in events if isinstance(event, SweepExtended)]
    assert [len(found) for found in lines] == [1]
    scheduler = make_scheduler(spec)
    for event in events[: extended[0]]:
        scheduler.apply(event)
    assert scheduler.done
    for event in events[extended[0] : resumed[0] + 1]:
        scheduler.apply(event)
    assert not scheduler.done
    assert scheduler.decide(1000)
    for event in events[resumed[0] + 1 :]:
        scheduler.apply(event)
    assert scheduler.done
    assert scheduler.decide(1000) == []


@pytest.mark.parametrize(
    ("overrides", "change", "words"),
    [
        (
            [HYPERBAND],
            "scheduler.max_resource=27",
            "its rungs and brackets follow from it; of hyperband, itera",
        ),
        ([HYPERBAND], "scheduler.eta=2", "its rungs and brackets follow from it"),
        (["scheduler={name: hyperband, max_resource: 9, iterations: 2}"], "scheduler.iterations=1", "raised"),
        ([ASHA, "budget.trials=4"], "scheduler.max_resource=3", "it may be raised"),
        (
            ["scheduler={name: asha, max_resource: 10}", "budget.trials=4"],
            "scheduler.max_resource=27",
            "10 was a rung, and would be none of 1 > 3 > 9 > 27",
        ),
        (
            ["scheduler={name: asha, max_resource: 9, stopping: true}", "budget.trials=4"],
            "scheduler.max_resource=27",
            "with stopping, each trial is one run to it",
        ),
        ([HYPERBAND], "repeats=2", "the numbers of all trials follow from it"),
        ([HYPERBAND], "space.x.high=2.0", "results before and after it would be of different searches"),
        ([HYPERBAND, "enqueue=[{x: 0.5}]"], "enqueue=[{x: 0.25}]", "more may be added at its end"),
    ],
)
def test_what_makes_another_sweep_is_refused_with_what_can_be_done(
    tmp_path: Path, overrides: list[str], change: str, words: str
) -> None:
    folder = tmp_path / "results"
    simulate(spec_of(tmp_path, *overrides), falling, folder=folder)
    before = events_of(folder)
    with pytest.raises(FolderError) as caught:
        simulate(spec_of(tmp_path, *overrides, change), falling, folder=folder)
    text = str(caught.value)
    assert words in text
    assert f"`warm_start: [{folder}]`" in text
    assert "another folder with --results" in text
    assert events_of(folder) == before


def test_a_request_to_enqueue_is_answered_by_a_finished_sweep(tmp_path: Path) -> None:
    for scheduler in (HYPERBAND, HALVING):
        folder = tmp_path / scheduler[18:24]
        spec = spec_of(tmp_path, scheduler)
        simulate(spec, falling, folder=folder)
        trials = len(SweepState.replay(events_of(folder)).trials)
        for x in (0.125, 0.375):
            write_request(Layout(folder), Request("enqueue", 0.0, "me@here", {"config": {"x": x}}))
        simulate(spec, falling, folder=folder)
        new = SweepState.replay(events_of(folder)).trials[trials:]
        resource = spec.scheduler.options["max_resource"]
        assert sorted(trial.config["x"] for trial in new) == [0.125, 0.375]
        assert [(trial.origin, trial.runs[-1].resource) for trial in new] == [("enqueued", resource)] * 2
        # A later iteration is not disturbed by the bracket between.
        key = "iterations" if "hyper" in scheduler else "rounds"
        simulate(spec_of(tmp_path, scheduler, f"scheduler.{key}=2"), falling, folder=folder)
        assert len(SweepState.replay(events_of(folder)).trials) == 2 * trials + 2


#: Sweeps that finish, and what lets one of them start more: nothing, or a budget.
COMPLETE = {
    "fifo, a finite space": ([FIFO, "space.x=[0.1, 0.2, 0.3]"], ""),
    "fifo, a budget": ([FIFO, "budget.trials=3"], "budget.trials=5"),
    "asha, a finite space": ([ASHA, "space.x=[0.1, 0.2, 0.3]"], ""),
    "asha, a budget": ([ASHA, "budget.trials=6"], "budget.trials=8"),
    "asha, stopping": (
        ["scheduler={name: asha, max_resource: 9, stopping: true}", "budget.trials=6"],
        "budget.trials=8",
    ),
    "halving": ([HALVING], ""),
    "hyperband, a budget": ([HYPERBAND, "budget.trials=17"], "budget.trials=19"),
    "pbt": (["scheduler={name: pbt, population: 4, interval: 2, max_resource: 6}"], ""),
    "pbt, a budget": (
        ["scheduler={name: pbt, population: 4, interval: 2, max_resource: 6}", "budget.trials=4"],
        "budget.trials=6",
    ),
}


@pytest.mark.parametrize("name", COMPLETE)
def test_what_is_enqueued_after_the_end_runs_or_waits_for_a_budget_that_is_raised(
    tmp_path: Path, name: str
) -> None:
    overrides, raised = COMPLETE[name]
    folder = tmp_path / "results"
    simulate(spec_of(tmp_path, *overrides), falling, folder=folder)
    for x in (0.2, 0.3):
        write_request(Layout(folder), Request("enqueue", 0.0, "me@here", {"config": {"x": x}}))
    before = SweepState.replay(events_of(folder))
    assert count_enqueued(Layout(folder), before) == 2
    simulate(spec_of(tmp_path, *overrides), falling, folder=folder)
    state = SweepState.replay(events_of(folder))
    if raised:
        assert len(state.trials) == len(before.trials)
        assert count_enqueued(Layout(folder), state) == 2
        simulate(spec_of(tmp_path, *overrides, raised), falling, folder=folder)
        state = SweepState.replay(events_of(folder))
    new = [trial for trial in state.trials[len(before.trials) :] if trial.origin == "enqueued"]
    assert sorted(trial.config["x"] for trial in new) == [0.2, 0.3]
    assert all(trial.runs[0].status.ended for trial in new)
    assert count_enqueued(Layout(folder), state) == 0


def test_a_journal_with_an_extension_is_carried_on_from_any_of_its_events(tmp_path: Path) -> None:
    """Whatever part of the journal is there, the scheduler can be brought up to it."""
    folder = tmp_path / "results"
    spec = spec_of(tmp_path, HALVING)
    simulate(spec, falling, folder=folder)
    further = spec_of(tmp_path, HALVING, "scheduler.max_resource=32", "scheduler.rounds=2")
    simulate(further, falling, folder=folder)
    events = events_of(folder)
    identity = SweepState.replay(events).started
    assert identity is not None
    assert identity.identity == further.identity()
    scheduler = make_scheduler(dataclasses.replace(spec))
    for event in events:
        scheduler.apply(event)
        scheduler.decide(3)
    assert scheduler.done
