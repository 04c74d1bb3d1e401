"""All reported metrics as one table: rows by trial, rung and step, a column for each metric.

Of several attempts the newest counts, metric by metric. Null means not reported; NaN and infinities
were reported. Columns are in the order of their first rows. The same rows give the same table whether
they come from raw files, from parts or from both.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from hpcsweep.core.events import AnyEvent, RunId
from hpcsweep.errors import FolderError
from hpcsweep.store.compaction import existing_parts
from hpcsweep.store.compaction.tracker import CompactionState
from hpcsweep.store.files import open_regular, read_bytes
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout, Skipped
from hpcsweep.store.run_files import metrics_names, parse_reports

if TYPE_CHECKING:
    import pyarrow as pa

KEYS: Final = ("trial", "rung", "step")
#: No training counts so far, and no column holds more.
_MOST: Final = 2**63
_TRIES: Final = 5


class RawFile(NamedTuple):
    """One metrics file as it was read."""

    name: str
    data: bytes


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
    layout: Layout,
    parts: Iterable[str],
    raw: Sequence[RunId],
    skipped: Skipped | None = None,
) -> pa.Table:
    """What is in these parts and in the raw files of these runs.

    Raises:
        FileNotFoundError: A part is not there.
        FolderError: A part is damaged.
    """
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


def raw_files(layout: Layout, trial: int, skipped: Skipped | None = None) -> dict[int, list[RawFile]]:
    """The trial's metrics files by rung, oldest attempt first; one readdir."""
    skipped = Skipped() if skipped is None else skipped
    root = os.fspath(layout.trial(trial).root)
    found: dict[int, list[RawFile]] = {}
    for name, rung in metrics_names(root, skipped):
        path = f"{root}/{name}"
        try:
            data = read_bytes(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            skipped.note(path, error)
            continue
        found.setdefault(rung, []).append(RawFile(name, data))
    return found


class _Column(NamedTuple):
    """A metric by row; `values` has a filler at the rows in `missing`."""

    values: array[float]
    missing: array[int]

    def fill(self, rows: int) -> None:
        """Extend it to so many rows, the new ones missing."""
        self.missing.extend(range(len(self.values), rows))
        self.values.extend([0.0] * (rows - len(self.values)))


class ReportColumns:
    """Gathers reports run by run, column by column."""

    def __init__(self) -> None:
        self._keys = (array("q"), array("q"), array("q"))
        self._columns: dict[str, _Column] = {}

    def add(self, run: RunId, files: Iterable[bytes]) -> None:
        """What a run has reported, oldest attempt first; runs come in order."""
        found: dict[int, dict[str, float]] = {}
        for data in files:
            for step, metrics in parse_reports(data):
                if step in found:
                    found[step].update(metrics)
                elif step < _MOST:
                    found[step] = metrics
        trials, rungs, steps = self._keys
        columns = self._columns
        for step in sorted(found):
            row = len(steps)
            trials.append(run.trial)
            rungs.append(run.rung)
            steps.append(step)
            for name, value in found[step].items():
                column = columns.get(name)
                if column is None:
                    column = columns[name] = _Column(array("d"), array("q"))
                if len(column.values) < row:
                    column.fill(row)
                column.values.append(value)

    def table(self) -> pa.Table:
        """The table."""
        import numpy as np
        import pyarrow as pa

        count = len(self._keys[0])
        columns = {name: pa.array(np.array(key)) for name, key in zip(KEYS, self._keys, strict=True)}
        for name, column in self._columns.items():
            column.fill(count)
            missing = np.zeros(count, dtype=bool)
            missing[column.missing] = True
            columns[_column_name(name)] = pa.array(np.array(column.values), mask=missing)
        return pa.table(columns)


def _column_name(metric: str) -> str:
    """The metric's name, changed where a key has that name."""
    return f"metric.{metric}" if metric in KEYS else metric


def read_part(path: Path) -> pa.Table:
    """The reports of a part.

    Raises:
        FileNotFoundError: It was replaced by another one.
        FolderError: It is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open(open_regular(path), "rb") as file, pq.ParquetFile(file) as part:
            return part.read()
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FolderError(
            f"{path}: cannot be read: {why}; restore it from a backup or snapshot of the filesystem"
        ) from error


def concat_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """One table of several that have no run in common."""
    import numpy as np
    import pyarrow as pa

    tables = [table for table in tables if len(table)] or list(tables[:1])
    if len(tables) == 1:
        return tables[0]
    whole = pa.concat_tables(tables, promote_options="default").select([*KEYS, *_metrics_in_order(tables)])
    trials, rungs = (whole[name].to_numpy() for name in KEYS[:2])
    order = np.lexsort((rungs, trials))
    return whole if np.array_equal(order, np.arange(len(order))) else whole.take(pa.array(order))


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
