"""Ax as a peer with several objectives: by its `Client`, asked and told, with its defaults.

These are the center, a Sobol sequence and from the sixth trial on Gaussian processes and BoTorch's
`qLogNoisyExpectedHypervolumeImprovement`. Ax is optional here; BoTorch and PyTorch come with it.
"""

from __future__ import annotations

import logging
import warnings
from importlib.util import find_spec
from typing import Any, Final

from benchmarks.front_problems import FrontProblem
from hpcsweep.core.domains import Float, Ordinal
from hpcsweep.core.space import Parameter

#: The name of this peer.
AX: Final = "ax"
AX_INSTALLED: Final = find_spec("ax") is not None


def ax_values(problem: FrontProblem, *, batch: int, evaluations: int, seed: int) -> list[tuple[float, ...]]:
    """Of one sweep; a batch is evaluated before the next is asked for."""
    from ax.api.client import Client
    from ax.utils.common.logger import set_ax_logger_levels

    set_ax_logger_levels(logging.ERROR)
    names = [f"f{index}" for index in range(len(problem.reference))]
    client = Client(random_seed=seed)
    client.configure_experiment(parameters=[_to_ax(parameter) for parameter in problem.space.parameters])
    client.configure_optimization(objective=", ".join(f"-{name}" for name in names))
    values: list[tuple[float, ...]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while (done := len(values)) < evaluations:
            trials = client.get_next_trials(max_trials=min(batch, evaluations - done))
            for trial, config in trials.items():
                values.append(problem.values(dict(config)))
                client.complete_trial(trial, raw_data=dict(zip(names, values[-1], strict=True)))
            if not trials:
                break
    return values


def _to_ax(parameter: Parameter) -> Any:
    from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

    match parameter.domain:
        case Float(low, high, log=False, step=None):
            return RangeParameterConfig(parameter.name, (low, high), "float")
        case Ordinal(values):
            whole = all(isinstance(value, int) for value in values)
            return ChoiceParameterConfig(
                parameter.name, list(values), "int" if whole else "float", is_ordered=True
            )
        case domain:
            raise AssertionError(domain)
