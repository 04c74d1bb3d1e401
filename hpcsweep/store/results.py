"""What driver and worker tell each other in a batch folder while its tasks run.

Result files, immutable, one for each start of a run; and an empty file for each run that is to end while the
others of its task go on. (A task as a whole is ended by cancelling it on the cluster.)
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Final

import msgspec

from hpcsweep.core.events import FailureKind, Interruption, Outcome, RunId
from hpcsweep.errors import NewerFormatError
from hpcsweep.store.files import make_dirs, read_bytes, write_atomic
from hpcsweep.store.layout import BatchLayout
from hpcsweep.store.skipped import SMALL_BYTES, Skipped, regular_files
from hpcsweep.store.versions import decode, version_field


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one run in one start of its task. Exactly one of `outcome`, `interrupted`.

    Attributes:
        outcome: How the run ended for good.
        interrupted: Or why it has to go on later.
        value: The objective; None unless completed.
        step: Resource reached. `start`: the checkpoint's step that it went on from.
        progressed: A newer complete checkpoint exists than when it started.
        seconds: Wall time; `gpu_seconds` times this run's GPUs.
        started: Unix time.
        message: Last line of the error, empty when completed.
        failure: What was wrong if the outcome is `failed`.
    """

    trial: int
    rung: int
    attempt: int
    restart: int
    task: int
    outcome: Outcome | None = None
    interrupted: Interruption | None = None
    value: float | None = None
    step: int = 0
    start: int = 0
    progressed: bool = False
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    started: float | None = None
    node: str = ""
    job: str = ""
    message: str = ""
    failure: FailureKind | None = None
    version: int = version_field()


#: A task, its restart and which of its runs it is.
_NAME: Final = re.compile(r"([0-9]+)\.([0-9]+)\.([0-9]+)\.json")
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Result)


def write_result(batch: BatchLayout, result: Result, *, n: int) -> Path:
    """Write the result of the task's `n`-th run, complete and durable."""
    make_dirs(batch.results)
    path = batch.result(result.task, result.restart, n)
    write_atomic(path, _encoder.encode(result))
    return path


def read_result(path: Path) -> Result:
    """Read one result file."""
    return decode(read_bytes(path, at_most=SMALL_BYTES), _decoder, path)


def new_results(
    batch: BatchLayout, seen: Container[str], passed_over: Skipped | None = None
) -> Iterator[tuple[str, Result]]:
    """One readdir; opens only the files whose names are not in `seen`, by task, restart and run.

    A folder that is not there yet holds no results, and a file that cannot be read as one (yet)
    is none: without a result its run is repeated from its checkpoint, and nothing is lost.

    Args:
        batch: Whose results.
        seen: Names of files that are not wanted.
        passed_over: Told what is not a result or cannot be read.
    """
    passed_over = Skipped() if passed_over is None else passed_over
    found = regular_files(batch.results, _NAME, passed_over, besides=seen)
    fresh = {name: tuple(map(int, match.groups())) for name, match in found}
    for name, (task, restart, _) in sorted(fresh.items(), key=lambda item: item[1]):
        path = batch.results / name
        try:
            result = read_result(path)
        except (OSError, msgspec.MsgspecError, NewerFormatError) as error:
            passed_over.note(path, error)
            continue
        if (result.task, result.restart) != (task, restart):
            passed_over.note(path, f"is the result of task {result.task}, restart {result.restart}")
            continue
        yield name, result


_STOP_NAME: Final = re.compile(r"stop-(\d{1,9})-(\d{1,4})")


def request_stop(batch: BatchLayout, run: RunId) -> None:
    """Have the worker end this run; may be done again.

    Raises:
        OSError: The folder cannot be written.
    """
    write_atomic(batch.stop(run.trial, run.rung), b"")


def requested_stops(batch: BatchLayout) -> set[RunId]:
    """The runs that are to end; one readdir. None where the folder cannot be read just now."""
    try:
        names = os.listdir(batch.root)
    except OSError:
        return set()
    found = (_STOP_NAME.fullmatch(name) for name in names)
    return {RunId(int(match[1]), int(match[2])) for match in found if match}
