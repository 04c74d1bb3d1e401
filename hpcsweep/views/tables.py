"""The tables of trials, runs, attempts and reported metrics.

Metrics have rows by trial, rung and step, and a column for each metric. Of several attempts the newest
counts, metric by metric. Null means not reported; NaN and infinities were reported. Columns are in the
order of their first rows. The same rows give the same table whether they come from raw files, from parts
or from both.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    BatchSubmitted,
    FailureKind,
    Interruption,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    classify_failure,
)
from hpcsweep.core.models import Run, RunStatus, Trial
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.state import SweepState
from hpcsweep.errors import FolderError
from hpcsweep.store.compaction import PARQUET_VERSION, existing_parts
from hpcsweep.store.compaction.tracker import CompactionState
from hpcsweep.store.files import open_regular, read_bytes
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout, Skipped, check_version
from hpcsweep.store.run_files import metrics_names, parse_reports

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
        "trial": _array([trial.trial for trial in trials], "int64"),
        "status": _array([trial_status(trial) for trial in trials], "string"),
        "failure": _array([failure_kind(trial.runs[-1]) for trial in trials], "string"),
        "value": _array([run.value if run else None for run in last], "float64"),
        **_values(state.objectives, last),
        **_standing(state),
        "resource": _array([run.achieved_resource if run else None for run in last], "int64"),
        "bracket": _array([trial.bracket for trial in trials], "int64"),
        "parent": _array([trial.parent for trial in trials], "int64"),
        "origin": _array([trial.origin for trial in trials], "string"),
        "repeat": _array([trial.repeat for trial in trials], "int64"),
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
            "trial": _array([run.trial for run in runs], "int64"),
            "bracket": _array(brackets, "int64"),
            "rung": _array([run.rung for run in runs], "int64"),
            "resource": _array([run.resource for run in runs], "int64"),
            "start_resource": _array([run.start if run.status.ended else None for run in runs], "int64"),
            "outcome": _array([run.outcome.value if run.outcome else None for run in runs], "string"),
            "failure": _array([failure_kind(run) for run in runs], "string"),
            "value": _array([run.value for run in runs], "float64"),
            **_values(state.objectives, runs),
            "attempts": _array([run.attempts for run in runs], "int64"),
            "seconds": _array([run.seconds for run in runs], "float64"),
            "gpu_seconds": _array([run.gpu_seconds for run in runs], "float64"),
            "job": _array([run.job for run in runs], "string"),
            "node": _array([run.node for run in runs], "string"),
            "message": _array(
                [run.message if run.status is not RunStatus.COMPLETED else "" for run in runs], "string"
            ),
            "peak_mib": _array([run.peak_mib or None for run in runs], "int64"),
            "unit_seconds": _array([run.unit_seconds or None for run in runs], "float64"),
        }
    )


def _values(objectives: Objectives, runs: Sequence[Run | None]) -> dict[str, pa.Array]:
    """With several objectives a column for each, `value` being the first of them."""
    if not objectives.has_front:
        return {}
    given = [run.values if run and run.values else None for run in runs]
    return {
        f"values.{metric}": _array([values[index] if values else None for values in given], "float64")
        for index, metric in enumerate(objectives.metrics)
    }


def _standing(state: SweepState) -> dict[str, pa.Array]:
    """With several objectives the front of each trial's configuration, and whether it is beyond bounds."""
    if not state.objectives.several:
        return {}
    from hpcsweep.views.fronts import front_numbers

    numbers = front_numbers(state)
    last = [trial.last_completed for trial in state.trials]
    beyond = [None if run is None else state.objectives.violation(run.values) > 0 for run in last]
    fronts = [numbers.get(trial.trial - trial.repeat) for trial in state.trials]
    return {"front": _array(fronts, "int64"), "infeasible": _array(beyond, "bool")}


def trial_status(trial: Trial) -> str:
    """`running` while a run of it is waiting or submitted, else how its last run ended."""
    status = trial.runs[-1].status
    return status.value if status.ended else "running"


def failure_kind(run: Run) -> str | None:
    """What was wrong with it: `crashed`, `not_finite`, `never_reported`, `unreadable`, ...."""
    return run.failure_kind.value if run.failure_kind else None


def to_frame(table: pa.Table) -> pd.DataFrame:
    """The table as pandas has it, settings of several types as they are in the journal.

    Whole numbers and booleans stay what they are where some are missing (`Int64`, `boolean`).
    """
    import pandas as pd
    import pyarrow as pa

    frame: pd.DataFrame = table.to_pandas(use_threads=False)
    for field in table.schema:
        column = table[field.name]
        if field.metadata == _JSON:
            texts = column.to_pylist()
            values = [float("nan") if text is None else msgspec.json.decode(text) for text in texts]
            only_bools = all(
                type(v) is bool for v, text in zip(values, texts, strict=True) if text is not None
            )
            frame[field.name] = pd.array(values, dtype="boolean" if only_bools else object)
        elif column.null_count and (pa.types.is_integer(field.type) or pa.types.is_boolean(field.type)):
            kind = "boolean" if pa.types.is_boolean(field.type) else "Int64"
            frame[field.name] = pd.array(column.to_pylist(), dtype=kind)
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
        arrays.append(_array([_json(value) for value in values], "string") if json else array)
        fields.append(pa.field(name, arrays[-1].type, metadata=_JSON if json else None))
    return pa.table(arrays, schema=pa.schema(fields))


