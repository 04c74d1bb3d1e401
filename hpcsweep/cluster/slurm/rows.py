"""What squeue, sacct and scontrol print of jobs, as rows, and their states as phases. Pure."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Final, NamedTuple

from hpcsweep.core.cluster_protocol import BlockKind, Phase
from hpcsweep.errors import ClusterUnavailable

#: Between the fields of squeue and sacct: a character that is in no name and no reason.
SEPARATOR: Final = "\x1f"
#: Fields of squeue, for -O and for a squeue that only takes -o, which cannot tell what tasks were given.
#: What matters most comes first: a site's wrapper may cut lines.
_SQUEUE_FIELDS: Final = {
    "ArrayJobID": "%F",
    "ArrayTaskID": "%K",
    "JobID": "%A",
    "State": "%T",
    "NodeList": "%N",
    "TimeUsed": "%M",
    "Reason": "%r",
    "Name": "%j",
    "UserID": "%U",
    "SubmitTime": "%V",
    "NumCPUs": "%C",
    "tres-alloc": "",
    "StartTime": "%S",
    "WorkDir": "%Z",
    "Comment": "%k",
}
SQUEUE_FORMAT: Final = ",".join(f"{field}:{SEPARATOR}" for field in _SQUEUE_FIELDS)
SQUEUE_SHORT_FORMAT: Final = SEPARATOR.join(_SQUEUE_FIELDS.values())
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
    comment = SEPARATOR.join(fields[14:]).removesuffix(SEPARATOR)
    shown = defaultdict(str, zip(_SQUEUE_FIELDS, fields[:14], strict=False))
    # The last field of a line that was cut may be a part of one.
    elapsed = "" if len(fields) == 6 else shown["TimeUsed"]
    for index in indices_of(shown["ArrayTaskID"]) or [-1]:
        yield Row(
            array=shown["ArrayJobID"] if shown["ArrayJobID"].isdecimal() else "",
            task=index,
            job=int(shown["JobID"]) if shown["JobID"].isdecimal() else -1,
            state=shown["State"],
            node=shown["NodeList"],
            seconds=seconds_of(elapsed),
            reason="" if shown["Reason"] == "None" else shown["Reason"],
            name=shown["Name"],
            user=int(shown["UserID"]) if shown["UserID"].isdecimal() else None,
            submitted=_unix_time(shown["SubmitTime"]),
            cpus=int(shown["NumCPUs"]) if shown["NumCPUs"].isdecimal() else None,
            tres=shown["tres-alloc"],
            begins=shown["StartTime"],
            folder=shown["WorkDir"],
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


def scontrol_rows(text: str) -> Iterator[Row]:
    """The array tasks in the output of `scontrol -o show job`; what is no such line is passed over."""
    for line in text.splitlines():
        # Of a field that stands twice the first counts.
        fields = defaultdict(str, reversed(_FIELD.findall(line)))
        job, user = fields["JobId"], re.search(r"\((\d+)\)", fields["UserId"])
        reason, node = fields["Reason"], fields["NodeList"]
        for index in indices_of(fields["ArrayTaskId"]):
            yield Row(
                array=fields["ArrayJobId"],
                task=index,
                job=int(job) if job.isdecimal() else -1,
                state=fields["JobState"],
                node="" if node == "(null)" else node,
                seconds=seconds_of(fields["RunTime"]),
                reason="" if reason == "None" else reason,
                name=fields["JobName"],
                user=int(user[1]) if user else None,
                submitted=_unix_time(fields["SubmitTime"]),
                folder=fields["WorkDir"],
                comment=fields["Comment"],
                tres=fields["TRES"],
            )


def gpus_of_tres(tres: str) -> int | None:
    """GPUs in `cpu=4,gres/gpu=2,gres/gpu:a100=2`; None where the site does not count GPUs."""
    counts = re.findall(r"gres/gpu(:[^=,]+)?=(\d+)", tres)
    total = [int(count) for kind, count in counts if not kind]
    # A site may count by type alone.
    return (total[0] if total else sum(int(count) for _, count in counts)) if counts else None


#: Long name -> (compact name, phase). Slurm has a state and flags over it; squeue prints the flag.
#: An empty compact name: Slurm gives none.
STATES: Final[dict[str, tuple[str, Phase]]] = {
    # States.
    "PENDING": ("PD", Phase.PENDING),
    "RUNNING": ("R", Phase.RUNNING),
    "SUSPENDED": ("S", Phase.RUNNING),  # it goes on later, where it is
    "COMPLETED": ("CD", Phase.COMPLETED),
    "CANCELLED": ("CA", Phase.CANCELLED),
    "FAILED": ("F", Phase.FAILED),
    "TIMEOUT": ("TO", Phase.TIMEOUT),
    "NODE_FAIL": ("NF", Phase.NODE_FAIL),
    "PREEMPTED": ("PR", Phase.PREEMPTED),
    "BOOT_FAIL": ("BF", Phase.NODE_FAIL),
    "DEADLINE": ("DL", Phase.TIMEOUT),  # ended because it cannot be done before its deadline
    "OUT_OF_MEMORY": ("OOM", Phase.OUT_OF_MEMORY),
    # Flags of a job that holds its nodes, or still has processes there.
    "COMPLETING": ("CG", Phase.RUNNING),
    "CONFIGURING": ("CF", Phase.RUNNING),
    "POWER_UP_NODE": ("", Phase.RUNNING),
    "RESIZING": ("RS", Phase.RUNNING),
    "SIGNALING": ("SI", Phase.RUNNING),
    "STAGE_OUT": ("SO", Phase.RUNNING),
    "STOPPED": ("ST", Phase.RUNNING),
    "REVOKED": ("RV", Phase.RUNNING),  # another cluster of the federation runs it
    # Flags of a job that Slurm itself puts back into the queue, perhaps held: were it taken for
    # ended, it would be submitted a second time.
    "REQUEUED": ("RQ", Phase.PENDING),
    "REQUEUE_FED": ("RF", Phase.PENDING),
    "REQUEUE_HOLD": ("RH", Phase.PENDING),
    "RESV_DEL_HOLD": ("RD", Phase.PENDING),
    "SPECIAL_EXIT": ("SE", Phase.PENDING),
    "LAUNCH_FAILED": ("", Phase.PENDING),
    "RECONFIG_FAIL": ("", Phase.PENDING),
    "EXPEDITING": ("", Phase.PENDING),
}

_PHASES: Final[dict[str, Phase]] = {
    **{long: phase for long, (_, phase) in STATES.items()},
    **{compact: phase for compact, phase in STATES.values() if compact},
}


#: Why a pending task does not start yet, where it need only wait: squeue's words, 22.05 to 25.11. Whatever
#: is not here is told after a while.
HARMLESS: Final = frozenset(
    {
        "none",
        "priority",
        "resources",
        "dependency",
        "jobarraytasklimit",
        "begintime",
        "licenses",
        "scheddefer",
        "cleaning",
        "prolog",
        "reservation",  # one that has not begun
        "burstbufferresources",
        "burstbufferstagein",
        "burstbufferoperation",
        "fedjoblock",
        "mpiportsbusy",
        "assocmaxjobslimit",
        "associationjoblimit",
        "qosjoblimit",
    }
)
#: Limits on what a user or account may have at a time: they pass as the user's own jobs end.
_OWN_LIMIT: Final = re.compile(
    r"qosmax\w+per(user|account)(limit)?|assocmax(jobs|cpus?|gres|nodes?|mem)limit", re.I
)

#: And where its turn will not come by itself.
BLOCK_KINDS: Final[dict[str, BlockKind]] = {
    "PartitionTimeLimit": BlockKind.IMPOSSIBLE,
    "PartitionNodeLimit": BlockKind.IMPOSSIBLE,
    "BadConstraints": BlockKind.IMPOSSIBLE,
    "DependencyNeverSatisfied": BlockKind.IMPOSSIBLE,
    "InvalidAccount": BlockKind.IMPOSSIBLE,
    "InvalidQOS": BlockKind.IMPOSSIBLE,
    "QOSMaxWallDurationPerJobLimit": BlockKind.IMPOSSIBLE,
    "AssocMaxWallDurationPerJobLimit": BlockKind.IMPOSSIBLE,
    "MaxMemPerLimit": BlockKind.IMPOSSIBLE,
    "launch failed requeued held": BlockKind.HELD,
    "JobHoldMaxRequeue": BlockKind.HELD,
    "job requeued in held state": BlockKind.HELD,
    "JobHeldAdmin": BlockKind.BLOCKED,
    "JobHeldUser": BlockKind.BLOCKED,
    "PartitionDown": BlockKind.BLOCKED,
    "PartitionInactive": BlockKind.BLOCKED,
    "ReservationDeleted": BlockKind.BLOCKED,
    "AccountNotAllowed": BlockKind.BLOCKED,
    "QOSNotAllowed": BlockKind.BLOCKED,
}
#: What an account or a job may use in minutes or in one job: somebody has to raise it.
_RAISED: Final = re.compile(r"(Assoc|QOS)(Grp\w*(Min|Wall)|Max\w*Per(Job|Node))", re.IGNORECASE)
#: What a group may have at a time: it becomes free as jobs end, unless one job alone asks for more.
_GROUP: Final = re.compile(r"(Assoc|QOS)Grp", re.IGNORECASE)


def block_kind_of(reason: str) -> BlockKind | None:
    """Why a pending task with this reason may wait in vain; None if it need only wait for its turn."""
    text = reason.replace("_", " ").strip().lower()
    if not text or text in HARMLESS or _OWN_LIMIT.fullmatch(text):
        return None
    known = next((kind for known, kind in BLOCK_KINDS.items() if known.lower() in text), None)
    if known is not None:
        return known
    if _RAISED.search(text):
        return BlockKind.BLOCKED
    return BlockKind.LIMITED if _GROUP.search(text) else BlockKind.UNKNOWN


def phase_of(state: str) -> Phase:
    """The phase of a state as squeue or sacct print it; `UNKNOWN` for a word not in the table.

    Takes `CANCELLED by 1000` and the `+` with which sacct marks a longer state.
    """
    words = state.split(maxsplit=1)
    return _PHASES.get(words[0].rstrip("+").upper(), Phase.UNKNOWN) if words else Phase.UNKNOWN


def cancelled_by(state: str) -> int | None:
    """The user id in `CANCELLED by 1000`, as sacct writes it; None where there is none."""
    match = re.fullmatch(r"CANCELLED\+? by (\d+)", state.strip())
    return int(match[1]) if match else None
