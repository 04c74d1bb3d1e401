"""The ten functions with priors, `--part priors`: good ones, and wrong ones.

A good prior has its center at a normal step of a tenth of the range from the best value, and a standard
deviation of 0.15 of the range; of a choice the best value weighs 5. A wrong one is as sure of the far side:
the center is half of the range from the best value, before the step, and a choice prefers another value.
The steps depend on the seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.random import Generator, default_rng

from benchmarks.problems import Problem
from benchmarks.quality_verdicts import Table, Verdict
from hpcsweep.core.domains import Choice, Float, Int, Ordinal
from hpcsweep.core.priors import Normal, Prior, Weights, span
from hpcsweep.core.space import Parameter, Space

#: What a prior is, behind the searcher's name: `tpe+good`.
BELIEFS: Final = ("good", "wrong")
SEARCHERS: Final = ("random", "tpe", "gp")
#: Evaluations after which a good prior is judged; a wrong one is judged after all.
SOON: Final = 48
#: Of the regret without a prior: what a good one may leave, and a wrong one may cost.
GOOD, WRONG = 0.5, 1.5
_OFF, _SIGMA, _SURE = 0.1, 0.15, 5.0

_HARTMANN3: Final = (0.114614, 0.555649, 0.852547)
_HARTMANN6: Final = (0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573)
_ADAM: Final = {"optimizer": "adam", "activation": "gelu", "lr": 1e-3, "weight_decay": 1e-4, "dropout": 0.3}
_SGD: Final = {"optimizer": "sgd", "schedule": "cosine", "lr": 0.1, "momentum": 0.9, "layers": 3}


def _numbers(values: Sequence[float]) -> dict[str, float]:
    return {f"x{index}": value for index, value in enumerate(values)}


#: A configuration of least value for each function; parameters that it lacks have no prior.
BEST: Final[dict[str, dict[str, Any]]] = {
    "branin": _numbers((math.pi, 2.275)),
    "hartmann3": _numbers(_HARTMANN3),
    "hartmann6": _numbers(_HARTMANN6),
    "rosenbrock": _numbers([1.0] * 4),
    "ackley": _numbers([0.0] * 5),
    "rastrigin": _numbers([0.0] * 4),
    "levy": _numbers([1.0] * 4),
    "mixed": {**_ADAM, "batch_size": 64, "width": 256, "layers": 4},
    "conditional": {**_SGD, "warmup": 5},
    "noisy": _numbers(_HARTMANN6),
}


def believing(problem: Problem, belief: str, *, seed: int) -> Problem:
    """The function, its parameters with good or wrong priors."""
    rng = default_rng([seed, 2])
    best = BEST[problem.name]
    parameters = [
        parameter
        if parameter.name not in best
        else Parameter(
            parameter.name,
            parameter.domain,
            parameter.when,
            prior=_prior(parameter.domain, best[parameter.name], belief, rng),
        )
        for parameter in problem.space.parameters
    ]
    return problem._replace(space=Space(tuple(parameters), problem.space.constraints))


def _prior(domain: Any, best: Any, belief: str, rng: Generator) -> Prior:
    if isinstance(domain, Choice):
        at = list(domain.values).index(best)
        if belief == "wrong":
            at = (at + 1 + int(rng.integers(domain.size - 1))) % domain.size
        return Weights(tuple(_SURE if place == at else 1.0 for place in range(domain.size)))
    assert isinstance(domain, Float | Int | Ordinal)
    position = float(domain.to_unit([best])[0])
    if belief == "wrong":
        position += 0.5 if position < 0.5 else -0.5
    position += _OFF * float(rng.standard_normal())
    center = domain.from_unit(np.array([min(max(position, 0.0), 1.0)]))[0]
    return Normal(center, _SIGMA * span(domain))


def prior_verdicts(table: Table, searcher: str, *, soon: str, late: str) -> list[Verdict]:
    """Of one searcher; `soon` and `late` end the names of the problems."""
    return [
        _mean_ratio(table, searcher, "good", soon, GOOD, "leaves at most {} of the regret"),
        _mean_ratio(table, searcher, "wrong", late, WRONG, "costs at most {} times the regret"),
    ]


def _mean_ratio(table: Table, searcher: str, belief: str, when: str, most: float, claim: str) -> Verdict:
    ratios = [
        ratio
        for batch in table.batches
        for problem in table.problems
        if problem.endswith(when) and (ratio := table.ratio(problem, batch, f"{searcher}+{belief}", searcher))
    ]
    said = f"a {belief} prior of {searcher} {claim.format(most)}{when}"
    if not ratios:
        return Verdict(said, None, "")
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return Verdict(said, mean <= most, f"{mean:.2f} in the geometric mean, {max(ratios):.2f} at most")