def _typed(values: Sequence[Any]) -> pa.Array | None:
    """The values as a column of one type, `_ABSENT` as null; None if they are of several types."""
    kinds = set(map(type, values)) - {type(_ABSENT)}
    known = [None if value is _ABSENT else value for value in values]
    if kinds <= {int, float}:
        most = max((abs(value) for value in known if type(value) is int), default=0)
        if most <= _EXACT:
            return _array(known, "float64" if float in kinds else "int64")
    elif kinds == {str}:
        return _array(known, "string")
    elif kinds == {bool} and None not in known:  # pandas has no room for a missing one
        return _array(known, "bool")
    return None


def _json(value: Any) -> str | None:
    return None if value is _ABSENT else msgspec.json.encode(value).decode()


def _array(values: Sequence[Any], kind: str) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, kind)


# --------------------------------------------------------------------------- attempts

_SAME: Final = ("trial", "rung", "attempt", "restart", "batch", "task", "node", "job", "start", "step")
_COST: Final = ("seconds", "gpu_seconds", "message")
_USED: Final = ("peak_mib", "unit_seconds")
#: What the run would have ended with.
_RETRIED: Final = {
    Interruption.TRAINING_ERROR: Outcome.FAILED,
    Interruption.OUT_OF_MEMORY: Outcome.OUT_OF_MEMORY,
}
_COLUMNS: Final = (*_SAME, "ending", "failure", "final", "submitted_at", "started", *_COST, *_USED)


def attempts_table(events: Iterable[AnyEvent]) -> pd.DataFrame:
    """A row for each ending of a try at a run, requeued ones included, in the order in which it became known.

    `ending` is the value of an `Outcome` or an `Interruption`, `final` tells which of the two; `failure`
    is that of a `Failure`, also where training is tried again. Times are Unix seconds, NaN where unknown;
    `submitted_at` is that of the batch. What was not measured is NaN.
    """
    import pandas as pd

    submitted: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for event in events:
        match event:
            case BatchPlanned() | BatchSubmitted():
                submitted[event.batch] = event.at
            case RunFinished():
                row = {"ending": event.outcome.value, "final": True, "started": event.started}
                rows.append(row | _attempt(event, event.failure_kind, submitted))
            case RunInterrupted():
                failure = classify_failure(_RETRIED.get(event.interruption), None, event.message)
                row = {"ending": event.interruption.value, "final": False, "started": event.started}
                rows.append(row | _attempt(event, failure, submitted))
            case _:
                pass
    frame = pd.DataFrame(rows, columns=list(_COLUMNS))
    return frame.astype(dict.fromkeys(("submitted_at", "started", *_USED), float))


def _attempt(
    event: RunFinished | RunInterrupted, failure: FailureKind | None, submitted: Mapping[str, float]
) -> dict[str, Any]:
    row = {name: getattr(event, name) for name in (*_SAME, *_COST)}
    row |= {name: getattr(event, name) or None for name in _USED}
    kind = failure.value if failure else None
    return row | {"failure": kind, "submitted_at": submitted.get(event.batch)}


KEYS: Final = ("trial", "rung", "step")
#: No training counts so far, and no column holds more.
_MOST: Final = 2**63
_TRIES: Final = 5


def metrics_table(layout: Layout, events: Sequence[AnyEvent], skipped: Skipped | None = None) -> pa.Table:
    """All that was reported by the trials of these events.

    A driver may compact meanwhile: then the journal is read again to see where the reports are now.

    Raises:
        FolderError: A part is missing, or the folder cannot be read.
    """
    compaction = CompactionState.replay(events)
    for _ in range(_TRIES):
        missing: OSError | None = None
        try:
            table = whole_table(layout, compaction.parts, sorted(compaction.raw), skipped)
            # A part is there before the journal tells of it, and raw files go only after that.
            if existing_parts(layout) <= compaction.recorded:
                return table
        except FileNotFoundError as error:
            table, missing = None, error
        again = CompactionState.replay(read_journal(layout).events)
        if again.recorded == compaction.recorded:
            if missing is not None:
                raise FolderError(
                    f"{missing.filename}: is missing: restore it from a backup or snapshot of the filesystem"
                ) from missing
            return table
        compaction = again
    raise FolderError(f"{layout.root}: is being compacted; try again")


def whole_table(
    layout: Layout, parts: Iterable[str], raw: Sequence[RunId], skipped: Skipped | None = None
) -> pa.Table:
    """What is in these parts, read by `read_part`, and in the raw files of these runs."""
    reports = read_raw(layout, raw, skipped)
    return concat_tables([*(read_part(layout.reports_part(part)) for part in parts), reports])


