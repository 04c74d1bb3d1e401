"""Runs of several processes over several nodes, on real daemons."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hpcsweep.core.events import BatchPlanned, Interruption, RunFinished, RunInterrupted
from hpcsweep.store.layout import Layout
from tests.effort import by_effort
from tests.lazy import LazyModule
from tests.worker.test_ranks import MEET

from .fixture import PrivateSlurm
from .sweeps import Sweep, wait_until
from .test_survival import job_processes

if TYPE_CHECKING:
    import torch
else:
    torch = LazyModule("torch")

#: Eight runs begin before any of them goes on. The first one shows what each of its ranks has.
SUM = (
    MEET
    + """
import glob, json, time

def train(trial):
    open(f"begun-{trial.id}-{RANK}", "w").close()
    while len(glob.glob("begun-*-*")) < 8 * SIZE:
        time.sleep(0.05)
    group = Group()
    for step in trial.steps():
        trial.report(step, loss=group.add(RANK) + trial.config["x"])
    if trial.id == 0:
        from submitit.helpers import TorchDistributedEnvironment

        own = dict(os.environ)
        TorchDistributedEnvironment().export(overwrite=True, set_cuda_visible_devices=False)
        changed = {name for name, value in os.environ.items() if own.get(name) != value}
        with open(f"seen-{RANK}.json", "w") as file:
            json.dump([own, sorted(changed)], file)
"""
)


def test_ranks_on_two_nodes_have_their_place_and_eight_runs_at_a_time_do_not_meet_each_other(
    slurm: PrivateSlurm, tmp_path: Path
) -> None:
    sets = (
        "train.launcher=srun",
        "scheduler={name: fifo, max_resource: 3}",
        "resources={nodes: 2, gpus: 1, cpus: 1, time: 10m}",
        "cluster.max_gpus=16",
        "budget.trials=8",
    )
    with Sweep(slurm, tmp_path, *sets, trainer=SUM) as sweep:
        sweep.finish()
        assert list(sweep.runs["outcome"]) == ["completed"] * 8
        assert [1 <= value < 2 for value in sweep.runs["value"]] == [True] * 8  # 0 + 1, and x
        (planned,) = sweep.of_kind(BatchPlanned)
        assert (planned.gpus, planned.nodes, planned.throttle) == (2, 2, 8)
        seconds = sweep.runs["seconds"].sum()
        assert sweep.runs["gpu_seconds"].sum() == pytest.approx(2 * seconds)
    seen = [json.loads((tmp_path / f"seen-{rank}.json").read_text()) for rank in range(2)]
    # Submitit's helper says the same, but takes the node's name in Slurm, which nobody can look up here.
    assert [changed for _, changed in seen] == [["MASTER_ADDR"]] * 2
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "CUDA_VISIBLE_DEVICES")
    places = [[environ[name] for name in names[:5]] for environ, _ in seen]
    assert places == [["0", "0", "0", "2", "1"], ["1", "0", "1", "2", "1"]]
    assert len({environ["SLURMD_NODENAME"] for environ, _ in seen}) == 2
    assert all(len(environ["CUDA_VISIBLE_DEVICES"].split(",")) == 1 for environ, _ in seen)


#: The first attempt waits for its worker to be killed.
WAIT = (
    MEET
    + """
def train(trial):
    group = Group()
    for step in trial.steps():
        trial.report(step, loss=group.add(1))
        open(f"at-{RANK}-{trial.attempt}", "w").close()
        while trial.attempt == 0:
            time.sleep(1)
"""
)


def processes(root: Path, *words: str) -> list[int]:
    """Those of the sweep on this machine, with one of these words in their command lines."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_text()
            if str(root) in command and any(word in command for word in words):
                found.append(int(folder.name))
    return found


def test_a_worker_that_is_killed_leaves_no_rank_on_any_node_and_its_run_goes_on(
    slurm: PrivateSlurm, tmp_path: Path
) -> None:
    sets = (
        "train.launcher=srun",
        "scheduler={name: fifo, max_resource: 2}",
        "resources={nodes: 2, cpus: 2, time: 10m}",
        "train.processes=2",
        "budget.trials=1",
    )
    with Sweep(slurm, tmp_path, *sets, trainer=WAIT) as sweep:
        driver = sweep.launch()
        wait_until("four ranks train", lambda: len([*tmp_path.glob("at-*-0")]) == 4)
        ranks = processes(tmp_path, "hpcsweep.worker.rank", "hpcsweep.worker.entrypoint")
        assert len(ranks) >= 8, "four, and the parent of each"
        (worker,) = processes(tmp_path, "hpcsweep.cluster.slurm.task")
        os.kill(worker, signal.SIGKILL)
        wait_until("they are gone", lambda: not any(Path(f"/proc/{pid}").exists() for pid in ranks))
        out, _ = driver.communicate(timeout=300)
        assert driver.returncode == 0, out
        (interrupted,) = sweep.of_kind(RunInterrupted)
        assert interrupted.interruption is Interruption.WORKER_DIED


#: In its first start every rank waits after the second checkpoint, as in a collective whose peer is gone.
CHECKPOINTS = (
    MEET
    + """
import time

def train(trial):
    group = Group()
    for step in trial.steps():
        trial.report(step, loss=group.add(1))
        with trial.checkpoint(step):
            pass
        if step == 2 and trial.attempt == 0:
            open(f"at-{RANK}-{os.environ['SLURMD_NODENAME']}", "w").close()
            while True:
                time.sleep(1)
"""
)


