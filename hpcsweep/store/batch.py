"""Files of a batch folder: the manifest of its tasks, results and stop requests.

The driver writes `manifest.jsonl` before it submits: the first line is the header, line `i + 2` is task
`i`. Neither script nor environment grows with the number of trials. Workers write result files, immutable,
one for each start of a run. An empty stop file ends one run while others of its task go on (whole tasks are
cancelled on the cluster).
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from hpcsweep.core.events import CheckpointSizes, Config, FailureKind, Interruption, Outcome, RunId
from hpcsweep.core.objectives import Objective, Objectives
from hpcsweep.errors import FolderError, NewerFormatError
from hpcsweep.store.files import make_dirs, open_regular, read_bytes, write_atomic
from hpcsweep.store.layout import SMALL_BYTES, BatchLayout, Skipped, decode, regular_files, version_field
from hpcsweep.store.run_files import Suggestions


class CodeSnapshot(msgspec.Struct, frozen=True):
    """Source and location of the snapshot; absolute paths without links.

    Attributes:
        root: The folder that was copied.
        code: The copy of `root`.
        workdir: Where training code would run without a snapshot.
    """

    root: str
    code: str
    workdir: str

    def path_in_copy(self, folder: str) -> str | None:
        """The folder's path in the copy, existing or not; None outside of `root`."""
        real = os.path.realpath(folder)
        if not _is_in(real, self.root) or _is_in(real, self.code):
            return None
        return os.path.normpath(os.path.join(self.code, os.path.relpath(real, self.root)))

    def is_original(self, path: str) -> bool:
        """Whether the path is below `root` and not in the copy."""
        return _is_in(path, self.root) and not _is_in(path, self.code)


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


class MetricFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file in which a program leaves metrics; see `worker.metrics.files`.

    Attributes:
        file: Its path with placeholders, a pattern of `glob`, relative to the working directory.
        kind: Of its format.
        step: Name of the step in it; empty: the kind's own, or rows are counted.
        values: Metric -> its name in the file; empty: all numbers, by their names there.
    """

    file: str
    kind: str
    step: str = ""
    values: dict[str, str] = {}


class ConfigFile(msgspec.Struct, frozen=True):
    """What the config file of each run is made from; see `worker.config_file`.

    Attributes:
        name: Of the file, such as `base.yaml`.
        kind: `yaml`, `json`, `toml` or `ini`.
        tree: Its content: nested mappings with keys and values as they are written.
    """

    name: str
    kind: str
    tree: dict[str, Any]


class Program(msgspec.Struct, frozen=True, omit_defaults=True):
    """How to run a trial; the same for the whole sweep.

    Attributes:
        function: `FILE.py:NAME` (absolute path) or `package.module:NAME`, or None.
        command: The command with placeholders, or None. Exactly one of the two is given.
        shell: The command is a shell line, its values quoted.
        config: What `{config_file}` is made from.
        flags, dashes, formats: How values become arguments; see `worker.template.Style`.
        metrics: Patterns over printed lines; their named groups are metrics.
        metric_files: Files with metrics.
        workdir: Absolute; where training code runs.
        metric: The objective; `mode` is min or max; `at` is last or best.
        objectives: All of them, where there are several or one has bounds; `metric` is the first.
        log_limit_mib: How much of an attempt's output is kept; None: all.
        keep_checkpoints: How many of a trial's newest complete checkpoints stay.
        notice_s: Time for training code to checkpoint and leave after SIGUSR2.
        grace_s: The same after SIGTERM.
        warm: Whether a task that keeps its GPUs may fork runs of `function` from one process.
        resumes: Whether training may go on from a checkpoint; else each run trains from scratch.
        first_step: The number that the program's printed steps begin with, 0 or 1.
        stop_at_resource: Whether a run ends once its value at its resource was reported.
        checkpoint_path: Pattern of the files that the program keeps; empty for those in its working folder.
        checkpoint_at_end: They are looked at when it has ended, not at each report.
        resume_args: What is added to the command where there is something to resume from.
        call: How `function` is called, as `train.call`.
        max_resource: The resource of the last rung, 0 where unknown.
        launcher: What starts the processes of a run; `none`: it is one.
        processes: How many of them on each node; 0: one for each GPU, or one.
        snapshot: Set if `function` and `workdir` are those of a copy.
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
    snapshot: CodeSnapshot | None = msgspec.field(default=None, name="copied")
    log_limit_mib: int | None = None
    warm: bool = True
    flags: str = ""
    dashes: bool = False
    formats: dict[str, str] = {}
    config: ConfigFile | None = None
    resumes: bool = True
    first_step: int = 1
    stop_at_resource: bool = False
    checkpoint_path: str = ""
    checkpoint_at_end: bool = False
    resume_args: str = ""
    call: str = "trial"
    max_resource: int = 0
    metric_files: tuple[MetricFile, ...] = ()
    launcher: str = "none"
    processes: int = 0
    objectives: tuple[Objective, ...] = ()

    @property
    def measured(self) -> Objectives:
        """The objectives, be it one."""
        return Objectives(self.objectives or (Objective(self.metric, self.mode, self.at),))

    @property
    def has_output(self) -> bool:
        """Whether anything of it names the output folder of its trial."""
        return b"{output_dir" in msgspec.json.encode(self)


