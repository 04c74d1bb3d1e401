"""Code for Optuna and Ray Tune, and what of it changes."""

from __future__ import annotations

import difflib
import importlib.util
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import optuna
import pytest

import hpcsweep as hs
from hpcsweep.core.events import TrialCreated
from hpcsweep.errors import SpecError
from hpcsweep.ray import tune
from hpcsweep.ray.tune import schedulers
from hpcsweep.spec.yaml_io import read_yaml
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.run_files import RunFile, Suggestions, read_reports
from hpcsweep.training import ray
from hpcsweep.training.optuna import ObjectiveTrial, call_objective
from hpcsweep.trial import Trial
from tests.docs.doc_runner import DOCS, blocks
from tests.html.trade_offs import trade_off
from tests.waiting import PATIENCE_S

PAGE = (DOCS / "porting.md").read_text(encoding="utf-8")
FILES = {block.name: block.text for block in blocks(PAGE) if block.name}


@pytest.mark.parametrize(
    ("row", "before", "after"),
    [
        ("an Optuna study with pruning", "study.py", "ported_study.py"),
        ("a Ray Tune function with ASHA and checkpoints", "tune_before.py", "ported_tune.py"),
    ],
)
def test_the_page_counts_the_changed_lines(row: str, before: str, after: str) -> None:
    old, new = (FILES[name].splitlines()[1:] for name in (before, after))
    changed = [line for line in difflib.ndiff(old, new) if line.startswith("+ ")]
    match = re.search(rf"^\| {row} \| (\d+) \|$", PAGE, re.MULTILINE)
    assert match is not None
    assert len(changed) == int(match[1]) <= 3


# --------------------------------------------------------------------------- an objective in a run


def trial_at(folder: Path, *, resource: int, max_resource: int = 9, **more: Any) -> Trial:
    """A trial of a run in this folder."""
    values: dict[str, Any] = {
        "trial": 3,
        "rung": 0,
        "bracket": 0,
        "resource": resource,
        "attempt": 0,
        "restart": 0,
        "seed": 5,
        "config": {"lr": 0.5, "n": 4, "act": "tanh", "shape": [8, 8]},
        "start": 0,
        "resume_from": None,
        "checkpoint_dir": str(folder),
        "stop_file": str(folder / "stop"),
        "trial_folder": str(folder),
        "metrics_file": str(folder / "metrics.jsonl"),
        "metric": "value",
        "max_resource": max_resource,
    }
    return Trial(RunFile(**(values | more)), rank=0)


def reports(folder: Path) -> list[tuple[int, dict[str, float]]]:
    return [tuple(report) for report in read_reports(folder / "metrics.jsonl")]  # type: ignore[misc]


