"""Numbers, configurations, costs and outcomes as people read them, on terminals and pages alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from hpcsweep.core.models import SIMULATION_BEGINS_S
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.outcomes import FACTS, FailureKind, Interruption
from hpcsweep.core.state import SweepState
from hpcsweep.core.text import format_bytes, format_value, plural
from hpcsweep.core.units import format_memory, format_size
from hpcsweep.store.process_id import ProcessId
from hpcsweep.views.folder import best_of
from hpcsweep.views.health import (
    Liveness,
    blocked_batches,
    cluster_errors,
    excluded_nodes,
    trials_from_scratch,
)
from hpcsweep.views.progress import RungCount, uses_gpus
from hpcsweep.views.tasks import Activity
from hpcsweep.views.usage import ResourceUse

#: So many items of a list are named.
MOST_LISTED: Final = 10
#: A longer label is cut in the middle: either end may distinguish it from others.
_LONGEST_LABEL: Final = 32


# ---------------------------------------------------------------------- numbers


def number(value: float) -> str:
    """Six significant digits."""
    return f"{value:.6g}"


def share(part: float, whole: float) -> str:
    """`12%`, `0.4%`, `<0.1%`; of nothing it is 0%."""
    percent = 100 * part / whole if whole else 0.0
    if 0 < percent < 0.1:
        return "<0.1%"
    return f"{percent:.1f}%" if 0 < percent < 10 else f"{percent:.0f}%"


def listing(items: Sequence[object]) -> str:
    """`3, 1, 8`; of a long list the first ones: `3, 1, 8 and 12 more`."""
    text = ", ".join(map(str, items[:MOST_LISTED]))
    return f"{text} and {len(items) - MOST_LISTED:,} more" if len(items) > MOST_LISTED else text


# ---------------------------------------------------------------------- times


def duration(seconds: float) -> str:
    """`12 s`, `4.2 min`, `3.5 h`, `6.2 days`."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h" if seconds < 172_800 else f"{seconds / 86400:.3g} days"


def use_text(use: ResourceUse) -> str:
    """`resource 9: 27 runs asked for 20 min and took 11 min, 16G of memory and held 3.1G`; medians."""
    parts = []
    if use.asked_s is not None and use.used_s is not None:
        parts.append(f"asked for {duration(use.asked_s)} and took {duration(use.used_s)}")
    if use.asked_mib is not None and use.used_mib is not None:
        asked, used = (format_memory(math.ceil(mib)) for mib in (use.asked_mib, use.used_mib))
        parts.append(f"asked for {asked} of memory and held {used}")
    return f"resource {use.resource}: {plural(use.runs, 'run')} {', '.join(parts)}"


def hours(seconds: float) -> float:
    """Hours of three significant digits, whole from a thousand on."""
    value = seconds / 3600
    return float(round(value) if value >= 1000 else f"{value:.3g}")


def hours_text(seconds: float) -> str:
    """`3.25`, `12,345`."""
    value = hours(seconds)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def pool_text(pool: dict[str, Any]) -> str:
    """For example `a100: 8 GPUs in use, 4 more submitted; 3.5 of 100 GPU-hours`."""
    held, more = pool["gpus"], pool["submitted_gpus"] - pool["gpus"]
    parts = [f"{plural(held, 'GPU')} in use"] if held else []
    if more > 0:
        parts.append(f"{more} more submitted" if held else f"{plural(more, 'GPU')} submitted")
    use = ", ".join(parts) or "no tasks"
    return f"{pool['name']}: {use}; {pool_cost_text(pool)} GPU-hours"


def pool_cost_text(pool: dict[str, Any]) -> str:
    """GPU-hours of a pool, for example `3.5 of 100`."""
    most = f" of {pool['budget_gpu_hours']:g}" if pool["budget_gpu_hours"] is not None else ""
    return f"{hours_text(pool['gpu_hours'] * 3600)}{most}"


def timestamp(at: float) -> str:
    """A Unix time as local time; in a simulation the time since that began."""
    if 0 <= at - SIMULATION_BEGINS_S < 10 * 365 * 86400:  # long before there was any sweep
        return f"{duration(round(at - SIMULATION_BEGINS_S))} after the simulation began"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


# ---------------------------------------------------------------------- configurations


def value_text(value: Any) -> str:
    """A value of a configuration: text as it is, floats with six digits, the rest as in YAML."""
    match value:
        case str():
            return value
        case float():
            return number(value)
        case _:
            return format_value(value)


