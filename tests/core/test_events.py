"""Events keep their JSON form: version 1 is written down here, and old journals are read for ever."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hpcsweep.core.events import (
    FORMAT_VERSION,
    AnyEvent,
    BatchAbandoned,
    BatchBlocked,
    BatchClosed,
    BatchPlanned,
    BatchSubmitted,
    BatchThrottled,
    CheckpointQuotaReached,
    CheckpointsDropped,
    CheckpointSizes,
    CheckpointsRemoved,
    ClusterMessage,
    ConfigsEnqueued,
    FailureKind,
    FilesCompacted,
    Interruption,
    NodeExcluded,
    Outcome,
    ParametersSuggested,
    PauseEnded,
    PauseRequested,
    PoolSkipped,
    RunFinished,
    RunId,
    RunInterrupted,
    RunReported,
    RunRetried,
    RunsAssigned,
    StopRequested,
    SweepDetached,
    SweepEnded,
    SweepExtended,
    SweepOutcome,
    SweepResumed,
    SweepStarted,
    TaskBegan,
    TaskLeft,
    TasksAllocated,
    TasksReleased,
    TickSubmitted,
    TimeUp,
    TrialCreated,
    TrialPromoted,
    TrialsExhausted,
    TrialStopped,
    WarmStartLoaded,
    classify_failure,
)
from hpcsweep.core.state import SweepState
from hpcsweep.errors import NewerFormatError
from hpcsweep.store.journal import segments
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import Layout
from hpcsweep.store.process_id import ProcessId

JOURNALS = Path(__file__).parents[1] / "store" / "journals"

#: Each event with all its fields, beside its JSON form of version 1.
WRITTEN: list[tuple[AnyEvent, dict[str, Any]]] = [
    (
        SweepStarted(
            "cafe01",
            "lr",
            1.5,
            {"objective": {"mode": "max"}},
            resolved_searcher="tpe",
            searcher_versions={"tpe": 2},
            default_time_s=3600,
            default_mem_mib=2000,
        ),
        {
            "event": "sweep_started",
            "sweep": "cafe01",
            "name": "lr",
            "at": 1.5,
            "identity": {"objective": {"mode": "max"}},
            "picked": "tpe",
            "searcher_versions": {"tpe": 2},
            "default_time_s": 3600,
            "default_mem_mib": 2000,
        },
    ),
    (
        SweepExtended(2.25, {"scheduler": {"rounds": 2}}, ("scheduler.rounds: 1 -> 2",)),
        {
            "event": "sweep_extended",
            "at": 2.25,
            "identity": {"scheduler": {"rounds": 2}},
            "changes": ["scheduler.rounds: 1 -> 2"],
        },
    ),
    (SweepResumed(2.5), {"event": "sweep_resumed", "at": 2.5}),
    (
        SweepEnded(3.5, SweepOutcome.PAUSED, "why"),
        {"event": "sweep_ended", "at": 3.5, "ending": "paused", "reason": "why"},
    ),
    (
        StopRequested(4.5, "stopped by ada", "r.json"),
        {"event": "stop_requested", "at": 4.5, "reason": "stopped by ada", "request": "r.json"},
    ),
    (
        PauseRequested(4.5, "the first 3 runs failed alike", "fail_fast"),
        {
            "event": "pause_requested",
            "at": 4.5,
            "reason": "the first 3 runs failed alike",
            "cause": "fail_fast",
        },
    ),
    (PauseEnded(4.75), {"event": "pause_ended", "at": 4.75}),
    (SweepDetached(4.5, "slurm"), {"event": "detached", "at": 4.5, "cluster": "slurm"}),
    (
        TrialCreated(3, {"lr": 1e-4, "layers": 2, "opt": "sgd", "seed": None}, 1, 27, 2, "clone", 9, 1),
        {
            "event": "trial_created",
            "trial": 3,
            "config": {"lr": 1e-4, "layers": 2, "opt": "sgd", "seed": None},
            "bracket": 1,
            "resource": 27,
            "parent": 2,
            "origin": "clone",
            "start": 9,
            "repeat": 1,
        },
    ),
    (TrialPromoted(3, 1, 81), {"event": "trial_promoted", "trial": 3, "rung": 1, "resource": 81}),
    (
        TrialStopped(3, "stopped by the user", "r.json"),
        {"event": "trial_stopped", "trial": 3, "reason": "stopped by the user", "request": "r.json"},
    ),
    (
        ParametersSuggested(
            3, 1, {"depth": {"type": "int", "low": 1, "high": 4}}, {"depth": 2}, ("width",), more_trials=True
        ),
        {
            "event": "parameters_suggested",
            "trial": 3,
            "rung": 1,
            "parameters": {"depth": {"type": "int", "low": 1, "high": 4}},
            "values": {"depth": 2},
            "unused": ["width"],
            "more_trials": True,
        },
    ),
    (
        ConfigsEnqueued(({"lr": 0.1},), "r.json"),
        {"event": "enqueued", "configs": [{"lr": 0.1}], "request": "r.json"},
    ),
    (
        WarmStartLoaded(
            "old", (({"lr": 0.1}, ((1, 0.5), (3, None))),), {"another space": 2}, (((0.5, 3.0), ()),)
        ),
        {
            "event": "known_results",
            "source": "old",
            "results": [[{"lr": 0.1}, [[1, 0.5], [3, None]]]],
            "passed_over": {"another space": 2},
            "values": [[[0.5, 3.0], []]],
        },
    ),
    (
        RunReported(3, 1, ((28, 0.5), (29, 0.25)), ((0.5, 9.0), (0.25, 9.0))),
        {
            "event": "run_reported",
            "trial": 3,
            "rung": 1,
            "reports": [[28, 0.5], [29, 0.25]],
            "values": [[0.5, 9.0], [0.25, 9.0]],
        },
    ),
    (
        TrialsExhausted("exhausted", "space"),
        {"event": "no_more_trials", "reason": "exhausted", "cause": "space"},
    ),
    (
        BatchPlanned(
            "b",
            5.5,
            ((RunId(0, 0), RunId(1, 0)), (RunId(2, 1),)),
            4,
            8,
            "slurm",
            1800,
            8,
            reuse=True,
            lanes=2,
            cpus=16,
            mem_mib=4096,
            nodes=2,
            pool="a100",
        ),
        {
            "event": "batch_planned",
            "batch": "b",
            "at": 5.5,
            "tasks": [[[0, 0], [1, 0]], [[2, 1]]],
            "gpus": 4,
            "throttle": 8,
            "cluster": "slurm",
            "time_s": 1800,
            "held": 8,
            "reuse": True,
            "lanes": 2,
            "cpus": 16,
            "mem_mib": 4096,
            "nodes": 2,
            "pool": "a100",
        },
    ),
    (BatchSubmitted("b", "4711", 6.5), {"event": "batch_submitted", "batch": "b", "job": "4711", "at": 6.5}),
    (
        TaskBegan("b", 6.5, 1, 2, started=6.25, ends=99.5, node="n1", job="4711_1"),
        {
            "event": "task_began",
            "batch": "b",
            "at": 6.5,
            "task": 1,
            "restart": 2,
            "started": 6.25,
            "ends": 99.5,
            "node": "n1",
            "job": "4711_1",
        },
    ),
    (
        RunsAssigned("b", 6.5, 1, (RunId(3, 1), RunId(4, 0)), restart=2, number=5, time_s=60),
        {
            "event": "runs_assigned",
            "batch": "b",
            "at": 6.5,
            "task": 1,
            "runs": [[3, 1], [4, 0]],
            "restart": 2,
            "number": 5,
            "time_s": 60,
        },
    ),
    (
        TaskLeft("b", 7.5, 1, 2, taken=6, left=7.25, reason="no run for 120 s", failed=True),
        {
            "event": "task_left",
            "batch": "b",
            "at": 7.5,
            "task": 1,
            "restart": 2,
            "taken": 6,
            "left": 7.25,
            "reason": "no run for 120 s",
            "failed": True,
        },
    ),
    (
        TasksAllocated("b", (0, 2), 4),
        {"event": "tasks_allocated", "batch": "b", "tasks": [0, 2], "gpus": 4},
    ),
    (BatchThrottled("b", 2), {"event": "batch_throttled", "batch": "b", "throttle": 2}),
    (
        BatchAbandoned("b", "refused", over_limit=True),
        {"event": "batch_abandoned", "batch": "b", "reason": "refused", "limited": True},
    ),
    (
        BatchBlocked("b", "2 tasks: PartitionTimeLimit", 4.5),
        {"event": "batch_hindered", "batch": "b", "reason": "2 tasks: PartitionTimeLimit", "at": 4.5},
    ),
    (TimeUp(9.0, False), {"event": "time_up", "at": 9.0, "up": False}),
    (
        ClusterMessage(9.0, "submit", "no jobs tonight", "b", True),
        {
            "event": "cluster_said",
            "at": 9.0,
            "asked": "submit",
            "words": "no jobs tonight",
            "batch": "b",
            "refused": True,
        },
    ),
    (
        BatchClosed("b", 1.5, 6.0, "setup failed"),
        {
            "event": "batch_closed",
            "batch": "b",
            "seconds": 1.5,
            "gpu_seconds": 6.0,
            "message": "setup failed",
        },
    ),
    (TasksReleased("b", (0, 3)), {"event": "tasks_released", "batch": "b", "tasks": [0, 3]}),
    (
        TickSubmitted("4712", 7.5, "b"),
        {"event": "tick_submitted", "job": "4712", "at": 7.5, "batch": "b"},
    ),
    (
        NodeExcluded("n1", 7.5, 3607.5, "3 trials failed there"),
        {
            "event": "node_excluded",
            "node": "n1",
            "at": 7.5,
            "until": 3607.5,
            "reason": "3 trials failed there",
        },
    ),
    (
        PoolSkipped("a100", 7.5, "its gpu_hours are used up", spent=True),
        {
            "event": "pool_skipped",
            "pool": "a100",
            "at": 7.5,
            "reason": "its gpu_hours are used up",
            "spent": True,
        },
    ),
    (
        RunFinished(
            3,
            1,
            Outcome.OUT_OF_MEMORY,
            value=0.5,
            step=81,
            start=27,
            attempt=2,
            restart=1,
            batch="b",
            task=4,
            seconds=7.5,
            gpu_seconds=30.0,
            started=8.5,
            node="n1",
            job="4711_4",
            message="killed",
            failure=FailureKind.CRASHED,
            warning="it trained on",
            peak_mib=312,
            unit_seconds=0.25,
            checkpoints=CheckpointSizes(200, 4, 100, 2),
            values=(0.5, 3.0),
        ),
        {
            "event": "run_finished",
            "trial": 3,
            "rung": 1,
            "outcome": "out_of_memory",
            "value": 0.5,
            "step": 81,
            "start": 27,
            "attempt": 2,
            "restart": 1,
            "batch": "b",
            "task": 4,
            "seconds": 7.5,
            "gpu_seconds": 30.0,
            "started": 8.5,
            "node": "n1",
            "job": "4711_4",
            "message": "killed",
            "failure": "crashed",
            "warning": "it trained on",
            "peak_mib": 312,
            "unit_seconds": 0.25,
            "checkpoints": [200, 4, 100, 2],
            "values": [0.5, 3.0],
        },
    ),
    (
        RunInterrupted(
            3,
            1,
            Interruption.NODE_FAIL,
            attempt=2,
            restart=1,
            batch="b",
            task=4,
            start=27,
            requeued=True,
            progressed=True,
            step=54,
            seconds=7.5,
            gpu_seconds=30.0,
            node="n1",
            job="4711_4",
            message="gone",
            peak_mib=312,
            unit_seconds=0.25,
            mem_mib=200,
            guessed=True,
            checkpoints=CheckpointSizes(200, 4, 100, 2),
            started=9.5,
        ),
        {
            "event": "run_interrupted",
            "trial": 3,
            "rung": 1,
            "why": "node_fail",
            "attempt": 2,
            "restart": 1,
            "batch": "b",
            "task": 4,
            "start": 27,
            "requeued": True,
            "progressed": True,
            "step": 54,
            "seconds": 7.5,
            "gpu_seconds": 30.0,
            "node": "n1",
            "job": "4711_4",
            "message": "gone",
            "peak_mib": 312,
            "unit_seconds": 0.25,
            "mem_mib": 200,
            "guessed": True,
            "checkpoints": [200, 4, 100, 2],
            "started": 9.5,
        },
    ),
    (
        RunRetried(3, 1, "r.json"),
        {"event": "run_retried", "trial": 3, "rung": 1, "request": "r.json"},
    ),
    (
        FilesCompacted("3-2", (RunId(0, 0), RunId(2, 1)), ("b",), ("3-1",)),
        {
            "event": "compacted",
            "part": "3-2",
            "runs": [[0, 0], [2, 1]],
            "batches": ["b"],
            "replaces": ["3-1"],
        },
    ),
    (CheckpointsDropped((3, 5)), {"event": "checkpoints_dropped", "trials": [3, 5]}),
    (
        CheckpointsRemoved((3, 5), had_files=(3,), files=2, bytes=1024),
        {"event": "checkpoints_removed", "trials": [3, 5], "had": [3], "files": 2, "bytes": 1024},
    ),
    (
        CheckpointQuotaReached(7.5, "58 MB held", bytes=58, files=2),
        {"event": "checkpoint_quota_reached", "at": 7.5, "message": "58 MB held", "bytes": 58, "files": 2},
    ),
]

#: The least that version 1 may hold of the events that have fields with defaults.
SHORTEST: list[tuple[AnyEvent, dict[str, Any]]] = [
    (StopRequested(1.0, "own"), {"event": "stop_requested", "at": 1.0, "reason": "own"}),
    (
        TrialCreated(0, {}, 0, 1),
        {"event": "trial_created", "trial": 0, "config": {}, "bracket": 0, "resource": 1},
    ),
    (
        BatchPlanned("b", 1.0, ((RunId(0, 0),),), 1, 1),
        {"event": "batch_planned", "batch": "b", "at": 1.0, "tasks": [[[0, 0]]], "gpus": 1, "throttle": 1},
    ),
    (TaskBegan("b", 1.0, 0), {"event": "task_began", "batch": "b", "at": 1.0, "task": 0}),
    (TaskLeft("b", 1.0, 0), {"event": "task_left", "batch": "b", "at": 1.0, "task": 0}),
    (
        RunsAssigned("b", 1.0, 0, (RunId(0, 0),)),
        {"event": "runs_assigned", "batch": "b", "at": 1.0, "task": 0, "runs": [[0, 0]]},
    ),
    (BatchAbandoned("b", "refused"), {"event": "batch_abandoned", "batch": "b", "reason": "refused"}),
    (BatchClosed("b"), {"event": "batch_closed", "batch": "b"}),
    (TickSubmitted("4712", 7.5), {"event": "tick_submitted", "job": "4712", "at": 7.5}),
    (RunRetried(0, 0), {"event": "run_retried", "trial": 0, "rung": 0}),
    (FilesCompacted("3-1"), {"event": "compacted", "part": "3-1"}),
    (
        RunFinished(0, 0, Outcome.COMPLETED),
        {"event": "run_finished", "trial": 0, "rung": 0, "outcome": "completed"},
    ),
    (
        RunInterrupted(0, 0, Interruption.LOST),
        {"event": "run_interrupted", "trial": 0, "rung": 0, "why": "lost"},
    ),
]


def test_the_written_forms_cover_every_event_and_every_field() -> None:
    assert [type(event) for event, _ in WRITTEN] == list(AnyEvent.__args__)
    for event, form in WRITTEN:
        missing = set(event.__struct_encode_fields__) - set(form)
        assert missing == ({"version"} if isinstance(event, SweepStarted) else set())


@pytest.mark.parametrize(("event", "form"), [*WRITTEN, *SHORTEST], ids=lambda e: type(e).__name__)
def test_an_event_is_written_as_in_version_1_and_read_back(event: AnyEvent, form: dict[str, Any]) -> None:
    text = msgspec.json.encode(event)
    assert json.loads(text) == form
    assert msgspec.json.decode(text, type=AnyEvent) == event
    assert msgspec.json.decode(json.dumps(form), type=AnyEvent) == event


@pytest.mark.parametrize(
    ("outcome", "told", "message", "expected"),
    [
        (Outcome.COMPLETED, None, "", None),
        (Outcome.STOPPED, None, "median: at step 3", None),
        (Outcome.OUT_OF_MEMORY, None, "killed", FailureKind.OUT_OF_MEMORY),
        (Outcome.LOST, None, "given up", FailureKind.LOST),
        (Outcome.CANCELLED, None, "by its owner", FailureKind.CANCELLED),
        (Outcome.FAILED, FailureKind.NOT_FINITE, "whatever", FailureKind.NOT_FINITE),
        # Journals of earlier versions have the message alone.
        (Outcome.FAILED, None, "ValueError: odd", FailureKind.CRASHED),
        (Outcome.FAILED, None, "", FailureKind.CRASHED),
        (Outcome.FAILED, None, "metric 'loss' is nan at step 9", FailureKind.NOT_FINITE),
        (Outcome.FAILED, None, "metric 'loss' is -inf at step 9", FailureKind.NOT_FINITE),
        (
            Outcome.FAILED,
            None,
            "metric 'loss' is inf at step 9, and at no step finite",
            FailureKind.NOT_FINITE,
        ),
        (Outcome.FAILED, None, "metric 'loss' was never reported; nothing was", FailureKind.NEVER_REPORTED),
        (
            Outcome.FAILED,
            None,
            "metric 'loss' was not reported after step 3, where this run went on from a checkpoint, up to 9",
            FailureKind.NEVER_REPORTED,
        ),
        (
            Outcome.FAILED,
            None,
            'metric "it\'s" was reported only for steps beyond the resource 9, first for 12',
            FailureKind.NEVER_REPORTED,
        ),
        (Outcome.FAILED, None, "ValueError: metric 'loss' is nan at step 9", FailureKind.CRASHED),
    ],
)
def test_failures_of_old_journals_are_classified_by_their_message(
    outcome: Outcome, told: FailureKind | None, message: str, expected: FailureKind | None
) -> None:
    assert classify_failure(outcome, told, message) is expected
    assert RunFinished(0, 0, outcome, message=message, failure=told).failure_kind is expected


@pytest.mark.parametrize("kind", [Outcome, Interruption, SweepOutcome, FailureKind])
def test_failure_messages_of_version_1_are_still_classified(kind: type[Any]) -> None:
    words = {
        Outcome: "completed failed out_of_memory lost stopped cancelled",
        Interruption: (
            "preempted timeout node_fail cancelled cancelled_by_admin training_error never_started "
            "worker_died lost not_started sweep_stopped out_of_memory"
        ),
        SweepOutcome: "finished stopped failed paused",
        FailureKind: "crashed not_finite never_reported unreadable out_of_memory lost cancelled",
    }
    assert {word.value for word in kind} == set(words[kind].split())


def test_a_field_of_a_later_version_is_ignored() -> None:
    text = b'{"event":"batch_closed","batch":"b","colour":"blue"}'
    assert msgspec.json.decode(text, type=AnyEvent) == BatchClosed("b")


# --------------------------------------------------------------------------- whole journals


def kept(tmp_path: Path, version: int) -> Layout:
    shutil.copytree(JOURNALS / f"v{version}", tmp_path / "journal")
    return Layout(tmp_path)


def summary(state: SweepState) -> dict[str, Any]:
    return {
        "counts": {status.value: count for status, count in state.counts.items()},
        "best": [state.best.trial, state.best.rung, state.best.value] if state.best else None,
        "spent_gpu_s": state.spent_gpu_s,
        "interruptions": state.interruptions,
        "live": sorted(state.live),
        "waiting": [str(run) for run in state.waiting],
        "requests": sorted(state.requests),
        "ended": msgspec.to_builtins(state.ended),
        "trials": [
            {
                "config": trial.config,
                "bracket": trial.bracket,
                "runs": [
                    [run.rung, run.resource, run.status.value, run.submissions, run.value]
                    for run in trial.runs
                ],
            }
            for trial in state.trials
        ],
    }


def test_every_version_has_a_kept_journal() -> None:
    assert sorted(path.name for path in JOURNALS.iterdir()) == [
        f"v{version}" for version in range(1, FORMAT_VERSION + 1)
    ]


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_a_kept_journal_is_read_and_folds_to_the_state_it_had(tmp_path: Path, version: int) -> None:
    layout = kept(tmp_path, version)
    state = SweepState.replay(read_journal(layout).events)
    assert summary(state) == json.loads((layout.journal / "expected.json").read_text())


def test_a_journal_of_a_newer_version_asks_for_an_upgrade(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.journal.mkdir()
    header = segments.Header(1, ProcessId("n1", "ada", 1, "boot", 1), 0.0, version=FORMAT_VERSION + 1)
    path = layout.journal / "000001.jsonl"
    path.write_bytes(segments.encode_line(header))
    with pytest.raises(NewerFormatError) as caught:
        read_journal(layout)
    assert str(caught.value) == (
        f"{path}: written by a newer hpcsweep (format version {FORMAT_VERSION + 1}, "
        f"this one reads up to {FORMAT_VERSION}): upgrade hpcsweep here"
    )
