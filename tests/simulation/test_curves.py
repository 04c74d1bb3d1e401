"""Stand-in objectives: Python functions, and curves recorded in an earlier results folder."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from hpcsweep.core.domains import Choice, Float
from hpcsweep.core.events import Config
from hpcsweep.core.space import Parameter, Space
from hpcsweep.errors import FolderError, SpecError
from hpcsweep.simulation import RecordedCurves, curve_of, load_curve, simulate, synthetic_curve
from hpcsweep.views.folder import ResultsFolder
from tests.simulation.specs import falling, spec_of

CODE = """\
def curve(config, step):
    return config["x"] / step

def seeded(config, step, *, seed):
    return seed

def one(config):
    return 1.0

number = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "objective.py").write_text(CODE)
    (tmp_path / "broken.py").write_text("import a_package_that_is_not_there\n")
    return str(tmp_path / "objective.py")


def test_a_function_of_config_and_step_is_a_curve(file: str) -> None:
    assert load_curve(f"{file}:curve")({"x": 3.0}, 2, 7) == 1.5
    assert load_curve(f"{file}:seeded")({"x": 3.0}, 2, 7) == 7.0
    assert load_curve("math:log")(math.e, 2, 0) == pytest.approx(1 / math.log(2))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("curve", "must be FILE.py:NAME or package.module:NAME, got 'curve'"),
        (
            "{folder}/nowhere.py:curve",
            "nowhere.py: cannot be imported: FileNotFoundError: there is no such file",
        ),
        ("{folder}/broken.py:curve", "No module named 'a_package_that_is_not_there'"),
        ("{folder}/objective.py:curv", "objective.py: has no 'curv'; expected a function of config and step"),
        ("{folder}/objective.py:number", "objective.py: of type int is 'number'; expected a function"),
        ("{folder}/objective.py:one", "must be callable with a config and a step"),
    ],
)
def test_a_function_that_is_not_a_curve_is_refused(file: str, target: str, words: str) -> None:
    with pytest.raises(SpecError) as wrong:
        load_curve(target.format(folder=Path(file).parent))
    assert words in str(wrong.value)
    assert str(wrong.value).startswith("objective: ")


def test_the_synthetic_curve_falls_with_the_step_and_has_one_optimum() -> None:
    space = Space((Parameter("x", Float(0.0, 1.0)), Parameter("y", Float(0.0, 1.0), when={"x": (2.0,)})))
    curve = synthetic_curve(space, minimise=True)
    assert [curve({"x": 0.3}, step, 0) for step in (1, 4, 100)] == pytest.approx([1.0, 0.5, 0.1])
    assert curve({"x": 0.8}, 4, 0) == pytest.approx(0.25 + 0.75 / 2)
    assert synthetic_curve(space, minimise=False)({"x": 0.3}, 4, 0) == pytest.approx(0.5)


def test_a_function_that_gives_no_number_fails_the_run(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "scheduler=fifo", "budget.trials=1")
    found = simulate(spec, curve_of(lambda config, step: None))
    assert found.failures == 1
    assert "TypeError" in found.reason


