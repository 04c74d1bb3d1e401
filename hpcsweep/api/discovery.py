"""Which parameters an objective of Optuna suggests, found by calling it with a trial that records.

`python -m hpcsweep.api.discovery FILE.py:NAME SECONDS` calls it in a process of its own, again and again with
other values of what has few, as other parameters may depend on them; each call ends at its first report. What
it finds it prints at once, so that little is lost where the time is over.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from hpcsweep import bootstrap
from hpcsweep.api.objects import Choice, Constant, Float, Int
from hpcsweep.api.parts import Parameter
from hpcsweep.errors import SpecError
from hpcsweep.training.optuna import OlderSuggestions

#: A parameter with so many values at most may decide on others.
_FEW: Final = 10
#: The first call goes on for so long after its first report.
_COUNT_S: Final = 10.0
#: Calls of the objective at most.
MOST_CALLS: Final = 100
#: Importing torch over a busy network filesystem can take a minute.
_IMPORT_S: Final = 300


class Suggestion(msgspec.Struct, frozen=True):
    """One `suggest_*` of one call.

    Attributes:
        values: All it may be, where these are few.
    """

    name: str
    kind: str
    value: Any
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    values: tuple[Any, ...] = ()
    prior: Any = None


class Call(NamedTuple):
    """One call of the objective.

    Attributes:
        end: How it ended; empty where it did not.
        steps: How many it reported until then, where it went on to its end; else 0.
    """

    suggestions: list[Suggestion]
    end: str
    steps: int = 0

    @property
    def values(self) -> dict[str, Any]:
        """What was suggested, in order."""
        return {each.name: each.value for each in self.suggestions}


class Found(NamedTuple):
    """What was found.

    Attributes:
        reports: Whether the objective reports before it ends.
        steps: How many steps it reports, as our steps count; 0 where that takes too long to see.
    """

    space: dict[str, Parameter]
    reports: bool
    steps: int


class _Line(msgspec.Struct, omit_defaults=True):
    """What the process prints: a suggestion of a call, or its end."""

    call: int
    suggestion: Suggestion | None = None
    end: str = ""
    steps: int = 0


def find_space(function: str, *, folder: Path, seconds: int) -> Found:
    """The space that the objective suggests from.

    Args:
        function: `FILE.py:NAME` or `package.module:NAME`.
        folder: Where it runs.
        seconds: For all calls together.

    Raises:
        SpecError: It cannot be called, or suggests nothing.
    """
    command = bootstrap.command(sys.executable, "hpcsweep.api.discovery", function, str(seconds))
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=_IMPORT_S + seconds
        )
    except subprocess.TimeoutExpired as error:
        raise SpecError(f"train: importing {function} took longer than {_IMPORT_S} s") from error
    calls = list(_read(done.stdout))
    advice = "give the parameters yourself: space={'lr': hs.Float(1e-4, 1, log=True), ...}"
    if not calls:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        why = lines[-1] if lines else f"it ended with exit code {done.returncode}"
        raise SpecError(f"space: {function} cannot be called to find its parameters: {why}; {advice}")
    first = calls[0]
    if first.end.startswith("raised"):
        raise SpecError(f"space: {function} {first.end}, when it was called to find its parameters; {advice}")
    if not first.suggestions:
        raise SpecError(f"space: {function} has suggested no parameter within {seconds} s; {advice}")
    reports = first.steps > 0 or any(call.end == "reported" for call in calls)
    return Found(space_of(calls), reports, first.steps if first.end == "returned" else 0)


def _read(output: bytes) -> Iterator[Call]:
    calls: dict[int, tuple[list[Suggestion], list[_Line]]] = {}
    for line in output.splitlines():
        try:
            found = msgspec.json.decode(line, type=_Line)
        except msgspec.MsgspecError:  # torn when the time was over
            continue
        suggestions, ends = calls.setdefault(found.call, ([], []))
        if found.suggestion is not None:
            suggestions.append(found.suggestion)
        if found.end:
            ends.append(found)
    for suggestions, ends in calls.values():
        yield Call(suggestions, ends[0].end if ends else "", ends[0].steps if ends else 0)


# --------------------------------------------------------------------------- from calls to a space


def space_of(calls: Sequence[Call]) -> dict[str, Parameter]:
    """The parameters of all calls, each with the condition under which it was suggested.

    A condition is one that holds in each call; of the shortest ones it is that on the parameter suggested
    last. Where no condition explains it, the parameter is always there.
    """
    names = list(dict.fromkeys(name for call in calls for name in call.values))
    return {name: _parameter(name, calls) for name in names}


def _parameter(name: str, calls: Sequence[Call]) -> Parameter:
    seen = [each for call in calls for each in call.suggestions if each.name == name]
    when = _condition(name, calls)
    first = seen[0]
    if first.kind == "categorical":
        values = _distinct(value for each in seen for value in each.values)
        one = len(values) == 1
        return Constant(values[0], when=when) if one else Choice(values, when=when, prior=first.prior)
    low, high = min(each.low for each in seen), max(each.high for each in seen)
    if low == high:
        return Constant(int(low) if first.kind == "int" else low, when=when)
    if first.kind == "int":
        step = None if first.step in (None, 1) or first.log else int(first.step or 1)
        return Int(int(low), int(high), log=first.log, step=step, when=when, prior=first.prior)
    return Float(low, high, log=first.log, step=first.step, when=when, prior=first.prior)


def _condition(name: str, calls: Sequence[Call]) -> dict[str, list[Any]] | None:
    having = [call for call in calls if name in call.values]
    if len(having) == len(calls):
        return None
    deciding = [
        other
        for other in reversed(list(having[0].values)[: list(having[0].values).index(name)])
        if all(other in call.values for call in having) and _explored(other, calls)
    ]
    for count in (1, 2, 3):
        for others in itertools.combinations(deciding, count):
            when = {other: _distinct(call.values[other] for call in having) for other in others}
            holds = [
                all(other in call.values and call.values[other] in when[other] for other in others)
                for call in calls
            ]
            if holds == [name in call.values for call in calls]:
                return when
    return None


def _explored(name: str, calls: Sequence[Call]) -> bool:
    """Whether each of its values was tried."""
    seen = [each for call in calls for each in call.suggestions if each.name == name]
    values = _distinct(value for each in seen for value in each.values)
    return bool(values) and len(_distinct(each.value for each in seen)) == len(values)


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if not any(type(value) is type(other) and value == other for other in found):
            found.append(value)
    return found


# --------------------------------------------------------------------------- in the process that calls it


class _End(BaseException):
    """The objective reports: it trains from here on, for longer than is of interest."""


class RecordingTrial(OlderSuggestions):
    """A trial that gives the first value of everything but of what it is told, and records what is asked.

    Attributes:
        steps: How many were reported, as our steps count.

    Args:
        given: Values by name.
        record: Called with each suggestion.
        patience_s: How long the objective may go on after its first report.
    """

    def __init__(
        self, given: Mapping[str, Any], record: Callable[[Suggestion], None], *, patience_s: float = 0.0
    ) -> None:
        self.steps = 0
        self._offset = 0
        self._patience_s = patience_s
        self._until = 0.0
        self.number = 0
        self.params: dict[str, Any] = {}
        self.user_attrs: dict[str, Any] = {}
        self.suggestions: list[Suggestion] = []
        self._given = given
        self._record = record

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
        middle = low if step is not None else (low * high) ** 0.5 if log else (low + high) / 2
        suggestion = Suggestion(name, "float", middle, low=low, high=high, step=step, log=log, prior=prior)
        return float(self._suggest(suggestion))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False, prior: Any = None
    ) -> int:
        values = tuple(range(low, high + 1, step)) if (high - low) // step < _FEW and not log else ()
        suggestion = Suggestion(
            name,
            "int",
            low,
            low=low,
            high=high,
            step=None if log else step,
            log=log,
            values=values,
            prior=prior,
        )
        return int(self._suggest(suggestion))

    def suggest_categorical(self, name: str, choices: Sequence[Any], *, prior: Any = None) -> Any:
        values = tuple(choices)
        chosen = self._suggest(Suggestion(name, "categorical", values[0], values=values, prior=prior))
        return next(choice for choice in choices if choice == chosen)

    def _suggest(self, suggestion: Suggestion) -> Any:
        if suggestion.name not in self.params:
            value = self._given.get(suggestion.name, suggestion.value)
            suggestion = msgspec.structs.replace(suggestion, value=value)
            self.params[suggestion.name] = value
            self.suggestions.append(suggestion)
            self._record(suggestion)
        return self.params[suggestion.name]

    def report(self, value: float, step: int) -> None:
        if not self.steps:
            self._until = time.monotonic() + self._patience_s
            self._offset = int(step == 0)
        self.steps = max(self.steps, step + self._offset)
        if time.monotonic() >= self._until:
            raise _End

    def should_prune(self) -> bool:
        return False

    def set_user_attr(self, key: str, value: Any) -> None:
        self.user_attrs[key] = value


def explore(objective: Callable[[Any], object], tell: Callable[[_Line], None]) -> None:
    """Call the objective with the first values, then with each other value of what has few.

    The first call may go on for a while, so that its steps are counted. A call that shows new parameters is
    followed by calls with the other values of these.
    """
    waiting: list[dict[str, Any]] = [{}]
    known: set[str] = set()
    for number in range(MOST_CALLS):
        if not waiting:
            return
        trial = RecordingTrial(
            waiting.pop(0),
            functools.partial(_record, number, tell),
            patience_s=0.0 if number else _COUNT_S,
        )
        end = _end(objective, trial)
        tell(_Line(number, end=end, steps=trial.steps))
        for index, suggestion in enumerate(trial.suggestions):
            if suggestion.name in known or len(suggestion.values) > _FEW:
                continue
            before = {each.name: each.value for each in trial.suggestions[:index] if each.values}
            others = [value for value in suggestion.values if value != suggestion.value]
            waiting += [{**before, suggestion.name: value} for value in others]
        known |= trial.params.keys()


def _record(call: int, tell: Callable[[_Line], None], suggestion: Suggestion) -> None:
    tell(_Line(call, suggestion))


def _end(objective: Callable[[Any], object], trial: RecordingTrial) -> str:
    try:
        objective(trial)
    except _End:
        return "reported"
    except (Exception, SystemExit) as error:
        return f"raised {type(error).__name__}: {' '.join(str(error).split())}"
    return "returned"


def main(function: str, seconds: str) -> int:
    """Explore for so long; 1 if the objective cannot be imported."""
    from hpcsweep.worker.training_function import load_trainer

    output = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what the objective prints is not ours
    try:
        objective = load_trainer(function)
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    signal.alarm(int(seconds))  # ends this process, whatever the objective is at

    def tell(line: _Line) -> None:
        output.write(msgspec.json.encode(line) + b"\n")

    explore(objective, tell)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
