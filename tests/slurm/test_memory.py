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
