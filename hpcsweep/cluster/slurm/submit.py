"""Calling sbatch: a job id, or an error that says whether the job may have been accepted."""

from __future__ import annotations

import os
import re
from collections.abc import Container
from pathlib import Path
from typing import Final

from hpcsweep.cluster import processes
from hpcsweep.cluster.processes import ProcessResult
from hpcsweep.cluster.slurm import programs
from hpcsweep.cluster.slurm.environment import submission_environment
from hpcsweep.errors import ClusterUnavailable, SubmitLimited, SubmitRefused, SubmitUncertain

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
    """Submit the script, a file or its text; the job id, and what sbatch warned of.

    Raises:
        SubmitRefused: It was refused for certain, with sbatch's own words.
        SubmitLimited: It was refused for certain, and may be accepted later or in smaller pieces.
        SubmitUncertain: It may have been accepted.
    """
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
    """Submit the script as a job that is held, look at it, and cancel it; why not, empty if all went well.

    Args:
        script: The script's file.
        name: The job name in it.
    """
    try:
        answer = programs.run(["sbatch", "--parsable", "--hold", script], timeout_s=HELD_S)
        if answer.code != 0:
            return "" if submit_limited(answer.message) else f"sbatch: {answer.message}"
        # By id: a site may have given it another name.
        job = job_id(answer.out)
        which = [job] if job else [f"--name={name}"]
        try:
            programs.check_output(["squeue", "--me", "-h", f"--name={name}", "-o", "%A"], timeout_s=HELD_S)
        finally:
            programs.check_output(["scancel", f"--user={os.getuid()}", *which], timeout_s=HELD_S)
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
    words = answer.message
    if not answer.code or answer.code < 0 or _OPEN.search(words) or _PASSING.search(words):
        return None
    if submit_limited(words) or (_CONFIGURATION in words and not all_nodes_up):
        return None
    return " ".join(words.split())


def _kind(answer: ProcessResult) -> type[SubmitRefused | SubmitUncertain]:
    """The error of an sbatch that did not exit with 0."""
    assert answer.code is not None
    words = f"{answer.err}\n{answer.out}"
    if answer.stopped_s is not None and not _ID.search(answer.out):
        # Ended in its sleep: for certain only if it cannot have woken up.
        return SubmitLimited if answer.stopped_s < SLEEP_S else SubmitUncertain
    if answer.code < 0 or _OPEN.search(words) or not _REFUSAL.search(words):
        return SubmitUncertain
    return SubmitLimited if submit_limited(words) else SubmitRefused


def _is_own_words(answer: ProcessResult) -> bool:
    """Whether sbatch, or what stands in its place, ended with an error that we do not know."""
    ended = answer.code is not None and answer.code > 0 and answer.stopped_s is None
    return ended and not _OPEN.search(f"{answer.err}\n{answer.out}")


def submit_limited(words: str) -> bool:
    """Whether sbatch speaks of how many jobs there may be, and not of the job itself."""
    return bool(_LIMIT.search(words)) or (_POLICY in words and not _REASON.search(words))
