"""One total table of Slurm's job states, 22.05 to 25.11, long and compact, as phases."""

from __future__ import annotations

import re
from typing import Final

from hpcsweep.core.cluster_protocol import BlockKind, Phase

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
    words = reason.replace("_", " ").strip().lower()
    if not words or words in HARMLESS or _OWN_LIMIT.fullmatch(words):
        return None
    known = next((kind for known, kind in BLOCK_KINDS.items() if known.lower() in words), None)
    if known is not None:
        return known
    if _RAISED.search(words):
        return BlockKind.BLOCKED
    return BlockKind.LIMITED if _GROUP.search(words) else BlockKind.UNKNOWN


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
