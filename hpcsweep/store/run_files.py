"""Files of one run: `run.json`, from which training learns what to do, and the metrics that it reports.

`HPCSWEEP_RUN` names `run.json`. Each line of `metrics-<rung>.<attempt>.<restart>.jsonl` is a JSON object like
`{"step": 3, "val_error": 0.12}`. JSON has no NaN and no infinities: these are written as the strings `"nan"`,
`"inf"` and `"-inf"`, which Python's `float` and most other readers convert back.
"""

from __future__ import annotations

import contextlib
import math
import operator
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from hpcsweep.errors import HpcsweepError
from hpcsweep.store.files import make_dirs, open_append, open_regular, read_bytes, write_all
from hpcsweep.store.layout import Skipped, TrialLayout, decode, version_field

_NAME = re.compile(r"metrics-([0-9]+)\.([0-9]+)\.([0-9]+)\.jsonl")
_decode = msgspec.json.Decoder(dict[str, float | str]).decode


class Report(NamedTuple):
    """The metrics of one step; NaN and infinities are real floats here."""

    step: int
    metrics: dict[str, float]


class MetricsFile(NamedTuple):
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
        """Make the file durable, whichever process wrote it, and close it."""
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
    """Every whole line in order; a torn line or a missing file holds no report."""
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        return
    yield from parse_reports(data)


def parse_reports(data: bytes) -> Iterator[Report]:
    for line in data.splitlines():
        try:
            fields = _decode(line)
            step = int(fields.pop("step"))
            yield Report(step, {name: float(value) for name, value in fields.items()})
        except (msgspec.MsgspecError, KeyError, ValueError):
            continue


class NewReports:
    """Reads what is appended to a metrics file while it is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[Report]:
        """The whole lines since the last call; none where the file cannot be read."""
        try:
            with open(open_regular(self._path), "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return list(parse_reports(whole))


def metrics_files(trial: TrialLayout, skipped: Skipped | None = None) -> list[MetricsFile]:
    """The trial's metrics files, oldest attempt first: for the same step the later one counts."""
    folder = os.fspath(trial.root)
    return [MetricsFile(*numbers, trial.root / name) for numbers, name in _listed(folder, skipped)]


def metrics_names(folder: str, skipped: Skipped | None = None) -> list[tuple[str, int]]:
    """Names and rungs of the metrics files in a trial's folder, as `metrics_files`; one readdir."""
    return [(name, rung) for (rung, _, _), name in _listed(folder, skipped)]


def _listed(folder: str, skipped: Skipped | None) -> list[tuple[tuple[int, int, int], str]]:
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


def check_step(step: object) -> int:
    """The step as an integer; TypeError or ValueError if it is none, or negative."""
    try:
        if isinstance(step, bool):
            raise TypeError
        number = operator.index(step)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"a step is an integer, counted 1, 2, ... resource; got {step!r} ({type(step).__name__})"
        ) from None
    if number < 0:
        raise ValueError(f"a step is counted 1, 2, ... resource; got {number}")
    return number


def check_metric_name(name: object) -> str:
    """The name; ValueError if a metric cannot have it."""
    if not isinstance(name, str) or name in ("", "step"):
        raise ValueError(f"a metric cannot be called {name!r}; a name like 'val_error' will do")
    return name


def to_number(name: str, value: object) -> float:
    """The value of a metric; TypeError if it is not one number."""
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        if hasattr(value, "item"):
            value = value.item()
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"metric {name!r} must be one number, got {value!r:.80} ({type(value).__name__})"
        ) from None


class Suggestions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an objective of Optuna suggested otherwise than its configuration has it.

    Attributes:
        parameters: Those that it lacked, in the long form of the spec.
        values: What they had.
        unused: Parameters of the configuration that a run to its end did not suggest.
    """

    parameters: dict[str, dict[str, Any]] = {}
    values: dict[str, Any] = {}
    unused: tuple[str, ...] = ()


class RunFile(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that training code may want to know.

    Attributes:
        start: Step of the checkpoint in `resume_from`, 0 from scratch.
        checkpoint_dir: Working folder; its content at the end becomes a checkpoint.
        stop_file: Exists once training should checkpoint and leave.
        trial_folder: Of the results folder; contains `metrics_file`.
        metric: The objective. `metrics`: of several objectives, all.
        call: How the function is called: as `train.call`.
        max_resource: The resource of the last rung, 0 where unknown.
        config_file: Its parameters merged with `train.config`; None without one.
        output_dir: The program's own folder, the same in all runs of the trial.
        suggestion_seed: For parameters that `config` lacks.
        ranks: Processes that train together, as far as the worker starts them.
        agreed_file: Where rank 0 says when all of them leave; see `store.stop_agreement`.
    """

    trial: int
    rung: int
    bracket: int
    resource: int
    attempt: int
    restart: int
    seed: int
    config: dict[str, Any]
    start: int
    resume_from: str | None
    checkpoint_dir: str
    stop_file: str
    trial_folder: str
    metrics_file: str
    metric: str
    keep_checkpoints: int = 1
    keep_steps: tuple[int, ...] = ()
    call: str = "trial"
    max_resource: int = 0
    config_file: str | None = None
    output_dir: str = ""
    suggestion_seed: int = 0
    ranks: int = 1
    agreed_file: str = ""
    metrics: tuple[str, ...] = ()
    version: int = version_field()

    @property
    def epochs_left(self) -> int:
        """How many steps are left to train."""
        return self.resource - self.start

    @property
    def suggestions_file(self) -> Path:
        """Where an objective tells its `Suggestions`."""
        return Path(self.stop_file).with_name("suggestions.json")

    def write_suggestions(
        self, parameters: dict[str, dict[str, Any]], values: dict[str, Any], unused: Iterable[str] = ()
    ) -> None:
        """Tell them in place of what was told before; nothing is told outside a sweep."""
        told = Suggestions(parameters, values, tuple(unused))
        if self.stop_file and told != Suggestions():
            beside = self.suggestions_file.with_name(".suggestions.json")
            beside.write_bytes(msgspec.json.encode(told))
            beside.replace(self.suggestions_file)

    @property
    def owner(self) -> str:
        """Names this attempt in file names."""
        return f"{self.rung}-{self.attempt}-{self.restart}"


_run_file_decoder = msgspec.json.Decoder(RunFile)


def read_run_file(path: str) -> RunFile:
    """Read the file that `HPCSWEEP_RUN` names; HpcsweepError if it is missing or damaged."""
    try:
        return _decode_paths(decode(Path(path).read_bytes(), _run_file_decoder, path))
    except (OSError, msgspec.MsgspecError) as error:
        raise HpcsweepError(
            f"HPCSWEEP_RUN={path}: cannot be read ({error}). It is there while a sweep runs this trial; "
            "to run the script by hand, unset HPCSWEEP_RUN"
        ) from error


def _decode_paths(run: RunFile) -> RunFile:
    """Paths as this process can open them: they differ in a locale without UTF-8."""
    if sys.getfilesystemencoding().lower() in ("utf-8", "utf8"):
        return run
    keys = (
        "resume_from",
        "checkpoint_dir",
        "stop_file",
        "trial_folder",
        "metrics_file",
        "output_dir",
        "agreed_file",
    )
    paths = {key: text for key in keys if (text := getattr(run, key)) is not None}
    return msgspec.structs.replace(run, **{key: os.fsdecode(text.encode()) for key, text in paths.items()})
