"""A scheduler, a searcher and a cluster of another package are used exactly like ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from hpcsweep.cli import app
from hpcsweep.cluster.backend import SweepRequest, find_backend
from hpcsweep.core.cluster_protocol import Cluster
from hpcsweep.core.protocols import Scheduler, Searcher
from hpcsweep.errors import SpecError
from hpcsweep.schedulers import make_scheduler, scheduler_traits
from hpcsweep.searchers import make_searcher
from hpcsweep.session.target import resolve_target
from hpcsweep.spec import load_spec
from hpcsweep.spec.schema import json_schema
from hpcsweep.spec.yaml_io import read_yaml
from hpcsweep.testing.clusters import ClusterConformance
from hpcsweep.testing.schedulers import SchedulerConformance
from hpcsweep.testing.searchers import SearcherConformance
from tests.effort import by_effort

SPEC = """\
name: s
train: {command: "echo loss={x} {resource}", metrics: 'loss=(?P<loss>\\S+)'}
objective: {metric: loss}
space: {x: {type: float, low: 0.0, high: 1.0}}
searcher: {name: reversed, backwards: false}
scheduler: {name: threshold, max_resource: 9, threshold: 0.25}
cluster: {name: rack, rack: r7, width: 3}
budget: {trials: 4}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(SPEC)
    return path


class TestThreshold(SchedulerConformance):
    sweeps = by_effort(100, 2000)

    def make_scheduler(self) -> Scheduler:
        return make_scheduler("threshold", options={"max_resource": 9}, trials=20)


class TestReversed(SearcherConformance):
    sweeps = by_effort(10, 30)

    def make_searcher(self, seed: int) -> Searcher:
        return make_searcher("reversed", seed=seed, options={})


class TestRack(ClusterConformance):
    finds = False

    def connect(self, sweep: SweepRequest) -> Cluster:
        backend = find_backend("rack")
        options = backend.options(rack="r7", width=3)
        return backend.connect(sweep, options).cluster


def test_their_options_are_those_of_the_spec_and_read_back(spec: Path, tmp_path: Path) -> None:
    found = load_spec(spec)
    assert found.searcher.plain() == {"name": "reversed", "seed": 0, "backwards": False}
    assert found.scheduler.plain() == {"name": "threshold", "max_resource": 9, "threshold": 0.25}
    assert resolve_target(found).why.startswith("rack r7, 3 runs at a time")
    again = tmp_path / "again.yaml"
    again.write_text(found.yaml)
    assert load_spec(again).resolved() == found.resolved()


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("scheduler.max_resource=0", "scheduler.max_resource: must be >= 1, got 0"),
        ("scheduler.max_resource=1", "scheduler.max_resource: must be at least 2, got 1"),
        ("scheduler.treshold=1", "scheduler.treshold: unknown key; did you mean 'threshold'?"),
        ("searcher.backwards=3", "searcher.backwards: must be true or false, got 3"),
        ("cluster.width=0", "cluster.width: must be >= 1, got 0"),
        ("budget=null", "budget: must have trials, gpu_hours or time, threshold goes on for ever"),
    ],
)
def test_their_wrong_options_are_reported_by_key(spec: Path, override: str, problem: str) -> None:
    with pytest.raises(SpecError) as error:
        load_spec(spec, [override])
    assert f"{spec}: {problem}" in str(error.value) or problem in str(error.value)


def test_the_json_schema_has_their_options(spec: Path) -> None:
    data: Any = read_yaml(spec)
    validator = jsonschema.Draft202012Validator(json_schema())
    assert list(validator.iter_errors(data)) == []
    for section, key in (("scheduler", "treshold"), ("searcher", "backward"), ("cluster", "with")):
        wrong = {**data, section: {**data[section], key: 1}}
        assert list(validator.iter_errors(wrong)), section


def test_plan_shows_their_brackets_and_notes(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(spec.parent)
    done = CliRunner().invoke(app, ["plan", str(spec)])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].startswith("s: on rack r7, 3 runs at a time")
    assert lines[1] == "searcher: reversed"
    assert "bracket 0 (resource): 1 > 9" in lines
    assert "whoever beats 0.25 is trained up to 9" in lines
    assert lines[-2:] == ["trials: 4", "wall time: unknown; --seconds-per-step gives an estimate"]


def test_their_traits_are_known_by_name() -> None:
    assert scheduler_traits("threshold").promotes_any_time
    assert not scheduler_traits("threshold").population
    assert scheduler_traits("not installed") == scheduler_traits("")
