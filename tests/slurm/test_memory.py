"""Memory that grows on a real cluster, with tasks that keep their GPUs and without."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpcsweep import load
from hpcsweep.cli import app
from hpcsweep.core.events import BatchPlanned, Interruption, RunInterrupted
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from tests.cluster.test_local_memory import SPEC, TRAINER

from .fixture import PrivateSlurm
from .sweeps import finish, launch


@pytest.mark.parametrize("reuse", ["true", "false"])
def test_out_of_memory_goes_on_in_a_task_with_more_memory(
    slurm: PrivateSlurm, tmp_path: Path, reuse: str
) -> None:
    (tmp_path / "train.py").write_text(TRAINER)
    spec, results = tmp_path / "sweep.yaml", tmp_path / "results"
    cluster = f"{{name: slurm, max_tasks: 2, reuse: {reuse}, poll: 1, grace: 5, settle: 5}}"
    spec.write_text(SPEC.replace("{name: local, slots: 2}", cluster))
    finish(launch(spec, "--results", str(results), env=slurm.env))
    assert list(load(results).runs["outcome"]) == ["completed", "completed"]
    events = read_journal(Layout(results)).events
    asked = [event.mem_mib for event in events if isinstance(event, BatchPlanned)]
    assert sorted(set(asked), key=str) == [100, 200, 400]
    lacks = [event for event in events if isinstance(event, RunInterrupted)]
    assert [event.mem_mib for event in lacks if event.interruption is Interruption.OUT_OF_MEMORY] == [
        100,
        200,
    ]
    told = CliRunner().invoke(app, ["explain", str(results), "0"]).output
    assert re.findall(r"attempt (\d): out of memory, to be retried at step 1", told) == ["1", "2"]
    assert re.findall(r"used at most \d+M of (\d+)M of memory", told) == ["100", "200", "400"]


#: The last of them holds 300 MiB, and its first start then waits for whoever ends it.
LARGE_ONE = """\
import signal
from pathlib import Path

def train(trial):
    starts = Path(f"starts-{trial.id}")
    with starts.open("a") as file:
        file.write("start\\n")
    if trial.id == 12:
        held = bytearray(1) * (300 << 20)
        if len(starts.read_text().split()) < 2:
            signal.pause()
    trial.report(1, loss=1.0)
"""
UNLIMITED = """\
name: light
train: {function: train.py:train}
objective: {metric: loss}
space: {n: {type: int, low: 0, high: 99}}
searcher: tpe
budget: {trials: 13}
scheduler: {name: fifo, max_resource: 1}
cluster: {name: slurm, max_tasks: 2, reuse: false, poll: 1, grace: 5, settle: 5}
"""


def test_without_limits_runs_ask_for_what_others_used_and_too_little_costs_an_attempt(
    slurm: PrivateSlurm, tmp_path: Path
) -> None:
    """The site gives an hour by default, and 500M for each CPU."""
    (tmp_path / "train.py").write_text(LARGE_ONE)
    spec, results = tmp_path / "sweep.yaml", tmp_path / "results"
    spec.write_text(UNLIMITED)
    finish(launch(spec, "--results", str(results), env=slurm.env))
    assert list(load(results).runs["outcome"]) == ["completed"] * 13
    events = read_journal(Layout(results)).events
    asked = [(event.time_s, event.mem_mib) for event in events if isinstance(event, BatchPlanned)]
    lowered = [each for each in asked if each[1] is not None]
    assert (asked[0], asked[-1]) == ((0, None), (300, None)), "in the end only its memory is the default"
    assert [time_s for time_s, _ in lowered] == [300] * len(lowered)
    assert all(128 < mem_mib <= 250 for _, mem_mib in lowered if mem_mib is not None)
    (lack,) = [event for event in events if isinstance(event, RunInterrupted)]
    assert (lack.interruption, lack.mem_mib) == (Interruption.OUT_OF_MEMORY, lowered[-1][1])
