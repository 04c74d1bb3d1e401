"""Brackets in a picture: as ladders of rungs, in a line each, or only counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from rich.text import Text

from hpcsweep.cli.format import rung_text
from hpcsweep.cli.widgets import LABEL, STYLES, WIDEST, Glyphs, Panel, bar, labelled
from hpcsweep.core.counting import plural
from hpcsweep.views.rungs import RungCount
from hpcsweep.views.snapshot import StatusSnapshot

#: Brackets that are drawn although all their runs have ended; others are only counted.
NEWEST_SHOWN: Final = 8
#: Columns of the figures beside a rung's bar.
_FIGURES: Final = 44


def brackets_part(view: StatusSnapshot, width: int, glyphs: Glyphs) -> Panel:
    """Those under way as ladders while there is place; the others in a line each, or only counted."""
    rungs = view.course.rungs
    brackets = rungs.current(newest=NEWEST_SHOWN)
    trials = view.course.state.trials
    running = Counter((trials[run.trial].bracket, run.rung) for run in view.running)
    columns = (
        max((len(str(counts[-1].resource)) for counts in brackets.values()), default=0),
        max((len(str(count.runs)) for counts in brackets.values() for count in counts), default=0),
    )
    ladders = {
        bracket: _ladder(bracket, counts, running, width, columns, glyphs) if rungs.under_way(bracket) else []
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
    return labelled(f"bracket {bracket}", " > ".join(map(rung_text, counts)))


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
        told = {"running": now, "failed": count.failed, "stopped": count.stopped, "promoted": promoted}
        for word, runs in told.items():
            if runs:
                line.append(f" {runs} {word}", STYLES.get(word, ""))
        lines.append(line)
    return lines
