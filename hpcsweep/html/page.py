"""The page of one sweep: its sections in their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, TypeAlias

from hpcsweep.html.contour import contour
from hpcsweep.html.curves import curves
from hpcsweep.html.failures import failures
from hpcsweep.html.gpu_time import gpu_time
from hpcsweep.html.importance import importance
from hpcsweep.html.parallel import parallel
from hpcsweep.html.pareto import Mode, pareto
from hpcsweep.html.progress import progress
from hpcsweep.html.provenance import provenance
from hpcsweep.html.render import render
from hpcsweep.html.rungs import rungs
from hpcsweep.html.sections import Section
from hpcsweep.html.slices import slices
from hpcsweep.html.summary import summary
from hpcsweep.views.results import Results

Maker: TypeAlias = Callable[[Results], Section | None]

#: From top to bottom; one that has nothing to say gives None.
SECTIONS: Final[tuple[Maker, ...]] = (
    summary,
    progress,
    curves,
    rungs,
    importance,
    slices,
    contour,
    parallel,
    pareto,
    failures,
    gpu_time,
    provenance,
)


def page(results: Results, *, modes: Mapping[str, Mode] = MappingProxyType({})) -> str:
    """The whole page of a sweep as HTML.

    Args:
        results: Of the sweep.
        modes: Which end of a metric is good, where several are shown and its name would not tell.
    """
    if results.folder.state.started is None:
        return render(results.name, [summary(results)])
    makers = (partial(make, modes=modes) if make is pareto else make for make in SECTIONS)
    sections = [section for make in makers if (section := make(results)) is not None]
    return render(results.name, sections)
