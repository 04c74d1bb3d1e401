"""`export --format optuna`, read back by Optuna and by optuna-dashboard."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from werkzeug.test import Client

import hpcsweep
from hpcsweep.core.events import AnyEvent, Outcome, RunFinished, TrialCreated
from hpcsweep.errors import FolderError
from hpcsweep.exports.optuna import write_optuna
from tests.exports.exported import CONFIGS, SHOWN_NAMES, exported, oddly_named, simulated


def storage(file: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(file)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "optuna.log"
    assert write_optuna(hpcsweep.load(exported(tmp_path)), file) == 5
    return file


@pytest.fixture
def study(file: Path) -> optuna.Study:
    return optuna.load_study(study_name="lr", storage=storage(file))


def asked(file: Path, path: str) -> Any:
    """What optuna-dashboard answers its own page."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of BoTorch, if it is there
        from optuna_dashboard import wsgi
    answer = Client(wsgi(storage(file))).get(path)
    assert answer.status_code == 200
    return answer.json


def test_states_and_values_are_those_that_optuna_users_expect(study: optuna.Study) -> None:
    assert study.direction is optuna.study.StudyDirection.MINIMIZE
    assert study.metric_names == ["loss"]
    assert study.user_attrs == {"hpcsweep": "cafe01", "objective": "loss"}
    found = [(trial.state, trial.value) for trial in study.trials]
    assert found == [
        (TrialState.COMPLETE, 0.2),
        (TrialState.PRUNED, 0.9),
        (TrialState.FAIL, None),
        (TrialState.PRUNED, 0.8),
        (TrialState.RUNNING, None),
    ]
    assert study.best_trial.number == 0


def test_parameters_have_the_distributions_of_the_space(study: optuna.Study) -> None:
    assert study.trials[0].distributions == {
        "lr": FloatDistribution(1e-12, 1.0, log=True),
        "drop": FloatDistribution(0.0, 0.5, step=0.1),
        "width": CategoricalDistribution((64, 128)),
        "layers": CategoricalDistribution(("[64,64]", "[128]", "none", 3, None)),
        "flag": CategoricalDistribution(("=1+1", "-O2", "@x")),
        "nesterov": CategoricalDistribution((True, False)),
        "warmup": IntDistribution(1, 7, step=3),
    }
    layers = ("[64,64]", "[128]", "none", 3, None)
    for trial, config, value in zip(study.trials, CONFIGS, layers, strict=True):
        expected = config | {"layers": value}
        del expected["data"]
        assert trial.params == expected


def test_intermediate_values_are_the_objective_by_step(study: optuna.Study) -> None:
    assert [trial.intermediate_values for trial in study.trials] == [
        {step: 1 / step for step in range(1, 10)},
        {1: 1.0, 3: 0.9},
        {},
        {2: 0.8},  # nothing was reported: the value that it was stopped with
        {1: 0.7},
    ]


def test_attributes_tell_where_a_trial_stands_and_what_else_was_reported(study: optuna.Study) -> None:
    same = {"bracket": 0, "origin": "searcher", "config.data": "digits"}
    assert study.trials[0].user_attrs == same | {
        "status": "completed",
        "rung": 1,
        "resource": 9,
        "attempts": 3,  # of rung 1 two, as the cluster ran its task again
        "gpu_seconds": 0.0,
        "metrics.acc": 0.2,
    }
    assert study.trials[2].user_attrs == same | {
        "status": "failed",
        "rung": 0,
        "resource": 3,
        "attempts": 1,
        "gpu_seconds": 0.0,
        "message": "ValueError: no",
    }


def test_names_are_printable_and_none_is_taken_for_another(tmp_path: Path) -> None:
    write_optuna(hpcsweep.load(oddly_named(tmp_path)), tmp_path / "optuna.log")
    study = optuna.load_study(study_name="lr", storage=storage(tmp_path / "optuna.log"))
    assert study.metric_names == [r"lo\x1bss"]
    assert study.user_attrs["objective"] == r"lo\x1bss"
    found = {k: v for k, v in study.trials[0].user_attrs.items() if k.startswith("metrics.")}
    assert found == {
        **{f"metrics.{name}": value for value, name in enumerate(SHOWN_NAMES)},
        "metrics.loss": 1 / 9,
        "metrics.acc": 0.2,
    }
    (summary,) = asked(tmp_path / "optuna.log", "/api/studies")["study_summaries"]
    assert summary["user_attrs"][1] == {"key": "objective", "value": r"lo\x1bss"}


