"""`SearchCV` gives what scikit-learn gives, and stops poor candidates after their first folds."""

from __future__ import annotations

import inspect
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import hpcsweep as hs
from hpcsweep.api.search_space import read_search_space
from hpcsweep.errors import FolderError, SpecError
from tests.lazy import LazyModule

if TYPE_CHECKING:
    from tests.api import iris
else:
    iris = LazyModule("tests.api.iris")

GRID: dict[str, Any] = {"max_depth": [None, 1, 3], "criterion": ["gini", "entropy"]}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def assert_same_results(found: Any, expected: Any) -> None:
    """All of cv_results_ but times, and what follows from it."""
    assert set(found.cv_results_) == set(expected.cv_results_)
    for key, column in expected.cv_results_.items():
        if key.endswith("_time"):
            assert np.shape(found.cv_results_[key]) == np.shape(column)
        elif key == "params":
            assert found.cv_results_[key] == column
        elif key.startswith("param_"):
            # Earlier versions have NaN for None.
            assert repr(found.cv_results_[key].tolist()) == repr(column.tolist())
        else:
            np.testing.assert_array_equal(found.cv_results_[key], column, err_msg=key)
    for name in ("best_index_", "best_params_", "best_score_", "n_splits_", "multimetric_"):
        assert getattr(found, name, None) == getattr(expected, name, None), name


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"return_train_score": True, "scoring": "neg_log_loss", "cv": "shuffled"},
        {"scoring": ["accuracy", "f1_macro"], "refit": "f1_macro"},
        {"scoring": lambda estimator, x, y: {"a": estimator.score(x, y), "b": 1.0}, "refit": "a"},
        {"refit": lambda results: 2},
        {"scoring": {"acc": "accuracy", "f1": "f1_macro"}, "refit": False},
        {"scoring": ["accuracy", "f1_macro"], "refit": lambda results: 2},
    ],
    ids=["plain", "train scores", "several", "callable", "own refit", "no refit", "own refit of several"],
)
def test_a_grid_is_what_grid_search_makes_of_it(arguments: dict[str, Any]) -> None:
    given = {"cv": 3} | arguments
    if given["cv"] == "shuffled":
        given["cv"] = iris.KFold(4, shuffle=True, random_state=1)
    expected = iris.GridSearchCV(iris.FOREST, GRID, **given).fit(iris.X, iris.Y)
    found = hs.SearchCV(iris.FOREST, GRID, **given).fit(iris.X, iris.Y)
    assert_same_results(found, expected)
    if hasattr(expected, "best_estimator_"):
        np.testing.assert_array_equal(found.predict(iris.X), expected.predict(iris.X))
        if not (expected.multimetric_ and callable(expected.refit)):  # there scikit-learn has no score
            assert found.score(iris.X, iris.Y) == expected.score(iris.X, iris.Y)
    assert found.folder_ is None


def test_groups_and_weights_reach_splitter_and_fit() -> None:
    groups, weights = np.arange(len(iris.Y)) % 6, np.linspace(0.1, 1, len(iris.Y))
    arguments: dict[str, Any] = {"cv": iris.GroupKFold(3), "return_train_score": True}
    expected = iris.GridSearchCV(iris.FOREST, GRID, **arguments).fit(
        iris.X, iris.Y, groups=groups, sample_weight=weights
    )
    found = hs.SearchCV(iris.FOREST, GRID, **arguments).fit(
        iris.X, iris.Y, groups=groups, sample_weight=weights
    )
    assert_same_results(found, expected)


def test_fits_that_fail_are_warned_of_and_scored_as_scikit_learn_does() -> None:
    for error_score in (np.nan, 0.25):
        searches = [iris.GridSearchCV, hs.SearchCV]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            expected, found = (
                search(iris.Fails(), {"value": [-1, 1]}, cv=2, error_score=error_score).fit(iris.X, iris.Y)
                for search in searches
            )
        assert_same_results(found, expected)
        failures = [str(each.message) for each in caught if each.category is iris.FitFailedWarning]
        assert len(failures) == 2
        assert "2 fits failed out of a total of 4" in failures[1]
        assert failures[1].count("ValueError: negative") == 1
    with pytest.raises(ValueError, match="All the 4 fits failed"):
        hs.SearchCV(iris.Fails(), {"value": [-1, -2]}, cv=2).fit(iris.X, iris.Y)
    with pytest.raises(ValueError, match="negative"):
        hs.SearchCV(iris.Fails(), {"value": [-1, 1]}, cv=2, error_score="raise").fit(iris.X, iris.Y)


