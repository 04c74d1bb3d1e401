"""How values, configurations and costs are written for people."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hpcsweep.core.counting import plural
from hpcsweep.core.events import FailureKind, Interruption, Outcome
from hpcsweep.core.models import SIMULATION_BEGINS_S
from hpcsweep.core.state import SweepState
from hpcsweep.views.folder import best_of
from hpcsweep.views.rungs import RungCount
from hpcsweep.views.warnings import hindrances, left_out, restarted, said

#: Most trials that are listed in one line.
NAMED: Final = 10

ENDINGS: Final[Mapping[Outcome | FailureKind | Interruption, str]] = {
    Outcome.COMPLETED: "completed",
    Outcome.FAILED: "failed",
    Outcome.OUT_OF_MEMORY: "out of memory",
    Outcome.LOST: "lost",
    Outcome.STOPPED: "stopped early",
    Outcome.CANCELLED: "cancelled for good by the user",
    FailureKind.CRASHED: "crashed",
    FailureKind.NOT_FINITE: "not finite",
    FailureKind.NEVER_REPORTED: "never reported",
    FailureKind.UNREADABLE: "unreadable report",
    FailureKind.OUT_OF_MEMORY: "out of memory",
    FailureKind.LOST: "lost",
    FailureKind.CANCELLED: "cancelled for good by the user",
    Interruption.PREEMPTED: "preempted",
    Interruption.TIMEOUT: "timed out",
    Interruption.NODE_FAIL: "node failed",
    Interruption.CANCELLED: "cancelled by the user",
    Interruption.CANCELLED_BY_ADMIN: "cancelled by an admin",
    Interruption.TRAINING_ERROR: "failed, to be tried again",
    Interruption.NEVER_STARTED: "never able to start",
    Interruption.WORKER_DIED: "ended without a result",
    Interruption.LOST: "lost",
    Interruption.NOT_STARTED: "not begun",
    Interruption.SWEEP_STOPPED: "cancelled with the sweep",
}


def number(value: float) -> str:
    return f"{value:.6g}"


def configuration(config: Mapping[str, Any]) -> str:
    """`lr=0.01 optimizer=adam`."""
    return " ".join(
        f"{name}={number(value) if isinstance(value, float) else value}" for name, value in config.items()
    )


def best_line(state: SweepState) -> str:
    """The best so far in one line."""
    best = best_of(state)
    if best is None:
        return "no value yet"
    metric = state.started.identity["objective"]["metric"] if state.started else "value"
    return f"{metric} {number(best['value'])} (trial {best['trial']} at {best['resource']}{mean_of(best)})"


def mean_of(best: dict[str, Any]) -> str:
    """What a value is of that several trainings share; empty where it is that of one."""
    return f", the mean of {best['repeats']} repeats" if "repeats" in best else ""


def cost(state: SweepState, budget: float | None = None) -> str:
    """GPU-hours, or run-hours where no GPU is used.

    Args:
        state: Of the sweep.
        budget: GPU-hours that it may cost, None if that is not limited or not known.
    """
    if state.spent_gpu_s or state.gpus or (state.gpus is None and budget is not None):
        of = "" if budget is None else f" of {budget:g}"
        return f"{state.spent_gpu_s / 3600:.3g}{of} GPU-hours"
    return f"{state.spent_s / 3600:.3g} run-hours"


def size(count: int) -> str:
    """Bytes as `812 B`, `1.5 MB`, `82 GB`; powers of 1000, as quotas and `ls` have them."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"


def checkpoints_line(found: Mapping[str, int]) -> str:
    """What checkpoints take, and of how many trials they were removed; empty if there never were any.

    Args:
        found: See `Folder.checkpoints`.
    """
    removed = found["removed_trials"]
    if not found["files"] and not removed:
        return ""
    line = f"{size(found['bytes'])} in {plural(found['files'], 'file')} of {plural(found['trials'], 'trial')}"
    return f"{line}; {removed_line(removed, found['removed_bytes'])}" if removed else line


