"""What pictures in a terminal are made of: lines of text, bars, sparklines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from rich.text import Text

from hpcsweep.cli.sanitize import sanitize
from hpcsweep.views.rungs import RungCount

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
    """A part of the picture.

    Attributes:
        least: So many lines, if it has as many, it gets before any part gets more.
        lines: Draws it in so many lines at most.
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