def objective(trial: Any, *, first: int = 0, steps: int = 9, returns: float = -1.0) -> float:
    for step in range(first, first + steps):
        trial.report(10.0 - step, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return returns


def test_an_objective_ends_at_its_rung_and_its_value_is_its_last_report(tmp_path: Path) -> None:
    call_objective(objective, trial_at(tmp_path, resource=3))
    assert reports(tmp_path) == [(1, {"value": 10}), (2, {"value": 9}), (3, {"value": 8})]


def test_at_the_last_rung_it_ends_by_itself_and_what_it_returns_is_its_value(tmp_path: Path) -> None:
    call_objective(objective, trial_at(tmp_path, resource=9))
    assert reports(tmp_path)[-2:] == [(9, {"value": 2}), (9, {"value": -1})]


def test_steps_that_begin_with_one_are_kept(tmp_path: Path) -> None:
    call_objective(lambda trial: objective(trial, first=1), trial_at(tmp_path, resource=3))
    assert [step for step, _ in reports(tmp_path)] == [1, 2, 3]


def test_an_objective_without_reports_has_the_value_that_it_returns(tmp_path: Path) -> None:
    call_objective(lambda trial: trial.suggest_float("lr", 0, 1) * 2, trial_at(tmp_path, resource=1))
    assert reports(tmp_path) == [(1, {"value": 1.0})]


def test_an_objective_that_is_told_to_stop_prunes(tmp_path: Path) -> None:
    trial = trial_at(tmp_path, resource=9)
    (tmp_path / "stop").touch()
    call_objective(objective, trial)
    assert reports(tmp_path) == [(1, {"value": 10})]


def test_an_objective_that_prunes_itself_keeps_its_last_report(tmp_path: Path) -> None:
    def prunes_itself(trial: Any) -> float:
        trial.report(4.0, 0)
        raise optuna.TrialPruned

    call_objective(prunes_itself, trial_at(tmp_path, resource=9))
    assert reports(tmp_path)[-1] == (1, {"value": 4.0})


def test_pruning_without_a_report_and_errors_are_failures(tmp_path: Path) -> None:
    def prunes(trial: Any) -> float:
        raise optuna.TrialPruned("infeasible")

    def several(trial: Any) -> tuple[float, float]:
        return 1.0, 2.0

    with pytest.raises(optuna.TrialPruned):
        call_objective(prunes, trial_at(tmp_path, resource=9))
    with pytest.raises(TypeError, match="a sweep has one objective, a number"):
        call_objective(several, trial_at(tmp_path, resource=9))


def test_an_objective_of_several_values_reports_and_returns_one_for_each(tmp_path: Path) -> None:
    def two(trial: Any, returns: Any = (1.0, 2.0)) -> Any:
        for step in range(4):
            trial.report((4.0 - step, step), step)
            if trial.should_prune():
                raise optuna.TrialPruned
        trial.set_user_attr("size", 7)  # no metric: an objective has this name
        return returns

    several: dict[str, Any] = {"metric": "loss", "metrics": ("loss", "size")}
    call_objective(two, trial_at(tmp_path, resource=2, **several))
    assert reports(tmp_path) == [(1, {"loss": 4, "size": 0}), (2, {"loss": 3, "size": 1})]
    call_objective(two, trial_at(tmp_path, resource=9, **several))
    assert reports(tmp_path)[-1] == (4, {"loss": 1, "size": 2})
    for wrong in (3.0, (1.0, 2.0, 3.0), "12", {"loss": 1.0, "size": 2.0}):
        with pytest.raises(
            TypeError, match=r"the objective returned .*: expected one for each of loss, size"
        ):
            call_objective(partial(two, returns=wrong), trial_at(tmp_path, resource=9, **several))
    trial = ObjectiveTrial(trial_at(tmp_path, resource=9, **several))
    with pytest.raises(NotImplementedError, match="not supported for multi-objective optimization"):
        trial.report(1.0, 0)
    with pytest.raises(
        TypeError, match=r"the objective reported \(1.0,\): expected one for each of loss, size"
    ):
        trial.report((1.0,), 0)


def test_suggestions_are_the_configuration(tmp_path: Path) -> None:
    shapes = [(4, 4), (8, 8)]
    trial = ObjectiveTrial(trial_at(tmp_path, resource=1))
    assert trial.suggest_float("lr", 0, 1) == 0.5
    assert trial.suggest_float("lr", 0, 0.25) == 0.25  # narrower here than elsewhere
    assert trial.suggest_int("n", 1, 9) == 4
    assert trial.suggest_categorical("act", ["relu", "tanh"]) == "tanh"
    assert trial.suggest_categorical("shape", shapes) is shapes[1]
    assert trial.params == {"lr": 0.5, "n": 4, "act": "tanh", "shape": [8, 8]}
    with pytest.raises(ValueError, match="'tanh' is none of"):
        trial.suggest_categorical("act", ["relu"])
    with pytest.raises(AttributeError, match="has no 'study', which a trial of Optuna may have"):
        _ = trial.study


def test_what_the_space_lacks_is_drawn_the_same_in_each_run_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def unseen(trial: Any) -> float:
        late = trial.suggest_float("late", 1e-3, 1, log=True)
        trial.suggest_categorical("kind", ["a", "b"])
        trial.set_user_attr("epochs", 3)
        trial.set_user_attr("note", "text")
        return float(late)

    call_objective(unseen, trial_at(tmp_path, resource=1))
    call_objective(unseen, trial_at(tmp_path, resource=3))
    (step, first), (later, second) = reports(tmp_path)
    assert (step, later) == (1, 3)
    assert first == second == {"value": first["value"], "suggested.late": first["value"], "epochs": 3}
    assert 1e-3 <= first["value"] <= 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"hpcsweep: the configuration has no 'late'; drawn here: {first['value']!r}"
    assert printed[2] == "hpcsweep: note: 'text'"


def test_the_driver_is_told_what_the_configuration_lacks_and_what_was_not_asked_for(tmp_path: Path) -> None:
    def unseen(trial: Any, *, pruned: bool) -> float:
        trial.suggest_float("late", 0, 1, step=0.25)
        trial.suggest_int("n", 1, 9)
        trial.suggest_int("more", 2, 2)  # nothing to search
        trial.suggest_categorical("kind", ["a", None])
        trial.suggest_categorical("layer", [dict, list])  # nothing that a spec can hold
        trial.report(1.0, 0)
        if pruned:
            raise optuna.TrialPruned
        trial.suggest_int("deep", 1, 8, log=True)
        return 1.0

    run = trial_at(tmp_path, resource=9)
    file = run._run.suggestions_file
    parameters = {
        "late": {"type": "float", "low": 0.0, "high": 1.0, "log": False, "step": 0.25},
        "kind": {"type": "choice", "values": ["a", None]},
    }
    call_objective(lambda trial: unseen(trial, pruned=True), run)
    told = msgspec.json.decode(file.read_bytes(), type=Suggestions)
    assert (told.parameters, told.unused) == (parameters, ())
    assert told.values.keys() == parameters.keys()
    call_objective(lambda trial: unseen(trial, pruned=False), run)
    deep = {"deep": {"type": "int", "low": 1, "high": 8, "log": True}}
    again = msgspec.json.decode(file.read_bytes(), type=Suggestions)
    assert (again.parameters, again.unused) == (parameters | deep, ("lr", "act", "shape"))
    assert again.values | told.values == again.values, "drawn the same"


def test_repeats_draw_the_same(tmp_path: Path) -> None:
    def drawn(**seeds: int) -> object:
        return ObjectiveTrial(trial_at(tmp_path, resource=1, **seeds)).suggest_float("late", 0, 1)

    assert drawn(seed=6, suggestion_seed=5) == drawn(seed=5) != drawn(seed=6)


# --------------------------------------------------------------------------- a study


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = tmp_path / "work.py"
    path.write_text(
        "def objective(trial):\n"
        "    x = trial.suggest_float('x', 0, 1)\n"
        "    for step in range(4):\n"
        "        trial.report(x + 1 / (step + 1), step)\n"
        "    if trial.number:  # no call that looks for the space comes here\n"
        "        trial.suggest_int('late', 1, 3)\n"
        "    return x\n"
        "def trainable(config):\n"
        "    from hpcsweep.ray import tune\n"
        "    for step in range(config['inner']['steps']):\n"
        "        tune.report({'loss': config['x'] + step, 'note': 'text'})\n"
    )
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("work", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "work", module)
    spec.loader.exec_module(module)
    return module


SPACE = {"x": hs.Float(0, 1)}
TO_THE_END = hs.Fifo(max_resource=27)


@pytest.mark.parametrize(
    ("pruner", "scheduler", "stop"),
    [
        (None, TO_THE_END, hs.Median()),
        (optuna.pruners.NopPruner(), TO_THE_END, ()),
        (
            optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=4, interval_steps=2),
            TO_THE_END,
            hs.Median(min_trials=3, min_step=5, interval=2),
        ),
        (
            optuna.pruners.SuccessiveHalvingPruner(),
            hs.ASHA(max_resource=27, eta=4, stopping=True),
            (),
        ),
        (
            optuna.pruners.HyperbandPruner(min_resource=1, max_resource=9),
            hs.ASHA(max_resource=9, eta=3, brackets=3, stopping=True),
            (),
        ),
        (hs.Plateau(patience=3), TO_THE_END, hs.Plateau(patience=3)),
        (hs.Hyperband(max_resource=9), hs.Hyperband(max_resource=9), ()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_pruner_is_the_scheduler_or_rule_that_does_the_same(
    code: ModuleType, pruner: object, scheduler: Any, stop: Any
) -> None:
    study = hs.optuna.create_study(direction="maximize", pruner=pruner, max_resource=27)
    expected = hs.Sweep(
        hs.Train(function="work.py:objective", call="optuna"),
        SPACE,
        hs.Objective("value", mode="max"),
        scheduler=scheduler,
        stop=stop,
        budget=hs.Budget(trials=8),
        name="work-objective",
    )
    assert study.sweep(code.objective, n_trials=8, space=SPACE) == expected


@pytest.mark.parametrize(
    ("sampler", "searcher"),
    [
        (None, "auto"),
        (optuna.samplers.TPESampler(), "tpe"),
        (optuna.samplers.RandomSampler(), "random"),
        (optuna.samplers.NSGAIISampler(), "optuna"),
        (hs.TPE(seed=4), "tpe"),
    ],
)
def test_a_sampler_is_the_searcher_of_its_kind(code: ModuleType, sampler: object, searcher: str) -> None:
    study = hs.optuna.create_study(sampler=sampler)
    assert study.sweep(code.objective, n_trials=8, space=SPACE).spec.searcher.name == searcher


def test_a_study_that_each_job_would_run_again_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import hpcsweep as hs\n"
        "def objective(trial):\n"
        "    return trial.suggest_float('x', 0, 1)\n"
        "hs.optuna.create_study().optimize(objective, n_trials=2)\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 1
    assert "optimize() would run in each job of the sweep" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "results").exists()


def test_what_a_study_cannot_do_is_refused(code: ModuleType) -> None:
    with pytest.raises(SpecError, match="pruner: ThresholdPruner has no counterpart here; give MedianPruner"):
        hs.optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=1.0))
    with pytest.raises(SpecError, match="direction: must be minimize or maximize, got 'up'"):
        hs.optuna.create_study(direction="up")
    study = hs.optuna.create_study()
    with pytest.raises(SpecError, match=r"study: has no results before optimize\(\)"):
        _ = study.best_params


