"""sweep.yaml -> SweepSpec: what is accepted, and the whole text of what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng

from hpcsweep.core.cluster_protocol import TaskResources
from hpcsweep.core.priors import Normal, Weights
from hpcsweep.core.protocols import Scheduler
from hpcsweep.core.space import Choice, Constant, Float, Int, Ordinal, Parameter
from hpcsweep.core.units import format_duration, format_memory, parse_duration, parse_memory
from hpcsweep.errors import SpecError
from hpcsweep.schedulers import SCHEDULERS
from hpcsweep.spec import SweepSpec, difference, json_schema, load_spec
from hpcsweep.spec.models import NamedOptions
from hpcsweep.spec.yaml_io import dump_yaml, parse_yaml
from tests.effort import examples

DOCUMENTED = r"""
name: digits-hyperband
train:
  function: digits.py:train          # a callable that takes a Trial; the path is relative to this file
  # command: python train.py --lr {lr} --epochs {resource} --resume {resume_from}
  # metrics: 'val_error=(?P<val_error>\S+)'     for a program that only prints
objective: {metric: val_error, mode: min}               # at: last (default) or best of the steps so far
space:
  lr:         {type: float, low: 1e-4, high: 1.0, log: true}
  batch_size: {type: int, low: 16, high: 256, log: true}
  optimizer:  {type: choice, values: [sgd, adam]}
  momentum:   {type: float, low: 0.0, high: 0.99, when: {optimizer: sgd}}
searcher:   {name: random, seed: 0}
scheduler:  {name: hyperband, min_resource: 1, max_resource: 27, eta: 3}
resources:  {gpus: 1, cpus: 4, mem: 16G, time: 30m}       # of one run
cluster:    {name: auto, max_gpus: 64, partition: gpu, template: gpu.sbatch}
budget:     {trials: 100, gpu_hours: 200, time: 12h}
"""
SHORT = """
train: {command: "python train.py --lr {lr} --on {device} --epochs {resource}"}
objective: {metric: acc, mode: max}
space:
  lr: [0.1, 0.01, null]
  device: on
  flags: [{a: 1}, [1, 2], no, 010, 2024-01-01]
searcher: grid
"""
EXAMPLES = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))

Load = Callable[..., SweepSpec]
Problems = Callable[..., list[str]]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a text as `sweeps/lr.yaml`."""
    monkeypatch.chdir(tmp_path)
    path = Path("sweeps/lr.yaml")
    path.parent.mkdir()

    def loaded(text: str, *overrides: str) -> SweepSpec:
        path.write_text(text, encoding="utf-8")
        return load_spec(path, overrides)

    return loaded


@pytest.fixture
def problems(load: Load) -> Problems:
    """The problems of a text."""

    def told(text: str, *overrides: str) -> list[str]:
        with pytest.raises(SpecError) as caught:
            load(text, *overrides)
        assert str(caught.value) == "\n".join(caught.value.problems)
        return list(caught.value.problems)

    return told


# --------------------------------------------------------------------------- what is accepted

BEFOREHAND = (
    "stop=[median, {name: plateau, patience: 3, min_delta: 0.01}]",
    "enqueue=[{lr: 0.1, momentum: 0.9}, {}]",
    "warm_start=[../results/old, /else/where]",
)


REPLACED = (
    "was replaced by reuse: a task does run after run until its time is over, and concurrent says how many "
    "at a time; remove the key"
)
CONSTANT_PRIOR = "space.lr.prior: a constant has one value only: remove the prior"


def test_documented_spec_is_read_as_documented(load: Load, tmp_path: Path) -> None:
    spec = load(DOCUMENTED)
    assert spec.name == "digits-hyperband"
    assert spec.space.parameters == (
        Parameter("lr", Float(1e-4, 1.0, log=True)),
        Parameter("batch_size", Int(16, 256, log=True)),
        Parameter("optimizer", Choice(("sgd", "adam"))),
        Parameter("momentum", Float(0.0, 0.99), {"optimizer": ("sgd",)}),
    )
    options = {"min_resource": 1, "max_resource": 27, "eta": 3, "iterations": 1}
    assert spec.scheduler == NamedOptions(name="hyperband", options=options)
    run = TaskResources(gpus=1, cpus=4, mem_mib=16384, time_s=1800)
    assert spec.largest_run == spec.task_shape(reuse=False) == run
    assert spec.identity() == {
        "objective": {"metric": "val_error", "mode": "min", "at": "last"},
        "space": {
            "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
            "batch_size": {"type": "int", "low": 16, "high": 256, "log": True},
            "optimizer": {"type": "choice", "values": ["sgd", "adam"]},
            "momentum": {
                "type": "float",
                "low": 0.0,
                "high": 0.99,
                "log": False,
                "when": {"optimizer": ["sgd"]},
            },
        },
        "constraints": [],
        "searcher": {"name": "random", "seed": 0},
        "scheduler": {
            "name": "hyperband",
            "min_resource": 1,
            "max_resource": 27,
            "eta": 3,
            "iterations": 1,
        },
    }
    assert spec.resolved() == {
        "name": "digits-hyperband",
        "train": {
            "function": str(tmp_path / "sweeps" / "digits.py") + ":train",
            "call": "trial",
            "shell": False,
            "dashes": False,
            "metrics": [],
            "workdir": str(tmp_path / "sweeps"),
            "keep_checkpoints": 1,
            "keep": "survivors",
            "log_limit": "100M",
            "check": True,
            "warm": "auto",
            "launcher": "none",
            "first_step": 1,
            "stop_at_resource": False,
            "snapshot": False,
        },
        **spec.identity(),
        "resources": {"nodes": 1, "gpus": 1, "cpus": 4, "mem": "16G", "time": "30m"},
        "cluster": {
            "name": "auto",
            "max_gpus": 64,
            "partition": "gpu",
            "template": "gpu.sbatch",
            "setup": [],
            "environment": {},
            "options": {},
            "tick_options": {},
            "idle": 120,
            "concurrent": 1,
            "signal": 60,
        },
        "budget": {"trials": 100, "gpu_hours": 200.0, "time": "12h"},
        "retries": {"training": 0, "infrastructure": 5, "fail_fast": 5},
    }


def test_only_given_keys_of_a_simulated_site_are_kept(load: Load) -> None:
    assert load(DOCUMENTED).cluster.simulated is None
    given = "cluster.simulated={wait: [[0, 1m], [1, 600]], seconds_per_unit: 2 * batch_size, requeue: false}"
    spec = load(DOCUMENTED, given)
    site = {
        "wait": [[0.0, 60.0], [1.0, 600.0]],
        "seconds_per_unit": "2 * batch_size",
        "requeue": False,
    }
    assert spec.resolved()["cluster"]["simulated"] == site
    assert load(spec.yaml) == spec
    jsonschema.validate(json.loads(json.dumps(spec.resolved())), json_schema())


