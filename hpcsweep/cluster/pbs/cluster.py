"""PBS: batches are job arrays (`qsub -J`), followed by qstat, whose output is read here too."""

from __future__ import annotations

import getpass
import json
import logging
import math
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

from hpcsweep.cluster import processes
from hpcsweep.cluster.backend import SweepRequest
from hpcsweep.cluster.pbs.backend import PbsSection
from hpcsweep.cluster.processes import ProcessResult
from hpcsweep.cluster.script import (
    exports,
    module_command,
    package_folder,
    read_template,
    render_template,
    script_problems,
)
from hpcsweep.cluster.setup_lines import setup_lines
from hpcsweep.cluster.task_environment import alarm_after
from hpcsweep.core.cluster_protocol import (
    Batch,
    BlockKind,
    Cluster,
    Limits,
    Phase,
    SubmittedBatch,
    TaskId,
    TaskResources,
    TaskState,
)
from hpcsweep.errors import ClusterUnavailable, SpecError, SubmitLimited, SubmitRefused, SubmitUncertain
from hpcsweep.store.files import file_mode, make_dirs, write_atomic
from hpcsweep.store.layout import BatchLayout

QUERY_S: Final = 60.0
QSUB_S: Final = 120.0
DEFAULT_TEMPLATE: Final = "default.pbs"
LAUNCHER: Final = "hpcsweep.cluster.pbs.task"
#: Subjobs in one qdel.
DELETED: Final = 500
#: Whoever says this may not know whether the server took the job.
_OPEN: Final = re.compile(r"connect|timed? ?out|communication|no route|server.*(down|shut)", re.IGNORECASE)
_LIMIT: Final = re.compile(r"would exceed|maximum number of jobs|limit on (queued|number)", re.IGNORECASE)
#: What qstat, qdel and qalter say of jobs that are gone.
_GONE: Final = re.compile(r"unknown job|has finished|job id.*(not|unknown)", re.IGNORECASE)
_log = logging.getLogger(__name__)


