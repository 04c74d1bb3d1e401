"""The trials of one Optuna study, in memory. Imports Optuna: import it late."""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

if TYPE_CHECKING:
    from optuna.study import StudyDirection
    from optuna.study._frozen import FrozenStudy

_STUDY: Final = 0


def ended(value: float) -> TrialState:
    """Completed, or failed if the value is NaN."""
    return TrialState.FAIL if np.isnan(value) else TrialState.COMPLETE


class Trials(BaseStorage):
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

    def replace(self, number: int, value: float) -> None:
        """Another ending for a trial that has ended."""
        state = ended(value)
        self._change(number, state=state, values=[value] if state is TrialState.COMPLETE else None)

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
