"""Results of other tools that a sweep learns from: studies of Optuna, folders of Ray Tune, CSV files."""

from __future__ import annotations

import builtins
import json
import re
from pathlib import Path
from typing import Any

import pytest

from hpcsweep.errors import SpecError
from hpcsweep.session.warm_start import describe_warm_start, load_results
from hpcsweep.spec import SweepSpec, load_spec

SPEC = """
train: {command: "true"}
objective: {metric: loss}
space:
  lr: {type: float, low: 1e-5, high: 1.0, log: true}
  layers: {type: int, low: 1, high: 8}
  opt: [sgd, adam, null]
  momentum: {type: float, low: 0.0, high: 0.99, when: {opt: sgd}}
  amp: true
searcher: random
scheduler: {name: asha, min_resource: 1, max_resource: 9, eta: 3}
budget: {trials: 3}
"""


def spec(tmp_path: Path, text: str = SPEC) -> SweepSpec:
    path = tmp_path / "new.yaml"
    path.write_text(text)
    return load_spec(path, [])


def load(tmp_path: Path, source: str | Path, text: str = SPEC) -> tuple[list[Any], dict[str, int]]:
    loaded = load_results(spec(tmp_path, text), source, key="warm_start[0]")
    return list(loaded.results), dict(loaded.skipped)


def refusal(tmp_path: Path, source: str | Path, text: str = SPEC) -> str:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, source, text)
    return str(caught.value).replace(str(tmp_path), "HERE")


def config(lr: float, layers: int, opt: str | None = "adam", **others: Any) -> dict[str, Any]:
    return {"lr": lr, "layers": layers, "opt": opt, **others, "amp": True}


# --------------------------------------------------------------------------- CSV


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "old.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_row_of_a_csv_file_is_a_trial_at_full_resource(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "loss,lr,layers,opt,momentum,node",
        "0.5,1e-3,2,adam,,n1",
        "0.25,0.01,3.0,sgd,0.9,n2",
        "nan,0.1,4,,,n3",
        ",0.1,4,adam,,n3",
        "0.1,7,4,adam,,n3",
        "0.1,0.1,4,adam,0.5,n3",
        "0.1,0.1,4,lion,,n3",
    )
    results, skipped = load(tmp_path, path)
    assert results == [
        (config(1e-3, 2), ((9, 0.5),)),
        (config(0.01, 3, "sgd", momentum=0.9), ((9, 0.25),)),
        (config(0.1, 4, None), ((9, None),)),
    ]
    assert skipped == {
        "loss: no number": 1,
        "lr: must be between 1e-05 and 1.0": 1,
        "momentum: must be absent, it is active only when opt is 'sgd'": 1,
        "opt: must be one of ['sgd', 'adam', null]": 1,
    }


@pytest.mark.parametrize(
    "head",
    [
        "config.lr,config.layers,config.opt,value,resource,status",
        "params_lr,params_layers,params_opt,value,step,state",
        "config/lr,config/layers,config/opt,loss,training_iteration,state",
    ],
)
def test_columns_may_be_named_as_tools_name_them_and_have_a_resource(tmp_path: Path, head: str) -> None:
    rows = ["0.1,2,adam,0.9,1,completed", "0.1,2,adam,0.7,3,completed", "0.1,2,adam,0.6,5,completed"]
    path = write(tmp_path, head, *rows, "0.2,2,adam,,3,FAIL", "0.3,2,adam,,,TrialState.RUNNING")
    results, skipped = load(tmp_path, path)
    assert results == [(config(0.1, 2), ((1, 0.9), (3, 0.7), (5, 0.6))), (config(0.2, 2), ((9, None),))]
    assert skipped == {"no result yet": 1}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            ["lr,layers,opt,acc"],
            "warm_start[0]: HERE/old.csv has no column 'loss'; there are lr, layers, opt, acc",
        ),
        (["lr,opt,loss"], "warm_start[0]: HERE/old.csv has no column 'layers'; there are lr, opt, loss"),
    ],
)
def test_csv_file_without_a_needed_column_is_refused(tmp_path: Path, lines: list[str], words: str) -> None:
    assert refusal(tmp_path, write(tmp_path, *lines)) == words


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing")
    assert refusal(tmp_path, path) == (
        "warm_start[0]: expected a results folder that `launch` made, a study of Optuna (its journal or "
        "SQLite file), a results folder of Ray Tune, or a CSV file, got HERE/notes.txt"
    )
    assert refusal(tmp_path, tmp_path / "no.db").endswith(", got HERE/no.db, which does not exist")


# --------------------------------------------------------------------------- Ray Tune


