"""What may be compacted, and what is, told from the events."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from hpcsweep.core.events import (
    AnyEvent,
    BatchAbandoned,
    BatchClosed,
    BatchPlanned,
    FilesCompacted,
    Interruption,
    Outcome,
    RunFinished,
    RunId,
    RunInterrupted,
    RunRetried,
)
from hpcsweep.store.compaction.tracker import CompactionState

A, B = RunId(0, 0), RunId(1, 0)


def planned(batch: str, *runs: RunId) -> BatchPlanned:
    return BatchPlanned(batch, 0.0, tuple((run,) for run in runs), gpus=1, throttle=1)


def ended(run: RunId, outcome: Outcome = Outcome.COMPLETED, batch: str = "b") -> RunFinished:
    return RunFinished(*run, outcome, batch=batch)


def ready(*events: AnyEvent) -> tuple[list[RunId], list[str]]:
    packing = CompactionState.replay(events)
    return list(packing.ready), list(packing.batches)


def test_a_run_is_ready_once_it_ended_well_and_its_batch_is_closed() -> None:
    events: list[AnyEvent] = [planned("b", A, B), ended(A), ended(B, Outcome.STOPPED)]
    assert ready(*events) == ([], [])
    assert ready(*events, BatchClosed("b")) == ([A, B], ["b"])


def test_runs_that_failed_or_wait_stay_raw_since_their_next_attempt_reads_what_they_reported() -> None:
    for outcome in (Outcome.FAILED, Outcome.OUT_OF_MEMORY, Outcome.LOST):
        packing = CompactionState.replay([planned("b", A), ended(A, outcome), BatchClosed("b")])
        assert (list(packing.raw), packing.ready) == ([A], {})
    interrupted = RunInterrupted(*A, Interruption.PREEMPTED, batch="b")
    assert ready(planned("b", A), interrupted, BatchClosed("b")) == ([], ["b"])


def test_a_run_that_failed_and_came_to_its_end_when_retried_is_ready() -> None:
    events: list[AnyEvent] = [planned("b", A), ended(A, Outcome.FAILED), BatchClosed("b"), RunRetried(*A)]
    events += [planned("c", A), ended(A, batch="c")]
    assert ready(*events) == ([], ["b"])
    assert ready(*events, BatchClosed("c")) == ([A], ["b", "c"])


def test_a_run_that_ended_in_one_batch_while_it_is_in_another_waits_for_that() -> None:
    events: list[AnyEvent] = [
        planned("b", A),
        RunInterrupted(*A, Interruption.LOST, batch="b"),
        planned("c", A),
    ]
    events += [ended(A, batch="b"), BatchClosed("b")]
    assert ready(*events) == ([], ["b"])
    assert ready(*events, BatchClosed("c")) == ([A], ["b", "c"])


def test_a_run_that_was_stopped_while_it_waited_is_ready_if_it_was_ever_tried() -> None:
    interrupted = RunInterrupted(*A, Interruption.PREEMPTED, batch="b")
    stopped = RunFinished(*A, Outcome.STOPPED)
    assert ready(planned("b", A), interrupted, BatchClosed("b"), stopped) == ([A], ["b"])
    assert ready(stopped) == ([], [])


def test_an_abandoned_batch_is_ready_and_its_runs_are_tried_in_another() -> None:
    events: list[AnyEvent] = [
        planned("b", A),
        BatchAbandoned("b", "refused"),
        planned("c", A),
        ended(A, batch="c"),
    ]
    assert ready(*events) == ([], ["b"])


def test_compacted_runs_are_neither_raw_nor_ready_and_replaced_parts_are_gone() -> None:
    packing = CompactionState.replay(
        [planned("b", A, B), ended(A), ended(B, Outcome.FAILED), BatchClosed("b")]
    )
    assert packing.files == 1 + 2 + 2 + 2
    packing.apply(FilesCompacted("1-1", (A,), ("b",)))
    assert (list(packing.raw), packing.ready, packing.batches) == ([B], {}, {})
    assert (list(packing.parts), packing.files) == (["1-1"], 0)
    packing.apply(FilesCompacted("1-3", (), (), ("1-1",)))
    assert (list(packing.parts), packing.recorded) == (["1-3"], {"1-1", "1-3"})


def contents(packing: CompactionState) -> dict[str, object]:
    return {key: value for key, value in vars(packing).items() if key != "_handlers"}


@given(st.lists(st.integers(0, 11), max_size=60))
def test_replay_gives_the_tracker_that_followed_the_sweep(draws: Sequence[int]) -> None:
    """Any story: batches planned and left, endings of any kind, compactions of whatever is ready."""
    live = CompactionState()
    events: list[AnyEvent] = []
    open_batches: list[str] = []
    for number, draw in enumerate(draws):
        run = RunId(draw % 3, 0)
        new: AnyEvent
        match draw % 6:
            case 0 | 1:
                new = planned(f"b{number}", run)
                open_batches.append(f"b{number}")
            case 2 if open_batches:
                name = open_batches.pop(draw % len(open_batches))
                new = BatchClosed(name) if draw < 6 else BatchAbandoned(name, "refused")
            case 3:
                new = ended(run, Outcome.COMPLETED if draw < 6 else Outcome.FAILED)
            case 4 if run in live.raw and live.raw[run] is None:
                new = RunRetried(*run)
            case 5 if live.ready or live.batches:
                new = FilesCompacted(
                    str(number), tuple(live.ready), tuple(live.batches), tuple(live.parts)[1:]
                )
            case _:
                continue
        events.append(new)
        live.apply(new)
        assert set(live.ready) <= set(live.raw)
        assert live.files == len(live.ready) + sum(live.batches.values())
    assert contents(CompactionState.replay(events)) == contents(live)
