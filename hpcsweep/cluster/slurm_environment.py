"""The environment in which Slurm's programs are called, from a login node or from inside a job."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable, Mapping
from typing import Final

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


#: sbatch reads these variables in preference to the script: what the script sets is not left to them.
_SBATCH_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "array": ("ARRAY_INX",),
    "time": ("TIMELIMIT",),
    "requeue": ("NO_REQUEUE",),
    "mem": ("MEM_PER_NODE", "MEM_PER_CPU", "MEM_PER_GPU"),
    "gres": ("GPUS", "GPUS_PER_NODE", "GPUS_PER_TASK"),
}


def environment() -> dict[str, str]:
    """For programs whose output is read: less our own job, and what would change its form or language."""
    ours = _without_our_job(os.environ)
    return {key: value for key, value in ours.items() if not key.startswith((*_FOREIGN, "LC_"))} | {
        "LC_ALL": "C"
    }


def exported(*, drop: Container[str] = ()) -> dict[str, str]:
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


def shadowing(options: Iterable[str]) -> frozenset[str]:
    """The variables by which sbatch would override these options, and one that makes it wait."""
    names = {
        name for key in options for name in (key.upper().replace("-", "_"), *_SBATCH_VARIABLES.get(key, ()))
    }
    return frozenset({f"SBATCH_{name}" for name in names} | {"SBATCH_WAIT", "SBATCH_CLUSTERS"})
