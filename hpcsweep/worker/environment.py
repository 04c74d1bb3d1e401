"""The context of a task, and the environment of its runs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from hpcsweep import bootstrap
from hpcsweep.store.batch import CodeSnapshot, Header, Program
from hpcsweep.store.layout import BatchLayout
from hpcsweep.store.run_file import RunFile
from hpcsweep.worker.command import as_text

_OWN = (
    "HPCSWEEP_RUN",
    "HPCSWEEP_TRIAL",
    "HPCSWEEP_RUNG",
    "HPCSWEEP_RESOURCE",
    "HPCSWEEP_START",
    "HPCSWEEP_SEED",
    "HPCSWEEP_CHECKPOINT_DIR",
    "HPCSWEEP_RESUME_FROM",
    "HPCSWEEP_STOP_FILE",
    "HPCSWEEP_PYTHON",
    "HPCSWEEP_WORKDIR",
)

#: Of the task and of its tick; not for training code.
_TASK: Final = frozenset(
    {"HPCSWEEP_JOB", "HPCSWEEP_NODE", "HPCSWEEP_TASK", "HPCSWEEP_RESTART", "HPCSWEEP_TICK"}
)


class TaskContext(msgspec.Struct, frozen=True):
    """One start of a task.

    Attributes:
        restart: The cluster's count of this task's earlier starts.
        scratch: A private folder of this node.
        environ: The environment of the task.
        modules: See `modules_folder`.
    """

    batch: BatchLayout
    header: Header
    task: int
    restart: int
    job: str
    node: str
    scratch: Path
    environ: Mapping[str, str]
    modules: Path | None = None


def run_environment(
    base: Mapping[str, str],
    run: RunFile,
    program: Program,
    *,
    run_file: Path,
    devices: Sequence[str] | None,
    python: str,
    modules: Path | None = None,
) -> dict[str, str]:
    """The environment of one run's process; docs/environment.md describes it.

    `base` is the task's environment; variables of tasks and other runs are left out. `devices` are the GPUs
    that the run may see, None for those of the task. `python` becomes HPCSWEEP_PYTHON. `modules` is put on
    PYTHONPATH.
    """
    environ = {
        name: value
        for name, value in base.items()
        if name not in _OWN and name not in _TASK and not name.startswith("HPCSWEEP_PARAM_")
    }
    values: dict[str, Any] = {
        "HPCSWEEP_RUN": str(run_file),
        "HPCSWEEP_TRIAL": run.trial,
        "HPCSWEEP_RUNG": run.rung,
        "HPCSWEEP_RESOURCE": run.resource,
        "HPCSWEEP_START": run.start,
        "HPCSWEEP_SEED": run.seed,
        "HPCSWEEP_CHECKPOINT_DIR": run.checkpoint_dir,
        "HPCSWEEP_RESUME_FROM": run.resume_from,
        "HPCSWEEP_STOP_FILE": run.stop_file,
        "HPCSWEEP_PYTHON": python,
        "HPCSWEEP_WORKDIR": program.snapshot.workdir if program.snapshot else program.workdir,
    }
    values |= {parameter_variable(name): value for name, value in run.config.items()}
    environ |= {name: as_text(value) for name, value in values.items()}
    if devices is not None:
        environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    # A log that is written block by block shows nothing while training runs, and loses its end.
    environ.setdefault("PYTHONUNBUFFERED", "1")
    if program.snapshot is not None and "PYTHONPATH" in environ:
        paths = environ["PYTHONPATH"].split(os.pathsep)
        environ["PYTHONPATH"] = os.pathsep.join(snapshot_paths(paths, program.snapshot))
    if modules is not None:
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [environ.get("PYTHONPATH", ""), str(modules)]))
    return environ


def parameter_variable(name: str) -> str:
    """The variable of a parameter: upper case, `_` for all but ASCII letters and digits.

    `lr` is `HPCSWEEP_PARAM_LR`, `optimizer.beta-1` is `HPCSWEEP_PARAM_OPTIMIZER_BETA_1`.
    """
    return "HPCSWEEP_PARAM_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def snapshot_paths(paths: Sequence[str], copied: CodeSnapshot) -> list[str]:
    """The module search path with folders of the original code replaced by their copies."""
    moved = [(path, copied.path_in_copy(path) if path else None) for path in paths]
    return [copy if copy and os.path.isdir(copy) else path for path, copy in moved]


def modules_folder(folder: Path) -> Path | None:
    """A new folder with this package alone, for PYTHONPATH; None if the interpreter finds the package anyway.

    A checkout on PYTHONPATH would show whatever lies beside the package.
    """
    if not bootstrap.was_needed():
        return None
    folder.mkdir()
    package = Path(bootstrap.PACKAGE)
    (folder / package.name).symlink_to(package)
    return folder


def lane_devices(visible: str | None, *, gpus: int, lanes: int) -> list[list[str] | None]:
    """The GPUs of each lane, disjoint unless there are more lanes than GPUs; None: those of the task.

    The entries of `visible` (`CUDA_VISIBLE_DEVICES`, which may be numbers, UUIDs or MIG names) are divided
    by position; without them `gpus` are numbered from 0.
    """
    names = [name.strip() for name in (visible or "").split(",") if name.strip()]
    names = names or [str(position) for position in range(gpus)]
    if lanes <= 1 or not names or not gpus:
        return [None] * max(lanes, 1)
    shares: list[list[str] | None] = []
    for lane in range(lanes):
        first = lane * len(names) // lanes
        shares.append(names[first : max((lane + 1) * len(names) // lanes, first + 1)])
    return shares
