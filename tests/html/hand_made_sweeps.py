"""Small sweeps whose every figure is known beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hpcsweep.core.events import (
    AnyEvent,
    BatchPlanned,
    Config,
    Outcome,
    RunFinished,
    RunId,
    SweepEnded,
    SweepOutcome,
    SweepStarted,
    TrialCreated,
    TrialPromoted,
)
from hpcsweep.html.sections import Alternatives, Block, Figure, Section, Table
from hpcsweep.store.layout import Layout
from hpcsweep.store.run_files import MetricsWriter
from hpcsweep.views.results import Results
from tests.views.folders import written

#: When each sweep began.
BEGAN = 1000.0
SPACE: dict[str, Any] = {"x": {"type": "float", "low": 0.0, "high": 10.0}}
ENDED = SweepEnded(99_000.0, SweepOutcome.FINISHED, "all trials are done")


class Ran(NamedTuple):
    """A run that ended `minutes` after the start, having taken `took` of them; no value: it failed."""

    trial: int
    resource: int
    value: float | None
    minutes: float = 1.0
    took: float = 1.0
    bracket: int = 0
    repeat: int = 0
    outcome: Outcome | None = None
    step: int | None = None
    values: tuple[float, ...] = ()


def events(
    runs: Iterable[Ran],
    *,
    mode: str = "min",
    space: Mapping[str, Any] = SPACE,
    configs: Mapping[int, Config] | None = None,
    scheduler: Mapping[str, Any] | None = None,
    repeats: int = 1,
    gpus: int = 2,
    objective: Sequence[Mapping[str, Any]] | None = None,
) -> list[AnyEvent]:
    """A journal in which these runs ended in this order; a trial's further runs are promotions."""
    identity = {
        "objective": objective or {"metric": "loss", "mode": mode, "at": "last"},
        "space": dict(space),
        "constraints": [],
        "scheduler": dict(scheduler or {"name": "hyperband", "max_resource": 9, "eta": 3}),
        "repeats": repeats,
    }
    found: list[AnyEvent] = [SweepStarted("cafe01", "s", BEGAN, identity)]
    rungs: dict[int, int] = {}
    created: dict[int, Ran] = {}
    for run in runs:
        created.setdefault(run.trial, run)
    for trial in range(len(created)):
        first = created[trial]
        config = (configs or {}).get(trial, {"x": float(trial)})
        found.append(TrialCreated(trial, config, first.bracket, first.resource, repeat=first.repeat))
    for run in runs:
        rung = rungs.get(run.trial, -1) + 1
        rungs[run.trial] = rung
        if rung:
            found.append(TrialPromoted(run.trial, rung, run.resource))
        batch = f"b{len(found)}"
        found.append(BatchPlanned(batch, BEGAN, ((RunId(run.trial, rung),),), gpus, 1))
        found.append(
            RunFinished(
                run.trial,
                rung,
                run.outcome or (Outcome.FAILED if run.value is None else Outcome.COMPLETED),
                value=run.value,
                values=run.values,
                step=run.resource if run.step is None else run.step,
                seconds=60.0 * run.took,
                gpu_seconds=60.0 * run.took * gpus,
                batch=batch,
                started=BEGAN + 60.0 * (run.minutes - run.took),
            )
        )
    return found


#: Six trials over the rungs 1, 3 and 9; trial 5 fails. In the end trial 1 is the best.
HALVING = [
    Ran(0, 1, 0.9, 1),
    Ran(1, 1, 0.5, 2),
    Ran(2, 1, 0.4, 3),
    Ran(3, 1, 0.8, 4),
    Ran(4, 1, 0.7, 5),
    Ran(5, 1, None, 6),
    Ran(1, 3, 0.3, 8, 2),
    Ran(2, 3, 0.35, 9, 2),
    Ran(1, 9, 0.1, 15, 6),
]


def sweep(folder: Path, runs: Sequence[Ran], *more: AnyEvent, **options: Any) -> Results:
    """The results folder of such a journal."""
    return written(folder, [*events(runs, **options), *more])


def report(results: Results, trial: int, rung: int, reports: Mapping[int, Mapping[str, float]]) -> None:
    """What the run reported: step -> metrics."""
    writer = MetricsWriter(Layout(results.path).trial(trial).metrics(rung, 0, 0))
    for step, metrics in reports.items():
        writer.write(step, metrics)
    writer.close()


def figure(section: Section | None, nth: int = 0) -> Figure:
    return _block(section, Figure, nth)  # type: ignore[return-value]


def table(section: Section | None, nth: int = 0) -> Table:
    return _block(section, Table, nth)  # type: ignore[return-value]


def _block(section: Section | None, kind: type[Block], nth: int) -> Block:
    assert section is not None
    return [block for block in _shown(section.blocks) if isinstance(block, kind)][nth]


def _shown(blocks: Iterable[Block]) -> Iterator[Block]:
    """Of alternatives those that are shown at first."""
    for block in blocks:
        yield from block.versions[block.shown] if isinstance(block, Alternatives) else [block]


def trace(found: Figure, name: str) -> dict[str, Any]:
    """The one with this name."""
    (only,) = [trace for trace in found.traces if trace.get("name") == name]
    return only
