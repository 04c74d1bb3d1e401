"""Whether anybody drives a sweep, by its driver's sign of life and the queue, and what holds it up."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from hpcsweep.core.cluster_protocol import QueuedJob
from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    NodeExcluded,
    RunFinished,
    TickSubmitted,
)
from hpcsweep.core.state import SweepState
from hpcsweep.core.suggestions import added_parameters
from hpcsweep.core.text import plural, shell_quote
from hpcsweep.searchers import changed_searchers
from hpcsweep.store.excerpts import SEPARATOR, read_excerpt
from hpcsweep.store.layout import Layout
from hpcsweep.store.process_id import ProcessId
from hpcsweep.views.branches import failed_branches

#: A driver that gives no sign of life for so long is reported.
SILENT_S: Final = 300.0
#: What the shell code around a tick job writes where its work failed.
_FAILED: Final = re.compile(r"tick job \S+: failed \(.*looks again in")
#: So many of the last lines of a log are shown.
LINES: Final = 3


class Liveness(msgspec.Struct, frozen=True):
    """Whether anybody drives a sweep that has not ended, and its jobs in the queue; None where not known."""

    driven: bool | None
    arrays: tuple[QueuedJob, ...] | None = None
    tick_jobs: tuple[QueuedJob, ...] | None = None
    unknown: str = ""  # why the queue could not be asked
    lines: tuple[str, ...] = ()  # for people, beside who drives it
    advice: str = ""  # the command that resumes the sweep


def clusters_to_ask(state: SweepState, driver: ProcessId | None) -> list[str]:
    """The clusters whose queue may show jobs of the sweep; none while a driver is at work."""
    if state.ended is not None or driver is not None:
        return []
    names = [batch.cluster for batch in state.live.values()]
    names += [state.detached.cluster] if state.detached else []
    return list(dict.fromkeys(names))


def liveness(
    layout: Layout,
    state: SweepState,
    *,
    driver: ProcessId | None,
    silent_s: float = 0.0,
    jobs: Mapping[str, QueuedJob] | None = None,
    unknown: str = "",
) -> Liveness:
    """Who drives a sweep that has not ended, and where nobody does: why, and what to do.

    Args:
        layout: The results folder.
        state: Of the sweep.
        driver: Of the journal, while it lives.
        silent_s: Since the driver's last sign of life.
        jobs: What the queue shows of the user who launched it, by job id; None: `unknown` says why not.
        unknown: Why there is no answer of the queue.
    """
    if driver is not None:
        silent = silent_s > SILENT_S
        line = f"the driver gives no sign of life for {silent_s / 60:.0f} min: it may hang"
        return Liveness(True, lines=(line,) if silent else ())
    detached = state.detached is not None
    again = f"hpcsweep launch {shell_quote(str(layout.spec))} --results {shell_quote(str(layout.root))}"
    advice = again + (" --detach" if detached else "")
    if jobs is None:
        lines = (f"whether its jobs live is not known: {unknown}",) if unknown and detached else ()
        driven = None if detached else False
        return Liveness(driven, unknown=unknown, lines=lines, advice=advice)
    tick_ids = state.tick_ids
    known = tick_ids | {batch.job for batch in state.live.values() if batch.job}
    own_jobs = [job for job in jobs.values() if job.job in known or _is_of(job, state, layout)]
    ticks = tuple(
        job
        for job in own_jobs
        if job.name.endswith("-tick") or job.job in tick_ids or job.folder == str(layout.root)
    )
    arrays = tuple(job for job in own_jobs if job not in ticks)
    if not detached:
        queue = plural(len(arrays), "array")
        live = f"{queue} of it in the queue: what is there trains on, nobody promotes or submits"
        return Liveness(False, arrays, ticks, lines=(live,) if arrays else (), advice=advice)
    if arrays or ticks:
        lines = () if ticks else ("no tick job is in the queue: its tasks drive it as they end",)
        return Liveness(True, arrays, ticks, lines=(*lines, *_failing(layout)), advice=advice)
    return Liveness(
        False,
        arrays,
        ticks,
        lines=(
            "nobody drives this sweep: no task or tick job of it is in the queue, and no launch is at work",
            *_ends_of_logs(layout),
            f"to go on: {advice}",
        ),
        advice=advice,
    )


def _is_of(job: QueuedJob, state: SweepState, layout: Layout) -> bool:
    """By its name or folder: sites rename jobs, and tick jobs are followed by others, of other ids."""
    assert state.started is not None
    if job.folder == str(layout.root) or job.folder.startswith(f"{layout.batches}{os.sep}"):
        return True
    return job.name.startswith(f"{state.started.name}-{state.started.sweep}-")


def _failing(layout: Layout) -> list[str]:
    """What its ticks printed last, where the newest one failed and no other has written since."""
    lines = _last_lines(layout.tick_log)
    if not lines or not _FAILED.search(lines[-1]):
        return []
    try:
        written = max(path.stat().st_mtime for path in layout.journal.iterdir())
        if written > layout.tick_log.stat().st_mtime:
            return []
    except (OSError, ValueError):
        pass
    return ["its ticks fail, so nobody promotes or submits", *(f"ticks.log: {line}" for line in lines)]


def _ends_of_logs(layout: Layout) -> list[str]:
    """What its ticks and its newest task printed last."""
    logs = [log for log in (layout.tick_log, _newest_log(layout)) if log is not None]
    lines = [f"{log.relative_to(layout.root)}: {line}" for log in logs for line in _last_lines(log)]
    return lines or ["its logs say nothing: see cluster.setup and the template"]


def _last_lines(log: Path) -> list[str]:
    text = read_excerpt(log, lines=LINES)
    return text.split(SEPARATOR) if text else []


def _newest_log(layout: Layout) -> Path | None:
    """The log of a task that was written last: of the newest few batches."""
    try:
        folders = sorted(layout.batches.iterdir(), key=lambda path: path.stat().st_mtime)[-3:]
        logs = [
            (entry.stat().st_mtime, Path(entry.path))
            for folder in folders
            if layout.batch(folder.name).logs.is_dir()
            for entry in os.scandir(layout.batch(folder.name).logs)
        ]
    except OSError:
        return None
    return max(logs)[1] if logs else None


#: Clocks that differ by less are not reported.
MAX_CLOCK_SKEW_S: Final = 30.0
#: What it means that the cluster does not answer or do this.
_MEANING: Final = {
    "poll": "nothing is known of its jobs",
    "find": "whether a batch was accepted is not known",
    "submit": "a submission was not accepted for certain",
    "limits": "nothing is submitted before the cluster's limits are known",
    "change": "a change of its jobs was not taken",
}


def blocked_batches(state: SweepState) -> list[dict[str, Any]]:
    """Batches of which tasks cannot start, and why in the cluster's words."""
    return [
        {"batch": batch.name, "job": batch.job, "reason": batch.blocked_reason}
        for batch in state.live.values()
        if batch.blocked_reason
    ]