def read_raw(layout: Layout, runs: Sequence[RunId], skipped: Skipped | None = None) -> pa.Table:
    """The table of these runs from their raw files."""
    reports = ReportColumns()
    for trial, group in groupby(runs, key=lambda run: run.trial):
        files = raw_files(layout, trial, skipped)
        for run in group:
            reports.add(run, [file.data for file in files.get(run.rung, ())])
    return reports.table()


class RawFile(NamedTuple):
    name: str
    data: bytes


def raw_files(layout: Layout, trial: int, skipped: Skipped | None = None) -> dict[int, list[RawFile]]:
    """The trial's metrics files by rung, oldest attempt first; one readdir."""
    skipped = Skipped() if skipped is None else skipped
    root = os.fspath(layout.trial(trial).root)
    files: dict[int, list[RawFile]] = {}
    for name, rung in metrics_names(root, skipped):
        path = f"{root}/{name}"
        try:
            data = read_bytes(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            skipped.note(path, error)
            continue
        files.setdefault(rung, []).append(RawFile(name, data))
    return files


class _Column(NamedTuple):
    """A metric by row; `values` has a filler at the rows in `missing`."""

    values: array[float]
    missing: array[int]

    def fill(self, rows: int) -> None:
        """Extend it to so many rows, the new ones missing."""
        self.missing.extend(range(len(self.values), rows))
        self.values.extend([0.0] * (rows - len(self.values)))

    def valid(self) -> bytearray | None:
        """A bit for each row, the lowest one first: whether it has a value; None if all have."""
        if not self.missing:
            return None
        bits = bytearray(b"\xff") * (len(self.values) // 8 + 1)
        for row in self.missing:
            bits[row // 8] &= ~(1 << row % 8)
        return bits


class ReportColumns:
    """Gathers reports run by run, column by column."""

    def __init__(self) -> None:
        self._keys = (array("q"), array("q"), array("q"))
        self._columns: dict[str, _Column] = {}

    def add(self, run: RunId, files: Iterable[bytes]) -> None:
        """What a run has reported, oldest attempt first; runs come in order."""
        metrics_at: dict[int, dict[str, float]] = {}
        for data in files:
            for step, metrics in parse_reports(data):
                if step in metrics_at:
                    metrics_at[step].update(metrics)
                elif step < _MOST:
                    metrics_at[step] = metrics
        trials, rungs, steps = self._keys
        columns = self._columns
        for step in sorted(metrics_at):
            row = len(steps)
            trials.append(run.trial)
            rungs.append(run.rung)
            steps.append(step)
            for name, value in metrics_at[step].items():
                column = columns.get(name)
                if column is None:
                    column = columns[name] = _Column(array("d"), array("q"))
                if len(column.values) < row:
                    column.fill(row)
                column.values.append(value)

    def table(self) -> pa.Table:
        """All of them; nothing may be added after it, since its columns are the memory of these."""
        import pyarrow as pa

        def column_of(kind: pa.DataType, values: array[Any], valid: bytearray | None = None) -> pa.Array:
            buffers = [None if valid is None else pa.py_buffer(valid), pa.py_buffer(values)]
            return pa.Array.from_buffers(kind, count, buffers)

        count = len(self._keys[0])
        columns = {name: column_of(pa.int64(), key) for name, key in zip(KEYS, self._keys, strict=True)}
        for name, column in self._columns.items():
            column.fill(count)
            columns[_column_name(name)] = column_of(pa.float64(), column.values, column.valid())
        return pa.table(columns)


def _column_name(metric: str) -> str:
    """The metric's name, changed where a key has that name."""
    return f"metric.{metric}" if metric in KEYS else metric


def read_part(path: Path) -> pa.Table:
    """The reports of a part.

    Raises:
        FileNotFoundError: It was replaced by another one.
        NewerFormatError: A newer hpcsweep wrote it.
        FolderError: It is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open(open_regular(path), "rb") as file:
            # From memory: for a file Arrow starts a thread, which may abort the process as it exits.
            source = pa.BufferReader(file.read())
        with pq.ParquetFile(source) as part:
            metadata = part.schema_arrow.metadata or {}
            check_version(int(metadata.get(PARQUET_VERSION, b"1")), path)
            return part.read(use_threads=False).replace_schema_metadata(None)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FolderError(
            f"{path}: cannot be read: {why}; restore it from a backup or snapshot of the filesystem"
        ) from error


def concat_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """One table of several that have no run in common."""
    import pyarrow as pa

    tables = [table for table in tables if len(table)] or list(tables[:1])
    if len(tables) == 1:
        return tables[0]
    whole = pa.concat_tables(tables, promote_options="default").select([*KEYS, *_metrics_in_order(tables)])
    return whole.sort_by([(name, "ascending") for name in KEYS])


def _metrics_in_order(tables: Iterable[pa.Table]) -> list[str]:
    """Metrics by the first row that has them, and within that as its own table has them."""
    import pyarrow.compute as pc

    first: dict[str, tuple[int, ...]] = {}
    for table in tables:
        for place, name in enumerate(table.column_names[len(KEYS) :]):
            row = pc.index(pc.is_valid(table[name]), True).as_py()
            at = (*(table[key][row].as_py() for key in KEYS), place)
            first[name] = min(first.get(name, at), at)
    return sorted(first, key=first.__getitem__)