def test_a_study_has_several_directions(code: ModuleType, tmp_path: Path) -> None:
    study = hs.optuna.create_study(
        directions=["minimize", optuna.study.StudyDirection.MAXIMIZE],
        sampler=optuna.samplers.TPESampler(),
        folder=tmp_path / "r",
    )
    sweep = study.sweep(code.objective, n_trials=8, space=SPACE)
    assert [(each.metric, each.mode) for each in sweep.spec.objectives] == [
        ("values_0", "min"),
        ("values_1", "max"),
    ]
    study.set_metric_names(["error", "speed"])
    assert study.sweep(code.objective, n_trials=8, space=SPACE).spec.objectives.metrics == ("error", "speed")
    assert study.metric_names == ["error", "speed"]
    real = optuna.create_study(directions=["minimize", "maximize"])
    assert study.directions == real.directions
    trade_off(tmp_path / "r")
    found = {trial.number: trial.values for trial in study.best_trials}
    assert found == {0: [0.1, 60], 1: [0.3, 90], 2: [0.2, 80], 3: [0.2, 80]}


def test_what_a_study_of_several_objectives_lacks_is_said_as_optuna_says_it(code: ModuleType) -> None:
    ours = hs.optuna.create_study(directions=["minimize", "maximize"])
    theirs = optuna.create_study(directions=["minimize", "maximize"])
    for name in ("best_trial", "best_params", "best_value", "direction"):
        with pytest.raises(RuntimeError) as expected:
            getattr(theirs, name)
        with pytest.raises(RuntimeError, match=f"^{re.escape(str(expected.value))}$"):
            getattr(ours, name)
    wrong: dict[str, Any]
    for wrong in ({"direction": "minimize", "directions": ["minimize"]}, {"directions": []}):
        with pytest.raises(ValueError) as refused:  # noqa: PT011 -- its words are compared
            optuna.create_study(**wrong)
        with pytest.raises(ValueError, match=f"^{re.escape(str(refused.value))}$"):
            hs.optuna.create_study(**wrong)
    with pytest.raises(ValueError, match="must match the length of the metric names"):
        ours.set_metric_names(["only"])
    with pytest.raises(SpecError, match="directions: must be minimize or maximize, got 'up'"):
        hs.optuna.create_study(directions=["minimize", "up"])


