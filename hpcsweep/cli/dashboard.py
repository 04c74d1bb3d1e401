"""How a `View` is drawn: lines that fit a terminal's width and height, whatever there is to tell."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from hpcsweep.cli.bracket_widget import brackets_part
from hpcsweep.cli.eta import Plan, outlook, rate
from hpcsweep.cli.format import (
    ENDINGS,
    best_line,
    configuration,
    cost,
    number,
    place,
    runs_line,
    state_counts,
    troubles,
)
from hpcsweep.cli.sanitize import sanitize
from hpcsweep.cli.widgets import (
    ASCII,
    LABEL,
    STYLES,
    UNICODE,
    WIDEST,
    Glyphs,
    Panel,
    labelled,
    plain,
    sparkline,
)
from hpcsweep.core.events import FailureKind, Interruption
from hpcsweep.core.models import RunStatus
from hpcsweep.views.snapshot import Running, StatusSnapshot


class Dashboard:
    """A view, drawn for the console that it is printed on."""

    def __init__(self, view: StatusSnapshot, plan: Plan | None) -> None:
        self._view = view
        self._plan = plan

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        glyphs = ASCII if options.ascii_only else UNICODE
        yield from draw(self._view, self._plan, width=options.max_width, height=console.height, glyphs=glyphs)


def draw(
    view: StatusSnapshot, plan: Plan | None, *, width: int, height: int, glyphs: Glyphs = UNICODE
) -> list[Text]:
    """The picture as at most `height` lines of at most `width` columns."""
    parts = [
        _fixed(_head(view, width)),
        _fixed([plain(trouble, "yellow") for trouble in _troubles(view)], least=2),
        _fixed(_summary(view, plan, width, glyphs), least=4),
        brackets_part(view, width, glyphs),
        _running(view),
        _fixed(_pending(view), least=2),
        _fixed(_mishaps(view), least=2),
    ]
    lines: list[Text] = []
    given = _shares(parts, height)
    spare = height - sum(given)
    for part, share in zip(parts, given, strict=True):
        drawn = part.lines(share)
        if drawn and lines and spare > 0:
            lines.append(Text())
            spare -= 1
        lines += drawn
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return lines[:height]


def _shares(parts: Sequence[Panel], height: int) -> list[int]:
    """How many lines each part gets: first what it needs least, then what it would fill."""
    given = [0] * len(parts)
    for wanted in ([min(part.least, part.most) for part in parts], [part.most for part in parts]):
        for index, lines in enumerate(wanted):
            more = min(max(0, lines - given[index]), height - sum(given))
            given[index] += more
    return given


def _fixed(lines: list[Text], *, least: int | None = None) -> Panel:
    """A part of which only the first lines are drawn where there is no place for all."""
    return Panel(len(lines) if least is None else least, len(lines), lambda n: lines[:n])


# --------------------------------------------------------------------------- what is said once


def _head(view: StatusSnapshot, width: int) -> list[Text]:
    state = view.course.state
    name = state.started.name if state.started else "a sweep"
    ending = "running" if state.ended is None else state.ended.outcome.value
    ending += ", simulated" if state.simulated else ""
    head = Text.assemble((sanitize(name), "bold"), f"  {ending}  ", plain(_driver(view), "dim"))
    clock = time.strftime("%H:%M:%S", time.localtime(view.at))
    room = width - len(clock) - 1
    if room > 0:
        head.truncate(room, overflow="ellipsis", pad=True)
        head.append(f" {clock}", "dim")
    return [head]


def _driver(view: StatusSnapshot) -> str:
    state = view.course.state
    if view.driver is not None:
        return f"driven by {view.driver}"
    if state.ended is not None:
        return ""
    if view.liveness is not None and view.liveness.driven is False and state.detached is not None:
        return "nobody drives it"
    if state.detached is not None:
        return f"driven by its jobs on {state.detached.cluster}"
    return "no driver at work: launch again to carry on"


def _troubles(view: StatusSnapshot) -> list[str]:
    refusal = view.course.refusal()
    return [
        *([view.unknown] if view.unknown else []),
        *(view.liveness.lines if view.liveness is not None and view.liveness.unknown != view.unknown else []),
        *([f"refused: {refusal}"] if refusal else []),
        *troubles(view.course.state, now=view.at),
    ]


def _summary(view: StatusSnapshot, plan: Plan | None, width: int, glyphs: Glyphs) -> list[Text]:
    state = view.course.state
    best = labelled("best", best_line(state), "bold green" if state.best else "")
    room = min(WIDEST, width - best.cell_len - 2)
    if len(view.course.best) > 1 and room >= 8:
        since = state.started.at if state.started else view.course.best[0][0]
        best.append("  " + sparkline(view.course.best, since, view.at, width=room, levels=glyphs.levels))
    lines = [best]
    lines.append(labelled("runs", _runs(view)))
    told = {"pace": rate(view.course, now=view.at), "end": outlook(plan, view.course, now=view.at)}
    lines += [labelled(label, text) for label, text in told.items() if text]
    budget = plan.gpu_hours if plan else None
    spent = labelled("cost", cost(state, budget))
    room = min(WIDEST, width - spent.cell_len - 8)
    if budget and room >= 6 and (state.spent_gpu_s or not state.spent_s):
        share = state.spent_gpu_s / 3600 / budget
        done = min(room, round(share * room))
        spent.append("  " + glyphs.done * done, STYLES["done"])
        spent.append(glyphs.open * (room - done), STYLES["open"])
        spent.append(f" {share:.0%}")
    lines.append(spent)
    if state.best is not None:
        text = sanitize(configuration(state.best.config))
        wrapped = textwrap.wrap(text, max(8, width - LABEL), max_lines=2, placeholder=" ...")
        lines[1:1] = [Text(" " * LABEL + line) for line in wrapped]
    return lines


def _runs(view: StatusSnapshot) -> str:
    counts = state_counts(view.course.state)
    submitted = counts.pop("submitted")
    running = len(view.running)
    return runs_line(counts | {"running": running, "pending": submitted - running - sum(view.ended.values())})


# --------------------------------------------------------------------------- runs and tasks


def _running(view: StatusSnapshot) -> Panel:
    shown = [_running_line(one) for one in view.shown]
    total = len(view.running)

    def lines(most: int) -> list[Text]:
        kept = shown[:most] if total <= most else shown[: max(0, most - 1)]
        more = labelled("", f"and {total - len(kept)} more", "dim")
        return kept + [more] * (total > len(kept) and most > 0)

    most = len(shown) + (total > len(shown))
    return Panel(min(3, most), most, lines)


def _running_line(one: Running) -> Text:
    run = one.run
    told = "no report yet" if one.step is None else f"{one.step}/{run.resource}"
    value = "" if one.value is None else f"  {number(one.value)}"
    where = place(one.node, "", one.seconds or 0.0)
    return labelled("running", f"trial {run.trial} rung {run.rung}: {told}{value}{where}")


def _pending(view: StatusSnapshot) -> list[Text]:
    lines = [
        labelled("pending", f"{tasks} task{'s' * (tasks > 1)}" + (f": {reason}" if reason else ""))
        for reason, tasks in sorted(view.pending.items(), key=lambda item: (-item[1], item[0]))
    ]
    for why, runs in sorted(view.ended.items()):
        how = f" ({why.replace('_', ' ')})" if why else ""
        lines.append(labelled("ended", f"{runs} run{'s' * (runs > 1)}{how}, not taken in yet"))
    waiting = view.course.state.counts[RunStatus.WAITING]
    return lines + (
        [labelled("waiting", f"{waiting} run{'s' * (waiting > 1)}, not submitted yet")] if waiting else []
    )


def _mishaps(view: StatusSnapshot) -> list[Text]:
    """Counts of interruptions, then failures and interruptions, the newest first."""
    course = view.course
    counts = [f"{n} {ENDINGS[why]}" for why, n in course.state.interrupted.most_common()]
    lines = [labelled("interrupted", ", ".join(counts))] if counts else []
    for one in reversed(course.failures):
        lines.append(_mishap(ENDINGS[FailureKind(one["failure"])], one, "red"))
    for one in reversed(course.interruptions):
        lines.append(_mishap(ENDINGS[Interruption(one["why"])], one, "yellow"))
    return lines


def _mishap(ending: str, one: dict[str, object], style: str) -> Text:
    where = place(str(one["node"]), str(one["job"]))
    return plain(f"{ending}: trial {one['trial']} rung {one['rung']}{where}: {one['message']}", style)