def trials_from_scratch(state: SweepState) -> list[int]:
    """Trials that train now without the checkpoint that they had."""
    return [run.trial for run in state.from_scratch if not state.run(run).status.ended]


def cluster_errors(state: SweepState) -> list[dict[str, Any]]:
    """What the cluster does not answer or do: its last words, since when, and what that means."""
    return [
        {
            "asked": event.operation,
            "at": event.at,
            "words": event.message,
            "batch": event.batch,
            "means": _MEANING.get(event.operation, event.operation),
        }
        for event in state.cluster_messages.values()
    ]


def clock_skews(events: Sequence[AnyEvent]) -> dict[str, float]:
    """By how many seconds the clocks of nodes are ahead of the submitting one at least, negative: behind.

    A run cannot start before its batch is planned, nor end after the driver has read its result.
    """
    skews: dict[str, float] = {}
    planned: dict[str, float] = {}
    unread: list[RunFinished] = []
    for event in events:
        at = getattr(event, "at", None)
        if isinstance(event, BatchPlanned):
            planned[event.batch] = event.at
        if isinstance(event, RunFinished) and event.started is not None:
            unread.append(event)
            early = planned.get(event.batch, event.started) - event.started
            if early > MAX_CLOCK_SKEW_S:
                skews[event.node] = min(skews.get(event.node, 0.0), -early)
        elif isinstance(at, float) and not isinstance(event, TickSubmitted):
            for run in unread:
                late = (run.started or 0.0) + run.seconds - at
                if late > MAX_CLOCK_SKEW_S:
                    skews[run.node] = max(skews.get(run.node, 0.0), late)
            unread.clear()
    return {node: round(seconds, 1) for node, seconds in sorted(skews.items())}


def excluded_nodes(state: SweepState, *, now: float) -> list[NodeExcluded]:
    """Nodes that are avoided now, by name."""
    excluded = (event for event in state.excluded.values() if event.holds(now))
    return sorted(excluded, key=lambda event: event.node)


def interruption_counts(state: SweepState) -> dict[str, int]:
    """How often attempts were interrupted, by why, the most frequent first."""
    return {why.value: count for why, count in state.interrupted.most_common()}


#: Why a promoted run may have begun from scratch.
NO_CHECKPOINT: Final = (
    "there was no checkpoint to go on from, or the program knows no way to (trial.resume_from, "
    "{resume_from}, {output_dir}, train.resume)"
)


#: So many trials are named.
NAMED: Final = 5


def added_lines(state: SweepState) -> list[str]:
    """The parameters by which the space has grown; nothing where it has not."""
    added = ", ".join(added_parameters(state.started))
    return [f"space: runs suggested {added} first; new trials search what was added"] if added else []


def advice_lines(state: SweepState) -> list[str]:
    """What users should change in their spec or training code, as runs have shown; one line for each."""
    lines = [f"warning: {branch}" for branch in failed_branches(state)]
    if state.started is not None and state.ended is None:
        lines += [f"warning: {change}" for change in changed_searchers(state.started)]
    if again := [run.trial for run in state.retrained]:
        trials = list(dict.fromkeys(again))
        more = f" and {plural(len(trials) - NAMED, 'other')}" if len(trials) > NAMED else ""
        named = ", ".join(map(str, trials[:NAMED])) + more
        runs = plural(len(again), "promoted run")
        which = f"trial{'s' if len(trials) > 1 else ''} {named}"
        lines.append(f"warning: {runs} trained from scratch ({which}): {NO_CHECKPOINT}")
    for warning in state.warnings.values():
        where = f"trial {warning.run.trial} rung {warning.run.rung}"
        others = f" and {plural(warning.runs - 1, 'other run')}" if warning.runs > 1 else ""
        lines.append(f"warning: {where}{others}: {warning.text}")
    return lines
