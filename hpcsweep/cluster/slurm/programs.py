"""Calling Slurm's programs, in an environment in which they print what was asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from hpcsweep.cluster import processes
from hpcsweep.cluster.processes import ProcessResult
from hpcsweep.cluster.slurm.environment import environment

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


def ranges(numbers: Sequence[int]) -> list[str]:
    """Ascending indices as Slurm writes them: `[0, 1, 2, 7]` -> `["0-2", "7"]`."""
    parts: list[str] = []
    first = last = -2
    for number in [*sorted(set(numbers)), None]:
        if number is not None and number == last + 1:
            last = number
            continue
        if last >= 0:
            parts.append(str(first) if first == last else f"{first}-{last}")
        if number is not None:
            first = last = number
    return parts
