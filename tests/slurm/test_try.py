"""`try --cluster slurm` on real daemons: both runs are jobs, the second resumes, and nothing is left."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import hpcsweep

from .fixture import PrivateSlurm

PROGRAM = """\
import json, os, pathlib, sys
epochs, save, resume = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:]
start = int(pathlib.Path(resume[0], "epoch").read_text()) if resume else 0
for epoch in range(start + 1, epochs + 1):
    print(f"epoch {epoch} loss {1 / epoch} in job {os.environ['SLURM_JOB_ID']}")
    (save / "epoch").write_text(str(epoch))
"""
SPEC = """\
train:
  command: "{python} p.py {resource} {checkpoint_dir} {resume_from?{resume_from}}"
  metrics: 'epoch (?P<step>\\\\d+) loss (?P<loss>\\\\S+)'
  check: false
objective: {metric: loss}
space: {x: [1, 2]}
scheduler: {name: asha, max_resource: 9}
budget: {trials: 3}
resources: {gpus: 1, cpus: 1, time: 10m}
cluster: {name: slurm, poll: 1, grace: 5, settle: 5}
"""


def test_both_runs_are_jobs_and_nothing_is_left(slurm: PrivateSlurm, tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(PROGRAM)
    (tmp_path / "s.yaml").write_text(SPEC.replace("\\\\", "\\"))
    done = subprocess.run(
        [sys.executable, "-m", "hpcsweep", "try", "s.yaml", "--cluster", "slurm"],
        cwd=tmp_path,
        env={**slurm.env, "PYTHONPATH": str(Path(hpcsweep.__file__).parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    jobs = re.findall(r"\| epoch (\d) loss \S+ in job (\d+)", done.stdout)
    assert [epoch for epoch, _ in jobs] == ["1", "2", "3"]
    assert "   it resumed from step 1\n" in done.stdout
    assert slurm.squeue(states="pending,running,completing") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.py", "s.yaml"]