def test_a_study_is_carried_on_with_the_space_that_it_began_with_and_what_its_runs_suggested(
    code: ModuleType,
) -> None:
    study = hs.optuna.create_study(cluster=hs.Local(slots=2))
    study.optimize(code.objective, n_trials=2)
    frame = study.trials_dataframe()
    assert len(frame) == 2
    assert study.best_value == study.best_params["x"] == frame["value"].min()
    assert set(study.results.metrics["step"]) == {1, 2, 3, 4}
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
    assert (study.best_trial.params, study.best_trial.value) == (study.best_params, study.best_value)
    late = {"type": "int", "low": 1, "high": 3, "log": False, "added": True}
    assert read_yaml(study.results.folder.layout.spec)["space"]["late"] == late
    again = hs.optuna.create_study(cluster=hs.Local(slots=2))
    again.optimize(code.objective, n_trials=3)
    assert [set(trial.params) for trial in again.trials] == [{"x"}, {"x", "late"}, {"x", "late"}]
    events = read_journal(again.results.folder.layout).events
    configs = [set(event.config) for event in events if isinstance(event, TrialCreated)]
    assert configs == [{"x"}, {"x"}, {"x", "late"}]


# --------------------------------------------------------------------------- Ray Tune


def test_a_tuner_launches_its_trainable(code: ModuleType) -> None:
    tuner = tune.Tuner(
        tune.with_resources(code.trainable, {"cpu": 1}),
        param_space={"x": tune.uniform(0, 1), "inner": {"steps": 3}},
        tune_config=tune.TuneConfig(metric="loss", mode="min", num_samples=2),
        run_config=tune.RunConfig(name="mine", storage_path="there", cluster=hs.Local(slots=2)),
    )
    grid = tuner.fit()
    assert (len(grid), grid.num_errors) == (2, 0)
    best = grid.get_best_result()
    assert best.config["inner"] == {"steps": 3}
    assert best.metrics == {"loss": best.config["x"] + 2, "training_iteration": 3}
    assert min(each.metrics["loss"] for each in grid) == best.metrics["loss"]
    assert grid.results.path == Path("there/mine")
    assert best.checkpoint is None