class PbsCluster(Cluster):
    """Runs batches as job arrays of PBS. Keeps nothing that a new process would have to know.

    A batch of one task is a job that is no array, which PBS would refuse. Nodes to stay away from are not
    kept away from: PBS has no such option.

    Raises:
        SpecError: The template is wrong.
    """

    settle_s = 150.0
    grace_s = 60.0
    poll_s = (5.0, 60.0)

    def __init__(self, sweep: SweepRequest, options: PbsSection) -> None:
        for name, value in sweep.times.items():
            setattr(self, name, value)
        self._sweep = sweep
        self._options = options
        self._python = sweep.python or sys.executable
        self._template = read_template(self.template, spec_dir=Path(), suffix=".pbs")
        self._poll_error = ""

    @property
    def template(self) -> str:
        return self._options.template or DEFAULT_TEMPLATE

    @cached_property
    def _import_from(self) -> Path | None:
        return package_folder(self._python)

    def script(self, batch: Batch) -> str:
        shape = batch.shape
        alarm_s = alarm_after(shape.time_s, signal_s=self._sweep.signal_s)
        launcher = f"{LAUNCHER} {alarm_s:g}"
        command = module_command(self._python, launcher, batch.folder, import_from=self._import_from)
        lines = self._header(batch)
        text = render_template(
            self._template,
            batch,
            header=lines,
            command=command,
            setup=setup_lines(self._sweep.setup, failed=f'{command} --setup-failed "$1" "$hpcsweep_line"'),
            environment=exports(self._sweep.variables),
            queue=self._options.queue,
            project=self._options.project,
            account=self._options.account,
            workdir=shlex.quote(self._sweep.workdir or str(batch.folder)),
        )
        problems = script_problems(self._template, text, header=lines, command=command, program="qsub")
        if problems:
            raise SpecError(*problems)
        return text

    def _header(self, batch: Batch) -> str:
        """The `#PBS` lines."""
        shape, options = batch.shape, self._options
        if any(letter.isspace() for letter in str(batch.folder)):
            raise SpecError(f"{batch.folder}: PBS cannot write logs below a folder with a blank in its name")
        chunk = [f"ncpus={shape.cpus}"]
        chunk += [f"ngpus={shape.gpus}"] if shape.gpus else []
        chunk += [f"mem={shape.mem_mib}mb"] if shape.mem_mib is not None else []
        index = "^array_index^" if batch.tasks > 1 else "0"
        directives = [
            f"-N {batch.name}",
            f"-l select=1:{':'.join(chunk)}",
            "-r n",  # the driver repeats what did not end well
            "-j oe",
            "-k oed",  # the log grows where it belongs, not on the node
            f"-o {BatchLayout(batch.folder).logs}/{index}.log",
        ]
        if shape.time_s is not None:
            minutes = math.ceil(shape.time_s / 60)
            directives.append(f"-l walltime={minutes // 60:02d}:{minutes % 60:02d}:00")
        if batch.tasks > 1:
            directives.append(f"-J 0-{batch.tasks - 1}%{max(1, batch.throttle)}")
        named = {"-q": options.queue, "-P": options.project, "-A": options.account}
        directives += [f"{flag} {value}" for flag, value in named.items() if value]
        directives += [f"-v {','.join(self._sweep.inherited)}"] if self._sweep.inherited else []
        directives += [f"-W depend=afterany:{batch.after}"] if batch.after else []
        return "\n".join(f"#PBS {each}" for each in [*directives, *(options.directives or ())])

    def problems(self, shape: TaskResources) -> list[str]:
        wrong = [each for each in self._options.directives or () if not each.startswith("-") or "\n" in each]
        expected = "expected options of qsub such as '-l place=excl'"
        return [f"cluster.directives: {expected}, got {each!r}" for each in wrong]

    def limits(self) -> Limits:
        """The longest array that the server takes; unknown where it does not say."""
        answer = processes.run(["qstat", "-B", "-f"], timeout_s=QUERY_S)
        match = re.search(r"max_array_size\s*=\s*(\d+)", answer.out)
        return Limits(array_tasks=int(match[1]) if match else None)

    @property
    def slots(self) -> int | None:
        return None

    # ------------------------------------------------------------------ submitting

    def submit(self, batch: Batch) -> str:
        """Submit one array, give its job id; the script is on disk before qsub is called."""
        layout = BatchLayout(batch.folder)
        make_dirs(layout.logs)
        make_dirs(layout.results)
        write_atomic(layout.script, self.script(batch).encode(), mode=file_mode(self._sweep.variables))
        env = {name: value for name, value in os.environ.items() if not name.startswith("HPCSWEEP_")}
        argv = ["qsub", str(layout.script)]
        try:
            answer = processes.run_process(argv, timeout_s=QSUB_S, cwd=batch.folder, env=env)
        except OSError as error:
            raise SubmitRefused(f"qsub: cannot be run: {error.strerror}") from error
        if answer.code is None or answer.code < 0 or (answer.code and _OPEN.search(answer.message)):
            raise SubmitUncertain(f"qsub: {answer.message}")
        if answer.code:
            raise (SubmitLimited if _LIMIT.search(answer.message) else SubmitRefused)(answer.message)
        found = [line.strip() for line in answer.out.splitlines() if job_id(line)]
        if not found:
            raise SubmitUncertain(f"qsub: succeeded, but gave no job id: {answer.message}")
        return found[-1]

    def find(self, name: str) -> str | None:
        """Job id of the batch with this name; the newest, where there are several."""
        argv = ["qselect", "-x", "-N", name, "-u", getpass.getuser()]
        lines = processes.check_output(argv, timeout_s=QUERY_S).splitlines()
        found = [line.strip() for line in lines if job_id(line)]
        return found[-1] if found else None

    # ------------------------------------------------------------------ following

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState] | None:
        """Every task of these batches that PBS shows, by one qstat; None: it failed."""
        batches = {found.number: batch for batch in live if (found := job_id(batch.job)) is not None}
        if not batches:
            return {}
        argv = ["qstat", "-x", "-t", "-f", "-F", "json", *(batch.job for batch in batches.values())]
        try:
            answer = processes.run(argv, timeout_s=QUERY_S)
            if answer.code != 0 and not _only_gone(answer):
                raise ClusterUnavailable(f"qstat: {answer.message}")
            shown = list(shown_tasks(answer.out))
        except ClusterUnavailable as error:
            _log.warning("nothing known: %s", error)
            self._poll_error = str(error)
            return None
        self._poll_error = ""
        states: dict[TaskId, TaskState] = {}
        for found, state in shown:
            batch = batches.get(found.number)
            if batch is not None and (found.task or 0) < batch.tasks:
                states[TaskId(batch.name, found.task or 0)] = state
        return states

    @property
    def poll_error(self) -> str:
        return self._poll_error

    # ------------------------------------------------------------------ steering

    def throttle(self, batch: SubmittedBatch, tasks: int) -> None:
        if "[]" in batch.job:
            self._steer(["qalter", "-W", f"max_run_subjobs={max(1, tasks)}", batch.job])

    def cancel(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        jobs = [subjob(batch.job, task) for task in tasks]
        for start in range(0, len(jobs), DELETED):
            self._steer(["qdel", *jobs[start : start + DELETED]])

    def release(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        self._steer(["qrls", *(subjob(batch.job, task) for task in tasks)])

    @staticmethod
    def _steer(argv: Sequence[str]) -> None:
        answer = processes.run(argv, timeout_s=QUERY_S)
        if answer.code != 0 and not _only_gone(answer):
            raise ClusterUnavailable(f"{argv[0]}: {answer.message}")


def _only_gone(answer: ProcessResult) -> bool:
    """Whether a program complains of nothing but jobs that are gone."""
    lines = [line for line in answer.err.splitlines() if line.strip()]
    return bool(lines) and all(_GONE.search(line) for line in lines)


_ID: Final = re.compile(r"^(\d+)(\[(\d*)\])?(?:\.\S+)?$")
#: Letters of qstat; F and X are ends, told apart by the exit status.
PHASES: Final[Mapping[str, Phase]] = {
    "Q": Phase.PENDING,
    "W": Phase.PENDING,  # for its time
    "T": Phase.PENDING,  # is being moved
    "H": Phase.PENDING,
    "R": Phase.RUNNING,
    "E": Phase.RUNNING,  # is ending
    "S": Phase.RUNNING,  # suspended: it goes on where it is
    "U": Phase.RUNNING,  # suspended for the owner of a workstation
}
_ENDED: Final = ("F", "X")
#: The server ended the job for what it used.
_OUT_OF_MEMORY: Final = (-26, -27)
_WALLTIME: Final = -29
#: 256 and a signal, or 128 and a signal where the shell says so.
_TERMINATED: Final = (256 + 15, 256 + 9, 128 + 15, 128 + 9)


class JobId(NamedTuple):
    """`12[3].pbs` is subjob 3 of the array `12[].pbs`; a job that is no array has no brackets."""

    number: str
    task: int | None


def job_id(text: str) -> JobId | None:
    """The id in its parts; None if it is none."""
    match = _ID.fullmatch(text.strip())
    return JobId(match[1], int(match[3]) if match[3] else None) if match else None


def subjob(job: str, task: int) -> str:
    """The id of one task of the batch that qsub called so."""
    return job.replace("[]", f"[{task}]")


def shown_tasks(text: str) -> Iterator[tuple[JobId, TaskState]]:
    """The jobs and subjobs in the output of `qstat -f -F json`; arrays themselves are passed over."""
    if not text.strip():
        return
    try:
        jobs = json.loads(text).get("Jobs", {})
    except (ValueError, AttributeError) as error:
        raise ClusterUnavailable(f"qstat: prints something else than JSON: {text.strip()[:80]!r}") from error
    for name, job in jobs.items():
        found = job_id(name)
        if found is not None and not name.startswith(f"{found.number}[]"):
            yield found, task_state(job)


def task_state(job: Mapping[str, Any]) -> TaskState:
    """A job's attributes as a state."""
    letter, status = str(job.get("job_state", "")), job.get("Exit_status")
    phase = _ended_phase(status) if letter in _ENDED else PHASES.get(letter, Phase.UNKNOWN)
    gpus = job.get("Resource_List", {}).get("ngpus")
    pending = phase is Phase.PENDING
    return TaskState(
        phase=phase,
        reason=str(job.get("comment", "")) if phase.active else "",
        node=str(job.get("exec_host", "")).partition("/")[0],
        seconds=seconds_of(str(job.get("resources_used", {}).get("walltime", ""))),
        block=BlockKind.BLOCKED if letter == "H" else None,
        gpus=int(gpus) if not pending and str(gpus or "").isdecimal() else None,
    )


def _ended_phase(status: Any) -> Phase:
    if status is None:
        return Phase.CANCELLED  # it was deleted before it began
    code = int(status)
    if code == _WALLTIME:
        return Phase.TIMEOUT
    if code in _OUT_OF_MEMORY:
        return Phase.OUT_OF_MEMORY
    if code in _TERMINATED:
        return Phase.CANCELLED
    return Phase.COMPLETED if code == 0 else Phase.FAILED


def seconds_of(walltime: str) -> float | None:
    """`01:02:03`; None for what is no time."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d)", walltime)
    return float(int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3])) if match else None
