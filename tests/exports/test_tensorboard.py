"""`export --format tensorboard`, read back by TensorBoard itself."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from werkzeug.test import Client

import hpcsweep
from hpcsweep.core.events import AnyEvent, Outcome, RunFinished, TrialCreated
from hpcsweep.errors import FolderError
from hpcsweep.exports.tensorboard import write_tensorboard
from tests.exports.exported import (
    CONFIGS,
    EVENTS,
    SHOWN_NAMES,
    TRIALS,
    exported,
    oddly_named,
    simulated,
)

with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of what it has bundled
    from tensorboard.plugins.hparams.hparams_plugin import HParamsPlugin

STATUSES = ("STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING")


class Board:
    """What TensorBoard has read of a folder."""

    def __init__(self, folder: Path) -> None:
        self.events = EventMultiplexer()
        self.events.AddRunsFromDirectory(str(folder))
        self.events.Reload()
        provider = MultiplexerDataProvider(self.events, str(folder))
        self._pages = HParamsPlugin(TBContext(data_provider=provider)).get_plugin_apps()

    def asked(self, page: str, **request: Any) -> Any:
        """What the page of the hparams plugin asks for, and is given."""
        answer = Client(self._pages[page]).post(json={"experimentName": ""} | request)
        assert answer.status_code == 200
        return answer.json

    def experiment(self) -> Any:
        return self.asked("/experiment")

    def groups(self, **request: Any) -> list[Any]:
        asked = {"allowedStatuses": STATUSES, "startIndex": 0, "sliceSize": 100} | request
        groups: list[Any] = self.asked("/session_groups", **asked)["sessionGroups"]
        return groups

    def curve(self, run: str, tag: str) -> list[tuple[int, float, float]]:
        """Step, value and wall time."""
        events = self.events.Tensors(run, tag)
        return [(e.step, round(float(e.tensor_proto.float_val[0]), 6), e.wall_time) for e in events]


def board(folder: Path, output: Path) -> Board:
    write_tensorboard(hpcsweep.load(folder), output)
    return Board(output)


@pytest.fixture
def shown(tmp_path: Path) -> Board:
    return board(exported(tmp_path), tmp_path / "tb")


def test_the_table_s_columns_are_the_parameters_with_their_domains_and_the_metrics(shown: Board) -> None:
    experiment = shown.experiment()
    assert experiment["name"] == "lr"
    assert experiment["description"] == "lr: sweep/value is the objective, min loss"
    told = ("type", "domainInterval", "domainDiscrete")
    columns = {info["name"]: [info[key] for key in told if key in info] for info in experiment["hparamInfos"]}
    assert columns == {
        "lr": ["DATA_TYPE_FLOAT64", {"minValue": 1e-12, "maxValue": 1.0}],
        "drop": ["DATA_TYPE_FLOAT64", {"minValue": 0.0, "maxValue": 0.55}],
        "width": ["DATA_TYPE_FLOAT64", [64.0, 128.0]],
        "layers": ["DATA_TYPE_STRING", ["[64,64]", "[128]", "none", "3", "null"]],
        "flag": ["DATA_TYPE_STRING", ["=1+1", "-O2", "@x"]],
        "nesterov": ["DATA_TYPE_BOOL", [True, False]],
        "warmup": ["DATA_TYPE_FLOAT64", {"minValue": 1.0, "maxValue": 9.0}],
        "data": ["DATA_TYPE_STRING", ["digits"]],
    }
    assert [info["name"] for info in experiment["hparamInfos"] if not info["differs"]] == ["data"]
    tags = [info["name"]["tag"] for info in experiment["metricInfos"]]
    assert tags == ["sweep/value", "sweep/resource", "loss", "acc"]


def test_the_table_has_a_row_for_each_trial_with_its_values_and_how_it_ended(shown: Board) -> None:
    rows = {group["name"]: group for group in shown.groups()}
    assert list(rows) == [f"trial-0000{n}" for n in range(5)]
    as_text = {"layers": ["[64,64]", "[128]", "none", "3", "null"]}
    for n, (row, config) in enumerate(zip(rows.values(), CONFIGS, strict=True)):
        assert row["hparams"] == config | {"layers": as_text["layers"][n]}
        assert len(row["sessions"]) == 1
    statuses = [row["sessions"][0]["status"] for row in rows.values()]
    success, failure = "STATUS_SUCCESS", "STATUS_FAILURE"
    assert statuses == [success, success, failure, success, "STATUS_UNKNOWN"]
    times = [
        (session["startTimeSecs"], session["endTimeSecs"])
        for session in (row["sessions"][0] for row in rows.values())
    ]
    assert times == [(1200.0, 1440.0), (1200.0, 1230.0), (1200.0, 1210.0), (1200.0, 1220.0), (1300.0, 0.0)]
    last = {
        value["name"]["tag"]: (value["trainingStep"], round(value["value"], 6))
        for value in rows["trial-00000"]["metricValues"]
    }
    assert last == {
        "sweep/value": (9, 0.2),
        "sweep/resource": (9, 9.0),
        "loss": (9, 0.111111),
        "acc": (2, 0.2),
    }


def test_rows_are_sorted_and_filtered_as_the_page_asks(shown: Board) -> None:
    order = [{"metric": {"tag": "sweep/value"}, "order": "ORDER_DESC", "missingValuesFirst": False}]
    names = [group["name"] for group in shown.groups(colParams=order)]
    assert names[:3] == ["trial-00001", "trial-00003", "trial-00000"]
    only = [{"hparam": "nesterov", "filterDiscrete": [True], "excludeMissingValues": True}]
    names = [group["name"] for group in shown.groups(colParams=only)]
    assert names == ["trial-00000", "trial-00002"]


def test_curves_go_through_all_rungs_with_each_step_once_and_times_within_their_run(shown: Board) -> None:
    curve = shown.curve("trial-00000", "loss")
    assert [(step, value) for step, value, _ in curve] == [(n, round(1 / n, 6)) for n in range(1, 10)]
    times = [time for *_, time in curve]
    assert times == sorted(times)
    assert times[:2] == [1210.0, 1220.0]
    assert times[-1] == 1440.0
    assert 1300.0 < times[3] < 1400.0
    values = [(step, value, time) for step, value, time in shown.curve("trial-00000", "sweep/value")]
    assert values == [(3, 0.5, 1230.0), (9, 0.2, 1440.0)]
    assert shown.curve("trial-00003", "sweep/resource") == [(2, 2.0, 1220.0)]
    assert shown.curve("trial-00001", "acc") == [(3, float("inf"), 1230.0)]
    assert shown.curve("trial-00004", "loss") == [(1, 0.7, 1300.0)]
    assert "loss" not in shown.events.Runs()["trial-00002"]["tensors"]


def test_tags_are_printable_and_none_is_taken_for_another(tmp_path: Path) -> None:
    shown = board(oddly_named(tmp_path), tmp_path / "tb")
    meant = {name: f"{name} (2)" for name in ("sweep/value", "_hparams_/experiment")}
    tags = [meant.get(name, name) for name in SHOWN_NAMES]
    runs = shown.events.Runs()["trial-00000"]["tensors"]
    ours = {"_hparams_/session_start_info", "_hparams_/session_end_info", "sweep/value", "sweep/resource"}
    assert set(runs) == {*tags, "loss", "acc", *ours}
    experiment = shown.experiment()
    assert experiment["description"] == r"lr: sweep/value is the objective, min lo\x1bss"
    told = {info["name"]["tag"] for info in experiment["metricInfos"]}
    assert told == {*tags, "loss", "acc", "sweep/value", "sweep/resource"}
    assert [shown.curve("trial-00000", tag)[0][:2] for tag in tags] == [(1, n) for n in range(len(tags))]
    assert sorted(path.name for path in (tmp_path / "tb").iterdir() if path.is_dir()) == [
        f"trial-0000{n}" for n in range(5)
    ]


def test_a_simulated_sweep_says_so(tmp_path: Path) -> None:
    experiment = board(simulated(tmp_path), tmp_path / "tb").experiment()
    assert experiment["name"] == "lr (simulated)"
    assert experiment["description"] == (
        "lr: sweep/value is the objective, min loss; simulated by `hpcsweep simulate`: nothing was trained, "
        "and times are virtual"
    )


def test_repeats_of_a_configuration_are_one_row_with_their_mean(tmp_path: Path) -> None:
    events: list[AnyEvent] = [
        *(TrialCreated(n, CONFIGS[0], 0, 3, repeat=n) for n in range(2)),
        *(RunFinished(n, 0, Outcome.COMPLETED, 0.5 + n, 3, started=1200.0) for n in range(2)),
    ]
    folder = exported(tmp_path, events=events, more=["repeats=2"])
    (row,) = board(folder, tmp_path / "tb").groups()
    assert row["name"] == "trial-00000"
    assert [session["name"] for session in row["sessions"]] == ["trial-00000", "trial-00001"]
    assert [v["value"] for v in row["metricValues"] if v["name"]["tag"] == "sweep/value"] == [1.0]


def test_a_second_export_replaces_the_first_and_nothing_else(tmp_path: Path) -> None:
    folder, output = exported(tmp_path), tmp_path / "tb"
    output.mkdir()
    stale = "events.out.tfevents.1000000000.1.hpcsweep"
    write_tensorboard(hpcsweep.load(folder), output)
    for run in (".", "trial-00000", "trial-00001"):  # as a process of long ago left them
        (file,) = (output / run).glob("events.out.tfevents.*")
        file.rename(file.with_name(stale))
    own = [output / "trial-00000" / "events.out.tfevents.1.mine", output / "notes.txt", output / "mine" / "a"]
    own[2].parent.mkdir()
    for path in own:
        path.write_bytes(b"")
    shown = board(folder, output)
    assert all(path.exists() for path in own)
    assert list(output.rglob(stale)) == []
    assert len(list(output.rglob("*.hpcsweep"))) == 6
    assert len(shown.curve("trial-00000", "loss")) == 9
    assert len(shown.groups()) == 5


def test_trials_no_longer_in_the_folder_are_removed_from_an_export(tmp_path: Path) -> None:
    output = tmp_path / "tb"
    for name, events in (("many", EVENTS), ("few", TRIALS[:2])):
        (tmp_path / name).mkdir()
        write_tensorboard(hpcsweep.load(exported(tmp_path / name, events=events)), output)
    assert sorted(path.name for path in output.iterdir() if path.is_dir()) == ["trial-00000", "trial-00001"]


def test_a_folder_that_is_no_export_is_not_replaced(tmp_path: Path) -> None:
    output = tmp_path / "tb"
    output.mkdir()
    (output / "thesis.tex").write_text("words")
    said = "is not empty and holds no earlier export (there is thesis.tex): give a new folder with --output"
    with pytest.raises(FolderError, match=re.escape(f"{output}: {said}")):
        write_tensorboard(hpcsweep.load(exported(tmp_path)), output)
    assert [path.name for path in output.iterdir()] == ["thesis.tex"]
    with pytest.raises(FolderError, match=r"thesis\.tex: is a file: give a folder with --output"):
        write_tensorboard(hpcsweep.load(tmp_path / "s"), output / "thesis.tex")
    assert (output / "thesis.tex").read_text() == "words"


def test_a_sweep_without_trials_is_an_error(tmp_path: Path) -> None:
    folder = exported(tmp_path, events=())
    with pytest.raises(FolderError, match="nothing to export: no trial has been started yet"):
        write_tensorboard(hpcsweep.load(folder), tmp_path / "tb")
    assert not (tmp_path / "tb").exists()