def test_short_forms_and_yaml_1_2(load: Load) -> None:
    spec = load(SHORT)
    assert spec.name == "lr"
    assert spec.space.parameters == (
        Parameter("lr", Choice((0.1, 0.01, None))),
        Parameter("device", Constant("on")),
        Parameter("flags", Choice(({"a": 1}, [1, 2], "no", 10, "2024-01-01"))),
    )
    assert spec.scheduler == NamedOptions(name="fifo", options={"max_resource": 1})
    assert spec.searcher.plain() == {"name": "grid", "seed": 0, "num_points": None, "shuffle": False}
    assert spec.space.size == 15


def test_every_kind_of_parameter(load: Load) -> None:
    spec = load(
        DOCUMENTED,
        "space={a: {type: float, low: 0, high: 1, step: 0.25}, b: {type: int, low: -1e3, high: 3, step: 2},"
        " c: {type: ordinal, values: [1, 2]}, d: {type: constant, value: null},"
        " e: {type: int, low: 0, high: 1, when: {c: [1, 2], d: null}}}",
        "constraints=['a + b < 3', 'e < 1']",
    )
    assert spec.space.parameters == (
        Parameter("a", Float(0.0, 1.0, step=0.25)),
        Parameter("b", Int(-1000, 3, step=2)),
        Parameter("c", Ordinal((1, 2))),
        Parameter("d", Constant(None)),
        Parameter("e", Int(0, 1), {"c": (1, 2), "d": (None,)}),
    )
    assert [constraint.text for constraint in spec.space.constraints] == ["a + b < 3", "e < 1"]


def test_priors_are_read_and_kept_in_the_resolved_spec_and_the_identity(load: Load) -> None:
    given = {
        "lr": {"center": 3e-4, "sigma": 0.5},
        "batch_size": {"center": 100, "sigma": 0.3},
        "optimizer": {"adam": 3},
        "momentum": {"center": 0.9, "sigma": 0.05},
    }
    overrides = [f"space.{name}.prior={json.dumps(prior)}" for name, prior in given.items()]
    spec = load(DOCUMENTED, *overrides)
    assert [parameter.prior for parameter in spec.space.parameters] == [
        Normal(3e-4, 0.5),
        Normal(100, 0.3),
        Weights((1.0, 3.0)),
        Normal(0.9, 0.05),
    ]
    assert load(spec.yaml) == spec
    assert spec.identity()["space"]["optimizer"]["prior"] == [1.0, 3.0]
    jsonschema.validate(json.loads(json.dumps(spec.resolved())), json_schema())


def test_a_resolved_spec_with_all_that_it_starts_with_reads_back_to_an_equal_one(load: Load) -> None:
    spec = load(DOCUMENTED, *BEFOREHAND)
    assert load(spec.yaml) == spec
    jsonschema.validate(json.loads(json.dumps(spec.resolved())), json_schema())


@pytest.mark.parametrize("text", [DOCUMENTED, SHORT])
def test_resolved_spec_reads_back_to_an_equal_one(load: Load, text: str) -> None:
    overrides = (
        "name=other.name-1",
        "train.metrics=['loss=(?P<loss>\\S+)', 'a: (?P<acc>.)']",
        "scheduler={name: halving, max_resource: 9, rounds: null, prefact: 1.5}",
        "cluster={environment: {OMP: 4, X: 'yes', Y: '1e5'}, options: {--mail-type: END, hold: null}}",
        "cluster.setup=module load cuda",
        "cluster.poll=1m30s",
        "cluster.settle=0.5",
        "resources={mem: 1.5T, time: 1-12:00:00, gpus: 2}",
        "cluster.tick_options={partition: short, --qos: null}",
        "retries={training: 1, infrastructure: 3, timeouts: 4}",
        "budget.trials=7",
    )
    spec = load(text, *overrides)
    again = load(spec.yaml)
    assert again == spec
    assert again.yaml == spec.yaml
    assert again.identity() == json.loads(json.dumps(spec.identity())) == spec.identity()
    assert json.loads(json.dumps(spec.resolved())) == spec.resolved()
    assert list(again.space.names) == list(spec.space.names)
    assert difference(spec.identity(), again.identity()) == []
    assert spec.cluster.environment == {"OMP": "4", "X": "yes", "Y": "1e5"}
    assert spec.cluster.options == {"mail-type": "END", "hold": None}
    assert spec.cluster.tick_options == {"partition": "short", "qos": None}
    assert (spec.retries.training, spec.retries.infrastructure, spec.retries.timeouts) == (1, 3, 4)
    assert spec.cluster.setup == ("module load cuda",)
    assert (spec.cluster.poll, spec.cluster.settle, spec.cluster.grace) == (90.0, 0.5, None)
    options = {"min_resource": 1, "max_resource": 9, "eta": 2, "prefact": 1.5, "rounds": None}
    assert spec.scheduler == NamedOptions(name="halving", options=options)


