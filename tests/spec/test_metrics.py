"""`train.metrics`: where a program leaves its metrics, checked before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hpcsweep.errors import SpecError
from hpcsweep.spec import json_schema
from hpcsweep.spec.load import load_spec
from hpcsweep.spec.yaml_io import parse_yaml
from hpcsweep.store.batch import MetricFile

SPEC = """\
train: {{command: "./prog {{x}} {{checkpoint_dir}}", metrics: {metrics}}}
objective: {{metric: val/loss}}
space: {{x: [1, 2]}}
{more}
"""


def load(tmp_path: Path, metrics: Any, more: str = "", *, stored: bool = False) -> tuple[MetricFile, ...]:
    """The files of the program; the spec is valid by its schema, and reads back to an equal one."""
    path = tmp_path / "s.yaml"
    path.write_text(SPEC.format(metrics=json.dumps(metrics), more=more))
    spec = load_spec(path, stored=stored)
    jsonschema.validate(parse_yaml(path.read_text(), source="x"), json_schema())
    path.write_text(spec.yaml)
    assert load_spec(path, stored=stored) == spec
    return spec.program().metric_files


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"file": "{trial}/m.csv"}, [MetricFile("{trial}/m.csv", "csv")]),
        (
            [
                "(?P<acc>.)",
                {
                    "file": "{checkpoint_dir}/log",
                    "kind": "jsonl",
                    "step": "epoch",
                    "values": {"val/loss": 2, "b": "c.d"},
                },
            ],
            [MetricFile("{checkpoint_dir}/log", "jsonl", "epoch", {"val/loss": "2", "b": "c.d"})],
        ),
        (
            [{"file": "{trial}/a.json"}, {"file": "{trial}-{x}/wandb", "step": "rows"}],
            [MetricFile("{trial}/a.json", "json"), MetricFile("{trial}-{x}/wandb", "wandb", "rows")],
        ),
    ],
)
def test_files_reach_the_worker_as_they_are_meant(
    tmp_path: Path, metrics: Any, expected: list[MetricFile]
) -> None:
    assert load(tmp_path, metrics) == tuple(expected)


@pytest.mark.parametrize(
    ("metrics", "problem"),
    [
        ({"file": "{trial}/m.csv", "steps": "x"}, "train.metrics.steps: unknown key; did you mean 'step'?"),
        ([{"file": 3}], "train.metrics[0].file: must be text, got 3; quote it"),
        (
            [{"step": "x"}],
            (
                "train.metrics[0].file: missing; expected a path relative to the working directory, with "
                "placeholders such as `{output_dir}` and with `*`"
            ),
        ),
        ([["a"]], "train.metrics[0]: must be a regular expression, or a mapping with a file, got ['a']"),
        (
            {"file": "{trial}/m.csv", "kind": "cvs"},
            "train.metrics.kind: unknown kind 'cvs'; did you mean 'csv'?",
        ),
        (
            {"file": "{trial}/log.txt"},
            (
                "train.metrics.kind: missing; '{trial}/log.txt' does not say its kind; expected one of: "
                "trainer_state, tensorboard, wandb, mlflow, csv, jsonl, json"
            ),
        ),
        (
            {"file": "{trail}/m.csv"},
            "train.metrics.file: unknown placeholder {trail}; did you mean 'trial'?",
        ),
        (
            {"file": "m.csv"},
            (
                "train.metrics.file: 'm.csv' is the same for trials that run at the same time: have the "
                "program write into {output_dir}, and begin the path with it, or set cluster.max_tasks: 1"
            ),
        ),
        (
            {"file": "{trial}/m.csv", "values": {"val_loss": "x"}},
            (
                "objective.metric: 'val/loss' is not among the metrics of train.metrics, 'val_loss'; "
                "did you mean 'val_loss'?"
            ),
        ),
        (
            ["(?P<a>.)", {"file": "{trial}/m.csv", "values": {"step": "x"}}],
            "train.metrics[1].values: a metric cannot be called 'step'",
        ),
    ],
)
def test_what_cannot_be_found_is_told_before_the_queue(tmp_path: Path, metrics: Any, problem: str) -> None:
    with pytest.raises(SpecError) as raised:
        load(tmp_path, metrics)
    assert f"{tmp_path}/s.yaml: {problem}" in str(raised.value).splitlines()


@pytest.mark.parametrize(
    "more",
    [
        "cluster: {max_tasks: 1}",
        "cluster: {name: local, slots: 1}",
        "cluster: {max_gpus: 3}\nresources: {gpus: 2}",
    ],
)
def test_trials_that_run_one_after_another_may_write_the_same_file(tmp_path: Path, more: str) -> None:
    assert load(tmp_path, {"file": "lightning_logs/*/metrics.csv"}, more)
    with pytest.raises(SpecError, match="is the same for trials"):
        load(tmp_path, {"file": "m.csv"}, "cluster: {max_tasks: 1, concurrent: 2}")


def test_a_stored_spec_may_have_what_a_new_one_may_not(tmp_path: Path) -> None:
    assert load(tmp_path, {"file": "m.csv", "values": {"a": "b"}}, stored=True)
