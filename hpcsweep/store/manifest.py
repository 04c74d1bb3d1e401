"""`manifest.jsonl`: what each task of a batch is to do. Written by the driver before it submits.

The first line is the header, line `i + 2` is task `i`. Nothing of it is in the script or the
environment, so that neither grows with the number of trials.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from hpcsweep.core.events import Config
from hpcsweep.errors import FolderError
from hpcsweep.store.files import open_regular, write_atomic
from hpcsweep.store.layout import BatchLayout
from hpcsweep.store.versions import decode, version_field


class CodeSnapshot(msgspec.Struct, frozen=True):
    """Whence the training code was copied, and where the copy is; absolute, without links.

    Attributes:
        root: All below it that is code was copied.
        code: The copy of `root`.
        workdir: Where training code would run without a copy.
    """

    root: str
    code: str
    workdir: str

    def moved(self, folder: str) -> str | None:
        """The folder's place in the copy, whether there is anything or not; None outside of `root`."""
        real = os.path.realpath(folder)
        if not _is_in(real, self.root) or _is_in(real, self.code):
            return None
        return os.path.normpath(os.path.join(self.code, os.path.relpath(real, self.root)))

    def is_original(self, path: str) -> bool:
        """Whether the file or folder is one of those below `root`, and not of the copy."""
        return _is_in(path, self.root) and not _is_in(path, self.code)


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


class Program(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to run a trial; the same for the whole sweep.

    Attributes:
        function: `FILE.py:NAME` (absolute path) or `package.module:NAME`, or None.
        command: The command with placeholders, or None. Exactly one of the two is given.
        shell: The command is a shell line, its values quoted.
        metrics: Patterns over printed lines; their named groups are metrics.
        workdir: Absolute; where training code runs.
        metric: The objective's metric; `mode` is min or max; `at` is last or best.
        log_limit_mib: Of each attempt's output so much is kept at most; None: all of it.
        keep_checkpoints: How many of a trial's newest complete checkpoints stay.
        notice_s: After SIGUSR2, how long training code may take to checkpoint and leave.
        grace_s: The same after SIGTERM, which comes shortly before the end of a task.
        copied: Where `function` and `workdir` are those of a copy; None where they are the user's own.
    """

    workdir: str
    metric: str
    mode: str = "min"
    at: str = "last"
    function: str | None = None
    command: str | None = None
    shell: bool = False
    metrics: tuple[str, ...] = ()
    keep_checkpoints: int = 1
    notice_s: float = 55.0
    grace_s: float = 25.0
    parameters: tuple[str, ...] = ()
    copied: CodeSnapshot | None = None
    log_limit_mib: int | None = None


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """First line of the manifest.

    Attributes:
        gpus: Of one task; `lanes` runs share them evenly at a time.
        tick: A task that has done its work drives the sweep on.
        fail_fast: A task begins no run where so many of the batch have failed at once, all alike; 0: it does.
    """

    batch: str
    sweep: str
    program: Program
    gpus: int
    lanes: int = 1
    version: int = version_field()
    tick: bool = False
    fail_fast: int = 0


class ManifestRun(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run of a task.

    Attributes:
        parent: The trial whose checkpoint of step `parent_step` it starts from, if it has no own.
        keep: Steps whose checkpoints stay, whatever `keep_checkpoints` says, for others need them.
        best: The trial's value at the rung before, where `objective.at` is best.
    """

    trial: int
    rung: int
    bracket: int
    resource: int
    attempt: int
    seed: int
    config: Config
    parent: int | None = None
    parent_step: int = 0
    keep: tuple[int, ...] = ()
    best: float | None = None


class ManifestTask(msgspec.Struct, frozen=True):
    """One line: the runs of one array index, in order."""

    task: int
    runs: tuple[ManifestRun, ...]


def trial_seed(sweep_seed: int, trial: int) -> int:
    """The seed of a trial; the same in each of its runs."""
    return zlib.crc32(f"{sweep_seed}:{trial}".encode())


_encoder = msgspec.json.Encoder()
_header_decoder = msgspec.json.Decoder(Header)
_task_decoder = msgspec.json.Decoder(ManifestTask)


def write_manifest(batch: BatchLayout, header: Header, tasks: Iterable[Sequence[ManifestRun]]) -> None:
    """Write it whole and durable."""
    lines: list[Any] = [header]
    lines += [ManifestTask(index, tuple(runs)) for index, runs in enumerate(tasks)]
    write_atomic(batch.manifest, b"".join(_encoder.encode(line) + b"\n" for line in lines))


def read_task(batch: BatchLayout, task: int) -> tuple[Header, ManifestTask]:
    """The header and one task.

    Raises:
        NewerFormatError: A newer hpcsweep wrote the manifest.
        FolderError: There is no such manifest or no such task in it.
    """
    try:
        with open(open_regular(batch.manifest), "rb") as file:
            header = decode(file.readline(), _header_decoder, batch.manifest)
            for index, line in enumerate(file):
                if index == task:
                    return header, _task_decoder.decode(line)
    except OSError as error:
        raise FolderError(f"{batch.manifest}: cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise FolderError(f"{batch.manifest}: damaged: {error}") from error
    raise FolderError(f"{batch.manifest}: has no task {task}")
