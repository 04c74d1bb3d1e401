"""Results of other tools with several objectives that a sweep learns from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcsweep.errors import SpecError
from hpcsweep.session.warm_start import load_results
from tests.session.test_warm_start_sources import spec, trial_folder

SPEC = """
train: {command: "true"}
objective: [{metric: loss, at: best}, {metric: acc, mode: max}]
space:
  x: {type: float, low: 0.0, high: 1.0}
searcher: random
scheduler: {name: asha, min_resource: 1, max_resource: 9, eta: 3}
budget: {trials: 3}
"""
#: Configuration, resource -> values of both objectives, none for a failure.
Found = list[tuple[float, dict[int, tuple[float, ...]]]]


def load(tmp_path: Path, source: str | Path, text: str = SPEC) -> tuple[Found, dict[str, int]]:
    loaded = load_results(spec(tmp_path, text), source, key="warm_start[0]")
    found: Found = []
    for (config, observations), values in zip(loaded.results, loaded.values, strict=True):
        first = [value for _, value in observations]
        assert first == [each[0] if each else None for each in values], "the value is the first objective's"
        resources = [resource for resource, _ in observations]
        found.append((config["x"], dict(zip(resources, values, strict=True))))
    return found, dict(loaded.skipped)


def refusal(tmp_path: Path, source: str | Path, text: str = SPEC) -> str:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, source, text)
    return str(caught.value).replace(str(tmp_path), "HERE")


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "old.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    "head",
    ["x,acc,loss", "config.x,values.acc,values.loss", "params_x,values_1,values_0", "x,values_acc,loss"],
)
def test_csv_file_has_a_column_for_each_objective(tmp_path: Path, head: str) -> None:
    path = write(tmp_path, head, "0.1,0.7,3.0", "0.2,0.8,", "0.3,nan,1.0", "0.4,,")
    found, skipped = load(tmp_path, path)
    assert found == [(0.1, {9: (3.0, 0.7)}), (0.3, {9: ()})]
    assert sum(skipped.values()) == 2
    assert all(why.endswith(": no number") for why in skipped)


def test_objectives_of_one_csv_row_after_another_are_taken_together(tmp_path: Path) -> None:
    """At each resource the newest of both; the loss is the best one so far."""
    rows = ["0.1,1,3.0,", "0.1,3,2.0,0.5", "0.1,5,,0.6", "0.1,9,2.5,0.4"]
    found, _ = load(tmp_path, write(tmp_path, "x,step,loss,acc", *rows))
    assert found == [(0.1, {3: (2.0, 0.5), 9: (2.0, 0.4)})]


def test_what_lacks_an_objective_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, write(tmp_path, "x,loss")) == (
        "warm_start[0]: HERE/old.csv has no column 'acc'; there are x, loss"
    )
    trial_folder(tmp_path / "ray", "train_0", {"x": 0.1}, [{"loss": 1.0}])
    assert (
        refusal(tmp_path, tmp_path / "ray") == "warm_start[0]: HERE/ray has no metric 'acc'; there are loss"
    )


def test_trial_of_ray_tune_has_all_objectives_at_our_rungs(tmp_path: Path) -> None:
    rows = [{"loss": 3.0 - n, "acc": n / 10, "training_iteration": n} for n in (1, 2, 3, 4)]
    trial_folder(tmp_path / "ray", "train_0", {"x": 0.1}, rows)
    nan = [{"loss": 1.0, "acc": float("nan"), "training_iteration": 1}]
    trial_folder(tmp_path / "ray", "train_1", {"x": 0.2}, nan)
    found, skipped = load(tmp_path, tmp_path / "ray")
    assert found == [(0.1, {1: (2.0, 0.1), 3: (0.0, 0.3), 4: (-1.0, 0.4)}), (0.2, {9: ()})]
    assert skipped == {}


def make_study(storage: Any, *, directions: list[str], names: list[str] | None = None) -> None:
    import optuna
    from optuna.distributions import FloatDistribution
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    name = ",".join(names or directions)
    study = optuna.create_study(storage=storage, directions=directions, study_name=name)  # type: ignore[arg-type]
    if names:
        study.set_metric_names(names)
    for x, state, values in (
        (0.1, TrialState.COMPLETE, [3.0, 0.7]),
        (0.2, TrialState.FAIL, None),
        (0.3, TrialState.COMPLETE, [2.0, float("inf")]),
        (0.4, TrialState.RUNNING, None),
    ):
        study.add_trial(
            create_trial(
                state=state,
                values=values and values[: len(directions)],
                params={"x": x},
                distributions={"x": FloatDistribution(0, 1)},
            )
        )


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("kind", ["journal.log", "study.db"])
def test_study_of_optuna_has_several_directions(tmp_path: Path, kind: str) -> None:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = tmp_path / kind
    storage = f"sqlite:///{path}" if kind == "study.db" else JournalStorage(JournalFileBackend(str(path)))
    make_study(storage, directions=["minimize", "maximize"])
    found, skipped = load(tmp_path, path)
    assert found == [(0.1, {9: (3.0, 0.7)}), (0.2, {9: ()}), (0.3, {9: ()})]
    assert skipped == {"no result yet": 1}
    if kind == "study.db":
        return
    make_study(storage, directions=["maximize", "minimize"], names=["acc", "loss"])  # in the other order
    assert load(tmp_path, f"{path}#acc,loss")[0][0] == (0.1, {9: (0.7, 3.0)})
    make_study(storage, directions=["minimize", "maximize"], names=["loss", "speed"])
    make_study(storage, directions=["minimize"])
    make_study(storage, directions=["minimize", "minimize"])
    for name, problem in (
        ("loss,speed", "measured 'loss', 'speed', this sweep measures 'loss', 'acc'"),
        ("minimize", "has 1 objective, this sweep 2"),
        ("minimize,minimize", "has mode min for acc, this sweep max"),
    ):
        where = f"warm_start[0]: the study '{name}' in HERE/journal.log"
        assert refusal(tmp_path, f"{path}#{name}") == f"{where}: {problem}"
