"""What a run's process is given: its arguments (see `worker.template`), its environment and its GPUs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from hpcsweep import bootstrap
from hpcsweep.core.text import shell_join, shell_quote
from hpcsweep.store.batch import CodeSnapshot, Header, Program
from hpcsweep.store.layout import BatchLayout
from hpcsweep.store.run_files import RunFile
from hpcsweep.worker.template import PLACEHOLDERS, Style, as_text, parse_template

_SHELLS: Final = re.compile(r"(?:ba|da|k|z)?sh")
#: Messages of shells and env about a script with carriage returns.
_CR_MESSAGE: Final = re.compile(r"\^M\b|\\r\b|\$'[^']*\\r'")
_HEAD: Final = 4096
#: Of the task and of its tick; not for training code.
_TASK: Final = frozenset(
    {
        "HPCSWEEP_JOB",
        "HPCSWEEP_NODE",
        "HPCSWEEP_NODES",
        "HPCSWEEP_TASK",
        "HPCSWEEP_RESTART",
        "HPCSWEEP_TICK",
        "HPCSWEEP_START",
        "HPCSWEEP_ADDRESS",
    }
)
#: Path of the run's file; no other run's process has the same value.
RUN_VARIABLE: Final = "HPCSWEEP_RUN"
_PARAMETER: Final = "HPCSWEEP_PARAM_"
_RUN: Final = frozenset(
    {RUN_VARIABLE}
    | {
        f"HPCSWEEP_{name}"
        for name in (
            "TRIAL",
            "RUNG",
            "RESOURCE",
            "START",
            "SEED",
            "CHECKPOINT_DIR",
            "OUTPUT_DIR",
            "RESUME_FROM",
            "STOP_FILE",
        )
    }
)


def program_arguments(
    program: Program, file: RunFile, *, ending: Path, python: str, resumes: bool = False
) -> list[str]:
    """The arguments of a run's process: the command, or the entrypoint of the function.

    Args:
        program: How to run a trial.
        file: What the run is to do.
        ending: Where the entrypoint writes how the function failed.
        python: The interpreter; it also replaces `{python}`.
        resumes: There is something to resume from: `train.resume` adds its arguments.

    Raises:
        TrainerError: The command is wrong.
    """
    if program.command is None:
        return function_arguments(program, str(ending), python=python)
    command = f"{program.command} {program.resume_args}" if resumes else program.command
    template = parse_template(command, shell=program.shell, parameters=program.parameters)
    values = placeholder_values(program, file, python=python)
    style = Style(program.flags, program.dashes, program.formats)
    if program.shell:
        return [shutil.which("bash") or "/bin/sh", "-c", template.line(values, file.config, style)]
    return template.arguments(values, file.config, style)


def write_config_file(program: Program, file: RunFile) -> None:
    """Write the run's config file, if it has one: with the parameters that the command does not name.

    Raises:
        TrainerError: The base has no place for a parameter.
        OSError: It cannot be written.
    """
    if program.config is None or program.command is None or file.config_file is None:
        return
    from hpcsweep.worker import config_file

    template = parse_template(program.command, shell=program.shell, parameters=program.parameters)
    values = {name: value for name, value in file.config.items() if name not in template.names}
    config_file.write(program.config, values, Path(file.config_file))


def command_line(argv: Sequence[str]) -> str:
    """The arguments as one line to read and to paste into a shell."""
    line = (
        argv[2] if len(argv) == 3 and argv[1] == "-c" and _SHELLS.fullmatch(os.path.basename(argv[0])) else ""
    )
    return line if line and line.isprintable() else shell_join(argv)


def placeholder_values(program: Program, file: RunFile, *, python: str) -> dict[str, Any]:
    """The value of each placeholder; None where there is none."""
    values = {name: getattr(file, name) for name in PLACEHOLDERS if name != "python"}
    return values | {"python": python, **dict.fromkeys(program.parameters), **file.config}


def function_arguments(program: Program, ending: str, *, python: str) -> list[str]:
    """The arguments of the process of a function; see `worker.entrypoint`."""
    child = [python, "-P", "-m", "hpcsweep.worker.entrypoint", program.function or "", ending]
    return child + ([program.snapshot.root, program.snapshot.code] if program.snapshot else [])


def unrunnable_reason(argv: Sequence[str], *, workdir: str, environ: Mapping[str, str]) -> str:
    """Why the program could not be started; empty if unknown."""
    path = _which(argv[0], workdir=workdir, environ=environ)
    if path is None:
        return ""
    first = _head(path).split(b"\n", 1)[0]
    if not first.startswith(b"#!"):
        return ""
    if first.endswith(b"\r"):
        return _windows(argv[0])
    interpreter = first[2:].split()[:1]
    if interpreter and not os.path.exists(interpreter[0]):
        return f"{argv[0]}: its first line asks for {os.fsdecode(interpreter[0])}, which is not there"
    return ""


def line_ending_problem(argv: Sequence[str], message: str, *, workdir: str) -> str:
    """A script of the failed command with Windows line endings, as a message; empty if none is found."""
    for script in _scripts(argv):
        path = os.path.join(workdir, script)
        head = _head(path)
        if b"\0" not in head and head.split(b"\n", 1)[0].endswith(b"\r"):
            return _windows(script)
    if _CR_MESSAGE.search(message):
        return "a script with Windows line ends (CRLF)? `sed -i 's/\\r$//' SCRIPT` fixes it"
    return ""


def _windows(script: str) -> str:
    return (
        f"{script}: has Windows line ends (CRLF), which Linux takes for part of each line; "
        f"`sed -i 's/\\r$//' {shell_quote(script)}` fixes it"
    )


def _scripts(argv: Sequence[str]) -> Iterator[str]:
    """Scripts that a shell runs; Python and others accept Windows line endings."""
    if len(argv) == 3 and argv[1] == "-c" and _SHELLS.fullmatch(os.path.basename(argv[0])):
        try:
            argv = shlex.split(argv[2])
        except ValueError:
            argv = argv[2].split()
    for index, argument in enumerate(argv):
        before = os.path.basename(argv[index - 1]) if index else ""
        if os.path.sep in argument or _SHELLS.fullmatch(before) or argument.endswith((".sh", ".bash")):
            yield argument


def _which(program: str, *, workdir: str, environ: Mapping[str, str]) -> str | None:
    if os.path.sep in program:
        path = os.path.join(workdir, program)
        return path if os.path.isfile(path) else None
    return shutil.which(program, path=environ.get("PATH"))


def _head(path: str) -> bytes:
    try:
        if not os.path.isfile(path):
            return b""
        with open(path, "rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""


class TaskContext(msgspec.Struct, frozen=True):
    """One start of a task."""

    batch: BatchLayout
    header: Header
    task: int
    restart: int  # the cluster's count of this task's earlier starts
    job: str
    node: str
    scratch: Path  # a private folder of this node
    environ: Mapping[str, str]
    modules: Path | None = None  # see `modules_folder`


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

    The arguments are those of `shared_environment` and `run_variables`.
    """
    shared = shared_environment(base, program, devices=devices, python=python, modules=modules)
    return shared | run_variables(run, run_file)


