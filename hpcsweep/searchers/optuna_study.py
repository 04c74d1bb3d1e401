"""An Optuna study that has seen what a history has observed. Imports Optuna: import it late."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState, create_trial

from hpcsweep.core.domains import Choice, Constant, Float, Int, Ordinal
from hpcsweep.core.history import Floats, History, Ints
from hpcsweep.core.space import Domain, Parameter, Space, json_key
from hpcsweep.searchers.optuna_storage import Trials, ended
from hpcsweep.searchers.seen import SeenConfigs, config_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hpcsweep.core.events import Config


class Study:
    """Trials in the order of their first observation, and for one call those that are pending.

    What it holds depends on the observations alone: neither on when it was made nor on what it was
    asked before.

    Args:
        space: The search space.
        replayed: Makes the sampler that each trial is asked of again before its parameters are fixed
            and its value is told: so the sampler leaves in the study what it needs later on. None for
            a sampler that needs no more than parameters and values.
    """

    def __init__(self, space: Space, *, replayed: Callable[[], BaseSampler] | None) -> None:
        self.space = space
        self._distributions = distributions(space)
        self._replay = replayed
        self._observer = None if replayed is None else replayed()  # asked of observed trials only
        self._seen = SeenConfigs()
        self._storage = Trials()
        no_pruner = optuna.pruners.NopPruner()
        self._study = optuna.create_study(storage=self._storage, pruner=no_pruner)
        self._numbers: dict[int, int] = {}  # index of a configuration -> number of its trial
        self._of: Ints = np.empty(0, dtype=np.int64)
        self._values: Floats = np.empty(0)
        self._units: Floats = np.empty((0, len(space.columns)))

    def precedes(self, history: History) -> bool:
        """Whether all that it has seen is the beginning of the history."""
        seen = len(self._of)
        return (
            history.space is self.space
            and history.observed >= seen
            and np.array_equal(history.trials[:seen], self._of)
            and np.array_equal(history.values[:seen], self._values, equal_nan=True)
            and np.array_equal(history.X[:seen], self._units, equal_nan=True)
        )

    def catch_up(self, history: History) -> None:
        """See the observations that are new; a configuration's newest value replaces the one before."""
        seen = len(self._of)
        self._of, self._values, self._units = history.trials, history.values, history.X
        for index, value, unit in zip(
            self._of[seen:].tolist(), self._values[seen:].tolist(), self._units[seen:], strict=True
        ):
            if index in self._numbers:
                self._storage.replace(self._numbers[index], value)
                continue
            config = history.configs[index] if index >= 0 else self.space.from_unit(unit[None])[0]
            self._numbers[index] = self._storage.count
            self._enter(config, value, self._observer)

    def ask(self, n: int, history: History, sampler: BaseSampler) -> list[Config]:
        """Up to `n` different configurations that satisfy the constraints, with the pending ones running.

        Nothing of it stays in the study. Of what the sampler gives at most half is thrown away.
        """
        before = self._storage.snapshot()
        found: dict[Hashable, Config] = {}
        try:
            again = None if self._replay is None else self._replay()
            for index, config in enumerate(history.configs):
                if index not in self._numbers:
                    self._enter(config, None, again)
            self._study.sampler = sampler
            known = self._seen.keys(history.configs)
            for _ in range(2 * n):
                config = suggested(self._study.ask(), self.space, self._distributions)
                key = config_key(config)
                if key not in known and self.space.satisfies_constraints(config):
                    found.setdefault(key, config)
                if len(found) == n:
                    break
        finally:
            self._storage.restore(before)
        return list(found.values())

    def _enter(self, config: Config, value: float | None, again: BaseSampler | None) -> None:
        """A trial of this configuration: running without a value, failed if it is NaN.

        It is asked of the sampler `again` first, if there is one.
        """
        params = {
            p.name: told(p.domain, config[p.name])
            for p in self.space.topological_order
            if p.name in self._distributions and p.name in config
        }
        state = TrialState.RUNNING if value is None else ended(value)
        values = [value] if value is not None and state is TrialState.COMPLETE else None
        if again is None:
            used = {name: self._distributions[name] for name in params}
            self._study.add_trial(create_trial(state=state, values=values, params=params, distributions=used))
            return
        self._study.sampler = again
        self._study.enqueue_trial(params)
        trial = self._study.ask()
        _ = trial.relative_params  # Optuna asks the sampler only for what is not fixed
        suggested(trial, self.space, self._distributions)
        if value is not None:
            self._study.tell(trial, values, state)


# --------------------------------------------------------------------------- domains


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Of all parameters that are not constants."""
    return {p.name: found for p in space.columns if (found := distribution(p.domain)) is not None}


def distribution(domain: Domain) -> BaseDistribution | None:
    """Optuna's counterpart: true values of numbers, indices of listed values; None for a constant."""
    match domain:
        case Float(low, high, log, step):
            return FloatDistribution(low, high if step is None else domain.nearest(high), log=log, step=step)
        case Int(low, high, log, step):
            return IntDistribution(low, domain.nearest(high), log=log, step=step or 1)
        case Ordinal():
            return IntDistribution(0, domain.size - 1)
        case Choice():
            return CategoricalDistribution(tuple(range(domain.size)))
        case Constant():
            return None
        case _:
            assert_never(domain)


def told(domain: Domain, value: Any) -> Any:
    """The value as Optuna is told of it."""
    if isinstance(domain, Ordinal | Choice):
        return int(domain.to_unit([value])[0] * domain.size)
    return value


def meant(domain: Domain, given: Any) -> Any:
    """The value of the domain that Optuna means."""
    if isinstance(domain, Ordinal | Choice):
        return domain.values[given]
    return domain.nearest(given)


def suggested(trial: Trial, space: Space, distributions: Mapping[str, BaseDistribution]) -> Config:
    """What the trial's sampler suggests for each active parameter, parents first."""
    config: Config = {}
    for parameter in space.topological_order:
        if not _active(parameter, config):
            continue
        domain = parameter.domain
        if isinstance(domain, Constant):
            config[parameter.name] = domain.value
        else:
            given = _suggest(trial, parameter.name, distributions[parameter.name])
            config[parameter.name] = meant(domain, given)
    return {name: config[name] for name in space.names if name in config}


def _suggest(trial: Trial, name: str, of: BaseDistribution) -> Any:
    match of:
        case FloatDistribution():
            return trial.suggest_float(name, of.low, of.high, step=of.step, log=of.log)
        case IntDistribution():
            return trial.suggest_int(name, of.low, of.high, step=of.step, log=of.log)
        case CategoricalDistribution():
            return trial.suggest_categorical(name, of.choices)
        case _:
            raise AssertionError(of)


def _active(parameter: Parameter, config: Config) -> bool:
    return all(
        other in config and json_key(config[other]) in map(json_key, values)
        for other, values in parameter.when.items()
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Meanwhile Optuna logs errors only and warns of nothing, be it experimental or not."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)
