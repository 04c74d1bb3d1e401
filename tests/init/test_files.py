"""Metrics that programs leave in files, and that libraries print by themselves: found in the script."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hpcsweep.init.found import MetricFile
from hpcsweep.init.libraries import library_lines
from hpcsweep.init.proposal import propose
from hpcsweep.init.reading import read
from hpcsweep.init.sources import Source

HEAD = """\
import argparse, csv, json, os
from pathlib import Path
import {imports}
p = argparse.ArgumentParser()
p.add_argument("--out-dir", default="out")
p.add_argument("--table", default="t.csv")
args = p.parse_args()
"""


def files(folder: Path, body: str, *, imports: str = "sys") -> tuple[MetricFile, ...]:
    (folder / "train.py").write_text(HEAD.format(imports=imports) + body)
    return read(folder / "train.py").files


ROWS = """\
with open({path}, "w") as file:
    writer = csv.writer(file)
    writer.writerow(["epoch", "loss", "val_loss"])
    for epoch in range(3):
        writer.writerow([epoch, 1, 2])
"""
COLUMNS = ("loss", "val_loss")


@pytest.mark.parametrize(
    ("path", "argument", "below"),
    [
        ('os.path.join(args.out_dir, "a", "m.csv")', "out_dir", "a/m.csv"),
        ('Path(args.out_dir) / "m.csv"', "out_dir", "m.csv"),
        ('f"{args.out_dir}/m.csv"', "out_dir", "m.csv"),
        ('args.out_dir + "/m.csv"', "out_dir", "m.csv"),
        ("args.table", "table", ""),
        ('"m.csv"', "", "m.csv"),
    ],
)
def test_a_path_is_read_as_an_argument_and_what_is_below_it(
    tmp_path: Path, path: str, argument: str, below: str
) -> None:
    found = files(tmp_path, ROWS.format(path=path))
    assert found == (MetricFile("csv", argument, below, COLUMNS, "epoch", 0),)


def test_a_path_that_only_the_run_knows_is_no_file(tmp_path: Path) -> None:
    assert files(tmp_path, ROWS.format(path="make_name()")) == ()


OTHERS: list[tuple[str, str, MetricFile]] = [
    (
        "csv",
        "names = ['step', 'val_acc']\nw = csv.DictWriter(open(args.table, 'w'), fieldnames=names)\n",
        MetricFile("csv", "table", "", ("val_acc",), "step"),
    ),
    (
        "csv",
        "log = open('log.csv', 'w')\nlog.write('epoch,train_loss,val_loss\\n')\n",
        MetricFile("csv", "", "log.csv", ("train_loss", "val_loss"), "epoch"),
    ),
    (
        "json",
        "m = {'accuracy': 1}\nm['f1'] = 2\nwith open('m.json', 'w') as f:\n    json.dump(m, f)\n",
        MetricFile("json", "", "m.json", ("accuracy", "f1")),
    ),
    (
        "json",
        "(Path(args.out_dir) / 'm.json').write_text(json.dumps({'rmse': 1}))\n",
        MetricFile("json", "out_dir", "m.json", ("rmse",)),
    ),
    (
        "json",
        "f = open('l.jsonl', 'a')\nfor epoch in range(1, 3): f.write(json.dumps({'step': epoch, 'loss': 1}))",
        MetricFile("jsonl", "", "l.jsonl", ("loss",), "step", 1),
    ),
    (
        "tensorboardX",
        "w = tensorboardX.SummaryWriter(log_dir=args.out_dir)\nw.add_scalar('val/loss', 1, 2)\n",
        MetricFile("tensorboard", "out_dir", "", ("val/loss",)),
    ),
    (
        "wandb",
        "wandb.init(project='x')\nfor epoch in range(3):\n    wandb.log({'epoch': epoch, 'val/loss': 1})\n",
        MetricFile("wandb", "", "", ("val/loss",), "epoch", 0),
    ),
    ("mlflow", "mlflow.log_metric('val_acc', 1, step=2)\n", MetricFile("mlflow", "", "", ("val_acc",))),
    (
        "lightning",
        "self.log('val_loss', loss)\nlightning.Trainer(logger=lightning.CSVLogger(args.out_dir))\n",
        MetricFile("lightning", "out_dir", "", ("val_loss",), "epoch", 0),
    ),
    (
        "pytorch_lightning",
        "self.log_dict({'val_loss': loss})\npytorch_lightning.Trainer(default_root_dir=args.out_dir)\n",
        MetricFile("tensorboard", "out_dir", "", ("val_loss",), "epoch", 0),
    ),
]


@pytest.mark.parametrize(("imports", "body", "file"), OTHERS)
def test_metrics_in_files(tmp_path: Path, imports: str, body: str, file: MetricFile) -> None:
    assert files(tmp_path, body, imports=imports) == (file,)
    (interface,) = read(tmp_path / "train.py").interfaces
    assert len(interface.arguments) == 2


@pytest.mark.parametrize(
    ("imports", "body", "command", "source"),
    [
        (
            "wandb",
            "wandb.init()\nwandb.log({'val/loss': 1})\n",
            "env WANDB_MODE=offline WANDB_DIR={output_dir} python t.py --out-dir {output_dir}",
            {"file": "{output_dir}", "kind": "wandb", "values": {"val_loss": "val/loss"}},
        ),
        (
            "mlflow",
            "mlflow.log_metric('val_acc', 1)\n",
            "env MLFLOW_TRACKING_URI=file://{output_dir}/mlruns python t.py --out-dir {output_dir}",
            {"file": "{output_dir}/mlruns", "kind": "mlflow", "values": {"val_acc": "val_acc"}},
        ),
        (
            "sys",
            "json.dump({'accuracy': 1}, open('m.json', 'w'))\n",
            'cd {output_dir} && python "$OLDPWD"/t.py --out-dir {output_dir}',
            {"file": "{output_dir}/m.json", "values": {"accuracy": "accuracy"}},
        ),
        (
            "sys",
            ROWS.format(path="args.table"),
            "python t.py --out-dir {output_dir} --table {output_dir}/t.csv",
            {
                "file": "{output_dir}/t.csv",
                "step": "epoch",
                "values": {"loss": "loss", "val_loss": "val_loss"},
            },
        ),
    ],
)
def test_each_run_writes_its_metrics_into_a_folder_of_its_own(
    tmp_path: Path, imports: str, body: str, command: str, source: dict[str, Any]
) -> None:
    files(tmp_path, body, imports=imports)
    proposal = propose(read(tmp_path / "train.py"), program="python t.py")
    assert (proposal.command.command, proposal.metrics) == (command, (source,))


@pytest.mark.parametrize(
    ("code", "printed", "values"),
    [
        (
            "from tensorflow import keras\nmodel.fit(x, y, validation_split=0.1, epochs=3)\n",
            "12/12 - 0s - loss: 0.61 - val_accuracy: 0.71 - val_loss: 0.5",
            {"val_loss": "0.5"},
        ),
        (
            "import xgboost as xgb\nxgb.train({}, d, 10, evals=[(d, 'train'), (v, 'valid')])\n",
            "[3]\ttrain-rmse:0.25\tvalid-rmse:0.5",
            {"step": "3", "val_loss": "0.5"},
        ),
        (
            "import lightgbm as lgb\nlgb.train({}, d, valid_sets=[v])\n",
            "[3]\tvalid_0's l2: 0.5",
            {"step": "3", "val_loss": "0.5"},
        ),
        (
            "from transformers import Trainer\nTrainer(model)\n",
            "{'eval_loss': 0.5, 'eval_runtime': 1.2, 'epoch': 3.0}",
            {"eval_loss": "0.5", "step": "3.0"},
        ),
    ],
)
def test_what_libraries_print(code: str, printed: str, values: dict[str, str]) -> None:
    (line,) = library_lines(Source(Path("train.py"), code))
    match = re.search(line.pattern, printed)
    assert match is not None
    assert match.groupdict() == values
