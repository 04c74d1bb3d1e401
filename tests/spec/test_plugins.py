"""Searchers and schedulers of other packages have their options in the spec, as our own have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hpcsweep.errors import SpecError
from hpcsweep.spec import SweepSpec, json_schema, load_spec
from tests.docs.spec_keys import SpecKey, spec_keys

from .installed import install

MODULE = '''\
from typing import Annotated

from annotated_types import Interval

from hpcsweep.core.protocols import SchedulerPlan
from hpcsweep.core.protocols import Scheduler
from hpcsweep.searchers.random import Random


class Bandit(Scheduler):
    """Trains the arms that promise most.

    Args:
        arms: How many trials are trained
            side by side.
        greed: The share of steps for the best one.
    """

    needs_reports = False
    clones = False

    def __init__(self, *, arms: Annotated[int, Interval(ge=2)], greed: float = 0.5, seed: int) -> None:
        if greed > 1:
            raise ValueError(f"greed: must be at most 1, got {greed}")
        self.arms = arms

    def plan(self, trials: int | None = None) -> SchedulerPlan:
        return SchedulerPlan(starts=self.arms, open_ended="bandit never ends")


class Spiral(Random):
    """Goes round.

    Args:
        turns: How often.
    """

    def __init__(self, *, turns: int = 3) -> None:
        super().__init__()
'''
SPEC = """\
name: s
train: {command: "true"}
objective: {metric: loss}
space: {x: {type: float, low: 0.0, high: 1.0}}
searcher: {name: spiral, turns: 1e1}
scheduler: {name: bandit, arms: 4}
budget: {trials: 3}
"""
NOT_IMPORTED = "'broken' cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with a scheduler and a searcher, as pip installs it."""
    entry_points = (
        "[hpcsweep.schedulers]\nbandit = casino_plugin:Bandit\nbroken = no_such_module:X\n"
        "[hpcsweep.searchers]\nspiral = casino_plugin:Spiral\nbroken = no_such_module:X\n"
    )
    site = tmp_path / "site"
    install(monkeypatch, site, "casino", entry_points=entry_points, module="casino_plugin", code=MODULE)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(SPEC)
    return path


def test_options_are_those_of_the_constructors(spec: Path, tmp_path: Path) -> None:
    found = load_spec(spec, ["scheduler.greed=0.25"])
    assert found.scheduler.plain() == {"name": "bandit", "arms": 4, "greed": 0.25}
    assert found.searcher.plain() == {"name": "spiral", "seed": 0, "turns": 10}
    assert found.starts == 3
    again = tmp_path / "again.yaml"
    again.write_text(found.yaml)
    assert reread(again) == (found.scheduler, found.searcher)


def reread(path: Path) -> tuple[Any, Any]:
    spec: SweepSpec = load_spec(path)
    return spec.scheduler, spec.searcher


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("scheduler.arms=1", "scheduler.arms: must be >= 2, got 1"),
        ("scheduler.greed=2", "scheduler.greed: must be at most 1, got 2.0"),
        (
            "scheduler={name: bandit}",
            "scheduler.arms: missing; expected how many trials are trained side by side",
        ),
        ("scheduler.armz=3", "scheduler.armz: unknown key; did you mean 'arms'?"),
        ("scheduler.seed=3", "scheduler.seed: unknown key; did you mean 'greed'?"),
        ("scheduler.name=bandid", "scheduler.name: unknown name 'bandid'; did you mean 'bandit'?"),
        ("searcher.turn=3", "searcher.turn: unknown key; did you mean 'turns'?"),
        ("searcher.turns=a", "searcher.turns: must be an integer, got 'a'"),
        ("budget=null", "budget: must have trials, gpu_hours or time, bandit never ends"),
        ("scheduler={name: broken}", f"scheduler.name: {NOT_IMPORTED}"),
        ("searcher={name: broken}", f"searcher.name: {NOT_IMPORTED}"),
    ],
)
def test_problems_are_those_of_any_other_option(spec: Path, override: str, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(spec, [override])
    assert caught.value.problems == (f"--set {override}: {problem}",)


def test_the_schema_and_the_list_of_keys_have_them(spec: Path) -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    good: dict[str, Any] = {
        "train": {"command": "true"},
        "objective": {"metric": "loss"},
        "space": {"x": [1, 2]},
        "searcher": {"name": "spiral", "turns": 2},
        "scheduler": {"name": "bandit", "arms": 4},
    }
    assert list(validator.iter_errors(good)) == []
    for scheduler in ({"name": "bandit", "arms": 1}, {"name": "bandit"}, "bandit"):
        assert list(validator.iter_errors(good | {"scheduler": scheduler})) != []
    assert (
        SpecKey("scheduler.arms", "bandit", "integer >= 2", "", "How many trials are trained side by side.")
        in spec_keys()
    )