def run_variables(run: RunFile, run_file: Path) -> dict[str, str]:
    """The variables that differ from run to run."""
    values: dict[str, Any] = {
        RUN_VARIABLE: str(run_file),
        "HPCSWEEP_TRIAL": run.trial,
        "HPCSWEEP_RUNG": run.rung,
        "HPCSWEEP_RESOURCE": run.resource,
        "HPCSWEEP_START": run.start,
        "HPCSWEEP_SEED": run.seed,
        "HPCSWEEP_CHECKPOINT_DIR": run.checkpoint_dir,
        "HPCSWEEP_OUTPUT_DIR": run.output_dir,
        "HPCSWEEP_RESUME_FROM": run.resume_from,
        "HPCSWEEP_STOP_FILE": run.stop_file,
    }
    values |= {parameter_variable(name): value for name, value in run.config.items()}
    return {name: as_text(value) for name, value in values.items()}


def shared_environment(
    base: Mapping[str, str],
    program: Program,
    *,
    devices: Sequence[str] | None,
    python: str,
    modules: Path | None = None,
) -> dict[str, str]:
    """What the environments of all runs of a lane have in common.

    `base` is the task's environment; variables of tasks and other runs are left out. `devices` are the GPUs
    that the runs may see, None for those of the task. `modules` is put on PYTHONPATH.
    """
    environ = {
        name: value
        for name, value in base.items()
        if name not in _RUN and name not in _TASK and not name.startswith(_PARAMETER)
    }
    environ["HPCSWEEP_PYTHON"] = python
    environ["HPCSWEEP_WORKDIR"] = program.snapshot.workdir if program.snapshot else program.workdir
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
    """The variable of a parameter; that of `optimizer.beta-1` is `HPCSWEEP_PARAM_OPTIMIZER_BETA_1`."""
    return _PARAMETER + re.sub(r"[^A-Z0-9]", "_", name.upper())


def snapshot_paths(paths: Sequence[str], copied: CodeSnapshot) -> list[str]:
    """The module search path with folders of the original code replaced by their copies."""
    moved = [(path, copied.path_in_copy(path) if path else None) for path in paths]
    return [copy if copy and os.path.isdir(copy) else path for path, copy in moved]


def modules_folder(folder: Path) -> Path | None:
    """A new folder with this package alone, for PYTHONPATH; None if the interpreter finds it anyway."""
    if not bootstrap.was_needed():
        return None
    folder.mkdir()
    package = Path(bootstrap.PACKAGE)
    (folder / package.name).symlink_to(package)
    return folder


def lane_devices(visible: str | None, *, gpus: int, lanes: int) -> list[list[str] | None]:
    """The GPUs of each lane, disjoint unless there are more lanes than GPUs; None: those of the task.

    Those of `visible` (`CUDA_VISIBLE_DEVICES`: numbers, UUIDs or MIG names), else `gpus` from 0 on.
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
