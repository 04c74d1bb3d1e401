"""What MLflow keeps in local files: a folder `mlruns`, or `mlflow.db`, which newer versions make."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hpcsweep.worker.metrics.appended import AppendedFile, Lines
from hpcsweep.worker.metrics.numbers import parse_number
from hpcsweep.worker.metrics.rows import Row


class MlflowFolderSource:
    """`mlruns/<experiment>/<run>/metrics/<name>`: each line has time, value and step."""

    anew = False

    def __init__(self, path: Path) -> None:
        self.names: dict[str, None] = {}
        self._path = path
        self._files: dict[str, tuple[str, AppendedFile, Lines]] = {}

    def begin(self) -> None:
        """Pass over what is there."""
        for _ in self.poll(last=False, whole=False):
            pass

    def poll(self, *, last: bool, whole: bool) -> Iterator[Row]:
        """New rows; see `Source`."""
        for file, name in self._found():
            _, appended, lines = self._files.setdefault(file, (name, AppendedFile(Path(file)), Lines()))
            self.names[name] = None
            for piece in appended.pieces():
                for line in lines.feed(piece or b""):
                    yield from _line(name, line)
            if last and whole:
                yield from _line(name, lines.finish())

    def _found(self) -> Iterator[tuple[str, str]]:
        """Files of metrics, with the names of these: a `/` in a name is a folder."""
        for experiment in _folders(self._path):
            for run in _folders(experiment):
                metrics = os.path.join(run, "metrics")
                for folder, _, names in os.walk(metrics):
                    for name in sorted(names):
                        path = os.path.join(folder, name)
                        yield path, os.path.relpath(path, metrics)


def _folders(path: str | Path) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.path for entry in entries if entry.is_dir() and entry.name != ".trash")
    except FileNotFoundError:
        return []


def _line(name: str, line: bytes) -> Iterator[Row]:
    parts = line.decode(errors="replace").split()
    if len(parts) >= 2:
        value = parse_number(parts[1])
        step = parse_number(parts[2]) if len(parts) > 2 else 0.0
        if value is not None and step is not None:
            yield Row({"step": step, name: value})


class MlflowDatabaseSource:
    """The table `metrics` of an SQLite database."""

    anew = False

    def __init__(self, path: Path) -> None:
        self.names: dict[str, None] = {}
        self._path = path
        self._last = 0

    def begin(self) -> None:
        """Pass over what is there."""
        for _ in self.poll(last=False, whole=False):
            pass

    def poll(self, *, last: bool, whole: bool) -> Iterator[Row]:
        """New rows; see `Source`."""
        import contextlib
        import sqlite3
        from urllib.parse import quote

        if not self._path.exists():
            return
        try:
            with contextlib.closing(
                sqlite3.connect(f"file:{quote(str(self._path))}?mode=ro", uri=True, timeout=0.5)
            ) as database:
                rows = database.execute(
                    "SELECT rowid, key, value, step, is_nan FROM metrics WHERE rowid > ? ORDER BY rowid",
                    (self._last,),
                ).fetchall()
        except sqlite3.OperationalError as error:
            if last:
                raise ValueError(f"cannot be read: {error}") from error
            return  # it is being written, or has no tables yet
        except sqlite3.DatabaseError as error:
            raise ValueError(f"cannot be read: {error}") from error
        for number, name, value, step, is_nan in rows:
            self._last = number
            self.names[str(name)] = None
            yield Row({"step": float(step), str(name): float("nan") if is_nan else float(value)})