class Reuse(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the tasks of a batch keep their GPUs for run after run; see `store.assignments`.

    Attributes:
        idle_s: How long a task may hold GPUs without a run.
        time_s: Time limit of a task; 0 where unknown.
    """

    idle_s: float
    time_s: int = 0


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """First line of the manifest.

    Attributes:
        reuse: Set if its tasks are given their runs once they have begun; then the manifest names none.
        gpus: Of one task, on all its nodes together; shared evenly by `lanes` runs at a time.
        nodes: Of one task.
        tick: A task that has finished ticks the sweep.
        fail_fast: No run begins once so many trials of the batch failed at once with one error; 0: off.
        mem_limit_mib: The worker ends a run whose processes hold more; None: it leaves that to the cluster.
    """

    batch: str
    sweep: str
    program: Program
    gpus: int
    lanes: int = 1
    version: int = version_field()
    tick: bool = False
    fail_fast: int = 0
    reuse: Reuse | None = None
    mem_limit_mib: int | None = None
    nodes: int = 1


class ManifestRun(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run of a task.

    Attributes:
        parent: Start from this trial's checkpoint of step `parent_step` if the trial has none.
        keep: Steps whose checkpoints stay whatever `keep_checkpoints` is, because other trials need them.
        best: The trial's best value up to the previous rung, if `objective.at` is best; `bests`: those of
            several objectives.
        reached: The step up to which the trial was trained before this run.
        suggestion_seed: For parameters that the configuration lacks, the same for its repeats; 0: `seed`.
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
    reached: int = 0
    suggestion_seed: int = 0
    bests: tuple[float | None, ...] = ()


class ManifestTask(msgspec.Struct, frozen=True):
    """The runs of one array index, in order."""

    task: int
    runs: tuple[ManifestRun, ...]


def trial_seed(sweep_seed: int, trial: int) -> int:
    """The seed of a trial; the same in each of its runs."""
    return zlib.crc32(f"{sweep_seed}:{trial}".encode())


_encoder = msgspec.json.Encoder()
_header_decoder = msgspec.json.Decoder(Header)
_task_decoder = msgspec.json.Decoder(ManifestTask)


def write_manifest(batch: BatchLayout, header: Header, tasks: Iterable[Sequence[ManifestRun]]) -> None:
    lines: list[Any] = [header]
    lines += [ManifestTask(index, tuple(runs)) for index, runs in enumerate(tasks)]
    write_atomic(batch.manifest, b"".join(_encoder.encode(line) + b"\n" for line in lines))


def read_task(batch: BatchLayout, task: int) -> tuple[Header, ManifestTask]:
    """The header and one task; FolderError if there are none or they are of a newer version."""
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


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of one run in one start of its task. Exactly one of `outcome`, `interrupted`.

    Attributes:
        outcome: How the run ended for good.
        interrupted: Why it has to continue later.
        value: The objective, the first one of several; None unless completed. `values`: of several, all.
        step: Resource reached. `start`: the step that it went on from, 0 from scratch.
        progressed: It left a newer complete checkpoint, or reported a step beyond earlier attempts.
        seconds: Wall time; `gpu_seconds` times this run's GPUs.
        started: Unix time.
        message: Last line of the error, empty when completed.
        failure: Set if the outcome is `failed`.
        warning: What its user should change although it may have ended well; one sentence.
        peak_mib: The most memory that its processes held at a time on one node, 0 where unknown.
        unit_seconds: Wall time of each step between the first and the last report, 0 where unknown.
        host_memory: It ran out of main memory, not of that of a GPU.
        suggestions: What an objective of Optuna suggested otherwise than its configuration has it.
        checkpoints: What the trial keeps on disk now; None where that was not measured.
        nodes: All nodes of its task as the cluster lists them, where there are several; `node` is the first.
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
    warning: str = ""
    peak_mib: int = 0
    unit_seconds: float = 0.0
    host_memory: bool = False
    suggestions: Suggestions | None = None
    checkpoints: CheckpointSizes | None = None
    values: tuple[float, ...] = ()
    nodes: str = ""
    version: int = version_field()


#: Task, restart and number of the run in its task.
_RESULT_NAME: Final = re.compile(r"([0-9]+)\.([0-9]+)\.([0-9]+)\.json")
_result_encoder = msgspec.json.Encoder()
_result_decoder = msgspec.json.Decoder(Result)


def write_result(batch: BatchLayout, result: Result, *, n: int) -> Path:
    """Write the result of the task's `n`-th run, complete and durable."""
    make_dirs(batch.results)
    path = batch.result(result.task, result.restart, n)
    write_atomic(path, _result_encoder.encode(result))
    return path


def read_result(path: Path) -> Result:
    return decode(read_bytes(path, at_most=SMALL_BYTES), _result_decoder, path)


def new_results(
    batch: BatchLayout, seen: Container[str], skipped: Skipped | None = None
) -> Iterator[tuple[str, Result]]:
    """Results by file name, by task, restart and run, without those in `seen`; one readdir.

    A missing folder holds no results. A file that cannot be read as one (yet) is noted in `skipped`:
    without a result its run is repeated from its checkpoint, and nothing is lost.
    """
    skipped = Skipped() if skipped is None else skipped
    found = regular_files(batch.results, _RESULT_NAME, skipped, besides=seen)
    fresh = {name: tuple(map(int, match.groups())) for name, match in found}
    for name, (task, restart, _) in sorted(fresh.items(), key=lambda item: item[1]):
        path = batch.results / name
        try:
            result = read_result(path)
        except (OSError, msgspec.MsgspecError, NewerFormatError) as error:
            skipped.note(path, error)
            continue
        if (result.task, result.restart) != (task, restart):
            skipped.note(path, f"is the result of task {result.task}, restart {result.restart}")
            continue
        yield name, result


_STOP_NAME: Final = re.compile(r"stop-(\d{1,9})-(\d{1,4})")


def request_stop(batch: BatchLayout, run: RunId) -> None:
    """Have the worker end this run; idempotent."""
    write_atomic(batch.stop(run.trial, run.rung), b"")


def requested_stops(batch: BatchLayout) -> set[RunId]:
    """The runs that should stop; one readdir. Empty if the folder cannot be read."""
    try:
        names = os.listdir(batch.root)
    except OSError:
        return set()
    found = (_STOP_NAME.fullmatch(name) for name in names)
    return {RunId(int(match[1]), int(match[2])) for match in found if match}
