"""Four well-known searches of scikit-learn in `SearchCV`: `python -m benchmarks.search_cv`.

Random forests on iris by a grid of 4 x 4 x 3 x 3 = 144 candidates; the same space at random; a Bayesian
search of 50 candidates; and a grid of 27 against `cross_val_score`. Prints times, and whether the scores are
those that scikit-learn gives for the same candidates.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.svm import SVC

import hpcsweep as hs

X, Y = load_iris(return_X_y=True)
FOREST = RandomForestClassifier(random_state=42)
SPACE: dict[str, list[Any]] = {
    "n_estimators": [10, 20, 50, 100],
    "max_depth": [None, 2, 5, 10],
    "min_samples_split": [2, 5, 10],
    "min_samples_leaf": [1, 2, 4],
}


def timed(name: str, search: Any) -> Any:
    """The fitted search; prints how long it took."""
    began = time.perf_counter()
    search.fit(X, Y)
    seconds, results = time.perf_counter() - began, search.cv_results_
    fits = np.isfinite(
        np.column_stack([results[f"split{k}_test_score"] for k in range(search.n_splits_)])
    ).sum()
    candidates = len(results["params"])
    print(
        f"{name}: {candidates} candidates, {fits} fits, {seconds:.1f} s, best {search.best_score_:.4f}",
        flush=True,
    )
    return search


def check(name: str, search: Any, estimator: Any) -> None:
    """Print whether each candidate has the scores of `cross_val_score`."""
    results, same = search.cv_results_, True
    for row, parameters in enumerate(results["params"]):
        scores = cross_val_score(estimator(**parameters), X, Y, cv=search.n_splits_)
        same &= [results[f"split{k}_test_score"][row] for k in range(search.n_splits_)] == list(scores)
    print(f"  {name}: scores of cross_val_score: {'the same' if same else 'DIFFERENT'}", flush=True)


def main() -> None:
    """Run all four."""
    warnings.simplefilter("ignore")
    expected = timed("GridSearchCV", GridSearchCV(FOREST, SPACE, cv=5))
    ways: dict[str, dict[str, Any]] = {
        "grid, in this process": {},
        "grid, two processes": {"cluster": hs.Local(slots=2), "folder": "results/search-cv-benchmark"},
        "grid, rungs of folds": {"scheduler": hs.ASHA(max_resource=5, eta=3), "n_iter": 144},
    }
    for name, arguments in ways.items():
        found = timed(name, hs.SearchCV(FOREST, SPACE, cv=5, **arguments))
        if "scheduler" not in arguments:
            same = all(
                np.array_equal(found.cv_results_[key], column)
                for key, column in expected.cv_results_.items()
                if key.startswith(("split", "mean_test", "std_test", "rank"))
            )
            same &= found.cv_results_["params"] == expected.cv_results_["params"]
            print(f"  cv_results_ of GridSearchCV: {'the same' if same else 'DIFFERENT'}", flush=True)

    def forest(**parameters: Any) -> RandomForestClassifier:
        return RandomForestClassifier(random_state=42, **parameters)

    check("random", timed("random", hs.SearchCV(FOREST, SPACE, n_iter=50, cv=5, random_state=0)), forest)
    space = {
        "C": hs.Float(1e-2, 1e3, log=True),
        "gamma": hs.Float(1e-4, 10, log=True),
        "kernel": ["rbf", "poly"],
    }
    bayesian = hs.SearchCV(SVC(), space, n_iter=50, searcher=hs.GP(), cv=5, random_state=0)
    check("Bayesian", timed("Bayesian", bayesian), SVC)
    grid = {"C": [0.1, 1, 10], "gamma": [0.01, 0.1, 1], "kernel": ["linear", "rbf", "poly"]}
    check("grid of 27", timed("grid of 27", hs.SearchCV(SVC(), grid, cv=5)), SVC)


if __name__ == "__main__":
    main()
