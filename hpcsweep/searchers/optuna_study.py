"""An Optuna study that has seen what a history has observed. Imports Optuna: import it late."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, assert_never

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from hpcsweep.core.domains import Choice, Constant, Float, Int, Ordinal
from hpcsweep.core.history import Floats, History, Ints
from hpcsweep.core.objectives import DEFAULT, Objectives
from hpcsweep.core.space import Domain, Parameter, Space
from hpcsweep.core.text import json_key
from hpcsweep.searchers.random import SeenConfigs, config_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna.study._frozen import FrozenStudy

    from hpcsweep.core.events import Config

_STUDY: Final = 0
#: Under this attribute Optuna keeps the constraints of a trial.
_CONSTRAINTS_KEY: Final = "constraints"


class Study:
    """Trials in the order of their first observation, and for one call those that are pending.

    What it holds depends on the observations alone: neither on when it was made nor on what it was
    asked before.

    Args:
        space: The search space.
        replayed: Makes the sampler that each trial is asked of again before its parameters are fixed
            and its value is given: so the sampler leaves in the study what it needs later on. None for
            a sampler that needs no more than parameters and values.
        objectives: What is optimised; the history has all of it as to be minimised.
    """

    def __init__(
        self, space: Space, *, replayed: Callable[[], BaseSampler] | None, objectives: Objectives = DEFAULT
    ) -> None:
        self.space = space
        self._bounded = objectives.bounded
        self._distributions = distributions(space)
        self._replay = replayed
        self._observer = None if replayed is None else replayed()  # asked of observed trials only
        self._seen = SeenConfigs()
        self._storage = InMemoryStorage()
        no_pruner = optuna.pruners.NopPruner()
        directions = [StudyDirection.MINIMIZE] * len(objectives)
        self._study = optuna.create_study(storage=self._storage, pruner=no_pruner, directions=directions)
        self._numbers: dict[int, int] = {}  # index of a configuration -> number of its trial
        self._of: Ints = np.empty(0, dtype=np.int64)
        self._points: Floats = np.empty((0, len(objectives)))
        self._violations: Floats = np.empty(0)
        self._units: Floats = np.empty((0, len(space.columns)))

    def precedes(self, history: History) -> bool:
        """Whether all that it knows is the beginning of the history."""
        known = len(self._of)
        return (
            history.space is self.space
            and history.observed >= known
            and np.array_equal(history.trials[:known], self._of)
            and np.array_equal(history.points[:known], self._points, equal_nan=True)
            and np.array_equal(history.violations[:known], self._violations)
            and np.array_equal(history.X[:known], self._units, equal_nan=True)
        )

    def catch_up(self, history: History) -> None:
        """See the observations that are new; a configuration's newest value replaces the one before."""
        known = len(self._of)
        self._of, self._units = history.trials, history.X
        self._points, self._violations = history.points, history.violations
        for index, values, violation, unit in zip(
            self._of[known:].tolist(),
            self._points[known:].tolist(),
            self._violations[known:].tolist(),
            self._units[known:],
            strict=True,
        ):
            if index in self._numbers:
                attrs = constraint(violation) if self._bounded else {}
                self._storage.replace(self._numbers[index], values, attrs)
                continue
            config = history.configs[index] if index >= 0 else self.space.from_unit(unit[None])[0]
            self._numbers[index] = self._storage.count
            self._enter(config, values, self._observer, violation)

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
                config = suggest_config(self._study.ask(), self.space, self._distributions)
                key = config_key(config)
                if key not in known and self.space.satisfies_constraints(config):
                    found.setdefault(key, config)
                if len(found) == n:
                    break
        finally:
            self._storage.restore(before)
        return list(found.values())

    def _enter(
        self,
        config: Config,
        values: Sequence[float] | None,
        again: BaseSampler | None,
        violation: float = 0.0,
    ) -> None:
        """A trial of this configuration: running without values, failed if these are NaN.

        It is asked of the sampler `again` first, if there is one.
        """
        params = {
            p.name: to_optuna(p.domain, config[p.name])
            for p in self.space.topological_order
            if p.name in self._distributions and p.name in config
        }
        state = TrialState.RUNNING if values is None else trial_state(values)
        told = values if state is TrialState.COMPLETE else None
        beyond = constraint(violation) if self._bounded and values is not None else {}
        if again is None:
            used = {name: self._distributions[name] for name in params}
            self._study.add_trial(
                create_trial(state=state, values=told, params=params, distributions=used, system_attrs=beyond)
            )
            return
        self._study.sampler = again
        self._study.enqueue_trial(params)
        trial = self._study.ask()
        _ = trial.relative_params  # Optuna asks the sampler only for what is not fixed
        suggest_config(trial, self.space, self._distributions)
        if values is not None:
            for key, of in beyond.items():
                self._storage.set_trial_system_attr(trial._trial_id, key, of)
            self._study.tell(trial, told, state)


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


