"""A sweep on this machine, which enforces no memory limit: the worker does, and runs are tried with more."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from hpcsweep import load
from hpcsweep.cli import app
from hpcsweep.core.events import BatchPlanned
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout

#: In its second step the large one holds 300 MiB; its first two starts then wait for whoever ends them.
TRAINER = """\
import signal
from pathlib import Path

def train(trial):
    starts = Path(f"starts-{trial.id}")
    with starts.open("a") as file:
        file.write(f"{trial.resume_from is not None}\\n")
    for step in trial.steps():
        if trial.config["large"] and step == 2:
            held = bytearray(1) * (300 << 20)
            if len(starts.read_text().split()) < 3:
                signal.pause()
        trial.report(step, loss=1 / step)
        with trial.checkpoint(step):
            pass
"""
SPEC = """\
name: hog
train: {function: train.py:train}
objective: {metric: loss}
space: {large: {type: choice, values: [true, false]}}
searcher: grid
scheduler: {name: fifo, max_resource: 3}
resources: {mem: {start: 100M, max: 1G}}
cluster: {name: local, slots: 2}
"""


def test_a_run_that_holds_more_than_it_was_given_goes_on_with_more_until_it_ends_well(
    tmp_path: Path,
) -> None:
    (tmp_path / "train.py").write_text(TRAINER)
    spec, results = tmp_path / "sweep.yaml", tmp_path / "results"
    spec.write_text(SPEC)
    done = CliRunner().invoke(app, ["launch", str(spec), "--results", str(results), "--quiet"])
    assert done.exit_code == 0, done.output
    assert list(load(results).runs["outcome"]) == ["completed", "completed"]
    planned = [e for e in read_journal(Layout(results)).events if isinstance(e, BatchPlanned)]
    assert [event.mem_mib for event in planned] == [100, 200, 400]
    assert (tmp_path / "starts-0").read_text().split() == ["False", "True", "True"]
    assert (tmp_path / "starts-1").read_text().split() == ["False"]
    told = CliRunner().invoke(app, ["explain", str(results), "0"]).output
    plain = re.sub(r" on \S+ \(job .*?\)|\d+(?= MiB,)|(?<=at most )\d+M", "#", told)
    over = "# MiB, more than the {} MiB of the run"
    assert plain.splitlines()[3:9] == [
        "rung 0, resource 3: completed in attempt 3# with loss 0.333333",
        f"  attempt 1: out of memory, to be retried at step 1#: its processes held {over.format(100)}",
        "  used at most # of 100M of memory",
        f"  attempt 2: out of memory, to be retried at step 1#: its processes held {over.format(200)}",
        "  used at most # of 200M of memory",
        "  used at most # of 400M of memory",
    ]
