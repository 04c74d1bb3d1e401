"""A sweep in two partitions of four nodes: the first up to its cap, then the second."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from hpcsweep.core.events import BatchPlanned
from hpcsweep.core.state import SweepState
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout

from .fixture import PrivateSlurm
from .sweeps import Sweep, finish, gpus_held, outcome, sampled, undisturbed, wait_until

POOLS = "cluster.pools=[{partition: gpu, max_gpus: 3}, {partition: urgent, max_gpus: 4, preemptible: true}]"


def ran_in(slurm: PrivateSlurm, job: str, partition: str) -> bool:
    """Whether the accounts have the job there, and nowhere else; they come later than it."""
    return {row.partition for row in slurm.accounted(job)} == {partition}


@pytest.mark.parametrize("reuse", [False, True])
def test_partitions_are_used_in_their_order_within_each_cap_and_decide_as_one_does(
    accounts: PrivateSlurm, tmp_path: Path, *, reuse: bool
) -> None:
    sets = (POOLS, f"cluster.reuse={str(reuse).lower()}")
    with Sweep(accounts, tmp_path / "pools", *sets, max_gpus=6, holds={"hold": "True"}) as sweep:
        with sampled(lambda: gpus_held(accounts)) as samples:
            driver = sweep.launch()
            wait_until("as many run as may", lambda: any(each.total() == 6 for each in samples))
            sweep.release("hold")
            finish(driver)
        assert max(each.total() for each in samples) == 6
        assert {name: max(each[name] for each in samples) for name in ("gpu", "urgent")} == {
            "gpu": 3,
            "urgent": 3,
        }
        planned = sweep.of_kind(BatchPlanned)
        assert [event.pool for event in planned[:2]] == ["gpu", "urgent"]
        partitions = {event.batch: event.pool for event in planned}
        for name, job in dict(sweep.submitted()).items():
            was_there = partial(ran_in, accounts, job, partitions[name])
            wait_until(f"the accounts have the partition of {name}", was_there, timeout_s=60)
        state = SweepState.replay(read_journal(Layout(sweep.root)).events)
        assert set(state.pool_gpu_s) == {"gpu", "urgent"}
        assert sum(state.pool_gpu_s.values()) == pytest.approx(state.spent_gpu_s)

    assert outcome(sweep.folder) == undisturbed(tmp_path / "alone", max_resource=9).outcome
