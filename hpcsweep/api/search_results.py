"""What scikit-learn's `_fit_and_score` gave in the runs of `SearchCV`, and ranks where folds are missing."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.exceptions import FitFailedWarning

from hpcsweep.training import sklearn as training
from hpcsweep.training.sklearn import Search

if TYPE_CHECKING:
    from hpcsweep.views.results import Results


def rank_incomplete(results: dict[str, Any], folds: np.ndarray[Any, Any]) -> None:
    """Means over the folds that there are, and ranks: more folds first, then the better mean."""
    counts = folds.sum(axis=1)
    names = [key.removeprefix("mean_") for key in results if key.startswith("mean_")]
    for name in names:
        splits = [key for key in results if key.startswith("split") and key.endswith(f"_{name}")]
        if not splits:  # of times scikit-learn keeps the mean alone
            continue
        scores = np.ma.masked_array(np.column_stack([results[key] for key in splits]), mask=~folds)
        results[f"mean_{name}"] = scores.mean(axis=1).filled(np.nan)
        results[f"std_{name}"] = scores.std(axis=1).filled(np.nan)
        if f"rank_{name}" in results:
            means = np.nan_to_num(results[f"mean_{name}"], nan=-np.inf)
            keys = list(zip(-counts, -means, strict=True))
            ranks = {key: 1 + sum(other < key for other in keys) for key in set(keys)}
            results[f"rank_{name}"] = np.array([ranks[key] for key in keys], dtype=np.int32)


def report_failed_fits(fits: Sequence[Mapping[str, Any]], error_score: Any) -> None:
    """Warn of fits that failed, each traceback once, as scikit-learn's searches do.

    Raises:
        ValueError: All of them did.
    """
    errors = Counter(fit["fit_error"] for fit in fits if fit["fit_error"] is not None)
    failed = errors.total()
    if not failed:
        return
    details = "\n".join(f"{'-' * 80}\n{count} fits failed with:\n{error}" for error, count in errors.items())
    if failed == len(fits):
        raise ValueError(f"All the {failed} fits failed; error_score='raise' stops at the first.\n{details}")
    text = f"{failed} fits failed out of a total of {len(fits)}; their score is {error_score}.\n{details}"
    warnings.warn(text, FitFailedWarning, stacklevel=4)


class Scores:
    """What `_fit_and_score` gave, from the metrics of the sweep."""

    def __init__(
        self, results: Results, search: Search, candidates: Sequence[tuple[int, dict[str, Any]]]
    ) -> None:
        self._search = search
        self._candidates = candidates
        frame = results.metrics
        self._rows: dict[tuple[int, int], dict[str, float]] = {
            (int(row["trial"]), int(row["step"])): {str(name): value for name, value in row.items()}
            for row in frame.to_dict("records")
        }
        self._names = [
            str(name).removeprefix("test_") for name in frame.columns if str(name).startswith("test_")
        ]

    def out(self) -> list[dict[str, Any]]:
        """One entry for each candidate and fold."""
        folds = range(len(self._search.splits))
        return [self._entry(trial, fold) for trial, _ in self._candidates for fold in folds]

    def _entry(self, trial: int, fold: int) -> dict[str, Any]:
        key = (trial + fold, 1) if self._search.repeats else (trial, fold + 1)
        row = self._rows.get(key)
        found = row or {}
        entry: dict[str, Any] = {
            "evaluated": row is not None,
            "fit_error": self._error(key[0], fold),
            "fit_time": found.get(training.FIT_TIME, np.nan),
            "score_time": found.get(training.SCORE_TIME, np.nan),
            "n_test_samples": found.get(training.SAMPLES, np.nan),
            "test_scores": self._scores("test", found),
        }
        if self._search.options["return_train_score"]:
            entry["train_scores"] = self._scores("train", found)
        return entry

    def _scores(self, kind: str, row: Mapping[str, float]) -> Any:
        scores = {name: row.get(f"{kind}_{name}", np.nan) for name in self._names}
        return scores["score"] if list(scores) == ["score"] else scores

    def _error(self, trial: int, fold: int) -> str | None:
        path = self._search.errors / f"{trial}-{fold}.txt"
        return path.read_text(encoding="utf-8") if path.exists() else None
