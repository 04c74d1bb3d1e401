"""Parts of the dashboard: labelled lines, bars, sparklines, brackets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from rich.text import Text

from hpcsweep.cli.sanitize import sanitize
from hpcsweep.core.text import plural
from hpcsweep.views.format import bracket_text
from hpcsweep.views.progress import RungCount
from hpcsweep.views.snapshot import StatusSnapshot

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
    """The values over time in so many characters, higher where they are higher.

    Args:
        history: Time and value of each change, in order.
        since: Time at its left end.
        now: Time at its right end.
        width: Characters.
        levels: From the lowest to the highest.
    """
    values = [value for _, value in history]
    # Losses that begin at a thousand would hide all that comes later.
    log = min(values) > 0 and max(values) > 100 * min(values)
    heights = [math.log(value) if log else value for value in values]
    low, high = min(heights), max(heights)
    line, seen = "", 0
    for column in range(1, width + 1):
        at = since + (now - since) * column / width
        while seen < len(history) and (history[seen][0] <= at or column == width):
            seen += 1
        if not seen:
            line += " "
            continue
        share = (heights[seen - 1] - low) / (high - low) if high > low else 0.0
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
