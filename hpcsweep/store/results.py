"""Result files: how a worker tells what became of a run. Immutable, one for each start of a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Container, Iterator
from pathlib import Path

import msgspec

from hpcsweep.core.events import Interruption, Outcome
from hpcsweep.store.files import make_dirs, read_bytes, write_atomic
from hpcsweep.store.layout import BatchLayout

_log = logging.getLogger(__name__)


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
    return _decoder.decode(read_bytes(path))


def new_results(batch: BatchLayout, seen: Container[str]) -> Iterator[tuple[str, Result]]:
    """One readdir; opens only the files whose names are not in `seen`, in name order.

    A folder that is not there yet holds no results, and a file that cannot be read as one (yet)
    is none: without a result its run is repeated from its checkpoint, and nothing is lost.
    """
    try:
        names = os.listdir(batch.results)
    except FileNotFoundError:
        return
    fresh = [name for name in names if name.endswith(".json") and name[0] != "." and name not in seen]
    for name in sorted(fresh, key=_order):
        try:
            result = read_result(batch.results / name)
        except (OSError, msgspec.MsgspecError) as error:
            _log.warning("%s: cannot be read: %s", batch.results / name, error)
            continue
        yield name, result


def _order(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split(".")[:3])
