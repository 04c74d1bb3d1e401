"""Draws a `StatusSnapshot` in lines that fit the terminal."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from hpcsweep.cli.colours import BAD, GOOD, QUIET, WARNING
from hpcsweep.cli.panels import LABEL, Drawing, Line, Panel, Pick, beside, fixed, labelled, plain, stacked
from hpcsweep.cli.progress import Plan, format_eta, format_throughput
from hpcsweep.cli.rung_bars import ASCII, STYLES, UNICODE, WIDEST, Glyphs, brackets_panel, sparkline
from hpcsweep.cli.terminal import sanitize
from hpcsweep.cli.trial import ordinal
from hpcsweep.core.events import FailureKind, Interruption
from hpcsweep.core.models import RunStatus
from hpcsweep.core.objectives import Objectives
from hpcsweep.core.outcomes import FACTS
from hpcsweep.core.text import plural
from hpcsweep.views.format import (
    attempt_text,
    best_text,
    config_text,
    cost,
    driver_text,
    location,
    number,
    runs_text,
    tasks_text,
    waits_text,
    warning_lines,
)
from hpcsweep.views.progress import SweepProgress, run_counts
from hpcsweep.views.snapshot import LEADERS, RunningRun, StatusSnapshot
from hpcsweep.views.tasks import Activity, LiveTask, activity_counts, queue_waits

#: From so many columns on there are two beside each other.
TWO_COLUMNS: Final = 140
_GAP: Final = 3
#: From so many lines on there are the best configurations beside the very best.
LEADERS_FROM: Final = 20
#: The widest sparkline.
_SPARKLINE: Final = 60


class Dashboard:
    """A snapshot, drawn for the console that it is printed on."""

    def __init__(self, view: StatusSnapshot, plan: Plan | None) -> None:
        self._view = view
        self._plan = plan

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        glyphs = glyphs_of(options)
        drawing = draw(self._view, self._plan, width=options.max_width, height=console.height, glyphs=glyphs)
        yield from drawing.lines


def glyphs_of(options: ConsoleOptions) -> Glyphs:
    """Those that the console can show."""
    return ASCII if options.ascii_only else UNICODE


def draw(
    view: StatusSnapshot,
    plan: Plan | None,
    *,
    width: int,
    height: int,
    glyphs: Glyphs = UNICODE,
    chosen: Pick | None = None,
) -> Drawing:
    """At most `height` lines of at most `width` columns; that of `chosen` stands out."""
    wide = width >= TWO_COLUMNS
    room = (width - _GAP) * 48 // 100 if wide else width
    top = [
        fixed(_head(view, width)),
        fixed([Line(plain(text, WARNING)) for text in _warnings(view)], least=2),
    ]
    summary = fixed(_summary(view, plan, room, glyphs), least=4)
    brackets = brackets_panel(view, room, glyphs)
    leaders = fixed(_leaders(view) if height >= LEADERS_FROM else [], least=LEADERS - 1)
    running, pending = _running(view), fixed(_pending(view), least=2)
    failures = fixed(_failures(view), least=2)
    if not wide:
        panels = [*top, summary, leaders, brackets, running, pending, failures]
        return stacked(panels, width=width, height=height, chosen=chosen)
    head = stacked(top, width=width, height=height, chosen=chosen)
    below = height - len(head.lines) - 1
    if below < 1:
        return head
    left = stacked([summary, brackets, pending], width=room, height=below, chosen=chosen)
    right = stacked([leaders, running, failures], width=width - room - _GAP, height=below, chosen=chosen)
    columns = beside(left, right, width=room, gap=_GAP)
    return Drawing([*head.lines, Text(), *columns.lines], columns.picks)


# --------------------------------------------------------------------------- summary


def _head(view: StatusSnapshot, width: int) -> list[Line]:
    state = view.progress.state
    name = state.started.name if state.started else "a sweep"
    status = view.progress.status + (", simulated" if state.simulated else "")
    driver = "" if state.ended else f"driver: {driver_text(state, view.driver, view.liveness)}"
    head = Text.assemble((sanitize(name), "bold"), f"  {status}  ", plain(driver, QUIET))
    clock = time.strftime("%H:%M:%S", time.localtime(view.at))
    room = width - len(clock) - 1
    if room > 0:
        head.truncate(room, overflow="ellipsis", pad=True)
        head.append(f" {clock}", QUIET)
    return [Line(head)]


def _warnings(view: StatusSnapshot) -> list[str]:
    refusal, liveness = view.progress.refusal, view.liveness
    return [
        *([view.problem] if view.problem else []),
        *(liveness.lines if liveness is not None and liveness.unknown != view.problem else []),
        *([f"refused: {refusal}"] if refusal else []),
        *warning_lines(view.progress.state, now=view.at),
    ]


def _history(progress: SweepProgress) -> list[tuple[float, float]]:
    """The best value over time; where there is a front its hypervolume."""
    if not progress.state.objectives.has_front:
        return [(change.at, change.value) for change in progress.best_changes]
    from hpcsweep.views.front_history import front_history

    history = front_history(progress)
    return [(step.at, step.value) for step in history.steps] if history else []


def _front_lines(progress: SweepProgress) -> list[Line]:
    """With several objectives the hypervolume, and who is beyond the bounds."""
    if not progress.state.objectives.several:
        return []
    from hpcsweep.views.front_history import front_history, hypervolume_text
    from hpcsweep.views.fronts import front_of, infeasible_text

    history, front = front_history(progress), front_of(progress.state)
    volume = "" if history is None else hypervolume_text(history, active_s=progress.active_s)
    texts = {
        "hypervolume": volume,
        "infeasible": "" if front is None else infeasible_text(front, progress.state.objectives),
    }
    return [labelled(label, sanitize(text)) for label, text in texts.items() if text]


def _summary(view: StatusSnapshot, plan: Plan | None, width: int, glyphs: Glyphs) -> list[Line]:
    progress, state = view.progress, view.progress.state
    pick = Pick("best", state.best.trial) if state.best else None
    best = labelled("best", best_text(state), f"bold {GOOD}" if state.best else "", pick=pick)
    room = min(_SPARKLINE, width - best.text.cell_len - 2)
    history = _history(progress)
    if len(history) > 1 and room >= 8:
        line = sparkline(history, progress.began, view.at, width=room, levels=glyphs.levels)
        best.text.append("  " + line)
    lines = [best]
    if state.best is not None:
        text = sanitize(config_text(state.best.config))
        wrapped = textwrap.wrap(text, max(8, width - LABEL), max_lines=2, placeholder=" ...")
        lines += [Line(Text(" " * LABEL + line)) for line in wrapped]
    lines += _front_lines(progress)
    unread = sum(view.ended.values())
    lines.append(labelled("runs", runs_text(run_counts(state, running=len(view.running), unread=unread))))
    waits = queue_waits(state)
    texts = {
        "tasks": tasks_text(activity_counts(view.tasks)),
        "queue waits": waits_text(waits) if waits else "",
        "recent pace": format_throughput(progress, now=view.at),
        "end": format_eta(plan, progress, now=view.at),
    }
    lines += [labelled(label, text) for label, text in texts.items() if text]
    budget = plan.gpu_hours if plan else None
    spent = labelled("cost", cost(state, budget))
    room = min(WIDEST, width - spent.text.cell_len - 8)
    if budget and room >= 6 and (state.spent_gpu_s or not state.spent_s):
        share = state.spent_gpu_s / 3600 / budget
        done = min(room, round(share * room))
        spent.text.append("  " + glyphs.done * done, STYLES["done"])
        spent.text.append(glyphs.open * (room - done), STYLES["open"])
        spent.text.append(f" {share:.0%}")
    return [*lines, spent]


def _leaders(view: StatusSnapshot) -> list[Line]:
    """Those that come after the best, or that are on the front with it."""
    state = view.progress.state
    metrics = state.objectives.metrics
    lines = []
    for place, best in enumerate(view.leaders[1:], start=2):
        values = best.values or (best.value,)
        of = ", ".join(f"{metric} {number(value)}" for metric, value in zip(metrics, values, strict=True))
        text = f"{of} (trial {best.trial} at step {best.resource})  {config_text(best.config)}"
        label = "front" if state.objectives.has_front else ordinal(place)
        lines.append(labelled(label, text, pick=Pick("best", best.trial)))
    return lines


# --------------------------------------------------------------------------- runs and tasks


def _running(view: StatusSnapshot) -> Panel:
    objectives = view.progress.state.objectives
    shown = [_running_line(run, objectives) for run in view.shown]
    total = len(view.running)

    def lines(most: int) -> list[Line]:
        kept = shown[:most] if total <= most else shown[: max(0, most - 1)]
        more = labelled("", f"and {total - len(kept)} more", QUIET)
        return kept + [more] * (total > len(kept) and most > 0)

    most = len(shown) + (total > len(shown))
    return Panel(min(3, most), most, lines)


def _running_line(shown: RunningRun, objectives: Objectives) -> Line:
    run = shown.run
    step = "no report yet" if shown.step is None else f"{shown.step}/{run.resource}"
    values = ", ".join(
        (f"{metric} " if objectives.several else "") + number(shown.values[metric])
        for metric in objectives.metrics
        if metric in shown.values
    )
    where = location(shown.node, "", shown.seconds or 0.0)
    text = f"trial {run.trial} rung {run.rung}: {step}{values and f'  {values}'}{where}"
    return labelled("running", text, pick=Pick("running", run.trial))


def _pending(view: StatusSnapshot) -> list[Line]:
    free = [task for task in view.tasks if not task.runs and task.activity is not Activity.PENDING]
    lines = [labelled(task.activity.value, _task(task, view.at)) for task in free]
    lines += [
        labelled("pending", plural(tasks, "task") + (f": {reason}" if reason else ""))
        for reason, tasks in sorted(view.pending.items(), key=lambda item: (-item[1], item[0]))
    ]
    for why, runs in sorted(view.ended.items()):
        how = f" ({why.replace('_', ' ')})" if why else ""
        lines.append(labelled("ended", f"{plural(runs, 'run')}{how}, not processed yet"))
    waiting = view.progress.state.counts[RunStatus.WAITING]
    return [*lines, labelled("waiting", f"{plural(waiting, 'run')}, not submitted yet")] if waiting else lines


def _task(task: LiveTask, now: float) -> str:
    """A task without a run: which it is, and since when."""
    where = location(task.node, task.job, round(max(0.0, now - task.since)))
    return f"task {task.id.task}{where}"


def _failures(view: StatusSnapshot) -> list[Line]:
    """Counts of interruptions, then failures and interruptions, the newest first."""
    progress = view.progress
    counts = [f"{n:,} {FACTS[why].label}" for why, n in progress.state.interrupted.most_common()]
    lines = [labelled("interrupted", ", ".join(counts))] if counts else []
    return [*lines, *failure_lines(progress.failures), *interruption_lines(progress.interruptions)]


def failure_lines(failures: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Records of failures, given oldest first, the newest first."""
    return [
        Line(
            plain(attempt_text(FailureKind(attempt["failure"]), attempt), BAD),
            Pick("failed", attempt["trial"]),
        )
        for attempt in reversed(failures)
    ]


def interruption_lines(interruptions: Sequence[Mapping[str, Any]]) -> list[Line]:
    """The same of interruptions."""
    return [
        Line(
            plain(attempt_text(Interruption(attempt["why"]), attempt), WARNING),
            Pick("interrupted", attempt["trial"]),
        )
        for attempt in reversed(interruptions)
    ]
