"""A sweep whose configurations need one, two or four GPUs, on four nodes of four."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpcsweep.core.events import BatchPlanned, RunFinished, TrialCreated
from tests.compacted import batch_files

from .fixture import PrivateSlurm
from .sweeps import Sweep, finish, gpus_held, outcome, sampled, undisturbed, wait_until

GPUS = {256: 1, 512: 2, 1024: 4}
WIDTH = f"space.width={{type: choice, values: {[*GPUS]}}}"
SHAPED = (
    WIDTH,
    "resources.gpus='1 if width == 256 else 2 if width == 512 else 4'",
    "resources.time={base: 1m, per_unit: 10m}",
)


@pytest.mark.parametrize("reuse", [False, True])
def test_arrays_hold_the_gpus_of_their_runs_within_the_cap_and_decide_as_one_shape_does(
    accounts: PrivateSlurm, tmp_path: Path, *, reuse: bool
) -> None:
    sets = (*SHAPED, f"cluster.reuse={str(reuse).lower()}")
    with Sweep(accounts, tmp_path / "shaped", *sets, max_gpus=8, holds={"hold": "True"}) as sweep:
        with sampled(lambda: gpus_held(accounts)) as samples:
            driver = sweep.launch()
            wait_until("many are held", lambda: any(each.total() > 4 for each in samples))
            sweep.release("hold")
            finish(driver)
        assert max(each.total() for each in samples) <= 8

        # Every array has the GPUs of its runs, in the accounts too.
        widths = {event.trial: event.config["width"] for event in sweep.of_kind(TrialCreated)}
        planned = {event.batch: event for event in sweep.of_kind(BatchPlanned)}
        ends = sweep.of_kind(RunFinished)
        assert all(planned[end.batch].gpus == GPUS[widths[end.trial]] for end in ends)
        jobs = dict(sweep.submitted())
        for name, job in jobs.items():
            held = {row.gpus for row in accounts.settled(job) if row.gpus}
            assert held <= {planned[name].gpus}
        assert {planned[end.batch].gpus for end in ends} == {1, 2, 4}

        # Scripts ask for the time of their rung.
        files = batch_files(sweep.root)
        scripts = [text.decode() for name, text in files.items() if name.endswith("script.sbatch")]
        minutes = [int(each) for text in scripts for each in re.findall(r"#SBATCH --time=(\d+)", text)]
        assert min(minutes) <= 30
        assert max(minutes) >= 91

    assert outcome(sweep.folder) == undisturbed(tmp_path / "alike", WIDTH, max_resource=9).outcome