def test_a_stored_spec_of_an_earlier_version_needs_no_pattern_for_its_objective(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(SHORT)
    pattern = "train.metrics='loss=(?P<loss>.*)'"
    assert load_spec(path, [pattern], stored=True).train.metrics == ("loss=(?P<loss>.*)",)
    with pytest.raises(SpecError, match=r"objective\.metric: 'acc' is not among"):
        load_spec(path, [pattern])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_valid_by_loader_and_schema(path: Path) -> None:
    load_spec(path)
    jsonschema.validate(
        parse_yaml(path.read_text(), source="x"), json_schema(), jsonschema.Draft202012Validator
    )


def test_paths_are_absolute_from_the_folder_of_the_spec_file(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "sweeps"
    program = load(DOCUMENTED).program()
    assert program.function == f"{folder}/digits.py:train"
    assert program.workdir == str(folder)
    assert program.parameters == ("lr", "batch_size", "optimizer", "momentum")
    assert (program.metric, program.mode, program.at) == ("val_error", "min", "last")
    assert load(DOCUMENTED, "train.function=/a/b.py:f").program().function == "/a/b.py:f"
    assert load(DOCUMENTED, "train.function=pkg.mod:f").program().function == "pkg.mod:f"
    assert load(DOCUMENTED, "train.workdir=../run").program().workdir == str(tmp_path / "run")
    command = load(SHORT, "train.shell=true", "train.metrics='acc=(?P<acc>.*)'").program()
    assert command.command == "python train.py --lr {lr} --on {device} --epochs {resource}"
    assert (command.function, command.shell, command.metrics) == (None, True, ("acc=(?P<acc>.*)",))
    assert load(DOCUMENTED).cluster.template == "gpu.sbatch"
    (folder / "site.sbatch").touch()
    assert load(DOCUMENTED, "cluster.template=site.sbatch").cluster.template == str(folder / "site.sbatch")


def test_a_task_that_does_run_after_run_has_time_for_them_and_the_resources_of_its_lanes(load: Load) -> None:
    spec = load(DOCUMENTED, "cluster.concurrent=2")
    hour = TaskResources(gpus=2, cpus=8, mem_mib=32768, time_s=3600, lanes=2, least_time_s=1800)
    assert spec.task_shape(reuse=True) == hour
    long = load(DOCUMENTED, "resources.time=2h").task_shape(reuse=True)
    assert (long.time_s, long.least_time_s) == (7500, 7200)
    given = load(DOCUMENTED, "cluster.task_time=8h").task_shape(reuse=True)
    assert (given.time_s, given.least_time_s) == (28800, 28800)
    assert load(SHORT).task_shape(reuse=True) == TaskResources()


@pytest.mark.parametrize(
    ("limits", "time_s"),
    [((), 7500), ((86400,), 7500), ((7200, 86400), 7200), ((3600, 86400), 7500), ((3600,), 7500)],
)
def test_a_task_s_time_limit_is_what_every_partition_allows_that_allows_a_run(
    limits: tuple[int, ...], time_s: int
) -> None:
    assert TaskResources(time_s=7500, least_time_s=7200).within(limits).time_s == time_s


@pytest.mark.parametrize(("runs_per_task", "reuse"), [(1, False), (4, None)])
def test_a_stored_spec_may_say_how_many_runs_a_task_does(
    tmp_path: Path, load: Load, runs_per_task: int, reuse: bool | None
) -> None:
    stored = tmp_path / "sweep.yaml"
    text = load(DOCUMENTED, "cluster.reuse=false").yaml
    stored.write_text(text.replace("reuse: false", f"reuse: false\n  runs_per_task: {runs_per_task}"))
    assert load_spec(stored, stored=True).cluster.reuse is reuse


def test_enqueue_warm_start_repeats_and_stop_are_part_of_the_identity_if_given(
    load: Load, tmp_path: Path
) -> None:
    plain = load(DOCUMENTED)
    assert (plain.stop, plain.repeats, plain.enqueue, plain.warm_start) == ((), 1, (), ())
    spec = load(DOCUMENTED, *BEFOREHAND)
    given = {key: value for key, value in spec.identity().items() if key not in plain.identity()}
    assert [rule["name"] for rule in given.pop("stop")] == ["median", "plateau"]
    assert given == {
        "enqueue": [{"lr": 0.1, "momentum": 0.9}, {}],
        "warm_start": [str(tmp_path / "results" / "old"), "/else/where"],
    }
    assert load(DOCUMENTED, "repeats=3").identity() == {**plain.identity(), "repeats": 3}


@pytest.mark.parametrize(
    ("scheduler", "budget", "starts"),
    [
        ("{name: hyperband, max_resource: 81}", "{}", 143),
        ("{name: hyperband, max_resource: 81, iterations: 2}", "{}", 286),
        ("{name: hyperband, max_resource: 81, iterations: null}", "{time: 1h}", None),
        ("{name: halving, min_resource: 2, max_resource: 10, rounds: 2}", "{}", 16),
        ("{name: hyperband, max_resource: 81}", "{trials: 100}", 100),
        ("{name: asha, max_resource: 81}", "{trials: 100}", 100),
        ("{name: asha, max_resource: 81}", "{time: 1h}", None),
        ("{name: pbt, population: 8, interval: 3, max_resource: 9}", "{}", 8),
        ("fifo", "{trials: 7}", 7),
    ],
)
def test_starts_is_the_number_of_configurations_if_it_is_known(
    load: Load, scheduler: str, budget: str, starts: int | None
) -> None:
    assert load(DOCUMENTED, f"scheduler={scheduler}", f"budget={budget}").starts == starts


def test_empty_optional_sections_have_their_defaults(load: Load) -> None:
    spec = load(SHORT + "\nbudget:\nresources:\ncluster:\nscheduler:\nretries:\nconstraints:\n")
    assert spec == load(SHORT)


def test_fixing_a_choice_leaves_its_dependants_alone(load: Load) -> None:
    spec = load(DOCUMENTED, "space.optimizer=adam")
    assert spec.space.sample(1, default_rng(0))[0].keys() == {
        "lr",
        "batch_size",
        "optimizer",
    }


@pytest.mark.parametrize(
    "overrides",
    [
        ("scheduler={name: fifo}", "budget.gpu_hours=null", "budget.time=null"),
        ("scheduler=fifo", "budget=null", "space={lr: [1, 2]}"),
        ("scheduler=fifo", "budget=null", "searcher={name: grid, num_points: 3}"),
        ("scheduler=fifo", "budget=null", "searcher={name: grid, num_points: {lr: 3, momentum: 2}}"),
        ("scheduler={name: halving, max_resource: 9, rounds: null}", "budget={gpu_hours: 2}"),
        ("scheduler={name: hyperband, max_resource: 9, iterations: null}", "budget={time: 2h}"),
        ("scheduler.max_resource=81", "scheduler.iterations=2", "budget=null"),
    ],
)
def test_sweep_that_ends_is_accepted(load: Load, overrides: tuple[str, ...]) -> None:
    load(DOCUMENTED, *overrides)


# --------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["space.lr.low=0"], ["space.lr.low: must be > 0 on a log scale, got 0"]),
        (["space.lr.low=2"], ["space.lr.low: must be < high (1.0), got 2"]),
        (["space.lr.low='1e-4'"], ["space.lr.low: must be a number, got '1e-4'"]),
        (["space.lr.lo=1"], ["space.lr.lo: unknown key; did you mean 'low'?"]),
        (["space.batch_size.high=256.5"], ["space.batch_size.high: must be an integer, got 256.5"]),
        (
            ["space.optimizer.values=[]"],
            [
                "space.optimizer.values: must have at least one value, got an empty list",
            ],
        ),
        (
            ["space.optimizer.type=chioce"],
            ["space.optimizer.type: unknown type 'chioce'; did you mean 'choice'?"],
        ),
        (
            ["space.new={low: 1}"],
            ["space.new.type: missing; expected one of: float, int, ordinal, choice, constant"],
        ),
        (["space.new={type: int, low: 1}"], ["space.new.high: missing; expected the largest value"]),
        (
            ["space.new=null"],
            ["space.new: must not be empty; for a null write {type: constant, value: null}"],
        ),
        (["space.new=[1, 1]"], ["space.new: must be distinct, got 1 twice"]),
        (
            ["space.2x=1"],
            ["space.2x: must consist of letters, digits and _, with dots or slashes between, got '2x'"],
        ),
        (
            ["space.LR=1"],
            [
                (
                    "space.LR: must differ from 'lr' in more than case, dots and slashes: "
                    "both are the variable HPCSWEEP_PARAM_LR"
                )
            ],
        ),
        (
            ["space.momentum.when={optimiser: sgd}"],
            ["space.momentum.when.optimiser: unknown parameter; did you mean 'optimizer'?"],
        ),
        (
            ["space.momentum.when={optimizer: [sgd, rmsprop]}"],
            ["space.momentum.when.optimizer: must be one of ['sgd', 'adam'], got 'rmsprop'"],
        ),
        (
            ["space.momentum.when={lr: 0.5}"],
            ["space.momentum.when.lr: must be a parameter with discrete values, not a float without step"],
        ),
        (["space.momentum.when=sgd"], ["space.momentum.when: must be a mapping, got 'sgd'"]),
        (["space.momentum.when={momentum: 1}"], ["space.momentum.when.momentum: must be another parameter"]),
        (
            ["space.optimizer.when={batch_size: 16}", "space.batch_size.when={optimizer: sgd}"],
            ["space.batch_size.when: must not form a cycle: batch_size -> optimizer -> batch_size"],
        ),
        (["space=[lr]"], ["space: must be a mapping of parameters, got ['lr']"]),
        (["space={}"], ["space: must have at least one parameter, got none"]),
        (["constraints=lr < 1"], ["constraints: must be a list of expressions, got 'lr < 1'"]),
        (
            ["constraints=['lrr < 1', 'lr.real < 1', 3]"],
            [
                "constraints[0]: unknown parameter 'lrr'; did you mean 'lr'?, got 'lrr < 1'",
                (
                    "constraints[1]: column 1: attributes are not allowed; write a name with dots in "
                    "backticks, got 'lr.real < 1'"
                ),
                "constraints[2]: must be an expression, got 3",
            ],
        ),
        (
            ["constraints=['lr < 1', 'optimizer < 1']"],
            [
                (
                    "constraints[1]: 'optimizer < 1' cannot be computed for optimizer='sgd': "
                    "'<' not supported between instances of 'str' and 'int'"
                )
            ],
        ),
        (
            [
                "space.rare={type: choice, values: [1, 2, 3, 4, 5, 6, 7, 8, 9, null]}",
                "constraints=['rare < 10']",
            ],
            [
                (
                    "constraints[0]: 'rare < 10' cannot be computed for rare=None: "
                    "'<' not supported between instances of 'NoneType' and 'int'"
                )
            ],
        ),
        (["objective.mode=mn"], ["objective.mode: must be 'min' or 'max', got 'mn'"]),
        (
            ["objective={}"],
            ["objective.metric: missing; expected the name of the metric that the training code reports"],
        ),
        (["objective.metric=3"], ["objective.metric: must be text, got 3; quote it"]),
        (["objective=val_error"], ["objective: must be a mapping, got 'val_error'"]),
        (["train=null"], ["train: missing; expected what to run: function or command"]),
        (["train={}"], ["train: must have either function or command, got neither"]),
        (["train.command=ls"], ["train: must have either function or command, got both"]),
        (
            ["train.function=digits.py"],
            ["train.function: must be FILE.py:NAME or package.module:NAME, got 'digits.py'"],
        ),
        (
            ["train={command: 'python {lrr}'}"],
            ["train.command: unknown placeholder {lrr}; did you mean {lr}?"],
        ),
        (
            ["train.metrics='loss=(.*)'"],
            [
                (
                    "train.metrics: must have a group named like its metric, as in "
                    r"'loss=(?P<loss>\S+)', got 'loss=(.*)'"
                )
            ],
        ),
        (
            ["train.metrics=['(?P<a>.)', '(']"],
            [
                (
                    "train.metrics[1]: must be a regular expression, got '(': "
                    "missing ), unterminated subpattern at position 0"
                )
            ],
        ),
        (
            ["train={command: ls, metrics: '(?P<val_err>.) (?P<step>.)'}"],
            [
                (
                    "objective.metric: 'val_error' is not among the metrics of train.metrics, 'val_err'; "
                    "did you mean 'val_err'?"
                )
            ],
        ),
        (["train.check=yes"], ["train.check: must be true or false, got 'yes'"]),
        (["train.warm=true"], ["train.warm: must be 'auto' or false, got true"]),
        (
            ["train.shell=true"],
            ["train.shell: must not be true for a function, only a command can have a shell"],
        ),
        (["repeats=0"], ["repeats: must be an integer >= 1, got 0"]),
        (["repeats=true"], ["repeats: must be an integer >= 1, got true"]),
        (["stop=3"], ["stop: must be a rule's name or a mapping with a name, got 3"]),
        (["stop=medain"], ["stop.name: unknown name 'medain'; did you mean 'median'?"]),
        (
            ["stop=[{name: median, x: 1}]"],
            ["stop[0].x: unknown key; expected one of: name, min_trials, min_step, interval"],
        ),
        (
            ["stop=plateau", "repeats=2"],
            ["repeats: must be 1 with stop, got 2"],
        ),
        (
            ["scheduler={name: asha, max_resource: 9, stopping: true}", "repeats=2"],
            ["repeats: must be 1 with scheduler.stopping, got 2"],
        ),
        (
            ["scheduler={name: pbt, population: 4, interval: 20, max_resource: 9}", "stop=median"],
            [
                "scheduler.interval: must be <= max_resource (9), got 20",
                "stop: cannot be combined with scheduler: pbt, which replaces its bad members itself",
            ],
        ),
        (
            ["scheduler={name: asha, max_resource: 9, brackets: 4}"],
            ["scheduler.brackets: must be at most 3, the number of rungs, got 4"],
        ),
        (
            ["scheduler={name: pbt, population: 3, interval: 3, max_resource: 9}"],
            ["scheduler.population: must be at least 4, so that the quantile 0.25 holds a member, got 3"],
        ),
        (["enqueue={lr: 1}"], ["enqueue: must be a list of configurations, got {lr: 1}"]),
        (
            ["enqueue=[{lr: 2, momentun: 0}, 3, {optimizer: adam, momentum: 0.5}]"],
            [
                "enqueue[0].lr: must be between 0.0001 and 1.0, got 2",
                "enqueue[0].momentun: unknown parameter; did you mean 'momentum'?",
                "enqueue[1]: must be a mapping of parameters to values, got 3",
                "enqueue[2].momentum: must be absent, it is active only when optimizer is 'sgd'",
            ],
        ),
        (["warm_start=3"], ["warm_start: must be a results folder or a list of them, got 3"]),
        (["searcher=randm"], ["searcher.name: unknown name 'randm'; did you mean 'random'?"]),
        (["searcher.sead=1"], ["searcher.sead: unknown key; did you mean 'seed'?"]),
        (["searcher.seed=x"], ["searcher.seed: must be an integer >= 0, got 'x'"]),
        (["searcher=3"], ["searcher: must be a name or a mapping with a name, got 3"]),
        (
            ["searcher=grid"],
            ["searcher.num_points: lr: is a float without step, needs a number of points"],
        ),
        (
            ["searcher={name: grid, num_points: many, shuffle: 1}"],
            [
                "searcher.num_points: must be an integer or a mapping or null, got 'many'",
                "searcher.shuffle: must be true or false, got 1",
            ],
        ),
        (
            ["scheduler=asha2"],
            ["scheduler.name: unknown name 'asha2'; did you mean 'asha'?"],
        ),
        (["scheduler.eta=1"], ["scheduler.eta: must be >= 2, got 1"]),
        (
            ["scheduler=hyperband"],
            [
                (
                    "scheduler.max_resource: missing; "
                    "expected the resource of the highest rung, in epochs or steps"
                )
            ],
        ),
        (
            ["scheduler.rounds=2"],
            [
                (
                    "scheduler.rounds: unknown key; expected one of: "
                    "name, min_resource, max_resource, eta, iterations"
                )
            ],
        ),
        (
            ["scheduler.min_resource=28"],
            ["scheduler.min_resource: must be <= max_resource (27), got 28"],
        ),
        (
            ["scheduler.min_resource=0"],
            ["scheduler.min_resource: must be an integer >= 1 or 'auto', got 0"],
        ),
        (
            ["scheduler={name: asha, min_resource: auto, max_resource: 9, stopping: true}"],
            ["scheduler.min_resource: auto does not go with stopping: give a number"],
        ),
        (
            ["scheduler={name: halving, min_resource: 2, max_resource: 10, prefact: 0.1}"],
            ["scheduler.prefact: must leave at least one trial in the first rung, got 0.1"],
        ),
        (
            ["scheduler=fifo", "budget={}"],
            ["budget: must have trials, gpu_hours or time, fifo goes on for ever in this space"],
        ),
        (
            ["scheduler.iterations=null", "budget={gpu_hours: 3}", "resources.gpus=0"],
            [
                (
                    "budget: must have trials, gpu_hours or time, iterations: null goes on for ever "
                    "(gpu_hours are not spent as resources.gpus is 0)"
                )
            ],
        ),
        (["resources.mem=16"], ["resources.mem: must be a size with its unit such as 500M or 16G, got 16"]),
        (
            ["resources.time=30"],
            ["resources.time: must be a time with its unit such as 90s, 30m, 2h or 01:30:00, got 30"],
        ),
        (["resources.time=0s"], ["resources.time: must be at least 1s, got '0s'"]),
        (["resources.gpus=-1"], ["resources.gpus: must be >= 0, got -1"]),
        (
            ["resources.gpus=true"],
            ["resources.gpus: must be an integer or an expression over parameters, got true"],
        ),
        (["cluster.name=slrum"], ["cluster.name: unknown name 'slrum'; did you mean 'slurm'?"]),
        (
            ["cluster.max_gpus=3", "cluster.concurrent=4"],
            ["cluster.max_gpus: must be at least the 4 of one task (resources.gpus x concurrent), got 3"],
        ),
        (
            ["cluster.concurrent=2", "cluster.reuse=false"],
            ["cluster.concurrent: must be 1 with reuse: false, where a task does one run, got 2"],
        ),
        (
            ["cluster.runs_per_task=4"],
            [f"cluster.runs_per_task: {REPLACED}"],
        ),
        (
            ["cluster.signal=1800"],
            ["cluster.signal: must be less than resources.time (1800 seconds), got 1800"],
        ),
        (
            ["cluster.poll=often"],
            ["cluster.poll: must be a time with its unit such as 90s, 30m, 2h or 01:30:00, got 'often'"],
        ),
        (
            ["cluster.environment={A: true}"],
            ["cluster.environment: A: must be text, got true; quote it"],
        ),
        (["cluster.options={mail: [1]}"], ["cluster.options: mail: must be one value, got [1]"]),
        (
            ["cluster.simulated={nodez: 2, gpus: -1, spread: 0.5, failures: 2}"],
            [
                "cluster.simulated.nodez: unknown key; did you mean 'nodes'?",
                "cluster.simulated.gpus: must be >= 0, got -1",
                "cluster.simulated.spread: must be >= 1, got 0.5",
                "cluster.simulated.failures: must be at most 1, got 2",
            ],
        ),
        (["cluster.simulated=8"], ["cluster.simulated: must be a mapping, got 8"]),
        (
            ["cluster.simulated.wait=[[0.5, 10m], [0.9]]"],
            ["cluster.simulated.wait: must hold pairs such as [0.5, 10m], got [0.9]"],
        ),
        (
            ["cluster.simulated.wait=[[0.5, null]]"],
            ["cluster.simulated.wait: must hold pairs such as [0.5, 10m], got [0.5, null]"],
        ),
        (
            ["cluster.simulated.wait=[[0.9, 10m], [0.5, 1h]]"],
            [
                (
                    "cluster.simulated.wait: must be seconds >= 0 or a list of [quantile, seconds] such as "
                    "[[0.5, 60], [0.9, 3600]], ascending, got [[0.9, 600.0], [0.5, 3600.0]]"
                )
            ],
        ),
        (
            ["cluster.simulated.seconds_per_unit=true"],
            [
                (
                    "cluster.simulated.seconds_per_unit: "
                    "must be seconds or an expression such as '2 + 0.1 * layers', got true"
                )
            ],
        ),
        (
            ["cluster.simulated.seconds_per_unit=2 * batchsize"],
            ["cluster.simulated.seconds_per_unit: unknown parameter 'batchsize'; did you mean 'batch_size'?"],
        ),
        (
            ["cluster.simulated.seconds_per_unit=2 * open(1)"],
            [
                (
                    "cluster.simulated.seconds_per_unit: must be seconds or an expression such as "
                    "'2 + 0.1 * layers', got '2 * open(1)': column 5: only these functions can be called: "
                    "abs, min, max, round, log, log2, log10, exp, sqrt, floor, ceil"
                )
            ],
        ),
        (["cluster.setup=[1]"], ["cluster.setup[0]: must be text, got 1; quote it"]),
        (["budget=[1]"], ["budget: must be a mapping, got [1]"]),
        (["budget.gpu_hours=.inf"], ["budget.gpu_hours: must be a finite number, got inf"]),
        (["budget.gpu_hours=0"], ["budget.gpu_hours: must be > 0, got 0"]),
        (
            ["space.lr.prior={center: 3, sigma: 0}"],
            [
                "space.lr.prior.center: must be between 0.0001 and 1.0, got 3",
                "space.lr.prior.sigma: must be a number > 0, got 0",
            ],
        ),
        (["space.lr={type: constant, value: 1, prior: {center: 1, sigma: 1}}"], [CONSTANT_PRIOR]),
        (
            ["space.lr.prior={center: 0.1, sigma: 0.5}", "searcher=sobol"],
            [
                (
                    "space.lr.prior: the searcher sobol makes no use of priors: remove it, or take tpe, gp, "
                    "random or evolution"
                )
            ],
        ),
        (["budgets={}"], ["budgets: unknown key; did you mean 'budget'?"]),
        (
            ["name=../up"],
            [
                (
                    "name: must be 1 to 64 letters, digits, '.', '_' or '-', "
                    "and begin with a letter or digit, got '../up'"
                )
            ],
        ),
    ],
    ids=lambda value: value[0].split(":")[0] if isinstance(value, list) else None,
)
def test_each_mistake_is_reported_with_key_path_expected_and_found(
    load: Load, problems: Problems, overrides: list[str], told: list[str]
) -> None:
    said = problems(DOCUMENTED, *overrides)
    without_source = [line.split(": ", 1)[1] for line in said if not line.startswith("--set")]
    for line in said:
        if line.startswith("--set"):
            (source,) = [text for text in overrides if line.startswith(f"--set {text}: ")]
            without_source.append(line.removeprefix(f"--set {source}: "))
    assert sorted(without_source) == sorted(told)