# --------------------------------------------------------------------------- recorded curves


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A sweep of 17 trials at resources 1, 3 and 9; configurations near 1 fail."""

    def curve(config: Config, step: int, seed: int) -> float:
        return math.nan if config["x"] > 0.9 else falling(config, step, seed)

    folder = tmp_path / "recorded"
    simulate(spec_of(tmp_path, "cluster.simulated.seconds_per_unit='10 + 10 * x'"), curve, folder=folder)
    return folder


def test_a_recorded_configuration_has_its_own_values_and_times(tmp_path: Path, recorded: Path) -> None:
    spec = spec_of(tmp_path)
    curves = RecordedCurves(recorded, spec.space)
    trials = ResultsFolder(recorded).state.trials
    assert curves.count == len(trials) == 17
    failed = 0
    for trial in trials:
        for run in trial.runs:
            value = curves(trial.config, run.resource, 0)
            failed += run.value is None
            assert math.isnan(value) if run.value is None else value == run.value
        if trial.last_completed is not None:
            speed = 10 + 10 * trial.config["x"]
            assert curves.unit_seconds(trial.config) == pytest.approx(speed)
    assert failed > 0


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """Four trials at resource 1, the two best (0.35, then 0.1) at 2, the best at 4."""
    folder = tmp_path / "four"
    halving = "scheduler={name: halving, min_resource: 1, max_resource: 4, eta: 2}"
    enqueue = "enqueue=[{x: 0.1}, {x: 0.35}, {x: 0.6}, {x: 0.9}]"
    simulate(spec_of(tmp_path, halving, enqueue), falling, folder=folder)
    return folder


@pytest.mark.parametrize(
    ("x", "step", "value"),
    [
        (0.6, 1, 0.09 + 1),
        (0.62, 1, 0.09 + 1),
        (0.6, 2, 0.0025 + 1 / 2),  # nobody near was trained so far
        (0.05, 2, 0.04 + 1 / 2),
        (0.05, 4, 0.0025 + 1 / 4),
        (0.35, 3, 0.0025 + (1 / 2 + 1 / 4) / 2),
        (0.35, 9, 0.0025 + 1 / 4),
        (0.05, 9, 0.0025 + 1 / 4),
    ],
)
def test_a_value_is_that_of_the_nearest_trial_trained_so_far(
    tmp_path: Path, four: Path, x: float, step: int, value: float
) -> None:
    assert RecordedCurves(four, spec_of(tmp_path).space)({"x": x}, step, 0) == pytest.approx(value)


def test_reports_between_the_rungs_count_too(tmp_path: Path) -> None:
    folder = tmp_path / "reported"
    fifo = [
        "scheduler={name: fifo, max_resource: 5}",
        "stop=[median]",
        "enqueue=[{x: 0.5}]",
        "budget.trials=1",
    ]
    simulate(spec_of(tmp_path, *fifo), falling, folder=folder)
    curves = RecordedCurves(folder, spec_of(tmp_path).space)
    assert [curves({"x": 0.5}, step, 0) for step in range(1, 6)] == pytest.approx(
        [0.04 + 1 / step for step in range(1, 6)]
    )


def test_an_inactive_parameter_is_far_from_an_active_one(tmp_path: Path) -> None:
    space = (
        "space={kind: [a, b], y: {type: float, low: 0, high: 1, when: {kind: b}}}",
        "scheduler={name: fifo, max_resource: 1}",
    )
    spec = spec_of(tmp_path, *space, "budget.trials=2", "enqueue=[{kind: a}, {kind: b, y: 0.5}]")
    folder = tmp_path / "r"
    simulate(spec, lambda config, step, seed: float(config["kind"] == "b"), folder=folder)
    curves = RecordedCurves(folder, spec.space)
    assert curves({"kind": "a"}, 1, 0) == 0.0
    assert curves({"kind": "b", "y": 0.0}, 1, 0) == 1.0


def test_a_sweep_on_recorded_curves_repeats_what_was_recorded(tmp_path: Path, recorded: Path) -> None:
    spec = spec_of(tmp_path, "cluster.simulated.seconds_per_unit=null")
    found = simulate(spec, RecordedCurves(recorded, spec.space))
    state = ResultsFolder(recorded).state
    assert found.best is not None
    assert state.best is not None
    assert (found.best["value"], found.best["trial"]) == (state.best.value, state.best.trial)
    assert found.busy_s == pytest.approx(state.spent_s, rel=0.05)  # those that failed tell no time
    slower = simulate(
        spec_of(tmp_path, "cluster.simulated.seconds_per_unit=1000"), RecordedCurves(recorded, spec.space)
    )
    assert slower.busy_s > 10 * found.busy_s


def test_a_folder_without_curves_of_this_space_is_refused(tmp_path: Path, recorded: Path) -> None:
    with pytest.raises(FolderError, match="does not exist"):
        RecordedCurves(tmp_path / "nowhere", spec_of(tmp_path).space)
    other = Space((Parameter("optimizer", Choice(("sgd", "adam"))),))
    with pytest.raises(SpecError, match="must hold a trial of this space with a value, got none"):
        RecordedCurves(recorded, other)