def test_a_node_that_is_lost_in_the_middle_costs_what_came_after_the_last_checkpoint(
    slurm: PrivateSlurm, tmp_path: Path
) -> None:
    sets = (
        "train.launcher=srun",
        "scheduler={name: fifo, max_resource: 3}",
        "resources={nodes: 2, cpus: 1, time: 10m}",
        "budget.trials=1",
    )
    with Sweep(slurm, tmp_path, *sets, trainer=CHECKPOINTS) as sweep:
        sweep.put_before("squeue", '"$real" "$@" | tee -a "$0.rows"')
        polled = tmp_path / "wrappers" / "squeue.rows"
        polled.touch()
        driver = sweep.launch()
        wait_until("both ranks wait", lambda: len([*tmp_path.glob("at-*")]) == 2)
        (second,) = tmp_path.glob("at-1-*")
        node = second.name.rpartition("-")[2]

        def seen() -> int:
            return sum("RUNNING" in row and "n[" in row for row in polled.read_text().splitlines())

        wait_until("the driver has seen that it runs", lambda: seen() >= 3)
        slurm.kill_node(node)
        for pid in job_processes(slurm, node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        slurm.run("scontrol", "update", f"nodename={node}", "state=down", "reason=broken")
        out, _ = driver.communicate(timeout=300)
        assert driver.returncode == 0, out
        (lost,) = sweep.of_kind(RunInterrupted)
        assert lost.progressed
        assert lost.interruption is Interruption.NODE_FAIL
        # Its worker is told to stop, sees before that how Slurm ends the ranks, or is killed before it tells.
        assert lost.node.startswith("n[")
        of_which = (f"a node of {lost.node} failed: ", f"its node failed ({lost.node})")
        assert lost.message.startswith(of_which)
        (finished,) = sweep.of_kind(RunFinished)
        assert (finished.start, finished.value) == (2, 2.0)


#: Data-parallel training. In its first start rank 1 is killed in step 2; in a later one it waits in step 4 to
#: be preempted.
DDP = """
import os, signal, time
from datetime import timedelta
from pathlib import Path
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from hpcsweep.training.pytorch import TorchState

torch.set_num_threads(1)
BATCH = 16

def data():
    x = torch.linspace(-1, 1, 64, dtype=torch.float64).view(-1, 1)
    return x, torch.sin(3 * x)

def network():
    torch.manual_seed(5)
    return torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()

def epoch_of(model, optimizer, order, share=slice(None), average=lambda loss: loss):
    x, y = data()
    total = 0.0
    for batch in torch.split(torch.randperm(len(x), generator=order), BATCH):
        loss = ((model(x[batch[share]]) - y[batch[share]]) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += average(loss.detach()).item()
    return total

def train(trial):
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank, size = dist.get_rank(), dist.get_world_size()
    assert (rank, size) == (trial.rank, SIZE)
    def average(loss):
        dist.all_reduce(loss)
        return loss / size
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    order = torch.Generator().manual_seed(7)
    state = TorchState(model=model, optimizer=optimizer, order=order)
    if trial.resume_from:
        state.load(trial.resume_from)
    for step in trial.steps():
        if rank == 1 and trial.attempt == 0 and step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        loss = epoch_of(model, optimizer, order, slice(rank, None, size), average)
        waiting = Path(f"waiting-{rank}")
        if step == 4 and not waiting.exists():
            waiting.touch()
            while rank == 0 and not trial.told_to_stop:
                time.sleep(0.05)
        trial.report(step, loss=loss)
        with trial.checkpoint(step) as folder:
            state.save(folder)
    dist.destroy_process_group()
"""


@pytest.mark.parametrize(
    ("launcher", "processes"),
    by_effort([("srun", 1)], [("srun", 1), ("srun", 2), ("torchrun", 2), ("accelerate", 2)]),
)
def test_data_parallel_training_that_loses_a_rank_and_is_preempted_ends_like_a_single_process(
    slurm: PrivateSlurm, tmp_path: Path, launcher: str, processes: int
) -> None:
    """Each rank that starts costs some seconds of a core: torch is imported."""
    sets = (
        f"train.launcher={launcher}",
        f"train.processes={processes}",
        "scheduler={name: fifo, max_resource: 7}",
        "resources={nodes: 2, cpus: 2, time: 10m}",
        "retries.training=1",
        "budget.trials=1",
    )
    with Sweep(slurm, tmp_path, *sets, trainer=f"SIZE = {2 * processes}\n{DDP}") as sweep:
        driver = sweep.launch()
        wait_until("it waits at step 4", lambda: (tmp_path / "waiting-0").exists())
        job = next(row for row in slurm.squeue(states="running"))
        slurm.run("scontrol", "requeue", f"{job.job}_{job.task}")
        out, _ = driver.communicate(timeout=300)
        assert driver.returncode == 0, out
        (finished,) = sweep.of_kind(RunFinished)
        # Told in step 4, all ranks left after step 5.
        interrupted = [(event.interruption, event.step) for event in sweep.of_kind(RunInterrupted)]
        assert interrupted == [(Interruption.TRAINING_ERROR, 1), (Interruption.PREEMPTED, 5)]
        message = sweep.of_kind(RunInterrupted)[0].message
        assert message == "rank 1: killed by SIGKILL"
    trainer: dict[str, Any] = {}
    exec(DDP, trainer)
    model, order = trainer["network"](), torch.Generator().manual_seed(7)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = [trainer["epoch_of"](model, optimizer, order) for _ in range(7)]
    assert finished.value == pytest.approx(losses[-1], rel=1e-12)
    folder = Layout(sweep.root).trial(0).checkpoint(7)
    saved = torch.load(folder / "state.pt", weights_only=True)["parts"]["model"]
    for name, weights in model.state_dict().items():
        assert torch.allclose(saved[name], weights, rtol=1e-12, atol=1e-14), name