def test_all_problems_are_reported_at_once_with_the_file(problems: Problems) -> None:
    text = """
schedular: hyperband
train: {function: digits.py:train, metricss: x}
objective: {mode: mn}
space:
  lr: {type: float, low: 0, high: 1, log: true, stp: 3}
  z: {type: choice, values: [a, a]}
  m: {type: float, low: 2, high: 1, when: {lost: a}}
constraints: ['foo > 3']
searcher: {name: grid, seed: -1}
scheduler: {name: hyperband, eta: 1.5}
resources: {gpus: 4, mem: 16}
cluster: {name: slrum, max_gpus: 2}
budget: {trails: 3}
"""
    assert problems(text) == [
        "sweeps/lr.yaml: schedular: unknown key; did you mean 'scheduler'?",
        "sweeps/lr.yaml: train.metricss: unknown key; did you mean 'metrics'?",
        (
            "sweeps/lr.yaml: objective.metric: missing; "
            "expected the name of the metric that the training code reports"
        ),
        "sweeps/lr.yaml: objective.mode: must be 'min' or 'max', got 'mn'",
        "sweeps/lr.yaml: space.lr.stp: unknown key; did you mean 'step'?",
        "sweeps/lr.yaml: space.lr.low: must be > 0 on a log scale, got 0",
        "sweeps/lr.yaml: space.z.values: must be distinct, got 'a' twice",
        "sweeps/lr.yaml: space.m.low: must be < high (1), got 2",
        "sweeps/lr.yaml: space.m.when.lost: unknown parameter; expected one of: lr, z, m",
        "sweeps/lr.yaml: constraints[0]: unknown parameter 'foo'; expected one of: lr, z, m, got 'foo > 3'",
        "sweeps/lr.yaml: searcher.seed: must be an integer >= 0, got -1",
        (
            "sweeps/lr.yaml: scheduler.max_resource: missing; "
            "expected the resource of the highest rung, in epochs or steps"
        ),
        "sweeps/lr.yaml: scheduler.eta: must be an integer, got 1.5",
        "sweeps/lr.yaml: resources.mem: must be a size with its unit such as 500M or 16G, got 16",
        "sweeps/lr.yaml: budget.trails: unknown key; did you mean 'trials'?",
        "sweeps/lr.yaml: cluster.name: unknown name 'slrum'; did you mean 'slurm'?",
    ]


