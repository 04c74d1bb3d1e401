"""The page of one sweep: its sections in their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, TypeAlias

from hpcsweep.report.page.contour import contour
from hpcsweep.report.page.curves import curves
from hpcsweep.report.page.failures import failures
from hpcsweep.report.page.gpu_time import gpu_time
from hpcsweep.report.page.importance import importance
from hpcsweep.report.page.parallel import parallel
from hpcsweep.report.page.pareto import Mode, pareto
from hpcsweep.report.page.progress import progress
from hpcsweep.report.page.provenance import provenance
from hpcsweep.report.page.render import render
from hpcsweep.report.page.rungs import rungs
from hpcsweep.report.page.sections import Section
from hpcsweep.report.page.slices import slices
from hpcsweep.report.page.summary import summary
from hpcsweep.report.results import Results

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
