"""What the shell completes: results folders, trials of the folder that was given, names of clusters."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

#: Trials that are offered at most, and how deep results folders are looked for.
MOST: Final = 200
DEPTH: Final = 2


def complete_folders(incomplete: str) -> Iterator[str]:
    """Results folders, up to two levels below what is there already."""
    from hpcsweep.errors import FolderError
    from hpcsweep.views.overview import find_sweeps

    head = os.path.dirname(incomplete)
    with contextlib.suppress(FolderError):
        for path in find_sweeps(Path(os.path.expanduser(head)), depth=DEPTH).sweeps:
            shown = os.path.join(head, os.path.relpath(path, os.path.expanduser(head) or "."))
            if shown.startswith(incomplete):
                yield shown


def complete_trials(ctx: typer.Context, incomplete: str) -> Iterator[tuple[str, str]]:
    """Trials of the folder that was given, with how they stand; the best first."""
    from hpcsweep.errors import HpcsweepError
    from hpcsweep.views.format import config_text, number
    from hpcsweep.views.overview import read_overview

    folder = ctx.params.get("folder")
    if folder is None:
        return
    try:
        state = read_overview(Path(folder)).progress.state
    except (HpcsweepError, OSError):
        return
    sign = 1 if state.minimise else -1
    last = [
        (trial, trial.last_completed) for trial in state.trials if str(trial.trial).startswith(incomplete)
    ]

    def order(item: Any) -> tuple[bool, float]:
        value = item[1].value if item[1] is not None else None
        return value is None, 0.0 if value is None else sign * value

    for trial, run in sorted(last, key=order)[:MOST]:
        value = run.value if run is not None else None
        values = run.values or (run.value,) if run is not None else ()
        pairs = zip(state.objectives.metrics, values, strict=False)
        what = ", ".join(f"{metric} {number(each)}" for metric, each in pairs if each is not None)
        what = "no value yet" if value is None else what
        yield str(trial.trial), f"{what}, {config_text(trial.config)}"


def complete_clusters(incomplete: str) -> Iterator[str]:
    """Names of `cluster.name`."""
    from hpcsweep.cluster.backend import cluster_names

    yield from (name for name in ("auto", *cluster_names()) if name.startswith(incomplete))