def test_a_constraint_that_cannot_be_evaluated_is_refused(problems: Problems) -> None:
    (problem,) = problems(DOCUMENTED + "constraints: [lr > 2]\n")
    assert problem.startswith(
        "sweeps/lr.yaml: constraints: must leave at least 1 in 10000 random draws, got 0 of "
    )
    assert problems(SHORT + "constraints: [device == 'off']\n") == [
        "sweeps/lr.yaml: constraints: must leave something of the grid, got nothing"
    ]


PROGRAM = """\
train:
  command: "python train.py {lr} --out {output_dir}"
  metrics: 'loss=(?P<loss>\\S+)'
objective: {metric: loss}
space: {lr: {type: float, low: 0.0, high: 1.0}}
budget: {trials: 4}
"""
SAME = (
    "train.checkpoint.path: 'out/*.pt' is the same for all trials: have the program write into {output_dir}, "
    "and begin the path with it"
)
OWN_FOLDER = (
    "train.command: with the scheduler pbt a member goes on from another's checkpoint, which is not in its "
    "own {output_dir}: give train.checkpoint, the files that the program keeps there, or {resume_from}"
)
MEMBERS = {"name": "pbt", "population": 4, "interval": 1, "max_resource": 4}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["train.checkpoint={path: out/*.pt}"],
            SAME,
        ),
        (
            ["train.checkpoint={path: '{output_dir}/{lr}.pt'}"],
            "train.checkpoint.path: may have the placeholders {output_dir} and {trial}, got {lr}",
        ),
        (
            ["train.checkpoint={path: '{trial}/*', when: always}"],
            "train.checkpoint.when: must be 'changed' or 'end', got 'always'",
        ),
        (["train.checkpoint={}"], "train.checkpoint.path: missing"),
        (["train.checkpoint=out"], "train.checkpoint: must be"),
        (
            ["train.resume={args: '--from {resum_from}'}"],
            "train.resume.args: unknown placeholder {resum_from}",
        ),
        (
            [f"scheduler={MEMBERS}"],
            OWN_FOLDER,
        ),
        (["train.first_step=2"], "train.first_step: must be"),
    ],
)
def test_what_a_program_keeps_must_fit_its_sweep(problems: Problems, overrides: list[str], told: str) -> None:
    found = problems(PROGRAM, *overrides)
    assert len(found) == 1
    assert f": {told}" in found[0]


