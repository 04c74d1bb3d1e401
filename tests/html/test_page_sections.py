"""Summary, failures and GPU time of hand-made journals; pages of sweeps at every stage; the verb."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from hpcsweep.cli import app
from hpcsweep.core.events import (
    AnyEvent,
    BatchAbandoned,
    BatchClosed,
    BatchPlanned,
    BatchSubmitted,
    Interruption,
    Outcome,
    RunId,
    RunsAssigned,
    SweepEnded,
    SweepOutcome,
    SweepStarted,
    TaskBegan,
    TaskLeft,
    TrialCreated,
)
from hpcsweep.core.outcomes import FACTS
from hpcsweep.html.attempts import failures, gpu_time, gpu_time_breakdown, queue_waits
from hpcsweep.html.page import page
from hpcsweep.html.sections import Block, Figure, KeyValues, Section, Table, Text
from hpcsweep.html.summary import summary
from tests.views.folders import (
    ENDED,
    TROUBLED,
    created,
    failed,
    finished,
    identity,
    interrupted,
    planned,
    written,
)

STARTED = SweepStarted("cafe01", "lr", 50.0, identity())
#: A sweep at every stage: nothing yet, a start, trials in the queue, no value, no end, an end.
STAGES: dict[str, list[AnyEvent]] = {
    "an empty journal": [],
    "only a start": [STARTED],
    "trials in the queue": [STARTED, *created(2), *planned("a", (0, 0), (1, 0))],
    "all failed": [STARTED, *created(1), *planned("a", (0, 0)), failed(0, "no"), ENDED],
    "one value": [STARTED, *created(1), *planned("a", (0, 0)), finished(0)],
    "running": TROUBLED,
    "finished": [*TROUBLED, ENDED],
}


def block(section: Section | None, kind: type[Block], nth: int = 0) -> Any:
    assert section is not None
    return [found for found in section.blocks if isinstance(found, kind)][nth]


def facts(section: Section, nth: int = 0) -> dict[str, str]:
    return dict(block(section, KeyValues, nth).rows)


# --------------------------------------------------------------------------- summary


def test_the_summary_has_the_state_and_how_to_retrain_the_best(tmp_path: Path) -> None:
    folder = tmp_path / "it's here"
    results = written(folder, [*TROUBLED, ENDED])
    (folder / "sweep.yaml").write_text("budget: {gpu_hours: 40}\n")
    section = summary(results)
    found = facts(section)
    assert found.pop("Began")
    assert found == {
        "State": "finished",
        "Best loss": "0.1",
        "Found by": "trial 0 at step 10",
        "Trials": "4",
        "Runs": "3 runs completed, 1 failed",
        "GPU-hours": "10.1 of 40 (25%)",
        "Wall time": "2.49 h",
        "Objective": "minimise loss",
        "Searcher": "random (seed 0)",
        "Scheduler": "fifo (max_resource 10)",
    }
    assert facts(section, 1) == {"lr": "0.01", "optimizer": "adam"}
    command = [found.text for found in section.blocks if isinstance(found, Text) and found.kind == "code"]
    assert command == [f"hpcsweep best '{tmp_path}/it'\"'\"'s here' --rerun"]


def test_the_summary_of_a_running_sweep_ends_at_the_newest_moment_that_is_known(tmp_path: Path) -> None:
    found = facts(summary(written(tmp_path / "r", TROUBLED)))
    assert (found["State"], found["Wall time"]) == ("running", "2.38 h")  # 5010 + 3600 - 50 s
    assert found["GPU-hours"] == "10.1"


def test_the_summary_counts_configurations_against_the_budget(tmp_path: Path) -> None:
    def trials(name: str, events: list[AnyEvent]) -> str:
        results = written(tmp_path / name, events)
        (tmp_path / name / "sweep.yaml").write_text("budget: {trials: 4}\n")
        return facts(summary(results))["Trials"]

    started = SweepStarted("cafe01", "lr", 50.0, identity() | {"repeats": 3})
    repeated = [TrialCreated(trial, {"lr": 0.1}, 0, 10, repeat=trial % 3) for trial in range(6)]
    assert trials("plain", [STARTED, *created(2)]) == "2 of 4"
    assert trials("repeats", [started, *repeated]) == (
        "6, 2 of 4 configurations, 3 repeats of each configuration"
    )
    clone = TrialCreated(2, {"lr": 0.2}, 0, 10, parent=0, start=10, origin="clone")
    assert trials("clones", [STARTED, *created(2), clone]) == "3, 2 of 4 configurations"


def test_an_ended_sweep_without_a_value_does_not_say_yet(tmp_path: Path) -> None:
    events = [STARTED, *created(1), *planned("a", (0, 0)), failed(0, "odd"), ENDED]
    assert facts(summary(written(tmp_path / "r", events)))["Best loss"] == "no value"


def test_a_sweep_without_gpus_counts_the_hours_of_its_runs(tmp_path: Path) -> None:
    array = [
        msgspec.structs.replace(e, gpus=0) if isinstance(e, BatchPlanned) else e for e in planned("a", (0, 0))
    ]
    results = written(tmp_path / "r", [STARTED, *created(1), *array, finished(0, gpu_seconds=0.0)])
    assert facts(summary(results))["Run-hours"] == "1"
    section = gpu_time(results)
    assert section is not None
    assert section.title == "Where the run time went"
    assert block(section, Figure).summary == "Of 1 run-hours: useful training 1 (100%)."


def test_the_summary_warns_of_what_stopped_a_sweep_and_of_a_refusal(tmp_path: Path) -> None:
    paused: list[AnyEvent] = [STARTED, SweepEnded(60.0, SweepOutcome.PAUSED, "three arrays died at once")]
    section = summary(written(tmp_path / "paused", paused))
    assert section.blocks[0] == Text("three arrays died at once", "warning")
    refused = [*STAGES["trials in the queue"], BatchAbandoned("a", "Invalid account")]
    section = summary(written(tmp_path / "refused", refused))
    assert section.blocks[0] == Text("Invalid account", "warning")
    assert facts(section)["Best loss"] == "no value yet"


# --------------------------------------------------------------------------- failures


def test_failures_are_counted_by_kind_and_node_with_their_messages(tmp_path: Path) -> None:
    section = failures(written(tmp_path / "r", TROUBLED))
    told = "3 attempts of 6 (50%) failed or were interrupted; 1 run failed for good. "
    assert block(section, Text).text.startswith(told)
    goes_on = "the infrastructure: resumes from its newest checkpoint"
    assert block(section, Table).rows == [
        ["crashed", 1, 1, 2.0, "the configuration: never promoted"],
        ["preempted", 1, 1, 1.0, goes_on],
        ["node failed", 1, 1, 1.0, goes_on],
    ]
    assert block(section, Table, 1).columns == [
        *("node", "attempts", "crashed", "preempted", "node failed", "of its attempts")
    ]
    assert block(section, Table, 1).rows == [["n2", 3, 1, 1, 1, "100%"]]
    assert block(section, Table, 2).rows == [
        [3, 0, "node failed", "n2", "7_3", "node is down"],
        [2, 0, "preempted", "n2", "7_2", "told to stop"],
        [1, 0, "crashed", "n2", "7_1", "ValueError: odd"],
    ]
    traces = block(section, Figure).traces
    assert [(trace["name"], trace["y"], trace["customdata"]) for trace in traces] == [
        ("crashed", ["n2"], [[1, 3]]),
        ("preempted", ["n2"], [[1, 3]]),
        ("node failed", ["n2"], [[1, 3]]),
    ]


def test_of_many_nodes_those_with_most_failures_are_shown_and_it_says_so(tmp_path: Path) -> None:
    runs = [(trial, 0) for trial in range(40)]
    ends = [failed(trial, "no", node=f"n{min(trial, 29):02}") for trial in range(40)]
    section = failures(written(tmp_path / "r", [STARTED, *created(40), *planned("a", *runs), *ends]))
    figure = block(section, Figure)
    assert figure.traces[0]["y"][0] == "n29"
    assert figure.traces[0]["x"][:2] == [100.0, 100.0]
    assert figure.traces[0]["customdata"][:2] == [[11, 11], [1, 1]]
    assert len(figure.traces[0]["y"]) == len(block(section, Table, 1).rows) == 20
    assert figure.caption.endswith("Of 30 nodes with failures, the 20 with most of them.")
    assert block(section, Table, 2).caption == "The newest 20 messages, newest first"


def test_a_sweep_in_which_all_went_well_says_so(tmp_path: Path) -> None:
    section = failures(written(tmp_path / "r", STAGES["one value"]))
    assert section is not None
    assert section.blocks == [Text("The only attempt ended well: none failed, none was interrupted.")]


# --------------------------------------------------------------------------- GPU time


def test_gpu_time_is_split_by_what_it_was_spent_on(tmp_path: Path) -> None:
    results = written(tmp_path / "r", TROUBLED)
    spent = gpu_time_breakdown(results, gpus=True)
    # Of the preempted attempt 6 of 8 steps were kept; of the one on the lost node, none.
    assert spent == {
        "useful training": 3 * 7200.0 + 0.75 * 3600.0,
        "failed runs": 7200.0,
        "lost to nodes": 3600.0,
        "lost to preemption": 0.25 * 3600.0,
        "overhead": 200.0,
    }
    assert sum(spent.values()) == results.folder.state.spent_gpu_s
    assert gpu_time_breakdown(results, gpus=False)["overhead"] == 100.0


def test_of_tasks_that_keep_their_gpus_the_time_between_runs_is_told_from_their_start_up(
    tmp_path: Path,
) -> None:
    events = [
        STARTED,
        *created(1),
        BatchPlanned("a", 100.0, ((),), 2, 1, "slurm", reuse=True),
        BatchSubmitted("a", "7", 100.0),
        TaskBegan("a", 410.0, 0, 0, 405.0),
        RunsAssigned("a", 411.0, 0, (RunId(0, 0),)),
        finished(0, started=425.0, task=0),
        TaskLeft("a", 4031.0, 0, 0, 1, 4030.0),
        BatchClosed("a", 40.0, 80.0),
    ]
    results = written(tmp_path / "r", events)
    assert gpu_time_breakdown(results, gpus=True) == {
        "useful training": 7200.0,
        "between runs": 50.0,  # 3625 s held, 3600 of them trained
        "start-up of tasks": 30.0,
    }
    assert queue_waits(results).tolist() == [305.0], "it began before its first run did"
    section = gpu_time(results)
    assert section is not None
    assert "what they hold them for before and after is start-up" in block(section, Text).text


def test_a_run_that_failed_in_the_end_makes_all_its_attempts_failed_time(tmp_path: Path) -> None:
    events = [STARTED, *created(1), *planned("a", (0, 0))]
    events += [interrupted(0, Interruption.TIMEOUT, step=4), *planned("b", (0, 0), at=3000.0)]
    going_on = written(tmp_path / "going-on", events)
    assert gpu_time_breakdown(going_on, gpus=True) == {
        "useful training": 0.0,
        "interrupted, to be resumed": 3600.0,
    }
    events += [failed(0, "no", batch="b", attempt=1, start=2)]
    events += [BatchClosed("a", 4.0, 4.0), BatchClosed("b", -1.0, -1.0)]  # billed in whole seconds
    ended = written(tmp_path / "ended", events)
    assert gpu_time_breakdown(ended, gpus=True) == {
        "useful training": 0.0,
        "failed runs": 7200.0 + 1800.0,
        "lost at time limits": 1800.0,
        "overhead": 3.0,
    }


def test_every_bad_ending_names_its_lost_time() -> None:
    for ending in [*Outcome, *Interruption]:
        assert bool(FACTS[ending].lost_time) is not FACTS[ending].ended_well


def test_queue_waits_are_from_submission_to_the_first_start_of_each_task(tmp_path: Path) -> None:
    events = [STARTED, *created(4), *planned("a", (0, 0), (1, 0), (2, 0), (3, 0))]
    events += [
        finished(0, started=170.0),
        finished(1, started=230.0, task=0),  # the second run of the same task
        finished(2, started=900.0, restart=1),  # requeued by the cluster
        failed(3, "no", started=None),
    ]
    results = written(tmp_path / "r", events)
    assert queue_waits(results).tolist() == [60.0]
    figure = block(gpu_time(results), Figure, 1)
    assert figure.summary == (
        "Half of 1 task started within 60 s of their submission, 90% within 60 s; the longest wait was 60 s."
    )
    assert sum(figure.traces[0]["y"]) == 1


# --------------------------------------------------------------------------- the page and the verb


def run(*argv: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in argv])


@pytest.mark.parametrize("stage", STAGES)
def test_a_sweep_at_any_stage_has_a_page(tmp_path: Path, stage: str) -> None:
    results = written(tmp_path / "r", STAGES[stage])
    done = run("report", tmp_path / "r")
    assert (done.exit_code, done.output) == (0, f"{tmp_path}/r/report.html\n")
    html = (tmp_path / "r/report.html").read_text()
    written_at = re.compile(r'<p class="written">Written [-0-9: ]+</p>\n|, written [-0-9: ]+')
    assert len(written_at.findall(html)) == 2
    assert written_at.sub("", html) == page(results)
    assert '<section id="summary"' in html
    assert ("lr" if STAGES[stage] else "r") in html


def test_the_page_goes_where_output_says_and_leaves_the_folder_as_it_is(tmp_path: Path) -> None:
    written(tmp_path / "r", TROUBLED)
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "r").chmod(0o555)
    target = tmp_path / "pages" / "lr.html"
    done = run("report", tmp_path / "r", "--output", target)
    assert (done.exit_code, done.output) == (0, f"{target}\n")
    assert sorted(tmp_path.rglob("*")) == sorted([*before, target.parent, target])


def test_a_report_needs_no_spec_file_no_slurm_and_no_training_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    written(tmp_path / "r", TROUBLED)
    assert not (tmp_path / "r/sweep.yaml").exists()
    assert run("report", tmp_path / "r").exit_code == 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--output", "file/x.html"], "file/x.html: cannot be written: "),
        (["--metric", "loss"], "--metric loss: expected NAME=min or NAME=max"),
        (["--metric", "loss=up"], "--metric loss=up: expected NAME=min or NAME=max"),
        (["--metric", "time=max"], "--metric time=max: no run reported it; reported are: none"),
    ],
)
def test_a_report_that_cannot_be_made_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    written(tmp_path / "r", TROUBLED)
    done = run("report", "r", *argv)
    assert (done.exit_code, done.output.startswith(f"hpcsweep: {said}")) == (2, True), done.output
    assert not Path("r/report.html").exists()


def test_a_folder_that_is_no_results_folder_has_no_report(tmp_path: Path) -> None:
    done = run("report", tmp_path)
    assert done.exit_code == 2
    assert done.output.startswith(f"hpcsweep: {tmp_path}: is not a results folder")
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_names_the_way_out(tmp_path: Path) -> None:
    written(tmp_path / "r", TROUBLED)
    (tmp_path / "r/report.html").mkdir()
    done = run("report", tmp_path / "r")
    assert done.exit_code == 2
    assert done.output == (
        f"hpcsweep: {tmp_path}/r/report.html: cannot be written: is a folder: give the name of a file; "
        "--output FILE puts it elsewhere\n"
    )


def test_a_watched_report_is_written_again_until_the_sweep_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(
        tmp_path / "r", STAGES["one value"][:-1] if STAGES["one value"][-1] == ENDED else STAGES["one value"]
    )
    target, pages, waits = tmp_path / "r/report.html", [], []

    def sweep_ends(seconds: float) -> None:
        pages.append(target.read_text())
        waits.append(seconds)
        written(tmp_path / "r", [ENDED])

    monkeypatch.setattr(importlib.import_module("hpcsweep.cli.report"), "pause", sweep_ends)
    done = run("report", tmp_path / "r", "--watch", "--every", "20")
    assert done.output == f"{target}\nthe sweep has ended (finished): written for the last time\n"
    assert waits == [20]
    assert ['id="live"' in html for html in (*pages, target.read_text())] == [True, False]
