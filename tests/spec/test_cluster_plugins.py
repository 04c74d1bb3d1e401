"""Clusters of other packages have keys of their own in the section `cluster`."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcsweep.errors import SpecError
from hpcsweep.session.target import resolve_target
from hpcsweep.spec import load_spec
from hpcsweep.spec.schema import json_schema

from .installed import install

MODULE = """\
from hpcsweep.core.cluster_protocol import Cluster


class Farm(Cluster):
    def __init__(self, *, spec, farm_queue: str, priority: int = 3, partition: str | None = None) -> None:
        self.made = (spec.name, farm_queue, priority, partition)
"""
SPEC = """\
name: s
train: {command: "true"}
objective: {metric: loss}
space: {x: {type: float, low: 0.0, high: 1.0}}
budget: {trials: 1}
cluster: {name: farm, farm_queue: night, partition: big, max_tasks: 4}
"""


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with a cluster, as pip installs it."""
    entry_points = "[hpcsweep.clusters]\nfarm = farm_cluster:Farm\nbroken = no_such_module:X\n"
    site = tmp_path / "site"
    install(monkeypatch, site, "farm", entry_points=entry_points, module="farm_cluster", code=MODULE)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(SPEC)
    return path


def test_the_cluster_is_made_with_what_its_section_says(spec: Path) -> None:
    place = resolve_target(load_spec(spec))
    assert (place.name, place.max_tasks, place.why) == ("farm", 4, "cluster farm (as asked for)")
    assert vars(place.cluster)["made"] == ("s", "night", 3, "big")


def test_the_spec_reads_back_with_the_cluster_s_own_keys(spec: Path, tmp_path: Path) -> None:
    first = load_spec(spec)
    again = tmp_path / "again.yaml"
    again.write_text(first.yaml)
    assert load_spec(again).cluster == first.cluster
    assert (
        first.resolved()["cluster"].items() >= {"name": "farm", "farm_queue": "night", "priority": 3}.items()
    )


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("cluster.farm_queue=3", "cluster.farm_queue: must be text, got 3; quote it"),
        ("cluster={name: farm}", "cluster.farm_queue: missing"),
        ("cluster.prioritty=3", "cluster.prioritty: unknown key; did you mean 'priority'?"),
        ("cluster.name=slurm", "cluster.farm_queue: unknown key; did you mean 'queue'?"),
        (
            "cluster={name: broken}",
            "cluster.name: 'broken' cannot be imported: ModuleNotFoundError: No module named 'no_such",
        ),
    ],
)
def test_problems_with_keys_of_an_installed_cluster_are_reported(
    spec: Path, override: str, problem: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(spec, [override])
    (line,) = caught.value.problems
    assert problem in line


def test_the_schema_knows_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcsweep.spec.schema.entry_points", lambda group: [_Point()])
    ours, farm = json_schema()["properties"]["cluster"]["anyOf"][0]["anyOf"]
    assert farm["properties"].keys() - ours["properties"].keys() == {"farm_queue", "priority"}
    assert farm["properties"]["priority"] == {"default": 3, "type": "integer"}
    assert farm["properties"]["name"] == {"const": "farm"}
    assert farm["required"] == ["name", "farm_queue"]
    assert "farm_queue" not in ours["properties"]


class _Point:
    name = "farm"
