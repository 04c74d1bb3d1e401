"""How long `gp` takes to propose a batch: `python -m benchmarks.gp`.

On one core, with 8 mixed parameters: one configuration after 50, 1000 and 5000 results, and 64 configurations
after 500 results with 64 pending. With `--plain`, where BoTorch is installed, that batch by BoTorch alone:
`SingleTaskGP` with its defaults and `qLogExpectedImprovement` with `X_pending`, optimised one by one.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
from numpy.random import default_rng

from benchmarks.problems import PROBLEMS
from hpcsweep.core.history import History
from hpcsweep.searchers.gp import GP
from hpcsweep.searchers.gp_pool import Features
from hpcsweep.searchers.random import config_key

#: To be reached, in seconds; for one configuration by the number of results.
MOST_FOR_ONE: Final = {50: 0.2, 1000: 1.0, 5000: 1.0}
MOST_FOR_BATCH: Final = 1.0
BATCH: Final = 64


def mixed_history(results: int, pending: int) -> History:
    """Random configurations of the mixed problem, `pending` of them without a value."""
    problem = PROBLEMS["mixed"]
    configs = problem.space.sample(results + pending, default_rng(1))
    values = [problem.value(config) if i < results else None for i, config in enumerate(configs)]
    return History(problem.space, configs=configs, values=values, resources=[1] * len(configs))


def seconds(ask: Callable[[], object]) -> float:
    """Processor time of one call; all of it is on one thread."""
    start = time.process_time()
    ask()
    return time.process_time() - start


def ask_botorch(known: History, n: int) -> None:
    """The batch by BoTorch alone, choices relaxed to their one-hot features."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    from botorch.acquisition.logei import qLogExpectedImprovement
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from botorch.optim.optimize import optimize_acqf
    from gpytorch.mlls import ExactMarginalLogLikelihood

    features = Features(known.space, fidelity=False)
    points = torch.from_numpy(features.of(known.X))
    values = -torch.from_numpy(known.values)[:, None]
    model = SingleTaskGP(points, values)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    pending = torch.from_numpy(features.of(known.pending))
    improvement = qLogExpectedImprovement(model, best_f=values.max(), X_pending=pending)
    bounds = torch.tensor([[0.0], [1.0]], dtype=torch.double).expand(2, points.shape[1])
    optimize_acqf(improvement, bounds=bounds, q=n, num_restarts=4, raw_samples=128, sequential=True)


def print_timing(name: str, took: float, most: float) -> bool:
    """Print one figure; whether it is reached."""
    reached = took <= most
    print(
        f"{name:<60} {took:>7.2f} s  at most {most:g} s: {'reached' if reached else 'NOT REACHED'}",
        flush=True,
    )
    return reached


def main() -> int:
    """Print the figures; 1 if one is not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gp", description=__doc__)
    parser.add_argument(
        "--plain", action="store_true", help="time BoTorch used plainly as well (about a minute)"
    )
    options = parser.parse_args()
    one = GP(seed=0)
    one.ask(1, mixed_history(50, 0), default_rng(0))  # imports
    reached = []
    for results, most in MOST_FOR_ONE.items():
        known = mixed_history(results, 0)
        took = float(np.median([seconds(partial(one.ask, 1, known, default_rng(i))) for i in range(5)]))
        reached.append(print_timing(f"1 configuration, {results} results (median of 5)", took, most))
    many = mixed_history(500, 64)
    batch = one.ask(BATCH, many, default_rng(0))
    distinct = len({config_key(config) for config in batch})
    whole = float(np.median([seconds(partial(one.ask, BATCH, many, default_rng(i))) for i in range(3)]))
    name = f"{BATCH} configurations, 500 results, 64 pending (median of 3)"
    reached.append(print_timing(name, whole, MOST_FOR_BATCH))
    print(f"{distinct} of {BATCH} are distinct")
    if options.plain:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plain = seconds(lambda: ask_botorch(many, BATCH))
        print(f"the same batch by BoTorch's qLogEI alone: {plain:.2f} s; gp takes {whole / plain:.2f} of it")
    return 0 if all(reached) and distinct == BATCH else 1


if __name__ == "__main__":
    sys.exit(main())
