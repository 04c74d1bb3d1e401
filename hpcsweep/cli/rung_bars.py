"""What `status --watch` draws of brackets: a bar for each rung; and values over time as a sparkline."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from rich.text import Text

from hpcsweep.cli.colours import ACTIVE, BAD, GOOD, QUIET, WARNING
from hpcsweep.cli.panels import LABEL, Line, Panel, labelled
from hpcsweep.core.text import plural
from hpcsweep.views.format import bracket_text
from hpcsweep.views.progress import RungCount
from hpcsweep.views.snapshot import StatusSnapshot

#: The widest bar.
WIDEST: Final = 40

STYLES: Final = {"done": GOOD, "failed": BAD, "stopped": WARNING, "running": ACTIVE, "open": QUIET}


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

    def lines(most: int) -> list[Line]:
        kept = order[:most] if len(rungs) <= most else order[: max(0, most - 1)]
        more = len(rungs) - len(kept)
        spare = most - len(kept) - (more > 0)
        found: dict[int, list[Line]] = {}
        for bracket in kept:
            extra = len(ladders[bracket]) - 1
            found[bracket] = ladders[bracket] if 0 <= extra <= spare else [_short(bracket, brackets[bracket])]
            spare -= len(found[bracket]) - 1
        under_way = sum(bool(ladders[bracket]) for bracket in order[len(kept) :])
        rest = labelled("", f"{plural(more, 'more bracket')}, {under_way} of them under way", QUIET)
        return [rest] * (more > 0 and most > 0) + [line for b in sorted(found) for line in found[b]]

    most = sum(max(1, len(ladder)) for ladder in ladders.values()) + (len(rungs) > len(brackets))
    return Panel(min(6, most), most, lines)


def _short(bracket: int, counts: Sequence[RungCount]) -> Line:
    return labelled(f"bracket {bracket}", bracket_text(counts))


def _ladder(
    bracket: int,
    counts: Sequence[RungCount],
    running: Counter[tuple[int, int]],
    width: int,
    columns: tuple[int, int],
    glyphs: Glyphs,
) -> list[Line]:
    """A line for each rung: resource, bar, figures; `columns` of the resource and of a number of runs."""
    room = max(6, min(WIDEST, width - LABEL - _FIGURES))
    digits, of = columns
    lines = []
    for rung, count in enumerate(counts):
        now = running[bracket, rung]
        promoted = counts[rung + 1].runs if rung + 1 < len(counts) else 0
        line = labelled("" if rung else f"bracket {bracket}", f"{count.resource:>{digits}} ")
        text = line.text
        text.append_text(bar(count, now, room, glyphs))
        text.append(f" {count.ended:>{of}}/{count.runs:<{of}}")
        counts_by_word = {
            "running": now,
            "failed": count.failed,
            "stopped": count.stopped,
            "promoted": promoted,
        }
        for word, runs in counts_by_word.items():
            if runs:
                text.append(f" {runs} {word}", STYLES.get(word, ""))
        lines.append(line)
    return lines
