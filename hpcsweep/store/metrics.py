"""`metrics-<rung>.<attempt>.<restart>.jsonl`: what one attempt reported, a JSON object a line.

A line is `{"step": 3, "val_error": 0.12}`. JSON has no NaN and no infinities: a metric that was
reported but is not finite is written as the string `"nan"`, `"inf"` or `"-inf"`, which Python's
`float` and most other readers turn back into the number.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from hpcsweep.store.files import Skipped, make_dirs, open_append, read_bytes, write_all
from hpcsweep.store.layout import TrialLayout

_NAME = re.compile(r"metrics-([0-9]+)\.([0-9]+)\.([0-9]+)\.jsonl")
_decode = msgspec.json.Decoder(dict[str, float | str]).decode


class Report(NamedTuple):
    """One line: the metrics of one step; NaN and infinities are real floats here."""

    step: int
    metrics: dict[str, float]


class MetricsFile(NamedTuple):
    """One file of reports and whose it is."""

    rung: int
    attempt: int
    restart: int
    path: Path


class MetricsWriter:
    """Appends reports; each is in the file as a whole line when `write` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one report."""
        if self._fd is None:
            self._fd = self._open()
        line = msgspec.json.encode({"step": step, **{name: _jsonable(x) for name, x in metrics.items()}})
        write_all(self._fd, line + b"\n")

    def _open(self) -> int:
        make_dirs(self.path.parent)
        fd = open_append(self.path, flags=os.O_RDWR)
        size = os.fstat(fd).st_size
        # A writer killed in the middle left a torn line: the next one must not be glued to it.
        if size and os.pread(fd, 1, size - 1) != b"\n":
            write_all(fd, b"\n")
        return fd

    def sync_and_close(self) -> None:
        """Make what was written durable, by this process or another one; then close the file."""
        self.close()
        with contextlib.suppress(OSError):
            fd = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def close(self) -> None:
        """Close the file; a later `write` opens it again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def read_reports(path: Path) -> Iterator[Report]:
    """Every whole line in order; a torn line, and a file that is not there, hold no report."""
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        return
    yield from parse_reports(data)


def parse_reports(data: bytes) -> Iterator[Report]:
    """Every whole line of a file in order."""
    for line in data.splitlines():
        try:
            fields = _decode(line)
            step = int(fields.pop("step"))
            yield Report(step, {name: float(value) for name, value in fields.items()})
        except (msgspec.MsgspecError, KeyError, ValueError):
            continue


def metrics_files(trial: TrialLayout, skipped: Skipped | None = None) -> list[MetricsFile]:
    """The trial's metrics files, oldest attempt first: for the same step the later one counts.

    Args:
        trial: Whose files.
        skipped: Told of a folder that cannot be listed; it holds none then.

    Raises:
        OSError: The folder cannot be listed, and nobody is told.
    """
    folder = os.fspath(trial.root)
    return [MetricsFile(*numbers, trial.root / name) for numbers, name in _listed(folder, skipped)]


def metrics_names(folder: str, skipped: Skipped | None = None) -> list[tuple[str, int]]:
    """Names of a trial's metrics files with their rungs, oldest attempt first; one readdir.

    Args:
        folder: Of the trial.
        skipped: As `metrics_files` has it.
    """
    return [(name, rung) for (rung, _, _), name in _listed(folder, skipped)]


def _listed(folder: str, skipped: Skipped | None) -> list[tuple[tuple[int, int, int], str]]:
    """Metrics files in order: rung, attempt and restart, with the name."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        if skipped is None:
            raise
        skipped.note(folder, error)
        return []
    matches = ((name, _NAME.fullmatch(name)) for name in names)
    return sorted(((int(m[1]), int(m[2]), int(m[3])), name) for name, m in matches if m)


def _jsonable(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
