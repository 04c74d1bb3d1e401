"""A sweep from Python and a sweep file are two ways to write the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import hpcsweep as hs
from hpcsweep.api import objects
from hpcsweep.api.parts import Named, NamedCluster, Parameter
from hpcsweep.cluster import CLUSTERS
from hpcsweep.schedulers import SCHEDULERS
from hpcsweep.schedulers.stopping_rules import STOP_RULES
from hpcsweep.searchers import SEARCHERS
from hpcsweep.spec.parameters import PARAMETER_MODELS

EXAMPLES = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_written_in_python_and_in_yaml_again_is_the_same_sweep(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = hs.Sweep.from_yaml(path)
    copy = tmp_path / "copy.yaml"
    sweep.to_yaml(copy)
    assert hs.Sweep.from_yaml(copy) == sweep

    monkeypatch.chdir(path.parent)  # what the paths in it are relative to
    again = eval(repr(sweep), {"hs": hs})
    assert again == sweep
    assert again.to_yaml() == sweep.to_yaml()


SPACE = {
    "lr": hs.Float(1e-4, 1, log=True),
    "width": hs.Int(16, 256, step=16),
    "optimizer": hs.Choice("sgd", "adam"),
    "momentum": hs.Float(0, 0.99, when={"optimizer": "sgd"}),
    "layers": hs.Ordinal(1, 2, 4),
    "betas": hs.Choice([0.9, 0.999], [0.5, 0.9]),
    "seed": hs.Constant(7),
    "short": [1, None],
    "fixed": "text",
}


def test_every_kind_of_key_is_the_same_from_python_and_from_yaml(tmp_path: Path) -> None:
    sweep = hs.Sweep(
        hs.Train(
            command=["{python}", "my train.py", "--lr={lr}"],
            metrics=[r"loss=(?P<loss>\S+)", {"file": "{trial}/m.csv", "values": {"val/acc": "acc"}}],
        ),
        SPACE,
        hs.Objective("loss", mode="max", at="best"),
        constraints=["width > 16"],
        searcher=hs.TPE(startup=4, seed=3),
        scheduler=hs.ASHA(max_resource=9, eta=2),
        stop=[hs.Median(min_trials=3), "plateau"],
        enqueue=[{"lr": 0.1}],
        resources=hs.Resources(gpus=1, cpus=2, mem="8G", time="30m"),
        cluster=hs.Slurm(max_gpus=32, partition="gpu", environment={"A": "1"}, options={"nice": 100}),
        budget=hs.Budget(trials=20, gpu_hours=4.5),
        retries=hs.Retries(training=1),
        name="all",
    )
    text = sweep.to_yaml(tmp_path / "all.yaml")
    assert hs.Sweep.from_yaml(tmp_path / "all.yaml") == sweep
    assert eval(repr(sweep), {"hs": hs}) == sweep
    assert (
        text
        == f"""\
name: all
train:
  command: '{{python}} ''my train.py'' --lr={{lr}}'
  metrics:
  - 'loss=(?P<loss>\\S+)'
  - file: '{{trial}}/m.csv'
    values: {{val/acc: acc}}
  workdir: {Path.cwd()}
objective: {{metric: loss, mode: max, at: best}}
space:
  lr: {{type: float, low: 0.0001, high: 1, log: true}}
  width: {{type: int, low: 16, high: 256, step: 16}}
  optimizer:
    type: choice
    values: [sgd, adam]
  momentum:
    type: float
    low: 0
    high: 0.99
    when: {{optimizer: sgd}}
  layers:
    type: ordinal
    values: [1, 2, 4]
  betas:
    type: choice
    values:
    - [0.9, 0.999]
    - [0.5, 0.9]
  seed: {{type: constant, value: 7}}
  short: [1, null]
  fixed: text
constraints:
- 'width > 16'
searcher: {{name: tpe, startup: 4, seed: 3}}
scheduler: {{name: asha, max_resource: 9, eta: 2}}
stop:
- {{name: median, min_trials: 3}}
- plateau
enqueue:
- {{lr: 0.1}}
resources: {{gpus: 1, cpus: 2, mem: 8G, time: 30m}}
cluster:
  name: slurm
  max_gpus: 32
  environment: {{A: '1'}}
  partition: gpu
  options: {{nice: 100}}