def test_what_a_program_keeps_is_handed_to_its_runs(load: Load) -> None:
    program = load(
        PROGRAM,
        "train.checkpoint={path: '{output_dir}/*.pt', when: end}",
        "train.resume={args: --resume}",
        "train.first_step=0",
        "train.stop_at_resource=true",
        f"scheduler={MEMBERS}",
    ).program()
    assert (program.checkpoint_path, program.checkpoint_at_end) == ("{output_dir}/*.pt", True)
    assert (program.resume_args, program.first_step, program.stop_at_resource) == ("--resume", 0, True)
    assert program.resumes
    assert program.has_output


LAUNCHED = ("train.launcher=torchrun", "resources={nodes: 2, gpus: 4, cpus: 8}")


def test_runs_of_several_processes_are_read(load: Load) -> None:
    spec = load(DOCUMENTED, *LAUNCHED)
    assert spec.task_shape(reuse=False) == TaskResources(gpus=4, cpus=8, nodes=2)
    program = spec.program()
    assert (program.launcher, program.processes, program.warm) == ("torchrun", 0, False)
    assert load(spec.yaml) == spec
    assert load(DOCUMENTED, *LAUNCHED, "train.processes=8").program().processes == 8


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (
            ["resources={nodes: 2}"],
            "or accelerate for a function on several nodes (resources.nodes is 2), got none",
        ),
        (
            ["train.processes=2"],
            "train.processes: must be left out without train.launcher, which starts them",
        ),
        (
            ["train.launcher=srun", "train.call=optuna"],
            "train.call: must be trial with train.launcher: srun, got optuna",
        ),
        ([*LAUNCHED, "cluster.concurrent=2"], "cluster.concurrent: must be 1 with resources.nodes: 2, got 2"),
        (
            ["train.launcher=srun", "cluster.concurrent=2"],
            "cluster.concurrent: must be 1 with train.launcher: srun, got 2",
        ),
        (
            ["train.launcher=torchrun", "resources={gpus: '2 if lr > 0.5 else 1', cpus: 1}"],
            "resources.cpus: must be at least 2, one for each process of a node (train.processes), got 1",
        ),
        (
            [*LAUNCHED, "cluster.max_gpus=7"],
            "cluster.max_gpus: must be at least the 8 of one task (resources.gpus x nodes), got 7",
        ),
    ],
)
def test_processes_and_nodes_that_do_not_go_together_are_refused(
    problems: Problems, overrides: list[str], told: str
) -> None:
    (problem,) = problems(DOCUMENTED, *overrides)
    assert problem.endswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must be a mapping with train, objective and space, got an empty file"),
        ("- a\n- b\n", "must be a mapping with train, objective and space, got a list"),
        ("hello", "must be a mapping with train, objective and space, got 'hello'"),
    ],
)
def test_a_file_that_is_not_a_mapping_is_refused(problems: Problems, text: str, told: str) -> None:
    assert problems(text) == [f"sweeps/lr.yaml: {told}"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\na: 3\n", "sweeps/lr.yaml:3: key 'a' must be given once, got it twice"),
        ("a:\n  b: {c: 1, c: 2}\n", "sweeps/lr.yaml:2: key 'c' must be given once, got it twice"),
        ("a: [1,\n", "sweeps/lr.yaml:2: not YAML: "),
        ("a: 1\n\tb: 2\n", "sweeps/lr.yaml:2: not YAML: "),
        ("a: *nothing\n", "sweeps/lr.yaml:1: not YAML: found undefined alias 'nothing'"),
        ("a: !!python/object:os.system x\n", "sweeps/lr.yaml:1: not YAML: could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", "sweeps/lr.yaml:2: not YAML: "),
        ("a: \0\n", "sweeps/lr.yaml: not YAML: "),
    ],
)
def test_yaml_mistakes_name_file_and_line(problems: Problems, text: str, told: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith(told)
    assert "\n" not in problem


def test_file_that_cannot_be_read_is_a_spec_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.yaml: cannot be read: No such file or directory$"):
        load_spec(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match=r": cannot be read: is a folder, not a file$"):
        load_spec(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9\n")
    with pytest.raises(SpecError, match=r"latin\.yaml: must be UTF-8 text, got byte 0xe9$"):
        load_spec(tmp_path / "latin.yaml")


def test_a_file_name_that_cannot_name_a_sweep_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "my sweep.yaml"
    path.write_text(SHORT)
    with pytest.raises(SpecError, match=r"got 'my sweep' from the file's name$"):
        load_spec(path)
    assert load_spec(path, ["name=mine"]).name == "mine"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("foo", "--set foo: must be key.path=value"),
        ("=3", "--set =3: must be key.path=value"),
        ("a..b=3", "--set a..b=3: must be key.path=value"),
        ("name.x=3", "--set name.x=3: name: must be a mapping, got 'digits-hyperband'"),
        ("space.lr=[1", "--set space.lr=[1: not YAML: expected ',' or ']', but got '<stream end>'"),
        ("space.lr.low=0", "--set space.lr.low=0: space.lr.low: must be > 0 on a log scale, got 0"),
        ("search.seed=0", "--set search.seed=0: search: unknown key; did you mean 'searcher'?"),
    ],
)
def test_problems_of_an_override_name_the_override(problems: Problems, override: str, told: str) -> None:
    assert problems(DOCUMENTED, override) == [told]


