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

#: Of the task, and of the process that drives a detached sweep on: not the training's business.
_TASK: Final = frozenset(
    {"HPCSWEEP_JOB", "HPCSWEEP_NODE", "HPCSWEEP_TASK", "HPCSWEEP_RESTART", "HPCSWEEP_TICK"}
)


class TaskContext(msgspec.Struct, frozen=True):
    """One start of a task: which one, and where it runs.

    Attributes:
        restart: The cluster's own count of this task's starts, from 0.
        scratch: A private folder of this node.
        environ: The environment of the task.
        modules: Where training finds this package, None where it needs no help; see `modules_folder`.
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
    """The environment of one run's process: `base` and its own variables; docs/environment.md has it all.

    Args:
        base: The task's environment; another run's variables and those of the task are left out.
        run: What the run is to do.
        program: Of the sweep. Of a copy of its code modules are imported from the copy.
        run_file: Where that is written.
        devices: The GPUs that it may see; None leaves them as they are in `base`.
        python: The interpreter for `$HPCSWEEP_PYTHON -m hpcsweep.trial`.
        modules: Folder in which `python` finds this package, where it does not by itself.
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
    """The variable of a parameter: upper case, and `_` for all but ASCII letters and digits.

    `lr` is `HPCSWEEP_PARAM_LR`, `optimizer.beta-1` is `HPCSWEEP_PARAM_OPTIMIZER_BETA_1`.
    """
    return "HPCSWEEP_PARAM_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def snapshot_paths(paths: Sequence[str], copied: CodeSnapshot) -> list[str]:
    """Folders where modules are searched, those of the original code replaced by their copies."""
    moved = [(path, copied.path_in_copy(path) if path else None) for path in paths]
    return [copy if copy and os.path.isdir(copy) else path for path, copy in moved]


def modules_folder(folder: Path) -> Path | None:
    """A new folder that holds this package alone; None where the interpreter finds the package itself.

    It goes on the PYTHONPATH of training, where a checkout would show whatever lies beside the package.
    """
    if not bootstrap.was_needed():
        return None
    folder.mkdir()
    package = Path(bootstrap.PACKAGE)
    (folder / package.name).symlink_to(package)
    return folder


def lane_devices(visible: str | None, *, gpus: int, lanes: int) -> list[list[str] | None]:
    """The GPUs of each lane, disjoint unless there are more lanes than GPUs.

    The task's own list is divided by position: its entries may be numbers, UUIDs or MIG names.
    One lane keeps what the task has (None), and so do all lanes of a task without GPUs.

    Args:
        visible: `CUDA_VISIBLE_DEVICES` of the task, None or empty if it has none.
        gpus: GPUs of the task, for when there is no list.
        lanes: Runs at a time.
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