budget: {{trials: 20, gpu_hours: 4.5}}
retries: {{training: 1}}
"""
    )


def test_there_is_an_object_for_each_name_that_a_spec_knows() -> None:
    classes = [getattr(objects, name) for name in objects.__all__]
    named = {cls.name for cls in classes if issubclass(cls, Named | NamedCluster)}
    assert named == {*SEARCHERS, *SCHEDULERS, *STOP_RULES, *CLUSTERS}
    assert {cls.type for cls in classes if issubclass(cls, Parameter) and cls} == set(PARAMETER_MODELS)


NEEDED: dict[str, Any] = {"max_resource": 9, "population": 4, "interval": 3}


@pytest.mark.parametrize("name", [*SCHEDULERS, *SEARCHERS])
def test_each_object_without_options_is_what_its_name_alone_is(name: str) -> None:
    cls = next(
        cls
        for cls in (getattr(objects, each) for each in objects.__all__)
        if getattr(cls, "name", "") == name and issubclass(cls, Named)
    )
    required = {
        field.name: NEEDED[field.name]
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.init
    }
    key = "scheduler" if name in SCHEDULERS else "searcher"
    budget = hs.Budget(trials=4)
    space = {"a": hs.Int(1, 9), "b": hs.Int(1, 9)}
    by_object = hs.Sweep("true", space, "loss", budget=budget, **{key: cls(**required)})
    by_name = hs.Sweep("true", space, "loss", budget=budget, **{key: {"name": name, **required}})  # type: ignore[arg-type]
    assert by_object == by_name


def test_objects_are_frozen_equal_by_what_was_given_and_show_it() -> None:
    assert hs.Hyperband(max_resource=9) == hs.Hyperband(max_resource=9, eta=3)
    assert hs.Hyperband(max_resource=9) != hs.Hyperband(max_resource=27)
    assert repr(hs.Choice("a", None, when={"b": [1]})) == "hs.Choice('a', None, when={'b': [1]})"
    assert repr(hs.OptunaSampler(sampler="CmaEsSampler", sigma0=0.5)) == (
        "hs.OptunaSampler(sampler='CmaEsSampler', sigma0=0.5)"
    )
    assert hs.Choice(1, 2) == hs.Choice([1, 2])
    with pytest.raises(dataclasses.FrozenInstanceError):
        hs.Float(0, 1).low = 2  # type: ignore[misc]


def test_mypy_knows_the_options_of_each_object() -> None:
    """Strict mypy reports each `type: ignore` here that is not needed."""
    with pytest.raises(TypeError, match="max_resorce"):
        hs.Hyperband(max_resorce=9)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="max_resource"):
        hs.PBT(population=4, interval=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="partition"):
        hs.Local(partition="gpu")  # type: ignore[call-arg]
    assert hs.Int(1, 9.5).high == 9.5  # type: ignore[arg-type]


def test_help_shows_the_options_and_what_they_mean() -> None:
    assert hs.Hyperband.__doc__ is not None
    assert "eta: One in eta goes on." in hs.Hyperband.__doc__
    assert {"Sweep", "Hyperband", "Float", "load"} <= set(dir(hs))


def test_paths_are_the_same_files_wherever_the_sweep_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, other = tmp_path / "work", tmp_path / "other"
    for folder in (work / "code", other):
        folder.mkdir(parents=True)
    (work / "base.yaml").write_text("lr: 1\n")
    (work / "site.sbatch").write_text("#!/bin/bash\n{{ command }}\n")
    (work / "code/train.py").write_text("print('loss=1')\n")
    monkeypatch.chdir(work)
    sweep = hs.Sweep(
        hs.Train(
            command=["{python}", "train.py", "{config_file}"],
            config="base.yaml",
            metrics=r"loss=(?P<loss>\S+)",
            workdir="code",
        ),
        {"lr": hs.Float(0, 1)},
        "loss",
        cluster=hs.Slurm(template="site.sbatch"),
        warm_start="earlier",
        budget=hs.Budget(trials=2),
    )
    beside = sweep.to_yaml(work / "sweep.yaml")
    assert "config: base.yaml" in beside
    assert "workdir: code" in beside
    assert "template: site.sbatch" in beside
    assert "warm_start: [earlier]" in beside
    sweep.to_yaml(other / "sweep.yaml")
    monkeypatch.chdir(tmp_path)
    assert hs.Sweep.from_yaml("work/sweep.yaml") == sweep == hs.Sweep.from_yaml("other/sweep.yaml")