def removed_line(trials: int, count: int) -> str:
    """That checkpoints of so many trials, of so many bytes, are gone."""
    which = "1 trial that could not go on" if trials == 1 else f"{trials} trials that could not go on"
    return f"those of {which} were removed ({size(count)})"


def duration(seconds: float) -> str:
    """`12 s`, `4.2 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def moment(at: float) -> str:
    """A Unix time as a clock here shows it; one of a simulation counts from the beginning of that."""
    if 0 <= at - SIMULATION_BEGINS_S < 10 * 365 * 86400:  # long before there was any sweep
        return f"{duration(round(at - SIMULATION_BEGINS_S))} after the simulation began"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def place(node: str, job: str, seconds: float = 0.0) -> str:
    """` on n1 (job 4711_3, 12 s)`, as far as it is known."""
    details = [f"job {job}" if job else "", duration(seconds) if seconds else ""]
    known = ", ".join(detail for detail in details if detail)
    return (f" on {node}" if node else "") + (f" ({known})" if known else "")


def troubles(state: SweepState, *, now: float) -> list[str]:
    """What stands in the way of a sweep that goes on; one line for each."""
    if state.ended is not None:
        return []
    lines = [f"cannot start: {found['reason']}" for found in hindrances(state)]
    lines += [f"{found['means']} (since {moment(found['at'])}): {found['words']}" for found in said(state)]
    if state.submit_limit:
        lines.append(f"waits for its turn: {state.submit_limit}")
    lines += [
        f"excluded: {out.node} until {moment(out.until)}: {out.reason}" for out in left_out(state, now=now)
    ]
    again = restarted(state)
    if again:
        names = trial_list(again)
        one = len(again) == 1
        lines.append(
            f"trained from scratch: trial{'' if one else 's'} {names}, "
            f"whose checkpoint{' was' if one else 's were'} removed before (train.keep: all keeps them)"
        )
    if state.pausing is not None:
        lines.append(f"pausing, nothing is submitted any more: {state.pausing.reason}")
    return lines


def clock_lines(clocks: Mapping[str, float]) -> list[str]:
    """One line for each node whose clock is off.

    Args:
        clocks: Seconds by which each is ahead; negative where it is behind.
    """
    return [
        f"clock: {node or 'a node'} is at least {duration(abs(seconds))} "
        f"{'ahead of' if seconds > 0 else 'behind'} the driver's; start times in tables are by its clock"
        for node, seconds in clocks.items()
    ]


def runs_line(counts: Mapping[str, int], failed_by: Mapping[str, int] | None = None) -> str:
    """For example `17 runs completed, 2 failed, 9 running, 3 pending`; states without runs are left out.

    Args:
        counts: Number of runs by state.
        failed_by: What was wrong with those that failed; told if it is not always a crash.
    """
    words = {"stopped": "stopped early", "submitted": "under way"}
    others = [
        f"{counts[state]} {words.get(state, state)}"
        for state in ("failed", "stopped", "running", "submitted", "pending", "waiting")
        if counts.get(state)
    ]
    if counts.get("failed") and failed_by and failed_by.keys() != {FailureKind.CRASHED.value}:
        kinds = ", ".join(f"{n} {ENDINGS[FailureKind(kind)]}" for kind, n in failed_by.items())
        others[0] += f" ({kinds})"
    return ", ".join([f"{plural(counts['completed'], 'run')} completed", *others])


def state_counts(state: SweepState) -> dict[str, int]:
    """Number of runs by state as far as the journal knows."""
    return {status.value: count for status, count in state.counts.items()}


def rung_text(count: RungCount) -> str:
    """For example `27x3` when all are done, `20/27x3 (2 failed, 1 stopped)` while some are not."""
    done = str(count.runs) if count.ended == count.runs else f"{count.ended}/{count.runs}"
    told = [f"{n} {word}" for n, word in ((count.failed, "failed"), (count.stopped, "stopped")) if n]
    return f"{done}x{count.resource}" + (f" ({', '.join(told)})" if told else "")


def trial_list(trials: Sequence[int]) -> str:
    """For example `0, 3, 5`; of many the first, then `..`."""
    return ", ".join([*map(str, trials[:NAMED]), *([".."] if len(trials) > NAMED else [])])
