"""What runs asked for against what they used."""

from __future__ import annotations

import math

from hpcsweep.core.units import format_memory
from hpcsweep.html.sections import Section, Table
from hpcsweep.views.format import duration
from hpcsweep.views.results import Results
from hpcsweep.views.usage import resource_use

#: So many resources are listed, the largest ones.
MOST_ROWS = 20


def usage(results: Results) -> Section | None:
    """Time limits and memory by resource; None where nothing that was asked for can be compared."""
    levels = resource_use(results.folder.events)
    if not any(level.compares for level in levels):
        return None
    columns = [
        *("resource", "runs", "time asked for", "time used", "longest"),
        *("memory asked for", "memory used", "largest"),
    ]
    rows = [
        (
            level.resource,
            level.runs,
            _time(level.asked_s),
            _time(level.used_s),
            _time(level.longest_s),
            _memory(level.asked_mib),
            _memory(level.used_mib),
            _memory(level.largest_mib),
        )
        for level in levels[-MOST_ROWS:]
    ]
    caption = "Completed runs by resource: medians of what they asked for and used, and the most."
    if len(levels) > MOST_ROWS:
        caption += f" The last {MOST_ROWS} of {len(levels):,} resources."
    return Section("usage", "Resources asked for and used", [Table(columns, rows, caption)])


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else duration(seconds)


def _memory(mib: float | None) -> str | None:
    return None if mib is None else format_memory(math.ceil(mib))