def to_optuna(domain: Domain, value: Any) -> Any:
    """The value as Optuna takes it."""
    if isinstance(domain, Ordinal | Choice):
        return int(domain.to_unit([value])[0] * domain.size)
    return value


def from_optuna(domain: Domain, given: Any) -> Any:
    """The value of the domain that Optuna means."""
    if isinstance(domain, Ordinal | Choice):
        return domain.values[given]
    return domain.nearest(given)


def suggest_config(trial: Trial, space: Space, distributions: Mapping[str, BaseDistribution]) -> Config:
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
            config[parameter.name] = from_optuna(domain, given)
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


def trial_state(values: Sequence[float]) -> TrialState:
    """Completed, or failed if the values are NaN."""
    return TrialState.FAIL if np.isnan(values).any() else TrialState.COMPLETE


def constraint(violation: float) -> dict[str, tuple[float]]:
    """How far a trial is beyond its bounds, where samplers that know constraints look for it."""
    return {_CONSTRAINTS_KEY: (violation,)}


def violation_of(trial: FrozenTrial) -> Sequence[float]:
    """The same of a trial, for a sampler's `constraints_func`."""
    known: Sequence[float] = trial.system_attrs[_CONSTRAINTS_KEY]
    return known


class InMemoryStorage(BaseStorage):
    """The trials of one study, in memory, with a way back to an earlier state.

    Optuna's own storage in memory cannot forget a trial, and copies each one that is given to it.
    A trial is replaced and never changed, so that what was read stays as it was.
    """

    def __init__(self) -> None:
        self._trials: list[FrozenTrial] = []
        self._directions: list[StudyDirection] = []
        self._attrs: dict[str, Any] = {}

    @property
    def count(self) -> int:
        return len(self._trials)

    def snapshot(self) -> tuple[list[FrozenTrial], dict[str, Any]]:
        return list(self._trials), dict(self._attrs)

    def restore(self, snapshot: tuple[list[FrozenTrial], dict[str, Any]]) -> None:
        self._trials, self._attrs = snapshot

    def replace(self, number: int, values: Sequence[float], attrs: Mapping[str, Any]) -> None:
        """Another ending for a trial that has ended, and attributes of the system that change with it."""
        state = trial_state(values)
        told = values if state is TrialState.COMPLETE else None
        attributes = {**self._trials[number].system_attrs, **attrs}
        self._change(number, state=state, values=told, system_attrs=attributes)

    def _change(self, number: int, **fields: Any) -> None:
        trial = copy.copy(self._trials[number])
        for name, value in fields.items():
            setattr(trial, name, value)
        self._trials[number] = trial

    # The methods of BaseStorage; the id of a trial is its number.

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        self._directions = list(directions)
        return _STUDY

    def delete_study(self, study_id: int) -> None:
        raise NotImplementedError("the study is deleted with the storage")

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        raise NotImplementedError("no user has attributes here")

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._attrs = {**self._attrs, key: value}

    def get_study_id_from_name(self, study_name: str) -> int:
        return _STUDY

    def get_study_name_from_id(self, study_id: int) -> str:
        return "sweep"

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return {}

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._attrs

    def get_all_studies(self) -> list[FrozenStudy]:
        raise NotImplementedError("there is one study")

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial = copy.copy(template_trial or create_trial(state=TrialState.RUNNING))
        trial.number = trial._trial_id = len(self._trials)
        self._trials.append(trial)
        return trial.number

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        trial = self._trials[trial_id]
        value = distribution.to_external_repr(param_value_internal)
        self._change(
            trial_id,
            params={**trial.params, param_name: value},
            distributions={**trial.distributions, param_name: distribution},
        )

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        if values is None:
            self._change(trial_id, state=state)
        else:
            self._change(trial_id, state=state, values=values)
        return True

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        raise NotImplementedError("nothing is reported before the end")

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        raise NotImplementedError("no user has attributes here")

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._change(trial_id, system_attrs={**self._trials[trial_id].system_attrs, key: value})

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._trials[trial_id]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        found = [trial for trial in self._trials if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found
