"""Regret of a searcher, or of a sampler of Optuna, after so many evaluations of a function in batches.

Every batch is evaluated before the next one is asked for. The regret is the true value of the
configuration that was observed to be the best, less the minimum. The noise of an evaluation depends
on the seed and its number, so that it is the same for every searcher.

`python -m benchmarks.quality_functions FUNCTION METHOD BATCH EVALUATIONS SEED` prints the regret of one sweep
and its CPU seconds. `benchmarks.quality` runs it with the package of an earlier version, so that this module
imports nothing that earlier versions lack.
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import Final

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from benchmarks.held_out import HELD_OUT, WIDE
from benchmarks.problems import PROBLEMS, Problem
from hpcsweep.core.history import History
from hpcsweep.searchers import make_searcher

#: Samplers of Optuna are named `optuna:TPESampler`.
OPTUNA: Final = "optuna:"
#: Searchers of an earlier version are named `before:gp`.
BEFORE: Final = "before:"


def regret(name: str, method: str, *, batch: int, evaluations: int, seed: int) -> float:
    """Regret of one sweep over the function `name`; those held out are others for each seed."""
    problem = PROBLEMS[name] if name in PROBLEMS else (HELD_OUT | WIDE)[name](seed)
    method, _, belief = method.partition("+")
    if belief:
        from benchmarks.quality_priors import believing

        problem = believing(problem, belief, seed=seed)
    noise = problem.noise * default_rng([seed, 1]).standard_normal(evaluations)
    if method.startswith(OPTUNA):
        return _optuna_regret(problem, method.removeprefix(OPTUNA), noise, batch=batch, seed=seed)
    return _our_regret(problem, method, noise, batch=batch, seed=seed)


def _our_regret(problem: Problem, method: str, noise: NDArray[np.float64], *, batch: int, seed: int) -> float:
    searcher = make_searcher(method, seed=seed, options={}, trials=len(noise))
    if problems := searcher.problems(problem.space):
        raise ValueError("\n".join(problems))
    history = History(problem.space)
    true: list[float] = []
    while (done := history.proposed) < len(noise):
        for config in searcher.ask(min(batch, len(noise) - done), history, default_rng([seed, done])):
            true.append(problem.value(config))
            history.add(config)
        for index in range(done, history.proposed):
            history.observe(index, true[index] + float(noise[index]), 1)
    return true[int(np.argmin(np.array(true) + noise))] - problem.minimum


def _optuna_regret(
    problem: Problem, sampler: str, noise: NDArray[np.float64], *, batch: int, seed: int
) -> float:
    """By Optuna's own ask and tell, with the sampler's defaults; ordered values are told by their index."""
    import optuna

    from hpcsweep.searchers.optuna_study import distributions, suggest_config

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    of = distributions(problem.space)
    true: list[float] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(sampler=getattr(optuna.samplers, sampler)(seed=seed))
        while (done := len(true)) < len(noise):
            trials = [study.ask() for _ in range(min(batch, len(noise) - done))]
            true += [problem.value(suggest_config(trial, problem.space, of)) for trial in trials]
            for trial, value, error in zip(trials, true[done:], noise[done:], strict=False):
                study.tell(trial, value + float(error))
    return true[int(np.argmin(np.array(true) + noise))] - problem.minimum


def main() -> None:
    """Print regret and CPU seconds of the sweep that the arguments name."""
    name, method, *numbers = sys.argv[1:]
    batch, evaluations, seed = map(int, numbers)
    start = time.process_time()
    found = regret(name, method, batch=batch, evaluations=evaluations, seed=seed)
    print(found, time.process_time() - start)


if __name__ == "__main__":
    main()