def label(value: Any) -> str:
    """The same, short enough for an axis."""
    text = number(value) if isinstance(value, int) and not isinstance(value, bool) else value_text(value)
    half = _LONGEST_LABEL // 2
    return text if len(text) <= _LONGEST_LABEL else f"{text[: half - 1]} … {text[2 - half :]}"


def config_text(config: Mapping[str, Any]) -> str:
    """`lr=0.01 optimizer=adam`."""
    return " ".join(f"{name}={value_text(value)}" for name, value in config.items())


# ---------------------------------------------------------------------- a sweep


def best_text(state: SweepState) -> str:
    """The best so far in one line."""
    front = f"front of {len(state.front)}, " if state.objectives.has_front and state.best else ""
    return describe_best(best_of(state), state.objectives, front)


def describe_best(best: Mapping[str, Any] | None, objectives: Objectives, front: str = "") -> str:
    """The same of what `best_of` gives; `front` comes before the knee."""
    if best is None:
        return "no value yet"
    values = best.get("values", {objectives[0].metric: best["value"]})
    value = ", ".join(f"{metric} {number(of)}" for metric, of in values.items())
    if best.get("infeasible"):
        value = f"none within bounds, the nearest {value}"
    elif objectives.has_front:
        value = f"{front}knee {value}"
    return f"{value} (trial {best['trial']} at step {best['resource']}{mean_text(best)})"


def mean_text(best: Mapping[str, Any]) -> str:
    """Of how many repeats a value is the mean; empty for a single training."""
    return f", the mean of {best['repeats']} repeats" if "repeats" in best else ""


def cost(state: SweepState, budget: float | None = None) -> str:
    """GPU-hours, or run-hours where no GPU is used."""
    if uses_gpus(state) or (state.gpus is None and budget is not None):
        of = "" if budget is None else f" of {budget:g}"
        return f"{hours_text(state.spent_gpu_s)}{of} GPU-hours"
    return f"{hours_text(state.spent_s)} run-hours"


def runs_text(counts: Mapping[str, int], failed_by: Mapping[str, int] | None = None) -> str:
    """For example `17 runs completed, 2 failed, 9 running`; failures by kind are named unless all crashed."""
    labels = {"stopped": "stopped early", "submitted": "under way"}
    others = [
        f"{counts[state]:,} {labels.get(state, state)}"
        for state in ("failed", "stopped", "running", "submitted", "pending", "waiting")
        if counts.get(state)
    ]
    if counts.get("failed") and failed_by and failed_by.keys() != {FailureKind.CRASHED.value}:
        kinds = ", ".join(f"{n:,} {FACTS[FailureKind(kind)].label}" for kind, n in failed_by.items())
        others[0] += f" ({kinds})"
    return ", ".join([f"{plural(counts['completed'], 'run')} completed", *others])


def rung_text(count: RungCount) -> str:
    """For example `27x3` when all are done, `20/27x3 (2 failed, 1 stopped)` while some are not."""
    done = str(count.runs) if count.ended == count.runs else f"{count.ended}/{count.runs}"
    others = [f"{n} {word}" for n, word in ((count.failed, "failed"), (count.stopped, "stopped")) if n]
    return f"{done}x{count.resource}" + (f" ({', '.join(others)})" if others else "")


def bracket_text(rungs: Sequence[RungCount]) -> str:
    """For example `27x1 > 9x3 > 2/3x9`."""
    return " > ".join(map(rung_text, rungs))


def checkpoints_text(checkpoints: Mapping[str, int], quota: Mapping[str, int | None] | None = None) -> str:
    """What checkpoints take, and of how many trials they were removed; empty if there never were any."""
    removed = checkpoints["removed_trials"]
    if not checkpoints["files"] and not removed:
        return ""
    most = quota or {}
    size = format_bytes if most.get("bytes") is None else format_size
    text = (
        f"{size(checkpoints['bytes'])}{_of(most.get('bytes'), size)} in "
        f"{plural(checkpoints['files'], 'file')}{_of(most.get('files'), '{:,}'.format)} "
        f"of {plural(checkpoints['trials'], 'trial')}"
    )
    return f"{text}; {removed_text(removed, checkpoints['removed_bytes'])}" if removed else text


def _of(most: int | None, text: Callable[[int], str]) -> str:
    """What a quota allows; empty without one."""
    return "" if most is None else f" (of {text(most)})"


