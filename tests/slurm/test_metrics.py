"""A program that knows nothing of hpcsweep leaves its metrics in a file, on another node."""

from __future__ import annotations

from pathlib import Path

import hpcsweep

from .fixture import PrivateSlurm
from .sweeps import finish, launch

PROGRAM = """\
#!/bin/sh
# ./program.sh KIND FOLDER: 40 epochs; those of the kind "flat" take half a second each
mkdir "$2/version_0"
echo 'epoch,train_loss,val/loss' > "$2/version_0/metrics.csv"
epoch=0
while [ $epoch -lt 40 ]; do
    echo "$epoch,3," >> "$2/version_0/metrics.csv"
    if [ "$1" = flat ]; then value=0.995; sleep 0.5; else value=0.$((90 - epoch)); fi
    echo "$epoch,,$value" >> "$2/version_0/metrics.csv"
    epoch=$((epoch + 1))
done
"""
SPEC = """\
name: files
train:
  command: sh program.sh {kind} {output_dir}
  metrics: {file: "{output_dir}/version_*/metrics.csv", step: epoch, values: {val/loss: val/loss}}
  first_step: 0
objective: {metric: val/loss}
space: {kind: [flat, steep]}
searcher: grid
scheduler: {name: fifo, max_resource: 40}
stop: {name: plateau, patience: 3}
resources: {cpus: 1, time: 10m}
cluster: {name: slurm, max_tasks: 4, reuse: false, poll: 1, grace: 5, settle: 5}
"""


def test_a_stopping_rule_sees_the_rows_of_a_file_while_the_run_goes_on(
    slurm: PrivateSlurm, tmp_path: Path
) -> None:
    (tmp_path / "program.sh").write_text(PROGRAM)
    (tmp_path / "sweep.yaml").write_text(SPEC)
    finish(launch(tmp_path / "sweep.yaml"))
    results = hpcsweep.load(tmp_path / "results/files")
    ends = {row["config.kind"]: (row["status"], row["value"]) for row in results.trials.to_dict("records")}
    assert ends == {"flat": ("stopped", 0.995), "steep": ("completed", 0.51)}
    steps = results.metrics.dropna(subset=["val/loss"]).groupby("trial").step.max().to_dict()
    assert 4 <= steps[0] < 40
    assert steps[1] == 40
