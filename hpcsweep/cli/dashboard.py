"""Draws a `StatusSnapshot` in lines that fit the terminal."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from hpcsweep.cli.eta import Plan, format_eta, format_throughput
from hpcsweep.cli.sanitize import sanitize
from hpcsweep.cli.widgets import (
    ASCII,
    LABEL,
    STYLES,
    UNICODE,
    WIDEST,
    Glyphs,
    Panel,
    brackets_panel,
    labelled,
    plain,
    sparkline,
)
from hpcsweep.core.events import FailureKind, Interruption
from hpcsweep.core.models import RunStatus
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
    warning_lines,
)
from hpcsweep.views.progress import run_counts
from hpcsweep.views.snapshot import RunningRun, StatusSnapshot


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


def _summary(view: StatusSnapshot, plan: Plan | None, width: int, glyphs: Glyphs) -> list[Text]:
    progress, state = view.progress, view.progress.state
    best = labelled("best", best_text(state), "bold green" if state.best else "")
    room = min(WIDEST, width - best.cell_len - 2)
    if len(progress.best_changes) > 1 and room >= 8:
        history = [(change.at, change.value) for change in progress.best_changes]
        best.append("  " + sparkline(history, progress.began, view.at, width=room, levels=glyphs.levels))
    lines = [best]
    if state.best is not None:
        text = sanitize(config_text(state.best.config))
        wrapped = textwrap.wrap(text, max(8, width - LABEL), max_lines=2, placeholder=" ...")
        lines += [Text(" " * LABEL + line) for line in wrapped]
    unread = sum(view.ended.values())
    lines.append(labelled("runs", runs_text(run_counts(state, running=len(view.running), unread=unread))))
    texts = {
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
    lines = [
        labelled("pending", plural(tasks, "task") + (f": {reason}" if reason else ""))
        for reason, tasks in sorted(view.pending.items(), key=lambda item: (-item[1], item[0]))
    ]
    for why, runs in sorted(view.ended.items()):
        how = f" ({why.replace('_', ' ')})" if why else ""
        lines.append(labelled("ended", f"{plural(runs, 'run')}{how}, not processed yet"))
    waiting = view.progress.state.counts[RunStatus.WAITING]
    return [*lines, labelled("waiting", f"{plural(waiting, 'run')}, not submitted yet")] if waiting else lines


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
