"""What `plan` tells of runs that need different resources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcsweep.cli.plan_shapes import print_scripts, print_shapes
from hpcsweep.cluster.slurm.cluster import SlurmCluster
from hpcsweep.cluster.slurm.options import SlurmOptions
from hpcsweep.session.algorithms import make_scheduler
from hpcsweep.session.session import Session
from hpcsweep.session.target import Target, task_kinds
from hpcsweep.spec.load import read_spec

SPEC: dict[str, Any] = {
    "name": "s",
    "train": {"command": "true {args} {resource} {resume_from}", "check": False},
    "objective": {"metric": "loss"},
    "space": {"wide": {"type": "choice", "values": [0, 1]}},
    "scheduler": {"name": "halving", "max_resource": 9, "eta": 3},
    "resources": {"gpus": "4 if wide else 1", "cpus": "2 * gpus", "time": {"base": "2m", "per_unit": "20m"}},
    "cluster": {"max_gpus": 8},
}
SHAPES = """\
resources of runs, by 200 random configurations:
  rung 0, from 0 to 1, 9 runs:
    about 4 with 1 GPU, 2 CPUs, at most 22 min
    about 5 with 4 GPUs, 8 CPUs, at most 22 min
  rung 1, from 1 to 3, 3 runs:
    about 1.3 with 1 GPU, 2 CPUs, at most 42 min
    about 1.7 with 4 GPUs, 8 CPUs, at most 42 min
  rung 2, from 3 to 9, 1 run:
    about 0.44 with 1 GPU, 2 CPUs, at most 2.03 h
    about 0.56 with 4 GPUs, 8 CPUs, at most 2.03 h
about 19.92 GPU-hours if every run takes its whole time limit, once
at most 8 GPUs at a time, over all shapes
"""


def target(spec: Any, *, reuse: bool) -> Target:
    cluster = SlurmCluster(SlurmOptions())
    kinds = task_kinds(spec, cluster, reuse=reuse, lanes=1)
    return Target("slurm", "Slurm", cluster, spec.task_shape(reuse=reuse), reuse, 8, kinds)


def test_plan_shows_how_many_runs_of_each_shape_and_what_the_scripts_ask_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = read_spec(SPEC, source="s.yaml", folder=tmp_path)
    where = target(spec, reuse=False)
    rungs = print_shapes(spec, where, make_scheduler(spec).plan())
    assert capsys.readouterr().out == SHAPES
    print_scripts(Session(spec, tmp_path, target=where), rungs)
    lines = capsys.readouterr().out.splitlines()
    asked = [line for line in lines if line.startswith(("#SBATCH --gres", "#SBATCH --time", "for "))]
    assert asked == [
        "#SBATCH --gres=gpu:1",
        "#SBATCH --time=22",
        "for 4 GPUs, 8 CPUs, at most 22 min (rung 0) with:",
        "#SBATCH --gres=gpu:4",
        "for 1 GPU, 2 CPUs, at most 42 min (rung 1) with:",
        "#SBATCH --time=42",
        "for 4 GPUs, 8 CPUs, at most 42 min (rung 1) with:",
        "#SBATCH --gres=gpu:4",
        "#SBATCH --time=42",
        "for 1 GPU, 2 CPUs, at most 2.03 h (rung 2) with:",
        "#SBATCH --time=122",
        "for 4 GPUs, 8 CPUs, at most 2.03 h (rung 2) with:",
        "#SBATCH --gres=gpu:4",
        "#SBATCH --time=122",
    ]


def test_plan_shows_a_script_once_where_limits_differ_by_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resources = {"gpus": 1, "time": {"base": "2m", "per_unit": "1s"}}
    spec = read_spec(SPEC | {"resources": resources}, source="s.yaml", folder=tmp_path)
    where = target(spec, reuse=False)
    rungs = print_shapes(spec, where, make_scheduler(spec).plan())
    capsys.readouterr()
    print_scripts(Session(spec, tmp_path, target=where), rungs)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(("script of", "for ", "#SBATCH --time"))] == [
        "script of 1 GPU, 1 CPU, at most 2.02 min (rung 0):",
        "#SBATCH --time=3",
    ]
