"""What qstat prints of jobs, and the ids of jobs and subjobs. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from hpcsweep.core.cluster_protocol import BlockKind, Phase, TaskState
from hpcsweep.errors import ClusterUnavailable

_ID: Final = re.compile(r"^(\d+)(\[(\d*)\])?(\.\S+)?$")
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
    server: str


def job_id(text: str) -> JobId | None:
    """The id in its parts; None if it is none."""
    match = _ID.fullmatch(text.strip())
    if match is None:
        return None
    return JobId(match[1], int(match[3]) if match[3] else None, match[4] or "")


def subjob(job: str, task: int) -> str:
    """The id of one task of the batch that qsub called so."""
    return job.replace("[]", f"[{task}]")


def shown_tasks(text: str) -> Iterator[tuple[JobId, TaskState]]:
    """The jobs and subjobs in the output of `qstat -f -F json`; arrays themselves are passed over.

    Raises:
        ClusterUnavailable: It is something else.
    """
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
