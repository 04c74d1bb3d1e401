"""What ends, clones and promotes single runs, on real daemons."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import hpcsweep
from hpcsweep.core.events import RunReported, TrialCreated, TrialStopped
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout

from .fixture import PrivateSlurm
from .sweeps import finish, launch, write_sweep


def sweep(folder: Path, scheduler: str, *more: str, holds: Mapping[str, str] | None = None) -> Path:
    """Launch a sweep with this scheduler and see it to its end; its results folder."""
    spec = write_sweep(folder, max_resource=9, max_gpus=6, holds=holds)
    options = [word for text in (f"scheduler={scheduler}", *more) for word in ("--set", text)]
    finish(launch(spec, *options))
    return folder / "results" / "free"


def test_a_run_that_a_rule_stops_is_cancelled_and_keeps_its_value(
    slurm: PrivateSlurm, tmp_path: Path
) -> None:
    root = sweep(
        tmp_path,
        "{name: fifo, max_resource: 200}",
        "budget.trials=4",
        "stop={name: plateau, patience: 2, min_delta: 0.1}",
        holds={"for ever": "step > 10"},  # no run takes its whole resource
    )
    runs = hpcsweep.load(root).runs
    assert list(runs["outcome"]) == ["stopped"] * 4
    assert runs["value"].notna().all()
    assert (runs["attempts"] == 1).all()
    events = read_journal(Layout(root)).events
    assert sum(isinstance(event, TrialStopped) for event in events) == 4
    assert any(isinstance(event, RunReported) for event in events)
    assert slurm.squeue(states="running,pending") == []


def test_asha_with_tpe_promotes_from_checkpoints(slurm: PrivateSlurm, tmp_path: Path) -> None:
    root = sweep(tmp_path, "{name: asha, max_resource: 9}", "budget.trials=18", "searcher=tpe")
    results = hpcsweep.load(root)
    assert len(results.trials) == 18
    runs = results.runs
    assert set(runs["outcome"]) == {"completed"}
    promoted = runs[runs["rung"] > 0]
    assert len(promoted) >= 18 // 3
    assert (promoted["start_resource"] * 3 == promoted["resource"]).all()


def test_clones_of_pbt_go_on_from_their_donors_checkpoints(slurm: PrivateSlurm, tmp_path: Path) -> None:
    root = sweep(tmp_path, "{name: pbt, population: 6, interval: 3, max_resource: 9}")
    clones = [
        event
        for event in read_journal(Layout(root)).events
        if isinstance(event, TrialCreated) and event.parent is not None
    ]
    assert clones
    runs = hpcsweep.load(root).runs.set_index(["trial", "rung"])
    assert set(runs["outcome"]) == {"completed"}
    for clone in clones:
        assert clone.start > 0
        assert runs.loc[(clone.trial, 0), "start_resource"] == clone.start