def test_overrides_are_yaml_and_make_missing_mappings(load: Load) -> None:
    spec = load(
        SHORT,
        "resources.gpus=2",
        "cluster.environment.A=x=y",
        "searcher.shuffle=true",
        "searcher.seed=5",
        "space.lr=[1e-4]",
        "objective.at=best",
    )
    assert spec.resources.gpus == 2
    assert spec.cluster.environment == {"A": "x=y"}
    assert (spec.searcher.name, spec.searcher.seed, spec.searcher.options["shuffle"]) == ("grid", 5, True)
    assert spec.space.parameters[0] == Parameter("lr", Choice((1e-4,)))
    assert spec.objective.at == "best"


def test_override_of_an_aliased_mapping_changes_one_place(load: Load) -> None:
    text = SHORT.replace("  lr: [0.1, 0.01, null]\n", "  lr: &r {type: int, low: 1, high: 9}\n  b: *r\n")
    spec = load(text, "space.lr.high=5")
    assert [parameter.domain for parameter in spec.space.parameters[:2]] == [Int(1, 5), Int(1, 9)]


# --------------------------------------------------------------------------- identity


def test_difference_is_readable(load: Load) -> None:
    old = json.loads(json.dumps(load(DOCUMENTED).identity()))
    new = load(
        DOCUMENTED.replace(", when: {optimizer: sgd}", ""),
        "space.lr.high=0.5",
        "space.optimizer.values=[sgd, adam, null]",
        "space.nesterov={type: choice, values: [true, false]}",
        "objective.mode=max",
        "constraints=['lr < 1']",
        "scheduler={name: halving, max_resource: 27}",
        "searcher.seed=1",
    )
    assert difference(old, new.identity()) == [
        "objective.mode: 'min' -> 'max'",
        "space.lr.high: 1.0 -> 0.5",
        "space.optimizer.values: ['sgd', 'adam'] -> ['sgd', 'adam', null]",
        "space.momentum.when: removed",
        "space.nesterov: added",
        "constraints: [] -> ['lr < 1']",
        "searcher.seed: 0 -> 1",
        "scheduler.name: 'hyperband' -> 'halving'",
        "scheduler.eta: 3 -> 2",
        "scheduler.iterations: removed",
        "scheduler.prefact: added",
        "scheduler.rounds: added",
    ]


def test_budget_cluster_and_resources_are_not_part_of_the_identity(load: Load) -> None:
    spec = load(DOCUMENTED)
    other = load(
        DOCUMENTED, "budget.trials=7", "cluster.partition=x", "resources.gpus=3", "train.check=false"
    )
    assert difference(spec.identity(), other.identity()) == []
    assert spec != other


# --------------------------------------------------------------------------- schema


@pytest.mark.parametrize("text", [DOCUMENTED, SHORT])
def test_schema_accepts_what_the_loader_accepts(load: Load, text: str) -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(parse_yaml(text, source="x"), schema, jsonschema.Draft202012Validator)
    jsonschema.validate(load(text).resolved(), schema, jsonschema.Draft202012Validator)
    json.dumps(schema)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schedular", "hyperband"),
        ("space", {}),
        ("space", {"lr": {"type": "flaot", "low": 0, "high": 1}}),
        ("space", {"lr": {"type": "float", "low": 0}}),
        ("space", {"lr": []}),
        ("objective", {"metric": "x", "mode": "mn"}),
        ("scheduler", "hyperband"),
        ("scheduler", {"name": "hyperband", "max_resource": 27, "eta": 1}),
        ("searcher", {"name": "grid", "numpoints": 3}),
        ("searcher", "girid"),
        ("resources", {"gpu": 1}),
        ("budget", {"trials": 0}),
        ("constraints", "lr < 1"),
    ],
)
def test_schema_refuses_mistakes(key: str, value: Any) -> None:
    data = {**parse_yaml(DOCUMENTED, source="x"), key: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, json_schema(), jsonschema.Draft202012Validator)


# --------------------------------------------------------------------------- other packages' plugins