@pytest.mark.parametrize(
    ("scheduler", "expected", "stop"),
    [
        (None, hs.Fifo(max_resource=12), ()),
        (schedulers.FIFOScheduler(), hs.Fifo(max_resource=12), ()),
        (
            schedulers.ASHAScheduler(max_t=27, grace_period=3, reduction_factor=3),
            hs.ASHA(max_resource=27, min_resource=3, stopping=True),
            (),
        ),
        (schedulers.HyperBandScheduler(max_t=27), hs.Hyperband(max_resource=27), ()),
        (
            schedulers.MedianStoppingRule(grace_period=4, min_samples_required=2),
            hs.Fifo(max_resource=12),
            hs.Median(min_trials=2, min_step=4),
        ),
        (
            schedulers.PopulationBasedTraining(perturbation_interval=4),
            hs.PBT(population=8, interval=4, max_resource=12),
            (),
        ),
        (hs.Halving(max_resource=4), hs.Halving(max_resource=4), ()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_scheduler_of_ray_is_ours_that_does_the_same(
    code: ModuleType, scheduler: Any, expected: Any, stop: Any
) -> None:
    tuner = tune.Tuner(
        code.trainable,
        param_space={"x": tune.loguniform(1e-3, 1), "inner": {"steps": tune.choice([3, 4])}},
        tune_config=tune.TuneConfig(metric="loss", mode="max", num_samples=8, scheduler=scheduler),
        run_config=tune.RunConfig(stop={"training_iteration": 12}),
    )
    assert tuner.sweep == hs.Sweep(
        hs.Train(function="work.py:trainable", call="ray"),
        {"x": hs.Float(1e-3, 1, log=True), "inner.steps": hs.Choice(3, 4)},
        hs.Objective("loss", mode="max"),
        searcher="random",
        scheduler=expected,
        stop=stop,
        budget=hs.Budget(trials=None if isinstance(expected, hs.PBT) else 8),
        name="work-trainable",
    )


def test_a_grid_is_a_grid_with_num_samples_repeats(code: ModuleType) -> None:
    tuner = tune.Tuner(
        code.trainable,
        param_space={"x": tune.grid_search([1, 2]), "y": {"grid_search": [3, 4]}, "z": 5},
        tune_config=tune.TuneConfig(metric="loss", mode="min", num_samples=3),
    )
    spec = tuner.sweep.spec
    assert (spec.searcher.name, spec.repeats, spec.space.size) == ("grid", 3, 4)


def test_what_has_no_counterpart_in_a_sweep_is_refused(code: ModuleType) -> None:
    config = tune.TuneConfig(metric="loss", mode="min")
    for problem, make in (
        ("sample_from has no counterpart", lambda: tune.sample_from(lambda spec: 1)),
        ("a job cannot have data of this process", lambda: tune.with_parameters(code.trainable, data=1)),
        (
            "grid_search beside other parameters has no counterpart",
            lambda: (
                tune.Tuner(
                    code.trainable,
                    param_space={"x": tune.grid_search([1]), "y": tune.uniform(0, 1)},
                    tune_config=config,
                ).sweep
            ),
        ),
        ("give TuneConfig", lambda: tune.Tuner(code.trainable, param_space={"x": [1]}).sweep),
        ("time_attr: must be 'training_iteration'", lambda: schedulers.ASHAScheduler(time_attr="time_s")),
    ):
        with pytest.raises(SpecError, match=re.escape(problem)):
            make()


class Counter(tune.Trainable):
    def setup(self, config: dict[str, Any]) -> None:
        self.total = 0

    def step(self) -> dict[str, Any]:
        self.total += self.config["n"]
        return {"value": self.total}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        Path(checkpoint_dir, "total").write_text(str(self.total))

    def load_checkpoint(self, checkpoint: str) -> None:
        self.total = int(Path(checkpoint, "total").read_text())


def test_a_trainable_that_is_a_class_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    ray.call_trainable(Counter, trial_at(tmp_path, resource=2))
    saved = tmp_path / "checkpoints/step-2"
    assert (saved / "total").read_text() == "8"
    ray.call_trainable(Counter, trial_at(tmp_path, resource=3, start=2, resume_from=str(saved)))
    assert [(step, values["value"]) for step, values in reports(tmp_path)] == [(1, 4), (2, 8), (3, 12)]


def test_a_checkpoint_can_be_copied_and_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    checkpoint = tune.Checkpoint.from_directory(tmp_path)
    with checkpoint.as_directory() as folder:
        assert (Path(folder) / "a").read_text() == "1"
    assert (Path(checkpoint.to_directory(tmp_path / "copy")) / "a").read_text() == "1"


def test_a_function_that_reports_beyond_its_rung_is_left_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = trial_at(tmp_path, resource=2)
    run = tmp_path / "run.json"
    run.write_bytes(msgspec.json.encode(trial._run))
    monkeypatch.setenv("HPCSWEEP_RUN", str(run))
    ended: list[int] = []

    def trainable(config: dict[str, Any]) -> None:
        for step in range(1, 5):
            tune.report({"value": step})
            ended.append(step)

    ray.call_trainable(trainable, trial)
    assert ended == [1]
    assert [step for step, _ in reports(tmp_path)] == [1, 2]


def test_a_trainable_of_unknown_length_is_best_at_the_step_that_it_came_to(code: ModuleType) -> None:
    tuner = tune.Tuner(
        code.trainable,
        param_space={"x": tune.grid_search([1, 2]), "inner": {"steps": 2}},
        tune_config=tune.TuneConfig(metric="loss", mode="min"),
        run_config=tune.RunConfig(cluster=hs.Local(slots=2)),
    )
    assert tuner.fit().results.best == {
        "trial": 0,
        "value": 2.0,
        "resource": 2,
        "config": {"x": 1, "inner.steps": 2},
    }
