"""What squeue, sacct and scontrol print of jobs, as rows. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from hpcsweep.cluster.slurm.states import phase_of
from hpcsweep.core.cluster_protocol import Phase
from hpcsweep.errors import ClusterUnavailable

#: Between the fields of squeue and sacct: a character that is in no name and no reason.
SEPARATOR: Final = "\x1f"
#: What matters most comes first: a site's wrapper may cut lines.
SQUEUE_FORMAT: Final = ",".join(
    f"{field}:{SEPARATOR}"
    for field in (
        "ArrayJobID",
        "ArrayTaskID",
        "JobID",
        "State",
        "NodeList",
        "TimeUsed",
        "Reason",
        "Name",
        "UserID",
        "SubmitTime",
        "NumCPUs",
        "tres-alloc",
        "StartTime",
        "WorkDir",
        "Comment",
    )
)
#: The same for a squeue that does not take that; it cannot tell what tasks were given.
SQUEUE_SHORT_FORMAT: Final = SEPARATOR.join(
    ["%F", "%K", "%A", "%T", "%N", "%M", "%r", "%j", "%U", "%V", "%C", "", "%S", "%Z", "%k"]
)
SACCT_FORMAT: Final = "JobID,State,NodeList,ElapsedRaw,JobName,WorkDir,AllocTRES,Comment"
#: By it a line of squeue is known as the header of `SQUEUE_FORMAT`.
_HEADER: Final = "ARRAY_JOB_ID"


class Row(NamedTuple):
    """One array task, as squeue or sacct shows it. What is not shown is empty, -1 or None.

    Attributes:
        array: Job id of the array; `job` is the task's own, later ones being newer.
        task: Its index, -1 for a job that is no array, or whose index is not shown.
        seconds: How long it has run since it started last.
        user: Numeric id of its owner.
        submitted: Unix time.
        cpus: CPUs that it was given, or asks for.
        begins: When it starts or may start, as Slurm writes it.
        folder: Where its script starts.
        tres: What it was given, as `cpu=4,gres/gpu=1`.
    """

    array: str
    task: int
    job: int
    state: str
    node: str = ""
    seconds: float | None = None
    reason: str = ""
    name: str = ""
    user: int | None = None
    submitted: float | None = None
    cpus: int | None = None
    begins: str = ""
    folder: str = ""
    comment: str = ""
    tres: str = ""

    @property
    def never_accepted(self) -> bool:
        """Whether this is only what the controller remembers of an array that it refused."""
        return self.state == "FAILED" and self.reason == "BadConstraints" and not self.node


def squeue_rows(text: str) -> list[Row]:
    """The tasks and jobs in the output of squeue with `SQUEUE_FORMAT` and its header line.

    Takes lines that a wrapper has cut, arrays that it shows in one line, and squeue's own layout where
    a wrapper passes ours over. Other lines are passed over.

    Raises:
        ClusterUnavailable: There are lines, and none can be read: what they say is no absence.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    rows = [row for line in lines for row in _squeue_line(line)]
    if lines and not rows and not any(line.startswith(_HEADER[:8]) for line in lines):
        raise ClusterUnavailable(f"squeue: prints something else than it was asked for: {lines[0].strip()!r}")
    return rows


def _squeue_line(line: str) -> Iterator[Row]:
    fields = line.split(SEPARATOR)
    if len(fields) < 2:
        yield from _default_layout(line)
        return
    if fields[0].startswith(_HEADER[:8]):
        return
    (
        array,
        task,
        job,
        state,
        node,
        elapsed,
        reason,
        name,
        user,
        submitted,
        cpus,
        tres,
        begins,
        folder,
        comment,
    ) = [
        *fields[:14],
        *[""] * (14 - len(fields)),
        SEPARATOR.join(fields[14:]).removesuffix(SEPARATOR),
    ]
    # The last field of a line that was cut may be a part of one.
    if len(fields) == 6:
        elapsed = ""
    for index in indices_of(task) or [-1]:
        yield Row(
            array=array if array.isdecimal() else "",
            task=index,
            job=int(job) if job.isdecimal() else -1,
            state=state,
            node=node,
            seconds=seconds_of(elapsed),
            reason="" if reason == "None" else reason,
            name=name,
            user=int(user) if user.isdecimal() else None,
            submitted=_unix_time(submitted),
            cpus=int(cpus) if cpus.isdecimal() else None,
            tres=tres,
            begins=begins,
            folder=folder,
            comment="" if comment == "(null)" else comment,
        )