class Bandit(Scheduler):
    """A scheduler of another package."""

    needs_reports = False
    clones = False

    def __init__(self, *, minimise: bool, max_resource: int, greed: float = 0.5) -> None: ...


def test_scheduler_of_another_package_has_the_options_of_its_constructor(
    load: Load, problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCHEDULERS, "bandit", f"{__name__}:Bandit")
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this_module())
    scheduler = load(DOCUMENTED, "scheduler={name: bandit, max_resource: 3}").scheduler
    assert scheduler.plain() == {"name": "bandit", "max_resource": 3, "greed": 0.5}
    override = "scheduler={name: bandit, greeed: 1, minimise: true}"
    source = f"--set {override}"
    assert problems(DOCUMENTED, override) == [
        f"{source}: scheduler.max_resource: missing",
        f"{source}: scheduler.greeed: unknown key; did you mean 'greed'?",
        f"{source}: scheduler.minimise: unknown key; expected one of: name, max_resource, greed",
    ]


def _this_module() -> ModuleType:
    module = ModuleType(__name__)
    module.__dict__.update(globals())
    return module


# --------------------------------------------------------------------------- quantities and YAML


def test_a_quota_for_checkpoints_is_written_only_where_there_is_one(load: Load) -> None:
    assert "store" not in load(SHORT).resolved()
    spec = load(SHORT, "store={checkpoint_quota: 1.5T, checkpoint_files: 1e5}")
    assert (spec.store.checkpoint_quota, spec.store.checkpoint_files) == (1536 << 30, 100_000)
    assert spec.resolved()["store"] == {"checkpoint_quota": "1536G", "checkpoint_files": 100_000}
    assert spec.identity() == load(SHORT).identity()


@pytest.mark.parametrize(("text", "count"), [("1K", 1024), ("1.5K", 1536), ("3G", 3 << 30)])
def test_a_quota_is_exact_to_the_byte(load: Load, text: str, count: int) -> None:
    spec = load(SHORT, f"store.checkpoint_quota={text}", f"cluster.simulated.checkpoint_size={text}")
    assert spec.store.checkpoint_quota == count
    assert spec.resolved()["store"]["checkpoint_quota"] == text


def test_a_quota_without_a_unit_or_beside_keep_all_is_refused(problems: Problems) -> None:
    (problem,) = problems(SHORT, "store.checkpoint_quota=500")
    assert problem.endswith("quota: must be a size with its unit such as 500M or 16G, got 500")
    limits = ["store.checkpoint_quota=500G", "store.checkpoint_files=9"]
    must = "must be left out with train.keep: all, which removes no checkpoint"
    assert problems(SHORT, *limits, "train.keep=all") == [
        f"--set {limits[0]}: store.checkpoint_quota: {must}, got 500G",
        f"--set {limits[1]}: store.checkpoint_files: {must}, got 9",
    ]


@pytest.mark.parametrize(("text", "number"), [("false", 0), ("0", 0), ("1", 1), ("12", 12)])
def test_fail_fast_is_a_number_or_off(load: Load, text: str, number: int) -> None:
    spec = load(DOCUMENTED, f"retries.fail_fast={text}")
    assert spec.retries.fail_fast == number
    assert spec.resolved()["retries"]["fail_fast"] == number


@pytest.mark.parametrize(("text", "words"), [("-1", ">= 0"), ("x", "an integer"), ("1.5", "an integer")])
def test_fail_fast_that_is_neither_a_number_nor_off_is_refused(
    problems: Problems, text: str, words: str
) -> None:
    (problem,) = problems(DOCUMENTED, f"retries.fail_fast={text}")
    assert "retries.fail_fast: must be " + words in problem


@pytest.mark.parametrize(("text", "warm"), [("auto", True), ("false", False)])
def test_the_program_says_whether_runs_may_be_forked(load: Load, text: str, warm: bool) -> None:
    assert load(DOCUMENTED, f"train.warm={text}").program().warm is warm


@pytest.mark.parametrize(("text", "mib"), [("1G", 1024), ("5M", 5), ("null", None)])
def test_a_log_has_a_limit_or_none(load: Load, text: str, mib: int | None) -> None:
    spec = load(DOCUMENTED, f"train.log_limit={text}")
    assert spec.program().log_limit_mib == mib
    assert spec.resolved()["train"]["log_limit"] == (None if mib is None else text)


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("16G", 16384),
        ("500M", 500),
        ("1.5T", 1572864),
        ("1k", 1),
        ("2 GB", 2048),
        ("3GiB", 3072),
        ("1025K", 2),
    ],
)
def test_memory_is_mib_of_binary_units_rounded_up(text: str, mib: int) -> None:
    assert parse_memory(text) == mib


@pytest.mark.parametrize("value", ["16", 16, "G", "-1G", "16X", "", None, "0G", True, "1 G B"])
def test_memory_without_a_sensible_unit_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^must be"):
        parse_memory(value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1d12h", 129600),
        ("1h 30m", 5400),
        ("1.5h", 5400),
        ("0.25s", 0.25),
        ("01:30:00", 5400),
        ("1-12:00:00", 129600),
        ("100:00:00", 360000),
    ],
)
def test_duration_is_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", ["30", 30, "", "m", "30:00", "1h1d", "-5m", "01:60:00", None, "5 min"])
def test_duration_without_a_sensible_unit_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^must be a time with its unit"):
        parse_duration(value)


@given(st.integers(1, 2**40), st.integers(0, 10**7) | st.floats(0, 1e6))
def test_memory_and_durations_read_back_from_their_text(mib: int, seconds: float) -> None:
    assert parse_memory(format_memory(mib)) == mib
    assert parse_duration(format_duration(seconds)) == seconds


texts = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    st.text("a0:.-+ #{}[],'\"\\\n!&*%@=<>?|~", max_size=6),
    st.sampled_from(["on", "no", "1e5", "0x1", "~", "2024-01-01", "<<", "a: b", "#"]),
)
trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@examples(150, 2000)
@given(trees)
def test_any_data_reads_back_from_its_yaml(data: Any) -> None:
    again = parse_yaml(dump_yaml(data), source="x")
    assert json.dumps(again) == json.dumps(data)


def test_command_line_verbs_that_need_no_spec_do_not_pay_for_it() -> None:
    code = "import sys, hpcsweep.searchers; sys.exit(any(m in sys.modules for m in ('numpy', 'pydantic')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_arguments_of_a_sampler_of_optuna_are_options_of_the_searcher(load: Load, problems: Problems) -> None:
    spec = load(DOCUMENTED, "searcher={name: optuna, sampler: NSGAIISampler, population_size: 20}")
    plain = {"name": "optuna", "seed": 0, "sampler": "NSGAIISampler", "population_size": 20}
    assert spec.searcher.plain() == plain
    assert load(spec.yaml) == spec
    jsonschema.validate(json.loads(json.dumps(spec.resolved())), json_schema())
    (problem,) = problems(DOCUMENTED, "searcher={name: optuna, sampler: NSGAIISampler, population: 20}")
    assert "searcher.population: unknown argument of NSGAIISampler; did you mean" in problem
