"""`SearchCV`: a search over an estimator's parameters with scikit-learn's interface, as a sweep."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from sklearn.base import _fit_context, clone, is_classifier
from sklearn.model_selection import ParameterGrid, check_cv
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import indexable

from hpcsweep.api.objects import Budget, Choice, Cluster, Fifo, Local, Objective, Retries, Train
from hpcsweep.api.parts import AnyCluster, Scheduler, Searcher, plain
from hpcsweep.api.search_results import Scores, rank_incomplete, report_failed_fits
from hpcsweep.api.search_space import SearchSpace, read_search_space
from hpcsweep.api.sweep import Sweep
from hpcsweep.errors import FolderError, SpecError, SweepFailed
from hpcsweep.training import sklearn as training
from hpcsweep.training.sklearn import VARIABLE, Search, objective_names

if TYPE_CHECKING:
    from hpcsweep.api.objects import Resources
    from hpcsweep.views.results import Results

#: Of a search's folder.
_DATA: Final = "data.joblib"
_KEY: Final = "key.json"
_SWEEP: Final = "sweep"
_ERRORS: Final = "errors"
#: Runs that are asked for at a time where they are done here.
_AT_A_TIME: Final = 1


class SearchCV(BaseSearchCV):  # type: ignore[misc]  # scikit-learn has no types
    """Search over an estimator's parameters by cross-validation, as a sweep.

    It has the interface of `GridSearchCV`. With the same candidates it has the same `cv_results_`.

    Each fold is a step of training, so that a scheduler with rungs stops poor candidates after their first
    folds: `scheduler=hs.Halving(max_resource=5)` with `cv=5`. In `cv_results_` these have NaN for the folds
    that they did not get to, the mean of the others, and a rank behind all candidates that had every fold.

    Args:
        estimator: What is fitted.
        space: The parameters by name: a list, a parameter such as `hs.Float(1e-3, 1, log=True)`, or one of
            `scipy.stats.uniform`, `loguniform` and `randint`. Any other value is a constant.
        n_iter: How many candidates to try. None: every combination of the lists.
        scheduler: With one step for each fold. Default: every candidate gets every fold.
        searcher: Such as `hs.GP()`. Default: `grid` without `n_iter`, else `random`.
        scoring: As in `GridSearchCV`. Of several scores the one that `refit` names is searched for; where it
            names none (`refit=False`, or a function that chooses) all of them, as several objectives.
        cv: As in `GridSearchCV`; so are `refit`, `error_score` and `return_train_score`.
        folds: `resource`: a candidate's folds are steps of one run. `repeats`: they are runs of their own, at
            the same time.
        cluster: Where fits run: `hs.Slurm(...)`, `hs.Local(slots=8)`, or `auto`. Default: in this process.
        n_jobs: Without `cluster`: how many jobs at a time on this machine; -1: one for each core.
        resources: Of one run.
        random_state: Seed of the searcher.
        folder: Keeps the search: a second `fit` with the same arguments and data carries on. Default: a
            temporary one in this process, else one in `results` with a name made from the data.
        verbose: Above 0, print how the sweep goes.

    Attributes:
        cv_results_: As of `GridSearchCV`; so are `best_index_`, `best_params_`, `best_score_`,
            `best_estimator_`, `refit_time_`, `scorer_` and `n_splits_`.
        folder_: The sweep's results folder, None if it was a temporary one.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseSearchCV._parameter_constraints,
        "space": [Mapping],
    }

    def __init__(
        self,
        estimator: Any,
        space: Mapping[str, Any],
        *,
        n_iter: int | None = None,
        scheduler: str | Scheduler | Mapping[str, Any] | None = None,
        searcher: str | Searcher | Mapping[str, Any] | None = None,
        scoring: Any = None,
        refit: Any = True,
        cv: Any = None,
        folds: str = "resource",
        cluster: str | AnyCluster | Mapping[str, Any] | None = None,
        n_jobs: int | None = None,
        resources: Resources | Mapping[str, Any] | None = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
        random_state: int | None = None,
        folder: str | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            estimator=estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.space = space
        self.n_iter = n_iter
        self.scheduler = scheduler
        self.searcher = searcher
        self.folds = folds
        self.cluster = cluster
        self.resources = resources
        self.random_state = random_state
        self.folder = folder

    @_fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None, **params: Any) -> SearchCV:  # noqa: N803
        """Search, and fit the best candidate on all data.

        Args:
            X: The data, `(n, d)`.
            y: The targets, `(n,)`; None for unsupervised learning.
            **params: For the estimator's `fit`, the splitter (`groups`) and the scorer.

        Raises:
            SpecError: An argument makes no sense.
            ValueError: No fit succeeded.
        """
        scorers, refit_metric = self._get_scorers()
        if callable(self.scoring) and isinstance(self.refit, str):
            refit_metric = self.refit  # of several scores that it gives
        X, y = indexable(X, y)  # noqa: N806
        params = {
            name: indexable(value)[0] if _length(value) == _length(X) else value
            for name, value in params.items()
        }
        routed = self._get_routed_params_for_fit(params)
        splitter = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        splits = list(splitter.split(X, y, **routed.splitter.split))
        self.n_splits_ = len(splits)
        space = read_search_space(self.space)
        options = {
            "fit_params": routed.estimator.fit,
            "score_params": routed.scorer.score,
            "error_score": self.error_score,
            "return_train_score": self.return_train_score,
        }
        search = Search(
            estimator=clone(self.estimator),
            X=X,
            y=y,
            values=space.values,
            splits=splits,
            scorer=scorers,
            options=options,
            metrics=_searched(scorers, refit_metric),
            repeats=self.folds == "repeats",
            checkpoints=self._cluster is not None or not isinstance(self._scheduler(), Fifo),
            errors=Path(),
        )
        key = _key(search)
        with self._root(key) as root:
            sweep = self._sweep(space, root, search.metrics)
            search = search._replace(errors=root.resolve() / _ERRORS)
            self._run(sweep, search, root)
            results = sweep.results()
            candidates = self._candidates(space, results)
            out = Scores(results, search, candidates).out()
        self.folder_ = None if self.folder is None and self._cluster is None else str(sweep.folder)
        self._take_results(out, [parameters for _, parameters in candidates], scorers, refit_metric)
        if self.refit:
            self._refit(X, y, routed.estimator.fit)
        return self

    def _run_search(self, evaluate_candidates: Any) -> None:
        raise NotImplementedError("candidates are chosen by a searcher, while others are evaluated")

    # ------------------------------------------------------------------ the sweep

    @contextlib.contextmanager
    def _root(self, key: str) -> Iterator[Path]:
        """The search's folder; `key` is of its data."""
        if self.folder is None and self._cluster is None:
            with tempfile.TemporaryDirectory(prefix="hpcsweep-search-") as found:
                yield Path(found)
            return
        root = Path(self.folder or f"results/search-cv-{key[:10]}")
        root.mkdir(parents=True, exist_ok=True)
        _check_key(root / _KEY, key)
        yield root

    def _scheduler(self) -> Scheduler | Mapping[str, Any]:
        """With as many steps as folds, where it does not say."""
        given = self.scheduler
        if self.folds not in ("resource", "repeats"):
            raise SpecError(f"folds: must be 'resource' or 'repeats', got {self.folds!r}")
        most = self.n_splits_ if self.folds == "resource" else 1
        if given is None:
            return Fifo(max_resource=most)
        if self.folds == "repeats":
            raise SpecError("scheduler: needs folds='resource': each fold is a run of its own with 'repeats'")
        if isinstance(given, str):
            return {"name": given, "max_resource": most}
        asked = plain(given).get("max_resource", most)
        if asked > most:
            raise SpecError(f"scheduler: max_resource must be at most the {most} folds, got {asked}")
        return given

    @property
    def _cluster(self) -> str | AnyCluster | Mapping[str, Any] | None:
        """Where jobs run; None: fits are done in this process."""
        if self.cluster is not None or self.n_jobs in (None, 1):
            return self.cluster
        if self.n_jobs == 0:
            raise SpecError("n_jobs: must not be 0")
        return Local(
            slots=self.n_jobs if self.n_jobs > 0 else max(1, len(os.sched_getaffinity(0)) + 1 + self.n_jobs)
        )

    def _searcher(self) -> Mapping[str, Any]:
        given = self.searcher or ("grid" if self.n_iter is None else "random")
        found = {"name": given} if isinstance(given, str) else dict(plain(given))
        return found if self.random_state is None else {**found, "seed": int(self.random_state)}

    def _sweep(self, space: SearchSpace, root: Path, metrics: Sequence[str]) -> Sweep:
        cluster: dict[str, Any] = {}
        given = self._cluster
        if given is not None:
            cluster = {"name": given} if isinstance(given, str) else dict(plain(given))
            cluster.setdefault("reuse", True)  # many fits are shorter than the start of a process
            environment = {**cluster.get("environment", {}), VARIABLE: str(root.resolve() / _DATA)}
            cluster["environment"] = environment
        return Sweep(
            Train(function="hpcsweep.training.sklearn:train", check=False),
            space.parameters,
            [Objective(name, mode="max") for name in objective_names(metrics)],
            searcher=self._searcher(),
            scheduler=self._scheduler(),
            repeats=self.n_splits_ if self.folds == "repeats" else 1,
            resources=self.resources,
            cluster=cluster or Cluster(),
            budget=None if self.n_iter is None else Budget(trials=self.n_iter),
            retries=Retries(fail_fast=0),  # a configuration that cannot be fitted has a score, too
            name="search-cv",
            folder=root / _SWEEP,
        )

    def _run(self, sweep: Sweep, search: Search, root: Path) -> None:
        if self._cluster is None:
            from hpcsweep.api.ask import asking

            with asking(sweep.spec, sweep.folder, compacts=self.folder is not None) as session:
                while not session.done:
                    for trial in session.ask(_AT_A_TIME) or session.outstanding():
                        training.evaluate(trial, search)
                        session.tell(trial)
            return
        if not (root / _DATA).exists():
            training.save(search, root / _DATA)
        with contextlib.suppress(SweepFailed):  # what failed is told below, as scikit-learn does
            sweep.launch(quiet=self.verbose <= 0)
        self._raise_first_error(sweep.results())

    def _raise_first_error(self, results: Results) -> None:
        """With `error_score='raise'`, the message of a fit that failed."""
        failed = [run for trial in results.folder.state.trials for run in trial.runs if run.message]
        if self.error_score == "raise" and failed:
            raise ValueError(failed[0].message)

    # ------------------------------------------------------------------ its results

    def _candidates(self, space: SearchSpace, results: Results) -> list[tuple[int, dict[str, Any]]]:
        """The number of the first trial of each candidate, and its parameters; in the order of a grid."""
        state = results.folder.state
        found = [
            (trial.trial, trial.config) for trial in state.trials[:: state.repeats] if trial.parent is None
        ]
        lists = {name: each for name, each in space.parameters.items() if isinstance(each, Choice)}
        if self._searcher()["name"] == "grid" and len(lists) == len(space.parameters):
            indices = {name: range(len(each.values)) for name, each in lists.items()}
            order = {_position(space, config): n for n, config in enumerate(ParameterGrid(indices))}
            found.sort(key=lambda each: order[_position(space, space.indices(each[1]))])
        return [(trial, space.original(config)) for trial, config in found]

    def _take_results(
        self, out: list[dict[str, Any]], parameters: list[dict[str, Any]], scorers: Any, refit_metric: Any
    ) -> None:
        """Set what a fitted search has, by scikit-learn's own code where every candidate had every fold."""
        folds = np.array([entry["evaluated"] for entry in out]).reshape(len(parameters), self.n_splits_)
        done = [entry for entry in out if entry["evaluated"]]
        if not done:
            raise ValueError("No fits were performed. Was the CV iterator empty? Were there no candidates?")
        report_failed_fits(done, self.error_score)
        complete = bool(folds.all())
        with warnings.catch_warnings():
            if not complete:  # folds that a candidate did not get to have no score
                warnings.filterwarnings("ignore", message="One or more of the")
            results = self._format_results(parameters, self.n_splits_, out)
        self.multimetric_ = isinstance(done[0]["test_scores"], dict)
        if not complete:
            rank_incomplete(results, folds)
        if self.refit or not self.multimetric_:
            self.best_index_ = self._select_best_index(self.refit, refit_metric, results)
            if not callable(self.refit):
                self.best_score_ = results[f"mean_test_{refit_metric}"][self.best_index_]
            self.best_params_ = results["params"][self.best_index_]
        self.scorer_ = getattr(scorers, "_scorers", scorers) if self.multimetric_ else scorers
        self.cv_results_ = results

    def _refit(self, X: Any, y: Any, fit_params: Mapping[str, Any]) -> None:  # noqa: N803
        import time

        best = clone(clone(self.estimator)).set_params(**clone(self.best_params_, safe=False))
        began = time.time()
        best.fit(X, **fit_params) if y is None else best.fit(X, y, **fit_params)
        self.refit_time_ = time.time() - began
        self.best_estimator_ = best
        if hasattr(best, "feature_names_in_"):
            self.feature_names_in_ = best.feature_names_in_


