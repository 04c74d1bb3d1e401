"""What views of the terminal are made of: lines, some of them of a trial, and panels that share the room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from rich.text import Text

from hpcsweep.cli.colours import CHOSEN
from hpcsweep.cli.terminal import sanitize

#: Columns of what stands before each line.
LABEL: Final = 12


class Pick(NamedTuple):
    """A line that can be chosen: in which list, and of which trial."""

    kind: str
    trial: int


class Line(NamedTuple):
    """One line; `pick` where it is of a trial."""

    text: Text
    pick: Pick | None = None


class Panel(NamedTuple):
    """A part of a view.

    Attributes:
        least: Lines that it gets, if it has as many, before any panel gets more.
        most: Lines that it would fill.
        lines: Draws it in at most so many lines.
    """

    least: int
    most: int
    lines: Callable[[int], list[Line]]


class Drawing(NamedTuple):
    """Lines of a view, and those of them that can be chosen, in the order in which arrows reach them."""

    lines: list[Text]
    picks: list[Pick]


def plain(text: str, style: str = "") -> Text:
    """Text as it is: no markup, nothing that the terminal would obey."""
    return Text(sanitize(text), style=style)


def labelled(label: str, text: str, style: str = "", *, pick: Pick | None = None) -> Line:
    """A line with a word before it."""
    return Line(Text.assemble((f"{label:<{LABEL - 1}} ", "bold"), plain(text, style)), pick)


def fixed(lines: Sequence[Line], *, least: int | None = None) -> Panel:
    """A panel of which only the first lines are drawn where there is no room for all."""
    return Panel(len(lines) if least is None else least, len(lines), lambda n: list(lines[:n]))


def stacked(panels: Sequence[Panel], *, width: int, height: int, chosen: Pick | None) -> Drawing:
    """The panels one below the other, apart where there is room for that."""
    drawn: list[Line] = []
    given = _shares(panels, height)
    spare = height - sum(given)
    for panel, share in zip(panels, given, strict=True):
        lines = panel.lines(share)
        if lines and drawn and spare > 0:
            drawn.append(Line(Text()))
            spare -= 1
        drawn += lines
    drawn = drawn[:height]
    for line in drawn:
        line.text.no_wrap = True
        line.text.truncate(width, overflow="ellipsis")
        if line.pick is not None and line.pick == chosen:
            line.text.stylize(CHOSEN)
    return Drawing([line.text for line in drawn], [line.pick for line in drawn if line.pick is not None])


def beside(left: Drawing, right: Drawing, *, width: int, gap: int) -> Drawing:
    """Two drawings side by side; the left one in so many columns."""
    rows = max(len(left.lines), len(right.lines))
    blank = [Text()] * rows
    lines = []
    for one, other in zip([*left.lines, *blank][:rows], [*right.lines, *blank][:rows], strict=True):
        line = one.copy()
        if other.plain:
            line.pad_right(width + gap - line.cell_len)
            line.append_text(other)
        line.no_wrap = True
        lines.append(line)
    return Drawing(lines, [*left.picks, *right.picks])


def _shares(panels: Sequence[Panel], height: int) -> list[int]:
    """How many lines each panel gets: first what it needs at least, then what it would fill."""
    given = [0] * len(panels)
    for wanted in ([min(panel.least, panel.most) for panel in panels], [panel.most for panel in panels]):
        for index, lines in enumerate(wanted):
            more = min(max(0, lines - given[index]), height - sum(given))
            given[index] += more
    return given
