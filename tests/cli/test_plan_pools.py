"""What `plan` and `launch` tell of the pools of a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcsweep.cli.launch import nothing_started
from hpcsweep.cli.plan_pools import print_pool_scripts, print_pools
from hpcsweep.cluster.slurm.cluster import SlurmCluster
from hpcsweep.cluster.slurm.options import SlurmOptions
from hpcsweep.cluster.slurm.pools import SlurmPool
from hpcsweep.core.cluster_protocol import Pool, TaskResources
from hpcsweep.core.events import SweepEnded, SweepOutcome
from hpcsweep.core.state import SweepState
from hpcsweep.driver.pool_budget import NextTask, PoolBudget
from hpcsweep.session.session import Session
from hpcsweep.session.target import Target
from hpcsweep.spec.load import read_spec
from tests.cli.test_plan_shapes import SPEC
from tests.driver.sweeps import STARTED

POOLS = (
    SlurmPool(partition="a100", gpu_type="a100", max_gpus=16),
    SlurmPool(partition="preempt", qos="low", max_gpus=64, max_tasks=9, preemptible=True),
    SlurmPool(partition="gpu", gpu_hours=9.5),
)
SHOWN = """\
pools, in this order: a100, at most 16 GPUs; preempt, at most 64 GPUs and 9 tasks, short runs first; gpu, \
9.5 GPU-hours in all

in pool preempt in place of those of a100:
- #SBATCH --gres=gpu:a100:2
- #SBATCH --partition=a100
+ #SBATCH --gres=gpu:2
+ #SBATCH --partition=preempt
+ #SBATCH --qos=low

in pool gpu in place of those of a100:
- #SBATCH --gres=gpu:a100:2
- #SBATCH --partition=a100
- #SBATCH --requeue
+ #SBATCH --gres=gpu:2
+ #SBATCH --partition=gpu
+ #SBATCH --no-requeue
"""


@pytest.mark.parametrize(("pools", "shown"), [(POOLS, SHOWN), (None, "")])
def test_plan_shows_the_pools_and_how_the_scripts_of_each_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pools: tuple[SlurmPool, ...] | None, shown: str
) -> None:
    spec = read_spec(SPEC, source="s.yaml", folder=tmp_path)
    shape = TaskResources(gpus=2, time_s=600)
    where = Target("slurm", "Slurm", SlurmCluster(SlurmOptions(pools=pools)), shape, False, 8)
    session = Session(spec, tmp_path, target=where)
    print_pools(session)
    print_pool_scripts(session, shape)
    assert capsys.readouterr().out == shown


def test_without_gpus_the_hours_of_a_pool_change_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = read_spec(SPEC, source="s.yaml", folder=tmp_path)
    pools = (SlurmPool(partition="a"), SlurmPool(partition="b", gpu_hours=9.5))
    shape = TaskResources(gpus=0, time_s=600)
    where = Target("slurm", "Slurm", SlurmCluster(SlurmOptions(pools=pools)), shape, False, 8)
    print_pool_scripts(Session(spec, tmp_path, target=where), shape)
    differ = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("-", "+"))]
    assert differ == ["- #SBATCH --partition=a", "+ #SBATCH --partition=b"]


def test_launch_says_how_a_sweep_goes_on_that_the_hours_of_its_pools_have_ended() -> None:
    spent = PoolBudget([Pool("a", max_gpu_s=3600.0)])
    spent.next_tasks = [NextTask(1, 7200.0)]
    reason = spent.exhausted(SweepState())
    assert reason is not None
    state = SweepState.replay([STARTED, SweepEnded(7.0, SweepOutcome.FINISHED, reason)])
    said = nothing_started(state, None, enqueued=0)
    assert said == "already finished: nothing is started. To extend it, raise cluster.pools[].gpu_hours."
