"""Draws a `StatusSnapshot` in lines that fit the terminal."""

from __future__ import annotations

import math
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from hpcsweep.cli.progress import Plan, format_eta, format_throughput
from hpcsweep.cli.terminal import sanitize
from hpcsweep.core.events import FailureKind, Interruption
from hpcsweep.core.models import RunStatus
from hpcsweep.core.outcomes import FACTS
from hpcsweep.core.text import plural
from hpcsweep.views.format import (
    attempt_text,
    best_text,
    bracket_text,
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
from hpcsweep.views.progress import RungCount, SweepProgress, run_counts
from hpcsweep.views.snapshot import RunningRun, StatusSnapshot
from hpcsweep.views.tasks import Activity, LiveTask, activity_counts, queue_waits

#: Columns of what stands before each line.
LABEL: Final = 12
#: The widest bar.
WIDEST: Final = 40

STYLES: Final = {"done": "green", "failed": "red", "stopped": "yellow", "running": "cyan", "open": "dim"}


class Glyphs(NamedTuple):
    """Characters for a bar, and for a sparkline from the lowest to the highest."""

    done: str
    failed: str
    stopped: str
    running: str
    open: str
    levels: str


UNICODE: Final = Glyphs("█", "×", "▒", "=", "·", "▁▂▃▄▅▆▇█")
ASCII: Final = Glyphs("#", "x", "s", "=", ".", "_.-~=+*#")


class Panel(NamedTuple):
    """A part of the dashboard.

    Attributes:
        least: Lines that it gets, if it has as many, before any panel gets more.
        lines: Draws it in at most so many lines.
        most: Lines that it would fill.
    """

    least: int
    most: int
    lines: Callable[[int], list[Text]]


def plain(text: str, style: str = "") -> Text:
    """Text as it is: no markup, nothing that the terminal would obey."""
    return Text(sanitize(text), style=style)


def labelled(label: str, text: str, style: str = "") -> Text:
    return Text.assemble((f"{label:<{LABEL - 1}} ", "bold"), plain(text, style))


class Dashboard:
    """A snapshot, drawn for the console that it is printed on."""

    def __init__(self, view: StatusSnapshot, plan: Plan | None) -> None:
        self._view = view
        self._plan = plan

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        glyphs = ASCII if options.ascii_only else UNICODE
        yield from draw(self._view, self._plan, width=options.max_width, height=console.height, glyphs=glyphs)


def draw(
    view: StatusSnapshot, plan: Plan | None, *, width: int, height: int, glyphs: Glyphs = UNICODE
) -> list[Text]:
    """At most `height` lines of at most `width` columns."""
    panels = [
        _fixed(_head(view, width)),
        _fixed([plain(warning, "yellow") for warning in _warnings(view)], least=2),
        _fixed(_summary(view, plan, width, glyphs), least=4),
        brackets_panel(view, width, glyphs),
        _running(view),
        _fixed(_pending(view), least=2),
        _fixed(_failures(view), least=2),
    ]
    lines: list[Text] = []
    given = _shares(panels, height)
    spare = height - sum(given)
    for panel, share in zip(panels, given, strict=True):
        drawn = panel.lines(share)
        if drawn and lines and spare > 0:
            lines.append(Text())
            spare -= 1
        lines += drawn
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return lines[:height]


def _shares(panels: Sequence[Panel], height: int) -> list[int]:
    """How many lines each panel gets: first what it needs at least, then what it would fill."""
    given = [0] * len(panels)
    for wanted in ([min(panel.least, panel.most) for panel in panels], [panel.most for panel in panels]):
        for index, lines in enumerate(wanted):
            more = min(max(0, lines - given[index]), height - sum(given))
            given[index] += more
    return given


def _fixed(lines: list[Text], *, least: int | None = None) -> Panel:
    """A panel of which only the first lines are drawn where there is no room for all."""
    return Panel(len(lines) if least is None else least, len(lines), lambda n: lines[:n])


# --------------------------------------------------------------------------- summary


def _head(view: StatusSnapshot, width: int) -> list[Text]:
    state = view.progress.state
    name = state.started.name if state.started else "a sweep"
    status = view.progress.status + (", simulated" if state.simulated else "")
    driver = "" if state.ended else f"driver: {driver_text(state, view.driver, view.liveness)}"
    head = Text.assemble((sanitize(name), "bold"), f"  {status}  ", plain(driver, "dim"))
    clock = time.strftime("%H:%M:%S", time.localtime(view.at))
    room = width - len(clock) - 1
    if room > 0:
        head.truncate(room, overflow="ellipsis", pad=True)
        head.append(f" {clock}", "dim")
    return [head]


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


def _front_lines(progress: SweepProgress) -> list[Text]:
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


def _summary(view: StatusSnapshot, plan: Plan | None, width: int, glyphs: Glyphs) -> list[Text]:
    progress, state = view.progress, view.progress.state
    best = labelled("best", best_text(state), "bold green" if state.best else "")
    room = min(WIDEST, width - best.cell_len - 2)
    history = _history(progress)
    if len(history) > 1 and room >= 8:
        best.append("  " + sparkline(history, progress.began, view.at, width=room, levels=glyphs.levels))
    lines = [best]
    if state.best is not None:
        text = sanitize(config_text(state.best.config))
        wrapped = textwrap.wrap(text, max(8, width - LABEL), max_lines=2, placeholder=" ...")
        lines += [Text(" " * LABEL + line) for line in wrapped]
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
    room = min(WIDEST, width - spent.cell_len - 8)
    if budget and room >= 6 and (state.spent_gpu_s or not state.spent_s):
        share = state.spent_gpu_s / 3600 / budget
        done = min(room, round(share * room))
        spent.append("  " + glyphs.done * done, STYLES["done"])
        spent.append(glyphs.open * (room - done), STYLES["open"])
        spent.append(f" {share:.0%}")
    return [*lines, spent]


# --------------------------------------------------------------------------- runs and tasks


def _running(view: StatusSnapshot) -> Panel:
    shown = [_running_line(run) for run in view.shown]
    total = len(view.running)

    def lines(most: int) -> list[Text]:
        kept = shown[:most] if total <= most else shown[: max(0, most - 1)]
        more = labelled("", f"and {total - len(kept)} more", "dim")
        return kept + [more] * (total > len(kept) and most > 0)

    most = len(shown) + (total > len(shown))
    return Panel(min(3, most), most, lines)


def _running_line(shown: RunningRun) -> Text:
    run = shown.run
    step = "no report yet" if shown.step is None else f"{shown.step}/{run.resource}"
    value = "" if shown.value is None else f"  {number(shown.value)}"
    where = location(shown.node, "", shown.seconds or 0.0)
    return labelled("running", f"trial {run.trial} rung {run.rung}: {step}{value}{where}")


def _pending(view: StatusSnapshot) -> list[Text]:
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


def _failures(view: StatusSnapshot) -> list[Text]:
    """Counts of interruptions, then failures and interruptions, the newest first."""
    progress = view.progress
    counts = [f"{n:,} {FACTS[why].label}" for why, n in progress.state.interrupted.most_common()]
    lines = [labelled("interrupted", ", ".join(counts))] if counts else []
    for attempt in reversed(progress.failures):
        lines.append(plain(attempt_text(FailureKind(attempt["failure"]), attempt), "red"))
    for attempt in reversed(progress.interruptions):
        lines.append(plain(attempt_text(Interruption(attempt["why"]), attempt), "yellow"))
    return lines


# --------------------------------------------------------------------------- bars and brackets


def bar(count: RungCount, running: int, width: int, glyphs: Glyphs) -> Text:
    """The runs of a rung as shares of a bar."""
    shown = Text()
    upto = drawn = 0
    shares = (
        ("done", count.completed),
        ("stopped", count.stopped),
        ("failed", count.failed),
        ("running", min(running, count.runs - count.ended)),
    )
    for name, runs in shares:
        upto += runs
        length = round(upto / count.runs * width) - drawn
        shown.append(getattr(glyphs, name) * length, STYLES[name])
        drawn += length
    shown.append(glyphs.open * (width - drawn), STYLES["open"])
    return shown


def sparkline(
    history: Sequence[tuple[float, float]], since: float, now: float, *, width: int, levels: str
) -> str:
    """The values over time in so many characters, higher where they are higher."""
    values = [value for _, value in history]
    # Losses that begin at a thousand would hide all that comes later.
    log = min(values) > 0 and max(values) > 100 * min(values)
    heights = [math.log(value) if log else value for value in values]
    low, high = min(heights), max(heights)
    line, passed = "", 0
    for column in range(1, width + 1):
        at = since + (now - since) * column / width
        while passed < len(history) and (history[passed][0] <= at or column == width):
            passed += 1
        if not passed:
            line += " "
            continue
        share = (heights[passed - 1] - low) / (high - low) if high > low else 0.0
        line += levels[round(share * (len(levels) - 1))]
    return line


#: Brackets that are drawn although all their runs have ended; others are only counted.
NEWEST_SHOWN: Final = 8
#: Columns of the figures beside a rung's bar.
_FIGURES: Final = 44


def brackets_panel(view: StatusSnapshot, width: int, glyphs: Glyphs) -> Panel:
    """Brackets under way by rung while there is room; others in one line each, or only counted."""
    rungs = view.progress.rungs
    brackets = rungs.current(newest=NEWEST_SHOWN)
    trials = view.progress.state.trials
    running = Counter((trials[run.trial].bracket, run.rung) for run in view.running)
    columns = (
        max((len(str(counts[-1].resource)) for counts in brackets.values()), default=0),
        max((len(str(count.runs)) for counts in brackets.values() for count in counts), default=0),
    )
    ladders = {
        bracket: _ladder(bracket, counts, running, width, columns, glyphs)
        if rungs.is_under_way(bracket)
        else []
        for bracket, counts in brackets.items()
    }
    order = sorted(brackets, key=lambda bracket: (not ladders[bracket], -bracket))

    def lines(most: int) -> list[Text]:
        kept = order[:most] if len(rungs) <= most else order[: max(0, most - 1)]
        more = len(rungs) - len(kept)
        spare = most - len(kept) - (more > 0)
        found: dict[int, list[Text]] = {}
        for bracket in kept:
            extra = len(ladders[bracket]) - 1
            found[bracket] = ladders[bracket] if 0 <= extra <= spare else [_short(bracket, brackets[bracket])]
            spare -= len(found[bracket]) - 1
        under_way = sum(bool(ladders[bracket]) for bracket in order[len(kept) :])
        rest = labelled("", f"{plural(more, 'more bracket')}, {under_way} of them under way", "dim")
        return [rest] * (more > 0 and most > 0) + [line for b in sorted(found) for line in found[b]]

    most = sum(max(1, len(ladder)) for ladder in ladders.values()) + (len(rungs) > len(brackets))
    return Panel(min(6, most), most, lines)


def _short(bracket: int, counts: Sequence[RungCount]) -> Text:
    return labelled(f"bracket {bracket}", bracket_text(counts))


def _ladder(
    bracket: int,
    counts: Sequence[RungCount],
    running: Counter[tuple[int, int]],
    width: int,
    columns: tuple[int, int],
    glyphs: Glyphs,
) -> list[Text]:
    """A line for each rung: resource, bar, figures; `columns` of the resource and of a number of runs."""
    room = max(6, min(WIDEST, width - LABEL - _FIGURES))
    digits, of = columns
    lines = []
    for rung, count in enumerate(counts):
        now = running[bracket, rung]
        promoted = counts[rung + 1].runs if rung + 1 < len(counts) else 0
        line = labelled("" if rung else f"bracket {bracket}", f"{count.resource:>{digits}} ")
        line.append_text(bar(count, now, room, glyphs))
        line.append(f" {count.ended:>{of}}/{count.runs:<{of}}")
        counts_by_word = {
            "running": now,
            "failed": count.failed,
            "stopped": count.stopped,
            "promoted": promoted,
        }
        for word, runs in counts_by_word.items():
            if runs:
                line.append(f" {runs} {word}", STYLES.get(word, ""))
        lines.append(line)
    return lines
