"""What runs asked for stands beside what they used."""

from __future__ import annotations

from pathlib import Path

import msgspec
from typer.testing import CliRunner

from hpcsweep.cli import app
from hpcsweep.core.events import AnyEvent, BatchPlanned, RunId, RunsAssigned, SweepStarted
from hpcsweep.html.sections import Section, Table
from hpcsweep.html.usage import usage
from hpcsweep.views.folder import ResultsFolder
from hpcsweep.views.format import use_text
from hpcsweep.views.usage import ResourceUse, resource_use
from tests.views.folders import created, finished, identity, planned, written

STARTED = SweepStarted("cafe01", "lr", 50.0, identity())


def batch(**fields: object) -> list[AnyEvent]:
    events = planned("a", (0, 0), (1, 0), (2, 0))
    return [
        msgspec.structs.replace(event, **fields) if isinstance(event, BatchPlanned) else event
        for event in events
    ]


def ran(**fields: object) -> list[AnyEvent]:
    used = [(600.0, 1000), (1200.0, 3000), (700.0, 2000)]
    ends = [finished(trial, seconds=s, peak_mib=mib) for trial, (s, mib) in enumerate(used)]
    return [STARTED, *created(3), *batch(**fields), *ends]


def test_medians_of_what_was_asked_for_stand_beside_those_of_what_was_used(tmp_path: Path) -> None:
    section = usage(written(tmp_path / "r", ran(time_s=1800, mem_mib=16384, lanes=2)))
    assert isinstance(section, Section)
    (table,) = section.blocks
    assert isinstance(table, Table)
    assert dict(zip(table.columns, *table.rows, strict=True)) == {
        "resource": 10,
        "runs": 3,
        "time asked for": "30 min",
        "time used": "11.7 min",
        "longest": "20 min",
        "memory asked for": "8G",
        "memory used": "2000M",
        "largest": "3000M",
    }


def test_without_a_request_there_is_nothing_to_compare(tmp_path: Path) -> None:
    assert usage(written(tmp_path / "r", ran(time_s=0))) is None


def test_status_tells_it_where_it_changes_as_the_sweep_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "r"
    written(root, ran(time_s=1800, mem_mib=16384, lanes=2))
    line = "resource 10: 3 runs asked for 30 min and took 11.7 min, asked for 8G of memory and held 2000M"
    for resources, lines in [("{mem: 16G, time: 30m}", []), ("{mem: auto, time: {max: 2h}}", [line])]:
        (root / "sweep.yaml").write_text(f"name: lr\nresources: {resources}\n")
        assert [use_text(use) for use in ResultsFolder(root).resource_use] == lines
        told = CliRunner().invoke(app, ["status", str(root)]).output.splitlines()
        assert [each for each in told if each.startswith("resource ")] == lines


def test_a_task_that_keeps_its_gpus_gives_each_run_a_limit_of_its_own() -> None:
    begun, *ends = ran(time_s=7200)[4:]
    assert isinstance(begun, BatchPlanned)
    kept = msgspec.structs.replace(begun, tasks=((),), reuse=True)
    given = [RunsAssigned("a", 60.0, 0, (RunId(n, 0),), number=n, time_s=900) for n in range(3)]
    assert resource_use([STARTED, *created(3), kept, *given, *ends]) == [
        ResourceUse(10, 3, 900.0, 700.0, 1200.0, None, 2000.0, 3000)
    ]
