"""Programs that know nothing of hpcsweep leave their metrics in files, on another node."""

from __future__ import annotations

from pathlib import Path

import pytest

import hpcsweep

from .fixture import PrivateSlurm
from .sweeps import finish, launch

PROGRAM = """\
#!/bin/sh
# ./program.sh KIND FOLDER: 40 epochs; of the kind "flat" only what stops it is an end
mkdir "$2/version_0"
echo 'epoch,train_loss,val/loss' > "$2/version_0/metrics.csv"
epoch=0
while [ $epoch -lt 40 ]; do
    echo "$epoch,3," >> "$2/version_0/metrics.csv"
    if [ "$1" = flat ]; then value=0.995; else value=0.$((90 - epoch)); fi
    echo "$epoch,,$value" >> "$2/version_0/metrics.csv"
    epoch=$((epoch + 1))
    [ "$1 $epoch" != "flat 10" ] || exec sleep 600
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
    assert steps[0] == 10
    assert steps[1] == 40


FIXTURES = Path(__file__).parents[1] / "fixtures/metrics"
ALL_KINDS = """\
name: kinds
train:
  shell: true
  command: 'cp -r {fixtures}/* {output_dir} && cd {output_dir} && sh "$HPCSWEEP_WORKDIR/write.sh"'
  metrics:
  - 'error (?P<printed>\\S+)'
  - {file: "{output_dir}/m.csv", step: epoch, values: {csv: loss}}
  - {file: "{output_dir}/m.jsonl", step: epoch, values: {jsonl: loss}}
  - {file: "{output_dir}/m.json", values: {json: test.loss}}
  - {file: "{output_dir}/out/checkpoint-*/trainer_state.json", step: epoch, values: {state: eval_loss}}
  - {file: "{output_dir}/tensorboard", kind: tensorboard, step: epoch, values: {tensorboard: val/loss}}
  - {file: "{output_dir}/wandb", step: epoch, values: {wandb: val/loss}}
  - {file: "{output_dir}/mlruns", values: {mlruns: val/loss}}
  - {file: "{output_dir}/mlflow.db", values: {mlflow: val/loss}}
objective: {metric: csv}
space: {fixtures: [%s]}
searcher: grid
scheduler: {name: fifo, max_resource: 3}
resources: {cpus: 1, time: 10m}
cluster: {name: slurm, max_tasks: 4, poll: 1, grace: 5, settle: 5}
"""
WRITE = """\
mkdir -p out/checkpoint-3
echo epoch,loss > m.csv
for epoch in 1 2 3; do
    echo "error $epoch"
    echo "$epoch,$epoch" >> m.csv
    echo "{\\"epoch\\": $epoch, \\"loss\\": $epoch}" >> m.jsonl
done
echo '{"test": {"loss": 3}}' > m.json
echo '{"log_history": [{"epoch": 3.0, "step": 30, "eval_loss": 3}]}' > out/checkpoint-3/trainer_state.json
"""


def test_metrics_of_each_kind_are_read_on_another_node(slurm: PrivateSlurm, tmp_path: Path) -> None:
    (tmp_path / "write.sh").write_text(WRITE)
    (tmp_path / "sweep.yaml").write_text(ALL_KINDS % FIXTURES)
    finish(launch(tmp_path / "sweep.yaml"))
    table = hpcsweep.load(tmp_path / "results/kinds").metrics
    found = {
        name: dict(zip(rows.step, rows[name], strict=True))
        for name in table.columns.drop(["trial", "rung", "attempt", "restart", "step"], errors="ignore")
        if len(rows := table.dropna(subset=[name]))
    }
    counted, logged = {1: 1, 2: 2, 3: 3}, {1: 1.0, 2: 0.5, 3: pytest.approx(1 / 3)}
    assert found == {
        **dict.fromkeys(["printed", "csv", "jsonl"], counted),
        "json": {3: 3},  # a document without steps is the end
        "state": {3: 3},
        **dict.fromkeys(["tensorboard", "wandb", "mlruns", "mlflow"], logged),
    }