def test_a_simulated_sweep_says_so(tmp_path: Path) -> None:
    write_optuna(hpcsweep.load(simulated(tmp_path)), tmp_path / "optuna.log")
    study = optuna.load_study(study_name="lr", storage=storage(tmp_path / "optuna.log"))
    words = "by `hpcsweep simulate`: nothing was trained, and times are virtual"
    assert study.user_attrs == {"hpcsweep": "cafe01", "objective": "loss", "simulated": words}


def test_times_are_those_of_the_attempts(study: optuna.Study) -> None:
    times = [
        (began.timestamp() if began else None, ended.timestamp() if ended else None)
        for began, ended in ((trial.datetime_start, trial.datetime_complete) for trial in study.trials)
    ]
    expected = [(1200.0, 1440.0), (1200.0, 1230.0), (1200.0, 1210.0), (1200.0, 1220.0), (1300.0, None)]
    assert times == expected


def test_optuna_can_continue_the_study(study: optuna.Study) -> None:
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=1, seed=0)
    trial = study.ask(study.trials[0].distributions)
    assert set(trial.params) == set(CONFIGS[0]) - {"data"}


def test_a_sweep_that_maximises_does_so_in_optuna(tmp_path: Path) -> None:
    events: list[AnyEvent] = [TrialCreated(0, CONFIGS[0], 0, 9), RunFinished(0, 0, Outcome.COMPLETED, 0.5, 9)]
    folder = exported(tmp_path, events=events, more=["objective.mode=max"])
    write_optuna(hpcsweep.load(folder), tmp_path / "o.log")
    study = optuna.load_study(study_name="lr", storage=storage(tmp_path / "o.log"))
    assert study.direction is optuna.study.StudyDirection.MAXIMIZE
    assert study.trials[0].datetime_start is not None
    assert study.trials[0].datetime_start.timestamp() == 1000.0  # nobody knows better: the sweep's


def test_optuna_dashboard_shows_the_study_with_its_trials(file: Path) -> None:
    (summary,) = asked(file, "/api/studies")["study_summaries"]
    assert (summary["study_name"], summary["directions"]) == ("lr", ["minimize"])
    detail = asked(file, f"/api/studies/{summary['study_id']}")
    states = [trial["state"] for trial in detail["trials"]]
    assert states == ["Complete", "Pruned", "Fail", "Pruned", "Running"]
    first = detail["trials"][0]
    assert first["values"] == [0.2]
    assert len(first["intermediate_values"]) == 9
    shown = {param["name"]: param["param_external_value"] for param in first["params"]}
    assert (shown["layers"], shown["nesterov"], shown["warmup"]) == ("[64,64]", "True", "4")
    assert detail["objective_names"] == ["loss"]


def test_a_second_export_replaces_the_first(tmp_path: Path, file: Path) -> None:
    write_optuna(hpcsweep.load(tmp_path / "s"), file)
    assert len(optuna.load_study(study_name="lr", storage=storage(file)).trials) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lr.yaml", "optuna.log", "s"]


def test_a_study_changed_by_others_is_not_replaced(tmp_path: Path, study: optuna.Study) -> None:
    file = tmp_path / "optuna.log"
    study.set_user_attr("mine", 1)
    before = file.read_bytes()
    with pytest.raises(FolderError, match="was written to by others since: remove it, or give another file"):
        write_optuna(hpcsweep.load(tmp_path / "s"), file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("text", ["words\n", "", "{}\n", "[1]\n", '{"op_code": 0, "worker_id": "a"}\n'])
def test_a_file_that_is_no_export_is_not_replaced(tmp_path: Path, text: str) -> None:
    file = tmp_path / "o.log"
    file.write_text(text)
    with pytest.raises(FolderError, match="exists, and is no export"):
        write_optuna(hpcsweep.load(exported(tmp_path)), file)
    assert file.read_text() == text


def test_a_sweep_without_trials_is_an_error(tmp_path: Path) -> None:
    folder = exported(tmp_path, events=())
    with pytest.raises(FolderError, match="nothing to export: no trial has been started yet"):
        write_optuna(hpcsweep.load(folder), tmp_path / "o.log")
    assert not (tmp_path / "o.log").exists()