def removed_text(trials: int, count: int) -> str:
    """That checkpoints of so many trials, `count` bytes, are gone."""
    return f"those of {plural(trials, 'trial')} that could not go on were removed ({format_bytes(count)})"


def driver_text(state: SweepState, driver: ProcessId | None, liveness: Liveness | None) -> str:
    """Who drives a sweep that has not ended."""
    if driver is not None:
        return str(driver)
    if state.detached is None:
        return "none at work; launch again to resume"
    if liveness is not None and liveness.driven is False:
        return "none at work"
    ticks = [batch.tick_job for batch in state.live.values() if batch.tick_job]
    jobs = f", then tick jobs {', '.join(ticks)}" if ticks else ""
    return f"its jobs on {state.detached.cluster}: tasks as they finish{jobs}"


def tasks_text(counts: Mapping[str, int]) -> str:
    """For example `30 running, 2 idle, 1 pending`; empty without tasks."""
    return ", ".join(
        f"{counts[activity.value]:,} {activity.value}"
        for activity in (Activity.RUNNING, Activity.IDLE, Activity.LEAVING, Activity.PENDING)
        if counts[activity.value]
    )


def task_text(task: Mapping[str, Any], *, now: float) -> str:
    """For example `11_3 on n1: trial 5 rung 1, step 4/9, for 2.5 min`, `11_4 on n2: idle for 12 s`."""
    runs = " and ".join(
        f"trial {run['trial']} rung {run['rung']}, "
        + ("no report yet" if run["step"] is None else f"step {run['step']}/{run['resource']}")
        for run in task["runs"]
    )
    where = (task["job"] or f"task {task['task']}") + (f" on {task['node']}" if task["node"] else "")
    since = duration(round(max(0.0, now - task["since"])))
    return f"{where}: {runs}, for {since}" if runs else f"{where}: {task['state']} for {since}"


def waits_text(waits: Mapping[str, float]) -> str:
    """For example `31 min in the median, 12 min the last (34 tasks)`."""
    median, last = duration(waits["median"]), duration(waits["last"])
    return f"{median} in the median, {last} the last ({plural(int(waits['tasks']), 'task')})"


def location(node: str, job: str, seconds: float = 0.0) -> str:
    """` on n1 (job 4711_3, 12 s)`, as far as it is known."""
    details = [f"job {job}" if job else "", duration(seconds) if seconds else ""]
    known = ", ".join(detail for detail in details if detail)
    return (f" on {node}" if node else "") + (f" ({known})" if known else "")


def attempt_text(outcome: FailureKind | Interruption, attempt: Mapping[str, Any]) -> str:
    """For example `crashed: trial 3 rung 0 on n1 (job 4711_3): ValueError: odd`."""
    where = location(attempt["node"], attempt["job"])
    run = f"trial {attempt['trial']} rung {attempt['rung']}"
    return f"{FACTS[outcome].label}: {run}{where}: {attempt['message']}"


def warning_lines(state: SweepState, *, now: float) -> list[str]:
    """What holds up a sweep that has not ended; one line for each."""
    if state.ended is not None:
        return []
    lines = [f"cannot start: {batch['reason']}" for batch in blocked_batches(state)]
    for error in cluster_errors(state):
        lines.append(f"{error['means']} (since {timestamp(error['at'])}): {error['words']}")
    if state.quota_reached is not None:
        lines.append(f"waits for room: {state.quota_reached.message}")
    if state.submit_limit:
        lines.append(f"waits for its turn: {state.submit_limit}")
    lines += [
        f"gets no more tasks: pool {out.pool} (since {timestamp(out.at)}): {out.reason}"
        for out in (*state.skipped_pools.values(), *state.spent_pools.values())
    ]
    lines += [
        f"excluded: {out.node} until {timestamp(out.until)}: {out.reason}"
        for out in excluded_nodes(state, now=now)
    ]
    if again := trials_from_scratch(state):
        single = len(again) == 1
        lines.append(
            f"trained from scratch: trial{'' if single else 's'} {listing(again)}, "
            f"whose checkpoint{' was' if single else 's were'} removed before (train.keep: all keeps them)"
        )
    if state.pausing is not None:
        lines.append(f"pausing, nothing more is submitted: {state.pausing.reason}")
    return lines


def clock_text(node: str, seconds: float) -> str:
    """For example `n1 is at least 40 s ahead of the driver`; negative seconds: behind."""
    way = "ahead of" if seconds > 0 else "behind"
    return f"{node or 'a node'} is at least {duration(abs(seconds))} {way} the driver"
