"""Several objectives, and bounds, in the spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hpcsweep as hs
from hpcsweep.core.events import SweepExtended, SweepStarted
from hpcsweep.core.objectives import Objective, Objectives
from hpcsweep.core.state import SweepState
from hpcsweep.errors import SpecError
from hpcsweep.spec import SweepSpec, load_spec
from hpcsweep.spec.sweep import changes
from hpcsweep.spec.yaml_io import dump_yaml

ERROR, LATENCY = {"metric": "error"}, {"metric": "latency", "mode": "max", "at_least": 3}


def load(folder: Path, objective: Any, **keys: Any) -> SweepSpec:
    path = folder / "s.yaml"
    data = {"train": {"function": "t.py:train"}, "objective": objective, "space": {"x": [1, 2]}, **keys}
    path.write_text(dump_yaml(data))
    return load_spec(path)


def test_a_list_of_objectives_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    spec = load(tmp_path, [ERROR, LATENCY])
    assert spec.objectives == (Objective("error"), Objective("latency", "max", at_least=3.0))
    assert spec.identity()["objective"] == [
        {"metric": "error", "mode": "min", "at": "last"},
        {"metric": "latency", "mode": "max", "at": "last", "at_least": 3.0},
    ]
    (tmp_path / "s.yaml").write_text(spec.yaml)
    assert load_spec(tmp_path / "s.yaml") == spec
    assert spec.program().measured == spec.objectives


def test_one_objective_without_bounds_is_as_it_was_in_a_list_or_not(tmp_path: Path) -> None:
    spec, listed = load(tmp_path, ERROR), load(tmp_path, [ERROR])
    assert spec == listed
    assert spec.identity()["objective"] == {"metric": "error", "mode": "min", "at": "last"}
    assert spec.program().objectives == ()
    assert not spec.objectives.several


def test_a_reference_point_is_of_all_objectives_or_of_none(tmp_path: Path) -> None:
    given = [{**ERROR, "reference": 1}, {**LATENCY, "reference": 0.5}]
    spec = load(tmp_path, given)
    assert spec.objectives.reference == (1.0, -0.5)
    assert load(tmp_path, [ERROR, LATENCY]).objectives.reference is None
    for objective, problem in (
        ([given[0], LATENCY], "objective[1].reference: must be given, as another objective has one"),
        ([ERROR, given[1]], "objective[0].reference: must be given, as another objective has one"),
        (given[0], "objective.reference: needs several objectives: it is of their hypervolume"),
        ([given[0]], "objective[0].reference: needs several objectives: it is of their hypervolume"),
    ):
        with pytest.raises(SpecError) as wrong:
            load(tmp_path, objective)
        assert [text.partition(".yaml: ")[2] for text in wrong.value.problems] == [problem]


def test_a_reference_point_may_change_later_and_nothing_else_of_objectives(tmp_path: Path) -> None:
    before = load(tmp_path, [ERROR, LATENCY]).identity()
    other = [{**ERROR, "reference": 1}, {**LATENCY, "reference": 0.5}]
    for old, new, refused in (
        (before, load(tmp_path, other).identity(), False),
        (load(tmp_path, other).identity(), before, False),
        (before, load(tmp_path, [ERROR, {**LATENCY, "at_least": 4}]).identity(), True),
    ):
        (change,) = changes(old, new)
        assert bool(change.refused) == refused
    state = SweepState()
    state.apply(SweepStarted("cafe01", "s", 0.0, before))
    state.apply(SweepExtended(1.0, load(tmp_path, other).identity(), ("objective",)))
    assert state.objectives.reference == (1.0, -0.5)


@pytest.mark.parametrize("objective", [LATENCY, [LATENCY]])
def test_one_objective_may_have_bounds(tmp_path: Path, objective: Any) -> None:
    spec = load(tmp_path, objective)
    assert spec.objectives.several
    assert spec.program().objectives == (Objective("latency", "max", at_least=3.0),)


def test_objects_make_the_same_sweep_and_the_same_text() -> None:
    sweep = hs.Sweep(
        "train {x}",
        {"x": [1, 2]},
        ["error", hs.Objective("latency", mode="max", at_least=3)],
        name="s",
        searcher="random",
    )
    assert [each["metric"] for each in sweep.spec.identity()["objective"]] == ["error", "latency"]
    assert "[hs.Objective(metric='error'), hs.Objective(metric='latency'" in repr(sweep)


def test_a_file_becomes_the_same_objects(tmp_path: Path) -> None:
    load(tmp_path, [ERROR, LATENCY])
    sweep = hs.Sweep.from_yaml(tmp_path / "s.yaml")
    assert sweep.to_yaml().count("metric:") == 2
    assert "hs.Objective(metric='error')" in repr(sweep)


@pytest.mark.parametrize(
    ("objective", "keys", "problem"),
    [
        ([], {}, "objective: must be a mapping with a metric, or a list of these, got an empty list"),
        (["error"], {}, "objective[0]: must be a mapping, got 'error'"),
        ([ERROR, {}], {}, "objective[1].metric: missing; expected the name of the metric"),
        ([ERROR, ERROR], {}, "objective[1].metric: 'error' is an objective already"),
        (
            [ERROR, {"metric": "b", "at_mst": 3}],
            {},
            "objective[1].at_mst: unknown key; did you mean 'at_most'?",
        ),
        (
            [{"metric": "b", "at_most": 1, "at_least": 2}],
            {},
            "objective[0].at_most: must be >= at_least (2), got 1",
        ),
        ([{"metric": f"m{i}"} for i in range(9)], {}, "objective: must be at most 8 objectives, got 9"),
        (
            [ERROR, LATENCY],
            {"searcher": "cmaes"},
            "searcher.name: 'cmaes' cannot search with several objectives",
        ),
        (LATENCY, {"searcher": "cmaes"}, "searcher.name: 'cmaes' cannot search with bounds"),
        (
            [ERROR, LATENCY],
            {"stop": [{"name": "plateau", "min_delta": 0.5}]},
            "stop.min_delta: must be 0 with several objectives, whose units differ, got 0.5",
        ),
        (
            [ERROR, LATENCY],
            {"train": {"command": "t {x}", "metrics": "error=(?P<error>.)"}},
            "objective[1].metric: 'latency' is not among the metrics of train.metrics, 'error'",
        ),
    ],
)
def test_what_is_wrong_is_said_before_the_queue(
    tmp_path: Path, objective: Any, keys: dict[str, Any], problem: str
) -> None:
    with pytest.raises(SpecError) as raised:
        load(tmp_path, objective, **keys)
    assert any(line.startswith(f"{tmp_path}/s.yaml: {problem}") for line in str(raised.value).splitlines())


def test_a_sweep_cannot_go_on_with_other_objectives(tmp_path: Path) -> None:
    from hpcsweep.spec.sweep import changes

    before, now = (load(tmp_path, objective).identity() for objective in (ERROR, [ERROR, LATENCY]))
    [change] = changes(before, now)
    assert change.refused == "values that were measured otherwise cannot be compared"
    assert Objectives.read(before["objective"]) != Objectives.read(now["objective"])
