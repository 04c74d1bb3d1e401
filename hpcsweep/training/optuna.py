"""Runs an `objective(trial)` that was written for Optuna, for `train.call: optuna`. Optuna is not needed.

The objective's trial is an `ObjectiveTrial`: `suggest_*` give the configuration's values, `report` reports
the objective, and `should_prune` is true once the run is told to stop, or has reached the end of its rung.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from hpcsweep.trial import Trial

T = TypeVar("T")

#: Name of Optuna's exception, and of ours where Optuna is not installed.
_PRUNED: Final = "TrialPruned"
#: What choices of Optuna are; others are drawn and not searched.
_PLAIN: Final = (str, int, float, bool, type(None))


class TrialPruned(Exception):
    """An objective raises it after `should_prune`; that of Optuna does as well."""


class OlderSuggestions:
    """The names that `suggest_float` had in earlier versions of Optuna."""

    suggest_float: Callable[..., float]

    def suggest_uniform(self, name: str, low: float, high: float) -> float:
        """As `suggest_float`."""
        return self.suggest_float(name, low, high)

    def suggest_loguniform(self, name: str, low: float, high: float) -> float:
        """As `suggest_float` with `log`."""
        return self.suggest_float(name, low, high, log=True)

    def suggest_discrete_uniform(self, name: str, low: float, high: float, q: float) -> float:
        """As `suggest_float` with a step."""
        return self.suggest_float(name, low, high, step=q)


class ObjectiveTrial(OlderSuggestions):
    """A trial as an objective of Optuna sees it.

    A parameter that the configuration lacks, because the search for the space did not meet it, is drawn
    here: the same in each run of the trial, printed, and reported as the metric `suggested.NAME` if it is a
    number. The driver is told of it, and searches it from then on.

    Attributes:
        number: The trial's number in the sweep.
        params: What was suggested so far.
        user_attrs: What the objective has set; numbers are reported at its end, the others printed.
    """

    def __init__(self, trial: Trial) -> None:
        self.number = trial.id
        self.params: dict[str, Any] = {}
        self.user_attrs: dict[str, Any] = {}
        self.datetime_start = datetime.now()
        #: The last step that was reported, as our steps count, with its value or values; None before.
        self.last: tuple[int, float | tuple[float, ...]] | None = None
        self._trial = trial
        self._first: int | None = None
        self._drawn: dict[str, float] = {}
        self._forms: dict[str, dict[str, Any]] = {}  # of the parameters that were drawn here

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a trial of a sweep has no {name!r}, which a trial of Optuna may have")

    # ------------------------------------------------------------------ the configuration

    def suggest_float(
        self,
        name: str,
        low: float,
        high: float,
        *,
        step: float | None = None,
        log: bool = False,
        prior: Any = None,
    ) -> float:
        """The value of this parameter; a trial of Optuna takes no `prior`."""

        def draw(rng: random.Random) -> float:
            if step is not None:
                return low + step * rng.randint(0, math.floor((high - low) / step + 1e-9))
            if log:
                return math.exp(rng.uniform(math.log(low), math.log(high)))
            return rng.uniform(low, high)

        form = {"type": "float", "low": float(low), "high": float(high), "log": log}
        form |= {} if step is None else {"step": float(step)}
        form |= {} if prior is None else {"prior": prior}
        return min(max(float(self._suggest(name, draw, form)), low), high)

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False, prior: Any = None
    ) -> int:
        """The value of this parameter."""

        def draw(rng: random.Random) -> int:
            if log:
                return round(math.exp(rng.uniform(math.log(low), math.log(high))))
            return rng.randrange(low, high + 1, step)

        form = {"type": "int", "low": low, "high": high, "log": log, **({"step": step} if step > 1 else {})}
        form |= {} if prior is None else {"prior": prior}
        return min(max(int(self._suggest(name, draw, form)), low), high)

    def suggest_categorical(self, name: str, choices: Sequence[T], *, prior: Any = None) -> T:
        """The value of this parameter, the very object of `choices`."""
        form = {"type": "choice", "values": list(choices), **({} if prior is None else {"prior": prior})}
        chosen = _key(self._suggest(name, lambda rng: rng.choice(choices), form))
        for choice in choices:
            if _key(choice) == chosen:
                return choice
        raise ValueError(f"suggest_categorical({name!r}): {self.params[name]!r} is none of {choices!r}")

    def _suggest(self, name: str, draw: Callable[[random.Random], T], form: dict[str, Any]) -> T:
        if name not in self.params:
            if name in self._trial.config:
                self.params[name] = self._trial.config[name]
            else:
                seed = self._trial._run.suggestion_seed or self._trial.seed
                self.params[name] = value = draw(random.Random(f"{seed}:{name}"))
                print(f"hpcsweep: the configuration has no {name!r}; drawn here: {value!r}", flush=True)
                if isinstance(value, int | float):
                    self._drawn[f"suggested.{name}"] = float(value)
                self._tell(name, form)
        found: T = self.params[name]
        return found

    def _tell(self, name: str, form: dict[str, Any]) -> None:
        """Have the sweep search a parameter that its space lacks."""
        several = len(form.get("values", (1, 2))) > 1 and form.get("low", 0) != form.get("high", 1)
        if several and all(isinstance(value, _PLAIN) for value in form.get("values", ())):
            self._forms[name] = form
            self._write_suggestions()

    def _write_suggestions(self, unused: Sequence[str] = ()) -> None:
        if self._trial.rank == 0:
            values = {name: self.params[name] for name in self._forms}
            self._trial._run.write_suggestions(self._forms, values, unused)

    # ------------------------------------------------------------------ reports

    def report(self, value: float | Sequence[float], step: int) -> None:
        """Report the objective after a step; an objective whose first step is 0 counts from there.

        Of several objectives a sequence with the value of each; Optuna has no reports of them.

        Raises:
            NotImplementedError: One number, where there are several objectives.
            TypeError: More values than there are objectives, or fewer.
        """
        several = isinstance(value, Sequence | Mapping)
        if len(self._trial.metrics) > 1 and not several:
            raise NotImplementedError(
                "Trial.report of one number is not supported for multi-objective optimization; report one "
                f"for each of {', '.join(self._trial.metrics)}: trial.report(({value!r}, ...), {step!r})"
            )
        self._first = step if self._first is None else self._first
        at = step + (self._first == 0)
        self._trial._record(at, {**self.by_metric(value, did="reported"), **self._drawn})
        self._drawn = {}
        if self.last is None or at >= self.last[0]:
            self.last = at, tuple(map(float, value)) if isinstance(value, Sequence) else float(value)

    def by_metric(self, value: object, *, did: str) -> dict[str, object]:
        """The value of each objective by its name; `did` is what the objective did with them.

        Raises:
            TypeError: There are more of them than objectives, or fewer.
        """
        names = self._trial.metrics or (self._trial.metric or "value",)
        if len(names) == 1 and not isinstance(value, Sequence | Mapping):
            return {names[0]: value}
        if len(names) == 1:
            raise TypeError(f"the objective {did} {value!r}: a sweep has one objective, a number")
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != len(names):
            raise TypeError(f"the objective {did} {value!r}: expected one for each of {', '.join(names)}")
        return dict(zip(names, value, strict=True))

    def should_prune(self) -> bool:
        """Whether to raise `TrialPruned` now: told to stop, or at the end of a rung that is not the last."""
        if self._trial.should_stop:
            return True
        if self.last is None:
            return False
        step, resource = self.last[0], self._trial.resource
        return step > resource or (step == resource and resource != self._trial._run.max_resource)

    def set_user_attr(self, key: str, value: Any) -> None:
        """Keep a fact about the trial."""
        self.user_attrs[key] = value

    def returned(self) -> None:
        """The objective is through: what it has not suggested, its value does not depend on."""
        self._write_suggestions([name for name in self._trial.config if name not in self.params])

    def finish(self, value: object) -> None:
        """Record what the objective returned, None for nothing, and what it noted.

        Raises:
            TypeError: It returned more values than there are objectives, or fewer.
        """
        found = {} if value is None else self.by_metric(value, did="returned")
        trial, metrics = self._trial, dict(self._drawn)
        for key, attribute in self.user_attrs.items():
            if isinstance(attribute, int | float) and key not in (trial.metric, *trial.metrics):
                metrics[key] = float(attribute)
            else:
                print(f"hpcsweep: {key}: {attribute!r}", flush=True)
        metrics |= found  # type: ignore[arg-type]  # `_record` checks them
        if metrics:
            trial._record(min(self.last[0], trial.resource) if self.last else trial.resource, metrics)


def call_objective(objective: Callable[[Any], object], trial: Trial) -> None:
    """Call the objective, and record its value, or its values.

    Raises:
        TypeError: It returned more values than there are objectives, or fewer.
    """
    seen = ObjectiveTrial(trial)
    try:
        value = objective(seen)
    except Exception as error:
        if all(kind.__name__ != _PRUNED for kind in type(error).__mro__) or seen.last is None:
            raise
        step, value = seen.last  # as Optuna does, also of one that prunes itself
        seen.finish(value if step < trial.resource and not trial.should_stop else None)
        return
    seen.returned()
    seen.finish(value)


def _key(value: object) -> str:
    """Of values that are the same in JSON, where tuples are lists."""
    return json.dumps(value, sort_keys=True, default=repr)
