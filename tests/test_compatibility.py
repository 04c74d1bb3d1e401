"""Results folders of earlier versions, and of this one; `make_folders.py` makes them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import time
import zipfile
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from hpcsweep.cli import app
from hpcsweep.core.events import AnyEvent
from hpcsweep.core.state import SweepState
from hpcsweep.store.compaction.tracker import CompactionState
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from tests.make_folders import FOLDERS, ROOT, TABLES, report_data

FIXTURES = Path(__file__).parent / "fixtures" / "folders"
VERSIONS = sorted(path.name for path in FIXTURES.iterdir())
ARCHIVES = [f"{path.parent.name}/{path.stem}" for path in sorted(FIXTURES.glob("*/*.zip"))]
RUNNING = [archive for archive in ARCHIVES if archive.endswith("-running")]
FINISHED = [archive for archive in ARCHIVES if not archive.endswith("-running")]

#: What depends on the machine and the moment of a run that is trained anew.
CIRCUMSTANCES = ("node", "job", "attempts", "start_resource", "seconds", "gpu_seconds")


#: Attempts of the trials whose tasks were requeued by the cluster, which these versions did not count.
REQUEUED = {"0.1/every-event": {"9": "2"}, "0.2/every-event": {"9": "3"}}


def unpack(tmp_path: Path, archive: str) -> Path:
    """The folder of a sweep as its version left it, but for where it lies."""
    name = archive.partition("/")[2]
    root = tmp_path / name
    with zipfile.ZipFile(FIXTURES / f"{archive}.zip") as file:
        file.extractall(root)
    for segment in Path(root, "results", "journal").iterdir():
        os.utime(segment, (0, 0))  # its driver has given no sign of life for long
    spec = root / "sweep.yaml"
    spec.write_text(spec.read_text().replace("earlier/results", f"{ROOT}/{name}/earlier/results"))
    copied = root / "results" / "code" / ".hpcsweep.json"
    if copied.exists():
        copied.write_text(copied.read_text().replace(str(ROOT / name), str(root)))
    return root


def hpcsweep(root: Path, *arguments: str) -> str:
    """What a verb prints; in this process, which has its imports already."""
    with contextlib.chdir(root):
        done = CliRunner().invoke(app, arguments, env={"COLUMNS": "100"})
    assert done.exit_code == 0 or arguments[0] == "status", done.output
    return done.stdout


def rows(text: str) -> list[dict[str, str]]:
    return [
        {key: value for key, value in row.items() if key not in CIRCUMSTANCES}
        for row in csv.DictReader(io.StringIO(text))
    ]


def tags(root: Path) -> set[str]:
    layout = Layout(root / "results")
    return {event.__struct_config__.tag for event in read_journal(layout).events}  # type: ignore[misc]


def test_the_newest_version_has_all_folders() -> None:
    assert sorted(path.stem for path in (FIXTURES / VERSIONS[-1]).glob("*.zip")) == sorted(FOLDERS)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_event_of_a_version_is_in_its_folders(tmp_path: Path, version: str) -> None:
    names = [path.stem for path in (FIXTURES / version).glob("*.zip")]
    present = set[str]().union(*(tags(unpack(tmp_path, f"{version}/{name}")) for name in names))
    assert sorted(present) == (FIXTURES / version / "events.txt").read_text().split()


def test_every_event_is_in_a_folder_of_the_newest_version() -> None:
    known = sorted(event.__struct_config__.tag for event in get_args(AnyEvent))
    assert (FIXTURES / VERSIONS[-1] / "events.txt").read_text().split() == known


@pytest.mark.parametrize("archive", ARCHIVES)
def test_an_earlier_journal_replays(tmp_path: Path, archive: str) -> None:
    root = unpack(tmp_path, archive)
    events = read_journal(Layout(root / "results")).events
    state, compaction = SweepState.replay(events), CompactionState.replay(events)
    expected = json.loads((root / "expected" / "status.json").read_text())
    assert state.started is not None
    assert (state.started.name, len(state.trials)) == (expected["name"], expected["trials"])
    assert {part.name for part in (root / "results" / "compacted").glob("metrics-*")} == {
        f"metrics-{part}.parquet" for part in compaction.parts
    }


def known_keys(shown: object, earlier: object) -> object:
    """What is shown, with the keys that an earlier version had, at every depth."""
    if isinstance(shown, dict) and isinstance(earlier, dict):
        return {key: known_keys(shown[key], earlier[key]) for key in earlier}
    if isinstance(shown, list) and isinstance(earlier, list) and len(shown) == len(earlier):
        return [known_keys(*pair) for pair in zip(shown, earlier, strict=True)]
    return shown


@pytest.mark.parametrize("archive", ARCHIVES)
def test_an_earlier_folder_gives_the_tables_that_its_version_gave(tmp_path: Path, archive: str) -> None:
    root = unpack(tmp_path, archive)
    for name in TABLES:
        text = hpcsweep(root, "export", "results", "--format", "csv", "--table", name)
        expected = list(csv.DictReader(io.StringIO((root / "expected" / f"{name}.csv").read_text())))
        found = csv.DictReader(io.StringIO(text))
        columns = expected[0] if expected else ()
        if name == "runs":
            for row in expected:
                row["attempts"] = REQUEUED.get(archive, {}).get(row["trial"], row["attempts"])
        assert [{column: row[column] for column in columns} for row in found] == expected
    assert (
        hpcsweep(root, "export", "results", "--format", "json") == (root / "expected/trials.json").read_text()
    )
    status = json.loads(
        (root / "expected" / "status.json").read_text().replace(str(ROOT / root.name), str(root))
    )
    status["excluded"] = [node for node in status["excluded"] if node["until"] > time.time()]
    shown = json.loads(hpcsweep(root, "status", "results", "--json"))
    assert known_keys(shown, status) == status, "later versions only add keys"
    best = json.loads((root / "expected" / "best.json").read_text())
    assert json.loads(hpcsweep(root, "best", "results", "--json")) == best
    hpcsweep(root, "report", "results")
    assert f"{best['value']:.6g}" in (root / "results" / "report.html").read_text()


@pytest.mark.parametrize("archive", FINISHED)
def test_an_earlier_folder_gives_the_report_that_was_recorded(
    tmp_path: Path, archive: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    recorded = json.loads((FIXTURES / f"{archive}-report.json").read_text())
    assert report_data(unpack(tmp_path, archive)) == recorded, "changed on purpose? tests/record_reports.py"


@pytest.mark.parametrize("archive", RUNNING)
def test_launch_carries_an_earlier_sweep_to_the_end_it_would_have_had(tmp_path: Path, archive: str) -> None:
    root = unpack(tmp_path, archive)
    hpcsweep(root, "launch", "sweep.yaml", "--results", "results", "--quiet")
    for name in TABLES:
        if name != "attempts":  # how often a killed run was started depends on the moment
            text = hpcsweep(root, "export", "results", "--format", "csv", "--table", name)
            expected = rows((root / "expected" / f"end-{name}.csv").read_text())
            columns = expected[0] if expected else ()
            assert [{column: row[column] for column in columns} for row in rows(text)] == expected


@pytest.mark.parametrize("archive", [archive for archive in FINISHED if not archive.endswith("every-event")])
def test_launch_finds_nothing_to_do_in_an_earlier_finished_sweep(tmp_path: Path, archive: str) -> None:
    root = unpack(tmp_path, archive)
    before: Any = read_journal(Layout(root / "results")).events
    hpcsweep(root, "launch", "sweep.yaml", "--results", "results", "--quiet")
    assert read_journal(Layout(root / "results")).events == before
