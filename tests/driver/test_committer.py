"""The committer: what is on disk when an effect is executed, and what becomes of its result."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcsweep.core.cluster_protocol import Batch, SubmittedBatch
from hpcsweep.core.events import (
    AnyEvent,
    BatchAbandoned,
    BatchSubmitted,
    ClusterMessage,
    Event,
    PauseEnded,
    PauseRequested,
    SweepStarted,
)
from hpcsweep.core.state import SweepState
from hpcsweep.driver.config import SweepContext
from hpcsweep.driver.effects import (
    Abandon,
    Committer,
    Effect,
    EffectResult,
    Executor,
    RemoveRequest,
    Step,
    Submit,
    Throttle,
)
from hpcsweep.errors import ClusterUnavailable, SubmitLimited, SubmitRefused, SubmitUncertain, SupersededError
from hpcsweep.store.batch import Header, ManifestRun, ManifestTask, read_task
from hpcsweep.store.journal import Journal
from hpcsweep.store.journal.segments import read_journal
from hpcsweep.store.layout import BatchLayout, Layout, Skipped
from tests.doubles import PROGRAM, SHAPE, FakeClock, FolderCluster
from tests.driver.states import SETTINGS, planned

START = SweepStarted("cafe01", "s", 0.0, {})
PLANNED = planned("b1", [0])
PAUSE = PauseRequested(1.0, "enough")


class FakeExecutor(Executor):
    """Notes what is on disk and in the state whenever it acts; gives the results it was told to."""

    def __init__(self, sweep: SweepContext) -> None:
        super().__init__(sweep, _no_batch)
        self.results: dict[Effect, EffectResult] = {}
        self.seen: list[tuple[Effect, list[AnyEvent], bool]] = []

    def execute(self, effect: Effect) -> EffectResult:
        on_disk = list(read_journal(self.sweep.layout).events)
        self.seen.append((effect, on_disk, self.sweep.state.pausing is not None))
        return self.results.get(effect, EffectResult())


class Harness:
    def __init__(self, root: Path) -> None:
        layout = Layout(root)
        self.state = SweepState()
        self.journal = Journal.open(layout)
        cluster = FolderCluster(root.parent / "controller")
        self.context = SweepContext(
            self.state, SETTINGS, layout, self.journal, cluster, FakeClock(), Skipped()
        )
        self.executor = FakeExecutor(self.context)
        self.applied: list[Event] = []
        self.noted: list[tuple[Effect, EffectResult]] = []
        self.committer = Committer(
            self.context,
            self.executor,
            appliers=[self.state.apply, self.applied.append],
            observers=[lambda effect, result: self.noted.append((effect, result))],
        )
        self.committer.commit([START])

    @property
    def on_disk(self) -> list[AnyEvent]:
        return list(read_journal(self.context.layout).events)


def _no_batch(name: str) -> SubmittedBatch:
    raise AssertionError(f"nobody asks for {name}")


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path / "sweep")


def test_the_intent_is_on_disk_and_applied_before_its_effects_are_executed(harness: Harness) -> None:
    first, second = Throttle("b1", 2), RemoveRequest("r1")
    harness.committer.do(Step((PAUSE,), (first, second)))
    assert harness.executor.seen == [
        (first, [START, PAUSE], True),
        (second, [START, PAUSE], True),
    ]


def test_what_came_of_an_effect_is_on_disk_before_the_next_one_is_executed(harness: Harness) -> None:
    first, second = Abandon("b1", "refused"), RemoveRequest("r1")
    result = EffectResult((PAUSE,), SubmitLimited("too many jobs"))
    harness.executor.results[first] = result
    harness.committer.execute_all([first, second])
    assert harness.executor.seen == [(first, [START], False), (second, [START, PAUSE], True)]
    assert harness.noted == [(first, result), (second, EffectResult())]
    assert harness.applied == [START, PAUSE]


def test_a_superseded_driver_executes_nothing(harness: Harness) -> None:
    harness.journal.release()
    newer = Journal.open(harness.context.layout)
    newer.acquire()
    stale = harness.journal
    stale._fd = newer._fd  # it still believes that it is the driver
    with pytest.raises(SupersededError):
        harness.committer.do(Step((PAUSE,), (RemoveRequest("r1"),)))
    assert (harness.executor.seen, harness.on_disk, harness.applied) == ([], [START], [START])


def test_without_events_nothing_is_written(harness: Harness) -> None:
    harness.committer.commit([])
    harness.committer.do(Step())
    assert (harness.committer.commits, harness.on_disk) == (1, [START])


def test_a_restarted_committer_applies_what_earlier_sessions_wrote(harness: Harness) -> None:
    harness.committer.commit([PAUSE, PauseEnded(2.0)])
    harness.journal.release()
    later = Harness(harness.context.layout.root)
    later.applied.clear()
    later.committer.replay()
    assert later.applied == [START, PAUSE, PauseEnded(2.0)]
    assert later.committer.commits == 1


def test_a_failed_query_is_recorded_once_until_it_succeeds(harness: Harness) -> None:
    now = harness.context.now
    for error in ("no answer", "no answer", "", ""):
        harness.committer.note_query("poll", error)
    assert harness.applied == [
        START,
        ClusterMessage(now, "poll", "no answer"),
        ClusterMessage(now, "poll", ""),
    ]


def test_an_abandoned_batch_is_fenced_off_before_the_journal_says_so(tmp_path: Path) -> None:
    harness = Harness(tmp_path / "sweep")
    executor = Executor(harness.context, _no_batch)
    assert executor.execute(Abandon("b1", "refused", limited=True)) == EffectResult(
        (BatchAbandoned("b1", "refused", True),)
    )
    assert harness.context.layout.batch("b1").abandoned_marker.read_bytes() == b"refused"
    assert harness.on_disk == [START]


RUN = ManifestRun(trial=0, rung=0, bracket=0, resource=9, attempt=0, seed=1, config={"x": 0.5})


class RecordingCluster(FolderCluster):
    """Notes the manifest that is there when an array is submitted; refuses with `error` if that is set."""

    manifest: tuple[Header, ManifestTask] | None = None
    error: Exception | None = None

    def submit(self, batch: Batch) -> str:
        self.manifest = read_task(BatchLayout(batch.folder), 0)
        if self.error is not None:
            raise self.error
        return "4711"


def submit(harness: Harness, error: Exception | None) -> tuple[EffectResult, RecordingCluster]:
    context = harness.context
    cluster = RecordingCluster(context.layout.root.parent / "controller")
    cluster.error = error
    batch = Batch("b1", context.layout.batch("b1").root, 1, 4, SHAPE)
    executor = Executor(context._replace(cluster=cluster), _no_batch)
    return executor.execute(Submit(batch, HEADER, ((RUN,),))), cluster


HEADER = Header("b1", "cafe01", PROGRAM, gpus=1)


def test_the_manifest_is_on_disk_when_its_array_is_submitted(harness: Harness) -> None:
    result, cluster = submit(harness, None)
    assert result == EffectResult((BatchSubmitted("b1", "4711", harness.context.now),))
    assert cluster.manifest is not None
    header, task = cluster.manifest
    assert (header, task.runs) == (HEADER, (RUN,))


@pytest.mark.parametrize(
    ("error", "messages"),
    [
        (SubmitLimited("QOSMaxSubmitJobPerUserLimit"), []),  # the backoff deals with it
        (SubmitRefused("no such partition"), [("no such partition", True)]),
        (SubmitUncertain("timed out"), [("timed out", False)]),
        (ClusterUnavailable("no answer"), [("no answer", False)]),
    ],
)
def test_a_failed_submission_is_recorded_unless_it_met_a_limit(
    harness: Harness, error: Exception, messages: list[tuple[str, bool]]
) -> None:
    result, _ = submit(harness, error)
    now = harness.context.now
    events = tuple(ClusterMessage(now, "submit", text, "b1", refused) for text, refused in messages)
    assert result == EffectResult(events, error)


def test_a_superseded_driver_submits_nothing(harness: Harness) -> None:
    harness.journal.release()
    newer = Journal.open(harness.context.layout)
    newer.acquire()
    with pytest.raises(SupersededError):
        submit(harness, None)
