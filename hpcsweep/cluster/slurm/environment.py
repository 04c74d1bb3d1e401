"""The environment in which Slurm's programs are called, from a login node or from inside a job."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Mapping
from typing import Final, NamedTuple

from hpcsweep.cluster.slurm.options import OptionValue

#: Variables that filter or reshape what these programs show: a user's SQUEUE_PARTITION would make
#: running jobs look gone.
_FOREIGN: Final = ("SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_", "SINFO_")
#: Of a job's own variables sbatch must see none: a task that submits would hand its restart
#: count, its memory and its CPU binding on to the jobs it submits.
_JOB: Final = ("SLURM_", "SLURMD_")
#: Of a task or a run: a sweep launched from inside one would take them for its own.
_OWN: Final = "HPCSWEEP_"
_KEPT: Final = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT"})
#: The devices that a job was given. A job without GPUs would inherit them.
_DEVICES: Final = frozenset(
    {"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK"}
)
_TEMPORARY: Final = frozenset({"TMPDIR", "TMP", "TEMP"})
#: Lists to which each job's set-up prepends: a job that submits the next would make them grow for ever.
_SEARCH_PATHS: Final = frozenset(
    {
        "PATH",
        "PYTHONPATH",
        "LD_LIBRARY_PATH",
        "LIBRARY_PATH",
        "CPATH",
        "C_INCLUDE_PATH",
        "CPLUS_INCLUDE_PATH",
        "PKG_CONFIG_PATH",
        "CMAKE_PREFIX_PATH",
        "MANPATH",
        "INFOPATH",
        "MODULEPATH",
        "XDG_DATA_DIRS",
    }
)


#: sbatch reads its variables in preference to the script. These name where the user's jobs go and how they
#: are launched; every other one could change what a task holds, how many there are or where its files go.
_PASSED_ON: Final = frozenset(
    f"SBATCH_{name}"
    for name in [
        "ACCOUNT",
        "ACCTG_FREQ",
        "BATCH",
        "BURST_BUFFER",
        "CONSTRAINT",
        "CONTAINER",
        "CONTAINER_ID",
        "CPU_FREQ_REQ",
        "DEBUG",
        "DELAY_BOOT",
        "DISTRIBUTION",
        "EXCLUDE",
        "EXPORT",
        "GET_USER_ENV",
        "GPU_BIND",
        "GPU_FREQ",
        "GRES_FLAGS",
        "HINT",
        "IGNORE_PBS",
        "MEM_BIND",
        "MEM_BIND_LIST",
        "MEM_BIND_PREFER",
        "MEM_BIND_SORT",
        "MEM_BIND_TYPE",
        "MEM_BIND_VERBOSE",
        "NETWORK",
        "NO_KILL",
        "PARTITION",
        "POWER",
        "PROFILE",
        "QOS",
        "REQ_SWITCH",
        "RESERVATION",
        "THREADS_PER_CORE",
        "TIMELIMIT",
        "TRES_BIND",
        "USE_MIN_NODES",
        "WAIT4SWITCH",
        "WAIT_ALL_NODES",
        "WCKEY",
    ]
)


def environment() -> dict[str, str]:
    """For programs whose output is read: less our own job, and what would change its form or language."""
    ours = _without_our_job(os.environ)
    return {key: value for key, value in ours.items() if not key.startswith((*_FOREIGN, "LC_"))} | {
        "LC_ALL": "C"
    }


def submission_environment(*, drop: Container[str] = ()) -> dict[str, str]:
    """For sbatch, which hands it on to the jobs: the user's own, the language included.

    What sbatch says is the same in every language.

    Args:
        drop: Variables that would override the script.
    """
    ours = _without_our_job(os.environ)
    return {key: value for key, value in ours.items() if key not in drop and not key.startswith(_OWN)}


def _without_our_job(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment, less what belongs to the job that we run in, if any."""
    ours = {key: value for key, value in environ.items() if not key.startswith(_JOB) or key in _KEPT}
    jobs = {environ[key] for key in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID") if environ.get(key)}
    if not jobs:
        return ours
    # A folder that bears the job's number is the site's gift to this job, and goes with it.
    job = re.compile(rf"(?<!\d)({'|'.join(map(re.escape, sorted(jobs)))})(?!\d)")
    return {
        key: _without_repeats(value) if key in _SEARCH_PATHS else value
        for key, value in ours.items()
        if key not in _DEVICES and not (key in _TEMPORARY and job.search(value))
    }


def _without_repeats(paths: str) -> str:
    """The list with the first of equal entries only, which is the one that counts."""
    return ":".join(dict.fromkeys(paths.split(":")))


def overriding_variables(options: Container[str] = ()) -> frozenset[str]:
    """The variables of sbatch that our submissions do not see.

    Args:
        options: What the script sets itself, by long names: the script has the last word there.
    """
    names = {name for name in os.environ if name.startswith("SBATCH_")}
    ours = {name for name in names if name.removeprefix("SBATCH_").lower().replace("_", "-") in options}
    timed = {"SBATCH_TIMELIMIT"} if "time" in options else set()
    return frozenset((names - _PASSED_ON) | ours | timed)


class Export(NamedTuple):
    """What sbatch hands on of the environment in which it is called.

    Attributes:
        source: Which option or variable says so, with what it says; values are left out.
        names: Variables that it hands on; None if all.
    """

    source: str
    names: list[str] | None


def export_of(options: Mapping[str, OptionValue], *, dropped: Container[str]) -> Export:
    """What `--export` means as sbatch will see it.

    Args:
        options: Of the script, all of them, by long names.
        dropped: Variables that sbatch does not see.
    """
    value = options.get("export")
    source, export = "--export", "ALL" if value in (None, False) else str(value)
    if "SBATCH_EXPORT" in os.environ and "SBATCH_EXPORT" not in dropped:
        source, export = "SBATCH_EXPORT", os.environ["SBATCH_EXPORT"]
    names = [each.partition("=")[0].strip() for each in export.split(",")]
    said = f"{source}={','.join(names)}"
    if "ALL" in map(str.upper, names):
        return Export(said, None)
    return Export(said, [name for name in names if name and name.upper() not in ("NONE", "NIL")])


def passed_variables(dropped: Container[str]) -> str:
    """The variables of sbatch that our submissions see, `NAME=value` each; empty if there are none."""
    return ", ".join(
        f"{name}={value}"
        for name, value in sorted(os.environ.items())
        if name.startswith("SBATCH_") and name not in dropped
    )
