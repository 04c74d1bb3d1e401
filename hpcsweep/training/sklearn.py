"""What a run of `hpcsweep.SearchCV` does: it fits an estimator on folds, one step each, and reports scores.

Data, folds and estimator are in one file, written before the sweep starts: it is this program's input, read
by it alone. Scores come back as metrics, like those of any training.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from sklearn.base import clone
from sklearn.model_selection._validation import _fit_and_score

from hpcsweep.errors import SpecError
from hpcsweep.trial import Trial

#: Path of the file, in the environment of each run.
VARIABLE: Final = "HPCSWEEP_SEARCH_CV"
#: Name of the objective: the mean over the folds so far. Each of several has the name of its score.
METRIC: Final = "mean_test_score"
_MEAN: Final = "mean_test_"
#: Of a fold; the scores are `test_NAME` and `train_NAME`.
FIT_TIME: Final = "fit_time"
SCORE_TIME: Final = "score_time"
SAMPLES: Final = "n_test_samples"
_SCORES: Final = "scores.json"


def objective_names(metrics: Sequence[str]) -> tuple[str, ...]:
    """What the means of these scores are called."""
    return (METRIC,) if len(metrics) == 1 else tuple(f"{_MEAN}{name}" for name in metrics)


class Search(NamedTuple):
    """What all runs share.

    Attributes:
        values: Of each parameter that was given as a list: its values, in the order of the indices that stand
            for them in a configuration.
        splits: Indices to train and to test on, of each fold.
        options: Further arguments of scikit-learn's `_fit_and_score`.
        metrics: Which scores are the objectives.
        repeats: Whether each fold is a trial of its own.
        checkpoints: Whether to keep the scores of the folds so far, for runs that go on.
        errors: Folder for the tracebacks of fits that failed.
    """

    estimator: Any
    X: Any
    y: Any
    values: Mapping[str, Sequence[Any]]
    splits: Sequence[tuple[Any, Any]]
    scorer: Any
    options: Mapping[str, Any]
    metrics: tuple[str, ...]
    repeats: bool
    checkpoints: bool
    errors: Path

    def parameters(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The estimator's parameters: the very objects that were given in lists."""
        return {
            name: self.values[name][value] if name in self.values else value for name, value in config.items()
        }


def save(search: Search, path: Path) -> None:
    """Write the file; what is defined in a script or a notebook is in it by its code."""
    import cloudpickle
    import joblib

    parts = {"X": search.X, "y": search.y, "splits": search.splits}
    code = cloudpickle.dumps(search._replace(X=None, y=None, splits=()))
    joblib.dump({**parts, "code": code}, path)


def load(path: Path) -> Search:
    """Read the file back."""
    import joblib

    parts = joblib.load(path)
    search: Search = pickle.loads(parts.pop("code"))
    if isinstance(search.metrics, str):  # of earlier versions, which had one
        search = search._replace(metrics=(search.metrics,))
    return search._replace(**parts)


def train(trial: Trial) -> None:
    """The training function of the sweep."""
    assert _search is not None, f"{VARIABLE} is not set: this is for runs of SearchCV"
    evaluate(trial, _search)


def evaluate(trial: Trial, search: Search) -> None:
    """Fit on the folds of this run, and report after each."""
    if search.repeats:
        fold = trial.id % len(search.splits)
        _report(trial, 1, [], _fold(search, trial, fold))
        return
    scores: list[list[float]] = []
    if trial.resume_from is not None:
        kept = json.loads((trial.resume_from / _SCORES).read_text())
        scores = [each if isinstance(each, list) else [each] for each in kept]  # earlier versions had one
    for step in trial.steps():
        _report(trial, step, scores, _fold(search, trial, step - 1))
        if search.checkpoints:
            with trial.checkpoint(step) as folder:
                (folder / _SCORES).write_text(json.dumps(scores))


def _fold(search: Search, trial: Trial, fold: int) -> dict[str, float]:
    """Scores and times of one fold, and the scores that are objectives by their names as these."""
    train, test = search.splits[fold]
    found = _fit_and_score(
        clone(search.estimator),
        search.X,
        search.y,
        scorer=search.scorer,
        train=train,
        test=test,
        verbose=0,
        # Parameters may be estimators, which a fit must not change.
        parameters=clone(search.parameters(trial.config), safe=False),
        return_times=True,
        return_n_test_samples=True,
        **search.options,
    )
    if found["fit_error"] is not None:
        if search is _search:  # in a job, whose log this is
            print(found["fit_error"], flush=True)
        search.errors.mkdir(parents=True, exist_ok=True)
        (search.errors / f"{trial.id}-{fold}.txt").write_text(found["fit_error"], encoding="utf-8")
    metrics = {
        FIT_TIME: found["fit_time"],
        SCORE_TIME: found["score_time"],
        SAMPLES: float(found["n_test_samples"]),
    }
    for kind in ("test", "train"):
        scores = found.get(f"{kind}_scores", {})
        for name, score in (scores if isinstance(scores, Mapping) else {"score": scores}).items():
            metrics[f"{kind}_{name}"] = float(score)
    if any(f"test_{name}" not in metrics for name in search.metrics):
        names = ", ".join(name.removeprefix("test_") for name in metrics if name.startswith("test_"))
        raise SpecError(f"refit: must name the score that is searched for, one of {names}")
    scores = [metrics[f"test_{name}"] for name in search.metrics]
    return metrics | dict(zip(objective_names(search.metrics), scores, strict=True))


def _report(trial: Trial, step: int, scores: list[list[float]], metrics: dict[str, float]) -> None:
    """`scores`: of each objective those of the folds before."""
    names = [name for name in metrics if name.startswith(_MEAN)]
    scores.append([metrics[name] for name in names])
    means = [sum(each) / len(scores) for each in zip(*scores, strict=True)]
    trial._record(step, metrics | dict(zip(names, means, strict=True)))


#: That of the runs in this process. It is read when the module is imported, so that the runs of a task, which
#: are forks of one process, share it in memory.
_search = load(Path(os.environ[VARIABLE])) if VARIABLE in os.environ else None
