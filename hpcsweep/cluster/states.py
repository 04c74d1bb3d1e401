"""One total table of Slurm's job states, 22.05 to 25.11, long and compact, as phases."""

from __future__ import annotations

from typing import Final

from hpcsweep.core.protocols import Phase

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


def phase_of(state: str) -> Phase:
    """The phase of a state as squeue or sacct print it; `UNKNOWN` for a word not in the table.

    Takes `CANCELLED by 1000` and the `+` with which sacct marks a longer state.
    """
    words = state.split(maxsplit=1)
    return _PHASES.get(words[0].rstrip("+").upper(), Phase.UNKNOWN) if words else Phase.UNKNOWN
