"""What runs can be expected to need, learned from those that have ended: seconds, and memory.

A positive quantity is modelled as `log y = f(config) + residual`, where f is a ridge regression on the
parameters, or a constant if the parameters do not explain it. What is asked for is the prediction plus a high
quantile of the residuals, each of a model without that run: for ridge regression these follow from the
leverages (Allen's PRESS, see Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", 7.10).
A guess that is too small costs a continuation, so quantiles need not be extreme. Pure, and deterministic.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from hpcsweep.core.arrays import Floats, np
from hpcsweep.core.domains import Choice, Constant, Float, Int, Ordinal
from hpcsweep.core.events import AnyEvent, Config, Interruption, Outcome, RunFinished, RunInterrupted
from hpcsweep.core.space import Space
from hpcsweep.core.state import SweepState

#: Runs that must have ended before anything is learned, and before a rung is judged by its own runs.
LEAST: Final = 10
#: So many of the newest runs count.
MOST: Final = 1000
#: A model is made anew once there are so many times as many runs.
_GROWTH: Final = 1.25
#: Of the residuals, for seconds and for memory; and what is asked for beyond the prediction.
_TIME_QUANTILE: Final = 0.8
_TIME_SAFETY: Final = 1.1
_MEM_QUANTILE: Final = 1.0
_MEM_SAFETY: Final = 1.2
#: Beside the run: its worker, and what it imports for the runs.
_WORKER_MIB: Final = 128
#: So many of the newest limits that were too short tell what tasks need beside their runs.
_BESIDE: Final = 16
#: Strength of the ridge, in runs.
_RIDGE: Final = 0.5
#: The parameters need so many runs each before they may explain anything.
_RUNS_EACH: Final = 3
#: They do if what they leave of the variance, predicted without each run, is less than so much of it.
_EXPLAINED: Final = 0.8
#: Values of a listed parameter of which each has a term of its own; with more of them it has none.
_MOST_VALUES: Final = 32


class Features:
    """Numbers that stand for a configuration in a regression: `encode` gives `(k,)`.

    A numeric parameter has its place in its range and, on a linear scale above 0, the logarithm of its value:
    what grows by a power of it is a straight line then. Each value of a listed parameter has a 1 of its own.
    """

    def __init__(self, space: Space) -> None:
        self._encoders: list[tuple[str, Callable[[Any], list[float]], int]] = []
        for parameter in space.parameters:
            encoder = _encoder(parameter.domain)
            if encoder is not None:
                self._encoders.append((parameter.name, *encoder))
        self.size = sum(width for _, _, width in self._encoders)

    def encode(self, config: Mapping[str, Any]) -> list[float]:
        """The numbers of a configuration; those of an inactive parameter are 0."""
        row: list[float] = []
        for name, encode, width in self._encoders:
            row += encode(config[name]) if name in config else [0.0] * width
        return row


def _encoder(domain: Any) -> tuple[Callable[[Any], list[float]], int] | None:
    match domain:
        case Float() | Int():
            low, high = float(domain.low), float(domain.high)
            if low <= 0 or domain.log or high <= low:
                return lambda value: [float(domain.to_unit([value])[0])], 1
            scale = math.log(high / low)
            return lambda value: [(value - low) / (high - low), math.log(value / low) / scale], 2
        case Ordinal() | Choice() if 1 < domain.size <= _MOST_VALUES:
            size = domain.size

            def one_hot(value: Any) -> list[float]:
                at = int(float(domain.to_unit([value])[0]) * size)
                return [float(index == at) for index in range(size)]

            return one_hot, size
        case Constant() | _:
            return None


class Used(NamedTuple):
    """What one run took of something.

    Attributes:
        group: Runs of one group are compared with each other, once there are enough.
        amount: In all. `units`: for so many, beside what does not depend on them.
        start_up: That part, None where unknown.
    """

    config: Config
    group: Hashable
    amount: float
    units: int = 1
    start_up: float | None = None


class _Model(NamedTuple):
    """`log y` of a unit as a mean and, unless that explains nothing, weights of centred features.

    Attributes:
        start_up: What does not depend on the units, in the median.
        quantile: Of the residuals of all runs. `by_group`: of groups with enough runs.
    """

    start_up: float
    mean: float
    weights: Floats | None
    centre: Floats
    quantile: float
    by_group: Mapping[Hashable, float]

    def upper(self, features: Sequence[float], group: Hashable, units: int) -> float:
        """What most runs of this configuration and group stay below."""
        explained = 0.0
        if self.weights is not None:
            explained = float((np.asarray(features) - self.centre) @ self.weights)
        each = math.exp(self.mean + explained + self.by_group.get(group, self.quantile))
        return self.start_up + each * units


class Quantity:
    """A positive quantity of runs, of which an upper bound is predicted by configuration.

    Taking in a run costs next to nothing: its configuration is looked at only when a model is made.
    """

    def __init__(self, features: Features, quantile: float) -> None:
        self._features = features
        self._quantile = quantile
        self._rows: list[Used] = []
        self.count = 0
        self._fitted = 0
        self._model: _Model | None = None

    def add(self, row: Used) -> None:
        """A run took so much."""
        self._rows.append(row)
        self.count += 1
        if len(self._rows) >= 2 * MOST:
            del self._rows[:-MOST]

    @property
    def revision(self) -> int:
        """How many runs the present model was made from, or will be at its next use."""
        return self.count if self._is_due else self._fitted

    @property
    def _is_due(self) -> bool:
        return self.count >= max(LEAST, self._fitted + 1, self._fitted * _GROWTH)

    def upper(self, config: Config, group: Hashable, *, units: int = 1) -> float | None:
        """What most runs like that stay below; None while too little is known."""
        if self._is_due:
            self._model = _fit(self._rows[-MOST:], self._features, self._quantile)
            self._fitted = self.count
        if self._model is None:
            return None
        return self._model.upper(self._features.encode(config), group, units)


def _fit(rows: Sequence[Used], encoder: Features, quantile: float) -> _Model:
    known = [row.start_up for row in rows if row.start_up is not None]
    start_up = float(np.median(known)) if known else 0.0
    # A run that took less than others need to start is put down to its units for a small part.
    each = [max(row.amount - start_up, 0.1 * row.amount, 1e-9) / row.units for row in rows]
    logs = np.log(each)
    features = np.array([encoder.encode(row.config) for row in rows], dtype=float).reshape(len(rows), -1)
    mean, centre = float(np.mean(logs)), np.mean(features, axis=0)
    count = len(rows)
    # Without parameters each run is judged by the mean of the others.
    residuals = (logs - mean) * (count / max(1, count - 1))
    weights: Floats | None = None
    if features.shape[1] > 0 and count >= _RUNS_EACH * features.shape[1] + 1:
        centred = features - centre
        gram = centred.T @ centred + _RIDGE * np.eye(features.shape[1])
        solved = np.linalg.solve(gram, centred.T)
        found = solved @ (logs - mean)
        leverage = np.clip(np.einsum("ij,ji->i", centred, solved) + 1 / count, 0.0, 0.95)
        left = (logs - mean - centred @ found) / (1 - leverage)
        if left @ left < _EXPLAINED * (residuals @ residuals):
            residuals, weights = left, found
    groups: dict[Hashable, list[float]] = {}
    for row, residual in zip(rows, residuals, strict=True):
        groups.setdefault(row.group, []).append(float(residual))
    return _Model(
        start_up,
        mean,
        weights,
        centre,
        float(np.quantile(residuals, quantile)),
        {group: float(np.quantile(of, quantile)) for group, of in groups.items() if len(of) >= LEAST},
    )


class LearnedNeeds:
    """Folds the endings of a sweep's runs into what runs need; `apply` comes after that of the state.

    `notice_s` before the end of a task that does one run, the run is told to leave.
    """

    def __init__(self, state: SweepState, space: Space, *, notice_s: float = 0.0) -> None:
        self._state = state
        self._notice_s = notice_s
        #: What tasks needed beside their runs, as those show whose limit was learned too short.
        self._beside: deque[float] = deque(maxlen=_BESIDE)
        features = Features(space)
        self._seconds = Quantity(features, _TIME_QUANTILE)
        self._memory = Quantity(features, _MEM_QUANTILE)

    def apply(self, event: AnyEvent) -> None:
        """Take one event in."""
        if not isinstance(event, RunFinished | RunInterrupted):
            return
        self._note_start_up(event)
        completed = isinstance(event, RunFinished) and event.outcome is Outcome.COMPLETED
        config = self._state.trials[event.trial].config
        if isinstance(event, RunInterrupted):
            whole = event.progressed and not event.mem_mib  # one that ran out would have taken more
        else:
            whole = completed
        if event.peak_mib and whole:
            self._memory.add(Used(config, event.rung, event.peak_mib))
        if not isinstance(event, RunFinished) or not completed or event.started is None:
            return
        units = self._state.run(event.run).resource - (event.start or 0)
        if units <= 0 or event.seconds <= 0:
            return
        start_up = max(0.0, event.seconds - event.unit_seconds * units) if event.unit_seconds else None
        self._seconds.add(Used(config, units, event.seconds, units, start_up))

    def _note_start_up(self, event: RunFinished | RunInterrupted) -> None:
        """Measure what came before a run that reached the learned limit of its task, such as its set-up."""
        batch = self._state.live.get(event.batch)
        if batch is None or batch.reuse or not isinstance(event, RunInterrupted):
            return
        if event.guessed and event.interruption is Interruption.TIMEOUT:
            self._beside.append(max(0.0, batch.time_s - self._notice_s - event.seconds))

    @property
    def revision(self) -> tuple[int, int, int]:
        """Changes whenever what is expected may have changed."""
        return self._seconds.revision, self._memory.revision, math.ceil(self.beside_s)

    @property
    def beside_s(self) -> float:
        """Seconds that a task needs beside its one run, as far as a limit that was too short has shown it."""
        return float(np.median(self._beside)) if self._beside else 0.0

    def time_s(self, config: Config, *, units: int) -> float | None:
        """Seconds that most runs of so many units stay below; None while too little is known."""
        upper = self._seconds.upper(config, units, units=max(1, units))
        return None if upper is None else round(_TIME_SAFETY * upper, 3)

    def mem_mib(self, config: Config, *, rung: int) -> int | None:
        """Memory that runs like that stay below; None while too little is known."""
        upper = self._memory.upper(config, rung)
        return None if upper is None else math.ceil(round(_MEM_SAFETY * upper, 3)) + _WORKER_MIB
