"""What the worker of a task is told, and what its runs must not see of launchers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hpcsweep.cluster.slurm.step import srun_command
from hpcsweep.cluster.slurm.task import slurm_task
from hpcsweep.cluster.task_environment import task_variables, without_launcher

#: What a batch script of Slurm 22.05 has with one task, and what people look at in a job.
JOB = {
    "SLURM_JOB_ID": "70",
    "SLURM_JOBID": "70",
    "SLURM_JOB_NAME": "sweep-1",
    "SLURM_JOB_NODELIST": "n1",
    "SLURM_NODELIST": "n1",
    "SLURM_JOB_NUM_NODES": "1",
    "SLURM_NNODES": "1",
    "SLURM_JOB_CPUS_PER_NODE": "4",
    "SLURM_TASKS_PER_NODE": "1",
    "SLURM_CPUS_PER_TASK": "4",
    "SLURM_CPUS_ON_NODE": "4",
    "SLURM_ARRAY_JOB_ID": "70",
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_ARRAY_TASK_COUNT": "8",
    "SLURM_SUBMIT_DIR": "/home/me",
    "SLURM_RESTART_COUNT": "1",
    "SLURM_TMPDIR": "/scratch/70",
    "SLURM_MPI_TYPE": "pmix",
    "SLURMD_NODENAME": "n1",
    "PMIX_MCA_gds": "hash",
    "LC_CTYPE": "de_DE.UTF-8",
    "HOME": "/home/me",
}
#: By these a process believes that srun or mpirun started it.
LAUNCHED = {
    "SLURM_NTASKS": "1",
    "SLURM_NPROCS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_GTIDS": "0",
    "SLURM_TASK_PID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_STEPID": "0",
    "SLURM_STEP_NODELIST": "n1",
    "SLURM_STEP_NUM_TASKS": "1",
    "SLURM_STEP_TASKS_PER_NODE": "1",
    "SLURM_SRUN_COMM_HOST": "login",
    "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1",
    "SLURM_CPU_BIND": "quiet,mask_cpu:0x1",
    "SLURM_EXPORT_ENV": "NONE",
    "SLURM_PMIX_MAPPING_SERV": "(vector,(0,1,1))",
    "PMI_RANK": "0",
    "PMI_SIZE": "1",
    "PMIX_RANK": "0",
    "PMIX_NAMESPACE": "slurm.pmix.70.0",
    "OMPI_COMM_WORLD_SIZE": "1",
    "MPI_LOCALRANKID": "0",
}
TASK = {
    "SUBMITIT_EXECUTOR": "slurm",
    "HPCSWEEP_TASK": "3",
    "HPCSWEEP_RESTART": "1",
    "HPCSWEEP_JOB": "70_3",
    "HPCSWEEP_NODE": "n1",
}
SHOW = "import json, os, sys; print(json.dumps([sys.argv, dict(os.environ)]))"


def test_runs_see_what_slurm_says_of_the_job_and_no_launcher_variables() -> None:
    assert without_launcher({**JOB, **LAUNCHED}) == {**JOB, "SRUN_CPUS_PER_TASK": "4"}


def test_outside_of_slurm_the_environment_stays_as_it_is() -> None:
    assert without_launcher({"HOME": "/home/me"}) == {"HOME": "/home/me"}


def test_the_task_is_told_by_slurm_s_variables() -> None:
    found = slurm_task(JOB)
    start = json.loads(found.pop("HPCSWEEP_START"))
    assert (start[0], start[-1]) == (sys.executable, "hpcsweep.cluster.slurm.step")
    assert found == TASK
    first = {name: value for name, value in JOB.items() if name != "SLURM_RESTART_COUNT"}
    assert slurm_task(first)["HPCSWEEP_RESTART"] == "0"


def test_the_other_nodes_of_a_task_are_told_a_name_by_which_they_find_the_first() -> None:
    assert slurm_task(JOB).keys().isdisjoint({"HPCSWEEP_ADDRESS", "HPCSWEEP_NODES"})
    several = {**JOB, "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "n[1-2]"}
    assert slurm_task(several)["HPCSWEEP_NODES"] == "n[1-2]"
    assert slurm_task({**several, "SLURMD_NODENAME": "localhost"})["HPCSWEEP_ADDRESS"] == "localhost"
    unknown = slurm_task({**several, "SLURMD_NODENAME": "no-such-node.invalid"})
    assert unknown["HPCSWEEP_ADDRESS"] == socket.gethostname()


def test_srun_starts_as_many_processes_on_each_node_and_shares_its_cpus_out() -> None:
    environ = {**JOB, "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "16"}
    assert srun_command(4, ["python", "x"], environ) == [
        "srun",
        "--nodes=2",
        "--ntasks=8",
        "--ntasks-per-node=4",
        "--cpus-per-task=4",
        "--kill-on-bad-exit=1",
        "--quit-on-interrupt",
        "--export=ALL",
        "python",
        "x",
    ]


@pytest.mark.parametrize(("module", "kept"), [("hpcsweep.worker.rank", True), ("other", False)])
def test_a_started_process_knows_its_place_and_only_a_rank_that_srun_started_it(
    module: str, kept: bool
) -> None:
    step = "import json, os, runpy, sys; from hpcsweep.cluster.slurm import step; "
    step += f"runpy.run_module = lambda *a, **k: exec({SHOW!r}); step.main(['started', {module!r}, 'x'])"
    done = subprocess.run(
        [sys.executable, "-c", step],
        env={**JOB, **LAUNCHED, "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "2"},
        capture_output=True,
        check=True,
    )
    argv, environ = json.loads(done.stdout)
    assert argv == [module, "x"]
    place = {name: environ[f"HPCSWEEP_{name}"] for name in ("RANK", "LOCAL_RANK", "NODE_RANK")}
    assert place == {"RANK": "5", "LOCAL_RANK": "1", "NODE_RANK": "2"}
    assert (environ.get("SLURM_PROCID") == "5") is kept


def test_outside_of_an_array_slurm_says_nothing_of_a_task() -> None:
    assert slurm_task({"SLURM_JOB_ID": "70"}) == {}


def test_the_node_of_a_task_may_be_unknown() -> None:
    assert task_variables(task=3, restart=1, job="70_3")["HPCSWEEP_NODE"] == ""


@pytest.mark.parametrize("module", ["hpcsweep.cluster.slurm.task"])
def test_the_launcher_starts_a_module_with_the_task_s_variables_alone(tmp_path: Path, module: str) -> None:
    (tmp_path / "show_task.py").write_text(SHOW)
    environ = {**os.environ, **JOB, **LAUNCHED, "HPCSWEEP_TASK": "7", "PYTHONPATH": str(tmp_path)}
    argv = [sys.executable, "-m", module, "--module", "show_task", "/r/batches/b"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True)
    arguments, seen = json.loads(done.stdout)
    assert arguments[1:] == ["/r/batches/b"]
    expected = {**JOB, **TASK}
    del expected["LC_CTYPE"]  # Python sets its own where the locale is not installed
    assert seen.items() >= expected.items()
    assert seen.keys() & LAUNCHED.keys() == set()


def test_training_code_can_use_the_job_environment_of_submitit(tmp_path: Path) -> None:
    (tmp_path / "use_submitit.py").write_text(
        "import os, submitit\n"
        "job = submitit.JobEnvironment()\n"
        "submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)\n"
        "torch = map(os.environ.get, ('WORLD_SIZE', 'RANK', 'MASTER_ADDR'))\n"
        "print(job.job_id, job.num_tasks, job.global_rank, *torch)"
    )
    environ = {**os.environ, **JOB, **LAUNCHED, "PATH": "/nowhere", "PYTHONPATH": str(tmp_path)}
    argv = [sys.executable, "-m", "hpcsweep.cluster.slurm.task", "--module", "use_submitit", "/r/batches/b"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["70_3", "1", "0", "1", "0", "n1"]