def test_values_that_are_objects_come_back_as_they_were_given() -> None:
    pipeline = iris.Pipeline([("scale", iris.StandardScaler()), ("fit", iris.KNeighborsClassifier())])
    space: dict[str, Any] = {
        "scale": [iris.StandardScaler(), iris.MinMaxScaler(), "passthrough"],
        "fit__n_neighbors": np.array([1, 5]),
        "fit__weights": ("uniform",),
    }
    expected = iris.GridSearchCV(pipeline, space, cv=3).fit(iris.X, iris.Y)
    found = hs.SearchCV(pipeline, space, cv=3).fit(iris.X, iris.Y)
    assert_same_results(found, expected)
    assert found.cv_results_["params"][1]["scale"] is space["scale"][1]


def test_rungs_stop_poor_candidates_after_their_first_folds() -> None:
    space = {"n_neighbors": [1, 3, 5, 60, 90, 100]}
    full = iris.GridSearchCV(iris.KNeighborsClassifier(), space, cv=4).fit(iris.X, iris.Y)
    search = hs.SearchCV(
        iris.KNeighborsClassifier(),
        space,
        cv=4,
        searcher=hs.Random(seed=0),
        n_iter=6,
        scheduler=hs.ASHA(max_resource=4, eta=2),
    ).fit(iris.X, iris.Y)
    results = search.cv_results_
    splits = np.column_stack([results[f"split{fold}_test_score"] for fold in range(4)])
    folds = np.isfinite(splits).sum(axis=1)
    assert set(folds) == {1, 2, 4} or set(folds) == {1, 4}
    for parameters, scores, count in zip(results["params"], splits, folds, strict=True):
        row = full.cv_results_["params"].index(parameters)
        expected = [full.cv_results_[f"split{fold}_test_score"][row] for fold in range(count)]
        assert list(scores[:count]) == expected
    assert results["mean_test_score"] == pytest.approx(np.nanmean(splits, axis=1))
    assert folds[search.best_index_] == 4
    assert results["rank_test_score"][folds == 4].max() < results["rank_test_score"][folds < 4].min()


def test_jobs_give_the_same_and_a_folder_carries_on(tmp_path: Path) -> None:
    threshold = 0.5
    arguments: dict[str, Any] = {
        "cv": 2,
        # A lambda with what it refers to reaches the jobs by its code.
        "scoring": lambda estimator, x, y: float((estimator.predict_proba(x)[:, 0] > threshold).mean()),
    }
    space = {"var_smoothing": [1e-9, 1.0]}
    expected = iris.GridSearchCV(iris.GaussianNB(), space, **arguments).fit(iris.X, iris.Y)
    search = hs.SearchCV(
        iris.GaussianNB(),
        space,
        cluster=hs.Local(slots=2),
        folder="kept",
        folds="repeats",
        **arguments,
    ).fit(iris.X, iris.Y)
    assert_same_results(search, expected)
    assert search.folder_ == "kept/sweep"
    assert len(hs.load("kept/sweep").trials) == 4
    journal = sorted(path.name for path in Path("kept/sweep/journal").iterdir())
    assert_same_results(iris.clone(search).fit(iris.X, iris.Y), expected)
    assert sorted(path.name for path in Path("kept/sweep/journal").iterdir()) == journal
    with pytest.raises(FolderError, match="kept: holds a search with other data or folds"):
        iris.clone(search).fit(iris.X[::2], iris.Y[::2])


@pytest.mark.parametrize(
    ("given", "cluster"),
    [
        ({}, None),
        ({"n_jobs": 1}, None),
        ({"n_jobs": 3}, hs.Local(slots=3)),
        ({"n_jobs": -1}, hs.Local(slots=len(os.sched_getaffinity(0)))),
        ({"n_jobs": 3, "cluster": "slurm"}, "slurm"),
    ],
)
def test_n_jobs_is_how_many_run_here(given: dict[str, Any], cluster: Any) -> None:
    assert hs.SearchCV(iris.FOREST, GRID, **given)._cluster == cluster


