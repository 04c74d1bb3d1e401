"""What `try` runs in the place of a spec: the configuration and the resources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcsweep.core.expressions import Expression
from hpcsweep.core.space import Choice, Float, Int, Ordinal, Parameter, Space
from hpcsweep.errors import SpecError
from hpcsweep.spec import load_spec
from hpcsweep.try_run.derived import is_told, middle_config, overrides_to_try, resources_to_try
from hpcsweep.try_run.patterns import numbers_seen, propose_pattern

SPACE = Space(
    (
        Parameter("lr", Float(1e-4, 1.0, log=True)),
        Parameter("layers", Int(1, 5)),
        Parameter("size", Ordinal((32, 64, 128))),
        Parameter("optimizer", Choice(("adam", "sgd"))),
        Parameter("momentum", Float(0.0, 1.0), {"optimizer": ("sgd",)}),
    )
)


@pytest.mark.parametrize(
    ("given", "config"),
    [
        ({}, {"lr": 0.01, "layers": 3, "size": 64, "optimizer": "adam"}),
        ({"lr": 0.5}, {"lr": 0.5, "layers": 3, "size": 64, "optimizer": "adam"}),
        ({"optimizer": "sgd"}, {"lr": 0.01, "layers": 3, "size": 64, "optimizer": "sgd", "momentum": 0.5}),
        ({"momentum": 0.1}, {"lr": 0.01, "layers": 3, "size": 64, "optimizer": "sgd", "momentum": 0.1}),
    ],
)
def test_what_is_not_given_is_the_middle_or_the_first(given: dict[str, Any], config: dict[str, Any]) -> None:
    assert middle_config(SPACE, given) == pytest.approx(config)


def test_where_the_middle_breaks_a_constraint_another_configuration_is_drawn() -> None:
    space = Space((Parameter("a", Int(1, 9)), Parameter("b", Int(1, 9))), (Expression("a > b"),))
    config = middle_config(space, {"b": 6})
    assert config["b"] == 6
    assert config["a"] > 6


def test_a_value_outside_of_the_space_is_refused() -> None:
    with pytest.raises(SpecError, match="layers: must be between 1 and 5, got 9"):
        middle_config(SPACE, {"layers": 9})


SPEC = """\
train: {{command: "python t.py {command} {{args}}", metrics: '(?P<loss>.)'}}
objective: {{metric: loss}}
space: {{lr: {{type: float, low: 0.0, high: 1.0}}}}
scheduler: {scheduler}
budget: {{trials: 9}}
stop: {stop}
repeats: {repeats}
"""


def spec(
    folder: Path, *, scheduler: str, command: str = "{resource}", stop: str = "null", repeats: int = 1
) -> Path:
    path = folder / "s.yaml"
    path.write_text(SPEC.format(scheduler=scheduler, command=command, stop=stop, repeats=repeats))
    return path


@pytest.mark.parametrize(
    ("scheduler", "command", "resources"),
    [
        ("{name: asha, max_resource: 27}", "{resource}", (1, 3)),
        ("{name: asha, min_resource: 100, max_resource: 1000}", "{resource}", (100, 300)),
        ("{name: hyperband, max_resource: 9}", "{epochs_left}", (1, 3)),
        ("{name: fifo, max_resource: 5}", "{resource}", (1, 2)),
        ("{name: fifo, max_resource: 5}", "", (5,)),
        ("fifo", "{resource}", (1,)),
    ],
)
def test_the_first_two_rungs_are_tried(
    tmp_path: Path, scheduler: str, command: str, resources: tuple[int, ...]
) -> None:
    if command == "{epochs_left}":
        command = "$HPCSWEEP_RESOURCE"
    found = load_spec(spec(tmp_path, scheduler=scheduler, command=command))
    assert resources_to_try(found, told=is_told(found)) == resources


def test_the_tiny_sweep_is_one_trial_without_retries_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    path = spec(tmp_path, scheduler="{name: asha, max_resource: 9}", stop="median", repeats=1)
    tried = load_spec(path, overrides_to_try({"lr": 0.5}, resource=3))
    assert (tried.scheduler.options["max_resource"], tried.budget.trials, tried.stop) == (3, 1, ())
    assert (tried.enqueue, tried.train.keep, tried.retries.infrastructure) == (({"lr": 0.5},), "all", 0)


@pytest.mark.parametrize(
    ("line", "metric", "pattern"),
    [
        ("epoch 1 loss 0.5", "loss", r"epoch\s+(?P<step>\d+)\s+loss\s+(?P<loss>\S+)"),
        ("2026-01-02 INFO: epoch 3, acc=71.2%", "acc", r"epoch\s+(?P<step>\d+),\s+acc=(?P<acc>\S+)%"),
        ("Epoch 1/9 (loss 1e-3)", "loss", r"Epoch\s+(?P<step>\d+)/\S+\s+\(loss\s+(?P<loss>\S+)\)"),
        ("accuracy: 0.9", "loss", r"accuracy:\s+(?P<accuracy>\S+)"),
        ("took 3 s", "loss", None),
        ("no numbers", "loss", None),
    ],
)  # fmt: skip
def test_a_pattern_is_made_from_a_printed_line(line: str, metric: str, pattern: str | None) -> None:
    candidate = propose_pattern([line], metric)
    assert (candidate.pattern if candidate else None) == pattern


def test_the_line_with_the_metric_itself_comes_first() -> None:
    lines = ["epoch 1 train_loss 3", "test_loss 4", "val_loss 2", "epoch 2 train_loss 1", "took 3 s"]
    candidate = propose_pattern(lines, "test_loss")
    assert candidate is not None
    assert candidate.line == "test_loss 4"
    other = propose_pattern(lines, "f1")
    assert other is not None
    assert other.line == "epoch 2 train_loss 1"
    assert numbers_seen(lines) == "took 3 s"
