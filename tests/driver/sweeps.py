"""Small sweeps for driver tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcsweep.core.cluster_protocol import Cluster
from hpcsweep.core.events import AnyEvent, SweepEnded, SweepOutcome, SweepStarted
from hpcsweep.core.protocols import Clock, Scheduler, Searcher
from hpcsweep.core.space import Float, Parameter, Space
from hpcsweep.driver import Driver, DriverConfig, HostTask
from hpcsweep.schedulers.synchronous import Hyperband
from hpcsweep.searchers.random import Random
from hpcsweep.store.journal import Journal
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from tests.doubles import PROGRAM, SHAPE, FakeClock, FolderCluster, InlineCompactor

SPACE = Space((Parameter("x", Float(0.0, 1.0)),), ())
STARTED = SweepStarted("cafe01", "s", 1_000_000.0, {"objective": {"metric": "loss", "mode": "min"}})

#: Rungs as trials x resource: those of Hyperband for R = 9, 27 and 81, eta = 3.
TABLE_9 = {0: [(9, 1), (3, 3), (1, 9)], 1: [(5, 3), (1, 9)], 2: [(3, 9)]}
TABLE_27 = {
    0: [(27, 1), (9, 3), (3, 9), (1, 27)],
    1: [(12, 3), (4, 9), (1, 27)],
    2: [(6, 9), (2, 27)],
    3: [(4, 27)],
}
TABLE_81 = {
    0: [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
    1: [(34, 3), (11, 9), (3, 27), (1, 81)],
    2: [(15, 9), (5, 27), (1, 81)],
    3: [(8, 27), (2, 81)],
    4: [(5, 81)],
}


def make_driver(
    root: Path,
    cluster: Cluster,
    *,
    scheduler: Scheduler | None = None,
    searcher: Searcher | None = None,
    space: Space = SPACE,
    clock: Clock | None = None,
    first: Sequence[AnyEvent] = (STARTED,),
    host: HostTask | None = None,
    compact: bool = False,
    **settings: Any,
) -> tuple[Driver, Journal]:
    """A driver on the folder, started with the events `first`; release the journal when done."""
    layout = Layout(root)
    journal = Journal.open(layout)
    options: dict[str, Any] = {
        "name": "s",
        "program": PROGRAM,
        "shape": SHAPE,
        "seed": 7,
        "max_tasks": 4,
        "cluster": "folder",
    } | settings
    driver = Driver(
        layout=layout,
        journal=journal,
        space=space,
        searcher=searcher or Random(),
        scheduler=scheduler or Hyperband(max_resource=9),
        cluster=cluster,
        clock=clock or FakeClock(),
        settings=DriverConfig(**options),
        host=host,
        compactor=InlineCompactor(layout) if compact else None,
    )
    driver.start(*first)
    return driver, journal


def drive(root: Path, cluster: Cluster, **options: Any) -> Driver:
    """Drive the sweep to its end."""
    driver, journal = make_driver(root, cluster, **options)
    try:
        driver.run()
    finally:
        journal.release()
    return driver


def decided(events: list[AnyEvent]) -> list[tuple[Any, ...]]:
    """What was decided and what became of it, without times and batch names, sorted by trial."""
    from hpcsweep.core.events import RunFinished, TrialCreated, TrialPromoted

    found: list[tuple[Any, ...]] = []
    for event in events:
        match event:
            case TrialCreated():
                found.append((event.trial, 0, "created", event.bracket, event.resource, event.config["x"]))
            case TrialPromoted():
                found.append((event.trial, event.rung, "promoted", event.resource))
            case RunFinished():
                found.append((event.trial, event.rung, "finished", event.outcome.value, event.value))
            case _:
                pass
    return sorted(found, key=repr)


def rung_table(runs: Any) -> dict[int, list[tuple[int, int]]]:
    """For each bracket its rungs as (runs, resource), from the frame of runs."""
    table: dict[int, list[tuple[int, int]]] = {}
    for (bracket, _), group in runs.groupby(["bracket", "rung"]):
        table.setdefault(bracket, []).append((len(group), int(group["resource"].iloc[0])))
    return table


def events(root: Path) -> list[AnyEvent]:
    """The journal of the sweep in this folder."""
    return read_journal(Layout(root)).events


def of_kind(root: Path, *kinds: type[Any]) -> list[Any]:
    """The journal's events of these kinds."""
    return [event for event in events(root) if isinstance(event, kinds)]


def end_of(root: Path) -> tuple[SweepOutcome, str]:
    """How it was left the last time."""
    ended = of_kind(root, SweepEnded)[-1]
    return ended.outcome, ended.reason


def undisturbed(folder: Path, **options: Any) -> list[tuple[Any, ...]]:
    """What is decided when nothing goes wrong."""
    drive(folder / "undisturbed", FolderCluster(folder / "undisturbed controller"), **options)
    return decided(events(folder / "undisturbed"))