#: A job or array task at the beginning of a line: `70`, `70_3`, `70_[0-3%2]`.
_JOB: Final = re.compile(r"\s*(\d+)(?:_(\d+|\[[^\]\s]*\]?))?(?:\s+(.*))?$")


def _default_layout(line: str) -> Iterator[Row]:
    """A line of squeue where a wrapper passes over how it was asked: id and state, where they show."""
    match = _JOB.match(line)
    if match is None or not match[3]:
        return
    words = match[3].split()
    state = next((word for word in words if phase_of(word) is not Phase.UNKNOWN), "")
    if state:
        for index in indices_of((match[2] or "").strip("[]")) or [-1]:
            yield Row(match[1], index, -1, state)


def indices_of(text: str) -> list[int]:
    """Indices of an array as Slurm writes them, `3` or `0-3,8%2`; empty where they cannot be read."""
    found: list[int] = []
    for part in text.partition("%")[0].split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if match is None:
            return []
        found += range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1) or 1)
    return found


def _unix_time(text: str) -> float | None:
    """A time as squeue writes it, by this host's clock: `2026-11-28T20:03:26`."""
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return None


def seconds_of(elapsed: str) -> float | None:
    """`1-02:03:04` as Slurm writes a time that has passed; None for what is none, as `INVALID`."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", elapsed.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def sacct_rows(text: str) -> Iterator[Row]:
    """The array tasks in the output of sacct with `SACCT_FORMAT`; pending ranges are passed over."""
    for line in text.split("\n"):
        fields = line.split(SEPARATOR)
        match = re.fullmatch(r"(\d+)_(\d+)", fields[0])
        if len(fields) >= 5 and match:
            state, node, elapsed, name, folder, tres, comment = [*fields[1:], *[""] * 3][:7]
            yield Row(
                array=match[1],
                task=int(match[2]),
                job=0,
                state=state,
                node="" if node == "None assigned" else node,
                seconds=float(elapsed) if elapsed.isdecimal() else None,
                name=name,
                folder=folder,
                tres=tres,
                comment=comment,
            )


#: One field in a line of `scontrol -o show job`, whose values may hold spaces.
_FIELD: Final = re.compile(r"([A-Z][\w/:]*)=(.*?)(?=\s+[A-Z][\w/:]*=|\s*$)")


def shown_jobs(text: str) -> Iterator[Row]:
    """The array tasks in the output of `scontrol -o show job`; what is no such line is passed over."""
    for line in text.splitlines():
        fields: dict[str, str] = {}
        for name, value in _FIELD.findall(line):
            fields.setdefault(name, value)
        job, user = fields.get("JobId", ""), re.search(r"\((\d+)\)", fields.get("UserId", ""))
        reason, node = fields.get("Reason", ""), fields.get("NodeList", "")
        for index in indices_of(fields.get("ArrayTaskId", "")):
            yield Row(
                array=fields.get("ArrayJobId", ""),
                task=index,
                job=int(job) if job.isdecimal() else -1,
                state=fields.get("JobState", ""),
                node="" if node == "(null)" else node,
                seconds=seconds_of(fields.get("RunTime", "")),
                reason="" if reason == "None" else reason,
                name=fields.get("JobName", ""),
                user=int(user[1]) if user else None,
                submitted=_unix_time(fields.get("SubmitTime", "")),
                folder=fields.get("WorkDir", ""),
                comment=fields.get("Comment", ""),
                tres=fields.get("TRES", ""),
            )


def gpus_of_tres(tres: str) -> int | None:
    """GPUs in `cpu=4,gres/gpu=2,gres/gpu:a100=2`; None where the site does not count GPUs."""
    counts = re.findall(r"gres/gpu(:[^=,]+)?=(\d+)", tres)
    total = [int(count) for kind, count in counts if not kind]
    # A site may count by type alone.
    return (total[0] if total else sum(int(count) for _, count in counts)) if counts else None
