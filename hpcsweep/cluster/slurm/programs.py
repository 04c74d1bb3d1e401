"""Calling Slurm's programs: with which environment, and what sbatch's answer means for the job."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hpcsweep.cluster import processes
from hpcsweep.cluster.processes import ProcessResult
from hpcsweep.cluster.slurm.options import OptionValue
from hpcsweep.errors import ClusterUnavailable, SubmitLimited, SubmitRefused, SubmitUncertain

#: How long squeue, scontrol and scancel may take: a client can hang while a daemon is down.
QUERY_S: Final = 60.0


def run(argv: Sequence[str], *, timeout_s: float) -> ProcessResult:
    """As `processes.run`."""
    return processes.run(argv, timeout_s=timeout_s, env=environment())


def check_output(argv: Sequence[str], *, timeout_s: float) -> str:
    """As `processes.check_output`."""
    return processes.check_output(argv, timeout_s=timeout_s, env=environment())


#: What scontrol and scancel say of tasks that have ended; scontrol adds "No error" for the rest.
_ENDED: Final = re.compile(
    r"already finished|already completing|already completed|invalid job id|no error", re.IGNORECASE
)


def only_ended(answer: ProcessResult) -> bool:
    """Whether a failed scontrol or scancel complains of nothing but tasks that have ended."""
    lines = [line for line in f"{answer.err}\n{answer.out}".split("\n") if line.strip()]
    return bool(lines) and all(_ENDED.search(line) for line in lines)


def ranges(numbers: Sequence[int], *, width: int = 0) -> list[str]:
    """Numbers as Slurm writes them, filled up with zeros: `[0, 1, 2, 7]` -> `["0-2", "7"]`."""
    parts: list[str] = []
    first = last = -2
    for number in [*sorted(set(numbers)), None]:
        if number is not None and number == last + 1:
            last = number
            continue
        if last >= 0:
            end = "" if first == last else f"-{last:0{width}}"
            parts.append(f"{first:0{width}}{end}")
        if number is not None:
            first = last = number
    return parts


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
    """The variables of sbatch that our submissions do not see."""
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
    """What `--export` means as sbatch will see it."""
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


#: sbatch itself retries for up to 120 s.
SBATCH_S: Final = 140.0
TEST_S: Final = 30.0
HELD_S: Final = 60.0

#: What sbatch says, once, where the controller takes no more jobs now. It tries again for 120 s: after
#: a first sleep of 1 s, so that an end within the second is sure to come before the next try.
_RETRYING: Final = re.compile(
    r"(queue full|unable to accept job), sleeping and retrying|temporarily disabled, retrying"
)
SLEEP_S: Final = 1.0

#: Whoever says this may not know whether the controller took the job.
_OPEN: Final = re.compile(
    r"timed out|unable to contact|communication|connect|zero bytes|unexpected message|transmi"
    r"|authentication|munge|protocol",
    re.IGNORECASE,
)
_REFUSAL: Final = re.compile(r"batch job submission failed|sbatch: (error|fatal)|invalid|unrecognized", re.I)

#: The reason of a submit limit, or that the controller's table of jobs is full.
_LIMIT: Final = re.compile(
    r"(Assoc|QOS)(Grp|Max)Submit|job queue full|resource temporarily unavailable"
    r"|unable to accept job|job creation temporarily disabled",
    re.IGNORECASE,
)
#: Slurm's one message for all limits; before 20.11 no reason comes with it.
_POLICY: Final = "violates accounting/QOS policy"
_REASON: Final = re.compile(r"\b(Assoc|QOS)[A-Z]\w+")

#: Refusals of `--test-only` that come from the state of the nodes and not from the request.
_PASSING: Final = re.compile(r"down, drained|are busy|is in use|not usable now|unable to accept", re.I)
_CONFIGURATION: Final = "node configuration is not available"

_ID: Final = re.compile(r"^(\d+)(?:;\S*)?\s*$", re.MULTILINE)


def submit(script: Path | str, *, cwd: Path, drop: Container[str] = ()) -> tuple[str, str]:
    """Submit the script, a file or its text; the job id, and what sbatch warned of."""
    argv = ["sbatch", "--parsable", *([str(script)] if isinstance(script, Path) else [])]
    text = "" if isinstance(script, Path) else script
    try:
        env = submission_environment(drop=drop)
        answer = processes.run_process(
            argv, timeout_s=SBATCH_S, cwd=cwd, env=env, stdin=text, until=_RETRYING
        )
    except OSError as error:
        raise SubmitRefused(f"sbatch: cannot be run: {error.strerror}") from error
    if answer.code is None:
        raise SubmitUncertain(f"sbatch: no answer within {SBATCH_S:g} s")
    if answer.code != 0:
        kind = _kind(answer)
        if kind is SubmitUncertain:
            raise SubmitUncertain(f"sbatch: {answer.message}", refused=_is_own_words(answer))
        raise kind(answer.message)
    job = job_id(answer.out)
    if not job:
        # Where no job shows later, it was a refusal.
        raise SubmitUncertain(f"sbatch: succeeded, but gave no job id: {answer.message}", refused=True)
    return job, answer.err.strip()


def job_id(text: str) -> str:
    """The job id in what `sbatch --parsable` printed, empty if there is none."""
    found = _ID.findall(text)  # a site's banners may stand around it
    return found[-1] if found else ""


def try_submitting(script: str, name: str) -> str:
    """Submit the script as a job that is held, look at it, and cancel it; why not, empty if all went well."""
    try:
        answer = run(["sbatch", "--parsable", "--hold", script], timeout_s=HELD_S)
        if answer.code != 0:
            return "" if submit_limited(answer.message) else f"sbatch: {answer.message}"
        # By id: a site may have given it another name.
        job = job_id(answer.out)
        which = [job] if job else [f"--name={name}"]
        try:
            check_output(["squeue", "--me", "-h", f"--name={name}", "-o", "%A"], timeout_s=HELD_S)
        finally:
            check_output(["scancel", f"--user={os.getuid()}", *which], timeout_s=HELD_S)
    except ClusterUnavailable as error:
        return str(error)
    return ""


def refusal(text: str, *, all_nodes_up: bool, drop: Container[str] = ()) -> str | None:
    """Why Slurm would never take this script, in its own words; None if it would, or did not say.

    Args:
        text: The script; nothing is submitted.
        all_nodes_up: Whether every node is up that it may run on. To Slurm nodes that are down
            have no configuration, so that nothing seems to fit.
        drop: Variables of ours that sbatch does not see.
    """
    argv = ["sbatch", "--test-only"]
    try:
        env = submission_environment(drop=drop)
        answer = processes.run_process(argv, timeout_s=TEST_S, env=env, stdin=text, until=_RETRYING)
    except OSError as error:
        return f"sbatch: cannot be run: {error.strerror}"
    message = answer.message
    if not answer.code or answer.code < 0 or _OPEN.search(message) or _PASSING.search(message):
        return None
    if submit_limited(message) or (_CONFIGURATION in message and not all_nodes_up):
        return None
    return " ".join(message.split())


def _kind(answer: ProcessResult) -> type[SubmitRefused | SubmitUncertain]:
    """The error of an sbatch that did not exit with 0."""
    assert answer.code is not None
    message = f"{answer.err}\n{answer.out}"
    if answer.stopped_s is not None and not _ID.search(answer.out):
        # Ended in its sleep: for certain only if it cannot have woken up.
        return SubmitLimited if answer.stopped_s < SLEEP_S else SubmitUncertain
    if answer.code < 0 or _OPEN.search(message) or not _REFUSAL.search(message):
        return SubmitUncertain
    return SubmitLimited if submit_limited(message) else SubmitRefused


def _is_own_words(answer: ProcessResult) -> bool:
    """Whether sbatch, or what stands in its place, ended with an error that we do not know."""
    ended = answer.code is not None and answer.code > 0 and answer.stopped_s is None
    return ended and not _OPEN.search(f"{answer.err}\n{answer.out}")


def submit_limited(message: str) -> bool:
    """Whether sbatch speaks of how many jobs there may be, and not of the job itself."""
    return bool(_LIMIT.search(message)) or (_POLICY in message and not _REASON.search(message))
