"""The tables of trials, runs and attempts, made of a sweep's state and events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    BatchSubmitted,
    FailureKind,
    Interruption,
    Outcome,
    RunFinished,
    RunInterrupted,
    classify_failure,
)
from hpcsweep.core.models import Run, RunStatus, Trial
from hpcsweep.core.state import SweepState

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TABLES: Final = ("trials", "runs", "metrics")

#: Marks a column whose values are JSON text, because they are of several types.
_JSON: Final = {b"json": b""}
#: Integers up to it are exact as floats.
_EXACT: Final = 2**53
_ABSENT: Final = msgspec.UNSET


def trials_table(state: SweepState) -> pa.Table:
    """A row for each trial; value and resource are those of the highest rung that gave a value."""
    trials = state.trials
    last = [trial.last_completed for trial in trials]
    columns = {
        "trial": _int64([trial.trial for trial in trials]),
        "status": _text([trial_status(trial) for trial in trials]),
        "failure": _text([failure_kind(trial.runs[-1]) for trial in trials]),
        "value": _float64([run.value if run else None for run in last]),
        "resource": _int64([run.achieved_resource if run else None for run in last]),
        "bracket": _int64([trial.bracket for trial in trials]),
        "parent": _int64([trial.parent for trial in trials]),
        "origin": _text([trial.origin for trial in trials]),
        "repeat": _int64([trial.repeat for trial in trials]),
    }
    names = dict.fromkeys(name for trial in trials for name in trial.config)
    settings = {f"config.{name}": [trial.config.get(name, _ABSENT) for trial in trials] for name in names}
    return _table(columns, settings)


def runs_table(state: SweepState) -> pa.Table:
    """A row for each run: a trial at a rung."""
    runs = [run for trial in state.trials for run in trial.runs]
    brackets = [trial.bracket for trial in state.trials for _ in trial.runs]
    return _table(
        {
            "trial": _int64([run.trial for run in runs]),
            "bracket": _int64(brackets),
            "rung": _int64([run.rung for run in runs]),
            "resource": _int64([run.resource for run in runs]),
            "start_resource": _int64([run.start if run.status.ended else None for run in runs]),
            "outcome": _text([run.outcome.value if run.outcome else None for run in runs]),
            "failure": _text([failure_kind(run) for run in runs]),
            "value": _float64([run.value for run in runs]),
            "attempts": _int64([run.attempts for run in runs]),
            "seconds": _float64([run.seconds for run in runs]),
            "gpu_seconds": _float64([run.gpu_seconds for run in runs]),
            "job": _text([run.job for run in runs]),
            "node": _text([run.node for run in runs]),
            "message": _text([run.message if run.status is not RunStatus.COMPLETED else "" for run in runs]),
        }
    )


def trial_status(trial: Trial) -> str:
    """`running` while a run of it is waiting or submitted, else how its last run ended."""
    status = trial.runs[-1].status
    return status.value if status.ended else "running"


def failure_kind(run: Run) -> str | None:
    """What was wrong with it: `crashed`, `not_finite`, `never_reported`, `unreadable`, ...."""
    kind = run.failure_kind
    return kind.value if kind else None


def to_frame(table: pa.Table) -> pd.DataFrame:
    """The table as pandas has it, settings of several types as they are in the journal."""
    import pandas as pd

    frame: pd.DataFrame = table.to_pandas()
    for field in table.schema:
        if field.metadata == _JSON:
            texts = table[field.name].to_pylist()
            values = [float("nan") if text is None else msgspec.json.decode(text) for text in texts]
            frame[field.name] = pd.Series(values, dtype=object)
    return frame


# --------------------------------------------------------------------------- columns


def _table(columns: dict[str, pa.Array], settings: dict[str, list[Any]] | None = None) -> pa.Table:
    """A table of columns whose types are known, and of settings, whose types show in their values."""
    import pyarrow as pa

    fields = [pa.field(name, array.type) for name, array in columns.items()]
    arrays = list(columns.values())
    for name, values in (settings or {}).items():
        array = _typed(values)
        json = array is None
        arrays.append(_text([_json(value) for value in values]) if json else array)
        fields.append(pa.field(name, arrays[-1].type, metadata=_JSON if json else None))
    return pa.table(arrays, schema=pa.schema(fields))


def _typed(values: Sequence[Any]) -> pa.Array | None:
    """The values as a column of one type, `_ABSENT` as null; None if they are of several types."""
    kinds = set(map(type, values)) - {type(_ABSENT)}
    known = [None if value is _ABSENT else value for value in values]
    if kinds <= {int, float}:
        most = max((abs(value) for value in known if type(value) is int), default=0)
        if most <= _EXACT:
            return _float64(known) if float in kinds else _int64(known)
    elif kinds == {str}:
        return _text(known)
    elif kinds == {bool} and None not in known:  # pandas has no room for a missing one
        return _array(known, "bool_")
    return None


def _json(value: Any) -> str | None:
    return None if value is _ABSENT else msgspec.json.encode(value).decode()


def _int64(values: Sequence[int | None]) -> pa.Array:
    return _array(values, "int64")


def _float64(values: Sequence[float | None]) -> pa.Array:
    return _array(values, "float64")


def _text(values: Sequence[str | None]) -> pa.Array:
    return _array(values, "string")


def _array(values: Sequence[Any], kind: str) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, getattr(pa, kind)())


# --------------------------------------------------------------------------- attempts

_SAME: Final = ("trial", "rung", "attempt", "restart", "batch", "task", "node", "job", "start", "step")
_COST: Final = ("seconds", "gpu_seconds", "message")
_COLUMNS: Final = (*_SAME, "ending", "failure", "final", "submitted_at", "started", *_COST)


def attempts_table(events: Iterable[AnyEvent]) -> pd.DataFrame:
    """A row for each ending of a try at a run, requeued ones included, in the order in which it became known.

    `ending` is the value of an `Outcome` or an `Interruption`, `final` tells which of the two; `failure`
    is that of a `Failure`, also where training is tried again. Times are Unix seconds, NaN where unknown;
    `submitted_at` is that of the batch.
    """
    import pandas as pd

    submitted: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for event in events:
        match event:
            case BatchPlanned() | BatchSubmitted():
                submitted[event.batch] = event.at
            case RunFinished(outcome=outcome, started=started):
                more = {"ending": outcome.value, "final": True, "started": started}
                rows.append(_row(event, submitted, event.failure_kind, **more))
            case RunInterrupted(interruption=interruption):
                retried = Outcome.FAILED if interruption is Interruption.TRAINING_ERROR else None
                failure = classify_failure(retried, None, event.message)
                rows.append(
                    _row(event, submitted, failure, ending=interruption.value, final=False, started=None)
                )
            case _:
                pass
    frame = pd.DataFrame(rows, columns=list(_COLUMNS))
    return frame.astype({"submitted_at": float, "started": float})


def _row(
    event: RunFinished | RunInterrupted,
    submitted: Mapping[str, float],
    failure: FailureKind | None,
    **more: Any,
) -> dict[str, Any]:
    row = {name: getattr(event, name) for name in (*_SAME, *_COST)}
    row["failure"] = failure.value if failure else None
    return row | {"submitted_at": submitted.get(event.batch)} | more