def trial_folder(root: Path, name: str, params: Any, rows: list[Any], *, error: bool = False) -> None:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "params.json").write_text(json.dumps(params))
    (folder / "result.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if error:
        (folder / "error.txt").write_text("Traceback")


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Four trials as Ray writes them; one failed, one has reported nothing, one is outside of the space."""
    root = tmp_path / "train_2026"
    data = {"data": {"folder": "/data"}, "model": {"layers": 2}}

    def rows(*values: float, config: Any) -> list[Any]:
        return [
            {"loss": value, "training_iteration": n, "done": n == len(values), "config": config, "pid": 7}
            for n, value in enumerate(values, start=1)
        ]

    for index, (params, values, error) in enumerate(
        (
            ({"lr": 0.1, "opt": "adam", **data}, [3.0, 2.0, 1.0, 0.5], False),
            ({"lr": 0.2, "opt": None, **data}, [3.0, float("nan")], True),
            ({"lr": 0.3, "opt": "adam", **data}, [], False),
            ({"lr": 5.0, "opt": "adam", **data}, [1.0] * 12, False),
        )
    ):
        trial_folder(root, f"train_{index}", params, rows(*values, config=params), error=error)
    (root / "experiment_state-2026.json").write_text("{}")
    torn = root / "train_0" / "result.json"
    torn.write_text(torn.read_text() + '{"loss": 0.')
    return root


RAY = SPEC.replace("  layers:", "  model.layers:")


def test_trial_of_ray_tune_is_observed_at_our_rungs_and_at_its_end(tmp_path: Path, experiment: Path) -> None:
    results, skipped = load(tmp_path, experiment, RAY)
    assert results == [
        (
            {"lr": 0.1, "model.layers": 2, "opt": "adam", "amp": True},
            ((1, 3.0), (3, 1.0), (4, 0.5)),
        ),
        ({"lr": 0.2, "model.layers": 2, "opt": None, "amp": True}, ((1, 3.0), (9, None))),
    ]
    assert skipped == {"no result yet": 1, "lr: must be between 1e-05 and 1.0": 1}


def test_longer_training_of_ray_tune_counts_as_full(tmp_path: Path, experiment: Path) -> None:
    results, _ = load(tmp_path, experiment, RAY.replace("high: 1.0, log", "high: 10.0, log"))
    assert results[-1][1] == ((1, 1.0), (3, 1.0), (9, 1.0))


def test_folder_of_ray_tune_without_the_metric_is_refused(tmp_path: Path, experiment: Path) -> None:
    said = refusal(tmp_path, experiment, RAY.replace("metric: loss", "metric: acc"))
    assert said == (
        "warm_start[0]: HERE/train_2026 has no metric 'acc'; there are config/lr, config/model/layers, loss, "
        "pid, training_iteration"
    )


# --------------------------------------------------------------------------- Optuna


def make_study(storage: Any, name: str = "old") -> None:
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    known = {
        "lr": FloatDistribution(1e-5, 10, log=True),
        "layers": IntDistribution(1, 8),
        "opt": CategoricalDistribution(("sgd", "adam", None)),
        "momentum": FloatDistribution(0, 0.99),
    }
    study = optuna.create_study(storage=storage, study_name=name)
    for params, state, value, reported in (
        ({"lr": 0.1, "layers": 2, "opt": None}, TrialState.COMPLETE, 0.5, {0: 3.0, 1: 2.5, 2: 2.0, 5: 1.0}),
        ({"lr": 0.2, "layers": 3, "opt": "sgd", "momentum": 0.9}, TrialState.PRUNED, None, {0: 4.0, 3: 3.5}),
        ({"lr": 0.3, "layers": 3, "opt": "adam"}, TrialState.FAIL, None, {}),
        ({"lr": 0.3, "layers": 3, "opt": "adam"}, TrialState.RUNNING, None, {}),
        ({"lr": 5.0, "layers": 3, "opt": "adam"}, TrialState.COMPLETE, 0.2, {}),
    ):
        study.add_trial(
            create_trial(
                state=state,
                value=value,
                params=params,
                distributions={name: known[name] for name in params},
                intermediate_values=reported,
            )
        )


@pytest.mark.parametrize("kind", ["journal.log", "study.db"])
def test_study_of_optuna_is_read_from_its_file(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("optuna")
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = tmp_path / kind
    storage = f"sqlite:///{path}" if kind == "study.db" else JournalStorage(JournalFileBackend(str(path)))
    make_study(storage)
    before = path.read_bytes()
    results, skipped = load(tmp_path, path)
    assert results == [
        (config(0.1, 2, None), ((1, 3.0), (3, 2.0), (9, 0.5))),
        (config(0.2, 3, "sgd", momentum=0.9), ((1, 4.0), (4, 3.5))),
        (config(0.3, 3), ((9, None),)),
    ]
    assert skipped == {"no result yet": 1, "lr: must be between 1e-05 and 1.0": 1}
    assert (path.read_bytes(), sorted(p.name for p in tmp_path.iterdir())) == (
        before,
        sorted([kind, "new.yaml"]),
    )
    loaded = load_results(spec(tmp_path), path, key="warm_start[0]")
    assert describe_warm_start([loaded]) == [
        f"warm start: 3 of 5 configurations of {path}",
        "  1 left out: no result yet",
        "  1 left out: lr: must be between 1e-05 and 1.0",
    ]

    assert refusal(tmp_path, path, SPEC.replace("metric: loss", "metric: loss, mode: max")) == (
        f"warm_start[0]: the study 'old' in HERE/{kind}: has mode min, this sweep max"
    )
    make_study(storage, "other")
    assert refusal(tmp_path, path) == f"warm_start[0]: HERE/{kind}: holds 2 studies, name one: #old, #other"
    assert len(load(tmp_path, f"{path}#other")[0]) == 3
    assert refusal(tmp_path, f"{path}#no") == (
        f"warm_start[0]: HERE/{kind}: holds no study 'no'; there are old, other"
    )


def test_study_needs_optuna_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.log"
    path.write_text('{"op_code": 0}\n')
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "optuna":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    said = refusal(tmp_path, path)
    assert said == (
        "warm_start[0]: HERE/study.log is a study of Optuna; reading it needs Optuna: pip install "
        "'hpcsweep[optuna]'"
    )


@pytest.mark.parametrize("name", ["study.db", "study.log"])
def test_damaged_study_is_refused(tmp_path: Path, name: str) -> None:
    pytest.importorskip("optuna")
    path = tmp_path / name
    path.write_bytes(b"SQLite format 3\0" + b"x" * 100 if name == "study.db" else b'{"op_code": 9}\n{\n')
    assert re.match(rf"warm_start\[0\]: HERE/{name}: .*cannot (be )?read", refusal(tmp_path, path))