@pytest.mark.parametrize("searcher", ["random", hs.TPE(startup=2)])
def test_candidates_of_a_searcher_have_the_scores_of_cross_val_score(searcher: Any) -> None:
    space = {"C": hs.Float(1e-3, 10, log=True), "solver": ["lbfgs", "newton-cg"], "max_iter": 60}
    search = hs.SearchCV(
        iris.LogisticRegression(), space, n_iter=5, searcher=searcher, random_state=3, cv=3, refit=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = search.fit(iris.X, iris.Y).cv_results_
        assert len({parameters["C"] for parameters in results["params"]}) == 5
        for row, parameters in enumerate(results["params"]):
            scores = iris.cross_val_score(iris.LogisticRegression(**parameters), iris.X, iris.Y, cv=3)
            assert [results[f"split{fold}_test_score"][row] for fold in range(3)] == list(scores)
        again = iris.clone(search).fit(iris.X, iris.Y)
    assert again.cv_results_["params"] == results["params"]


def test_conditional_parameters_are_absent_where_they_are_inactive() -> None:
    space = {
        "n_neighbors": hs.Ordinal(1, 3),
        "metric": hs.Choice("minkowski", "cosine"),
        "p": hs.Choice(1, 2, when={"metric": "minkowski"}),
    }
    search = hs.SearchCV(iris.KNeighborsClassifier(), space, searcher="grid", cv=2).fit(iris.X, iris.Y)
    params = search.cv_results_["params"]
    assert len(params) == 6
    assert [set(each) for each in params if each["metric"] == "cosine"] == [{"n_neighbors", "metric"}] * 2


@pytest.mark.parametrize(
    ("given", "parameter"),
    [
        (lambda: iris.stats.uniform(1, 2), hs.Float(1, 3)),
        (lambda: iris.stats.loguniform(1e-3, 1), hs.Float(1e-3, 1, log=True)),
        (lambda: iris.stats.randint(2, 9), hs.Int(2, 8)),
        ([1, None, "a"], hs.Choice(1, None, "a")),
        ((np.float64(0.5), True), hs.Choice(0.5, True)),
        (lambda: [iris.StandardScaler(), None], hs.Choice(0, 1)),
        (7, hs.Constant(7)),
        (hs.Int(1, 3), hs.Int(1, 3)),
    ],
)
def test_the_space_is_lists_parameters_and_distributions(given: Any, parameter: Any) -> None:
    given = given() if callable(given) else given
    assert read_search_space({"a": given}).parameters == {"a": parameter}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            {"space": lambda: {"value": iris.stats.norm()}},
            "space.value: the distribution norm has no counterpart",
        ),
        (
            {"scoring": lambda estimator, x, y: {"a": 1.0, "b": 2.0}, "refit": False},
            "refit: must name the score that is searched for, one of a, b",
        ),
        ({"folds": "both"}, "folds: must be 'resource' or 'repeats', got 'both'"),
        (
            {"scheduler": hs.Halving(max_resource=9)},
            "scheduler: max_resource must be at most the 3 folds, got 9",
        ),
        ({"folds": "repeats", "scheduler": "asha"}, "scheduler: needs folds='resource'"),
        ({"space": {"value": hs.Float(0, 1)}}, "hs.Sweep: searcher.num_points"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], problem: str) -> None:
    given: dict[str, Any] = {"space": {"value": [1, 2]}, "cv": 3} | arguments
    given["space"] = given["space"]() if callable(given["space"]) else given["space"]
    with pytest.raises(SpecError) as found:
        hs.SearchCV(iris.Fails(), **given).fit(iris.X, iris.Y)
    assert str(found.value).startswith(problem)


@pytest.mark.parametrize(
    ("estimator", "space", "failed"),
    [
        ("GaussianNB", {"var_smoothing": [1e-9]}, set()),
        # It takes targets of two dimensions as they are, so that nothing warns; GridSearchCV fails, too.
        ("Ridge", {"alpha": [0.1, 1.0]}, {"check_supervised_y_2d"}),
    ],
)
def test_it_is_an_estimator_to_scikit_learn(estimator: str, space: dict[str, Any], failed: set[str]) -> None:
    if "on_fail" not in inspect.signature(iris.check_estimator).parameters:
        pytest.skip("before scikit-learn 1.6 the first check that fails ends it")
    search = hs.SearchCV(getattr(iris, estimator)(), space, cv=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checks = iris.check_estimator(search, on_fail=None, on_skip=None)
    assert sum(check["status"] == "passed" for check in checks) > 40
    assert {check["check_name"] for check in checks if check["status"] == "failed"} == failed
