"""Submitit's parameters mean what they mean there."""

from __future__ import annotations

from typing import Any

import pytest

import hpcsweep as hs
from hpcsweep.api.submitit import SubmititParameters, submitit_sections
from hpcsweep.errors import SpecError


def sweep(**parameters: Any) -> hs.Sweep:
    return hs.Sweep("true", {"lr": [1, 2]}, "loss", searcher="grid", **parameters)


#: Each parameter with a value, and the key of the spec that it sets.
MEANINGS: list[tuple[str, Any, str, Any]] = [
    ("timeout_min", 90, "resources.time", 5400),
    ("mem_gb", 1.5, "resources.mem", 1536),
    ("gpus_per_node", 2, "resources.gpus", 2),
    ("gpus_per_node", "volta:2", "cluster.gpu_type", "volta"),
    ("cpus_per_task", 4, "resources.cpus", 4),
    ("nodes", 1, "resources.nodes", 1),
    ("tasks_per_node", 1, "resources.gpus", 0),
    ("stderr_to_stdout", True, "resources.gpus", 0),
    ("slurm_partition", "gpu", "cluster.partition", "gpu"),
    ("slurm_account", "lab", "cluster.account", "lab"),
    ("slurm_qos", "high", "cluster.qos", "high"),
    ("slurm_constraint", "v100", "cluster.constraint", "v100"),
    ("slurm_nodelist", "n1", "cluster.nodelist", "n1"),
    ("slurm_exclude", "n1", "cluster.exclude", "n1"),
    ("slurm_exclusive", True, "cluster.options", {"exclusive": True}),
    ("slurm_comment", "mine", "cluster.options", {"comment": "mine"}),
    ("slurm_job_name", "mine", "name", "mine"),
    ("slurm_time", 30, "resources.time", 1800),
    ("slurm_time", "01:30:00", "resources.time", 5400),
    ("slurm_mem", "16GB", "resources.mem", 16384),
    ("slurm_mem_per_cpu", "2G", "cluster.options", {"mem-per-cpu": "2G"}),
    ("slurm_mem_per_gpu", "20G", "cluster.options", {"mem-per-gpu": "20G"}),
    ("slurm_gres", "gpu:a100:2", "resources.gpus", 2),
    ("slurm_gpus_per_node", 3, "resources.gpus", 3),
    ("slurm_gpus_per_task", 3, "resources.gpus", 3),
    ("slurm_num_gpus", 1, "resources.gpus", 1),
    ("slurm_cpus_per_task", 8, "resources.cpus", 8),
    ("slurm_nodes", 1, "resources.nodes", 1),
    ("slurm_ntasks_per_node", 1, "resources.gpus", 0),
    ("slurm_array_parallelism", 16, "cluster.max_tasks", 16),
    ("slurm_max_num_timeout", 3, "retries.timeouts", 3),
    ("slurm_signal_delay_s", 90, "cluster.signal", 90),
    ("slurm_setup", ["module load cuda"], "cluster.setup", ("module load cuda",)),
    ("slurm_python", "/opt/python", "cluster.python", "/opt/python"),
    ("slurm_use_srun", False, "resources.gpus", 0),
    ("slurm_stderr_to_stdout", True, "resources.gpus", 0),
    ("slurm_mail_type", "END", "cluster.options", {"mail-type": "END"}),
    ("slurm_mail_user", "me@lab", "cluster.options", {"mail-user": "me@lab"}),
    ("slurm_additional_parameters", {"wckey": "x"}, "cluster.options", {"wckey": "x"}),
]


@pytest.mark.parametrize(("name", "value", "key", "meaning"), MEANINGS)
def test_a_parameter_of_submitit_sets_the_key_that_means_the_same(
    name: str, value: Any, key: str, meaning: Any
) -> None:
    found: Any = sweep(**{name: value}).spec
    for part in key.split("."):
        found = getattr(found, part)
    assert found == meaning


def test_the_table_has_every_parameter() -> None:
    assert {name for name, *_ in MEANINGS} == set(SubmititParameters.__annotations__)


def test_parameters_of_submitit_go_with_sections() -> None:
    found = sweep(resources=hs.Resources(gpus=1), cluster=hs.Slurm(max_gpus=4), timeout_min=30, mem_gb=8).spec
    assert (found.resources.gpus, found.resources.mem, found.resources.time) == (1, 8192, 1800)
    assert (found.cluster.name, found.cluster.max_gpus) == ("slurm", 4)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"timeout_mn": 3}, "timeout_mn: unknown parameter; did you mean 'timeout_min'?"),
        ({"tasks_per_node": 2}, "tasks_per_node: must be 1, got 2: see train.launcher"),
        (
            {"slurm_use_srun": True},
            "slurm_use_srun: must be false: a run is a child of its task; call srun in its command",
        ),
        (
            {"gpus_per_node": "many"},
            "gpus_per_node: must be a number of GPUs such as 2 or 'a100:2', got 'many'",
        ),
        (
            {"timeout_min": 3, "slurm_time": 4},
            "slurm_time: means resources.time, as timeout_min does: give one of the two",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(parameters: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError) as found:
        submitit_sections(parameters)
    assert str(found.value) == problem


def test_a_key_that_is_given_twice_is_refused() -> None:
    with pytest.raises(SpecError) as found:
        sweep(resources=hs.Resources(time="1h"), timeout_min=30)
    assert str(found.value) == (
        "hs.Sweep: resources.time: is given twice, once by a parameter of submitit: give one of the two"
    )