def _searched(scorers: Any, refit_metric: Any) -> tuple[str, ...]:
    """The scores that are searched for: that of `refit`, or all of several where it names none."""
    if isinstance(refit_metric, str):
        return (refit_metric,)
    return tuple(getattr(scorers, "_scorers", scorers))


def _length(value: Any) -> int | None:
    """How many rows it has; None for what is no array, list or table."""
    if shape := getattr(value, "shape", None):
        return int(shape[0])
    return len(value) if hasattr(value, "__len__") and not isinstance(value, str | Mapping) else None


def _position(space: SearchSpace, indices: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(indices[name] for name in space.parameters)


def _key(search: Search) -> str:
    """The same for the same data, folds and estimator."""
    import joblib

    splits = [list(map(np.asarray, split)) for split in search.splits]
    parameters = {name: repr(value) for name, value in search.estimator.get_params().items()}
    return str(joblib.hash((search.X, search.y, splits, type(search.estimator).__name__, parameters)))


def _check_key(path: Path, key: str) -> None:
    """Refuse a folder that holds the search of other data.

    Raises:
        FolderError: It does.
    """
    if path.exists():
        if json.loads(path.read_text()) != key:
            raise FolderError(f"{path.parent}: holds a search with other data or folds: give another folder")
    else:
        path.write_text(json.dumps(key))
