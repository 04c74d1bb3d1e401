"""This machine as a cluster: one task for each GPU or CPU slot, as plain processes.

The processes are sessions of their own and outlive the driver. A driver that comes back finds
them by their claims (see `local.task`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from hpcsweep import bootstrap
from hpcsweep.cluster import processes
from hpcsweep.cluster.local.task import TaskLock, claim_path
from hpcsweep.cluster.setup_lines import setup_lines
from hpcsweep.cluster.task_environment import alarm_after, task_variables, without_launcher
from hpcsweep.core.cluster_protocol import (
    Batch,
    Cluster,
    Limits,
    Phase,
    SubmittedBatch,
    TaskId,
    TaskResources,
    TaskState,
)
from hpcsweep.errors import FolderError, SubmitRefused, one_line
from hpcsweep.store.files import make_dirs, open_append, read_bytes, wrap_oserror, write_atomic
from hpcsweep.store.layout import SMALL_BYTES, BatchLayout, regular_files
from hpcsweep.store.process_id import start_time

#: A driver that hangs must not take us along.
SMI_S = 30.0
#: An empty claim is somebody writing it, unless it is older than this.
_CLAIM_S = 5.0
#: Name of a claim: the task.
_CLAIM = re.compile(r"([0-9]+)\.json")
_log = logging.getLogger(__name__)


class _Task:
    """A process that works on a task: a child of ours, or one found by its claim."""

    def __init__(self, pid: int, devices: list[str], *, start_time: int | None = None) -> None:
        self.pid = pid
        self.devices = devices
        self._start_time = start_time
        self._child = start_time is None
        self.over = False

    def alive(self) -> bool:
        """Whether it still works; reaps it once it has ended."""
        if self._child:
            try:
                if os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                    return True
            except ChildProcessError:
                pass
            self._child = False
        return self._start_time is not None and start_time(self.pid) == self._start_time

    def become(self, claim: TaskLock) -> None:
        """It was started twice, and the other process was first."""
        self.pid, self._start_time, self.devices = claim.owner.pid, claim.owner.start_time, claim.devices


class LocalCluster(Cluster):
    """Runs tasks as processes of this machine; its queue is the list of live batches.

    Args:
        slots: Tasks at a time.
        devices: GPUs to share out; empty without GPUs.
        cpus: CPUs that tasks share; None: they are not counted.
        signal_s: A task is told so many seconds before its time limit, but not in its first half.
        environment: Variables added to each task's environment.
        python: Interpreter that runs the tasks.
        setup: Lines that bash runs before each task, in `workdir`.
    """

    settle_s = 0.0
    grace_s = 0.0

    def __init__(
        self,
        *,
        slots: int,
        devices: Sequence[str] = (),
        cpus: int | None = None,
        signal_s: int = 60,
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
        setup: Sequence[str] = (),
        workdir: str | None = None,
        poll_s: tuple[float, float] = (0.05, 0.5),
    ) -> None:
        self.poll_s = poll_s
        self._slots = slots
        self._devices = list(devices)
        self._cpus = cpus
        self._signal_s = signal_s
        self._environment = dict(environment or {})
        self._python = python
        self._setup = _setup_script(setup, workdir or ".") if setup else ""
        self._tasks: dict[TaskId, _Task] = {}
        self._known_batches: set[str] = set()
        self._cancelled: set[TaskId] = set()

    def submit(self, batch: Batch) -> str:
        """Take the batch in; its tasks start at the next polls, as slots are free."""
        files = BatchLayout(batch.folder)
        try:
            for folder in (files.results, files.logs, files.claims):
                make_dirs(folder)
        except OSError as error:
            raise SubmitRefused(f"{batch.folder}: cannot be written: {error.strerror}") from error
        if self._setup:
            with wrap_oserror(files.root):
                write_atomic(_setup_file(files), self._setup.encode())
        return "local"

    def problems(self, shape: TaskResources) -> list[str]:
        if shutil.which(self._python) is None:
            return [f"cluster.python: there is no such program on this machine: {self._python}"]
        return []

    def granted(self, run: TaskResources) -> TaskResources:
        gpus = run.gpus if self._devices else 0
        return msgspec.structs.replace(run, gpus=gpus)

    @property
    def total_gpus(self) -> int | None:
        return len(self._devices) if self._devices else None

    def find(self, name: str) -> str | None:
        """Always None: a batch is only taken in, so it may as well be planned again."""
        return None

    def limits(self) -> Limits:
        return Limits(slots=self._slots)

    def throttle(self, batch: SubmittedBatch, tasks: int) -> None:
        """Nothing to do: each poll goes by the throttle of the live batch."""

    def poll(self, live: Sequence[SubmittedBatch]) -> Mapping[TaskId, TaskState]:
        """What each open task does; starts waiting tasks where slots are free."""
        for batch in live:
            if batch.name not in self._known_batches:
                self._known_batches.add(batch.name)
                self._find_claims(batch)
        self._forget_ended(live)
        alive = {task_id for task_id, task in self._tasks.items() if self._alive(live, task_id, task)}
        free = self._slots - len(alive)
        shapes = {batch.name: batch.shape for batch in live}
        taken = sum(shapes[task.batch].cpus for task in alive if task.batch in shapes)
        states: dict[TaskId, TaskState] = {}
        for batch in live:
            ids = [TaskId(batch.name, index) for index in batch.open_tasks]
            running = 0
            for task_id in ids:
                if task_id in self._tasks:
                    running += task_id in alive
                    states[task_id] = TaskState(Phase.RUNNING if task_id in alive else Phase.COMPLETED)
            for task_id in ids:
                if task_id in self._tasks:
                    continue
                if task_id in self._cancelled:
                    states[task_id] = TaskState(Phase.CANCELLED)
                elif free > 0 and not self._fits(batch.shape, taken):
                    free = 0  # what comes after it waits as well, so that its turn comes
                    states[task_id] = TaskState(Phase.PENDING, "Resources")
                elif free > 0 and running < batch.throttle:
                    try:
                        self._tasks[task_id] = self._start(batch, task_id.task)
                    except OSError as error:
                        if shutil.which(self._python) is None:
                            gone = f"{self._python}: the Python that runs the tasks is gone"
                            raise SubmitRefused(f"{gone}: bring it back, or launch with another") from error
                        # Its folder is gone or closed to us: what it was to do starts in another batch.
                        self._cancelled.add(task_id)
                        _log.warning("%s: task %s cannot start: %s", batch.folder, task_id.task, error)
                        continue
                    states[task_id] = TaskState(Phase.RUNNING)
                    free, running, taken = free - 1, running + 1, taken + batch.shape.cpus
                else:
                    states[task_id] = TaskState(Phase.PENDING, "Resources")
        return states

    def cancel(self, batch: SubmittedBatch, tasks: Sequence[int]) -> None:
        """Ask running tasks to checkpoint and leave; waiting ones never start."""
        for index in tasks:
            task_id = TaskId(batch.name, index)
            if task_id in self._cancelled:
                continue
            self._cancelled.add(task_id)
            task = self._tasks.get(task_id)
            if task is not None and task.alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(task.pid, signal.SIGTERM)

    def _find_claims(self, batch: SubmittedBatch) -> None:
        """Processes of an earlier driver session that work, or worked, on this batch."""
        files = BatchLayout(batch.folder)
        for _, match in regular_files(files.claims, _CLAIM):
            index = int(match[1])
            claim = _read_claim(claim_path(files, index))
            found = _Task(0, [], start_time=-1)  # its writer died in it: as if it had run and ended
            if claim is not None:
                _refuse_elsewhere(files, index, claim)
                found.become(claim)
            self._tasks.setdefault(TaskId(batch.name, index), found)

    def _alive(self, live: Sequence[SubmittedBatch], task_id: TaskId, task: _Task) -> bool:
        if task.over:
            return False
        if task.alive():
            return True
        folder = next((batch.folder for batch in live if batch.name == task_id.batch), None)
        claim = _read_claim(claim_path(BatchLayout(folder), task_id.task)) if folder else None
        if claim is not None and claim.owner.pid != task.pid:
            task.become(claim)
            return True
        task.over = True
        return False

    def _forget_ended(self, live: Sequence[SubmittedBatch]) -> None:
        names = {batch.name for batch in live}
        for task_id in [t for t in self._tasks if t.batch not in names and not self._tasks[t].alive()]:
            del self._tasks[task_id]

    def _start(self, batch: SubmittedBatch, index: int) -> _Task:
        devices = self._free_devices()[: batch.shape.gpus]
        # A launch from inside a job has that job's variables around it.
        environment = {**without_launcher(os.environ), "OMP_NUM_THREADS": str(batch.shape.cpus)}
        environment |= {**self._environment, **task_variables(task=index, restart=0, job=f"local_{index}")}
        if self._devices:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        files = BatchLayout(batch.folder)
        command = bootstrap.command(
            self._python, "hpcsweep.cluster.local.task", str(batch.folder), str(index)
        )
        if self._setup:
            command = ["bash", str(_setup_file(files)), *command]
        alarm_s = alarm_after(batch.shape.time_s, signal_s=self._signal_s)
        log = open_append(files.log(index))
        try:
            pid = os.posix_spawnp(
                command[0],
                [*command, ",".join(devices), f"{alarm_s:g}"],
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ],
                setsid=True,
            )
        finally:
            os.close(log)
        return _Task(pid, devices)

    def _free_devices(self) -> list[str]:
        holders = (task for task in self._tasks.values() if not task.over and task.alive())
        taken = {device for task in holders for device in task.devices}
        return [device for device in self._devices if device not in taken]

    def _fits(self, shape: TaskResources, cpus: int) -> bool:
        """Whether there is room for one more task beside those that take so many CPUs."""
        if self._devices and len(self._free_devices()) < shape.gpus:
            return False
        return self._cpus is None or not cpus or cpus + shape.cpus <= self._cpus


def _setup_file(files: BatchLayout) -> Path:
    return files.root / "setup.sh"


def _setup_script(lines: Sequence[str], workdir: str) -> str:
    """Runs the lines, then becomes the task; where a line fails the task only says so."""
    task = '"${hpcsweep_task[@]}"'
    checked = setup_lines(lines, failed=f'exec {task} --setup-failed "$1" "$hpcsweep_line"')
    return f'hpcsweep_task=("$@")\ncd {shlex.quote(workdir)} || exit 1\n{checked}\nexec {task}\n'


def _refuse_elsewhere(files: BatchLayout, task: int, claim: TaskLock) -> None:
    """Of a process on another machine nothing can be known, so its task must not start here."""
    host, over = claim.owner.host, False
    for folder, end in ((files.results, ".json"), (files.tasks, ".left.json")):
        with contextlib.suppress(OSError):
            over = over or any(n.startswith(f"{task}.") and n.endswith(end) for n in os.listdir(folder))
    if host != socket.gethostname() and not over:
        raise FolderError(
            f"{files.root}: task {task} was started on {host} and has no result yet; launch there, or if "
            f"that machine is gone for good, remove {claim_path(files, task)}"
        )


def _read_claim(path: Path) -> TaskLock | None:
    """The claim; None if there is none or its writer died before it was written."""
    deadline = time.monotonic() + _CLAIM_S
    while True:
        try:
            return msgspec.json.decode(read_bytes(path, at_most=SMALL_BYTES), type=TaskLock)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FolderError(
                f"{path}: cannot be read: {error.strerror}; it says which process runs a task: make it "
                "readable, or remove it if no process of this sweep runs on this machine"
            ) from error
        except msgspec.MsgspecError:
            age = time.time() - path.stat().st_mtime
            if age > _CLAIM_S or time.monotonic() > deadline:
                return None
            time.sleep(0.05)


def local_gpus() -> list[str]:
    """Names of this machine's NVIDIA GPUs as CUDA_VISIBLE_DEVICES takes them; empty if none."""
    inherited = os.environ.get("CUDA_VISIBLE_DEVICES")
    if inherited is not None:
        return [name.strip() for name in inherited.split(",") if name.strip() not in ("", "-1")]
    proc = Path("/proc/driver/nvidia/gpus")
    try:
        return [str(index) for index in range(len(os.listdir(proc)))]
    except OSError:
        return []


def local_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def nvidia_gpus() -> tuple[list[str], str]:
    """The GPUs that nvidia-smi lists, and what it complains of; both empty where there is none."""
    try:
        answer = processes.run_process(["nvidia-smi", "-L"], timeout_s=SMI_S)
    except FileNotFoundError:
        return [], ""
    except OSError as error:
        return [], one_line(str(error))
    if answer.code is None:
        return [], f"no answer within {SMI_S:g} s"
    if answer.code:
        return [], one_line(answer.err or answer.out) or f"exit status {answer.code}"
    lines = [line.strip() for line in answer.out.splitlines() if line.startswith("GPU ")]
    # GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5c1f...)
    return [line.partition(": ")[2].partition(" (UUID")[0] for line in lines], ""
